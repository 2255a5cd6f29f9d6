from __future__ import annotations

from pathlib import Path

import pytest

from seeknal.dag.parse import parse_project
from seeknal.dag.project import Project
from seeknal.errors import ProjectError
from tests.engine.workflow.projects import write_project

POSTGRESQL = "type: postgresql, table: analytics.orders"


def said(root: Path, fields: str) -> tuple[list[str], list[str]]:
    """What parsing finds: problems and warnings."""
    node = f"kind: transform\nname: t\ntransform: SELECT 1 AS id\n{fields}\n"
    write_project(root, {"seeknal/t.yml": node})
    try:
        return [], [str(warning) for warning in parse_project(Project.open(root)).warnings]
    except ProjectError as error:
        return [str(problem) for problem in error.problems()], []


@pytest.mark.parametrize(
    ("fields", "warned"),
    [
        (f"materializations: [{{{POSTGRESQL}, mode: upsert_by_key, unique_keys: [id]}}]", ["analytics.orders"]),
        (f"materializations: [{{{POSTGRESQL}, mode: incremental_by_time, time_column: t, lookback: 7d}}]", ["orders"]),
        (f"materializations: [{{{POSTGRESQL}}}, {{table: atlas.sales.orders, mode: append}}]", ["analytics", "atlas"]),
        (f"materialization: {{{POSTGRESQL}, cascade: true, connection: local}}", ["analytics.orders"]),
        ("materialization: {table: {namespace: sales, name: orders}}", ["nothing is written to the table"]),
        (
            'materialization: {table: "${CATALOG}.sales.orders", partition_by: [day], mode: insert_overwrite}',
            ["CATALOG"],
        ),
        ("materialization: {enabled: false, table: a.b.c}", []),
        ("materialization: {}\nmaterializations: []", []),
    ],
)
def test_target_that_is_right_gives_a_warning_that_it_is_not_written(
    tmp_path: Path, fields: str, warned: list[str]
) -> None:
    problems, warnings = said(tmp_path, fields)
    assert problems == []
    assert len(warnings) == len(warned)
    for warning, part in zip(warnings, warned, strict=True):
        assert "targets are not available yet" in warning
        assert part in warning


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        (
            "materialization: {table: a.b.c}\nmaterializations: [{table: a.b.c}]",
            "5:1: 'materialization' and 'materializations' are two ways to say it (leave one out)",
        ),
        ("materializations: {table: a.b.c}", "4:1: 'materializations' must be a list of targets"),
        ("materializations: [a.b.c]", "4:20: a target must be a mapping"),
        (
            "materialization: {type: postgersql}",
            "4:19: unknown type of target 'postgersql' (did you mean 'postgresql'?)",
        ),
        ("materialization: {type: postgresql}", "postgresql target: object missing required field"),
        (f"materialization: {{{POSTGRESQL}, mode: upsert}}", "unknown mode 'upsert' of a postgresql target"),
        (f"materialization: {{{POSTGRESQL}, mode: upsert_by_key}}", "mode 'upsert_by_key' needs 'unique_keys'"),
        (f"materialization: {{{POSTGRESQL}, mode: incremental_by_time}}", "needs 'time_column'"),
        (f"materialization: {{{POSTGRESQL}, lookback: soon}}", "lookback must be days"),
        (f"materialization: {{{POSTGRESQL}, unique_keys: id}}", "expected a list, got text"),
        (f"materialization: {{{POSTGRESQL}, create_tabel: true}}", "unknown field 'create_tabel'"),
        (f"materialization: {{{POSTGRESQL}, on_failure: ignore}}", "on_failure must be error or warn"),
        ("materialization: {type: postgresql, table: 'a; DROP TABLE b'}", "is not the name of a table"),
        ("materialization: {table: a.b.c.d}", "'a.b.c.d' is not the name of a table (write catalog.namespace.table)"),
        ("materialization: {table: a.b, mode: upsert}", "mode 'upsert' needs 'unique_keys'"),
        ("materialization: {table: a.b, when_not_matched: maybe}", "when_not_matched must be insert or skip"),
    ],
)
def test_what_is_wrong_with_a_target_is_said_with_its_place(tmp_path: Path, fields: str, problem: str) -> None:
    problems, _ = said(tmp_path, fields)
    assert len(problems) == 1
    assert problems[0].startswith("seeknal/t.yml:")
    assert problem in problems[0]


def test_block_of_a_feature_group_is_no_target_and_its_list_is(tmp_path: Path) -> None:
    nodes = {
        "seeknal/t.yml": "kind: transform\nname: t\ntransform: SELECT 1 AS user_id, DATE '2024-01-01' AS seen\n",
        "seeknal/f.yml": (
            "kind: feature_group\nname: f\nentity: user\ninputs: [transform.t]\n"
            f"materialization: {{event_time_col: seen}}\nmaterializations: [{{{POSTGRESQL}}}]\n"
        ),
    }
    warnings = parse_project(Project.open(write_project(tmp_path, nodes))).warnings
    assert ["targets are not available yet" in str(warning) for warning in warnings] == [True]
