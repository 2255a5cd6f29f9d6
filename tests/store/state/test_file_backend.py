"""What only the file backend promises: its layout, what a crash leaves, and what it makes of damaged files."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from seeknal.errors import BusyError, CorruptObjectError, FormatTooNewError, UsageError
from seeknal.state.backend import (
    FileBackend,
    FileStateBackend,
    StateBackend,
    StateBackendError,
    StateBackendFactory,
    TransactionError,
    create_state_backend,
)
from seeknal.state.records import NodeRecord, RunRecord, decode_run, encode_run

StartPython = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def backend(tmp_path: Path) -> FileBackend:
    made = FileBackend(tmp_path / "target")
    made.initialize()
    return made


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    return tmp_path / "target" / "runs"


def test_factory_makes_a_file_backend_and_its_folders(tmp_path: Path) -> None:
    made = create_state_backend("file", base_path=str(tmp_path / "a" / "b"))
    assert isinstance(made, FileBackend)
    assert not (tmp_path / "a").exists()
    made.initialize()
    assert (tmp_path / "a" / "b" / "runs").is_dir()


def test_both_documented_names_are_one_class() -> None:
    assert FileStateBackend is FileBackend


def test_unknown_type_is_a_value_error_that_names_the_available_ones() -> None:
    with pytest.raises(ValueError, match="available: database, file") as caught:
        create_state_backend("redis")
    assert isinstance(caught.value, UsageError)
    assert "'redis'" in str(caught.value)
    assert StateBackendFactory.list_backends() == ["database", "file"]


def test_setting_that_the_type_does_not_take_is_refused() -> None:
    with pytest.raises(UsageError, match="db_path"):
        create_state_backend("file", db_path="target/state.db")


def test_registered_type_can_be_created(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(StateBackendFactory, "_makers", dict(StateBackendFactory._makers))

    def make(db_path: Path) -> StateBackend:
        return FileBackend(db_path, purpose="registered")

    StateBackendFactory.register("archive", make)
    assert StateBackendFactory.list_backends() == ["archive", "database", "file"]
    assert isinstance(create_state_backend("archive", db_path=tmp_path), FileBackend)


def test_run_is_one_json_file(backend: FileBackend, runs: Path) -> None:
    backend.create_run("r1", metadata={"a": 1}, who="mia")
    backend.set_node_state("r1", "source.a", status="success", row_count=3)
    document = json.loads((runs / "r1.json").read_text())
    assert document["schema_version"] == 1
    assert document["run_id"] == "r1"
    assert document["metadata"] == {"a": 1}
    assert document["extra"] == {"who": "mia"}
    assert document["nodes"]["source.a"]["row_count"] == 3


def test_nothing_is_written_outside_the_runs_folder(backend: FileBackend, tmp_path: Path) -> None:
    backend.create_run("r1")
    assert backend.acquire_lock("r1")
    backend.delete_run("r1")
    assert [path.name for path in (tmp_path / "target").iterdir()] == ["runs"]


def test_writing_leaves_no_temporary_file(backend: FileBackend, runs: Path) -> None:
    with backend.transaction():
        backend.create_run("r1")
        backend.create_run("r2")
    backend.update_run("r1", status="success")
    assert sorted(path.name for path in runs.iterdir()) == [".write.lock", "r1.json", "r2.json"]


def test_foreign_files_are_not_runs(backend: FileBackend, runs: Path) -> None:
    backend.create_run("r1")
    (runs / "notes.txt").write_text("x")
    (runs / "not a run.json").write_text("x")
    (runs / ".hidden.json").write_text("x")
    assert backend.list_runs() == ["r1"]


def test_folder_removed_under_it_is_an_empty_backend(backend: FileBackend, runs: Path) -> None:
    backend.create_run("r1")
    for path in runs.iterdir():
        path.unlink()
    runs.rmdir()
    assert backend.list_runs() == []
    assert backend.get_run("r1") is None
    backend.create_run("r2")
    assert backend.list_runs() == ["r2"]


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"\xff", b'{"schema_version": 1}', b'{"schema_version": 0, "run_id": "r1"}', b'{"run_id": 7}'],
)
def test_damaged_record_is_named_and_harms_no_other(backend: FileBackend, runs: Path, content: bytes) -> None:
    backend.create_run("r1")
    backend.create_run("r2")
    (runs / "r1.json").write_bytes(content)
    with pytest.raises(CorruptObjectError, match=r"r1\.json"):
        backend.get_run("r1")
    with pytest.raises(CorruptObjectError):
        backend.update_run("r1", status="success")
    assert (runs / "r1.json").read_bytes() == content
    assert backend.exists("r2")
    backend.delete_run("r1")
    assert backend.list_runs() == ["r2"]


def test_record_under_another_runs_name_is_not_taken_for_it(backend: FileBackend, runs: Path) -> None:
    backend.create_run("r1")
    (runs / "r1.json").rename(runs / "r2.json")
    with pytest.raises(CorruptObjectError, match="'r1'"):
        backend.get_run("r2")


def test_record_of_a_later_version_is_not_misread(backend: FileBackend, runs: Path) -> None:
    backend.create_run("r1")
    for document in ({"schema_version": 2, "run_id": "r1"}, {"schema_version": 2, "run": []}):
        (runs / "r1.json").write_text(json.dumps(document))
        with pytest.raises(FormatTooNewError, match="it has format 2,"):
            backend.get_run("r1")
        with pytest.raises(FormatTooNewError):
            backend.set_node_state("r1", "source.a")


def test_file_where_the_folder_should_be_is_an_error_of_ours(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("")
    backend = FileBackend(tmp_path)
    assert backend.health_check() is False
    with pytest.raises(StateBackendError):
        backend.list_runs()
    with pytest.raises(StateBackendError):
        backend.get_run("r1")


@pytest.mark.parametrize("failing_write", [1, 2, 3, 4])
def test_full_disk_fails_the_whole_transaction(
    backend: FileBackend, monkeypatch: pytest.MonkeyPatch, failing_write: int
) -> None:
    backend.create_run("r1", metadata={"old": True})
    backend.create_run("r2", metadata={"old": True})
    writes = 0
    fsync = os.fsync

    def full(descriptor: int) -> None:
        nonlocal writes
        writes += 1
        if writes == failing_write:
            raise OSError(28, "No space left on device")
        fsync(descriptor)

    def change_both() -> None:
        with backend.transaction():
            backend.set_metadata("r1", {"old": False})
            backend.set_metadata("r2", {"old": False})

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(TransactionError, match="No space left"):
            change_both()
    assert backend.get_metadata("r1") == backend.get_metadata("r2") == {"old": True}
    backend.initialize()
    backend.set_metadata("r1", {"old": False})
    assert backend.get_metadata("r1") == {"old": False}


@pytest.mark.parametrize("failing_sync", [5, 6])
def test_disk_that_fails_after_the_commit_point_does_not_undo_the_transaction(
    backend: FileBackend, monkeypatch: pytest.MonkeyPatch, failing_sync: int
) -> None:
    backend.create_run("r1")
    backend.create_run("r2")
    syncs = 0

    def failing(descriptor: int) -> None:
        nonlocal syncs
        syncs += 1
        if syncs == failing_sync:
            raise OSError(5, "Input/output error")

    def change_both() -> None:
        with backend.transaction():
            backend.update_run("r1", status="new")
            backend.update_run("r2", status="new")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", failing)
        with pytest.raises(StateBackendError, match="Input/output error") as caught:
            change_both()
    assert not isinstance(caught.value, TransactionError)
    assert [run["status"] for run_id in ("r1", "r2") if (run := backend.get_run(run_id))] == ["new", "new"]


# Kills itself just before the nth change of a name in the folder.
CRASH = """
import os, signal, sys
from pathlib import Path
from seeknal.state.backend import FileBackend

