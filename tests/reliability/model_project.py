"""A project as values, for the model test: what its nodes say as YAML, and what they give as plain Python.

- *table*: column names and rows of whole numbers, in order. DuckDB notes of a column whether it may have NULLs, as far
  as it can tell without looking: of a file's columns and of aggregates it may. That is part of a table as well.
- *said*: a node as the project's manifest sees it; a comment in its YAML is no part of that, one in its SQL is.
- *needs*: for each input the columns that a node reads. Nothing else of an input may make it run again.

Nodes are immutable, so the model keeps projects of the past by keeping references to them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

Row = tuple[int, ...]


class DoesNotBind(Exception):
    """A node names a column that its input does not have."""


class DoesNotLink(Exception):
    """A node reads one that is not in the project."""


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
class Check:
    """What must be true of a table. ``bound`` is a number of rows for the form ``row_count``."""

    form: str
    column: str
    bound: int

    def yaml(self) -> str:
        return {
            "range": f"{{type: range, column: {self.column}, max_val: {self.bound}}}",
            "condition": f"{self.column} < {self.bound}",
            "unique": f"{{type: unique, columns: [{self.column}]}}",
            "row_count": f"{{type: row_count, max: {self.bound}}}",
        }[self.form]

    def said(self) -> tuple[object, ...]:
        """What distinguishes its result from another's."""
        return {
            "range": ("range", self.column, self.bound),
            "condition": ("condition", self.column, self.bound),
            "unique": ("unique", self.column),
            "row_count": ("row_count", self.bound),
        }[self.form]

    def needs(self) -> tuple[str, ...]:
        return () if self.form == "row_count" else (self.column,)

    def passes(self, table: Table) -> bool:
        if self.form == "row_count":
            return len(table.rows) <= self.bound
        values = table.values(self.column)
        if self.form == "unique":
            return len(set(values)) == len(values)
        if self.form == "condition":
            return all(value < self.bound for value in values)
        return all(value <= self.bound for value in values)


# queries: each is its SQL, what it needs, and what it gives


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


# nodes


@dataclass(frozen=True)
class Source:
    """A CSV file. ``declared``: the columns that the node says it has, None where the file tells."""

    declared: tuple[str, ...] | None = None

    def inputs(self) -> tuple[str, ...]:
        return ()

    def yaml(self, name: str) -> str:
        columns = "".join(f"  - {{name: {column}, data_type: integer}}\n" for column in self.declared or ())
        return f"kind: source\nname: {name}\nsource: csv\ntable: data/{name}.csv\n" + (
            f"schema:\n{columns}" if columns else ""
        )


@dataclass(frozen=True)
class Transform:
    """A query, perhaps with an audit. ``remark`` is a comment in its SQL, ``blanks`` how it is laid out."""

    query: Query
    audit: Check | None = None
    remark: int = 0
    blanks: int = 1

    def inputs(self) -> tuple[str, ...]:
        query = self.query
        return tuple(dict.fromkeys((query.left, query.right))) if isinstance(query, Join) else (query.source,)

    def yaml(self, name: str) -> str:
        sql = self.query.sql().replace(" FROM ", " " * self.blanks + "FROM" + " " * self.blanks)
        remark = f"  -- remark {self.remark}\n" if self.remark else ""
        audits = f"audits:\n  - {self.audit.yaml()}\n" if self.audit else ""
        return f"kind: transform\nname: {name}\ntransform: |\n{remark}  {sql}\n{audits}"


@dataclass(frozen=True)
class Rule:
    """A check of another node."""

    source: str
    check: Check

    def inputs(self) -> tuple[str, ...]:
        return (self.source,)

    def yaml(self, name: str) -> str:
        return f"kind: rule\nname: {name}\ninputs: [{{ref: {self.source}}}]\nrule:\n  - {self.check.yaml()}\n"


@dataclass(frozen=True)
class Exposure:
    """A file that production delivers."""

    source: str

    def inputs(self) -> tuple[str, ...]:
        return (self.source,)

    def yaml(self, name: str) -> str:
        return f"kind: exposure\nname: {name}\npath: output/{name}.csv\ninputs: [{{ref: {self.source}}}]\n"


Node = Source | Transform | Rule | Exposure


