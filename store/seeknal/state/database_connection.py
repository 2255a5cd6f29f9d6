"""Connections of the database backend: what it asks of a database, and a SQLite file that does it.

- *connection*: one thread's way to a database. Statements run on it one by one; between ``begin`` and ``commit`` or
  ``rollback`` they are one transaction.

The file is in WAL mode with ``synchronous=FULL``: readers never wait, one writer at a time does its work, and what
was committed outlasts a power cut. Errors of SQLite become errors of :mod:`seeknal.errors` here and nowhere else.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import quote

from seeknal.errors import BusyError, CorruptObjectError, SeeknalError
from seeknal.state.errors import StateBackendError

if TYPE_CHECKING:
    import sqlite3

Rows = list[tuple[Any, ...]]

_PAUSE_SECONDS = 0.005

# SQLite's primary result codes.
_BUSY = (5, 6, 15)
_DAMAGED = (11, 26)
_STATEMENT = 1

# A connection must not be used in a forked child, nor closed there, which dropping the last reference would do.
_of_parent: list[object] = []


class Connection(Protocol):
    """A way to a database for one thread."""

    def execute(self, statement: str, values: Sequence[Any] = ()) -> Rows:
        """Run one statement, ``?`` for each value, and give its rows.

        Raises BusyError, CorruptObjectError, StateBackendError.
        """
        ...

    def write_ahead(self) -> None:
        """See to it that readers and the writer do not wait for one another. Doing it again changes nothing."""
        ...

    def begin(self, *, writing: bool) -> None:
        """Begin a transaction: to write, as the only writer, or to read everything as of one moment."""
        ...

    def commit(self) -> None:
        """Keep what the transaction wrote, durably."""
        ...

    def rollback(self) -> None:
        """Drop what the transaction wrote. Where there is none, nothing happens. Never raises."""
        ...

    def is_current(self) -> bool:
        """Say whether this thread of this process may go on with it, and it still leads to the database."""
        ...

    def close(self) -> None:
        """Close it. Doing it again changes nothing."""
        ...


class SqliteConnection:
    """A connection to a SQLite file, which is made where it is missing.

    Whoever waits for another writer does so for ``wait_seconds``. Raises as :meth:`Connection.execute`.
    """

    def __init__(self, path: Path, wait_seconds: float) -> None:
        import sqlite3

        self.path = path
        self._wait_seconds = wait_seconds
        self._pid = os.getpid()
        self._error: type[Exception] = sqlite3.Error
        self._connection: sqlite3.Connection | None = None
        with self._reporting():
            self._connection = sqlite3.connect(
                f"file:{quote(str(path))}?mode=rwc",
                timeout=wait_seconds,
                isolation_level=None,
                check_same_thread=False,
                uri=True,
            )
        try:
            self._inode = _inode(path)
            self.execute("PRAGMA synchronous=FULL")
            self.execute("PRAGMA foreign_keys=ON")
        except BaseException:
            self.close()
            raise

    def execute(self, statement: str, values: Sequence[Any] = ()) -> Rows:
        with self._reporting():
            return self._open().execute(statement, values).fetchall()

    def begin(self, *, writing: bool) -> None:
        self.execute("BEGIN IMMEDIATE" if writing else "BEGIN")

    def commit(self) -> None:
        self.execute("COMMIT")

    def rollback(self) -> None:
        with contextlib.suppress(SeeknalError):
            if self._connection is not None and self._connection.in_transaction:
                self.execute("ROLLBACK")

    def is_current(self) -> bool:
        # A file that was deleted, or replaced by another, takes writes that nobody will ever see.
        return self._connection is not None and self._pid == os.getpid() and _inode(self.path) == self._inode

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None and self._pid == os.getpid():
            with contextlib.suppress(self._error):
                connection.close()
        elif connection is not None:
            _of_parent.append(connection)

    def __del__(self) -> None:
        if hasattr(self, "_connection"):
            self.close()

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            raise StateBackendError(f"the connection to {self.path} is closed")
        return self._connection

    def write_ahead(self) -> None:
        # SQLite does not wait for others here, so this does.
        deadline = time.monotonic() + self._wait_seconds
        while True:
            try:
                (mode,) = self.execute("PRAGMA journal_mode=WAL")[0]
            except BusyError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(_PAUSE_SECONDS)
                continue
            if mode != "wal":
                raise StateBackendError(
                    f"{self.path} cannot have a write-ahead log here",
                    hint="keep it on a local disk, or use the file backend",
                )
            return

    @contextlib.contextmanager
    def _reporting(self) -> Iterator[None]:
        """Turn SQLite's errors into ours."""
        try:
            yield
        except self._error as error:
            raise self._translated(error) from error

    def _translated(self, error: Exception) -> SeeknalError:
        code = getattr(error, "sqlite_errorcode", None)
        primary = None if code is None else code & 0xFF
        if primary in _BUSY:
            return BusyError(
                f"{self.path} is locked: another process has been writing to it for {self._wait_seconds:g} seconds",
                hint="try again when it is done; ending that process frees the lock",
            )
        # Without a code it is Python's: a text that is not UTF-8.
        if primary in _DAMAGED or primary is None:
            return damaged(str(self.path), str(error))
        if primary == _STATEMENT:
            return damaged(str(self.path), f"it is not as Seeknal made it: {error}")
        return StateBackendError(f"cannot use {self.path}: {error}", hint="look at its folder: space, permissions")


def damaged(where: str, why: str) -> CorruptObjectError:
    """Make the error for a database that cannot be what Seeknal wrote."""
    return CorruptObjectError(
        f"{where} is damaged: {why}",
        hint="put a backup of it in place, or move it and the files beside it away to go on without the records of "
        "past runs; outputs are not in it",
    )


def _inode(path: Path) -> tuple[int, int] | None:
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_dev, stat.st_ino
