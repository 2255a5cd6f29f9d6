"""The kinds of node there are. To add one: write its module, add it here, add its page in docs/reference."""

from __future__ import annotations

from seeknal.nodes.aggregation import AggregationKind
from seeknal.nodes.described import MetricKind, SemanticModelKind
from seeknal.nodes.entity import EntityKind
from seeknal.nodes.exposure import ExposureKind
from seeknal.nodes.feature_group import FeatureGroupKind
from seeknal.nodes.kind import Kind
from seeknal.nodes.model import ModelKind
from seeknal.nodes.profile import ProfileKind
from seeknal.nodes.rule import RuleKind
from seeknal.nodes.second_order_aggregation import SecondOrderAggregationKind
from seeknal.nodes.source import SourceKind
from seeknal.nodes.transform import TransformKind

KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        SourceKind(),
        TransformKind(),
        AggregationKind(),
        SecondOrderAggregationKind(),
        FeatureGroupKind(),
        EntityKind(),
        ProfileKind(),
        RuleKind(),
        ExposureKind(),
        ModelKind(),
        SemanticModelKind(),
        MetricKind(),
    )
}

# What `kind:` may say in a file.
DECLARABLE_KINDS = [name for name, kind in KINDS.items() if kind.declarable]
