"""The difference between two manifests: what changed, how bad it is for readers, and what it reaches downstream.

The words (category, field, detail) are those of :mod:`seeknal.dag.change`. A category comes from what a change does
to the output's columns: where the schemas of a node are known before and after, from those, else from the node's
text (:mod:`seeknal.dag.node_diff`, :mod:`seeknal.dag.sql_diff`).

A category says what a change means to people. Which nodes execute, fingerprints decide.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import msgspec

from seeknal.dag.change import ChangeCategory, DiffType, EdgeChange, NodeChange
from seeknal.dag.manifest import Manifest, Node
from seeknal.dag.node_diff import compare_nodes
from seeknal.dag.schema_diff import Schema
from seeknal.dag.sql_diff import classify_sql_change, describe_sql_change

__all__ = [
    "ChangeCategory",
    "DiffType",
    "EdgeChange",
    "ManifestDiff",
    "NodeChange",
    "Schema",
    "classify_sql_change",
    "describe_sql_change",
]

_RULE = "=" * 60


class ManifestDiff(msgspec.Struct):
    """What is different in a new manifest. Nodes stand in the order of the manifest that has them."""

    added_nodes: dict[str, Node] = {}
    removed_nodes: dict[str, Node] = {}
    modified_nodes: dict[str, NodeChange] = {}
    added_edges: list[EdgeChange] = []
    removed_edges: list[EdgeChange] = []

    @classmethod
    def compare(
        cls,
        old: Manifest,
        new: Manifest,
        *,
        old_schemas: Mapping[str, Schema | None] | None = None,
        new_schemas: Mapping[str, Schema | None] | None = None,
        parser: Any = None,
    ) -> ManifestDiff:
        """Compare two manifests.

        The schemas map a node's id to its output columns (name to DuckDB type, in order). Where a node is missing on
        either side, or None, its columns are read from what it says. ``parser`` is a DuckDB connection, used for its
        parser only; one is opened where it takes one and there is none.
        """
        old_schemas, new_schemas = old_schemas or {}, new_schemas or {}
        modified: dict[str, NodeChange] = {}
        for node_id, node in new.nodes.items():
            former = old.nodes.get(node_id)
            if former is None:
                continue
            old_inputs, new_inputs = old.inputs_of(node_id), new.inputs_of(node_id)
            old_schema, new_schema = old_schemas.get(node_id), new_schemas.get(node_id)
            if former == node and old_inputs == new_inputs and (new_inputs or new_schema is None):
                continue
            change = compare_nodes(
                former,
                node,
                old_inputs=old_inputs,
                new_inputs=new_inputs,
                old_schema=old_schema,
                new_schema=new_schema,
                parser=parser,
            )
            if change:
                modified[node_id] = change
        # As a rule they are the same, and then nothing is to be made of them.
        edges = ([], []) if old.edges == new.edges else (old.edges, new.edges)
        old_edges, new_edges = (dict.fromkeys((edge.from_node, edge.to_node) for edge in of) for of in edges)
        return cls(
            added_nodes={node_id: node for node_id, node in new.nodes.items() if node_id not in old.nodes},
            removed_nodes={node_id: node for node_id, node in old.nodes.items() if node_id not in new.nodes},
            modified_nodes=modified,
            added_edges=[EdgeChange(*edge, DiffType.ADDED) for edge in new_edges if edge not in old_edges],
            removed_edges=[EdgeChange(*edge, DiffType.REMOVED) for edge in old_edges if edge not in new_edges],
        )

    # asking

    def has_changes(self) -> bool:
        return any((self.added_nodes, self.removed_nodes, self.modified_nodes, self.added_edges, self.removed_edges))

    def changes(self) -> list[NodeChange]:
        """List every changed node: modified ones first, then added, then removed."""
        added = [
            NodeChange(node_id, DiffType.ADDED, ChangeCategory.NON_BREAKING, None, node)
            for node_id, node in self.added_nodes.items()
        ]
        removed = [
            NodeChange(node_id, DiffType.REMOVED, self._removal_category(node_id), node, None)
            for node_id, node in self.removed_nodes.items()
        ]
        return [*self.modified_nodes.values(), *added, *removed]

    def classify_change(self, change: NodeChange) -> ChangeCategory:
        """Judge one change: as this difference does where it is one of its own, else by the change's two values."""
        if self.modified_nodes.get(change.node_id) == change:
            return change.category
        if change.old_value is None or change.change_type is DiffType.ADDED:
            return ChangeCategory.NON_BREAKING
        if change.new_value is None or change.change_type is DiffType.REMOVED:
            return self._removal_category(change.node_id)
        judged = compare_nodes(change.old_value, change.new_value)
        return judged.category if judged else ChangeCategory.METADATA

    def get_categorized_changes(self) -> dict[ChangeCategory, list[str]]:
        """Group the ids of the changed nodes by category, those that are only downstream left out. All keys exist."""
        grouped: dict[ChangeCategory, list[str]] = {category: [] for category in ChangeCategory}
        for change in self.changes():
            grouped[change.category].append(change.node_id)
        return grouped

    def get_affected_nodes(self) -> set[str]:
        """The ids of all nodes that were added, removed or modified, those that are only downstream left out."""
        return {*self.added_nodes, *self.removed_nodes, *self.modified_nodes}

    def get_nodes_to_rebuild(self, manifest: Manifest, *, include_metadata: bool = False) -> dict[str, ChangeCategory]:
        """Map the nodes of ``manifest`` that a change reaches to the worst category that reaches them.

        Downstream of a BREAKING change is BREAKING, of a NON_BREAKING one NON_BREAKING; METADATA reaches nobody, and
        nodes that changed in nothing else are left out unless ``include_metadata``. In topological order.

        Raises ValueError where the manifest has a cycle.
        """
        reached: dict[str, ChangeCategory] = {}
        for node_id in manifest.topological_order():
            categories = [reached[upstream] for upstream in manifest.inputs_of(node_id) if upstream in reached]
            categories = [category for category in categories if category != ChangeCategory.METADATA]
            if node_id in self.modified_nodes:
                categories.append(self.modified_nodes[node_id].category)
            elif node_id in self.added_nodes:
                categories.append(ChangeCategory.NON_BREAKING)
            if categories:
                reached[node_id] = max(categories)
        if include_metadata:
            return reached
        return {node_id: category for node_id, category in reached.items() if category != ChangeCategory.METADATA}

    def _removal_category(self, node_id: str) -> ChangeCategory:
        """A removed node is missed if something read it; its edges went with it, so they tell."""
        was_read = any(edge.from_node == node_id for edge in self.removed_edges)
        return ChangeCategory.BREAKING if was_read else ChangeCategory.NON_BREAKING

    # telling

    def summary(self) -> str:
        """Count the changes in one line, such as ``1 node(s) modified, 2 edge(s) added``."""
        counts = {
            "node(s) added": len(self.added_nodes),
            "node(s) removed": len(self.removed_nodes),
            "node(s) modified": len(self.modified_nodes),
            "edge(s) added": len(self.added_edges),
            "edge(s) removed": len(self.removed_edges),
        }
        return ", ".join(f"{count} {what}" for what, count in counts.items() if count) or "No changes detected"

    def to_dict(self) -> dict[str, Any]:
        """Give the difference as JSON-able values: the changed nodes, ``[from, to]`` per edge, the summary."""
        return {
            "summary": self.summary(),
            "nodes": [
                {
                    "node_id": change.node_id,
                    "change": change.change_type.value,
                    "category": change.category.value,
                    "changed_fields": list(change.changed_fields),
                    "details": list(change.changed_details),
                }
                for change in self.changes()
            ],
            "added_edges": [[edge.from_node, edge.to_node] for edge in self.added_edges],
            "removed_edges": [[edge.from_node, edge.to_node] for edge in self.removed_edges],
        }

    def format_plan_output(self, manifest: Manifest) -> str:
        """Write the plan as text: what changed, what that reaches downstream, and how many nodes it comes to.

        ``manifest`` is the new one. Lines end without white space; there is no newline at the end.
        """
        lines = ["Change Detection", _RULE, f"ℹ Analyzing {len(manifest.nodes)} nodes..."]
        if not self.has_changes():
            return "\n".join([*lines, "", "No changes detected"])
        rebuild = self.get_nodes_to_rebuild(manifest, include_metadata=True)
        numbers = itertools.count(1)
        for title, kind in (("Modified", DiffType.MODIFIED), ("New", DiffType.ADDED), ("Removed", DiffType.REMOVED)):
            changes = [change for change in self.changes() if change.change_type is kind]
            lines += ["", f"{title} Nodes:"] if changes else []
            for change in changes:
                lines += _change_lines(next(numbers), change)
        breaking = [change for change in self.changes() if change.category is ChangeCategory.BREAKING]
        lines += ["", "⚠ WARNING: Breaking changes detected!"] if breaking else []
        own = {change.node_id: change.category for change in self.changes()}
        downstream = [node_id for node_id, category in rebuild.items() if own.get(node_id) != category]
        lines += ["", "Downstream Impact:"] if downstream else []
        for node_id in downstream:
            lines += _impact_lines(next(numbers), node_id, manifest, rebuild, {change.node_id for change in breaking})
        counts = {category: list(rebuild.values()).count(category) for category in ChangeCategory}
        lines += [
            "",
            "Execution Plan:",
            _RULE,
            f"  Total nodes to rebuild: {len(rebuild) - counts[ChangeCategory.METADATA]}",
            f"  Breaking changes: {counts[ChangeCategory.BREAKING]}",
            f"  Non-breaking changes: {counts[ChangeCategory.NON_BREAKING]}",
            f"  Metadata-only changes: {counts[ChangeCategory.METADATA]}",
        ]
        return "\n".join(lines)


def _change_lines(number: int, change: NodeChange) -> list[str]:
    node = change.new_value or change.old_value
    lines = [f"  {number}. {node.name if node else change.node_id}", f"     Category: {change.category.name}"]
    if change.changed_fields:
        lines.append(f"     Changed fields: {', '.join(change.changed_fields)}")
    if change.changed_details:
        lines += ["     Details:", *(f"       - {detail}" for detail in change.changed_details)]
    return lines


def _impact_lines(
    number: int, node_id: str, manifest: Manifest, rebuild: Mapping[str, ChangeCategory], breaking: set[str]
) -> list[str]:
    """Tell why a node is reached, by the worst of its inputs."""
    inputs = [upstream for upstream in manifest.inputs_of(node_id) if upstream in rebuild]
    cause = max(inputs, key=lambda upstream: (rebuild[upstream], upstream in breaking))
    reason = f"Depends on {manifest.nodes[cause].name}" + (" (BREAKING change)" if cause in breaking else "")
    return [
        f"  {number}. {manifest.nodes[node_id].name}",
        f"     Reason: {reason}",
        f"     Category: {rebuild[node_id].name}",
    ]
