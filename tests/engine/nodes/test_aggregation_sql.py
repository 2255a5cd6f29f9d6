from __future__ import annotations

import datetime
import math
import statistics
from collections.abc import Iterator, Sequence
from typing import Any

import duckdb
import msgspec
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from seeknal.errors import ProjectError
from seeknal.nodes.aggregation_sql import AggregationSpec, check, compile_sql, output_names

Row = dict[str, Any]

AGGREGATES = ["count", "sum", "avg", "min", "max", "stddev"]


@pytest.fixture(scope="module")
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect(config={"threads": 1}) as opened:
        yield opened


def spec_of(features: list[dict[str, Any]], **fields: Any) -> AggregationSpec:
    declared = {
        "id_col": "customer_id",
        "feature_date_col": "happened",
        "application_date_col": "as_of",
        "features": features,
        **fields,
    }
    return msgspec.convert(declared, AggregationSpec)


def run(connection: duckdb.DuckDBPyConnection, spec: AggregationSpec, relation: str) -> list[Row]:
    result = connection.execute(compile_sql(spec, relation))
    assert result.description is not None
    names = [column[0] for column in result.description]
    assert names == output_names(spec)
    return [dict(zip(names, row, strict=True)) for row in result.fetchall()]


ORDERS = """(
    SELECT * FROM (VALUES
        (101, DATE '2024-01-10', 'US', 50.00, 2),
        (102, DATE '2024-01-11', 'UK', 100.00, 1),
        (101, DATE '2024-01-12', 'US', 45.00, 3)
    ) AS orders (customer_id, order_date, country, total_amount, quantity)
)"""

DAILY_SALES = {
    "feature_date_col": "order_date",
    "application_date_col": "order_date",
    "group_by": ["order_date", "country"],
    "features": [
        {"name": "revenue_metrics", "column": "total_amount", "basic": ["sum", "count", "mean"]},
        {"name": "quantity_metrics", "column": "quantity", "basic": ["sum", "avg"]},
    ],
}


def test_the_daily_sales_of_the_tutorial_have_the_documented_columns(connection: duckdb.DuckDBPyConnection) -> None:
    spec = spec_of(**DAILY_SALES)  # type: ignore[arg-type]
    rows = run(connection, spec, ORDERS)
    assert list(rows[0]) == [
        "customer_id",
        "order_date",
        "country",
        "revenue_metrics_sum",
        "revenue_metrics_count",
        "revenue_metrics_avg",
        "quantity_metrics_sum",
        "quantity_metrics_avg",
    ]
    assert [(row["customer_id"], row["revenue_metrics_sum"], row["quantity_metrics_avg"]) for row in rows] == [
        (101, 50, 2.0),
        (101, 45, 3.0),
        (102, 100, 1.0),
    ]


def test_columns_keep_their_order_of_declaration_and_synonyms_their_one_name() -> None:
    spec = spec_of(
        [
            {
                "name": "spend",
                "since": [{"condition": "ok", "functions": ["count", "sum"]}, {"name": "late", "condition": "late"}],
                "ratio": [{"numerator": "7d", "denominator": 30}],
                "rolling": [{"window": [" 7 D ", "30"], "functions": ["mean", "STD"]}, {"window": 1, "aggs": "max"}],
                "basic": ["std", "mean"],
            },
            {"name": "amount", "basic": "sum"},
        ],
        group_by=["region"],
    )
    assert check(spec) == []
    assert output_names(spec) == [
        "customer_id",
        "as_of",
        "region",
        "spend_stddev",
        "spend_avg",
        "spend_avg_7d",
        "spend_stddev_7d",
        "spend_avg_30d",
        "spend_stddev_30d",
        "spend_max_1d",
        "spend_sum_ratio_7d_30d",
        "spend_count_if",
        "spend_sum_if",
        "late_count_if",
        "amount_sum",
    ]


def test_a_key_column_named_twice_stands_once_whatever_its_case(connection: duckdb.DuckDBPyConnection) -> None:
    spec = spec_of(
        [{"name": "spend", "column": "TOTAL_AMOUNT", "basic": ["sum"], "rolling": [{"window": 2, "aggs": "sum"}]}],
        feature_date_col="ORDER_DATE",
        application_date_col="order_date",
        group_by=["Order_Date", "country", "CUSTOMER_ID"],
    )
    assert output_names(spec) == ["customer_id", "order_date", "country", "spend_sum", "spend_sum_2d"]
    assert len(run(connection, spec, ORDERS)) == 3


