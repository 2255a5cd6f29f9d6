"""Faults at file-system calls, brought about from outside the code that makes them.

- *library*: ``faults.c``, compiled when it is needed and loaded before all others. It counts the calls by which a
  process and its children change or read files below a folder, and at one of them does what the fault says.
- *fault*: what happens, at which of the calls, of which kinds.
- *process*: one that has everything imported, with the library loaded. It forks a child for each call of a function, so
  that a try costs the function and not the start of Python.
"""

from __future__ import annotations

import ctypes
import errno
import json
import mmap
import os
import shutil
import signal
import struct
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest

# What calls do, as in the library.
MAKE, WRITE, NAME, REMOVE, CHANGE, SYNC, READ = 1, 2, 4, 8, 16, 32, 64
CHANGING = MAKE | WRITE | NAME | REMOVE | CHANGE | SYNC
TAKING_ROOM = MAKE | WRITE | NAME | SYNC

# What happens.
NOTHING, KILL, KILL_ONE, KILL_GROUP, TEAR, FAIL, FAIL_ON, FULL, SHORT, SHORT_ON = range(10)

_HEADER = struct.Struct("<qqqiiIiq1024s")
_LOG_BYTES = 4 << 20
_SHARED_BYTES = _HEADER.size + _LOG_BYTES


@dataclass(frozen=True)
class Fault:
    """What happens at the ``at``-th call of these ``kinds``; ``error`` is for FAIL and FAIL_ON. 0 is no call.

    ``every``: where all calls are tried, every one or every third, because another fault does much the same.
    """

    words: str
    mode: int
    kinds: int = CHANGING
    error: int = 0
    every: int = 1
    at: int = 0

    def number(self, at: int) -> Fault:
        return replace(self, at=at)


CALM = Fault("nothing", NOTHING)
KILLED = Fault("killed at a file-system call", KILL)
ONE_KILLED = Fault("one process of a run with workers killed at a file-system call", KILL_ONE)
GROUP_KILLED = Fault("all processes of a run with workers killed at a file-system call", KILL_GROUP)
POWER_CUT = Fault("power cut at a file-system call", KILL, every=4)
TORN = Fault("killed in the middle of a write", TEAR, WRITE)
BROKEN = Fault("EIO from a file-system call", FAIL, CHANGING, errno.EIO)
BROKEN_ON = Fault("EIO from a file-system call and all that follow", FAIL_ON, CHANGING, errno.EIO, 8)
UNREADABLE = Fault("EIO from a read", FAIL, READ, errno.EIO, 3)
NO_ROOM = Fault("ENOSPC from a file-system call", FAIL, TAKING_ROOM, errno.ENOSPC, 3)
DISK_FULL = Fault("a disk that becomes full", FULL, TAKING_ROOM, errno.ENOSPC)
WRITES_LESS = Fault("a write that takes half", SHORT, WRITE, every=2)
WRITES_LESS_ON = Fault("writes that take half", SHORT_ON, WRITE, every=4)


@dataclass(frozen=True)
class Call:
    """A call that counted: what it does, and its name. ``to`` is the second path of those that have two."""

    does: int
    name: str
    path: str
    to: str = ""


@dataclass(frozen=True)
class Outcome:
    """What became of a function: its value, or how it ended. ``tried`` says whether the fault came about."""

    value: Any
    traceback: str
    signal: int
    tried: bool
    calls: list[Call]

    @property
    def ended(self) -> bool:
        """Whether the function came to its end, and its process was not killed."""
        return not self.signal


