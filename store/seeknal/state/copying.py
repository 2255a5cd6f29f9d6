"""Copying run records from one backend to another, whatever either keeps them in.

- *inventory*: what a backend holds: a digest for each run with its nodes, and how many records that makes.
- *copy plan*: which runs the other backend lacks, has alike, or has otherwise.

Planning reads; :func:`copy_runs` writes to the target alone, some runs at a time. It may be cut short anywhere: the
next plan finds what is there and copies the rest.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field

import msgspec

from seeknal.errors import CorruptObjectError
from seeknal.state.backend import StateBackend

_RUNS_IN_A_TRANSACTION = 100


@dataclass(frozen=True)
class Counts:
    """How many records there are. ``rows`` are all of them together."""

    runs: int = 0
    nodes: int = 0
    intervals: int = 0
    partitions: int = 0

    @property
    def rows(self) -> int:
        return self.runs + self.nodes + self.intervals + self.partitions

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            self.runs + other.runs,
            self.nodes + other.nodes,
            self.intervals + other.intervals,
            self.partitions + other.partitions,
        )


@dataclass(frozen=True)
class Inventory:
    """What a backend holds: run id → digest, and run id → counts."""

    digests: dict[str, str] = field(default_factory=dict)
    counts: dict[str, Counts] = field(default_factory=dict)

    def total(self, run_ids: Iterable[str] | None = None) -> Counts:
        """Count the records of some runs, or of all."""
        chosen = self.counts if run_ids is None else run_ids
        return sum((self.counts[run_id] for run_id in chosen), Counts())


@dataclass(frozen=True)
class CopyPlan:
    """Which runs of the source are ``missing`` in the target, the ``same`` there, or ``different``.

    ``only_in_target`` stay there. With ``target_wins`` the different ones stay as they are on both sides.
    """

    missing: tuple[str, ...]
    same: tuple[str, ...]
    different: tuple[str, ...]
    only_in_target: tuple[str, ...]
    target_wins: bool

    @property
    def copied(self) -> tuple[str, ...]:
        """The runs that are written to the target."""
        return self.missing if self.target_wins else tuple(sorted((*self.missing, *self.different)))

    @property
    def moved(self) -> tuple[str, ...]:
        """The runs that the target has as the source has them, once all is copied."""
        return tuple(sorted((*self.same, *self.copied)))


def take_inventory(backend: StateBackend) -> Inventory:
    """Read everything that a backend holds, and keep the digests. Raises CorruptObjectError, FormatTooNewError."""
    inventory = Inventory()
    for run_id in backend.list_runs():
        nodes = backend.get_all_node_states(run_id)
        content = msgspec.json.encode([backend.get_run(run_id), nodes], order="deterministic")
        inventory.digests[run_id] = hashlib.sha256(content).hexdigest()
        inventory.counts[run_id] = Counts(
            runs=1,
            nodes=len(nodes),
            intervals=sum(len(node["completed_intervals"]) for node in nodes.values()),
            partitions=sum(len(node["completed_partitions"]) for node in nodes.values()),
        )
    return inventory


def plan_copy(source: Inventory, target: Inventory, *, target_wins: bool) -> CopyPlan:
    """Compare two inventories."""
    both = source.digests.keys() & target.digests.keys()
    same = {run_id for run_id in both if source.digests[run_id] == target.digests[run_id]}
    return CopyPlan(
        missing=tuple(sorted(source.digests.keys() - both)),
        same=tuple(sorted(same)),
        different=tuple(sorted(both - same)),
        only_in_target=tuple(sorted(target.digests.keys() - both)),
        target_wins=target_wins,
    )


def copy_runs(plan: CopyPlan, source: StateBackend, target: StateBackend) -> None:
    """Make or replace the runs of the plan in the target, each with all its nodes."""
    copied = plan.copied
    for start in range(0, len(copied), _RUNS_IN_A_TRANSACTION):
        with target.transaction():
            for run_id in copied[start : start + _RUNS_IN_A_TRANSACTION]:
                run = source.get_run(run_id)
                if run is None:
                    continue
                target.delete_run(run_id)
                target.create_run(run_id, **run)
                for node_id, node in source.get_all_node_states(run_id).items():
                    target.set_node_state(run_id, node_id, node)


def check_copy(plan: CopyPlan, source: Inventory, target: Inventory) -> None:
    """Raise CorruptObjectError where the target does not hold, digest for digest, what it should by now."""
    wrong = [run_id for run_id in plan.moved if target.digests.get(run_id) != source.digests[run_id]]
    if wrong:
        raise CorruptObjectError(
            f"{len(wrong)} of {len(plan.moved)} runs were not copied as they are, the first of them '{wrong[0]}'",
            hint="nothing was switched: the records in force are where they were",
        )
