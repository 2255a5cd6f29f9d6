"""`seeknal env history`, `env pin` and `env unpin`: the states that an environment stood at, and keeping them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from seeknal.cli.console import Console, print_document, report_error, table
from seeknal.cli.options import json_option, open_project, project_option


@click.command("history")
@click.argument("env_name", metavar="ENV")
@click.option("-n", "--limit", type=click.IntRange(min=1), default=20, show_default=True, help="At most so many.")
@json_option
@project_option
def history(env_name: str, limit: int, as_json: bool, project_path: Path | None) -> int:
    """List the states that ENV stood at, newest first."""
    from seeknal.dag.names import environment_name
    from seeknal.workflow.lookback import look_back
    from seeknal.workflow.views import timestamp

    name = environment_name(env_name)
    found = look_back(open_project(project_path).store(), name, limit)
    code = found.broken.exit_code if found.broken else 0
    if as_json:
        document = {"schema_version": 1, "env": name, "more": found.more, "history": list(map(_shown, found.states))}
        print_document({**document, "broken": str(found.broken)} if found.broken else document)
        return code
    console = Console()
    console.heading(f"History: {name}")
    rows = [
        [
            f"@{entry.number}",
            entry.digest[:12],
            timestamp(entry.created_at).replace("T", " "),
            "-" if entry.changed is None else str(len(entry.changed)),
            entry.reason + (" (pinned)" if entry.pinned else ""),
            entry.created_by,
        ]
        for entry in found.states
    ]
    for line in table(rows, ["Moment", "Snapshot", "When (UTC)", "Changed", "Why", "Who"]):
        console.line(line)
    if found.more:
        console.line(f"  there are more; --limit {limit * 2} shows them")
    if found.broken:
        report_error(found.broken)
    return code


def _shown(entry: Any) -> dict[str, Any]:
    return {
        "number": entry.number,
        "snapshot": entry.digest,
        "created_at": entry.created_at,
        "created_by": entry.created_by,
        "reason": entry.reason,
        "run_id": entry.run_id,
        "promoted_from": entry.promoted_from,
        "restores": entry.restores,
        "manifest": entry.manifest,
        "nodes": entry.nodes,
        "changed_nodes": entry.changed,
        "pinned": entry.pinned,
        "parameters": entry.parameters,
    }


@click.command("pin")
@click.argument("env_name", metavar="ENV")
@click.argument("snapshot", metavar="[SNAPSHOT]", required=False)
@project_option
def pin(env_name: str, snapshot: str | None, project_path: Path | None) -> int:
    """Keep a state of ENV, the current one or SNAPSHOT, whatever is cleaned up, and also when ENV is deleted."""
    from seeknal.workflow.lookback import pin_moment
    from seeknal.workflow.moments import split_moment

    name, moment = split_moment(env_name)
    found = pin_moment(open_project(project_path).store(), name, snapshot or moment)
    Console().mark("ok", f"Pinned {found.digest[:12]} of '{name}'; read it as {name}@{found.digest[:12]}")
    return 0


@click.command("unpin")
@click.argument("env_name", metavar="ENV")
@click.argument("snapshot", metavar="[SNAPSHOT]", required=False)
@project_option
def unpin(env_name: str, snapshot: str | None, project_path: Path | None) -> int:
    """Do not keep a pinned state of ENV any longer: SNAPSHOT, or all of them."""
    from seeknal.workflow.lookback import unpin_moments
    from seeknal.workflow.moments import split_moment

    name, moment = split_moment(env_name)
    for digest in unpin_moments(open_project(project_path).store(), name, snapshot or moment):
        Console().mark("ok", f"Unpinned {digest[:12]} of '{name}'")
    return 0
