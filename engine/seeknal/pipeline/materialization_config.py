"""A table outside that a node's output is written to, as a value for ``materialization=``."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from seeknal.pipeline.materialization import IcebergTable, Materialization, OfflineConfig, OnlineConfig

__all__ = ["IcebergTable", "Materialization", "MaterializationConfig", "OfflineConfig", "OnlineConfig"]


@dataclass(frozen=True)
class MaterializationConfig:
    """An Iceberg table: ``catalog.namespace.name``, and how it is written."""

    enabled: bool | None = None
    table: str | None = None
    mode: str | None = None
    create_table: bool | None = None
    unique_keys: list[str] | None = None
    partition_by: list[str] | None = None
    max_batch_bytes: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """Give the fields that YAML has for it; what is None is not said."""
        said = {entry.name: getattr(self, entry.name) for entry in fields(self)}
        return {name: value for name, value in said.items() if value is not None}
