"""What a change of a query does to those who read its output, judged by the two texts alone.

This is the way out where schemas are unknown. It compares the :class:`~seeknal.dag.sql_shape.QueryShape` of both
texts: output columns first, then the tables they read, then the rest. A text without a readable shape can only be
said to differ, which is NON_BREAKING.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from seeknal.dag.canonical import canonical_sql, tokens
from seeknal.dag.change import ChangeCategory
from seeknal.dag.sql_shape import OutputColumn, QueryShape, Star, shape_of

# Parts of a SELECT by sqlglot's name, and what to call them when they changed.
_CLAUSES = {
    "with_": "the CTEs",
    "distinct": "DISTINCT",
    "from_": "FROM",
    "joins": "the joins",
    "where": "the filter (WHERE)",
    "group": "GROUP BY",
    "having": "the filter on groups (HAVING)",
    "qualify": "the filter on windows (QUALIFY)",
    "order": "ORDER BY",
    "limit": "LIMIT",
    "offset": "OFFSET",
    "sample": "the sample",
}


@dataclass(frozen=True)
class SqlChange:
    """What a change of SQL means, with a line for each thing that changed."""

    category: ChangeCategory
    details: list[str] = field(default_factory=list)
    removed_columns: list[str] = field(default_factory=list)
    added_columns: list[str] = field(default_factory=list)


def classify_sql_change(old_sql: str | None, new_sql: str | None) -> ChangeCategory:
    """Say what a change of a query means to those who read its output.

    METADATA where only comments, white space or the case of keywords differ; BREAKING where an output column is
    removed, renamed or cast to another type, where a table is no longer read, or where the query is gone;
    NON_BREAKING otherwise, and where either text cannot be parsed.
    """
    return compare_sql(old_sql, new_sql).category


def describe_sql_change(old_sql: str | None, new_sql: str | None) -> list[str]:
    """List what a change of a query does, one line each, such as ``Added 'discount_pct' column``."""
    return compare_sql(old_sql, new_sql).details


def compare_sql(
    old_sql: str | None, new_sql: str | None, *, old_inputs: Sequence[str] = (), new_inputs: Sequence[str] = ()
) -> SqlChange:
    """Compare two queries; the ids in ``…_inputs`` are what ``input_0``, ``input_1``, … and ``__THIS__`` stand for."""
    old_sql, new_sql = old_sql or "", new_sql or ""
    if old_sql == new_sql:
        return SqlChange(ChangeCategory.METADATA)
    old_form, new_form = canonical_sql(old_sql), canonical_sql(new_sql)
    if old_form == new_form:
        return SqlChange(ChangeCategory.METADATA, ["Changed formatting or comments only"])
    if not old_form:
        return SqlChange(ChangeCategory.NON_BREAKING, ["Added the query"])
    if not new_form:
        return SqlChange(ChangeCategory.BREAKING, ["Removed the query"])
    if differs_in_case_only(old_sql, new_sql):
        return SqlChange(ChangeCategory.METADATA, ["Changed the case of keywords only"])
    old, new = shape_of(old_sql, old_inputs), shape_of(new_sql, new_inputs)
    if old is None or new is None:
        return SqlChange(ChangeCategory.NON_BREAKING, ["Changed the query"])
    return _compare_shapes(old, new)


def differs_in_case_only(old_sql: str, new_sql: str) -> bool:
    """Say whether two texts are one query with its keywords or functions in another case, names in the same.

    It finds what the canonical form leaves open: words such as ``over`` or ``between`` are names in one place and
    keywords in another, and only a parser knows which.
    """
    old_tokens, new_tokens = tokens(old_sql), tokens(new_sql)
    if len(old_tokens) != len(new_tokens):
        return False
    for old_token, new_token in zip(old_tokens, new_tokens, strict=True):
        if old_token != new_token and (
            (old_token.kind, old_token.before) != (new_token.kind, new_token.before)
            or old_token.kind != "word"
            or old_token.text.lower() != new_token.text.lower()
        ):
            return False
    old, new = shape_of(old_sql), shape_of(new_sql)
    return old is not None and new is not None and old.text == new.text


def _compare_shapes(old: QueryShape, new: QueryShape) -> SqlChange:
    columns = _ColumnDiff(old, new)
    gone = [table for table in old.tables if table not in new.tables]
    come = [table for table in new.tables if table not in old.tables]
    details = columns.details()
    details += [f"Removed table '{table}'" for table in gone] + [f"Added table '{table}'" for table in come]
    told = ("from_", "joins") if gone or come else ()
    details += [
        f"Changed {called}"
        for clause, called in _CLAUSES.items()
        if clause not in told and old.clauses.get(clause) != new.clauses.get(clause)
    ]
    is_breaking = bool(columns.removed or columns.retyped or columns.lost_stars or gone)
    category = ChangeCategory.BREAKING if is_breaking else ChangeCategory.NON_BREAKING
    return SqlChange(category, details or ["Changed the query"], columns.removed, columns.added)


class _ColumnDiff:
    """Compares the output columns of two queries; names meet without regard to case, as in DuckDB.

    A star makes the columns of a table present that no text names. So a column can pass from a star to a
    projection of its own (``* REPLACE``, ``* EXCLUDE (a), f(a) AS a``) and back without being added or removed.
    """

    def __init__(self, old: QueryShape, new: QueryShape) -> None:
        self._old = {column.name.lower(): column for column in old.columns if isinstance(column, OutputColumn)}
        self._new = {column.name.lower(): column for column in new.columns if isinstance(column, OutputColumn)}
        old_stars, new_stars = _stars(old), _stars(new)
        passed = {
            name
            for table in old_stars.keys() & new_stars.keys()
            for name in old_stars[table] ^ new_stars[table]
            if name in (self._old if name in old_stars[table] else self._new)
        }
        common = [name for name in self._old if name in self._new]
        recased = [name for name in common if _is_recased(self._old[name], self._new[name])]

        self.removed = [
            column.name
            for name, column in self._old.items()
            if name in recased
            or not (name in self._new or name in passed or (column.is_plain and _brings(new_stars, name)))
        ]
        self.added = [
            column.name
            for name, column in self._new.items()
            if name in recased
            or not (name in self._old or name in passed or (column.is_plain and _brings(old_stars, name)))
        ]
        for table in old_stars.keys() & new_stars.keys():
            self.removed += sorted(new_stars[table] - old_stars[table] - self._new.keys() - set(self.removed))
            self.added += sorted(old_stars[table] - new_stars[table] - self._old.keys() - set(self.added))
        self.lost_stars = [table for table in old_stars if table not in new_stars]
        self.new_stars = [table for table in new_stars if table not in old_stars]

        self.retyped: list[tuple[str, str | None, str | None]] = []
        self.recomputed: list[str] = []
        for name in [*common, *sorted(passed - set(common))]:
            before, after = self._old.get(name), self._new.get(name)
            old_cast, new_cast = before.cast if before else None, after.cast if after else None
            spelled = (after or before or OutputColumn(name, "")).name
            if old_cast != new_cast:
                self.retyped.append((spelled, old_cast, new_cast))
            elif not (before and after and before.expression == after.expression) and name not in recased:
                self.recomputed.append(spelled)
        self.is_reordered = common != [name for name in self._new if name in self._old]

    def details(self) -> list[str]:
        lines = [f"Removed '{name}' column" for name in self.removed]
        lines += [f"Removed all columns of '{table}' that are not named" for table in self.lost_stars]
        lines += [f"Added '{name}' column" for name in self.added]
        lines += [f"Added all columns of '{table}'" for table in self.new_stars]
        for name, old_cast, new_cast in self.retyped:
            origin = f" from {old_cast}" if old_cast else ""
            target = f" to {new_cast}" if new_cast else ": no cast any more"
            lines.append(f"Changed type of '{name}'{origin}{target}")
        lines += [f"Changed how '{name}' is computed" for name in self.recomputed]
        return [*lines, "Changed the order of the columns"] if self.is_reordered else lines


def _is_recased(old: OutputColumn, new: OutputColumn) -> bool:
    """Say whether a name changed its case. Only an alias tells; else the case is the input's and unknown here."""
    return old.name != new.name and old.is_aliased and new.is_aliased


def _stars(shape: QueryShape) -> dict[str, frozenset[str]]:
    """Map the tables whose columns a star brings to the columns that it leaves out."""
    stars: dict[str, frozenset[str]] = {}
    for column in shape.columns:
        if isinstance(column, Star):
            stars[column.table] = stars.get(column.table, column.without) & column.without
    return stars


def _brings(stars: dict[str, frozenset[str]], name: str) -> bool:
    return any(name not in without for without in stars.values())
