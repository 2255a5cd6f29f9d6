"""How DuckDB reads CSV files: nothing about them is guessed but the types of columns that nobody declared.

Every column is read as text and cast afterwards, which costs the same and lets a value that does not fit be told
from one that does. The reader knows the columns as ``c0``, ``c1``, …, whatever the header says.

- *header*: the first line that is not blank behind the skipped ones. Names lose the white space around them. A
  column without a name is called ``column3`` after its position from 0; unnamed columns at the end count as none.
"""

from __future__ import annotations

import os
import re
from itertools import groupby
from typing import TYPE_CHECKING

import msgspec

from seeknal.dag.names import find_name, fold
from seeknal.dag.sql import literal
from seeknal.errors import NodeFailedError, Place, Problem, ProjectError
from seeknal.nodes.csv_text import (
    LONGEST_LINE_BYTES,
    NOT_UTF8_HINT,
    OTHER_ENDING_HINT,
    UNCLOSED,
    UNCLOSED_HINT,
    Dialect,
    Head,
    dialect_of,
    line_of_open_end,
    line_of_other_ending,
    line_of_record,
    line_of_row,
    read_head,
)
from seeknal.nodes.read_request import Columns, RawColumn, RawTable, ReadRequest, lacking_column

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

#: How many rows, from the first on, the types of columns are guessed from where no schema declares them.
SAMPLE_ROWS = 20_480

# What one thread of DuckDB reads in one go: a quarter of its buffer.
_SHARE_BYTES = 8_000_000

_OTHER_DELIMITERS = (";", "\t", "|")


def sniff(connection: DuckDBPyConnection, request: ReadRequest) -> Columns:
    """Find the columns of files that no schema describes: names from the header, types from the first rows.

    Raises SeeknalError, and duckdb.Error where the rows cannot be read.
    """
    dialect = dialect_of(request)
    heads = _heads(request, dialect)
    names = {file: _names(request, file, head, dialect) for file, head in heads.items()}
    first = next(iter(names.values()))
    if not first:
        place = Place(request.shown(request.files[0]))
        raise NodeFailedError("the file is empty", place=place, hint="declare its columns in schema")
    for file, own in names.items():
        _refuse_other_delimiter(request, file, dialect, heads[file])
        _refuse_duplicates(request, file, own, own, heads[file])
        _refuse_further_columns(request, file, own, first, heads[file])
    raw = tables(connection, request, tuple((name, "VARCHAR") for name in first))
    classes = ", ".join(f"list(DISTINCT {_class_of(f'v{index}', dialect)})" for index in range(len(first)))
    sample = " UNION ALL ".join(
        f"(SELECT {', '.join(f'{table.column(name).expression} AS v{index}' for index, name in enumerate(first))}"
        f" FROM {uncut.relation()} LIMIT {SAMPLE_ROWS})"
        for table in raw
        for uncut in [msgspec.structs.replace(table, options=(*table.options, "parallel=false"))]
    )
    found = connection.execute(f"SELECT {classes} FROM ({sample})").fetchone() or ()
    return tuple((name, _type_of(set(seen or ()))) for name, seen in zip(first, found, strict=True))


def tables(connection: DuckDBPyConnection, request: ReadRequest, columns: Columns) -> list[RawTable]:
    """Group the files into runs that are read alike. Raises SeeknalError where a file lacks one of the columns."""
    dialect = dialect_of(request)
    wanted = tuple(name for name, _ in columns)
    problems: list[Problem] = []
    shapes: list[tuple[str, tuple[str, ...], Head, bool]] = []
    for file, head in _heads(request, dialect).items():
        names = _names(request, file, head, dialect, wanted)
        lacking = [name for name in wanted if find_name(name, names) is None]
        if lacking:
            _refuse_other_delimiter(request, file, dialect, head)
        _refuse_duplicates(request, file, names, wanted, head)
        problems += [lacking_column(request, name, file, names, head.line) for name in lacking]
        shape = msgspec.structs.replace(head, fields=(), line=0)
        shapes.append((file, names, shape, file.endswith(".gz")))
    if problems:
        raise ProjectError(problems)
    grouped = [(shape, [shape[0] for shape in group]) for shape, group in groupby(shapes, lambda shape: shape[1:])]
    return [
        RawTable(
            tuple(files),
            "read_csv",
            _options(dialect, len(names), head, is_compressed=is_compressed),
            tuple(RawColumn(name, f"c{i}", "VARCHAR", dialect.null_texts) for i, name in enumerate(names)),
        )
        for (names, head, is_compressed), files in grouped
    ]


