"""What to run and what became of it, as values."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec.structs import replace

from seeknal.errors import DeliveryError, Problem
from seeknal.workflow.limits import default_workers
from seeknal.workflow.selection import Filters

if TYPE_CHECKING:
    from seeknal.nodes.check import CheckResult
    from seeknal.store.objects import Artifact

#: The reason of a node whose kind is kept for other tools.
NOT_EXECUTED = "not executed"
#: The reason of a node that changed, and whose output another run made already.
BUILT_BEFORE = "built before with the same inputs"


class RunOptions(msgspec.Struct, frozen=True):
    """How to run. ``max_workers`` counts only with ``parallel``; ``retry`` is further attempts for a failed node."""

    full: bool = False
    filters: Filters = msgspec.field(default_factory=Filters)
    continue_on_error: bool = False
    retry: int = 0
    parallel: bool = False
    max_workers: int = msgspec.field(default_factory=default_workers)
    run_id: str | None = None


class NodeOutcome(msgspec.Struct, frozen=True):
    """What became of a node in a run. ``status``: success, cached, failed, skipped.

    ``checks`` are the results of its checks, as remembered where they did not run; ``rejected`` the output that failed
    them.
    """

    node_id: str
    status: str
    reason: str
    row_count: int | None = None
    duration_seconds: float = 0.0
    fingerprint: str = ""
    artifact: Artifact | None = None
    problems: tuple[Problem, ...] = ()
    checks: tuple[CheckResult, ...] = ()
    rejected: Artifact | None = None

    @property
    def warnings(self) -> list[str]:
        """What checks of severity warn found."""
        return [f"{self.node_id}: {result.label}: {result.message}" for result in self.checks if result.is_warning]

    def to_dict(self) -> dict[str, Any]:
        kind, _, name = self.node_id.partition(".")
        parts = self.artifact.blobs() if self.artifact else []
        return {
            "node_id": self.node_id,
            "kind": kind,
            "name": name,
            "status": self.status,
            "reason": self.reason,
            "row_count": self.row_count,
            "duration_seconds": round(self.duration_seconds, 6),
            "fingerprint": self.fingerprint or None,
            "artifact": parts[0].digest if parts else None,
            "metadata": self.artifact.metadata if self.artifact else {},
            "error": "; ".join(str(problem) for problem in self.problems) or None,
            **({"checks": [result.to_dict() for result in self.checks]} if self.checks else {}),
        }


class RunResult(msgspec.Struct, frozen=True):
    """A finished run. ``status``: success, failed, interrupted. ``snapshot``: where the environment stands now."""

    run_id: str
    environment: str
    status: str
    duration_seconds: float
    nodes: list[NodeOutcome]
    snapshot: str | None
    batches: int = 0
    most_concurrent: int = 0
    workers: int = 1
    finished_at: float = 0.0
    delivery_errors: tuple[DeliveryError, ...] = ()

    def with_delivery_errors(self, errors: Sequence[DeliveryError]) -> RunResult:
        """The same result, failed where a delivery was."""
        return replace(self, delivery_errors=tuple(errors), status="failed") if errors else self

    @property
    def executed(self) -> int:
        """How many nodes were executed, well or not."""
        return self.count("success") + self.count("failed")

    def count(self, status: str) -> int:
        return sum(node.status == status for node in self.nodes)

    @property
    def executed_seconds(self) -> float:
        """The sum of the executed nodes' own durations: what one node at a time would take."""
        return sum(node.duration_seconds for node in self.nodes if node.status in ("success", "failed"))

    def to_dict(self) -> dict[str, Any]:
        return {
            "schema_version": 1,
            "run_id": self.run_id,
            "env": self.environment,
            "status": self.status,
            "duration_seconds": round(self.duration_seconds, 6),
            "snapshot": self.snapshot,
            "nodes": [node.to_dict() for node in self.nodes],
            "errors": [str(problem) for problem in self.problems()],
        }

    def problems(self) -> list[Problem]:
        """Everything that went wrong: in nodes, then in deliveries."""
        in_nodes = [problem for node in self.nodes for problem in node.problems]
        return in_nodes + [problem for error in self.delivery_errors for problem in error.problems()]


class Forecast(msgspec.Struct, frozen=True):
    """What a run would do with a node: RUN, MAY RUN (an input that it reads will run), CHECK, CACHED or SKIP.

    ``fingerprint`` is empty where it cannot be known yet.
    """

    node_id: str
    action: str
    reason: str
    fingerprint: str = ""


def new_run_id() -> str:
    """An id that sorts by time and that nobody else makes."""
    return f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{os.urandom(4).hex()}"
