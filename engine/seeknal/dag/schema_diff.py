"""What happened between two schemas of one output.

- *schema*: output column name → type, in the order of the columns. The types are DuckDB's names where DuckDB bound
  the query, and the project's own (``integer``, ``string``, …) where a source declares them.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from seeknal.dag.change import ChangeCategory

Schema = Mapping[str, str]


class SchemaDiff(msgspec.Struct, frozen=True):
    """The columns that went, came and changed their type (name, old type, new type).

    Names are compared with their case, since files and data frames tell cases apart: ``Status`` that becomes
    ``status`` is one column removed and one added.
    """

    removed: list[str]
    added: list[str]
    retyped: list[tuple[str, str, str]]
    is_reordered: bool

    @classmethod
    def between(cls, old: Schema, new: Schema) -> SchemaDiff:
        common = [name for name in old if name in new]
        return cls(
            removed=[name for name in old if name not in new],
            added=[name for name in new if name not in old],
            retyped=[(name, old[name], new[name]) for name in common if old[name].lower() != new[name].lower()],
            is_reordered=common != [name for name in new if name in old],
        )

    @property
    def category(self) -> ChangeCategory | None:
        """BREAKING where a column went or changed its type, NON_BREAKING for the rest, None for no change."""
        if self.removed or self.retyped:
            return ChangeCategory.BREAKING
        return ChangeCategory.NON_BREAKING if self.added or self.is_reordered else None

    def query_details(self) -> list[str]:
        """Describe the change as that of a query: ``Added 'discount_pct' column``."""
        lines = [f"Removed '{name}' column" for name in self.removed]
        lines += [f"Added '{name}' column" for name in self.added]
        lines += [f"Changed type of '{name}' from {before} to {after}" for name, before, after in self.retyped]
        return [*lines, "Changed the order of the columns"] if self.is_reordered else lines

    def declaration_details(self, field: str) -> list[str]:
        """Describe the change as that of a list of columns: ``schema.customer_id: REMOVED (column deleted)``."""
        lines = [f"{field}.{name}: REMOVED (column deleted)" for name in self.removed]
        lines += [f"{field}.{name}: ADDED (new column)" for name in self.added]
        lines += [f"{field}.{name}: TYPE CHANGED ({before} -> {after})" for name, before, after in self.retyped]
        return [*lines, f"{field}: Changed the order of the columns"] if self.is_reordered else lines
