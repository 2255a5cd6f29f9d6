"""`seeknal diff`: what the project's files say otherwise than production did when it was last run or promoted to."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from seeknal.cli.console import Console, styled
from seeknal.cli.options import list_option, open_project, parameter_options, project_option, take_parameters
from seeknal.errors import NotFoundError

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from seeknal.dag.diff import ChangeCategory, ManifestDiff, NodeChange
    from seeknal.dag.manifest import Manifest
    from seeknal.workflow.planning import ChangePlan
    from seeknal.workflow.session import Session

_TITLES = {"modified": "Modified", "added": "New", "removed": "Deleted"}


@dataclass(frozen=True)
class _NodeDiff:
    """One changed node: what happened to it, how bad that is, and its text's unified diff."""

    change: NodeChange
    category: ChangeCategory
    lines: list[str]
    added: int
    removed: int

    @property
    def counts(self) -> str:
        return f"+{self.added} -{self.removed}"


@dataclass(frozen=True)
class _Comparison:
    """The project's files beside production. ``old`` is empty where production was never run."""

    old: Manifest
    new: Manifest
    diff: ManifestDiff
    plan: ChangePlan


@click.command()
@click.argument("node", required=False)
@list_option("-t", "--type", "types", help="Only nodes of these kinds.")
@click.option("--stat", is_flag=True, help="One line for each node, and a total.")
@click.option("--exit-code", is_flag=True, help="Exit with 1 where there are changes.")
@parameter_options
@project_option
def diff(
    node: str | None,
    types: tuple[str, ...],
    stat: bool,
    exit_code: bool,
    project_path: Path | None,
    **given: Any,
) -> int:
    """Compare the project's files with production, node by node; with NODE (kind.name, name or kinds/name) that one.

    Only what a node says counts, not how its file is laid out. Queries that do not work are no obstacle.
    """
    from seeknal.workflow.session import Session

    console = Console()
    parameters = take_parameters(given)
    with Session.open(open_project(project_path), parameters) as session:
        comparison = _compare(session)
        _warn(session, comparison)
    chosen = _choose(comparison, node, types)
    changed = [change for change in comparison.diff.changes() if change.node_id in chosen]
    found = [_node_diff(comparison, change) for change in changed]
    if stat:
        _show_stat(found, console)
    elif node is not None:
        entries = {entry.change.node_id: entry for entry in found}
        for node_id in chosen:
            _show_node(comparison, node_id, entries.get(node_id), console)
    else:
        _show_all(found, console)
    return 1 if exit_code and found else 0


def _compare(session: Session) -> _Comparison:
    from seeknal.dag.diff import ManifestDiff
    from seeknal.dag.manifest import Manifest
    from seeknal.dag.names import PRODUCTION
    from seeknal.workflow.commit import schemas_of
    from seeknal.workflow.heads import read_head, read_manifest
    from seeknal.workflow.planning import plan_change

    head = read_head(session.store, PRODUCTION)
    schemas = schemas_of(head.tree) if head else {}
    if head is not None and head.manifest is None:
        read_manifest(session.store, head.snapshot.manifest)  # raises, saying what is wrong with it
    old = head.manifest if head and head.manifest else Manifest(session.manifest.metadata.project)
    plan = plan_change(
        session.compiled,
        environment=PRODUCTION,
        base=head.digest if head else None,
        base_manifest=head.manifest if head else None,
        base_schemas=schemas,
        base_fingerprints={},
        forecast=(),
    )
    difference = ManifestDiff.compare(
        old, session.manifest, old_schemas=schemas, new_schemas=session.compiled.analysis.schemas()
    )
    return _Comparison(old, session.manifest, difference, plan)


def _warn(session: Session, comparison: _Comparison) -> None:
    """Tell on stderr what does not keep the comparison from being made."""
    beside = Console(to_stderr=True)
    if comparison.plan.base is None:
        beside.mark("info", "Production was never run: every node is new")
    for problem in (*session.compiled.parsed.warnings, *comparison.plan.problems):
        beside.problem("warning", problem)


