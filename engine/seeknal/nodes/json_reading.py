"""How DuckDB reads JSON files: one object a row, its keys the columns.

Plain values are read as text and cast afterwards, so that one that does not fit can be told; lists and objects are
read as their type. A key that a row lacks is NULL there; a declared column that no row of any file has is an error.

- *layout*: ``array``: one array of objects; ``newline_delimited``: one object a line; ``unstructured``: objects one
  after the other, over as many lines as they like. ``jsonl`` files are newline-delimited. ``json`` files are what
  ``params.format`` says (``array`` or ``newline``), else what they begin with.
"""

from __future__ import annotations

import gzip
import json
import re
from typing import IO, TYPE_CHECKING, cast

from seeknal.dag.names import find_name, fold
from seeknal.dag.sql import literal, quoted
from seeknal.errors import NodeFailedError, Place, Problem, ProjectError
from seeknal.nodes.data_types import is_nested
from seeknal.nodes.json_text import ARRAY, NEWLINE_DELIMITED, UNSTRUCTURED, JsonFault, find_fault, line_of_row
from seeknal.nodes.read_request import Columns, FileFormat, RawColumn, RawTable, ReadRequest, lacking_column

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_LAYOUTS = {"array": ARRAY, "newline": NEWLINE_DELIMITED, "newline_delimited": NEWLINE_DELIMITED}

# Declared columns are looked for in these many rows before all rows are searched for those not found.
_FIRST_ROWS = 1000


def sniff(connection: DuckDBPyConnection, request: ReadRequest) -> Columns:
    """Find the columns of files that no schema describes, in all of their rows: a key may come late.

    Raises SeeknalError, and duckdb.Error where the rows cannot be read.
    """
    import duckdb

    layout = _layout(request)
    objects = RawTable(request.files, "read_json_objects", _options(request, layout), ())
    if not connection.execute(f"SELECT 1 FROM {objects.relation()} LIMIT 1").fetchall():
        shown = request.shown(request.files[0])
        raise NodeFailedError("the file holds no row", place=Place(shown), hint="declare its columns in schema")
    options = (
        *_options(request, layout),
        "records=true",
        "auto_detect=true",
        "sample_size=-1",
        f"maximum_sample_files={len(request.files)}",
        # Any other way to write a date is ambiguous, and stays text.
        "dateformat='%Y-%m-%d'",
    )
    rows = RawTable(request.files, "read_json", options, ())
    try:
        found = connection.execute(f"DESCRIBE SELECT * FROM {rows.relation()}").fetchall()
    except duckdb.BinderException:
        faults = ((file, find_fault(file, layout)) for file in request.files)
        if found_fault := next(((file, fault) for file, fault in faults if fault), None):
            raise _failure(request, *found_fault) from None
        place = Place(request.shown(request.files[0]))
        hint = 'each row is an object: {"column": value}'
        raise NodeFailedError("no row of the file has a value", place=place, hint=hint) from None
    # A column is called NULL where all its values are. Moments with a zone are brought to UTC, as those of CSV.
    other_types = {'"NULL"': "VARCHAR", "TIMESTAMP WITH TIME ZONE": "TIMESTAMP"}
    columns = tuple((str(name), other_types.get(type_, str(type_))) for name, type_, *_ in found)
    # DuckDB numbers keys that differ in case alone.
    names = [name for name, _ in columns]
    if any(re.sub(r"_\d+$", "", name) != name and find_name(re.sub(r"_\d+$", "", name), names) for name in names):
        _refuse_alike_keys(request, _keys(connection, objects, None))
    return columns


def tables(connection: DuckDBPyConnection, request: ReadRequest, columns: Columns) -> list[RawTable]:
    """Say how the files are read. Raises SeeknalError where no row has one of the declared columns."""
    layout = _layout(request)
    keys = _find_keys(connection, request, layout, [name for name, _ in columns])
    raw = tuple(
        RawColumn(keys[name], quoted(keys[name]), type_ if is_nested(type_) else "VARCHAR") for name, type_ in columns
    )
    types = ", ".join(f"{literal(column.name)}: {literal(column.data_type)}" for column in raw)
    options = (*_options(request, layout), "records=true", "auto_detect=false", f"columns={{{types}}}")
    return [RawTable(request.files, "read_json", options, raw)]


def ready(connection: DuckDBPyConnection, request: ReadRequest, table: RawTable) -> RawTable:
    """Any such table can be read as it is."""
    return table


def place_of_row(request: ReadRequest, file: str, row: int) -> Place:
    """Find where the ``row``-th row of a file stands, from 1."""
    return Place(request.shown(file), line_of_row(file, _layout(request), row))


def explain(request: ReadRequest, file: str, message: str) -> NodeFailedError:
    """Say what makes a file unreadable: by our own look at it, else from DuckDB's message about it."""
    shown = request.shown(file)
    layout = _layout(request)
    fault = find_fault(file, layout)
    if fault:
        return _failure(request, file, fault)
    # The number of the row that DuckDB names here is a guess, so it is left out.
    match = re.search(r"JSON transform error in file .*?, in (?:line|record/value) \d+: (.*)", message)
    if match:
        reason = match[1].partition("Try setting")[0].strip()
        hint = "correct the value, or the data_type of the column"
        return NodeFailedError(f"a value does not fit its type: {reason}", place=Place(shown), hint=hint)
    return NodeFailedError(f"the file cannot be read: {message}", place=Place(shown))


