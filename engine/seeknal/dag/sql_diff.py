"""What a change of a query does to those who read its output, judged by the two texts alone.

This is the way out where schemas are unknown. It compares the :class:`~seeknal.dag.sql_shape.QueryShape` of both
texts: output columns first, then the tables they read, then the rest. A text without a readable shape can only be
said to differ, which is NON_BREAKING.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import msgspec

from seeknal.dag.canonical import canonical_sql
from seeknal.dag.change import ChangeCategory
from seeknal.dag.sql_shape import OutputColumn, QueryShape, Star, shape_of
from seeknal.dag.tokens import tokens

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


class SqlChange(msgspec.Struct, frozen=True):
    """What a change of SQL means, with a line for each thing that changed."""

    category: ChangeCategory
    details: list[str] = []
    removed_columns: list[str] = []
    added_columns: list[str] = []


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
        if old_token.said != new_token.said and (
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

    A star makes columns present that no text names. So a column can pass from a star to a projection of its own
    (``* REPLACE``, ``* EXCLUDE (a), f(a) AS a``) and back without being added or removed. How often a name is
    present counts: the second ``a`` is written as ``a_1``.
    """

    def __init__(self, old: QueryShape, new: QueryShape) -> None:
        before, after = _Presence(old), _Presence(new)
        known, possible = before.known | after.known, before.possible | after.possible
        self.removed: list[str] = []
        self.added: list[str] = []
        self.retyped: list[tuple[str, str | None, str | None]] = []
        self.recomputed: list[str] = []
        for name in dict.fromkeys([*before.named, *after.named, *sorted(name for _, name in known | possible)]):
            old_named, new_named = before.named.get(name, []), after.named.get(name, [])
            certain = {table for table, column in known if column == name}
            guesses = [{table} for table, column in sorted(possible) if column == name]
            counts = [
                (before.count(name, holders), after.count(name, holders))
                for holders in ([certain] if certain or not guesses else guesses)
            ]
            old_count, new_count = max(counts, key=lambda pair: pair[0] - pair[1])
            spelled = (new_named or old_named or [OutputColumn(name, "")])[0].name
            if old_count and new_count:
                self._compare(spelled, old_named[:1], new_named[:1])
            if old_count > new_count:
                self.removed.append(f"{spelled}_{new_count}" if new_count else spelled)
            elif new_count > old_count:
                self.added.append(f"{spelled}_{old_count}" if old_count else spelled)
        self.lost_stars = sorted((before.star_tables - after.star_tables).elements())
        self.new_stars = sorted((after.star_tables - before.star_tables).elements())
        common = [name for name in before.named if name in after.named]
        self.is_reordered = common != [name for name in after.named if name in before.named]

    def _compare(self, spelled: str, old: list[OutputColumn], new: list[OutputColumn]) -> None:
        """Compare a column that is on both sides; an empty list stands for one that a star brings."""
        if old and new and old[0].name != new[0].name and old[0].is_aliased and new[0].is_aliased:
            # Only an alias tells the case of a name; that of others is the input's.
            self.removed.append(old[0].name)
            self.added.append(new[0].name)
            return
        old_cast, new_cast = old[0].cast if old else None, new[0].cast if new else None
        if old_cast != new_cast:
            self.retyped.append((spelled, old_cast, new_cast))
            return
        is_taken_as_it_is = all(column.origin for column in (*old, *new))
        if [column.expression for column in old] != [column.expression for column in new] and not is_taken_as_it_is:
            self.recomputed.append(spelled)

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


class _Presence:
    """Which names (lower case) a query gives, by themselves or through stars.

    ``known`` are the (table, name) of columns that must exist, since the query takes them or leaves them out of a
    star; ``possible`` those that exist in one of several tables.
    """

    def __init__(self, shape: QueryShape) -> None:
        self.named: dict[str, list[OutputColumn]] = {}
        self._stars: list[Star] = []
        self.known: set[tuple[str, str]] = set()
        self.possible: set[tuple[str, str]] = set()
        for column in shape.columns:
            if isinstance(column, Star):
                self._stars.append(column)
                self.known |= {(column.table, name) for name in column.known}
                self.possible |= {(column.table, name) for name in column.without - column.known}
            else:
                self.named.setdefault(column.name.lower(), []).append(column)
                if column.origin:
                    self.known.add((column.origin, column.name.lower()))
        self.star_tables = Counter(star.table for star in self._stars)

    def count(self, name: str, holders: set[str]) -> int:
        """Count the columns of a name, if ``holders`` are the tables that have one."""
        brought = sum(star.table in holders and name not in star.without for star in self._stars)
        return len(self.named.get(name, ())) + brought
