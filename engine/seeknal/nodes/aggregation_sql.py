"""The SQL of an aggregation: from the features a node declares to one SELECT over its rows.

- *row*: one row of the relation that is aggregated. It has an *event date* (``feature_date_col``) and an
  *as-of date* (``application_date_col``), which may be the same column. A DATE stands for its midnight.
- *key*: id, as-of date and ``group_by`` columns, each named once. There is one output row per distinct key of
  the relation, also where no row counts: counts are then 0 and everything else NULL. NULLs equal each other.
- *in time*: a row whose event date is not after its own as-of date. ``basic`` and ``since`` features count the
  key's rows that are in time, or all of them with ``point_in_time: false``. Where both dates are one column every
  row is in time; else a row that lacks a date is not.
- *window* of N days: the rows of the key's entity whose event date is after the as-of date minus N days and not
  after the as-of date. ``rolling`` and ``ratio`` features count these, whatever ``point_in_time`` says.
- *entity*: the rows that share a key's id and ``group_by`` values. Their own as-of dates do not matter, and each
  row counts once. So where a relation repeats every event for several as-of dates, name the as-of column in
  ``group_by``: windows then see only the rows of their own as-of date. (Where both dates are one column, naming
  it there changes nothing.)

Windows are evaluated as SQL window functions, in time n log n: a join of keys with rows costs less where an
entity has few keys, but grows with their product.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator

import msgspec

from seeknal.dag.names import did_you_mean
from seeknal.dag.sql import quoted
from seeknal.errors import Problem, ProjectError

# What a feature may ask for, and the function of DuckDB that computes it.
AGGREGATES = {
    "count": "count",
    "sum": "sum",
    "avg": "avg",
    "mean": "avg",
    "min": "min",
    "max": "max",
    "stddev": "stddev",
    "std": "stddev",
}
CONDITIONAL_AGGREGATES = {"count": "count", "sum": "sum"}

LONGEST_WINDOW_DAYS = 36_500

_WINDOW = re.compile(r"\s*([0-9]{1,9})\s*d?\s*", re.IGNORECASE)


class RollingWindow(msgspec.Struct, frozen=True, kw_only=True):
    """Aggregates over the days before the as-of date: ``{window: 7d, aggs: [sum]}``.

    - ``window``: a number of days (``7``, ``"7"``, ``7d``) or a list of them, each a window of its own and never a
      range
    - ``aggs``: ``count``, ``sum``, ``avg`` (``mean``), ``min``, ``max`` or ``stddev`` (``std``)
    - ``functions``: a synonym of ``aggs``
    """

    window: int | str | list[int | str]
    aggs: str | list[str] | None = None
    functions: str | list[str] | None = None


class RatioWindow(msgspec.Struct, frozen=True, kw_only=True):
    """One window's aggregate divided by another's; NULL where the divisor is 0 or NULL.

    - ``numerator``: a number of days
    - ``denominator``: a number of days
    - ``aggs``: the aggregates; ``sum`` without it
    - ``functions``: a synonym of ``aggs``
    """

    numerator: int | str
    denominator: int | str
    aggs: str | list[str] | None = None
    functions: str | list[str] | None = None


class SinceCondition(msgspec.Struct, frozen=True, kw_only=True):
    """A count of the rows that satisfy an SQL predicate, or a sum over them.

    - ``condition``: the predicate, over all columns of the rows
    - ``aggs``: ``count`` or ``sum``; ``count`` without it
    - ``functions``: a synonym of ``aggs``
    - ``name``: stands in for the feature's name in the output columns, so that a feature can have several
    """

    condition: str
    aggs: str | list[str] | None = None
    functions: str | list[str] | None = None
    name: str | None = None


class AggregationFeature(msgspec.Struct, frozen=True, kw_only=True):
    """A family of output columns over one column.

    - ``name``: the prefix of the output columns
    - ``column``: the column to aggregate; without it, the one called as the feature
    - ``basic``: aggregates over the key's rows, each a column ``<name>_<aggregate>``
    - ``rolling``: aggregates over the days up to the as-of date
    - ``ratio``: one window's aggregate divided by another's
    - ``since``: counts of, or sums over, the rows that satisfy a condition
    """

    name: str
    column: str | None = None
    basic: str | list[str] = []
    rolling: list[RollingWindow] = []
    ratio: list[RatioWindow] = []
    since: list[SinceCondition] = []


class AggregationSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What an aggregation computes.

    - ``id_col``: the entity's id
    - ``feature_date_col``: when a row happened
    - ``application_date_col``: as of when features are computed; may be the same column
    - ``group_by``: further columns of the key
    - ``features``: what to compute
    - ``point_in_time``: whether ``basic`` and ``since`` leave out rows that happened after their own as-of date
    """

    id_col: str
    feature_date_col: str
    application_date_col: str
    features: list[AggregationFeature]
    group_by: list[str] = []
    point_in_time: bool = True