def compiled_library(folder: Path) -> Path:
    """Compile the library into a folder; skips the test where that cannot be done."""
    if not sys.platform.startswith("linux"):
        pytest.skip("faults at file-system calls need LD_PRELOAD, so Linux")
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("faults at file-system calls need a C compiler; none is installed")
    library = folder / "faults.so"
    source = Path(__file__).with_name("faults.c")
    command = [compiler, "-O1", "-Wall", "-Wextra", "-shared", "-fPIC", "-o", str(library), str(source), "-ldl"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return library


class FaultyProcess:
    """A process that calls functions of ``tests.reliability`` in children of its own, with faults.

    ``folder`` is where the library and what is shared with it lie. Faults happen below ``root``, which is not there.
    """

    def __init__(self, folder: Path, root: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.root = root
        library = compiled_library(folder)
        shared = folder / "shared"
        with shared.open("wb") as file:
            file.truncate(_SHARED_BYTES)
        environment = {**os.environ, "LD_PRELOAD": str(library), "SEEKNAL_FAULTS": str(shared)}
        environment["PYTHONPATH"] = os.pathsep.join(entry for entry in sys.path if entry)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.reliability.faults", str(folder)],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._questions, self._answers = self._process.stdin, self._process.stdout

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._questions.close()
        self._process.wait(30)
        self._answers.close()

    def call(self, function: Callable[..., Any], *arguments: Any, fault: Fault = CALM) -> Outcome:
        """Call a function, by its name, in a child whose working folder is the root."""
        request = {
            "function": [function.__module__, function.__qualname__],
            "arguments": arguments,
            "fault": [fault.at, fault.mode, fault.error, fault.kinds],
            "root": str(self.root),
        }
        self._questions.write(json.dumps(request) + "\n")
        self._questions.flush()
        line = self._answers.readline()
        assert line, "the process that tries faults has ended"
        answer = json.loads(line)
        calls = [Call(int(does), *rest) for does, *rest in answer["calls"]]
        return Outcome(answer["value"], answer["traceback"], answer["signal"], answer["fired"] > 0, calls)


# the process itself


def _serve(folder: Path) -> None:
    _adopt_orphans()
    answers = os.fdopen(os.dup(1), "w")
    # What functions print belongs nowhere.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    with (folder / "shared").open("r+b") as file, mmap.mmap(file.fileno(), _SHARED_BYTES) as shared:
        for line in sys.stdin:
            answers.write(json.dumps(_answer(json.loads(line), shared, folder / "result")) + "\n")
            answers.flush()


def _adopt_orphans() -> None:
    """Become the parent of processes whose own parent dies, to see the end of them."""
    set_child_subreaper = 36
    ctypes.CDLL(None).prctl(set_child_subreaper, 1, 0, 0, 0)


def _answer(request: dict[str, Any], shared: mmap.mmap, result: Path) -> dict[str, Any]:
    at, mode, error, kinds = request["fault"]
    result.unlink(missing_ok=True)
    root = request["root"].encode()
    shared[: _HEADER.size] = _HEADER.pack(0, at, 0, mode, error, kinds, 1, 0, root)
    child = os.fork()
    if not child:
        _act(request, result)
    status = _wait_for_all(child)
    _, _, fired, _, _, _, _, used, _ = _HEADER.unpack(shared[: _HEADER.size])
    log = shared[_HEADER.size : _HEADER.size + used].decode()
    said = json.loads(result.read_text()) if result.exists() else {"value": None, "traceback": "", "imported": []}
    if mode == NOTHING:
        for module in said["imported"]:
            _import(module)
    return {
        "value": said["value"],
        "traceback": said["traceback"],
        "signal": os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0,
        "fired": fired,
        "calls": [line.split("\t") for line in log.splitlines()],
    }


def _act(request: dict[str, Any], result: Path) -> None:
    """Be the child: call the function, leave its value, end."""
    import importlib
    import traceback

    before = set(sys.modules)
    value, trace = None, ""
    try:
        os.setpgid(0, 0)
        os.chdir(request["root"])
        module, name = request["function"]
        value = getattr(importlib.import_module(module), name)(*request["arguments"])
    except BaseException:
        trace = traceback.format_exc()
    imported = [name for name in sys.modules if name not in before]
    result.write_text(json.dumps({"value": value, "traceback": trace, "imported": imported}))
    os._exit(0)


def _wait_for_all(child: int) -> int:
    """Wait for the child and for whatever it left behind; gives its status."""
    status = 0
    signal.alarm(120)
    while True:
        try:
            ended, how = os.waitpid(-1, 0)
        except ChildProcessError:
            signal.alarm(0)
            return status
        if ended == child:
            status = how


def _import(module: str) -> None:
    """Import what a child did, so that the next one has it."""
    import contextlib
    import importlib

    # Names that a program made, and what starts threads.
    if not module.startswith(("__mp", "pyarrow", "pandas", "sklearn", "seeknal_")):
        with contextlib.suppress(Exception):
            importlib.import_module(module)


if __name__ == "__main__":
    _serve(Path(sys.argv[1]))
