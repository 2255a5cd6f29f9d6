"""The state backend on a database: a SQLite file that many processes write, or a libSQL server (Turso).

One row a run and one a node, so that a write costs the same however large its run is. What a connection is, is in
:mod:`seeknal.state.database_connection`; the tables are in :mod:`seeknal.state.database_schema`. Here is what the
operations mean.
"""

from __future__ import annotations

import contextlib
import secrets
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import msgspec

from seeknal.errors import SeeknalError, UsageError
from seeknal.state import database_rows as rows
from seeknal.state.database_connection import Connection, Rows, SqliteConnection
from seeknal.state.database_schema import is_prepared, prepare
from seeknal.state.errors import (
    StateBackendError,
    TransactionError,
    check_revisions,
    known_run,
    spoiled_transaction,
    unknown_run,
)
from seeknal.state.leased_locks import LeasedLock
from seeknal.state.libsql_connection import LibsqlConnection, is_libsql_url, server_address
from seeknal.state.locks import FileLock
from seeknal.state.records import NodeRecord, RunRecord, check_node_id, check_run_id, node_changes
from seeknal.state.run_locks import RunLock, RunLocks


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass
class _Transaction:
    """An open transaction, and whether an inner one or a write in it failed.

    ``runs`` are those that were read or written in it, None for none; ``nodes`` are the nodes of those that it made.
    """

    connection: Connection
    revision: str = field(default_factory=lambda: secrets.token_hex(8))
    spoiled: bool = False
    runs: dict[str, RunRecord | None] = field(default_factory=dict)
    nodes: dict[str, dict[str, NodeRecord]] = field(default_factory=dict)

    @contextlib.contextmanager
    def writing(self) -> Iterator[Connection]:
        """Give the connection for statements that write; where one fails, nothing of the transaction is kept."""
        try:
            yield self.connection
        except StateBackendError as error:
            self.spoiled = True
            raise TransactionError(f"{error.message}, so nothing was kept", hint=error.hint) from error
        except BaseException:
            self.spoiled = True
            raise


