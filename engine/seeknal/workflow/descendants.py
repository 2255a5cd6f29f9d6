"""The processes that a process started, and that those started, also where they left its process group.

Who calls ``setsid`` leaves the group, and who forks twice has a parent that is gone: a signal to the group reaches
neither. On Linux a process can adopt them (as a "child subreaper"), and /proc tells whose children there are. Elsewhere
nothing is adopted and nobody is found; what is left is the group.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

_PR_SET_CHILD_SUBREAPER = 36
# Each try kills all that there are, so a second one is for those that were just being started.
_TRIES = 100
_PAUSE_SECONDS = 0.002


def adopt_descendants() -> None:
    """Become the parent of descendants whose own parent ends."""
    if sys.platform != "linux":
        return
    import ctypes

    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def end_descendants(pid: int) -> None:
    """Kill all descendants of a process, which must not start others meanwhile; the process itself is left alone."""
    for _ in range(_TRIES):
        living = [descendant for descendant in _descendants(pid) if _lives(descendant)]
        if not living:
            return
        for descendant in living:
            with contextlib.suppress(OSError):
                os.kill(descendant, signal.SIGKILL)
        time.sleep(_PAUSE_SECONDS)


def _descendants(pid: int) -> Iterator[int]:
    # A process that ends meanwhile has no children any more: who adopts them is looked at in the next try.
    with contextlib.suppress(OSError):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            for child in map(int, (thread / "children").read_text().split()):
                yield child
                yield from _descendants(child)


def _lives(pid: int) -> bool:
    with contextlib.suppress(OSError, IndexError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    return False
