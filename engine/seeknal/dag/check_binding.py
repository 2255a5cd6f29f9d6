"""Binding of checks: what is wrong with them for the real columns, and which columns they read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from seeknal.dag.binding import BindError, Schema
from seeknal.dag.check_linking import LinkedCheck
from seeknal.dag.draft import Draft
from seeknal.dag.names import did_you_mean, find_name
from seeknal.dag.project_memo import RememberingBinder
from seeknal.errors import Problem
from seeknal.nodes.check import Check
from seeknal.nodes.check_sql import constants, is_moment, is_number
from seeknal.nodes.profile_metrics import PROFILE_COLUMNS

Reads = dict[str, tuple[str, ...] | None]


class BoundChecks(msgspec.Struct):
    """What binding a list of checks told: problems, and the columns read of each table (None: all)."""

    problems: list[Problem] = []
    reads: Reads = {}

    def read(self, table: str, columns: Sequence[str] | None) -> None:
        known = self.reads.get(table, ())
        both = None if columns is None or known is None else tuple(dict.fromkeys([*known, *columns]))
        self.reads[table] = both


def bind_checks(
    draft: Draft,
    checks: Sequence[LinkedCheck],
    tables: Sequence[str],
    schemas: Mapping[str, Schema | None],
    binder: RememberingBinder,
    declare: Callable[[str, Schema], None],
) -> BoundChecks:
    """Bind the checks of a draft over these tables, the checked one first; what is not known yet is not checked.

    ``declare`` makes a table's columns known to the binder.
    """
    found = BoundChecks()
    for linked in checks:
        if linked.sql is not None:
            _bind_sql(draft, linked, tables, schemas, binder, declare, found)
        schema = schemas.get(tables[0])
        if linked.check.family in ("profile", "model"):
            # Of a model its metrics count too, which stand beside its table.
            found.read(tables[0], None)
            if linked.check.family == "model" and not tables[0].startswith("model."):
                place = draft.place(*linked.path)
                message = f"{draft.id}: {linked.check.type} is a check of models, and {tables[0]} is none"
                found.problems.append(Problem(message, place))
        elif linked.check.family != "sql":
            # Of a table that is only counted, no column is read.
            names = [schema and find_name(column, schema) for column in linked.check.columns]
            found.read(tables[0], [name for name in names if name] if schema is not None else None)
        if schema is not None:
            for message, key, hint in _wrong(linked.check, schema, binder):
                place = draft.place(*_key_path(draft, linked.path, key))
                found.problems.append(Problem(f"{draft.id}: {message}", place, hint))
    return found


def _key_path(draft: Draft, path: tuple[str | int, ...], key: str) -> tuple[str | int, ...]:
    """The path to a check's field, in whichever of its forms it is written."""
    value: Any = draft.fields
    for part in path:
        value = value[part]
    if not isinstance(value, dict):
        return path
    for name in (key, key.removesuffix("s")):
        if name in value:
            return (*path, name)
    for name, inner in value.items():
        if isinstance(inner, dict) and key in inner:
            return (*path, name, key)
    return path


def _wrong(check: Check, schema: Schema, binder: RememberingBinder) -> list[tuple[str, str, str]]:
    """What is wrong with a check for a table with these columns: message, field and hint."""
    if check.family == "profile":
        missing = [name for name in PROFILE_COLUMNS if name not in schema]
        if missing:
            return [("a profile_check needs a profile as its input", "type", "make a node of kind profile the input")]
        return []
    found = [
        (f"{check.label}: no column '{column}'", "columns", did_you_mean(column, schema))
        for column in check.columns
        if find_name(column, schema) is None
    ]
    if found:
        return found
    types = [schema[str(find_name(column, schema))] for column in check.columns]
    if check.family == "freshness" and not is_moment(types[0]):
        message = f"{check.label}: the column is {types[0]}, and an age needs a date or a timestamp"
        return [(message, "columns", "cast it in a transform")]
    if check.family == "range" and not is_number(types[0]):
        bounds = [bound for bound in (check.minimum, check.maximum) if isinstance(bound, (int, float))]
        if bounds:
            message = f"{check.label}: the column is {types[0]}, which {bounds[0]} cannot be compared with"
            return [(message, "columns", "cast it in a transform")]
    for value, sql in constants(check, schema):
        if not binder.evaluates(sql):
            key = "values" if check.values else "min_val" if value == check.minimum else "max_val"
            found.append((f"{check.label}: {value!r} is no {types[0]}", key, ""))
    return found


def _bind_sql(
    draft: Draft,
    linked: LinkedCheck,
    tables: Sequence[str],
    schemas: Mapping[str, Schema | None],
    binder: RememberingBinder,
    declare: Callable[[str, Schema], None],
    found: BoundChecks,
) -> None:
    sql, query = linked.sql, linked.query
    assert sql is not None
    assert query is not None
    used = dict.fromkeys([*sql.references, *(tables[index] for _, index in sql.positions)])
    if any(schemas.get(name) is None for name in used):
        for name in used:
            found.read(name, None)
        return
    for name in used:
        schema = schemas[name]
        assert schema is not None
        declare(name, schema)
    try:
        bound = binder.bind(sql, tables)
    except BindError as error:
        problem = error.problem
        if problem.message.startswith("two output columns"):
            for name in used:
                found.read(name, None)
            return
        offset = problem.offset if problem.offset is None else sql.original_offset(problem.offset)
        place = draft.place_in_text(query.path, query.offset_in_field(offset))
        found.problems.append(Problem(f"{draft.id}: {linked.check.label}: {problem.message}", place, problem.hint))
        return
    for name, columns in bound.reads.items():
        found.read(name, columns)
