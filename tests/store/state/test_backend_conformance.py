"""What every state backend must do, whatever it keeps its records in."""

from __future__ import annotations

import contextlib
import enum
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from seeknal.errors import BusyError, NameNotAllowedError, NotFoundError, SeeknalError
from seeknal.state.backend import (
    ConcurrencyError,
    StateBackend,
    StateBackendError,
    StateValueError,
    TransactionError,
    UnknownRunError,
)

OpenBackend = Callable[[Path], StateBackend]

RUN_KEYS = {"status", "started_at", "finished_at", "metadata", "config"}
NODE_KEYS = {
    "status",
    "started_at",
    "finished_at",
    "duration_ms",
    "row_count",
    "error_message",
    "fingerprint",
    "hash",
    "metadata",
    "completed_intervals",
    "completed_partitions",
}


class FailedError(Exception):
    """What a block raises that is to fail."""


def in_a_thread(work: Callable[[], Any]) -> Any:
    """The result of ``work`` in another thread, or its exception as a value."""
    results: list[Any] = []

    def run() -> None:
        try:
            results.append(work())
        except Exception as error:
            results.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return results[0]


def test_backend_satisfies_the_protocol(backend: StateBackend) -> None:
    assert isinstance(backend, StateBackend)


def test_initializing_again_changes_nothing(backend: StateBackend) -> None:
    backend.create_run("r1", metadata={"a": 1})
    backend.initialize()
    assert backend.get_metadata("r1") == {"a": 1}


def test_initialized_backend_is_healthy(backend: StateBackend) -> None:
    assert backend.health_check() is True


def test_backend_that_was_never_initialized_is_not_healthy(open_backend: OpenBackend, tmp_path: Path) -> None:
    assert open_backend(tmp_path / "nothing-here").health_check() is False


def test_new_run_has_every_documented_key(backend: StateBackend) -> None:
    before = datetime.now(UTC)
    backend.create_run("r1")
    run = backend.get_run("r1")
    assert run is not None
    assert set(run) == RUN_KEYS
    assert run["status"] == "running"
    assert run["finished_at"] is None
    assert run["metadata"] == run["config"] == {}
    assert before <= datetime.fromisoformat(run["started_at"]) <= datetime.now(UTC)


def test_run_keeps_what_it_was_created_with(backend: StateBackend) -> None:
    backend.create_run("r1", status="planned", started_at=datetime(2024, 1, 2, 3), config={"jobs": 4}, who="mia")
    run = backend.get_run("r1")
    assert run is not None
    assert run["status"] == "planned"
    assert run["started_at"] == "2024-01-02T03:00:00"
    assert run["config"] == {"jobs": 4}
    assert run["who"] == "mia"


def test_creating_a_run_twice_is_refused_and_changes_nothing(backend: StateBackend) -> None:
    backend.create_run("r1", metadata={"first": True})
    with pytest.raises(ConcurrencyError, match="r1"):
        backend.create_run("r1", metadata={"first": False})
    assert backend.get_metadata("r1") == {"first": True}


def test_update_changes_the_given_keys_only(backend: StateBackend) -> None:
    backend.create_run("r1", metadata={"a": 1}, config={"b": 2})
    backend.set_node_state("r1", "source.a", status="success")
    backend.update_run("r1", status="success", finished_at="2024-01-02T00:00:00", metadata={"c": 3})
    run = backend.get_run("r1")
    assert run is not None
    assert (run["status"], run["finished_at"]) == ("success", "2024-01-02T00:00:00")
    assert run["metadata"] == {"c": 3}
    assert run["config"] == {"b": 2}
    assert backend.list_nodes("r1") == ["source.a"]


@pytest.mark.parametrize(
    "change",
    [
        lambda backend: backend.update_run("nope", status="success"),
        lambda backend: backend.set_metadata("nope", {}),
        lambda backend: backend.set_node_state("nope", "source.a", status="success"),
        lambda backend: backend.add_completed_interval("nope", "source.a", "2024-01-01", "2024-01-02"),
        lambda backend: backend.add_completed_partition("nope", "source.a", "2024-01"),
    ],
    ids=["update_run", "set_metadata", "set_node_state", "add_completed_interval", "add_completed_partition"],
)
def test_changing_an_unknown_run_is_a_key_error_and_makes_none(
    backend: StateBackend, change: Callable[[StateBackend], None]
) -> None:
    with pytest.raises(UnknownRunError, match="nope") as caught:
        change(backend)
    assert isinstance(caught.value, KeyError)
    assert isinstance(caught.value, NotFoundError)
    assert not backend.exists("nope")


