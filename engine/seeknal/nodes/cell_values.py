"""Cell values: what a table that Python reads holds, and how a column of it reaches DuckDB.

Spreadsheets and SQLite give every cell a type of its own. So a column has the *classes* of its values (``integer``,
``text``, …); they decide on its *raw type*, the one DuckDB type that holds all of them without loss. From that it is
cast to the type of the output (:mod:`seeknal.nodes.data_types`), by way of text where the two have nothing in common,
so that a value that does not fit can be named.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Sequence
from typing import Any

# From here on, a double does not hold every integer.
_EXACT = 2**53
_LONGEST = 2**63

_RAW_TYPES = (
    ("BOOLEAN", {"boolean"}),
    ("BIGINT", {"integer", "large"}),
    ("DOUBLE", {"integer", "number"}),
    ("DATE", {"day"}),
    ("TIMESTAMP", {"day", "moment"}),
    ("TIME", {"time"}),
    ("INTERVAL", {"duration"}),
    ("BLOB", {"bytes"}),
)

_NUMBERS = (
    "BIGINT", "INTEGER", "SMALLINT", "TINYINT", "HUGEINT", "UBIGINT", "UINTEGER", "USMALLINT", "UTINYINT", "UHUGEINT",
    "DOUBLE", "FLOAT", "DECIMAL",
)  # fmt: skip

# To which types, without their sizes, a raw type is cast as it is.
_DIRECT = {
    "BOOLEAN": ("BOOLEAN",),
    "BIGINT": (*_NUMBERS, "BOOLEAN", "VARCHAR"),
    "DOUBLE": (*_NUMBERS, "BOOLEAN", "VARCHAR"),
    "DATE": ("DATE", "TIMESTAMP", "VARCHAR"),
    "TIMESTAMP": ("DATE", "TIMESTAMP", "VARCHAR"),
    "TIME": ("TIME", "VARCHAR"),
    "INTERVAL": ("INTERVAL", "VARCHAR"),
    "BLOB": ("BLOB",),
}


def class_of(value: Any) -> str:
    """Give the class of a value; None has none: the empty text."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int):
        return "integer" if -_EXACT <= value <= _EXACT else "large" if -_LONGEST <= value < _LONGEST else "text"
    for type_, name in (
        (float, "number"),
        (str, "text"),
        (bytes, "bytes"),
        # Before dates: each moment is a date, too.
        (datetime.datetime, "moment"),
        (datetime.date, "day"),
        (datetime.time, "time"),
        (datetime.timedelta, "duration"),
    ):
        if isinstance(value, type_):
            return name
    return "text"


def raw_type(classes: Iterable[str]) -> str:
    """Choose the DuckDB type that holds values of all these classes; text where there is no other, or no value."""
    found = {name for name in classes if name}
    return next((type_ for type_, allowed in _RAW_TYPES if found and found <= allowed), "VARCHAR")


def reading_type(raw: str, target: str) -> str:
    """Choose the type in which a column is handed to DuckDB: its raw type, or text where that is no way to the target.

    A date that stands where a number should be is an error, and not the number of its day.
    """
    if raw == "VARCHAR" or target == raw:
        return raw
    # There are several types of moments, all of which one raw type leads to.
    family = "TIMESTAMP" if target.startswith("TIMESTAMP") else target.partition("(")[0]
    return raw if family in _DIRECT[raw] else "VARCHAR"


def arrow_column(values: Sequence[Any], type_: str) -> Any:
    """Make an Arrow array of values, which the type can hold."""
    import pyarrow

    if type_ == "VARCHAR":
        return pyarrow.array([text_of(value) for value in values], pyarrow.string())
    if type_ == "TIMESTAMP":
        values = [_moment(value) for value in values]
    elif type_ == "DOUBLE":
        values = [None if value is None else float(value) for value in values]
    return pyarrow.array(values, arrow_type(type_))


def arrow_type(type_: str) -> Any:
    """The Arrow type of a raw type."""
    import pyarrow

    return {
        "BOOLEAN": pyarrow.bool_(),
        "BIGINT": pyarrow.int64(),
        "DOUBLE": pyarrow.float64(),
        "DATE": pyarrow.date32(),
        "TIMESTAMP": pyarrow.timestamp("us"),
        "TIME": pyarrow.time64("us"),
        "INTERVAL": pyarrow.duration("us"),
        "BLOB": pyarrow.binary(),
        "VARCHAR": pyarrow.string(),
    }[type_]


def text_of(value: Any) -> str | None:
    """A value as text, as DuckDB would write it."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, datetime.datetime):
        return value.isoformat(" ")
    if isinstance(value, datetime.timedelta):
        return f"{value.days} days {value.seconds} seconds"
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    return repr(value)


def _moment(value: Any) -> Any:
    is_day = isinstance(value, datetime.date) and not isinstance(value, datetime.datetime)
    return datetime.datetime.combine(value, datetime.time()) if is_day else value
