"""The summary of a run in the words of the Python API: a status and a result for each node, counts, how it prints."""

from __future__ import annotations

import enum
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from seeknal.redaction import redacted
from seeknal.visible_text import visible
from seeknal.workflow.results import RunResult

RULE = "=" * 60


class ExecutionStatus(enum.Enum):
    """How a node stands."""

    PENDING = "pending"
    RUNNING = "running"
    SUCCESS = "success"
    FAILED = "failed"
    CACHED = "cached"
    SKIPPED = "skipped"


@dataclass
class NodeResult:
    """What became of one node. ``duration`` is in seconds."""

    node_id: str
    status: ExecutionStatus
    duration: float = 0.0
    row_count: int = 0
    error_message: str | None = None
    metadata: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        return {
            "node_id": self.node_id,
            "status": self.status.value,
            "duration": self.duration,
            "row_count": self.row_count,
            "error_message": self.error_message,
            "metadata": self.metadata,
        }


@dataclass
class ExecutionSummary:
    """What became of a run. ``changed_nodes`` counts those that were executed or would be; times are in seconds."""

    total_nodes: int
    changed_nodes: int
    cached_nodes: int
    successful_nodes: int
    failed_nodes: int
    skipped_nodes: int
    total_duration: float
    results: list[NodeResult] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        return {
            "total_nodes": self.total_nodes,
            "changed_nodes": self.changed_nodes,
            "cached_nodes": self.cached_nodes,
            "successful_nodes": self.successful_nodes,
            "failed_nodes": self.failed_nodes,
            "skipped_nodes": self.skipped_nodes,
            "total_duration": self.total_duration,
            "results": [result.to_dict() for result in self.results],
        }


def summarize(result: RunResult) -> ExecutionSummary:
    """A run's result in the words of :class:`ExecutionSummary`."""
    results = [
        NodeResult(
            node.node_id,
            ExecutionStatus(node.status),
            node.duration_seconds,
            node.row_count or 0,
            "; ".join(str(problem) for problem in node.problems) or None,
            {"reason": node.reason, "fingerprint": node.fingerprint},
        )
        for node in result.nodes
    ]
    return ExecutionSummary(
        len(results),
        result.executed,
        result.count("cached"),
        result.count("success"),
        result.count("failed"),
        result.count("skipped"),
        result.duration_seconds,
        results,
    )


def say(text: str) -> None:
    """Print a line. What the stream cannot show becomes a question mark: no run may end over that."""
    text = visible(redacted(text))
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    print(text.encode(encoding, "replace").decode(encoding))


def print_summary(summary: ExecutionSummary, write: Callable[[str], None] = say) -> None:
    """Print a summary, and the failed nodes with their errors."""
    write(f"ℹ {RULE}")
    write("ℹ Execution Summary")
    write(f"ℹ {RULE}")
    for label, value in (
        ("Total nodes:", str(summary.total_nodes)),
        ("Changed nodes:", str(summary.changed_nodes)),
        ("Cached nodes:", str(summary.cached_nodes)),
        ("Successful:", str(summary.successful_nodes)),
        ("Failed:", str(summary.failed_nodes)),
        ("Skipped:", str(summary.skipped_nodes)),
        ("Duration:", f"{summary.total_duration:.2f}s"),
    ):
        write(f"  {label:<16}{value}")
    write(f"ℹ {RULE}")
    for result in summary.results:
        if result.status is ExecutionStatus.FAILED:
            write(f"✗ {result.node_id}: {result.error_message}")