def test_reading_what_does_not_exist_gives_nothing(backend: StateBackend) -> None:
    backend.create_run("r1")
    assert backend.get_run("nope") is None
    assert backend.get_metadata("nope") == {}
    assert backend.get_node_state("nope", "source.a") is None
    assert backend.get_node_state("r1", "source.a") is None
    assert backend.get_all_node_states("nope") == {}
    assert backend.list_nodes("nope") == []
    assert backend.get_completed_intervals("nope", "source.a") == []
    assert backend.get_completed_partitions("nope", "source.a") == []
    assert backend.get_revision("nope") is None
    assert not backend.exists("nope")
    assert not backend.node_exists("r1", "source.a")


def test_deleting_what_does_not_exist_changes_nothing(backend: StateBackend) -> None:
    backend.create_run("r1")
    backend.delete_run("nope")
    backend.delete_node_state("nope", "source.a")
    backend.delete_node_state("r1", "source.a")
    assert backend.list_runs() == ["r1"]


def test_deleted_run_takes_its_nodes_along(backend: StateBackend) -> None:
    backend.create_run("r1")
    backend.set_node_state("r1", "source.a", status="success")
    backend.delete_run("r1")
    assert backend.get_run("r1") is None
    backend.create_run("r1")
    assert backend.list_nodes("r1") == []


def test_runs_and_nodes_are_listed_sorted(backend: StateBackend) -> None:
    for run_id in ("b", "a.json", "a", "C"):
        backend.create_run(run_id)
    for node_id in ("transform.z", "source.a", "transform.b"):
        backend.set_node_state("a", node_id)
    assert backend.list_runs() == ["C", "a", "a.json", "b"]
    assert backend.list_nodes("a") == ["source.a", "transform.b", "transform.z"]
    assert list(backend.get_all_node_states("a")) == backend.list_nodes("a")


def test_new_node_state_has_every_documented_key(backend: StateBackend) -> None:
    backend.create_run("r1")
    backend.set_node_state("r1", "source.a")
    state = backend.get_node_state("r1", "source.a")
    assert state is not None
    assert set(state) == NODE_KEYS
    assert state["status"] == "pending"
    assert state["row_count"] is None
    assert state["completed_intervals"] == state["completed_partitions"] == []


def test_node_state_merges(backend: StateBackend) -> None:
    backend.create_run("r1")
    backend.set_node_state("r1", "source.a", status="running", hash="h1", iceberg_snapshot_id="17")
    backend.set_node_state("r1", "source.a", status="success", duration_ms=12.5, row_count=3)
    state = backend.get_node_state("r1", "source.a")
    assert state is not None
    assert state["status"] == "success"
    assert (state["hash"], state["iceberg_snapshot_id"]) == ("h1", "17")
    assert (state["duration_ms"], state["row_count"]) == (12.5, 3)


class NodeStatus(enum.Enum):
    SUCCESS = "success"


@dataclass
class NodeState:
    status: NodeStatus
    row_count: int
    version: int


class StateWithToDict:
    def to_dict(self) -> dict[str, Any]:
        return {"status": "success", "row_count": 3, "version": 2}


@pytest.mark.parametrize(
    "given",
    [{"status": "success", "row_count": 3, "version": 2}, NodeState(NodeStatus.SUCCESS, 3, 2), StateWithToDict()],
    ids=["mapping", "dataclass", "to_dict"],
)
def test_node_state_is_taken_as_an_object_too(backend: StateBackend, given: object) -> None:
    backend.create_run("r1")
    backend.set_node_state("r1", "source.a", given, row_count=4)
    state = backend.get_node_state("r1", "source.a")
    assert state is not None
    assert (state["status"], state["row_count"], state["version"]) == ("success", 4, 2)


