"""Nodes that are larger than the memory they may have: they go to disk and finish."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pytest

from seeknal.dag.project import Project
from tests.engine.workflow.projects import run, transform, write_project

LIMIT_BYTES = 64 * 1024**2

# Rows of some 90 bytes, none like another, in an order that asks for all of them at once: nearly three times the limit.
ROWS = 2_000_000
SORTED = f"SELECT hash(range) AS key, repeat(md5(range::VARCHAR), 2) AS text FROM range({ROWS}) ORDER BY key"


DEMAND = f"{{memory: {LIMIT_BYTES}}}"


def test_a_node_far_larger_than_its_memory_limit_goes_to_disk_and_finishes(tmp_path: Path) -> None:
    files = {"seeknal/large.yml": transform("large", SORTED, resources=DEMAND)}
    root = write_project(tmp_path / "large", files)
    result = run(root)
    assert result.status == "success", [str(problem) for node in result.nodes for problem in node.problems]
    assert [node.row_count for node in result.nodes] == [ROWS]
    # What it put on disk is gone.
    assert list(Project.open(root).store().temporary_folder.iterdir()) == []


def test_the_limit_is_in_force_where_a_value_cannot_go_to_disk(tmp_path: Path) -> None:
    listed = "SELECT len(list(range)) AS n FROM range(20000000)"
    root = write_project(tmp_path / "list", {"seeknal/list.yml": transform("listed", listed, resources=DEMAND)})
    (node,) = run(root).nodes
    assert "64.0 MiB" in str(node.problems[0])


def test_without_a_disk_that_limit_is_too_little() -> None:
    config = {"memory_limit": f"{LIMIT_BYTES}B", "temp_directory": "", "threads": 1}
    with duckdb.connect(config=config) as connection, pytest.raises(duckdb.OutOfMemoryException):
        connection.execute(f"CREATE TABLE all_rows AS {SORTED}")
