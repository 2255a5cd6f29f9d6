"""How DuckDB reads Parquet files: their own column names and types, brought together by name.

Files of one source may order their columns differently. Where their types differ, a column has DuckDB's common type
of them before it is cast.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from seeknal.dag.names import find_name
from seeknal.dag.sql import quoted
from seeknal.errors import NodeFailedError, Place, Problem, ProjectError
from seeknal.nodes.read_request import Columns, RawColumn, RawTable, ReadRequest, lacking_column

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_OPTIONS = ("union_by_name=true", "hive_partitioning=false")


def sniff(connection: DuckDBPyConnection, request: ReadRequest) -> Columns:
    """Give the columns of files that no schema describes. Raises SeeknalError, and duckdb.Error for what is no Parquet.

    All files must have the columns of the first, in any order.
    """
    columns = _described(connection, request.files)
    names = [name for name, _ in _described(connection, request.files[:1])]
    for name, _ in columns:
        if name not in names:
            own = next(file for file in request.files if name in dict(_described(connection, (file,))))
            raise NodeFailedError(
                f"the file has column '{name}', which {request.shown(request.files[0])} has not",
                place=Place(request.shown(own)),
                hint="declare in schema which columns to read",
            )
    return columns


def tables(connection: DuckDBPyConnection, request: ReadRequest, columns: Columns) -> list[RawTable]:
    """Say how the files are read. Raises SeeknalError where a file lacks one of the columns."""
    problems: list[Problem] = []
    for file in request.files:
        names = [name for name, _ in _described(connection, (file,))]
        lacking = [name for name, _ in columns if find_name(name, names) is None]
        problems += [lacking_column(request, name, file, names) for name in lacking]
    if problems:
        raise ProjectError(problems)
    raw = tuple(RawColumn(name, quoted(name), type_) for name, type_ in _described(connection, request.files))
    return [RawTable(request.files, "read_parquet", _OPTIONS, raw)]


def ready(connection: DuckDBPyConnection, request: ReadRequest, table: RawTable) -> RawTable:
    """Any such table can be read as it is."""
    return table


def place_of_row(request: ReadRequest, file: str, row: int) -> Place:
    """A Parquet file has no lines."""
    return Place(request.shown(file))


def explain(request: ReadRequest, file: str, message: str) -> NodeFailedError:
    """Say what makes a file unreadable, from DuckDB's message about it."""
    place = Place(request.shown(file))
    if "magic bytes" in message or "too small to be a Parquet" in message:
        with open(file, "rb") as stream:
            begins_right = stream.read(4) == b"PAR1"
        what = "is cut off: the end of the file is missing" if begins_right else "is not a Parquet file"
        return NodeFailedError(f"the file {what}", place=place, hint="write the file again")
    return NodeFailedError(f"the file is damaged: {message}", place=place, hint="write the file again")


def _described(connection: DuckDBPyConnection, files: tuple[str, ...]) -> Columns:
    relation = RawTable(files, "read_parquet", _OPTIONS, ()).relation()
    found = connection.execute(f"DESCRIBE SELECT * FROM {relation}").fetchall()
    return tuple((str(name), str(type_)) for name, type_, *_ in found)