def test_node_state_read_can_be_written_to_another_run(backend: StateBackend) -> None:
    backend.create_run("r1")
    backend.create_run("r2")
    backend.set_node_state("r1", "source.a", status="success", metadata={"a": [1]}, version=2)
    backend.add_completed_interval("r1", "source.a", "2024-01-01", "2024-01-02")
    backend.set_node_state("r2", "source.a", backend.get_node_state("r1", "source.a"))
    assert backend.get_node_state("r2", "source.a") == backend.get_node_state("r1", "source.a")


def test_node_state_of_another_node_is_refused(backend: StateBackend) -> None:
    backend.create_run("r1")
    with pytest.raises(StateValueError, match="node_id"):
        backend.set_node_state("r1", "source.a", {"node_id": "source.b", "status": "success"})
    backend.set_node_state("r1", "source.a", {"node_id": "source.a", "run_id": "r1"})
    state = backend.get_node_state("r1", "source.a")
    assert state is not None
    assert set(state) == NODE_KEYS


def test_values_come_back_as_json_keeps_them(backend: StateBackend) -> None:
    backend.create_run("r1")
    kept: dict[Any, Any] = {"pair": (1, 2), "day": date(2024, 1, 31), "nan": float("nan"), 7: "seven"}
    kept["deep"] = {"é": [None, True, 2**70]}
    backend.set_metadata("r1", kept)
    assert backend.get_metadata("r1") == {
        "pair": [1, 2],
        "day": "2024-01-31",
        "nan": None,
        "7": "seven",
        "deep": {"é": [None, True, 2**70]},
    }


@pytest.mark.parametrize(
    "changes",
    [
        {"status": 3},
        {"row_count": "three"},
        {"metadata": [1]},
        {"metadata": {"it": object()}},
        {"anything": {1, object()}},
        {"error_message": "\ud800"},
        {"completed_intervals": [["2024-01-01"]]},
        {"completed_intervals": [["2024-01-02", "2024-01-01"]]},
        {"completed_intervals": 7},
        {"completed_partitions": "2024-01"},
        {"completed_partitions": ["2024-01", 7]},
        {"row_count": 2**63},
        {"duration_ms": -(2**63) - 1},
    ],
)
def test_value_that_no_record_can_hold_is_refused_and_changes_nothing(
    backend: StateBackend, changes: dict[str, Any]
) -> None:
    backend.create_run("r1")
    backend.set_node_state("r1", "source.a", status="success")
    before = backend.get_node_state("r1", "source.a")
    with pytest.raises(StateValueError) as caught:
        backend.set_node_state("r1", "source.a", **changes)
    assert isinstance(caught.value, ValueError)
    assert backend.get_node_state("r1", "source.a") == before


def test_what_is_read_is_a_copy(backend: StateBackend) -> None:
    backend.create_run("r1", metadata={"list": [1]})
    with backend.transaction():
        backend.update_run("r1", status="success")
        backend.get_metadata("r1")["list"].append(2)
    assert backend.get_metadata("r1") == {"list": [1]}


def test_what_was_given_is_copied(backend: StateBackend) -> None:
    metadata = {"list": [1]}
    with backend.transaction():
        backend.create_run("r1", metadata=metadata)
        metadata["list"].append(2)
    assert backend.get_metadata("r1") == {"list": [1]}


