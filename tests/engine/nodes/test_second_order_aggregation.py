"""Second-order aggregations: the documented names, and the values by a computation by hand."""

from __future__ import annotations

import datetime
import math
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import msgspec
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from seeknal.dag.project import Project
from seeknal.errors import ProjectError
from seeknal.nodes.second_order_aggregation_sql import SecondOrderSpec, check, compile_sql
from seeknal.workflow.reading import TableReader
from seeknal.workflow.session import Session
from tests.engine.workflow.projects import executed_in, run, write, write_project

Row = dict[str, Any]

AGGREGATES = ["count", "sum", "avg", "mean", "min", "max", "stddev", "std"]


def spec_of(features: dict[str, Any], **fields: Any) -> SecondOrderSpec:
    said = {"id_col": "region", "feature_date_col": "day", "application_date_col": "as_of", **fields}
    return msgspec.convert({**said, "features": features}, SecondOrderSpec)


@pytest.fixture(scope="module")
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect(":memory:") as opened:
        yield opened


def computed(connection: duckdb.DuckDBPyConnection, spec: SecondOrderSpec, relation: str) -> list[Row]:
    assert check(spec) == []
    result = connection.sql(compile_sql(spec, relation))
    return [dict(zip(result.columns, row, strict=True)) for row in result.fetchall()]


def test_the_output_columns_have_the_documented_names(connection: duckdb.DuckDBPyConnection) -> None:
    spec = spec_of(
        {
            "amount": {"basic": ["sum", "mean"]},
            "recent": {"window": [1, 7], "basic": "sum", "source_feature": "amount"},
            "trend": {"ratio": {"numerator": [1, 7], "denominator": [8, 30]}, "source_feature": "amount"},
            "flagged": {"since": {"condition": "amount == 2", "aggs": ["count", "sum"]}, "source_feature": "amount"},
            "users": {"basic": "count", "since": {}, "source_feature": "name"},
        }
    )
    first = "SELECT 'a' AS region, DATE '2024-01-31' AS day, DATE '2024-02-01' AS as_of, 2 AS amount, 'x' AS name"
    relation = f"({first} UNION ALL SELECT 'a', DATE '2024-01-20', DATE '2024-02-01', 4, 'y')"
    assert computed(connection, spec, relation) == [
        {
            "region": "a",
            "amount_SUM": 6,
            "amount_MEAN": 3.0,
            "amount_SUM_1_7": 2,
            "amount_SUM1_7_SUM8_30": 0.5,
            "SINCE_COUNT_amount_GEO_D": 1,
            "SINCE_SUM_amount_GEO_D": 2,
            "name_COUNT": 2,
            "SINCE_COUNT_name_GEO_D": 2,
        }
    ]


def test_a_condition_sees_the_days_between_and_may_end_in_a_comment(connection: duckdb.DuckDBPyConnection) -> None:
    since = [
        {"condition": "_days_between > 3 -- older", "name": "older"},
        {"condition": "_days_between <= 3 OR FALSE", "name": "newer"},
    ]
    as_of = "DATE '2024-03-01'"
    relation = f"(SELECT 1 AS region, {as_of} - n::INT AS day, {as_of} AS as_of, 1 AS x FROM range(10) AS t (n))"
    assert computed(connection, spec_of({"x": {"since": since}}), relation) == [
        {"region": 1, "SINCE_COUNT_older_GEO_D": 6, "SINCE_COUNT_newer_GEO_D": 4}
    ]


