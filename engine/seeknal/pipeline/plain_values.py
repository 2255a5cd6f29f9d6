"""Values of Python as values that JSON has: what a decorator was given, as the fields of a node."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from datetime import date, datetime, time
from decimal import Decimal
from enum import Enum
from pathlib import PurePath
from typing import Any

DEEPEST = 100


class NotPlain(Exception):
    """A value that cannot be a field: the first argument says why, ``path`` leads to it."""

    def __init__(self, why: str, path: tuple[str | int, ...]) -> None:
        super().__init__(why)
        self.path = path


def plain(value: Any, path: tuple[str | int, ...] = ()) -> Any:
    """Turn a value into what JSON has: texts, numbers, lists, mappings. Raises NotPlain."""
    if len(path) > DEEPEST:
        raise NotPlain(f"is nested deeper than {DEEPEST} levels", path[:1])
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, Enum):
        return plain(value.value, path)
    if isinstance(value, str):
        return _text(str(value), path)
    if isinstance(value, int):
        if not -(2**63) <= value < 2**63:
            raise NotPlain("is a number with more than 64 bits", path)
        return int(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise NotPlain(f"is {value}, which no field can hold", path)
        return float(value)
    if isinstance(value, PurePath | Decimal):
        return str(value)
    if isinstance(value, date | datetime | time):
        return value.isoformat()
    if isinstance(value, Mapping):
        return _mapping(value, path)
    if isinstance(value, list | tuple):
        return [plain(entry, (*path, index)) for index, entry in enumerate(value)]
    if isinstance(value, set | frozenset):
        return sorted((plain(entry, path) for entry in value), key=repr)
    return _of_object(value, path)


def _mapping(value: Mapping[Any, Any], path: tuple[str | int, ...]) -> dict[str, Any]:
    for key in value:
        if not isinstance(key, str):
            raise NotPlain(f"has the key {key!r}, which is no text"[:200], path)
    return {_text(key, path): plain(entry, (*path, key)) for key, entry in value.items()}


def _of_object(value: Any, path: tuple[str | int, ...]) -> Any:
    """Our own values, dataclasses, numbers of NumPy."""
    if type(value).__module__.startswith("seeknal.pipeline.") and hasattr(value, "to_dict"):
        return plain(value.to_dict(), path)
    if is_dataclass(value) and not isinstance(value, type):
        return plain({entry.name: getattr(value, entry.name) for entry in fields(value)}, path)
    item = getattr(value, "item", None)
    if callable(item) and type(value).__module__ == "numpy":
        return plain(item(), path)
    raise NotPlain(f"is of type {type(value).__name__}, which no field can hold", path)


def _text(value: str, path: tuple[str | int, ...]) -> str:
    try:
        value.encode()
    except UnicodeEncodeError:
        raise NotPlain("holds a character that is no text", path) from None
    return value