@pytest.mark.parametrize(
    "run_id",
    ["", ".", "..", "../r1", "a/b", "a\\b", "/etc/passwd", "a\0b", "a\nb", "a\n", ".r1", "-r1", "é", "x" * 129],
)
def test_run_id_that_could_be_a_path_is_refused_by_every_operation(
    backend: StateBackend, tmp_path: Path, run_id: str
) -> None:
    before = sorted(tmp_path.rglob("*"))
    operations: list[Callable[[], object]] = [
        lambda: backend.create_run(run_id),
        lambda: backend.update_run(run_id),
        lambda: backend.get_run(run_id),
        lambda: backend.delete_run(run_id),
        lambda: backend.exists(run_id),
        lambda: backend.get_metadata(run_id),
        lambda: backend.set_metadata(run_id, {}),
        lambda: backend.set_node_state(run_id, "source.a"),
        lambda: backend.get_node_state(run_id, "source.a"),
        lambda: backend.get_all_node_states(run_id),
        lambda: backend.delete_node_state(run_id, "source.a"),
        lambda: backend.node_exists(run_id, "source.a"),
        lambda: backend.list_nodes(run_id),
        lambda: backend.add_completed_interval(run_id, "source.a", "2024-01-01", "2024-01-02"),
        lambda: backend.get_completed_intervals(run_id, "source.a"),
        lambda: backend.add_completed_partition(run_id, "source.a", "2024-01"),
        lambda: backend.get_completed_partitions(run_id, "source.a"),
        lambda: backend.get_revision(run_id),
        lambda: backend.acquire_lock(run_id),
        lambda: backend.release_lock(run_id),
    ]
    for operation in operations:
        with pytest.raises(NameNotAllowedError, match="run id"):
            operation()
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("node_id", ["", "..", "../a", "a/b", "a\\b", "a\0b", "a\nb", "\ud800", "x" * 257])
def test_node_id_that_could_be_a_path_is_refused(backend: StateBackend, node_id: str) -> None:
    backend.create_run("r1")
    with pytest.raises(NameNotAllowedError, match="node id"):
        backend.set_node_state("r1", node_id)
    with pytest.raises(NameNotAllowedError, match="node id"):
        backend.get_node_state("r1", node_id)
    assert backend.list_nodes("r1") == []


@pytest.mark.parametrize("run_id", ["1", "20240131_235959", "2024-01-31T23:59:59+00:00", "a.b-c_d@e=f", "x" * 128])
def test_ordinary_run_ids_are_taken(backend: StateBackend, run_id: str) -> None:
    backend.create_run(run_id, metadata={"id": run_id})
    assert backend.list_runs() == [run_id]
    assert backend.get_metadata(run_id) == {"id": run_id}
    assert backend.acquire_lock(run_id, timeout_ms=0)


def test_interval_makes_the_node_state(backend: StateBackend) -> None:
    backend.create_run("r1")
    backend.add_completed_interval("r1", "source.a", "2024-01-01", "2024-01-02")
    state = backend.get_node_state("r1", "source.a")
    assert state is not None
    assert state["status"] == "pending"
    assert state["completed_intervals"] == [["2024-01-01T00:00:00", "2024-01-02T00:00:00"]]
    assert backend.get_completed_intervals("r1", "source.a") == [("2024-01-01T00:00:00", "2024-01-02T00:00:00")]


def test_the_same_interval_counts_once_however_it_is_written(backend: StateBackend) -> None:
    backend.create_run("r1")
    backend.add_completed_interval("r1", "source.a", "2024-01-01", "2024-01-02")
    backend.add_completed_interval("r1", "source.a", datetime(2024, 1, 1), datetime(2024, 1, 2))
    backend.add_completed_interval("r1", "source.a", "2024-01-01T00:00:00", date(2024, 1, 2))
    assert len(backend.get_completed_intervals("r1", "source.a")) == 1
    jakarta = timezone(timedelta(hours=7))
    backend.add_completed_interval("r1", "source.a", "2024-01-01T00:00:00Z", "2024-01-02T00:00:00+00:00")
    backend.add_completed_interval(
        "r1", "source.a", datetime(2024, 1, 1, 7, tzinfo=jakarta), datetime(2024, 1, 2, 7, tzinfo=jakarta)
    )
    assert len(backend.get_completed_intervals("r1", "source.a")) == 2


def test_intervals_are_sorted_and_never_merged(backend: StateBackend) -> None:
    backend.create_run("r1")
    for day in (3, 1, 2):
        backend.add_completed_interval("r1", "source.a", date(2024, 1, day), date(2024, 1, day + 1))
    assert [start[:10] for start, _ in backend.get_completed_intervals("r1", "source.a")] == [
        "2024-01-01",
        "2024-01-02",
        "2024-01-03",
    ]


