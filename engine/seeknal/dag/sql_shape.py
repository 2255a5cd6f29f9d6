"""The shape of a query as its text shows it: which tables it reads and which columns it gives.

This is for queries that DuckDB cannot bind, since the schemas of their inputs are unknown. sqlglot parses them.

- *output column*: a column of the outermost SELECT of the last query in the text, with the type that an explicit
  cast gives it. A column without an alias goes by its expression.
- *star*: all columns of a table, but for those that ``EXCLUDE``, ``REPLACE`` or ``RENAME`` take out. A star over a
  subquery or a CTE whose columns show is resolved.
- *stand-in*: the identifier that takes the place of a ``{{ template }}``, which sqlglot cannot read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import replace

from seeknal.late_pattern import late_pattern

if TYPE_CHECKING:
    from sqlglot import exp

_REF = late_pattern(r"""(?:\{\{\s*)?\bref\(\s*(['"])([A-Za-z_][A-Za-z0-9_.\-]*)\1\s*\)(?:\s*\}\})?""")
_TEMPLATE = late_pattern(r"\{\{(.*?)\}\}", re.DOTALL)
_STAND_IN = late_pattern(r"template_((?:[0-9a-f]{2})*)_", re.IGNORECASE)
_POSITIONAL_INPUT = late_pattern(r"input_(\d+)")


class OutputColumn(msgspec.Struct, frozen=True):
    """An output column.

    ``expression`` is what computes it; ``cast`` the type of an explicit cast around that. ``origin`` is the table of
    which it is a column under its own name, where that is certain. ``is_aliased`` says that the query spells the
    name; where it does not, the name has the case that the input gives it.
    """

    name: str
    expression: str
    cast: str | None = None
    origin: str | None = None
    is_aliased: bool = False


class Star(msgspec.Struct, frozen=True):
    """All columns of ``table`` except those in ``without`` (lower case), of which it certainly has ``known``."""

    table: str
    without: frozenset[str] = frozenset()
    known: frozenset[str] = frozenset()


Columns = list[OutputColumn | Star]


class QueryShape(msgspec.Struct, frozen=True):
    """What a text of SQL reads and gives.

    ``text`` is the parsed text printed again, without comments; ``clauses`` the parts of the outermost SELECT, printed,
    by sqlglot's name. ``tables`` are lower-case names (``source.orders``) in order of appearance.
    """

    text: str
    tables: list[str]
    columns: Columns
    clauses: dict[str, str]


def shape_of(sql: str, inputs: Sequence[str] = ()) -> QueryShape | None:
    """Read the shape of a text whose last statement is a query, or None where there is none to be read.

    ``inputs`` are the ids of the nodes that ``input_0``, ``input_1``, … and ``__THIS__`` stand for.
    """
    import sqlglot
    from sqlglot import exp
    from sqlglot.errors import SqlglotError

    try:
        parsed = sqlglot.parse(_without_templates(sql), dialect="duckdb")
        statements = [statement for statement in parsed if statement and not isinstance(statement, exp.Semicolon)]
        if not statements or not isinstance(statements[-1], exp.Query):
            return None
        return _Reader(inputs).read(statements)
    except (SqlglotError, RecursionError):
        # A query nested too deep for sqlglot is one that it cannot parse.
        return None


def _without_templates(sql: str) -> str:
    """Put table names in place of ``ref()`` and stand-ins in place of templates."""

    def table(match: re.Match[str]) -> str:
        kind, dot, name = match[2].partition(".")
        return f'"{kind}"."{name}"' if dot else f'"{kind}"'

    def stand_in(match: re.Match[str]) -> str:
        return f"template_{match[1].strip().encode().hex()}_"

    return _TEMPLATE.sub(stand_in, _REF.sub(table, sql))


def _with_templates(text: str) -> str:
    def template(match: re.Match[str]) -> str:
        return f"{{{{ {bytes.fromhex(match[1]).decode(errors='replace')} }}}}"

    return _STAND_IN.sub(template, text)


def _printed(expression: exp.Expr) -> str:
    return _with_templates(expression.sql(dialect="duckdb", comments=False))


class _Reader:
    """Reads one text. ``scope`` maps the names of CTEs and temporary tables, in lower case, to their columns."""

    def __init__(self, inputs: Sequence[str]) -> None:
        self._inputs = inputs

    def read(self, statements: Sequence[exp.Expr]) -> QueryShape:
        from sqlglot import exp

        scope: dict[str, Columns] = {}
        local: set[str] = set()
        for statement in statements[:-1]:
            made = statement.this.find(exp.Table) if isinstance(statement, exp.Create) else None
            if made:
                local.add(made.name.lower())
                if isinstance(statement.expression, exp.Query):
                    scope[made.name.lower()] = self._columns(statement.expression, scope)
        query = statements[-1]
        return QueryShape(
            text="; ".join(_printed(statement) for statement in statements),
            tables=list(dict.fromkeys(table for part in statements for table in self._tables(part, local))),
            columns=self._columns(query, scope),
            clauses={name: _clause(parts) for name, parts in query.args.items() if parts and name != "expressions"},
        )

    def _tables(self, statement: exp.Expr, local: set[str]) -> Iterator[str]:
        from sqlglot import exp

        hidden = local | {cte.alias.lower() for cte in statement.find_all(exp.CTE)}
        for table in statement.find_all(exp.Table):
            if table.name and (table.db or table.name.lower() not in hidden):
                yield self._table_name(table)

    def _table_name(self, table: exp.Table) -> str:
        name = ".".join(part.name for part in table.parts).lower()
        if name == "__this__" and self._inputs:
            return self._inputs[0].lower()
        position = _POSITIONAL_INPUT.fullmatch(name)
        if position and int(position[1]) < len(self._inputs):
            return self._inputs[int(position[1])].lower()
        return _with_templates(name)

    def _columns(self, query: exp.Expr, scope: Mapping[str, Columns]) -> Columns:
        from sqlglot import exp

        if isinstance(query, exp.Query):
            inner = dict(scope)
            for cte in query.ctes:
                inner[cte.alias.lower()] = _renamed(self._columns(cte.this, inner), cte.alias_column_names)
            scope = inner
        if isinstance(query, exp.Subquery):
            return self._columns(query.this, scope)
        if isinstance(query, exp.SetOperation):
            left = self._columns(query.left, scope)
            if not query.args.get("by_name"):
                return left
            names = {column.name.lower() for column in left if isinstance(column, OutputColumn)}
            right = self._columns(query.right, scope)
            return left + [column for column in right if isinstance(column, Star) or column.name.lower() not in names]
        if not isinstance(query, exp.Select):
            return [Star(_printed(query))]
        sources = dict(self._sources(query, scope))
        return [column for projection in query.expressions for column in self._project(projection, sources)]

    def _sources(self, select: exp.Select, scope: Mapping[str, Columns]) -> Iterator[tuple[str, Columns]]:
        """Yield what the FROM clause joins, by the names that columns can be qualified with, in lower case."""
        from sqlglot import exp

        first = select.args.get("from_")
        joins = [join for join in select.args.get("joins") or () if join.kind not in ("SEMI", "ANTI")]
        for part in [first, *joins] if first else joins:
            source = part.this
            if isinstance(source, exp.Lateral):
                source = source.this
            alias = part.this.alias_or_name.lower() or _printed(part.this)
            columns: Columns = [Star(_printed(source))]
            if isinstance(source, exp.Table) and not source.args.get("pivots"):
                known = None if source.db else scope.get(source.name.lower())
                columns = known if known is not None else [Star(self._table_name(source) or _printed(source))]
            elif isinstance(source, exp.Subquery) and not source.args.get("pivots"):
                columns = self._columns(source.this, scope)
            yield alias, _renamed(columns, part.this.alias_column_names)

    def _project(self, projection: exp.Expr, sources: Mapping[str, Columns]) -> Columns:
        from sqlglot import exp

        inner = projection.unalias().unnest()
        star = inner.this if isinstance(inner, exp.Column) else inner
        if isinstance(star, exp.Star):
            table = inner.table.lower() if isinstance(inner, exp.Column) else ""
            wanted = [sources.get(table, [Star(table)])] if table else list(sources.values())
            return self._expand(star, [column for columns in wanted for column in columns])
        # COLUMNS(…) anywhere, and `* LIKE …`, make any number of columns; count(*) makes one.
        if inner.find(exp.Columns) or (isinstance(inner.this, exp.Star) and not isinstance(inner, exp.Func)):
            return [Star(_printed(projection))]
        return [_column(projection, inner, sources)]

    def _expand(self, star: exp.Star, columns: Columns) -> Columns:
        renames = {alias.this.name.lower(): alias.alias for alias in star.args.get("rename") or ()}
        replaced = {alias.alias.lower(): alias for alias in star.args.get("replace") or ()}
        without = {part.name.lower() for part in star.args.get("except_") or ()}
        taken = frozenset({*renames, *replaced, *without})
        # What is taken out has to be there. Where there are several tables, nobody knows in which.
        known = taken if len(columns) == 1 else frozenset()
        kept: Columns = [
            replace(column, without=column.without | taken, known=column.known | known)
            if isinstance(column, Star)
            else column
            for column in columns
            if isinstance(column, Star) or column.name.lower() not in taken
        ]
        kept += [OutputColumn(new, old, is_aliased=True) for old, new in renames.items()]
        return kept + [_column(alias, alias.unalias(), {}) for alias in replaced.values()]


def _clause(parts: object) -> str:
    """Print a part of a query, which is an expression, a list of them, or a flag."""
    from sqlglot import exp

    listed = parts if isinstance(parts, list) else [parts]
    return ", ".join(_printed(part) if isinstance(part, exp.Expr) else str(part) for part in listed)


def _column(projection: exp.Expr, inner: exp.Expr, sources: Mapping[str, Columns]) -> OutputColumn:
    from sqlglot import exp

    expression, alias = _printed(inner), _with_templates(projection.alias)
    if isinstance(inner, exp.Cast):
        return OutputColumn(alias or expression, expression, inner.to.sql(dialect="duckdb"), is_aliased=bool(alias))
    if not isinstance(inner, exp.Column | exp.Dot):
        return OutputColumn(alias or expression, expression, is_aliased=bool(alias))
    name = _with_templates(inner.name)
    source = _source_of(inner, sources) if isinstance(inner, exp.Column) else None
    cast = source.cast if isinstance(source, OutputColumn) else None
    origin = source.origin if isinstance(source, OutputColumn) else source.table if source else None
    is_renamed = bool(alias) and alias.lower() != name.lower()
    return OutputColumn(alias or name, expression, cast, None if is_renamed else origin, bool(alias))


def _source_of(column: exp.Column, sources: Mapping[str, Columns]) -> OutputColumn | Star | None:
    """Find the one column, or the one star, that a reference can mean; None where there are several or none."""
    name = column.name.lower()
    reach = [sources.get(column.table.lower(), [])] if column.table else list(sources.values())
    candidates = [candidate for columns in reach for candidate in columns]
    named: Columns = [c for c in candidates if isinstance(c, OutputColumn) and c.name.lower() == name]
    found = named or [c for c in candidates if isinstance(c, Star) and name not in c.without]
    return found[0] if len(found) == 1 else None


def _renamed(columns: Columns, names: Sequence[str]) -> Columns:
    """Apply the column names of ``AS alias(a, b)`` as far as they reach."""
    if not names or any(isinstance(column, Star) for column in columns):
        return columns
    plain = [column for column in columns if isinstance(column, OutputColumn)]
    given = [replace(column, name=name, origin=None) for column, name in zip(plain, names, strict=False)]
    return [*given, *plain[len(given) :]]