@pytest.mark.parametrize(
    ("features", "message"),
    [
        ({}, "features is empty: declare at least one"),
        ({"x": {}}, "feature 'x': it has none of basic, ratio and since"),
        ({"x": {"window": [1, 7]}}, "feature 'x': a window needs `basic:`"),
        ({"x": {"basic": ["summ"]}}, "feature 'x': unknown aggregate 'summ'"),
        ({"x": {"basic": ["sum"], "window": [7, 1]}}, "feature 'x': [7, 1] is no window"),
        ({"x": {"basic": ["sum"], "window": [1]}}, "feature 'x': [1] is no window"),
        ({"x": {"basic": ["sum"], "window": [-1, 7]}}, "feature 'x': [-1, 7] is no window"),
        ({"x": {"ratio": {"numerator": [1, 7], "denominator": [8]}}}, "feature 'x': [8] is no window"),
        ({"x": {"ratio": {"numerator": [1, 7], "denominator": [8, 9], "aggs": []}}}, "feature 'x': names no aggregate"),
        ({"x": {"basic": ["sum"], "percentile": 95}}, "feature 'x': 'percentile' is not supported"),
        ({"x": {"basic": ["sum"], "source_feature": ""}}, "feature 'x': source_feature is empty"),
        (
            {"x": {"since": {"condition": "a"}}, "y": {"since": {"condition": "b"}, "source_feature": "x"}},
            "output column 'SINCE_COUNT_x_GEO_D' is declared twice: by x and y",
        ),
        ({"x": {"basic": ["std"]}, "y": {"basic": ["stddev"], "source_feature": "x"}}, None),
        ({"x": {"basic": ["sum"]}, "y": {"basic": ["SUM"], "window": [1, 7], "source_feature": "x"}}, None),
    ],
)
def test_what_cannot_be_computed_is_refused_with_one_message(features: dict[str, Any], message: str | None) -> None:
    assert [wrong.message for wrong in check(spec_of(features))] == ([message] if message else [])


def test_an_output_cannot_have_the_name_of_the_id_column() -> None:
    (wrong,) = check(spec_of({"x": {"basic": ["sum"]}}, id_col="X_sum"))
    assert wrong.message == "output column 'x_SUM' has the name of the id column"


DAYS = [datetime.date.fromisoformat(f"2024-{day}") for day in ("01-31", "02-01", "02-28", "02-29", "03-01", "03-31")]


@st.composite
def tables(draw: st.DrawFn) -> pa.Table:
    columns: dict[str, tuple[pa.DataType, list[Any]]] = {
        "region": (pa.string(), [None, "a", "b"]),
        "day": (pa.date32(), [None, *DAYS]),
        "as_of": (pa.date32(), [None, *DAYS]),
        "spend": (pa.int64(), [None, -3, 0, 0, 2, 5]),
        "open": (pa.bool_(), [None, True, False]),
    }
    rows = draw(st.lists(st.tuples(*(st.sampled_from(values) for _, values in columns.values())), max_size=14))
    return pa.table(
        {name: pa.array([row[i] for row in rows], kind) for i, (name, (kind, _)) in enumerate(columns.items())}
    )


def aggregated(aggregate: str, rows: list[Row]) -> float | None:
    values = [row["spend"] for row in rows if row["spend"] is not None]
    if aggregate == "count":
        return len(values)
    if not values or (aggregate in ("stddev", "std") and len(values) == 1):
        return None
    functions: dict[str, Any] = {"sum": sum, "min": min, "max": max}
    functions |= dict.fromkeys(("avg", "mean"), statistics.mean) | dict.fromkeys(("stddev", "std"), statistics.stdev)
    return float(functions[aggregate](values))


def divided(over: float | None, under: float | None) -> float | None:
    return None if over is None or not under else over / under