@dataclass(frozen=True, repr=False)
class Project:
    """Nodes by id, the files of the sources by node id, and comments in the nodes' YAML by node id."""

    nodes: Mapping[str, Node]
    data: Mapping[str, Table]
    comments: Mapping[str, int] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"<project of {len(self.nodes)} nodes>"

    def files(self) -> dict[str, str]:
        """Every file of the project but its settings, by path."""
        found = {f"data/{name.partition('.')[2]}.csv": table.csv() for name, table in self.data.items()}
        for node_id, node in self.nodes.items():
            name = node_id.partition(".")[2]
            comment = f"# comment {self.comments[node_id]}\n" if node_id in self.comments else ""
            found[f"seeknal/{name}.yml"] = comment + node.yaml(name)
        return found

    def said(self) -> frozenset[tuple[str, Node]]:
        """What the project's manifest says: nodes, not their data, and no comments outside their fields."""
        return frozenset(self.nodes.items())

    def order(self) -> list[str]:
        """Every node after those that it reads. Raises DoesNotLink."""
        for node_id, node in self.nodes.items():
            for name in node.inputs():
                if name not in self.nodes:
                    raise DoesNotLink(f"{node_id} reads {name}")
        order: list[str] = []
        waiting = list(self.nodes)
        while waiting:
            node_id = next(name for name in waiting if all(i in order for i in self.nodes[name].inputs()))
            waiting.remove(node_id)
            order.append(node_id)
        return order

    def readers(self, node_id: str) -> list[str]:
        return [name for name, node in self.nodes.items() if node_id in node.inputs()]

    def schemas(self) -> dict[str, tuple[str, ...]]:
        """The columns of every table. Raises DoesNotLink, DoesNotBind."""
        found: dict[str, tuple[str, ...]] = {}
        for node_id in self.order():
            found |= self._schema(node_id, found)
        return found

    def _schema(self, node_id: str, known: Mapping[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
        node = self.nodes[node_id]
        if isinstance(node, Source):
            columns = node.declared or self.data[node_id].columns
            _insist(columns, self.data[node_id].columns, node_id)
            return {node_id: columns}
        if isinstance(node, Transform):
            for name, read in node.query.needs(known).items():
                _insist(read, known[name], node_id)
            columns = node.query.columns(known)
            _insist(node.audit.needs() if node.audit else (), columns, node_id)
            return {node_id: columns}
        if isinstance(node, Rule):
            _insist(node.check.needs(), known[node.source], node_id)
        return {}

    def table(self, node_id: str, tables: Mapping[str, Table]) -> Table | None:
        """What a node gives, from its inputs' tables; None for what makes no table."""
        node = self.nodes[node_id]
        if isinstance(node, Source):
            data = self.data[node_id]
            columns = node.declared or data.columns
            rows = zip(*(data.values(column) for column in columns), strict=True)
            return Table(columns, tuple(rows), frozenset(columns))
        if isinstance(node, Transform):
            schemas = {name: tables[name].columns for name in node.inputs()}
            nullable = frozenset(getattr(node.query, "aggregates", ()))
            return Table(node.query.columns(schemas), tuple(node.query.rows(tables)), nullable)
        return None

    def key(self, node_id: str, tables: Mapping[str, Table]) -> tuple[Any, ...]:
        """Everything that a node's output depends on, and nothing else; see the module's words."""
        node = self.nodes[node_id]
        if isinstance(node, Source):
            return ("source", node.declared, self.data[node_id].csv())
        schemas = {name: tables[name].columns for name in node.inputs()}
        if isinstance(node, Transform):
            inputs = _inputs(node.query.needs(schemas), tables)
            return ("transform", node.query.sql(), node.query.columns(schemas), inputs)
        if isinstance(node, Rule):
            return ("rule", node.check.said(), _inputs({node.source: set(node.check.needs())}, tables))
        return ("exposure", _inputs({node.source: set(schemas[node.source])}, tables))

    # editing

    def with_node(self, node_id: str, node: Node, data: Table | None = None) -> Project:
        files = dict(self.data) if data is None else {**self.data, node_id: data}
        return replace(self, nodes={**self.nodes, node_id: node}, data=files)

    def without_node(self, node_id: str) -> Project:
        nodes = {name: node for name, node in self.nodes.items() if name != node_id}
        data = {name: table for name, table in self.data.items() if name != node_id}
        return replace(self, nodes=nodes, data=data)

    def with_comment(self, node_id: str, number: int) -> Project:
        return replace(self, comments={**self.comments, node_id: number})


def _insist(wanted: Iterable[str], columns: Iterable[str], node_id: str) -> None:
    missing = set(wanted) - set(columns)
    if missing:
        raise DoesNotBind(f"{node_id} reads {missing}")


def _inputs(needs: Mapping[str, set[str]], tables: Mapping[str, Table]) -> tuple[Any, ...]:
    return tuple(
        (name, len(table.rows), tuple((c, table.values(c), c in table.nullable) for c in table.columns if c in read))
        for name, read, table in ((name, read, tables[name]) for name, read in needs.items())
    )
