"""`seeknal store`: check what the store holds, and mend it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from seeknal.cli.console import Console, print_document
from seeknal.cli.options import json_option, open_project, project_option
from seeknal.cli.waiting import WaitingCommand, patience_of, wait_option

if TYPE_CHECKING:
    from seeknal.store.findings import Finding, Hurt, Repair, Verification

BUSY = 11
DAMAGED = 12

_MOST_NAMED = 5


@click.group()
def store() -> None:
    """Check what the store holds, and mend it."""


@store.command("verify", cls=WaitingCommand)
@click.option("--repair", is_flag=True, help="Move damaged files aside, forget what they were the result of.")
@wait_option
@json_option
@project_option
def verify(repair: bool, wait: float, as_json: bool, project_path: Path | None) -> int:
    """Check every invariant of the store; reads all of its bytes. Says who is hurt, and what --repair would do."""
    from seeknal.workflow.checkup import check_store, repair_store

    project = open_project(project_path)
    found = check_store(project)
    failed: dict[Repair, str] = {}
    repairs = found.repairs
    after = found
    is_busy = False
    if repair and repairs:
        result = repair_store(project, found, patience_of(wait))
        is_busy = result.is_busy
        repairs, failed, after = [*result.done, *result.failed], result.failed, result.left
    if as_json:
        print_document(_document(found, after, repairs, failed, repaired=repair))
    else:
        _print(Console(), found, after, repairs, failed, repaired=repair)
    if is_busy:
        return BUSY
    return DAMAGED if after.damage else 0


def _document(
    found: Verification, after: Verification, repairs: list[Repair], failed: dict[Repair, str], *, repaired: bool
) -> dict[str, Any]:
    import msgspec

    return {
        "schema_version": 1,
        "status": "damaged" if after.damage else "clean",
        "checked": {
            "blobs": found.blobs,
            "blob_bytes": found.blob_bytes,
            "actions": found.actions,
            "trees": found.trees,
            "snapshots": found.snapshots,
            "environments": found.environments,
        },
        "findings": msgspec.to_builtins(found.findings),
        "repairs": [
            {
                **msgspec.to_builtins(entry),
                "done": repaired and entry not in failed,
                "error": failed.get(entry),
            }
            for entry in repairs
        ],
        "left": msgspec.to_builtins(after.findings) if repaired else None,
    }


def _print(
    console: Console,
    found: Verification,
    after: Verification,
    repairs: list[Repair],
    failed: dict[Repair, str],
    *,
    repaired: bool,
) -> None:
    from seeknal.quantity import size_text

    console.heading("Store")
    console.line(f"  Blobs:        {found.blobs:,} ({size_text(found.blob_bytes)}), every byte read")
    console.line(f"  Actions:      {found.actions:,}")
    console.line(f"  Snapshots:    {found.snapshots:,}")
    console.line(f"  Environments: {found.environments:,}")
    for finding in found.findings:
        _print_finding(console, finding)
    if repairs:
        console.line()
        console.line("Repairs done:" if repaired else "Repairs that `seeknal store verify --repair` would do:")
        for entry in repairs:
            if entry in failed:
                console.mark("error", f"{_repair_text(entry)}: not done: {failed[entry]}")
            else:
                console.mark("ok" if repaired else "info", _repair_text(entry))
    console.line()
    if not after.damage:
        console.mark("ok", "The store is whole" + (" again" if found.damage else ""))
        return
    if repaired:
        for finding in after.damage:
            _print_finding(console, finding)
        names = sorted({hurt.environment for finding in after.damage for hurt in finding.hurts if hurt.number == 0})
        for name in names:
            again = "seeknal run" if name == "prod" else f"seeknal run --env {name}"
            console.mark("info", f"`{again}` builds again what '{name}' lacks")
    else:
        console.mark("error", f"{len(after.damage)} finding(s)")


def _print_finding(console: Console, finding: Finding) -> None:
    console.mark("info" if finding.is_note else "error", f"{finding.subject}: {finding.message}")
    for hurt in finding.hurts[:_MOST_NAMED]:
        console.line(f"    {_hurt_text(hurt)}")
    if len(finding.hurts) > _MOST_NAMED:
        console.line(f"    and {len(finding.hurts) - _MOST_NAMED} more snapshots")


def _hurt_text(hurt: Hurt) -> str:
    nodes = ", ".join(hurt.nodes[:_MOST_NAMED]) + (", …" if len(hurt.nodes) > _MOST_NAMED else "")
    where = hurt.environment if hurt.number == 0 else f"{hurt.environment}@{hurt.snapshot[:12]}"
    return f"hurts {where}" + (f": {nodes}" if nodes else "")


def _repair_text(entry: Repair) -> str:
    from seeknal.store import findings

    if entry.action in (findings.QUARANTINE, findings.MOVE_STRAY):
        return f"move {entry.subject} to quarantine"
    if entry.action == findings.PROTECT:
        return f"make {entry.subject} read-only"
    if entry.action == findings.MOVE_REF:
        return (
            f"let '{entry.subject}' stand at {entry.value}" if entry.value else f"remove the ref of '{entry.subject}'"
        )
    if entry.action == findings.NOTE_MOVE:
        return f"add the missing line to the log of '{entry.subject}'"
    if entry.action == findings.SHOW:
        return f"show '{entry.subject}' again"
    if entry.action == findings.FORGET_DELIVERY:
        environment, _, node_id = entry.subject.partition("/")
        return f"let the next run of '{environment}' deliver {node_id} again"
    if entry.action == findings.SET_ASIDE:
        return f"move {entry.subject} to the store's quarantine"
    if entry.action == findings.RESTORE_PIN:
        return f"pin {entry.subject.partition('/')[2]} again"
    if entry.action == findings.END_HISTORY:
        return f"let history end at {entry.subject}"
    return f"note {entry.subject} as lost"
