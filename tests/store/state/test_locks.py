"""Locks between processes, tried with real ones."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from seeknal.errors import BusyError, SeeknalError
from seeknal.holder import Holder
from seeknal.state.locks import FileLock, Patience

StartPython = Callable[..., "subprocess.Popen[str]"]

HOLD = """
import sys
from seeknal.state.locks import FileLock
lock = FileLock(sys.argv[1], "seeknal run --env dev")
lock.acquire()
print("held", flush=True)
sys.stdin.readline()
lock.release()
print("released", flush=True)
sys.stdin.readline()
"""

TRY = """
import sys
from seeknal.errors import BusyError
from seeknal.state.locks import FileLock
try:
    FileLock(sys.argv[1], "seeknal gc").acquire()
except BusyError as error:
    sys.exit(str(error))
"""

COUNT = """
import sys
from pathlib import Path
from seeknal.state.locks import FileLock, Patience
counter = Path(sys.argv[2])
for _ in range(100):
    lock = FileLock(sys.argv[1], "counting")
    lock.acquire(Patience(60))
    counter.write_text(str(int(counter.read_text()) + 1))
    lock.release()
"""


def line_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


FORK = """
import os, sys
from seeknal.errors import BusyError
from seeknal.state.locks import FileLock
lock = FileLock(sys.argv[1], "parent")
lock.acquire()
child = os.fork()
if not child:
    lock.release()
    os._exit(0)
os.waitpid(child, 0)
try:
    FileLock(sys.argv[1], "other").acquire()
except BusyError as error:
    sys.exit(7 if "parent" in str(error) else 8)
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "locks" / "store.lock"


def test_second_process_is_refused_and_told_who_holds_the_lock(path: Path, python: StartPython) -> None:
    with FileLock(path, "seeknal run --env dev"):
        refused = python(TRY, path)
        _, message = refused.communicate(timeout=60)
    assert refused.returncode == 1
    assert str(path) in message
    assert "seeknal run --env dev" in message
    assert f"process {os.getpid()} on {os.uname().nodename}" in message
    assert "since 20" in message


def test_killed_holders_lock_can_be_taken_at_once(path: Path, python: StartPython) -> None:
    with python(HOLD, path) as holder:
        assert line_of(holder) == "held"
        with pytest.raises(BusyError, match=f"seeknal run --env dev \\(process {holder.pid} "):
            FileLock(path, "me").acquire()
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        lock = FileLock(path, "me")
        lock.acquire()
        assert lock.held
        lock.release()


def test_released_lock_can_be_taken_while_its_former_holder_lives(path: Path, python: StartPython) -> None:
    with python(HOLD, path) as holder:
        assert line_of(holder) == "held"
        assert holder.stdin is not None
        holder.stdin.write("\n")
        holder.stdin.flush()
        assert line_of(holder) == "released"
        with FileLock(path, "me") as lock:
            assert lock.held
        holder.stdin.write("\n")


def test_name_of_a_killed_holder_is_never_told(path: Path, python: StartPython) -> None:
    with python(HOLD, path) as killed:
        line_of(killed)
        killed.kill()
    stale = path.read_bytes()
    lock = FileLock(path, "the next one")
    lock.acquire()
    # As in the moment between taking the lock and writing one's name.
    path.write_bytes(stale)
    with pytest.raises(BusyError, match="locked by another process"):
        FileLock(path, "me").acquire()
    lock.release()


def test_shared_lock_keeps_out_only_who_wants_it_alone(path: Path) -> None:
    alone = FileLock(path, "migrate")
    with FileLock(path, "run", shared=True), FileLock(path, "other run", shared=True):
        with pytest.raises(BusyError, match="locked by another process") as refused:
            alone.acquire()
        assert refused.value.hint
    for shared in (True, False):
        with alone, pytest.raises(BusyError, match="locked by migrate"):
            FileLock(path, "run", shared=shared).acquire()


def test_programs_that_the_holder_starts_do_not_keep_its_lock(path: Path, python: StartPython) -> None:
    lock = FileLock(path, "me")
    lock.acquire()
    child = python("import sys; sys.stdin.readline()")
    lock.release()
    with FileLock(path, "another") as other:
        assert other.held
    child.communicate("\n", timeout=60)


def test_processes_take_turns(path: Path, tmp_path: Path, python: StartPython) -> None:
    counter = tmp_path / "counter"
    counter.write_text("0")
    processes = [python(COUNT, path, counter) for _ in range(3)]
    for process in processes:
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
    assert counter.read_text() == "300"


def test_waiter_gets_the_lock_when_it_is_released(path: Path) -> None:
    first, second = FileLock(path, "first"), FileLock(path, "second")
    first.acquire()
    waiting = threading.Thread(target=second.acquire, args=(Patience(60),))
    waiting.start()
    first.release()
    waiting.join()
    assert second.held
    second.release()


def test_wait_that_was_too_short_is_refused(path: Path) -> None:
    with FileLock(path, "first"), pytest.raises(BusyError, match="first"):
        FileLock(path, "second").acquire(Patience(0.02))


def test_lock_file_says_who_holds_it_and_stays_empty_after_release(path: Path) -> None:
    with FileLock(path, "me"):
        holder = msgspec.json.decode(path.read_bytes(), type=Holder)
        assert (holder.purpose, holder.pid, holder.host) == ("me", os.getpid(), os.uname().nodename)
    assert path.read_bytes() == b""


def test_release_leaves_the_very_file_in_place(path: Path) -> None:
    with FileLock(path, "me"):
        inode = path.stat().st_ino
    with FileLock(path, "me"):
        assert path.stat().st_ino == inode


def test_acquiring_twice_with_one_object_is_a_bug(path: Path) -> None:
    with FileLock(path, "me") as lock:
        with pytest.raises(RuntimeError, match="already"):
            lock.acquire()
        assert lock.held


def test_releasing_what_is_not_held_changes_nothing(path: Path) -> None:
    FileLock(path, "me").release()
    assert not path.exists()
    with FileLock(path, "me"):
        FileLock(path, "other").release()
        with pytest.raises(BusyError):
            FileLock(path, "other").acquire()


def test_lock_can_be_taken_again_after_release(path: Path) -> None:
    lock = FileLock(path, "me")
    for _ in range(3):
        with lock:
            assert lock.held
        assert not lock.held


def test_lock_on_a_file_that_was_removed_in_between_counts_for_nothing(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flock = fcntl.flock
    calls = 0

    def removing(descriptor: int, operation: int) -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            shutil.rmtree(path.parent)
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", removing)
    with FileLock(path, "first"), pytest.raises(BusyError, match="first"):
        FileLock(path, "second").acquire()


def test_forked_child_cannot_release_its_parents_lock(path: Path, python: StartPython) -> None:
    process = python(FORK, path)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 7, errors


def test_lock_in_a_place_that_is_no_folder_is_an_error_of_ours(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SeeknalError, match="cannot lock") as caught:
        FileLock(tmp_path / "file" / "x.lock", "me").acquire()
    assert not isinstance(caught.value, BusyError)
    assert caught.value.hint


def test_garbage_in_the_lock_file_does_not_matter(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"\xff{]" * 1000)
    with FileLock(path, "me"), pytest.raises(BusyError, match="me"):
        FileLock(path, "other").acquire()
