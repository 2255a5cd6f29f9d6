"""`seeknal gc` and `seeknal env du`: what the store needs its space for, and giving back what nobody needs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from seeknal.cli.console import Console, print_document, table
from seeknal.cli.options import json_option, open_project, project_option
from seeknal.cli.waiting import WaitingCommand, patience_of, wait_option

if TYPE_CHECKING:
    from seeknal.store.collection import Collected, CollectionPlan


class Span(click.FloatRange):
    """A number of days or hours: not negative, and none that no clock can count."""

    def __init__(self) -> None:
        super().__init__(min=0, max=1e6)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        number = super().convert(value, param, ctx)
        if number != number:
            self.fail(f"{value} is not a number of anything.", param, ctx)
        return number


@click.command(cls=WaitingCommand)
@click.option("--dry-run", is_flag=True, help="Say what would go and what stays; remove nothing.")
@click.option(
    "--keep-last", type=click.IntRange(min=0), metavar="N", help="Keep the last N states of each environment."
)
@click.option("--keep-days", type=Span(), metavar="D", help="Keep what was current within D days.")
@click.option(
    "--grace-hours",
    type=Span(),
    metavar="H",
    default=24.0,
    show_default=True,
    help="Keep what no state ever held, failed runs' finished outputs, for H hours.",
)
@wait_option
@json_option
@project_option
def gc(
    dry_run: bool,
    keep_last: int | None,
    keep_days: float | None,
    grace_hours: float,
    wait: float,
    as_json: bool,
    project_path: Path | None,
) -> int:
    """Remove from the store what no environment, no kept history, no pin and no running process needs.

    Without --keep-last and --keep-days the project's settings say how much of the past is kept; with one of them, that
    one alone.
    """
    from seeknal.store.reach import Retention
    from seeknal.workflow.collecting import collect_garbage, plan_garbage, retention_of

    project, console = open_project(project_path), Console(to_stderr=as_json)
    retention = retention_of(project)
    if keep_last is not None or keep_days is not None:
        retention = Retention(keep_last or 0, keep_days or 0.0)
    retention = Retention(retention.keep_last, retention.keep_days, grace_hours)
    done: Collected | None = None
    if dry_run:
        plan = plan_garbage(project, retention)
    else:
        plan, done = collect_garbage(project, retention, patience_of(wait))
    _print(console, plan, done)
    if as_json:
        print_document(_document(plan, done))
    return 0


def _print(console: Console, plan: CollectionPlan, done: Collected | None) -> None:
    from seeknal.quantity import size_text

    console.heading("Garbage Collection")
    console.line("Kept:")
    rows = [[kept.why, str(kept.objects), size_text(kept.blob_bytes)] for kept in plan.kept]
    for line in table(rows, ["Why", "Objects", "Data"]) if rows else ["  nothing"]:
        console.line(line)
    console.line()
    console.line("Goes:" if done is None else "Gone:")
    counts = plan.counts()
    for kind, count in counts.items():
        size_bytes = sum(entry.size_bytes for entry in plan.goes if entry.kind == kind)
        console.line(f"  {_plural(kind, count)}: {count} ({size_text(size_bytes)})")
    if not counts:
        console.line("  nothing")
    console.line()
    if done is None:
        console.mark("info", f"Dry run: nothing was removed; {size_text(plan.blob_bytes)} of data would be")
        return
    if done.spared:
        console.mark("info", f"{done.spared} objects came into use meanwhile, and stay")
    console.mark("ok", f"{size_text(done.blob_bytes)} of data given back")


def _plural(kind: str, count: int) -> str:
    return kind if count == 1 or kind in ("checks", "quarantine") else f"{kind}s"


def _document(plan: CollectionPlan, done: Collected | None) -> dict[str, Any]:
    return {
        "schema_version": 1,
        "status": "planned" if done is None else "success",
        "retention": {
            "keep_last": plan.retention.keep_last,
            "keep_days": plan.retention.keep_days,
            "grace_hours": plan.retention.grace_hours,
        },
        "kept": [{"why": kept.why, "objects": kept.objects, "bytes": kept.blob_bytes} for kept in plan.kept],
        "goes": [{"kind": entry.kind, "name": entry.name, "bytes": entry.size_bytes} for entry in plan.goes],
        "bytes": plan.blob_bytes,
        "record_bytes": plan.other_bytes,
        "removed": None
        if done is None
        else {
            "objects": done.objects,
            "bytes": done.blob_bytes,
            "record_bytes": done.other_bytes,
            "spared": done.spared,
        },
    }


@click.command("du")
@json_option
@project_option
def du(as_json: bool, project_path: Path | None) -> int:
    """Show how much data each environment needs, and how much of it alone."""
    from seeknal.quantity import size_text
    from seeknal.store.usage import measure

    usage = measure(open_project(project_path).store())
    if as_json:
        print_document(
            {
                "schema_version": 1,
                "environments": [
                    {
                        "name": entry.environment,
                        "current_bytes": entry.current_bytes,
                        "history_bytes": entry.history_bytes,
                        "unique_bytes": entry.unique_bytes,
                        "shared_bytes": entry.shared_bytes,
                    }
                    for entry in usage.environments
                ],
                "total_bytes": usage.total_bytes,
                "pinned_bytes": usage.pinned_bytes,
                "unreached_bytes": usage.unreached_bytes,
            }
        )
        return 0
    console = Console()
    console.heading("Data by Environment")
    rows = [
        [
            entry.environment,
            *(
                size_text(size)
                for size in (entry.current_bytes, entry.history_bytes, entry.unique_bytes, entry.shared_bytes)
            ),
        ]
        for entry in usage.environments
    ]
    for line in table(rows, ["Environment", "Current", "History", "Unique", "Shared"]):
        console.line(line)
    console.line()
    console.line(f"  Total:          {size_text(usage.total_bytes)}")
    console.line(f"  Pins alone:     {size_text(usage.pinned_bytes)}")
    console.line(f"  Needed by none: {size_text(usage.unreached_bytes)}")
    return 0
