"""How a plan looks."""

from __future__ import annotations

from seeknal.cli.console import RULE, Console
from seeknal.dag.diff import ChangeCategory
from seeknal.dag.names import short_names
from seeknal.workflow.planning import ChangePlan, PlannedNode


def summary_lines(change: ChangePlan) -> list[str]:
    """The counts of a plan."""
    totals = change.totals()
    return [
        f"  Nodes:                 {totals['nodes']}",
        f"  Nodes to execute:      {totals['to_execute']}",
        f"  Breaking changes:      {totals['breaking']}",
        f"  Non-breaking changes:  {totals['non_breaking']}",
        f"  Metadata-only changes: {totals['metadata']}",
        f"  Added nodes:           {totals['added']}",
        f"  Removed nodes:         {totals['removed']}",
    ]


def change_lines(change: ChangePlan, console: Console) -> list[str]:
    """A plan in full: what changed, what that reaches, what would execute."""
    lines = ["Change Detection", RULE, f"{console.symbol('info')} Analyzing {change.total_nodes} nodes..."]
    if not change.has_changes:
        return [*lines, f"{console.symbol('ok')} No changes detected"]
    removed = [node for node in change.nodes if node.node_id in change.removed]
    direct = [node for node in change.nodes if node.direct and node.category is not None and node not in removed]
    reached = [node for node in change.nodes if not node.direct]
    data_only = [node for node in change.nodes if node.category is None]
    new = [node for node in direct if node.node_id in change.added]
    modified = [node for node in direct if node.node_id not in change.added]
    names = _names(change)
    number = 0
    for heading, nodes in (
        ("New Nodes:", new),
        ("Modified Nodes:", modified),
        ("Changed Data:", data_only),
        ("Downstream Impact:", reached),
    ):
        if heading == "Downstream Impact:" and change.count(ChangeCategory.BREAKING):
            lines += ["", f"{console.symbol('warning')} WARNING: Breaking changes detected!"]
        if not nodes:
            continue
        lines += ["", heading]
        for node in nodes:
            number += 1
            lines += _node_lines(number, node, names[node.node_id])
    if change.removed:
        lines += ["", "Removed Nodes:"]
        lines += [f"  - {names[node.node_id]} [{node.category.name}]" for node in removed if node.category]
    return [*lines, "", *_execution_lines(change), *_action_lines(change, console)]


def _node_lines(number: int, node: PlannedNode, name: str) -> list[str]:
    lines = [f"  {number}. {name}"]
    if not node.direct or node.category is None:
        lines.append(f"     Reason: {node.reason}")
    if node.category is not None:
        lines.append(f"     Category: {node.category.name}")
    if node.changed_fields:
        lines.append(f"     Changed fields: {', '.join(node.changed_fields)}")
    if node.details:
        lines += ["     Details:", *(f"       - {detail}" for detail in node.details)]
    if node.impact:
        lines.append(f"     Impact: {node.impact}")
    if node.volatile:
        lines.append(f"     Volatile: uses {', '.join(node.volatile)}; built once for each change")
    return lines


def _execution_lines(change: ChangePlan) -> list[str]:
    lines = [
        "Execution Plan:",
        RULE,
        f"  Total nodes to rebuild: {len(change.to_execute)}",
        f"  Breaking changes: {change.count(ChangeCategory.BREAKING)}",
        f"  Non-breaking changes: {change.count(ChangeCategory.NON_BREAKING)}",
        f"  Metadata-only changes: {change.count(ChangeCategory.METADATA)}",
    ]
    if change.forecast and change.to_execute:
        forecast = {entry.node_id: entry for entry in change.forecast}
        categories = {node.node_id: node.category for node in change.nodes}
        names = _names(change)
        lines += ["", "Nodes to Execute:"]
        for number, node_id in enumerate(change.to_execute, 1):
            category = categories.get(node_id)
            label = f" [{category.name}]" if category else ""
            entry = forecast[node_id]
            why = entry.reason if entry.action == "RUN" else f"only {entry.reason}"
            lines.append(f"  {number}. {names[node_id]}{label}  {why}")
    return lines


def _action_lines(change: ChangePlan, console: Console) -> list[str]:
    if not change.actions:
        return []
    return ["", f"{console.symbol('warning')} Action Required:", *(f"  - {action}" for action in change.actions)]


def problem_lines(change: ChangePlan, console: Console) -> list[str]:
    """What no longer works, as part of a plan that may be made all the same."""
    if not change.problems:
        return []
    return ["", f"{console.symbol('error')} What no longer works:", *(f"  - {problem}" for problem in change.problems)]


def _names(change: ChangePlan) -> dict[str, str]:
    """What the plan calls its nodes."""
    return short_names(
        {node.node_id: None for node in change.nodes} | {entry.node_id: None for entry in change.forecast}
    )
