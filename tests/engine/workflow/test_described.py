from __future__ import annotations

from pathlib import Path

import pytest

from seeknal.dag.project import Project
from seeknal.workflow.environment import EnvironmentManager
from seeknal.workflow.results import NOT_EXECUTED, RunOptions
from seeknal.workflow.selection import Filters
from seeknal.workflow.session import Session
from seeknal.workflow.settled import settled_run
from tests.acceptance.project import Project as Driven
from tests.engine.workflow.projects import executed_in, run, transform, write, write_project

MODEL = "kind: semantic_model\nname: sales\ninputs: [transform.t]\nmeasures: [{name: a, agg: sum}]\nsevaral: 1\n"
METRIC = "kind: metric\nname: revenue\nmeasure: a\ninputs: [semantic_model.sales]\nmaterialization: {x: 1}\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    nodes = {"seeknal/t.yml": transform("t", "SELECT 1 AS a"), "seeknal/m.yml": f"{MODEL}---\n{METRIC}"}
    return write_project(tmp_path, nodes)


def test_any_fields_are_kept_in_the_manifest(root: Path) -> None:
    with Session.open(Project.open(root)) as session:
        assert session.compiled.parsed.warnings == []
        assert session.manifest.nodes["semantic_model.sales"].config["sevaral"] == 1
        assert session.manifest.inputs_of("metric.revenue") == ["semantic_model.sales"]


def test_they_are_not_executed_and_leave_nothing_to_do(root: Path) -> None:
    assert executed_in(root) == ["t"]
    assert executed_in(root, full=True) == ["t"]
    result = run(root)
    assert {node.node_id: node.reason for node in result.nodes if node.node_id != "transform.t"} == {
        "semantic_model.sales": NOT_EXECUTED,
        "metric.revenue": NOT_EXECUTED,
    }
    assert settled_run(root, publish=True) is not None


def test_their_change_reaches_production_by_promotion(root: Path) -> None:
    run(root)
    write(root, "seeknal/m.yml", f"{MODEL}---\n{METRIC}")
    manager = EnvironmentManager(root / "target")
    write(root, "seeknal/m.yml", f"{MODEL}---\n{METRIC.replace('measure: a', 'measure: b')}")
    plan = manager.plan("dev")
    assert plan.nodes_to_execute == []
    with manager.applying("dev") as applying:
        assert applying.run(RunOptions()).success
    assert manager.execute_promotion(manager.plan_promotion("dev", "prod")) == []
    assert executed_in(root) == []
    with Session.open(Project.open(root)) as session:
        assert not session.plan("prod").has_changes


def test_selection_that_leaves_their_inputs_out_leaves_them_alone(root: Path) -> None:
    write(root, "seeknal/u.yml", transform("u", "SELECT 2 AS b"))
    result = run(root, filters=Filters(nodes=("u",)))
    assert result.status == "success"
    assert executed_in(root) == ["t"]


def test_failure_of_what_they_are_about_does_not_fail_them(root: Path) -> None:
    write(root, "seeknal/t.yml", transform("t", "SELECT error('no') AS a"))
    result = run(root, continue_on_error=True)
    assert {node.node_id: node.status for node in result.nodes} == {
        "transform.t": "failed",
        "semantic_model.sales": "cached",
        "metric.revenue": "cached",
    }


def test_nodes_that_are_executed_cannot_read_them(root: Path) -> None:
    write(root, "seeknal/u.yml", "kind: transform\nname: u\ntransform: SELECT 1 AS a\ninputs: [metric.revenue]\n")
    said = Driven(root).seeknal("plan").errors
    assert said == ["seeknal/u.yml:4:10: input 'metric.revenue' is of kind metric, which has no rows to read"]


def test_plan_run_and_inspect_say_that_they_are_not_executed(root: Path) -> None:
    project = Driven(root)
    assert "SKIP    metric.revenue  not executed" in project.ok("run", "--show-plan").text
    assert "revenue [NOT EXECUTED]" in project.ok("run").text
    assert "not executed" in project.ok("inspect").text
    assert "Not executed" in project.ok("inspect", "revenue").text
    assert "SKIP" in project.ok("plan").text