def test_basic_features_alone_are_one_plain_group_by(connection: duckdb.DuckDBPyConnection) -> None:
    statement = compile_sql(spec_of(**DAILY_SALES), '"transform"."clean_orders"')  # type: ignore[arg-type]
    assert statement.count("SELECT") == statement.count("FROM") == statement.count("GROUP BY") == 1
    assert "OVER" not in statement
    assert "JOIN" not in statement
    assert "FILTER" not in statement


def test_windows_read_the_relation_once_and_share_what_they_have_in_common() -> None:
    spec = spec_of(
        [
            {
                "name": "spend",
                "basic": AGGREGATES,
                "rolling": [{"window": [7, 30], "aggs": ["sum"]}],
                "ratio": [{"numerator": 7, "denominator": 30}],
            },
            {"name": "visits", "rolling": [{"window": 7, "aggs": ["count"]}]},
        ]
    )
    statement = compile_sql(spec, '"transform"."clean_orders"')
    assert statement.count('"transform"."clean_orders"') == 1
    assert statement.count(" OVER ") == 3
    assert statement.count("PARTITION BY") == 2
    assert compile_sql(spec, '"transform"."clean_orders"') == statement


def test_names_are_quoted_wherever_they_stand(connection: duckdb.DuckDBPyConnection) -> None:
    relation = """(SELECT 1 AS "or""der", DATE '2024-01-31' AS "select", DATE '2024-01-31' AS "as of", 7 AS "row",
                   'x' AS "group", {'m': 1} AS "column 1")"""
    features = [{"name": 'a "b"', "column": "row", "basic": ["sum"]}]
    fields = {
        "id_col": 'or"der',
        "feature_date_col": "select",
        "application_date_col": "as of",
        "group_by": ["group", "column 1"],
    }
    assert run(connection, spec_of(features, **fields), relation)[0]['a "b"_sum'] == 7
    features[0]["rolling"] = [{"window": 1, "aggs": ["sum"]}]  # type: ignore[list-item]
    assert run(connection, spec_of(features, **fields), relation)[0]['a "b"_sum_1d'] == 7


def test_a_column_that_is_missing_is_not_taken_for_an_output_of_the_same_name(
    connection: duckdb.DuckDBPyConnection,
) -> None:
    spec = spec_of(
        [{"name": "a", "column": "quantity", "basic": ["max"]}, {"name": "b", "column": "country2", "basic": ["max"]}],
        feature_date_col="order_date",
        application_date_col="order_date",
        group_by=["country"],
    )
    with pytest.raises(duckdb.BinderException, match="country2"):
        connection.execute(compile_sql(spec, ORDERS))


def test_a_windowed_aggregation_reads_only_the_columns_that_it_names(connection: duckdb.DuckDBPyConnection) -> None:
    connection.execute(
        "CREATE OR REPLACE TEMP TABLE wide AS SELECT 1 customer_id, DATE '2024-01-31' happened,"
        " DATE '2024-01-31' as_of, 5 spend, 'x' status, 1 never_read, 2 nor_this"
    )
    spec = spec_of(
        [{"name": "spend", "rolling": [{"window": 7, "aggs": ["sum"]}], "since": [{"condition": "status = 'x'"}]}]
    )
    row = connection.execute(f"EXPLAIN (FORMAT JSON) {compile_sql(spec, 'wide')}").fetchone()
    assert row is not None
    for column in ("customer_id", "happened", "as_of", "spend"):
        assert f'"{column}"' in row[1]
    assert "never_read" not in row[1]
    assert "nor_this" not in row[1]


