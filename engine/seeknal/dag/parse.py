"""Parsing: a project's folder becomes a manifest, or a list of everything that is wrong with it.

- *draft*: a node as it stands in a file, with the place of each of its fields; becomes a Node of the manifest.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from seeknal.dag.manifest import Manifest, Node, NodeType
from seeknal.dag.names import check_node_name, did_you_mean, nearest
from seeknal.dag.project import Project, node_files
from seeknal.dag.sql import Sql, take_apart
from seeknal.dag.yaml_file import Document, KeyPath, load_documents
from seeknal.errors import Place, Problem, ProjectError
from seeknal.nodes.kind import Kind, Query
from seeknal.nodes.registry import KINDS, KINDS_TO_COME

# Fields that every kind has, and that are not part of a node's config.
IDENTITY_FIELDS = frozenset({"kind", "name"})
METADATA_FIELDS = frozenset({"description", "owner", "tags", "columns"})

# Fields that every kind accepts and keeps, beside those of its own Struct.
COMMON_FIELDS = frozenset({"inputs", "params", "schedule", "materialization", "materializations", "audits", "tests"})

# Accepted, but without an effect yet; each is named in a warning.
FIELDS_TO_COME = frozenset({"materialization", "materializations", "audits", "tests", "schedule"})


class _Description(msgspec.Struct, frozen=True):
    """The types of the fields that describe a node."""

    description: str | None = None
    owner: str | None = None
    tags: list[str] | None = None
    columns: dict[str, Any] | None = None
    schedule: str | None = None
    audits: list[Any] | None = None
    tests: list[Any] | None = None


@dataclass
class Draft:
    """A node as a file has it: its values and their places."""

    file: str
    document: Document
    path: KeyPath
    fields: dict[str, Any]
    kind: str = ""
    name: str = ""
    spec: Any = None
    inputs: list[str] = field(default_factory=list)
    declared_count: int = 0
    sql: Sql | None = None
    query: Query | None = None

    @property
    def id(self) -> str:
        return f"{self.kind}.{self.name}"

    def place(self, *path: str | int) -> Place:
        """Where a field stands; the nearest thing around it where the path leads nowhere."""
        keys: KeyPath = (*self.path, *path)
        while keys not in self.document.places and keys:
            keys = keys[:-1]
        spot = self.document.places.get(keys)
        return spot.place(self.file) if spot else Place(self.file)

    def place_in_text(self, path: tuple[str | int, ...], offset: int | None) -> Place:
        """Where a character of a text field stands in the file."""
        spot = self.document.places.get((*self.path, *path))
        value: Any = self.fields
        for key in path:
            value = value[key] if isinstance(value, dict | list) and (not isinstance(value, dict) or key in value) else None
        if offset is None or spot is None or not isinstance(value, str):
            return self.place(*path)
        return spot.place_in_text(self.file, value, offset)

    def place_in_query(self, offset: int | None) -> Place:
        """Where a character of the node's SQL stands in the file; the SQL's field for SQL that is not the user's."""
        if self.query is None:
            return self.place()
        return self.place_in_text(self.query.path, self.query.offset_in_field(offset))


@dataclass(frozen=True)
class ParsedProject:
    """What parsing gives: the manifest, and for each node its draft. ``warnings`` are for people only."""

    project: Project
    manifest: Manifest
    drafts: dict[str, Draft]
    warnings: list[Problem]


def parse_project(project: Project) -> ParsedProject:
    """Parse all of a project's node files.

    Raises ProjectError with every problem found.
    """
    return _Parser(project).parse()


def parse_manifest(project: Project, manifest: Manifest) -> ParsedProject:
    """Take a manifest for the project instead of its files. Problems then name files without lines.

    Raises ProjectError.
    """
    return _Parser(project).parse_nodes(manifest)


