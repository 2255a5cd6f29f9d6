"""JSON Schemas of the project's YAML, for editors: which fields there are, their types, and what they mean.

They are made from the Structs that reading YAML checks against, so they cannot say something else. What the Structs do
not say (columns, names of nodes, what goes together) is for `seeknal plan`. Fields that no Struct has are allowed: the
plan warns of them.

- *node schema*: of a file of nodes: one node or a list of them, each by its kind.
- *kind schema*: of a node of one kind.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import msgspec

from seeknal.dag.draft import CommonFields
from seeknal.dag.field_documentation import field_texts, structs_within, summary
from seeknal.dag.linking import INPUT_FIELDS
from seeknal.dag.names import did_you_mean
from seeknal.dag.project import ProjectSettings
from seeknal.errors import NotFoundError
from seeknal.nodes.registry import DECLARABLE_KINDS, KINDS

# What editors understand best.
DIALECT = "http://json-schema.org/draft-07/schema#"

NODE, PROJECT = "node", "project"

# Where a project keeps them, for the comments in its files that editors look for.
FOLDER = ".seeknal/schema"

_REFERENCE = "#/definitions/"

_INPUTS = {
    "type": "array",
    "items": {
        "anyOf": [
            {"type": "string", "description": "A node, as `kind.name`."},
            {
                "type": "object",
                "properties": {"ref": {"type": "string", "description": "A node, as `kind.name`."}},
                "required": ["ref"],
            },
        ]
    },
}


def schema_names() -> list[str]:
    """What there is a schema of: files of nodes, the project file, and each kind."""
    return [NODE, PROJECT, *DECLARABLE_KINDS]


def json_schema(name: str) -> dict[str, Any]:
    """Give a schema by its name. Raises NotFoundError."""
    if name == PROJECT:
        return _project_schema()
    if name == NODE:
        return _node_schema()
    if name not in DECLARABLE_KINDS:
        raise NotFoundError(f"there is no schema of '{name}'", hint=did_you_mean(name, schema_names()))
    structs = _Structs([CommonFields, KINDS[name].spec])
    structs.taken_out(CommonFields)
    return {"$schema": DIALECT, **_kind_schema(name, structs), "definitions": structs.definitions}


def schema_files() -> dict[str, bytes]:
    """All schemas as files, by name."""
    return {f"{name}.json": schema_text(json_schema(name)).encode() for name in schema_names()}


def schema_text(schema: dict[str, Any]) -> str:
    """A schema as text; equal schemas give equal texts."""
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def schema_comment(depth: int, name: str = NODE) -> str:
    """The first line of a YAML file so many folders below the project's: it tells editors which schema holds."""
    return f"# yaml-language-server: $schema={'../' * depth}{FOLDER}/{name}.json\n"


def _project_schema() -> dict[str, Any]:
    structs = _Structs([ProjectSettings])
    return {"$schema": DIALECT, "title": "Seeknal project", **structs.taken_out(ProjectSettings)}


def _node_schema() -> dict[str, Any]:
    structs = _Structs([CommonFields, *(KINDS[kind].spec for kind in DECLARABLE_KINDS)])
    structs.taken_out(CommonFields)
    kinds = {f"kind.{kind}": _kind_schema(kind, structs) for kind in DECLARABLE_KINDS}
    chosen = [
        {
            "if": {"properties": {"kind": {"const": kind}}, "required": ["kind"]},
            "then": {"$ref": f"#/definitions/kind.{kind}"},
        }
        for kind in DECLARABLE_KINDS
    ]
    node = {
        "type": "object",
        "properties": {"kind": {"enum": list(DECLARABLE_KINDS), "description": field_texts(CommonFields)["kind"]}},
        "required": ["kind", "name"],
        "allOf": chosen,
    }
    return {
        "$schema": DIALECT,
        "title": "Seeknal nodes",
        "description": "One node, or a list of nodes.",
        "if": {"type": "array"},
        "then": {"items": {"$ref": f"#/definitions/{NODE}"}},
        "else": {"$ref": f"#/definitions/{NODE}"},
        "definitions": {NODE: node, **kinds, **structs.definitions},
    }


def _kind_schema(kind: str, structs: _Structs) -> dict[str, Any]:
    """The schema of a kind's nodes: the fields of every node, and the kind's own."""
    own = structs.taken_out(KINDS[kind].spec)
    properties = dict(structs.taken_out(CommonFields)["properties"])
    properties["kind"] = {"const": kind, "description": properties["kind"]["description"]}
    properties |= own["properties"]
    for name in INPUT_FIELDS:
        if name in properties:
            properties[name] = {**_INPUTS, "description": properties[name].get("description", "")}
    return {
        "title": kind,
        "description": own["description"],
        "type": "object",
        "properties": properties,
        "required": ["kind", "name", *own["required"]],
    }


class _Structs:
    """The schemas of Structs and of all that they consist of, with what their docstrings say."""

    def __init__(self, types: Iterable[type[msgspec.Struct]]) -> None:
        found = list(dict.fromkeys(struct for type_ in types for struct in structs_within(type_)))
        references, self.definitions = msgspec.json.schema_components(found, ref_template=f"{_REFERENCE}{{name}}")
        self._names = {
            struct: reference["$ref"].removeprefix(_REFERENCE)
            for struct, reference in zip(found, references, strict=True)
        }
        self._taken: dict[type[msgspec.Struct], dict[str, Any]] = {}
        for struct, name in self._names.items():
            _document(self.definitions[name], struct)

    def taken_out(self, struct: type[msgspec.Struct]) -> dict[str, Any]:
        """The schema of a Struct, which then is no definition any more. Kinds may share one."""
        if struct not in self._taken:
            self._taken[struct] = self.definitions.pop(self._names[struct])
        return self._taken[struct]


def _document(definition: dict[str, Any], struct: type[msgspec.Struct]) -> None:
    definition.pop("title", None)
    definition["description"] = summary(struct)
    for name, text in field_texts(struct).items():
        said = definition["properties"].get(name)
        if said is not None:
            # What stands beside a reference does not count.
            held = {"allOf": [said]} if "$ref" in said else said
            definition["properties"][name] = {**held, "description": text}
