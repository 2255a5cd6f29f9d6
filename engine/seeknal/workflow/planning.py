"""Planning: what a change to the project means, node by node, before anything runs.

- *category*: what the change means to whoever reads the node: BREAKING, NON_BREAKING or METADATA.
- *direct*: the node itself was changed; otherwise the change reaches it through an input.

The category tells people about contracts. Which nodes execute is another question, answered by fingerprints when they
run; a plan says what it can know of that beforehand (``forecast``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from seeknal.dag.binding import Schema
from seeknal.dag.diff import ChangeCategory, ManifestDiff
from seeknal.dag.manifest import Manifest
from seeknal.errors import Problem
from seeknal.late_pattern import late_pattern
from seeknal.workflow.results import Forecast

if TYPE_CHECKING:
    from seeknal.dag.inference import CompiledProject


class PlannedNode(msgspec.Struct, frozen=True):
    """One node that a change touches. ``category`` None: only its data changed. ``impact``: what will not work."""

    node_id: str
    category: ChangeCategory | None
    reason: str
    direct: bool
    changed_fields: tuple[str, ...] = ()
    details: tuple[str, ...] = ()
    impact: str = ""
    volatile: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        return {
            "node_id": self.node_id,
            "category": self.category.name if self.category else None,
            "reason": self.reason,
            "changed_fields": list(self.changed_fields),
            "details": list(self.details),
            "impact": self.impact or None,
            "volatile": bool(self.volatile),
        }


class ChangePlan(msgspec.Struct, frozen=True):
    """What a project would change against a base. ``base`` is None where there is nothing to compare with.

    ``problems`` are queries that do not bind: the plan can be shown, but not run. ``forecast`` is empty then.
    """

    environment: str
    base: str | None
    manifest_fingerprint: str
    nodes: tuple[PlannedNode, ...]
    added: tuple[str, ...]
    removed: tuple[str, ...]
    forecast: tuple[Forecast, ...]
    problems: tuple[Problem, ...]
    actions: tuple[str, ...] = ()
    total_nodes: int = 0
    categories: dict[str, ChangeCategory] = {}

    @property
    def to_execute(self) -> list[str]:
        """The nodes that will run or may run, in order; where that cannot be told, those that the change reaches."""
        if self.forecast:
            return [entry.node_id for entry in self.forecast if entry.action in ("RUN", "MAY RUN")]
        return [
            node.node_id
            for node in self.nodes
            if node.category not in (None, ChangeCategory.METADATA) and node.node_id not in self.removed
        ]

    def count(self, category: ChangeCategory) -> int:
        return sum(node.category is category for node in self.nodes)

    @property
    def has_changes(self) -> bool:
        return bool(self.nodes or self.removed)

    def totals(self) -> dict[str, int]:
        return {
            "nodes": self.total_nodes,
            "to_execute": len(self.to_execute),
            "breaking": self.count(ChangeCategory.BREAKING),
            "non_breaking": self.count(ChangeCategory.NON_BREAKING),
            "metadata": self.count(ChangeCategory.METADATA),
            "added": len(self.added),
            "removed": len(self.removed),
        }

    def to_dict(self) -> dict[str, Any]:
        return {
            "schema_version": 1,
            "env": self.environment,
            "base": self.base,
            "nodes": [node.to_dict() for node in self.nodes],
            "removed": list(self.removed),
            "forecast": [
                {"node_id": entry.node_id, "action": entry.action, "reason": entry.reason} for entry in self.forecast
            ],
            "problems": [str(problem) for problem in self.problems],
            "totals": self.totals(),
        }


def plan_change(
    compiled: CompiledProject,
    *,
    environment: str,
    base: str | None,
    base_manifest: Manifest | None,
    base_schemas: Mapping[str, Schema | None],
    base_fingerprints: Mapping[str, str],
    forecast: Sequence[Forecast],
    parser: Any = None,
) -> ChangePlan:
    """Compare a compiled project with what the base snapshot holds. Pure: reads and writes nothing.

    ``parser`` is a DuckDB connection, used for its parser only; one is opened where it takes one and there is none.
    """
    manifest = compiled.parsed.manifest
    old = base_manifest if base_manifest is not None else Manifest(manifest.metadata.project)
    known = compiled.analysis.schemas()
    # A node that no longer binds has no schema to compare; its text is compared instead.
    diff = ManifestDiff.compare(old, manifest, old_schemas=base_schemas, new_schemas=known, parser=parser)
    categories = diff.get_nodes_to_rebuild(manifest, include_metadata=True)
    for node_id in compiled.analysis.problems:
        if base_manifest is not None and node_id in old.nodes:
            _spread(categories, manifest, node_id)
    direct = {*diff.added_nodes, *diff.modified_nodes}
    missing = _removed_columns(diff)
    nodes = []
    for node_id in _direct_first(manifest.topological_order(), categories, direct):
        change = diff.modified_nodes.get(node_id)
        nodes.append(
            PlannedNode(
                node_id,
                categories[node_id],
                _reason(node_id, diff, manifest, categories),
                node_id in direct,
                tuple(change.changed_fields) if change else (),
                tuple(change.changed_details) if change else (),
                _impact(compiled.analysis.problems.get(node_id, ())),
                compiled.analysis.nodes[node_id].volatile,
            )
        )
    for change in diff.changes():
        if change.node_id in diff.removed_nodes:
            categories[change.node_id] = change.category
            nodes.append(PlannedNode(change.node_id, change.category, "removed", True))
    nodes += [
        PlannedNode(entry.node_id, None, entry.reason, True)
        for entry in forecast
        if entry.action == "RUN" and entry.node_id not in categories
    ]
    # Data that was seen before, here or in another environment: nothing will run, and yet the base would change.
    nodes += [
        PlannedNode(entry.node_id, None, "production has another output of it", True)
        for entry in forecast
        if entry.action in ("CACHED", "CHECK")
        and entry.fingerprint != base_fingerprints.get(entry.node_id)
        and entry.node_id not in categories
    ]
    return ChangePlan(
        environment=environment,
        base=base,
        manifest_fingerprint=manifest.fingerprint(),
        nodes=tuple(nodes),
        added=tuple(diff.added_nodes),
        removed=tuple(diff.removed_nodes),
        forecast=tuple(forecast),
        problems=tuple(problem for found in compiled.analysis.problems.values() for problem in found)
        + tuple(Problem(f"{entry.node_id}: {entry.reason}") for entry in forecast if entry.action == "FAIL"),
        actions=_actions(missing, any(category is ChangeCategory.BREAKING for category in categories.values())),
        total_nodes=len(manifest.nodes),
        categories=dict(categories),
    )


def _spread(categories: dict[str, ChangeCategory], manifest: Manifest, node_id: str) -> None:
    """A query that no longer binds is a broken contract, for itself and everything downstream of it."""
    for reached in (node_id, *manifest.descendants_of([node_id])):
        categories[reached] = ChangeCategory.BREAKING


def _direct_first(order: Sequence[str], categories: Mapping[str, ChangeCategory], direct: set[str]) -> list[str]:
    touched = [node_id for node_id in order if node_id in categories]
    return [node_id for node_id in touched if node_id in direct] + [n for n in touched if n not in direct]


def _reason(node_id: str, diff: ManifestDiff, manifest: Manifest, categories: Mapping[str, ChangeCategory]) -> str:
    if node_id in diff.added_nodes:
        return "new node"
    if node_id in diff.modified_nodes:
        return f"changed: {', '.join(diff.modified_nodes[node_id].changed_fields)}"
    for name in manifest.inputs_of(node_id):
        category = categories.get(name)
        if category is not None and category is not ChangeCategory.METADATA:
            bare = name.partition(".")[2]
            return f"Depends on {bare}" + (" (BREAKING change)" if category is ChangeCategory.BREAKING else "")
    # Of a node that reads no other, it is the data outside that is gone or has another form.
    return "its query no longer binds" if manifest.inputs_of(node_id) else "what it reads can no longer be read"


_NOT_FOUND = late_pattern(
    r"""[Cc]olumn(?: with name)? ["']?([^"'\s]+?)["']?"""
    r""" (?:not found|does not exist|was not found|is missing from the input)"""
)


def _impact(problems: Sequence[Problem]) -> str:
    if not problems:
        return ""
    message = problems[0].message
    match = _NOT_FOUND.search(message)
    place = f" at {problems[0].place}" if problems[0].place else ""
    if match:
        return f"References missing column '{match[1]}'{place}"
    return f"{message}{place}"


def _removed_columns(diff: ManifestDiff) -> list[tuple[str, str | None]]:
    """Removed columns, each with the one that seems to have taken its place."""
    pairs: list[tuple[str, str | None]] = []
    for change in diff.modified_nodes.values():
        renamed = len(change.removed_columns) == len(change.added_columns) == 1
        pairs += [(name, change.added_columns[0] if renamed else None) for name in change.removed_columns]
    return pairs


def _actions(missing: Sequence[tuple[str, str | None]], breaking: bool) -> tuple[str, ...]:
    if not breaking:
        return ()
    actions = [
        f"Update downstream transforms to use '{new}' instead of '{old}'"
        if new
        else f"Remove uses of '{old}' from downstream transforms"
        for old, new in missing
    ]
    if missing:
        actions.append(
            "Review all SQL queries referencing " + ("this column" if len(missing) == 1 else "these columns")
        )
    return (*actions, "Test thoroughly before promoting to production")
