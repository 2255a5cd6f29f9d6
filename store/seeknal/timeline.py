"""Where time goes, as spans; costs nothing while nobody looks.

- *span*: what a thread of a process did from one moment to another. The spans of a thread are nested or apart.

Recording is on or off for the whole process, because what is measured lies far below whoever asks. ``span`` marks a
span; while recording is off it does nothing.
"""

from __future__ import annotations

import contextlib
import functools
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import ParamSpec, Protocol, TypeVar

import msgspec

P = ParamSpec("P")
R = TypeVar("R")


class Span(msgspec.Struct, frozen=True, array_like=True):
    """One span. Times are nanoseconds since 1970; ``node_id`` is what it was done for, where that is one node."""

    name: str
    start_ns: int
    end_ns: int
    process: int
    thread: int
    node_id: str = ""

    @property
    def nanoseconds(self) -> int:
        return self.end_ns - self.start_ns


class _Mark(Protocol):
    def __enter__(self) -> object: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None: ...


class _Nothing:
    __slots__ = ()

    def __enter__(self) -> None:
        return None

    def __exit__(self, *exception: object) -> None:
        return None


class _Open:
    __slots__ = ("_name", "_node_id", "_recording", "_start_ns")

    def __init__(self, recording: Recording, name: str, node_id: str) -> None:
        self._recording = recording
        self._name = name
        self._node_id = node_id

    def __enter__(self) -> None:
        self._start_ns = time.perf_counter_ns()

    def __exit__(self, *exception: object) -> None:
        self._recording.add(self._name, self._start_ns, time.perf_counter_ns(), self._node_id)


class Recording:
    """The spans of this process while it records, in the order in which they ended; ``title`` is what it did."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.title = ""
        # A clock that never goes back, told as the time of day, so that processes can be laid side by side.
        self._shift_ns = time.time_ns() - time.perf_counter_ns()
        self._process = os.getpid()

    def add(self, name: str, start_ns: int, end_ns: int, node_id: str = "") -> None:
        """Add a span; its times are of ``perf_counter_ns``."""
        shift, thread = self._shift_ns, threading.get_native_id()
        self.spans.append(Span(name, start_ns + shift, end_ns + shift, self._process, thread, node_id))


_NOTHING = _Nothing()
_recording: Recording | None = None


def span(name: str, node_id: str = "") -> _Mark:
    """Mark what the block does as a span."""
    return _NOTHING if _recording is None else _Open(_recording, name, node_id)


def timed(name: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Mark all that a function does as a span."""

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(function)
        def measured(*arguments: P.args, **named: P.kwargs) -> R:
            with span(name):
                return function(*arguments, **named)

        return measured

    return decorate


def is_recording() -> bool:
    return _recording is not None


def entitle(title: str) -> None:
    """Say what is recorded, in a word."""
    if _recording is not None:
        _recording.title = title


def take_over(spans: Iterable[Span]) -> None:
    """Add spans that another process recorded."""
    if _recording is not None:
        _recording.spans += spans


@contextlib.contextmanager
def recording() -> Iterator[Recording]:
    """Record the spans of this process while the block runs."""
    global _recording
    before, _recording = _recording, Recording()
    try:
        yield _recording
    finally:
        _recording = before
