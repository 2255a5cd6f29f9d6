"""Garbage collection: what may go from a store, decided and printable first, and then taken away.

Three rules keep an object: a root reaches it (:mod:`seeknal.store.reach`); it is newer than the oldest lease of a live
process; or no state ever held it and it is younger than the grace period. Everything else goes.

Taking away is done in small batches under the sweep lock, each after looking again at roots, leases and the object's
time of change; see :mod:`seeknal.store.leases` for why nothing that is in use can go. Objects go from the top down
(snapshots, trees, views, manifests, action records, blobs), so that nothing is left that leads to what is gone,
wherever a crash may come.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from seeknal.errors import StoreError
from seeknal.store.filesystem import temporary_name
from seeknal.store.history import read_ends, write_ends
from seeknal.store.inventory import (
    ACTION,
    BLOB,
    CHECKS,
    MANIFEST,
    QUARANTINE,
    SNAPSHOT,
    TREE,
    VIEW,
    Key,
    Stored,
    stored,
)
from seeknal.store.reach import Links, Retention, Root, Standpoint, find_roots, reach
from seeknal.store.store import Store

# In this order, so that whatever leads to an object goes before it.
ORDER = (SNAPSHOT, TREE, VIEW, MANIFEST, ACTION, BLOB, CHECKS, QUARANTINE)

# That checks were passed is remembered, and what was damaged is kept aside, for so long after its last use.
_DAYS_OF_MEMORY = 30.0

_BATCH = 200

MoreRoots = Callable[[], Iterable[Root]]


@dataclass(frozen=True)
class Kept:
    """How much one reason keeps: objects of all kinds, and the bytes of blobs. What two reasons keep counts once."""

    why: str
    objects: int
    blob_bytes: int


@dataclass(frozen=True)
class CollectionPlan:
    """What would go and what stays, with the reasons. ``ends``: snapshots whose parents will be gone."""

    retention: Retention
    goes: list[Stored]
    kept: list[Kept]
    ends: frozenset[str]
    reached: set[Key] = field(repr=False, default_factory=set)

    @property
    def blob_bytes(self) -> int:
        """The bytes of data that go."""
        return sum(entry.size_bytes for entry in self.goes if entry.kind == BLOB)

    @property
    def other_bytes(self) -> int:
        """The bytes of records that go: of everything but blobs."""
        return sum(entry.size_bytes for entry in self.goes if entry.kind != BLOB)

    def counts(self) -> dict[str, int]:
        """How many objects of each kind go."""
        found = Counter(entry.kind for entry in self.goes)
        return {kind: found[kind] for kind in ORDER if found[kind]}


@dataclass(frozen=True)
class Collected:
    """What was taken away. ``spared``: objects of the plan that came into use meanwhile."""

    objects: int
    blob_bytes: int
    other_bytes: int
    spared: int


def decide(
    objects: Sequence[Stored],
    roots: Sequence[Root],
    links: Callable[[Key], Iterable[Key]],
    dropped_links: Callable[[Key], Iterable[Key]],
    *,
    now_ns: int,
    oldest_lease_ns: int | None,
    retention: Retention,
) -> tuple[list[Stored], list[Kept], set[Key]]:
    """Decide what goes: pure, from an inventory and what objects need. Gives what goes, what is kept, what is reached.

    ``links`` is for what must be there, ``dropped_links`` for what may be gone.
    """
    by_key = {entry.key: entry for entry in objects}
    reached: set[Key] = set()
    kept: dict[str, list[Stored]] = {}
    for root in roots:
        new = reach(root.keys, dropped_links if root.may_be_gone else links, reached)
        kept.setdefault(root.why, []).extend(by_key[key] for key in new if key in by_key)
    # What an earlier state held is garbage in the moment that the state is dropped; its age is no matter.
    held = set(reached)
    reach((entry.key for entry in objects if entry.kind == SNAPSHOT), dropped_links, held)
    before_lease_ns = now_ns + 1 if oldest_lease_ns is None else oldest_lease_ns
    grace_ns = now_ns - int(retention.grace_hours * 3600e9)
    memory_ns = now_ns - int(_DAYS_OF_MEMORY * 24 * 3600e9)
    for entry in objects:
        if entry.key in reached:
            continue
        if entry.kind in (CHECKS, QUARANTINE):
            why = "remembered for a while" if entry.changed_ns >= memory_ns else ""
        elif entry.changed_ns >= before_lease_ns:
            why = "newer than a live process"
        else:
            why = "" if entry.key in held or entry.changed_ns < grace_ns else "too young"
        if why:
            # What is kept for its age keeps what it needs.
            new = reach([entry.key], dropped_links, reached)
            kept.setdefault(why, []).extend(by_key[key] for key in new if key in by_key)
    goes = [entry for entry in objects if entry.key not in reached]
    goes.sort(key=lambda entry: (ORDER.index(entry.kind), entry.name))
    return goes, [_kept(why, entries) for why, entries in kept.items() if entries], reached


def _kept(why: str, entries: Sequence[Stored]) -> Kept:
    return Kept(why, len(entries), sum(entry.size_bytes for entry in entries if entry.kind in (BLOB, QUARANTINE)))


def plan_collection(store: Store, retention: Retention, more_roots: MoreRoots = tuple) -> CollectionPlan:
    """Look at a store and decide what may go. Removes nothing but the leases of dead processes.

    ``more_roots`` are what the store cannot know of. Raises StoreError where something that must be kept cannot be
    read: nothing may go then, because what it leads to is unknown.
    """
    objects = [entry for kind in ORDER for entry in stored(store, kind)]
    with store.leases.sweeping():
        at = _standpoint(store, retention)
    links = Links(store, strict=True)
    goes, kept, reached = decide(
        objects,
        [*find_roots(at), *more_roots()],
        links,
        Links(store, strict=False),
        now_ns=_disk_time_ns(store),
        oldest_lease_ns=at.oldest_lease_ns,
        retention=retention,
    )
    # Reached ones as well: one may have come since the objects were listed.
    snapshots = {name for kind, name in [*reached, *(entry.key for entry in goes)] if kind == SNAPSHOT}
    staying = snapshots - {entry.name for entry in goes if entry.kind == SNAPSHOT}
    # Also those that go themselves: one of them may be spared, because it comes into use.
    ends = {name for name in snapshots if _may_end_history(store, name, staying)}
    return CollectionPlan(retention, goes, kept, frozenset(ends), reached)


def _may_end_history(store: Store, snapshot: str, staying: set[str]) -> bool:
    """Say whether what came before a snapshot does not stay. Of one that cannot be read now, that is not known."""
    try:
        parent = store.read_snapshot(snapshot).parent
    except StoreError:
        return True
    return parent is not None and parent not in staying


def _standpoint(store: Store, retention: Retention) -> Standpoint:
    return Standpoint(store, retention, store.leases.live(), time.time())


def _disk_time_ns(store: Store) -> int:
    """The time by the clock of the store's disk, which the times of change are by."""
    path = temporary_name(store.temporary_folder)
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb") as file:
        now_ns = os.fstat(file.fileno()).st_mtime_ns
    path.unlink()
    return now_ns


