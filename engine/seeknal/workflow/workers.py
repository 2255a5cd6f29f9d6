"""Where tasks are executed: in this process one after the other, or in worker processes side by side.

Every place is a :class:`concurrent.futures.Executor` behind a few slots, so another executor that can reach the
store (a cluster's, say) fits in the same seam.

A pool is N executors of one process each, not one executor of N: one process that dies then breaks only its own,
and names its node. Processes come from a fork server that has DuckDB imported but no connection open and no pyarrow:
both start threads, and a fork with threads hangs sooner or later. Plain fork is never used. A worker does not import
the caller's main module: it needs nothing of it, and a script that runs a project need not guard itself against that.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Iterator
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor
from multiprocessing import context
from multiprocessing.process import BaseProcess
from types import ModuleType
from typing import Any, Protocol

from seeknal.workflow.worker import SAFE_PATH, close_workbenches, execute_task, start_worker

# What a fork server imports once, for all workers.
_PRELOADED = ["duckdb", "seeknal.nodes.registry", "seeknal.nodes.workbench", "seeknal.workflow.workers"]

# A process that ended is buried at once, but its last words may be slow to write.
_LONGEST_BURIAL_SECONDS = 5.0

# Before each try to start a process.
_PAUSES_SECONDS = (0.0, 0.05, 0.2, 1.0)


class Workers(Protocol):
    """Something that executes encoded tasks. ``slots`` is how many at a time."""

    slots: int

    def submit(self, task: bytes) -> Future[bytes]:
        """Begin a task. The caller keeps to ``slots``. A future that raises BrokenExecutor lost its process."""
        ...

    def how_it_ended(self, future: Future[bytes]) -> str:
        """How the process ended that a future lost: a signal's name or an exit code; empty where that is not known."""
        ...

    def close(self, *, kill: bool = False) -> None:
        """End all processes; with ``kill`` at once, whatever they do."""
        ...


class Inline:
    """Executes in this process, within ``submit``. Closing it closes the connections that this opened."""

    slots = 1

    def submit(self, task: bytes) -> Future[bytes]:
        future: Future[bytes] = Future()
        try:
            future.set_result(execute_task(task))
        except Exception as error:
            future.set_exception(error)
        return future

    def how_it_ended(self, future: Future[bytes]) -> str:
        return ""

    def close(self, *, kill: bool = False) -> None:
        close_workbenches()


class External:
    """Somebody else's executor, used ``slots`` tasks at a time. It is left open."""

    def __init__(self, executor: Executor, slots: int) -> None:
        self.slots = slots
        self._executor = executor

    def submit(self, task: bytes) -> Future[bytes]:
        return self._executor.submit(execute_task, task)

    def how_it_ended(self, future: Future[bytes]) -> str:
        return ""

    def close(self, *, kill: bool = False) -> None:
        pass


class ProcessWorkers:
    """Up to ``slots`` worker processes, each started when it is first needed and kept warm until the end."""

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self._context = _context()
        self._idle: list[ProcessPoolExecutor] = []
        self._busy: dict[Future[bytes], ProcessPoolExecutor] = {}
        # Whose process each of them is: an executor forgets it when it breaks.
        self._process: dict[ProcessPoolExecutor, BaseProcess] = {}
        self._ends: dict[Future[bytes], str] = {}

    def submit(self, task: bytes) -> Future[bytes]:
        self._reclaim()
        while self._idle:
            executor = self._idle.pop()
            try:
                return self._give(executor, task)
            except BrokenExecutor:
                # Its process died while it had nothing to do, which is no task's fault.
                self._discard(executor)
        return self._give_new(task)

    def _give_new(self, task: bytes) -> Future[bytes]:
        """Start a process for a task. Where the fork server was ended, it takes a moment until a new one is begun."""
        problem: Exception | None = None
        for pause_seconds in _PAUSES_SECONDS:
            time.sleep(pause_seconds)
            executor = ProcessPoolExecutor(max_workers=1, mp_context=self._context, initializer=start_worker)
            try:
                return self._give(executor, task)
            except (EOFError, OSError) as error:
                self._discard(executor)
                problem = error
        future: Future[bytes] = Future()
        future.set_exception(BrokenExecutor(f"no process could be started: {problem}"))
        return future

    def _give(self, executor: ProcessPoolExecutor, task: bytes) -> Future[bytes]:
        future = executor.submit(execute_task, task)
        self._busy[future] = executor
        self._process.update((executor, process) for process in list((executor._processes or {}).values()))
        return future

    def _reclaim(self) -> None:
        for future in [future for future in self._busy if future.done()]:
            executor = self._busy.pop(future)
            if future.cancelled() or isinstance(future.exception(), BrokenExecutor):
                self._ends[future] = self._end_of(executor)
                self._discard(executor)
            else:
                self._idle.append(executor)

    def _discard(self, executor: ProcessPoolExecutor) -> None:
        self._process.pop(executor, None)
        executor.shutdown(wait=False, cancel_futures=True)

    def how_it_ended(self, future: Future[bytes]) -> str:
        self._reclaim()
        return self._ends.pop(future, "")

    def _end_of(self, executor: ProcessPoolExecutor) -> str:
        process = self._process.get(executor)
        if process is None:
            return ""
        manager: Any = executor._executor_manager_thread
        if manager is not None:
            # It waits for the process as well, and only one of two who wait is told how that ended.
            manager.join(_LONGEST_BURIAL_SECONDS)
        code = process.exitcode
        # 255 stands for a process whose fork server is gone, too.
        if code is None or code == 255:
            return ""
        return _signal_name(-code) if code < 0 else f"exit code {code}"

    def processes(self) -> list[BaseProcess]:
        """The worker processes that live now."""
        executors = [*self._idle, *self._busy.values()]
        # A copy, because an executor whose process dies changes its own.
        return [process for executor in executors for process in list((executor._processes or {}).values())]

    def close(self, *, kill: bool = False) -> None:
        if kill:
            for process in self.processes():
                process.kill()
        for executor in [*self._idle, *self._busy.values()]:
            executor.shutdown(wait=not kill, cancel_futures=True)
        self._idle.clear()
        self._busy.clear()
        self._process.clear()
        self._ends.clear()


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


class _ForkServerProcess(context.ForkServerProcess):
    @staticmethod
    def _Popen(process: BaseProcess) -> Any:
        with _without_main(), _safe_path(), _without_interrupts():
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


def _context() -> context.BaseContext:
    if "forkserver" in multiprocessing.get_all_start_methods():
        fork_server = _ForkServerContext()
        fork_server.set_forkserver_preload(_PRELOADED)
        return fork_server
    return _SpawnContext()
