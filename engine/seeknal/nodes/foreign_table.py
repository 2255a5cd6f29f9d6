"""Foreign tables: rows that Python reads from elsewhere, on their way through Arrow and DuckDB into the store.

- *foreign table*: columns, rows in order, and where each row stands. A format is one implementation.
- *own type*: what the table itself says of a column, as a DuckDB type.

A declared schema is the contract, as it is for files: exactly its columns, in its order, cast to its types. Without
one, a column has its own type, else the narrowest that holds all of its values.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from seeknal.dag.names import did_you_mean, find_name, fold
from seeknal.dag.sql import quoted
from seeknal.errors import NodeFailedError, Place, Problem, ProjectError
from seeknal.nodes.cell_values import arrow_column, arrow_type, class_of, raw_type, reading_type, text_of
from seeknal.nodes.data_types import DOCUMENTED_TYPES, check_type, fitted, misfit
from seeknal.nodes.read_request import Columns, ReadRequest, lacking_column
from seeknal.store.objects import Artifact

if TYPE_CHECKING:
    from seeknal.nodes.workbench import Workbench

_BATCH_ROWS = 10_000
_LONGEST_VALUE_SHOWN = 80
_VIEW = "seeknal_foreign"


class ForeignTable(Protocol):
    """A table that Python reads. Its rows are the same each time they are read, until it is closed.

    ``own_types``: column → DuckDB type, in order; None where the values decide.
    """

    @property
    def own_types(self) -> Mapping[str, str | None]: ...

    def classes(self, names: Sequence[str]) -> Mapping[str, set[str]]:
        """The classes of the values of these columns. Raises SeeknalError."""
        ...

    def rows(self) -> Iterator[Sequence[Any]]:
        """The rows, with values in the order of ``own_types``. Raises SeeknalError."""
        ...

    def place(self, row: int) -> tuple[Place, str]:
        """Where the row of this number, from 1, stands, and what people call it."""
        ...

    def close(self) -> None: ...


def foreign_columns(connection: Any, request: ReadRequest, table: ForeignTable) -> Columns:
    """Say which columns the output has: the name and the DuckDB type of each, in order.

    Raises ProjectError where schema and table do not go together, NodeFailedError where the table cannot be read.
    """
    names = list(table.own_types)
    if request.schema is None:
        undecided = [name for name, type_ in table.own_types.items() if type_ is None]
        classes = table.classes(undecided) if undecided else {}
        return tuple((name, type_ or raw_type(classes[name])) for name, type_ in table.own_types.items())
    problems: list[Problem] = []
    columns: list[tuple[str, str]] = []
    for entry in request.schema:
        type_ = check_type(connection, entry.data_type)
        if type_ is None:
            hint = did_you_mean(entry.data_type, DOCUMENTED_TYPES)
            problems.append(Problem(f"column '{entry.name}' has an unknown data_type '{entry.data_type}'", hint=hint))
        elif find_name(entry.name, names) is None:
            problems.append(lacking_column(request, entry.name, request.files[0], names))
        else:
            columns.append((entry.name, type_))
    if problems:
        raise ProjectError(problems)
    return tuple(columns)


def copy_foreign(connection: Any, request: ReadRequest, table: ForeignTable, bench: Workbench) -> Artifact:
    """Stream a foreign table into the store. The connection has one thread, so that rows keep their order.

    Raises SeeknalError, naming the row and the column of a value that does not fit.
    """
    import duckdb

    columns = foreign_columns(connection, request, table)
    reading = _Reading(table, columns)
    selects = ", ".join(f"{fitted(quoted(f'c{i}'), raw, type_)} AS {quoted(name)}" for i, name, raw, type_ in reading)
    try:
        with reading.registered(connection):
            return bench.copy_to_store(connection, f"SELECT {selects} FROM {_VIEW}", dict(columns))
    except duckdb.Error as error:
        if isinstance(error, duckdb.InterruptException | duckdb.OutOfMemoryException):
            raise
        if reading.failure is not None:
            raise reading.failure from error
        found = _first_misfit(connection, request, table, reading)
        if found is not None:
            raise found from error
        raise


class _Reading:
    """How the columns of the output are read. ``failure`` is what went wrong in the table while it was."""

    def __init__(self, table: ForeignTable, columns: Columns) -> None:
        self._table = table
        names = list(table.own_types)
        wanted = [find_name(name, names) or name for name, _ in columns]
        classes = table.classes(wanted)
        for name in wanted:
            if "bytes" in classes[name] and raw_type(classes[name]) != "BLOB":
                raise _mixed_bytes(table, name)
        raw = [raw_type(classes[name]) for name in wanted]
        self._positions = [names.index(name) for name in wanted]
        self._types = [reading_type(own, target) for own, (_, target) in zip(raw, columns, strict=True)]
        self._columns = columns
        self.failure: Exception | None = None

    def __iter__(self) -> Iterator[tuple[int, str, str, str]]:
        """For each column its position, its name, the type it is read as and the type it shall have."""
        for index, ((name, target), type_) in enumerate(zip(self._columns, self._types, strict=True)):
            yield index, name, type_, target

    @contextmanager
    def registered(self, connection: Any) -> Iterator[None]:
        """Give the rows to a connection, for one reading, as the view that queries name."""
        import pyarrow

        schema = pyarrow.schema([(f"c{index}", arrow_type(type_)) for index, type_ in enumerate(self._types)])
        connection.register(_VIEW, pyarrow.RecordBatchReader.from_batches(schema, self._batches(schema)))
        try:
            yield
        finally:
            connection.unregister(_VIEW)

    def _batches(self, schema: Any) -> Iterator[Any]:
        import pyarrow

        try:
            for rows in _batched(self._table.rows()):
                arrays = [
                    arrow_column([row[position] for row in rows], type_)
                    for position, type_ in zip(self._positions, self._types, strict=True)
                ]
                yield pyarrow.record_batch(arrays, schema=schema)
        except Exception as error:
            # DuckDB makes an error of its own of it; this one says more.
            self.failure = error
            raise

    def value(self, row: Sequence[Any], index: int) -> Any:
        return row[self._positions[index]]


def _batched(rows: Iterator[Sequence[Any]]) -> Iterator[list[Sequence[Any]]]:
    batch: list[Sequence[Any]] = []
    for row in rows:
        batch.append(row)
        if len(batch) == _BATCH_ROWS:
            yield batch
            batch = []
    if batch:
        yield batch


def _first_misfit(
    connection: Any, request: ReadRequest, table: ForeignTable, reading: _Reading
) -> NodeFailedError | None:
    """Find the first value that does not fit, and say so; None where all do."""
    conditions = [misfit(quoted(f"c{index}"), type_, target) for index, _, type_, target in reading]
    with reading.registered(connection):
        found = connection.execute(
            f"SELECT place, [{', '.join(conditions)}] FROM (SELECT row_number() OVER () AS place, * FROM {_VIEW})"
            f" WHERE {' OR '.join(conditions)} ORDER BY place LIMIT 1"
        ).fetchall()
    if not found:
        return None
    number, index = found[0][0], found[0][1].index(True)
    _, name, _, target = list(reading)[index]
    value = reading.value(next(row for place, row in enumerate(table.rows(), 1) if place == number), index)
    text = text_of(value) if not isinstance(value, bytes) else repr(value)
    shown = repr(text) if text is None or len(text) <= _LONGEST_VALUE_SHOWN else repr(text[:_LONGEST_VALUE_SHOWN] + "…")
    place, row = table.place(number)
    declared = request.declared_type(name)
    if declared is not None:
        what, hint = f"is declared {declared}", "correct the value, or the data_type of the column"
    else:
        what, hint = f"is {target} in the table", "correct the value, or declare the column's type in schema"
    return NodeFailedError(f"column '{name}' {what}, but {row} has {shown}", place=place, hint=hint)


def _mixed_bytes(table: ForeignTable, name: str) -> NodeFailedError:
    position = list(table.own_types).index(name)
    number = next(
        (place for place, row in enumerate(table.rows(), 1) if class_of(row[position]) == "bytes"),
        1,
    )
    place, row = table.place(number)
    message = f"column '{name}' holds bytes in {row} and other values elsewhere"
    return NodeFailedError(message, place=place, hint="leave the column out by a schema, or correct the values")


def refuse_alike(names: Sequence[str], place: Place) -> None:
    """Refuse columns of one name, whatever the case. Raises NodeFailedError."""
    seen: dict[str, str] = {}
    for name in names:
        if fold(name) in seen:
            raise NodeFailedError(f"two columns are called '{name}'", place=place, hint="rename one of them")
        seen[fold(name)] = name
