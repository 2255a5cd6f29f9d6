"""Records of runs as rows of a database, and back. What a row cannot have held is damage."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from seeknal.state.database_connection import Connection, Rows, damaged
from seeknal.state.records import NODE_FIELDS, NodeRecord, RunRecord

# Gives the rows of a SELECT, as Connection.execute does.
Reader = Callable[..., Rows]

_RUN_COLUMNS = ("revision", "status", "started_at", "finished_at", "metadata", "config", "extra")
_NODE_COLUMNS = (
    *(name for name in NODE_FIELDS if name not in ("completed_intervals", "completed_partitions")),
    "extra",
)
_JSON_COLUMNS = ("metadata", "config", "extra")


def read_run(read: Reader, run_id: str, where: str) -> RunRecord | None:
    """Read a run without its nodes. ``where`` is for messages. Raises CorruptObjectError."""
    rows = read(f"SELECT {', '.join(_RUN_COLUMNS)} FROM runs WHERE run_id = ?", (run_id,))
    if not rows:
        return None
    run: RunRecord = _record(RunRecord, _RUN_COLUMNS, rows[0], f"{where}: run '{run_id}'", run_id=run_id)
    return run


def read_nodes(read: Reader, run_id: str, where: str, node_id: str | None = None) -> dict[str, NodeRecord]:
    """Read the nodes of a run, or one of them, sorted by id. Raises CorruptObjectError."""
    which, values = ("", (run_id,)) if node_id is None else (" AND node_id = ?", (run_id, node_id))

    def rows(columns: Iterable[str], table: str, order: str) -> Rows:
        return read(f"SELECT {', '.join(columns)} FROM {table} WHERE run_id = ?{which} ORDER BY {order}", values)

    intervals: dict[str, list[tuple[str, str]]] = {}
    for owner, start, end in rows(("node_id", "start_at", "end_at"), "completed_intervals", "start_at, end_at"):
        intervals.setdefault(owner, []).append((start, end))
    partitions: dict[str, list[str]] = {}
    for owner, name in rows(("node_id", "name"), "partitions", "name"):
        partitions.setdefault(owner, []).append(name)
    nodes: dict[str, NodeRecord] = {}
    for owner, *row in rows(("node_id", *_NODE_COLUMNS), "node_states", "node_id"):
        nodes[owner] = _record(
            NodeRecord,
            _NODE_COLUMNS,
            row,
            f"{where}: node '{owner}' of run '{run_id}'",
            completed_intervals=intervals.get(owner, []),
            completed_partitions=partitions.get(owner, []),
        )
    return nodes


def write_run(connection: Connection, run: RunRecord) -> None:
    """Make or replace a run's row; its nodes stay."""
    _upsert(connection, "runs", {"run_id": run.run_id}, {name: getattr(run, name) for name in _RUN_COLUMNS})


def write_node(connection: Connection, run_id: str, node_id: str, old: NodeRecord | None, new: NodeRecord) -> None:
    """Make or replace a node's rows; ``old`` is what stands there."""
    key = {"run_id": run_id, "node_id": node_id}
    _upsert(connection, "node_states", key, {name: getattr(new, name) for name in _NODE_COLUMNS})
    before = old or NodeRecord()
    for start, end in sorted({*before.completed_intervals} - {*new.completed_intervals}):
        connection.execute(
            "DELETE FROM completed_intervals WHERE run_id = ? AND node_id = ? AND start_at = ? AND end_at = ?",
            (run_id, node_id, start, end),
        )
    for start, end in sorted({*new.completed_intervals} - {*before.completed_intervals}):
        connection.execute("INSERT INTO completed_intervals VALUES (?, ?, ?, ?)", (run_id, node_id, start, end))
    for name in sorted({*before.completed_partitions} - {*new.completed_partitions}):
        connection.execute(
            "DELETE FROM partitions WHERE run_id = ? AND node_id = ? AND name = ?", (run_id, node_id, name)
        )
    for name in sorted({*new.completed_partitions} - {*before.completed_partitions}):
        connection.execute("INSERT INTO partitions VALUES (?, ?, ?)", (run_id, node_id, name))


def delete_node(connection: Connection, run_id: str, node_id: str) -> None:
    """Delete all rows of a node."""
    for table in ("completed_intervals", "partitions", "node_states"):
        connection.execute(f"DELETE FROM {table} WHERE run_id = ? AND node_id = ?", (run_id, node_id))


def delete_run(connection: Connection, run_id: str) -> None:
    """Delete all rows of a run and its nodes."""
    for table in ("completed_intervals", "partitions", "node_states", "runs"):
        connection.execute(f"DELETE FROM {table} WHERE run_id = ?", (run_id,))


def _upsert(connection: Connection, table: str, key: dict[str, str], columns: dict[str, Any]) -> None:
    values = {name: _to_json(value) if name in _JSON_COLUMNS else value for name, value in columns.items()}
    names = [*key, *values]
    connection.execute(
        f"INSERT INTO {table} ({', '.join(names)}) VALUES ({', '.join('?' * len(names))}) "
        f"ON CONFLICT ({', '.join(key)}) DO UPDATE SET {', '.join(f'{name} = excluded.{name}' for name in values)}",
        (*key.values(), *values.values()),
    )


def _to_json(value: object) -> str:
    return msgspec.json.encode(value).decode()


def _record(kind: type[Any], columns: tuple[str, ...], row: Iterable[Any], where: str, **more: Any) -> Any:
    """Make a record of a row. Raises CorruptObjectError."""
    try:
        values = {
            name: msgspec.json.decode(value) if name in _JSON_COLUMNS else value
            for name, value in zip(columns, row, strict=True)
        }
        return msgspec.convert({**values, **more}, kind)
    except (msgspec.MsgspecError, TypeError, ValueError, RecursionError) as error:
        raise damaged(where, str(error)) from error
