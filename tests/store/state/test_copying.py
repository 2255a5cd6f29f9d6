"""Copying records between backends loses nothing, there and back, and can be cut short anywhere."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from seeknal.errors import CorruptObjectError
from seeknal.state import copying
from seeknal.state.backend import DatabaseBackend, FileBackend, StateBackend
from seeknal.state.copying import Counts, check_copy, copy_runs, plan_copy, take_inventory
from tests.store.state.test_backend_properties import Operation, answer, everything, operations

MakePair = Callable[[], tuple[StateBackend, StateBackend]]

_numbers = count()


@pytest.fixture
def make_pair(tmp_path: Path) -> MakePair:
    """Makes a file and a database backend, both without runs."""

    def make() -> tuple[StateBackend, StateBackend]:
        folder = tmp_path / str(next(_numbers))
        backends = FileBackend(folder), DatabaseBackend(folder / "state.db")
        for backend in backends:
            backend.initialize()
        return backends

    return make


def move(source: StateBackend, target: StateBackend, *, target_wins: bool = False) -> None:
    """Copy everything, verify it, and clear it from the source."""
    held = take_inventory(source)
    plan = plan_copy(held, take_inventory(target), target_wins=target_wins)
    copy_runs(plan, source, target)
    check_copy(plan, held, take_inventory(target))
    with source.transaction():
        for run_id in plan.moved:
            source.delete_run(run_id)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(operations, max_size=25))
def test_there_and_back_everything_is_as_it_was(make_pair: MakePair, steps: list[Operation]) -> None:
    files, database = make_pair()
    for step in steps:
        answer(files, step)
    before = everything(files)
    move(files, database)
    assert everything(database) == before
    assert everything(files) == {}
    move(database, files)
    assert everything(files) == before
    assert everything(database) == {}
    database.close()


@pytest.fixture
def pair(make_pair: MakePair) -> tuple[StateBackend, StateBackend]:
    return make_pair()


def test_inventory_counts_every_record(pair: tuple[StateBackend, StateBackend]) -> None:
    for backend in pair:
        backend.create_run("r1", started_at=None)
        backend.set_node_state("r1", "source.a")
        backend.add_completed_interval("r1", "source.b", "2024-01-01", "2024-01-02")
        backend.add_completed_interval("r1", "source.b", "2024-01-02", "2024-01-03")
        backend.add_completed_partition("r1", "source.b", "2024-01")
        backend.create_run("r2", started_at=None)
        total = take_inventory(backend).total()
        assert total == Counts(runs=2, nodes=2, intervals=2, partitions=1)
        assert total.rows == 7
    assert take_inventory(pair[0]).digests == take_inventory(pair[1]).digests


@pytest.mark.parametrize("target_wins", [False, True])
def test_runs_that_differ_are_the_sources_or_stay_in_both(
    pair: tuple[StateBackend, StateBackend], target_wins: bool
) -> None:
    source, target = pair
    for backend, status in ((source, "theirs"), (target, "mine")):
        backend.create_run("different", status=status, started_at=None)
        backend.create_run("same", started_at=None)
    target.set_node_state("different", "source.only_here")
    source.create_run("missing")
    target.create_run("kept")
    move(source, target, target_wins=target_wins)
    assert target.list_runs() == ["different", "kept", "missing", "same"]
    run: Any = target.get_run("different")
    assert run["status"] == ("mine" if target_wins else "theirs")
    assert target.list_nodes("different") == (["source.only_here"] if target_wins else [])
    assert source.list_runs() == (["different"] if target_wins else [])


def test_copy_that_was_cut_short_is_finished_by_the_next(
    pair: tuple[StateBackend, StateBackend], monkeypatch: pytest.MonkeyPatch
) -> None:
    files, database = pair
    monkeypatch.setattr(copying, "_RUNS_IN_A_TRANSACTION", 2)
    for number in range(5):
        files.create_run(f"r{number}")
        files.set_node_state(f"r{number}", "source.a", status="success")
    before = everything(files)

    class Interrupted(DatabaseBackend):
        def create_run(self, run_id: str, **changes: Any) -> None:
            if run_id == "r3":
                raise KeyboardInterrupt
            super().create_run(run_id, **changes)

    assert isinstance(database, DatabaseBackend)
    with closing(Interrupted(database.db_path)) as interrupted, pytest.raises(KeyboardInterrupt):
        move(files, interrupted)
    assert everything(files) == before
    assert database.list_runs() == ["r0", "r1"]
    move(files, database)
    assert everything(database) == before


def test_copy_that_is_not_what_was_copied_is_noticed(pair: tuple[StateBackend, StateBackend]) -> None:
    files, database = pair
    files.create_run("r1")
    held = take_inventory(files)
    plan = plan_copy(held, take_inventory(database), target_wins=False)
    copy_runs(plan, files, database)
    database.update_run("r1", metadata={"somebody": "else"})
    with pytest.raises(CorruptObjectError, match="1 of 1 runs were not copied as they are, the first of them 'r1'"):
        check_copy(plan, held, take_inventory(database))
