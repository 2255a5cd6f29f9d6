"""Leases and the sweep lock: how what is taken out of the store keeps out of the way of those who use it.

- *lease*: a file that says since when a process uses the store and which snapshots it reads. It counts while its
  kernel lock is held, so a process that is killed leaves nothing that must be cleaned up by hand.
- *sweep lock*: held shared, for a moment, while an object is put or taken into use; held alone while objects are
  taken away. Taking into use is: mark the object as new (its time of change), *then* look whether it is there.

Whoever takes objects away holds the sweep lock alone, reads the leases, and leaves alone what is newer than the oldest
one, what a lease names, and what a ref stood at since then. So an object is either seen to be in use, or it is gone
before its user looks, who then builds it again.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import msgspec

from seeknal.errors import BusyError, CorruptObjectError
from seeknal.holder import Holder
from seeknal.late_pattern import late_pattern
from seeknal.store.filesystem import named, place, temporary_name, write_whole

# Nobody holds the lock shared for longer than it takes to look at a few files.
_LONGEST_WAIT_SECONDS = 60.0
_NAME = late_pattern(r"[0-9a-f]{32}")


class StoreUser(Holder, frozen=True):
    """The first line of a lease. ``started_ns`` is by the clock of the store's disk, in ns since 1970."""

    started_ns: int


class LiveLease(msgspec.Struct, frozen=True):
    """A lease whose holder lives, and the snapshots that it names."""

    holder: StoreUser
    snapshots: tuple[str, ...] = ()


class Lease:
    """A lease that this process holds; see :meth:`Leases.hold`."""

    def __init__(self, leases: Leases, descriptor: int | None, *, only_reading: bool = False) -> None:
        self._leases = leases
        self._descriptor = descriptor
        self._only_reading = only_reading

    def protect(self, snapshot: str) -> None:
        """Keep a snapshot, and all that it needs, while the lease lasts. Look only afterwards whether it is there."""
        if self._descriptor is None:
            return
        try:
            with self._leases.using(), named(self._leases.folder):
                write_whole(self._descriptor, f"{snapshot}\n".encode())
        except OSError:
            if not self._only_reading:
                raise


class Leases:
    """The leases of a store, and its sweep lock."""

    # By folder, because one process may open a store more than once.
    _held: ClassVar[Counter[str]] = Counter()

    def __init__(self, root: Path) -> None:
        self.folder = root / "leases"
        self._lock_path = root / "locks" / ".sweep"
        self._temporary_folder = root / "tmp"

    @property
    def held(self) -> bool:
        """Whether this process holds a lease on the store."""
        return self._held[str(self.folder)] > 0

    @contextlib.contextmanager
    def hold(self, purpose: str, *, only_reading: bool = False) -> Iterator[Lease]:
        """Use the store while the block runs: nothing that is taken into use meanwhile is taken away.

        ``only_reading``: where there is no store, or none that takes a lease, the block runs without one.
        """
        descriptor, path = None, temporary_name(self.folder)
        if not only_reading or self.folder.parent.is_dir():
            try:
                descriptor = self._open(path, purpose)
            except OSError:
                # Whoever only reads goes on without one where the disk is full or not ours.
                if not only_reading:
                    raise
        if descriptor is None:
            yield Lease(self, None)
            return
        key = str(self.folder)
        self._held[key] += 1
        try:
            yield Lease(self, descriptor, only_reading=only_reading)
        finally:
            self._held[key] -= 1
            with contextlib.suppress(OSError):
                path.unlink()
            os.close(descriptor)

    def _open(self, path: Path, purpose: str) -> int:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Under the sweep lock: whoever looks at leases sees none that is not locked yet.
        with self.using():
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o644)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                holder = StoreUser.this_process(purpose, started_ns=os.fstat(descriptor).st_mtime_ns)
                with named(path):
                    write_whole(descriptor, msgspec.json.encode(holder) + b"\n")
            except BaseException:
                os.close(descriptor)
                with contextlib.suppress(OSError):
                    path.unlink()
                raise
        return descriptor

    def live(self) -> list[LiveLease]:
        """The leases that count, oldest first; the others are removed. Call it with the sweep lock held alone.

        Raises StoreError where a live one cannot be understood.
        """
        found = []
        for path in sorted(self.folder.iterdir()) if self.folder.is_dir() else ():
            if not _NAME.fullmatch(path.name):
                continue
            try:
                descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            except (FileNotFoundError, IsADirectoryError):
                continue
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink(missing_ok=True)
            except BlockingIOError:
                # One that ends in this moment has removed its file already.
                with contextlib.suppress(FileNotFoundError):
                    found.append(_read(path))
            finally:
                os.close(descriptor)
        return sorted(found, key=lambda lease: lease.holder.started_ns)

    # the sweep lock

    @contextlib.contextmanager
    def using(self) -> Iterator[None]:
        """Hold the sweep lock shared; waits for it. Not reentrant, and for a moment only."""
        descriptor = self._open_lock()
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH)
            yield
        finally:
            os.close(descriptor)

    @contextlib.contextmanager
    def sweeping(self) -> Iterator[None]:
        """Hold the sweep lock alone. Raises BusyError where somebody keeps it for a minute."""
        descriptor = self._open_lock()
        try:
            deadline = time.monotonic() + _LONGEST_WAIT_SECONDS
            while True:
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        raise BusyError("another process keeps the store's sweep lock", hint="try again") from None
                    time.sleep(0.0005)
            yield
        finally:
            os.close(descriptor)

    def _open_lock(self) -> int:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        try:
            return os.open(self._lock_path, flags, 0o666)
        except FileNotFoundError:
            self._lock_path.parent.mkdir(parents=True, exist_ok=True)
            return os.open(self._lock_path, flags, 0o666)

    def renew(self, path: Path) -> bool:
        """Mark an object as new, with the sweep lock held; False where it is not there."""
        try:
            os.utime(path)
        except FileNotFoundError:
            return False
        except PermissionError:
            # Somebody else's file: a copy of ours takes its place, and readers that have it open keep what they have.
            temporary = temporary_name(self._temporary_folder, path.suffix)
            try:
                shutil.copyfile(path, temporary)
                shutil.copymode(path, temporary)
                place(temporary, path)
            except FileNotFoundError:
                return False
            finally:
                with contextlib.suppress(OSError):
                    temporary.unlink()
        return True


def _read(path: Path) -> LiveLease:
    try:
        first, *named = path.read_bytes().splitlines()
        holder = msgspec.json.decode(first, type=StoreUser)
        return LiveLease(holder, tuple(line.decode("ascii") for line in named))
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:
        raise CorruptObjectError(
            f"the lease {path.name} of a live process cannot be understood", hint="try again when no process runs"
        ) from error
