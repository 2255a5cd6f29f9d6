"""The locks of runs that one backend object holds, whatever kind of lock they are."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Protocol

from seeknal.errors import BusyError
from seeknal.state.locks import Patience
from seeknal.state.records import check_run_id


class RunLock(Protocol):
    """The lock of one run, to be taken once."""

    def acquire(self, patience: Patience) -> None:
        """Take it. Raises BusyError, which names the holder."""
        ...

    def release(self) -> None:
        """Give it up. Where this object does not hold it, nothing happens."""
        ...


class RunLocks:
    """The locks that a backend holds; ``make`` gives a new lock object for a run, not yet acquired.

    The methods are those of :class:`~seeknal.state.backend.StateBackend`.
    """

    def __init__(self, make: Callable[[str], RunLock]) -> None:
        self._make = make
        self._held: dict[str, RunLock] = {}

    def acquire(self, run_id: str, timeout_ms: int) -> bool:
        try:
            self._take(run_id, timeout_ms)
        except BusyError:
            return False
        return True

    def release(self, run_id: str) -> None:
        lock = self._held.pop(check_run_id(run_id), None)
        if lock is not None:
            lock.release()

    def release_all(self) -> None:
        for run_id in list(self._held):
            self.release(run_id)

    @contextlib.contextmanager
    def hold(self, run_id: str, timeout_ms: int) -> Iterator[None]:
        lock = self._take(run_id, timeout_ms)
        try:
            yield
        finally:
            # Where the block released it already, it may be another's by now.
            if self._held.get(run_id) is lock:
                self.release(run_id)

    def _take(self, run_id: str, timeout_ms: int) -> RunLock:
        # A new lock object each time, so that this very backend, too, is refused while it holds the lock.
        lock = self._make(check_run_id(run_id))
        lock.acquire(Patience(timeout_ms / 1000))
        self._held[run_id] = lock
        return lock
