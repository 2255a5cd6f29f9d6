"""The kind ``entity``: all feature groups of one entity in one table. The engine makes its nodes; no file declares one.

- *entity's table*: the join keys, ``event_time``, and one STRUCT column for each feature group, named as the group,
  with its feature columns. There is one row for each key and time that any group has; where a group has no row there,
  its STRUCT is NULL. Rows are sorted by keys and time, NULLs last.
- *superseded*: a row of a group whose key and time a later row of the same group has too. The last one counts, so
  that rows never multiply; how many were superseded is told by the entity's catalog.

A NULL key is a key like any other, and the rows of a timeless group stand at the time NULL; what looks features up at
a point in time finds neither.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from seeknal.dag.names import find_name
from seeknal.dag.sql import quoted, quoted_node
from seeknal.nodes.feature_group import EVENT_TIME
from seeknal.nodes.kind import FieldProblem, Kind, Query, Task
from seeknal.nodes.workbench import Workbench, file_list
from seeknal.store.objects import Artifact

_POSITION = quoted("seeknal position")


class EntityGroup(msgspec.Struct, frozen=True, kw_only=True):
    """A feature group of the entity. ``event_time_col`` None: its own ``event_time``, where it has that column."""

    event_time_col: str | None = None


class EntitySpec(msgspec.Struct, frozen=True, kw_only=True):
    """What an entity is made of. ``feature_groups`` are its groups by name, in the order of ``inputs``."""

    join_keys: list[str]
    feature_groups: dict[str, EntityGroup]
    inputs: list[Any] = []


class EntityKind(Kind):
    """A full outer join of the entity's feature groups on keys and time, as one GROUP BY over all their rows."""

    name = "entity"
    spec = EntitySpec
    declarable = False

    def query(self, spec: EntitySpec, inputs: Sequence[str]) -> Query:
        keys = ", ".join(map(quoted, spec.join_keys))
        rows = [
            _group_rows(name, group, quoted_node(node_id), spec.join_keys)
            for (name, group), node_id in zip(spec.feature_groups.items(), inputs, strict=True)
        ]
        # A row holds the STRUCT of its own group only.
        structs = [
            f"arg_max({quoted(name)}, {_POSITION}) FILTER (WHERE {quoted(name)} IS NOT NULL) AS {quoted(name)}"
            for name in spec.feature_groups
        ]
        order = ", ".join(f"{quoted(name)} NULLS LAST" for name in [*spec.join_keys, EVENT_TIME])
        return Query(
            f"SELECT {keys}, {EVENT_TIME}, {', '.join(structs)}\nFROM (\n"
            + "\nUNION ALL BY NAME\n".join(rows)
            + f"\n)\nGROUP BY {keys}, {EVENT_TIME}\nORDER BY {order}"
        )

    def verify(
        self, spec: EntitySpec, inputs: Sequence[Mapping[str, str] | None], schema: Mapping[str, str] | None
    ) -> Iterable[FieldProblem]:
        for key in spec.join_keys:
            families: dict[str, str] = {}
            for name, columns in zip(spec.feature_groups, inputs, strict=True):
                column = find_name(key, columns or ())
                if columns is not None and column is not None:
                    families.setdefault(_family(columns[column]), f"{name} has {columns[column]}")
            if len(families) > 1:
                message = f"join key '{key}' is not of one type: {'; '.join(families.values())}"
                yield FieldProblem(message, ("join_keys",), "cast it in the `transform:` of one of the groups")

    def execute(self, task: Task, bench: Workbench) -> Artifact:
        artifact = bench.store_query(task)
        spec = msgspec.convert(task.spec, EntitySpec)
        blob = str(bench.store.blob_path(artifact.parts[0]))
        counts = ", ".join(f"count({quoted(name)})" for name in spec.feature_groups)
        connection = bench.hermetic_connection(task.threads, task.memory_limit_bytes)
        found = connection.execute(f"SELECT {counts} FROM read_parquet({file_list((blob,))})").fetchall()
        superseded = {
            name: table.row_count - count
            for name, table, count in zip(spec.feature_groups, task.inputs, found[0], strict=True)
        }
        metadata = {"join_keys": spec.join_keys, "superseded_rows": superseded}
        return msgspec.structs.replace(artifact, metadata={**artifact.metadata, **metadata})


def _group_rows(name: str, group: EntityGroup, table: str, join_keys: Sequence[str]) -> str:
    """SQL for one group's rows: keys, time, STRUCT, and where the row stands in the group."""
    time = group.event_time_col or EVENT_TIME
    if group.event_time_col is None:
        # A relation without rows lends the column to a group that may lack it.
        table = f"(SELECT NULL::TIMESTAMP AS {EVENT_TIME} WHERE FALSE UNION ALL BY NAME SELECT * FROM {table})"
    keys = ", ".join(map(quoted, join_keys))
    features = f"struct_pack(*COLUMNS(* EXCLUDE ({keys}, {quoted(time)}, {_POSITION})))"
    return (
        f"SELECT {keys}, CAST({quoted(time)} AS TIMESTAMP) AS {EVENT_TIME}, {features} AS {quoted(name)}, {_POSITION}\n"
        f"FROM (SELECT *, row_number() OVER () AS {_POSITION} FROM {table})"
    )


def _family(type_: str) -> str:
    """Types of one family can be keys of one entity: DuckDB finds a type that holds the values of both."""
    plain = type_.partition("(")[0]
    if plain.endswith("INT") or plain in ("INTEGER", "UINTEGER", "DECIMAL", "FLOAT", "DOUBLE", "BIGNUM"):
        return "number"
    return "time" if plain.startswith(("DATE", "TIMESTAMP")) else plain
