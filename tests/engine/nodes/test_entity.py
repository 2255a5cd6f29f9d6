"""Entities: all groups in one table, no row lost, none multiplied; made by the engine, cached like any node."""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from seeknal.dag.project import Project
from seeknal.errors import ProjectError
from seeknal.nodes.entity import EntityGroup, EntityKind, EntitySpec
from seeknal.workflow.environment import EnvironmentManager
from seeknal.workflow.reading import TableReader
from seeknal.workflow.selection import Filters
from seeknal.workflow.session import Session
from tests.engine.workflow.projects import executed_in, run, write, write_project

GROUPS = """
kind: source
name: users
source: csv
table: users.csv
---
kind: source
name: orders
source: csv
table: orders.csv
---
kind: feature_group
name: profile
entity: {name: user, join_keys: [user_id]}
inputs: [source.users]
materialization: {event_time_col: signed_up}
---
kind: feature_group
name: orders
entity: user
inputs: [source.orders]
transform: SELECT user_id, ordered AS event_time, amount FROM source
"""


def project(root: Path, **more: str) -> Path:
    return write_project(
        root,
        {
            "users.csv": "user_id,signed_up,age\n1,2024-01-01,30\n3,2024-01-02,40\n",
            "orders.csv": "user_id,ordered,amount\n1,2024-01-01,10\n1,2024-01-05 12:00:00,30\n2,2024-01-02,20\n",
            "seeknal/a.yml": GROUPS,
            **more,
        },
    )


def rows(root: Path, sql: str, environment: str = "prod") -> list[tuple[Any, ...]]:
    with Session.open(Project.open(root)) as session, TableReader.open(session.store, environment) as reader:
        return list(reader.query(sql).values)


def catalog(root: Path, entity: str = "user") -> Any:
    return json.loads((root / "feature_store" / entity / "_entity_catalog.json").read_text())


def test_every_row_of_every_group_stands_at_its_key_and_time(tmp_path: Path) -> None:
    project(tmp_path)
    run(tmp_path)
    assert rows(tmp_path, "FROM entity.user") == [
        ("1", "2024-01-01 00:00:00", "{'amount': 10}", "{'age': 30}"),
        ("1", "2024-01-05 12:00:00", "{'amount': 30}", None),
        ("2", "2024-01-02 00:00:00", "{'amount': 20}", None),
        ("3", "2024-01-02 00:00:00", None, "{'age': 40}"),
    ]
    described = duckdb.sql(f"DESCRIBE FROM '{tmp_path}/target/feature_store/user/features.parquet'").fetchall()
    assert [entry[:2] for entry in described] == [
        ("user_id", "BIGINT"),
        ("event_time", "TIMESTAMP"),
        ("orders", "STRUCT(amount BIGINT)"),
        ("profile", "STRUCT(age BIGINT)"),
    ]


def test_the_catalog_tells_what_an_entity_is_made_of(tmp_path: Path) -> None:
    project(tmp_path)
    run(tmp_path)
    told = catalog(tmp_path / "target")
    updated = [told["feature_groups"][name].pop("last_updated") for name in ("orders", "profile")]
    assert told["consolidated_at"] >= max(updated)
    assert told == {
        "entity_name": "user",
        "join_keys": ["user_id"],
        "feature_groups": {
            "orders": {
                "name": "orders",
                "features": ["amount"],
                "event_time_col": "event_time",
                "row_count": 3,
                "superseded_rows": 0,
                "schema": {"user_id": "BIGINT", "event_time": "TIMESTAMP", "amount": "BIGINT"},
            },
            "profile": {
                "name": "profile",
                "features": ["age"],
                "event_time_col": "signed_up",
                "row_count": 2,
                "superseded_rows": 0,
                "schema": {"user_id": "BIGINT", "signed_up": "DATE", "age": "BIGINT"},
            },
        },
        "consolidated_at": told["consolidated_at"],
        "schema_version": "1.0",
    }