def test_sums_keep_the_type_that_duckdb_gives_them(connection: duckdb.DuckDBPyConnection) -> None:
    relation = "(SELECT 1 AS customer_id, DATE '2024-01-31' AS happened, 12.34::DECIMAL(10, 2) AS spend)"
    spec = spec_of(
        [{"name": "spend", "basic": ["sum", "min"], "rolling": [{"window": 7, "aggs": ["sum", "count"]}]}],
        application_date_col="happened",
    )
    described = connection.execute(f"DESCRIBE {compile_sql(spec, relation)}").fetchall()
    assert {name: kind for name, kind, *_ in described} == {
        "customer_id": "INTEGER",
        "happened": "DATE",
        "spend_sum": "DECIMAL(38,2)",
        "spend_min": "DECIMAL(10,2)",
        "spend_sum_7d": "DECIMAL(38,2)",
        "spend_count_7d": "BIGINT",
    }


@pytest.mark.parametrize(
    ("features", "message"),
    [
        ([], "features is empty: declare at least one"),
        ([{"name": "spend"}], "feature 'spend' has none of basic, rolling, ratio and since"),
        ([{"name": "spend", "basic": []}], "feature 'spend' has none of basic, rolling, ratio and since"),
        (
            [{"name": "spend", "basic": ["summ"]}],
            "feature 'spend': basic: unknown aggregate 'summ'; did you mean 'sum'?",
        ),
        (
            [{"name": "spend", "rolling": [{"window": 7, "aggs": ["cuont"]}]}],
            "feature 'spend': rolling: unknown aggregate 'cuont'; did you mean 'count'?",
        ),
        (
            [{"name": "spend", "since": [{"condition": "ok", "aggs": ["avg"]}]}],
            "feature 'spend': since: unknown aggregate 'avg'; there is: count, sum",
        ),
        (
            [{"name": "spend", "rolling": [{"window": "7w", "aggs": ["sum"]}]}],
            "feature 'spend': rolling: window '7w' is not a number of days from 1 to 36500, such as 7 or 7d",
        ),
        (
            [{"name": "spend", "rolling": [{"window": [7, 0], "aggs": ["sum"]}]}],
            "feature 'spend': rolling: window '0' is not a number of days from 1 to 36500, such as 7 or 7d",
        ),
        (
            [{"name": "spend", "ratio": [{"numerator": -1, "denominator": 7}]}],
            "feature 'spend': ratio: window '-1' is not a number of days from 1 to 36500, such as 7 or 7d",
        ),
        (
            [{"name": "spend", "rolling": [{"window": [], "aggs": ["sum"]}]}],
            "feature 'spend': rolling: window is empty",
        ),
        (
            [{"name": "spend", "rolling": [{"window": 7}]}],
            "feature 'spend': rolling: names no aggregate; add aggs, such as [sum]",
        ),
        (
            [{"name": "spend", "rolling": [{"window": 7, "aggs": ["sum"], "functions": ["avg"]}]}],
            "feature 'spend': rolling: aggs and functions mean the same; give one of them",
        ),
        ([{"name": "spend", "since": [{"condition": " "}]}], "feature 'spend': since: condition is empty"),
        ([{"name": "", "basic": ["sum"]}], "a feature has an empty name"),
        ([{"name": "spend", "column": "", "basic": ["sum"]}], "feature 'spend': column is empty"),
        ([{"name": "spend", "basic": ["avg", "mean"]}], "output column 'spend_avg' is declared more than once"),
        (
            [{"name": "spend", "rolling": [{"window": [7, "7d"], "aggs": ["sum"]}]}],
            "output column 'spend_sum_7d' is declared more than once",
        ),
        (
            [{"name": "spend", "since": [{"condition": "a"}, {"condition": "b"}]}],
            "output column 'spend_count_if' is declared more than once",
        ),
        (
            [{"name": "spend", "basic": ["sum"]}, {"name": "Spend", "column": "x", "basic": ["sum"]}],
            "output column 'spend_sum' is declared more than once",
        ),
        ([{"name": "region", "basic": ["max"]}], "output column 'region_max' has the name of a key column"),
    ],
)
def test_a_wrong_feature_is_refused_with_one_message(features: list[dict[str, Any]], message: str) -> None:
    spec = spec_of(features, group_by=["region_max"])
    assert check(spec) == [message]
    with pytest.raises(ProjectError) as raised:
        compile_sql(spec, "orders")
    assert [problem.message for problem in raised.value.problems()] == [message]


