"""A project as values, for the model test: what its nodes say as YAML, and what they give as plain Python.

- *said*: a node as the project's manifest sees it; a comment in its YAML is no part of that, one in its SQL is.
- *key*: all that a node's output depends on. What has the same key is built once.

Nodes are immutable, so the model keeps projects of the past by keeping references to them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from tests.reliability.model_queries import Join, Query, Table


class DoesNotBind(Exception):
    """A node names a column that its input does not have."""


class DoesNotLink(Exception):
    """A node reads one that is not in the project."""


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
