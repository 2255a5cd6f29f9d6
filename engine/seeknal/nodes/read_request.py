"""What is to be read from files, and the tables that DuckDB sees in them before any value is cast.

- *read request*: which files, in which format, with which parameters and which declared columns.
- *raw table*: a run of files that one call of DuckDB's reader reads alike, with the columns it finds there.
  Rows come in the order of the files, and within a file as they stand.
- *raw column*: a column of a raw table: its name in the file, and the SQL that yields it.
"""

from __future__ import annotations

import enum
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from seeknal.dag.names import did_you_mean, find_name, nearest, nearest_files
from seeknal.dag.sql import literal
from seeknal.errors import NodeFailedError, Place, Problem
from seeknal.nodes.data_types import fitted, misfit

#: The name and the DuckDB type of each column, in order.
Columns = tuple[tuple[str, str], ...]

_MOST_NAMES_SHOWN = 20


class FileFormat(enum.StrEnum):
    """The formats of files; the values are what ``source:`` says in YAML."""

    CSV = "csv"
    PARQUET = "parquet"
    JSON = "json"
    JSONL = "jsonl"


class ColumnDeclaration(msgspec.Struct, frozen=True):
    """One entry of a source's ``schema``.

    - ``name``: the column's name
    - ``data_type``: ``integer``, ``float``, ``decimal(p, s)``, ``string``, ``boolean``, ``date``, ``timestamp``,
      ``time``, ``json``, most of DuckDB's own names, and lists of them (``integer[]``)
    """

    name: str
    data_type: str


class ReadRequest(msgspec.Struct, frozen=True):
    """Which files to read, and how.

    ``files`` are absolute paths of single files, in the order of their rows. ``schema`` is the contract where
    it is given. ``columns`` are the output columns where they are known already: put the answer of
    ``output_columns`` there and the files are not examined for them again. ``root`` is the folder that
    messages show paths relative to.
    """

    format: str
    files: tuple[str, ...]
    params: dict[str, Any] = {}
    schema: tuple[ColumnDeclaration, ...] | None = None
    root: str = ""
    columns: Columns | None = None

    def shown(self, file: str) -> str:
        """Give the path of a file as messages show it: relative to the root where it is inside."""
        if self.root and Path(file).is_relative_to(self.root):
            return Path(file).relative_to(self.root).as_posix()
        return file

    def declared_type(self, column: str) -> str | None:
        """Give the type of a column as the user wrote it; None where no schema declares the column."""
        return next((entry.data_type for entry in self.schema or () if entry.name == column), None)


class RawColumn(msgspec.Struct, frozen=True):
    """A column as the reader yields it: ``expression`` is SQL of type ``data_type`` over the reader's row.

    ``null_texts`` are the texts that mean NULL unless the column is to be text itself.
    """

    name: str
    expression: str
    data_type: str
    null_texts: tuple[str, ...] = ()

    def value(self, target: str) -> str:
        """Give the SQL of the column's values before the cast to ``target``."""
        if target == self.data_type or not self.null_texts:
            return self.expression
        if len(self.null_texts) == 1:
            return f"NULLIF({self.expression}, {literal(self.null_texts[0])})"
        texts = ", ".join(map(literal, self.null_texts))
        return f"CASE WHEN {self.expression} NOT IN ({texts}) THEN {self.expression} END"

    def fitted(self, target: str) -> str:
        return fitted(self.value(target), self.data_type, target)

    def misfit(self, target: str) -> str:
        return misfit(self.value(target), self.data_type, target)


class RawTable(msgspec.Struct, frozen=True):
    """Files that ``function`` reads in one call with ``options``, and the columns that this yields."""

    files: tuple[str, ...]
    function: str
    options: tuple[str, ...]
    columns: tuple[RawColumn, ...]

    def relation(self) -> str:
        """Give the SQL that stands after FROM."""
        paths = ", ".join(map(path_literal, self.files))
        return f"{self.function}({', '.join((f'[{paths}]', *self.options))})"

    def column(self, name: str) -> RawColumn:
        """Find the column that an output column of this name is read from. Raises KeyError."""
        found = find_name(name, (column.name for column in self.columns))
        if found is None:
            raise KeyError(name)
        return next(column for column in self.columns if column.name == found)


def path_literal(path: str) -> str:
    """Quote the path of one file, so that DuckDB takes none of its characters for a pattern."""
    return literal("".join(f"[{character}]" if character in "*?[" else character for character in path))


def lacking_column(
    request: ReadRequest, name: str, file: str, names: Iterable[str], line: int = 0, *, among: int = 1
) -> Problem:
    """Say that a file, or all of ``among`` files, lack a column that is read from them, naming both sides."""
    known = list(names)
    where, has = request.shown(file), "the file has"
    if among > 1:
        where, has = f"{where} and {among - 1} more", "they have"
    listed = ", ".join(known[:_MOST_NAMES_SHOWN])
    if len(known) > _MOST_NAMES_SHOWN:
        listed += f", … ({len(known)} in all)"
    declared = "declared in schema" if request.declared_type(name) is not None else "of the other files"
    message = f"column '{name}' {declared} but not found in {where}; {has}: {listed}"
    hint = did_you_mean(name, known) if nearest(name, known) else ""
    return Problem(message, Place(request.shown(file), line), hint)


def check_file(request: ReadRequest, file: str) -> None:
    """Make sure that a file is there and can be read. Raises NodeFailedError."""
    place = Place(request.shown(file))
    path = Path(file)
    if path.is_dir():
        raise NodeFailedError("this is a folder, not a file", place=place, hint=f"name its files: {place.file}/*")
    try:
        with path.open("rb"):
            return
    except FileNotFoundError:
        hint = _nearest_file(request, path)
        raise NodeFailedError("the file does not exist", place=place, hint=hint) from None
    except OSError as error:
        raise NodeFailedError(f"the file cannot be read: {error.strerror}", place=place) from error


def _nearest_file(request: ReadRequest, path: Path) -> str:
    folder = path.parent
    if not folder.is_dir():
        return f"there is no folder {request.shown(str(folder))} either"
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries if entry.is_file()]
    near = [request.shown(str(folder / name)) for name in nearest_files(path.name, names)]
    return f"did you mean {' or '.join(map(repr, near))}?" if near else ""
