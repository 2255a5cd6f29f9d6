"""Exposures of type ``file``: the rows of the first input as one file, or as a folder of files by column values."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from seeknal.dag.names import did_you_mean, shown, wrong_path
from seeknal.dag.project import PROJECT_FILE, Project
from seeknal.dag.sql import literal, quoted, quoted_node
from seeknal.nodes.exposure_type import ExposureSpec
from seeknal.nodes.kind import FieldProblem, Task, inside
from seeknal.nodes.workbench import Workbench
from seeknal.store.objects import Artifact, Blob

FILE_FORMATS = ("csv", "parquet", "json", "jsonl")
_COMPRESSIONS = {
    "csv": ("none", "gzip", "zstd"),
    "json": ("none", "gzip", "zstd"),
    "jsonl": ("none", "gzip", "zstd"),
    "parquet": ("snappy", "zstd", "gzip", "lz4", "brotli", "none", "uncompressed"),
}
_ENDINGS = {".csv": "csv", ".parquet": "parquet", ".json": "json", ".jsonl": "jsonl", ".ndjson": "jsonl"}


class FileExposure:
    """Rows as files in a format of DuckDB's."""

    params = frozenset({"path", "format", "compression", "partition_by"})

    def check(self, spec: ExposureSpec, project: Project) -> Iterable[FieldProblem]:
        yield from self._check_path(spec, project)
        file_format = output_format(spec)
        if file_format not in FILE_FORMATS:
            at = ("format",) if spec.format is not None else ("params", "format")
            yield FieldProblem(f"unknown format '{file_format}'", at, did_you_mean(file_format, FILE_FORMATS))
        else:
            compression = spec.params.get("compression")
            allowed = _COMPRESSIONS[file_format]
            if compression is not None and str(compression).lower() not in allowed:
                yield FieldProblem(
                    f"{file_format} files cannot have compression '{compression}'",
                    ("params", "compression"),
                    f"there is: {', '.join(allowed)}",
                )
        partition_by = spec.params.get("partition_by")
        if partition_by is not None and not _column_list(partition_by):
            yield FieldProblem("partition_by must be a column or a list of columns", ("params", "partition_by"))

    def _check_path(self, spec: ExposureSpec, project: Project) -> Iterable[FieldProblem]:
        path = output_path(spec)
        at: tuple[str | int, ...] = ("path",) if spec.path is not None else ("params", "path")
        if not path:
            yield FieldProblem("an exposure of type 'file' needs a path", (), "add `path: output/NAME.csv`")
        elif (why := wrong_path(path)) is not None:
            yield FieldProblem(f"the path '{shown(path)}' {why}", at, "write it as `output/NAME.csv`")
        elif path.endswith(("/", "/.")) and spec.params.get("partition_by") is None:
            yield FieldProblem(f"'{path}' is a folder", at, f"name a file in it: '{path.rstrip('/.')}/NAME.csv'")
        elif _is_the_projects_own(project, path):
            yield FieldProblem(f"'{path}' is the project's own", at, "write to output/, for example")
        elif os.path.realpath(project.root / path) == os.path.realpath(project.root):
            yield FieldProblem(f"'{path}' is the project's own folder", at)
        elif not project.settings.allow_external_paths and not inside(project.root, project.root / path):
            yield FieldProblem(
                f"'{path}' leads out of the project", at, "set `allow_external_paths: true` in seeknal_project.yml"
            )

    def verify(self, spec: ExposureSpec, columns: Mapping[str, str]) -> Iterable[FieldProblem]:
        for column in _column_list(spec.params.get("partition_by") or []):
            if column not in columns:
                at = ("params", "partition_by")
                yield FieldProblem(f"partition_by: no column '{column}'", at, did_you_mean(column, columns))

    def identity(self, spec: ExposureSpec) -> list[Any]:
        # Not the path: where a file is delivered to changes nothing about its content.
        return [
            spec.type,
            output_format(spec),
            spec.params.get("compression"),
            _column_list(spec.params.get("partition_by") or []),
        ]

    def render(self, spec: ExposureSpec, task: Task, bench: Workbench) -> Artifact:
        connection = bench.hermetic_connection(task.threads, task.memory_limit_bytes)
        bench.make_views(connection, task)
        partition_by = _column_list(spec.params.get("partition_by") or [])
        query = f"FROM {quoted_node(task.inputs[0].node_id)}"
        if partition_by:
            blobs = self._partitioned(query, spec, partition_by, connection, bench)
        else:
            file = bench.store.temporary_path(f".{output_format(spec)}")
            try:
                connection.execute(f"COPY ({query}) TO {literal(str(file))} ({_copy_options(spec)})")
                blobs = (("", bench.store.adopt_file(file)),)
            finally:
                file.unlink(missing_ok=True)
        return Artifact((), task.inputs[0].row_count, (), blobs)

    def _partitioned(
        self, query: str, spec: ExposureSpec, partition_by: list[str], connection: Any, bench: Workbench
    ) -> tuple[tuple[str, Blob], ...]:
        folder = bench.store.temporary_path("")
        columns = ", ".join(quoted(column) for column in partition_by)
        try:
            connection.execute(
                f"COPY ({query}) TO {literal(str(folder))} ({_copy_options(spec)}, PARTITION_BY ({columns}))"
            )
            files = sorted(path for path in folder.rglob("*") if path.is_file())
            return tuple(
                (PurePosixPath(path.relative_to(folder)).as_posix(), bench.store.adopt_file(path)) for path in files
            )
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _is_the_projects_own(project: Project, path: str) -> bool:
    """Say whether a path leads to what makes the project: its files, its nodes, ``target``, or anything hidden."""
    try:
        inner = Path(os.path.realpath(project.root / path)).relative_to(os.path.realpath(project.root))
    except ValueError:
        return False
    # Compared without case: on some disks, TARGET is target.
    parts = [part.lower() for part in inner.parts]
    if not parts:
        return False
    own_folders = (project.target.name, project.nodes_folder.name)
    own_file = len(parts) == 1 and (parts[0] == PROJECT_FILE or parts[0].startswith("profiles"))
    return parts[0] in own_folders or own_file or any(part.startswith(".") for part in parts)


def output_path(spec: ExposureSpec) -> str:
    """The path an exposure names, empty where it names none."""
    return str(spec.path if spec.path is not None else spec.params.get("path", ""))


def output_format(spec: ExposureSpec) -> str:
    """The format an exposure names, else what its path's ending says, else csv."""
    named = spec.format if spec.format is not None else spec.params.get("format")
    return str(named).lower() if named is not None else _ENDINGS.get(Path(output_path(spec)).suffix.lower(), "csv")


def _column_list(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    return [str(column) for column in value] if isinstance(value, list) else []


def _copy_options(spec: ExposureSpec) -> str:
    file_format = output_format(spec)
    compression = spec.params.get("compression")
    options = {
        "csv": "FORMAT csv, HEADER true",
        "json": "FORMAT json, ARRAY true",
        "jsonl": "FORMAT json, ARRAY false",
        "parquet": "FORMAT parquet",
    }[file_format]
    if file_format == "parquet":
        codec = str(compression or "snappy").lower()
        return f"{options}, COMPRESSION {'uncompressed' if codec == 'none' else codec}"
    return f"{options}, COMPRESSION {str(compression).lower()}" if compression is not None else options
