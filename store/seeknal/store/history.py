"""The history of an environment: the snapshots that it stood at, from now back, each the parent of the one before.

- *number*: how many moves before now; 0 is where the environment stands.
- *end*: a snapshot whose parent was taken away on purpose, by garbage collection or by a repair. A parent that is
  missing elsewhere is damage.
- *pin*: a mark that keeps a snapshot, and everything that it needs, for as long as somebody wants it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from seeknal.errors import CorruptObjectError
from seeknal.store.filesystem import sync_folder, write_atomically
from seeknal.store.inventory import PIN, stored
from seeknal.store.objects import FORMAT_VERSIONS, WAY_OUT, Snapshot, decode, encode
from seeknal.store.store import Store


class Moment(msgspec.Struct, frozen=True):
    """A snapshot in an environment's history."""

    number: int
    digest: str
    snapshot: Snapshot


class HistoryEnds(msgspec.Struct, frozen=True):
    """The snapshots whose parents were taken away on purpose."""

    snapshots: list[str] = []


class Pin(msgspec.Struct, frozen=True):
    """A pinned snapshot. ``created_at`` is in seconds since 1970."""

    snapshot: str
    environment: str
    created_at: float
    created_by: str


FORMAT_VERSIONS[HistoryEnds] = ("history-ends", 1)
FORMAT_VERSIONS[Pin] = ("pin", 1)


def read_history(store: Store, environment: str) -> Iterator[Moment]:
    """Walk an environment's history, newest first; nothing where it has no state.

    Raises StoreError where it is broken off by damage.
    """
    state = store.read_state(environment)
    digest = None if state is None else state[0]
    ends: set[str] | None = None
    below: str | None = None
    number = 0
    while digest is not None:
        try:
            snapshot = store.read_snapshot(digest)
        except CorruptObjectError:
            ends = read_ends(store) if ends is None else ends
            if below in ends:
                return
            raise
        yield Moment(number, digest, snapshot)
        below, digest, number = digest, snapshot.parent, number + 1


def read_ends(store: Store) -> set[str]:
    """The snapshots behind which history was taken away. Raises StoreError."""
    path = store.root / "notes" / "history_ends"
    try:
        return set(decode(path.read_bytes(), HistoryEnds, "the list of history's ends", path).snapshots)
    except FileNotFoundError:
        return set()
    except OSError as error:
        raise CorruptObjectError(
            f"the list of history's ends cannot be read: {error.strerror}", hint=WAY_OUT
        ) from error


def write_ends(store: Store, snapshots: Iterable[str]) -> None:
    """Remember where history ends on purpose, durably; before what is behind goes away."""
    path = store.root / "notes" / "history_ends"
    write_atomically(path, encode(HistoryEnds(sorted(set(snapshots)))), store.temporary_folder, durable=True)


def write_pin(store: Store, pin: Pin) -> None:
    """Pin a snapshot, durably."""
    path = store.root / "pins" / pin.snapshot
    write_atomically(path, encode(pin), store.temporary_folder, durable=True)


def remove_pin(store: Store, snapshot: str) -> bool:
    """Take a pin away; says whether there was one."""
    path = store.root / "pins" / snapshot
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    sync_folder(path.parent)
    return True


def read_pins(store: Store, *, only_readable: bool = False) -> list[Pin]:
    """Every pin, by environment and age. Raises StoreError; for damaged ones not, where those are to be left out."""
    found = []
    for stored_pin in stored(store, PIN):
        try:
            found.append(read_pin(stored_pin.path))
        except FileNotFoundError:
            continue
        except CorruptObjectError:
            if not only_readable:
                raise
    return sorted(found, key=lambda pin: (pin.environment, pin.created_at))


def read_pin(path: Path) -> Pin:
    """Read the pin in a file. Raises FileNotFoundError, StoreError."""
    try:
        pin = decode(path.read_bytes(), Pin, f"pin {path.name}", path)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise CorruptObjectError(f"pin {path.name} cannot be read: {error.strerror}", hint=WAY_OUT) from error
    if pin.snapshot != path.name:
        raise CorruptObjectError(f"pin {path.name} is damaged: it is that of {pin.snapshot}", hint=WAY_OUT)
    return pin
