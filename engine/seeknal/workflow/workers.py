"""Where tasks are executed: in this process one after the other, or in worker processes side by side.

Every place is a :class:`concurrent.futures.Executor` behind a few slots, so another executor that can reach the
store (a cluster's, say) fits in the same seam.

A pool is N executors of one process each, not one executor of N: one process that dies then breaks only its own,
and names its node.
"""

from __future__ import annotations

import time
from collections.abc import Collection
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, wait
from multiprocessing.process import BaseProcess
from typing import Protocol

from seeknal.timeline import span
from seeknal.workflow.fork_server import process_context
from seeknal.workflow.worker import close_workbenches, execute_task
from seeknal.workflow.worker_process import Death, WorkerProcess, wait_for_one

# A look takes as long as handing over a task, so not before each.
_BETWEEN_LOOKS_SECONDS = 0.05

# Before each try to start a process.
_PAUSES_SECONDS = (0.0, 0.05, 0.2, 1.0)


class Workers(Protocol):
    """Something that executes encoded tasks. ``slots`` is how many at a time."""

    slots: int

    def submit(self, task: bytes) -> Future[bytes]:
        """Begin a task. The caller keeps to ``slots``. A future that raises BrokenExecutor lost its process."""
        ...

    def wait(self, futures: Collection[Future[bytes]], seconds: float | None = None) -> set[Future[bytes]]:
        """Wait until one of these tasks is over, but no longer than so many seconds; gives those that are."""
        return wait(futures, timeout=seconds, return_when=FIRST_COMPLETED).done

    def look(self) -> None:
        """Notice how much memory the tasks use now; called again and again while they are executed."""
        return

    def end(self, future: Future[bytes]) -> bool:
        """End what executes a task at once. The future raises BrokenExecutor then; False where that is not possible."""
        return False

    def held_from(self, future: Future[bytes]) -> float | None:
        """Since when a task holds its mutexes, by the monotonic clock; None: it waits for them, 0: nobody knows."""
        return 0.0

    def death(self, future: Future[bytes]) -> Death:
        """How the process ended of a task whose future raised BrokenExecutor."""
        return Death()

    def close(self, *, kill: bool = False) -> None:
        """End all processes; with ``kill`` at once, whatever they do."""
        ...


class Inline(Workers):
    """Executes in this process, within ``submit``. Closing it closes the connections that this opened."""

    slots = 1

    def submit(self, task: bytes) -> Future[bytes]:
        future: Future[bytes] = Future()
        try:
            future.set_result(execute_task(task))
        except Exception as error:
            future.set_exception(error)
        return future

    def close(self, *, kill: bool = False) -> None:
        close_workbenches()


class External(Workers):
    """Somebody else's executor, used ``slots`` tasks at a time. It is left open."""

    def __init__(self, executor: Executor, slots: int) -> None:
        self.slots = slots
        self._executor = executor

    def submit(self, task: bytes) -> Future[bytes]:
        return self._executor.submit(execute_task, task)

    def close(self, *, kill: bool = False) -> None:
        pass


class ProcessWorkers(Workers):
    """Up to ``slots`` worker processes, each started when it is first needed and kept warm until the end.

    One that has grown beyond ``heavy_bytes`` (0: whatever it is) ends after its task, and another takes its place.
    """

    def __init__(self, slots: int, *, heavy_bytes: int = 0) -> None:
        self.slots = slots
        self._heavy_bytes = heavy_bytes
        self._context = process_context()
        self._idle: list[WorkerProcess] = []
        self._busy: dict[Future[bytes], WorkerProcess] = {}
        self._dead: dict[Future[bytes], WorkerProcess] = {}
        self._looked = 0.0

    def submit(self, task: bytes) -> Future[bytes]:
        self._reclaim()
        while self._idle:
            worker = self._idle.pop()
            try:
                return self._give(worker, task)
            except BrokenExecutor:
                # Its process died while it had nothing to do, which is no task's fault.
                worker.close(wait=False)
        with span("start"):
            return self._give_new(task)

    def _give_new(self, task: bytes) -> Future[bytes]:
        """Start a process for a task. Where the fork server was ended, it takes a moment until a new one is begun."""
        problem: Exception | None = None
        for pause_seconds in _PAUSES_SECONDS:
            time.sleep(pause_seconds)
            worker = WorkerProcess(self._context)
            try:
                return self._give(worker, task)
            except (EOFError, OSError) as error:
                worker.close(wait=False)
                problem = error
            except BrokenExecutor as error:
                future: Future[bytes] = Future()
                future.set_exception(error)
                self._busy[future] = worker
                return future
        future = Future()
        future.set_exception(BrokenExecutor(f"no process could be started: {problem}"))
        return future

    def wait(self, futures: Collection[Future[bytes]], seconds: float | None = None) -> set[Future[bytes]]:
        # What no process does is over already.
        done = {future for future in futures if future not in self._busy}
        if not done:
            wait_for_one([self._busy[future] for future in futures], seconds)
        return done | {future for future in futures if future.done()}

    def look(self) -> None:
        now = time.monotonic()
        if now < self._looked + _BETWEEN_LOOKS_SECONDS:
            return
        self._looked = now
        for worker in self._busy.values():
            worker.look()

    def end(self, future: Future[bytes]) -> bool:
        worker = self._busy.get(future)
        if worker is not None:
            worker.kill()
        return worker is not None

    def held_from(self, future: Future[bytes]) -> float | None:
        worker = self._busy.get(future)
        return worker.held_from() if worker is not None else 0.0

    def death(self, future: Future[bytes]) -> Death:
        self._reclaim()
        worker = self._dead.pop(future, None)
        return worker.death() if worker is not None else Death()

    def _give(self, worker: WorkerProcess, task: bytes) -> Future[bytes]:
        future = worker.submit(task)
        self._busy[future] = worker
        return future

    def _reclaim(self) -> None:
        for future in [future for future in self._busy if future.done()]:
            worker = self._busy.pop(future)
            if future.cancelled() or isinstance(future.exception(), BrokenExecutor):
                self._dead[future] = worker
                worker.bury()
            elif self._is_heavy(worker):
                worker.close(wait=False)
            else:
                self._idle.append(worker)

    def _is_heavy(self, worker: WorkerProcess) -> bool:
        return bool(self._heavy_bytes) and worker.resident_bytes() > self._heavy_bytes

    def processes(self) -> list[BaseProcess]:
        """The worker processes that live now."""
        found = [worker.process for worker in [*self._idle, *self._busy.values()]]
        return [process for process in found if process is not None]

    def close(self, *, kill: bool = False) -> None:
        workers = [*self._idle, *self._busy.values()]
        if kill:
            for worker in workers:
                worker.kill()
        for worker in workers:
            worker.close(wait=not kill)
        self._idle.clear()
        self._busy.clear()
        self._dead.clear()
