"""What a node demands of the machine: memory, slots, locks and time. The fields ``resources:`` and ``timeout:``.

- *slot*: one of the nodes that a run executes at the same time (``--max-workers``).
- *mutex*: a name; nodes that share one are never executed at the same time, whatever else is.

None of it is part of what a node computes, so none of it counts in a fingerprint.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import msgspec

from seeknal.late_pattern import late_pattern
from seeknal.nodes.kind import FieldProblem
from seeknal.quantity import parse_duration, parse_size

#: The fields of a node that this module reads.
DEMAND_FIELDS = ("resources", "timeout")

_LEAST_MEMORY_BYTES = 64 * 1024**2
_MUTEX = late_pattern(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")


class ResourceFields(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What ``resources:`` may say.

    - ``memory``: the memory that DuckDB may use for the node, as ``4GB`` or ``512MiB``; beyond it, it spills to disk.
      Nodes run at the same time as far as what they demand fits into the machine's memory
    - ``slots``: how many of the run's slots the node takes, and how many threads it may use
    - ``mutex``: one name or several; nodes with a name in common do not run at the same time, in no run of the project
    """

    memory: str | int | None = None
    slots: Annotated[int, msgspec.Meta(ge=1)] = 1
    mutex: str | list[str] | None = None


class Demands(msgspec.Struct, frozen=True):
    """What one node demands. 0 stands for no demand."""

    memory_bytes: int = 0
    slots: int = 1
    mutexes: tuple[str, ...] = ()
    timeout_seconds: float = 0.0


NO_DEMANDS = Demands()


def demands_of(values: Mapping[str, Any]) -> Demands:
    """What a node's fields demand. They are known to be right: :func:`demand_problems` found nothing."""
    timeout, resources = values.get("timeout"), values.get("resources")
    if timeout is None and not resources:
        return NO_DEMANDS
    fields = msgspec.convert(resources or {}, ResourceFields)
    return Demands(
        parse_size(fields.memory) or 0 if fields.memory is not None else 0,
        fields.slots,
        # Their locks are files, and names that differ in case alone are one file on some disks. A node that takes one
        # twice, or two nodes that take two in another order, would wait for ever.
        tuple(sorted({name.lower() for name in _names(fields.mutex)})),
        parse_duration(timeout) or 0.0 if timeout is not None else 0.0,
    )


def demand_problems(values: Mapping[str, Any]) -> Iterator[FieldProblem]:
    """Find what is wrong with values of the right types."""
    timeout = values.get("timeout")
    if timeout is not None and not parse_duration(timeout):
        hint = "write seconds, or a number with a unit: 90, 5m, 1h30m"
        yield FieldProblem(f"'timeout' is {timeout!r}, which is no time above zero", ("timeout",), hint)
    resources = values.get("resources")
    if not isinstance(resources, dict):
        return
    memory = resources.get("memory")
    if memory is not None:
        size = parse_size(memory)
        if size is None:
            yield FieldProblem(
                f"'resources.memory' is {memory!r}, which is no size", ("resources", "memory"), "write 4GB, or 512MiB"
            )
        elif size < _LEAST_MEMORY_BYTES:
            message = f"'resources.memory' is {memory!r}, and DuckDB needs more to execute anything"
            yield FieldProblem(message, ("resources", "memory"), "demand 64MiB or more")
    for name in _names(resources.get("mutex")):
        if isinstance(name, str) and not _MUTEX.fullmatch(name):
            hint = "use letters, digits, _, - and ., at most 100 of them"
            yield FieldProblem(f"{name!r} is no name of a mutex", ("resources", "mutex"), hint)


def _names(mutex: str | list[str] | None) -> list[str]:
    return [mutex] if isinstance(mutex, str) else mutex or []