class _Output(msgspec.Struct, frozen=True):
    """One feature column: ``aggregate(column)`` over the key's rows, over a window, or one window by another."""

    name: str
    aggregate: str
    column: str
    days: int | None = None
    divisor_days: int | None = None
    condition: str | None = None


def check(spec: AggregationSpec) -> list[str]:
    """Say everything that is wrong with a spec, one message each; an empty list where it can be compiled."""
    return _read(spec)[1]


def output_names(spec: AggregationSpec) -> list[str]:
    """Name the output's columns in order: the key's, then the features' as declared.

    Raises ProjectError with what :func:`check` finds.
    """
    return [*_key_columns(spec), *(output.name for output in _outputs(spec))]


def compile_sql(spec: AggregationSpec, relation: str) -> str:
    """Write one SELECT that computes the features, one row per key, sorted by the key with NULLs last.

    ``relation`` is SQL that can stand in FROM: a quoted name or a bracketed SELECT, without an alias. It is read
    once. Without windows the result is one plain GROUP BY. Bounds of windows are exact to the microsecond.

    Raises ProjectError with what :func:`check` finds.
    """
    outputs = _outputs(spec)
    keys = _key_columns(spec)
    windowed = _WindowedRows(spec) if any(output.days for output in outputs) else None
    select = _select(spec, outputs, windowed)
    groups = [windowed.column(_row(key)) if windowed else _row(key) for key in keys]
    source = windowed.sql(relation) if windowed else f'{relation} AS "row"'
    order = [f"{quoted(key)} NULLS LAST" for key in keys]
    return f"SELECT\n    {_listed(select, 4)}\nFROM {source}\nGROUP BY {', '.join(groups)}\nORDER BY {', '.join(order)}"


def _outputs(spec: AggregationSpec) -> list[_Output]:
    outputs, problems = _read(spec)
    if problems:
        raise ProjectError(Problem(message) for message in problems)
    return outputs


def _read(spec: AggregationSpec) -> tuple[list[_Output], list[str]]:
    dates_and_id = ("id_col", "feature_date_col", "application_date_col")
    problems = [f"{field} is empty" for field in dates_and_id if not getattr(spec, field)]
    if not all(spec.group_by):
        problems.append("group_by holds an empty name")
    if spec.id_col and spec.id_col.lower() == spec.application_date_col.lower():
        problems.append("id_col and application_date_col are the same column")
    if not spec.features:
        problems.append("features is empty: declare at least one")
    outputs: list[_Output] = []
    for feature in spec.features:
        outputs.extend(_read_feature(feature, problems))
    problems.extend(_collisions(_key_columns(spec), outputs))
    return outputs, problems


