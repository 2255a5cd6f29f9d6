"""What only the database backend promises: its tables, many processes at once, and what it makes of damage."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from seeknal.errors import BusyError, CorruptObjectError, FormatTooNewError, UsageError
from seeknal.state.backend import (
    DatabaseBackend,
    DatabaseStateBackend,
    StateBackendError,
    TransactionError,
    create_state_backend,
)
from seeknal.state.database_connection import SqliteConnection
from seeknal.state.leased_locks import LeasedLock
from seeknal.state.locks import Patience

StartPython = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "target" / "state.db"


@pytest.fixture
def backend(path: Path) -> Iterator[DatabaseBackend]:
    made = DatabaseBackend(path)
    made.initialize()
    yield made
    made.close()


def ask(path: Path, statement: str) -> list[tuple[object, ...]]:
    """What another program's connection sees."""
    with closing(sqlite3.connect(path)) as connection, connection:
        return connection.execute(statement).fetchall()


def test_factory_makes_a_database_backend_and_its_folders(path: Path) -> None:
    made = create_state_backend("database", db_path=str(path))
    assert isinstance(made, DatabaseBackend)
    assert made.list_runs() == []
    assert not path.parent.exists()
    made.initialize()
    assert path.is_file()
    made.close()
    assert [left.name for left in path.parent.iterdir()] == ["state.db"]


def test_both_documented_names_are_one_class() -> None:
    assert DatabaseStateBackend is DatabaseBackend


def test_tables_are_the_documented_ones(backend: DatabaseBackend, path: Path) -> None:
    names = {name for (name,) in ask(path, "SELECT name FROM sqlite_master WHERE type = 'table'")}
    assert names == {"format", "runs", "node_states", "completed_intervals", "partitions", "locks"}
    assert ask(path, "PRAGMA journal_mode") == [("wal",)]
    assert ask(path, "SELECT version FROM format") == [(1,)]


def test_run_can_be_read_with_any_tool(backend: DatabaseBackend, path: Path) -> None:
    backend.create_run("r1", status="success", metadata={"a": 1})
    backend.set_node_state("r1", "source.a", status="success", row_count=3, duration_ms=1.5)
    backend.add_completed_interval("r1", "source.a", "2024-01-01", "2024-01-02")
    assert ask(path, "SELECT run_id, status, metadata ->> 'a' FROM runs") == [("r1", "success", 1)]
    assert ask(path, "SELECT node_id, row_count, duration_ms FROM node_states") == [("source.a", 3, 1.5)]
    assert ask(path, "SELECT start_at FROM completed_intervals") == [("2024-01-01T00:00:00",)]


def test_every_connection_syncs_what_it_commits(path: Path) -> None:
    path.parent.mkdir()
    with closing(SqliteConnection(path, 1.0)) as connection:
        assert connection.execute("PRAGMA synchronous") == [(2,)]


def test_database_that_was_deleted_under_it_is_made_anew(backend: DatabaseBackend, path: Path) -> None:
    backend.create_run("r1")
    for file in path.parent.iterdir():
        file.unlink()
    assert backend.list_runs() == []
    backend.create_run("r2")
    assert DatabaseBackend(path).list_runs() == ["r2"]


def test_closed_backend_opens_again_when_it_is_used(backend: DatabaseBackend) -> None:
    backend.create_run("r1")
    backend.close()
    backend.close()
    assert backend.list_runs() == ["r1"]


@pytest.mark.parametrize("db_path", ["", ":memory:", "postgresql://host/db"])
def test_what_is_no_database_file_is_refused(db_path: str) -> None:
    with pytest.raises(UsageError, match="not a database"):
        create_state_backend("database", db_path=db_path)


# damage


def test_file_that_is_no_database_is_one_line_with_the_way_out(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"no database at all\n" * 100)
    backend = DatabaseBackend(path)
    for use in (backend.initialize, backend.list_runs, lambda: backend.create_run("r1")):
        with pytest.raises(CorruptObjectError, match=r"state\.db is damaged: .*not a database.* backup") as caught:
            use()
        assert caught.value.exit_code == 12
        assert len(str(caught.value).splitlines()) == 1
    assert backend.health_check() is False
    assert path.read_bytes().startswith(b"no database")


def test_damaged_page_is_noticed(backend: DatabaseBackend, path: Path) -> None:
    for number in range(50):
        backend.create_run(f"r{number}", metadata={"text": "x" * 500})
    backend.close()
    content = bytearray(path.read_bytes())
    content[4096:] = b"\xa5" * (len(content) - 4096)
    path.write_bytes(content)
    with pytest.raises(CorruptObjectError, match="damaged"):
        DatabaseBackend(path).list_runs()


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE runs SET metadata = 'no JSON'",
        "UPDATE runs SET status = 7.5, metadata = '[]'",
        "UPDATE runs SET extra = CAST(x'ff' AS TEXT)",
        "UPDATE node_states SET row_count = 'three'",
        "UPDATE completed_intervals SET start_at = x'00'",
        "DROP TABLE partitions",
    ],
)
def test_row_that_was_tampered_with_is_noticed(backend: DatabaseBackend, path: Path, statement: str) -> None:
    backend.create_run("r1")
    backend.set_node_state("r1", "source.a")
    backend.add_completed_interval("r1", "source.a", "2024-01-01", "2024-01-02")
    ask(path, statement)
    with pytest.raises(CorruptObjectError, match="damaged"):
        backend.get_run("r1"), backend.get_all_node_states("r1")  # type: ignore[func-returns-value]


