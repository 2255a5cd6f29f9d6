"""A draft: a node as it stands in a file, with the place of each of its fields. It becomes a Node of the manifest."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from functools import cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import msgspec

from seeknal.dag.demands import Demands, ResourceFields, demands_of
from seeknal.dag.manifest import Node, NodeType
from seeknal.dag.rendering import RenderedNode
from seeknal.dag.sql import Sql
from seeknal.dag.type_message import in_words
from seeknal.dag.yaml_file import Document, KeyPath, RememberedDocument
from seeknal.errors import Place, Problem
from seeknal.nodes.function_reference import ROWS, FunctionReference
from seeknal.nodes.kind import Kind, Query
from seeknal.nodes.registry import implementation_of

if TYPE_CHECKING:
    from seeknal.dag.check_linking import LinkedCheck


class CommonFields(msgspec.Struct, frozen=True):
    """The fields of every node.

    - ``kind``: the kind of node
    - ``name``: a letter or ``_``, then letters, digits, ``_``, ``-`` or ``.``; no reserved word of SQL or Python; at
      most 128 characters; unique within the kind, whatever the case
    - ``description``: for people
    - ``owner``: for people
    - ``tags``: for people, and for ``--tags`` and ``--exclude-tags``
    - ``columns``: documentation of the output's columns
    - ``inputs``: the nodes that this one reads, each as ``- ref: kind.name`` or ``- kind.name``
    - ``params``: settings of the kind, and named values for templates
    - ``schedule``: when to run, as cron; kept
    - ``materialization``: where else to write the output; kept
    - ``materializations``: several of these; kept
    - ``audits``: checks of the output
    - ``tests``: checks of the output, in short
    - ``timeout``: how long one attempt may take, as seconds or ``5m``; one that takes longer is ended, and failed
    - ``resources``: what the node needs of the machine while it is executed
    """

    kind: str
    name: str
    description: str | None = None
    owner: str | None = None
    tags: list[str] | None = None
    columns: dict[str, Any] | None = None
    inputs: list[Any] | None = None
    params: dict[str, Any] | None = None
    schedule: str | None = None
    materialization: Any = None
    materializations: Any = None
    audits: list[Any] | None = None
    tests: list[Any] | None = None
    timeout: str | float | None = None
    resources: ResourceFields | None = None


# Those of them that are not part of a node's config.
IDENTITY_FIELDS = frozenset({"kind", "name"})
METADATA_FIELDS = frozenset({"description", "owner", "tags", "columns"})


# Of most nodes.
_NO_REFERENCES: Mapping[str, KeyPath] = MappingProxyType({})


class Draft(msgspec.Struct):
    """A node as a file has it.

    ``path`` leads to it in its document. ``spec`` is the kind's Struct, None where a field is wrong. ``inputs`` are
    the declared ones first, then those that other fields name, then those that only the SQL names. ``references`` are
    the second, lower case, with the paths to the fields. ``checks`` are of its inputs (a rule's), ``audits`` of its
    own output: from the fields ``audits`` and ``tests``.

    ``fields`` are as they are written, ``values`` with their templates filled in; ``spec``, ``sql`` and the checks are
    made of these. ``function`` gives a Python node's rows.
    """

    file: str
    document: Document | RememberedDocument
    path: KeyPath
    fields: dict[str, Any]
    kind: str = ""
    name: str = ""
    spec: Any = None
    inputs: list[str] = []
    references: Mapping[str, KeyPath] = _NO_REFERENCES
    sql: Sql | None = None
    query: Query | None = None
    checks: tuple[LinkedCheck, ...] = ()
    audits: tuple[LinkedCheck, ...] = ()
    rendered: RenderedNode | None = None
    function: FunctionReference | None = None

    @property
    def values(self) -> dict[str, Any]:
        """The fields with their templates filled in."""
        return self.rendered.values if self.rendered is not None else self.fields

    @property
    def params(self) -> dict[str, Any]:
        """The node's own params as its code sees them: rendered, and what the run gives under their names first."""
        if self.rendered is not None:
            return self.rendered.params
        params = self.fields.get("params")
        return dict(params) if isinstance(params, dict) else {}

    @property
    def uses(self) -> tuple[str, ...]:
        """The parameters and environment variables (``env:NAME``) that the node's templates used."""
        return self.rendered.uses if self.rendered is not None else ()

    @property
    def volatile(self) -> tuple[str, ...]:
        """The parameters among them that have another value in every run."""
        return self.rendered.volatile if self.rendered is not None else ()

    @property
    def demands(self) -> Demands:
        """What it needs of the machine while it is executed."""
        return demands_of(self.values)

    @property
    def uses_environment(self) -> bool:
        """Whether a value of the environment, which may be a secret, stands in its texts."""
        return any(name.startswith("env:") for name in self.uses)

    @property
    def is_code(self) -> bool:
        """Whether the node's rows come from a function."""
        return self.function is not None

    @property
    def id(self) -> str:
        return sys.intern(f"{self.kind}.{self.name}")

    @property
    def implementation(self) -> Kind:
        """What executes the node."""
        return implementation_of(self.kind, self.function)

    @property
    def checked(self) -> list[str]:
        """The tables that its checks see, the checked one first: the inputs, or the rows of its function."""
        return self.inputs if self.function is None else [ROWS]

    @property
    def always_runs(self) -> bool:
        """Whether the node runs every time, whatever is cached."""
        of_moment = bool(self.volatile) or any(linked.check.volatile for linked in self.checks)
        return self.implementation.always_runs(self.spec) or bool(self.checks and of_moment)

    @property
    def always_checks(self) -> bool:
        """Whether its output is checked every time, whatever is remembered."""
        return bool(self.audits) and (bool(self.volatile) or any(linked.check.volatile for linked in self.audits))

    def place(self, *path: str | int) -> Place:
        """Where a field stands; the nearest thing around it where the path leads nowhere."""
        return self.document.place((*self.path, *path), self.file)

    def place_in_text(self, path: tuple[str | int, ...], offset: int | None) -> Place:
        """Where a character of a text field, as rendered, stands in the file; the field where ``offset`` is None."""
        text = self.rendered.texts.get(path) if self.rendered is not None else None
        if text is not None and offset is not None:
            offset = text.source_offset(offset)
        return self.place_in_written(path, offset)

    def place_in_written(self, path: tuple[str | int, ...], offset: int | None) -> Place:
        """Where a character of a text field, as it is written, stands in the file; the field where it is None."""
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
        return self.place_in_text(*self.query.field_at(offset))

    def type_problem(self, path: tuple[str | int, ...], message: str) -> Problem:
        """Make a problem of what msgspec says about the type of the value at a path, or of one inside it."""
        said, inner = in_words(message)
        shown = ".".join(map(str, (*path, *inner))) or "the node"
        return Problem(f"'{shown}': {said}", self.place(*path, *inner))


def spec_fields(draft: Draft) -> dict[str, Any]:
    """The fields that the kind's Struct reads, with their templates filled in."""
    own = _field_names(draft.implementation.spec)
    said = {name: value for name, value in draft.values.items() if name in own and value is not None}
    if draft.is_code and "params" in own:
        said["params"] = draft.params
    return {**said, **draft.implementation.supplied()}


@cache
def _field_names(spec: type[msgspec.Struct]) -> frozenset[str]:
    return frozenset(entry.encode_name for entry in msgspec.structs.fields(spec))


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
