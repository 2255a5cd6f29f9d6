"""The SQL of a second-order aggregation: from the features a node declares to one SELECT over its rows.

- *days between*: how many calendar days a row's feature date lies before its application date. A row that lacks a date
  has none, and counts in no feature but a ``since`` with a condition of its own.
- *application date*: ``application_date_col``, else the latest feature date of all rows.
- *known*: a row whose feature date is not after its application date, so with days between of 0 or more.
- *window* ``[from, to]``: the rows with days between from ``from`` to ``to``, both included.

There is one row for each value of ``id_col``, NULL included, sorted with NULL last. A feature without rows is NULL, a
count 0.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from seeknal.dag.names import did_you_mean
from seeknal.dag.sql import quoted
from seeknal.nodes.aggregation_sql import AGGREGATES, LONGEST_WINDOW_DAYS
from seeknal.nodes.kind import FieldProblem

DAYS_BETWEEN = "_days_between"

_DAYS = f'"row".{quoted(DAYS_BETWEEN)}'
_KNOWN = f"{_DAYS} >= 0"


class RatioOfWindows(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One window's aggregate divided by another's; NULL where the divisor is 0 or NULL.

    - ``numerator``: a window ``[from, to]``, in days
    - ``denominator``: a window ``[from, to]``, in days
    - ``aggs``: the aggregates
    """

    numerator: list[int]
    denominator: list[int]
    aggs: str | list[str] = "sum"


