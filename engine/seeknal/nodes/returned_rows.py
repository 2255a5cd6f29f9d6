"""What a function may return as rows: a DuckDB relation, or a table of Arrow, pandas or Polars.

Whatever it is becomes a Parquet file by DuckDB, with the types that it has. None of the packages is imported unless the
value is of it.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from seeknal.errors import NodeFailedError

NAME = "seeknal_rows"

_ALLOWED = "a DuckDB relation, or a frame or table of pandas, Polars or PyArrow"


@dataclass(frozen=True)
class Rows:
    """Rows in a DuckDB connection, as the query that gives them, with their columns and types."""

    connection: Any
    query: str
    schema: dict[str, str]


@contextlib.contextmanager
def rows_of(value: Any, connection: Any) -> Iterator[Rows]:
    """Make what a function returned readable by SQL; ``connection`` is for what is no relation.

    Raises NodeFailedError for what is no rows, or has columns that a table cannot have.
    """
    value = _unwrapped(value)
    if type(value).__name__ == "DuckDBPyRelation":
        _check_names(list(value.columns))
        relation = _OnRelation(value)
        yield Rows(relation, f"FROM {NAME}", _described(relation))
        return
    table = _as_arrow(value)
    _check_names(list(table.schema.names))
    connection.register(NAME, table)
    try:
        yield Rows(connection, f"FROM {NAME}", _described(connection))
    finally:
        connection.unregister(NAME)


class _OnRelation:
    """A relation's own connection, as far as running statements over the relation goes."""

    def __init__(self, relation: Any) -> None:
        self._relation = relation

    def execute(self, statement: str) -> Any:
        return self._relation.query(NAME, statement)


def _described(connection: Any) -> dict[str, str]:
    return {name: type_ for name, type_, *_ in connection.execute(f"DESCRIBE FROM {NAME}").fetchall()}


def _unwrapped(value: Any) -> Any:
    """The frame in a feature frame; the result of a lazy frame."""
    if type(value).__module__ == "seeknal.pipeline.feature_frame":
        return value.to_df()
    if type(value).__module__.startswith("polars.") and hasattr(value, "collect"):
        return value.collect()
    return value


def _as_arrow(value: Any) -> Any:
    """Arrow's view of a table: a Table or a RecordBatchReader."""
    pandas = sys.modules.get("pandas")
    if pandas is not None and isinstance(value, pandas.DataFrame):
        return _plain_columns(_from_pandas(value))
    if type(value).__module__.startswith("polars."):
        if not hasattr(value, "to_arrow") or not hasattr(value, "columns"):
            raise _not_rows(value)
        return _plain_columns(value.to_arrow())
    import pyarrow

    if isinstance(value, pyarrow.RecordBatch):
        value = pyarrow.Table.from_batches([value])
    if isinstance(value, pyarrow.Table):
        return _plain_columns(value)
    if isinstance(value, pyarrow.RecordBatchReader):
        return value
    if hasattr(value, "__arrow_c_stream__") and not isinstance(value, pyarrow.ChunkedArray):
        try:
            return pyarrow.RecordBatchReader.from_stream(value)
        except (TypeError, ValueError, pyarrow.ArrowException) as error:
            raise _not_rows(value) from error
    raise _not_rows(value)


def _not_rows(value: Any) -> NodeFailedError:
    if value is None:
        return NodeFailedError("returned None", hint=f"return {_ALLOWED}")
    return NodeFailedError(f"returned {_type_name(value)}, which is no table", hint=f"return {_ALLOWED}")


def _type_name(value: Any) -> str:
    kind = type(value)
    package = kind.__module__.partition(".")[0]
    return kind.__qualname__ if package == "builtins" else f"{package}.{kind.__qualname__}"


def _from_pandas(frame: Any) -> Any:
    """A pandas frame as an Arrow table. Levels of the index that have names become columns, in front."""
    import pyarrow

    names = [name for name in frame.index.names if name is not None and name not in frame.columns]
    if frame.columns.nlevels > 1:
        raise NodeFailedError("has columns of several levels", hint="name each with one text: df.columns = […]")
    _check_names(list(frame.columns))
    if names:
        dropped = [level for level, name in enumerate(frame.index.names) if name not in names]
        frame = (frame.droplevel(dropped) if dropped else frame).reset_index()
        _check_names(list(frame.columns))
    columns = []
    for position, name in enumerate(frame.columns):
        series = frame.iloc[:, position]
        try:
            column = pyarrow.array(series, from_pandas=True)
            if pyarrow.types.is_decimal(column.type) and series.dtype == object:
                # The digits of the values at hand are no type that would be the same tomorrow.
                column = column.cast(pyarrow.decimal128(18 if column.type.precision <= 18 else 38, column.type.scale))
            columns.append(column)
        except (pyarrow.ArrowException, TypeError, ValueError, OverflowError) as error:
            raise _unusable(name, series, error) from error
    return pyarrow.table(columns, names=list(frame.columns))


def _unusable(name: str, series: Any, error: Exception) -> NodeFailedError:
    found = sorted({type(value).__name__ for value in series.dropna().iloc[:100_000]})
    if len(found) > 1:
        return NodeFailedError(
            f"column '{name}' holds values of several types: {', '.join(found[:4])}",
            hint=f"give it one, for example df['{name}'] = df['{name}'].astype(str)",
        )
    kind = found[0] if found else str(series.dtype)
    why = " ".join(str(error.args[0] if error.args else error).split())[:120]
    return NodeFailedError(f"column '{name}' holds values of type {kind}, which no table can hold: {why}")


def _plain_columns(table: Any) -> Any:
    """Arrow columns without what depends on the data: dictionaries, and columns without any type."""
    import pyarrow

    for index, field in enumerate(table.schema):
        wanted = None
        if pyarrow.types.is_null(field.type):
            wanted = pyarrow.string()
        elif pyarrow.types.is_dictionary(field.type):
            wanted = field.type.value_type
        if wanted is not None:
            table = table.set_column(index, field.name, table.column(index).cast(wanted))
    return table


def _check_names(names: Sequence[Any]) -> None:
    """Raise NodeFailedError for column names that a table cannot have; they do not depend on case."""
    if not names:
        raise NodeFailedError("returned a table without columns", hint="a table has at least one column")
    seen: dict[str, str] = {}
    for name in names:
        if not isinstance(name, str):
            raise NodeFailedError(
                f"has a column whose name is no text: {name!r}"[:200], hint="df.columns = df.columns.astype(str)"
            )
        if not name:
            raise NodeFailedError("has a column whose name is empty", hint="name it")
        other = seen.get(name.lower())
        if other == name:
            raise NodeFailedError(f"has the column '{name}' twice", hint="rename or drop one")
        if other is not None:
            raise NodeFailedError(f"has the columns '{other}' and '{name}', which SQL takes for one", hint="rename one")
        seen[name.lower()] = name
