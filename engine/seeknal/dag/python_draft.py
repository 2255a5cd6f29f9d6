"""A function with a decorator as a draft: the decorator's keywords become the fields that YAML has.

``sql`` is ``transform:``, ``query`` and ``connection`` of a source are its params, and a keyword that is no field of
the kind is one of the node's params. The field ``function`` says which function gives the rows; a function with nothing
in it gives none, and is not mentioned.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

import msgspec

from seeknal.dag.draft import CommonFields, Draft
from seeknal.dag.manifest import Node
from seeknal.dag.yaml_file import Document, KeyPath, Spot
from seeknal.nodes.function_reference import FunctionReference
from seeknal.nodes.registry import KINDS
from seeknal.pipeline.discovered import FoundFile, FoundNode

_COMMON_FIELDS = frozenset(CommonFields.__struct_fields__)

_RENAMED = {"sql": "transform"}
# Keywords that say something about the function, not about the node.
_OF_FUNCTION = frozenset({"reads_outside"})


def drafts_of(found: FoundFile, text: str) -> Iterator[Draft]:
    """Make the drafts of a file's nodes; ``text`` is the file's."""
    for node in found.nodes:
        fields: dict[str, Any] = {"kind": node.kind, "name": node.name}
        places: dict[KeyPath, Spot] = {}
        for place in node.places:
            spot = Spot(place.line, place.column, place.start, place.end, place.style)
            places[_field_path(node.kind, place.path)] = spot
        for keyword, value in node.keywords.items():
            _put(fields, _field_path(node.kind, (keyword,)), value)
        if node.targets:
            fields["materializations"] = [*(fields.get("materializations") or ()), *node.targets]
        if node.kind == "source" and node.empty:
            fields.setdefault("source", "csv")
        function = None
        if not node.empty:
            function = _function(found, node)
            fields["function"] = {"name": function.name, "digest": function.digest}
            for index, reference in enumerate(node.references):
                places["function", "references", index] = Spot(reference.line, reference.column, 0, 0, None)
        yield Draft(found.file, Document(fields, places, text), (), fields, function=function)


def function_of(found: FoundFile, node: Node) -> FunctionReference | None:
    """The function of a manifest's node, None where the file does not declare it (any more)."""
    for entry in found.nodes:
        if f"{entry.kind}.{entry.name}".lower() == node.id.lower() and not entry.empty:
            return _function(found, entry)
    return None


def _function(found: FoundFile, node: FoundNode) -> FunctionReference:
    reads: dict[str, tuple[str, ...] | None] = {}
    for reference in node.references:
        key = reference.node_id.lower()
        before = reads.get(key, ())
        if node.reads_unseen or before is None or reference.columns is None:
            reads[key] = None
        else:
            reads[key] = tuple(dict.fromkeys([*before, *reference.columns]))
    promised = node.keywords.get("reads_outside")
    return FunctionReference(
        node_id=f"{node.kind}.{node.name}",
        file=found.file,
        name=node.function,
        digest=node.digest,
        line=next((place.line for place in node.places if place.path == ("function",)), 0),
        files=found.files,
        reads=reads,
        references=tuple(reference.node_id for reference in node.references),
        reads_outside=promised if isinstance(promised, bool) else node.reads_outside,
    )


def _field_path(kind: str, path: KeyPath) -> KeyPath:
    """The path of the field that a keyword is, or of the param."""
    if not path or path[0] in ("function", "name", "kind", "params"):
        return path
    name = _RENAMED.get(str(path[0]), str(path[0]))
    if name in _COMMON_FIELDS or name in _OF_FUNCTION or name in _own_fields(kind):
        return (name, *path[1:])
    return ("params", *path)


def _put(fields: dict[str, Any], path: KeyPath, value: Any) -> None:
    name = str(path[0])
    if name in _OF_FUNCTION:
        return
    if len(path) == 1:
        # Params that were given one by one stand beside those that were given as a mapping.
        if name == "params" and isinstance(value, dict) and isinstance(fields.get("params"), dict):
            value = {**value, **fields["params"]}
        fields[name] = value
        return
    params = fields.setdefault("params", {})
    if isinstance(params, dict):
        params[str(path[1])] = value


@cache
def _own_fields(kind: str) -> frozenset[str]:
    """A kind's own fields; ``table`` and the like are those of a source whatever gives its rows."""
    if kind not in KINDS:
        return frozenset()
    return frozenset(entry.encode_name for entry in msgspec.structs.fields(KINDS[kind].spec))
