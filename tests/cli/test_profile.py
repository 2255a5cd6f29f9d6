"""`seeknal run --profile`: where the time went, and a trace of it."""

from __future__ import annotations

import json
from pathlib import Path

from tests.acceptance.project import Project


def shop(root: Path) -> Project:
    project = Project(root)
    project.write("seeknal_project.yml", "name: shop\n")
    project.write("seeknal/a.yml", "kind: transform\nname: a\ntransform: SELECT 1 AS one\n")
    return project


def test_profile_prints_phases_and_nodes_and_writes_a_trace_named_after_the_run(tmp_path: Path) -> None:
    project = shop(tmp_path)
    answer = project.ok("run", "--profile", "--run-id", "first")
    for said in ("Profile", "query", "commit", "Slowest nodes", "transform.a", "target/profiles/first.json"):
        assert said in answer.text
    events = json.loads((tmp_path / "target/profiles/first.json").read_text())["traceEvents"]
    assert {"run", "parse", "analyse", "schedule", "query", "commit", "show"} <= {event.get("cat") for event in events}


def test_profile_of_a_run_with_nothing_to_do_says_so_little(tmp_path: Path) -> None:
    project = shop(tmp_path)
    project.ok("run")
    answer = project.ok("run", "--profile", str(tmp_path / "trace.json"))
    assert "look" in answer.text
    assert "query" not in answer.text
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    assert [event["name"] for event in events if event["ph"] == "X"] == ["run", "look"]


def test_profile_goes_before_other_options_and_leaves_the_document_alone(tmp_path: Path) -> None:
    answer = shop(tmp_path).ok("run", "--profile", "--json")
    assert answer.document["status"] == "success"


def test_a_failed_run_has_a_profile_too(tmp_path: Path) -> None:
    project = shop(tmp_path)
    project.write("seeknal/b.yml", "kind: transform\nname: b\ntransform: SELECT error('no') AS no\n")
    answer = project.seeknal("run", "--profile", "--run-id", "bad")
    assert answer.code == 1
    assert (tmp_path / "target/profiles/bad.json").is_file()


def test_a_file_of_connections_and_a_file_that_cannot_be_written_are_refused(tmp_path: Path) -> None:
    project = shop(tmp_path)
    assert "not available yet" in project.seeknal("run", "--profile", "profiles.yml").text
    answer = project.seeknal("run", "--profile", str(tmp_path / "seeknal_project.yml" / "trace.json"))
    assert answer.code != 0
    assert "cannot be written" in answer.text
