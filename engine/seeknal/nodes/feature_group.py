"""The kind ``feature_group``: features of one entity, each row true from its event time on.

- *entity*: what the features describe, such as a user, found by its *join keys*.
- *event time*: the column that says when a row's features came to be true. A group that has none, and does not name
  one, is *timeless*.
- *feature columns*: every column of the output but the join keys and the event time.

The groups of an entity are brought together in its table; see :mod:`seeknal.nodes.entity`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import msgspec

from seeknal.dag.names import check_node_name, did_you_mean
from seeknal.dag.project import Project
from seeknal.dag.sql import quoted_node
from seeknal.errors import NodeFailedError
from seeknal.nodes.kind import FieldProblem, Kind, Query, Task
from seeknal.nodes.workbench import Workbench
from seeknal.store.objects import Artifact

EVENT_TIME = "event_time"

# What an event time may be; text is cast when the entity's table is made.
_MOMENTS = ("DATE", "TIMESTAMP", "VARCHAR")

_MODES = ("overwrite", "append")


class EntityFields(msgspec.Struct, frozen=True, kw_only=True):
    """What a feature group's features describe.

    - ``name``: the entity's name
    - ``join_keys``: the columns that tell one from another; without them ``<name>_id``
    - ``description``: for people
    """

    name: str
    join_keys: list[str] | None = None
    description: str | None = None


class FeatureFields(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a declared feature.

    - ``description``: for people
    - ``dtype``: for people; casts nothing
    """

    description: str | None = None
    dtype: str | None = None


class OfflineFields(msgspec.Struct, frozen=True, kw_only=True):
    """How features are kept. They are kept always, as Parquet, in one piece.

    - ``enabled``: changes nothing
    - ``format``: ``parquet``; another has no effect, and a warning says so
    - ``partition_by``: has no effect, and a warning says so
    """

    enabled: bool = True
    format: str = "parquet"
    partition_by: str | list[str] | None = None


class OnlineFields(msgspec.Struct, frozen=True, kw_only=True):
    """A store to serve features from, which there is none of.

    - ``enabled``: has no effect, and a warning says so
    - ``ttl``: has no effect
    """

    enabled: bool = True
    ttl: str | int | None = None


class MaterializationFields(msgspec.Struct, frozen=True, kw_only=True):
    """Where a group's features come from in time, and where they go.

    - ``event_time_col``: the column that says when a row came to be true: a date, a timestamp, or text that is one;
      without it ``event_time``
    - ``offline``: ``{enabled, format, partition_by}``; features are always kept, as one Parquet file, and a warning
      says so where something else is asked for
    - ``online``: ``{enabled, ttl}``; not supported, and a warning says so
    - ``mode``: the output is what the inputs give; ``append`` has no effect, and a warning says so
    - ``partition_by``: has no effect, and a warning says so
    """

    event_time_col: str | None = None
    offline: bool | OfflineFields = True
    online: bool | OnlineFields = False
    mode: str = "overwrite"
    partition_by: str | list[str] | None = None


class FeatureGroupSpec(msgspec.Struct, frozen=True, kw_only=True):
    """The fields of a feature group.

    - ``entity``: what the features describe: ``user``, or ``{name: user, join_keys: [user_id], description: …}``;
      without ``join_keys`` it is ``<name>_id``
    - ``inputs``: the nodes that it reads
    - ``transform``: SQL over the inputs, in which the first one is also called ``source``; without it the only input is
      taken as it is
    - ``features``: columns that the output must have: name → nothing, a description, or ``{description, dtype}``; the
      output may have more. ``dtype`` is for people
    - ``materialization``: when rows came to be true, and how features are kept
    - ``mode``: as ``materialization.mode``
    - ``engine``: ``duckdb``, the only one
    - ``params``: values for templates
    """

    entity: str | EntityFields
    inputs: list[Any] = []
    transform: str | None = None
    features: dict[str, FeatureFields | str | None] = {}
    materialization: MaterializationFields = MaterializationFields()
    mode: str | None = None
    engine: str = "duckdb"
    params: dict[str, Any] = {}

    @property
    def entity_name(self) -> str:
        return self.entity if isinstance(self.entity, str) else self.entity.name

    @property
    def join_keys(self) -> list[str]:
        keys = None if isinstance(self.entity, str) else self.entity.join_keys
        return [f"{self.entity_name}_id"] if keys is None else keys

    @property
    def event_time(self) -> str:
        """The column with the event time, which a timeless group's output lacks."""
        return self.materialization.event_time_col or EVENT_TIME


