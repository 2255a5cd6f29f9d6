"""How tables of SQLite files are read: read-only, in one transaction, with Python's own driver.

A SQLite column may hold anything, whatever its declared type. Here that type counts: it is the column's own type, and
a value that does not fit is an error that names its row. A column of no type, or of one that says nothing (NUMERIC,
BLOB), has the narrowest type that holds its values; so has every column of a query.

- *log*: the file beside a database (``-wal``) that holds what was written last. What is read is both together, so the
  content of both is what a source depends on.
"""

from __future__ import annotations

import os
import re
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from seeknal.dag.names import did_you_mean
from seeknal.dag.sql import literal, quoted
from seeknal.errors import NodeFailedError, Place
from seeknal.nodes.data_types import duckdb_type
from seeknal.nodes.foreign_table import refuse_alike
from seeknal.nodes.read_request import ReadRequest, check_file

_EXACT = 2**53
_BATCH_ROWS = 10_000
# SQLite's limit is 2,000 columns of a result.
_COLUMNS_AT_ONCE = 300
_CLASSES = ("integer", "large", "number", "text", "bytes")
_BLANK = r"(?:\s+|--[^\n]*(?:\n|\Z)|/\*.*?\*/)*"
_QUERY = re.compile(rf"{_BLANK}(?:SELECT|WITH)\b", re.IGNORECASE | re.DOTALL)
_END = re.compile(rf";{_BLANK}\Z", re.DOTALL)
_INTEGER_WORDS = re.compile(r"INT", re.IGNORECASE)

_ALLOWED_ACTIONS = frozenset(
    {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE}
)


def is_query(text: str) -> bool:
    """Say whether a text begins as a query that only reads."""
    return bool(_QUERY.match(text))


def log_of(file: str) -> str:
    """The path of the log beside a database."""
    return f"{file}-wal"


def own_type(declared: str) -> str | None:
    """Translate a column's type in SQLite to DuckDB's; None where it says nothing about the values.

    By SQLite's rules of affinity, but dates, booleans and decimals are what they are called.
    """
    known = duckdb_type(declared)
    if known == "VARCHAR" or declared.strip().upper() in ("NUMERIC", "DECIMAL", "BLOB", "INTERVAL"):
        return "VARCHAR" if known == "VARCHAR" else None
    if _INTEGER_WORDS.search(declared):
        return "BIGINT"
    if known is not None:
        return "DOUBLE" if known == "FLOAT" else known if known != "BLOB" else None
    upper = declared.upper()
    if any(word in upper for word in ("CHAR", "CLOB", "TEXT")):
        return "VARCHAR"
    return "DOUBLE" if any(word in upper for word in ("REAL", "FLOA", "DOUB")) else None


