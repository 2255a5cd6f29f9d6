"""The kind ``aggregation``: per entity and date, plain and windowed aggregates of one input.

The fields that say what to compute, and the SQL they become, are in :mod:`seeknal.nodes.aggregation_sql`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from seeknal.dag.names import did_you_mean, find_name
from seeknal.dag.project import Project
from seeknal.dag.sql import quoted_node
from seeknal.nodes.aggregation_sql import AggregationSpec as AggregationFields
from seeknal.nodes.aggregation_sql import check, compile_sql
from seeknal.nodes.kind import FieldProblem, Kind, Query


class AggregationSpec(AggregationFields, frozen=True, kw_only=True):
    """The fields of an aggregation.

    - ``inputs``: one node, or several with a ``transform``
    - ``transform``: SQL over the inputs that gives the rows to aggregate; without it, they are the input's
    - ``params``: values for templates
    """

    inputs: list[Any]
    transform: str | None = None
    params: dict[str, Any] = msgspec.field(default_factory=dict)


class AggregationKind(Kind):
    """Aggregates of the first input, or of what ``transform`` makes of the inputs."""

    name = "aggregation"
    spec = AggregationSpec

    def check(self, spec: AggregationSpec, project: Project) -> Iterable[FieldProblem]:
        for message in check(spec):
            yield FieldProblem(message, ("features",))
        if not spec.inputs:
            yield FieldProblem("an aggregation needs an input", ("inputs",), "add `inputs: [{ref: kind.name}]`")
        elif len(spec.inputs) > 1 and spec.transform is None:
            yield FieldProblem(
                "only the first input is aggregated",
                ("inputs",),
                "join the inputs in a `transform:`, or drop the others",
            )

    def query(self, spec: AggregationSpec, inputs: Sequence[str]) -> Query:
        return aggregate_query(
            inputs, spec.transform, lambda relation: compile_sql(spec, relation), dict(_conditions(spec))
        )

    def verify(
        self, spec: AggregationSpec, inputs: Sequence[Mapping[str, str] | None], schema: Mapping[str, str] | None
    ) -> Iterable[FieldProblem]:
        if spec.transform is None and inputs and inputs[0] is not None:
            yield from missing_columns(_columns(spec), inputs[0])


def aggregate_query(
    inputs: Sequence[str],
    transform: str | None,
    compiled: Callable[[str], str],
    conditions: Mapping[tuple[str | int, ...], str],
) -> Query:
    """What ``compiled`` makes of the first input, or of the rows that ``transform`` gives.

    ``conditions`` are the SQL in other fields, by the paths to them; the query has each on lines of its own.
    """
    # On lines of its own, so that a comment at the end of the user's text ends there.
    relation = f"(\n{transform}\n)" if transform is not None else quoted_node(inputs[0]) if inputs else "input_0"
    text = compiled(relation)
    starts = {path: text.find(f"\n{said}\n") + 1 for path, said in conditions.items() if said}
    parts = tuple((start, len(conditions[path]), path) for path, start in starts.items() if start)
    if transform is None:
        return Query(text, parts=parts)
    return Query(text, ("transform",), text.index(transform), len(transform), parts=parts)


def missing_columns(
    named: Iterable[tuple[str, tuple[str | int, ...]]], columns: Mapping[str, str]
) -> Iterable[FieldProblem]:
    """Find the columns that fields name and a node's input lacks; each comes with the path to its field."""
    for name, path in dict.fromkeys(named):
        if find_name(name, columns) is None:
            yield FieldProblem(f"column '{name}' is missing from the input", path, did_you_mean(name, columns))


def _columns(spec: AggregationSpec) -> Iterator[tuple[str, tuple[str | int, ...]]]:
    """The columns that the fields name, each with the path to its field."""
    for field in ("id_col", "feature_date_col", "application_date_col"):
        yield getattr(spec, field), (field,)
    for index, column in enumerate(spec.group_by):
        yield column, ("group_by", index)
    for index, feature in enumerate(spec.features):
        only_conditions = feature.since and not (feature.basic or feature.rolling or feature.ratio)
        if feature.column is not None:
            yield feature.column, ("features", index, "column")
        elif not only_conditions:
            yield feature.name, ("features", index, "name")


def _conditions(spec: AggregationSpec) -> Iterator[tuple[tuple[str | int, ...], str]]:
    for index, feature in enumerate(spec.features):
        for number, since in enumerate(feature.since):
            yield ("features", index, "since", number, "condition"), since.condition
