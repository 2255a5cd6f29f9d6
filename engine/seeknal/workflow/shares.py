"""Shares: what of the machine the nodes of a run get: worker processes, threads, memory for DuckDB.

- *slots*: how many nodes may run at a time.
- *alone*: nothing else runs, and nothing waits for a slot. Such a node may have the whole machine.
"""

from __future__ import annotations

from collections.abc import Sequence

from seeknal.dag.demands import Demands
from seeknal.dag.draft import Draft
from seeknal.workflow.limits import LARGE_NODES, MOST_WORKERS, memory_share, usable_cores
from seeknal.workflow.results import RunOptions
from seeknal.workflow.workers import Inline, ProcessWorkers, Workers

# Below this many input rows a node gets one thread: DuckDB hands out work in row groups of 122,880 rows, so more
# threads gain nothing, and one thread gives the same bytes every time.
ROWS_WORTH_THREADS = 500_000

# A worker process is replaced once it holds on to half of its share of the memory; not for less than this.
LEAST_HEAVY_BYTES = 512 * 1024**2


def slots_of(options: RunOptions, runnable: int) -> int:
    """How many of so many runnable nodes may run at a time."""
    if not options.parallel:
        return 1
    return max(1, min(options.max_workers, MOST_WORKERS, max(runnable, 1)))


def workers_for(drafts: Sequence[Draft], slots: int, *, parallel: bool, total: int = 0) -> Workers:
    """Where these nodes, which may all run, of a project of so many in ``total`` are executed."""
    # One worker process would only add its start, save where this process is large already; below two runnable nodes
    # nothing can overlap. But code of the user's never runs in this process, nor does what nothing but a process's end
    # would stop: waiting for a mutex, too.
    apart = any(
        draft.function or draft.implementation.needs_process or draft.demands.timeout_seconds or draft.demands.mutexes
        for draft in drafts
    )
    worth_it = len(drafts) > 1 or (len(drafts) == 1 and total >= LARGE_NODES)
    if not apart and not (parallel and worth_it):
        return Inline()
    return ProcessWorkers(slots, heavy_bytes=max(LEAST_HEAVY_BYTES, memory_share(slots) // 2))


def threads_for(rows: int, demands: Demands, *, alone: bool, deterministic: bool) -> int:
    """How many threads a node gets that reads, or gave before, so many rows."""
    if deterministic or (demands.slots == 1 and not alone) or rows < ROWS_WORTH_THREADS:
        # Before the cores are counted, which takes as long as all else here.
        return 1
    return usable_cores() if alone else min(demands.slots, usable_cores())


def memory_limit_bytes(demands: Demands, slots: int) -> int:
    """How much memory DuckDB may use for a node where so many run at a time; 0: as it likes."""
    if demands.memory_bytes:
        return min(demands.memory_bytes, memory_share(1))
    return 0 if slots == 1 else memory_share(slots)
