"""Content digests of files outside the store, remembered by their stat, so that an unchanged file is not read again.

A remembered digest counts only while size, times and inode are the same, and only where the file had been
left alone for a while when it was read: a file changed twice within one tick of the disk's clock keeps its times.
(Git calls such entries racily clean.) The time of the last change of anything (ctime) counts in both, because tools
that copy and unpack set the other one (mtime) to what they like.

Files that are gone are forgotten when the memory is written.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import msgspec

from seeknal.errors import StoreError
from seeknal.store.column_digests import digest_file
from seeknal.store.filesystem import appearance, write_atomically
from seeknal.store.objects import FileMemo, decode, encode

# Coarser than the timestamps of any file system that we meet (HFS+ and ext3: 1 s).
RACY_NS = 2_000_000_000

# What is read in a few milliseconds.
SMALL_BYTES = 16 * 1024 * 1024

_Known: TypeAlias = tuple[tuple[int, int, int, int], str, int]

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_Known)


class FileDigests:
    """Digests of files, from memory where the memory can be trusted.

    ``asked`` and ``listings`` tell what was asked for: path → digest, and pattern → the paths that it matched.
    """

    def __init__(self, memo_path: Path, temporary_folder: Path, *, clock: Callable[[], int] = time.time_ns) -> None:
        self._memo_path = memo_path
        self._clock = clock
        self._temporary_folder = temporary_folder
        self._files: dict[str, msgspec.Raw] | None = None
        self._changed = False
        self.asked: dict[str, str] = {}
        self.listings: dict[str, list[str]] = {}

    def digest(self, path: Path | str) -> tuple[str, int]:
        """Digest and size in bytes of a file's content. Raises OSError where it cannot be read."""
        name = str(path)
        digest, size = self._digest(name)
        self.asked[name] = digest
        return digest, size

    def note_listing(self, pattern: str, found: list[str]) -> None:
        """Remember what a pattern matched, sorted."""
        self.listings[pattern] = found

    def cheap_digest(self, path: Path | str) -> str | None:
        """The digest of a file that is small, or was read before; None for one that takes time to read.

        Raises OSError where it cannot be read.
        """
        name = str(path)
        stat = os.stat(name)
        if stat.st_size > SMALL_BYTES and self._recall(name, stat) is None:
            return None
        return self.digest(name)[0]

    def _digest(self, path: str) -> tuple[str, int]:
        stat = os.stat(path)
        known = self._recall(path, stat)
        if known is not None:
            return known, stat.st_size
        read_at_ns = self._clock()
        digest, size = digest_file(Path(path))
        self._load()[path] = msgspec.Raw(_encoder.encode((appearance(stat), digest, read_at_ns)))
        self._changed = True
        return digest, size

    def _recall(self, path: str, stat: os.stat_result) -> str | None:
        """What is remembered of a file that looks like this."""
        known = self._load().get(path)
        if known is None:
            return None
        try:
            before, digest, read_at_ns = _decoder.decode(known)
        except msgspec.DecodeError:
            return None
        left_alone_ns = read_at_ns - max(stat.st_mtime_ns, stat.st_ctime_ns)
        return digest if before == appearance(stat) and left_alone_ns > RACY_NS else None

    def save(self) -> None:
        """Write the memory back where it changed. A disk that does not take it costs time, and is no error."""
        if self._changed and self._files is not None:
            there = {path: known for path, known in self._files.items() if path in self.asked or os.path.exists(path)}
            with contextlib.suppress(OSError):
                write_atomically(self._memo_path, encode(FileMemo(there)), self._temporary_folder)
                self._changed = False

    def _load(self) -> dict[str, msgspec.Raw]:
        if self._files is None:
            try:
                self._files = decode(self._memo_path.read_bytes(), FileMemo, "the file memo").files
            except (OSError, StoreError):
                self._files = {}
        return self._files
