"""What a run tells while it goes on. The engine emits these and prints nothing; a listener renders them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from seeknal.workflow.results import NodeOutcome


@dataclass(frozen=True, slots=True)
class RunStarted:
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


@dataclass(frozen=True, slots=True)
class NodeStarted:
    """A worker took up a node; ``reason`` says why it is not cached."""

    node_id: str
    index: int
    total: int
    reason: str
    attempt: int = 1


@dataclass(frozen=True, slots=True)
class NodeFinished:
    """A node is over; ``outcome`` says what became of it."""

    outcome: NodeOutcome
    index: int
    total: int


@dataclass(frozen=True, slots=True)
class NodeRetried:
    """A node failed and is tried again."""

    node_id: str
    attempt: int
    attempts: int
    message: str


@dataclass(frozen=True, slots=True)
class Warned:
    """Something that a person should know, and that changes nothing."""

    message: str


@dataclass(frozen=True, slots=True)
class Delivered:
    """What an exposure rendered reached its place outside the store: a file's path, or a request.

    ``note`` says what was left undone, as in an environment, where nothing is sent.
    """

    node_id: str
    path: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class Committed:
    """The environment's ref moved (``snapshot``), or had no reason to (None)."""

    environment: str
    snapshot: str | None


Event = RunStarted | NodeStarted | NodeFinished | NodeRetried | Warned | Delivered | Committed
Listener = Callable[[Event], None]


def silent(event: Event) -> None:
    """A listener that does nothing."""