def test_of_several_rows_of_a_group_at_one_key_and_time_the_last_one_counts(tmp_path: Path) -> None:
    again = "user_id,ordered,amount\n1,2024-01-01,10\n2,2024-01-02,20\n1,2024-01-01,11\n1,2024-01-01,\n"
    project(tmp_path, **{"orders.csv": again})
    run(tmp_path)
    found = rows(tmp_path, "SELECT user_id, orders.amount, orders IS NULL FROM entity.user WHERE orders IS NOT NULL")
    assert found == [("1", None, "false"), ("2", "20", "false")]
    assert catalog(tmp_path / "target")["feature_groups"]["orders"]["superseded_rows"] == 2


def test_a_missing_key_is_a_key_like_any_other(tmp_path: Path) -> None:
    project(
        tmp_path,
        **{
            "users.csv": "user_id,signed_up,age\n,2024-01-01,30\n4,2024-01-01,50\n",
            "orders.csv": "user_id,ordered,amount\n,2024-01-01,10\n,,5\n1,,7\n",
        },
    )
    run(tmp_path)
    assert rows(tmp_path, "SELECT user_id, event_time, orders.amount, profile.age FROM entity.user") == [
        ("1", None, "7", None),
        ("4", "2024-01-01 00:00:00", None, "50"),
        (None, "2024-01-01 00:00:00", "10", "30"),
        (None, None, "5", None),
    ]


MOMENTS = [None, datetime.datetime(2024, 1, 31), datetime.datetime(2024, 2, 1), datetime.datetime(2024, 2, 1, 12)]


@pytest.fixture(scope="module")
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect(":memory:") as opened:
        opened.execute("CREATE SCHEMA g")
        yield opened


