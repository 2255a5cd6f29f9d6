"""What bounds a run: the machine's cores and memory, and somebody's wish that it stop."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from functools import cache
from pathlib import Path, PurePosixPath

MOST_WORKERS = 256

#: More workers than this are not started unless they are asked for, however many cores there are.
MOST_DEFAULT_WORKERS = 4

# From so many nodes on, a project takes so much memory that DuckDB's with a node's work does not come on top of it, and
# that what is not needed any more is given back to the system.
LARGE_NODES = 5_000

# Where Linux shows the control groups: of version 2, and of version 1 in a folder for each controller.
_PROCESS_GROUPS = Path("/proc/self/cgroup")
_GROUPS = Path("/sys/fs/cgroup")


def give_back_memory() -> None:
    """Let the system have memory that was freed: glibc keeps what lies between what is in use."""
    if sys.platform.startswith("linux"):
        import ctypes

        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).malloc_trim(0)


class StopRequest:
    """Whether somebody wants the run to end, and since when. ``watch`` is set where that can happen."""

    grace_seconds = 5.0

    def __init__(self) -> None:
        self.watch = False
        self.signal_number = 0
        self._at: float | None = None
        self._now = False

    @property
    def requested(self) -> bool:
        return self._at is not None

    def request(self, signal_number: int = 0) -> None:
        """Ask once: running nodes have a few seconds to finish. Ask twice: they do not."""
        if self._at is None:
            self._at = time.monotonic()
            self.signal_number = signal_number
        else:
            self._now = True

    @property
    def insists(self) -> bool:
        """Whether it was asked for twice."""
        return self._now

    def overdue(self) -> bool:
        return self._now or (self._at is not None and time.monotonic() - self._at > self.grace_seconds)


def memory_share(busy: int) -> int:
    """A worker's memory limit in bytes: its share of 80 % of what this machine or control group has."""
    return int(usable_memory_bytes() * 0.8 / max(busy, 1))


@cache
def usable_memory_bytes() -> int:
    """The memory this process may use: the machine's, or its control groups' limit where that is less. Asked once."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for texts in (control_group_texts("", "memory.max"), control_group_texts("memory", "memory.limit_in_bytes")):
        limits += [int(text) for text in texts if text.isdigit()]
    return min(limits)


def usable_cores() -> int:
    """How many cores this process may use: its affinity, or its control groups' quota where that is less."""
    limits = [len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1]
    for text in control_group_texts("", "cpu.max"):
        quota, _, period = text.partition(" ")
        if quota.isdigit() and period.isdigit():
            limits.append(max(1, round(int(quota) / int(period))))
    return min(limits)


def default_workers() -> int:
    """How many worker processes a parallel run has where nothing is said."""
    return min(MOST_DEFAULT_WORKERS, usable_cores())


def control_group_texts(controller: str, name: str) -> list[str]:
    """What a file says in the process's control group and in those above it; the version 2 has no ``controller``."""
    try:
        lines = [line.split(":", 2) for line in _PROCESS_GROUPS.read_text().splitlines()]
    except OSError:
        return []
    texts = []
    for _, controllers, group in lines:
        if controller in controllers.split(","):
            path = PurePosixPath("/", group.lstrip("/"))
            for folder in (path, *path.parents):
                with contextlib.suppress(OSError):
                    texts.append(_GROUPS.joinpath(controller, *folder.parts[1:], name).read_text().strip())
    return texts
