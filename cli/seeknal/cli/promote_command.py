"""`seeknal promote`: make an environment's state production's, as one pointer."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from seeknal.cli.console import RULE, Console, print_document
from seeknal.cli.options import hold_lease, json_option, open_project, project_option
from seeknal.cli.waiting import WaitingCommand, patience_of, wait_option
from seeknal.errors import Problem, RefusedError, UsageError


def promotion_options(function: Any) -> Any:
    """The options that `promote` and `env promote` share."""
    for decorate in (
        click.option("-y", "--yes", is_flag=True, help="Do not ask, also where the change is breaking."),
        click.option("--dry-run", is_flag=True, help="Say what would change; write nothing."),
        click.option("--force", is_flag=True, help="Promote although the target moved since the plan."),
        click.option("--no-publish", is_flag=True, help="Do not write or send exposures to their places."),
        click.option("--rematerialize", is_flag=True, help="Repeat external writes (not available yet)."),
        click.option("--profile", type=click.Path(), help="Connections (not available yet)."),
        wait_option,
        json_option,
        project_option,
    ):
        function = decorate(function)
    return function


@click.command(cls=WaitingCommand)
@click.argument("source", metavar="ENV")
@click.argument("target", metavar="[TARGET]", default="prod")
@promotion_options
def promote(source: str, target: str, **given: Any) -> int:
    """Make ENV's state TARGET's (production's, unless said otherwise). Moves one pointer; no data is copied."""
    return promote_environment(source, target, **given)


def promote_environment(
    source: str,
    target: str,
    *,
    yes: bool,
    dry_run: bool,
    force: bool,
    no_publish: bool,
    rematerialize: bool,
    profile: str | None,
    wait: float,
    as_json: bool,
    project_path: Path | None,
) -> int:
    """Promote, and print how: `seeknal promote` and `seeknal env promote`."""
    if rematerialize or profile:
        raise UsageError("--rematerialize and --profile are not available yet", hint="leave them out")
    from seeknal.cli.run_report import RunReport
    from seeknal.workflow.environment import EnvironmentManager
    from seeknal.workflow.views import shown_time

    console = Console(to_stderr=as_json)
    project = open_project(project_path)
    manager = EnvironmentManager(project.target)
    patience = patience_of(wait)
    if wait and not dry_run:
        # Decided on what is there when its turn comes. Nobody else has to wait while a person is asked.
        manager.await_environment(target, patience)
    hold_lease(project, "promote")
    promotion = manager.plan_promotion(source, target, force=force)
    arrow = console.symbol("arrow")
    console.heading(f"Promoting Environment: {promotion.source} {arrow} {promotion.target}")
    console.mark("info", f"Source environment: {promotion.source}")
    console.mark("info", f"Target environment: {promotion.target}")
    console.mark("info", "Comparing states...")
    _show_changes(console, promotion)
    if dry_run:
        console.mark("info", "Dry run: nothing was changed")
        _document(as_json, promotion, None, "planned")
        return 0
    if promotion.is_breaking and not yes:
        _ask(promotion)
    report = RunReport(console, parallel=False)
    errors = manager.execute_promotion(promotion, publish=not no_publish, listener=report, patience=patience)
    name = "Production" if promotion.target == "prod" else promotion.target
    console.mark("ok", f"{name} environment updated")
    snapshot = manager.store.refs.read(promotion.target)
    head = manager.store.head(promotion.target)
    console.line()
    console.heading("Summary")
    console.line(f"  Environment: {promotion.target}")
    console.line(f"  Nodes updated: {len(promotion.changed_nodes())}")
    console.line(f"  Breaking changes: {_count(promotion, 'breaking')}")
    console.line(f"  Promoted at: {shown_time(head.created_at if head else 0.0)}")
    console.line(RULE)
    problems = [problem for error in errors for problem in error.problems()]
    console.errors(problems)
    _document(as_json, promotion, snapshot, "failed" if errors else "success", problems)
    return 1 if errors else 0


def _count(promotion: Any, category: str) -> int:
    changed = set(promotion.changed_nodes())
    return sum(value == category for node_id, value in promotion.categories().items() if node_id in changed)


def _show_changes(console: Console, promotion: Any) -> None:
    changed = promotion.changed_nodes()
    categories = promotion.categories()
    console.line()
    console.line("Changes to Promote:")
    console.line(f"  Nodes with another output: {len(changed)}")
    for node_id, entry in promotion.change.changed.items():
        category = categories.get(node_id)
        removed = [] if entry is not None else ["removed"]
        said = ", ".join([*removed, *([category.upper()] if category else [])])
        label = f" ({said})" if said else ""
        console.line(f"    - {promotion.change.shown[node_id]}{label}")
    console.line()
    if promotion.is_breaking and _count(promotion, "breaking"):
        console.mark("warning", f"{_count(promotion, 'breaking')} breaking change(s): readers of these nodes may fail")
    else:
        console.mark("info", "No breaking changes detected")
        console.mark("ok", "Safe to promote")
    console.line()


def _ask(promotion: Any) -> None:
    """Ask for consent where somebody is there to give it; a script that promotes has decided already."""
    if sys.stdin.isatty() and not click.confirm(f"Promote breaking changes to {promotion.target}?", err=True):
        raise RefusedError("not promoted", hint="give --yes to promote without being asked")


def _document(
    as_json: bool, promotion: Any, snapshot: str | None, status: str, problems: Sequence[Problem] = ()
) -> None:
    if as_json:
        print_document(
            {
                "schema_version": 1,
                "from_env": promotion.source,
                "to_env": promotion.target,
                "status": status,
                "snapshot": snapshot,
                "changed_nodes": promotion.changed_nodes(),
                "errors": [str(problem) for problem in problems],
            }
        )
