"""Who holds something that others wait for: what for, which process, on which machine, since when."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from typing import Any, Self

import msgspec


class Holder(msgspec.Struct, frozen=True):
    """Who holds a lock. ``since`` is ISO 8601 in UTC, with seconds."""

    purpose: str
    pid: int
    host: str
    since: str

    @classmethod
    def this_process(cls, purpose: str, **more: Any) -> Self:
        """Name the process that asks, from now on; ``more`` are the fields of a kind of holder of its own."""
        since = datetime.now(UTC).isoformat(timespec="seconds")
        return cls(purpose, os.getpid(), os.uname().nodename, since, **more)

    def __str__(self) -> str:
        since = self.since.removesuffix("+00:00").replace("T", " ")
        return f"{self.purpose} (process {self.pid} on {self.host}, since {since} UTC)"
