"""Random queries over random tables, for tests of what a query reads.

The names of columns come from a small pool that all tables, aliases and CTEs share, so that the same name is often a
column of several tables, of an outer query, or an alias: that is where a name can be captured.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

NAMES = ("a", "b", "c", "d", "e", "k", "Sum", "two words", "x.y")
TYPES = ("INTEGER", "VARCHAR", "DOUBLE", "BOOLEAN", "INTEGER[]", "STRUCT(p INTEGER, q VARCHAR)")
NODES = ("source.t", "source.u", "transform.v")

Columns = dict[str, str]


@dataclass(frozen=True)
class Table:
    """A table's columns and, for each, its values as SQL texts."""

    columns: Columns
    values: dict[str, tuple[str, ...]]
    row_count: int

    def query(self) -> str:
        """SQL that gives the table's rows."""
        names = list(self.columns)
        cells = [
            "(" + ", ".join(f"CAST({self.values[name][row]} AS {self.columns[name]})" for name in names) + ")"
            for row in range(self.row_count)
        ]
        listed = ", ".join(quoted(name) for name in names)
        return f"SELECT * FROM (VALUES {', '.join(cells)}) AS made({listed})"


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


_LITERALS = {
    "INTEGER": st.sampled_from(["0", "1", "2", "3", "-1", "NULL"]),
    "DOUBLE": st.sampled_from(["0.5", "1", "2.25", "-3", "NULL"]),
    "VARCHAR": st.sampled_from(["'x'", "'y'", "'2'", "''", "NULL"]),
    "BOOLEAN": st.sampled_from(["true", "false", "NULL"]),
    "INTEGER[]": st.sampled_from(["[1, 2]", "[]", "[NULL, 3]", "NULL"]),
    "STRUCT(p INTEGER, q VARCHAR)": st.sampled_from(["{'p': 1, 'q': 'x'}", "{'p': NULL, 'q': 'y'}", "NULL"]),
}


def values(type_: str, count: int) -> st.SearchStrategy[tuple[str, ...]]:
    return st.lists(_LITERALS[type_], min_size=count, max_size=count).map(tuple)


@st.composite
def tables(draw: st.DrawFn) -> dict[str, Table]:
    found = {}
    for node_id in NODES:
        names = draw(st.lists(st.sampled_from(NAMES), min_size=2, max_size=5, unique_by=str.lower))
        columns = {name: draw(st.sampled_from(TYPES)) for name in names}
        if "k" not in columns and draw(st.booleans()):
            columns["k"] = "INTEGER"
        count = draw(st.integers(1, 6))
        found[node_id] = Table(columns, {name: draw(values(type_, count)) for name, type_ in columns.items()}, count)
    return found


class Scope:
    """What can be named at a place in a query: relations by alias, innermost last."""

    def __init__(self, relations: list[tuple[str, Columns]], outer: Scope | None = None) -> None:
        self.relations = relations
        self.outer = outer

    def all(self) -> list[tuple[str, Columns]]:
        return self.relations + (self.outer.all() if self.outer else [])


