"""Where worker processes come from: a fork server, or processes that start from nothing where there cannot be one.

The fork server has DuckDB imported but no connection open and no pyarrow: both start threads, and a fork with threads
hangs sooner or later. Plain fork is never used. A worker does not import the caller's main module: it needs nothing of
it, and a script that runs a project need not guard itself against that.

Its start takes as long as reading a small project. So whoever will most likely need workers says so before that.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from multiprocessing import context, forkserver, resource_tracker
from multiprocessing.process import BaseProcess
from types import ModuleType
from typing import Any

from seeknal.nodes.registry import KIND_MODULES

# What a fork server imports once, for all workers.
_PRELOADED = [
    "duckdb",
    *KIND_MODULES,
    "seeknal.nodes.workbench",
    "seeknal.nodes.python_function",
    "seeknal.workflow.workers",
]

# A fork server listens on a socket of some 30 characters more, and a socket's path has 107 (unix(7)), on macOS 103.
_LONGEST_TEMPORARY_FOLDER = 70

# The value that says who set the variable; Python only asks whether it has one.
SAFE_PATH = "seeknal-fork-server"


def expect_workers() -> None:
    """Begin to start what workers come from, and do not wait for it. What stands in the way is told by their start.

    The environment variables are those of this moment.
    """
    if isinstance(process_context(), _ForkServerContext):
        with contextlib.suppress(OSError), _starting_fork_server():
            forkserver.ensure_running()


def process_context() -> context.BaseContext:
    """What starts worker processes here."""
    has_room = len(os.fsencode(tempfile.gettempdir())) <= _LONGEST_TEMPORARY_FOLDER
    if has_room and "forkserver" in multiprocessing.get_all_start_methods():
        fork_server = _ForkServerContext()
        fork_server.set_forkserver_preload(_PRELOADED)
        return fork_server
    return _SpawnContext()


class _ForkServerProcess(context.ForkServerProcess):
    @staticmethod
    def _Popen(process: BaseProcess) -> Any:
        with _starting_fork_server():
            return context.ForkServerProcess._Popen(process)


class _ForkServerContext(context.ForkServerContext):
    Process = _ForkServerProcess


class _SpawnProcess(context.SpawnProcess):
    @staticmethod
    def _Popen(process: BaseProcess) -> Any:
        with _without_main(), _without_interrupts():
            return context.SpawnProcess._Popen(process)


class _SpawnContext(context.SpawnContext):
    Process = _SpawnProcess


@contextlib.contextmanager
def _starting_fork_server() -> Iterator[None]:
    """Start a fork server as it is to be, where that starts one. Raises OSError."""
    # First, because its start lets Ctrl-C through again.
    resource_tracker.ensure_running()
    with _without_main(), _safe_path(), _without_interrupts():
        yield


@contextlib.contextmanager
def _without_main() -> Iterator[None]:
    """Let a process that starts find a main module that has no file to import again."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


@contextlib.contextmanager
def _without_interrupts() -> Iterator[None]:
    """Let a process that starts, and those that it starts, be spared Ctrl-C until they can tell what to do with it.

    That goes to all of them, and what Python does with it while it starts is an exception out of nowhere.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def _safe_path() -> Iterator[None]:
    """Let a fork server that starts here not look for modules in the folder where it starts.

    That is a project's folder as a rule, and what is in it has names of its own.
    """
    if os.environ.get("PYTHONSAFEPATH"):
        yield
        return
    os.environ["PYTHONSAFEPATH"] = SAFE_PATH
    try:
        yield
    finally:
        del os.environ["PYTHONSAFEPATH"]
