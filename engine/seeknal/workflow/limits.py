"""What bounds a run: the machine's cores and memory, and somebody's wish that it stop."""

from __future__ import annotations

import os
import time

MOST_WORKERS = 256


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


def usable_memory_bytes() -> int:
    """The memory this process may use: the machine's, or its control group's limit where that is less."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        with open("/sys/fs/cgroup/memory.max", encoding="ascii") as file:
            limit = file.read().strip()
        return min(total, int(limit)) if limit != "max" else total
    except (OSError, ValueError):
        return total


def usable_cores() -> int:
    """How many cores this process may use: its affinity, and its control group's quota where there is one."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        with open("/sys/fs/cgroup/cpu.max", encoding="ascii") as file:
            quota, period = file.read().split()
        if quota != "max":
            cores = min(cores, max(1, round(int(quota) / int(period))))
    except (OSError, ValueError):
        pass
    return cores
