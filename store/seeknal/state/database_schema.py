"""The tables of the database backend, and which version of them a database holds.

    format                  one row: the version
    runs                    one row a run
    node_states             one row for each node of a run
    completed_intervals     one row for each interval that a node of a run has done
    partitions              one row for each partition that a node of a run has done
    locks                   leases, where the database is a server; a file's locks are the kernel's

``metadata``, ``config`` and ``extra`` (keys that have no column) are JSON. Numbers have no declared type, so that 1
and 1.0 stay what they are.
"""

from __future__ import annotations

from seeknal.errors import FormatTooNewError
from seeknal.state.database_connection import Connection, damaged
from seeknal.state.errors import StateBackendError

FORMAT_VERSION = 1

_TABLES = (
    "CREATE TABLE format (version INTEGER NOT NULL)",
    """CREATE TABLE runs (
        run_id TEXT NOT NULL PRIMARY KEY,
        revision TEXT NOT NULL,
        status TEXT NOT NULL,
        started_at TEXT,
        finished_at TEXT,
        metadata TEXT NOT NULL,
        config TEXT NOT NULL,
        extra TEXT NOT NULL
    )""",
    """CREATE TABLE node_states (
        run_id TEXT NOT NULL REFERENCES runs (run_id),
        node_id TEXT NOT NULL,
        status TEXT NOT NULL,
        started_at TEXT,
        finished_at TEXT,
        duration_ms,
        row_count,
        error_message TEXT,
        fingerprint TEXT,
        hash TEXT,
        metadata TEXT NOT NULL,
        extra TEXT NOT NULL,
        UNIQUE (run_id, node_id)
    )""",
    """CREATE TABLE completed_intervals (
        run_id TEXT NOT NULL,
        node_id TEXT NOT NULL,
        start_at TEXT NOT NULL,
        end_at TEXT NOT NULL,
        UNIQUE (run_id, node_id, start_at, end_at),
        FOREIGN KEY (run_id, node_id) REFERENCES node_states (run_id, node_id)
    )""",
    """CREATE TABLE partitions (
        run_id TEXT NOT NULL,
        node_id TEXT NOT NULL,
        name TEXT NOT NULL,
        UNIQUE (run_id, node_id, name),
        FOREIGN KEY (run_id, node_id) REFERENCES node_states (run_id, node_id)
    )""",
    """CREATE TABLE locks (
        run_id TEXT NOT NULL PRIMARY KEY,
        token TEXT NOT NULL,
        holder TEXT NOT NULL,
        expires_at REAL NOT NULL
    )""",
)


def is_prepared(connection: Connection, where: str) -> bool:
    """Say whether the tables are there. ``where`` is for messages.

    Raises FormatTooNewError, CorruptObjectError, and StateBackendError where the database is something else's.
    """
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    tables -= {name for name in tables if name.startswith(("sqlite_", "libsql_", "_litestream_"))}
    if not tables:
        return False
    if "format" not in tables:
        raise StateBackendError(
            f"{where} is another program's database: it holds the table '{min(tables)}'",
            hint="give the records of runs a database of their own",
        )
    rows = connection.execute("SELECT version FROM format")
    if len(rows) != 1 or not isinstance(rows[0][0], int) or rows[0][0] < 1:
        raise damaged(where, "it does not say which format it has")
    (version,) = rows[0]
    if version > FORMAT_VERSION:
        raise FormatTooNewError.of(where, version, FORMAT_VERSION)
    return True


def prepare(connection: Connection, where: str) -> None:
    """Make the tables where they are missing; all of them or none. Raises as :func:`is_prepared`."""
    if is_prepared(connection, where):
        return
    connection.write_ahead()
    try:
        connection.begin(writing=True)
        # Another process may have made them while this one waited.
        if not is_prepared(connection, where):
            for statement in _TABLES:
                connection.execute(statement)
            connection.execute("INSERT INTO format (version) VALUES (?)", (FORMAT_VERSION,))
        connection.commit()
    except BaseException:
        connection.rollback()
        raise
