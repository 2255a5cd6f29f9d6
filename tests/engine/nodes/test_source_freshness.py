from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from seeknal.dag.project import Project
from seeknal.workflow.results import RunOptions
from seeknal.workflow.session import Session
from tests.engine.workflow.projects import executed_in, run, write, write_project

SOURCE = """
kind: source
name: events
source: csv
table: data/events.csv
freshness: {{time_column: at, {ages}}}
---
kind: transform
name: count
transform: SELECT count(*) AS n FROM source.events
"""


def _project(root: Path, newest: timedelta, ages: str) -> None:
    """A project whose newest row is so old."""
    write_project(root, {"seeknal/events.yml": SOURCE.format(ages=ages)})
    at = (datetime.now(UTC) - newest).strftime("%Y-%m-%d %H:%M:%S")
    write(root, "data/events.csv", f"id,at\n1,2020-01-01 00:00:00\n2,{at}\n")


def test_data_that_is_too_old_fails_its_source_and_keeps_production(tmp_path: Path) -> None:
    _project(tmp_path, timedelta(hours=30), "error_after: 24h")
    result = run(tmp_path)
    assert result.status == "failed"
    assert result.snapshot is None
    statuses = {node.node_id: node.status for node in result.nodes}
    assert statuses == {"source.events": "failed", "transform.count": "skipped"}
    assert "older than 1d" in str(result.nodes[0].problems[0])


def test_data_that_is_old_is_warned_of_in_every_run(tmp_path: Path) -> None:
    _project(tmp_path, timedelta(hours=30), "warn_after: 24h, error_after: 48h")
    for _ in range(2):
        result = run(tmp_path)
        assert result.status == "success"
        found = [check for node in result.nodes for check in node.checks if not check.passed]
        assert [(check.severity, check.violations) for check in found] == [("warn", 1)]


def test_what_was_fresh_is_judged_again_without_being_read_again(tmp_path: Path) -> None:
    _project(tmp_path, timedelta(seconds=0), "error_after: 24h")
    assert executed_in(tmp_path) == ["count", "events"]
    assert executed_in(tmp_path) == []
    write(tmp_path, "seeknal/events.yml", SOURCE.format(ages="error_after: 0s"))
    assert run(tmp_path).status == "failed"


def test_freshness_without_ages_is_kept_and_does_nothing(tmp_path: Path) -> None:
    write_project(tmp_path, {"seeknal/events.yml": SOURCE.replace(", {ages}", "").format()})
    write(tmp_path, "data/events.csv", "id,at\n1,2020-01-01 00:00:00\n")
    with Session.open(Project.open(tmp_path)) as session:
        assert session.run("prod", RunOptions()).status == "success"
