"""Checks as SQL: conditions on rows, and the literals that they compare with."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from seeknal.dag.names import did_you_mean, find_name
from seeknal.dag.sql import literal, quoted
from seeknal.errors import NodeFailedError
from seeknal.nodes.check import Check

_INTEGERS = frozenset("TINYINT SMALLINT INTEGER BIGINT HUGEINT UTINYINT USMALLINT UINTEGER UBIGINT UHUGEINT".split())
_FLOATS = frozenset({"FLOAT", "DOUBLE"})


def is_float(type_: str) -> bool:
    return type_ in _FLOATS


def is_number(type_: str) -> bool:
    return type_ in _INTEGERS or type_ in _FLOATS or type_.startswith("DECIMAL")


def is_moment(type_: str) -> bool:
    """Say whether a type is a date, or a date with a time."""
    return type_ == "DATE" or type_.startswith("TIMESTAMP")


def column_of(column: str, schema: Mapping[str, str]) -> str:
    """The column that a name means. Raises NodeFailedError where there is no such column."""
    name = find_name(column, schema)
    if name is None:
        raise NodeFailedError(f"no column '{column}'", hint=did_you_mean(column, schema))
    return name


def value_literal(value: Any, type_: str) -> str:
    """A value of the file as SQL, to compare a column of this type with. Raises NodeFailedError for what cannot be."""
    if isinstance(value, bool):
        text = "true" if value else "false"
        return text if type_ == "BOOLEAN" else f"CAST({literal(text)} AS {type_})"
    if isinstance(value, (int, float)):
        if not is_number(type_):
            return f"CAST({literal(str(value))} AS {type_})"
        # A decimal constant would be rounded on its way to a floating-point column.
        is_exact = isinstance(value, int) or (math.isfinite(value) and not is_float(type_))
        return repr(value) if is_exact else f"CAST({literal(repr(value))} AS DOUBLE)"
    return f"CAST({literal(str(value))} AS {type_})"


def moment_literal(seconds: float) -> str:
    """A time, in seconds since 1970, as SQL."""
    shown = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S.%f")
    return f"CAST('{shown}' AS TIMESTAMP)"


def outside(name: str, type_: str, check: Check) -> str:
    """The condition that a value is not within the bounds; NULL is, and NaN is not."""
    column = quoted(name)
    parts = [
        f"{column} {operator} {value_literal(bound, type_)}"
        for operator, bound in (("<", check.minimum), (">", check.maximum))
        if bound is not None
    ]
    if is_float(type_):
        parts.append(f"isnan({column})")
    return " OR ".join(parts)


def row_condition(check: Check, schema: Mapping[str, str], now_seconds: float) -> str | None:
    """The condition that a row violates a check; None for checks that are not about rows on their own."""
    if check.family not in ("null", "range", "accepted_values", "freshness"):
        return None
    names = [column_of(column, schema) for column in check.columns]
    if check.family == "null":
        return " OR ".join(f"{quoted(name)} IS NULL" for name in names)
    if check.family == "range":
        return outside(names[0], schema[names[0]], check)
    if check.family == "accepted_values":
        type_ = schema[names[0]]
        accepted = ", ".join(value_literal(value, type_) for value in check.values)
        return f"{quoted(names[0])} NOT IN ({accepted})"
    if check.family == "freshness" and check.per_row:
        return f"{quoted(names[0])} < {moment_literal(now_seconds - check.max_age_seconds)}"
    return None


def constants(check: Check, schema: Mapping[str, str]) -> Sequence[tuple[Any, str]]:
    """The values of a check that must be of its column's type, each with the SQL that says whether it is."""
    if check.family not in ("range", "accepted_values"):
        return ()
    name = find_name(check.columns[0], schema)
    if name is None:
        return ()
    given = [*check.values, *(bound for bound in (check.minimum, check.maximum) if bound is not None)]
    return [(value, f"SELECT {value_literal(value, schema[name])}") for value in given]
