"""What an environment's readers will find changed when it comes to stand at another tree.

Promotion and rollback move one pointer, at any size of the project. What they say and check before that (which nodes
change, whether any output is behind, what is to be delivered) follows from two trees and a manifest, which never
change. So it is worked out when an environment is run, which has them at hand, and remembered, both ways; whoever
promotes or rolls back reads that, looks that the objects still hold what they held, and reads no tree. Where it was
forgotten, the trees are read.
"""

from __future__ import annotations

from typing import Any

import msgspec

from seeknal.dag.manifest import Manifest, Node
from seeknal.dag.names import short_names
from seeknal.errors import StoreError
from seeknal.store.column_digests import digest_file
from seeknal.store.memo import Memo, key_of
from seeknal.store.objects import Snapshot, Tree, TreeEntry
from seeknal.store.store import Store
from seeknal.version import __version__
from seeknal.workflow.heads import Head, read_manifest
from seeknal.workflow.moves import changed_nodes


class TreeChange(msgspec.Struct, frozen=True, array_like=True):
    """The change from one tree to another, which is of a manifest.

    ``changed``: the nodes that have another output, each with its entry, and those that are gone (None). ``shown``:
    what people call them. ``behind``: the nodes whose outputs are missing from the tree, or stale. ``exposures``: the
    nodes to deliver, as the manifest has them; ``delivered``: their entries. ``manifest_file`` and ``tree_bytes``:
    digest and size of the manifest's file, and the size of the tree's.
    """

    project: str
    changed: dict[str, TreeEntry | None]
    shown: dict[str, str]
    behind: list[str]
    exposures: list[dict[str, Any]]
    delivered: dict[str, TreeEntry]
    manifest_file: tuple[str, int]
    tree_bytes: int

    def manifest(self) -> Manifest:
        """The manifest as far as deliveries need it."""
        manifest = Manifest(self.project)
        for node in self.exposures:
            manifest.add_node(Node.from_dict(node))
        return manifest

    def tree(self) -> Tree:
        """The tree as far as deliveries need it."""
        return Tree(self.delivered)


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(TreeChange)


def tree_change(store: Store, before: Snapshot | None, after: Snapshot) -> TreeChange:
    """The change that coming to stand at ``after`` is for an environment that stands at ``before``.

    Writes nothing. Raises StoreError where an object that it takes is missing or damaged.
    """
    answer = _memo(store).find(_key(before, after))
    if answer is not None:
        change: TreeChange = _decoder.decode(answer)
        if stands(store, after, change):
            return change
    return _read_change(store, before, after)


def remember_changes(store: Store, *ways: tuple[Head | None, Head]) -> None:
    """Work out what ways from one state to another change, for whoever asks for it next.

    What stands in the way costs time only.
    """
    memo = _memo(store)
    try:
        store.prepare()
        for before, after in ways:
            if after.manifest is None:
                continue
            change = _compare(store, before.tree if before else Tree({}), after.snapshot, after.tree, after.manifest)
            if stands(store, after.snapshot, change):
                memo.keep(_key(before.snapshot if before else None, after.snapshot), _encoder.encode(change))
        memo.save()
    except (StoreError, OSError):
        return


def stands(store: Store, after: Snapshot, change: TreeChange) -> bool:
    """Say whether the tree and the manifest are there and hold what they held."""
    digest, size = change.manifest_file
    return store.seals.vouch_for(store.tree_path(after.tree), after.tree, change.tree_bytes) and store.seals.vouch_for(
        store.manifest_path(after.manifest), digest, size
    )


def insist_on_objects(store: Store, after: Snapshot, change: TreeChange) -> None:
    """Raise StoreError where the tree or the manifest is not there, or does not hold what it held."""
    if not stands(store, after, change):
        # Reading says what is wrong, where anything is.
        store.read_tree(after.tree)
        read_manifest(store, after.manifest)


def _memo(store: Store) -> Memo:
    return Memo(store.root / "memo" / "changes", store.temporary_folder, __version__)


def _key(before: Snapshot | None, after: Snapshot) -> bytes:
    return key_of("change", before.tree if before else "", after.tree, after.manifest)


def _read_change(store: Store, before: Snapshot | None, after: Snapshot) -> TreeChange:
    tree = store.read_tree(after.tree)
    manifest = read_manifest(store, after.manifest)
    return _compare(store, store.read_tree(before.tree) if before else Tree({}), after, tree, manifest)


def _compare(store: Store, before: Tree, after: Snapshot, tree: Tree, manifest: Manifest) -> TreeChange:
    """The change from a tree to that of a snapshot, of which this is the manifest. Raises OSError."""
    from seeknal.nodes.registry import KINDS

    entries = tree.nodes
    changed = {node_id: entries.get(node_id) for node_id in changed_nodes(before, tree)}
    names = short_names(before.nodes | entries)
    exposures = [node for node in manifest.nodes.values() if node.kind == "exposure"]
    return TreeChange(
        manifest.metadata.project,
        changed,
        {node_id: names[node_id] for node_id in changed},
        [
            node_id
            for node_id, node in manifest.nodes.items()
            if KINDS[node.kind].executes and (node_id not in entries or entries[node_id].stale)
        ],
        [node.to_dict() for node in exposures],
        {node.id: entries[node.id] for node in exposures if node.id in entries},
        digest_file(store.manifest_path(after.manifest)),
        store.tree_path(after.tree).stat().st_size,
    )
