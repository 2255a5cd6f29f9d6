"""Tables as values, and queries over them for the model test: each has its SQL, and what that gives as plain Python.

- *table*: column names and rows of whole numbers, in order. DuckDB notes of a column whether it may have NULLs, as far
  as it can tell without looking: of a file's columns and of aggregates it may. That is part of a table as well.
- *needs*: for each input the columns that a query reads. Nothing else of an input may make it run again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

Row = tuple[int, ...]


@dataclass(frozen=True)
class Table:
    """Rows in order. ``columns`` are names; all values are 64-bit numbers. ``nullable``: as DuckDB says."""

    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    nullable: frozenset[str] = frozenset()

    def values(self, name: str) -> tuple[int, ...]:
        return tuple(row[self.columns.index(name)] for row in self.rows)

    def csv(self) -> str:
        return "".join(",".join(map(str, row)) + "\n" for row in (self.columns, *self.rows))


@dataclass(frozen=True)
class Select:
    """Columns of one input, with a constant added to each, and perhaps only some rows.

    ``outputs`` are (alias, column, constant); without a column the constant alone. ``minimum`` is (column, number).
    """

    source: str
    outputs: tuple[tuple[str, str | None, int], ...]
    minimum: tuple[str, int] | None = None

    def sql(self) -> str:
        where = f" WHERE {self.minimum[0]} >= {self.minimum[1]}" if self.minimum else ""
        return f"SELECT {', '.join(map(self._output, self.outputs))} FROM {self.source}{where}"

    @staticmethod
    def _output(output: tuple[str, str | None, int]) -> str:
        alias, column, constant = output
        value = f"CAST({constant} AS BIGINT)" if column is None else f"{column} + {constant}" if constant else column
        return f"{value} AS {alias}"

    def needs(self, schemas: Mapping[str, tuple[str, ...]]) -> dict[str, set[str]]:
        read = {column for _, column, _ in self.outputs if column is not None}
        return {self.source: read | ({self.minimum[0]} if self.minimum else set())}

    def columns(self, schemas: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
        return tuple(alias for alias, _, _ in self.outputs)

    def rows(self, tables: Mapping[str, Table]) -> Iterator[Row]:
        table = tables[self.source]
        for row in table.rows:
            value = dict(zip(table.columns, row, strict=True))
            if self.minimum is None or value[self.minimum[0]] >= self.minimum[1]:
                yield tuple(k if column is None else value[column] + k for _, column, k in self.outputs)


@dataclass(frozen=True)
class Star:
    """All of an input."""

    source: str

    def sql(self) -> str:
        return f"SELECT * FROM {self.source}"

    def needs(self, schemas: Mapping[str, tuple[str, ...]]) -> dict[str, set[str]]:
        return {self.source: set(schemas[self.source])}

    def columns(self, schemas: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
        return schemas[self.source]

    def rows(self, tables: Mapping[str, Table]) -> Iterator[Row]:
        yield from tables[self.source].rows


@dataclass(frozen=True)
class Join:
    """Two inputs on one column of each. ``outputs`` are (alias, 0 or 1 for the side, column)."""

    left: str
    right: str
    on: tuple[str, str]
    outputs: tuple[tuple[str, int, str], ...]

    def sql(self) -> str:
        outputs = ", ".join(f"{'lr'[side]}.{column} AS {alias}" for alias, side, column in self.outputs)
        on = f"l.{self.on[0]} = r.{self.on[1]}"
        return f"SELECT {outputs} FROM {self.left} AS l JOIN {self.right} AS r ON {on} ORDER BY ALL"

    def needs(self, schemas: Mapping[str, tuple[str, ...]]) -> dict[str, set[str]]:
        read: dict[str, set[str]] = {self.left: {self.on[0]}}
        read.setdefault(self.right, set()).add(self.on[1])
        for _, side, column in self.outputs:
            read[(self.left, self.right)[side]].add(column)
        return read

    def columns(self, schemas: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
        return tuple(alias for alias, _, _ in self.outputs)

    def rows(self, tables: Mapping[str, Table]) -> Iterator[Row]:
        sides = [
            [dict(zip(tables[name].columns, row, strict=True)) for row in tables[name].rows]
            for name in (self.left, self.right)
        ]
        yield from sorted(
            tuple((left, right)[side][column] for _, side, column in self.outputs)
            for left in sides[0]
            for right in sides[1]
            if left[self.on[0]] == right[self.on[1]]
        )


@dataclass(frozen=True)
class Group:
    """The sum of one column, and the number of rows, for each value of another."""

    source: str
    key: str
    value: str
    aggregates = ("total", "n")

    def sql(self) -> str:
        total = f"CAST(sum({self.value}) AS BIGINT) AS total"
        return f"SELECT {self.key} AS key, {total}, count(*) AS n FROM {self.source} GROUP BY {self.key} ORDER BY 1"

    def needs(self, schemas: Mapping[str, tuple[str, ...]]) -> dict[str, set[str]]:
        return {self.source: {self.key, self.value}}

    def columns(self, schemas: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
        return ("key", "total", "n")

    def rows(self, tables: Mapping[str, Table]) -> Iterator[Row]:
        table = tables[self.source]
        pairs = list(zip(table.values(self.key), table.values(self.value), strict=True))
        for key in sorted({key for key, _ in pairs}):
            found = [value for other, value in pairs if other == key]
            yield key, sum(found), len(found)


@dataclass(frozen=True)
class Count:
    """How many rows an input has: reads no column of it."""

    source: str
    aggregates = ("n",)

    def sql(self) -> str:
        return f"SELECT count(*) AS n FROM {self.source}"

    def needs(self, schemas: Mapping[str, tuple[str, ...]]) -> dict[str, set[str]]:
        return {self.source: set()}

    def columns(self, schemas: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
        return ("n",)

    def rows(self, tables: Mapping[str, Table]) -> Iterator[Row]:
        yield (len(tables[self.source].rows),)


Query = Select | Star | Join | Group | Count
