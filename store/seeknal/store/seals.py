"""Seals: which blobs hold what their names say, and how they looked then, so that damage is not read as data.

- *seal*: a digest over a blob's digest and its stat (size, times of change, inode) when its bytes were known.

Whatever changes a file through the file system changes its time of change (ctime), which no program can set back. So a
blob whose stat has its seal is believed without being read, and any other is read and hashed before anything is
believed of it. What changes on the medium and leaves the stat as it was is found by reading everything, that is by
``seeknal store verify``.

Trees and manifests are sealed by those who would otherwise read them anew; cleaning forgets them, which costs one read.

The seals of all blobs are one file, ``memo/seals``: a line with kind, format version and the number of seals when the
file was last cleaned, then 16 bytes a seal, in no order. Processes append to it; what is torn, damaged or lost matches
no blob, and costs reading that blob again. A new blob's seal is written after the blob was made durable:
a power cut may leave its stat without its bytes.
"""

from __future__ import annotations

import contextlib
import os
import struct
from pathlib import Path

import xxhash

from seeknal.late_pattern import late_pattern
from seeknal.store.column_digests import digest_file
from seeknal.store.filesystem import appearance, sync_folder, write_atomically

_VERSION = 1
_HEADER = late_pattern(rb"seeknal seals ([1-9][0-9]{0,8}) ([0-9]+)\n")
# As long as two seals, so that a torn seal shows in the file's size.
_HEADER_BYTES = 32
_SEAL_BYTES = 16
_STAT = struct.Struct("<qqqQ")

# Cutting the file into seals takes as long as searching its text some fifty times, and most commands ask for a few.
_MOST_SEARCHES = 32

# Cleaned when it has twice as many seals as after the last time, and so many more.
_WORTH_CLEANING = 4096


def seal_of(digest: str, stat: os.stat_result) -> bytes:
    """The seal of a blob of this digest that looks like this."""
    return xxhash.xxh3_128_digest(digest.encode() + _STAT.pack(*appearance(stat)))


