"""Where a feature group is kept, as values for ``@feature_group(materialization=…)``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class OfflineConfig:
    """The store for training: its format, and the columns that it is partitioned by."""

    format: str = "parquet"
    partition_by: list[str] | None = None


@dataclass(frozen=True)
class OnlineConfig:
    """The store for serving. ``ttl_seconds``: how long a value is served."""

    enabled: bool = True
    ttl_seconds: int | None = None


@dataclass(frozen=True)
class IcebergTable:
    """An Iceberg table: ``catalog.namespace.name``."""

    namespace: str
    name: str
    catalog: str = "atlas"


@dataclass(frozen=True)
class Materialization:
    """Where a feature group's rows are kept, and which column says when they came to be known."""

    offline: OfflineConfig | None = None
    online: OnlineConfig | None = None
    table: IcebergTable | None = None
    event_time_col: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Give the fields that YAML has for it."""
        said: dict[str, Any] = {}
        if self.event_time_col is not None:
            said["event_time_col"] = self.event_time_col
        if self.offline is not None:
            said["offline"] = _without_none(vars(self.offline))
        if self.online is not None:
            said["online"] = _without_none(vars(self.online))
        if self.table is not None:
            said["table"] = dict(vars(self.table))
        return said


def _without_none(values: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}
