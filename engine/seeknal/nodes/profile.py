"""The kind ``profile``: what the columns of a table are like, as a table with a row for each.

The metrics are in :mod:`seeknal.nodes.profile_metrics`. All are computed in one pass and exact. NaN and infinities are
left out of ``avg``, ``stddev`` and the quantiles, and NaN of ``min`` and ``max``; what a type does not have is NULL.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from seeknal.dag.names import did_you_mean, find_name
from seeknal.dag.project import Project
from seeknal.dag.sql import literal, quoted, quoted_node
from seeknal.nodes.check_sql import is_float, is_moment, is_number
from seeknal.nodes.kind import FieldProblem, Kind, Surroundings, Task
from seeknal.nodes.profile_metrics import PROFILE_COLUMNS
from seeknal.nodes.workbench import Workbench
from seeknal.store.objects import Artifact

# Types, beside numbers and moments, whose values have an order that means something to people.
_ORDERED = frozenset({"VARCHAR", "BOOLEAN", "TIME", "INTERVAL", "UUID"})


class ProfileSpec(msgspec.Struct, frozen=True, kw_only=True):
    """The fields of a profile.

    - ``inputs``: the table: one
    - ``profile``: ``columns``: a list of the columns to look at; without it, all of them
    - ``params``: ``columns`` may stand here instead
    """

    inputs: list[Any]
    profile: dict[str, Any] = {}
    params: dict[str, Any] = {}


class ProfileKind(Kind):
    """Statistics of the input's columns."""

    name = "profile"
    spec = ProfileSpec

    def check(self, spec: ProfileSpec, project: Project) -> Iterable[FieldProblem]:
        if len(spec.inputs) != 1:
            yield FieldProblem("a profile has one input", ("inputs",), "add `inputs: [{ref: kind.name}]`")
        for key in spec.profile:
            if key not in ("columns", "params"):
                yield FieldProblem(f"a profile has no field '{key}'", ("profile", key), "there is: columns")
        said = _said(spec)
        if said is not None and not _are_names(said):
            yield FieldProblem("'columns' must be a list of columns", _path(spec))

    def schema(
        self, spec: ProfileSpec, inputs: Sequence[dict[str, str] | None], around: Surroundings
    ) -> dict[str, str] | None:
        return dict(PROFILE_COLUMNS)

    def declared(self, spec: ProfileSpec) -> dict[str, str] | None:
        return dict(PROFILE_COLUMNS)

    def verify(
        self, spec: ProfileSpec, inputs: Sequence[Mapping[str, str] | None], schema: Mapping[str, str] | None
    ) -> Iterable[FieldProblem]:
        known = inputs[0] if inputs else None
        for index, column in enumerate(_said(spec) or ()):
            if known is not None and find_name(column, known) is None:
                yield FieldProblem(f"no column '{column}'", (*_path(spec), index), did_you_mean(column, known))

    def reads(
        self, spec: ProfileSpec, inputs: Sequence[str], schemas: Sequence[Mapping[str, str] | None]
    ) -> dict[str, tuple[str, ...] | None]:
        known = schemas[0]
        said = _said(spec)
        if said is None or known is None:
            return dict.fromkeys(inputs)
        return {inputs[0]: tuple(name for column in said if (name := find_name(column, known)))}

    def identity(self, spec: ProfileSpec, around: Surroundings) -> list[Any]:
        return [_said(spec)]

    def execute(self, task: Task, bench: Workbench) -> Artifact:
        spec = msgspec.convert(task.spec, ProfileSpec)
        connection = bench.hermetic_connection(task.threads, task.memory_limit_bytes)
        bench.make_views(connection, task)
        table = task.inputs[0]
        columns = dict(table.columns)
        said = _said(spec)
        if said is not None:
            named = [name for column in said if (name := find_name(column, columns))]
            columns = {name: columns[name] for name in dict.fromkeys(named)}
        return bench.copy_to_store(connection, profile_query(quoted_node(table.node_id), columns), PROFILE_COLUMNS)


def profile_query(table: str, columns: Mapping[str, str]) -> str:
    """SQL that profiles these columns of a table: one pass for all, then a row for each."""
    measured = ["count(*) AS n"]
    rows = []
    for index, (name, type_) in enumerate(columns.items()):
        values = []
        for metric, sql in _metrics(quoted(name), type_).items():
            measured.append(f"{sql} AS {metric}_{index}")
            values.append(f"{metric}_{index}")
        filled, *rest = values
        nulls = f"n - {filled}"
        share = f"CASE WHEN n > 0 THEN 100.0 * ({nulls}) / n END"
        said = ", ".join([literal(name), literal(type_), "n", nulls, f"CAST({share} AS DOUBLE)", *rest])
        rows.append(f"SELECT {said} FROM measured")
    names = ", ".join(map(quoted, PROFILE_COLUMNS))
    if not rows:
        typed = ", ".join(f"CAST(NULL AS {type_}) AS {quoted(name)}" for name, type_ in PROFILE_COLUMNS.items())
        return f"SELECT {typed} WHERE false"
    body = "\nUNION ALL ".join(rows)
    return (
        f"WITH measured AS MATERIALIZED (SELECT {', '.join(measured)} FROM {table}),\n"
        f"profiled({names}) AS ({body})\nSELECT * FROM profiled"
    )


def _metrics(column: str, type_: str) -> dict[str, str]:
    """How to measure a column: the number of its values, then the metrics from ``distinct_count`` on."""
    ordered = is_number(type_) or is_moment(type_) or type_ in _ORDERED
    no_nan = f" FILTER (WHERE NOT isnan({column}))" if is_float(type_) else ""
    found = {
        "filled": f"count({column})",
        "distinct_count": f"count(DISTINCT {column})",
        "min": f"CAST(min({column}){no_nan} AS VARCHAR)" if ordered else "CAST(NULL AS VARCHAR)",
        "max": f"CAST(max({column}){no_nan} AS VARCHAR)" if ordered else "CAST(NULL AS VARCHAR)",
    }
    value = f"CAST({column} AS DOUBLE)"
    # Beyond this, the square of a value is no number any more.
    finite = f" FILTER (WHERE abs({column}) < 1e150)" if is_float(type_) else ""
    for name, call in (
        ("avg", f"avg({value})"),
        ("stddev", f"stddev_samp({value})"),
        ("p25", f"quantile_cont({value}, 0.25)"),
        ("p50", f"quantile_cont({value}, 0.5)"),
        ("p75", f"quantile_cont({value}, 0.75)"),
    ):
        found[name] = f"CAST({call}{finite} AS DOUBLE)" if is_number(type_) else "CAST(NULL AS DOUBLE)"
    return found


def _said(spec: ProfileSpec) -> list[str] | None:
    said = spec.profile.get("columns")
    names: list[str] | None = spec.params.get("columns") if said is None else said
    return names


def _path(spec: ProfileSpec) -> tuple[str | int, ...]:
    return ("profile", "columns") if spec.profile.get("columns") is not None else ("params", "columns")


def _are_names(said: Any) -> bool:
    return isinstance(said, list) and bool(said) and all(isinstance(name, str) for name in said)