def test_every_problem_is_reported_not_only_the_first() -> None:
    spec = spec_of([{"name": "a"}, {"name": "b", "basic": ["total", "sum", "sum"]}], id_col="", group_by=[""])
    messages = check(spec)
    assert len(messages) == 5
    assert messages[0] == "id_col is empty"
    with pytest.raises(ProjectError) as raised:
        output_names(spec)
    assert [problem.message for problem in raised.value.problems()] == messages


def test_an_id_that_is_the_as_of_date_is_refused() -> None:
    spec = spec_of([{"name": "spend", "rolling": [{"window": 7, "aggs": "sum"}]}], id_col="AS_OF")
    assert check(spec) == ["id_col and application_date_col are the same column"]


@pytest.mark.parametrize("window", [7.5, None, True, {"days": 7}, [[1, 7]]])
def test_a_window_of_another_shape_does_not_convert(window: object) -> None:
    with pytest.raises(msgspec.ValidationError):
        spec_of([{"name": "spend", "rolling": [{"window": window, "aggs": ["sum"]}]}])


def test_a_window_of_seven_days_holds_seven_calendar_days(connection: duckdb.DuckDBPyConnection) -> None:
    relation = "(SELECT 1 AS customer_id, DATE '2024-02-20' + i::INTEGER AS happened, 1 AS spend FROM range(15) t(i))"
    spec = spec_of(
        [{"name": "spend", "rolling": [{"window": [1, 7], "aggs": ["sum"]}]}], application_date_col="happened"
    )
    rows = run(connection, spec, relation)
    assert [row["spend_sum_7d"] for row in rows] == [1, 2, 3, 4, 5, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7]
    assert [row["spend_sum_1d"] for row in rows] == [1] * 15


def test_a_window_excludes_the_very_moment_n_days_back_and_includes_the_as_of_moment(
    connection: duckdb.DuckDBPyConnection,
) -> None:
    relation = """(
        SELECT 1 AS customer_id, TIMESTAMP '2024-03-01 12:00:00' AS as_of, * FROM (VALUES
            (TIMESTAMP '2024-02-23 12:00:00', 1), (TIMESTAMP '2024-02-23 12:00:00.000001', 10),
            (TIMESTAMP '2024-03-01 12:00:00', 100), (TIMESTAMP '2024-03-01 12:00:00.000001', 1000)
        ) AS events (happened, spend)
    )"""
    spec = spec_of([{"name": "spend", "basic": ["sum"], "rolling": [{"window": "7d", "aggs": ["sum"]}]}])
    assert run(connection, spec, relation) == [
        {"customer_id": 1, "as_of": datetime.datetime(2024, 3, 1, 12), "spend_sum": 111, "spend_sum_7d": 110}
    ]


def test_a_row_after_its_as_of_date_counts_only_without_point_in_time(connection: duckdb.DuckDBPyConnection) -> None:
    relation = """(
        SELECT * FROM (VALUES
            (1, DATE '2024-01-30', DATE '2024-01-31', 1), (1, DATE '2024-02-01', DATE '2024-01-31', 10),
            (2, DATE '2024-02-01', DATE '2024-01-31', 100)
        ) AS events (customer_id, happened, as_of, spend)
    )"""
    features = [{"name": "spend", "basic": ["sum", "count"], "since": [{"condition": "spend > 0"}]}]
    values = [list(row.values())[2:] for row in run(connection, spec_of(features), relation)]
    assert values == [[1, 1, 1], [None, 0, 0]]
    values = [list(row.values())[2:] for row in run(connection, spec_of(features, point_in_time=False), relation)]
    assert values == [[11, 2, 2], [100, 1, 1]]


def test_windows_see_rows_of_other_as_of_dates_unless_the_as_of_date_is_grouped_by(
    connection: duckdb.DuckDBPyConnection,
) -> None:
    relation = """(
        SELECT 1 AS customer_id, happened, as_of, 1 AS spend
        FROM (VALUES (DATE '2024-01-30'), (DATE '2024-01-31')) AS events (happened),
             (VALUES (DATE '2024-01-31'), (DATE '2024-02-01')) AS dates (as_of)
    )"""
    features = [{"name": "spend", "rolling": [{"window": 7, "aggs": ["sum"]}]}]
    assert [row["spend_sum_7d"] for row in run(connection, spec_of(features), relation)] == [4, 4]
    grouped = spec_of(features, group_by=["as_of"])
    assert [row["spend_sum_7d"] for row in run(connection, grouped, relation)] == [2, 2]


