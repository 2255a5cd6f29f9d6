"""`seeknal entity` and `seeknal consolidate`: look at entities, and bring their tables up to date."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from seeknal.cli.console import Console, print_document, table
from seeknal.cli.options import hold_lease, json_option, open_project, project_option
from seeknal.errors import NotFoundError

if TYPE_CHECKING:
    from seeknal.workflow.outputs import Outputs

_environment_option = click.option(
    "--env", "env_name", metavar="NAME", default="prod", help="The environment. [default: production]"
)


@click.group()
def entity() -> None:
    """Look at entities: what feature groups describe, each with one table of all its features."""


@entity.command("list")
@_environment_option
@json_option
@project_option
def list_(env_name: str, as_json: bool, project_path: Path | None) -> int:
    """List the entities, with how many feature groups and features they have."""
    catalogs = _catalogs(_outputs(project_path, env_name))
    if as_json:
        entities = [
            {**_counts(found), "join_keys": found["join_keys"], "consolidated_at": found["consolidated_at"]}
            for found in catalogs
        ]
        print_document({"schema_version": 1, "env": env_name, "entities": entities})
        return 0
    console = Console()
    if not catalogs:
        console.mark("info", "No entities yet: feature groups make them when they run")
        return 0
    for found in catalogs:
        counts = _counts(found)
        groups, features = counts["feature_groups"], counts["features"]
        console.line(
            f"{found['entity_name']}  {groups} FG{'s' if groups != 1 else ''}  "
            f"{features} feature{'s' if features != 1 else ''}  [{found['status']}]  "
            f"consolidated: {found['consolidated_at'].replace('T', ' ')}"
        )
    return 0


@entity.command("show")
@click.argument("name")
@_environment_option
@json_option
@project_option
def show(name: str, env_name: str, as_json: bool, project_path: Path | None) -> int:
    """Show what an entity is made of: its keys, and its feature groups with their columns."""
    from seeknal.dag.names import did_you_mean

    catalogs = {found["entity_name"].lower(): found for found in _catalogs(_outputs(project_path, env_name))}
    wanted = name.lower().removeprefix("entity.")
    if wanted not in catalogs:
        hint = did_you_mean(wanted, catalogs) or "feature groups make entities when they run"
        raise NotFoundError(f"no entity is called '{name}'", hint=hint)
    found = catalogs[wanted]
    if as_json:
        print_document({"schema_version": 1, "env": env_name, "entity": found})
        return 0
    console = Console()
    console.heading(f"{found['entity_name']} ({env_name})")
    console.line(f"  Join keys:      {', '.join(found['join_keys'])}")
    console.line(f"  Consolidated:   {found['consolidated_at'].replace('T', ' ')} UTC")
    console.line(f"  Schema version: {found['schema_version']}")
    console.line(f"  Status:         {found['status']}")
    for group in found["feature_groups"].values():
        _show_group(group, console)
    return 0


def _show_group(group: dict[str, Any], console: Console) -> None:
    superseded = f" ({group['superseded_rows']:,} superseded)" if group["superseded_rows"] else ""
    console.line()
    console.line(group["name"])
    console.line(f"  Features:       {', '.join(group['features'])}")
    console.line(f"  Rows:           {group['row_count']:,}{superseded}")
    console.line(f"  Event time:     {group['event_time_col'] or 'none'}")
    console.line(f"  Last updated:   {group['last_updated'].replace('T', ' ')} UTC")
    for line in table([[name, type_] for name, type_ in group["schema"].items()], ["Column", "Type"]):
        console.line(f"  {line.strip()}")


@click.command()
@click.option("--env", "env_name", metavar="NAME", help="The environment, as planned. [default: production]")
@click.option("--prune", is_flag=True, help="Drop what is no longer in the project; this is always done.")
@json_option
@project_option
def consolidate(env_name: str | None, prune: bool, as_json: bool, project_path: Path | None) -> int:
    """Bring the tables of all entities up to date with the stored outputs of their feature groups."""
    from seeknal.cli.run_command import apply_environment, run_production
    from seeknal.workflow.results import RunOptions
    from seeknal.workflow.selection import Filters

    project, console = open_project(project_path), Console(to_stderr=as_json)
    options = RunOptions(filters=Filters(types=["entity"]))
    if env_name is not None:
        return apply_environment(
            project, env_name, options, console, force=False, look_only=False, publish=False, as_json=as_json
        )
    return run_production(project.root, options, console, look_only=False, publish=False, as_json=as_json)


def _outputs(project_path: Path | None, env_name: str) -> Outputs | None:
    """What an environment shows; None where nothing ran in production yet."""
    from seeknal.dag.names import PRODUCTION
    from seeknal.workflow.outputs import read_outputs

    project = open_project(project_path)
    hold_lease(project, "entity")
    store = project.store()
    if env_name in (PRODUCTION, "production") and store.refs.read(PRODUCTION) is None:
        return None
    return read_outputs(store, env_name)


def _catalogs(outputs: Outputs | None) -> list[dict[str, Any]]:
    """The catalogs of all entities, each with its status."""
    if outputs is None:
        return []
    from seeknal.store.objects import Tree
    from seeknal.workflow.views import entity_catalog, is_entity

    tree = Tree(outputs.nodes)
    return [
        {**entity_catalog(tree, node_id), "status": "stale" if entry.stale else "ready"}
        for node_id, entry in sorted(outputs.nodes.items())
        if is_entity(node_id)
    ]


def _counts(catalog: dict[str, Any]) -> dict[str, Any]:
    groups = catalog["feature_groups"]
    return {
        "name": catalog["entity_name"],
        "feature_groups": len(groups),
        "features": sum(len(group["features"]) for group in groups.values()),
        "status": catalog["status"],
    }
