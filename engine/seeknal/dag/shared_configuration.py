"""Shared configuration: values that several nodes use, in ``seeknal/common``.

    sources.yml           sources: [{id, ref, params: {name: value}}]     {{ <id>.ref }}, {{ <id>.<name> }}
    rules.yml             rules: [{id, value}]                            {{ rules.<id> }}
    transformations.yml   transformations: [{id, sql}]                    {{ transforms.<id> }}

A rule's value is a predicate in SQL, a transformation's ``sql`` any piece of SQL. These files declare no nodes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from seeknal.dag.names import nearest
from seeknal.dag.project import Project, shared_files
from seeknal.dag.type_message import in_words
from seeknal.dag.yaml_file import Document, KeyPath, load_documents
from seeknal.errors import Place, Problem

# Not ids of sources: what a template would say with them means something else.
RESERVED_IDS = frozenset({"rules", "transforms", "env", "ref"})

# Accepted beside an entry's own fields; they are for readers.
_DESCRIBING = frozenset({"name", "description", "owner", "tags"})


class SharedSource(msgspec.Struct, frozen=True, kw_only=True):
    """A source as shared configuration names it. ``ref`` is a node's id; ``params`` are texts, numbers or the like."""

    id: str
    ref: str | None = None
    params: dict[str, Any] = {}


class SharedRule(msgspec.Struct, frozen=True, kw_only=True):
    """A predicate in SQL under a name."""

    id: str
    value: str


class SharedTransformation(msgspec.Struct, frozen=True, kw_only=True):
    """A piece of SQL under a name."""

    id: str
    sql: str


class SharedValue(msgspec.Struct, frozen=True):
    """A value, and where in which file it stands."""

    value: Any
    file: str = ""
    document: Document = msgspec.field(default_factory=lambda: Document({}))
    path: KeyPath = ()

    def place(self, offset: int | None = None) -> Place:
        if offset is None or not isinstance(self.value, str):
            return self.document.place(self.path, self.file)
        return self.document.place_in_text(self.path, self.file, self.value, offset)


class SharedConfiguration(msgspec.Struct):
    """What a project's shared files say: id → value; of sources id → name → value, ``ref`` among the names."""

    sources: dict[str, dict[str, SharedValue]] = {}
    rules: dict[str, SharedValue] = {}
    transforms: dict[str, SharedValue] = {}
    problems: list[Problem] = []
    warnings: list[Problem] = []

    def keys(self) -> list[str]:
        """Everything that can be named, as templates name it."""
        sources = [f"{id_}.{name}" for id_, values in self.sources.items() for name in values]
        return [*sources, *(f"rules.{id_}" for id_ in self.rules), *(f"transforms.{id_}" for id_ in self.transforms)]


# The files by name: the list's key, and the Struct of an entry.
_FILES: dict[str, tuple[str, type[msgspec.Struct]]] = {
    "sources": ("sources", SharedSource),
    "rules": ("rules", SharedRule),
    "transformations": ("transformations", SharedTransformation),
}


def read_shared_configuration(project: Project) -> SharedConfiguration:
    """Read a project's shared files; what is wrong with them stands in ``problems``."""
    found = SharedConfiguration()
    seen: dict[str, Path] = {}
    for path in shared_files(project):
        name = path.relative_to(project.root).as_posix()
        if path.stem in seen:
            found.problems.append(
                Problem(f"there is {seen[path.stem].name} already", Place(name), "put both into one file")
            )
            continue
        seen[path.stem] = path
        key, entry_type = _FILES[path.stem]
        _Reader(found, name, key, entry_type, strict=project.settings.strict).read(path)
    return found


class _Reader:
    """Reads one of the files."""

    def __init__(
        self, found: SharedConfiguration, file: str, key: str, entry_type: type[msgspec.Struct], *, strict: bool
    ) -> None:
        self._found = found
        self._file = file
        self._key = key
        self._type = entry_type
        self._strict = strict
        self._fields = {entry.name: entry for entry in msgspec.structs.fields(entry_type)}
        self._ids: set[str] = set()

    def read(self, path: Path) -> None:
        documents, problems = load_documents(path, self._file)
        self._found.problems += problems
        if problems or not documents:
            return
        document = documents[0]
        if len(documents) > 1:
            self._report("the file has a second document", documents[1], (), "put everything into one")
        if not isinstance(document.value, dict):
            self._report(f"the file must be a mapping with '{self._key}'", document, (), f"write `{self._key}:` first")
            return
        for key in document.value:
            if key != self._key:
                close = nearest(key, [self._key], 1)
                self._report(f"unknown key '{key}'", document, (key,), f"write `{self._key}:`" if close else "")
        entries = document.value.get(self._key)
        if entries is None:
            return
        if not isinstance(entries, list):
            self._report(f"'{self._key}' must be a list", document, (self._key,), "write `- id: …` for each entry")
            return
        for index, entry in enumerate(entries):
            self._read_entry(entry, document, (self._key, index))

    def _report(self, message: str, document: Document, path: KeyPath, hint: str = "") -> None:
        self._found.problems.append(Problem(message, document.place(path, self._file), hint))

    def _read_entry(self, entry: Any, document: Document, path: KeyPath) -> None:
        if not isinstance(entry, dict):
            self._report("an entry must be a mapping with 'id'", document, path)
            return
        wrong = False
        for name in entry:
            if name not in self._fields and name not in _DESCRIBING:
                wrong |= self._unknown(name, document, (*path, name))
        for name, field_ in self._fields.items():
            if entry.get(name) is None:
                if field_.required:
                    self._report(f"'{name}' is missing", document, path, f"write `{name}:`")
                    wrong = True
                continue
            try:
                msgspec.convert(entry[name], field_.type)
            except msgspec.ValidationError as error:
                self._report(f"'{name}': {in_words(str(error))[0]}", document, (*path, name))
                wrong = True
        if not wrong:
            self._take(entry, document, path)

    def _unknown(self, name: str, document: Document, path: KeyPath) -> bool:
        close = nearest(name, self._fields, 1)
        problem = Problem(
            f"unknown field '{name}'",
            document.place(path, self._file),
            f"did you mean '{close[0]}'?" if close else "",
        )
        is_wrong = bool(close) or self._strict
        (self._found.problems if is_wrong else self._found.warnings).append(problem)
        return is_wrong

    def _take(self, entry: dict[str, Any], document: Document, path: KeyPath) -> None:
        id_ = entry["id"]
        if not id_.strip():
            self._report("'id' is empty", document, (*path, "id"))
        elif id_ in self._ids:
            self._report(f"id '{id_}' is given twice", document, (*path, "id"), "rename one")
        elif self._type is SharedSource and id_ in RESERVED_IDS:
            self._report(f"id '{id_}' is reserved", document, (*path, "id"), "rename it")
        elif self._type is SharedSource:
            self._take_source(entry, document, path)
        else:
            field_ = "value" if self._type is SharedRule else "sql"
            into = self._found.rules if self._type is SharedRule else self._found.transforms
            into[id_] = SharedValue(entry[field_], self._file, document, (*path, field_))
        self._ids.add(id_)

    def _take_source(self, entry: dict[str, Any], document: Document, path: KeyPath) -> None:
        values = {
            name: SharedValue(value, self._file, document, (*path, "params", name))
            for name, value in (entry.get("params") or {}).items()
        }
        if entry.get("ref") is not None:
            values["ref"] = SharedValue(entry["ref"], self._file, document, (*path, "ref"))
        self._found.sources[entry["id"]] = values
