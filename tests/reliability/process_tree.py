"""A command in a process group of its own, and the processes that it starts, as /proc tells them.

- *tree*: all processes that descend from the command, wherever their parents are and whichever group they made their
  own. They are known by a variable in their environment.
- *role*: what a process of a run is: the command itself, the server that its workers are forked from, a worker, or
  something else.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from tests.acceptance.project import COMMAND

needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc to find processes")

PATIENCE_SECONDS = 60.0

# The variable by which the processes of a tree are known.
MARK = "SEEKNAL_TEST_COMMAND"


class Command:
    """``seeknal`` with these arguments, running. Its output goes to files, which no process left behind keeps open."""

    def __init__(self, root: Path, log: Path, *arguments: str, environment: Mapping[str, str] | None = None) -> None:
        self._stdout, self._stderr = log.with_suffix(".out"), log.with_suffix(".err")
        self.began = time.monotonic()
        self._mark = new_mark()
        with self._stdout.open("wb") as stdout, self._stderr.open("wb") as stderr:
            self._process = subprocess.Popen(
                [*COMMAND, *arguments],
                cwd=root,
                env={**os.environ, **(environment or {}), MARK: self._mark},
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                start_new_session=True,
            )
        self.pid = self._process.pid

    @property
    def stdout(self) -> str:
        return self._stdout.read_text(encoding="utf-8", errors="replace")

    @property
    def stderr(self) -> str:
        return self._stderr.read_text(encoding="utf-8", errors="replace")

    def runs(self) -> bool:
        """Whether the command itself has not ended."""
        return self._process.poll() is None

    def signal(self, number: signal.Signals, *, group: bool = True) -> bool:
        """Send a signal to the command, or to its whole group; False where it had ended before."""
        if not self.runs():
            return False
        if group:
            os.killpg(self.pid, number)
        else:
            self._process.send_signal(number)
        return True

    def wait(self) -> int:
        """Wait for the command's end; gives its return code, which is negative where a signal ended it."""
        return self._process.wait(PATIENCE_SECONDS)

    def left(self) -> list[str]:
        """The processes of the tree that are there although the command ended, given time to end by themselves."""
        return left(self._mark)

    def end(self) -> None:
        """End whatever is left of it."""
        end(self._mark)
        self._process.wait(PATIENCE_SECONDS)

    # the tree

    def tree(self) -> dict[int, int]:
        """The processes of the tree that are not merely waiting to be buried, each with its parent."""
        return marked(self._mark)

    def server(self) -> int | None:
        """The process that workers are forked from, None where there is none yet."""
        return _server(self.pid, self.tree())

    def workers(self) -> list[int]:
        """The worker processes."""
        tree = self.tree()
        server = _server(self.pid, tree)
        return [] if server is None else [pid for pid, parent in tree.items() if parent == server]

    def wait_for(self, holds: Callable[[], object]) -> bool:
        """Look, as often as possible, until something holds; False where the command ended before."""
        while not holds():
            if not self.runs():
                return False
            time.sleep(0.0005)
        return True


def new_mark() -> str:
    """A value of the variable MARK that no process has."""
    return uuid.uuid4().hex


def marked(mark: str) -> dict[int, int]:
    """The processes with this mark that are not merely waiting to be buried, each with its parent."""
    found = {}
    for name in os.listdir("/proc"):
        # What ended has no environment any more.
        if name.isdigit() and f"{MARK}={mark}".encode() in _read(name, "environ").split(b"\0"):
            fields = _read(name, "stat").rpartition(b")")[2].split()
            if fields and fields[0] not in (b"Z", b"X"):
                found[int(name)] = int(fields[1])
    return found


def left(mark: str) -> list[str]:
    """The processes with this mark that are there though they were given time to end by themselves."""
    until = time.monotonic() + PATIENCE_SECONDS
    while marked(mark) and time.monotonic() < until:
        time.sleep(0.05)
    return [described(pid) for pid in marked(mark)]


def end(mark: str) -> None:
    """End the processes with this mark."""
    for pid in marked(mark):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def described(process: int) -> str:
    """A process in words."""
    return f"{process}: {_read(process, 'cmdline').replace(bytes(1), b' ').decode(errors='replace')}"


def _server(command: int, tree: Mapping[int, int]) -> int | None:
    name = b"multiprocessing.forkserver"
    return next((pid for pid, parent in tree.items() if parent == command and name in _read(pid, "cmdline")), None)


def _read(process: int | str, file: str) -> bytes:
    """A file of a process's in /proc; nothing where the process is gone."""
    try:
        return Path(f"/proc/{process}/{file}").read_bytes()
    except OSError:
        return b""
