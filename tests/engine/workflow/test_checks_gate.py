"""The gate holds on every way by which outputs reach an environment, and in what a run leaves behind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from seeknal.dag.project import Project
from seeknal.errors import ProjectError
from seeknal.store.store import Store
from seeknal.workflow.events import Event, NodeStarted
from seeknal.workflow.results import NodeOutcome, RunOptions
from seeknal.workflow.runner import DAGRunner
from seeknal.workflow.selection import Filters
from seeknal.workflow.session import Session
from tests.engine.workflow.projects import run, write, write_project

ORDERS = """
    kind: source
    name: orders
    source: csv
    table: data/orders.csv
"""

CLEAN = """
    kind: transform
    name: clean
    transform: SELECT * FROM source.orders
    audits: [{not_null: [amount]}]
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    files = {"seeknal/orders.yml": ORDERS, "seeknal/clean.yml": CLEAN, "data/orders.csv": "id,amount\n1,5\n"}
    return write_project(tmp_path, files)


def outcome(root: Path, node_id: str, **options: Any) -> NodeOutcome:
    return next(node for node in run(root, **options).nodes if node.node_id == node_id)


def runner(root: Path) -> DAGRunner:
    with Session.open(Project.open(root)) as session:
        session.show_manifest()
        return DAGRunner(session.manifest, target_path=root / "target")


def head(root: Path) -> str | None:
    return Store(root / "target" / "store").refs.read("prod")


def test_the_python_runner_commits_nothing_that_failed_its_checks(root: Path) -> None:
    run(root)
    before = head(root)
    write(root, "data/orders.csv", "id,amount\n1,\n")
    for _ in range(2):
        # The second time the rejected output is in the cache.
        result = {entry.node_id: entry for entry in runner(root).run().results}["transform.clean"]
        assert result.status.value == "failed"
        assert "not_null(amount): 1 of 1 rows" in str(result.error_message)
        assert head(root) == before


def test_the_python_runner_tells_what_the_checks_gave(root: Path) -> None:
    result = {entry.node_id: entry for entry in runner(root).run().results}["transform.clean"]
    assert result.metadata["rule_type"] == "not_null"
    assert result.metadata["passed"] is True


def test_a_full_run_checks_again(root: Path) -> None:
    run(root)
    write(root, "seeknal/clean.yml", CLEAN.replace("[amount]", "[id]"))
    full = outcome(root, "transform.clean", full=True)
    assert (full.status, [found.label for found in full.checks]) == ("success", ["not_null(id)"])


def test_a_selection_leaves_the_checks_of_other_nodes_alone(root: Path) -> None:
    run(root)
    write(root, "seeknal/clean.yml", CLEAN.replace("not_null: [amount]", "row_count: {min: 9}"))
    with Session.open(Project.open(root)) as session:
        result = session.run("prod", RunOptions(filters=Filters(types=("source",))))
    assert result.status == "success"


def test_a_check_of_a_cached_node_is_no_execution(root: Path) -> None:
    run(root)
    write(root, "seeknal/clean.yml", CLEAN.replace("[amount]", "[id]"))
    events: list[Event] = []
    with Session.open(Project.open(root)) as session:
        result = session.run("prod", RunOptions(), listener=events.append)
    assert result.executed == 0
    assert not [event for event in events if isinstance(event, NodeStarted)]
    assert [found.label for node in result.nodes for found in node.checks] == ["not_null(id)"]


def test_a_check_that_failed_is_not_tried_again(root: Path) -> None:
    write(root, "data/orders.csv", "id,amount\n1,\n")
    retried: list[Event] = []
    with Session.open(Project.open(root)) as session:
        result = session.run("prod", RunOptions(retry=3), listener=retried.append)
    assert result.status == "failed"
    assert not [event for event in retried if type(event).__name__ == "NodeRetried"]


def test_what_failed_is_remembered_for_its_environment_until_it_passes_or_is_gone(root: Path) -> None:
    run(root)
    store = Store(root / "target" / "store")
    write(root, "data/orders.csv", "id,amount\n1,\n")
    result = run(root, "dev", run_id="first")
    assert result.status == "failed"
    failed = store.read_failed("dev").nodes["transform.clean"]
    assert (failed.run_id, failed.results[0]["violations"]) == ("first", 1)
    assert store.is_whole(failed.tables[0][1])
    assert store.read_failed("prod").nodes == {}
    (root / "seeknal/clean.yml").unlink()
    run(root, "dev")
    assert store.read_failed("dev").nodes == {}


