"""Locks between machines: rows of a database, which whoever holds them renews while it lives.

- *lease*: the row of a lock, with a token that only its holder knows, and the time at which it ends by itself.

Between processes of one machine :mod:`seeknal.state.locks` is better: the kernel knows at once who died. Times are
those of the machines, so their clocks must agree to within a few seconds.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime

import msgspec

from seeknal.errors import BusyError, SeeknalError
from seeknal.state.database_connection import Connection
from seeknal.state.database_schema import prepare
from seeknal.state.locks import Holder

LEASE_SECONDS = 30.0

_PAUSE_SECONDS = 0.05


class LeasedLock:
    """The lock of a run, held by a lease. ``connect`` opens connections that are this object's alone.

    A holder that dies keeps it for the rest of ``lease_seconds``; a living one renews it three times in that span.
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

    def acquire(self, timeout_seconds: float = 0.0) -> None:
        """Take the lock, waiting at most ``timeout_seconds``. Raises BusyError, which names the holder."""
        deadline = time.monotonic() + timeout_seconds
        with contextlib.closing(self._connect()) as connection:
            prepare(connection, "the database of the locks")
            while (holder := self._try_to_take(connection)) is not None:
                left_seconds = deadline - time.monotonic()
                if left_seconds <= 0:
                    raise BusyError(
                        f"{self.purpose} cannot lock run '{self.run_id}': it is locked by {holder}",
                        hint=f"try again when it is done; a dead holder's lock ends after {self._lease_seconds:g} s",
                    )
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
        with contextlib.closing(self._connect()) as connection:
            connection.execute("DELETE FROM locks WHERE run_id = ? AND token = ?", (self.run_id, self._token))

    def _try_to_take(self, connection: Connection) -> str | None:
        """Take the lock, or say who has it."""
        try:
            connection.begin(writing=True)
            now = time.time()
            found = connection.execute("SELECT holder, expires_at FROM locks WHERE run_id = ?", (self.run_id,))
            if found and found[0][1] > now:
                return _holder_in_words(found[0][0])
            since = datetime.now(UTC).isoformat(timespec="seconds")
            holder = msgspec.json.encode(Holder(self.purpose, os.getpid(), os.uname().nodename, since)).decode()
            connection.execute(
                "INSERT OR REPLACE INTO locks (run_id, token, holder, expires_at) VALUES (?, ?, ?, ?)",
                (self.run_id, self._token, holder, now + self._lease_seconds),
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
                    "UPDATE locks SET expires_at = ? WHERE run_id = ? AND token = ?",
                    (time.time() + self._lease_seconds, self.run_id, self._token),
                )


def _holder_in_words(raw: str) -> str:
    try:
        return str(msgspec.json.decode(raw, type=Holder))
    except msgspec.MsgspecError:
        return "another process"
