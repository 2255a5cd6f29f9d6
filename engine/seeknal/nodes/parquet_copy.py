"""Large Parquet files that are taken into the store as they are, instead of being decoded and encoded again.

Encoding is most of what reading such a source costs. A file is copied where its copy is what would be written anyway,
save for how the values are encoded: one file; every column, in its order, with the type that it has; no nested types,
and none that readers take for different things; written by a program whose statistics are right, because queries rely
on them. All values are still read once, so that damage is found here and not by whoever reads the source.

Small files are written anew: that costs little, and a column of equal values has equal bytes then, whoever wrote the
file and however.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from seeknal.dag.sql import quoted
from seeknal.nodes import parquet_reading
from seeknal.nodes.read_request import Columns, FileFormat, ReadRequest, path_literal
from seeknal.nodes.workbench import Workbench, file_list, stored_type
from seeknal.store.filesystem import copy_file
from seeknal.store.objects import Artifact
from seeknal.timeline import span

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

SMALLEST_BYTES = 8 * 1024 * 1024

# Older ones of other programs are known to order texts and decimals wrongly in their statistics.
_WRITERS = ("DuckDB", "parquet-cpp-arrow", "Polars", "polars")

# The names in the types that are the same to every reader; others are extensions' own, or have readings of their own.
_KEPT_TYPES = frozenset(
    """BOOLEAN TINYINT SMALLINT INTEGER BIGINT UTINYINT USMALLINT UINTEGER UBIGINT FLOAT DOUBLE DECIMAL VARCHAR BLOB
    DATE TIME TIMESTAMP TIMESTAMP_NS UUID""".split()
)
_KEPT = re.compile(r"([A-Z_]+)(\(\d+,\d+\)| WITH TIME ZONE)?")


def copied(connection: DuckDBPyConnection, request: ReadRequest, columns: Columns, bench: Workbench) -> Artifact | None:
    """Take a source's file into the store as it is; None where it is to be read and written instead.

    ``connection`` may read the file and the store. Raises NodeFailedError where a value cannot be read,
    duckdb.Error, OSError.
    """
    if not _is_copied(connection, request, columns):
        return None
    file = bench.store.temporary_path()
    try:
        with span("copy"):
            copy_file(Path(request.files[0]), file)
        with span("query"):
            _read_all(connection, request, columns, file)
        blob, row_count, kept = bench.store.adopt_parquet(file, [type_ for _, type_ in columns])
    finally:
        file.unlink(missing_ok=True)
    return Artifact((blob,), row_count, kept)


def _read_all(connection: DuckDBPyConnection, request: ReadRequest, columns: Columns, copy: Path) -> None:
    """Read every value of a request's copy, and keep nothing of it. Raises NodeFailedError where one cannot be read."""
    import duckdb

    # The hash of a value needs the value, which its statistics would not.
    values = ", ".join(quoted(name) for name, _ in columns)
    try:
        connection.execute(f"SELECT bit_xor(hash({values})) FROM read_parquet({file_list((str(copy),))})").fetchall()
    except (duckdb.OutOfMemoryException, duckdb.InterruptException):
        raise
    except duckdb.Error as error:
        message = str(error).splitlines()[0].replace(str(copy), request.shown(request.files[0]))
        raise parquet_reading.explain(request, request.files[0], message) from error


def _is_copied(connection: DuckDBPyConnection, request: ReadRequest, columns: Columns) -> bool:
    if request.format != FileFormat.PARQUET or len(request.files) != 1:
        return False
    if os.path.getsize(request.files[0]) < SMALLEST_BYTES or not all(_is_kept(type_) for _, type_ in columns):
        return False
    (table,) = parquet_reading.tables(connection, request, columns)
    if tuple((column.name, column.data_type) for column in table.columns) != columns:
        return False
    path = path_literal(request.files[0])
    # Of two columns with one name, DuckDB calls the second something else than the file does.
    names = connection.execute(f"SELECT name FROM parquet_schema({path}) WHERE type IS NOT NULL").fetchall()
    if [name for (name,) in names] != [name for name, _ in columns]:
        return False
    writer = connection.execute(f"SELECT created_by FROM parquet_file_metadata({path})").fetchone()
    return writer is not None and str(writer[0]).startswith(_WRITERS)


def _is_kept(type_: str) -> bool:
    found = _KEPT.fullmatch(type_)
    return found is not None and found[1] in _KEPT_TYPES and stored_type(type_) == type_
