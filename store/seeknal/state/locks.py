"""Locks between processes, which end with the process that holds them.

- *lock file*: the file that a lock stands for. Its content is the *holder*; its existence means nothing.
- *holder*: who has the lock; see :mod:`seeknal.holder`.
- *patience*: how long somebody waits for a lock that another has.

The lock itself is the kernel's ``flock`` on the open file. So it is gone in the moment its holder is, killed
or not, and there is nothing to expire and nothing to clean up. Linux and macOS.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from seeknal.errors import BusyError, SeeknalError, way_out_of
from seeknal.holder import Holder
from seeknal.quantity import duration_text

_FIRST_PAUSE_SECONDS = 0.001
_LONGEST_PAUSE_SECONDS = 0.05

# A holder writes its name just after it got the lock. Whoever is refused in between reads nothing yet, or the
# name of a process that was killed, and looks again a little later.
_LOOKS_AT_THE_HOLDER = 10


class Patience(msgspec.Struct, frozen=True):
    """How long to wait for a lock that another has: ``seconds``, 0 for not at all, infinite for as long as it takes.

    ``tell`` is told once, and only by who waits, whom it waits for. ``way_out`` is the hint for who is refused.
    """

    seconds: float = 0.0
    tell: Callable[[str], None] | None = None
    way_out: str = "try again when it is done"

    def refusal(self, what: str, holder: Holder | str | None) -> BusyError:
        """Make the error for who waited in vain for ``what``, which ``holder`` has."""
        waited = f"; waited {duration_text(self.seconds)}" if self.seconds else ""
        hint = self.way_out
        if isinstance(holder, Holder):
            hint += f"; if process {holder.pid} hangs, ending it frees the lock"
        return BusyError(f"{what} is locked by {holder or 'another process'}{waited}", hint=hint)


IMPATIENT = Patience()


class FileLock:
    """A lock between processes, and between threads that each have a FileLock of their own.

    ``purpose`` is what others are told when they are refused: the command that runs, say; ``what`` is what the lock
    is on, in words. Not reentrant. With ``shared`` it keeps out those alone who want it for themselves. Who shares a
    lock does not stand in its file; ``sharers`` finds out who does, for those who want it alone.
    A child made by plain ``fork`` inherits the lock and keeps it alive; one that executes a program does not.
    """

    def __init__(
        self,
        path: str | Path,
        purpose: str,
        *,
        what: str = "",
        shared: bool = False,
        sharers: Callable[[], Iterable[Holder]] = tuple,
    ) -> None:
        self.path = Path(path)
        self.purpose = purpose
        self.what = what or str(path)
        self.shared = shared
        self._sharers = sharers
        self._descriptor: int | None = None
        self._owner_pid = 0

    @property
    def held(self) -> bool:
        """Whether this object holds the lock."""
        return self._descriptor is not None

    def acquire(self, patience: Patience = IMPATIENT) -> None:
        """Take the lock, waiting as ``patience`` says. Makes the file and its folders.

        Raises BusyError, which names the holder, where the lock was not free in time; SeeknalError where the
        file cannot be opened or its filesystem has no locks. RuntimeError: this object holds the lock already.
        """
        if self.held:
            raise RuntimeError(f"{self.path} is already locked by this FileLock")
        deadline = time.monotonic() + patience.seconds
        pause_seconds = _FIRST_PAUSE_SECONDS
        told = patience.tell is None
        while True:
            try:
                descriptor = self._try_to_lock()
            except OSError as error:
                other = f" ({error.filename})" if error.filename not in (None, str(self.path)) else ""
                raise SeeknalError(
                    f"cannot lock {self.path}: {error.strerror}{other}",
                    hint=way_out_of(error)
                    or "the lock's folder must be writable, and on a filesystem that has file locks",
                ) from error
            if descriptor is not None:
                self._descriptor, self._owner_pid = descriptor, os.getpid()
                if not self.shared:
                    self._write_holder(descriptor)
                return
            left_seconds = deadline - time.monotonic()
            if left_seconds <= 0:
                raise patience.refusal(self.what, self._holder())
            if not told and patience.tell is not None:
                told = True
                patience.tell(f"waiting for {self.what}, which is locked by {self._holder() or 'another process'}")
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
                    # Where the disk does not let go of the name, it is known that its process does not hold the lock.
                    with contextlib.suppress(OSError):
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
        try:
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, msgspec.json.encode(Holder.this_process(self.purpose)), 0)
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

    def _holder(self) -> Holder | str | None:
        """Say who has the lock, for one who was just refused."""
        holder = self._read_holder()
        if holder is not None:
            return holder
        sharers = [str(sharer) for sharer in self._sharers()]
        return " and by ".join(sharers)


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
