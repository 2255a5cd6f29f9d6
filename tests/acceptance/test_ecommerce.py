"""The example `ecommerce`: all kinds, in YAML and in Python, run from the first command to the last."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pytest

from seeknal.dag.manifest import NodeType
from seeknal.dag.project import Project as Folder
from seeknal.store.objects import Artifact
from seeknal.workflow.heads import read_head
from tests.acceptance.project import Project

pytest.importorskip("sklearn")


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The example after a sequential run."""
    project = Project(tmp_path_factory.mktemp("ecommerce"))
    project.ok("init", "--example", "ecommerce")
    project.ok("run")
    return project


def _outputs(project: Project) -> dict[str, Artifact]:
    head = read_head(Folder.open(project.root).store(), "prod")
    assert head is not None
    return {node_id: entry.artifact for node_id, entry in head.tree.nodes.items()}


def _blobs(artifact: Artifact) -> list[str]:
    return [*(part.digest for part in artifact.parts), *(f"{name} {blob.digest}" for name, blob in artifact.side_blobs)]


def test_it_has_every_kind_that_is_executed_and_one_that_is_not(shop: Project) -> None:
    nodes = shop.ok("run", "--json").document["nodes"]
    assert len(nodes) >= 25
    kinds = {node["node_id"].partition(".")[0] for node in nodes}
    # A semantic model and a metric are alike; Python is a way to write nodes, not a kind of its own.
    assert {kind.value for kind in NodeType} - kinds == {"semantic_model", "python"}


def test_sequential_and_parallel_runs_make_the_same_blobs(shop: Project, tmp_path: Path) -> None:
    other = Project(tmp_path)
    other.ok("init", "--example", "ecommerce")
    other.ok("run", "--parallel", "--max-workers", "8")
    sequential, parallel = _outputs(shop), _outputs(other)
    assert sequential.keys() == parallel.keys()
    different = [node_id for node_id in sequential if _blobs(sequential[node_id]) != _blobs(parallel[node_id])]
    assert different == []


def test_a_second_run_executes_nothing(shop: Project) -> None:
    statuses = {node["status"] for node in shop.ok("run", "--json").document["nodes"]}
    assert "success" not in statuses


def test_what_it_computes_is_what_plain_sql_computes(shop: Project) -> None:
    data = shop.root / "data"
    rate = "CASE orders.currency WHEN 'USD' THEN 0.92 ELSE 1 END"
    expected = duckdb.sql(
        f"""
        SELECT orders.ordered_on, sum(items.quantity * items.unit_price * {rate})
        FROM read_csv('{data}/order_items/*.csv') AS items
        JOIN read_csv('{data}/orders.csv', delim = ';') AS orders USING (order_id)
        WHERE upper(trim(orders.status)) IN ('PAID', 'SHIPPED')
        GROUP BY ALL
        ORDER BY ALL
        """
    ).fetchall()
    report = duckdb.sql(
        f"""
        SELECT ordered_on, sum(revenue)
        FROM read_csv('{shop.root}/output/daily_revenue.csv')
        GROUP BY ALL
        ORDER BY ALL
        """
    ).fetchall()
    assert [day for day, _ in report] == [day for day, _ in expected]
    # The report's revenue was rounded line by line.
    assert [revenue for _, revenue in report] == pytest.approx([revenue for _, revenue in expected], abs=0.5)


def test_an_entity_holds_the_features_of_its_yaml_and_python_groups(shop: Project) -> None:
    file = shop.root / "target/feature_store/customer/features.parquet"
    columns = [name for name, *_ in duckdb.sql(f"DESCRIBE FROM '{file}'").fetchall()]
    assert columns == ["customer_id", "event_time", "customer_orders", "customer_visits"]
    catalog = shop.read("target/feature_store/customer/_entity_catalog.json")
    assert '"reached_checkout"' in catalog


def test_a_changed_constant_runs_its_node_and_what_reads_its_columns(shop: Project, tmp_path: Path) -> None:
    project = Project(tmp_path)
    project.ok("init", "--example", "ecommerce")
    project.ok("run")
    project.replace("seeknal/sources/exchange_rates.py", "this comment", "a comment")
    executed = [node for node in project.ok("run", "--json").document["nodes"] if node["status"] == "success"]
    assert executed == []
    project.replace("seeknal/sources/exchange_rates.py", '"USD": 0.92', '"USD": 0.95')
    executed = {
        node["node_id"] for node in project.ok("run", "--json").document["nodes"] if node["status"] == "success"
    }
    assert {"source.exchange_rates", "transform.order_lines", "exposure.revenue_report"} <= executed
    assert executed.isdisjoint({"transform.visits", "source.orders", "rule.quantities_are_positive"})