class QueryMaker:
    """Draws a query. What it draws need not bind; most of it does."""

    def __init__(self, draw: st.DrawFn, columns: dict[str, Columns]) -> None:
        self.draw = draw
        self.columns = columns
        self.ctes: dict[str, Columns] = {}
        self.count = 0

    def pick(self, *choices: Any) -> Any:
        return self.draw(st.sampled_from(choices))

    def chance(self, percent: int) -> bool:
        return self.draw(st.integers(1, 100)) <= percent

    def alias(self) -> str:
        self.count += 1
        return f"r{self.count}"

    # expressions

    def column(self, scope: Scope, type_: str | None = None) -> tuple[str, str]:
        """A reference to a column, qualified or not, of this or an outer query, and its type."""
        relations = scope.all() if self.chance(25) else scope.relations
        options = [
            (alias, name, kind)
            for alias, columns in relations
            for name, kind in columns.items()
            if type_ in (None, kind)
        ]
        if not options:
            return (self.draw(_LITERALS[type_]) if type_ in _LITERALS else "1"), type_ or "INTEGER"
        alias, name, kind = self.draw(st.sampled_from(options))
        return (f"{alias}.{quoted(name)}" if self.chance(60) else quoted(name)), kind

    def expression(self, scope: Scope, depth: int, type_: str = "INTEGER") -> str:
        """An expression without aggregates, of a type (more or less)."""
        if depth <= 0 or self.chance(45):
            return self.column(scope, type_)[0] if self.chance(85) else str(self.draw(_LITERALS[type_]))
        if type_ == "BOOLEAN":
            return self.condition(scope, depth - 1)
        one = self.expression(scope, depth - 1, type_)
        if self.chance(15):
            return f"CASE WHEN {self.condition(scope, depth - 1)} THEN {one} ELSE NULL END"
        if self.chance(15):
            return f"({self.subquery(scope, depth - 1, type_)})"
        two = self.expression(scope, depth - 1, type_)
        if self.chance(15):
            return f"coalesce({one}, {two})"
        if type_ in ("INTEGER", "DOUBLE"):
            text = self.expression(scope, depth - 1, "VARCHAR")
            entry = self.column(scope, "STRUCT(p INTEGER, q VARCHAR)")[0]
            things = self.column(scope, "INTEGER[]")[0]
            return str(
                self.pick(
                    f"({one} + {two})",
                    f"({one} * 2 - {two})",
                    f"length({text})",
                    f"({entry}).p",
                    f"list_sum({things})",
                    f"list_sum(list_transform({things}, lambda e: e + {one}))",
                    f"len([e for e in {things} if e > {one}])",
                    f"greatest({one}, {two})",
                )
            )
        if type_ == "VARCHAR":
            any_ = self.column(scope)[0]
            return str(self.pick(f"({one} || {two})", f"CAST({any_} AS VARCHAR)", f"typeof({any_})", f"upper({one})"))
        return one

    def condition(self, scope: Scope, depth: int) -> str:
        type_ = self.pick("INTEGER", "VARCHAR", "DOUBLE", "BOOLEAN")
        one = self.column(scope, type_)[0]
        if depth <= 0 or self.chance(40):
            return str(
                self.pick(f"{one} IS NOT NULL", f"{one} = {self.draw(_LITERALS[type_])}", "true", f"{one} < {one}")
            )
        two = self.expression(scope, depth - 1, type_)
        inner = self.subquery(scope, depth - 1, type_)
        return str(
            self.pick(
                f"{one} < {two}",
                f"{one} IS DISTINCT FROM {two}",
                f"{one} IN ({two}, {one})",
                f"{one} IN ({inner})",
                f"EXISTS ({inner})",
                f"NOT ({self.condition(scope, depth - 1)})",
                f"({self.condition(scope, depth - 1)} OR {self.condition(scope, depth - 1)})",
                f"{one} > ALL ({inner})",
                "false",
            )
        )

    def subquery(self, scope: Scope, depth: int, type_: str) -> str:
        """A subquery of one column and at most one row, which may name columns of the outer query."""
        source, relations = self.source(depth, scope)
        inner = Scope(relations, scope)
        where = f" WHERE {self.condition(inner, depth - 1)}" if self.chance(70) else ""
        what = self.expression(inner, depth - 1, type_)
        if type_ in ("INTEGER", "DOUBLE"):
            return f"SELECT {self.pick('max', 'min', 'sum', 'count')}({what}) FROM {source}{where}"
        return f"SELECT max({what}) FROM {source}{where}"

    # relations

    def source(self, depth: int, outer: Scope | None) -> tuple[str, list[tuple[str, Columns]]]:
        """What may stand behind FROM, and the relations that it brings."""
        left, relations = self.relation(depth, outer)
        for _ in range(self.draw(st.integers(0, 2 if depth > 0 else 0))):
            right, more = self.relation(depth - 1, outer)
            columns = {name for _, found in relations for name in found}
            shared = sorted(columns & {name for _, found in more for name in found})
            kind = self.pick("JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN", "SEMI JOIN", "ANTI JOIN")
            way = self.pick("on", "using", "natural", "cross", "positional", "lateral", "asof")
            if way == "using" and shared:
                left += f" {kind} {right} USING ({quoted(self.draw(st.sampled_from(shared)))})"
            elif way == "natural" and shared:
                left += f" NATURAL {kind} {right}"
            elif way == "positional":
                left += f" POSITIONAL JOIN {right}"
            elif way == "lateral":
                alias = self.alias()
                made = self.pick(*TYPES[:4])
                scope = Scope(relations, outer)
                left += f", LATERAL ({self.subquery(scope, depth - 1, made)}) AS {alias}(made)"
                more = [(alias, {"made": made})]
            elif way in ("on", "asof"):
                both = Scope(relations + more, outer)
                one, type_ = self.column(Scope(relations, outer))
                two = self.column(Scope(more, outer), type_)[0]
                if way == "asof":
                    left += f" ASOF LEFT JOIN {right} ON {one} >= {two}"
                else:
                    left += f" {kind} {right} ON {one} = {two} AND {self.condition(both, depth - 1)}"
            else:
                left += f" CROSS JOIN {right}"
            if not (kind in ("SEMI JOIN", "ANTI JOIN") and way in ("on", "using", "natural")):
                relations = relations + more
        return left, relations

    def relation(self, depth: int, outer: Scope | None) -> tuple[str, list[tuple[str, Columns]]]:
        choices = ["table"] * 4 + (["cte"] * 3 if self.ctes else [])
        choices += (["query"] * 3 + ["renamed", "pivot", "unpivot", "unnest", "values"]) if depth > 0 else []
        choice = self.pick(*choices)
        alias = self.alias()
        if choice == "cte":
            name = self.draw(st.sampled_from(sorted(self.ctes)))
            return f"{name} AS {alias}", [(alias, self.ctes[name])]
        if choice == "query":
            text, columns = self.query(depth - 1, outer)
            return f"({text}) AS {alias}", [(alias, columns)]
        if choice == "values":
            return f"(VALUES (1, 'x'), (2, NULL)) AS {alias}(a, b)", [(alias, {"a": "INTEGER", "b": "VARCHAR"})]
        node_id = self.draw(st.sampled_from(NODES))
        columns = self.columns[node_id]
        if choice == "renamed":
            names = [self.pick(*NAMES) for _ in range(self.draw(st.integers(1, len(columns))))]
            names = list({name.lower(): name for name in names}.values())
            renamed = dict(zip([*names, *list(columns)[len(names) :]], columns.values(), strict=False))
            return f"{node_id} AS {alias}({', '.join(map(quoted, names))})", [(alias, renamed)]
        numbers = [name for name, type_ in columns.items() if type_ == "INTEGER"]
        texts = [name for name, type_ in columns.items() if type_ == "VARCHAR"]
        lists = [name for name, type_ in columns.items() if type_ == "INTEGER[]"]
        if choice == "pivot" and numbers and texts:
            number, text = quoted(numbers[0]), quoted(texts[0])
            made = f"(PIVOT {node_id} ON {text} IN ('x', 'y') USING sum({number}) GROUP BY {number}) AS {alias}"
            return made, [(alias, {numbers[0]: "INTEGER", "x": "INTEGER", "y": "INTEGER"})]
        if choice == "unpivot" and len(numbers) > 1:
            kept = {name: type_ for name, type_ in columns.items() if name not in numbers}
            made = f"(UNPIVOT {node_id} ON {', '.join(map(quoted, numbers))} INTO NAME which VALUE amount) AS {alias}"
            return made, [(alias, {**kept, "which": "VARCHAR", "amount": "INTEGER"})]
        if choice == "unnest" and lists:
            item = self.alias()
            made = f"{node_id} AS {alias}, unnest({alias}.{quoted(lists[0])}) AS {item}(item)"
            return made, [(alias, columns), (item, {"item": "INTEGER"})]
        return f"{node_id} AS {alias}", [(alias, columns)]

    # queries

    def select_list(self, scope: Scope, depth: int) -> tuple[str, Columns]:
        items: list[str] = []
        columns: Columns = {}
        if self.chance(30):
            alias, found = self.draw(st.sampled_from(scope.relations))
            kept = dict(found)
            star = f"{alias}.*"
            if len(kept) > 1 and self.chance(40):
                name = self.draw(st.sampled_from(sorted(kept)))
                del kept[name]
                star += f" EXCLUDE ({quoted(name)})"
            elif self.chance(30):
                name = self.draw(st.sampled_from(sorted(kept)))
                kept[name] = "INTEGER"
                star += f" REPLACE ({self.expression(scope, 0)} AS {quoted(name)})"
            items.append(star)
            columns.update(kept)
        elif self.chance(10):
            items.append(f"COLUMNS('^[{self.pick('ab', 'cd', 'ek')}]$')")
            for _, found in scope.relations:
                columns.update({name: type_ for name, type_ in found.items() if len(name) == 1})
        for _ in range(self.draw(st.integers(0 if items else 1, 3))):
            name = self.pick(*NAMES)
            if name in columns:
                continue
            type_ = self.pick("INTEGER", "INTEGER", "VARCHAR", "DOUBLE", "BOOLEAN")
            made = self.expression(scope, depth, type_)
            if self.chance(15):
                partition, order = self.column(scope)[0], self.column(scope)[0]
                function = self.pick("row_number()", "rank()", f"lag({made})", f"first_value({made})", f"count({made})")
                made = f"{function} OVER (PARTITION BY {partition} ORDER BY {order})"
                type_ = "INTEGER"
            items.append(f"{made} AS {quoted(name)}")
            columns[name] = type_
            # A later item may name an earlier one.
            scope = Scope([*scope.relations, ("", {})], scope.outer)
        return ", ".join(items), columns

    def query(self, depth: int, outer: Scope | None = None) -> tuple[str, Columns]:
        if depth > 0 and self.chance(15):
            one, columns = self.query(depth - 1, outer)
            source, relations = self.source(depth - 1, outer)
            made = [f"{self.expression(Scope(relations, outer), 1, type_)}" for type_ in columns.values()]
            two = f"SELECT {', '.join(made)} FROM {source}"
            way = self.pick("UNION", "UNION ALL", "EXCEPT", "INTERSECT ALL", "UNION BY NAME", "UNION ALL BY NAME")
            return f"({one}) {way} ({two})", columns
        source, relations = self.source(depth, outer)
        scope = Scope(relations, outer)
        where = f" WHERE {self.condition(scope, depth)}" if self.chance(50) else ""
        if self.chance(25):
            return self.grouped(source, scope, where, depth)
        items, columns = self.select_list(scope, depth)
        text = f"SELECT {items} FROM {source}{where}"
        if self.chance(10):
            key = self.column(scope)[0]
            text = f"SELECT DISTINCT ON ({key}) {items} FROM {source}{where}"
        elif self.chance(15):
            text = f"SELECT DISTINCT {items} FROM {source}{where}"
        if self.chance(10):
            partition, order = self.column(scope)[0], self.column(scope)[0]
            text += f" QUALIFY row_number() OVER (PARTITION BY {partition} ORDER BY {order}) = 1"
        return text + self.order(scope), columns

    def order(self, scope: Scope) -> str:
        if self.chance(70):
            return ""
        key = self.column(scope)[0] if self.chance(60) else self.pick("ALL", "1", quoted(self.pick(*NAMES)))
        return f" ORDER BY {key}" + (f" LIMIT {self.pick(1, 2, 3)}" if self.chance(60) else "")

    def grouped(self, source: str, scope: Scope, where: str, depth: int) -> tuple[str, Columns]:
        key, type_ = self.column(scope)
        name, total = self.pick(*NAMES), self.pick("total", "made")
        what = self.expression(scope, depth - 1)
        filtered = f" FILTER (WHERE {self.condition(scope, depth - 1)})" if self.chance(30) else ""
        made = self.pick(f"sum({what})", "count(*)", f"count({what})", f"max({what})", f"list({what} ORDER BY {what})")
        group = self.pick("ALL", "1", key, quoted(name), f"ROLLUP ({key})")
        having = f" HAVING {self.pick('max', 'count')}({self.column(scope)[0]}) IS NOT NULL" if self.chance(25) else ""
        items = f"{key} AS {quoted(name)}, {made}{filtered} AS {total}"
        if self.chance(15):
            return f"SELECT {made}{filtered} AS {total} FROM {source}{where}{having}", {total: "INTEGER"}
        return f"SELECT {items} FROM {source}{where} GROUP BY {group}{having}", {name: type_, total: "INTEGER"}

    def statement(self, depth: int) -> str:
        parts = []
        for index in range(self.draw(st.integers(0, 2))):
            name = f"w{index}"
            text, columns = self.query(depth - 1)
            parts.append(f"{name} AS {self.pick('', 'MATERIALIZED ', 'NOT MATERIALIZED ')}({text})")
            self.ctes[name] = columns
        text, _ = self.query(depth)
        return (f"WITH {', '.join(parts)} " if parts else "") + text


@st.composite
def questions(draw: st.DrawFn, depth: int = 2) -> tuple[dict[str, Table], str]:
    """Tables, and a query over them."""
    found = draw(tables())
    maker = QueryMaker(draw, {node_id: table.columns for node_id, table in found.items()})
    return found, maker.statement(depth)
