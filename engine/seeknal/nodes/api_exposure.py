"""Exposures of type ``api``: the rows of the first input as JSON, ``{"data": [rows]}``, for an HTTP request.

One request holds all rows unless ``batch_rows`` cuts them into several. A body is written to disk and sent from there,
so its size is bounded by what a receiver takes, not by memory: at most ``max_bytes``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, islice
from pathlib import Path
from typing import IO, Any

from seeknal.dag.project import Project
from seeknal.dag.sql import literal, quoted_node
from seeknal.errors import NodeFailedError
from seeknal.nodes.exposure_type import ExposureSpec
from seeknal.nodes.http_request import REQUEST_PARAMS, request_problems
from seeknal.nodes.kind import FieldProblem, Task
from seeknal.nodes.workbench import Workbench
from seeknal.store.objects import Artifact, Blob

DEFAULT_MAX_BYTES = 100_000_000


class ApiExposure:
    """Rows as the body of one request, or of several."""

    params = REQUEST_PARAMS | {"batch_rows", "max_bytes"}

    def check(self, spec: ExposureSpec, project: Project) -> Iterable[FieldProblem]:
        yield from request_problems(spec)
        for name in ("batch_rows", "max_bytes"):
            value = spec.params.get(name)
            if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
                yield FieldProblem(f"{name} must be a whole number from 1 on, not {value!r}", ("params", name))

    def verify(self, spec: ExposureSpec, columns: Mapping[str, str]) -> Iterable[FieldProblem]:
        return ()

    def identity(self, spec: ExposureSpec) -> list[Any]:
        return [spec.params.get("batch_rows"), spec.params.get("max_bytes")]

    def render(self, spec: ExposureSpec, task: Task, bench: Workbench) -> Artifact:
        connection = bench.hermetic_connection(task.threads, task.memory_limit_bytes)
        bench.make_views(connection, task)
        batch_rows = spec.params.get("batch_rows")
        most = int(spec.params.get("max_bytes") or DEFAULT_MAX_BYTES)
        lines = bench.store.temporary_path(".jsonl")
        try:
            query = f"FROM {quoted_node(task.inputs[0].node_id)}"
            connection.execute(f"COPY ({query}) TO {literal(str(lines))} (FORMAT json, ARRAY false)")
            with lines.open("rb") as stream:
                blobs = tuple(_bodies(stream, batch_rows, most, bench))
        finally:
            lines.unlink(missing_ok=True)
        return Artifact((), task.inputs[0].row_count, (), blobs)


def _bodies(stream: IO[bytes], batch_rows: int | None, most: int, bench: Workbench) -> Iterator[tuple[str, Blob]]:
    """Write bodies until there are no more rows; the only one has no name, several are numbered."""
    rows = _checked(stream)
    number = 0
    while True:
        first = next(rows, None)
        if first is None and number:
            return
        batch = chain([] if first is None else [first], rows)
        file = bench.store.temporary_path(".json")
        try:
            _write_body(file, batch if batch_rows is None else islice(batch, batch_rows), most)
            yield "" if batch_rows is None else f"{number:06}.json", bench.store.adopt_file(file)
        finally:
            file.unlink(missing_ok=True)
        number += 1


def _write_body(file: Path, rows: Iterable[bytes], most: int) -> None:
    """Write one body. Raises NodeFailedError where it becomes too long."""
    before, size = b'{"data": [\n', 0
    with file.open("wb") as body:
        for row in rows:
            size += body.write(before)
            size += body.write(row)
            before = b",\n"
            if size > most:
                raise NodeFailedError(
                    f"the body of the request is larger than {most:,} bytes",
                    hint="cut it with params.batch_rows, raise params.max_bytes, or deliver a file: type: file",
                )
        body.write(b"\n]}\n" if size else b'{"data": []}\n')


def _checked(stream: IO[bytes]) -> Iterator[bytes]:
    """The rows as JSON texts. Raises NodeFailedError for a number that JSON does not have."""
    for number, line in enumerate(stream, 1):
        row = line.rstrip(b"\n")
        # A cheap look first; only where it finds one of the words it may be a number, not a text.
        if b"NaN" in row or b"Infinity" in row:
            _refuse_what_json_lacks(number, row)
        yield row


def _refuse_what_json_lacks(number: int, row: bytes) -> None:
    for column, value in json.loads(row).items():
        if _holds_no_number(value):
            raise NodeFailedError(
                f"row {number}: column '{column}' holds a NaN or an infinity, which JSON has no number for",
                hint="make it NULL in a transform: CASE WHEN isfinite(x) THEN x END",
            )


def _holds_no_number(value: Any) -> bool:
    if isinstance(value, dict | list):
        return any(map(_holds_no_number, value.values() if isinstance(value, dict) else value))
    return isinstance(value, float) and not math.isfinite(value)