def test_newer_format_is_refused(backend: DatabaseBackend, path: Path) -> None:
    backend.create_run("r1")
    ask(path, "UPDATE format SET version = 2")
    for use in (DatabaseBackend(path).list_runs, DatabaseBackend(path).initialize):
        with pytest.raises(FormatTooNewError, match=r"has format 2, and this one .* reads up to 1"):
            use()
    assert DatabaseBackend(path).health_check() is False


def test_another_programs_database_is_left_alone(path: Path) -> None:
    path.parent.mkdir()
    ask(path, "CREATE TABLE customers (id)")
    before = path.read_bytes()
    for use in (DatabaseBackend(path).list_runs, DatabaseBackend(path).initialize):
        with pytest.raises(StateBackendError, match="another program's database: it holds the table 'customers'"):
            use()
    assert path.read_bytes() == before


def test_empty_file_is_a_database_without_runs(path: Path) -> None:
    path.parent.mkdir()
    path.touch()
    backend = DatabaseBackend(path)
    assert backend.list_runs() == []
    backend.create_run("r1")
    assert backend.list_runs() == ["r1"]


def test_folder_where_the_database_should_be_is_an_error_of_ours(path: Path) -> None:
    path.mkdir(parents=True)
    with pytest.raises(StateBackendError, match=r"state\.db"):
        DatabaseBackend(path).create_run("r1")
    (path.parent / "file").touch()
    with pytest.raises(StateBackendError, match="cannot make"):
        DatabaseBackend(path.parent / "file" / "state.db").initialize()


def test_full_disk_fails_the_whole_transaction(backend: DatabaseBackend, path: Path) -> None:
    backend.create_run("r1", metadata={"old": True})
    pages = ask(path, "PRAGMA page_count")[0][0]
    connection = backend._connect()
    connection.execute(f"PRAGMA max_page_count={pages}")

    def fill() -> None:
        with backend.transaction():
            backend.set_metadata("r1", {"old": False})
            for number in range(50):
                backend.create_run(f"more-{number}", metadata={"text": "x" * 1000})

    with pytest.raises(TransactionError, match=r"full.* nothing was kept"):
        fill()
    assert backend.list_runs() == ["r1"]
    assert backend.get_metadata("r1") == {"old": True}
    connection.execute("PRAGMA max_page_count=100000")
    backend.create_run("r2")


# several processes

WRITE = """
import sys
from seeknal.state.backend import DatabaseBackend
backend = DatabaseBackend(sys.argv[1])
backend.initialize()
name = sys.argv[2]
backend.create_run(name)
with backend.transaction():
    if not backend.exists("shared"):
        backend.create_run("shared")
for number in range(25):
    backend.set_node_state("shared", f"source.{name}{number}", status="success")
    backend.set_node_state(name, f"source.{number}", status="success", row_count=number)
    done = backend.get_metadata("shared").get("done", 0)
    with backend.transaction():
        metadata = backend.get_metadata("shared")
        backend.set_metadata("shared", {"done": metadata.get("done", 0) + 1})
backend.update_run(name, status="success")
"""


def test_several_processes_write_runs_at_once_and_lose_nothing(path: Path, python: StartPython) -> None:
    writers = [python(WRITE, path, f"w{number}") for number in range(4)]
    for writer in writers:
        _, errors = writer.communicate(timeout=120)
        assert writer.returncode == 0, errors
    backend = DatabaseBackend(path)
    assert backend.list_runs() == ["shared", "w0", "w1", "w2", "w3"]
    assert len(backend.list_nodes("shared")) == 100
    assert backend.get_metadata("shared") == {"done": 100}
    for number in range(4):
        run = backend.get_run(f"w{number}")
        assert run is not None
        assert run["status"] == "success"
        assert len(backend.list_nodes(f"w{number}")) == 25
    assert ask(path, "PRAGMA integrity_check") == [("ok",)]


HOLD = """
import sys
from seeknal.state.backend import DatabaseBackend
backend = DatabaseBackend(sys.argv[1], purpose="seeknal run --env dev")
assert backend.acquire_lock("r1")
with backend.transaction():
    backend.create_run("kept" if len(sys.argv) > 2 else "never")
    print("held", flush=True)
    sys.stdin.readline()
"""


