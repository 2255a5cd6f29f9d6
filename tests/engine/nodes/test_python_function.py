"""Python nodes run for real: what a function may return, what it is given, and how it fails."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.engine.workflow.projects import executed_in, write_project

ORDERS = {
    "data/orders.csv": "id,amount\n1,10\n2,20\n3,\n",
    "seeknal/orders.yml": "kind: source\nname: orders\nsource: csv\ntable: data/orders.csv\n",
}
DOUBLE = """
    from seeknal.pipeline import transform

    RATE = 2

    @transform(name="double")
    def double(ctx):
        orders = ctx.ref("source.orders")
        return ctx.duckdb.sql(f"SELECT id, amount * {RATE} AS amount FROM orders WHERE amount IS NOT NULL")
"""
TOTAL = "kind: transform\nname: total\ntransform: SELECT sum(amount) AS total FROM transform.double\n"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return write_project(tmp_path / "shop", {**ORDERS, "seeknal/double.py": DOUBLE, "seeknal/total.yml": TOTAL})


@pytest.mark.parametrize("parallel", [False, True])
def test_python_and_yaml_nodes_read_each_other_and_are_cached(project: Path, parallel: bool) -> None:
    assert executed_in(project, parallel=parallel) == ["double", "orders", "total"]
    assert rows(project, "transform.total") == [(60,)]
    assert executed_in(project, parallel=parallel) == []


def rows(root: Path, node_id: str) -> list[tuple[Any, ...]]:
    """What a node's output holds in production."""
    import duckdb

    kind, _, name = node_id.partition(".")
    with duckdb.connect(":memory:") as connection:
        return connection.execute(f"FROM '{root}/target/cache/{kind}/{name}.parquet'").fetchall()
