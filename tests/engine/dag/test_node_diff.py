from __future__ import annotations

from typing import Any

import pytest

from seeknal.dag.change import ChangeCategory, NodeChange
from seeknal.dag.manifest import Node, NodeType
from seeknal.dag.node_diff import compare_nodes

BREAKING, NON_BREAKING, METADATA = ChangeCategory.BREAKING, ChangeCategory.NON_BREAKING, ChangeCategory.METADATA

ORDERS = {"order_id": "integer", "customer_id": "integer", "total_amount": "float", "status": "string"}


def node(node_id: str, **fields: Any) -> Node:
    """Make a node; what is no attribute of a node goes to its config."""
    kind, _, name = node_id.partition(".")
    own = {key: fields.pop(key) for key in ("description", "owner", "tags", "columns", "file_path") if key in fields}
    return Node(node_id, name, NodeType(fields.pop("node_type", kind)), config=fields, **own)


def source(name: str = "orders", schema: dict[str, str] | None = None, **fields: Any) -> Node:
    declared = [{"name": column, "data_type": kind} for column, kind in (schema or ORDERS).items()]
    return node(f"source.{name}", **{"source": "csv", "table": f"data/{name}.csv", "schema": declared, **fields})


def transform(name: str, sql: str, *inputs: str, **fields: Any) -> Node:
    return node(f"transform.{name}", transform=sql, inputs=[{"ref": ref} for ref in inputs], **fields)


def change_of(old: Node, new: Node, **schemas: Any) -> NodeChange:
    change = compare_nodes(old, new, **schemas)
    assert change is not None
    return change


# single fields, schemas unknown

AGGREGATION: dict[str, Any] = {
    "id_col": "customer_id",
    "feature_date_col": "day",
    "application_date_col": "day",
    "group_by": ["country", "segment"],
    "features": [
        {"name": "revenue", "column": "amount", "basic": ["sum", "avg"]},
        {"name": "quantity", "basic": ["sum"]},
    ],
}


@pytest.mark.parametrize(
    ("fields", "category"),
    [
        ({"description": "other"}, METADATA),
        ({"owner": "other"}, METADATA),
        ({"tags": ["other"]}, METADATA),
        ({"audits": [{"type": "not_null", "columns": ["a"]}]}, METADATA),
        ({"tests": [{"unique": ["a"]}]}, METADATA),
        ({"file_path": "seeknal/moved.yml"}, METADATA),
        ({"params": {"window": 7}}, NON_BREAKING),
        ({"anything": "new"}, NON_BREAKING),
        ({"node_type": "feature_group"}, BREAKING),
        ({"id_col": "order_id"}, BREAKING),
        ({"feature_date_col": "week"}, BREAKING),
        ({"application_date_col": "week"}, BREAKING),
        ({"group_by": ["country"]}, BREAKING),
        ({"group_by": ["segment", "country"]}, NON_BREAKING),
        ({"transform": "SELECT 1"}, NON_BREAKING),
        ({"features": AGGREGATION["features"][:1]}, BREAKING),
        ({"features": [*AGGREGATION["features"], {"name": "extra", "basic": ["sum"]}]}, NON_BREAKING),
        ({"features": AGGREGATION["features"][::-1]}, NON_BREAKING),
        ({"features": [{**AGGREGATION["features"][0], "basic": ["sum"]}, AGGREGATION["features"][1]]}, BREAKING),
        ({"features": [{**AGGREGATION["features"][0], "column": "price"}, AGGREGATION["features"][1]]}, NON_BREAKING),
        ({"features": [{**AGGREGATION["features"][0], "description": "x"}, AGGREGATION["features"][1]]}, METADATA),
    ],
)
def test_category_of_a_changed_field_of_an_aggregation(fields: dict[str, Any], category: ChangeCategory) -> None:
    old = node("aggregation.daily", **AGGREGATION)
    change = change_of(old, node("aggregation.daily", **{**AGGREGATION, **fields}))
    assert change.category is category
    assert change.changed_fields == ["kind" if "node_type" in fields else next(iter(fields))]


@pytest.mark.parametrize(
    ("fields", "category", "details"),
    [
        ({"params": {"delimiter": ";"}}, NON_BREAKING, ["params.delimiter: Added"]),
        ({"table": "new.csv"}, NON_BREAKING, ["table: Changed from 'data/orders.csv' to 'new.csv'"]),
        ({"source": "json"}, BREAKING, ["source: Changed from 'csv' to 'json'"]),
        ({"schema": {**ORDERS, "note": "string"}}, NON_BREAKING, ["schema.note: ADDED (new column)"]),
        (
            {"schema": {**ORDERS, "status": "integer"}},
            BREAKING,
            ["schema.status: TYPE CHANGED (string -> integer)"],
        ),
        (
            {"schema": dict(reversed(ORDERS.items()))},
            NON_BREAKING,
            ["schema: Changed the order of the columns"],
        ),
    ],
)
def test_category_of_a_changed_field_of_a_source(
    fields: dict[str, Any], category: ChangeCategory, details: list[str]
) -> None:
    change = change_of(source(), source(**fields))
    assert (change.category, change.changed_details) == (category, details)


