"""Profiles: each metric against what Python computes of the same values, and checks of them."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seeknal.dag.sql import quoted
from seeknal.errors import ProjectError
from seeknal.nodes.check import Check
from seeknal.nodes.checks import CheckedTable, evaluate
from seeknal.nodes.profile import profile_query
from seeknal.nodes.profile_metrics import PROFILE_COLUMNS
from tests.engine.workflow.projects import executed_in, run, write, write_project

values = st.lists(st.one_of(st.none(), st.sampled_from([math.nan, math.inf, -2.0, 0.5, 0.5, 3.0, 1e200])), max_size=10)


@pytest.fixture(scope="module")
def connection() -> Iterator[Any]:
    with duckdb.connect(":memory:") as opened:
        yield opened


def profile(connection: Any, table: str, **columns: str) -> list[dict[str, Any]]:
    found = connection.execute(profile_query(table, columns))
    names = [entry[0] for entry in found.description]
    assert {name: str(entry[1]) for name, entry in zip(names, found.description, strict=True)} == PROFILE_COLUMNS
    return [dict(zip(names, row, strict=True)) for row in found.fetchall()]


@settings(max_examples=40, deadline=None)
@given(values)
def test_metrics_are_what_python_computes(connection: Any, said: list[float | None]) -> None:
    connection.execute("CREATE OR REPLACE TABLE numbers (x DOUBLE)")
    if said:
        connection.executemany("INSERT INTO numbers VALUES (?)", [(value,) for value in said])
    (row,) = profile(connection, "numbers", x="DOUBLE")
    known = [value for value in said if value is not None]
    finite = [value for value in known if abs(value) < 1e150]
    ordered = [value for value in known if not math.isnan(value)]
    assert (row["column_name"], row["column_type"]) == ("x", "DOUBLE")
    assert (row["row_count"], row["null_count"]) == (len(said), said.count(None))
    assert row["null_percent"] == (pytest.approx(100 * said.count(None) / len(said)) if said else None)
    assert row["distinct_count"] == len({str(value) for value in known})
    for name, pick in (("min", min), ("max", max)):
        assert (row[name] and float(row[name])) == (pick(ordered) if ordered else None)
    assert row["avg"] == (pytest.approx(statistics.fmean(finite)) if finite else None)
    assert row["stddev"] == (pytest.approx(statistics.stdev(finite)) if len(finite) > 1 else None)
    quartiles = statistics.quantiles(finite, n=4, method="inclusive") if len(finite) > 1 else finite * 3
    assert [row["p25"], row["p50"], row["p75"]] == (pytest.approx(quartiles) if finite else [None] * 3)


@pytest.mark.parametrize(
    ("type_", "one", "least", "mean"),
    [
        ("INTEGER", "3", "3", 3.0),
        ("DECIMAL(38,2)", "3.5", "3.50", 3.5),
        ("HUGEINT", "3", "3", 3.0),
        ("VARCHAR", "'x'", "x", None),
        ("BOOLEAN", "true", "true", None),
        ("DATE", "DATE '2024-01-02'", "2024-01-02", None),
        ("TIMESTAMP WITH TIME ZONE", "TIMESTAMPTZ '2024-01-02 00:00:00+00'", "2024-01-02 00:00:00+00", None),
        ("INTEGER[]", "[1]", None, None),
        ("STRUCT(a INTEGER)", "{'a': 1}", None, None),
        ("MAP(VARCHAR, INTEGER)", "MAP {'a': 1}", None, None),
        ("BLOB", "'x'::BLOB", None, None),
        ("JSON", "'{}'::JSON", None, None),
    ],
)
def test_every_type_has_the_metrics_that_fit_it(
    connection: Any, type_: str, one: str, least: str | None, mean: float | None
) -> None:
    connection.execute("SET TimeZone = 'UTC'")
    connection.execute(f"CREATE OR REPLACE TABLE one AS SELECT CAST({one} AS {type_}) AS v UNION ALL SELECT NULL")
    (row,) = profile(connection, "one", v=type_)
    assert (row["row_count"], row["null_count"], row["distinct_count"]) == (2, 1, 1)
    assert (row["min"], row["avg"]) == (least, mean)


def test_a_name_of_any_kind_is_a_column(connection: Any) -> None:
    odd = 'it\'s "odd"'
    connection.execute(f"CREATE OR REPLACE TABLE odd AS SELECT 1 AS {quoted(odd)}, 2 AS n, 3 AS measured")
    rows = profile(connection, "odd", **{odd: "INTEGER", "n": "INTEGER", "measured": "INTEGER"})
    assert [row["column_name"] for row in rows] == [odd, "n", "measured"]
    assert [row["avg"] for row in rows] == [1.0, 2.0, 3.0]


@pytest.mark.parametrize(
    ("check", "passed"),
    [
        ({"metric": "row_count", "minimum": 4}, True),
        ({"metric": "row_count", "maximum": 3}, False),
        ({"metric": "null_percent", "columns": ("X",), "maximum": 25}, True),
        ({"metric": "null_percent", "columns": ("x",), "maximum": 25, "exclusive": True}, False),
        ({"metric": "avg", "columns": ("x",), "minimum": 1, "maximum": 2, "inside": True}, False),
        ({"metric": "avg", "columns": ("x",), "minimum": 2.5}, False),
        ({"metric": "min", "columns": ("x",), "minimum": 1}, True),
        ({"metric": "max", "columns": ("x",), "maximum": 2.9}, False),
        ({"metric": "max", "columns": ("day",), "maximum": "2024-01-01"}, False),
        ({"metric": "freshness_hours", "columns": ("day",), "maximum": 24}, True),
        ({"metric": "freshness_hours", "columns": ("day",), "maximum": 23}, False),
        ({"metric": "avg", "columns": ("day",), "minimum": 9}, True),
        ({"metric": "avg", "columns": ("gone",), "minimum": 9}, False),
    ],
)
def test_checks_compare_metrics_with_their_bounds(connection: Any, check: dict[str, Any], passed: bool) -> None:
    connection.execute("CREATE OR REPLACE TABLE t AS SELECT unnest([1, 2, 3, NULL]) AS x, DATE '2024-01-02' AS day")
    query = profile_query("t", {"x": "INTEGER", "day": "DATE"})
    connection.execute(f"CREATE OR REPLACE TABLE p AS {query}")
    table = CheckedTable(connection, "p", PROFILE_COLUMNS, 2, 1704240000.0)
    (result,) = evaluate([Check(type="profile_check", **check)], table)
    assert result.passed is passed, result.message


def test_a_profile_reads_the_columns_that_it_names(tmp_path: Path) -> None:
    root = write_project(
        tmp_path,
        {
            "seeknal/a.yml": "kind: source\nname: a\nsource: csv\ntable: a.csv\n",
            "seeknal/p.yml": "kind: profile\nname: p\ninputs: [source.a]\nprofile: {columns: [X]}\n",
            "a.csv": "x,y\n1,2\n",
        },
    )
    assert executed_in(root) == ["a", "p"]
    assert [node.row_count for node in run(root).nodes if node.node_id == "profile.p"] == [1]
    write(root, "a.csv", "x,y\n1,3\n")
    assert executed_in(root) == ["a"]
    write(root, "a.csv", "x,y\n2,3\n")
    assert executed_in(root) == ["a", "p"]
    write(root, "seeknal/p.yml", "kind: profile\nname: p\ninputs: [source.a]\nprofile: {columns: [z]}\n")
    with pytest.raises(ProjectError, match=r"p.yml:4:\d+: profile.p: no column 'z'"):
        run(root)
