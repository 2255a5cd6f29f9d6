"""The reading of a source's files through DuckDB: which columns they give, the SQL that reads them, why it failed.

A declared schema is the contract: exactly its columns, in its order, cast to its types. Further columns of the files
are left out; a file that lacks one is an error, and so is a value that does not fit (:mod:`seeknal.nodes.data_types`
says when). Without a schema the first file's columns are the contract, their types taken from the files.

Rows come in the order of the files, and within a file as they stand, whatever the number of threads. That rests on
the connection's ``preserve_insertion_order``, which DuckDB has switched on unless told otherwise. Nothing but the given
files is read, and no setting of the connection is changed.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Protocol

import msgspec

from seeknal.dag.names import did_you_mean, fold
from seeknal.dag.sql import quoted
from seeknal.errors import NodeFailedError, Place, Problem, ProjectError, SeeknalError
from seeknal.nodes.data_types import DOCUMENTED_TYPES, check_type, duckdb_type
from seeknal.nodes.read_request import ColumnDeclaration, Columns, FileFormat, RawTable, ReadRequest, check_file

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

__all__ = [
    "ColumnDeclaration",
    "Columns",
    "FileFormat",
    "ReadRequest",
    "check_type",
    "duckdb_type",
    "explain_failure",
    "output_columns",
    "read_query",
]

_LONGEST_VALUE_SHOWN = 80

# What our own look at a file's text raises where it is damaged; DuckDB says so, too.
_UNREADABLE = (OSError, EOFError, UnicodeError, zlib.error)


class _FormatReading(Protocol):
    """What the module of a format offers. ``sniff`` and ``tables`` raise SeeknalError and duckdb.Error."""

    def sniff(self, connection: DuckDBPyConnection, request: ReadRequest) -> Columns: ...

    def tables(self, connection: DuckDBPyConnection, request: ReadRequest, columns: Columns) -> list[RawTable]: ...

    def ready(self, connection: DuckDBPyConnection, request: ReadRequest, table: RawTable) -> RawTable: ...

    def place_of_row(self, request: ReadRequest, file: str, row: int) -> Place: ...

    def explain(self, request: ReadRequest, file: str, message: str) -> NodeFailedError: ...


def output_columns(connection: DuckDBPyConnection, request: ReadRequest) -> Columns:
    """Say which columns the files give: the name and the DuckDB type of each, in order.

    With a schema this reads the files' headers only (of JSON, the first rows, and all rows where a column is not
    among them). Without one, CSV is read for its first 20,480 rows and JSON in full; put the answer into
    ``request.columns`` to have :func:`read_query` not do it again. Raises ProjectError where schema, parameters and
    files do not go together, NodeFailedError where a file cannot be read.
    """
    return _columns_and_tables(connection, request)[0]


def read_query(connection: DuckDBPyConnection, request: ReadRequest) -> str:
    """Give the SELECT that yields the rows of the files with exactly the columns of :func:`output_columns`.

    Running it raises duckdb.Error where a row cannot be read or a value does not fit, for :func:`explain_failure`.
    Raises what :func:`output_columns` raises, and ValueError where the connection gives up the order of rows.
    """
    import duckdb

    kept = connection.execute("SELECT current_setting('preserve_insertion_order')").fetchone()
    if not kept or not kept[0]:
        raise ValueError("the connection's preserve_insertion_order is off: rows would come in any order")
    columns, tables = _columns_and_tables(connection, request)
    try:
        tables = [_reading(request).ready(connection, request, table) for table in tables]
    except (duckdb.Error, *_UNREADABLE) as error:
        raise explain_failure(error, request) from error
    names = ", ".join(quoted(name) for name, _ in columns)
    selects = [
        ", ".join(f"{table.column(name).fitted(type_)} AS {quoted(name)}" for name, type_ in columns)
        for table in tables
    ]
    if len(tables) == 1:
        return f"SELECT {selects[0]} FROM {tables[0].relation()}"
    # A UNION ALL alone does not keep the order: COPY writes the last rows of a branch behind those of the next.
    run, place = (_name_beside(columns, name) for name in ("run", "place"))
    union = " UNION ALL ".join(
        f"SELECT {number} AS {run}, row_number() OVER () AS {place}, {select} FROM {table.relation()}"
        for number, (table, select) in enumerate(zip(tables, selects, strict=True))
    )
    return f"SELECT {names} FROM ({union}) ORDER BY {run}, {place}"


def explain_failure(error: Exception, request: ReadRequest) -> NodeFailedError:
    """Say in one line what went wrong when :func:`read_query` was run: file, line, column, value, why, the way out.

    Reads the files again on a connection of its own with one thread, up to the first thing that is wrong, so that
    the same files give the same message whatever the number of threads.
    """
    import duckdb

    if isinstance(error, NodeFailedError):
        return error
    if isinstance(error, SeeknalError):
        return NodeFailedError(error.message, place=error.place, hint=error.hint)
    message = _first_lines(error)
    if isinstance(error, duckdb.OutOfMemoryException):
        return NodeFailedError(f"reading the files ran out of memory: {message}", hint="raise the memory limit")
    if not isinstance(error, duckdb.Error) or isinstance(error, duckdb.InterruptException):
        return NodeFailedError(f"reading the files failed: {message}")
    try:
        with duckdb.connect(config={"threads": 1}) as connection:
            return _first_fault(connection, request) or _explain(request, error)
    except SeeknalError as found:
        return explain_failure(found, request)
    except duckdb.Error as found:
        return _explain(request, found)
    except _UNREADABLE:
        return _explain(request, error)


def _columns_and_tables(connection: DuckDBPyConnection, request: ReadRequest) -> tuple[Columns, list[RawTable]]:
    import duckdb

    reading = _reading(request)
    for file in request.files:
        check_file(request, file)
    try:
        columns = request.columns or (
            _declared_columns(connection, request) if request.schema else reading.sniff(connection, request)
        )
        return columns, reading.tables(connection, request, columns)
    except duckdb.Error as error:
        raise explain_failure(error, request) from error


def _reading(request: ReadRequest) -> _FormatReading:
    from seeknal.nodes import csv_reading, json_reading, parquet_reading

    readings: dict[str, _FormatReading] = {
        FileFormat.CSV: csv_reading,
        FileFormat.PARQUET: parquet_reading,
        FileFormat.JSON: json_reading,
        FileFormat.JSONL: json_reading,
    }
    if request.format not in readings:
        hint = did_you_mean(request.format, [kind.value for kind in FileFormat])
        raise ProjectError([Problem(f"'{request.format}' is not a format of files", hint=hint)])
    if not request.files:
        raise NodeFailedError("there is no file to read")
    return readings[request.format]


def _declared_columns(connection: DuckDBPyConnection, request: ReadRequest) -> Columns:
    columns: dict[str, tuple[str, str]] = {}
    problems: list[Problem] = []
    for entry in request.schema or ():
        type_ = check_type(connection, entry.data_type)
        if type_ is None:
            hint = did_you_mean(entry.data_type, DOCUMENTED_TYPES)
            problems.append(Problem(f"column '{entry.name}' has an unknown data_type '{entry.data_type}'", hint=hint))
        if fold(entry.name) in columns:
            problems.append(Problem(f"column '{entry.name}' is declared twice in schema"))
        columns[fold(entry.name)] = (entry.name, type_ or "")
    if problems:
        raise ProjectError(problems)
    return tuple(columns.values())


def _first_fault(connection: DuckDBPyConnection, request: ReadRequest) -> NodeFailedError | None:
    """Read file after file up to the first row or value that fails; None where all can be read."""
    import duckdb

    reading = _reading(request)
    for file in request.files:
        check_file(request, file)
    columns = request.columns or (
        _declared_columns(connection, request) if request.schema else reading.sniff(connection, request)
    )
    for table in reading.tables(connection, request, columns):
        for file in table.files:
            try:
                single = reading.ready(connection, request, msgspec.structs.replace(table, files=(file,)))
                fault = _first_misfit(connection, single, columns)
            except duckdb.Error as error:
                return reading.explain(request, file, _message(error, request, file))
            if fault:
                row, (name, type_), value = fault
                return _misfit_failure(request, name, type_, value, row, reading.place_of_row(request, file, row))
    return None


def _first_misfit(
    connection: DuckDBPyConnection, table: RawTable, columns: Columns
) -> tuple[int, tuple[str, str], str] | None:
    """Find the first row of a file with a value that does not fit: its number from 1, the column and the value."""
    raw = [table.column(name) for name, _ in columns]
    values = ", ".join(f"{column.expression} AS {quoted(f'v{index}')}" for index, column in enumerate(raw))
    renamed = [msgspec.structs.replace(column, expression=f"v{index}") for index, column in enumerate(raw)]
    conditions = [column.misfit(type_) for column, (_, type_) in zip(renamed, columns, strict=True)]
    texts = ", ".join(f"CAST({column.expression} AS VARCHAR)" for column in renamed)
    row = connection.execute(
        f"SELECT place, [{', '.join(conditions)}], [{texts}]"
        f" FROM (SELECT row_number() OVER () AS place, {values} FROM {table.relation()})"
        f" WHERE {' OR '.join(conditions)} LIMIT 1"
    ).fetchone()
    if row is None:
        return None
    index = row[1].index(True)
    return row[0], columns[index], str(row[2][index])


def _misfit_failure(request: ReadRequest, name: str, type_: str, value: str, row: int, place: Place) -> NodeFailedError:
    shown = repr(value if len(value) <= _LONGEST_VALUE_SHOWN else value[:_LONGEST_VALUE_SHOWN] + "…")
    declared = request.declared_type(name)
    if declared is None:
        message = f"column '{name}' is {type_} after its first rows, but row {row} has {shown}"
        return NodeFailedError(message, place=place, hint="correct the value, or declare the column's type in schema")
    message = f"column '{name}' is declared {declared}, but row {row} has {shown}"
    return NodeFailedError(message, place=place, hint="correct the value, or the data_type of the column")


def _explain(request: ReadRequest, error: Exception) -> NodeFailedError:
    """Explain an error by its message alone, which may name the file."""
    named = [file for file in request.files if file in str(error)]
    if not named:
        return NodeFailedError(f"reading the files failed: {_first_lines(error)}")
    file = max(named, key=len)
    message = _message(error, request, file)
    try:
        return _reading(request).explain(request, file, message)
    except _UNREADABLE:
        return NodeFailedError(f"the file is damaged: {message}", place=Place(request.shown(file)))


def _message(error: Exception, request: ReadRequest, file: str) -> str:
    return _first_lines(error).replace(file, request.shown(file))


def _first_lines(error: Exception) -> str:
    """Give what an error says in one line: without its kind, DuckDB's advice, its options and the place in our SQL."""
    text = str(error).strip()
    for end in ("\n\nLINE ", "\nLINE ", "Possible fixes:", "Possible Solution", "\n\n  file ="):
        text = text.partition(end)[0]
    kind, _, rest = text.partition(" Error: ")
    return " ".join((rest if rest and len(kind) < 30 else text).split())


def _name_beside(columns: Columns, name: str) -> str:
    """Find a name that no column has."""
    taken = {fold(column) for column, _ in columns}
    while name in taken:
        name += "_"
    return quoted(name)