@pytest.mark.parametrize(
    ("old", "new", "category"),
    [
        ({"a": "the key"}, {"a": "another text"}, METADATA),
        ({"a": "the key"}, {"a": {"description": "the key", "dtype": "integer"}}, METADATA),
        ({"a": {"dtype": "integer"}}, {"a": {"dtype": "string"}}, BREAKING),
        ({"a": "", "b": ""}, {"a": ""}, BREAKING),
        ({"a": ""}, {"a": "", "b": ""}, NON_BREAKING),
    ],
)
def test_documented_columns_are_a_promise(old: Any, new: Any, category: ChangeCategory) -> None:
    change = change_of(node("python.score", columns=old), node("python.score", columns=new))
    assert (change.category, change.changed_fields) == (category, ["columns"])


@pytest.mark.parametrize(
    ("entity", "category"),
    [
        ({"name": "user", "join_keys": ["user_id"], "description": "a person"}, METADATA),
        ({"name": "user", "join_keys": ["email"]}, BREAKING),
        ("customer", BREAKING),
    ],
)
def test_an_entity_is_its_name_and_keys(entity: Any, category: ChangeCategory) -> None:
    change = change_of(node("feature_group.f", entity="user"), node("feature_group.f", entity=entity))
    assert change.category is category


def test_prediction_columns_of_a_model_are_its_output() -> None:
    old = node("model.churn", output_columns=["score", "label"])
    removed, added = (node("model.churn", output_columns=names) for names in (["score"], ["score", "label", "rank"]))
    change = change_of(old, removed)
    assert (change.category, change.removed_columns) == (BREAKING, ["label"])
    assert change_of(old, added).category is NON_BREAKING


# schemas known


def test_known_schemas_decide_in_place_of_the_text() -> None:
    old = transform("t", "SELECT a + 1 FROM source.x")
    same_columns = transform("t", 'SELECT a - 1 AS "(a + 1)" FROM source.x')
    schema = {"(a + 1)": "INTEGER"}
    change = change_of(old, same_columns, old_schema=schema, new_schema=schema)
    assert (change.category, change.changed_details) == (NON_BREAKING, ["transform: Changed, with the same columns"])


def test_a_type_that_only_duckdb_knows_is_breaking() -> None:
    old, new = (
        transform("t", "SELECT upper(s) AS x FROM source.x"),
        transform("t", "SELECT length(s) AS x FROM source.x"),
    )
    assert change_of(old, new).category is NON_BREAKING
    change = change_of(old, new, old_schema={"x": "VARCHAR"}, new_schema={"x": "BIGINT", "y": "DATE"})
    assert change.category is BREAKING
    assert change.changed_details == [
        "transform: Added 'y' column",
        "transform: Changed type of 'x' from VARCHAR to BIGINT",
    ]


def test_a_schema_known_on_one_side_only_decides_nothing() -> None:
    old, new = transform("t", "SELECT a FROM source.x"), transform("t", "SELECT a, b FROM source.x")
    change = change_of(old, new, old_schema={"z": "DATE"}, new_schema=None)
    assert (change.category, change.added_columns) == (NON_BREAKING, ["b"])


def test_known_schemas_leave_what_is_no_column_as_it_is() -> None:
    schema = {"customer_id": "INTEGER"}
    old = node("aggregation.daily", **AGGREGATION)
    new = node("aggregation.daily", **{**AGGREGATION, "id_col": "order_id"})
    change = change_of(old, new, old_schema=schema, new_schema=schema)
    assert change.category is BREAKING
    json_source = change_of(source(), source(source="json"), old_schema=schema, new_schema=schema)
    assert json_source.category is NON_BREAKING


def test_documentation_of_columns_counts_for_nothing_beside_known_schemas() -> None:
    old, new = node("python.score", columns={"a": "", "b": ""}), node("python.score", columns={"a": ""})
    change = change_of(old, new, old_schema={"a": "INTEGER"}, new_schema={"a": "INTEGER"})
    assert (change.category, change.removed_columns) == (METADATA, [])


def test_a_declared_schema_is_told_in_its_own_words_beside_known_schemas() -> None:
    new = source(schema={name.replace("customer", "cust"): kind for name, kind in ORDERS.items()})
    known = {"old_schema": {"customer_id": "INTEGER", "a": "DATE"}, "new_schema": {"cust_id": "INTEGER", "a": "DATE"}}
    change = change_of(source(), new, **known)
    assert (change.category, change.changed_fields) == (BREAKING, ["schema"])
    assert change.changed_details == [
        "schema.customer_id: REMOVED (column deleted)",
        "schema.cust_id: ADDED (new column)",
    ]