@pytest.mark.parametrize(
    ("start", "end"),
    [
        ("2024-01-02", "2024-01-01"),
        ("2024-01-01", "2024-01-01"),
        ("yesterday", "2024-01-01"),
        ("2024-01-01", 7),
        ("2024-01-01T00:00:00Z", "2024-01-02"),
        ("0001-01-01T00:00:00+14:00", "2024-01-02T00:00:00Z"),
    ],
)
def test_what_is_no_interval_is_refused(backend: StateBackend, start: Any, end: Any) -> None:
    backend.create_run("r1")
    with pytest.raises(StateValueError):
        backend.add_completed_interval("r1", "source.a", start, end)
    assert not backend.node_exists("r1", "source.a")


def test_partitions_are_sorted_and_count_once(backend: StateBackend) -> None:
    backend.create_run("r1")
    for name in ("2024-03", "2024-01", "2024-03", "é \x00'"):
        backend.add_completed_partition("r1", "source.a", name)
    assert backend.get_completed_partitions("r1", "source.a") == ["2024-01", "2024-03", "é \x00'"]
    state = backend.get_node_state("r1", "source.a")
    assert state is not None
    assert (state["status"], state["completed_partitions"]) == ("pending", ["2024-01", "2024-03", "é \x00'"])
    backend.set_node_state("r1", "source.a", completed_partitions=("b", "2024-01", "b"))
    assert backend.get_completed_partitions("r1", "source.a") == ["2024-01", "b"]


@pytest.mark.parametrize("partition", ["", 7, None, "\ud800"])
def test_what_is_no_partition_is_refused(backend: StateBackend, partition: Any) -> None:
    backend.create_run("r1")
    with pytest.raises(StateValueError, match="partition"):
        backend.add_completed_partition("r1", "source.a", partition)
    assert not backend.node_exists("r1", "source.a")


def test_every_write_gives_a_run_another_revision(
    open_backend: OpenBackend, backend: StateBackend, tmp_path: Path
) -> None:
    writes: list[Callable[[], None]] = [
        lambda: backend.create_run("r1"),
        lambda: backend.update_run("r1", status="success"),
        lambda: backend.update_run("r1", status="success"),
        lambda: backend.set_node_state("r1", "source.a"),
        lambda: backend.add_completed_interval("r1", "source.a", "2024-01-01", "2024-01-02"),
        lambda: backend.add_completed_partition("r1", "source.a", "2024-01"),
        lambda: backend.delete_node_state("r1", "source.a"),
        lambda: backend.delete_run("r1"),
        lambda: backend.create_run("r1"),
    ]
    seen = []
    for write in writes:
        write()
        revision = backend.get_revision("r1")
        assert open_backend(tmp_path).get_revision("r1") == revision
        seen.append(revision)
    assert len(set(seen)) == len(seen)
    backend.create_run("r2")
    assert backend.get_revision("r1") == seen[-1]


def test_decision_on_what_somebody_changed_since_is_not_kept(
    open_backend: OpenBackend, backend: StateBackend, tmp_path: Path
) -> None:
    backend.create_run("r1")
    read_at = backend.get_revision("r1")
    with backend.transaction(expecting={"r1": read_at, "r2": None}):
        backend.update_run("r1", status="mine")
    open_backend(tmp_path).set_node_state("r1", "source.a", status="theirs")
    mine = backend.get_revision("r1")
    open_backend(tmp_path).update_run("r1", status="theirs")
    for stale in ({"r1": mine}, {"r1": None}, {"r2": "abc"}):
        with pytest.raises(ConcurrencyError, match="changed by another"), backend.transaction(expecting=stale):
            raise AssertionError("the block of a stale transaction ran")
    run = backend.get_run("r1")
    assert run is not None
    assert run["status"] == "theirs"


def test_stale_inner_transaction_leaves_the_outer_one_as_it_is(backend: StateBackend) -> None:
    with backend.transaction():
        backend.create_run("r1")
        with pytest.raises(ConcurrencyError), backend.transaction(expecting={"r1": None}):
            raise AssertionError("the block of a stale transaction ran")
        with backend.transaction(expecting={"r1": backend.get_revision("r1")}):
            backend.update_run("r1", status="kept")
    run = backend.get_run("r1")
    assert run is not None
    assert run["status"] == "kept"


