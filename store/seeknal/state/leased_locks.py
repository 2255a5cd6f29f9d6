"""Locks between machines: rows of a database, which whoever holds them renews while it lives.

- *lease*: the row of a lock, with a token that only its holder knows, and the time at which it ends by itself.

A holder that dies keeps its lease until that time, because from another machine nobody can tell. On the same machine
its end shows at once, and so its lease ends at once. Times are those of the database, so that clocks need not agree.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import threading
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from seeknal.errors import SeeknalError
from seeknal.holder import Holder
from seeknal.state.database_connection import Connection
from seeknal.state.database_schema import prepare
from seeknal.state.locks import IMPATIENT, Patience

LEASE_SECONDS = 30.0

_PAUSE_SECONDS = 0.05

_NOW = "SELECT (julianday('now') - 2440587.5) * 86400.0"


class LeaseHolder(Holder, frozen=True):
    """Who has a lease. ``machine`` names the boot of a machine and a space of process ids on it, and ``birth`` when,
    by the kernel's clock, the process began. Both are empty where the system does not tell."""

    machine: str = ""
    birth: str = ""

    def has_ended(self) -> bool:
        """Say whether the holder is known to have ended; of another machine's processes nothing is known."""
        if not self.machine or not self.birth or self.machine != _this_machine():
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except (OSError, OverflowError):
            pass
        # The same number may be another process by now.
        birth = _birth_of(self.pid)
        return birth is not None and birth != self.birth


class LeasedLock:
    """The lock of a run, held by a lease. ``connect`` opens connections that are this object's alone.

    A holder that dies on another machine keeps it for the rest of ``lease_seconds``; a living one renews it three
    times in that span.
    """

    def __init__(
        self, run_id: str, purpose: str, connect: Callable[[], Connection], lease_seconds: float = LEASE_SECONDS
    ) -> None:
        self.run_id = run_id
        self.purpose = purpose
        self._connect = connect
        self._lease_seconds = lease_seconds
        self._token = secrets.token_hex(8)
        self._released = threading.Event()
        self._renewing: threading.Thread | None = None

    def acquire(self, patience: Patience = IMPATIENT) -> None:
        """Take the lock, waiting as ``patience`` says. Raises BusyError, which names the holder."""
        deadline = time.monotonic() + patience.seconds
        with contextlib.closing(self._connect()) as connection:
            prepare(connection, "the database of the locks")
            while (holder := self._try_to_take(connection)) is not None:
                left_seconds = deadline - time.monotonic()
                if left_seconds <= 0:
                    raise patience.refusal(f"run '{self.run_id}'", holder)
                time.sleep(min(_PAUSE_SECONDS, left_seconds))
        self._renewing = threading.Thread(target=self._renew, daemon=True, name=f"lease of {self.run_id}")
        self._renewing.start()

    def release(self) -> None:
        """Give the lock up. Where this object does not hold it, nothing happens."""
        renewing, self._renewing = self._renewing, None
        if renewing is None:
            return
        self._released.set()
        renewing.join()
        # Where the database is out of reach, the lease ends by itself.
        with contextlib.suppress(SeeknalError), contextlib.closing(self._connect()) as connection:
            connection.execute("DELETE FROM locks WHERE run_id = ? AND token = ?", (self.run_id, self._token))

    def _try_to_take(self, connection: Connection) -> Holder | str | None:
        """Take the lock, or say who has it."""
        try:
            connection.begin(writing=True)
            ((now,),) = connection.execute(_NOW)
            found = connection.execute("SELECT holder, expires_at FROM locks WHERE run_id = ?", (self.run_id,))
            if found and found[0][1] > now:
                holder = _decoded(found[0][0])
                if holder is None or not holder.has_ended():
                    return holder or "another process"
            connection.execute(
                "INSERT OR REPLACE INTO locks (run_id, token, holder, expires_at) VALUES (?, ?, ?, ?)",
                (self.run_id, self._token, _encoded(self.purpose), now + self._lease_seconds),
            )
            connection.commit()
            return None
        finally:
            connection.rollback()

    def _renew(self) -> None:
        while not self._released.wait(self._lease_seconds / 3):
            # A renewal that fails leaves two more before the lease ends.
            with contextlib.suppress(SeeknalError), contextlib.closing(self._connect()) as connection:
                connection.execute(
                    f"UPDATE locks SET expires_at = ({_NOW}) + ? WHERE run_id = ? AND token = ?",
                    (self._lease_seconds, self.run_id, self._token),
                )


def _encoded(purpose: str) -> str:
    holder = LeaseHolder.this_process(purpose, machine=_this_machine(), birth=_birth_of(os.getpid()) or "")
    return msgspec.json.encode(holder).decode()


def _decoded(raw: str) -> LeaseHolder | None:
    try:
        return msgspec.json.decode(raw, type=LeaseHolder)
    except msgspec.MsgspecError:
        return None


def _this_machine() -> str:
    """Name this boot of this machine, and the space that its process ids are of; containers have their own."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except (OSError, ValueError):
        return ""


def _birth_of(pid: int) -> str | None:
    """When a process began, in the kernel's ticks; empty where it has ended, None where the system does not tell."""
    try:
        # The name of the program, in brackets, may hold anything.
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
        return "" if fields[0] in ("Z", "X") else fields[19]
    except (OSError, IndexError):
        return None
