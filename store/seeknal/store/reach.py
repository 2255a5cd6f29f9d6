"""Reach: what of a store is needed, from its roots on.

- *root*: something that must be kept, with the reason. The list of their sources is :data:`ROOT_SOURCES`; whatever else
  in the store comes to name objects gets a source of its own there.
- *reach*: a snapshot needs its tree and manifest; a tree its artifacts' blobs, its action records and its view; an
  action record its artifact's blobs. The blobs of an artifact are its parts and its side blobs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from seeknal.errors import CorruptObjectError
from seeknal.store.history import read_history, read_pins
from seeknal.store.inventory import ACTION, MANIFEST, SNAPSHOT, TREE, VIEW, Key, blob_keys
from seeknal.store.leases import LiveLease
from seeknal.store.losses import read_losses
from seeknal.store.store import Store

_SECONDS_PER_DAY = 24 * 3600.0


@dataclass(frozen=True)
class Root:
    """What must be kept: these objects and all that they need. ``why`` is for people.

    ``may_be_gone``: kept only as far as it is there. Otherwise, nothing is collected where it cannot be read.
    """

    why: str
    keys: tuple[Key, ...]
    may_be_gone: bool = False


@dataclass(frozen=True)
class Retention:
    """How much of the past is kept.

    Of each environment the last ``keep_last`` states and those that were current within ``keep_days`` are kept. What no
    state ever held (a failed run's finished outputs) is kept for ``grace_hours``.
    """

    keep_last: int = 10
    keep_days: float = 30.0
    grace_hours: float = 24.0


@dataclass(frozen=True)
class Standpoint:
    """From where it is judged what must be kept: how much of the past, who is at work, what time it is."""

    store: Store
    retention: Retention
    leases: Sequence[LiveLease]
    now: float

    @property
    def oldest_lease_ns(self) -> int | None:
        return min((lease.holder.started_ns for lease in self.leases), default=None)


def current_states(at: Standpoint) -> Iterator[Root]:
    """Where environments stand."""
    for name in at.store.refs.names():
        digest = at.store.refs.read(name)
        if digest is not None:
            yield Root(f"{name}", ((SNAPSHOT, digest),))


def pinned_states(at: Standpoint) -> Iterator[Root]:
    """What somebody keeps on purpose."""
    for pin in read_pins(at.store):
        yield Root(f"pin of {pin.environment}", ((SNAPSHOT, pin.snapshot),))


def retained_history(at: Standpoint) -> Iterator[Root]:
    """What environments stood at, as far back as it is kept."""
    oldest = at.now - at.retention.keep_days * _SECONDS_PER_DAY
    for name in at.store.refs.names():
        until = at.now
        for moment in read_history(at.store, name):
            # A state counts as of the days on which it was the current one, not of the day on which it was made.
            if moment.number >= max(at.retention.keep_last, 1) and until < oldest:
                break
            if moment.number:
                yield Root(f"history of {name}", ((SNAPSHOT, moment.digest),))
            until = moment.snapshot.created_at


def states_in_use(at: Standpoint) -> Iterator[Root]:
    """What live processes named, and what was current at any time since the oldest of them began."""
    oldest_ns = at.oldest_lease_ns
    if oldest_ns is None:
        return
    for lease in at.leases:
        keys = tuple((SNAPSHOT, digest) for digest in lease.snapshots)
        yield Root(f"read by process {lease.holder.pid}", keys, may_be_gone=True)
    for name in at.store.refs.logged_names():
        moves = list(at.store.refs.log(name))
        for move, following in zip(moves, [*moves[1:], None], strict=True):
            # A second more, because the log has another clock than the leases.
            over = following is not None and following.at + 1.0 < oldest_ns / 1e9
            if move.new is not None and not over:
                # Before that process began, it may have been collected.
                yield Root(f"{name}, since a live process began", ((SNAPSHOT, move.new),), may_be_gone=True)


def planned_manifests(at: Standpoint) -> Iterator[Root]:
    """The manifests that environments were planned for."""
    for name in at.store.environment_names():
        record = at.store.read_environment(name)
        if record is not None and record.plan is not None:
            yield Root(f"plan of {name}", ((MANIFEST, record.plan.manifest),))


def rejected_outputs(at: Standpoint) -> Iterator[Root]:
    """The outputs that checks rejected, for who looks at them."""
    for name in at.store.failed_names():
        for node in at.store.read_failed(name).nodes.values():
            yield Root(f"rejected in {name}", tuple(key for _, table in node.tables for key in blob_keys(table)))


ROOT_SOURCES: list[Callable[[Standpoint], Iterable[Root]]] = [
    current_states,
    pinned_states,
    retained_history,
    states_in_use,
    planned_manifests,
    rejected_outputs,
]


def find_roots(at: Standpoint) -> list[Root]:
    """Every root, in the order of the sources. Raises StoreError where one cannot be read: then nothing may go."""
    return [root for source in ROOT_SOURCES for root in source(at)]


class Links:
    """What each object needs, read from the store. ``strict``: raise where an object that must be there is not."""

    def __init__(self, store: Store, *, strict: bool) -> None:
        self._store = store
        self._strict = strict
        self._lost = read_losses(store) if strict else {}

    def __call__(self, key: Key) -> list[Key]:
        """The objects that an object needs directly. Raises StoreError."""
        kind, name = key
        try:
            if kind == SNAPSHOT:
                snapshot = self._store.read_snapshot(name)
                return [(TREE, snapshot.tree), (MANIFEST, snapshot.manifest)]
            if kind == TREE:
                found: list[Key] = [(VIEW, name)]
                for entry in self._store.read_tree(name).nodes.values():
                    found.append((ACTION, entry.fingerprint))
                    found += blob_keys(entry.artifact)
                return found
        except CorruptObjectError:
            if self._strict and f"{kind}s/{name}" not in self._lost:
                raise
        if kind == ACTION:
            try:
                return blob_keys(self._store.read_action(name).artifact)
            except (OSError, CorruptObjectError):
                # It is a cache, and believed by nobody in that state.
                return []
        return []


def reach(keys: Iterable[Key], links: Callable[[Key], Iterable[Key]], seen: set[Key]) -> list[Key]:
    """Add to ``seen`` what these objects and all that they need are; gives what was new."""
    new: list[Key] = []
    waiting = list(keys)
    while waiting:
        key = waiting.pop()
        if key in seen:
            continue
        seen.add(key)
        new.append(key)
        waiting += links(key)
    return new
