"""The text of a JSON file, for what DuckDB does not tell: the line where it is wrong, or where a row stands."""

from __future__ import annotations

import gzip
import json
import os
import re
from collections.abc import Iterator
from itertools import islice
from typing import Any, NamedTuple, TextIO, cast

ARRAY, NEWLINE_DELIMITED, UNSTRUCTURED = "array", "newline_delimited", "unstructured"

# Beyond this, a file that is no list of lines is not read into memory to find the place of an error.
_LARGEST_TEXT_BYTES = 512 * 1024 * 1024

_BLANK = re.compile(r"\s*")


class JsonFault(NamedTuple):
    """What is wrong with a JSON file, and where, from 1; 0 where unknown."""

    message: str
    line: int
    column: int
    hint: str = ""


def find_fault(file: str, layout: str) -> JsonFault | None:
    """Find the first place where a file is not JSON of its layout, or a row is not an object."""
    if layout != NEWLINE_DELIMITED and os.path.getsize(file) > _LARGEST_TEXT_BYTES:
        return None
    line = 1
    try:
        for line, value in _rows(file, layout):
            if isinstance(value, _Object) and value.repeated:
                return JsonFault(f"the row has key '{value.repeated}' twice", line, 0)
            if not isinstance(value, dict) and value is not None:
                kind = {list: "an array", str: "a text", bool: "true or false"}.get(type(value), "a number")
                return JsonFault(f"a row must be an object, not {kind}", line, 0)
    except _Malformed as malformed:
        return malformed.fault
    except UnicodeDecodeError:
        return JsonFault("the file is not UTF-8", line, 0, "save the file as UTF-8")
    except RecursionError:
        return None
    except (OSError, EOFError) as error:
        return JsonFault(f"the file cannot be read: {error}", 0, 0)
    return None


def line_of_row(file: str, layout: str, number: int) -> int:
    """Find the line on which the ``number``-th row of a file begins, from 1; 0 where that is not known."""
    if layout != NEWLINE_DELIMITED and os.path.getsize(file) > _LARGEST_TEXT_BYTES:
        return 0
    try:
        return next((line for line, _ in islice(_rows(file, layout), number - 1, None)), 0)
    except (_Malformed, OSError, EOFError, UnicodeDecodeError, RecursionError):
        return 0


class _Object(dict[str, Any]):
    """An object; ``repeated`` is a key that stands in it twice, if any."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        self.repeated = ""
        if len(self) < len(pairs):
            keys = [key for key, _ in pairs]
            self.repeated = next(key for key in keys if keys.count(key) > 1)


_DECODER = json.JSONDecoder(object_pairs_hook=_Object)


class _Malformed(Exception):
    def __init__(self, message: str, line: int, column: int) -> None:
        super().__init__(message)
        self.fault = JsonFault(f"the JSON is malformed: {message}", line, column)


def _rows(file: str, layout: str) -> Iterator[tuple[int, Any]]:
    """Give each row with the line it begins on. Raises _Malformed."""
    opener = gzip.open if file.endswith(".gz") else open
    with cast(TextIO, opener(file, "rt", encoding="utf-8-sig", newline="\n")) as stream:
        if layout == NEWLINE_DELIMITED:
            for number, text in enumerate(stream, 1):
                if text.strip():
                    yield number, _decode_line(text, number)
        else:
            yield from _rows_of_text(stream.read(), layout)


def _decode_line(text: str, number: int) -> Any:
    try:
        return _DECODER.decode(text.strip())
    except json.JSONDecodeError as error:
        at_end = error.pos >= len(text.strip())
        column = len(text) - len(text.lstrip()) + error.pos + 1
        raise _Malformed("the line ends too early" if at_end else error.msg, number, column) from None


def _rows_of_text(text: str, layout: str) -> Iterator[tuple[int, Any]]:
    in_array = layout == ARRAY
    # The line is counted on from one row to the next.
    line, counted = 1, 0

    def fault(message: str, position: int) -> _Malformed:
        position = len(text.rstrip()) if position >= len(text.rstrip()) else position
        begin = text.rfind("\n", 0, position) + 1
        at_end = position >= len(text.rstrip())
        shown = "the file ends too early" if at_end else message
        return _Malformed(shown, text.count("\n", 0, position) + 1, position - begin + 1)

    position = _behind_blank(text, 0)
    if in_array:
        position = _behind_blank(text, position + 1)
        if text[position : position + 1] == "]":
            _expect_end(text, position + 1, fault)
            return
    while position < len(text) or in_array:
        line, counted = line + text.count("\n", counted, position), position
        try:
            value, position = _DECODER.raw_decode(text, position)
        except json.JSONDecodeError as error:
            raise fault(error.msg, error.pos) from None
        yield line, value
        position = _behind_blank(text, position)
        if in_array:
            following = text[position : position + 1]
            if following == "]":
                _expect_end(text, position + 1, fault)
                return
            if following != ",":
                raise fault("',' or ']' is missing", position)
            position = _behind_blank(text, position + 1)


def _expect_end(text: str, position: int, fault: Any) -> None:
    position = _behind_blank(text, position)
    if position < len(text):
        raise fault("text follows the array", position)


def _behind_blank(text: str, position: int) -> int:
    match = _BLANK.match(text, position)
    return match.end() if match else position
