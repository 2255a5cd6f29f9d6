"""A draft: a node as it stands in a file, with the place of each of its fields. It becomes a Node of the manifest."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from seeknal.dag.manifest import Node, NodeType
from seeknal.dag.sql import Sql
from seeknal.dag.type_message import in_words
from seeknal.dag.yaml_file import Document, KeyPath
from seeknal.errors import Place, Problem
from seeknal.nodes.kind import Kind, Query
from seeknal.nodes.registry import KINDS

# Fields that every kind has, and that are not part of a node's config.
IDENTITY_FIELDS = frozenset({"kind", "name"})
METADATA_FIELDS = frozenset({"description", "owner", "tags", "columns"})


@dataclass
class Draft:
    """A node as a file has it.

    ``path`` leads to it in its document. ``spec`` is the kind's Struct, None where a field is wrong. ``inputs`` are
    the declared ones first, then those that other fields name, then those that only the SQL names. ``references`` are
    the second, lower case, with the paths to the fields.
    """

    file: str
    document: Document
    path: KeyPath
    fields: dict[str, Any]
    kind: str = ""
    name: str = ""
    spec: Any = None
    inputs: list[str] = field(default_factory=list)
    references: dict[str, tuple[str | int, ...]] = field(default_factory=dict)
    sql: Sql | None = None
    query: Query | None = None

    @property
    def id(self) -> str:
        return f"{self.kind}.{self.name}"

    @property
    def implementation(self) -> Kind:
        """What executes the node."""
        return KINDS[self.kind]

    def place(self, *path: str | int) -> Place:
        """Where a field stands; the nearest thing around it where the path leads nowhere."""
        return self.document.place((*self.path, *path), self.file)

    def place_in_text(self, path: tuple[str | int, ...], offset: int | None) -> Place:
        """Where a character of a text field stands in the file; the field where ``offset`` is None."""
        value: Any = self.fields
        for key in path:
            if isinstance(value, dict):
                value = value.get(str(key))
            else:
                value = value[int(key)] if isinstance(value, list) and int(key) < len(value) else None
        if offset is None or not isinstance(value, str):
            return self.place(*path)
        return self.document.place_in_text((*self.path, *path), self.file, value, offset)

    def place_in_query(self, offset: int | None) -> Place:
        """Where a character of the node's SQL stands in the file; the SQL's field for SQL that is not the user's."""
        if self.query is None:
            return self.place()
        if offset is not None and self.sql is not None:
            offset = self.sql.original_offset(offset)
        return self.place_in_text(self.query.path, self.query.offset_in_field(offset))

    def type_problem(self, path: tuple[str | int, ...], message: str) -> Problem:
        """Make a problem of what msgspec says about the type of the value at a path, or of one inside it."""
        said, inner = in_words(message)
        shown = ".".join(map(str, (*path, *inner))) or "the node"
        return Problem(f"'{shown}': {said}", self.place(*path, *inner))


def node_of(draft: Draft) -> Node:
    """Make a manifest's node of a draft; values of the wrong type are left out."""
    left_out = IDENTITY_FIELDS | METADATA_FIELDS
    tags, columns = draft.fields.get("tags"), draft.fields.get("columns")
    return Node(
        id=draft.id,
        name=draft.name,
        node_type=NodeType(draft.kind),
        description=draft.fields.get("description"),
        owner=draft.fields.get("owner"),
        tags=list(tags) if isinstance(tags, list) else [],
        columns=dict(columns) if isinstance(columns, dict) else {},
        config={key: value for key, value in draft.fields.items() if key not in left_out},
        file_path=draft.file,
    )