class DatabaseBackend:
    """Keep run records in a SQLite file or on a libSQL server; a :class:`~seeknal.state.backend.StateBackend`.

    ``db_path`` is a path, or the URL of a server: ``libsql://HOST``, or one of HTTP. ``auth_token`` is for the server,
    else the environment variable ``TURSO_AUTH_TOKEN``. Raises UsageError where it is neither.
    ``purpose`` is what another process is told that waits in vain for the lock of a run. Writers wait for one
    another at most ``wait_seconds``, then raise BusyError. One object may serve several threads; each has a
    connection and a transaction of its own.

    A write outside a transaction is made durable by itself (one fsync), so many writes belong into one transaction.
    """

    def __init__(
        self,
        db_path: str | Path = "target/state.db",
        *,
        auth_token: str | None = None,
        purpose: str = "seeknal",
        wait_seconds: float = 10.0,
        clock: Callable[[], datetime] = _now,
    ) -> None:
        self.url = str(db_path) if is_libsql_url(db_path) else None
        if self.url is None and (not str(db_path) or str(db_path).startswith(":") or "://" in str(db_path)):
            raise UsageError(f"{str(db_path)!r} is not a database", hint="give the path of a file, or a libsql:// URL")
        # Absolute, so that a program that changes its folder keeps its records.
        self.db_path = Path(db_path).absolute()
        self._where = server_address(self.url).shown if self.url else str(self.db_path)
        self._auth_token = auth_token
        self._purpose = purpose
        self._wait_seconds = wait_seconds
        self._clock = clock
        self._of_thread = threading.local()
        self._connections: weakref.WeakSet[Connection] = weakref.WeakSet()
        self._locks = RunLocks(self._run_lock)

    def initialize(self) -> None:
        self._connect()

    def health_check(self) -> bool:
        if self._transaction() is not None:
            return True
        try:
            if not self._is_there():
                return False
            connection = self._connect(making=False)
            try:
                connection.begin(writing=True)
                return is_prepared(connection, self._where)
            finally:
                connection.rollback()
        except SeeknalError:
            return False

    def close(self) -> None:
        self._locks.release_all()
        for connection in list(self._connections):
            connection.close()

    # runs

    def create_run(self, run_id: str, **changes: Any) -> None:
        check_run_id(run_id)
        with self._changing() as transaction:
            if self._load(run_id) is not None:
                raise known_run(run_id)
            self._put(transaction, RunRecord(run_id=run_id).changed({"started_at": self._clock(), **changes}))
            transaction.nodes[run_id] = {}

    def update_run(self, run_id: str, **changes: Any) -> None:
        check_run_id(run_id)
        with self._changing() as transaction:
            self._put(transaction, self._load_known(run_id).changed(changes))

    def get_run(self, run_id: str) -> dict[str, Any] | None:
        record = self._load(check_run_id(run_id))
        return None if record is None else record.to_dict()

    def delete_run(self, run_id: str) -> None:
        check_run_id(run_id)
        with self._changing() as transaction, transaction.writing() as connection:
            rows.delete_run(connection, run_id)
            transaction.runs[run_id] = None
            transaction.nodes.pop(run_id, None)

    def exists(self, run_id: str) -> bool:
        check_run_id(run_id)
        with self._reading() as read:
            return bool(read("SELECT 1 FROM runs WHERE run_id = ?", (run_id,)))

    def list_runs(self) -> list[str]:
        with self._reading() as read:
            return [run_id for (run_id,) in read("SELECT run_id FROM runs ORDER BY run_id")]

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
        self._change_node(run_id, node_id, lambda node: node.changed(given))

    def get_node_state(self, run_id: str, node_id: str) -> dict[str, Any] | None:
        node = self._load_node(run_id, node_id)
        return None if node is None else node.to_dict()

    def get_all_node_states(self, run_id: str) -> dict[str, dict[str, Any]]:
        check_run_id(run_id)
        with self._reading() as read:
            nodes = rows.read_nodes(read, run_id, self._where)
        return {node_id: node.to_dict() for node_id, node in nodes.items()}

    def delete_node_state(self, run_id: str, node_id: str) -> None:
        check_run_id(run_id)
        check_node_id(node_id)
        with self._changing() as transaction:
            run = self._load(run_id)
            if run is not None and self.node_exists(run_id, node_id):
                with transaction.writing() as connection:
                    rows.delete_node(connection, run_id, node_id)
                transaction.nodes.get(run_id, {}).pop(node_id, None)
                self._put(transaction, run)

    def node_exists(self, run_id: str, node_id: str) -> bool:
        check_run_id(run_id)
        check_node_id(node_id)
        with self._reading() as read:
            return bool(read("SELECT 1 FROM node_states WHERE run_id = ? AND node_id = ?", (run_id, node_id)))

    def list_nodes(self, run_id: str) -> list[str]:
        check_run_id(run_id)
        with self._reading() as read:
            found = read("SELECT node_id FROM node_states WHERE run_id = ? ORDER BY node_id", (run_id,))
        return [node_id for (node_id,) in found]

    def add_completed_interval(self, run_id: str, node_id: str, start: str | date, end: str | date) -> None:
        check_run_id(run_id)
        check_node_id(node_id)
        self._change_node(run_id, node_id, lambda node: node.with_interval(start, end))

    def get_completed_intervals(self, run_id: str, node_id: str) -> list[tuple[str, str]]:
        node = self._load_node(run_id, node_id)
        return [] if node is None else list(node.completed_intervals)

    def add_completed_partition(self, run_id: str, node_id: str, partition: str) -> None:
        check_run_id(run_id)
        check_node_id(node_id)
        self._change_node(run_id, node_id, lambda node: node.with_partition(partition))

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

    def _run_lock(self, run_id: str) -> RunLock:
        if self.url is not None:
            # On a connection of its own: a lease is seen by others before this thread's transaction ends.
            return LeasedLock(run_id, self._purpose, self._open)
        folder = self.db_path.with_name(f"{self.db_path.name}-locks")
        return FileLock(folder / f"{run_id}.lock", self._purpose, what=f"run '{run_id}'")

    # transactions

    @contextlib.contextmanager
    def transaction(self, *, expecting: Mapping[str, str | None] | None = None) -> Iterator[DatabaseBackend]:
        outer = self._transaction()
        if outer is None:
            with self._changing():
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
    def _changing(self) -> Iterator[_Transaction]:
        """Give this thread's transaction, else a new one that is kept at the end."""
        outer = self._transaction()
        if outer is not None:
            yield outer
            return
        connection = self._connect()
        try:
            connection.begin(writing=True)
            transaction = self._of_thread.transaction = _Transaction(connection)
            yield transaction
            if transaction.spoiled:
                raise spoiled_transaction()
            with transaction.writing():
                connection.commit()
        finally:
            self._of_thread.transaction = None
            connection.rollback()

    def _transaction(self) -> _Transaction | None:
        transaction: _Transaction | None = getattr(self._of_thread, "transaction", None)
        return transaction

    @contextlib.contextmanager
    def _reading(self) -> Iterator[rows.Reader]:
        """Give what reads rows, all as of one moment; none where there is no database yet."""
        transaction = self._transaction()
        if transaction is not None:
            yield transaction.connection.execute
            return
        connection = self._connect(making=False) if self._is_there() else None
        if connection is None or not self._is_prepared(connection):
            yield _no_rows
            return
        try:
            connection.begin(writing=False)
            yield connection.execute
        finally:
            connection.rollback()

    def _connect(self, *, making: bool = True) -> Connection:
        """Give this thread's connection; with ``making`` the tables are there."""
        connection: Connection | None = getattr(self._of_thread, "connection", None)
        if connection is None or not connection.is_current():
            if connection is not None:
                connection.close()
            if making and self.url is None:
                self._make_folder()
            connection = self._of_thread.connection = self._open()
        if making and not self._is_prepared(connection):
            prepare(connection, self._where)
        return connection

    def _is_there(self) -> bool:
        return self.url is not None or self.db_path.exists()

    def _is_prepared(self, connection: Connection) -> bool:
        """Say whether the tables are there, and remember it for as long as the connection lasts."""
        if getattr(self._of_thread, "prepared", None) is not connection:
            if not is_prepared(connection, self._where):
                return False
            connection.write_ahead()
            self._of_thread.prepared = connection
        return True

    def _open(self) -> Connection:
        connection: Connection
        if self.url is not None:
            connection = LibsqlConnection(self.url, self._auth_token, self._wait_seconds)
        else:
            connection = SqliteConnection(self.db_path, self._wait_seconds)
        self._connections.add(connection)
        return connection

    def _make_folder(self) -> None:
        try:
            self.db_path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StateBackendError(f"cannot make {self.db_path.parent}: {error.strerror}") from error

    # records

    def _put(self, transaction: _Transaction, run: RunRecord) -> None:
        new = msgspec.structs.replace(run, revision=transaction.revision)
        if transaction.runs.get(run.run_id) == new:
            return
        with transaction.writing() as connection:
            rows.write_run(connection, new)
        transaction.runs[run.run_id] = new

    def _change_node(self, run_id: str, node_id: str, change: Callable[[NodeRecord], NodeRecord]) -> None:
        with self._changing() as transaction:
            run = self._load_known(run_id)
            old = self._load_node(run_id, node_id)
            new = change(old or NodeRecord())
            with transaction.writing() as connection:
                rows.write_node(connection, run_id, node_id, old, new)
            if run_id in transaction.nodes:
                transaction.nodes[run_id][node_id] = new
            self._put(transaction, run)

    def _load(self, run_id: str) -> RunRecord | None:
        """Read a run without its nodes, as this thread's transaction sees it. The caller has checked the id."""
        transaction = self._transaction()
        if transaction is not None and run_id in transaction.runs:
            return transaction.runs[run_id]
        with self._reading() as read:
            run = rows.read_run(read, run_id, self._where)
        if transaction is not None:
            transaction.runs[run_id] = run
        return run

    def _load_known(self, run_id: str) -> RunRecord:
        record = self._load(run_id)
        if record is None:
            raise unknown_run(run_id)
        return record

    def _load_node(self, run_id: str, node_id: str) -> NodeRecord | None:
        check_run_id(run_id)
        check_node_id(node_id)
        transaction = self._transaction()
        if transaction is not None and run_id in transaction.nodes:
            return transaction.nodes[run_id].get(node_id)
        with self._reading() as read:
            return rows.read_nodes(read, run_id, self._where, node_id).get(node_id)


def _no_rows(statement: str, values: Sequence[Any] = ()) -> Rows:
    return []
