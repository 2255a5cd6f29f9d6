"""`seeknal plan` and `seeknal parse`: what the project is, and what it would change."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from seeknal.cli.console import Console, print_document
from seeknal.cli.options import (
    json_option,
    list_option,
    open_project,
    output_option,
    parameter_options,
    project_option,
    take_parameters,
)
from seeknal.errors import UsageError


@click.command()
@click.argument("env_name", metavar="[ENV]", required=False)
@list_option("--tags", help="Only nodes with these tags and what is upstream of them.")
@list_option("--exclude-tags", help="No nodes with these tags.")
@click.option("--profile", type=click.Path(), help="Connections (not available yet).")
@parameter_options
@click.option("--summary", is_flag=True, help="Print the counts only.")
@output_option
@click.option("--detailed-exitcode", is_flag=True, help="Exit with 3 where there are changes.")
@json_option
@project_option
def plan(
    env_name: str | None,
    tags: tuple[str, ...],
    exclude_tags: tuple[str, ...],
    profile: str | None,
    summary: bool,
    output: Path | None,
    detailed_exitcode: bool,
    as_json: bool,
    project_path: Path | None,
    **given: Any,
) -> int:
    """Check the whole project and show what would change.

    Without ENV: against production, with the execution plan. With ENV: the change is planned for that environment, and
    `seeknal run --env ENV` tries it there.
    """
    if profile is not None:
        raise UsageError("--profile is not available yet", hint="leave it out")
    console = Console(to_stderr=as_json)
    parameters = take_parameters(given)
    project = open_project(project_path)
    if env_name is None:
        return _plan_production(
            project, console, tags, exclude_tags, summary, output, detailed_exitcode, as_json, parameters
        )
    if tags or exclude_tags:
        raise UsageError("--tags and --exclude-tags do not go with an environment", hint="give them to `seeknal run`")
    return plan_environment(
        project,
        env_name,
        console,
        summary=summary,
        output=output,
        detailed_exitcode=detailed_exitcode,
        as_json=as_json,
        parameters=parameters,
    )


@click.command()
@parameter_options
@json_option
@project_option
def parse(as_json: bool, project_path: Path | None, **given: Any) -> int:
    """Check the whole project and write its manifest; the same as `seeknal plan`."""
    parameters = take_parameters(given)
    project, console = open_project(project_path), Console(to_stderr=as_json)
    return _plan_production(project, console, (), (), False, None, False, as_json, parameters)


def _plan_production(
    project: Any,
    console: Console,
    tags: tuple[str, ...],
    exclude_tags: tuple[str, ...],
    summary: bool,
    output: Path | None,
    detailed_exitcode: bool,
    as_json: bool,
    parameters: Any,
) -> int:
    from seeknal.cli.plan_report import change_lines, summary_lines
    from seeknal.cli.run_report import forecast_lines
    from seeknal.dag.names import PRODUCTION
    from seeknal.workflow.results import RunOptions
    from seeknal.workflow.selection import Filters
    from seeknal.workflow.session import Session

    with Session.open(project, parameters) as session:
        for warning in session.compiled.parsed.warnings:
            console.problem("warning", warning)
        manifest = session.manifest
        change = session.plan(PRODUCTION, RunOptions(filters=Filters(tags=tags, exclude_tags=exclude_tags)))
        console.line(f"Parsing project: {project.name}")
        console.line(f"  Path: {project.root}")
        if not change.problems:
            session.show_manifest(lambda event: console.mark("warning", event.message))
            console.mark("ok", "Manifest generated: target/manifest.json")
        console.line(f"  Nodes: {len(manifest.nodes)}")
        console.line(f"  Edges: {len(manifest.edges)}")
        lines = summary_lines(change) if summary else change_lines(change, console) if change.base else []
        for line in lines:
            console.line(line)
        if change.forecast and not summary:
            console.line()
            console.heading("Execution Plan")
            for line in forecast_lines(list(change.forecast), {n: node.tags for n, node in manifest.nodes.items()}):
                console.line(line)
        console.errors(change.problems)
        _write(change.to_dict(), output, console, as_json)
        if change.problems:
            return 1
        return 3 if detailed_exitcode and change.has_changes else 0


def plan_environment(
    project: Any,
    env_name: str,
    console: Console,
    *,
    summary: bool = False,
    output: Path | None = None,
    detailed_exitcode: bool = False,
    as_json: bool = False,
    parameters: Any = None,
) -> int:
    """Plan a change for an environment: `seeknal plan ENV` and `seeknal env plan ENV`."""
    from seeknal.cli.plan_report import change_lines, problem_lines, summary_lines
    from seeknal.workflow.environment import EnvironmentManager

    saved = EnvironmentManager(project.target).plan(env_name, given=parameters)
    change = saved.change
    assert change is not None
    console.heading(f"Environment Plan: {saved.env_name}")
    console.line("  Base: production (latest state)" if change.base else "  Base: none (production was never run)")
    console.line("  Target: seeknal/ directory (current state)")
    console.line()
    for line in summary_lines(change) if summary else [*change_lines(change, console), *problem_lines(change, console)]:
        console.line(line)
    _write(saved.to_dict() if not as_json else change.to_dict(), output, console, as_json)
    console.line()
    console.mark("info", f"Plan saved to: target/environments/{saved.env_name}/plan.json")
    return 3 if detailed_exitcode and change.has_changes else 0


def _write(document: dict[str, Any], output: Path | None, console: Console, as_json: bool) -> None:
    import json

    if output is not None:
        output.write_text(json.dumps(document, indent=2), encoding="utf-8")
        console.mark("ok", f"Plan written to: {output}")
    if as_json:
        print_document(document)
