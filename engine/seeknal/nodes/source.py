"""The kind ``source``: data from outside, read as it is.

A declared ``schema`` is the contract: exactly those columns, in that order, cast to their types. Which rows a file
source gives depends on the content of its files, so that is its identity; a file that was touched but not changed
rebuilds nothing.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from seeknal.dag.names import did_you_mean
from seeknal.dag.project import Project
from seeknal.errors import NodeFailedError
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
from seeknal.store.objects import Artifact

FILE_FORMATS = ("csv", "parquet", "json", "jsonl")
FORMATS_TO_COME = ("excel", "sqlite", "postgresql", "postgres", "iceberg")


class SourceSpec(msgspec.Struct, frozen=True, kw_only=True):
    """The fields of a source. ``table`` is a path from the project's root, or a pattern such as ``data/*.csv``."""

    source: str
    table: str
    params: dict[str, Any] = {}
    schema: list[ColumnDeclaration] | None = None
    freshness: dict[str, Any] = {}
    inputs: list[Any] = []


class SourceKind(Kind):
    """Rows of one or several files."""

    name = "source"
    spec = SourceSpec
    reads_outside = True

    def check(self, spec: SourceSpec, project: Project) -> Iterable[FieldProblem]:
        if spec.source in FORMATS_TO_COME:
            yield FieldProblem(f"source type '{spec.source}' is not available yet", ("source",))
        elif spec.source not in FILE_FORMATS:
            yield FieldProblem(
                f"unknown source type '{spec.source}'", ("source",), did_you_mean(spec.source, FILE_FORMATS)
            )
        if not spec.table.strip():
            yield FieldProblem("the path of the file is empty", ("table",))
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
        return dict(output_columns(around.connection, request))

    def declared(self, spec: SourceSpec) -> dict[str, str] | None:
        if spec.schema is None:
            return None
        return {column.name: duckdb_type(column.data_type) or "VARCHAR" for column in spec.schema}

    def identity(self, spec: SourceSpec, around: Surroundings) -> list[Any]:
        request = read_request(spec, around.project.root)
        if request.files != (str(around.project.root / spec.table),):
            around.digests.note_listing(_pattern(spec, around.project.root), list(request.files))
        columns = (
            None if spec.schema is None else [(column.name, duckdb_type(column.data_type)) for column in spec.schema]
        )
        return [spec.source, spec.params, columns, [around.digests.digest(Path(file))[0] for file in request.files]]

    def execute(self, task: Task, bench: Workbench) -> Artifact:
        import duckdb

        spec = msgspec.convert(task.spec, SourceSpec)
        request = read_request(spec, Path(task.project_root))
        connection = bench.outside_connection(task.threads, task.memory_limit_bytes)
        try:
            columns = output_columns(connection, request)
            # Named in the request, so that reading does not look at the files for them a second time.
            request = msgspec.structs.replace(request, columns=columns)
            return bench.copy_to_store(connection, read_query(connection, request), dict(columns))
        except duckdb.Error as error:
            raise explain_failure(error, request) from error


def read_request(spec: SourceSpec, root: Path) -> ReadRequest:
    """Find the files a source means, in the order of their names. Raises NodeFailedError where there is none."""
    single = root / spec.table
    if single.is_file():
        files = [single]
    else:
        names = sorted(glob.glob(_pattern(spec, root), recursive=True))
        files = [path for path in map(Path, names) if path.is_file()]
    if not files:
        if single.is_dir():
            raise NodeFailedError(
                f"{spec.table} is a folder", hint=f"name a file in it, or '{spec.table.rstrip('/')}/*.{spec.source}'"
            )
        siblings = [entry.name for entry in single.parent.iterdir()] if single.parent.is_dir() else []
        raise NodeFailedError(
            f"{spec.table} not found", hint=did_you_mean(single.name, siblings) or f"paths count from {root}"
        )
    declared = None if spec.schema is None else tuple(spec.schema)
    return ReadRequest(spec.source, tuple(str(file) for file in files), spec.params, declared, str(root))


def _pattern(spec: SourceSpec, root: Path) -> str:
    """The pattern that ``table`` is; the characters of the project's own path stand for themselves."""
    return os.path.join(glob.escape(str(root)), spec.table)