def execute_collection(store: Store, plan: CollectionPlan, more_roots: MoreRoots = tuple) -> Collected:
    """Take away what a plan says, apart from what came into use since. Only one process at a time may do this.

    Raises StoreError where what must be kept cannot be read, OSError; what is gone by then was garbage.
    """
    if any(entry.kind == SNAPSHOT for entry in plan.goes):
        write_ends(store, read_ends(store) | plan.ends)
    reached = set(plan.reached)
    gone: list[Stored] = []
    for start in range(0, len(plan.goes), _BATCH):
        gone += _sweep(store, plan, plan.goes[start : start + _BATCH], reached, more_roots)
    if any(entry.kind == SNAPSHOT for entry in plan.goes):
        write_ends(store, {name for name in read_ends(store) if (store.root / "snapshots" / name).exists()})
    blob_bytes = sum(entry.size_bytes for entry in gone if entry.kind == BLOB)
    other_bytes = sum(entry.size_bytes for entry in gone if entry.kind != BLOB)
    return Collected(len(gone), blob_bytes, other_bytes, len(plan.goes) - len(gone))


def _sweep(
    store: Store, plan: CollectionPlan, batch: Sequence[Stored], reached: set[Key], more_roots: MoreRoots
) -> list[Stored]:
    """Take away a batch; gives what went. Nobody puts anything or takes it into use meanwhile."""
    gone: list[Stored] = []
    doomed: list[Path] = []
    with store.leases.sweeping():
        links, dropped_links = Links(store, strict=True), Links(store, strict=False)
        for root in [*find_roots(_standpoint(store, plan.retention)), *more_roots()]:
            reach(root.keys, dropped_links if root.may_be_gone else links, reached)
        for entry in batch:
            if entry.key in reached or not _is_as_it_was(entry):
                continue
            with contextlib.suppress(FileNotFoundError):
                if entry.kind in (VIEW, QUARANTINE):
                    aside = temporary_name(store.temporary_folder)
                    os.rename(entry.path, aside)
                    doomed.append(aside)
                else:
                    entry.path.unlink()
                gone.append(entry)
    for path in doomed:
        shutil.rmtree(path, ignore_errors=True)
    return gone


def _is_as_it_was(entry: Stored) -> bool:
    try:
        return os.stat(entry.path, follow_symlinks=False).st_mtime_ns == entry.changed_ns
    except OSError:
        return False
