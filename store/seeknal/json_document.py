"""Large JSON documents for people, in pieces: all at once a document takes several times the memory of its text.

A document is a mapping. In it an object with very many values stands as :class:`Computed`, such an array as an
iterator.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import Any, TypeVar

import msgspec

T = TypeVar("T")

# How many values are turned into JSON at once: many are fast.
_AT_ONCE = 200


class Computed(Mapping[str, Any]):
    """An object whose values are made of others when they are asked for."""

    def __init__(self, of: Mapping[str, T], value: Callable[[T], Any]) -> None:
        self._of = of
        self._value = value

    def __getitem__(self, name: str) -> Any:
        return self._value(self._of[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._of)

    def __len__(self) -> int:
        return len(self._of)


def indented_pieces(
    document: Mapping[str, Any], indent: int = 2, encode: Callable[[Any], bytes] = msgspec.json.encode
) -> Iterator[bytes]:
    """Lay a document out as ``json.dumps`` does with this indent. ``encode`` makes JSON of its values."""
    before = b"{\n"
    for name, value in document.items():
        for piece in _field(name, value, indent, encode):
            yield before + piece
            before = b""
        before = b",\n"
    yield b"\n}" if document else b"{}"


def indented(document: Mapping[str, Any]) -> bytes:
    """The same as one text."""
    return b"".join(indented_pieces(document))


def _field(name: str, value: Any, indent: int, encode: Callable[[Any], bytes]) -> Iterator[bytes]:
    def laid_out(part: Any) -> bytes:
        return msgspec.json.format(encode({name: part}), indent=indent)

    if not isinstance(value, Computed | Iterator):
        yield laid_out(value)[2:-2]
        return
    collect, values = (dict, iter(value.items())) if isinstance(value, Computed) else (list, value)
    # What stands before and behind the values of each piece.
    empty = laid_out(collect())
    opening, closing = empty[2:-3], b"\n" + b" " * indent + empty[-3:-2]
    before = opening
    while part := collect(islice(values, _AT_ONCE)):
        yield before + laid_out(part)[2 + len(opening) : -2 - len(closing)]
        before = b","
    yield opening + empty[-3:-2] if before == opening else closing
