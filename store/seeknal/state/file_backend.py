"""The state backend that needs nothing but a folder: one JSON file a run, ``<base_path>/runs/<run_id>.json``.

How the files change, and how several change as one, is in :mod:`seeknal.state.run_files`. Here is what the
operations mean, and the *transaction*: the writes of one thread, gathered in memory until its end.
"""

from __future__ import annotations

import contextlib
import secrets
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import msgspec

from seeknal.state.errors import check_revisions, known_run, spoiled_transaction, unknown_run
from seeknal.state.records import NodeRecord, RunRecord, check_node_id, check_run_id, node_changes
from seeknal.state.run_files import RunFiles
from seeknal.state.run_locks import RunLocks


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass
class _Transaction:
    """An open transaction: what it has written, None for a deleted run, and whether an inner one failed."""

    writes: dict[str, RunRecord | None] = field(default_factory=dict)
    revision: str = field(default_factory=lambda: secrets.token_hex(8))
    spoiled: bool = False

    def put(self, record: RunRecord) -> None:
        self.writes[record.run_id] = msgspec.structs.replace(record, revision=self.revision)

    def put_node(self, run: RunRecord, node_id: str, node: NodeRecord) -> None:
        """As :meth:`put`, for one node of a run that was read or made for this transaction, and that nobody else has.

        In place: a new mapping for each node would take the square of their number.
        """
        run.nodes[node_id] = node
        self.put(run)


