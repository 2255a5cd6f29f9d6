"""The kinds of node there are. To add one: write its module, add it here, add its page in docs/reference.

A kind's module is imported when a node turns out to be of that kind, what calls functions when a node has one: most
projects have nodes of a few kinds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from seeknal.nodes.function_reference import FunctionReference
    from seeknal.nodes.kind import Kind

# Kind → module and class.
_CLASSES = {
    "source": ("seeknal.nodes.source", "SourceKind"),
    "transform": ("seeknal.nodes.transform", "TransformKind"),
    "aggregation": ("seeknal.nodes.aggregation", "AggregationKind"),
    "second_order_aggregation": ("seeknal.nodes.second_order_aggregation", "SecondOrderAggregationKind"),
    "feature_group": ("seeknal.nodes.feature_group", "FeatureGroupKind"),
    "entity": ("seeknal.nodes.entity", "EntityKind"),
    "profile": ("seeknal.nodes.profile", "ProfileKind"),
    "rule": ("seeknal.nodes.rule", "RuleKind"),
    "exposure": ("seeknal.nodes.exposure", "ExposureKind"),
    "model": ("seeknal.nodes.model", "ModelKind"),
    "semantic_model": ("seeknal.nodes.described", "SemanticModelKind"),
    "metric": ("seeknal.nodes.described", "MetricKind"),
}

KIND_MODULES = sorted({module for module, _ in _CLASSES.values()})


@cache
def _made(name: str) -> Kind:
    module, class_name = _CLASSES[name]
    kind: Kind = getattr(import_module(module), class_name)()
    return kind


class _Kinds(Mapping[str, "Kind"]):
    """The kinds by their names."""

    def __getitem__(self, name: str) -> Kind:
        return _made(name)

    def __contains__(self, name: object) -> bool:
        return name in _CLASSES

    def __iter__(self) -> Iterator[str]:
        return iter(_CLASSES)

    def __len__(self) -> int:
        return len(_CLASSES)


KINDS = _Kinds()

# What `kind:` may say in a file: the kinds that are ``declarable``. The others' nodes are made of these.
DECLARABLE_KINDS = [name for name in _CLASSES if name != "entity"]


def implementation_of(kind: str, function: FunctionReference | None) -> Kind:
    """What executes a node of a kind, by its fields or by its function."""
    if function is None:
        return _made(kind)
    from seeknal.nodes.python_function import PythonFunction

    return PythonFunction(KINDS[kind], function)