def expected(rows: list[Row], *, has_application_date: bool) -> list[list[Any]]:
    known = [row["day"] for row in rows if row["day"] is not None]
    for row in rows:
        as_of = row["as_of"] if has_application_date else max(known, default=None)
        row["days"] = None if row["day"] is None or as_of is None else (as_of - row["day"]).days
    output = []
    for region in dict.fromkeys(row["region"] for row in rows):
        own = [row for row in rows if row["region"] == region]

        def window(low: float, high: float, own: list[Row] = own) -> list[Row]:
            return [row for row in own if row["days"] is not None and low <= row["days"] <= high]

        line: list[Any] = [region]
        line += [aggregated(name, window(0, math.inf)) for name in AGGREGATES]
        line += [aggregated(name, window(1, 29)) for name in AGGREGATES]
        line += [divided(aggregated(name, window(0, 7)), aggregated(name, window(8, 60))) for name in AGGREGATES]
        line += [aggregated(name, [row for row in own if row["open"]]) for name in AGGREGATES]
        output.append(line)
    return sorted(output, key=lambda line: (line[0] is None, line[0]))


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(table=tables(), has_application_date=st.booleans())
def test_every_row_agrees_with_a_computation_by_hand(
    connection: duckdb.DuckDBPyConnection, table: pa.Table, has_application_date: bool
) -> None:
    features = {
        "spend": {"basic": AGGREGATES, "window": [1, 29]},
        "trend": {
            "ratio": {"numerator": [0, 7], "denominator": [8, 60], "aggs": AGGREGATES},
            "source_feature": "spend",
        },
        "opened": {"since": {"condition": "open", "aggs": AGGREGATES}, "source_feature": "spend"},
    }
    spec = spec_of(features, application_date_col="as_of" if has_application_date else None)
    connection.register("events", table)
    found = [list(row.values()) for row in computed(connection, spec, '"events"')]
    wanted = expected(table.to_pylist(), has_application_date=has_application_date)
    assert len(found) == len(wanted)
    for found_row, wanted_row in zip(found, wanted, strict=True):
        for left, right in zip(found_row, wanted_row, strict=True):
            same = left == right or (left is not None and right is not None and math.isclose(left, right))
            assert same, (found_row, wanted_row)


# in a project

NODES = """
kind: source
name: daily
source: csv
table: daily.csv
---
kind: second_order_aggregation
name: regions
id_col: region
feature_date_col: day
source: source.daily
features:
  amount:
    basic: [sum]
    window: [0, 1]
"""


def project(root: Path, nodes: str = NODES) -> Path:
    daily = "region,day,amount\na,2024-01-01,1\na,2024-01-03,2\nb,2024-01-02,4\n"
    return write_project(root, {"daily.csv": daily, "seeknal/a.yml": nodes})


def rows(root: Path) -> list[tuple[Any, ...]]:
    with Session.open(Project.open(root)) as session, TableReader.open(session.store) as reader:
        return list(reader.query("FROM second_order_aggregation.regions").values)


def test_source_and_inputs_stand_for_each_other(tmp_path: Path) -> None:
    project(tmp_path)
    run(tmp_path)
    assert rows(tmp_path) == [("a", "3", "2"), ("b", "4", "4")]
    for inputs in ("inputs: [source.daily]", "source: source.daily\ninputs: [{ref: Source.Daily}]"):
        write(tmp_path, "seeknal/a.yml", NODES.replace("source: source.daily", inputs))
        assert executed_in(tmp_path) == []


def test_a_transform_gives_the_rows_to_aggregate(tmp_path: Path) -> None:
    sql = "transform: SELECT 'all' AS region, day, amount FROM source.daily -- together"
    project(tmp_path, NODES.replace("source: source.daily", sql))
    run(tmp_path)
    assert rows(tmp_path) == [("all", "7", "6")]


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ("owner: me", "seeknal/a.yml:6:1: 'source' is missing"),
        (
            "source: source.dayly",
            "seeknal/a.yml:10:1: input 'source.dayly' does not exist (did you mean 'source.daily'?)",
        ),
        (
            "source: source.daily\ninputs: [source.other]",
            "only one node is aggregated, and source.daily and source.other",
        ),
    ],
)
def test_a_source_that_is_not_one_is_an_error_at_its_place(tmp_path: Path, said: str, message: str) -> None:
    other = "---\nkind: source\nname: other\nsource: csv\ntable: daily.csv\n"
    project(tmp_path, NODES.replace("source: source.daily", said) + other)
    with pytest.raises(ProjectError) as error:
        run(tmp_path)
    assert message in str(error.value)


def test_a_column_that_is_not_there_is_an_error_before_anything_runs(tmp_path: Path) -> None:
    project(tmp_path, NODES.replace("id_col: region", "id_col: regio"))
    with pytest.raises(ProjectError) as error:
        run(tmp_path)
    assert str(error.value) == (
        "seeknal/a.yml:8:1: second_order_aggregation.regions: column 'regio' is missing from the input "
        "(did you mean 'region'?)"
    )
