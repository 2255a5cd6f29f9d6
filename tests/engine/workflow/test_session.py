from __future__ import annotations

from pathlib import Path

import pytest

from seeknal.dag.project import Project
from seeknal.errors import ProjectError
from seeknal.workflow.session import Session
from tests.engine.workflow.projects import transform, write_project


def _problems(root: Path) -> list[str]:
    with pytest.raises(ProjectError) as raised:
        Session.open(Project.open(root))
    return [str(problem) for problem in raised.value.problems()]


def test_a_wrong_field_hides_no_wrong_column_of_another_node(tmp_path: Path) -> None:
    files = {
        "seeknal/a.yml": "kind: transform\nname: a\ntransfrom: SELECT 1 AS x\n",
        "seeknal/b.yml": transform("b", "SELECT 1 AS y"),
        "seeknal/c.yml": transform("c", "SELECT z FROM transform.b"),
    }
    field, missing, column = _problems(write_project(tmp_path, files))
    assert "unknown field 'transfrom'" in field or "'transform' is missing" in field
    assert missing != field
    assert column.startswith('seeknal/c.yml:4:10: transform.c: Referenced column "z" not found')


def test_nothing_is_said_of_what_reads_a_node_that_could_not_be_read(tmp_path: Path) -> None:
    files = {
        "seeknal/a.yml": "kind: transform\nname: a\ntransform: [SELECT 1 AS x]\n",
        "seeknal/b.yml": transform("b", "SELECT nothing FROM transform.a"),
        "seeknal/c.yml": transform("c", "SELECT nothing FROM transform.b"),
    }
    (problem,) = _problems(write_project(tmp_path, files))
    assert problem.startswith("seeknal/a.yml:3:1: 'transform': expected text")


def test_a_cycle_is_told_beside_other_problems(tmp_path: Path) -> None:
    files = {
        "seeknal/a.yml": transform("a", "FROM transform.b"),
        "seeknal/b.yml": transform("b", "FROM transform.a"),
        "seeknal/c.yml": transform("c", "FROM nothing"),
    }
    problems = _problems(write_project(tmp_path, files))
    assert len(problems) == 2
    assert any("DAG contains cycle" in problem for problem in problems)
