"""The tree that a run makes, and the manifest that it is of: what it built or found, and what stood there before.

An output that was left alone is *stale* where its definition or its inputs have gone on without it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from seeknal.dag.manifest import Manifest
from seeknal.store.objects import Tree, TreeEntry
from seeknal.workflow.resolution import Base, Resolver
from seeknal.workflow.results import NodeOutcome


def tree_of_run(
    order: Sequence[str], outcomes: Mapping[str, NodeOutcome], manifest: Manifest, base: Base, resolver: Resolver
) -> Tree:
    """Make the tree of nodes in ``order``, inputs first, from what became of them and what there was before."""
    entries: dict[str, TreeEntry] = {}
    for node_id in order:
        outcome = outcomes[node_id]
        before = base.tree.nodes.get(node_id)
        if outcome.status in ("success", "cached") and outcome.artifact is not None:
            entries[node_id] = TreeEntry(outcome.fingerprint, outcome.artifact)
        elif before is not None:
            stale = (
                outcome.artifact is None
                or before.stale
                or resolver.definition_changed(node_id)
                or _inputs_moved(node_id, manifest, base.tree, entries)
            )
            entries[node_id] = TreeEntry(before.fingerprint, before.artifact, stale)
    return Tree(entries)


def _inputs_moved(node_id: str, manifest: Manifest, before: Tree, now: Mapping[str, TreeEntry]) -> bool:
    """Say whether a node's inputs are other ones than those that its output before was made of."""
    for name in manifest.inputs_of(node_id):
        entry, old = now.get(name), before.nodes.get(name)
        if entry is None or old is None or entry.stale or not entry.artifact.same_content(old.artifact):
            return True
    return False


def built_manifest(manifest: Manifest, before: Manifest | None, kept: Collection[str], tree: Tree) -> Manifest:
    """The manifest that a tree is of: nodes that a run ``kept`` as they were stand as they were built ``before``.

    So what is still to be built stays a change against the environment.
    """
    if not kept:
        return manifest
    built = Manifest(manifest.metadata.project, generated_at=manifest.metadata.generated_at)
    # In the project's own order: where everything stands as the project says, it is the project's manifest.
    for node_id, node in manifest.nodes.items():
        if node_id not in kept:
            built.add_node(node)
        elif node_id in tree.nodes and before is not None and node_id in before.nodes:
            built.add_node(before.nodes[node_id])
    for node_id in built.nodes:
        of = before if node_id in kept and before is not None else manifest
        for name in of.inputs_of(node_id):
            if name in built.nodes:
                built.add_edge(name, node_id)
    return built
