"""What can change between two manifests: the words that the diff, the plan and the command line share.

- *category*: what a change means to whoever reads the node. It does not say which nodes execute; fingerprints do.
- *field*: the part of a node that changed, as YAML spells it (``transform``, ``schema``, ``inputs``, …).
- *detail*: one line for people about what happened to a field, such as ``transform: Added 'discount_pct' column``.
"""

from __future__ import annotations

import enum
import functools

import msgspec

from seeknal.dag.manifest import Node


@functools.total_ordering
class ChangeCategory(enum.Enum):
    """How much a change asks of the readers of a node; ordered, so that ``max()`` finds the worst.

    METADATA: nothing that its output depends on changed. NON_BREAKING: the output can change, but its columns
    survive. BREAKING: a column, an input or the node itself is gone or became something else.
    """

    BREAKING = "breaking"
    NON_BREAKING = "non_breaking"
    METADATA = "metadata"

    @property
    def severity(self) -> int:
        """0 for METADATA, 1 for NON_BREAKING, 2 for BREAKING."""
        return _SEVERITY[self.value]

    def __lt__(self, other: ChangeCategory) -> bool:
        if not isinstance(other, ChangeCategory):
            return NotImplemented
        return self.severity < other.severity


_SEVERITY = {"metadata": 0, "non_breaking": 1, "breaking": 2}


class DiffType(enum.Enum):
    """What happened to a node or an edge."""

    ADDED = "added"
    REMOVED = "removed"
    MODIFIED = "modified"


class NodeChange(msgspec.Struct, frozen=True):
    """What happened to one node.

    ``old_value`` is None for an added node and ``new_value`` for a removed one. ``removed_columns`` and
    ``added_columns`` are the output columns that the change takes away or brings, as far as that is known; a
    renamed column is in both lists, under its old and its new name.
    """

    node_id: str
    change_type: DiffType
    category: ChangeCategory
    old_value: Node | None
    new_value: Node | None
    changed_fields: list[str] = []
    changed_details: list[str] = []
    removed_columns: list[str] = []
    added_columns: list[str] = []


class EdgeChange(msgspec.Struct, frozen=True):
    """``to_node`` began or ceased to read ``from_node``."""

    from_node: str
    to_node: str
    change_type: DiffType
