"""Looking back: an environment's history as people read it, and the pins that keep parts of it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from itertools import islice
from typing import Any

from seeknal.errors import CorruptObjectError, NotFoundError
from seeknal.store.history import Moment, Pin, read_pins, remove_pin, write_pin
from seeknal.store.objects import Tree
from seeknal.store.store import Store
from seeknal.workflow.commit import who
from seeknal.workflow.moments import all_moments, find_moment
from seeknal.workflow.moves import changed_nodes


@dataclass(frozen=True)
class PastState:
    """A state in an environment's history.

    ``changed`` are the nodes that came out otherwise than in the state before, all of them in the first; None where
    the state before is not kept. ``nodes`` is how many there are, ``parameters`` what its run was given.
    """

    number: int
    digest: str
    created_at: float
    created_by: str
    reason: str
    run_id: str
    promoted_from: str | None
    restores: str | None
    manifest: str
    nodes: int
    changed: list[str] | None
    pinned: bool
    parameters: dict[str, Any]


@dataclass(frozen=True)
class LookBack:
    """The last states of an environment, newest first. ``more``: there are others; ``broken``: why none can be read."""

    states: list[PastState]
    more: bool
    broken: CorruptObjectError | None = None


def look_back(store: Store, environment: str, limit: int) -> LookBack:
    """Read the last states of an environment, as far as they can be read.

    Raises NotFoundError where there is no such environment or it has no state, StoreError where not even that can be
    read at which it stands.
    """
    with store.leases.hold("env history", only_reading=True):
        moments: list[Moment] = []
        broken: CorruptObjectError | None = None
        try:
            for moment in islice(all_moments(store, environment), limit + 1):
                moments.append(moment)
        except CorruptObjectError as error:
            if not moments:
                raise
            broken = error
        pinned = {pin.snapshot for pin in read_pins(store, only_readable=True)}
        trees: dict[str, Tree] = {}
        states = [
            _past_state(store, moment, moments[index + 1 : index + 2], pinned, trees)
            for index, moment in enumerate(moments[:limit])
        ]
        return LookBack(states, len(moments) > limit, broken)


def _past_state(
    store: Store, moment: Moment, before: list[Moment], pinned: set[str], trees: dict[str, Tree]
) -> PastState:
    snapshot = moment.snapshot
    tree = _tree(store, snapshot.tree, trees)
    earlier = _tree(store, before[0].snapshot.tree, trees) if before else Tree({}) if snapshot.parent is None else None
    return PastState(
        moment.number,
        moment.digest,
        snapshot.created_at,
        snapshot.created_by,
        snapshot.reason,
        snapshot.run_id,
        snapshot.promoted_from,
        snapshot.restores,
        snapshot.manifest,
        len(tree.nodes) if tree is not None else 0,
        changed_nodes(earlier, tree) if tree is not None and earlier is not None else None,
        moment.digest in pinned,
        snapshot.parameters,
    )


def _tree(store: Store, digest: str, trees: dict[str, Tree]) -> Tree | None:
    """A tree, None where it is damaged: the rest of the history can be read all the same."""
    if digest not in trees:
        try:
            trees[digest] = store.read_tree(digest)
        except CorruptObjectError:
            return None
    return trees[digest]


def pin_moment(store: Store, environment: str, moment: str = "") -> Moment:
    """Pin a state of an environment, the current one where ``moment`` is empty; see :mod:`seeknal.workflow.moments`.

    Raises NotFoundError where there is no such state, or garbage collection took it away meanwhile, StoreError.
    """
    with store.leases.hold("env pin"):
        found = find_moment(store, environment, moment)
        # In this order: what is there once the pin stands stays there.
        with store.leases.using():
            write_pin(store, Pin(found.digest, environment, time.time(), who()))
        try:
            tree = store.read_tree(store.read_snapshot(found.digest).tree)
            if all(store.is_whole(entry.artifact) for entry in tree.nodes.values()):
                return found
            message = "outputs of it are damaged or gone from the store"
        except CorruptObjectError as error:
            message = error.message
        remove_pin(store, found.digest)
    raise CorruptObjectError(
        f"'{environment}' at {found.digest[:12]} cannot be kept: {message}",
        hint="`seeknal store verify` tells what else is missing",
    )


def unpin_moments(store: Store, environment: str, moment: str = "") -> list[str]:
    """Take away an environment's pins, or that of one state; gives the snapshots. Raises NotFoundError, StoreError."""
    pinned = [pin.snapshot for pin in read_pins(store) if pin.environment == environment]
    if moment:
        digest = find_moment(store, environment, moment).digest
        if digest not in pinned:
            raise NotFoundError(f"{digest[:12]} of '{environment}' is not pinned")
        pinned = [digest]
    if not pinned:
        raise NotFoundError(f"nothing of '{environment}' is pinned")
    for digest in pinned:
        remove_pin(store, digest)
    return pinned
