"""Ctrl-C and SIGTERM during a run: the first asks it to stop, the second insists."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import click

from seeknal.workflow.limits import StopRequest
from seeknal.workflow.worker import interrupt_queries


@contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Turn SIGINT and SIGTERM into a StopRequest while the block runs."""
    stop = StopRequest()
    stop.watch = True

    def handle(number: int, frame: FrameType | None) -> None:
        if not stop.requested:
            click.echo("\nstopping: running nodes may finish; once more to stop at once", err=True)
            # A query in this very process does not look at the clock.
            timer = threading.Timer(stop.grace_seconds, interrupt_queries)
            timer.daemon = True
            timer.start()
        stop.request(number)
        if stop.insists:
            # A query in this very process ends only by an exception.
            raise KeyboardInterrupt

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    except KeyboardInterrupt:
        sys.exit(128 + (stop.signal_number or signal.SIGINT))
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
