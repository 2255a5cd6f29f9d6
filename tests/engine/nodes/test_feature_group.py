"""Feature groups: what they take, what they insist on, and what they tell their readers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from seeknal.dag.project import Project
from seeknal.errors import ProjectError
from seeknal.workflow.outputs import read_outputs
from seeknal.workflow.reading import TableReader
from seeknal.workflow.session import Session
from tests.engine.workflow.projects import executed_in, run, write, write_project

ORDERS = "user_id,seen,amount\n1,2024-01-01,10\n1,2024-01-03,30\n2,2024-01-02,20\n"
SOURCE = "kind: source\nname: orders\nsource: csv\ntable: orders.csv\n"


def project(root: Path, group: str, **more: str) -> Path:
    """A project with a source of orders and one feature group, whose fields are given."""
    fields = f"kind: feature_group\nname: spending\n{group}"
    return write_project(root, {"orders.csv": ORDERS, "seeknal/a.yml": SOURCE, "seeknal/b.yml": fields, **more})


def group(transform: str, **fields: str) -> str:
    said = {"entity": "user", "inputs": "[source.orders]", "materialization": "{event_time_col: seen}", **fields}
    return f"transform: {transform}\n" + "".join(f"{key}: {value}\n" for key, value in said.items())


def rows(root: Path, sql: str, environment: str = "prod") -> list[tuple[Any, ...]]:
    with Session.open(Project.open(root)) as session, TableReader.open(session.store, environment) as reader:
        return list(reader.query(sql).values)


def problems(root: Path) -> list[str]:
    try:
        with Session.open(Project.open(root)) as session:
            session.compiled.analysis.check()
    except ProjectError as error:
        return [str(problem) for problem in error.problems()]
    return []


def warnings(root: Path) -> list[str]:
    with Session.open(Project.open(root)) as session:
        session.compiled.analysis.check()
        return [str(problem) for problem in session.compiled.parsed.warnings]


def test_a_transform_names_its_input_in_every_way(tmp_path: Path) -> None:
    names = ["source", "SOURCE", "input_0", "__THIS__", "source.orders", "ref('source.orders')"]
    more = {
        f"seeknal/g{number}.yml": f"kind: feature_group\nname: g{number}\n{group(f'FROM {name}')}"
        for number, name in enumerate(names)
    }
    project(tmp_path, group("FROM source"), **more)
    run(tmp_path)
    for number in range(len(names)):
        assert rows(tmp_path, f"SELECT sum(amount) FROM feature_group.g{number}") == [("60",)]


def test_source_is_the_first_of_several_inputs_and_gives_way_to_a_name_of_the_querys_own(tmp_path: Path) -> None:
    users = "kind: source\nname: users\nsource: csv\ntable: users.csv\n"
    sql = "SELECT user_id, seen, age FROM source JOIN input_1 USING (user_id)"
    project(
        tmp_path,
        group(sql, inputs="[source.orders, source.users]"),
        **{"users.csv": "user_id,age\n1,30\n", "seeknal/c.yml": users},
    )
    run(tmp_path)
    assert rows(tmp_path, "SELECT count(*), any_value(age) FROM spending") == [("2", "30")]
    own = "WITH source AS (SELECT 7 AS user_id, DATE '2024-01-01' AS seen, 1 AS x) SELECT * FROM source"
    write(tmp_path, "seeknal/b.yml", f"kind: feature_group\nname: spending\n{group(own)}")
    run(tmp_path)
    assert rows(tmp_path, "SELECT user_id FROM spending") == [("7",)]


def test_source_alone_names_an_input_in_feature_groups_only(tmp_path: Path) -> None:
    transform = "kind: transform\nname: t\ninputs: [source.orders]\ntransform: SELECT * FROM source\n"
    project(tmp_path, group("SELECT * FROM source"), **{"seeknal/c.yml": transform})
    (problem,) = problems(tmp_path)
    assert problem.startswith("seeknal/c.yml:4:")
    assert "no node is called 'source'" in problem


def test_a_pivot_reads_source_too_and_is_verified_once_its_columns_are_known(tmp_path: Path) -> None:
    pivot = "FROM (PIVOT source ON user_id USING sum(amount))"
    project(tmp_path, group(f"SELECT *, 1 AS user_id {pivot}"))
    assert run(tmp_path).status == "success"
    write(tmp_path, "seeknal/b.yml", f"kind: feature_group\nname: spending\n{group(f'SELECT * {pivot}')}")
    result = run(tmp_path)
    (failed,) = [node for node in result.nodes if node.status == "failed"]
    assert "join key 'user_id' of entity 'user' is missing from the output" in str(failed.problems[0])


def test_without_a_transform_the_only_input_is_taken_as_it_is(tmp_path: Path) -> None:
    project(tmp_path, "entity: user\ninputs: [source.orders]\nmaterialization: {event_time_col: seen}\n")
    run(tmp_path)
    assert len(rows(tmp_path, "FROM spending")) == 3


def test_what_the_output_lacks_is_named_where_it_is_declared_with_what_comes_nearest(tmp_path: Path) -> None:
    project(
        tmp_path,
        "entity: {name: user, join_keys: [user_idd]}\n"
        "inputs: [source.orders]\n"
        "features: {amont: {description: x, dtype: float}}\n"
        "materialization: {event_time_col: sen}\n",
    )
    assert problems(tmp_path) == [
        "seeknal/b.yml:3:22: feature_group.spending: join key 'user_idd' of entity 'user' is missing from the output "
        "(did you mean 'user_id'?)",
        "seeknal/b.yml:6:19: feature_group.spending: event time 'sen' is missing from the output "
        "(did you mean 'seen'?)",
        "seeknal/b.yml:5:12: feature_group.spending: feature 'amont' is missing from the output "
        "(did you mean 'amount'?)",
    ]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"entity": "select"}, "entity 'select' is not allowed"),
        ({"entity": "{name: user, join_keys: []}"}, "an entity needs a join key"),
        ({"entity": "{name: user, join_keys: [user_id, USER_ID]}"}, "join key 'USER_ID' is named twice"),
        ({"entity": "{name: user, join_keys: [Seen]}"}, "join key 'Seen' has the name of the event time"),
        ({"entity": "{join_keys: [user_id]}"}, "'entity': "),
        ({"engine": "spark"}, "engine 'spark' is not supported"),
        ({"mode": "upsert"}, "unknown mode 'upsert'"),
        ({"transform": "SELECT user_id, amount AS seen, 1 AS x FROM source"}, "event time 'seen' is of type BIGINT"),
        ({"transform": "SELECT user_id, seen FROM source"}, "has no column beside the join keys and the event time"),
    ],
)
def test_what_cannot_be_a_feature_group_is_refused(tmp_path: Path, fields: dict[str, str], message: str) -> None:
    project(tmp_path, group(fields.pop("transform", "SELECT * FROM source"), **fields))
    (problem,) = problems(tmp_path)
    assert problem.startswith("seeknal/b.yml:")
    assert message in problem


@pytest.mark.parametrize("inputs", ["[]", "[source.orders, source.users]"])
def test_a_group_without_a_transform_needs_exactly_one_input(tmp_path: Path, inputs: str) -> None:
    users = "kind: source\nname: users\nsource: csv\ntable: orders.csv\n"
    project(tmp_path, f"entity: user\ninputs: {inputs}\n", **{"seeknal/c.yml": users})
    assert "a feature group needs" in problems(tmp_path)[0]


@pytest.mark.parametrize(
    ("materialization", "message"),
    [
        ("online: true", "the online store has no effect: it is not supported"),
        ("online: {enabled: true, ttl: 7d}", "the online store has no effect"),
        ("mode: append", "mode 'append' has no effect: the output is what the inputs give"),
        ("offline: {format: csv}", "format 'csv' has no effect"),
        ("offline: {enabled: true, partition_by: [user_id]}", "'partition_by' has no effect"),
        ("partition_by: user_id", "'partition_by' has no effect"),
    ],
)
def test_what_has_no_effect_is_said(tmp_path: Path, materialization: str, message: str) -> None:
    project(tmp_path, group("FROM source", materialization=f"{{event_time_col: seen, {materialization}}}"))
    (warning,) = warnings(tmp_path)
    assert message in warning


def test_what_is_off_or_as_it_always_is_needs_no_word(tmp_path: Path) -> None:
    said = (
        "{event_time_col: seen, offline: {enabled: true, format: parquet}, online: {enabled: false}, mode: overwrite}"
    )
    project(tmp_path, group("FROM source", materialization=said, engine="duckdb", mode="overwrite"))
    assert warnings(tmp_path) == []


def test_a_group_that_names_no_event_time_may_have_none_and_a_warning_says_what_that_means(tmp_path: Path) -> None:
    project(tmp_path, "entity: user\ninputs: [source.orders]\ntransform: SELECT user_id, amount FROM source\n")
    (warning,) = warnings(tmp_path)
    assert "has no event time, so its rows are not found by point-in-time joins" in warning
    run(tmp_path)
    assert rows(tmp_path, "SELECT user_id, event_time FROM entity.user") == [("1", None), ("2", None)]


def test_readers_learn_the_keys_and_the_event_time_from_the_file_beside_the_output(tmp_path: Path) -> None:
    project(tmp_path, group("FROM source"))
    run(tmp_path)
    beside = tmp_path / "target/intermediate/feature_group_spending_meta.json"
    assert json.loads(beside.read_text()) == {
        "entity_name": "user",
        "join_keys": ["user_id"],
        "event_time_col": "seen",
    }
    assert (tmp_path / "target/intermediate/feature_group_spending.parquet").exists()
    # The event time is told anew, though the rows are what they were.
    write(
        tmp_path,
        "seeknal/b.yml",
        "kind: feature_group\nname: spending\nentity: {name: user, join_keys: [seen]}\n"
        "inputs: [source.orders]\ntransform: FROM source\nmaterialization: {event_time_col: user_id}\n",
    )
    assert "is of type BIGINT, and no time" in problems(tmp_path)[0]
    write(
        tmp_path,
        "seeknal/b.yml",
        "kind: feature_group\nname: spending\nentity: {name: buyer, join_keys: [user_id]}\n"
        "inputs: [source.orders]\ntransform: FROM source\nmaterialization: {event_time_col: seen}\n",
    )
    run(tmp_path)
    assert json.loads(beside.read_text())["entity_name"] == "buyer"


def test_documentation_of_features_rebuilds_nothing(tmp_path: Path) -> None:
    project(tmp_path, group("FROM source", features="{amount: {description: a}}"))
    executed_in(tmp_path)
    described = group("FROM source", features="{amount: {description: b}}", description="Spending")
    write(tmp_path, "seeknal/b.yml", f"kind: feature_group\nname: spending\n{described}")
    assert executed_in(tmp_path) == []


@pytest.mark.parametrize(
    ("before", "after", "category"),
    [
        ("{amount: x, twice: y}", "{amount: x}", "BREAKING"),
        ("{amount: x}", "{amount: x, twice: y}", "NON_BREAKING"),
        ("{amount: x}", "{amount: y}", "METADATA"),
    ],
)
def test_a_plan_says_what_a_changed_feature_means(tmp_path: Path, before: str, after: str, category: str) -> None:
    columns = {"{amount: x, twice: y}": "*, 2 * amount AS twice"}
    project(tmp_path, group(f"SELECT {columns.get(before, '*')} FROM source", features=before))
    run(tmp_path)
    after_group = group(f"SELECT {columns.get(after, '*')} FROM source", features=after)
    write(tmp_path, "seeknal/b.yml", f"kind: feature_group\nname: spending\n{after_group}")
    assert planned(tmp_path)["feature_group.spending"] == category


def test_another_key_or_entity_is_breaking(tmp_path: Path) -> None:
    project(tmp_path, group("FROM source"))
    run(tmp_path)
    for entity in ("{name: user, join_keys: [amount]}", "buyer"):
        changed = group("SELECT *, user_id AS buyer_id FROM source", entity=entity)
        write(tmp_path, "seeknal/b.yml", f"kind: feature_group\nname: spending\n{changed}")
        assert planned(tmp_path)["feature_group.spending"] == "BREAKING"
    assert {"entity.user", "entity.buyer"} <= planned(tmp_path).keys()


def planned(root: Path) -> dict[str, str]:
    with Session.open(Project.open(root)) as session:
        plan = session.plan("dev")
    return {node.node_id: node.category.name for node in plan.nodes if node.category}


def test_groups_are_outputs_like_any_other(tmp_path: Path) -> None:
    project(tmp_path, group("FROM source"))
    run(tmp_path)
    with Session.open(Project.open(tmp_path)) as session:
        assert [*read_outputs(session.store).tables] == ["source.orders", "feature_group.spending", "entity.user"]