lines = st.lists(
    st.tuples(
        st.sampled_from([None, 1, 2]),
        st.sampled_from([None, "a"]),
        st.sampled_from(MOMENTS),
        st.sampled_from([None, 1, 2]),
    ),
    max_size=8,
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(groups=st.lists(lines, min_size=1, max_size=3))
def test_the_table_agrees_with_a_computation_by_hand(
    connection: duckdb.DuckDBPyConnection, groups: list[list[tuple[Any, ...]]]
) -> None:
    wanted: dict[tuple[Any, ...], dict[int, Any]] = {}
    for number, group in enumerate(groups):
        connection.execute(f"CREATE OR REPLACE TABLE g.f{number} (x INTEGER, k INTEGER, tag TEXT, t TIMESTAMP)")
        for key, tag, moment, value in group:
            connection.execute(f"INSERT INTO g.f{number} VALUES (?, ?, ?, ?)", [value, key, tag, moment])
            wanted.setdefault((key, tag, moment), {})[number] = {"x": value}
    names = [f"f{number}" for number in range(len(groups))]
    spec = EntitySpec(join_keys=["k", "tag"], feature_groups={name: EntityGroup(event_time_col="t") for name in names})
    query = EntityKind().query(spec, [f"g.{name}" for name in names])
    found = connection.sql(query.text).fetchall()
    expected = [(*key, *(values.get(number) for number in range(len(groups)))) for key, values in wanted.items()]
    last = datetime.datetime.max
    assert found == sorted(expected, key=lambda row: (row[0] or 9, row[1] or "z", row[2] or last))


def test_keys_of_different_types_are_refused_unless_they_are_numbers_alike(tmp_path: Path) -> None:
    project(tmp_path)
    write(tmp_path, "seeknal/a.yml", GROUPS.replace("SELECT user_id,", "SELECT user_id::INTEGER AS user_id,"))
    run(tmp_path)
    assert rows(tmp_path, "SELECT DISTINCT typeof(user_id) FROM entity.user") == [("BIGINT",)]
    write(tmp_path, "seeknal/a.yml", GROUPS.replace("SELECT user_id,", "SELECT user_id::TEXT AS user_id,"))
    with pytest.raises(ProjectError, match="key 'user_id' is not of one type: orders has VARCHAR; profile has BIGINT"):
        run(tmp_path)


# a node like any other


@pytest.mark.parametrize("parallel", [False, True])
def test_an_unchanged_entity_is_not_made_again(tmp_path: Path, parallel: bool) -> None:
    project(tmp_path)
    options: dict[str, Any] = {"parallel": parallel, "max_workers": 2}
    assert executed_in(tmp_path, **options) == ["orders", "orders", "profile", "user", "users"]
    assert executed_in(tmp_path, **options) == []
    # A change that the groups do not pass on ends there.
    write(tmp_path, "users.csv", "user_id,signed_up,age\n1,2024-01-01,30\n3,2024-01-02,40\n\n")
    assert executed_in(tmp_path, **options) == ["users"]
    write(tmp_path, "users.csv", "user_id,signed_up,age\n1,2024-01-01,31\n3,2024-01-02,40\n")
    assert executed_in(tmp_path, **options) == ["profile", "user", "users"]


def test_an_environment_has_an_entity_of_its_own_until_it_is_promoted(tmp_path: Path) -> None:
    project(tmp_path)
    run(tmp_path)
    write(tmp_path, "seeknal/a.yml", GROUPS.replace("amount FROM", "amount * 2 AS amount FROM"))
    manager = EnvironmentManager(tmp_path / "target")
    with Session.open(Project.open(tmp_path)) as session:
        manager.plan("dev", session.manifest)
    applied = manager.apply("dev")
    assert {r.node_id for r in applied.summary.results if r.status.value == "success"} == {
        "feature_group.orders",
        "entity.user",
    }
    amounts = "SELECT sum(orders.amount) FROM '{}/feature_store/user/features.parquet'"
    environment = tmp_path / "target/environments/dev"
    assert duckdb.sql(amounts.format(environment)).fetchall() == [(120,)]
    assert duckdb.sql(amounts.format(tmp_path / "target")).fetchall() == [(60,)]
    assert catalog(environment)["entity_name"] == "user"
    manager.promote("dev")
    assert duckdb.sql(amounts.format(tmp_path / "target")).fetchall() == [(120,)]
    assert executed_in(tmp_path) == []


def test_the_files_follow_an_entity_that_is_renamed_or_gone(tmp_path: Path) -> None:
    project(tmp_path)
    run(tmp_path)
    store = tmp_path / "target/feature_store"
    store.unlink()
    run(tmp_path)
    assert sorted(path.name for path in store.iterdir()) == ["user"]
    write(tmp_path, "seeknal/a.yml", GROUPS.replace("entity: user", "entity: {name: buyer, join_keys: [user_id]}"))
    run(tmp_path)
    assert sorted(path.name for path in store.iterdir()) == ["buyer", "user"]
    write(tmp_path, "seeknal/a.yml", GROUPS.partition("---\nkind: feature_group")[0])
    run(tmp_path)
    assert not store.exists()


def test_groups_that_disagree_about_the_keys_leave_the_entity_out_and_everything_else_runs(tmp_path: Path) -> None:
    project(tmp_path)
    write(tmp_path, "seeknal/a.yml", GROUPS.replace("entity: user", "entity: {name: user, join_keys: [amount]}"))
    with Session.open(Project.open(tmp_path)) as session:
        assert "entity.user" not in session.manifest.nodes
        (warning,) = session.compiled.parsed.warnings
    assert "entity 'user' is not made" in str(warning)
    assert "different join keys: orders has [amount]; profile has [user_id]" in str(warning)
    assert executed_in(tmp_path) == ["orders", "orders", "profile", "users"]


def test_a_group_with_the_name_of_a_column_leaves_the_entity_out(tmp_path: Path) -> None:
    project(tmp_path)
    write(tmp_path, "seeknal/a.yml", GROUPS.replace("name: profile", "name: User_ID"))
    with Session.open(Project.open(tmp_path)) as session:
        (warning,) = session.compiled.parsed.warnings
    assert "feature_group.User_ID has the name of one of its columns" in str(warning)


def test_the_case_of_names_makes_no_difference(tmp_path: Path) -> None:
    project(tmp_path)
    write(tmp_path, "seeknal/a.yml", GROUPS.replace("entity: user\n", "entity: {name: User, join_keys: [USER_ID]}\n"))
    run(tmp_path)
    assert rows(tmp_path, "SELECT count(*) FROM entity.user") == [("4",)]


def test_no_file_can_declare_an_entity(tmp_path: Path) -> None:
    project(tmp_path, **{"seeknal/b.yml": "kind: entity\nname: user\njoin_keys: [user_id]\n"})
    with pytest.raises(ProjectError, match=r"kind 'entity' cannot be declared"):
        run(tmp_path)


def test_other_nodes_read_an_entity(tmp_path: Path) -> None:
    sql = "SELECT user_id, profile.age FROM entity.user WHERE profile IS NOT NULL"
    project(tmp_path, **{"seeknal/b.yml": f"kind: transform\nname: ages\ntransform: {sql}\n"})
    run(tmp_path)
    assert rows(tmp_path, "FROM ages") == [("1", "30"), ("3", "40")]
    assert rows(tmp_path, "SELECT count(*) FROM entity_user") == [("4",)]


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({"nodes": ["feature_group.orders"]}, ["orders", "user"]),
        ({"types": ["feature_group"]}, ["orders", "profile", "user"]),
        ({"tags": ["paid"]}, ["orders", "orders", "user"]),
        ({"types": ["source"]}, ["orders", "users"]),
    ],
)
def test_a_selected_group_brings_its_entity(tmp_path: Path, options: dict[str, list[str]], wanted: list[str]) -> None:
    project(tmp_path)
    write(tmp_path, "seeknal/a.yml", GROUPS.replace("name: orders\nentity", "name: orders\ntags: [paid]\nentity"))
    run(tmp_path)
    assert executed_in(tmp_path, filters=Filters(**options), full=True) == wanted


