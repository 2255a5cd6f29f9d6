"""Ctrl-C and SIGTERM during a run: the first asks it to stop, the second insists, the third ends it on the spot."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from seeknal.workflow.limits import StopRequest
from seeknal.workflow.worker import interrupt_queries


@contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Turn SIGINT and SIGTERM into a StopRequest while the block runs."""
    stop = StopRequest()
    stop.watch = True

    asked = 0
    # A query in this very process does not look at the clock.
    clock = threading.Timer(stop.grace_seconds, interrupt_queries)
    clock.daemon = True

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        asked += 1
        stop.request(number)
        if asked == 1:
            clock.start()
            # Past Python's own stream: this may have come into the midst of writing to it, which that refuses.
            with suppress(OSError):
                os.write(2, b"\nstopping: running nodes may finish; once more to stop at once\n")
        elif asked == 2:
            interrupt_queries()
        elif asked > 2:
            # Not at once: an exception out of a query leaves DuckDB's module in disorder.
            raise KeyboardInterrupt

    def leave(number: int, frame: FrameType | None) -> None:
        sys.exit(128 + stop.signal_number)

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    except KeyboardInterrupt:
        sys.exit(128 + (stop.signal_number or signal.SIGINT))
    finally:
        clock.cancel()
        if clock.is_alive():
            # A thread that outlives the main one keeps DuckDB's objects from being freed in order.
            clock.join()
        for number, handler in before.items():
            # A command that was asked to stop says so by its exit code, even if it is asked again while it ends.
            signal.signal(number, leave if asked and handler is signal.SIG_DFL else handler)
