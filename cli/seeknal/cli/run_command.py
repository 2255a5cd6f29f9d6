"""`seeknal run`: execute the pipeline, in production or in an environment."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from seeknal.cli.console import RULE, Console, print_document
from seeknal.cli.options import (
    find_project,
    json_option,
    list_option,
    parallel_options,
    parameter_options,
    project_option,
    take_parameters,
)
from seeknal.cli.waiting import WaitingCommand, patience_of, wait_option
from seeknal.errors import UsageError


@click.command(cls=WaitingCommand)
@click.option("--dry-run", is_flag=True, help="Say what would be executed; write nothing.")
@click.option("-f", "--full", is_flag=True, help="Execute all selected nodes, whatever the cache holds.")
@list_option("-n", "--nodes", help="Only these nodes and what is downstream of them.")
@list_option("-t", "--types", help="Only nodes of these kinds.")
@list_option("--tags", help="Only nodes with these tags and what is upstream of them.")
@list_option("--exclude-tags", help="No nodes with these tags.")
@click.option("--continue-on-error", is_flag=True, help="Go on after a failure, without what depends on it.")
@click.option("-r", "--retry", type=click.IntRange(0, 100), default=0, help="Further attempts for a failed node.")
@click.option("-p", "--show-plan", is_flag=True, help="Print the execution plan and stop.")
@parallel_options
@click.option("--materialize/--no-materialize", default=None, help="External writes (not available yet).")
@click.option("--no-publish", is_flag=True, help="Do not write or send exposures to their places.")
@click.option("--env", "env_name", metavar="NAME", help="Run in this environment, as planned.")
@click.option("--force", is_flag=True, help="With --env: run although the plan is stale.")
@parameter_options
@click.option("--run-id", metavar="ID", help="The run's id. [default: a new one]")
@click.option("--start", help="Interval execution (not available yet).")
@click.option("--end", help="Interval execution (not available yet).")
@click.option("--backfill", is_flag=True, help="Interval execution (not available yet).")
@click.option("--restate", is_flag=True, help="Interval execution (not available yet).")
@click.option(
    "--profile",
    metavar="[FILE.json]",
    is_flag=False,
    flag_value="",
    default=None,
    help="Say where the time went, and write a trace. [default: target/profiles/RUN_ID.json]",
)
@wait_option
@json_option
@project_option
def run(
    *,
    dry_run: bool,
    show_plan: bool,
    env_name: str | None,
    force: bool,
    no_publish: bool,
    wait: float,
    as_json: bool,
    project_path: Path | None,
    **given: Any,
) -> int:
    """Execute the pipeline: only nodes whose inputs, columns they read, or definition changed.

    A failed run leaves production as it was; what it finished is kept and not done again.
    """
    _refuse_what_is_to_come(given)
    if force and env_name is None:
        raise UsageError("--force goes with --env", hint="to execute everything again, use --full")
    console = Console(to_stderr=as_json)
    parameters = take_parameters(given)
    root = find_project(project_path)
    options = _options(given)

    def act() -> int:
        if env_name is not None:
            from seeknal.dag.project import Project

            return apply_environment(
                Project.open(root),
                env_name,
                options,
                console,
                force=force,
                look_only=dry_run or show_plan,
                publish=not no_publish,
                as_json=as_json,
                parameters=parameters,
                wait=wait,
            )
        return run_production(
            root,
            options,
            console,
            look_only=dry_run or show_plan,
            publish=not no_publish,
            as_json=as_json,
            parameters=parameters,
            wait=wait,
        )

    if given["profile"] is None:
        return act()
    from seeknal.cli.profile_report import profiled

    return profiled(act, console, root, given["profile"])


def _options(given: dict[str, Any]) -> Any:
    from seeknal.workflow.results import RunOptions
    from seeknal.workflow.selection import Filters

    return RunOptions(
        full=given["full"],
        filters=Filters(given["nodes"], given["types"], given["tags"], given["exclude_tags"]),
        continue_on_error=given["continue_on_error"],
        retry=given["retry"],
        parallel=given["parallel"],
        max_workers=given["max_workers"],
        run_id=given["run_id"],
    )


def _refuse_what_is_to_come(given: dict[str, Any]) -> None:
    if given["backfill"] and not (given["start"] and given["end"]):
        raise UsageError("--backfill needs --start and --end")
    for option, value in (
        ("--start", given["start"]),
        ("--end", given["end"]),
        ("--backfill", given["backfill"]),
        ("--restate", given["restate"]),
        ("--profile with a file of connections", (given["profile"] or "").endswith((".yml", ".yaml"))),
        ("--materialize", given["materialize"] or None),
    ):
        if value:
            raise UsageError(f"{option} is not available yet", hint="leave it out")


def run_production(
    root: Path,
    options: Any,
    console: Console,
    *,
    look_only: bool,
    publish: bool,
    as_json: bool,
    parameters: Any = None,
    wait: float = 0.0,
) -> int:
    """Run the project in a folder, in production: `seeknal run` without `--env`."""
    from seeknal import timeline
    from seeknal.cli.run_report import RunReport
    from seeknal.workflow.settled import settled_run

    plain = not (look_only or options.full or options.filters or options.run_id)
    with timeline.span("look"):
        settled = settled_run(root, publish=publish, given=parameters) if plain else None
    if settled is not None:
        result, record = settled
        _begin(console, record.project, options)
        for text in record.warnings:
            console.mark("warning", text)
        _built(console, len(result.nodes), record.edges)
        console.mark("info", "Loaded previous state")
        console.mark("info", "Detecting changes...")
        return finish(RunReport(console, parallel=options.parallel), result, as_json, None)
    # Only now: what comes next imports the whole engine.
    _expect_workers(options, look_only)
    with timeline.span("import"):
        from seeknal.cli.run_report import forecast_lines
        from seeknal.cli.stopping import stop_on_signals
        from seeknal.dag.names import PRODUCTION
        from seeknal.dag.project import Project
        from seeknal.workflow.session import Session

    project = Project.open(root)
    _begin(console, project.name, options)
    with (
        _turn(project, PRODUCTION, 0.0 if look_only else wait) as lease,
        Session.open(project, parameters) as session,
    ):
        for warning in session.compiled.parsed.warnings:
            console.problem("warning", warning)
        manifest = session.manifest
        _built(console, len(manifest.nodes), len(manifest.edges))
        known = session.store.refs.read(PRODUCTION) is not None
        console.mark("info", "Loaded previous state" if known else "No previous state found (first run)")
        console.mark("info", "Detecting changes...")
        if look_only:
            forecast = session.prepare_run(PRODUCTION, options).forecast()
            return show_forecast(forecast, manifest, console, as_json, PRODUCTION, forecast_lines)
        report = RunReport(console, parallel=options.parallel, continue_on_error=options.continue_on_error)
        with stop_on_signals() as stop, report.live():
            result = session.run(PRODUCTION, options, listener=report, stop=stop, publish=publish, lease=lease)
        return finish(report, result, as_json, stop)


def _expect_workers(options: Any, look_only: bool) -> None:
    """Let what workers come from start while the project is read."""
    if options.parallel and not look_only:
        from seeknal.workflow.fork_server import expect_workers

        expect_workers()


def _begin(console: Console, project: str, options: Any) -> None:
    console.heading("Seeknal Pipeline Execution" + (" (Parallel Mode)" if options.parallel else ""))
    console.line(f"  Project: {project}")
    console.line(f"  Mode: {'Full' if options.full else 'Incremental'}")
    if options.parallel:
        console.line("  Parallelism: enabled")
        console.line(f"  Max workers: {options.max_workers}")
    console.mark("info", "Building DAG from seeknal/ directory...")


def _built(console: Console, nodes: int, edges: int) -> None:
    console.mark("ok", f"DAG built: {nodes} nodes, {edges} edges")


def show_forecast(forecast: Any, manifest: Any, console: Console, as_json: bool, environment: str, render: Any) -> int:
    """Print an execution plan, for --dry-run and --show-plan."""
    if as_json:
        nodes = [{"node_id": e.node_id, "action": e.action, "reason": e.reason} for e in forecast]
        print_document({"schema_version": 1, "env": environment, "nodes": nodes})
    console.line()
    console.heading("Execution Plan")
    for line in render(forecast, {node_id: node.tags for node_id, node in manifest.nodes.items()}):
        console.line(line)
    if all(entry.action not in ("RUN", "MAY RUN", "CHECK") for entry in forecast):
        from seeknal.cli.run_report import nothing_to_run

        console.mark("ok", nothing_to_run(entry.reason for entry in forecast))
    return 0


def finish(report: Any, result: Any, as_json: bool, stop: Any) -> int:
    """Print a run's summary, or its document; gives the exit code."""
    from seeknal import timeline

    timeline.entitle(result.run_id)
    report.summary(result)
    if as_json:
        print_document(result.to_dict())
    if result.status == "interrupted":
        report.console.mark("warning", "interrupted; what was finished is kept, the next run goes on from there")
        return 128 + (stop.signal_number or 2)
    return 0 if result.status == "success" else 1