def test_keys_that_no_field_has_come_back_whatever_they_are_called(backend: StateBackend) -> None:
    extra = {"schema_version": 3, "extra": {"extra": 1}, "nodes": [], "revision": "mine", "state": None}
    backend.create_run("r1", **extra)
    backend.set_node_state("r1", "source.a", {**extra, "self": 1, "completed_at": 2})
    run, node = backend.get_run("r1"), backend.get_node_state("r1", "source.a")
    assert run is not None
    assert node is not None
    assert extra.items() <= run.items()
    assert {**extra, "self": 1, "completed_at": 2}.items() <= node.items()
    assert backend.get_revision("r1") != "mine"


def test_numbers_stay_the_kind_of_number_they_are(backend: StateBackend) -> None:
    backend.create_run("r1")
    for number in (0, 3, 3.0, 1e300, 2**63 - 1, -(2**63), 0.1, -0.0):
        backend.set_node_state("r1", "source.a", duration_ms=number, row_count=None)
        state = backend.get_node_state("r1", "source.a")
        assert state is not None
        assert repr(state["duration_ms"]) == repr(number or abs(number))


def test_transaction_keeps_everything_at_its_end(
    open_backend: OpenBackend, backend: StateBackend, tmp_path: Path
) -> None:
    other = open_backend(tmp_path)
    backend.create_run("old")
    with backend.transaction() as inside:
        inside.create_run("r1")
        inside.set_node_state("r1", "source.a", status="success")
        inside.delete_run("old")
        assert inside.list_runs() == ["r1"]
        assert inside.node_exists("r1", "source.a")
    assert other.list_runs() == ["r1"]
    assert other.node_exists("r1", "source.a")


def test_failing_transaction_changes_nothing(open_backend: OpenBackend, backend: StateBackend, tmp_path: Path) -> None:
    backend.create_run("r1", metadata={"a": 1})
    backend.create_run("r2")

    def fail() -> None:
        with backend.transaction():
            backend.create_run("r3")
            backend.set_node_state("r1", "source.a", status="success")
            backend.set_metadata("r1", {"a": 2})
            backend.delete_run("r2")
            raise FailedError

    with pytest.raises(FailedError):
        fail()
    for seen in (backend, open_backend(tmp_path)):
        assert seen.list_runs() == ["r1", "r2"]
        assert seen.get_metadata("r1") == {"a": 1}
        assert seen.list_nodes("r1") == []


def test_interrupted_transaction_changes_nothing(backend: StateBackend) -> None:
    def interrupt() -> None:
        with backend.transaction():
            backend.create_run("r1")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupt()
    assert backend.list_runs() == []
    backend.create_run("r1")


def test_nested_transaction_is_part_of_the_outer_one(backend: StateBackend) -> None:
    def fail() -> None:
        with backend.transaction():
            with backend.transaction():
                backend.create_run("r1")
            assert backend.exists("r1")
            raise FailedError

    with pytest.raises(FailedError):
        fail()
    assert not backend.exists("r1")


def test_outer_transaction_that_survives_a_failed_inner_one_keeps_nothing(backend: StateBackend) -> None:
    def survive() -> None:
        with backend.transaction():
            backend.create_run("r1")
            with contextlib.suppress(FailedError), backend.transaction():
                backend.create_run("r2")
                raise FailedError

    with pytest.raises(TransactionError, match="nothing"):
        survive()
    assert backend.list_runs() == []


def test_refused_operation_does_not_spoil_the_transaction(backend: StateBackend) -> None:
    with backend.transaction():
        backend.create_run("r1")
        with pytest.raises(ConcurrencyError):
            backend.create_run("r1")
        with pytest.raises(KeyError):
            backend.update_run("r2")
        with pytest.raises(StateValueError):
            backend.update_run("r1", status=1, metadata={"half": True})
    assert backend.list_runs() == ["r1"]
    assert backend.get_metadata("r1") == {}


def test_transaction_is_not_seen_from_another_thread_before_its_end(backend: StateBackend) -> None:
    with backend.transaction():
        backend.create_run("r1")
        assert in_a_thread(lambda: backend.exists("r1")) is False
    assert in_a_thread(lambda: backend.exists("r1")) is True


