"""The kind ``second_order_aggregation``: aggregates of rows that are aggregates already, per id, by age in days.

The fields that say what to compute, and the SQL they become, are in
:mod:`seeknal.nodes.second_order_aggregation_sql`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from seeknal.dag.project import Project
from seeknal.nodes.aggregation import aggregate_query, missing_columns
from seeknal.nodes.kind import FieldProblem, Kind, Query
from seeknal.nodes.second_order_aggregation_sql import SecondOrderSpec, check, compile_sql


class SecondOrderAggregationSpec(SecondOrderSpec, frozen=True, kw_only=True):
    """The fields of a second-order aggregation.

    - ``source``: the node whose rows are aggregated, as ``kind.name``; it and the only entry of ``inputs`` stand for
      each other
    - ``inputs``: the nodes that it reads
    - ``transform``: SQL over the inputs that gives the rows to aggregate instead
    - ``params``: values for templates
    """

    source: str | None = None
    inputs: list[Any] = msgspec.field(default_factory=list)
    transform: str | None = None
    params: dict[str, Any] = msgspec.field(default_factory=dict)


class SecondOrderAggregationKind(Kind):
    """Aggregates of the source, or of what ``transform`` makes of the inputs."""

    name = "second_order_aggregation"
    spec = SecondOrderAggregationSpec

    def check(self, spec: SecondOrderAggregationSpec, project: Project) -> Iterable[FieldProblem]:
        yield from check(spec)
        named = list(_named(spec))
        if spec.transform is None:
            if not named:
                yield FieldProblem(
                    "'source' is missing", ("source",), "name the node to aggregate: `source: kind.name`"
                )
            elif len(named) > 1:
                hint = "join the inputs in a `transform:`, or drop the others"
                at = ("inputs",) if spec.source is None else ("source",)
                yield FieldProblem(f"only one node is aggregated, and {' and '.join(named)} are named", at, hint)

    def references(self, spec: SecondOrderAggregationSpec) -> Iterable[tuple[str, tuple[str | int, ...]]]:
        if spec.source is not None:
            yield spec.source, ("source",)

    def query(self, spec: SecondOrderAggregationSpec, inputs: Sequence[str]) -> Query:
        return aggregate_query(
            inputs, spec.transform, lambda relation: compile_sql(spec, relation), dict(_conditions(spec))
        )

    def verify(
        self,
        spec: SecondOrderAggregationSpec,
        inputs: Sequence[Mapping[str, str] | None],
        schema: Mapping[str, str] | None,
    ) -> Iterable[FieldProblem]:
        if spec.transform is None and inputs and inputs[0] is not None:
            yield from missing_columns(_columns(spec), inputs[0])


def _columns(spec: SecondOrderAggregationSpec) -> Iterator[tuple[str, tuple[str | int, ...]]]:
    """The columns that the fields name, each with the path to its field."""
    for field in ("id_col", "feature_date_col", "application_date_col"):
        if getattr(spec, field) is not None:
            yield getattr(spec, field), (field,)
    for name, feature in spec.features.items():
        column = feature.source_feature
        yield (name, ("features", name)) if column is None else (column, ("features", name, "source_feature"))


def _named(spec: SecondOrderAggregationSpec) -> Iterator[str]:
    """The nodes that ``source`` and ``inputs`` name, each once."""
    seen: set[str] = set()
    entries = [entry.get("ref") if isinstance(entry, dict) else entry for entry in spec.inputs]
    for name in [spec.source, *entries]:
        if isinstance(name, str) and name.lower() not in seen:
            seen.add(name.lower())
            yield name


def _conditions(spec: SecondOrderAggregationSpec) -> Iterator[tuple[tuple[str | int, ...], str]]:
    for name, feature in spec.features.items():
        path: tuple[str | int, ...] = ("features", name, "since")
        if not isinstance(feature.since, list):
            yield (*path, "condition"), feature.since.condition
            continue
        for number, since in enumerate(feature.since):
            yield (*path, number, "condition"), since.condition