def apply_environment(
    project: Any,
    env_name: str,
    options: Any,
    console: Console,
    *,
    force: bool,
    look_only: bool,
    publish: bool,
    as_json: bool,
    parameters: Any = None,
    wait: float = 0.0,
) -> int:
    """Run in an environment as planned: `seeknal run --env` and `seeknal env apply`."""
    _expect_workers(options, look_only)
    from seeknal.cli.run_report import RunReport, forecast_lines
    from seeknal.cli.stopping import stop_on_signals
    from seeknal.dag.names import environment_name
    from seeknal.workflow.environment import EnvironmentManager
    from seeknal.workflow.views import shown_time

    manager = EnvironmentManager(project.target)
    with (
        _turn(project, environment_name(env_name), 0.0 if look_only else wait) as lease,
        manager.applying(env_name, force=force, look_only=look_only, given=parameters) as applying,
    ):
        console.heading(f"Applying Environment: {applying.name}" + (" (parallel mode)" if options.parallel else ""))
        console.mark("info", f"Loading plan from: target/environments/{applying.name}/plan.json")
        console.mark("info", f"Plan created: {shown_time(applying.plan.created_at)}")
        console.mark("info", "Base state: production" if applying.plan.base else "Base state: none (first run)")
        for warning in applying.session.compiled.parsed.warnings:
            console.problem("warning", warning)
        if look_only:
            forecast = applying.session.prepare_run(applying.name, options).forecast()
            return show_forecast(forecast, applying.session.manifest, console, as_json, applying.name, forecast_lines)
        report = RunReport(console, parallel=options.parallel, continue_on_error=options.continue_on_error)
        with stop_on_signals() as stop, report.live():
            applied = applying.run(options, listener=report, stop=stop, publish=publish, lease=lease)
        if applied.result.status == "success":
            console.mark("ok", f"Environment state saved: target/environments/{applying.name}/state.json")
        return finish(report, applied.result, as_json, stop)


@contextmanager
def _turn(project: Any, environment: str, wait: float) -> Iterator[Any]:
    """Wait for an environment, and hold it, before the project is read; without patience, hold nothing."""
    if not wait:
        yield None
        return
    from seeknal.workflow.session import waited_for

    with waited_for(project, environment, patience_of(wait)) as lease:
        yield lease


__all__ = ["RULE", "apply_environment", "run", "run_production"]