class FileBackend:
    """Keep run records as JSON files under ``<base_path>/runs``; a :class:`~seeknal.state.backend.StateBackend`.

    ``purpose`` is what another process is told when it waits in vain. Writers wait for one another at most
    ``wait_seconds``, then raise BusyError. One object may serve several threads; each has its own transaction.

    A write outside a transaction reads and replaces the run's whole file and makes it durable (two fsyncs), so
    many writes belong into one transaction. Reading anything of a run reads its whole file.
    """

    def __init__(
        self,
        base_path: str | Path = "target",
        *,
        purpose: str = "seeknal",
        wait_seconds: float = 10.0,
        clock: Callable[[], datetime] = _now,
    ) -> None:
        # Absolute, so that a program that changes its folder keeps its records.
        self.base_path = Path(base_path).absolute()
        self._files = RunFiles(self.base_path / "runs", purpose, wait_seconds)
        self._clock = clock
        self._of_thread = threading.local()
        self._locks = RunLocks(self._files.run_lock)

    def initialize(self) -> None:
        with self._writing():
            self._files.remove_left_overs()

    def health_check(self) -> bool:
        return self._files.is_usable()

    def close(self) -> None:
        self._locks.release_all()

    # runs

    def create_run(self, run_id: str, **changes: Any) -> None:
        check_run_id(run_id)
        with self._writing() as transaction:
            if self._load(run_id) is not None:
                raise known_run(run_id)
            transaction.put(RunRecord(run_id=run_id).changed({"started_at": self._clock(), **changes}))

    def update_run(self, run_id: str, **changes: Any) -> None:
        check_run_id(run_id)
        with self._writing() as transaction:
            transaction.put(self._load_known(run_id).changed(changes))

    def get_run(self, run_id: str) -> dict[str, Any] | None:
        record = self._load(check_run_id(run_id))
        return None if record is None else record.to_dict()

    def delete_run(self, run_id: str) -> None:
        check_run_id(run_id)
        with self._writing() as transaction:
            transaction.writes[run_id] = None

    def exists(self, run_id: str) -> bool:
        return self._load(check_run_id(run_id)) is not None

    def list_runs(self) -> list[str]:
        run_ids = self._files.run_ids()
        transaction = self._transaction()
        for run_id, record in transaction.writes.items() if transaction else ():
            (run_ids.discard if record is None else run_ids.add)(run_id)
        return sorted(run_ids)

    def get_revision(self, run_id: str) -> str | None:
        record = self._load(check_run_id(run_id))
        return None if record is None else record.revision

    def get_metadata(self, run_id: str) -> dict[str, Any]:
        run = self.get_run(run_id)
        metadata: dict[str, Any] = {} if run is None else run["metadata"]
        return metadata

    def set_metadata(self, run_id: str, metadata: Mapping[str, Any]) -> None:
        self.update_run(run_id, metadata=metadata)

    # nodes

    def set_node_state(self, run_id: str, node_id: str, state: object = None, **changes: Any) -> None:
        check_run_id(run_id)
        check_node_id(node_id)
        given = node_changes(run_id, node_id, state, changes)
        with self._writing() as transaction:
            run = self._load_known(run_id)
            transaction.put_node(run, node_id, run.nodes.get(node_id, NodeRecord()).changed(given))

    def get_node_state(self, run_id: str, node_id: str) -> dict[str, Any] | None:
        node = self._load_node(run_id, node_id)
        return None if node is None else node.to_dict()

    def get_all_node_states(self, run_id: str) -> dict[str, dict[str, Any]]:
        run = self._load(check_run_id(run_id))
        return {} if run is None else {node_id: run.nodes[node_id].to_dict() for node_id in sorted(run.nodes)}

    def delete_node_state(self, run_id: str, node_id: str) -> None:
        check_run_id(run_id)
        check_node_id(node_id)
        with self._writing() as transaction:
            run = self._load(run_id)
            if run is not None and node_id in run.nodes:
                transaction.put(run.without_node(node_id))

    def node_exists(self, run_id: str, node_id: str) -> bool:
        return self._load_node(run_id, node_id) is not None

    def list_nodes(self, run_id: str) -> list[str]:
        run = self._load(check_run_id(run_id))
        return [] if run is None else sorted(run.nodes)

    def add_completed_interval(self, run_id: str, node_id: str, start: str | date, end: str | date) -> None:
        check_run_id(run_id)
        check_node_id(node_id)
        with self._writing() as transaction:
            run = self._load_known(run_id)
            node = run.nodes.get(node_id, NodeRecord()).with_interval(start, end)
            transaction.put_node(run, node_id, node)

    def get_completed_intervals(self, run_id: str, node_id: str) -> list[tuple[str, str]]:
        node = self._load_node(run_id, node_id)
        return [] if node is None else list(node.completed_intervals)

    def add_completed_partition(self, run_id: str, node_id: str, partition: str) -> None:
        check_run_id(run_id)
        check_node_id(node_id)
        with self._writing() as transaction:
            run = self._load_known(run_id)
            node = run.nodes.get(node_id, NodeRecord()).with_partition(partition)
            transaction.put_node(run, node_id, node)

    def get_completed_partitions(self, run_id: str, node_id: str) -> list[str]:
        node = self._load_node(run_id, node_id)
        return [] if node is None else list(node.completed_partitions)

    # locks

    def acquire_lock(self, run_id: str, timeout_ms: int = 5000) -> bool:
        return self._locks.acquire(run_id, timeout_ms)

    def release_lock(self, run_id: str) -> None:
        self._locks.release(run_id)

    def lock(self, run_id: str, timeout_ms: int = 5000) -> AbstractContextManager[None]:
        return self._locks.hold(run_id, timeout_ms)

    # transactions

    @contextlib.contextmanager
    def transaction(self, *, expecting: Mapping[str, str | None] | None = None) -> Iterator[FileBackend]:
        outer = self._transaction()
        if outer is None:
            with self._writing():
                check_revisions(expecting or {}, self.get_revision)
                yield self
            return
        check_revisions(expecting or {}, self.get_revision)
        try:
            yield self
        except BaseException:
            outer.spoiled = True
            raise

    @contextlib.contextmanager
    def _writing(self) -> Iterator[_Transaction]:
        """Give this thread's transaction, else a new one that is kept at the end."""
        outer = self._transaction()
        if outer is not None:
            yield outer
            return
        with self._files.writing():
            transaction = self._of_thread.transaction = _Transaction()
            try:
                yield transaction
            finally:
                self._of_thread.transaction = None
            if transaction.spoiled:
                raise spoiled_transaction()
            self._files.keep(transaction.writes)

    def _transaction(self) -> _Transaction | None:
        transaction: _Transaction | None = getattr(self._of_thread, "transaction", None)
        return transaction

    # reading

    def _load(self, run_id: str) -> RunRecord | None:
        """Read a run as this thread's transaction sees it. The caller has checked the id."""
        transaction = self._transaction()
        if transaction is not None and run_id in transaction.writes:
            return transaction.writes[run_id]
        return self._files.load(run_id)

    def _load_known(self, run_id: str) -> RunRecord:
        record = self._load(run_id)
        if record is None:
            raise unknown_run(run_id)
        return record

    def _load_node(self, run_id: str, node_id: str) -> NodeRecord | None:
        check_node_id(node_id)
        run = self._load(check_run_id(run_id))
        return None if run is None else run.nodes.get(node_id)