class SinceCondition(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Aggregates over the rows that satisfy an SQL predicate.

    - ``condition``: the predicate, over all columns and ``_days_between``; without it the known rows count
    - ``aggs``: the aggregates
    - ``name``: stands in for the column's name in the output, so that a column can have several conditions
    """

    condition: str = ""
    aggs: str | list[str] = "count"
    name: str | None = None


class SecondOrderFeature(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A family of output columns over one column.

    - ``source_feature``: the column to aggregate; without it the one called as the feature
    - ``basic``: aggregates over the known rows
    - ``window``: ``[from, to]``, in days: ``basic`` is computed over that window too
    - ``ratio``: one window's aggregate divided by another's
    - ``since``: aggregates over the rows that satisfy a condition
    - ``description``: for people
    - ``percentile``: refused
    - ``delta``: refused
    """

    source_feature: str | None = None
    basic: str | list[str] = []
    window: list[int] | None = None
    ratio: RatioOfWindows | list[RatioOfWindows] = []
    since: SinceCondition | list[SinceCondition] = []
    description: str | None = None
    percentile: Any = None
    delta: Any = None


class SecondOrderSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What a second-order aggregation computes.

    - ``id_col``: the column to aggregate by
    - ``feature_date_col``: the date of a row: a date, a timestamp, or text that is one
    - ``application_date_col``: the date from which days are counted back; without it the latest feature date of
      all rows
    - ``features``: name → what to compute
    """

    id_col: str
    feature_date_col: str
    application_date_col: str | None = None
    features: dict[str, SecondOrderFeature]


class _Output(msgspec.Struct, frozen=True):
    """One output column. ``feature`` is the one that asks for it first."""

    name: str
    expression: str
    feature: str


def check(spec: SecondOrderSpec) -> list[FieldProblem]:
    """Say everything that is wrong with a spec; an empty list where it can be compiled."""
    return _read(spec)[1]


def compile_sql(spec: SecondOrderSpec, relation: str) -> str:
    """Write one SELECT that computes the features of a spec that :func:`check` finds nothing wrong with.

    ``relation`` is SQL that can stand in FROM: a quoted name or a bracketed SELECT, without an alias. It is read once.
    """
    outputs, _ = _read(spec)
    feature_date = f'CAST("row".{quoted(spec.feature_date_col)} AS DATE)'
    application_date = f"max({feature_date}) OVER ()"
    if spec.application_date_col is not None:
        application_date = f'CAST("row".{quoted(spec.application_date_col)} AS DATE)'
    select = "".join(f",\n    {output.expression} AS {quoted(output.name)}" for output in outputs)
    id_column = f'"row".{quoted(spec.id_col)}'
    return (
        f"SELECT\n    {id_column} AS {quoted(spec.id_col)}{select}\n"
        f"FROM (\n    SELECT *, date_diff('day', {feature_date}, {application_date}) AS {quoted(DAYS_BETWEEN)}\n"
        f'    FROM {relation} AS "row"\n) AS "row"\n'
        f"GROUP BY {id_column}\nORDER BY {quoted(spec.id_col)} NULLS LAST"
    )


def _read(spec: SecondOrderSpec) -> tuple[list[_Output], list[FieldProblem]]:
    wrong = [
        FieldProblem(f"{field} is empty", (field,))
        for field in ("id_col", "feature_date_col", "application_date_col")
        if getattr(spec, field) == ""
    ]
    if not spec.features:
        wrong.append(FieldProblem("features is empty: declare at least one", ("features",)))
    outputs: dict[str, _Output] = {}
    for name, feature in spec.features.items():
        for output in _read_feature(name, feature, wrong):
            # The same column asked for twice, by features that share a column, is there once.
            other = outputs.setdefault(output.name.lower(), output)
            if other.expression != output.expression:
                message = f"output column '{output.name}' is declared twice: by {other.feature} and {name}"
                hint = "give a condition a `name:`, or compute the column under another name first"
                wrong.append(FieldProblem(message, ("features", name), hint))
            elif output.name.lower() == spec.id_col.lower():
                wrong.append(
                    FieldProblem(f"output column '{output.name}' has the name of the id column", ("features", name))
                )
    return list(outputs.values()), wrong


def _read_feature(name: str, feature: SecondOrderFeature, wrong: list[FieldProblem]) -> Iterator[_Output]:
    path = ("features", name)
    column = name if feature.source_feature is None else feature.source_feature
    value = f'"row".{quoted(column)}'
    ratios = feature.ratio if isinstance(feature.ratio, list) else [feature.ratio]
    conditions = feature.since if isinstance(feature.since, list) else [feature.since]
    if not column:
        wrong.append(FieldProblem(f"feature '{name}': source_feature is empty", path))
    for key in ("percentile", "delta"):
        if getattr(feature, key) is not None:
            hint = "compute it in a transform"
            wrong.append(FieldProblem(f"feature '{name}': '{key}' is not supported", (*path, key), hint))
    if not (feature.basic or ratios or conditions):
        needed = "a window needs `basic:`" if feature.window else "it has none of basic, ratio and since"
        wrong.append(FieldProblem(f"feature '{name}': {needed}", path))
    basic = list(_aggregates(feature.basic, name, (*path, "basic"), wrong)) if feature.basic else []
    for said, function in basic:
        yield _Output(f"{column}_{said}", _filtered(function, value, _KNOWN), name)
    if feature.window is not None:
        window = _window(feature.window, name, (*path, "window"), wrong)
        for said, function in basic if window else ():
            low, high = feature.window
            yield _Output(f"{column}_{said}_{low}_{high}", _filtered(function, value, window), name)
    for ratio in ratios:
        over = _window(ratio.numerator, name, (*path, "ratio", "numerator"), wrong)
        under = _window(ratio.denominator, name, (*path, "ratio", "denominator"), wrong)
        for said, function in _aggregates(ratio.aggs, name, (*path, "ratio", "aggs"), wrong):
            if over and under:
                first, second = ("_".join(map(str, days)) for days in (ratio.numerator, ratio.denominator))
                divided = (
                    f"CAST({_filtered(function, value, over)} AS DOUBLE) "
                    f"/ nullif(CAST({_filtered(function, value, under)} AS DOUBLE), 0)"
                )
                yield _Output(f"{column}_{said}{first}_{said}{second}", divided, name)
    for since in conditions:
        # On lines of its own, since a condition may end in a comment.
        condition = f"(\n{since.condition}\n)" if since.condition.strip() else _KNOWN
        for said, function in _aggregates(since.aggs, name, (*path, "since", "aggs"), wrong):
            yield _Output(f"SINCE_{said}_{since.name or column}_GEO_D", _filtered(function, value, condition), name)


def _filtered(function: str, value: str, condition: str) -> str:
    return f"{function}({value}) FILTER (WHERE {condition})"


def _aggregates(
    asked: str | list[str], feature: str, path: tuple[str, ...], wrong: list[FieldProblem]
) -> Iterable[tuple[str, str]]:
    """The aggregates asked for: as they stand in the output's names, and DuckDB's function."""
    names = [asked] if isinstance(asked, str) else asked
    if not names:
        wrong.append(FieldProblem(f"feature '{feature}': names no aggregate", path, "such as [sum]"))
    for said in names:
        function = AGGREGATES.get(said.strip().lower())
        if function is None:
            message = f"feature '{feature}': unknown aggregate '{said}'"
            wrong.append(FieldProblem(message, path, did_you_mean(said, AGGREGATES)))
        else:
            yield said.strip().upper(), function


def _window(days: list[int], feature: str, path: tuple[str, ...], wrong: list[FieldProblem]) -> str:
    """A window as a predicate; nothing where it is none."""
    if len(days) == 2 and 0 <= days[0] <= days[1] <= LONGEST_WINDOW_DAYS:
        return f"{_DAYS} BETWEEN {days[0]} AND {days[1]}"
    message = f"feature '{feature}': {days} is no window"
    wrong.append(FieldProblem(message, path, "write [from, to] in days before the application date, such as [1, 7]"))
    return ""
