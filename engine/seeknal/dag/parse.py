"""Parsing: a project's folder becomes a manifest, or a list of everything that is wrong with it."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec
from msgspec.structs import replace

from seeknal.dag.draft import Draft, spec_fields
from seeknal.dag.linking import Linker, link_again
from seeknal.dag.manifest import Manifest
from seeknal.dag.names import nearest
from seeknal.dag.node_fields import Findings, check_fields, declared_inputs, kind_of, name_of
from seeknal.dag.parameters import RunParameters
from seeknal.dag.project import Project, linked_folders, node_files
from seeknal.dag.project_memo import ProjectMemo
from seeknal.dag.python_draft import drafts_of, function_of
from seeknal.dag.python_file import find_python_nodes, problem_of
from seeknal.dag.rendering import Renderer, TemplateProblem
from seeknal.dag.yaml_file import Document, KeyPath
from seeknal.errors import Place, Problem, ProjectError
from seeknal.nodes.registry import KINDS
from seeknal.pipeline.discovered import FoundFile
from seeknal.pipeline.project_files import OWN_NAMES
from seeknal.redaction import show_names
from seeknal.timeline import timed


class IncompleteProjectError(ProjectError):
    """Some nodes cannot be read. ``sound`` is the part of the project that does not depend on them, if there is one."""

    def __init__(self, problems: Iterable[Problem], sound: ParsedProject | None) -> None:
        super().__init__(problems)
        self.sound = sound


class ParsedProject(msgspec.Struct, frozen=True):
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
    memo: ProjectMemo = msgspec.field(default_factory=ProjectMemo)

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
    in_yaml, in_python = node_files(project)
    for file in in_yaml:
        parser.read(file)
    parser.see_links(linked_folders(project))
    parser.import_files(list(map(Path, in_python)))
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
        shared = self._renderer.shared
        self._findings = Findings(list(shared.problems), [*project.warnings, *shared.warnings])
        self._drafts: dict[str, Draft] = {}
        self._by_lower_id: dict[str, Draft] = {}
        self._lost: set[str] = set()
        self._files_lost = False
        self._imported: dict[str, None] = {}
        self._repeatable = True

    def read(self, file: str) -> None:
        """Read the nodes of one file: a mapping, a list of mappings, or several documents of either."""
        name = file[len(self._folder) :].replace(os.sep, "/")
        if not name.isprintable():
            shown = name.encode("unicode_escape", "surrogateescape").decode()
            self._findings.report(
                "the name of the file has characters that cannot be printed", Place(shown), "rename it"
            )
            return
        documents, problems = self._memo.load_documents(file, name)
        self._findings.problems += problems
        self._files_lost = self._files_lost or bool(problems)
        for document in documents:
            entries: Iterable[tuple[KeyPath, Any]] = [((), document.value)]
            if isinstance(document.value, list):
                entries = [((index,), value) for index, value in enumerate(document.value)]
            for path, value in entries:
                if not isinstance(value, dict):
                    self._findings.report("a node must be a mapping with kind and name", document.place(path, name))
                elif not problems:
                    self.add(Draft(name, document, path, value))

    def see_links(self, folders: Iterable[str]) -> None:
        """Warn of links to folders, in which nobody looks for nodes."""
        for folder in folders:
            message = "is a link to a folder, and not searched for nodes"
            self._findings.warn(message, Place(folder), "link its files instead")

    def import_files(self, files: list[Path]) -> None:
        """Read the nodes of the Python files."""
        for file in files:
            if file.parent == self._project.nodes_folder and file.stem in OWN_NAMES:
                place = Place(file.relative_to(self._project.root).as_posix())
                message = f"has the name of seeknal.{file.stem}, and hides it from scripts that are started here"
                self._findings.warn(message, place, "rename it, or move it into a folder")
        for found in find_python_nodes(self._project, files):
            self._imported.update(dict.fromkeys(found.files))
            self._repeatable = self._repeatable and found.repeatable
            self._findings.problems += map(problem_of, found.problems)
            self._files_lost = self._files_lost or bool(found.problems and not found.lost)
            self._lost |= {name.lower() for name in found.lost}
            if found.nodes:
                text = (self._project.root / found.file).read_text(encoding="utf-8", errors="replace")
                for draft in drafts_of(found, text):
                    self.add(draft)

    def refuse_function(self, draft: Draft, found: FoundFile | None) -> None:
        """Report a node of a manifest whose function is not there, or cannot be imported."""
        if found is not None and found.problems:
            self._findings.problems += map(problem_of, found.problems)
        else:
            node_id = f"{draft.fields['kind']}.{draft.fields['name']}"
            self._findings.report(f"{draft.file} declares no {node_id}", Place(draft.file), "make the manifest anew")
        self._lost.add(str(draft.fields["name"]).lower())

    def add(self, draft: Draft) -> None:
        """Take a draft up, and check what can be checked without the others."""
        kind = kind_of(draft, self._findings)
        draft.name = name_of(draft, self._findings)
        if kind is None or not draft.name:
            self._lost.add(str(draft.fields.get("name")).lower())
            return
        draft.kind = kind.name
        show_names([draft.name])
        # Names of tables do not depend on case in SQL, so neither do names of nodes.
        twin = self._by_lower_id.setdefault(draft.id.lower(), draft)
        if twin is not draft:
            message = f"{draft.id} is declared twice; the other is at {twin.place('name')}"
            self._findings.report(message, draft.place("name"), "rename one")
            return
        draft.inputs = declared_inputs(draft, self._findings)
        self._render(draft)
        check_fields(draft, self._project, self._findings)
        self._drafts[draft.id] = draft

    def parsed(self) -> ParsedProject:
        """Link the drafts. Raises ProjectError."""
        if not self._drafts and not self._findings.problems:
            self._findings.report(
                "the project has no nodes",
                Place("seeknal/"),
                "add a .yml or .py file to seeknal/, or look at `seeknal init --name demo --example ecommerce`",
            )
        self._add_entities()
        linker = Linker(self._drafts, self._lost, files_lost=self._files_lost, memo=self._memo)
        linker.link()
        manifest = linker.manifest(self._project.name)
        problems = self._findings.problems + linker.problems
        if problems:
            raise IncompleteProjectError(sorted(problems, key=_place_order), self._sound_part(problems, linker))
        self._see_unused_parameters()
        return self._parsed(manifest, self._drafts)

    def _parsed(self, manifest: Manifest, drafts: dict[str, Draft]) -> ParsedProject:
        return ParsedProject(
            self._project,
            manifest,
            drafts,
            self._findings.warnings,
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
        if not self._renderer.needs_rendering(draft.fields, code=draft.is_code):
            return
        draft.rendered = self._renderer.render(draft.fields, code=draft.is_code)
        for found in draft.rendered.problems:
            problem = _template_problem(draft, found)
            # A value in a shared file is wrong once, however many nodes use it.
            if problem not in self._findings.problems:
                self._findings.problems.append(problem)

    def _see_unused_parameters(self) -> None:
        parameters = self._renderer.parameters
        used = {name for draft in self._drafts.values() for name in draft.uses if not name.startswith("env:")}
        for name in parameters.given.params:
            if name not in parameters.asked:
                close = nearest(name, used)
                hint = f"did you mean {' or '.join(map(repr, close))}?" if close else ""
                self._findings.warn(f"no node uses the parameter '{name}'", None, hint)

    def _add_entities(self) -> None:
        if not any(draft.kind == "feature_group" for draft in self._drafts.values()):
            return
        from seeknal.dag.entities import entity_drafts

        entities, warnings = entity_drafts(self._drafts.values())
        self._drafts |= {draft.id: draft for draft in entities}
        self._findings.warnings += warnings


def _template_problem(draft: Draft, problem: TemplateProblem) -> Problem:
    """A problem of a template, at its place in the node's file or in a shared one."""
    if problem.shared is not None:
        return Problem(problem.message, problem.shared.place(problem.offset), problem.hint)
    return Problem(problem.message, draft.place_in_written(problem.path, problem.offset), problem.hint)


def _place_order(problem: Problem) -> tuple[str, int, int]:
    place = problem.place
    return (place.file, place.line, place.column) if place else ("", 0, 0)