class FeatureGroupKind(Kind):
    """SQL over the inputs, or the only input; checked against what the group declares to give."""

    name = "feature_group"
    spec = FeatureGroupSpec

    def check(self, spec: FeatureGroupSpec, project: Project) -> Iterable[FieldProblem]:
        yield from _check_entity(spec)
        if spec.transform is None and len(spec.inputs) != 1:
            count = "an input or a `transform:`" if not spec.inputs else "a `transform:` that joins its inputs"
            yield FieldProblem(f"a feature group needs {count}", ("inputs",))
        if spec.engine.lower() != "duckdb":
            hint = "leave `engine:` out, or write duckdb"
            yield FieldProblem(f"engine '{spec.engine}' is not supported", ("engine",), hint)
        yield from _check_materialization(spec)

    def query(self, spec: FeatureGroupSpec, inputs: Sequence[str]) -> Query:
        if spec.transform is None:
            return Query(f"SELECT * FROM {quoted_node(inputs[0]) if inputs else 'input_0'}")
        return Query(spec.transform, ("transform",), 0, len(spec.transform), (("source", 0),))

    def verify(
        self, spec: FeatureGroupSpec, inputs: Sequence[Mapping[str, str] | None], schema: Mapping[str, str] | None
    ) -> Iterable[FieldProblem]:
        if schema is None:
            return
        types = {name.lower(): type_ for name, type_ in schema.items()}
        for key in spec.join_keys:
            if key.lower() not in types:
                path = ("entity",) if isinstance(spec.entity, str) else ("entity", "join_keys")
                yield _missing(f"join key '{key}' of entity '{spec.entity_name}'", key, schema, path)
        yield from _verify_event_time(spec, types, schema)
        for name in spec.features:
            if name.lower() not in types:
                yield _missing(f"feature '{name}'", name, schema, ("features", name))
        if types.keys() <= {*_folded(spec.join_keys), spec.event_time.lower()}:
            yield FieldProblem("the output has no column beside the join keys and the event time", ("transform",))

    def identity(self, spec: FeatureGroupSpec, around: object) -> list[Any]:
        return [spec.entity_name, spec.join_keys, spec.event_time]

    def execute(self, task: Task, bench: Workbench) -> Artifact:
        artifact = bench.store_query(task)
        spec = msgspec.convert(task.spec, FeatureGroupSpec)
        # Where the columns depend on the data, planning could not verify them.
        for problem in self.verify(spec, [], artifact.schema()):
            if not problem.is_warning:
                raise NodeFailedError(problem.message, hint=problem.hint)
        return msgspec.structs.replace(artifact, metadata={**artifact.metadata, **about(spec, artifact.schema())})


def about(spec: FeatureGroupSpec, schema: Collection[str]) -> dict[str, Any]:
    """What readers of the output must know to use it as features; kept with the output.

    ``event_time_col`` is None for a timeless group.
    """
    has_time = spec.event_time.lower() in _folded(schema)
    return {
        "entity_name": spec.entity_name,
        "join_keys": spec.join_keys,
        "event_time_col": spec.event_time if has_time else None,
    }


def _check_entity(spec: FeatureGroupSpec) -> Iterable[FieldProblem]:
    wrong = check_node_name(spec.entity_name)
    if wrong:
        path = ("entity",) if isinstance(spec.entity, str) else ("entity", "name")
        yield FieldProblem(f"entity '{spec.entity_name}' is not allowed", path, wrong)
    path = ("entity", "join_keys")
    if not spec.join_keys or not all(spec.join_keys):
        yield FieldProblem("an entity needs a join key", path, "name the columns that tell one from another")
    seen: set[str] = set()
    for key in spec.join_keys:
        if key.lower() in seen:
            yield FieldProblem(f"join key '{key}' is named twice", path)
        elif key.lower() in (EVENT_TIME, spec.event_time.lower()):
            yield FieldProblem(f"join key '{key}' has the name of the event time", path, "give one another name")
        seen.add(key.lower())


def _check_materialization(spec: FeatureGroupSpec) -> Iterable[FieldProblem]:
    said = spec.materialization
    mode, mode_path = (said.mode, ("materialization", "mode")) if spec.mode is None else (spec.mode, ("mode",))
    if mode not in _MODES:
        yield FieldProblem(f"unknown mode '{mode}'", mode_path, did_you_mean(mode, _MODES))
    elif mode == "append":
        yield _without_effect("mode 'append'", mode_path, "the output is what the inputs give")
    if said.online if isinstance(said.online, bool) else said.online.enabled:
        yield _without_effect("the online store", ("materialization", "online"), "it is not supported")
    if isinstance(said.offline, OfflineFields):
        if said.offline.format.lower() != "parquet":
            yield _without_effect(f"format '{said.offline.format}'", ("materialization", "offline", "format"))
        if said.offline.partition_by:
            yield _without_effect("'partition_by'", ("materialization", "offline", "partition_by"))
    if said.partition_by:
        yield _without_effect("'partition_by'", ("materialization", "partition_by"))


def _without_effect(
    what: str, path: tuple[str, ...], why: str = "features are kept as one Parquet file"
) -> FieldProblem:
    return FieldProblem(f"{what} has no effect: {why}", path, is_warning=True)


def _verify_event_time(
    spec: FeatureGroupSpec, types: Mapping[str, str], schema: Mapping[str, str]
) -> Iterable[FieldProblem]:
    path = ("materialization", "event_time_col")
    type_ = types.get(spec.event_time.lower())
    if type_ is None and spec.materialization.event_time_col:
        yield _missing(f"event time '{spec.event_time}'", spec.event_time, schema, path)
    elif type_ is None:
        message = "has no event time, so its rows are not found by point-in-time joins"
        yield FieldProblem(message, ("materialization",), f"name it: `{'.'.join(path)}: <column>`", is_warning=True)
    elif not type_.startswith(_MOMENTS):
        hint = "cast it to a timestamp in `transform:`"
        yield FieldProblem(f"event time '{spec.event_time}' is of type {type_}, and no time", path, hint)


def _missing(what: str, name: str, schema: Mapping[str, str], path: tuple[str, ...]) -> FieldProblem:
    return FieldProblem(f"{what} is missing from the output", path, did_you_mean(name, schema))


def _folded(names: Iterable[str]) -> set[str]:
    # DuckDB's names ignore case.
    return {name.lower() for name in names}
