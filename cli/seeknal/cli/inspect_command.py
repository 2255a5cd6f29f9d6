"""`seeknal inspect`: look at what an environment stores, at all of its nodes or at one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from seeknal.cli.console import Console, table
from seeknal.cli.options import hold_lease, open_project, project_option
from seeknal.errors import UsageError
from seeknal.quantity import size_text

if TYPE_CHECKING:
    from seeknal.store.objects import Delivery, FailedNode
    from seeknal.workflow.outputs import Outputs


@click.command()
@click.argument("node", required=False)
@click.option("-l", "--limit", type=click.IntRange(min=0), default=10, show_default=True, help="At most so many rows.")
@click.option("-s", "--schema", "schema_only", is_flag=True, help="Show the columns only.")
@click.option("--list", "list_all", is_flag=True, help="List all nodes that have an output (also without NODE).")
@click.option("--failed", is_flag=True, help="Show what failed its checks, and the rows; without NODE, list it.")
@click.option("--env", "env_name", metavar="NAME", default="prod", help="The environment, or NAME@MOMENT.")
@project_option
def inspect(
    node: str | None,
    limit: int,
    schema_only: bool,
    list_all: bool,
    failed: bool,
    env_name: str,
    project_path: Path | None,
) -> int:
    """Show NODE's stored output: its columns and first rows, its delivered files, or what its checks found.

    Without NODE, list all outputs.
    """
    if node is not None and list_all:
        raise UsageError("--list shows all nodes; it does not go with NODE")
    if node is None and schema_only:
        raise UsageError("--schema needs a NODE")
    if failed and (schema_only or list_all):
        raise UsageError("--failed does not go with --schema or --list")
    from seeknal.workflow.outputs import read_outputs

    project = open_project(project_path)
    hold_lease(project, "inspect")
    if failed:
        _show_failed(project, node, env_name, limit)
        return 0
    outputs = read_outputs(project.store(), env_name)
    console = Console()
    if outputs.shown != outputs.environment:
        Console(to_stderr=True).mark(
            "info", f"Environment '{outputs.environment}' was not applied yet; this is production"
        )
    if node is None:
        _list(outputs, console)
        return 0
    node_id = outputs.find(node)
    if not _is_executed(node_id):
        console.heading(f"{node_id} ({outputs.label})")
        console.line("  Not executed: kept in the manifest for other tools")
    elif node_id in outputs.tables:
        _show_table(outputs, node_id, console, limit, schema_only)
    elif node_id.startswith("rule."):
        _show_checks(outputs, node_id, console)
    else:
        _show_files(project, outputs, node_id, console)
    return 0


def _show_failed(project: Any, node: str | None, env_name: str, limit: int) -> None:
    """Show which nodes' checks failed, or one's checks and the rows that break them."""
    from seeknal.cli.run_report import sample_lines
    from seeknal.dag.names import did_you_mean, nodes_named
    from seeknal.errors import NotFoundError
    from seeknal.workflow.auditing import failed_results, read_failures
    from seeknal.workflow.views import shown_time

    console = Console()
    environment, failures = read_failures(project.store(), env_name)
    if node is None:
        console.heading(f"Failed Checks: {environment}")
        for found in failures.values():
            wrong = [result["check"] for result in found.results if not result["passed"]]
            console.line(f"  {found.node_id}: {', '.join(wrong)}")
        if not failures:
            console.line("  None")
        _tell_of_rollback(project, environment, list(failures.values())[-1:], console)
        return
    wanted = nodes_named(node, failures)
    if len(wanted) > 1:
        raise NotFoundError(f"'{node}' may mean {' or '.join(wanted)}", hint="write kind.name")
    if not wanted:
        message = f"no checks of '{node}' failed in environment '{environment}' when it was last run"
        elsewhere = _failed_elsewhere(project, node, environment)
        raise NotFoundError(message, hint=elsewhere or did_you_mean(node, failures))
    found = failures[wanted[0]]
    console.heading(f"{found.node_id} ({environment}): failed checks")
    for table_id, artifact in found.tables[:1]:
        console.line(f"  Checked: {table_id}, {artifact.row_count:,} rows")
    console.line(f"  Run:     {found.run_id}, {shown_time(found.failed_at)}")
    _tell_of_rollback(project, environment, [found], console)
    for result in failed_results(project.store(), found, limit):
        console.line()
        console.line(f"{result.word} {result.label}: {result.message}")
        for line in sample_lines(result)[1:]:
            console.line(line)


def _tell_of_rollback(project: Any, environment: str, failures: list[FailedNode], console: Console) -> None:
    """Say where the environment left the state that checks failed on."""
    from seeknal.workflow.auditing import gone_back_since
    from seeknal.workflow.views import shown_time

    for found in failures:
        if (state := gone_back_since(project.store(), environment, found)) is not None:
            when = shown_time(state.created_at)
            console.line(f"  Since:   '{environment}' was rolled back, {when}; it shows another state")


def _failed_elsewhere(project: Any, node: str, environment: str) -> str:
    """A hint at the environments where the node's checks did fail."""
    from seeknal.dag.names import PRODUCTION, nodes_named
    from seeknal.workflow.auditing import read_failures

    store = project.store()
    others = [name for name in (PRODUCTION, *store.environment_names()) if name != environment]
    failed = [name for name in dict.fromkeys(others) if nodes_named(node, read_failures(store, name)[1])]
    return f"they failed in {' and '.join(failed)}: add `--env {failed[0]}`" if failed else ""