def test_audits_count_in_no_fingerprint(root: Path) -> None:
    before = outcome(root, "transform.clean").fingerprint
    write(root, "seeknal/clean.yml", CLEAN.replace("[amount]", "[id, amount]") + "    tests: [{unique: id}]\n")
    assert outcome(root, "transform.clean").fingerprint == before


def test_an_audit_that_asks_for_the_time_is_evaluated_in_every_run(root: Path) -> None:
    write(root, "seeknal/clean.yml", CLEAN.replace("{not_null: [amount]}", "amount < epoch(now())"))
    for _ in range(2):
        node = outcome(root, "transform.clean")
        assert [found.passed for found in node.checks] == [True]
    assert node.reason == "its checks depend on the moment"
    assert not (root / "target/store/checks").exists()


def test_a_changed_column_that_a_rule_does_not_read_leaves_it_cached(root: Path) -> None:
    rule = """
        kind: rule
        name: sound
        inputs: [source.orders]
        rule:
          - amount > 0
          - {type: row_count, min: 1}
          - {type: sql_assertion, sql: "SELECT amount FROM input_data WHERE amount > 100"}
    """
    write(root, "seeknal/rule.yml", rule)
    assert outcome(root, "rule.sound").status == "success"
    write(root, "data/orders.csv", "id,amount\n2,5\n")
    assert outcome(root, "rule.sound").status == "cached"
    write(root, "data/orders.csv", "id,amount\n2,6\n")
    assert outcome(root, "rule.sound").status == "success"
    # The layout of its SQL says nothing either.
    write(root, "seeknal/rule.yml", rule.replace("SELECT amount FROM", "select  amount  from"))
    assert outcome(root, "rule.sound").status == "cached"


@pytest.mark.parametrize("parallel", [False, True])
def test_nothing_downstream_of_a_failed_audit_starts(root: Path, parallel: bool) -> None:
    write(root, "data/orders.csv", "id,amount\n1,\n")
    write(
        root,
        "seeknal/total.yml",
        "kind: transform\nname: total\ntransform: SELECT count(*) AS n FROM transform.clean\n",
    )
    started: list[str] = []

    def listen(event: Event) -> None:
        if isinstance(event, NodeStarted):
            started.append(event.node_id)

    with Session.open(Project.open(root)) as session:
        session.run("prod", RunOptions(parallel=parallel, continue_on_error=True), listener=listen)
    assert started == ["source.orders", "transform.clean"]


def test_no_selection_leads_around_the_rules_about_what_it_builds(root: Path) -> None:
    write(root, "seeknal/sound.yml", "kind: rule\nname: sound\ninputs: [source.orders]\nrule: id IS NOT NULL\n")
    run(root)
    before = head(root)
    write(root, "data/orders.csv", "id,amount\n,1\n2,3\n")
    for filters in (Filters(types=["source"]), Filters(nodes=["source.orders"], types=["source"])):
        failed = [node.node_id for node in run(root, filters=filters).nodes if node.status == "failed"]
        assert failed == ["rule.sound"]
        assert head(root) == before


@pytest.mark.parametrize(
    "node",
    [
        "kind: rule\nname: r\ninputs: [source.orders]\nrule:\n  - amount > 9) OR (true\n",
        "kind: transform\nname: r\ntransform: FROM source.orders\naudits:\n  - amount > 9) OR (true\n",
        "kind: aggregation\nname: r\ninputs: [source.orders]\n"
        "id_col: id\nfeature_date_col: amount\napplication_date_col: amount\n"
        "features: [{name: x, since: [{aggs: [count], name: x,\n    condition: amount > 9) OR (true}]}]\n",
    ],
)
def test_a_condition_does_not_lead_out_of_what_is_put_around_it(root: Path, node: str) -> None:
    write(root, "seeknal/node.yml", node)
    with pytest.raises(ProjectError) as error:
        run(root)
    (problem,) = error.value.problems()
    assert problem.message == "')' has no partner"
    line = next(index for index, text in enumerate(node.splitlines(), 1) if "9)" in text)
    assert str(problem.place) == f"seeknal/node.yml:{line}:{node.splitlines()[line - 1].index('9)') + 2}"