def ready(connection: DuckDBPyConnection, request: ReadRequest, table: RawTable) -> RawTable:
    """Choose how to cut large files into shares, so that no row is lost. Raises NodeFailedError.

    DuckDB cuts a file that is larger than a thread's share, whatever the number of threads, and has to guess
    where a record begins in the middle of a file. Where quoted values hold line breaks it may guess wrong; it then
    fails, as the shares do not meet. Told not to cut, it guesses nothing, but passes over a last value whose quote
    never ends, and all rows in it. So: cut where counting the rows so works, which costs a fifth of reading them;
    else do not cut, having looked for the quote that never ends.
    """
    import duckdb

    if all(not file.endswith(".gz") and os.path.getsize(file) < _SHARE_BYTES for file in table.files):
        return table
    try:
        connection.execute(f"SELECT count(*) FROM {table.relation()}").fetchall()
        return table
    except (duckdb.InvalidInputException, duckdb.NotSupportedError):
        pass
    dialect = dialect_of(request)
    for file in table.files:
        if line := line_of_open_end(file, dialect):
            raise NodeFailedError(UNCLOSED, place=Place(request.shown(file), line), hint=UNCLOSED_HINT)
    return msgspec.structs.replace(table, options=(*table.options, "parallel=false"))


def place_of_row(request: ReadRequest, file: str, row: int) -> Place:
    """Find where the ``row``-th row of a file stands, from 1."""
    dialect = dialect_of(request)
    return Place(request.shown(file), line_of_row(file, dialect, read_head(request, file, dialect), row))


def explain(request: ReadRequest, file: str, message: str) -> NodeFailedError:
    """Say what makes a file unreadable, from DuckDB's message about it."""
    dialect = dialect_of(request)
    shown = request.shown(file)
    record = re.search(r"CSV Error on Line: (\d+)", message)
    place = Place(shown, line_of_record(file, dialect, int(record[1])) if record else 0)
    other = line_of_other_ending(file, dialect) if "invalid state" in message or "unterminated" in message else None
    if other and (not record or other[0] == place.line):
        return NodeFailedError(other[1], place=Place(shown, other[0]), hint=OTHER_ENDING_HINT)
    if match := re.search(r"Expected Number of Columns: (\d+) Found: (\d+)", message):
        line_of_names = "header" if dialect.header else "first row"
        text = f"the row has {_counted(int(match[2]))}, but the {line_of_names} has {int(match[1])}"
        hint = "complete the row" if int(match[2]) < int(match[1]) else "quote the value that holds the delimiter"
        return NodeFailedError(text, place=place, hint=hint)
    if "unterminated quote" in message:
        return NodeFailedError(UNCLOSED, place=place, hint=UNCLOSED_HINT)
    if "Invalid unicode" in message or "not utf-8" in message:
        return NodeFailedError("the line is not UTF-8", place=place, hint=NOT_UTF8_HINT)
    if "line size" in message.lower():
        text = f"a line is longer than {LONGEST_LINE_BYTES:,} bytes"
        return NodeFailedError(text, place=place, hint="is a quote left open?")
    if "GZIP" in message:
        return NodeFailedError(f"the file is damaged or cut off: {message}", place=place)
    return NodeFailedError(f"the file cannot be read: {message}", place=place)


def _heads(request: ReadRequest, dialect: Dialect) -> dict[str, Head]:
    heads = {file: read_head(request, file, dialect) for file in request.files}
    for file, head in heads.items():
        if dialect.header and not any(field.strip() for field in head.fields):
            message = "the file is empty: no header line"
            hint = "write the column names into it, or set params.header to false"
            if dialect.skip:
                message, hint = f"no header line behind the {dialect.skip} skipped lines", "lower params.skip"
            raise NodeFailedError(message, place=Place(request.shown(file), head.line), hint=hint)
    return heads


def _names(
    request: ReadRequest, file: str, head: Head, dialect: Dialect, wanted: tuple[str, ...] = ()
) -> tuple[str, ...]:
    """Name the columns of a file; without a header the schema names them in order where the counts match."""
    if dialect.header:
        fields = [field.strip() for field in head.fields]
        while fields and not fields[-1]:
            fields.pop()
        return tuple(field or f"column{index}" for index, field in enumerate(fields))
    names = tuple(f"column{index}" for index in range(len(head.fields)))
    if len(wanted) == len(names) or not names:
        return wanted
    if request.schema is not None and any(name not in names for name in wanted):
        raise NodeFailedError(
            f"the file has no header and {_counted(len(names), 'column')}, but schema declares {len(wanted)}",
            place=Place(request.shown(file), head.line),
            hint=f"declare all columns in order, or name those to read: {', '.join(names[:3])}, …",
        )
    return names


def _refuse_duplicates(
    request: ReadRequest, file: str, names: tuple[str, ...], wanted: tuple[str, ...], head: Head
) -> None:
    """Refuse a header in which a column that is read stands twice."""
    alike: dict[str, list[int]] = {}
    for index, name in enumerate(names, 1):
        alike.setdefault(fold(name), []).append(index)
    for name in wanted:
        positions = alike.get(fold(name), [])
        exact = [position for position in positions if names[position - 1] == name]
        if len(exact) > 1 or (len(positions) > 1 and (not exact or request.schema is None)):
            places = " and ".join(map(str, positions))
            raise NodeFailedError(
                f"the header has '{name}' more than once: columns {places}",
                place=Place(request.shown(file), head.line),
                hint="rename one of them in the file",
            )


