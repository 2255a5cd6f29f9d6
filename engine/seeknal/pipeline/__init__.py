"""Nodes in Python: decorators that make nodes of functions, and what a function is given.

Each name is imported when it is used: reading a project needs none of them, and what ``FeatureFrame`` needs costs more
than most files with nodes want to pay.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from seeknal.pipeline.context import PipelineContext
    from seeknal.pipeline.decorators import (
        aggregation,
        exposure,
        feature_group,
        materialize,
        model,
        rule,
        second_order_aggregation,
        source,
        transform,
    )
    from seeknal.pipeline.feature_frame import FeatureFrame
    from seeknal.pipeline.materialization import IcebergTable, Materialization, OfflineConfig, OnlineConfig
    from seeknal.pipeline.materialization_config import MaterializationConfig
    from seeknal.pipeline.registry import clear_registry, get_registered_nodes

__all__ = [
    "FeatureFrame",
    "IcebergTable",
    "Materialization",
    "MaterializationConfig",
    "OfflineConfig",
    "OnlineConfig",
    "PipelineContext",
    "aggregation",
    "clear_registry",
    "exposure",
    "feature_group",
    "get_registered_nodes",
    "materialize",
    "model",
    "rule",
    "second_order_aggregation",
    "source",
    "transform",
]

# Where the names are that are not in ``decorators``.
_MODULES = {
    "FeatureFrame": "feature_frame",
    "IcebergTable": "materialization",
    "Materialization": "materialization",
    "MaterializationConfig": "materialization_config",
    "OfflineConfig": "materialization",
    "OnlineConfig": "materialization",
    "PipelineContext": "context",
    "clear_registry": "registry",
    "get_registered_nodes": "registry",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'seeknal.pipeline' has no attribute '{name}'")
    value = getattr(import_module(f"seeknal.pipeline.{_MODULES.get(name, 'decorators')}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
