"""Recursive queries whose recursive part reads a file: with one thread for everything, DuckDB waits for ever in them.

Each node has a timeout, so that this is a failure and no test that never ends.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.engine.workflow.projects import run, transform, write_project

TREE = """
    WITH RECURSIVE below AS (
      SELECT id, parent, 0 AS depth FROM {tree} WHERE parent IS NULL
      UNION
      SELECT t.id, t.parent, b.depth + 1 FROM below b JOIN {tree} t ON t.parent = b.id
    )
    SELECT * FROM below
"""
SOURCE = """
    kind: source
    name: tree
    source: csv
    table: tree.csv
    schema:
      - {name: id, data_type: integer}
      - {name: parent, data_type: integer}
"""
RULE = """
    kind: rule
    name: no_circles
    timeout: 30
    inputs: [source.tree]
    rule:
      type: custom_sql
      sql: SELECT * FROM (WITH RECURSIVE b AS (SELECT id FROM input_0 WHERE parent IS NULL
           UNION SELECT t.id FROM b JOIN input_0 t ON t.parent = b.id) SELECT * FROM b) WHERE id < 0
"""
NODE = """
from seeknal.pipeline import transform

@transform(name="walked", inputs=["source.tree"], timeout=30)
def walked(ctx):
    path = ctx.target_dir / "tree.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    ctx.duckdb.execute(f"COPY (SELECT i AS id, nullif(i // 2, 0) AS parent FROM range(1, 40) t(i)) TO '{path}'")
    return ctx.duckdb.sql(QUERY.format(tree=f"'{path}'")).df()

QUERY = '''%s'''
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    rows = "".join(f"{number},{number // 2 or ''}\n" for number in range(1, 40))
    return write_project(tmp_path, {"tree.csv": f"id,parent\n{rows}", "seeknal/tree.yml": SOURCE})


def outcome(project: Path, node_id: str) -> tuple[str, int | None]:
    (node,) = (node for node in run(project).nodes if node.node_id == node_id)
    return node.status, node.row_count


def test_transform_walks_a_tree(project: Path) -> None:
    (project / "seeknal/walk.yml").write_text(transform("walk", TREE.format(tree="source.tree"), timeout="30"))
    assert outcome(project, "transform.walk") == ("success", 39)


def test_rule_walks_a_tree(project: Path) -> None:
    write_project(project, {"seeknal/rule.yml": RULE})
    assert outcome(project, "rule.no_circles")[0] == "success"


def test_function_walks_a_tree(project: Path) -> None:
    (project / "seeknal/walked.py").write_text(NODE % TREE)
    assert outcome(project, "transform.walked") == ("success", 39)
