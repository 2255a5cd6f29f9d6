"""Moves: what is different between two states of an environment, and saying it to who did not expect it."""

from __future__ import annotations

from collections.abc import Sequence

from seeknal.dag.names import PRODUCTION
from seeknal.errors import CorruptObjectError
from seeknal.store.objects import Tree
from seeknal.store.store import Store
from seeknal.workflow.views import shown_time

_MOST_NAMED = 5


def changed_nodes(before: Tree, after: Tree) -> list[str]:
    """The nodes that have another output in one tree than in the other, or in one of them none."""
    changed = [
        node_id
        for node_id, entry in after.nodes.items()
        if node_id not in before.nodes or not before.nodes[node_id].artifact.same_content(entry.artifact)
    ]
    return changed + [node_id for node_id in before.nodes if node_id not in after.nodes]


def first_few(names: Sequence[str]) -> str:
    """Name the first few, and say where there are more."""
    return ", ".join(names[:_MOST_NAMED]) + (", …" if len(names) > _MOST_NAMED else "")


def what_moved(store: Store, environment: str, before: str | None) -> str:
    """Say how an environment moved away from a snapshot: to which one, how, by whom, when, and which nodes differ."""
    name = "production" if environment == PRODUCTION else f"environment '{environment}'"
    with store.leases.hold("looking at what moved", only_reading=True):
        digest = store.refs.read(environment)
        if digest is None:
            return f"{name} was deleted"
        now = store.read_snapshot(digest)
        try:
            old = store.read_tree(store.read_snapshot(before).tree) if before else Tree({})
            names = first_few(changed_nodes(old, store.read_tree(now.tree))) or "none, but checks or descriptions do"
        except CorruptObjectError:
            names = "unknown, because the state before is not kept any more"
    how = f"{now.reason}, by {now.created_by}, {shown_time(now.created_at)}"
    return f"{name} moved to {digest[:12]} ({how}; nodes that differ: {names})"
