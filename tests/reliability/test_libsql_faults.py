"""Answers of a libSQL server that are lost, at every request in turn: a write is kept once or not, and it is told."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from seeknal.errors import SeeknalError
from seeknal.state.backend import DatabaseBackend, StateBackend, TransactionError
from seeknal.state.copying import take_inventory
from tests.store.state import libsql_servers
from tests.store.state.libsql_servers import FAULTS, HranaServer

NOON = datetime(2026, 2, 9, 12, tzinfo=UTC)


def several(backend: StateBackend) -> None:
    with backend.transaction():
        backend.delete_run("old")
        backend.create_run("r1", status="running")
        assert backend.list_runs() == ["r1", "still"]
        backend.set_node_state("r1", "source.a", row_count=1)
        with backend.transaction():
            backend.set_node_state("still", "source.a", row_count=2)
        backend.update_run("r1", status="success")


OPERATIONS: dict[str, Callable[[StateBackend], Any]] = {
    "create": lambda backend: backend.create_run("r1"),
    "update": lambda backend: backend.update_run("old", status="success"),
    "delete": lambda backend: backend.delete_run("old"),
    "node": lambda backend: backend.set_node_state("old", "source.b", row_count=3),
    "interval": lambda backend: backend.add_completed_interval("old", "source.a", "2026-01-01", "2026-01-02"),
    "several": several,
    "make the tables": lambda backend: backend.initialize(),
}


@pytest.fixture(scope="module")
def server() -> Iterator[HranaServer]:
    server = HranaServer()
    yield server
    server.close()


def content(server: HranaServer, database: Path) -> dict[str, str]:
    server.fault = lambda sql: None
    return take_inventory(opened(server, database)).digests


def opened(server: HranaServer, database: Path) -> DatabaseBackend:
    return DatabaseBackend(server.url(database), wait_seconds=1, clock=lambda: NOON)


def prepared(server: HranaServer, database: Path, operation: str) -> DatabaseBackend:
    backend = opened(server, database)
    if operation != "make the tables":
        for run_id in ("old", "still"):
            backend.create_run(run_id)
            backend.set_node_state(run_id, "source.a", row_count=1)
    return backend


@pytest.mark.parametrize("operation", list(OPERATIONS))
def test_a_lost_answer_doubles_nothing_and_loses_nothing(
    operation: str,
    server: HranaServer,
    tmp_path: Path,
    torture: bool,
    tally: Callable[[str, int], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # A transaction whose client is gone is dropped soon, so that the next one need not wait.
    monkeypatch.setattr(libsql_servers, "TRANSACTION_SECONDS", 0.05)
    act = OPERATIONS[operation]
    calm = prepared(server, tmp_path / "calm.db", operation)
    before = content(server, tmp_path / "calm.db")
    server.requests.clear()
    act(calm)
    requests = len(server.requests)
    after = content(server, tmp_path / "calm.db")
    # How many requests in a row are hit; the server comes back before patience ends.
    spans = (1, 2, 3) if torture else (1,)
    points = [(fault, at, span) for fault in FAULTS for at in range(requests) for span in spans]
    if not torture:
        # The last request is the commit.
        points = random.Random(operation).sample(points, min(len(points), 4)) + [
            point for point in points if point[1] == requests - 1
        ]
    fired = 0
    for number, (fault, at, span) in enumerate(points):
        database = tmp_path / f"{number}.db"
        backend = prepared(server, database, operation)
        seen = [0, 0]

        def hit(sql: str, at: int = at, span: int = span, fault: str = fault, seen: list[int] = seen) -> str | None:
            seen[0] += 1
            if at < seen[0] <= at + span:
                seen[1] += 1
                return fault
            return None

        server.fault = hit
        outcome = "kept"
        try:
            act(backend)
        except TransactionError:
            outcome = "not kept"
        except SeeknalError as error:
            outcome = "unknown" if "unknown whether" in error.message else "not begun"
        found = content(server, database)
        told = f"{fault} at request {at + 1}, {span} in a row: {outcome}"
        assert found in ((after,) if outcome == "kept" else (before, after) if outcome == "unknown" else (before,)), (
            told
        )
        if outcome != "kept":
            # Done again it is done once.
            if found == before:
                act(backend)
            assert content(server, database) == after, told
        backend.close()
        fired += seen[1] > 0
    assert fired == len(points)
    tally("answer of a libSQL server lost, or request", fired)