class Seals:
    """The seals of one store. ``root`` is its folder; nothing is read before it is needed."""

    def __init__(self, root: Path, temporary_folder: Path) -> None:
        self._blobs = root / "blobs"
        self._path = root / "memo" / "seals"
        self._temporary_folder = temporary_folder
        self._kept: set[bytes] = set()
        # What was read of the file and not cut into these yet, and how often it was searched.
        self._text = b""
        self._searches = 0
        # The file that was read, and how much of it.
        self._inode = 0
        self._read_bytes = 0
        # Of blobs that are not durable yet.
        self._fresh: set[bytes] = set()

    def vouch_for(self, path: Path | str, digest: str, size_bytes: int) -> bool:
        """Say whether a file holds the bytes of this digest: by its seal, or else by reading it. Never raises."""
        try:
            stat = os.stat(path)
            if stat.st_size != size_bytes:
                return False
            return self._is_sealed(seal_of(digest, stat)) or self.read(Path(path), digest)
        except OSError:
            return False

    def read(self, path: Path, digest: str) -> bool:
        """Say whether a file holds the bytes of this digest, whatever its seal says; seals it. Raises OSError."""
        seal = seal_of(digest, os.stat(path))
        if digest_file(path)[0] != digest:
            return False
        # Where it changed while it was read, it is read again next time.
        if not self._is_sealed(seal) and seal == seal_of(digest, os.stat(path)):
            with contextlib.suppress(OSError):
                # A process may have died before it had made it durable.
                sync_folder(path)
                self._append([seal])
        return True

    def add_fresh(self, path: Path, digest: str) -> None:
        """Seal a blob of this digest that was written a moment ago, and is synced before :meth:`keep`."""
        with contextlib.suppress(OSError):
            self._fresh.add(seal_of(digest, os.stat(path)))

    def renewed(self, path: Path, digest: str) -> None:
        """Seal a blob again that had its seal, after it got another time of change."""
        with contextlib.suppress(OSError):
            seal = seal_of(digest, os.stat(path))
            if self._fresh:
                # It may be one of those.
                self._fresh.add(seal)
            else:
                self._append([seal])

    def take_fresh(self) -> bytes:
        """The seals of blobs that are not durable yet, for whoever syncs in this process's stead."""
        taken, self._fresh = b"".join(sorted(self._fresh)), set()
        return taken

    def receive_fresh(self, taken: bytes) -> None:
        """Take over the seals that another process gave."""
        self._fresh.update(_cut(taken))

    def keep(self) -> None:
        """Write down the seals of blobs that are durable by now. A disk that does not take them costs time only."""
        if self._fresh:
            fresh, self._fresh = self._fresh, set()
            self._append(sorted(fresh))

    # the file

    def _is_sealed(self, seal: bytes) -> bool:
        if seal in self._fresh or self._is_kept(seal):
            return True
        self._load()
        return self._is_kept(seal)

    def _is_kept(self, seal: bytes) -> bool:
        if self._searches < _MOST_SEARCHES:
            self._searches += 1
            # Across two others it is found as rarely as a blob that has another's digest.
            return seal in self._kept or seal in self._text
        self._cut_text()
        return seal in self._kept

    def _load(self) -> None:
        """Read what others appended since the file was last read."""
        try:
            with self._path.open("rb", buffering=0) as file:
                stat = os.fstat(file.fileno())
                if (stat.st_ino, stat.st_size) == (self._inode, self._read_bytes):
                    return
                header = _HEADER.fullmatch(file.read(_HEADER_BYTES))
                if header is None or int(header[1]) != _VERSION:
                    return
                if stat.st_ino == self._inode and stat.st_size > self._read_bytes:
                    file.seek(self._read_bytes - self._read_bytes % _SEAL_BYTES)
                text = file.read()
                self._text += text[: len(text) - len(text) % _SEAL_BYTES]
                self._inode, self._read_bytes = stat.st_ino, file.tell()
        except OSError:
            return

    def _cut_text(self) -> None:
        if self._text:
            self._kept.update(_cut(self._text))
            self._text = b""

    def _append(self, seals: list[bytes]) -> None:
        self._kept.update(seals)
        with contextlib.suppress(OSError):
            try:
                descriptor = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)
            except FileNotFoundError:
                self._write()
                return
            try:
                header = _HEADER.fullmatch(os.pread(descriptor, _HEADER_BYTES, 0))
                stat = os.fstat(descriptor)
                if header is None or (int(header[1]) == _VERSION and stat.st_size % _SEAL_BYTES):
                    # Damaged, or torn by a full disk: what follows would be read askew.
                    self._write()
                elif int(header[1]) == _VERSION:
                    os.write(descriptor, b"".join(seals))
                    if (stat.st_ino, stat.st_size) == (self._inode, self._read_bytes):
                        self._read_bytes += _SEAL_BYTES * len(seals)
                    if stat.st_size // _SEAL_BYTES > 2 * int(header[2]) + _WORTH_CLEANING:
                        self._clean()
            finally:
                os.close(descriptor)

    def _write(self) -> None:
        """Put a file of the seals that are known here in place of what is there."""
        self._cut_text()
        kept = sorted(self._kept)
        data = b"seeknal seals %d %015d\n" % (_VERSION, len(kept)) + b"".join(kept)
        write_atomically(self._path, data, self._temporary_folder)

    def _clean(self) -> None:
        """Write the file anew with the seals of those blobs that are there and look as they say."""
        self._load()
        self._cut_text()
        present: set[bytes] = set()
        for folder in os.scandir(self._blobs):
            # Other programs leave files of their own everywhere.
            for entry in os.scandir(folder.path) if folder.is_dir() else ():
                digest = folder.name + entry.name.partition(".")[0]
                with contextlib.suppress(FileNotFoundError):
                    present.add(seal_of(digest, entry.stat(follow_symlinks=False)))
        self._kept &= present
        self._write()


def _cut(seals: bytes) -> set[bytes]:
    whole = len(seals) - len(seals) % _SEAL_BYTES
    return {seals[start : start + _SEAL_BYTES] for start in range(0, whole, _SEAL_BYTES)}