def _failure(request: ReadRequest, file: str, fault: JsonFault) -> NodeFailedError:
    place = Place(request.shown(file), fault.line, fault.column)
    return NodeFailedError(fault.message, place=place, hint=fault.hint)


def _layout(request: ReadRequest) -> str:
    """Find the layout that all files have. Raises SeeknalError."""
    said = request.params.get("format", "auto")
    if request.format == FileFormat.JSONL:
        said = "newline"
    if said != "auto" and said not in _LAYOUTS:
        message = f"param 'format' must be auto, array or newline, not {said!r}"
        raise ProjectError([Problem(message, field=("params", "format"))])
    found = {file: _layout_of(request, file, _LAYOUTS.get(said)) for file in request.files}
    kinds = set(found.values())
    if ARRAY in kinds and len(kinds) > 1:
        array = next(file for file in found if found[file] == ARRAY)
        other = next(file for file in found if found[file] != ARRAY)
        raise NodeFailedError(
            f"{request.shown(array)} holds an array, this file does not",
            place=Place(request.shown(other), 1),
            hint="give the files of one source the same layout",
        )
    return UNSTRUCTURED if UNSTRUCTURED in kinds else kinds.pop()


def _layout_of(request: ReadRequest, file: str, said: str | None) -> str:
    """Find the layout of one file from its first bytes; ``said`` is what it must be."""
    shown = request.shown(file)
    if file.endswith(".zst"):
        hint = "decompress it, or compress it with gzip"
        raise NodeFailedError("the file is compressed with zstd", place=Place(shown), hint=hint)
    try:
        with cast(IO[bytes], gzip.open(file) if file.endswith(".gz") else open(file, "rb")) as stream:
            line = stream.readline(1 << 20)
            has_mark = line.startswith(b"\xef\xbb\xbf")
            line = line.removeprefix(b"\xef\xbb\xbf").strip()
            while not line and (more := stream.readline(1 << 20)):
                line = more.strip()
    except (OSError, EOFError) as error:
        raise NodeFailedError(f"the file cannot be read: {error}", place=Place(shown)) from error
    is_array = line.startswith(b"[")
    if said == NEWLINE_DELIMITED:
        if is_array:
            hint = "set source: json, or params.format to array"
            raise NodeFailedError("the file holds an array, not one object a line", place=Place(shown, 1), hint=hint)
        # DuckDB knows the byte order mark in all layouts but this one.
        return UNSTRUCTURED if has_mark else NEWLINE_DELIMITED
    if not line:
        raise NodeFailedError("the file is empty: no JSON", place=Place(shown), hint="an empty table is []")
    if is_array:
        return ARRAY
    if said == ARRAY:
        hint = "set params.format to newline, or to auto"
        raise NodeFailedError("the file does not hold an array", place=Place(shown, 1), hint=hint)
    try:
        json.loads(line)
    except ValueError:
        return UNSTRUCTURED
    return UNSTRUCTURED if has_mark else NEWLINE_DELIMITED


def _options(request: ReadRequest, layout: str) -> tuple[str, ...]:
    compression = "auto_detect" if any(file.endswith(".gz") for file in request.files) else "none"
    return (f"format='{layout}'", f"compression='{compression}'", "ignore_errors=false", "hive_partitioning=false")


def _find_keys(connection: DuckDBPyConnection, request: ReadRequest, layout: str, names: list[str]) -> dict[str, str]:
    """Find the key that each column is read from. Raises ProjectError with every column that no row has."""
    if request.schema is None:
        return {name: name for name in names}
    objects = RawTable(request.files, "read_json_objects", _options(request, layout), ())
    keys = _keys(connection, objects, _FIRST_ROWS)
    if any(name not in keys for name in names) and keys:
        keys = _keys(connection, objects, None)
    problems = []
    for name in names:
        alike = [key for key in keys if fold(key) == fold(name)]
        if len(alike) > 1 and name not in alike:
            _refuse_alike_keys(request, alike)
        if keys and not alike:
            problems.append(lacking_column(request, name, request.files[0], keys, among=len(request.files)))
    if problems:
        raise ProjectError(problems)
    return {name: find_name(name, keys) or name for name in names}


def _keys(connection: DuckDBPyConnection, objects: RawTable, limit: int | None) -> list[str]:
    """List the keys of the first rows, or of all rows, in alphabetical order."""
    rows = f"SELECT json FROM {objects.relation()}" + (f" LIMIT {limit}" if limit else "")
    query = f"SELECT DISTINCT unnest(json_keys(json)) AS key FROM ({rows}) ORDER BY key"
    return [str(key) for (key,) in connection.execute(query).fetchall()]


def _refuse_alike_keys(request: ReadRequest, keys: list[str]) -> None:
    """Refuse keys that differ in case alone, which SQL cannot tell apart."""
    for key in keys:
        alike = [other for other in keys if fold(other) == fold(key)]
        if len(alike) > 1:
            shown = request.shown(request.files[0])
            names = " and ".join(map(repr, alike))
            raise NodeFailedError(
                f"keys differ in upper and lower case alone: {names}",
                place=Place(shown),
                hint="declare in schema the one to read, as it is written",
            )
