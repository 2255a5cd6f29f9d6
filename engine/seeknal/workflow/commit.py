"""Committing: an environment comes to stand at a tree. The one place where refs move forward."""

from __future__ import annotations

import getpass
import os
import time
from collections.abc import Collection, Mapping

from seeknal.dag.binding import Schema
from seeknal.dag.manifest import Manifest, NodeType
from seeknal.dag.parameters import RunParameters
from seeknal.errors import BusyError, PromotionRaceError
from seeknal.json_document import Computed
from seeknal.store.objects import Snapshot, Tree
from seeknal.store.store import Store
from seeknal.timeline import timed
from seeknal.workflow.events import Committed, Listener, silent


def who() -> str:
    """The user and host, for snapshots and logs; whatever the surroundings say, it is text that can be stored."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())
    return f"{user}@{os.uname().nodename}".encode(errors="replace").decode()


@timed("commit")
def commit(
    store: Store,
    environment: str,
    tree: Tree,
    manifest: Manifest,
    *,
    expected_head: str | None,
    reason: str,
    run_id: str = "",
    base: str | None = None,
    promoted_from: str | None = None,
    parameters: RunParameters | None = None,
    written: Collection[str] = (),
    listener: Listener = silent,
) -> str:
    """Make an environment stand at this tree and manifest; gives the snapshot's digest, durable.

    Writes nothing where it stands there already, by a run that was given the same ``parameters``, as far as anything
    is delivered by them. Raises BusyError where the ref was moved by somebody else.
    """
    fingerprint = manifest.fingerprint()
    kept = parameters.kept() if parameters is not None else {}
    tree_digest = store.write_tree(tree)
    # Also where nothing changed: the one that is there may have been damaged.
    store.write_manifest(fingerprint, manifest.pieces())
    if expected_head is not None:
        head = store.read_snapshot(expected_head)
        # Production has no base of its own; what a promotion noted there must not make its next run a change.
        same_base = base is None or head.base == base
        delivered_alike = head.parameters == kept or not any(
            node.node_type is NodeType.EXPOSURE for node in manifest.nodes.values()
        )
        if (head.tree, head.manifest) == (tree_digest, fingerprint) and same_base and delivered_alike:
            # The same tree, but blobs of it may have been missing and built again.
            store.sync(written)
            listener(Committed(environment, None))
            return expected_head
    snapshot = store.write_snapshot(
        Snapshot(
            environment,
            fingerprint,
            tree_digest,
            parent=expected_head,
            created_at=time.time(),
            created_by=who(),
            reason=reason,
            run_id=run_id,
            base=base,
            promoted_from=promoted_from,
            parameters=kept,
            began_at=parameters.now.timestamp() if parameters is not None else 0.0,
        )
    )
    store.sync(written)
    if not store.refs.compare_and_swap(environment, expected_head, snapshot, who=who(), why=reason):
        raise BusyError(
            f"environment '{environment}' was moved by another process",
            hint="run again; what was built is in the cache",
        )
    listener(Committed(environment, snapshot))
    return snapshot


def move_to_tree(
    store: Store,
    environment: str,
    source: Snapshot,
    *,
    expected_head: str | None,
    base: str | None,
    promoted_from: str | None,
    reason: str,
    restores: str | None = None,
    listener: Listener = silent,
) -> str:
    """Make an environment stand at another snapshot's tree: one small object and one ref, at any size.

    Gives the new snapshot's digest. Raises PromotionRaceError where the ref is not at ``expected_head`` any more.
    """
    # What it names is durable, because a ref led there before: not everything on the disk has to wait for it.
    snapshot = store.write_snapshot(
        Snapshot(
            environment,
            source.manifest,
            source.tree,
            parent=expected_head,
            created_at=time.time(),
            created_by=who(),
            reason=reason,
            run_id=source.run_id,
            base=base,
            promoted_from=promoted_from,
            restores=restores,
            parameters=source.parameters,
            began_at=source.began_at,
        ),
        durable=True,
    )
    if not store.refs.compare_and_swap(environment, expected_head, snapshot, who=who(), why=reason):
        raise PromotionRaceError(
            f"environment '{environment}' was moved by another process meanwhile", hint="look at it, then try again"
        )
    listener(Committed(environment, snapshot))
    return snapshot


def schemas_of(tree: Tree) -> Mapping[str, Schema | None]:
    """The columns of each node's artifact; None for nodes that make no table."""
    return Computed(tree.nodes, lambda entry: entry.artifact.schema() or None)


def fingerprints_of(tree: Tree, wanted: Collection[str] | None = None) -> dict[str, str]:
    """The fingerprint of each node's artifact (of those ``wanted``), but of those that are stale."""
    return {
        node_id: entry.fingerprint
        for node_id, entry in tree.nodes.items()
        if not entry.stale and (wanted is None or node_id in wanted)
    }