class _Parser:
    def __init__(self, project: Project) -> None:
        self.project = project
        self.problems: list[Problem] = []
        self.warnings: list[Problem] = list(project.warnings)
        self.drafts: dict[str, Draft] = {}
        self.by_name: dict[str, list[str]] = {}
        self.by_lower_id: dict[str, Draft] = {}

    def parse(self) -> ParsedProject:
        for file in node_files(self.project):
            self._read(file)
        return self._finish()

    def parse_nodes(self, manifest: Manifest) -> ParsedProject:
        for node in manifest.nodes.values():
            described = {"description": node.description, "owner": node.owner, "tags": node.tags, "columns": node.columns}
            said = {name: value for name, value in described.items() if value}
            fields = {"kind": node.kind, "name": node.name, **said, **node.config}
            self._add(Draft(node.file_path or "manifest.json", Document(fields), (), fields))
        return self._finish()

    def _finish(self) -> ParsedProject:
        if not self.drafts and not self.problems:
            self.problems.append(
                Problem(
                    "the project has no nodes",
                    Place("seeknal/"),
                    "add a .yml file to seeknal/, or start from `seeknal init --example environment-management`",
                )
            )
        for draft in self.drafts.values():
            self.by_name.setdefault(draft.name.lower(), []).append(draft.id)
        self._link()
        manifest = self._manifest()
        if self.problems:
            raise ProjectError(sorted(self.problems, key=_place_order))
        return ParsedProject(self.project, manifest, self.drafts, self.warnings)

    # one file

    def _read(self, file: Path) -> None:
        name = file.relative_to(self.project.root).as_posix()
        documents, problems = load_documents(file, name)
        self.problems += problems
        for document in documents:
            if isinstance(document.value, list):
                entries: list[tuple[KeyPath, Any]] = [((i,), value) for i, value in enumerate(document.value)]
            else:
                entries = [((), document.value)]
            for path, value in entries:
                spot = document.places.get(path)
                place = spot.place(name) if spot else Place(name)
                if not isinstance(value, dict):
                    self.problems.append(Problem("a node must be a mapping with kind and name", place))
                    continue
                if any(not isinstance(key, str) for key in value):
                    self.problems.append(Problem("the fields of a node must be words", place))
                    continue
                if problems:
                    continue
                self._add(Draft(name, document, path, value))

    def _add(self, draft: Draft) -> None:
        kind = self._kind(draft)
        draft.name = self._name(draft)
        if kind is None or not draft.name:
            return
        draft.kind = kind.name
        # Names of tables do not depend on case in SQL, so neither do names of nodes.
        twin = self.by_lower_id.setdefault(draft.id.lower(), draft)
        if twin is not draft:
            message = f"{draft.id} is declared twice; the other is at {twin.place('name')}"
            self.problems.append(Problem(message, draft.place("name"), "rename one"))
            return
        draft.inputs = self._declared_inputs(draft)
        draft.declared_count = len(draft.inputs)
        self._check_fields(draft, kind)
        self.drafts[draft.id] = draft

    def _kind(self, draft: Draft) -> Kind | None:
        if "kind" not in draft.fields:
            close = nearest("kind", draft.fields, 1)
            hint = f"'{close[0]}' looks like it" if close else f"add `kind:` with one of {', '.join(KINDS)}"
            self.problems.append(Problem("'kind' is missing", draft.place(), hint))
            return None
        kind = draft.fields["kind"]
        if isinstance(kind, str) and kind in KINDS:
            return KINDS[kind]
        place = draft.place("kind")
        if kind in KINDS_TO_COME:
            self.problems.append(Problem(f"kind '{kind}' is not available yet", place))
        else:
            self.problems.append(Problem(f"unknown kind '{kind}'", place, did_you_mean(str(kind), KINDS)))
        return None

    def _name(self, draft: Draft) -> str:
        if draft.fields.get("name") is None:
            self.problems.append(Problem("'name' is missing", draft.place(), "add `name:`"))
            return ""
        name = draft.fields["name"]
        if not isinstance(name, str):
            self.problems.append(Problem(f"'name' must be text, not {name!r}", draft.place("name"), "put it in quotes"))
            return ""
        wrong = check_node_name(name)
        if wrong:
            self.problems.append(Problem(f"name {name!r} is not allowed", draft.place("name"), wrong))
            return ""
        return name

    def _declared_inputs(self, draft: Draft) -> list[str]:
        found: list[str] = []
        for key in ("inputs", "depends_on"):
            entries = draft.fields.get(key)
            if entries is None or (key == "depends_on" and draft.kind != "exposure"):
                continue
            if isinstance(entries, str):
                entries = [entries]
            if not isinstance(entries, list):
                self.problems.append(
                    Problem(f"'{key}' must be a list", draft.place(key), f"write `{key}: [{{ref: source.orders}}]`")
                )
                continue
            for index, entry in enumerate(entries):
                reference = entry.get("ref") if isinstance(entry, dict) else entry
                if not isinstance(reference, str):
                    self.problems.append(
                        Problem("an input must name a node", draft.place(key, index), "write `- ref: source.orders`")
                    )
                elif reference not in found:
                    found.append(reference)
        return found

    # one node's fields

    def _check_fields(self, draft: Draft, kind: Kind) -> None:
        own = {entry.encode_name: entry for entry in msgspec.structs.fields(kind.spec)}
        known = {*own, *COMMON_FIELDS, *METADATA_FIELDS, *IDENTITY_FIELDS}
        before = len(self.problems)
        for name in draft.fields:
            if name not in known:
                self._unknown_field(draft, name, known)
            elif name in FIELDS_TO_COME and name not in own and draft.fields[name]:
                self.warnings.append(Problem(f"'{name}' has no effect yet", draft.place(name)))
        values: dict[str, Any] = {}
        for name, entry in own.items():
            if name not in draft.fields or (draft.fields[name] is None and not entry.required):
                if entry.required:
                    self.problems.append(Problem(f"'{name}' is missing", draft.place(), f"a {kind.name} needs it"))
                continue
            values[name] = draft.fields[name]
            self._check_type(draft, name, entry.type)
        for entry in msgspec.structs.fields(_Description):
            if draft.fields.get(entry.name) is not None:
                self._check_type(draft, entry.name, entry.type)
        if len(self.problems) > before:
            return
        try:
            draft.spec = msgspec.convert(values, kind.spec)
        except msgspec.ValidationError as error:
            self.problems.append(_type_problem(draft, (), str(error)))
            return
        for problem in kind.check(draft.spec, self.project):
            place = (
                draft.place(*problem.path)
                if problem.offset is None
                else draft.place_in_text(problem.path, problem.offset)
            )
            self.problems.append(Problem(problem.message, place, problem.hint))
        if len(self.problems) > before:
            draft.spec = None

    def _check_type(self, draft: Draft, name: str, type_: Any) -> None:
        try:
            msgspec.convert(draft.fields[name], type_)
        except msgspec.ValidationError as error:
            self.problems.append(_type_problem(draft, (name,), str(error)))
        except RecursionError:
            self.problems.append(Problem(f"'{name}' is nested too deeply", draft.place(name)))

    def _unknown_field(self, draft: Draft, name: str, known: set[str]) -> None:
        close = difflib.get_close_matches(name, known - {"kind", "name"}, n=1, cutoff=0.75)
        problem = Problem(
            f"unknown field '{name}' of a {draft.kind}", draft.place(name), f"did you mean '{close[0]}'?" if close else ""
        )
        (self.problems if close or self.project.settings.strict else self.warnings).append(problem)

    # the graph

    def _resolve_bare(self, name: str) -> list[str]:
        return self.by_name.get(name.lower(), [])

    def _link(self) -> None:
        for draft in self.drafts.values():
            resolved = []
            for reference in draft.inputs:
                target = self._resolve(reference)
                if target is None:
                    self.problems.append(
                        Problem(
                            f"input '{reference}' does not exist",
                            self._place_of_input(draft, reference),
                            did_you_mean(reference, self.drafts),
                        )
                    )
                elif not KINDS[self.drafts[target].kind].makes_table:
                    kind = self.drafts[target].kind
                    message = f"input '{reference}' is of kind {kind}, which has no rows to read"
                    self.problems.append(Problem(message, self._place_of_input(draft, reference)))
                elif target == draft.id:
                    self.problems.append(
                        Problem(f"{draft.id} is its own input", self._place_of_input(draft, reference))
                    )
                else:
                    resolved.append(target)
            draft.inputs = list(dict.fromkeys(resolved))
        texts = [draft for draft in self.drafts.values() if draft.spec is not None]
        if any(KINDS[draft.kind].query(draft.spec, draft.inputs) is not None for draft in texts):
            self._link_by_sql(texts)

    def _resolve(self, reference: str) -> str | None:
        twin = self.by_lower_id.get(reference.lower())
        return twin.id if twin is not None and twin.id in self.drafts else None

    def _place_of_input(self, draft: Draft, reference: str) -> Place:
        for key in ("inputs", "depends_on"):
            entries = draft.fields.get(key)
            for index, entry in enumerate(entries if isinstance(entries, list) else ()):
                if reference in (entry, entry.get("ref") if isinstance(entry, dict) else None):
                    return draft.place(key, index)
        return draft.place("inputs")

    def _link_by_sql(self, drafts: list[Draft]) -> None:
        from seeknal.dag.binding import Binder

        binder = Binder()
        try:
            for draft in drafts:
                query = KINDS[draft.kind].query(draft.spec, draft.inputs)
                if query is None:
                    continue
                draft.query = query
                if query.path and query.text != query.text[query.start : query.start + query.length]:
                    # The user's part on its own first: its errors are then about what stands in the file.
                    own = Query(query.text[query.start : query.start + query.length], query.path, 0, query.length)
                    alone = take_apart(own.text, self.drafts, self._resolve_bare, binder.connection)
                    if alone.problems:
                        draft.query = own
                        self._report(draft, alone)
                        continue
                sql = take_apart(query.text, self.drafts, self._resolve_bare, binder.connection)
                self._report(draft, sql)
                draft.sql = sql
                for node_id in sql.references:
                    if not KINDS[self.drafts[node_id].kind].makes_table:
                        message = f"{node_id} has no rows to read"
                        self.problems.append(Problem(message, draft.place(*query.path)))
                    elif node_id == draft.id:
                        self.problems.append(Problem(f"{draft.id} reads itself", draft.place(*query.path)))
                    elif node_id not in draft.inputs:
                        draft.inputs.append(node_id)
        finally:
            binder.close()

    def _report(self, draft: Draft, sql: Sql) -> None:
        for problem in sql.problems:
            self.problems.append(Problem(problem.message, draft.place_in_query(problem.offset), problem.hint))

    def _manifest(self) -> Manifest:
        manifest = Manifest(self.project.name, generated_at=datetime.now(UTC).isoformat(timespec="seconds"))
        for draft in self.drafts.values():
            manifest.add_node(node_of(draft))
        for draft in self.drafts.values():
            for node_id in draft.inputs:
                manifest.add_edge(node_id, draft.id)
        has_cycle, path = manifest.detect_cycles()
        if has_cycle:
            first = self.drafts[path[0]]
            self.problems.append(
                Problem(f"DAG contains cycle: {' -> '.join(path)}", first.place("inputs"), "remove one of these inputs")
            )
        return manifest


