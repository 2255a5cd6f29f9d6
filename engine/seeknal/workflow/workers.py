"""Where tasks are executed: in this process one after the other, or in worker processes side by side.

Every place is a :class:`concurrent.futures.Executor` behind a few slots, so another executor that can reach the
store (a cluster's, say) fits in the same seam.

A pool is N executors of one process each, not one executor of N: one process that dies then breaks only its own,
and names its node. Processes come from a fork server that has DuckDB imported but no connection open and no pyarrow:
both start threads, and a fork with threads hangs sooner or later. Plain fork is never used.
"""

from __future__ import annotations

import multiprocessing
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from typing import Any, Protocol

from seeknal.workflow.worker import execute_task, start_worker


class Workers(Protocol):
    """Something that executes encoded tasks. ``slots`` is how many at a time."""

    slots: int

    def submit(self, task: bytes) -> Future[bytes]:
        """Begin a task. The caller keeps to ``slots``. A future that raises BrokenExecutor lost its process."""
        ...

    def close(self, *, kill: bool = False) -> None:
        """End all processes; with ``kill`` at once, whatever they do."""
        ...


class Inline:
    """Executes in this process, within ``submit``."""

    slots = 1

    def submit(self, task: bytes) -> Future[bytes]:
        future: Future[bytes] = Future()
        try:
            future.set_result(execute_task(task))
        except Exception as error:
            future.set_exception(error)
        return future

    def close(self, *, kill: bool = False) -> None:
        pass


class External:
    """Somebody else's executor, used ``slots`` tasks at a time. It is left open."""

    def __init__(self, executor: Executor, slots: int) -> None:
        self.slots = slots
        self._executor = executor

    def submit(self, task: bytes) -> Future[bytes]:
        return self._executor.submit(execute_task, task)

    def close(self, *, kill: bool = False) -> None:
        pass


class ProcessWorkers:
    """Up to ``slots`` worker processes, each started when it is first needed and kept warm until the end."""

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self._context = _context()
        self._idle: list[ProcessPoolExecutor] = []
        self._busy: dict[Future[bytes], ProcessPoolExecutor] = {}

    def submit(self, task: bytes) -> Future[bytes]:
        self._reclaim()
        executor = self._idle.pop() if self._idle else self._new()
        future = executor.submit(execute_task, task)
        self._busy[future] = executor
        return future

    def _new(self) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(max_workers=1, mp_context=self._context, initializer=start_worker)

    def _reclaim(self) -> None:
        for future in [future for future in self._busy if future.done()]:
            executor = self._busy.pop(future)
            if future.cancelled() or isinstance(future.exception(), Exception):
                executor.shutdown(wait=False, cancel_futures=True)
            else:
                self._idle.append(executor)

    def processes(self) -> list[Any]:
        """The worker processes that live now."""
        executors = [*self._idle, *self._busy.values()]
        return [process for executor in executors for process in (executor._processes or {}).values()]

    def close(self, *, kill: bool = False) -> None:
        processes = self.processes()
        if kill:
            for process in processes:
                process.kill()
        for executor in [*self._idle, *self._busy.values()]:
            executor.shutdown(wait=not kill, cancel_futures=True)
        self._idle.clear()
        self._busy.clear()


def _context() -> Any:
    if "forkserver" in multiprocessing.get_all_start_methods():
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["duckdb", "seeknal.nodes.registry", "seeknal.nodes.workbench", "seeknal.workflow.worker"])
        return context
    return multiprocessing.get_context("spawn")