def test_a_condition_is_one_predicate_whatever_it_is_made_of(connection: duckdb.DuckDBPyConnection) -> None:
    relation = """(
        SELECT 1 AS customer_id, * FROM (VALUES
            (DATE '2024-01-30', DATE '2024-01-31', 'done', 1), (DATE '2024-01-30', DATE '2024-01-31', 'open', 10),
            (DATE '2024-02-09', DATE '2024-01-31', 'open', 100), (DATE '2024-01-30', DATE '2024-01-31', NULL, 1000)
        ) AS events (happened, as_of, status, spend)
    )"""
    condition = "status == 'done' OR status == 'open' -- not the others"
    features = [{"name": "orders", "since": [{"condition": condition}]}]
    assert [row["orders_count_if"] for row in run(connection, spec_of(features), relation)] == [2]
    features = [
        {
            "name": "spend",
            "since": [{"condition": condition, "aggs": ["sum"]}],
            "rolling": [{"window": 7, "aggs": ["sum"]}],
        }
    ]
    assert [row["spend_sum_if"] for row in run(connection, spec_of(features), relation)] == [11]


def test_nulls_come_last_and_stay_out_of_windows_whatever_the_connection_prefers() -> None:
    relation = """(
        SELECT * FROM (VALUES (NULL, DATE '2024-01-30', 1), (NULL, NULL, 10), (1, NULL, 100), (1, DATE '2024-01-31', 9))
        AS events (customer_id, happened, spend)
    )"""
    spec = spec_of(
        [{"name": "spend", "basic": "sum", "rolling": [{"window": 7, "aggs": ["sum", "count"]}]}],
        application_date_col="happened",
    )
    with duckdb.connect(config={"default_null_order": "nulls_first"}) as connection:
        rows = [tuple(row.values()) for row in run(connection, spec, relation)]
    assert rows == [
        (1, datetime.date(2024, 1, 31), 9, 9, 1),
        (1, None, 100, None, 0),
        (None, datetime.date(2024, 1, 30), 1, 1, 1),
        (None, None, 10, None, 0),
    ]


def test_an_empty_relation_gives_the_columns_and_no_rows(connection: duckdb.DuckDBPyConnection) -> None:
    relation = "(SELECT 1 AS customer_id, DATE '2024-01-31' AS happened, DATE '2024-01-31' AS as_of, 1 AS s LIMIT 0)"
    spec = spec_of([{"name": "s", "basic": ["sum"], "rolling": [{"window": 7, "aggs": ["sum"]}]}])
    assert run(connection, spec, relation) == []


DAYS = [
    datetime.date.fromisoformat(f"2024-{day}")
    for day in ("01-31", "02-01", "02-28", "02-29", "03-01", "03-07", "03-08", "03-31")
]
TIMES = [datetime.time(), datetime.time(0, 0, 0, 1), datetime.time(12), datetime.time(23, 59, 59, 999999)]
MOMENTS = [datetime.datetime.combine(day, time) for day in DAYS for time in TIMES]


@st.composite
def tables(draw: st.DrawFn) -> pa.Table:
    event_type, as_of_type = (draw(st.sampled_from([pa.date32(), pa.timestamp("us")])) for _ in range(2))
    columns: dict[str, tuple[pa.DataType, Sequence[Any]]] = {
        "customer_id": (pa.int64(), [None, 1, 2]),
        "happened": (event_type, [None, *(DAYS if event_type == pa.date32() else MOMENTS)]),
        "as_of": (as_of_type, [None, *(DAYS if as_of_type == pa.date32() else MOMENTS)]),
        "region": (pa.string(), [None, "a", "b"]),
        "spend": (pa.int64(), [None, -3, 0, 0, 2, 5, 7]),
        "open": (pa.bool_(), [None, True, False]),
    }
    row = st.tuples(*(st.sampled_from(values) for _, values in columns.values()))
    rows = draw(st.lists(row, max_size=14))
    return pa.table(
        {name: pa.array([row[i] for row in rows], kind) for i, (name, (kind, _)) in enumerate(columns.items())}
    )