def _read_feature(feature: AggregationFeature, problems: list[str]) -> Iterator[_Output]:
    where = f"feature '{feature.name}'"
    column = feature.name if feature.column is None else feature.column
    if not feature.name:
        problems.append("a feature has an empty name")
    elif not column:
        problems.append(f"{where}: column is empty")
    if not (feature.basic or feature.rolling or feature.ratio or feature.since):
        problems.append(f"{where} has none of basic, rolling, ratio and since")

    if feature.basic:
        for aggregate in _aggregates(feature.basic, AGGREGATES, f"{where}: basic", problems):
            yield _Output(f"{feature.name}_{aggregate}", aggregate, column)
    for rolling in feature.rolling:
        place = f"{where}: rolling"
        windows = rolling.window if isinstance(rolling.window, list) else [rolling.window]
        if not windows:
            problems.append(f"{place}: window is empty")
        aggregates = _aggregates(_asked(rolling, place, problems), AGGREGATES, place, problems)
        for days in [_days(window, place, problems) for window in windows]:
            for aggregate in aggregates if days else ():
                yield _Output(f"{feature.name}_{aggregate}_{days}d", aggregate, column, days)
    for ratio in feature.ratio:
        place = f"{where}: ratio"
        over, under = (_days(window, place, problems) for window in (ratio.numerator, ratio.denominator))
        aggregates = _aggregates(_asked(ratio, place, problems, "sum"), AGGREGATES, place, problems)
        for aggregate in aggregates if over and under else ():
            yield _Output(f"{feature.name}_{aggregate}_ratio_{over}d_{under}d", aggregate, column, over, under)
    for since in feature.since:
        place = f"{where}: since"
        if not since.condition.strip():
            problems.append(f"{place}: condition is empty")
        if since.name == "":
            problems.append(f"{place}: name is empty")
        asked = _asked(since, place, problems, "count")
        for aggregate in _aggregates(asked, CONDITIONAL_AGGREGATES, place, problems):
            yield _Output(f"{since.name or feature.name}_{aggregate}_if", aggregate, column, condition=since.condition)


def _asked(
    entry: RollingWindow | RatioWindow | SinceCondition, place: str, problems: list[str], default: str | None = None
) -> str | list[str]:
    if entry.aggs is not None and entry.functions is not None:
        problems.append(f"{place}: aggs and functions mean the same; give one of them")
    for asked in (entry.aggs, entry.functions, default):
        if asked is not None:
            return asked
    return []


def _aggregates(asked: str | list[str], known: dict[str, str], place: str, problems: list[str]) -> list[str]:
    found = []
    names = [asked] if isinstance(asked, str) else asked
    if not names:
        problems.append(f"{place}: names no aggregate; add aggs, such as [sum]")
    for name in names:
        if name.strip().lower() in known:
            found.append(known[name.strip().lower()])
        else:
            hint = did_you_mean(name, known)
            problems.append(f"{place}: unknown aggregate '{name}'" + (f"; {hint}" if hint else ""))
    return found


def _days(window: int | str, place: str, problems: list[str]) -> int | None:
    match = _WINDOW.fullmatch(str(window))
    days = int(match[1]) if match else 0
    if 1 <= days <= LONGEST_WINDOW_DAYS:
        return days
    problems.append(
        f"{place}: window '{window}' is not a number of days from 1 to {LONGEST_WINDOW_DAYS}, such as 7 or 7d"
    )
    return None


def _collisions(keys: list[str], outputs: list[_Output]) -> Iterator[str]:
    taken = {key.lower() for key in keys}
    declared = Counter(output.name.lower() for output in outputs)
    for name in _distinct(output.name for output in outputs):
        if name.lower() in taken:
            yield f"output column '{name}' has the name of a key column"
        elif declared[name.lower()] > 1:
            yield f"output column '{name}' is declared more than once"


def _key_columns(spec: AggregationSpec) -> list[str]:
    return _distinct([spec.id_col, spec.application_date_col, *spec.group_by])


def _distinct(columns: Iterable[str]) -> list[str]:
    # DuckDB's names ignore case: two that differ in nothing else are one column.
    by_folded_name: dict[str, str] = {}
    for column in columns:
        by_folded_name.setdefault(column.lower(), column)
    return list(by_folded_name.values())


def _same_dates(spec: AggregationSpec) -> bool:
    return spec.feature_date_col.lower() == spec.application_date_col.lower()


def _row(column: str) -> str:
    # Qualified, since a bare name that the relation lacks could be taken for an alias of the same SELECT.
    return f'"row".{quoted(column)}'


def _listed(parts: Iterable[str], indent: int) -> str:
    return (",\n" + " " * indent).join(parts)