def _refuse_further_columns(
    request: ReadRequest, file: str, names: tuple[str, ...], first: tuple[str, ...], head: Head
) -> None:
    """Refuse a column that the first file has not: it would be lost."""
    further = [name for name in names if find_name(name, first) is None]
    if further:
        raise NodeFailedError(
            f"the file has column '{further[0]}', which {request.shown(request.files[0])} has not",
            place=Place(request.shown(file), head.line),
            hint="declare in schema which columns to read",
        )


def _refuse_other_delimiter(request: ReadRequest, file: str, dialect: Dialect, head: Head) -> None:
    """Refuse a single column whose name looks like several, unless the node says that the delimiter is right."""
    if dialect.delimiter_is_given or len(head.fields) != 1:
        return
    for delimiter in _OTHER_DELIMITERS:
        if delimiter in head.fields[0]:
            raise NodeFailedError(
                f"the file has a single column {head.fields[0]!r}; is it delimited by {delimiter!r}?",
                place=Place(request.shown(file), head.line),
                hint=f"set params.delimiter to {delimiter!r}, or to ',' if this is one column",
            )


def _options(dialect: Dialect, width: int, head: Head, *, is_compressed: bool) -> tuple[str, ...]:
    columns = ", ".join(f"'c{index}': 'VARCHAR'" for index in range(width))
    # Strict mode is what it is by default; to name it makes DuckDB forget new_line.
    line_ending = head.line_ending.replace("\r", "\\r").replace("\n", "\\n")
    return (
        "auto_detect=false",
        f"columns={{{columns}}}",
        f"delim={literal(dialect.delimiter)}",
        f"quote={literal(dialect.quote)}",
        f"escape={literal(dialect.escape)}",
        "comment=''",
        f"header={str(dialect.header).lower()}",
        f"skip={head.skipped}",
        f"nullstr=[{', '.join(map(literal, dialect.null_texts))}]",
        "allow_quoted_nulls=false",
        f"encoding={literal(dialect.encoding)}",
        f"compression='{'gzip' if is_compressed else 'none'}'",
        "null_padding=false",
        "ignore_errors=false",
        "hive_partitioning=false",
        *((f"new_line='{line_ending}'",) if line_ending else ()),
    )


def _class_of(value: str, dialect: Dialect) -> str:
    """Give the SQL that says what a text looks like; NULL for a NULL.

    A number with leading zeros, or too long for 64 bits, is a text: it names something, and a number would lose it.
    """

    def matches(pattern: str) -> str:
        return f"regexp_full_match({value}, '{pattern}')"

    day, clock, zone = r"\d{4}-\d\d-\d\d", r"\d\d:\d\d(:\d\d(\.\d{1,6})?)?", r"(Z|[+-]\d\d(:?\d\d)?)?"
    integer = r"[+-]?(0|[1-9]\d*)"
    number = rf"({integer}|[+-]?)(\.\d*)?([eE][+-]?\d+)?"
    nulls = ", ".join(map(literal, dialect.null_texts))
    return f"""CASE
        WHEN {value} IS NULL OR {value} IN ({nulls}) THEN NULL
        WHEN {matches(integer)} THEN CASE WHEN TRY_CAST({value} AS BIGINT) IS NULL THEN 'text' ELSE 'integer' END
        WHEN {matches(number)} AND isfinite(TRY_CAST({value} AS DOUBLE)) THEN 'number'
        WHEN lower({value}) IN ('true', 'false') THEN 'boolean'
        WHEN {matches(day)} AND TRY_CAST({value} AS DATE) IS NOT NULL THEN 'day'
        WHEN {matches(f"{day}[ T]{clock}{zone}")} AND TRY_CAST({value} AS TIMESTAMP) IS NOT NULL THEN 'moment'
        WHEN {matches(clock)} AND TRY_CAST({value} AS TIME) IS NOT NULL THEN 'time'
        ELSE 'text' END"""


def _type_of(classes: set[str]) -> str:
    """Choose the narrowest type that all values of a column fit; a column without values is text."""
    choices = {
        "BOOLEAN": {"boolean"},
        "BIGINT": {"integer"},
        "DOUBLE": {"integer", "number"},
        "DATE": {"day"},
        "TIMESTAMP": {"day", "moment"},
        "TIME": {"time"},
    }
    classes = classes - {None}
    return next((name for name, allowed in choices.items() if classes and classes <= allowed), "VARCHAR")


def _counted(count: int, noun: str = "field") -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