def test_a_tag_builds_no_group_for_the_sake_of_an_entity(tmp_path: Path) -> None:
    project(tmp_path)
    write(tmp_path, "seeknal/a.yml", GROUPS.replace("name: orders\nentity", "name: orders\ntags: [paid]\nentity"))
    assert executed_in(tmp_path, filters=Filters(tags=["paid"])) == ["orders", "orders"]


def test_a_manifest_gives_the_entities_that_it_was_made_of(tmp_path: Path) -> None:
    from seeknal.dag.parse import parse_manifest

    project(tmp_path)
    opened = Project.open(tmp_path)
    with Session.open(opened) as session:
        manifest = session.manifest
    again = parse_manifest(opened, manifest).manifest
    assert again.fingerprint() == manifest.fingerprint()


FUNCTIONS = """
from seeknal.pipeline import feature_group, second_order_aggregation, transform


@feature_group(entity="user", inputs=["source.orders"], materialization={"event_time_col": "ordered"})
def clicks(ctx):
    orders = ctx.ref("source.orders")
    orders["clicked"] = orders["amount"] * 2
    return orders[["user_id", "ordered", "clicked"]]


@transform(inputs=["entity.user", "feature_group.clicks"])
def training(ctx):
    spine = ctx.duckdb.sql("SELECT 1 AS user_id, DATE '2024-01-03' AS day UNION ALL SELECT 3, DATE '2024-01-03'").df()
    found = ctx.features("user", ["orders.amount", "profile.age"], spine=spine, date_col="day")
    return ctx.ref("feature_group.clicks").pit_join(found, "day", keep_cols=["orders__amount", "profile__age"])


@second_order_aggregation(
    name="totals", id_col="user_id", feature_date_col="ordered", features={"clicked": {"basic": ["sum"]}}
)
def totals(ctx):
    return ctx.ref("feature_group.clicks").to_df()
"""


def test_functions_make_feature_groups_and_join_them_at_points_in_time(tmp_path: Path) -> None:
    project(tmp_path, **{"seeknal/functions.py": FUNCTIONS})
    assert run(tmp_path).status == "success"
    joined = "SELECT user_id, orders__amount, profile__age, clicked FROM training"
    assert rows(tmp_path, joined) == [("1", "10", "30", "20"), ("3", None, "40", None)]
    assert rows(tmp_path, "SELECT user_id, clicked_SUM FROM totals") == [("1", "80"), ("2", "40")]
    assert list(catalog(tmp_path / "target")["feature_groups"]) == ["clicks", "orders", "profile"]
    assert executed_in(tmp_path) == []
