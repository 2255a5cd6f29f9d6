"""The inventory: what lies in a store's folders, file by file, without opening any.

- *stored object*: a kind and a name. The name of a blob is its digest and suffix, of an action record its
  fingerprint, of everything else what its folder calls it.
- *stray*: a file whose name no stored object has.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from stat import S_ISREG
from typing import NamedTuple, TypeAlias

from seeknal.late_pattern import late_pattern
from seeknal.store.objects import Artifact, Blob
from seeknal.store.refs import REF_NAME
from seeknal.store.store import OURS, Store

BLOB, ACTION, TREE, SNAPSHOT, MANIFEST, VIEW, PIN = "blob", "action", "tree", "snapshot", "manifest", "view", "pin"
CHECKS, QUARANTINE = "checks", "quarantine"

# Kinds whose objects are folders, and those that stand one folder deeper.
_FOLDERS = (VIEW, QUARANTINE)
_NESTED = (ACTION, BLOB, CHECKS)

# Kind → its folder, and the names that its objects have there; below blobs/ and actions/ the first two digits are a
# folder's name.
FOLDERS = {
    SNAPSHOT: ("snapshots", late_pattern(r"[0-9a-f]{32}")),
    TREE: ("trees", late_pattern(r"[0-9a-f]{32}")),
    VIEW: ("views", late_pattern(r"[0-9a-f]{32}")),
    MANIFEST: ("manifests", late_pattern(r"[0-9a-f]{64}\.json")),
    ACTION: ("actions", late_pattern(r"[0-9a-f]{32}")),
    BLOB: ("blobs", late_pattern(r"[0-9a-f]{32}(\.[^/]*)?", re.DOTALL)),
    PIN: ("pins", late_pattern(r"[0-9a-f]{32}")),
    CHECKS: ("checks", late_pattern(r"[0-9a-f]{32}")),
    QUARANTINE: ("quarantine", late_pattern(r"[0-9]{8}T[0-9]{6}-[0-9]+")),
}

_PREFIX = late_pattern(r"[0-9a-f]{2}")

# What may stand in the folders that hold something other than objects: files of these names. Below memo/ there may be
# anything, folders too: whoever remembers something there says how, and losing it costs time only.
_RECORDS = {
    "environments": REF_NAME,
    "deliveries": REF_NAME,
    "failed": REF_NAME,
    "leases": late_pattern(r"[0-9a-f]{32}"),
    "notes": late_pattern(r"history_ends|losses"),
    "locks": late_pattern(r".*", re.DOTALL),
}

Key: TypeAlias = tuple[str, str]


class Stored(NamedTuple):
    """A stored object as its folder shows it. ``changed_ns``: its last write or use, in ns since 1970."""

    kind: str
    name: str
    path: Path
    size_bytes: int
    changed_ns: int
    mode: int

    @property
    def key(self) -> Key:
        return (self.kind, self.name)


def blob_name(blob: Blob) -> str:
    return f"{blob.digest}{blob.suffix}"


def blob_keys(artifact: Artifact) -> list[Key]:
    """The keys of every blob that an artifact needs to be whole, side blobs included."""
    return [(BLOB, blob_name(blob)) for blob in artifact.blobs()]


def stored(store: Store, kind: str) -> Iterator[Stored]:
    """Every object of a kind; one that goes away meanwhile is left out. Raises OSError where a folder is unreadable."""
    for found, known in _entries(store, kind):
        if known:
            yield found


def strays(store: Store, kind: str) -> Iterator[Stored]:
    """What stands in a kind's folder and is no stored object."""
    for found, known in _entries(store, kind):
        if not known:
            yield found


def foreign(store: Store) -> Iterator[str]:
    """What stands in the folders without objects, or beside all of them, and is none of the store's: paths in it."""
    yield from (f"refs/{name}" for name in store.refs.strays())
    for folder, pattern in _RECORDS.items():
        with contextlib.suppress(OSError):
            for entry in sorted(os.scandir(store.root / folder), key=lambda entry: entry.name):
                is_misplaced = entry.is_dir(follow_symlinks=False) and folder != "memo"
                if is_misplaced or not pattern.fullmatch(entry.name):
                    yield f"{folder}/{entry.name}"
    with contextlib.suppress(OSError):
        yield from sorted(set(os.listdir(store.root)) - OURS)
    for name in sorted(OURS - {"format"}):
        if os.path.lexists(store.root / name) and not (store.root / name).is_dir():
            yield name


def _entries(store: Store, kind: str) -> Iterator[tuple[Stored, bool]]:
    folder, pattern = FOLDERS[kind]
    for prefix, entry in _files(store.root / folder, nested=kind in _NESTED):
        try:
            stat = entry.stat(follow_symlinks=False)
            is_folder = entry.is_dir(follow_symlinks=False)
        except OSError:
            continue
        name = prefix + entry.name
        known = bool(pattern.fullmatch(name)) and is_folder == (kind in _FOLDERS) and not entry.is_symlink()
        if kind == MANIFEST and known:
            name = name.removesuffix(".json")
        size_bytes = _size_below(entry.path) if is_folder else stat.st_size
        yield Stored(kind, name, Path(entry.path), size_bytes, stat.st_mtime_ns, stat.st_mode & 0o7777), known


def _size_below(folder: str) -> int:
    """The bytes of the files in a folder, links not counted."""
    size_bytes = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                stat = os.lstat(os.path.join(parent, name))
                size_bytes += stat.st_size if S_ISREG(stat.st_mode) else 0
    return size_bytes


def _files(folder: Path, *, nested: bool) -> Iterator[tuple[str, os.DirEntry[str]]]:
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except FileNotFoundError:
        return
    for entry in entries:
        if nested and _PREFIX.fullmatch(entry.name) and entry.is_dir(follow_symlinks=False):
            for _, inner in _files(Path(entry.path), nested=False):
                yield entry.name, inner
        else:
            yield "", entry