def _choose(comparison: _Comparison, node: str | None, types: Collection[str]) -> list[str]:
    """The nodes that were asked for, those of the files first. Raises NotFoundError."""
    from seeknal.dag.names import did_you_mean
    from seeknal.nodes.registry import KINDS
    from seeknal.workflow.selection import find_nodes

    every = {**comparison.new.nodes, **comparison.old.nodes}
    kinds = {*KINDS, *(entry.kind for entry in every.values())}
    wanted = {kind if kind in kinds else kind.removesuffix("s") for kind in types}
    for kind in types:
        if not wanted & kinds & {kind, kind.removesuffix("s")}:
            raise NotFoundError(f"there is no node type '{kind}'", hint=did_you_mean(kind, kinds))
    named: dict[str, None] = {}
    for manifest in (comparison.new, comparison.old) if node is not None else ():
        try:
            named.update(dict.fromkeys(find_nodes(manifest, node or "")))
        except NotFoundError:
            continue
    if node is not None and not named:
        raise NotFoundError(f"no node is called '{node}'", hint=did_you_mean(node, every))
    return [name for name in (named if node is not None else every) if not wanted or every[name].kind in wanted]


def _node_diff(comparison: _Comparison, change: NodeChange) -> _NodeDiff:
    from seeknal.cli.node_text import count_changes, difference

    lines = difference(change.old_value, change.new_value)
    does_not_work = any(planned.node_id == change.node_id and planned.impact for planned in comparison.plan.nodes)
    category = comparison.plan.categories[change.node_id] if does_not_work else change.category
    return _NodeDiff(change, category, lines, *count_changes(lines))


def _show_all(found: Sequence[_NodeDiff], console: Console) -> None:
    if not found:
        console.mark("ok", "No changes detected")
        return
    totals = []
    for kind, title in _TITLES.items():
        entries = [entry for entry in found if entry.change.change_type.value == kind]
        if not entries:
            continue
        totals.append(f"{len(entries)} {title.lower()}")
        console.heading(f"{title}:")
        for entry in entries:
            console.line(f"{styled(entry.change.node_id, 'bold')} [{entry.category.name}] {entry.counts}")
            if kind == "modified":
                _show_lines(entry, console)
                console.line()
        if kind != "modified":
            console.line()
    console.line(", ".join(totals))


def _show_stat(found: Sequence[_NodeDiff], console: Console) -> None:
    if not found:
        console.mark("ok", "No changes detected")
        return
    widths = [max(len(text) for text in texts) for texts in zip(*(_stat(entry) for entry in found), strict=True)]
    for entry in found:
        node_id, counts, category = _stat(entry)
        console.line(f" {node_id.ljust(widths[0])} | {counts.ljust(widths[1])} {category}")
    added, removed = sum(entry.added for entry in found), sum(entry.removed for entry in found)
    nodes = "1 node" if len(found) == 1 else f"{len(found)} nodes"
    console.line(f" {nodes} changed, {added} line(s) added, {removed} removed")


def _stat(entry: _NodeDiff) -> tuple[str, str, str]:
    title = _TITLES[entry.change.change_type.value].lower()
    kind = f"[{entry.category.name}]" + ("" if title == "modified" else f" {title}")
    return entry.change.node_id, entry.counts, kind


def _show_node(comparison: _Comparison, node_id: str, entry: _NodeDiff | None, console: Console) -> None:
    from seeknal.dag.diff import ChangeCategory

    console.heading(node_id)
    if entry is None:
        console.mark("ok", "No changes detected")
        reached = comparison.plan.categories.get(node_id)
        if reached is not None:
            console.line(f"A change upstream reaches it: {reached.name}")
        return
    _show_lines(entry, console)
    console.line()
    console.line(f"Category: {entry.category.name}")
    if entry.change.changed_details and entry.lines:
        console.line("Details:")
        for detail in entry.change.changed_details:
            console.line(f"  - {detail}")
    below = comparison.new.descendants_of([node_id]) | comparison.old.descendants_of([node_id])
    spreads = entry.category is not ChangeCategory.METADATA
    touched = [planned for planned in comparison.plan.nodes if planned.node_id in below] if spreads else []
    console.line("Downstream impact:" if touched else "Downstream impact: none")
    for planned in touched:
        category = f" [{planned.category.name}]" if planned.category else ""
        console.line(f"  - {planned.node_id}{category}" + (f": {planned.impact}" if planned.impact else ""))


def _show_lines(entry: _NodeDiff, console: Console) -> None:
    """The unified diff; where the text is the same, what else changed."""
    colours = {"+": "green", "-": "red", "@": "cyan"}
    for index, line in enumerate(entry.lines):
        colour = colours.get(line[:1])
        console.line(styled(line, "bold") if index < 2 else styled(line, colour) if colour else line)
    if not entry.lines:
        for detail in entry.change.changed_details:
            console.line(f"  {detail}")