def test_writers_in_several_threads_lose_no_update(
    open_backend: OpenBackend, backend: StateBackend, tmp_path: Path
) -> None:
    backend.create_run("r1")

    def write(name: str, own: StateBackend) -> None:
        for number in range(10):
            own.set_node_state("r1", f"source.{name}{number}", status="success")

    threads = [threading.Thread(target=write, args=(name, backend)) for name in "ab"]
    threads.append(threading.Thread(target=write, args=("c", open_backend(tmp_path))))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(backend.list_nodes("r1")) == 30


def test_of_several_that_create_one_run_exactly_one_succeeds(
    open_backend: OpenBackend, backend: StateBackend, tmp_path: Path
) -> None:
    outcomes: list[str] = []

    def create() -> None:
        try:
            open_backend(tmp_path).create_run("r1")
            outcomes.append("made")
        except ConcurrencyError:
            outcomes.append("refused")

    threads = [threading.Thread(target=create) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["made"] + ["refused"] * 5


def test_lock_keeps_others_out_until_it_is_released(
    open_backend: OpenBackend, backend: StateBackend, tmp_path: Path
) -> None:
    other = open_backend(tmp_path)
    assert backend.acquire_lock("r1", timeout_ms=0) is True
    assert other.acquire_lock("r1", timeout_ms=0) is False
    assert other.acquire_lock("r1", timeout_ms=20) is False
    other.release_lock("r1")
    assert other.acquire_lock("r1", timeout_ms=0) is False
    backend.release_lock("r1")
    assert other.acquire_lock("r1", timeout_ms=0) is True
    other.close()
    assert backend.acquire_lock("r1", timeout_ms=0) is True


def test_lock_is_refused_to_its_own_holder(backend: StateBackend) -> None:
    assert backend.acquire_lock("r1", timeout_ms=0) is True
    assert backend.acquire_lock("r1", timeout_ms=0) is False
    backend.release_lock("r1")
    assert backend.acquire_lock("r1", timeout_ms=0) is True


def test_locks_of_two_runs_are_two_locks(backend: StateBackend) -> None:
    assert backend.acquire_lock("r1", timeout_ms=0)
    assert backend.acquire_lock("r2", timeout_ms=0)


def test_lock_does_not_make_its_run_and_keeps_no_writer_out(
    open_backend: OpenBackend, backend: StateBackend, tmp_path: Path
) -> None:
    assert backend.acquire_lock("r1", timeout_ms=0)
    assert backend.list_runs() == []
    open_backend(tmp_path).create_run("r1")
    assert backend.exists("r1")


def test_waiter_gets_the_lock_when_it_is_released(
    open_backend: OpenBackend, backend: StateBackend, tmp_path: Path
) -> None:
    assert backend.acquire_lock("r1", timeout_ms=0)
    outcomes: list[bool] = []
    waiting = threading.Thread(target=lambda: outcomes.append(open_backend(tmp_path).acquire_lock("r1", 30_000)))
    waiting.start()
    backend.release_lock("r1")
    waiting.join()
    assert outcomes == [True]


def test_lock_block_names_the_holder_to_whom_it_refuses(
    open_backend: OpenBackend, backend: StateBackend, tmp_path: Path
) -> None:
    other = open_backend(tmp_path)
    with backend.lock("r1"), pytest.raises(BusyError, match="process"), other.lock("r1", timeout_ms=0):
        raise AssertionError("two have the lock")
    with open_backend(tmp_path).lock("r1", timeout_ms=0):
        assert backend.acquire_lock("r1", timeout_ms=0) is False


def test_lock_block_that_fails_gives_the_lock_up(backend: StateBackend) -> None:
    with pytest.raises(FailedError), backend.lock("r1"):
        raise FailedError
    assert backend.acquire_lock("r1", timeout_ms=0)


def test_every_error_of_a_backend_is_one_of_ours() -> None:
    for kind in (StateBackendError, TransactionError, ConcurrencyError, StateValueError, UnknownRunError):
        assert issubclass(kind, SeeknalError)
        assert issubclass(kind, StateBackendError)
