"""Bit rot: whatever happens to the files of a store, it is found, never served as data, and healed.

- *folder*: the part of the store whose files are damaged; 20 % of them, at least one.
- *way*: what is done to a file. A seed chooses files, ways and places.

For each seed, three things are held against what the project held before (its truth): `store verify` says what is hurt;
every query, run, promotion and rollback gives the right rows or one clear line; and `store verify --repair` with the
next runs brings everything back, with the same bytes.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from seeknal.store.store import Store
from seeknal.workflow.outputs import read_outputs
from tests.acceptance.project import Answer, Project
from tests.reliability.lived_in import (
    STATES,
    Truth,
    live,
    read_rows,
    read_what_can_be_read,
    store_of,
    truth_of,
    try_something_else,
)

SHARE = 0.2
PAGE_BYTES = 512

# Which folders are damaged together.
PARTS: dict[str, tuple[str, ...]] = {
    "blobs": ("blobs",),
    "action records": ("actions",),
    "trees": ("trees",),
    "snapshots and manifests": ("snapshots", "manifests"),
    "refs and their logs": ("refs",),
    "records of environments, checks, deliveries, pins": ("environments", "checks", "deliveries", "pins", "notes"),
    "memory and leases": ("memo", "leases"),
    "everything": (
        *("blobs", "actions", "trees", "snapshots", "manifests", "refs", "environments", "checks"),
        *("deliveries", "pins", "notes", "memo", "leases", "format"),
    ),
}


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> tuple[Project, Truth]:
    project = live(tmp_path_factory.mktemp("lived") / "shop")
    return project, truth_of(project)


# damage


def truncated(data: bytes, chance: random.Random) -> bytes:
    return data[: chance.randrange(len(data))]


def bit_flipped(data: bytes, chance: random.Random) -> bytes:
    changed = bytearray(data)
    changed[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    return bytes(changed)


def page_zeroed(data: bytes, chance: random.Random) -> bytes:
    start = chance.randrange((len(data) - 1) // PAGE_BYTES + 1) * PAGE_BYTES
    zeros = b"\0" * len(data[start : start + PAGE_BYTES])
    return data[:start] + zeros + data[start + PAGE_BYTES :]


def replaced(data: bytes, chance: random.Random) -> bytes:
    return chance.randbytes(len(data))


def appended(data: bytes, chance: random.Random) -> bytes:
    return data + chance.randbytes(chance.randrange(1, 40))


WAYS: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "truncated": truncated,
    "a bit flipped": bit_flipped,
    "a page zeroed": page_zeroed,
    "replaced": replaced,
    "bytes appended": appended,
}


def rot(store: Store, folders: tuple[str, ...], chance: random.Random) -> dict[Path, str]:
    """Damage some files of these folders; gives what was done to which. What changed nothing is not told."""
    found = [path for folder in folders for path in [store.root / folder, *(store.root / folder).rglob("*")]]
    # Their names differ from time to time; the order in which they were written does not.
    files = sorted(
        (path for path in found if path.is_file() and path.suffix != ".lock"),
        key=lambda path: (path.relative_to(store.root).parts[0], path.stat().st_mtime_ns, path.suffix),
    )
    done: dict[Path, str] = {}
    for path in chance.sample(files, max(1, round(SHARE * len(files)))):
        way = chance.choice([*WAYS, "deleted", "taken from another", "made writable"])
        mode, before = path.stat().st_mode, path.read_bytes()
        if way == "deleted":
            path.unlink()
        elif way == "made writable":
            path.chmod(0o666)
            if mode & 0o222:
                continue
        else:
            other = chance.choice([file for file in files if file != path and file.exists()] or [path])
            after = other.read_bytes() if way == "taken from another" else WAYS[way](before, chance) if before else b"x"
            path.chmod(0o644)
            with path.open("r+b") as file:
                file.truncate(len(after))
                file.write(after)
            path.chmod(mode)
            if after == before:
                continue
        done[path] = way
    return done


# oracles


def insist_on_one_line(answer: Answer, *codes: int) -> None:
    """What failed says so with a documented code and clear lines; a traceback would have ended the test."""
    assert answer.code in (0, *codes), answer.text
    assert "Traceback" not in answer.text
    if answer.code:
        assert answer.errors or "✗" in answer.text, answer.text


def insist_on_truth(project: Project, truth: Truth, states: tuple[str, ...]) -> int:
    """Every table that can be read has the rows that it had; gives how many cannot be read."""
    errors = 0
    for state in states:
        found, wrong = read_what_can_be_read(project, state)
        errors += len(wrong)
        for message in wrong:
            assert "\n" not in message, message
            assert len(message) < 600, message
        for node_id, rows in found.items():
            assert rows == truth.rows[state][node_id], f"{state}: wrong rows of {node_id}"
    return errors


def verified(project: Project, *arguments: str) -> tuple[int, list[dict[str, object]]]:
    answer = project.seeknal("store", "verify", "--json", *arguments)
    assert answer.code in (0, 12), answer.text
    document = answer.document
    return answer.code, document["left"] if document["left"] is not None else document["findings"]


def insist_on_detection(project: Project, damaged: dict[Path, str], before: dict[str, list[str]]) -> None:
    code, findings = verified(project)
    subjects = {str(finding["subject"]) for finding in findings}
    root = store_of(project).root
    # What is deleted is missed by what leads there, which for a snapshot may be another one.
    folders = [path.relative_to(root).parts[0] for path in damaged]
    hidden = len(set(folders)) > 1 or folders.count("snapshots") > 1
    for path, way in damaged.items():
        subject = path.relative_to(root).as_posix()
        folder = subject.partition("/")[0]
        if folder in ("memo", "leases"):
            # Losing it costs time, and nobody need hear of it.
            continue
        if way == "deleted" and (subject not in before or hidden):
            # What is only remembered, or reached by nobody, is not missed; nor what damage elsewhere leads nobody to.
            continue
        if way in ("taken from another", "deleted") and folder in ("deliveries", "notes"):
            continue
        if subject.endswith(".log"):
            # A move that was not noted is told of by the ref; a line's reason and author have no digest.
            continue
        assert any(subject == found or subject.startswith(f"{found}.") for found in subjects), (subject, way, findings)
        assert code == 12, (subject, way, findings)
        if folder == "blobs" and way != "made writable":
            (finding,) = (
                finding
                for finding in findings
                if finding["subject"] == subject or subject.startswith(f"{finding['subject']}.")
            )
            named = {node for hurt in finding["hurts"] for node in hurt["nodes"]}
            wanted = set(before.get(subject, []))
            assert named <= wanted if hidden else named == wanted, finding


def users_of(project: Project, truth: Truth) -> dict[str, list[str]]:
    """What is reached, by its path in the store: for blobs, the nodes that they are outputs of."""
    store = store_of(project)
    found: dict[str, list[str]] = {}
    for state in STATES:
        outputs = read_outputs(store, state)
        snapshot = store.read_snapshot(outputs.snapshot)
        for path in (f"snapshots/{outputs.snapshot}", f"trees/{snapshot.tree}", f"manifests/{snapshot.manifest}.json"):
            found[path] = []
        for node_id, blobs in truth.blobs[state].items():
            for blob in blobs:
                path = store.blob_path(blob).relative_to(store.root).as_posix()
                found.setdefault(path, [])
                if node_id not in found[path]:
                    found[path].append(node_id)
    return found


def heal(project: Project, truth: Truth) -> None:
    """Repair, run, and find everything as it was before."""
    code, findings = verified(project, "--repair")
    insist_on_one_line(project.seeknal("run"), 12)
    if project.seeknal("run", "--env", "trial").code:
        project.seeknal("env", "delete", "trial", "--yes")
        try_something_else(project)
    if project.seeknal("run", "--env", "dev").code:
        project.ok("plan", "dev")
        project.ok("run", "--env", "dev")
    code, findings = verified(project)
    assert code == 0, [finding for finding in findings if not finding["is_note"]]
    assert read_rows(project, "prod") == truth.rows["prod"]
    assert read_rows(project, "dev") == truth.rows["dev"]
    store = store_of(project)
    for state in ("prod", "dev"):
        now = {node_id: entry.artifact.blobs() for node_id, entry in read_outputs(store, state).nodes.items()}
        assert now == truth.blobs[state]
    assert (project.root / "output/report.csv").read_bytes() == truth.report


def copies(lived: tuple[Project, Truth], tmp_path: Path, seeds: range) -> Iterator[tuple[int, Project]]:
    for seed in seeds:
        root = Path(shutil.copytree(lived[0].root, tmp_path / str(seed), symlinks=True))
        project = Project(root)
        if seed % 3 < 2:
            # The other copies have no seals, and are read before they are believed.
            project.ok("store", "verify")
        yield seed, project
        shutil.rmtree(root)


def seeds_of(part: str, torture: bool) -> range:
    if torture:
        return range(30)
    return range({"blobs": 3, "action records": 2}.get(part, 1))


@pytest.mark.parametrize("part", PARTS)
def test_rot_is_found_never_served_and_healed(
    lived: tuple[Project, Truth],
    tmp_path: Path,
    torture: bool,
    tally: Callable[[str, int], None],
    part: str,
) -> None:
    truth = lived[1]
    before = users_of(*lived)
    tries = 0
    for seed, project in copies(lived, tmp_path, seeds_of(part, torture)):
        chance = random.Random(f"{part} {seed}")
        damaged = rot(store_of(project), PARTS[part], chance)
        tries += len(damaged)
        insist_on_truth(project, truth, STATES)
        insist_on_detection(project, damaged, before)
        # Asked again: verifying must not have made anything believed.
        insist_on_truth(project, truth, STATES)
        act_first(project, truth, chance)
        heal(project, truth)
    tally(f"rot: files damaged, {part}", tries)


def act_first(project: Project, truth: Truth, chance: random.Random) -> None:
    """Before anything is repaired: a promotion, a rollback or a run does the right thing, or nothing."""
    report = project.root / "output/report.csv"
    action = chance.choice(["promote", "rollback", "run", "select", "nothing"])
    if action == "nothing":
        return
    report.unlink()
    if action == "promote":
        answer = project.seeknal("promote", "trial", "--force", "--yes")
        wanted = "trial"
    elif action == "rollback":
        answer = project.seeknal("rollback", "prod", "1")
        wanted = "prod@1"
    elif action == "run":
        answer = project.seeknal("run")
        wanted = "prod"
    else:
        answer = project.seeknal("run", "--nodes", "top", "--full")
        wanted = "prod"
    insist_on_one_line(answer, 1, 4, 5, 12)
    found, _ = read_what_can_be_read(project, "prod")
    if answer.code == 0:
        for node_id, rows in found.items():
            assert rows == truth.rows[wanted][node_id], f"{action}: wrong rows of {node_id}"
    if report.exists() and wanted == "prod":
        assert report.read_bytes() == truth.report
