"""What the change of one field of a node means, from the field's two values alone.

A *finding* says how bad a changed field is, and what there is to tell people. Most findings stand by themselves: a
changed entity key is BREAKING whatever else the node says. Others are a *guess* at what happens to the output
columns; they hold only where the schemas of the output are unknown.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from seeknal.dag.change import ChangeCategory
from seeknal.dag.schema_diff import SchemaDiff

BREAKING, NON_BREAKING, METADATA = ChangeCategory.BREAKING, ChangeCategory.NON_BREAKING, ChangeCategory.METADATA

KEY_FIELDS = frozenset({"id_col", "group_by", "feature_date_col", "application_date_col"})
# Fields whose values are printed. Those of others are too long, or may hold a password (params, url, …).
_PRINTED_FIELDS = KEY_FIELDS | {"owner", "tags", "source", "table", "type", "path", "format", "mode", "engine"}


class Finding(msgspec.Struct, frozen=True):
    """What one changed field means; for a guess, ``if_known`` is what it means beside known schemas."""

    name: str
    category: ChangeCategory
    details: list[str] = []
    if_known: ChangeCategory | None = None
    removed_columns: list[str] = []
    added_columns: list[str] = []


def compare_values(name: str, before: Any, after: Any) -> Finding:
    """Judge a field of which nothing more is known: it takes part in what the node computes."""
    return Finding(name, NON_BREAKING, value_details(name, before, after))


def compare_metadata(name: str, before: Any, after: Any) -> Finding:
    """Judge a field that no output depends on. A description gets no line: that it changed is all there is to say."""
    return Finding(name, METADATA, [] if name == "description" else value_details(name, before, after))


def compare_key(name: str, before: Any, after: Any) -> Finding:
    """Judge what the rows of an aggregation stand for; the order of the same ``group_by`` columns is no key."""
    are_lists = isinstance(before, list) and isinstance(after, list)
    is_same_key = are_lists and sorted(map(str, before)) == sorted(map(str, after))
    return Finding(name, NON_BREAKING if is_same_key else BREAKING, value_details(name, before, after))


def compare_source_type(name: str, before: Any, after: Any) -> Finding:
    """Judge ``source: csv`` that becomes another: the same columns may come from there, or not."""
    return Finding(name, BREAKING, value_details(name, before, after), NON_BREAKING)


def compare_declared_schema(name: str, before: Any, after: Any) -> Finding:
    """Judge the columns that a source declares as ``[{name, data_type}]``."""
    columns = SchemaDiff.between(_declared_schema(before), _declared_schema(after))
    details = columns.declaration_details(name) or value_details(name, before, after)
    return Finding(name, columns.category or NON_BREAKING, details, NON_BREAKING, columns.removed, columns.added)


def compare_columns(name: str, before: Any, after: Any) -> Finding:
    """Judge the documented columns: which there are and their types is a promise, what is written about them is not."""
    old, new = _column_types(before), _column_types(after)
    # A type that only one side states is no change of type.
    columns = SchemaDiff.between(
        {column: dtype or new.get(column, "") for column, dtype in old.items()},
        {column: dtype or old.get(column, "") for column, dtype in new.items()},
    )
    category = BREAKING if columns.removed or columns.retyped else NON_BREAKING if columns.added else METADATA
    if category == METADATA:
        return Finding(name, METADATA, [f"{name}: Changed descriptions only"])
    return Finding(name, category, columns.declaration_details(name), METADATA, columns.removed, columns.added)


def compare_entity(name: str, before: Any, after: Any) -> Finding:
    """Judge an entity, ``user`` or ``{name, join_keys, description}``: its name and its keys count."""
    if _entity_key(before) == _entity_key(after):
        return Finding(name, METADATA, [f"{name}: Changed the description only"])
    return Finding(name, BREAKING, [f"{name}: Changed the entity or its join keys"])


def compare_features(name: str, before: Any, after: Any) -> Finding:
    """Judge features, a list of ``{name, …}`` or a mapping of names to what they are."""
    old, new = _features(before), _features(after)
    category, details = METADATA, []
    for feature in [*old, *(feature for feature in new if feature not in old)]:
        if feature not in new:
            severity, what = BREAKING, f"{name}: Removed '{feature}'"
        elif feature not in old:
            severity, what = NON_BREAKING, f"{name}: Added '{feature}'"
        elif old[feature] == new[feature]:
            continue
        else:
            severity = _compare_feature(old[feature], new[feature])
            what = f"{name}.{feature}: Changed" + (" the description only" if severity == METADATA else "")
        category = max(category, severity)
        details.append(what)
    if not details:
        category, details = NON_BREAKING, [f"{name}: Changed the order"]
    return Finding(name, category, details, None if category == METADATA else NON_BREAKING)


def compare_output_columns(name: str, before: Any, after: Any) -> Finding:
    """Judge the names of a model's prediction columns."""
    columns = SchemaDiff.between(_names(before), _names(after))
    details = [f"{name}: {line}" for line in columns.query_details()] or value_details(name, before, after)
    return Finding(name, columns.category or NON_BREAKING, details, NON_BREAKING, columns.removed, columns.added)


