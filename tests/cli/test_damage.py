"""Which commands help where the metadata of a store is damaged, and what they say in one line."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from seeknal.store.store import Store
from tests.acceptance.project import COMMAND, Project
from tests.reliability.lived_in import STATES, live, read_rows, store_of


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return live(tmp_path_factory.mktemp("lived") / "shop")


@pytest.fixture
def project(lived: Project, tmp_path: Path) -> Project:
    return Project(Path(shutil.copytree(lived.root, tmp_path / "shop", symlinks=True)))


def spoil(path: Path, data: bytes = b"") -> None:
    path.chmod(0o644)
    path.write_bytes(data)


def head(store: Store) -> str:
    found = store.refs.read("prod")
    assert found is not None
    return found


# What is damaged → how, the state that production stands at after a repair, and the commands that go on working.
WORK_ALWAYS = ("env list", "env history dev", "repl --env dev --exec SELECT", "env du", "env delete dev --yes")
WORK_UNLESS_PRODUCTION = ("env history prod", "repl --exec SELECT", "run", "plan", "rollback prod", "run --env dev")
DAMAGE: dict[str, tuple[Callable[[Store], None], str, tuple[str, ...]]] = {
    "production's ref is empty": (lambda store: spoil(store.root / "refs/prod"), "prod", WORK_ALWAYS),
    "production's ref leads to nothing": (
        lambda store: spoil(store.root / "refs/prod", b"0" * 32 + b"\n"),
        "prod",
        WORK_ALWAYS,
    ),
    "production's snapshot is damaged": (
        lambda store: spoil(store.root / "snapshots" / head(store)),
        "prod@1",
        WORK_ALWAYS,
    ),
    "production's tree is gone": (
        lambda store: (store.root / "trees" / store.read_snapshot(head(store)).tree).unlink(),
        "prod@1",
        ("env list", "env history prod", "rollback prod", "env delete dev --yes"),
    ),
    "an earlier snapshot is damaged": (
        lambda store: spoil(store.root / "snapshots" / str(store.read_snapshot(head(store)).parent)),
        "prod",
        (*WORK_ALWAYS, "repl --exec SELECT", "run", "plan", "run --env dev"),
    ),
    "another environment's ref is empty": (
        lambda store: spoil(store.root / "refs/dev"),
        "prod",
        ("env list", "env du", "env delete dev --yes", *WORK_UNLESS_PRODUCTION[:-1]),
    ),
    "another environment's record is damaged": (
        lambda store: spoil(store.root / "environments/dev", b"seeknal"),
        "prod",
        (*WORK_ALWAYS, *WORK_UNLESS_PRODUCTION[:-1]),
    ),
    "a pin is damaged": (
        lambda store: spoil(next((store.root / "pins").iterdir()), b"\0"),
        "prod",
        (*WORK_ALWAYS, *WORK_UNLESS_PRODUCTION),
    ),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_what_can_work_works_and_the_rest_says_why_in_one_line(project: Project, tmp_path: Path, what: str) -> None:
    damage, repaired, working = DAMAGE[what]
    wanted = {state: read_rows(project, state) for state in STATES}
    damage(store_of(project))
    answer = project.seeknal("store", "verify")
    assert answer.code == 12
    for command in sorted({*WORK_ALWAYS, *WORK_UNLESS_PRODUCTION, "gc --dry-run"}):
        copy = Project(Path(shutil.copytree(project.root, tmp_path / "copy", symlinks=True)))
        arguments = command.replace("SELECT", "SELECT:count(*):FROM:transform.big").split()
        answer = copy.seeknal(*(argument.replace(":", " ") for argument in arguments))
        if command in working:
            assert answer.code == 12 * (what.startswith("an earlier") and "history prod" in command), answer.text
        elif answer.code:
            assert answer.code == 12, answer.text
            assert len(answer.errors) == 1
            assert "store verify" in answer.stderr
        shutil.rmtree(copy.root)
    project.ok("store", "verify", "--repair")
    assert read_rows(project, "prod") == wanted[repaired]
    project.ok("run")
    assert read_rows(project, "prod") == wanted["prod"]


def test_a_damaged_environment_is_listed_as_that(project: Project) -> None:
    spoil(project.root / "target/store/refs/dev")
    listed = {entry["name"]: entry["status"] for entry in project.ok("env", "list", "--json").document["environments"]}
    assert listed == {"dev": "damaged", "trial": "applied", "prod": "applied"}


def test_history_is_shown_up_to_where_it_breaks_off(project: Project) -> None:
    store = store_of(project)
    spoil(store.root / "snapshots" / str(store.read_snapshot(head(store)).parent))
    answer = project.seeknal("env", "history", "prod", "--json")
    assert answer.code == 12
    assert [entry["number"] for entry in answer.document["history"]] == [0]
    assert "is damaged" in answer.document["broken"]
    answer = project.seeknal("env", "history", "prod")
    assert "@0" in answer.stdout
    assert len(answer.errors) == 1


def test_a_deleted_environment_is_gone_though_its_ref_was_damaged(project: Project) -> None:
    spoil(project.root / "target/store/refs/dev", b"?")
    project.ok("env", "delete", "dev", "--yes")
    assert "dev" not in project.ok("env", "list").text
    project.ok("store", "verify")


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("setpriv") is None, reason="root gives up its powers here")
def test_a_blob_that_may_not_be_read_is_told_once_and_left(project: Project) -> None:
    blob = next((project.root / "target/store/blobs").rglob("*.parquet"))
    blob.chmod(0)
    verify = [*COMMAND, "store", "verify", "--repair", "--json"]
    said = subprocess.run(
        ["setpriv", "--bounding-set=-all", "--inh-caps=-all", *verify], cwd=project.root, capture_output=True, text=True
    )
    assert said.returncode == 12, said.stderr
    (finding,) = (entry for entry in json.loads(said.stdout)["left"] if not entry["is_note"])
    assert finding["subject"].endswith(blob.name)
    assert finding["message"] == "may not be read by this user; let it, and verify again"
    blob.chmod(0o444)
    project.ok("store", "verify")
