"""What happened to one node between two manifests.

Every field that changed gives a :class:`~seeknal.dag.field_diff.Finding`; the worst of them is the node's category.
Where the output's schema is known on both sides, it decides about the columns, in place of all guesses.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import msgspec

from seeknal.dag.canonical import canonical_sql
from seeknal.dag.change import ChangeCategory, DiffType, NodeChange
from seeknal.dag.field_diff import (
    FIELD_COMPARISONS,
    KEY_FIELDS,
    Finding,
    compare_key,
    compare_source_type,
    compare_values,
)
from seeknal.dag.manifest import Node, NodeType
from seeknal.dag.schema_diff import Schema, SchemaDiff

BREAKING, NON_BREAKING, METADATA = ChangeCategory.BREAKING, ChangeCategory.NON_BREAKING, ChangeCategory.METADATA

_AGGREGATIONS = (NodeType.AGGREGATION, NodeType.SECOND_ORDER_AGGREGATION)
_INPUT_FIELDS = ("inputs", "depends_on")


class _Pair(msgspec.Struct, frozen=True):
    """Both states of a node, and the ids of the nodes that it reads, in its own order."""

    old: Node
    new: Node
    old_inputs: list[str]
    new_inputs: list[str]
    has_schemas: bool
    parser: Any


def compare_nodes(
    old: Node,
    new: Node,
    *,
    old_inputs: Sequence[str] = (),
    new_inputs: Sequence[str] = (),
    old_schema: Schema | None = None,
    new_schema: Schema | None = None,
    parser: Any = None,
) -> NodeChange | None:
    """Compare a node with its former self; None where nothing about it changed.

    ``…_inputs`` are the ids of the nodes that it reads, ``…_schema`` its output columns where they are known. A node
    that reads no other and whose schema changed has changed even if it says the same: its data did. ``parser`` is a
    DuckDB connection, used for its parser only; one is opened where it takes one and there is none.
    """
    pair = _Pair(
        old,
        new,
        _unique([*_declared_inputs(old), *old_inputs]),
        _unique([*_declared_inputs(new), *new_inputs]),
        old_schema is not None and new_schema is not None,
        parser,
    )
    findings = list(_findings(pair))
    if old_schema is not None and new_schema is not None:
        columns = SchemaDiff.between(old_schema, new_schema)
        findings = _decide_by_schemas(findings, columns, reads_nothing=not pair.new_inputs)
    if not findings:
        return None
    return NodeChange(
        node_id=new.id,
        change_type=DiffType.MODIFIED,
        category=max(finding.category for finding in findings),
        old_value=old,
        new_value=new,
        changed_fields=_unique(finding.name for finding in findings),
        changed_details=[detail for finding in findings for detail in finding.details],
        removed_columns=_unique(name for finding in findings for name in finding.removed_columns),
        added_columns=_unique(name for finding in findings for name in finding.added_columns),
    )


def _findings(pair: _Pair) -> Iterator[Finding]:
    old, new = pair.old, pair.new
    if old.node_type != new.node_type:
        yield Finding("kind", BREAKING, [f"kind: Changed from '{old.kind}' to '{new.kind}'"])
    for name in ("description", "owner", "tags", "columns"):
        before, after = getattr(old, name), getattr(new, name)
        if before != after:
            yield FIELD_COMPARISONS[name](name, before, after)
    yield from _compare_inputs(pair)
    for name in _unique([*new.config, *old.config]):
        before, after = old.config.get(name), new.config.get(name)
        if before != after and not _names_inputs(name, new):
            yield _compare_field(name, before, after, pair)
    if old.file_path != new.file_path:
        yield Finding("file_path", METADATA, [f"file_path: Moved from '{old.file_path}' to '{new.file_path}'"])


def _compare_field(name: str, before: Any, after: Any, pair: _Pair) -> Finding:
    if name == "transform" and all(value is None or isinstance(value, str) for value in (before, after)):
        return _compare_transform(before or "", after or "", pair)
    if name in KEY_FIELDS and pair.new.node_type in _AGGREGATIONS:
        return compare_key(name, before, after)
    if name == "source" and pair.new.node_type is NodeType.SOURCE:
        return compare_source_type(name, before, after)
    return FIELD_COMPARISONS.get(name, compare_values)(name, before, after)


def _compare_transform(before: str, after: str, pair: _Pair) -> Finding:
    if canonical_sql(before) == canonical_sql(after):
        return Finding("transform", METADATA, ["transform: Changed formatting or comments only"])
    # sqlglot costs a tenth of a second to import, so not before it is needed.
    from seeknal.dag.sql_diff import compare_sql, differs_in_case_only

    if pair.has_schemas and not differs_in_case_only(before, after):
        from seeknal.dag.clause_diff import changed_clauses

        lines = [f"transform: {line}" for line in changed_clauses(before, after, pair.parser)]
        return Finding("transform", NON_BREAKING, lines, NON_BREAKING)
    change = compare_sql(before, after, old_inputs=pair.old_inputs, new_inputs=pair.new_inputs)
    details = [f"transform: {detail}" for detail in change.details]
    if change.category == METADATA:
        return Finding("transform", METADATA, details)
    if pair.new.node_type in _AGGREGATIONS or pair.new.config.get("features"):
        # The query only feeds the features, and they make the output's columns.
        return Finding("transform", NON_BREAKING, details, NON_BREAKING)
    return Finding("transform", change.category, details, NON_BREAKING, change.removed_columns, change.added_columns)


def _compare_inputs(pair: _Pair) -> Iterator[Finding]:
    removed = [node_id for node_id in pair.old_inputs if node_id not in pair.new_inputs]
    added = [node_id for node_id in pair.new_inputs if node_id not in pair.old_inputs]
    if removed or added:
        details = [f"inputs: Removed '{node_id}'" for node_id in removed]
        details += [f"inputs: Added '{node_id}'" for node_id in added]
        yield Finding("inputs", BREAKING if removed else NON_BREAKING, details)
    elif pair.old_inputs != pair.new_inputs:
        yield Finding("inputs", NON_BREAKING, ["inputs: Changed the order"])
    elif any(pair.old.config.get(name) != pair.new.config.get(name) for name in _INPUT_FIELDS):
        # A list of names and a list of `ref:` mean the same. A mapping gives names that the query uses.
        has_names = any(isinstance(node.config.get("inputs"), dict) for node in (pair.old, pair.new))
        details = ["inputs: Wrote the same inputs in another way"]
        yield Finding("inputs", NON_BREAKING if has_names else METADATA, details)


def _decide_by_schemas(findings: list[Finding], columns: SchemaDiff, *, reads_nothing: bool) -> list[Finding]:
    """Replace guesses by what happened to the columns, told under the field that most likely caused it.

    What changed in a query beside its columns is no guess.
    """
    told_anyway = {f"transform: Changed how '{name}' is computed" for name, _, _ in columns.retyped}
    decided = [
        Finding(
            finding.name,
            finding.if_known,
            [line for line in finding.details if finding.name == "transform" and line not in told_anyway],
        )
        if finding.if_known is not None
        else finding
        for finding in findings
    ]
    causes = [index for index, finding in enumerate(decided) if finding.category != METADATA]
    if not causes:
        # No field of its own changes the output. If columns did change, its inputs did it, or its data.
        return [*decided, _columns_finding("schema", columns)] if reads_nothing and columns.category else decided
    cause = next((index for index in causes if findings[index].if_known is not None), causes[0])
    if columns.category is not None:
        told, own = _columns_finding(decided[cause].name, columns), decided[cause]
        category = max(told.category, own.category)
        decided[cause] = Finding(
            own.name, category, [*own.details, *told.details], None, told.removed_columns, told.added_columns
        )
    return [
        finding if finding.details or guess.if_known is None else _same_columns(finding)
        for finding, guess in zip(decided, findings, strict=False)
    ]


def _same_columns(finding: Finding) -> Finding:
    what = "Changed, with the same columns" if finding.category != METADATA else "Changed the documentation only"
    return Finding(finding.name, finding.category, [f"{finding.name}: {what}"])


def _columns_finding(name: str, columns: SchemaDiff) -> Finding:
    if name == "schema":
        details = columns.declaration_details(name)
    else:
        details = [f"{name}: {line}" for line in columns.query_details()]
    return Finding(name, columns.category or METADATA, details, None, columns.removed, columns.added)


def _names_inputs(name: str, node: Node) -> bool:
    return name in _INPUT_FIELDS or (name == "source" and node.node_type is NodeType.SECOND_ORDER_AGGREGATION)


def _declared_inputs(node: Node) -> Iterator[str]:
    """Yield the ids that the node's fields name: ``- source.orders``, ``- ref: source.orders``, ``{o: "ref:…"}``."""
    for name, value in node.config.items():
        if not _names_inputs(name, node):
            continue
        entries = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else [value]
        for entry in entries:
            reference = entry.get("ref") if isinstance(entry, dict) else entry
            if isinstance(reference, str):
                yield reference.removeprefix("ref:").strip()


def _unique(values: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(values))