class SqliteTable:
    """A table, a view or a query of a SQLite file. ``params`` name it: ``table``, or ``query``."""

    def __init__(self, request: ReadRequest) -> None:
        self._request = request
        self._file = request.files[0]
        self._place = Place(request.shown(self._file))
        check_file(request, self._file)
        self._connection = self._connect()
        try:
            query = request.params.get("query")
            if query is None:
                name = self._table_name()
                self._select = f"SELECT * FROM main.{quoted(name)}"
                types = dict(self._run(f"SELECT name, type FROM {_table_info(name)}"))
            else:
                self._connection.set_authorizer(_authorize)
                self._select = _END.sub("", str(query))
                types = {}
            # In lines of its own, so that a comment at its end ends there.
            self._relation = f"(\n{self._select}\n)"
            cursor = self._execute(self._select)
            names = [str(column[0]) for column in cursor.description]
            cursor.close()
            refuse_alike(names, self._place)
            self._own_types = {name: own_type(types.get(name) or "") for name in names}
        except BaseException:
            self._connection.close()
            raise

    @property
    def own_types(self) -> Mapping[str, str | None]:
        return self._own_types

    def classes(self, names: Sequence[str]) -> Mapping[str, set[str]]:
        found: dict[str, set[str]] = {}
        for start in range(0, len(names), _COLUMNS_AT_ONCE):
            some = names[start : start + _COLUMNS_AT_ONCE]
            asked = [condition for name in some for condition in _class_conditions(quoted(name))]
            (flags,) = self._run(
                f"SELECT {', '.join(f'max({condition})' for condition in asked)} FROM {self._relation}"
            )
            for name in some:
                own, flags = flags[: len(_CLASSES)], flags[len(_CLASSES) :]
                found[name] = {class_ for class_, flag in zip(_CLASSES, own, strict=True) if flag}
        return found

    def rows(self) -> Iterator[Sequence[Any]]:
        return self._run(self._select)

    def place(self, row: int) -> tuple[Place, str]:
        return self._place, f"row {row}"

    def close(self) -> None:
        self._connection.close()

    def _connect(self) -> sqlite3.Connection:
        """Open the file for reading, in a transaction that sees one state of it. Raises NodeFailedError."""
        log = log_of(self._file)
        mode = "mode=ro"
        if _keeps_log(self._file) and not (os.path.exists(log) and os.path.getsize(log)):
            # SQLite would make files beside it, only to read it. A writer who comes meanwhile changes the content that
            # the source depends on, which is looked at again afterwards.
            mode = "mode=ro&immutable=1"
        connection = sqlite3.connect(
            f"file:{quote(self._file)}?{mode}", uri=True, isolation_level=None, check_same_thread=False
        )
        try:
            connection.execute("PRAGMA query_only = ON")
            connection.execute("BEGIN")
            connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        except sqlite3.Error as error:
            connection.close()
            raise self._failure(error) from error
        return connection

    def _table_name(self) -> str:
        tables = [
            str(name)
            for (name,) in self._run(
                "SELECT name FROM sqlite_schema WHERE type IN ('table', 'view') AND substr(name, 1, 7) <> 'sqlite_'"
            )
        ]
        wanted = self._request.params.get("table")
        if wanted is None and len(tables) == 1:
            return tables[0]
        listed = ", ".join(tables) or "none"
        if wanted is None:
            raise NodeFailedError(
                f"which table is meant? The file has: {listed}", place=self._place, hint="name it with params.table"
            )
        found = next((name for name in tables if name.lower() == str(wanted).lower()), None)
        if found is None:
            message = f"there is no table '{wanted}'; the file has: {listed}"
            raise NodeFailedError(message, place=self._place, hint=did_you_mean(str(wanted), tables) if tables else "")
        return found

    def _execute(self, sql: str) -> sqlite3.Cursor:
        try:
            return self._connection.execute(sql)
        except sqlite3.Error as error:
            raise self._failure(error) from error

    def _run(self, sql: str) -> Iterator[Any]:
        cursor = self._execute(sql)
        try:
            while rows := cursor.fetchmany(_BATCH_ROWS):
                yield from rows
        except sqlite3.Error as error:
            raise self._failure(error) from error

    def _failure(self, error: sqlite3.Error) -> NodeFailedError:
        said = " ".join(str(error).split())
        if "not a database" in said:
            return NodeFailedError("the file is not a SQLite database, or encrypted", place=self._place)
        if "malformed" in said:
            return NodeFailedError("the database is damaged", place=self._place, hint="write the file again")
        if "UTF-8" in said:
            said = f"a text is not UTF-8: {said.removeprefix('Could not decode to UTF-8 ')}"
            return NodeFailedError(said, place=self._place, hint="correct it, or leave the column out of params.query")
        if "not authorized" in said or "prohibited" in said:
            return NodeFailedError(f"params.query may only read the file's tables: {said}", place=self._place)
        if "locked" in said:
            return NodeFailedError("the database is locked by a writer", place=self._place, hint="run again")
        what = "params.query fails" if self._request.params.get("query") is not None else "the file cannot be read"
        return NodeFailedError(f"{what}: {said}", place=self._place)


def reading_params(table: str, params: Mapping[str, Any]) -> dict[str, Any]:
    """The params with the name of the table in ``table``, wherever the fields have it."""
    if params.get("path") and not params.get("table") and table and table != params["path"]:
        return {**params, "table": table}
    return dict(params)


def _authorize(action: int, *names: object) -> int:
    return sqlite3.SQLITE_OK if action in _ALLOWED_ACTIONS else sqlite3.SQLITE_DENY


def _class_conditions(column: str) -> list[str]:
    """SQL that says whether a value is of each class, in the order of ``_CLASSES``."""
    exact = f"{column} BETWEEN -{_EXACT} AND {_EXACT}"
    return [
        f"typeof({column}) = 'integer' AND {exact}",
        f"typeof({column}) = 'integer' AND NOT {exact}",
        *(f"typeof({column}) = '{type_}'" for type_ in ("real", "text", "blob")),
    ]


def _keeps_log(file: str) -> bool:
    """Say whether a database is written through a log; that stands in its header."""
    with Path(file).open("rb") as stream:
        return stream.read(20)[18:20] == b"\x02\x02"


def _table_info(name: str) -> str:
    return f"pragma_table_xinfo({literal(name)})"
