"""What a value is, for the digest of a function that may use it.

Names whose value syntax does not tell count by what they hold after the import: plain values as they are, frames,
arrays and objects by their state. What has no state that can be written down (a connection, a lock) counts by its type.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from types import FunctionType, MethodType, ModuleType
from typing import Any

import xxhash

from seeknal.pipeline.plain_values import plain

DEEPEST = 40


def content_of(value: Any) -> Any:
    """Turn any value into values of JSON that are the same, in every process, where it holds the same. Never raises."""
    return _content(value, ())


def data_of(module: ModuleType) -> Any:
    """The content of a module's names, without its functions, classes and what it imports."""
    return [
        [name, _content(value, (id(module),))] for name, value in sorted(vars(module).items()) if _is_data(name, value)
    ]


def _is_data(name: str, value: Any) -> bool:
    return not name.startswith("__") and not isinstance(value, ModuleType | FunctionType | type) and not callable(value)


def _content(value: Any, around: tuple[int, ...]) -> Any:
    try:
        return plain(value)
    except Exception:
        named = f"{type(value).__module__}.{type(value).__qualname__}"
    if id(value) in around or len(around) > DEEPEST:
        return [named]
    try:
        return [named, _parts(value, (*around, id(value)))]
    except Exception:
        return [named]


def _parts(value: Any, around: tuple[int, ...]) -> Any:
    if isinstance(value, int | float | complex):
        return repr(value)
    if isinstance(value, ModuleType):
        return value.__name__
    if isinstance(value, MethodType):
        return [_content(value.__func__, around), _content(value.__self__, around)]
    if isinstance(value, FunctionType):
        cells = [_content(cell.cell_contents, around) for cell in value.__closure__ or ()]
        given = [value.__defaults__ or (), value.__kwdefaults__ or {}]
        return [value.__qualname__, [_content(entry, around) for entry in given], cells]
    if isinstance(value, type):
        own = {
            name: entry
            for name, entry in vars(value).items()
            if isinstance(entry, FunctionType) or not name.startswith("__")
        }
        return [value.__qualname__, _pairs(own, around)]
    if type(value) is dict or isinstance(value, Mapping):
        return _pairs(value, around)
    if isinstance(value, list | tuple):
        return [_content(entry, around) for entry in value]
    if isinstance(value, set | frozenset):
        return sorted((_content(entry, around) for entry in value), key=repr)
    if _is_ordinary(value):
        return _pairs(vars(value), around)
    return xxhash.xxh3_128_hexdigest(pickle.dumps(value, protocol=5))


def _pairs(values: Mapping[Any, Any], around: tuple[int, ...]) -> list[Any]:
    return [[_content(key, around), _content(value, around)] for key, value in values.items()]


def _is_ordinary(value: Any) -> bool:
    """Say whether an object is nothing but its attributes."""
    ways = ("__reduce__", "__reduce_ex__", "__getstate__")
    return hasattr(value, "__dict__") and all(getattr(type(value), way) is getattr(object, way) for way in ways)
