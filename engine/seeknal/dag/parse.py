"""Parsing: a project's folder becomes a manifest, or a list of everything that is wrong with it."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import msgspec

from seeknal.dag.demands import demand_problems
from seeknal.dag.draft import IDENTITY_FIELDS, CommonFields, Draft, spec_fields
from seeknal.dag.entities import entity_drafts
from seeknal.dag.linking import INPUT_FIELDS, Linker, link_again
from seeknal.dag.manifest import Manifest, NodeType
from seeknal.dag.names import check_node_name, did_you_mean, nearest, shown
from seeknal.dag.parameters import RunParameters
from seeknal.dag.project import Project, linked_folders, node_files, python_files
from seeknal.dag.project_memo import ProjectMemo
from seeknal.dag.python_draft import drafts_of, function_of
from seeknal.dag.python_file import find_python_nodes, problem_of
from seeknal.dag.rendering import Renderer, TemplateProblem
from seeknal.dag.schedule import check_schedule
from seeknal.dag.yaml_file import Document, KeyPath
from seeknal.errors import Place, Problem, ProjectError
from seeknal.nodes.external_target import target_problems
from seeknal.nodes.kind import FieldProblem, Kind
from seeknal.nodes.registry import DECLARABLE_KINDS, KINDS
from seeknal.pipeline.discovered import FoundFile
from seeknal.pipeline.project_files import OWN_NAMES
from seeknal.redaction import show_names
from seeknal.timeline import timed

# Accepted, but without an effect yet; each is named in a warning.
FIELDS_TO_COME = frozenset({"schedule"})


class IncompleteProjectError(ProjectError):
    """Some nodes cannot be read. ``sound`` is the part of the project that does not depend on them, if there is one."""

    def __init__(self, problems: Iterable[Problem], sound: ParsedProject | None) -> None:
        super().__init__(problems)
        self.sound = sound


@dataclass(frozen=True)
class ParsedProject:
    """What parsing gives: the manifest, and for each node its draft. ``warnings`` are for people only.

    ``imported`` are the Python files that it took, from the project's root; ``repeatable`` says whether importing them
    would find the same again while they stand. ``memo`` is where it was remembered, for what comes next.
    """

    project: Project
    manifest: Manifest
    drafts: dict[str, Draft]
    warnings: list[Problem]
    renderer: Renderer
    imported: tuple[str, ...] = ()
    repeatable: bool = True
    memo: ProjectMemo = field(default_factory=ProjectMemo)

    @property
    def parameters(self) -> RunParameters:
        """What the run is given, and what templates asked of that."""
        return self.renderer.parameters

    def at_run(self, node_id: str, connection: Any) -> Draft:
        """The node as it is executed: with the real values of the volatile names that it uses.

        ``connection`` is a DuckDB connection, used for its parser only. Raises ProjectError.
        """
        draft = self.drafts[node_id]
        if not draft.volatile:
            return draft
        rendered = self.renderer.render(draft.fields, real=True, code=draft.is_code)
        real = replace(draft, rendered=rendered)
        if rendered.problems:
            raise ProjectError([_template_problem(real, problem) for problem in rendered.problems])
        real.spec = msgspec.convert(spec_fields(real), draft.implementation.spec)
        link_again(real, self.drafts, connection)
        return real


@timed("parse")
def parse_project(
    project: Project, parameters: RunParameters | None = None, memo: ProjectMemo | None = None
) -> ParsedProject:
    """Parse all of a project's node files, for a run with these parameters. ``memo`` remembers what was read before.

    Raises ProjectError with every problem found.
    """
    parser = _Parser(project, parameters, memo)
    for file in node_files(project):
        parser.read(file)
    parser.see_links(linked_folders(project))
    parser.import_files(list(python_files(project)))
    return parser.parsed()


def parse_manifest(project: Project, manifest: Manifest, parameters: RunParameters | None = None) -> ParsedProject:
    """Take a manifest for the project instead of its files. Problems then name files without lines.

    Raises ProjectError.
    """
    parser = _Parser(project, parameters)
    with_function = {node.file_path for node in manifest.nodes.values() if "function" in node.config}
    paths = [project.root / name for name in sorted(filter(None, with_function))]
    found = {entry.file: entry for entry in find_python_nodes(project, paths)}
    for node in manifest.nodes.values():
        if node.kind in KINDS and not KINDS[node.kind].declarable:
            # Made anew, from the nodes that it was made of.
            continue
        described = {
            "description": node.description,
            "owner": node.owner,
            "tags": node.tags,
            "columns": node.columns,
        }
        said = {name: value for name, value in described.items() if value}
        fields = {"kind": node.kind, "name": node.name, **said, **node.config}
        draft = Draft(node.file_path or "manifest.json", Document(fields), (), fields)
        if "function" in node.config:
            file = found.get(node.file_path or "")
            draft.function = function_of(file, node) if file else None
            if draft.function is None:
                parser.refuse_function(draft, file)
                continue
        parser.add(draft)
    return parser.parsed()


class _Parser:
    """Collects drafts, and everything that is wrong with them."""

    def __init__(self, project: Project, parameters: RunParameters | None, memo: ProjectMemo | None = None) -> None:
        self._project = project
        self._folder = f"{project.root}{os.sep}"
        self._memo = memo or ProjectMemo()
        self._renderer = Renderer(project, parameters or RunParameters())
        self._problems: list[Problem] = list(self._renderer.shared.problems)
        self._warnings: list[Problem] = [*project.warnings, *self._renderer.shared.warnings]
        self._drafts: dict[str, Draft] = {}
        self._by_lower_id: dict[str, Draft] = {}
        self._lost: set[str] = set()
        self._files_lost = False
        self._imported: dict[str, None] = {}
        self._repeatable = True

    def read(self, file: Path) -> None:
        """Read the nodes of one file: a mapping, a list of mappings, or several documents of either."""
        name = str(file)[len(self._folder) :].replace(os.sep, "/")
        if not name.isprintable():
            shown = name.encode("unicode_escape", "surrogateescape").decode()
            self._report("the name of the file has characters that cannot be printed", Place(shown), "rename it")
            return
        documents, problems = self._memo.load_documents(file, name)
        self._problems += problems
        self._files_lost = self._files_lost or bool(problems)
        for document in documents:
            entries: Iterable[tuple[KeyPath, Any]] = [((), document.value)]
            if isinstance(document.value, list):
                entries = [((index,), value) for index, value in enumerate(document.value)]
            for path, value in entries:
                if not isinstance(value, dict):
                    self._report("a node must be a mapping with kind and name", document.place(path, name))
                elif not problems:
                    self.add(Draft(name, document, path, value))

    def see_links(self, folders: Iterable[str]) -> None:
        """Warn of links to folders, in which nobody looks for nodes."""
        for folder in folders:
            message = "is a link to a folder, and not searched for nodes"
            self._warnings.append(Problem(message, Place(folder), "link its files instead"))

    def import_files(self, files: list[Path]) -> None:
        """Read the nodes of the Python files."""
        for file in files:
            if file.parent == self._project.nodes_folder and file.stem in OWN_NAMES:
                place = Place(file.relative_to(self._project.root).as_posix())
                message = f"has the name of seeknal.{file.stem}, and hides it from scripts that are started here"
                self._warnings.append(Problem(message, place, "rename it, or move it into a folder"))
        for found in find_python_nodes(self._project, files):
            self._imported.update(dict.fromkeys(found.files))
            self._repeatable = self._repeatable and found.repeatable
            self._problems += map(problem_of, found.problems)
            self._files_lost = self._files_lost or bool(found.problems and not found.lost)
            self._lost |= {name.lower() for name in found.lost}
            if found.nodes:
                text = (self._project.root / found.file).read_text(encoding="utf-8", errors="replace")
                for draft in drafts_of(found, text):
                    self.add(draft)

    def refuse_function(self, draft: Draft, found: FoundFile | None) -> None:
        """Report a node of a manifest whose function is not there, or cannot be imported."""
        if found is not None and found.problems:
            self._problems += map(problem_of, found.problems)
        else:
            node_id = f"{draft.fields['kind']}.{draft.fields['name']}"
            self._report(f"{draft.file} declares no {node_id}", Place(draft.file), "make the manifest anew")
        self._lost.add(str(draft.fields["name"]).lower())

    def add(self, draft: Draft) -> None:
        """Take a draft up, and check what can be checked without the others."""
        kind = self._kind(draft)
        draft.name = self._name(draft)
        if kind is None or not draft.name:
            self._lost.add(str(draft.fields.get("name")).lower())
            return
        draft.kind = kind.name
        show_names([draft.name])
        # Names of tables do not depend on case in SQL, so neither do names of nodes.
        twin = self._by_lower_id.setdefault(draft.id.lower(), draft)
        if twin is not draft:
            message = f"{draft.id} is declared twice; the other is at {twin.place('name')}"
            self._report(message, draft.place("name"), "rename one")
            return
        draft.inputs = self._declared_inputs(draft)
        self._render(draft)
        self._check_fields(draft, draft.implementation)
        self._drafts[draft.id] = draft

    def parsed(self) -> ParsedProject:
        """Link the drafts. Raises ProjectError."""
        if not self._drafts and not self._problems:
            self._report(
                "the project has no nodes",
                Place("seeknal/"),
                "add a .yml or .py file to seeknal/, or look at `seeknal init --name demo --example ecommerce`",
            )
        self._add_entities()
        linker = Linker(self._drafts, self._lost, files_lost=self._files_lost, memo=self._memo)
        linker.link()
        manifest = linker.manifest(self._project.name)
        problems = self._problems + linker.problems
        if problems:
            raise IncompleteProjectError(sorted(problems, key=_place_order), self._sound_part(problems, linker))
        self._see_unused_parameters()
        return self._parsed(manifest, self._drafts)

    def _parsed(self, manifest: Manifest, drafts: dict[str, Draft]) -> ParsedProject:
        return ParsedProject(
            self._project,
            manifest,
            drafts,
            self._warnings,
            self._renderer,
            tuple(self._imported),
            self._repeatable,
            self._memo,
        )

    def _sound_part(self, problems: Iterable[Problem], linked: Linker) -> ParsedProject | None:
        """The nodes of files in which nothing is wrong, as far as all that they read is sound too."""
        wrong = {problem.place.file for problem in problems if problem.place}
        sound = {
            node_id: draft
            for node_id, draft in self._drafts.items()
            if draft.spec is not None and draft.file not in wrong and linked.found_all(draft)
        }
        unsound = self._drafts.keys() - sound.keys()
        while unsound:
            unsound = {node_id for node_id, draft in sound.items() if not unsound.isdisjoint(draft.inputs)}
            sound = {node_id: draft for node_id, draft in sound.items() if node_id not in unsound}
        linker = Linker(sound, memo=self._memo)
        manifest = linker.manifest(self._project.name)
        return self._parsed(manifest, sound) if sound and not linker.problems else None

    def _render(self, draft: Draft) -> None:
        if not draft.implementation.executes:
            # It is kept for other tools, which may have templates of their own.
            return
        draft.rendered = self._renderer.render(draft.fields, code=draft.is_code)
        for found in draft.rendered.problems:
            problem = _template_problem(draft, found)
            # A value in a shared file is wrong once, however many nodes use it.
            if problem not in self._problems:
                self._problems.append(problem)

    def _see_unused_parameters(self) -> None:
        parameters = self._renderer.parameters
        used = {name for draft in self._drafts.values() for name in draft.uses if not name.startswith("env:")}
        for name in parameters.given.params:
            if name not in parameters.asked:
                close = nearest(name, used)
                hint = f"did you mean {' or '.join(map(repr, close))}?" if close else ""
                self._warnings.append(Problem(f"no node uses the parameter '{name}'", None, hint))

    def _add_entities(self) -> None:
        entities, warnings = entity_drafts(self._drafts.values())
        self._drafts |= {draft.id: draft for draft in entities}
        self._warnings += warnings

    def _report(self, message: str, place: Place, hint: str = "") -> None:
        self._problems.append(Problem(message, place, hint))

    def _kind(self, draft: Draft) -> Kind | None:
        if draft.fields.get("kind") is None:
            close = nearest("kind", draft.fields, 1) if "kind" not in draft.fields else []
            hint = f"'{close[0]}' looks like it" if close else f"add `kind:` with one of {', '.join(DECLARABLE_KINDS)}"
            self._report("'kind' is missing", draft.place("kind"), hint)
            return None
        kind = draft.fields["kind"]
        if isinstance(kind, str) and kind in DECLARABLE_KINDS:
            return KINDS[kind]
        place = draft.place("kind")
        if not isinstance(kind, str):
            self._report(
                f"'kind' must be text, not {_shown(kind)}", place, f"write one of {', '.join(DECLARABLE_KINDS)}"
            )
        elif kind in KINDS:
            hint = f"declare feature groups with `entity: {draft.fields.get('name')}`, and the {kind} is made of them"
            self._report(f"kind '{kind}' cannot be declared", place, hint)
        elif kind == NodeType.PYTHON.value:
            hint = "decorate a function in a .py file with the kind of node that it gives, such as `@transform`"
            self._report(f"kind '{kind}' is not declared in YAML", place, hint)
        else:
            self._report(f"unknown kind '{shown(kind)}'", place, did_you_mean(kind, DECLARABLE_KINDS))
        return None

    def _name(self, draft: Draft) -> str:
        name = draft.fields.get("name")
        wrong = check_node_name(name) if isinstance(name, str) else ""
        if isinstance(name, str) and not wrong:
            return name
        place = draft.place("name")
        if name is None:
            self._report("'name' is missing", place, "add `name:`")
        elif not isinstance(name, str):
            self._report(f"'name' must be text, not {_shown(name)}", place, "put it in quotes")
        else:
            self._report(f"name {_shown(name)} is not allowed", place, wrong or "")
        return ""

    def _declared_inputs(self, draft: Draft) -> list[str]:
        found: list[str] = []
        for key in INPUT_FIELDS:
            entries = draft.fields.get(key)
            if entries is None or (key == "depends_on" and draft.kind != "exposure"):
                continue
            for index, entry in enumerate(entries if isinstance(entries, list) else ()):
                reference = entry.get("ref") if isinstance(entry, dict) else entry
                if not isinstance(reference, str):
                    place = draft.place(key, index)
                    self._report("an input must name a node", place, "write `- ref: source.orders`")
                elif reference not in found:
                    found.append(reference)
        return found

    # one node's fields

    def _check_fields(self, draft: Draft, kind: Kind) -> None:
        own = _fields_of(kind.spec)
        known = {*own, *_fields_of(CommonFields)}
        if draft.function is not None:
            known.add("function")
        if draft.function is not None and draft.kind == "transform" and draft.fields.get("transform"):
            message = "'sql' has no effect: the function has a body, which gives the rows"
            self._warnings.append(Problem(message, draft.place("transform"), "leave one of them out"))
        # A template that is wrong leaves nothing to check the values for.
        before = len(self._problems) - bool(draft.rendered and draft.rendered.problems)
        for name in draft.fields:
            if name not in known:
                # What is kept for other tools may have any fields.
                if kind.executes:
                    self._unknown_field(draft, name, known)
            elif kind.executes and name in FIELDS_TO_COME and name not in own and draft.fields[name]:
                self._warnings.append(Problem(f"'{name}' has no effect yet", draft.place(name)))
        if kind.executes:
            self._take(draft, target_problems(draft.fields, own))
        values: dict[str, Any] = kind.supplied()
        if draft.is_code and "params" in own and isinstance(draft.fields.get("params") or {}, dict):
            values["params"] = draft.params
        for name, entry in own.items():
            if name in values:
                continue
            if draft.values.get(name) is not None:
                values[name] = draft.values[name]
                self._check_type(draft, name, entry.type)
            elif entry.required:
                article = "an" if kind.name[0] in "aeiou" else "a"
                add = f"give the decorator `{name}=…`" if draft.is_code else f"add `{name}:`"
                self._report(f"'{name}' is missing", draft.place(name), f"{add}; {article} {kind.name} needs it")
        for name, entry in _fields_of(CommonFields).items():
            if draft.fields.get(name) is not None and name not in own:
                self._check_type(draft, name, entry.type)
        schedule = draft.fields.get("schedule")
        if isinstance(schedule, str) and (wrong := check_schedule(schedule)) is not None:
            self._report(f"'{shown(schedule)}' is not a schedule", draft.place("schedule"), wrong)
        if len(self._problems) == before:
            self._take(draft, demand_problems(draft.values))
        if len(self._problems) > before:
            return
        try:
            spec = msgspec.convert(values, kind.spec)
        except msgspec.ValidationError as error:
            self._problems.append(draft.type_problem((), str(error)))
            return
        self._check_values(draft, kind, spec)
        if len(self._problems) == before:
            draft.spec = spec
            for reference, path in kind.references(spec):
                draft.references.setdefault(reference.lower(), path)
                if reference not in draft.inputs:
                    draft.inputs.append(reference)

    def _check_type(self, draft: Draft, name: str, type_: Any) -> None:
        try:
            msgspec.convert(draft.values[name], type_)
        except msgspec.ValidationError as error:
            problem = draft.type_problem((name,), str(error))
            if name in INPUT_FIELDS:
                problem = replace(problem, hint=f"write `{name}: [{{ref: source.orders}}]`")
            elif name == "columns" and isinstance(draft.values[name], list):
                problem = replace(problem, hint="write `name: description` for each; checks belong into `tests:`")
            self._problems.append(problem)

    def _check_values(self, draft: Draft, kind: Kind, spec: Any) -> None:
        try:
            found = list(kind.check(spec, self._project))
        except (OSError, ValueError) as error:
            # A path that the system does not take: too long, or with a null byte.
            self._report(f"cannot be checked: {error}", draft.place())
            return
        self._take(draft, found)

    def _take(self, draft: Draft, found: Iterable[FieldProblem]) -> None:
        """Take up what was found in a node's fields, as problems or warnings."""
        for problem in found:
            place = draft.place_in_text(problem.path, problem.offset)
            (self._warnings if problem.is_warning else self._problems).append(
                Problem(problem.message, place, problem.hint)
            )

    def _unknown_field(self, draft: Draft, name: str, known: set[str]) -> None:
        close = difflib.get_close_matches(name, known - IDENTITY_FIELDS, n=1, cutoff=0.75)
        hint = f"did you mean '{close[0]}'?" if close else ""
        problem = Problem(f"unknown field '{shown(name)}' of a {draft.kind}", draft.place(name), hint)
        (self._problems if close or self._project.settings.strict else self._warnings).append(problem)


@cache
def _fields_of(struct: type[msgspec.Struct]) -> dict[str, msgspec.structs.FieldInfo]:
    """The fields of a Struct by their names in YAML. Looking them up costs more than checking a value."""
    return {entry.encode_name: entry for entry in msgspec.structs.fields(struct)}


def _template_problem(draft: Draft, problem: TemplateProblem) -> Problem:
    """A problem of a template, at its place in the node's file or in a shared one."""
    if problem.shared is not None:
        return Problem(problem.message, problem.shared.place(problem.offset), problem.hint)
    return Problem(problem.message, draft.place_in_written(problem.path, problem.offset), problem.hint)


def _shown(value: Any) -> str:
    return shown(repr(value))


def _place_order(problem: Problem) -> tuple[str, int, int]:
    place = problem.place
    return (place.file, place.line, place.column) if place else ("", 0, 0)
