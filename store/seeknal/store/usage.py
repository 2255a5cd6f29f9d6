"""Usage: how much of the store each environment needs, and how much of that it alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass

from seeknal.errors import StoreError
from seeknal.store.history import read_history, read_pins
from seeknal.store.inventory import BLOB, SNAPSHOT, Key, blob_keys, stored
from seeknal.store.reach import Links, reach
from seeknal.store.store import Store


@dataclass(frozen=True)
class Usage:
    """The bytes of blobs that an environment needs.

    ``current_bytes`` are those of where it stands, ``history_bytes`` what its earlier states need beside.
    ``unique_bytes`` are what garbage collection gives back once the environment is deleted; ``shared_bytes`` what other
    environments or pins need as well.
    """

    environment: str
    current_bytes: int
    history_bytes: int
    unique_bytes: int
    shared_bytes: int


@dataclass(frozen=True)
class StoreUsage:
    """The usage of each environment, of pins alone, and of nobody: what garbage collection may take away."""

    environments: list[Usage]
    total_bytes: int
    pinned_bytes: int
    unreached_bytes: int


def measure(store: Store) -> StoreUsage:
    """Measure every environment. An environment that cannot be read counts as far as it can be.

    One that stands nowhere yet counts too, where outputs that its checks rejected are kept.
    """
    sizes = {entry.key: entry.size_bytes for entry in stored(store, BLOB)}
    links = Links(store, strict=False)
    current: dict[str, set[Key]] = {}
    whole: dict[str, set[Key]] = {}
    for name in sorted({*store.refs.names(), *store.failed_names()}):
        snapshots: list[Key] = []
        with suppress(StoreError):
            for moment in read_history(store, name):
                snapshots.append((SNAPSHOT, moment.digest))
        current[name] = _blobs(reach(snapshots[:1], links, set()))
        rejected = [table for node in store.read_failed(name).nodes.values() for _, table in node.tables]
        whole[name] = _blobs(reach(snapshots, links, set()))
        whole[name].update(key for table in rejected for key in blob_keys(table))
    pinned = _blobs(reach([(SNAPSHOT, pin.snapshot) for pin in read_pins(store, only_readable=True)], links, set()))
    holders = Counter(key for keys in [*whole.values(), pinned] for key in keys)

    def size(keys: Iterable[Key]) -> int:
        return sum(sizes.get(key, 0) for key in keys)

    environments = [
        Usage(
            name,
            size(current[name]),
            size(whole[name] - current[name]),
            size(key for key in whole[name] if holders[key] == 1),
            size(key for key in whole[name] if holders[key] > 1),
        )
        for name in whole
    ]
    only_pinned = size(key for key in pinned if holders[key] == 1)
    unreached = sum(bytes_ for key, bytes_ in sizes.items() if key not in holders)
    return StoreUsage(environments, sum(sizes.values()), only_pinned, unreached)


def _blobs(keys: Iterable[Key]) -> set[Key]:
    return {key for key in keys if key[0] == BLOB}
