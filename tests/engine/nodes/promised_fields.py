"""Every field that a node can have, each with a value that must be refused. A field that nothing reads refuses nothing.

- *promise*: a kind, the path to a field in a valid node of that kind, and a value that is wrong there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

Path = tuple[str | int, ...]

FEATURE: dict[str, Any] = {"name": "amount", "column": "amount", "basic": ["sum"]}

# Valid nodes, by the name that promises use.
NODES: dict[str, dict[str, Any]] = {
    "csv": {"kind": "source", "name": "it", "source": "csv", "table": "data/orders.csv"},
    "json": {"kind": "source", "name": "it", "source": "json", "table": "data/orders.json"},
    "excel": {"kind": "source", "name": "it", "source": "excel", "table": "data/orders.xlsx"},
    "sqlite": {"kind": "source", "name": "it", "source": "sqlite", "table": "orders", "params": {"path": "data/o.db"}},
    "transform": {"kind": "transform", "name": "it", "transform": "SELECT * FROM source.orders"},
    "feature_group": {
        "kind": "feature_group",
        "name": "it",
        "entity": {"name": "customer", "join_keys": ["customer_id"]},
        "inputs": [{"ref": "source.orders"}],
        "transform": "SELECT customer_id, ordered_on AS event_time, amount FROM source",
    },
    "aggregation": {
        "kind": "aggregation",
        "name": "it",
        "id_col": "customer_id",
        "feature_date_col": "ordered_on",
        "application_date_col": "ordered_on",
        "inputs": [{"ref": "source.orders"}],
        "features": [FEATURE],
    },
    "second_order": {
        "kind": "second_order_aggregation",
        "name": "it",
        "id_col": "customer_id",
        "feature_date_col": "ordered_on",
        "source": "source.orders",
        "inputs": [{"ref": "source.orders"}],
        "features": {"amount": {"basic": ["sum"]}},
    },
    "model": {
        "kind": "model",
        "name": "it",
        "inputs": [{"ref": "transform.numbers"}],
        "output_columns": ["predicted"],
        "training": {
            "algorithm": "linear_regression",
            "label_source": "transform.numbers",
            "label_column": "amount",
        },
    },
    "rule": {
        "kind": "rule",
        "name": "it",
        "inputs": [{"ref": "source.orders"}],
        "rule": {"type": "range", "column": "amount", "params": {"min_val": 0}},
    },
    "file": {
        "kind": "exposure",
        "name": "it",
        "type": "file",
        "path": "output/it.csv",
        "inputs": [{"ref": "source.orders"}],
    },
    "api": {
        "kind": "exposure",
        "name": "it",
        "type": "api",
        "url": "https://example.com/orders",
        "inputs": [{"ref": "source.orders"}],
    },
    "notification": {
        "kind": "exposure",
        "name": "it",
        "type": "notification",
        "url": "https://example.com/hook",
        "message": "Done",
        "params": {"channel": "webhook"},
        "inputs": [{"ref": "source.orders"}],
    },
}


@dataclass(frozen=True)
class Promise:
    """A field of a node; ``wrong`` is a value that must be refused there."""

    node: str
    path: Path
    wrong: Any

    def __str__(self) -> str:
        return f"{self.node}: {'.'.join(map(str, self.path))}"


def _promises(node: str, wrong: dict[str, Any]) -> list[Promise]:
    """Promises of one node, from dotted paths."""
    found = []
    for dotted, value in wrong.items():
        path = tuple(int(part) if part.isdigit() else part for part in dotted.split("."))
        found.append(Promise(node, path, value))
    return found


COMMON: dict[str, Any] = {
    "kind": "nothing",
    "name": "not a name",
    "description": ["text"],
    "owner": {"a": "b"},
    "tags": "one, two",
    "inputs": [{"ref": "source.nowhere"}],
    "params": ["a"],
    "columns": "order_id",
    "materialization": "iceberg",
    "materializations": {"type": "iceberg"},
    "audits": [{"type": "nothing"}],
    "audits.0": {"type": "not_null", "columns": ["nothing"]},
    "tests": [{"nothing": ["a"]}],
    "schedule": "every now and then",
}

PROMISES: list[Promise] = [
    *_promises("transform", COMMON),
    *_promises("transform", {"transform": "SELECT nothing FROM source.orders", "output": [1], "output.columns": 1}),
    *_promises(
        "csv",
        {
            "source": "papyrus",
            "table": "data/nothing.csv",
            "params.delimiter": "too long a text",
            "params.delim": "too long a text",
            "params.header": "perhaps",
            "params.skip": "some",
            "schema": [{"name": "nothing", "data_type": "integer"}],
            "schema.0": {"data_type": "integer"},
            "freshness": "daily",
            "freshness.time_column": ["a"],
            "freshness.warn_after": "soon",
            "freshness.error_after": "later",
        },
    ),
    *_promises("json", {"params.format": "prose"}),
    *_promises("excel", {"params.sheet_name": ["a"]}),
    *_promises(
        "sqlite",
        {
            "params.path": "data/nothing.db",
            "table": "nothing",
            "params.table": "nothing",
            "params.query": "DROP TABLE x",
        },
    ),
    *_promises(
        "feature_group",
        {
            "entity": ["customer"],
            "entity.name": "not a name",
            "entity.join_keys": ["nothing"],
            "entity.description": ["text"],
            "transform": "SELECT nothing FROM source",
            "features": {"nothing": {}},
            "features.amount": {"dtype": ["a"]},
            "materialization.event_time_col": "nothing",
            "materialization.offline": "perhaps",
            "materialization.offline.enabled": "perhaps",
            "materialization.offline.format": "papyrus",
            "materialization.offline.partition_by": ["nothing"],
            "materialization.online": "perhaps",
            "materialization.online.enabled": "perhaps",
            "materialization.online.ttl": ["a"],
            "mode": "sideways",
            "engine": "steam",
        },
    ),
    *_promises(
        "aggregation",
        {
            "id_col": "nothing",
            "feature_date_col": "nothing",
            "application_date_col": "nothing",
            "group_by": ["nothing"],
            "inputs": [],
            "features": [],
            "features.0.name": 5,
            "features.0.column": "nothing",
            "features.0.basic": ["frobnicate"],
            "features.0.rolling": [{"window": "a while", "aggs": ["sum"]}],
            "features.0.ratio": [{"numerator": "x", "denominator": 7}],
            "features.0.since": [{"condition": "nothing > 1"}],
            "transform": "SELECT nothing FROM source.orders",
        },
    ),
    *_promises(
        "second_order",
        {
            "id_col": "nothing",
            "feature_date_col": "nothing",
            "application_date_col": "nothing",
            "source": "source.nowhere",
            "features": {},
            "features.amount.source_feature": "nothing",
            "features.amount.basic": ["frobnicate"],
            "features.amount.window": [7, 1],
            "features.amount.ratio": {"numerator": [1], "denominator": [8, 30], "aggs": ["sum"]},
            "features.amount.since": {"condition": "nothing > 1", "aggs": ["count"]},
        },
    ),
    *_promises(
        "model",
        {
            "inputs": [],
            "output_columns": [],
            "training": "soon",
            "training.algorithm": "magic",
            "training.label_source": "source.nowhere",
            "training.label_column": "nothing",
            "training.params": ["nothing"],
            "training.test_size": -1,
        },
    ),
    *_promises(
        "rule",
        {
            "rule": {"type": "nothing"},
            "rule.type": "custom",
            "rule.column": "nothing",
            "rule.params.min_val": "low",
            "rule.params.max_val": "high",
            "params.severity": "mild",
            "params.error_message": ["a"],
            "inputs": [],
        },
    ),
    *(
        Promise("rule", ("rule",), wrong)
        for wrong in (
            {"type": "null", "columns": ["nothing"]},
            {"type": "null", "columns": ["order_id"], "params": {"max_null_percentage": "few"}},
            {"type": "range", "columns": ["nothing"], "params": {"min_val": 0}},
            {"type": "uniqueness", "columns": ["nothing"]},
            {"type": "uniqueness", "columns": ["order_id"], "params": {"max_duplicate_percentage": "few"}},
            {"type": "freshness", "column": "nothing", "params": {"max_age": "1d"}},
            {"type": "freshness", "column": "ordered_on", "params": {"max_age": "old"}},
            {"type": "sql_assertion", "sql": "SELECT nothing FROM input_data"},
            {"type": "custom"},
            {"value": "nothing > 1"},
            [{"type": "null", "columns": ["nothing"]}],
        )
    ),
    *(
        Promise("transform", (key,), wrong)
        for key, wrong in (
            ("audits", [{"type": "not_null", "columns": ["nothing"]}]),
            ("audits", [{"type": "unique", "columns": ["nothing"]}]),
            ("audits", [{"type": "accepted_values", "columns": ["nothing"], "values": [1]}]),
            ("audits", [{"type": "accepted_values", "columns": ["status"]}]),
            ("audits", [{"type": "row_count"}]),
            ("audits", [{"type": "row_count", "min": "few"}]),
            ("audits", [{"type": "row_count", "max": "many"}]),
            ("audits", [{"type": "custom_sql", "sql": "SELECT nothing FROM __THIS__"}]),
            ("audits", [{"type": "not_null", "columns": ["order_id"], "severity": "mild"}]),
            ("tests", [{"not_null": ["nothing"]}]),
            ("tests", [{"unique": ["nothing"]}]),
            ("tests", [{"accepted_values": {"column": "nothing", "values": [1]}}]),
        )
    ),
    *_promises(
        "file",
        {
            "type": "papyrus",
            "path": "../it.csv",
            "format": "papyrus",
            "params.path": 5,
            "params.format": "papyrus",
            "params.compression": "tight",
            "params.partition_by": ["nothing"],
            "depends_on": [{"ref": "source.nowhere"}],
        },
    ),
    *_promises(
        "api",
        {
            "url": "nowhere",
            "params.headers": "a: b",
            "params.auth": "secret",
            "params.timeout": "long",
            "params.method": "FETCH",
        },
    ),
    *_promises(
        "notification",
        {"url": "nowhere", "params.channel": "pigeon", "message": ["a"], "payload": "text"},
    ),
]
