from __future__ import annotations

import csv
import io
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seeknal.cli.row_output import write_rows
from seeknal.workflow.reading import BATCH_ROWS, Rows

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=6)
tables = st.integers(1, 3).flatmap(
    lambda width: st.lists(st.tuples(*[st.none() | texts] * width), max_size=5).map(lambda rows: (width, rows))
)


def written(rows: list[tuple[str | None, ...]], form: str, *types: str, names: str = "abcdefgh") -> str:
    columns = tuple(names[: len(types)])
    stream = io.StringIO(newline="")
    assert write_rows(Rows(columns, types, iter(rows)), form, stream) == len(rows)
    return stream.getvalue()


@given(tables)
@settings(max_examples=100)
def test_csv_gives_back_every_value_with_null_as_nothing(table: tuple[int, list[tuple[str | None, ...]]]) -> None:
    width, rows = table
    text = written(rows, "csv", *["VARCHAR"] * width)
    read = list(csv.reader(io.StringIO(text, newline="")))
    assert read == [list("abc"[:width]), *([value or "" for value in row] for row in rows)]


def test_csv_tells_an_empty_text_from_null() -> None:
    assert written([("", None), (None, "")], "csv", "VARCHAR", "VARCHAR") == 'a,b\n"",\n,""\n'


@given(tables)
@settings(max_examples=100)
def test_json_gives_back_every_value(table: tuple[int, list[tuple[str | None, ...]]]) -> None:
    width, rows = table
    values = [tuple(None if value is None else json.dumps(value) for value in row) for row in rows]
    text = written(values, "json", *["VARCHAR"] * width)
    assert json.loads(text) == [dict(zip("abc"[:width], row, strict=True)) for row in rows]


def no_constant(name: str) -> None:
    raise AssertionError(f"{name} is no JSON")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("NaN", None),
        ("-Infinity", None),
        ('{"a":NaN,"b":[1,-Infinity,"NaN"]}', {"a": None, "b": [1, None, "NaN"]}),
        ('{"Infinity":"say \\"NaN\\" \\\\"}', {"Infinity": 'say "NaN" \\'}),
        ('"NaN"', "NaN"),
        (None, None),
    ],
)
def test_what_json_has_no_number_for_is_null(value: str | None, expected: object) -> None:
    text = written([(value,)], "json", "DOUBLE")
    assert json.loads(text, parse_constant=no_constant) == [{"a": expected}]


@pytest.mark.parametrize(
    ("type_", "value", "expected"),
    [
        ("TIMESTAMP", '"2024-01-01 10:00:00"', "2024-01-01T10:00:00"),
        ("TIMESTAMP WITH TIME ZONE", '"2024-01-01 10:00:00.5+00"', "2024-01-01T10:00:00.5+00:00"),
        ("TIMESTAMP WITH TIME ZONE", '"2024-01-01 10:00:00-03:30"', "2024-01-01T10:00:00-03:30"),
        ("TIMESTAMP", '"infinity"', "infinity"),
        ("TIMESTAMP", '"0045-03-15 (BC) 00:00:00"', "0045-03-15 (BC) 00:00:00"),
        ("VARCHAR", '"2024-01-01 10:00:00"', "2024-01-01 10:00:00"),
    ],
)
def test_moments_are_written_as_iso_8601(type_: str, value: str, expected: str) -> None:
    assert json.loads(written([(value,)], "json", type_)) == [{"a": expected}]


def test_no_rows_are_an_empty_array_and_headings_alone() -> None:
    assert written([], "json", "INTEGER") == "[]\n"
    assert written([], "csv", "INTEGER") == "a\n"
    assert written([], "table", "INTEGER") == "a\n-\n"


def test_a_table_aligns_numbers_to_the_right_and_spells_out_what_would_move_the_cursor() -> None:
    rows: list[tuple[str | None, ...]] = [("1", "x\ny"), ("100", None), (None, "\x1b[31m漢")]
    assert written(rows, "table", "BIGINT", "VARCHAR").splitlines() == [
        "   a | b",
        "-----|-----------",
        "   1 | x\\ny",
        " 100 | NULL",
        "NULL | \\x1b[31m漢",
    ]


def test_a_long_value_far_down_is_printed_in_full() -> None:
    rows: list[tuple[str | None, ...]] = [*[("1",)] * BATCH_ROWS, ("x" * 50,)]
    lines = written(rows, "table", "VARCHAR").splitlines()
    assert len(lines) == BATCH_ROWS + 3
    assert lines[-1] == "x" * 50