def _list(outputs: Outputs, console: Console) -> None:
    console.heading(f"Stored Outputs: {outputs.label}")
    rows = [
        [node_id, "not executed", "-", "-"]
        if not _is_executed(node_id)
        else [
            node_id + (" (stale)" if entry.stale else ""),
            f"{entry.artifact.row_count:,}",
            str(len(entry.artifact.columns)) if entry.artifact.parts else "-",
            size_text(sum(blob.size_bytes for blob in entry.artifact.blobs())),
        ]
        for node_id, entry in outputs.nodes.items()
    ]
    for line in table(rows, ["Node", "Rows", "Columns", "Size"]):
        console.line(line)


def _is_executed(node_id: str) -> bool:
    from seeknal.nodes.registry import KINDS

    kind = KINDS.get(node_id.partition(".")[0])
    return kind is None or kind.executes


def _show_table(outputs: Outputs, node_id: str, console: Console, limit: int, schema_only: bool) -> None:
    from seeknal.cli.row_output import table_lines
    from seeknal.dag.sql import quoted_node
    from seeknal.workflow.reading import TableReader

    _head(outputs, node_id, console)
    artifact = outputs.tables[node_id]
    console.line()
    for line in table([[column.name, column.type] for column in artifact.columns], ["Column", "Type"]):
        console.line(line)
    if schema_only:
        return
    console.line()
    console.line(f"First {min(limit, artifact.row_count)} of {artifact.row_count:,} rows:")
    with TableReader(outputs) as reader:
        rows = reader.query(f"FROM {quoted_node(node_id)}", limit=limit)
        for line in table_lines(rows.columns, rows.types, rows.values):
            console.line(f"  {line}")


def _show_checks(outputs: Outputs, node_id: str, console: Console) -> None:
    """Show what the checks of a rule found when it last ran."""
    from seeknal.nodes.check import results_in

    _head(outputs, node_id, console)
    console.line()
    for result in results_in(outputs.nodes[node_id].artifact.metadata):
        console.line(f"{result.word} {result.label}: {result.message}")


def _show_files(project: Any, outputs: Outputs, node_id: str, console: Console) -> None:
    """Show where the files of a node without a table were delivered to."""
    from seeknal.workflow.views import shown_time

    _head(outputs, node_id, console)
    console.line()
    if outputs.moment:
        console.line("  A state of the past: what it delivered may have been replaced since")
        return
    delivered = outputs.store.read_deliveries(outputs.shown).nodes.get(node_id, {})
    if not delivered:
        console.line("  Not delivered: its files are in the store only")
        return
    console.line("Delivered:")
    for delivery in delivered.values():
        if delivery.sent_at:
            sent = shown_time(delivery.sent_at)
            console.line(f"  {delivery.path}  {size_text(delivery.size_bytes)}  sent {sent}")
            continue
        path = Path(delivery.path)
        place = path.relative_to(project.root) if path.is_relative_to(project.root) else path
        console.line(f"  {place}  {size_text(delivery.size_bytes)}{_since(path, delivery)}")


def _since(path: Path, delivery: Delivery) -> str:
    """What became of a delivered file."""
    from seeknal.nodes.delivered import is_as_left

    if is_as_left(delivery):
        return ""
    return "  (changed since)" if path.exists() else "  (no longer there)"


def _head(outputs: Outputs, node_id: str, console: Console) -> None:
    from seeknal.cli.run_report import metrics_text
    from seeknal.workflow.views import shown_time

    entry = outputs.nodes[node_id]
    artifact = entry.artifact
    console.heading(f"{node_id} ({outputs.label})")
    console.line(f"  Rows:    {artifact.row_count:,}")
    if artifact.parts:
        console.line(f"  Columns: {len(artifact.columns)}")
    console.line(f"  Size:    {size_text(sum(blob.size_bytes for blob in artifact.blobs()))}")
    console.line(f"  Built:   {shown_time(artifact.built_at)}")
    if artifact.metadata.get("metrics"):
        console.line(f"  Metrics: {metrics_text(artifact.metadata)}")
    if entry.stale:
        console.mark("warning", "stale: kept from an earlier run, because the node could not be built anew")