left = int(sys.argv[2])

def counting(change):
    def counted(*arguments, **options):
        global left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return change(*arguments, **options)
    return counted

backend = FileBackend(sys.argv[1])
os.replace = counting(os.replace)
Path.unlink = counting(Path.unlink)
with backend.transaction():
    backend.update_run("r1", status="new")
    backend.update_run("r2", status="new")
    backend.delete_run("r3")
    backend.create_run("r4", status="new")
"""


@pytest.mark.parametrize("change", range(1, 8))
def test_transaction_cut_short_by_a_crash_is_kept_whole_or_not_at_all(
    backend: FileBackend, runs: Path, change: int, python: StartPython
) -> None:
    for run_id in ("r1", "r2", "r3"):
        backend.create_run(run_id, status="old")
    crashed = python(CRASH, backend.base_path, change)
    _, errors = crashed.communicate(timeout=60)
    assert crashed.returncode == (-signal.SIGKILL if change < 7 else 0), errors

    survivors = {run_id: run["status"] for run_id in backend.list_runs() if (run := backend.get_run(run_id))}
    if change == 1:
        assert survivors == {"r1": "old", "r2": "old", "r3": "old"}
    else:
        assert survivors == {"r1": "new", "r2": "new", "r4": "new"}
    backend.create_run("after")
    backend.initialize()
    assert {path.name for path in runs.iterdir() if path.suffix != ".json"} == {".write.lock"}


def test_journal_that_names_a_path_outside_is_not_followed(backend: FileBackend, runs: Path, tmp_path: Path) -> None:
    victim = tmp_path / "target" / "victim.json"
    victim.write_text("{}")
    journal = runs / ".journal"
    journal.write_text(json.dumps({"schema_version": 1, "replaced": [], "deleted": ["../victim"]}))
    with pytest.raises(ValueError, match="run id"):
        backend.list_runs()
    assert victim.exists()
    journal.write_text(json.dumps({"schema_version": 2}))
    with pytest.raises(FormatTooNewError):
        backend.list_runs()
    journal.write_text(json.dumps({"schema_version": 1, "deleted": 7}))
    with pytest.raises(CorruptObjectError, match="journal"):
        backend.list_runs()


WRITE = """
import sys
from seeknal.state.backend import FileBackend
backend = FileBackend(sys.argv[1])
for number in range(40):
    backend.set_node_state("r1", f"source.{sys.argv[2]}{number}", status="success")
