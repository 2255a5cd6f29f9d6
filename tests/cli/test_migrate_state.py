"""`seeknal migrate-state` says what it would do, does it, and says what it did."""

from __future__ import annotations

from pathlib import Path

import pytest

from seeknal.state.backend import DatabaseBackend, FileBackend
from tests.acceptance.project import Project


@pytest.fixture
def shop(tmp_path: Path) -> Project:
    """A project that ran once."""
    project = Project(tmp_path / "shop")
    project.write("seeknal_project.yml", "name: shop\n")
    project.write("seeknal/a.yml", "kind: transform\nname: a\ntransform: SELECT 1 AS n\n")
    project.ok("run")
    return project


def test_dry_run_is_what_happens_when_nothing_else_is_asked(shop: Project) -> None:
    before = shop.state("."), shop.read("seeknal_project.yml")
    for arguments in ((), ("--dry-run",)):
        text = shop.ok("migrate-state", "--backend", "database", *arguments).stdout
        assert "To copy: 1 run, 1 node state; 2 rows in all" in text
        assert "Source: file (target/runs, in force)" in text
        assert "Target: database (target/state.db)" in text
        assert "Dry run: nothing was changed" in text
    assert (shop.state("."), shop.read("seeknal_project.yml")) == before


def test_records_go_there_and_back(shop: Project) -> None:
    answer = shop.ok("migrate-state", "--backend", "database", "--no-dry-run")
    assert "Verified: 1 run, by count and content" in answer.stdout
    assert shop.read("seeknal_project.yml") == "name: shop\nstate_backend: database\n"
    run_id = shop.ok("run", "--full", "--json").document["run_id"]
    backend = DatabaseBackend(shop.root / "target/state.db")
    assert len(backend.list_runs()) == 2
    assert backend.list_nodes(run_id) == ["transform.a"]
    backend.close()
    assert "Nothing to do: 'database' is in force, with 2 runs" in shop.ok("migrate-state", "-b", "database").stdout
    document = shop.ok("migrate-state", "-b", "file", "--no-dry-run", "--json").document
    assert document["status"] == "success"
    assert document["copied"] == {"runs": 2, "nodes": 2, "intervals": 0, "partitions": 0, "rows": 4}
    assert document["switched"] is True
    assert len(FileBackend(shop.root / "target").list_runs()) == 2


def test_summary_counts_what_each_backend_holds(shop: Project) -> None:
    assert "file *" in shop.ok("migrate-state", "--summary").stdout
    shop.ok("migrate-state", "--backend", "database", "--no-dry-run")
    document = shop.ok("migrate-state", "--backend", "database", "--summary", "--json").document
    assert document["in_force"] == "database"
    assert document["backends"]["file"]["runs"] == 0
    assert document["backends"]["database"] == {
        "place": "target/state.db",
        "runs": 1,
        "nodes": 1,
        "intervals": 0,
        "partitions": 0,
        "rows": 2,
    }


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("--backend", "redis"), 2, "'redis' is not one of 'file', 'database'"),
        ((), 2, "Missing option"),
    ],
)
def test_what_makes_no_sense_is_usage(shop: Project, arguments: tuple[str, ...], code: int, said: str) -> None:
    answer = shop.seeknal("migrate-state", *arguments)
    assert answer.code == code
    assert said in answer.text


def test_project_that_never_ran_has_nothing_to_migrate(tmp_path: Path) -> None:
    project = Project(tmp_path)
    project.write("seeknal_project.yml", "name: shop\n")
    for arguments in ((), ("--no-dry-run",)):
        answer = project.seeknal("migrate-state", "--backend", "database", *arguments)
        assert answer.code == 1
        assert answer.errors == ["there is no state to migrate: no run was recorded yet"]


def test_damaged_database_is_one_line_and_exit_code_12(shop: Project) -> None:
    shop.write("target/state.db", b"\x00\x01 no database" * 300)
    for arguments in (("--backend", "database"), ("--backend", "file", "--summary")):
        answer = shop.seeknal("migrate-state", *arguments)
        assert answer.code == 12
        assert len(answer.errors) == 1
        assert "state.db is damaged" in answer.errors[0]
        assert "hint: put a backup of it in place" in answer.stderr
    shop.replace("seeknal_project.yml", "name", "state_backend: database\nname")
    answer = shop.seeknal("run", "--full")
    assert answer.code == 12
    assert len(answer.errors) == 1


def test_database_of_a_newer_version_is_refused(shop: Project) -> None:
    shop.ok("migrate-state", "--backend", "database", "--no-dry-run")
    import sqlite3
    from contextlib import closing

    with closing(sqlite3.connect(shop.root / "target/state.db")) as connection, connection:
        connection.execute("UPDATE format SET version = 99")
    for arguments in (("migrate-state", "--backend", "file", "--no-dry-run"), ("run", "--full")):
        answer = shop.seeknal(*arguments)
        assert answer.code == 12
        assert "was made by a newer Seeknal: it has format 99" in answer.errors[0]
    assert "state_backend: database" in shop.read("seeknal_project.yml")


def test_locked_database_is_busy_and_exit_code_11(shop: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    shop.ok("migrate-state", "--backend", "database", "--no-dry-run")
    # What a user waits for ten seconds, a test need not.
    monkeypatch.setattr(
        DatabaseBackend.__init__, "__kwdefaults__", {**DatabaseBackend.__init__.__kwdefaults__, "wait_seconds": 0.1}
    )
    holder = DatabaseBackend(shop.root / "target/state.db")
    with holder.transaction():
        answer = shop.seeknal("migrate-state", "--backend", "file", "--no-dry-run")
    holder.close()
    assert answer.code == 11
    assert "state.db is locked: another process has been writing to it" in answer.errors[0]
    assert "state_backend: database" in shop.read("seeknal_project.yml")
    shop.ok("migrate-state", "--backend", "file", "--no-dry-run")