def moment(value: datetime.date | datetime.datetime) -> datetime.datetime:
    if isinstance(value, datetime.datetime):
        return value
    return datetime.datetime.combine(value, datetime.time())


def aggregated(aggregate: str, rows: list[Row]) -> float | None:
    values = [row["spend"] for row in rows if row["spend"] is not None]
    if aggregate == "count":
        return len(values)
    if not values or (aggregate == "stddev" and len(values) == 1):
        return None
    functions = {"sum": sum, "avg": statistics.mean, "min": min, "max": max, "stddev": statistics.stdev}
    return float(functions[aggregate](values))  # type: ignore[operator]


def divided(over: float | None, under: float | None) -> float | None:
    return None if over is None or not under else over / under


def expected(
    rows: list[Row], event_column: str, groups: list[str], point_in_time: bool, features: set[str]
) -> list[list[Any]]:
    same_dates = event_column == "as_of"
    keys = list(dict.fromkeys(["customer_id", "as_of", *groups]))
    entity = [key for key in keys if key != "as_of" or (key in groups and not same_dates)]

    def in_window(row: Row, key: Row, days: int) -> bool:
        if any(row[column] != key[column] for column in entity) or row[event_column] is None or key["as_of"] is None:
            return False
        event, as_of = moment(row[event_column]), moment(key["as_of"])
        return as_of - datetime.timedelta(days=days) < event <= as_of

    def in_time(row: Row) -> bool:
        if same_dates or not point_in_time:
            return True
        if row[event_column] is None or row["as_of"] is None:
            return False
        return moment(row[event_column]) <= moment(row["as_of"])

    output = []
    for values in {tuple(row[key] for key in keys) for row in rows}:
        key = dict(zip(keys, values, strict=True))
        own = [row for row in rows if all(row[column] == key[column] for column in keys) and in_time(row)]
        windows = {days: [row for row in rows if in_window(row, key, days)] for days in (1, 7, 30)}
        line: list[Any] = list(values)
        if "basic" in features:
            line += [aggregated(aggregate, own) for aggregate in AGGREGATES]
        if "rolling" in features:
            line += [aggregated(aggregate, windows[days]) for days in (1, 7, 30) for aggregate in AGGREGATES]
        if "ratio" in features:
            line += [divided(aggregated(a, windows[7]), aggregated(a, windows[30])) for a in ("sum", "count", "max")]
        if "since" in features:
            chosen = [row for row in own if row["open"]]
            line += [len(chosen), aggregated("sum", chosen)]
        output.append(line)
    return sorted(output, key=lambda line: [(value is None, value) for value in line[: len(keys)]])


def same(left: Any, right: Any) -> bool:
    if isinstance(left, float) and right is not None:
        return math.isclose(left, right, rel_tol=1e-9, abs_tol=1e-9)
    return bool(left == right)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    table=tables(),
    event_column=st.sampled_from(["happened", "as_of"]),
    groups=st.lists(st.sampled_from(["region", "as_of", "open"]), unique=True),
    point_in_time=st.booleans(),
    features=st.sets(st.sampled_from(["basic", "rolling", "ratio", "since"]), min_size=1),
)
def test_every_row_agrees_with_a_computation_by_hand(
    connection: duckdb.DuckDBPyConnection,
    table: pa.Table,
    event_column: str,
    groups: list[str],
    point_in_time: bool,
    features: set[str],
) -> None:
    declared = {
        "basic": AGGREGATES,
        "rolling": [{"window": [1, "7", "30d"], "aggs": AGGREGATES}],
        "ratio": [{"numerator": 7, "denominator": 30, "aggs": ["sum", "count", "max"]}],
        "since": [{"condition": "open", "aggs": ["count", "sum"]}],
    }
    spec = spec_of(
        [{"name": "spend", **{kind: declared[kind] for kind in features}}],
        feature_date_col=event_column,
        group_by=groups,
        point_in_time=point_in_time,
    )
    connection.register("events", table)
    computed = [list(row.values()) for row in run(connection, spec, '"events"')]
    wanted = expected(table.to_pylist(), event_column, groups, point_in_time, features)
    assert len(computed) == len(wanted)
    for computed_row, wanted_row in zip(computed, wanted, strict=True):
        assert all(map(same, computed_row, wanted_row)), (computed_row, wanted_row)
