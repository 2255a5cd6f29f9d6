"""What a ``data_type`` of a schema means to DuckDB, and how a value is cast to it without loss.

- *fit*: a value fits a type if casting it keeps what it says. ``'1.5'`` casts to BIGINT (as 2) but does not
  fit it; ``'2024-01-10 12:30'`` casts to DATE but does not fit it. Decimals are rounded to their scale, as
  SQL does.
- *zone*: what a session's time zone would decide is decided here: a moment with a zone becomes UTC where the type has
  none, and one without is UTC where the type has one.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from seeknal.late_pattern import late_pattern

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

# Integers are 64 bits and floats double, whatever SQL makes of the same word: a schema names what a column
# holds, not how wide it is stored. The sized names say a width on purpose.
_NAMED_TYPES = {
    "integer": "BIGINT", "int": "BIGINT", "bigint": "BIGINT", "long": "BIGINT", "int8": "BIGINT", "int64": "BIGINT",
    "tinyint": "TINYINT", "smallint": "SMALLINT", "hugeint": "HUGEINT", "int1": "TINYINT", "int2": "SMALLINT",
    "int4": "INTEGER", "int16": "SMALLINT", "int32": "INTEGER", "int128": "HUGEINT",
    "utinyint": "UTINYINT", "usmallint": "USMALLINT", "uinteger": "UINTEGER", "ubigint": "UBIGINT",
    "uhugeint": "UHUGEINT", "uint8": "UTINYINT", "uint16": "USMALLINT", "uint32": "UINTEGER", "uint64": "UBIGINT",
    "float": "DOUBLE", "double": "DOUBLE", "number": "DOUBLE", "float8": "DOUBLE", "float64": "DOUBLE",
    "double precision": "DOUBLE", "real": "FLOAT", "float4": "FLOAT", "float32": "FLOAT",
    "decimal": "DECIMAL(18,3)", "numeric": "DECIMAL(18,3)",
    "string": "VARCHAR", "text": "VARCHAR", "varchar": "VARCHAR", "char": "VARCHAR", "str": "VARCHAR",
    "boolean": "BOOLEAN", "bool": "BOOLEAN", "logical": "BOOLEAN",
    "date": "DATE", "datetime": "TIMESTAMP", "timestamp": "TIMESTAMP", "timestamp without time zone": "TIMESTAMP",
    "timestamptz": "TIMESTAMP WITH TIME ZONE", "timestamp with time zone": "TIMESTAMP WITH TIME ZONE",
    "timestamp_s": "TIMESTAMP_S", "timestamp_ms": "TIMESTAMP_MS", "timestamp_ns": "TIMESTAMP_NS",
    "time": "TIME", "interval": "INTERVAL", "json": "JSON", "uuid": "UUID",
    "blob": "BLOB", "binary": "BLOB", "bytes": "BLOB", "bytea": "BLOB",
}  # fmt: skip

#: The types that the reference of a source's schema names; what a hint offers.
DOCUMENTED_TYPES = ("integer", "float", "string", "boolean", "date", "datetime", "timestamp", "decimal", "time", "json")

_DECIMAL = late_pattern(r"(?:decimal|numeric)\s*\(\s*(\d+)\s*(?:,\s*(\d+)\s*)?\)")
_SIZED_TEXT = late_pattern(r"(?:varchar|char|string|text)\s*\(\s*\d+\s*\)")
_ARRAY = late_pattern(r"(.*\S)\s*(\[\d*\])")
_COMPOSED = late_pattern(r"(?:struct|map|union)\s*\(.*\)", re.IGNORECASE)
_PLAUSIBLE = late_pattern(r"[A-Za-z_][A-Za-z0-9_ ,()\[\]]*")

_INTEGERS = frozenset(
    f"{sign}{width}" for sign in ("", "U") for width in ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT")
)


_ZONED = "TIMESTAMP WITH TIME ZONE"

# An offset or a name behind a time of day. A lone Z says UTC, which needs no conversion.
_NAMES_ZONE = r":[0-9.]+ ?([+-][0-9]|[A-Za-z]{2})"


def duckdb_type(data_type: str) -> str | None:
    """Translate a ``data_type`` as written to the name of DuckDB's type, or give None where it means none.

    A STRUCT, MAP or UNION is handed through as written; only :func:`check_type` can tell whether it is right.
    """
    text = " ".join(data_type.split())
    lowered = text.lower()
    if lowered in _NAMED_TYPES:
        return _NAMED_TYPES[lowered]
    if match := _DECIMAL.fullmatch(lowered):
        precision, scale = int(match[1]), int(match[2] or 0)
        return f"DECIMAL({precision},{scale})" if 1 <= precision <= 38 and scale <= precision else None
    if _SIZED_TEXT.fullmatch(lowered):
        return "VARCHAR"
    if match := _ARRAY.fullmatch(text):
        element = duckdb_type(match[1])
        return element + match[2] if element else None
    return text if _COMPOSED.fullmatch(text) and _is_plausible(text) else None


def check_type(connection: DuckDBPyConnection, name: str) -> str | None:
    """Give DuckDB's own spelling of a type, or None where DuckDB has no such type.

    Accepts what :func:`duckdb_type` knows and any further type that DuckDB has by that name.
    """
    import duckdb

    known = duckdb_type(name)
    if known in _NAMED_TYPES.values():
        return known
    candidate = known or name.strip()
    if not _is_plausible(candidate):
        return None
    try:
        found = connection.execute(f"DESCRIBE SELECT CAST(NULL AS {candidate}) AS value").fetchone()
    except duckdb.Error:
        return None
    return str(found[1]) if found else None


def _is_plausible(text: str) -> bool:
    """Say whether a text can only be a type where it stands in a CAST: letters and closed brackets."""
    if not _PLAUSIBLE.fullmatch(text):
        return False
    depth = 0
    for character in text:
        depth += (character in "([") - (character in ")]")
        if depth < 0:
            return False
    return depth == 0


def is_nested(data_type: str) -> bool:
    """Say whether a type is a list, a struct, a map or JSON, whose values no plain text stands for."""
    return data_type.endswith("]") or data_type in ("JSON", "VARIANT") or bool(_COMPOSED.fullmatch(data_type))


def fitted(value: str, source: str, target: str) -> str:
    """Give the SQL that casts ``value``, an expression of type ``source``, and fails where it does not fit."""
    if source == target:
        return value
    cast = _cast("CAST", value, source, target)
    wider = _wider_type(source, target)
    if wider is None:
        return cast
    lost = f"error('a value does not fit {target}')"
    same = f"{_cast('TRY_CAST', value, source, wider)} = {cast}"
    return f"CASE WHEN {same} THEN {cast} WHEN {value} IS NOT NULL THEN {lost} END"


def misfit(value: str, source: str, target: str) -> str:
    """Give the SQL condition that is true where :func:`fitted` fails; it never fails itself."""
    if source == target:
        return "false"
    # A TRY_CAST to a list gives NULL for its elements that do not fit, not for the list.
    cast = f"TRY(CAST({value} AS {target}))" if is_nested(target) else _cast("TRY_CAST", value, source, target)
    wider = _wider_type(source, target)
    lossy = f" OR {_cast('TRY_CAST', value, source, wider)} IS DISTINCT FROM {cast}" if wider else ""
    return f"({value} IS NOT NULL AND ({cast} IS NULL{lossy}))"


def _cast(operator: str, value: str, source: str, target: str) -> str:
    """Give the SQL of a cast that no setting of the session has a say in."""
    cast = f"{operator}({value} AS {target})"
    zoned = f"{operator}({value} AS {_ZONED})"
    if source == "VARCHAR" and target in ("TIMESTAMP", _ZONED):
        utc = f"CASE WHEN regexp_matches({value}, '{_NAMES_ZONE}') THEN {zoned} AT TIME ZONE 'UTC'"
        plain = f"{operator}({value} AS TIMESTAMP)"
        return f"({utc} ELSE {plain} END)" + (" AT TIME ZONE 'UTC'" if target == _ZONED else "")
    if source == _ZONED and target.startswith(("TIMESTAMP", "DATE")) and target != _ZONED:
        return f"{operator}({value} AT TIME ZONE 'UTC' AS {target})"
    if source == _ZONED and target == "VARCHAR":
        return f"{operator}({value} AT TIME ZONE 'UTC' AS VARCHAR) || '+00'"
    if target == _ZONED and source.startswith(("TIMESTAMP", "DATE")) and source != _ZONED:
        return f"{operator}({value} AS TIMESTAMP) AT TIME ZONE 'UTC'"
    return cast


def _wider_type(source: str, target: str) -> str | None:
    """The type in which a loss shows by comparing before and after; None where no cast of these two loses."""
    fractional = source in ("DOUBLE", "FLOAT") or source.startswith("DECIMAL")
    if target in _INTEGERS:
        return "DOUBLE" if source == "VARCHAR" else source if fractional else None
    if target == "DATE":
        return "TIMESTAMP" if source in ("VARCHAR", _ZONED) else source if source.startswith("TIMESTAMP") else None
    if target == "BOOLEAN" and (fractional or source in _INTEGERS):
        return source
    return None