def compare_function(name: str, before: Any, after: Any) -> Finding:
    """Judge the function that gives a node's rows: what it gives can be another, its columns are not known."""
    what = "function changed" if before and after else "now given by a function" if after else "no longer a function"
    return Finding(name, NON_BREAKING, [f"{name}: {what}"])


def value_details(name: str, before: Any, after: Any) -> list[str]:
    """Tell how a value changed; for mappings and lists of words, entry by entry."""
    if isinstance(before, dict | None) and isinstance(after, dict | None):
        before, after = before or {}, after or {}
        keys = [*before, *(key for key in after if key not in before)]
        changed = [key for key in keys if before.get(key) != after.get(key)]
        return [f"{name}.{key}: {_verb(before.get(key), after.get(key))}" for key in changed]
    if name in _PRINTED_FIELDS and _are_words(before) and _are_words(after):
        lines = [f"{name}: Removed '{word}'" for word in before if word not in after]
        lines += [f"{name}: Added '{word}'" for word in after if word not in before]
        return lines or [f"{name}: Changed the order"]
    if name in _PRINTED_FIELDS and isinstance(before, str) and isinstance(after, str):
        return [f"{name}: Changed from '{before}' to '{after}'"]
    return [f"{name}: {_verb(before, after)}"]


FIELD_COMPARISONS: dict[str, Callable[[str, Any, Any], Finding]] = {
    "description": compare_metadata,
    "owner": compare_metadata,
    "tags": compare_metadata,
    "audits": compare_metadata,
    "tests": compare_metadata,
    "timeout": compare_metadata,
    "resources": compare_metadata,
    "columns": compare_columns,
    "schema": compare_declared_schema,
    "entity": compare_entity,
    "features": compare_features,
    "join_keys": compare_key,
    "output_columns": compare_output_columns,
    "function": compare_function,
}


def _verb(before: Any, after: Any) -> str:
    return "Added" if before is None else "Removed" if after is None else "Changed"


def _are_words(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(word, str) for word in value)


def _names(value: Any) -> dict[str, str]:
    return {str(name): "" for name in value} if isinstance(value, list) else {}


def _declared_schema(value: Any) -> dict[str, str]:
    entries = [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else []
    return {str(entry["name"]): str(entry.get("data_type", "")) for entry in entries if "name" in entry}


def _column_types(value: Any) -> dict[str, str]:
    columns = value if isinstance(value, dict) else {}
    types = {column: entry.get("dtype") if isinstance(entry, dict) else None for column, entry in columns.items()}
    return {str(column): str(dtype or "") for column, dtype in types.items()}


def _entity_key(value: Any) -> tuple[str, list[Any]]:
    if isinstance(value, dict):
        name = str(value.get("name", ""))
        return name, list(value.get("join_keys") or [f"{name}_id"])
    return str(value), [f"{value}_id"]


def _features(value: Any) -> dict[str, Any]:
    if isinstance(value, dict):
        return {str(name): feature for name, feature in value.items()}
    entries = [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else []
    return {str(entry.get("name")): entry for entry in entries}


def _compare_feature(before: Any, after: Any) -> ChangeCategory:
    """Judge a feature that is still there. Each entry of its lists (``basic: [sum]``) makes an output column."""
    if not (isinstance(before, dict) and isinstance(after, dict)):
        # A feature that is only described, `age: Age in years`, or not described yet.
        return METADATA if all(value is None or isinstance(value, str) for value in (before, after)) else NON_BREAKING
    category = METADATA
    for key in before.keys() | after.keys():
        old, new = before.get(key), after.get(key)
        if old == new or key == "description":
            continue
        category = max(category, NON_BREAKING)
        if isinstance(old, dict) or (isinstance(old, list) and any(entry not in (new or []) for entry in old)):
            category = BREAKING
        if key == "dtype" and old and new:
            category = BREAKING
    return category
