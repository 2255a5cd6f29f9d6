"""Locks between processes, which end with the process that holds them.

- *lock file*: the file that a lock stands for. Its content is the *holder*; its existence means nothing.
- *holder*: who has the lock: what for, which process, on which machine, since when.

The lock itself is the kernel's ``flock`` on the open file. So it is gone in the moment its holder is, killed
or not, and there is nothing to expire and nothing to clean up. Linux and macOS.
"""

from __future__ import annotations

import fcntl
import os
import time
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from seeknal.errors import BusyError, SeeknalError

_FIRST_PAUSE_SECONDS = 0.001
_LONGEST_PAUSE_SECONDS = 0.05

# A holder writes its name just after it got the lock. Whoever is refused in between reads nothing yet, or the
# name of a process that was killed, and looks again a little later.
_LOOKS_AT_THE_HOLDER = 10


class Holder(msgspec.Struct, frozen=True):
    """Who holds a lock. ``since`` is ISO 8601 in UTC."""

    purpose: str
    pid: int
    host: str
    since: str

    def __str__(self) -> str:
        return f"{self.purpose} (process {self.pid} on {self.host}, since {self.since})"


class FileLock:
    """A lock between processes, and between threads that each have a FileLock of their own.

    ``purpose`` is what others are told when they are refused: the command that runs, say. Not reentrant. With
    ``shared`` it keeps out those alone who want it for themselves, and they are not told who has it.
    A child made by plain ``fork`` inherits the lock and keeps it alive; one that executes a program does not.
    """

    def __init__(self, path: str | Path, purpose: str, *, shared: bool = False) -> None:
        self.path = Path(path)
        self.purpose = purpose
        self.shared = shared
        self._descriptor: int | None = None
        self._owner_pid = 0

    @property
    def held(self) -> bool:
        """Whether this object holds the lock."""
        return self._descriptor is not None

    def acquire(self, timeout_seconds: float = 0.0) -> None:
        """Take the lock, waiting at most ``timeout_seconds``; 0 tries once. Makes the file and its folders.

        Raises BusyError, which names the holder, where the lock was not free in time; SeeknalError where the
        file cannot be opened or its filesystem has no locks. RuntimeError: this object holds the lock already.
        """
        if self.held:
            raise RuntimeError(f"{self.path} is already locked by this FileLock")
        deadline = time.monotonic() + timeout_seconds
        pause_seconds = _FIRST_PAUSE_SECONDS
        while True:
            try:
                descriptor = self._try_to_lock()
            except OSError as error:
                raise SeeknalError(
                    f"cannot lock {self.path}: {error.strerror}",
                    hint="the lock's folder must be writable, and on a filesystem that has file locks",
                ) from error
            if descriptor is not None:
                self._descriptor, self._owner_pid = descriptor, os.getpid()
                if not self.shared:
                    self._write_holder(descriptor)
                return
            left_seconds = deadline - time.monotonic()
            if left_seconds <= 0:
                raise self._busy()
            time.sleep(min(pause_seconds, left_seconds))
            pause_seconds = min(pause_seconds * 2, _LONGEST_PAUSE_SECONDS)

    def release(self) -> None:
        """Give the lock up. Where this object does not hold it, nothing happens.

        The file stays. Were it deleted, a process that had opened it before and one that makes it anew after
        would each lock a file of their own under the same name, and both would go on.
        """
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is None:
            return
        try:
            # In a forked child the lock is the parent's: closing the child's copy takes nothing from it.
            if self._owner_pid == os.getpid():
                if not self.shared:
                    os.ftruncate(descriptor, 0)
                fcntl.flock(descriptor, fcntl.LOCK_UN)
        finally:
            os.close(descriptor)

    def __enter__(self) -> Self:
        """Take the lock without waiting; see :meth:`acquire`."""
        self.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def _try_to_lock(self) -> int | None:
        """Open and lock the file, and give its descriptor; None where another has the lock."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        while True:
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            try:
                fcntl.flock(descriptor, (fcntl.LOCK_SH if self.shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
                if self._is_named_by(descriptor):
                    return descriptor
            except BlockingIOError:
                os.close(descriptor)
                return None
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)

    def _is_named_by(self, descriptor: int) -> bool:
        """Whether the path still leads to the open file. It does not where somebody removed the whole folder."""
        try:
            named = self.path.stat()
        except FileNotFoundError:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            return False
        opened = os.fstat(descriptor)
        return (named.st_dev, named.st_ino) == (opened.st_dev, opened.st_ino)

    def _write_holder(self, descriptor: int) -> None:
        since = datetime.now(UTC).isoformat(timespec="seconds")
        holder = Holder(self.purpose, os.getpid(), os.uname().nodename, since)
        try:
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, msgspec.json.encode(holder), 0)
        except OSError:
            # The lock is held all the same; on a full disk the refused are only not told by whom.
            return

    def _read_holder(self) -> Holder | None:
        """Read who holds the lock, for one who was just refused; None where the holder cannot be told.

        Not by trying the lock: that would refuse others who come in the same moment.
        """
        for look in range(_LOOKS_AT_THE_HOLDER):
            time.sleep(_FIRST_PAUSE_SECONDS if look else 0)
            try:
                holder = msgspec.json.decode(self.path.read_bytes(), type=Holder)
            except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
                continue
            if not _is_dead(holder):
                return holder
        return None

    def _busy(self) -> BusyError:
        holder = self._read_holder()
        if holder is None:
            return BusyError(
                f"{self.purpose} cannot lock {self.path}: another process has the lock",
                hint="try again when it is done",
            )
        return BusyError(
            f"{self.purpose} cannot lock {self.path}: it is locked by {holder}",
            hint=f"try again when it is done; if process {holder.pid} hangs, ending it frees the lock",
        )


def _is_dead(holder: Holder) -> bool:
    """Whether the holder's process is known to have ended. Of another machine's processes nothing is known."""
    if holder.host != os.uname().nodename:
        return False
    try:
        os.kill(holder.pid, 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False
