"""`seeknal rollback`: let an environment go back to an earlier state, as one pointer."""

from __future__ import annotations

import time as clock
from pathlib import Path
from typing import TYPE_CHECKING

import click

from seeknal.cli.console import Console, print_document
from seeknal.cli.options import hold_lease, json_option, open_project, project_option
from seeknal.cli.waiting import WaitingCommand, patience_of, wait_option
from seeknal.errors import UsageError

if TYPE_CHECKING:
    from seeknal.workflow.rollback import Rollback


@click.command(cls=WaitingCommand)
@click.argument("env_name", metavar="ENV")
@click.argument("snapshot", metavar="[SNAPSHOT]", required=False)
@click.option("--steps", type=click.IntRange(min=1), metavar="N", help="Go N moves back. [default: 1]")
@click.option("--at", "time", metavar="TIME", help="Go to where it stood then: 2026-02-09T10:00, UTC.")
@click.option("--dry-run", is_flag=True, help="Say what would change; write nothing.")
@click.option("--no-publish", is_flag=True, help="Do not write or send exposures to their places.")
@wait_option
@json_option
@project_option
def rollback(
    env_name: str,
    snapshot: str | None,
    steps: int | None,
    time: str | None,
    dry_run: bool,
    no_publish: bool,
    wait: float,
    as_json: bool,
    project_path: Path | None,
) -> int:
    """Let ENV stand where it stood before: at SNAPSHOT, N moves back, or at a time. Computes nothing.

    ENV and SNAPSHOT may be written as one, ENV@SNAPSHOT. Going back is a move as well: going back again undoes it.
    """
    from seeknal.cli.run_report import RunReport
    from seeknal.workflow.moments import parse_time, split_moment
    from seeknal.workflow.rollback import execute_rollback, plan_rollback

    name, moment = split_moment(env_name)
    given = [text for text in (moment, snapshot, str(steps) if steps else None, time) if text]
    if len(given) > 1:
        raise UsageError("give one of SNAPSHOT, --steps and --at")
    if time is not None and parse_time(time) is None:
        raise UsageError(f"--at '{time}' is no time", hint="write it like 2026-02-09T10:00, in UTC")
    project, console = open_project(project_path), Console(to_stderr=as_json)
    store = project.store()
    lease = hold_lease(project, "rollback")
    plan = plan_rollback(store, name, given[0] if given else "1", lease=lease)
    asked = parse_time(given[0]) if given else None
    # Where a clock was set back, states may be of times to come.
    if asked is not None and asked > clock.time() and plan.changes_nothing:
        raise UsageError(
            f"{given[0]} is in the future", hint=f"`seeknal env history {name}` lists the states there are"
        )
    _show(console, plan)
    digest, problems = plan.head.digest, []
    status = "unchanged" if plan.changes_nothing else "planned"
    if dry_run:
        console.mark("info", "Dry run: nothing was changed")
    else:
        listener = RunReport(console, parallel=False)
        digest, errors = execute_rollback(
            project, store, plan, publish=not no_publish, listener=listener, patience=patience_of(wait)
        )
        problems = [problem for error in errors for problem in error.problems()]
        status = "failed" if errors else "unchanged" if plan.changes_nothing else "success"
        if plan.changes_nothing:
            console.mark("ok", f"'{name}' stands there already; what is shown and delivered is what it holds")
        else:
            console.mark("ok", f"'{name}' stands at {digest[:12]}, which holds what {plan.target.digest[:12]} holds")
            console.mark("info", "The project's files are as they were; the next run goes where they say")
        console.errors(problems)
    if as_json:
        print_document(
            {
                "schema_version": 1,
                "env": name,
                "status": status,
                "from": plan.head.digest,
                "to": plan.target.digest,
                "snapshot": digest,
                "moved": digest != plan.head.digest,
                "changed_nodes": plan.changed_nodes(),
                "errors": [str(problem) for problem in problems],
            }
        )
    return 1 if problems else 0


def _show(console: Console, plan: Rollback) -> None:
    from seeknal.workflow.views import shown_time

    then = plan.target.snapshot
    console.heading(f"Rolling Back Environment: {plan.environment}")
    console.line(f"  From: {plan.head.digest[:12]}  ({plan.head.snapshot.reason})")
    console.line(
        f"  To:   {plan.target.digest[:12]}  ({then.reason}, {shown_time(then.created_at)}, by {then.created_by})"
    )
    changed = plan.changed_nodes()
    console.line(f"  Nodes with another output: {len(changed)}")
    for node_id in changed[:20]:
        console.line(f"    - {node_id}")
    if len(changed) > 20:
        console.line(f"    and {len(changed) - 20} more")
