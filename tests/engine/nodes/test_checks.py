"""The engine for checks: the violations of each, against a count that Python makes row by row."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import duckdb
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from seeknal.nodes.check import Check, CheckResult
from seeknal.nodes.checks import CheckedTable, evaluate

NOW = datetime(2026, 1, 10, 12, tzinfo=UTC)

Row = tuple[int | None, float | None, str | None, datetime | None]

SCHEMA = {"n": "INTEGER", "x": "DOUBLE", "s": "VARCHAR", "seen": "TIMESTAMP"}

numbers = st.one_of(st.none(), st.integers(-3, 3))
floats = st.one_of(
    st.none(), st.sampled_from([math.nan, math.inf, -math.inf, -1.5, -0.1, 0.0, 0.1, 0.30000000000000004, 2.5])
)
texts = st.one_of(st.none(), st.sampled_from(["", "a", "A", "b'c", "1"]))
moments = st.one_of(st.none(), st.integers(0, 96).map(lambda hours: NOW.replace(tzinfo=None) - timedelta(hours=hours)))
tables = st.lists(st.tuples(numbers, floats, texts, moments), max_size=12)
bounds = st.one_of(st.none(), st.integers(-3, 3), st.sampled_from([-0.1, 0.1, 0.5, 2.5]))


@pytest.fixture(scope="module")
def connection() -> Iterator[Any]:
    with duckdb.connect(":memory:") as opened:
        opened.execute("SET TimeZone = 'UTC'")
        yield opened


def results(connection: Any, rows: list[Row], *checks: Check) -> list[CheckResult]:
    connection.execute("CREATE OR REPLACE TABLE checked (n INTEGER, x DOUBLE, s VARCHAR, seen TIMESTAMP)")
    if rows:
        connection.executemany("INSERT INTO checked VALUES (?, ?, ?, ?)", rows)
    table = CheckedTable(connection, "checked", SCHEMA, len(rows), NOW.timestamp(), ["checked"])
    return list(evaluate(checks, table))


def column(rows: list[Row], name: str) -> list[Any]:
    return [row[list(SCHEMA).index(name)] for row in rows]


def agrees(found: CheckResult, violations: int, rows: int, limit: float = 0.0) -> None:
    assert found.violations == violations
    assert found.passed == (violations <= limit * rows)


@settings(max_examples=40, deadline=None)
@given(
    tables, st.sampled_from([("n",), ("x",), ("n", "s"), ("s", "x", "seen")]), st.sampled_from([0.0, 0.25, 0.5, 1.0])
)
def test_null_counts_rows_with_a_null_in_any_column(
    connection: Any, rows: list[Row], names: tuple[str, ...], limit: float
) -> None:
    (found,) = results(connection, rows, Check(type="null", columns=names, limit=limit))
    wanted = sum(any(column([row], name)[0] is None for name in names) for row in rows)
    agrees(found, wanted, len(rows), limit)


@pytest.mark.parametrize(("nulls", "passed"), [(2, True), (3, False)])
def test_a_share_is_not_rounded_to_whole_rows(connection: Any, nulls: int, passed: bool) -> None:
    rows: list[Row] = [(None if index < nulls else 1, None, None, None) for index in range(10)]
    (found,) = results(connection, rows, Check(type="null", columns=("n",), limit=0.25))
    assert (found.violations, found.passed) == (nulls, passed)


@settings(max_examples=60, deadline=None)
@given(tables, st.sampled_from(["n", "x"]), bounds, bounds)
def test_range_counts_values_outside_and_nan(
    connection: Any, rows: list[Row], name: str, low: float | None, high: float | None
) -> None:
    assume(low is not None or high is not None)
    (found,) = results(connection, rows, Check(type="range", columns=(name,), minimum=low, maximum=high))

    def inside(value: float | None) -> bool:
        if value is None:
            return True
        return not math.isnan(value) and (low is None or value >= low) and (high is None or value <= high)

    agrees(found, sum(not inside(value) for value in column(rows, name)), len(rows))


@settings(max_examples=40, deadline=None)
@given(tables, st.sampled_from([("n",), ("x",), ("n", "s"), ("n", "x", "s", "seen")]), st.sampled_from([0.0, 0.5]))
def test_unique_counts_each_row_beyond_the_first_of_its_group(
    connection: Any, rows: list[Row], names: tuple[str, ...], limit: float
) -> None:
    (found,) = results(connection, rows, Check(type="unique", columns=names, limit=limit))
    keys = Counter(
        tuple("nan" if isinstance(value, float) and math.isnan(value) else value for value in key)
        for key in zip(*(column(rows, name) for name in names), strict=True)
    )
    agrees(found, sum(count - 1 for count in keys.values()), len(rows), limit)


@settings(max_examples=40, deadline=None)
@given(tables, st.sampled_from([("n", (0, 1)), ("x", (0.1, 2.5)), ("n", (0.5, 2)), ("s", ("a", "b'c")), ("s", (1,))]))
def test_accepted_values_counts_others_and_lets_null_pass(
    connection: Any, rows: list[Row], said: tuple[str, tuple[Any, ...]]
) -> None:
    name, values = said
    (found,) = results(connection, rows, Check(type="accepted_values", columns=(name,), values=values))
    accepted = {str(value) for value in values} if name == "s" else set(values)
    agrees(found, sum(value is not None and value not in accepted for value in column(rows, name)), len(rows))


@settings(max_examples=40, deadline=None)
@given(tables, st.integers(1, 96), st.booleans())
def test_freshness_looks_at_the_newest_value_or_at_each(
    connection: Any, rows: list[Row], hours: int, per_row: bool
) -> None:
    check = Check(type="freshness", columns=("seen",), max_age_seconds=hours * 3600, per_row=per_row)
    (found,) = results(connection, rows, check)
    oldest = NOW.replace(tzinfo=None) - timedelta(hours=hours)
    known = [value for value in column(rows, "seen") if value is not None]
    if per_row:
        agrees(found, sum(value < oldest for value in known), len(rows))
    else:
        agrees(found, int(bool(rows) and (not known or max(known) < oldest)), len(rows))


@settings(max_examples=30, deadline=None)
@given(tables, st.sampled_from([None, 0, 2, 5]), st.sampled_from([None, 0, 3, 8]))
def test_row_count_holds_for_empty_tables_too(
    connection: Any, rows: list[Row], low: int | None, high: int | None
) -> None:
    (found,) = results(connection, rows, Check(type="row_count", minimum=low, maximum=high))
    outside = (low is not None and len(rows) < low) or (high is not None and len(rows) > high)
    agrees(found, int(outside), len(rows))


PREDICATES: dict[str, Callable[[Row], bool | None]] = {
    "n > 0": lambda row: None if row[0] is None else row[0] > 0,
    "n IS NULL OR s = 'a' -- so be it": lambda row: row[0] is None or row[2] == "a",
}


@settings(max_examples=40, deadline=None)
@given(tables, st.sampled_from(list(PREDICATES)))
def test_a_condition_that_is_null_is_violated(connection: Any, rows: list[Row], text: str) -> None:
    (found,) = results(connection, rows, Check(type="predicate", sql=text, statements=(text,)))
    agrees(found, sum(PREDICATES[text](row) is not True for row in rows), len(rows))


@settings(max_examples=10, deadline=None)
@given(tables)
def test_a_query_finds_its_rows_and_all_checks_of_a_list_are_evaluated(connection: Any, rows: list[Row]) -> None:
    query = Check(
        type="sql_assertion",
        sql="",
        statements=("CREATE TEMP TABLE big AS SELECT n FROM input_data WHERE n > 1", "SELECT n, n FROM big"),
        positions=(("input_data", 0),),
    )
    checks = [query, Check(type="null", columns=("n",)), query, Check(type="range", columns=("n",), maximum=1)]
    found = results(connection, rows, *checks)
    big = sum(value is not None and value > 1 for value in column(rows, "n"))
    assert [result.violations for result in found] == [big, column(rows, "n").count(None), big, big]


def test_one_check_that_cannot_be_evaluated_leaves_the_others(connection: Any) -> None:
    found = results(
        connection,
        [(1, 1.0, "x", None)],
        Check(type="null", columns=("n",)),
        Check(type="null", columns=("nn",)),
        Check(type="predicate", sql="", statements=("CAST(s AS INTEGER) > 0",)),
        Check(type="range", columns=("n",), minimum=2),
    )
    assert [result.passed for result in found] == [True, False, False, False]
    assert found[1].message.startswith("cannot be evaluated: no column 'nn'")
    assert "Could not convert string 'x'" in found[2].message
    assert found[3].violations == 1


def test_the_sample_has_the_rows_of_the_violations(connection: Any) -> None:
    rows: list[Row] = [(1, 1.0, "a", None), (1, 2.0, "b" * 500, None), (2, None, "c", None)]
    unique, null = results(connection, rows, Check(type="unique", columns=("n",)), Check(type="null", columns=("x",)))
    assert unique.sample is not None
    assert null.sample is not None
    assert (unique.sample.columns, unique.sample.rows) == (("n", "rows"), (("1", "2"),))
    assert null.sample.rows == (("2", None, "c", None),)
    (long,) = results(connection, rows, Check(type="accepted_values", columns=("s",), values=("a", "c")))
    assert long.sample is not None
    assert len(str(long.sample.rows[0][2])) == 200


def test_an_error_message_takes_the_place_of_the_count(connection: Any) -> None:
    said = Check(type="null", columns=("n",), message="Every row needs n")
    assert results(connection, [(None, None, None, None)], said)[0].message == "Every row needs n"
    assert results(connection, [(1, None, None, None)], said)[0].message == "none of 1 rows with NULL in n"


def test_an_empty_table_passes_with_a_note(connection: Any) -> None:
    checks = [
        Check(type="null", columns=("n",)),
        Check(type="unique", columns=("n",)),
        Check(type="freshness", columns=("seen",), max_age_seconds=1),
        Check(type="predicate", sql="", statements=("false",)),
    ]
    found = results(connection, [], *checks)
    assert all(result.passed for result in found)
    assert {result.message for result in found} == {"no rows to check"}
