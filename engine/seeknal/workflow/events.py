"""What a run tells while it goes on. The engine emits these and prints nothing; a listener renders them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from seeknal.workflow.results import NodeOutcome


class RunStarted(msgspec.Struct, frozen=True):
    """The run begins. ``to_run`` is how many nodes may have to be executed, at most; ``node_ids`` are all nodes."""

    run_id: str
    environment: str
    node_ids: tuple[str, ...]
    to_run: int
    parallel: bool
    workers: int

    @property
    def total(self) -> int:
        return len(self.node_ids)


class NodeStarted(msgspec.Struct, frozen=True):
    """A worker took up a node; ``reason`` says why it is not cached."""

    node_id: str
    index: int
    total: int
    reason: str
    attempt: int = 1


class NodeFinished(msgspec.Struct, frozen=True):
    """A node is over; ``outcome`` says what became of it."""

    outcome: NodeOutcome
    index: int
    total: int


class NodeRetried(msgspec.Struct, frozen=True):
    """A node failed and is tried again, after ``delay_seconds``."""

    node_id: str
    attempt: int
    attempts: int
    message: str
    delay_seconds: float = 0.0


class Warned(msgspec.Struct, frozen=True):
    """Something that a person should know, and that changes nothing."""

    message: str


class Delivered(msgspec.Struct, frozen=True):
    """What an exposure rendered reached its place outside the store: a file's path, or a request.

    ``note`` says what was left undone, as in an environment, where nothing is sent.
    """

    node_id: str
    path: str
    note: str = ""


class Committed(msgspec.Struct, frozen=True):
    """The environment's ref moved (``snapshot``), or had no reason to (None)."""

    environment: str
    snapshot: str | None


Event = RunStarted | NodeStarted | NodeFinished | NodeRetried | Warned | Delivered | Committed
Listener = Callable[[Event], None]


def silent(event: Event) -> None:
    """A listener that does nothing."""
