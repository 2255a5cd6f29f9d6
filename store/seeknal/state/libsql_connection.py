"""A connection to a libSQL server, such as Turso's, by a ``libsql://`` URL.

Its client is not among what Seeknal installs; :func:`check_libsql` says so before anything else is tried. The client
tells of errors by their text alone.
"""

from __future__ import annotations

import contextlib
import importlib
import os
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from seeknal.errors import BusyError, SeeknalError, UsageError
from seeknal.state.database_connection import Rows
from seeknal.state.errors import StateBackendError

TOKEN_VARIABLE = "TURSO_AUTH_TOKEN"
SCHEME = "libsql://"


def is_libsql_url(db_path: str | Path) -> bool:
    """Say whether this names a server. A Path never does."""
    return isinstance(db_path, str) and db_path.startswith(SCHEME)


def check_libsql() -> None:
    """Raise UsageError where the client is not installed."""
    if find_spec("libsql") is None:
        raise UsageError(
            f"a {SCHEME} database needs the package 'libsql', which is not installed",
            hint="pip install 'seeknal[turso]', or give the path of a file",
        )


class LibsqlConnection:
    """A connection to a libSQL server. Raises as :meth:`~seeknal.state.database_connection.Connection.execute`."""

    def __init__(self, url: str, auth_token: str | None, wait_seconds: float) -> None:
        self._url = url
        self._wait_seconds = wait_seconds
        self._pid = os.getpid()
        self._begun = False
        client = importlib.import_module("libsql")
        try:
            token = auth_token if auth_token is not None else os.environ.get(TOKEN_VARIABLE, "")
            self._connection: Any = client.connect(url, auth_token=token, isolation_level=None)
        except Exception as error:
            raise self._translated(error) from error

    def execute(self, statement: str, values: Sequence[Any] = ()) -> Rows:
        if self._connection is None:
            raise StateBackendError(f"the connection to {self._url} is closed")
        try:
            return [tuple(row) for row in self._connection.execute(statement, tuple(values)).fetchall()]
        except Exception as error:
            raise self._translated(error) from error

    def write_ahead(self) -> None:
        """Do nothing: that is the server's affair."""

    def begin(self, *, writing: bool) -> None:
        self.execute("BEGIN IMMEDIATE" if writing else "BEGIN")
        self._begun = True

    def commit(self) -> None:
        self.execute("COMMIT")
        self._begun = False

    def rollback(self) -> None:
        if self._begun:
            self._begun = False
            with contextlib.suppress(SeeknalError):
                self.execute("ROLLBACK")

    def is_current(self) -> bool:
        return self._connection is not None and self._pid == os.getpid()

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(Exception):
                connection.close()

    def _translated(self, error: Exception) -> SeeknalError:
        said = " ".join(str(error).split())
        if "SQLITE_BUSY" in said or "database is locked" in said:
            return BusyError(f"{self._url} is locked: {said}", hint="try again when the other writer is done")
        return StateBackendError(
            f"cannot use {self._url}: {said}", hint=f"check the URL, and the token in {TOKEN_VARIABLE}"
        )
