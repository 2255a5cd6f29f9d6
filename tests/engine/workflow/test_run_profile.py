from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

from seeknal import timeline
from seeknal.dag.project import Project
from seeknal.timeline import Span
from seeknal.workflow.results import RunOptions
from seeknal.workflow.run_profile import PHASES, RunProfile, chrome_trace, in_order
from seeknal.workflow.session import Session
from tests.engine.workflow.projects import transform, write_project

HERE, WORKER = 7, 8

SPANS = [
    Span("query", 30, 70, WORKER, WORKER),
    Span("execute", 20, 80, WORKER, WORKER, "transform.a"),
    Span("wait", 20, 90, HERE, HERE),
    Span("schedule", 10, 95, HERE, HERE),
    Span("run", 0, 100, HERE, HERE),
]


def test_own_times_add_up_to_the_whole_in_each_place() -> None:
    profile = RunProfile.of(SPANS, HERE)
    own = {(phase.name, phase.here): round(phase.seconds * 1e9) for phase in profile.phases}
    assert own == {
        ("run", True): 15,
        ("schedule", True): 15,
        ("wait", True): 70,
        ("execute", False): 20,
        ("query", False): 40,
    }
    assert round(profile.seconds * 1e9) == 100
    assert round(profile.worker_seconds * 1e9) == 60


def test_what_happens_within_a_node_counts_for_that_node() -> None:
    (node,) = RunProfile.of(SPANS, HERE).nodes
    assert (node.node_id, round(node.seconds * 1e9)) == ("transform.a", 60)
    assert {name: round(seconds * 1e9) for name, seconds in node.phases.items()} == {"execute": 20, "query": 40}


def test_there_may_be_nothing_to_tell() -> None:
    assert RunProfile.of([]) == RunProfile(0.0, (), ())
    assert json.loads(chrome_trace([]))["traceEvents"] == []


def recorded(root: Path, **options: Any) -> list[Span]:
    files = {
        f"seeknal/{name}.yml": transform(name, sql)
        for name, sql in {
            "a": "SELECT range AS i FROM range(10)",
            "b": "SELECT range AS i FROM range(20)",
            "joined": "SELECT a.i FROM transform.a JOIN transform.b USING (i)",
        }.items()
    }
    write_project(root, files)
    with timeline.recording() as found, timeline.span("run"), Session.open(Project.open(root)) as session:
        assert session.run("prod", RunOptions(**options)).status == "success"
    return found.spans


def insist_on_nesting(spans: list[Span]) -> None:
    """Spans of one thread are one inside the other, or apart."""
    stack: list[Span] = []
    for span in in_order(spans):
        while stack and (stack[-1].thread != span.thread or stack[-1].end_ns <= span.start_ns):
            stack.pop()
        assert not stack or span.end_ns <= stack[-1].end_ns, (stack[-1], span)
        stack.append(span)


def test_a_sequential_run_tells_where_all_of_its_time_went(tmp_path: Path) -> None:
    spans = recorded(tmp_path)
    insist_on_nesting(spans)
    assert {span.process for span in spans} == {os.getpid()}
    assert {span.name for span in spans} <= PHASES.keys()
    counts = Counter(span.name for span in spans)
    assert counts["execute"] == counts["query"] == counts["hash"] == counts["resolve"] == 3
    profile = RunProfile.of(spans)
    assert abs(sum(phase.seconds for phase in profile.phases) - profile.seconds) < 1e-6
    (whole,) = [span for span in spans if span.name == "run"]
    assert abs(profile.seconds - whole.nanoseconds / 1e9) < 1e-6
    assert {node.node_id for node in profile.nodes} == {"transform.a", "transform.b", "transform.joined"}
    assert all(sum(node.phases.values()) <= node.seconds + 1e-6 for node in profile.nodes)


def test_a_parallel_run_has_the_workers_spans_too(tmp_path: Path) -> None:
    spans = recorded(tmp_path, parallel=True, max_workers=2)
    insist_on_nesting(spans)
    executed = [span for span in spans if span.name == "execute"]
    assert sorted(span.node_id for span in executed) == ["transform.a", "transform.b", "transform.joined"]
    assert os.getpid() not in {span.process for span in executed}
    # The clocks of all processes agree: a node is executed while the run waits for it.
    (whole,) = [span for span in spans if span.name == "run"]
    assert all(whole.start_ns < span.start_ns < span.end_ns < whole.end_ns for span in executed)


def test_the_trace_is_of_complete_events_with_names_for_processes_and_threads(tmp_path: Path) -> None:
    spans = recorded(tmp_path, parallel=True, max_workers=2)
    events = json.loads(chrome_trace(spans))["traceEvents"]
    complete = [event for event in events if event["ph"] == "X"]
    assert len(complete) == len(spans)
    assert min(event["ts"] for event in complete) == 0
    for event, span in zip(complete, in_order(spans), strict=True):
        assert event["ts"] >= 0
        assert abs(event["dur"] * 1000 - span.nanoseconds) < 1
        assert (event["pid"], event["tid"], event["cat"]) == (span.process, span.thread, span.name)
    said = [event for event in events if event["ph"] == "M"]
    assert {event["pid"] for event in said if event["name"] == "process_name"} == {span.process for span in spans}
    named = {(event["pid"], event["tid"]) for event in said if event["name"] == "thread_name"}
    assert named == {(span.process, span.thread) for span in spans}
    names = [event["args"]["name"] for event in said if event["name"] == "process_name"]
    assert names[0] == "seeknal run"
    assert set(names[1:]) <= {"worker 1", "worker 2"}
    assert "transform.joined" in {event["name"] for event in complete}
    assert len(complete) + len(said) == len(events)