def test_killed_process_frees_its_lock_and_its_transaction(
    backend: DatabaseBackend, path: Path, python: StartPython
) -> None:
    impatient = DatabaseBackend(path, wait_seconds=0.05)
    with python(HOLD, path) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        assert backend.acquire_lock("r1", timeout_ms=0) is False
        told = rf"seeknal run --env dev \(process {holder.pid} "
        with pytest.raises(BusyError, match=told), backend.lock("r1", timeout_ms=0):
            raise AssertionError("two have the lock")
        with pytest.raises(BusyError, match=r"state\.db is locked: another process") as caught:
            impatient.create_run("r1")
        assert caught.value.exit_code == 11
        assert impatient.health_check() is False
        # Readers wait for nobody.
        assert impatient.list_runs() == []
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        assert backend.acquire_lock("r1", timeout_ms=0) is True
        impatient.create_run("r1")
        assert backend.list_runs() == ["r1"]


def test_database_locked_by_another_is_waited_for(backend: DatabaseBackend, path: Path, python: StartPython) -> None:
    with python(HOLD, path, "keep") as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        waiting = threading.Thread(target=backend.create_run, args=("r1",))
        waiting.start()
        holder.communicate("\n", timeout=60)
        waiting.join()
    assert backend.list_runs() == ["kept", "r1"]


CRASH = """
import os, signal, sys
from seeknal.state.backend import DatabaseBackend
from seeknal.state.database_connection import SqliteConnection

left = int(sys.argv[2])
execute = SqliteConnection.execute

def counting(self, statement, values=()):
    global left
    if statement.startswith(("BEGIN I", "INSERT", "UPDATE", "DELETE", "COMMIT")):
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
    return execute(self, statement, values)

backend = DatabaseBackend(sys.argv[1])
backend.initialize()
SqliteConnection.execute = counting
with backend.transaction():
    backend.update_run("r1", status="new")
    backend.delete_run("r2")
    backend.create_run("r3", status="new")
"""


@pytest.mark.parametrize("statement", [2, 4, 7, 8, 9])
def test_transaction_cut_short_by_a_crash_is_kept_whole_or_not_at_all(
    backend: DatabaseBackend, path: Path, statement: int, python: StartPython
) -> None:
    for run_id in ("r1", "r2"):
        backend.create_run(run_id, status="old")
    crashed = python(CRASH, path, statement)
    _, errors = crashed.communicate(timeout=60)
    assert crashed.returncode == (-signal.SIGKILL if statement < 9 else 0), errors
    survivors = {run_id: run["status"] for run_id in backend.list_runs() if (run := backend.get_run(run_id))}
    assert survivors == ({"r1": "old", "r2": "old"} if statement < 9 else {"r1": "new", "r3": "new"})
    backend.create_run("after")


def test_forked_child_has_a_connection_of_its_own(path: Path, python: StartPython) -> None:
    script = """
import os, sys
from seeknal.state.backend import DatabaseBackend
backend = DatabaseBackend(sys.argv[1])
backend.create_run("parent")
of_parent = backend._connect()
child = os.fork()
if not child:
    if backend._connect() is of_parent:
        os._exit(1)
    backend.create_run("child")
    backend.close()
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
assert backend._connect() is of_parent
backend.create_run("after")
print(backend.list_runs())
"""
    process = python(script, path)
    output, errors = process.communicate(timeout=60)
    assert output == "['after', 'child', 'parent']\n", errors


# leases, on a real database


@pytest.fixture
def connect(path: Path) -> Callable[[], SqliteConnection]:
    path.parent.mkdir()
    return lambda: SqliteConnection(path, 5.0)


def test_lease_keeps_others_out_until_it_is_released(connect: Callable[[], SqliteConnection]) -> None:
    first, second = (LeasedLock("r1", f"run {number}", connect) for number in (1, 2))
    first.acquire()
    with pytest.raises(BusyError, match=rf"locked by run 1 \(process {os.getpid()} "):
        second.acquire(Patience(0.06))
    second.release()
    LeasedLock("r2", "other", connect).acquire()
    first.release()
    second.acquire()
    second.release()
    second.release()
    assert [row[0] for row in connect().execute("SELECT run_id FROM locks")] == ["r2"]


def test_lease_is_renewed_while_its_holder_lives_and_ends_where_it_does_not(
    connect: Callable[[], SqliteConnection],
) -> None:
    lease_seconds = 0.6
    living = LeasedLock("r1", "living", connect, lease_seconds)
    living.acquire()
    time.sleep(2 * lease_seconds)
    with pytest.raises(BusyError, match="living"):
        LeasedLock("r1", "other", connect).acquire()
    # As a process does that is killed: no more renewals, no release.
    living._released.set()
    successor = LeasedLock("r1", "successor", connect)
    successor.acquire(Patience(30))
    living.release()
    with pytest.raises(BusyError, match="successor"):
        LeasedLock("r1", "other", connect).acquire()
    successor.release()