"""


def test_writers_in_several_processes_lose_no_update(backend: FileBackend, python: StartPython) -> None:
    backend.create_run("r1")
    writers = [python(WRITE, backend.base_path, name) for name in "ab"]
    for writer in writers:
        _, errors = writer.communicate(timeout=60)
        assert writer.returncode == 0, errors
    assert len(backend.list_nodes("r1")) == 80


HOLD = """
import sys
from seeknal.state.backend import FileBackend
backend = FileBackend(sys.argv[1], purpose="seeknal run --env dev")
assert backend.acquire_lock("r1")
with backend.transaction():
    backend.create_run("never")
    print("held", flush=True)
    sys.stdin.readline()
"""


def test_killed_process_frees_its_lock_and_its_transaction(backend: FileBackend, python: StartPython) -> None:
    impatient = FileBackend(backend.base_path, wait_seconds=0)
    with python(HOLD, backend.base_path) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        assert backend.acquire_lock("r1", timeout_ms=0) is False
        told = rf"seeknal run --env dev \(process {holder.pid} "
        with pytest.raises(BusyError, match=told), backend.lock("r1", timeout_ms=0):
            raise AssertionError("two have the lock")
        with pytest.raises(BusyError, match=told):
            impatient.create_run("r1")
        assert backend.list_runs() == []
        holder.kill()
        holder.wait()
        assert backend.acquire_lock("r1", timeout_ms=0) is True
        impatient.create_run("r1")
        assert backend.list_runs() == ["r1"]
    backend.close()


@pytest.mark.parametrize("count", [0, 1, 499, 500, 501, 1200])
def test_a_record_written_piece_by_piece_is_the_whole(count: int) -> None:
    nodes = {f"transform.n{number}": NodeRecord(status="success", extra={"x": [number]}) for number in range(count)}
    record = RunRecord(run_id="r", metadata={"a": {}}, extra={"b": "}}"}, nodes=nodes)
    assert b"".join(encode_run(record)) == msgspec.json.encode(record) + b"\n"
    assert decode_run(b"".join(encode_run(record)), "r", "it") == record
