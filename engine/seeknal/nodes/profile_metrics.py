"""What a profile says of a column, and how a check compares with it."""

from __future__ import annotations

from seeknal.dag.sql import literal, quoted
from seeknal.nodes.check import Check

# The columns of a profile, and their types.
PROFILE_COLUMNS = {
    "column_name": "VARCHAR",
    "column_type": "VARCHAR",
    "row_count": "BIGINT",
    "null_count": "BIGINT",
    "null_percent": "DOUBLE",
    "distinct_count": "BIGINT",
    "min": "VARCHAR",
    "max": "VARCHAR",
    "avg": "DOUBLE",
    "stddev": "DOUBLE",
    "p25": "DOUBLE",
    "p50": "DOUBLE",
    "p75": "DOUBLE",
}

# What a profile_check may ask for. ``freshness_hours`` is how old a column's greatest moment is.
METRICS = (*(name for name in PROFILE_COLUMNS if not name.startswith("column_")), "freshness_hours")
METRIC_ALIASES = {"mean": "avg", "median": "p50", "std": "stddev"}


def metric_value(check: Check, now: str) -> str:
    """The metric of a profile's row as SQL; ``now`` is the moment as SQL."""
    if check.metric == "freshness_hours":
        return f"epoch({now} - TRY_CAST(max AS TIMESTAMP)) / 3600"
    if check.metric in ("min", "max"):
        if isinstance(check.minimum, str) or isinstance(check.maximum, str):
            return quoted(check.metric)
        return f"TRY_CAST({quoted(check.metric)} AS DOUBLE)"
    return quoted(check.metric)


def metric_condition(check: Check, value: str) -> str:
    """The condition that a metric violates a check. A metric that the column does not have (NULL) does not."""
    low, high = (_bound(bound) for bound in (check.minimum, check.maximum))
    if check.inside:
        return f"{value} BETWEEN {low} AND {high}"
    equal = "=" if check.exclusive else ""
    parts = []
    if low is not None:
        parts.append(f"{value} <{equal} {low}")
    if high is not None:
        parts.append(f"{value} >{equal} {high}")
    return f"({' OR '.join(parts)} OR isnan(TRY_CAST({value} AS DOUBLE)))"


def of_column(check: Check) -> str:
    """The condition that a profile's row is about the check's column; every row knows the number of rows."""
    return f"lower(column_name) = {literal(check.columns[0].lower())}" if check.columns else "true"


def _bound(value: float | int | str | None) -> str | None:
    if value is None:
        return None
    return literal(value) if isinstance(value, str) else repr(value)
