"""The registry: what the decorators of :mod:`seeknal.pipeline` said since it was cleared last.

- *registration*: one decorator over one function: the kind, the keywords as they were given, and where.

It serves whoever imports the modules: the process that finds a project's nodes, and the worker that calls one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

Function = Callable[..., Any]


@dataclass(slots=True)
class Registration:
    """One node as a decorator declares it. ``keywords`` are those that were given; ``line`` is the decorator's."""

    kind: str
    name: str
    keywords: dict[str, Any]
    function: Function
    file: str
    line: int
    targets: list[dict[str, Any]] = field(default_factory=list)

    @property
    def node_id(self) -> str:
        return f"{self.kind}.{self.name}"


_registrations: list[Registration] = []


def register(registration: Registration) -> None:
    """Note a node. One that is declared twice is kept twice, so that it can be reported."""
    _registrations.append(registration)


def registrations() -> list[Registration]:
    """All that was noted, in order."""
    return list(_registrations)


def get_registered_nodes() -> dict[str, dict[str, Any]]:
    """List the nodes that were declared since the registry was cleared: id → kind, name, keywords, function."""
    return {
        entry.node_id: {
            **entry.keywords,
            "kind": entry.kind,
            "name": entry.name,
            "id": entry.node_id,
            "func": entry.function,
            "materializations": list(entry.targets),
        }
        for entry in _registrations
    }


def clear_registry() -> None:
    """Forget every node that was declared."""
    _registrations.clear()
