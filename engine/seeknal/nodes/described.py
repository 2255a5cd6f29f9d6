"""Kinds that other tools work with: kept in the manifest, shown, and never executed.

A semantic model says what tables mean, a metric what is measured in them. What their fields are is not ours to say, so
any are taken as they are.
"""

from __future__ import annotations

from typing import Any

import msgspec

from seeknal.nodes.kind import Kind


class DescribedSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What the kind reads of its fields; any others are kept as they are.

    - ``inputs``: the nodes that this one is about; they must exist
    """

    inputs: list[Any] = []


class SemanticModelKind(Kind):
    """What tables mean: entities, dimensions, measures."""

    name = "semantic_model"
    spec = DescribedSpec
    makes_table = False
    executes = False


class MetricKind(Kind):
    """What is measured."""

    name = "metric"
    spec = DescribedSpec
    makes_table = False
    executes = False
