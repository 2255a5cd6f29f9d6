"""`seeknal env`: plan, apply, promote, list, look back at, delete and clean up environments."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from seeknal.cli.console import Console, print_document, table
from seeknal.cli.gc_command import du
from seeknal.cli.history_command import history, pin, unpin
from seeknal.cli.options import (
    json_option,
    open_project,
    output_option,
    parallel_options,
    parameter_options,
    project_option,
    take_parameters,
)
from seeknal.cli.promote_command import promote_environment, promotion_options
from seeknal.cli.waiting import WaitingCommand, patience_of, wait_option
from seeknal.errors import RefusedError, UsageError


@click.group()
def env() -> None:
    """Plan, apply, promote, list, look back at, delete and clean up environments."""


@env.command("plan")
@click.argument("env_name", metavar="ENV")
@click.option("--profile", type=click.Path(), help="Connections (not available yet).")
@parameter_options
@click.option("--summary", is_flag=True, help="Print the counts only.")
@output_option
@json_option
@project_option
def plan_(
    env_name: str,
    profile: str | None,
    summary: bool,
    output: Path | None,
    as_json: bool,
    project_path: Path | None,
    **given: Any,
) -> int:
    """Plan the project's change for ENV; the same as `seeknal plan ENV`."""
    if profile is not None:
        raise UsageError("--profile is not available yet", hint="leave it out")
    from seeknal.cli.plan_command import plan_environment

    parameters = take_parameters(given)
    project, console = open_project(project_path), Console(to_stderr=as_json)
    return plan_environment(
        project, env_name, console, summary=summary, output=output, as_json=as_json, parameters=parameters
    )


@env.command("apply", cls=WaitingCommand)
@click.argument("env_name", metavar="ENV")
@parallel_options
@parameter_options
@click.option("--run-id", metavar="ID", help="The run's id. [default: a new one]")
@click.option("--force", is_flag=True, help="Run although the plan is stale.")
@click.option("--continue-on-error", is_flag=True, help="Go on after a failure, without what depends on it.")
@click.option("-r", "--retry", type=click.IntRange(0, 100), default=0, help="Further attempts for a failed node.")
@click.option("--dry-run", is_flag=True, help="Say what would be executed; write nothing.")
@click.option("-p", "--show-plan", is_flag=True, help="Print the execution plan and stop.")
@click.option("--no-publish", is_flag=True, help="Do not write or send exposures to their places.")
@wait_option
@json_option
@project_option
def apply(
    env_name: str,
    parallel: bool,
    max_workers: int,
    force: bool,
    continue_on_error: bool,
    retry: int,
    dry_run: bool,
    show_plan: bool,
    no_publish: bool,
    wait: float,
    as_json: bool,
    project_path: Path | None,
    run_id: str | None,
    **given: Any,
) -> int:
    """Run in ENV as planned; the same as `seeknal run --env ENV`."""
    from seeknal.cli.run_command import apply_environment
    from seeknal.workflow.results import RunOptions

    parameters = take_parameters({**given, "run_id": run_id})
    options = RunOptions(
        continue_on_error=continue_on_error, retry=retry, parallel=parallel, max_workers=max_workers, run_id=run_id
    )
    return apply_environment(
        open_project(project_path),
        env_name,
        options,
        Console(to_stderr=as_json),
        force=force,
        look_only=dry_run or show_plan,
        publish=not no_publish,
        as_json=as_json,
        parameters=parameters,
        wait=wait,
    )


@env.command("promote", cls=WaitingCommand)
@click.argument("source", metavar="FROM")
@click.argument("target", metavar="[TO]", default="prod")
@promotion_options
def promote_(source: str, target: str, **given: Any) -> int:
    """Make FROM's state TO's (production's, unless said otherwise); the same as `seeknal promote`."""
    return promote_environment(source, target, **given)


@env.command("list")
@json_option
@project_option
def list_(as_json: bool, project_path: Path | None) -> int:
    """List the environments, production last."""
    from seeknal.workflow.environment import EnvironmentManager

    environments = EnvironmentManager(open_project(project_path).target).list_environments()
    if as_json:
        print_document(
            {
                "schema_version": 1,
                "environments": [
                    {
                        "name": entry.name,
                        "status": entry.status,
                        "nodes": entry.nodes,
                        "created_at": entry.created_at,
                        "last_updated": entry.last_updated,
                        "last_accessed": entry.last_accessed,
                        "ttl_seconds": entry.ttl_seconds,
                        "expired": entry.is_expired(),
                        "promoted_from": entry.promoted_from,
                    }
                    for entry in environments
                ],
            }
        )
        return 0
    console = Console()
    console.heading("Virtual Environments")
    if not environments:
        console.line("  none yet; plan one with `seeknal plan NAME`")
        return 0
    rows = [
        [
            entry.name,
            str(entry.nodes),
            entry.last_updated.replace("T", " "),
            entry.status + (" (expired)" if entry.is_expired() else ""),
        ]
        for entry in environments
    ]
    for line in table(rows, ["Environment", "Nodes", "Last Updated", "Status"]):
        console.line(line)
    console.mark("info", "Times are in UTC")
    return 0


env.add_command(history)
env.add_command(pin)
env.add_command(unpin)
env.add_command(du)


@env.command("delete", cls=WaitingCommand)
@click.argument("env_name", metavar="ENV")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@wait_option
@project_option
def delete(env_name: str, yes: bool, wait: float, project_path: Path | None) -> int:
    """Delete ENV. Production and other environments keep everything they use."""
    from seeknal.workflow.environment import EnvironmentManager

    manager = EnvironmentManager(open_project(project_path).target)
    manager.check_deletable(env_name)
    if not yes and sys.stdin.isatty() and not click.confirm(f"Delete environment '{env_name}'?", err=True):
        raise RefusedError("not deleted", hint="give --yes to delete without being asked")
    manager.delete(env_name, patience=patience_of(wait))
    Console().mark("ok", f"Environment '{env_name}' deleted")
    return 0


@env.command("cleanup")
@project_option
def cleanup(project_path: Path | None) -> int:
    """Delete the environments whose time to live is over."""
    from seeknal.workflow.environment import EnvironmentManager

    console = Console()
    removed = EnvironmentManager(open_project(project_path).target).cleanup_expired()
    for name in removed:
        console.mark("ok", f"Environment '{name}' deleted (expired)")
    if not removed:
        console.mark("info", "No expired environments")
    return 0
