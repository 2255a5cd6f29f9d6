"""Heads: what an environment stands at, and the lock under which that changes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec

from seeknal.dag.manifest import Manifest
from seeknal.errors import CorruptObjectError
from seeknal.state.locks import FileLock, Patience
from seeknal.store.leases import Lease
from seeknal.store.objects import WAY_OUT, Snapshot, Tree
from seeknal.store.shared_trees import SharedTrees
from seeknal.store.store import Store

# What others are told that a run holds a lock for.
RUN_COMMAND = "seeknal run"

# Of commands that have --wait.
AT_ONCE = Patience(way_out="try again when it is done, or wait for it with --wait")


class Head(msgspec.Struct, frozen=True):
    """What an environment stands at: a snapshot and its digest, its tree and, where readable, its manifest."""

    digest: str
    snapshot: Snapshot
    tree: Tree
    manifest: Manifest | None


def read_head(
    store: Store, environment: str, like: Manifest | None = None, shared: SharedTrees | None = None
) -> Head | None:
    """Read an environment's state, None where nothing ever succeeded there. Raises StoreError.

    Nodes that are those of the manifest ``like``, and outputs that stand in ``shared`` trees, take no memory of their
    own.
    """
    state = store.read_state(environment)
    if state is None:
        return None
    digest, snapshot = state
    manifest: Manifest | None = None
    # Without its manifest a state can still be compared by its outputs; the next run writes the manifest anew.
    with contextlib.suppress(CorruptObjectError):
        manifest = read_manifest(store, snapshot.manifest, like)
    return Head(digest, snapshot, store.read_tree(snapshot.tree, shared), manifest)


def read_manifest(store: Store, fingerprint: str, like: Manifest | None = None) -> Manifest:
    """Read a snapshot's manifest; ``like`` as for :func:`read_head`. Raises CorruptObjectError, FormatTooNewError."""
    try:
        manifest = Manifest.load(store.manifest_path(fingerprint), like)
    except (OSError, ValueError) as error:
        raise CorruptObjectError(f"manifest {fingerprint} is damaged or missing: {error}", hint=WAY_OUT) from error
    manifest.insist_on_version()
    if manifest.fingerprint() != fingerprint:
        raise CorruptObjectError(f"manifest {fingerprint} is damaged: it does not match its fingerprint", hint=WAY_OUT)
    return manifest


@contextmanager
def environment_lock(store: Store, environment: str, purpose: str, patience: Patience = AT_ONCE) -> Iterator[Lease]:
    """Hold the lock by which runs and promotions on one environment exclude each other, and a lease on the store.

    ``purpose`` is what others are told that it is held for. Raises BusyError.
    """
    store.prepare()
    lock = FileLock(store.lock_path(environment), purpose, what=f"environment '{environment}'")
    lock.acquire(patience)
    try:
        with store.leases.hold(purpose) as lease:
            yield lease
    finally:
        lock.release()
