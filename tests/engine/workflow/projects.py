"""Projects for tests: written from text, run through the real engine."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from seeknal.dag.project import Project
from seeknal.store.findings import Verification
from seeknal.workflow.checkup import check_store, repair_store
from seeknal.workflow.events import Event, NodeStarted
from seeknal.workflow.results import RunOptions, RunResult
from seeknal.workflow.session import Session


def write_project(root: Path, files: Mapping[str, str], name: str = "shop") -> Path:
    """Write a project: ``files`` maps paths below its root to text, which is dedented."""
    (root / "seeknal").mkdir(parents=True, exist_ok=True)
    (root / "seeknal_project.yml").write_text(f"name: {name}\n", encoding="utf-8")
    for path, text in files.items():
        write(root, path, text)
    return root


def write(root: Path, path: str, text: str) -> None:
    """Write one file of a project."""
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(textwrap.dedent(text).lstrip("\n"), encoding="utf-8")


def transform(name: str, sql: str, **fields: str) -> str:
    """The YAML of a transform."""
    body = textwrap.indent(textwrap.dedent(sql).strip(), "  ")
    more = "".join(f"{key}: {value}\n" for key, value in fields.items())
    return f"kind: transform\nname: {name}\n{more}transform: |\n{body}\n"


def run(root: Path, environment: str = "prod", **options: Any) -> RunResult:
    """Run a project through a session of its own."""
    with Session.open(Project.open(root)) as session:
        return session.run(environment, RunOptions(**options))


def executed(result: RunResult) -> list[str]:
    """The nodes that a run executed, by bare name, sorted."""
    return sorted(node.node_id.partition(".")[2] for node in result.nodes if node.status in ("success", "failed"))


def executed_in(root: Path, environment: str = "prod", **options: Any) -> list[str]:
    """Run, insist on success, and tell which nodes were executed: as the result says and as the events say."""
    started: list[str] = []

    def listen(event: Event) -> None:
        if isinstance(event, NodeStarted):
            started.append(event.node_id.partition(".")[2])

    with Session.open(Project.open(root)) as session:
        result = session.run(environment, RunOptions(**options), listener=listen)
    assert result.status == "success", [str(problem) for node in result.nodes for problem in node.problems]
    assert sorted(started) == executed(result)
    return sorted(started)


def check(root: Path) -> Verification:
    """Verify the store."""
    return check_store(Project.open(root))


def mend(root: Path) -> Verification:
    """Repair everything that can be; gives what verifying finds then."""
    project = Project.open(root)
    repaired = repair_store(project, check_store(project))
    assert repaired.failed == {}
    return repaired.left