def node_of(draft: Draft) -> Node:
    """Make a manifest's node of a draft."""
    left_out = IDENTITY_FIELDS | METADATA_FIELDS
    return Node(
        id=draft.id,
        name=draft.name,
        node_type=NodeType(draft.kind),
        description=draft.fields.get("description"),
        owner=draft.fields.get("owner"),
        tags=list(draft.fields.get("tags") or ()),
        columns=dict(draft.fields.get("columns") or {}),
        config={key: value for key, value in draft.fields.items() if key not in left_out},
        file_path=draft.file,
    )


def _type_problem(draft: Draft, path: tuple[str | int, ...], message: str) -> Problem:
    """Put msgspec's ``Expected `str`, got `int` - at `$.params[0]``` into our words and place."""
    match = re.search(r" - at `\$(.*)`", message)
    inner: list[str | int] = list(path)
    if match:
        message = message[: match.start()]
        for key, index in re.findall(r"\.([^.\[\]]+)|\[(\d+|\.\.\.)\]", match[1]):
            if key:
                inner.append(key)
            elif index.isdigit():
                inner.append(int(index))
    message = message.replace("`", "").replace("str", "text").replace("dict", "object")
    shown = ".".join(str(key) for key in inner) or "the node"
    return Problem(f"'{shown}': {message[:1].lower()}{message[1:]}", draft.place(*inner))


def _place_order(problem: Problem) -> tuple[str, int, int]:
    place = problem.place
    return (place.file, place.line, place.column) if place else ("", 0, 0)
