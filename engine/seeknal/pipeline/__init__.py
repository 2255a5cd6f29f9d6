"""Nodes in Python: decorators that make nodes of functions, and what a function is given.

Importing this costs next to nothing: neither pandas nor DuckDB comes with it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

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
from seeknal.pipeline.materialization import IcebergTable, Materialization, OfflineConfig, OnlineConfig
from seeknal.pipeline.materialization_config import MaterializationConfig
from seeknal.pipeline.registry import clear_registry, get_registered_nodes

if TYPE_CHECKING:
    from seeknal.pipeline.feature_frame import FeatureFrame

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


def __getattr__(name: str) -> Any:
    # What it needs costs more to import than most files with nodes want to pay.
    if name == "FeatureFrame":
        from seeknal.pipeline.feature_frame import FeatureFrame

        return FeatureFrame
    raise AttributeError(f"module 'seeknal.pipeline' has no attribute '{name}'")