def _select(spec: AggregationSpec, outputs: list[_Output], windowed: _WindowedRows | None) -> list[str]:
    """Write the output's columns, over the rows themselves or over their windowed form."""
    term = windowed.column if windowed else str
    select = [f"{term(_row(key))} AS {quoted(key)}" for key in _key_columns(spec)]
    for output in outputs:
        value = _row(output.column)
        if windowed and output.days:
            expression = windowed.window(output.aggregate, value, output.days)
            if output.divisor_days:
                expression += f" / nullif({windowed.window(output.aggregate, value, output.divisor_days)}, 0)"
        else:
            filters = []
            if spec.point_in_time and not _same_dates(spec):
                filters.append(f"{term(_row(spec.feature_date_col))} <= {term(_row(spec.application_date_col))}")
            if output.condition is not None:
                # On lines of its own, since a condition may end in a comment.
                filters.append(term(f"(\n{output.condition}\n)"))
            # A conditional count counts rows: nothing says that its feature has a column.
            counts_rows = output.condition is not None and output.aggregate == "count"
            expression = f"{output.aggregate}({'*' if counts_rows else term(value)})"
            if filters:
                expression += f" FILTER (WHERE {' AND '.join(filters)})"
        select.append(f"{expression} AS {quoted(output.name)}")
    return select


class _WindowedRows:
    """The rows with their windows, collected while the SELECT around them is written.

    From the inside out: the columns that are needed, under names that no condition mentions by accident; each row
    twice, as the *event* that windows see, at its event date, and as the *probe* that asks, at its as-of date
    (where these are one column, a row is both at once); the window functions; the probes alone.
    """

    def __init__(self, spec: AggregationSpec) -> None:
        self._columns: dict[str, str] = {}
        self._windows: dict[tuple[str, str, int], str] = {}
        as_of = self.column(_row(spec.application_date_col))
        entity = _distinct([spec.id_col, *spec.group_by])
        if _same_dates(spec):
            entity = [column for column in entity if column.lower() != spec.application_date_col.lower()]
            self._moment, self._sides, self._counted, self._asking = as_of, "", '"moment" IS NOT NULL', ""
        else:
            event_date = self.column(_row(spec.feature_date_col))
            self._moment = f'CASE WHEN "is event" THEN {event_date} ELSE {as_of} END'
            self._sides = ', (VALUES (TRUE), (FALSE)) AS "side" ("is event")'
            self._counted = '"is event" AND "moment" IS NOT NULL'
            self._asking = '\nWHERE NOT "is event"'
        self._entity = [self.column(_row(column)) for column in entity]

    def column(self, expression: str) -> str:
        """Have ``expression`` computed for each row; give the column's name."""
        return self._columns.setdefault(expression, f'"column {len(self._columns) + 1}"')

    def window(self, aggregate: str, value: str, days: int) -> str:
        """Have an aggregate computed over each row's window; give the expression that finds it for a whole key."""
        window = (aggregate, self.column(value), days)
        name = self._windows.setdefault(window, f'"window {len(self._windows) + 1}"')
        # All rows of a key have the same windows, so any of them speaks for the key.
        return f"any_value({name})"

    def sql(self, relation: str) -> str:
        """Write what was collected so that it can stand in FROM, with the WHERE that it needs."""
        columns = [f"{expression} AS {name}" for expression, name in self._columns.items()]
        aggregates = [
            f'{aggregate}({value}) FILTER (WHERE {self._counted}) OVER "{days} days" AS {name}'
            for (aggregate, value, days), name in self._windows.items()
        ]
        # A frame includes its bound, so one that excludes the moment N days back ends a microsecond short of it.
        frames = [
            f'"{days} days" AS (PARTITION BY {", ".join(self._entity)} ORDER BY "moment" NULLS LAST '
            f"RANGE BETWEEN INTERVAL '{days - 1} days 23:59:59.999999' PRECEDING AND CURRENT ROW)"
            for days in dict.fromkeys(days for _, _, days in self._windows)
        ]
        return f"""(
    SELECT
        *,
        {_listed(aggregates, 8)}
    FROM (
        SELECT *, {self._moment} AS "moment"
        FROM (
            SELECT
                {_listed(columns, 16)}
            FROM {relation} AS "row"
        ){self._sides}
    )
    WINDOW
        {_listed(frames, 8)}
){self._asking}"""
