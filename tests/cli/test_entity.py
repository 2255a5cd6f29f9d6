from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.acceptance.project import Project
from tests.engine.workflow.projects import write, write_project

GROUPS = """
kind: source
name: orders
source: csv
table: orders.csv
---
kind: feature_group
name: orders
entity: user
inputs: [source.orders]
materialization: {event_time_col: ordered}
---
kind: feature_group
name: counts
entity: user
inputs: [source.orders]
transform: SELECT user_id, max(ordered) AS event_time, count(*) AS n, sum(amount) AS total FROM source GROUP BY ALL
"""
ORDERS = "user_id,ordered,amount\n1,2024-01-01,10\n1,2024-01-01,11\n2,2024-01-02,20\n"


@pytest.fixture
def shop(tmp_path: Path) -> Project:
    write_project(tmp_path, {"orders.csv": ORDERS, "seeknal/a.yml": GROUPS})
    project = Project(tmp_path)
    project.ok("run")
    return project


def test_entities_are_listed_with_what_they_hold(shop: Project) -> None:
    assert shop.ok("entity", "list").stdout.startswith("user  2 FGs  3 features  [ready]  consolidated: 20")
    (listed,) = json.loads(shop.ok("entity", "list", "--json").stdout)["entities"]
    assert listed.pop("consolidated_at")
    assert listed == {
        "name": "user",
        "feature_groups": 2,
        "features": 3,
        "status": "ready",
        "join_keys": ["user_id"],
    }


def test_an_entity_shows_its_groups(shop: Project) -> None:
    text = shop.ok("entity", "show", "USER").stdout
    assert text.startswith("user (prod)\n")
    for line in (
        "  Join keys:      user_id",
        "counts\n  Features:       n, total\n  Rows:           2\n  Event time:     event_time",
        "orders\n  Features:       amount\n  Rows:           3 (1 superseded)\n  Event time:     ordered",
        "  ordered | DATE",
    ):
        assert line in text
    document = json.loads(shop.ok("entity", "show", "user", "--json").stdout)["entity"]
    shown = json.loads((shop.root / "target/feature_store/user/_entity_catalog.json").read_text())
    assert document == {**shown, "status": "ready"}


def test_an_entity_that_is_not_there_is_an_error_and_none_at_all_is_not(shop: Project, tmp_path: Path) -> None:
    failed = shop.seeknal("entity", "show", "usr")
    assert failed.code == 1
    assert "did you mean 'user'?" in failed.stderr
    empty = Project(
        write_project(tmp_path / "empty", {"seeknal/a.yml": GROUPS.partition("---")[0], "orders.csv": ORDERS})
    )
    for _ in range(2):
        assert "No entities yet" in empty.ok("entity", "list").stdout
        empty.ok("run")
    assert empty.ok("consolidate").stdout
    assert empty.seeknal("entity", "show", "user").code == 1


def test_consolidating_makes_the_entities_and_nothing_else(shop: Project) -> None:
    write(shop.root, "orders.csv", ORDERS.replace("20\n", "21\n"))
    document = json.loads(shop.ok("consolidate", "--json").stdout)
    assert {node["node_id"]: node["status"] for node in document["nodes"]} == {
        "source.orders": "skipped",
        "feature_group.orders": "skipped",
        "feature_group.counts": "skipped",
        "entity.user": "cached",
    }
    # A group was left out of the entity: it gets in.
    write(shop.root, "seeknal/a.yml", GROUPS.partition("---\nkind: feature_group\nname: counts")[0])
    shop.ok("run")
    assert "1 FG  1 feature " in shop.ok("entity", "list").stdout
    write(shop.root, "seeknal/a.yml", GROUPS)
    document = json.loads(shop.ok("consolidate", "--json", "--prune").stdout)
    executed = [node["node_id"] for node in document["nodes"] if node["status"] == "success"]
    assert "entity.user" in executed
    assert "2 FGs  3 features" in shop.ok("entity", "list").stdout


def test_an_environment_has_entities_of_its_own(shop: Project) -> None:
    write(shop.root, "seeknal/a.yml", GROUPS.replace("count(*) AS n, ", ""))
    shop.ok("plan", "dev")
    shop.ok("run", "--env", "dev")
    shop.ok("consolidate", "--env", "dev")
    assert "2 FGs  2 features" in shop.ok("entity", "list", "--env", "dev").stdout
    assert "2 FGs  3 features" in shop.ok("entity", "list").stdout
    assert "n, total" not in shop.ok("entity", "show", "user", "--env", "dev").stdout
