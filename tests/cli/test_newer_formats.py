"""What a newer Seeknal wrote is refused as that by whoever reads it, and never repaired, replaced or collected."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import sqlite3
from pathlib import Path

import pytest

from seeknal.store.filesystem import digest_bytes
from seeknal.store.objects import FORMAT_VERSIONS, FailedNodes, encode
from tests.acceptance.project import Project
from tests.reliability.lived_in import FILES, live, store_of

STORE = "target/store/"

# Every kind of file with a format → one of them (the first that a pattern finds), and commands that read it.
READERS = {
    "format": (f"{STORE}format", ("run", "plan", "plan dev", "env list", "gc", "repl --exec x", "rollback prod")),
    "tree": (f"{STORE}trees/PRODUCTION", ("run", "plan", "gc", "inspect big")),
    "snapshot": (f"{STORE}snapshots/PRODUCTION", ("run", "plan", "gc", "env history prod", "inspect big")),
    "manifest": (f"{STORE}manifests/PRODUCTION.json", ("run", "plan", "diff")),
    "action": (f"{STORE}actions/ACTIONS", ("run",)),
    "checks": (f"{STORE}checks/*/*", ()),
    "deliveries": (f"{STORE}deliveries/prod", ("run",)),
    "failed-nodes": (f"{STORE}failed/trial", ("gc",)),
    "environment": (f"{STORE}environments/dev", ("run --env dev", "plan dev", "promote dev", "gc")),
    "pin": (f"{STORE}pins/*", ("gc",)),
    "history-ends": (f"{STORE}notes/history_ends", ()),
    "losses": (f"{STORE}notes/losses", ("gc",)),
    "run record": ("target/runs/*.json", ("migrate-state -b database",)),
    "database of runs": ("target/state.db", ("run", "migrate-state -b file")),
}

# What is only remembered to be faster: below memo/.
PASSED_OVER = {"file-memo", "memo", "python", "settled"}

COMMANDS = ("store verify", "store verify --repair", "env list", "plan", "plan dev", "gc", "run", "rollback prod")


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> Project:
    project = live(tmp_path_factory.mktemp("lived") / "shop")
    (project.root / STORE / "failed").mkdir(exist_ok=True)
    (project.root / STORE / "failed/trial").write_bytes(encode(FailedNodes({})))
    return project


@pytest.fixture
def project(lived: Project, tmp_path: Path) -> Project:
    return Project(Path(shutil.copytree(lived.root, tmp_path / "shop", symlinks=True)))


def files_named(project: Project, pattern: str) -> list[Path]:
    store = store_of(project)
    head = store.refs.read("prod")
    assert head is not None
    snapshot = store.read_snapshot(head)
    if pattern.endswith("ACTIONS"):
        # What the run that comes looks for: outputs of an earlier version of the files.
        first = next(move.new for move in store.refs.log("prod") if move.new)
        trees = [store.read_tree(store.read_snapshot(digest).tree) for digest in (first, head)]
        then, now = ({node.fingerprint for node in tree.nodes.values()} for tree in trees)
        return [project.root / STORE / "actions" / name[:2] / name[2:] for name in then - now]
    named = {"trees": snapshot.tree, "snapshots": head, "manifests": snapshot.manifest}
    pattern = pattern.replace("PRODUCTION", named.get(Path(pattern).parent.name, ""))
    return sorted(project.root.glob(pattern))[:1]


def newer(path: Path) -> None:
    """Let a file be one of the next version: its header or field says so, and its digest is by other rules."""
    path.chmod(0o644)
    if path.suffix == ".db":
        with sqlite3.connect(path) as connection:
            connection.execute("UPDATE format SET version = version + 1")
        connection.close()
        return
    data = path.read_bytes()
    header, _, body = data.partition(b"\n")
    if found := re.fullmatch(rb"seeknal ([a-z-]+) ([0-9]+) .*", header):
        head = f"seeknal {found[1].decode()} {int(found[2]) + 1} {digest_bytes(b'by other rules' + body)}"
        path.write_bytes(f"{head}\n".encode() + body)
        return
    document = json.loads(data)
    said = document if "schema_version" in document else document["metadata"]
    said["schema_version"] += 1
    path.write_text(json.dumps(document))


def files_of(project: Project) -> dict[str, str]:
    """All that is kept: not what is remembered to be faster, nor locks."""
    found = {}
    for path in sorted(project.root.rglob("*")):
        name = path.relative_to(project.root).as_posix()
        passing = name.startswith((f"{STORE}memo", f"{STORE}locks", f"{STORE}leases", f"{STORE}tmp"))
        # The manifest of the files as they are now may be written again, with the time of that.
        passing = passing or "manifest" in name
        if path.is_file() and not passing and not name.endswith((".lock", "-wal", "-shm")):
            found[name] = hashlib.md5(path.read_bytes()).hexdigest()
    return found


def test_every_format_has_its_row() -> None:
    known = {kind for kind, _ in FORMAT_VERSIONS.values()}
    assert known <= READERS.keys() | PASSED_OVER | {"store"}, known - READERS.keys()


@pytest.mark.parametrize("kind", READERS)
def test_what_a_newer_seeknal_wrote_is_refused_as_that_and_left_alone(project: Project, kind: str) -> None:
    pattern, readers = READERS[kind]
    if kind == "database of runs":
        project.ok("migrate-state", "-b", "database", "--no-dry-run")
    paths = files_named(project, pattern)
    if kind == "action":
        project.write("seeknal/big.yml", FILES["seeknal/big.yml"])
    for path in paths:
        newer(path)
    (before, kept) = files_of(project), {path: path.read_bytes() for path in paths}
    for command in (*COMMANDS[:2], *readers):
        answer = project.seeknal(*command.split())
        assert answer.code == 12, answer.text
        assert "newer Seeknal" in answer.text, answer.text
        assert "upgrade Seeknal" in answer.text or command.startswith("store"), answer.text
        assert "damaged" not in answer.text.replace("damaged and", ""), answer.text
        assert files_of(project) == before, command
    for command in COMMANDS:
        assert "Traceback" not in project.seeknal(*command.split()).text
        assert {path: path.read_bytes() for path in paths} == kept, command
