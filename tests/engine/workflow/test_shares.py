from __future__ import annotations

import pytest

from seeknal.dag.demands import NO_DEMANDS, Demands
from seeknal.dag.draft import Draft
from seeknal.dag.yaml_file import Document
from seeknal.workflow import shares
from seeknal.workflow.limits import LARGE_NODES
from seeknal.workflow.results import RunOptions
from seeknal.workflow.shares import (
    ROWS_WORTH_THREADS,
    memory_limit_bytes,
    slots_of,
    threads_for,
    workers_for,
)
from seeknal.workflow.workers import Inline


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight cores, and 1,000 bytes that nodes side by side share."""
    monkeypatch.setattr(shares, "usable_cores", lambda: 8)
    monkeypatch.setattr(shares, "memory_share", lambda slots: 1000 // slots)


def test_no_more_run_at_a_time_than_can_run() -> None:
    assert slots_of(RunOptions(parallel=True, max_workers=4), 3) == 3
    assert slots_of(RunOptions(parallel=True, max_workers=4), 9) == 4
    assert slots_of(RunOptions(parallel=True, max_workers=4), 0) == 1
    assert slots_of(RunOptions(parallel=False, max_workers=4), 9) == 1


def test_a_large_node_alone_gets_all_cores_and_beside_others_what_it_demands() -> None:
    many, few = ROWS_WORTH_THREADS, ROWS_WORTH_THREADS - 1
    assert threads_for(many, NO_DEMANDS, alone=True, deterministic=False) == 8
    assert threads_for(many, NO_DEMANDS, alone=False, deterministic=False) == 1
    assert threads_for(many, Demands(slots=3), alone=False, deterministic=False) == 3
    assert threads_for(few, Demands(slots=3), alone=True, deterministic=False) == 1
    assert threads_for(many, Demands(slots=3), alone=True, deterministic=True) == 1


def test_memory_is_shared_by_those_that_run_side_by_side_unless_one_demands_its_own() -> None:
    assert memory_limit_bytes(NO_DEMANDS, 1) == 0
    assert memory_limit_bytes(NO_DEMANDS, 4) == 250
    assert memory_limit_bytes(Demands(memory_bytes=600), 4) == 600
    assert memory_limit_bytes(Demands(memory_bytes=6000), 4) == 1000


def test_a_node_of_a_large_project_is_executed_where_its_memory_does_not_add_to_the_project() -> None:
    draft = Draft("a.yml", Document({}), (), {}, kind="transform", name="a")

    def inline(count: int, total: int, *, parallel: bool = True) -> bool:
        workers = workers_for([draft] * count, 2, parallel=parallel, total=total)
        workers.close()
        return isinstance(workers, Inline)

    assert inline(1, LARGE_NODES - 1)
    assert not inline(1, LARGE_NODES)
    # A run that finds nothing to do starts nothing, and one that was not asked for processes none.
    assert inline(0, LARGE_NODES)
    assert inline(9, LARGE_NODES, parallel=False)
    assert not inline(2, 2)
