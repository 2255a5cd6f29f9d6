"""Feature frames against a computation by hand: one row per spine row, nothing from the future."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from typing import Any

import duckdb
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from seeknal.pipeline.feature_frame import EntityTable, FeatureFrame, entity, features

Row = dict[str, Any]

MOMENTS = [datetime.datetime(2024, 1, 31) + datetime.timedelta(hours=12 * step) for step in range(6)]
PATIENT = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect(":memory:") as opened:
        yield opened


def plain(frame: pd.DataFrame) -> list[Row]:
    """A frame's rows with NULL as None, whatever pandas makes of it."""
    return [
        {str(name): None if not isinstance(value, dict) and pd.isna(value) else value for name, value in row.items()}
        for row in frame.to_dict("records")
    ]


def orders() -> FeatureFrame:
    rows = pd.DataFrame(
        {
            "user_id": [1, 1, 2],
            "seen": pd.to_datetime(["2024-01-01", "2024-01-03", "2024-01-02"]),
            "spent": [10, 30, 20],
        }
    )
    return FeatureFrame(rows, "user", ["user_id"], "seen")


def test_features_are_those_known_at_the_date_of_each_spine_row() -> None:
    spine = pd.DataFrame({"user_id": [2, 1, 1, 1, 3], "label_date": ["2024-01-02"] + ["2024-01-02", "2024-01-09"] * 2})
    joined = orders().pit_join(spine=spine, date_col="label_date")
    assert list(joined.columns) == ["user_id", "label_date", "seen", "spent"]
    assert [row["spent"] for row in plain(joined)] == [20, 10, 30, 10, None]
    assert joined["label_date"].iloc[2] == pd.Timestamp("2024-01-09")


def test_spine_rows_that_share_key_and_date_all_come_out() -> None:
    spine = pd.DataFrame({"user_id": [1, 1, 1], "on": [datetime.date(2024, 1, 5)] * 3, "label": ["a", "b", "a"]})
    joined = orders().pit_join(spine, "on", keep_cols=["label"])
    assert list(joined["label"]) == ["a", "b", "a"]
    assert list(joined["spent"]) == [30, 30, 30]


def test_only_the_kept_columns_keys_and_date_come_back_and_the_spines_win_over_features_of_the_same_name() -> None:
    spine = pd.DataFrame({"x": [0], "spent": [-1], "user_id": [1], "on": ["2024-01-05"]})
    joined = orders().pit_join(spine, "on", keep_cols=["spent"])
    assert plain(joined) == [
        {"spent": -1, "user_id": 1, "on": pd.Timestamp("2024-01-05"), "seen": pd.Timestamp("2024-01-03")}
    ]


