"""Damaged node files: each loads, or gives errors with a place. Never anything else."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from seeknal.dag.project import Project
from seeknal.errors import Problem, ProjectError
from seeknal.workflow.session import Session
from tests.engine.dag.mutation import mutated, originals
from tests.engine.workflow.projects import write_project

FILES = 2000
GROUPS = 20


def _problems(root: Path) -> list[Problem] | None:
    """What is wrong with the project; None where it loads."""
    try:
        with Session.open(Project.open(root)) as session:
            return [found for each in session.compiled.analysis.problems.values() for found in each] or None
    except ProjectError as error:
        return error.problems()


@pytest.mark.parametrize("group", range(GROUPS))
def test_a_damaged_file_loads_or_gives_errors_with_a_place(tmp_path: Path, group: int) -> None:
    projects = originals()
    original = projects[group % len(projects)]
    write_project(tmp_path, {f"seeknal/{name}": text for name, text in original.files.items()})
    if original.data is not None:
        shutil.copytree(original.data, tmp_path / "data")
    refused = 0
    for seed in range(group, FILES, GROUPS):
        name, data = mutated(seed, original)
        file = tmp_path / "seeknal" / name
        whole = file.read_bytes()
        file.write_bytes(data)
        problems = _problems(tmp_path)
        file.write_bytes(whole)
        assert problems != [], f"seed {seed}: refused without a reason"
        for problem in problems or ():
            assert problem.place is not None, f"seed {seed}: {problem.message}"
            assert "\n" not in str(problem), f"seed {seed}: {problem}"
        refused += problems is not None
    # Most damage is damage; a check that refuses nothing would not be looking.
    assert refused > FILES // GROUPS // 4
