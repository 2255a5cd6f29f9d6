"""External targets: tables outside that a node's output is to be written to, as its fields declare them.

``materializations`` is a list of targets, ``materialization`` one of them, or a list too. They are read and checked as
they will be when they are written; nothing is written yet, and a warning says so. On a feature group
``materialization`` says where features are kept (:mod:`seeknal.nodes.feature_group`), and only the list has targets.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

import msgspec

from seeknal.dag.names import did_you_mean, nearest
from seeknal.dag.type_message import in_words
from seeknal.late_pattern import late_pattern
from seeknal.nodes.kind import FieldProblem

FIELDS = ("materialization", "materializations")

# Every part of a table's name; catalogs may call theirs otherwise, but nothing that could be more than a name.
_PART = late_pattern(r"[A-Za-z_][A-Za-z0-9_]*")
_LOOKBACK = late_pattern(r"\d+\s*[dh]?")


class TableName(msgspec.Struct, frozen=True):
    """The name of an Iceberg table in its parts."""

    namespace: str
    name: str
    catalog: str = ""


class _Target(msgspec.Struct, frozen=True, kw_only=True):
    """What all targets have. ``enabled: false`` skips one; ``on_failure`` is ``error`` or ``warn``."""

    type: str = "iceberg"
    enabled: bool = True
    create_table: bool = True
    unique_keys: list[str] = []
    connection: str | None = None
    on_failure: str = "error"


class PostgresqlTarget(_Target, frozen=True, kw_only=True):
    """A table in PostgreSQL.

    ``table`` is ``schema.table``; ``connection`` names one of the profile's. ``time_column`` and ``lookback`` (days, or
    ``12h``) are for mode ``incremental_by_time``, ``unique_keys`` for ``upsert_by_key``, ``cascade`` for ``full``.
    """

    table: str
    mode: str = "full"
    time_column: str | None = None
    lookback: int | str = 0
    cascade: bool = False


class IcebergTarget(_Target, frozen=True, kw_only=True):
    """An Iceberg table.

    ``table`` is ``catalog.namespace.table``; what is left out comes from the profile. ``unique_keys`` and the fields
    that begin with ``when`` are for mode ``upsert``, ``partition_by`` for ``insert_overwrite``.
    """

    table: str | TableName | None = None
    mode: str | None = None
    catalog_uri: str | None = None
    warehouse: str | None = None
    partition_by: list[str] = []
    when_matched_update_if: str | None = None
    compare_columns: list[str] = []
    when_not_matched: str = "insert"
    max_batch_bytes: int | None = None


_TYPES: dict[str, type[PostgresqlTarget | IcebergTarget]] = {
    "postgresql": PostgresqlTarget,
    "postgres": PostgresqlTarget,
    "iceberg": IcebergTarget,
}
_MODES = {
    PostgresqlTarget: ("full", "overwrite", "append", "incremental_by_time", "upsert_by_key"),
    IcebergTarget: ("append", "overwrite", "upsert", "insert_overwrite"),
}
# What a mode cannot do without.
_NEEDS = {
    "incremental_by_time": "time_column",
    "upsert_by_key": "unique_keys",
    "upsert": "unique_keys",
    "insert_overwrite": "partition_by",
}


def target_problems(fields: Mapping[str, Any], own: Collection[str]) -> Iterable[FieldProblem]:
    """Find what is wrong with a node's targets, and say of those that are right that nothing is written yet.

    ``own`` are the fields that mean something else for the node's kind.
    """
    said = [name for name in FIELDS if name not in own and fields.get(name)]
    if len(said) > 1:
        yield FieldProblem(
            "'materialization' and 'materializations' are two ways to say it", (said[1],), "leave one out"
        )
        return
    for name in said:
        value = fields[name]
        if isinstance(value, list):
            for index, target in enumerate(value):
                yield from _target_problems(target, (name, index))
        elif name == "materialization":
            yield from _target_problems(value, (name,))
        else:
            hint = "write `- type: postgresql` and so on below it"
            yield FieldProblem("'materializations' must be a list of targets", (name,), hint)


def _target_problems(value: Any, path: tuple[str | int, ...]) -> Iterable[FieldProblem]:
    if not isinstance(value, dict):
        yield FieldProblem("a target must be a mapping, such as `type: postgresql`", path)
        return
    type_ = value.get("type", "iceberg")
    struct = _TYPES.get(type_) if isinstance(type_, str) else None
    if struct is None:
        hint = did_you_mean(str(type_), ("postgresql", "iceberg")) or "there is: postgresql, iceberg"
        yield FieldProblem(f"unknown type of target '{type_}'", (*path, "type"), hint)
        return
    known = {entry.encode_name for entry in msgspec.structs.fields(struct)}
    for name in value:
        if name not in known:
            hint = did_you_mean(str(name), known) if nearest(str(name), known, 1) else ""
            message = f"unknown field '{name}' of a {type_} target"
            yield FieldProblem(message, (*path, name), hint, is_warning=not hint)
    try:
        target = msgspec.convert({name: item for name, item in value.items() if item is not None}, struct)
    except msgspec.ValidationError as error:
        message, inner = in_words(str(error))
        yield FieldProblem(f"{type_} target: {message}", (*path, *inner))
        return
    problems = list(_value_problems(target, path))
    yield from problems
    if not problems and target.enabled:
        where = f" '{target.table}'" if isinstance(target.table, str) else ""
        message = f"{type_} targets are not available yet: nothing is written to the table{where}"
        yield FieldProblem(message, path, is_warning=True)


def _value_problems(target: PostgresqlTarget | IcebergTarget, path: tuple[str | int, ...]) -> Iterable[FieldProblem]:
    modes = _MODES[type(target)]
    if target.mode is not None and target.mode not in modes:
        hint = did_you_mean(target.mode, modes) or f"there is: {', '.join(modes)}"
        yield FieldProblem(f"unknown mode '{target.mode}' of a {target.type} target", (*path, "mode"), hint)
    needed = _NEEDS.get(target.mode or "") if target.mode in modes else None
    if needed and not getattr(target, needed, None):
        yield FieldProblem(f"mode '{target.mode}' needs '{needed}'", (*path, "mode"))
    if target.on_failure not in ("error", "warn"):
        yield FieldProblem("on_failure must be error or warn", (*path, "on_failure"))
    most = 2 if isinstance(target, PostgresqlTarget) else 3
    if isinstance(target.table, str) and not _is_name(target.table, most):
        shape = "schema.table" if most == 2 else "catalog.namespace.table"
        yield FieldProblem(f"'{target.table}' is not the name of a table", (*path, "table"), f"write {shape}")
    if isinstance(target, PostgresqlTarget):
        right = target.lookback >= 0 if isinstance(target.lookback, int) else _LOOKBACK.fullmatch(target.lookback)
        if not right:
            yield FieldProblem("lookback must be days, such as 7 or 7d, or hours, such as 12h", (*path, "lookback"))
    elif target.when_not_matched not in ("insert", "skip"):
        yield FieldProblem("when_not_matched must be insert or skip", (*path, "when_not_matched"))


def _is_name(text: str, most: int) -> bool:
    parts = text.split(".")
    # What the profile fills in is looked at when it is.
    return "${" in text or (len(parts) <= most and all(_PART.fullmatch(part) for part in parts))
