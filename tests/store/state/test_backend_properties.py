"""Any sequence of operations gives the same answers as plain dictionaries do."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable
from datetime import date
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from seeknal.state.backend import StateBackend
from tests.store.state.conftest import QUICK_BACKENDS

pytestmark = pytest.mark.parametrize("open_backend", QUICK_BACKENDS, indirect=True)

MakeBackend = Callable[[], StateBackend]
Operation = tuple[str, tuple[Any, ...], dict[str, Any]]

NEW_RUN: dict[str, Any] = {"status": "running", "started_at": None, "finished_at": None, "metadata": {}, "config": {}}
NEW_NODE: dict[str, Any] = {
    "status": "pending",
    "started_at": None,
    "finished_at": None,
    "duration_ms": None,
    "row_count": None,
    "error_message": None,
    "fingerprint": None,
    "hash": None,
    "metadata": {},
    "completed_intervals": [],
    "completed_partitions": [],
}


class Model:
    """What a backend means, without disk, processes or checks of values."""

    def __init__(self) -> None:
        self.runs: dict[str, dict[str, Any]] = {}
        self.nodes: dict[str, dict[str, dict[str, Any]]] = {}

    def create_run(self, run_id: str, **changes: Any) -> None:
        if run_id in self.runs:
            raise FileExistsError(run_id)
        self.runs[run_id] = copy.deepcopy({**NEW_RUN, **changes})
        self.nodes[run_id] = {}

    def update_run(self, run_id: str, **changes: Any) -> None:
        self.runs[run_id].update(changes)

    def get_run(self, run_id: str) -> dict[str, Any] | None:
        return self.runs.get(run_id)

    def delete_run(self, run_id: str) -> None:
        self.runs.pop(run_id, None)
        self.nodes.pop(run_id, None)

    def exists(self, run_id: str) -> bool:
        return run_id in self.runs

    def list_runs(self) -> list[str]:
        return sorted(self.runs)

    def get_metadata(self, run_id: str) -> dict[str, Any]:
        metadata: dict[str, Any] = self.runs.get(run_id, NEW_RUN)["metadata"]
        return metadata

    def set_metadata(self, run_id: str, metadata: dict[str, Any]) -> None:
        self.runs[run_id]["metadata"] = metadata

    def set_node_state(self, run_id: str, node_id: str, **changes: Any) -> None:
        self.nodes[run_id].setdefault(node_id, copy.deepcopy(NEW_NODE)).update(changes)

    def get_node_state(self, run_id: str, node_id: str) -> dict[str, Any] | None:
        return self.nodes.get(run_id, {}).get(node_id)

    def get_all_node_states(self, run_id: str) -> dict[str, dict[str, Any]]:
        return self.nodes.get(run_id, {})

    def delete_node_state(self, run_id: str, node_id: str) -> None:
        self.nodes.get(run_id, {}).pop(node_id, None)

    def node_exists(self, run_id: str, node_id: str) -> bool:
        return node_id in self.nodes.get(run_id, {})

    def list_nodes(self, run_id: str) -> list[str]:
        return sorted(self.nodes.get(run_id, {}))

    def add_completed_interval(self, run_id: str, node_id: str, start: date, end: date) -> None:
        nodes = self.nodes[run_id]
        if start >= end:
            raise ValueError(start)
        intervals = nodes.setdefault(node_id, copy.deepcopy(NEW_NODE))["completed_intervals"]
        interval = [f"{start}T00:00:00", f"{end}T00:00:00"]
        if interval not in intervals:
            intervals.append(interval)
            intervals.sort()

    def get_completed_intervals(self, run_id: str, node_id: str) -> list[tuple[str, str]]:
        return [(start, end) for start, end in self.nodes.get(run_id, {}).get(node_id, NEW_NODE)["completed_intervals"]]

    def add_completed_partition(self, run_id: str, node_id: str, partition: str) -> None:
        nodes = self.nodes[run_id]
        if not partition:
            raise ValueError(partition)
        partitions = nodes.setdefault(node_id, copy.deepcopy(NEW_NODE))["completed_partitions"]
        partitions[:] = sorted({*partitions, partition})

    def get_completed_partitions(self, run_id: str, node_id: str) -> list[str]:
        return list(self.nodes.get(run_id, {}).get(node_id, NEW_NODE)["completed_partitions"])


# What a backend raises where the model raises the key.
COUNTERPARTS: dict[type[Exception], str] = {
    FileExistsError: "ConcurrencyError",
    KeyError: "UnknownRunError",
    ValueError: "StateValueError",
}

run_ids = st.sampled_from(["r1", "r2", "R.3"])
node_ids = st.sampled_from(["source.a", "transform.b c", "transform.é"])
dates = st.sampled_from([date(2024, 1, day) for day in range(1, 5)])
texts = st.text(st.characters(codec="utf-8"), max_size=5)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(texts, inner, max_size=2),
    max_leaves=4,
)
json_objects = st.dictionaries(texts, json_values, max_size=2)
run_changes = st.fixed_dictionaries(
    {"started_at": st.none() | st.just("2024-01-01T00:00:00Z")},
    optional={"status": texts, "finished_at": st.none() | texts, "metadata": json_objects, "custom": json_values},
)
node_changes = st.fixed_dictionaries(
    {},
    optional={
        "status": texts,
        "duration_ms": st.none() | st.floats(0, 1e9),
        "row_count": st.none() | st.integers(0, 2**63 - 1),
        "error_message": st.none() | texts,
        "hash": st.none() | texts,
        "metadata": json_objects,
        "custom": json_values,
    },
)
no_changes: st.SearchStrategy[dict[str, Any]] = st.just({})


def operation(
    name: str, *arguments: st.SearchStrategy[Any], changes: st.SearchStrategy[dict[str, Any]] = no_changes
) -> st.SearchStrategy[Operation]:
    return st.tuples(st.just(name), st.tuples(*arguments), changes)


operations: st.SearchStrategy[Operation] = st.one_of(
    operation("create_run", run_ids, changes=run_changes),
    operation("set_node_state", run_ids, node_ids, changes=node_changes),
    operation("add_completed_interval", run_ids, node_ids, dates, dates),
    operation("add_completed_partition", run_ids, node_ids, texts),
    operation("get_completed_partitions", run_ids, node_ids),
    operation("update_run", run_ids, changes=run_changes),
    operation("set_metadata", run_ids, json_objects),
    operation("delete_run", run_ids),
    operation("delete_node_state", run_ids, node_ids),
    operation("get_run", run_ids),
    operation("get_metadata", run_ids),
    operation("get_node_state", run_ids, node_ids),
    operation("get_all_node_states", run_ids),
    operation("get_completed_intervals", run_ids, node_ids),
    operation("exists", run_ids),
    operation("node_exists", run_ids, node_ids),
    operation("list_nodes", run_ids),
    operation("list_runs"),
)
several_operations = st.lists(operations, min_size=1, max_size=10)
beginnings = st.lists(operation("create_run", run_ids, changes=run_changes), max_size=2)

few_examples = settings(
    max_examples=40,
    deadline=None,
    # The fixture only makes backends; each example asks it for one of its own.
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def answer(target: StateBackend | Model, step: Operation) -> object:
    """What an operation returns, or the name of the error that it raises."""
    name, arguments, changes = step
    try:
        return copy.deepcopy(getattr(target, name)(*copy.deepcopy(arguments), **copy.deepcopy(changes)))
    except Exception as error:
        kind = type(error)
        return f"raised {COUNTERPARTS.get(kind, kind.__name__)}"


def everything(target: StateBackend | Model) -> dict[str, Any]:
    """All that a backend tells of its runs and nodes."""
    return {run_id: (target.get_run(run_id), target.get_all_node_states(run_id)) for run_id in target.list_runs()}


@few_examples
@given(st.lists(operations, max_size=25))
def test_any_sequence_of_operations_answers_as_dictionaries_do(
    make_backend: MakeBackend, steps: list[Operation]
) -> None:
    backend, model = make_backend(), Model()
    for step in steps:
        assert answer(backend, step) == answer(model, step), step
    assert everything(backend) == everything(model)


@few_examples
@given(beginnings, several_operations)
def test_operations_in_a_transaction_answer_as_without_one(
    make_backend: MakeBackend, beginning: list[Operation], steps: list[Operation]
) -> None:
    backend, model = make_backend(), Model()
    for step in beginning:
        assert answer(backend, step) == answer(model, step), step
    with backend.transaction():
        for step in steps:
            assert answer(backend, step) == answer(model, step), step
        assert everything(backend) == everything(model)
    assert everything(backend) == everything(model)


@few_examples
@given(beginnings, several_operations)
def test_failing_transaction_changes_nothing_whatever_was_done_in_it(
    make_backend: MakeBackend, beginning: list[Operation], steps: list[Operation]
) -> None:
    backend = make_backend()
    for step in beginning:
        answer(backend, step)
    before = everything(backend)
    with contextlib.suppress(ArithmeticError), backend.transaction():
        for step in steps:
            answer(backend, step)
        raise ArithmeticError
    assert everything(backend) == before
