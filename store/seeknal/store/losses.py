"""Losses: what is known to be gone, so that old holes in the past of a store can be told from new ones."""

from __future__ import annotations

import time
from collections.abc import Iterable

import msgspec

from seeknal.errors import CorruptObjectError
from seeknal.store.filesystem import write_atomically
from seeknal.store.objects import FORMAT_VERSIONS, decode, encode
from seeknal.store.store import Store


class Losses(msgspec.Struct, frozen=True):
    """What was found missing or damaged: path in the store → when that was noted, in seconds since 1970."""

    paths: dict[str, float] = {}


FORMAT_VERSIONS[Losses] = ("losses", 1)


def read_losses(store: Store) -> dict[str, float]:
    """The paths that are known to be gone, or were once. Raises StoreError."""
    path = store.root / "notes" / "losses"
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise CorruptObjectError(f"the list of losses cannot be read: {error.strerror}") from error
    return decode(data, Losses, "the list of losses", path).paths


def note_losses(store: Store, paths: Iterable[str]) -> None:
    """Remember what is gone, durably."""
    try:
        known = read_losses(store)
    except CorruptObjectError:
        known = {}
    now = time.time()
    losses = Losses({**dict.fromkeys(paths, now), **known})
    write_atomically(store.root / "notes" / "losses", encode(losses), store.temporary_folder, durable=True)