@pytest.mark.parametrize(
    ("spine", "date_col", "message"),
    [
        ({"user": [1], "on": ["2024-01-01"]}, "on", "'user_id' is missing from the spine; did you mean 'user'"),
        ({"user_id": [1]}, "on", "'on' is missing from the spine"),
        ({"user_id": [1], "on": [1.5]}, "on", "'on' holds DOUBLE, and a time is needed"),
        ({"user_id": [1], "on": ["soon"]}, "on", "cannot be joined"),
        ({"user_id": [[1]], "on": ["2024-01-01"]}, "on", "cannot be joined"),
    ],
)
def test_a_spine_that_cannot_be_joined_is_refused(spine: dict[str, Any], date_col: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        orders().pit_join(pd.DataFrame(spine), date_col)


def test_as_of_gives_the_latest_row_of_each_key_and_refuses_what_is_no_moment() -> None:
    assert list(orders().as_of("2024-01-02")["spent"]) == [10, 20]
    assert list(orders().as_of(datetime.date(2024, 1, 3))["spent"]) == [30, 20]
    aware = datetime.datetime(2024, 1, 3, 1, tzinfo=datetime.timezone(datetime.timedelta(hours=2)))
    assert list(orders().as_of(aware)["spent"]) == [10, 20]
    with pytest.raises(ValueError, match="'yesterday' is no moment"):
        orders().as_of("yesterday")


def test_a_feature_frame_is_used_like_the_frame_inside(connection: duckdb.DuckDBPyConnection) -> None:
    frame = orders()
    frame["twice"] = frame["spent"] * 2
    assert list(frame.copy().query("user_id == 1")["twice"]) == [20, 60]
    assert (len(frame), frame.shape, "spent" in frame) == (3, (3, 4), True)
    assert frame.groupby("user_id")["spent"].sum().to_dict() == {1: 40, 2: 20}
    assert frame.to_df() is frame.to_df()
    assert connection.sql("SELECT sum(spent) FROM frame").fetchall() == [(60,)]
    assert "entity='user'" in repr(frame)


@pytest.mark.parametrize("form", ["polars", "arrow", "relation"])
def test_frames_of_other_libraries_are_taken_too(form: str, connection: duckdb.DuckDBPyConnection) -> None:
    polars = pytest.importorskip("polars")
    rows = pa.table({"user_id": [1], "event_time": [datetime.datetime(2024, 1, 1)], "spent": [5]})
    connection.register("rows", rows)
    frame = {"polars": polars.from_arrow(rows), "arrow": rows, "relation": connection.sql("FROM rows")}[form]
    made = FeatureFrame(frame, "user", ["user_id"])
    spine = pa.table({"user_id": [1, 2], "on": [datetime.date(2024, 1, 1)] * 2})
    for given_spine in (spine, polars.from_arrow(spine)):
        assert [row["spent"] for row in plain(made.pit_join(given_spine, "on"))] == [5, None]
    assert list(made.to_df()["spent"]) == [5]


@st.composite
def timelines(draw: st.DrawFn) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Feature rows with ties and NULLs, and a spine with repeated rows."""
    key, tag = st.sampled_from([None, 1, 2]), st.sampled_from(["a", "b"])
    moment = st.sampled_from([None, *MOMENTS])
    found = draw(st.lists(st.tuples(key, tag, moment), max_size=10))
    asked = draw(st.lists(st.tuples(key, tag, moment), max_size=6))
    return (
        frame_of({"k": [r[0] for r in found], "tag": [r[1] for r in found], "t": [r[2] for r in found]}, "feature"),
        frame_of({"k": [r[0] for r in asked], "tag": [r[1] for r in asked], "d": [r[2] for r in asked]}, "line"),
    )


def frame_of(columns: dict[str, list[Any]], number: str) -> pd.DataFrame:
    count = len(columns["k"])
    kinds = {"k": "Int64", "tag": "object", "t": "datetime64[us]", "d": "datetime64[us]"}
    series: dict[str, Any] = {name: pd.Series(values, dtype=kinds[name]) for name, values in columns.items()}
    return pd.DataFrame({**series, number: range(count)})


def latest(rows: list[Row], key: tuple[Any, Any], moment: Any, time: str) -> Row | None:
    known = [
        (row[time], position)
        for position, row in enumerate(rows)
        if (row["k"], row["tag"]) == key and row[time] is not None and row[time] <= moment
    ]
    return rows[max(known)[1]] if known else None


@PATIENT
@given(timelines())
def test_every_spine_row_gets_the_latest_features_that_were_known(tables: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    found, spine = tables
    joined = plain(FeatureFrame(found, "user", ["k", "tag"], "t").pit_join(spine, "d"))
    rows = plain(found)
    assert [row["line"] for row in joined] == list(range(len(spine)))
    for row in joined:
        wanted = None
        if row["k"] is not None and row["d"] is not None:
            wanted = latest(rows, (row["k"], row["tag"]), row["d"], "t")
        assert (row["feature"], row["t"]) == ((wanted["feature"], wanted["t"]) if wanted else (None, None))


@PATIENT
@given(timelines(), st.sampled_from(MOMENTS))
def test_as_of_agrees_with_a_computation_by_hand(
    tables: tuple[pd.DataFrame, pd.DataFrame], moment: datetime.datetime
) -> None:
    rows = plain(tables[0])
    keys = {(row["k"], row["tag"]) for row in rows}
    wanted = [found for key in keys if (found := latest(rows, key, moment, "t"))]
    made = FeatureFrame(tables[0], "user", ["k", "tag"], "t").as_of(moment)
    assert plain(made) == sorted(wanted, key=lambda row: row["feature"])


# an entity's table


def user_table(connection: duckdb.DuckDBPyConnection) -> EntityTable:
    connection.execute(
        """
        CREATE SCHEMA entity;
        CREATE TABLE entity.user AS SELECT * FROM (VALUES
            (1, TIMESTAMP '2024-01-01', {'age': 30, 'city': 'Oslo'}, NULL),
            (1, TIMESTAMP '2024-01-02', NULL, {'spent': 5}),
            (1, TIMESTAMP '2024-01-05', {'age': 31, 'city': NULL}, {'spent': NULL}),
            (2, TIMESTAMP '2024-01-03', NULL, {'spent': 7})
        ) AS t (user_id, event_time, profile, orders)
        """
    )
    return EntityTable(connection, "entity.user", "user", ("user_id",))


def test_an_entity_as_of_a_moment_holds_the_last_news_of_each_group(connection: duckdb.DuckDBPyConnection) -> None:
    table = user_table(connection)
    assert len(entity(table)) == 4
    assert plain(entity(table, as_of="2024-01-03")) == [
        {
            "user_id": 1,
            "event_time": pd.Timestamp("2024-01-02"),
            "profile": {"age": 30, "city": "Oslo"},
            "orders": {"spent": 5},
        },
        {"user_id": 2, "event_time": pd.Timestamp("2024-01-03"), "profile": None, "orders": {"spent": 7}},
    ]


def test_chosen_features_come_in_the_order_asked_for(connection: duckdb.DuckDBPyConnection) -> None:
    table = user_table(connection)
    made = features(table, ["orders.spent", "profile.age"], as_of="2024-01-02")
    assert plain(made) == [
        {"user_id": 1, "event_time": pd.Timestamp("2024-01-02"), "orders__spent": 5, "profile__age": 30}
    ]
    every = features(table, ["profile.city"])
    assert list(every.columns) == ["user_id", "event_time", "profile__city"]
    assert [row["profile__city"] for row in plain(every)] == ["Oslo", None, None, None]


def test_features_for_a_spine_are_looked_up_group_by_group(connection: duckdb.DuckDBPyConnection) -> None:
    dates = ["2024-01-04", "2024-01-04", "2023-01-01"]
    spine = pd.DataFrame({"label": ["x", "y", "z"], "user_id": [1, 2, 1], "on": dates})
    made = features(user_table(connection), ["profile.age", "orders.spent"], spine=spine, date_col="on")
    assert list(made.columns) == ["label", "user_id", "on", "event_time", "profile__age", "orders__spent"]
    assert [(row["label"], row["profile__age"], row["orders__spent"]) for row in plain(made)] == [
        ("x", 30, 5),
        ("y", None, 7),
        ("z", None, None),
    ]
    assert [row["event_time"] for row in plain(made)] == [pd.Timestamp("2024-01-02"), pd.Timestamp("2024-01-03"), None]


@pytest.mark.parametrize(
    ("references", "options", "message"),
    [
        (["age"], {}, "'age' does not name a feature; write group.feature"),
        (["profil.age"], {}, "no feature group 'profil'; did you mean 'profile'"),
        (["profile.agee"], {}, "'profile' has no feature 'agee'; did you mean 'age'"),
        ([], {}, "no feature of entity 'user' was asked for"),
        (["profile.age"], {"spine": pd.DataFrame({"user_id": [1]})}, "needs date_col"),
        (
            ["profile.age"],
            {"spine": pd.DataFrame({"user_id": [1]}), "date_col": "d", "as_of": "2024-01-01"},
            "together",
        ),
    ],
)
def test_what_cannot_be_answered_is_refused(
    connection: duckdb.DuckDBPyConnection, references: list[str], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        features(user_table(connection), references, **options)
