"""The kind ``source``: data from outside, read as it is.

A declared ``schema`` is the contract: exactly those columns, in that order, cast to their types. Which rows a file
source gives depends on the content of its files, so that is its identity; a file that was touched but not changed
rebuilds nothing.

- *foreign*: a format that Python reads, and not DuckDB (:mod:`seeknal.nodes.foreign_table`).
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec

from seeknal.dag.names import did_you_mean, nearest, nearest_files
from seeknal.dag.project import Project
from seeknal.errors import NodeFailedError
from seeknal.nodes.check_fields import ParsedCheck, checks_of_freshness
from seeknal.nodes.excel_reading import EXCEL_PARAMS, ExcelTable, is_available
from seeknal.nodes.file_reading import (
    ColumnDeclaration,
    ReadRequest,
    duckdb_type,
    explain_failure,
    output_columns,
    read_query,
)
from seeknal.nodes.kind import FieldProblem, Kind, Surroundings, Task
from seeknal.nodes.workbench import Workbench
from seeknal.store.file_patterns import matching_files
from seeknal.store.objects import Artifact

if TYPE_CHECKING:
    from seeknal.nodes.foreign_table import ForeignTable

#: The formats, each with the params that it reads.
FORMATS = {
    "csv": frozenset({"delimiter", "delim", "header", "quote", "escape", "skip", "encoding", "nullstr"}),
    "parquet": frozenset[str](),
    "json": frozenset({"format"}),
    "jsonl": frozenset[str](),
    "excel": EXCEL_PARAMS,
    "sqlite": frozenset({"path", "table", "schema", "query"}),
}
FOREIGN_FORMATS = frozenset({"excel", "sqlite"})

FORMATS_TO_COME = frozenset({"postgresql", "postgres", "iceberg"})

# What other tools read and this one does not.
_UNSUPPORTED = frozenset({"hive", "starrocks", "bigquery", "snowflake", "redshift"})


class FreshnessFields(msgspec.Struct, frozen=True, kw_only=True):
    """How old a source's data may be, judged by its newest row in every run.

    - ``time_column``: the column with the time of each row
    - ``warn_after``: the age from which on the run warns: ``30s``, ``15m``, ``24h``, ``7d`` or seconds
    - ``error_after``: the age from which on the source fails
    """

    time_column: str | None = None
    warn_after: str | int | float | None = None
    error_after: str | int | float | None = None

    def checks(self) -> Iterable[ParsedCheck | FieldProblem]:
        """The checks that this means."""
        ages = {"warn_after": self.warn_after, "error_after": self.error_after}
        return checks_of_freshness("freshness", self.time_column, ages)


class SourceSpec(msgspec.Struct, frozen=True, kw_only=True):
    """The fields of a source.

    - ``source``: the format: ``csv``, ``parquet``, ``json``, ``jsonl``, ``excel`` or ``sqlite``
    - ``table``: a path from the project's folder, or a pattern such as ``data/*.csv``; rows come in the order of the
      files' names. Of ``sqlite``, the file may stand in ``params.path`` instead
    - ``schema``: the contract: exactly these columns, in this order, cast to these types
    - ``params``: how to read the files, by format
    - ``freshness``: how old the data may be
    - ``inputs``: must be empty
    """

    source: Annotated[str, msgspec.Meta(extra_json_schema={"enum": [*FORMATS, *sorted(FORMATS_TO_COME)]})]
    table: str = ""
    params: dict[str, Any] = {}
    schema: list[ColumnDeclaration] | None = None
    freshness: FreshnessFields = FreshnessFields()
    inputs: list[Any] = []


class SourceKind(Kind):
    """Rows of one or several files."""

    name = "source"
    spec = SourceSpec
    reads_outside = True

    def check(self, spec: SourceSpec, project: Project) -> Iterable[FieldProblem]:
        yield from _format_problems(spec)
        if spec.inputs:
            yield FieldProblem("a source has no inputs", ("inputs",), "read other nodes in a transform")
        seen: set[str] = set()
        for index, column in enumerate(spec.schema or ()):
            if column.name.lower() in seen:
                yield FieldProblem(f"column '{column.name}' is declared twice", ("schema", index))
            seen.add(column.name.lower())
            if duckdb_type(column.data_type) is None:
                yield FieldProblem(
                    f"unknown type '{column.data_type}' of column '{column.name}'",
                    ("schema", index),
                    did_you_mean(column.data_type, ("integer", "float", "string", "boolean", "date", "timestamp")),
                )

    def schema(
        self, spec: SourceSpec, inputs: Sequence[dict[str, str] | None], around: Surroundings
    ) -> dict[str, str] | None:
        request = read_request(spec, around.project.root)
        if spec.source not in FOREIGN_FORMATS:
            return dict(around.columns_in(request.files, request, lambda: output_columns(around.connection, request)))
        with _foreign(request) as table:
            from seeknal.nodes.foreign_table import foreign_columns

            return dict(foreign_columns(around.connection, request, table))

    def audits(self, spec: SourceSpec) -> Iterable[ParsedCheck | FieldProblem]:
        return spec.freshness.checks()

    def declared(self, spec: SourceSpec) -> dict[str, str] | None:
        if spec.schema is None:
            return None
        return {column.name: duckdb_type(column.data_type) or "VARCHAR" for column in spec.schema}

    def identity(self, spec: SourceSpec, around: Surroundings) -> list[Any]:
        request = read_request(spec, around.project.root)
        if request.files != (str(around.project.root / _path_of(spec)),):
            around.digests.note_listing(_pattern(spec, around.project.root), list(request.files))
        columns = (
            None if spec.schema is None else [(column.name, duckdb_type(column.data_type)) for column in spec.schema]
        )
        files = [*request.files, *(_log(request.files[0], around) if spec.source == "sqlite" else ())]
        return [spec.source, spec.params, columns, [around.digests.digest(Path(file))[0] for file in files]]

    def execute(self, task: Task, bench: Workbench) -> Artifact:
        import duckdb

        from seeknal.nodes.parquet_copy import copied

        spec = msgspec.convert(task.spec, SourceSpec)
        request = read_request(spec, Path(task.project_root))
        if spec.source in FOREIGN_FORMATS:
            from seeknal.nodes.foreign_table import copy_foreign

            # One thread: rows keep their order, and Python hands them out one after the other anyway.
            with _foreign(request) as table:
                return copy_foreign(bench.outside_connection(1, task.memory_limit_bytes), request, table, bench)
        connection = bench.outside_connection(task.threads, task.memory_limit_bytes)
        try:
            columns = output_columns(connection, request)
            # Named in the request, so that reading does not look at the files for them a second time.
            request = msgspec.structs.replace(request, columns=columns)
            artifact = copied(connection, request, columns, bench)
            if artifact is not None:
                return artifact
            return bench.copy_to_store(connection, read_query(connection, request), dict(columns))
        except duckdb.Error as error:
            raise explain_failure(error, request) from error


def read_request(spec: SourceSpec, root: Path) -> ReadRequest:
    """Find the files a source means, in the order of their names. Raises NodeFailedError where there is none."""
    named = _path_of(spec)
    single = root / named
    if single.is_file():
        files = [single]
    else:
        try:
            names = matching_files(_pattern(spec, root))
        except OSError as error:
            raise NodeFailedError(f"{named}: {error.strerror}", field=_path_field(spec)) from error
        files = [path for path in map(Path, names) if path.is_file()]
    if not files:
        if single.is_dir():
            hint = f"name a file in it, or '{named.rstrip('/')}/*.{spec.source}'"
            raise NodeFailedError(f"{named} is a folder", hint=hint, field=_path_field(spec))
        if os.path.lexists(single):
            hint = "name a file with rows in it"
            raise NodeFailedError(f"{named} {_what_is_there(single)}", hint=hint, field=_path_field(spec))
        siblings = [entry.name for entry in single.parent.iterdir()] if single.parent.is_dir() else []
        near = nearest_files(single.name, siblings)
        hint = f"did you mean {' or '.join(map(repr, near))}?" if near else f"paths count from {root}"
        raise NodeFailedError(f"{named} not found", hint=hint, field=_path_field(spec))
    declared = None if spec.schema is None else tuple(spec.schema)
    params = spec.params
    if spec.source == "sqlite":
        from seeknal.nodes.sqlite_reading import reading_params

        if len(files) > 1:
            raise NodeFailedError(f"{named} means {len(files)} files", hint="a source reads one SQLite file")
        params = reading_params(spec.table, params)
    return ReadRequest(spec.source, tuple(str(file) for file in files), params, declared, str(root))


def _path_of(spec: SourceSpec) -> str:
    """The path or pattern that a source names."""
    return str(spec.params.get("path") or spec.table) if spec.source == "sqlite" else spec.table


def _path_field(spec: SourceSpec) -> tuple[str, ...]:
    """The field that names it."""
    return ("params", "path") if spec.source == "sqlite" and spec.params.get("path") else ("table",)


def _format_problems(spec: SourceSpec) -> Iterable[FieldProblem]:
    """Find what is wrong with the format, and with what it needs."""
    if spec.source in FORMATS_TO_COME:
        yield FieldProblem(f"source type '{spec.source}' is not available yet", ("source",))
        return
    if spec.source in _UNSUPPORTED:
        hint = "export the table to Parquet or CSV, and read that"
        yield FieldProblem(f"source type '{spec.source}' is not supported", ("source",), hint)
        return
    if spec.source not in FORMATS:
        yield FieldProblem(f"unknown source type '{spec.source}'", ("source",), did_you_mean(spec.source, FORMATS))
    if spec.source == "excel" and not is_available():
        yield FieldProblem("reading spreadsheets needs python-calamine", ("source",), "pip install 'seeknal[excel]'")
    for name in spec.params:
        known = FORMATS.get(spec.source, frozenset())
        # Others are named values for templates.
        if name not in known and nearest(name, known, 1):
            hint = did_you_mean(name, known)
            yield FieldProblem(f"unknown param '{name}' of a {spec.source} source", ("params", name), hint)
    if spec.source == "sqlite":
        yield from _sqlite_problems(spec)
    elif not spec.table:
        yield FieldProblem("'table' is missing", ("table",), "a source needs it")
    if not _path_of(spec).strip() and _path_of(spec):
        yield FieldProblem("the path of the file is empty", ("table",))


def _sqlite_problems(spec: SourceSpec) -> Iterable[FieldProblem]:
    from seeknal.nodes.sqlite_reading import is_query

    for name in ("path", "table", "schema", "query"):
        value = spec.params.get(name)
        if value is not None and not isinstance(value, str):
            yield FieldProblem(f"param '{name}' must be text, not {value!r}", ("params", name))
            return
    if not _path_of(spec):
        yield FieldProblem("'table' is missing", ("table",), "write the path of the SQLite file")
    if spec.params.get("schema", "main") != "main":
        yield FieldProblem("a SQLite file has the schema 'main' only", ("params", "schema"))
    query = spec.params.get("query")
    if query is not None and not is_query(query):
        yield FieldProblem("query must be one SELECT, or WITH … SELECT", ("params", "query"))
    if query is not None and spec.params.get("table") is not None:
        yield FieldProblem("table and query are two ways to say what to read", ("params", "query"), "leave one out")


@contextmanager
def _foreign(request: ReadRequest) -> Iterator[ForeignTable]:
    """Open what Python reads, for the time of the block."""
    table: ForeignTable
    if request.format == "sqlite":
        from seeknal.nodes.sqlite_reading import SqliteTable

        table = SqliteTable(request)
    else:
        table = ExcelTable(request)
    try:
        yield table
    finally:
        table.close()


def _log(file: str, around: Surroundings) -> list[str]:
    """The log beside a SQLite file, where it holds something."""
    from seeknal.nodes.sqlite_reading import log_of

    log = log_of(file)
    around.digests.note_listing(glob.escape(log), [log] if os.path.exists(log) else [])
    return [log] if os.path.exists(log) and os.path.getsize(log) else []


def _what_is_there(path: Path) -> str:
    """What a path leads to that is neither a file nor a folder."""
    return "is a link that leads nowhere" if path.is_symlink() and not path.exists() else "is no regular file"


def _pattern(spec: SourceSpec, root: Path) -> str:
    """The pattern that ``table`` is; the characters of the project's own path stand for themselves."""
    return os.path.join(glob.escape(str(root)), _path_of(spec))
