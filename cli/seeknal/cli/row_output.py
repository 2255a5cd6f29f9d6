"""How a query's rows look: as a table for people, as CSV or JSON for programs.

Rows come as texts and go out as they come, a batch at a time. A table's columns are as wide as the first batch needs;
what is longer further down is printed in full all the same.
"""

from __future__ import annotations

import itertools
import json
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from typing import TextIO

from seeknal.visible_text import visible, visible_cell
from seeknal.workflow.reading import BATCH_ROWS, Rows

FORMATS = ("table", "csv", "json")

_NUMBER_TYPE = re.compile(r"U?(?:TINY|SMALL|BIG|HUGE)?INT(?:EGER)?|FLOAT|DOUBLE|DECIMAL\(.*\)")
_CSV_SPECIAL = re.compile(r'[",\r\n]')
# Strings are matched so that what stands inside them is left alone.
_NOT_JSON = re.compile(r'("(?:[^"\\]|\\.)*")|-?Infinity|-?NaN')
_TIMESTAMP = re.compile(r'"(\d{4,}-\d\d-\d\d) (\d\d:\d\d:\d\d(?:\.\d+)?)(?:([+-]\d\d)(:\d\d)?)?"')


def write_rows(rows: Rows, form: str, stream: TextIO) -> int:
    """Write a result in one of FORMATS; gives the number of rows. For ``json`` the values must be JSON texts."""
    count = 0

    def counted() -> Iterator[tuple[str | None, ...]]:
        nonlocal count
        for row in rows.values:
            count += 1
            yield row

    if form == "json":
        lines = _json_lines(rows, counted())
    elif form == "csv":
        lines = _csv_lines(rows.columns, counted())
    elif rows.is_plan:
        lines = ((row[-1] or "").rstrip("\n") for row in counted())
    else:
        lines = table_lines(rows.columns, rows.types, counted())
    on_terminal = stream.isatty()
    while batch := list(itertools.islice(lines, BATCH_ROWS)):
        text = "\n".join(batch) + "\n"
        # A file or a program gets the data as it is; a terminal would obey it.
        stream.write(visible(text) if on_terminal else text)
    return count


def table_lines(
    columns: Sequence[str], types: Sequence[str], values: Iterable[tuple[str | None, ...]]
) -> Iterator[str]:
    """Lay out rows below headings; NULL says so, numbers stand to the right, control characters are spelled out."""
    headings = [visible_cell(name) for name in columns]
    is_number = [_NUMBER_TYPE.fullmatch(type_) is not None for type_ in types]
    rest = iter(values)
    first = [_cells(row) for row in itertools.islice(rest, BATCH_ROWS)]
    widths = [max(map(_width, cells)) for cells in zip(headings, *first, strict=True)]
    yield _line(headings, widths, is_number)
    yield "-|-".join("-" * width for width in widths)
    for cells in first:
        yield _line(cells, widths, is_number)
    for row in rest:
        yield _line(_cells(row), widths, is_number)


def _cells(row: tuple[str | None, ...]) -> list[str]:
    return ["NULL" if value is None else visible_cell(value) for value in row]


def _line(cells: Sequence[str], widths: Sequence[int], right: Sequence[bool]) -> str:
    padded = (
        " " * (width - _width(cell)) + cell if to_right else cell + " " * (width - _width(cell))
        for cell, width, to_right in zip(cells, widths, right, strict=True)
    )
    return " | ".join(padded).rstrip()


def _width(text: str) -> int:
    """How many places a text takes on a terminal."""
    if text.isascii():
        return len(text)
    wide = sum(unicodedata.east_asian_width(character) in "WF" for character in text)
    return len(text) + wide - sum(unicodedata.combining(character) > 0 for character in text)


def _csv_lines(columns: Sequence[str], values: Iterable[tuple[str | None, ...]]) -> Iterator[str]:
    """RFC 4180, with NULL as nothing and an empty text as ``""``."""
    yield ",".join(map(_csv_field, columns))
    for row in values:
        # A line with nothing in it would be no row to many readers.
        yield ",".join(map(_csv_field, row)) if len(row) > 1 or row[0] is not None else '""'


def _csv_field(value: str | None) -> str:
    if value is None:
        return ""
    if not value or _CSV_SPECIAL.search(value):
        return '"' + value.replace('"', '""') + '"'
    return value


def _json_lines(rows: Rows, values: Iterable[tuple[str | None, ...]]) -> Iterator[str]:
    """One array with one object on each line."""
    keys = [json.dumps(name, ensure_ascii=False) for name in rows.columns]
    is_time = [type_.startswith("TIMESTAMP") for type_ in rows.types]
    previous = None
    for row in values:
        if previous is not None:
            yield previous + ","
        fields = (f"{key}: {_json_value(value, time)}" for key, value, time in zip(keys, row, is_time, strict=True))
        previous = f"{'[' if previous is None else ' '}{{{', '.join(fields)}}}"
    yield "[]" if previous is None else previous + "]"


def _json_value(text: str | None, is_time: bool) -> str:
    """A value as JSON knows it: not-a-numbers as null, a moment in the form of ISO 8601."""
    if text is None:
        return "null"
    if is_time:
        return _TIMESTAMP.sub(_iso_moment, text)
    if "NaN" in text or "Infinity" in text:
        return _NOT_JSON.sub(lambda match: match[1] or "null", text)
    return text


def _iso_moment(match: re.Match[str]) -> str:
    day, time, hours, minutes = match.groups()
    zone = f"{hours}{minutes or ':00'}" if hours else ""
    return f'"{day}T{time}{zone}"'
