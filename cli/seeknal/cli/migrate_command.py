"""`seeknal migrate-state`: move the records of runs to another backend."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from seeknal.cli.console import Console, print_document, table
from seeknal.cli.options import json_option, open_project, project_option
from seeknal.cli.waiting import WaitingCommand, patience_of, wait_option
from seeknal.errors import UsageError


@click.command("migrate-state", cls=WaitingCommand)
@click.option(
    "-b", "--backend", type=click.Choice(["file", "database"]), help="Where the records go. Required without --summary."
)
@click.option("--dry-run/--no-dry-run", default=True, show_default=True, help="Say what would be done; write nothing.")
@click.option("--summary", is_flag=True, help="Count what each backend holds, and stop.")
@wait_option
@json_option
@project_option
def migrate_state(
    backend: Any, dry_run: bool, summary: bool, wait: float, as_json: bool, project_path: Path | None
) -> int:
    """Move the records of runs to another backend, and record runs there from then on.

    Copies, verifies the copy, switches `state_backend` in seeknal_project.yml, and removes the copied records from
    where they were. Where it is interrupted, doing it again finishes it.
    """
    from seeknal.workflow.state_migration import count_records, execute_migration, places, plan_migration

    project, console = open_project(project_path), Console(to_stderr=as_json)
    if summary:
        return _summary(console, as_json, project, count_records(project), places(project))
    if backend is None:
        raise UsageError("Missing option --backend: file, or database", hint="--summary says what each of them holds")
    plan = plan_migration(project, backend)
    where = places(project)
    console.heading(f"State Migration: {plan.source} {console.symbol('arrow')} {plan.target}")
    for role, name in (("Source", plan.source), ("Target", plan.target)):
        force = ", in force" if plan.in_force == name else ""
        console.line(f"  {role}: {name} ({where[name]}{force})")
    if not dry_run:
        plan = execute_migration(project, plan, patience_of(wait))
    _show(console, plan, where, done=not dry_run)
    if as_json:
        _document(plan, where, "planned" if dry_run else "success")
    return 0


def _show(console: Console, plan: Any, where: dict[Any, str], *, done: bool) -> None:
    copied, held = plan.to_copy, plan.held[plan.target]
    if plan.is_needed:
        console.line(f"  {'Copied' if done else 'To copy'}: {_in_words(copied)}; {_number(copied.rows, 'row')} in all")
    if plan.copy.same:
        console.line(f"  There already: {_number(len(plan.copy.same), 'run')}")
    if plan.copy.only_in_target and plan.in_force != plan.target:
        console.line(f"  Only in the target, and stays there: {_number(len(plan.copy.only_in_target), 'run')}")
    if plan.copy.different:
        what = "stay as they are in both" if plan.copy.target_wins else "the source's count"
        console.mark("warning", f"{_number(len(plan.copy.different), 'run')} recorded differently in both: {what}")
    if not plan.is_needed:
        console.mark("ok", f"Nothing to do: '{plan.target}' is in force, with {_in_words(held.total())}")
        return
    if done:
        console.mark("ok", f"Verified: {_number(len(plan.copy.moved), 'run')}, by count and content")
    if plan.edit is not None:
        console.mark("ok" if done else "info", f"Switch: state_backend: {plan.target} in seeknal_project.yml")
    if plan.copy.moved:
        removed = "Removed" if done else "To remove, once verified"
        console.mark("ok" if done else "info", f"{removed}: what was copied, from {where[plan.source]}")
    if not done:
        console.mark("info", "Dry run: nothing was changed. --no-dry-run does it")


def _summary(console: Console, as_json: bool, project: Any, counts: dict[Any, Any], where: dict[Any, str]) -> int:
    from seeknal.workflow.run_records import backend_in_force

    in_force = backend_in_force(project)
    if as_json:
        backends = {name: {"place": where[name], **_counts(count)} for name, count in counts.items()}
        print_document({"schema_version": 1, "in_force": in_force, "backends": backends})
        return 0
    rows = [
        [name + (" *" if name == in_force else ""), where[name], *map(str, _counts(count).values())]
        for name, count in counts.items()
    ]
    console.heading("State Summary")
    for line in table(rows, ["backend", "place", "runs", "nodes", "intervals", "partitions", "rows"]):
        console.line(line)
    console.line("  * in force: runs are recorded there")
    return 0


def _counts(counts: Any) -> dict[str, int]:
    return {name: getattr(counts, name) for name in ("runs", "nodes", "intervals", "partitions", "rows")}


def _in_words(counts: Any) -> str:
    parts = [_number(counts.runs, "run"), _number(counts.nodes, "node state")]
    parts += [
        _number(number, word)
        for number, word in ((counts.intervals, "interval"), (counts.partitions, "partition"))
        if number
    ]
    return ", ".join(parts)


def _number(count: int, word: str) -> str:
    return f"{count} {word}" if count == 1 else f"{count} {word}s"


def _document(plan: Any, where: dict[Any, str], status: str) -> None:
    print_document(
        {
            "schema_version": 1,
            "status": status if plan.is_needed else "nothing to do",
            "source": {"backend": plan.source, "place": where[plan.source]},
            "target": {"backend": plan.target, "place": where[plan.target]},
            "was_in_force": plan.in_force,
            "copied": _counts(plan.to_copy),
            "already_there": list(plan.copy.same),
            "different": list(plan.copy.different),
            "only_in_target": list(plan.copy.only_in_target),
            "switched": plan.edit is not None,
        }
    )
