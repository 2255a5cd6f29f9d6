"""Whole-DAG schema inference: every node's output columns and what it reads, before anything runs.

- *analysis*: per node its schema, its reads, its canonical SQL; and the problems that binding found.
- *unknown*: a schema that only running tells. Whatever reads such a node is not checked yet; it is bound again,
  by :meth:`Inference.bind`, when the real schema has come.
"""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Mapping
from typing import Any

import msgspec

from seeknal.dag.binding import BindError, Schema
from seeknal.dag.check_binding import bind_checks
from seeknal.dag.draft import Draft
from seeknal.dag.lazy_connection import LazyConnection
from seeknal.dag.parse import ParsedProject
from seeknal.dag.project import Project
from seeknal.dag.sql_problem import engine_problem
from seeknal.errors import Place, Problem, ProjectError, SeeknalError
from seeknal.nodes.kind import Surroundings
from seeknal.store.file_memo import FileDigests
from seeknal.timeline import timed


class NodeAnalysis(msgspec.Struct, frozen=True):
    """What is known of a node before it runs.

    ``reads``: input → columns, None for all; see :mod:`seeknal.dag.binding`. ``wrong_checks`` are problems with a
    rule's checks of its inputs.
    """

    schema: dict[str, str] | None
    reads: dict[str, tuple[str, ...] | None]
    canonical: str = ""
    volatile: tuple[str, ...] = ()
    wrong_checks: tuple[Problem, ...] = ()


class Analysis(msgspec.Struct, frozen=True):
    """The analysis of a whole project."""

    nodes: dict[str, NodeAnalysis]
    problems: dict[str, list[Problem]] = {}

    def schemas(self) -> dict[str, Schema | None]:
        return {node_id: node.schema for node_id, node in self.nodes.items()}

    def check(self) -> None:
        """Raise ProjectError with every problem, where there is one."""
        found = [problem for problems in self.problems.values() for problem in problems]
        if found:
            raise ProjectError(found)


class Inference:
    """Infers schemas; holds the connections that takes. Close it."""

    def __init__(self, parsed: ParsedProject, digests: FileDigests) -> None:
        self._parsed = parsed
        self._binder = parsed.memo.binder()
        self._reader = LazyConnection(_reader)
        self.around = Surroundings(parsed.project, digests, self._reader, parsed.memo.memo)

    def close(self) -> None:
        self._binder.close()
        self._reader.close()

    def __enter__(self) -> Inference:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @property
    def parser(self) -> Any:
        """A DuckDB connection for its parser only."""
        return self._binder.connection

    def rest(self, *, from_tables: int = 0) -> None:
        """Give back the memory that only analysing takes; it is taken again when something is analysed.

        ``from_tables``: only where it made that many tables or more.
        """
        if self._binder.table_count >= from_tables:
            self._binder.rest()

    @timed("analyse")
    def analyse(self) -> Analysis:
        """Analyse all nodes, inputs first."""
        nodes: dict[str, NodeAnalysis] = {}
        problems: dict[str, list[Problem]] = {}
        for node_id in self._parsed.manifest.topological_order():
            schemas = {name: nodes[name].schema for name in self._parsed.manifest.inputs_of(node_id)}
            if not self._parsed.drafts[node_id].implementation.declarable and not problems.keys().isdisjoint(schemas):
                # Nobody wrote it, so nobody wants to read what else is wrong with it.
                nodes[node_id] = NodeAnalysis(None, dict.fromkeys(schemas))
                continue
            try:
                analysis = self._bind(node_id, schemas)
                if analysis.schema:
                    self._declare(node_id, analysis.schema)
                nodes[node_id] = analysis
                wrong = self._verified(node_id, schemas, analysis)
                if wrong:
                    problems[node_id] = wrong
            except SeeknalError as error:
                problems[node_id] = error.problems()
                nodes[node_id] = NodeAnalysis(self._declared(node_id), dict.fromkeys(schemas))
        self._find_shared_places(problems)
        return Analysis(nodes, problems)

    def _declared(self, node_id: str) -> dict[str, str] | None:
        """What a node that cannot be built declares to give: its readers are checked against that."""
        draft = self._parsed.drafts[node_id]
        declared = draft.implementation.declared(draft.spec)
        if declared:
            self._declare(node_id, declared)
        return declared

    def _find_shared_places(self, problems: dict[str, list[Problem]]) -> None:
        """Find deliveries that would overwrite each other, or what a source reads."""
        drafts = self._parsed.drafts
        read = {
            node_id: os.path.normpath(str(draft.values.get("table", "")))
            for node_id, draft in drafts.items()
            if draft.implementation.reads_outside
        }
        places: dict[str, str] = {}
        for node_id, draft in drafts.items():
            said = draft.implementation.delivers_to(draft.spec)
            if said is None:
                continue
            place = os.path.normpath(said)
            other = places.setdefault(place, node_id)
            found = [f"so does {other}"] if other != node_id else []
            found += [
                f"{source} reads it"
                for source, table in read.items()
                if place == table or fnmatch.fnmatch(place, table) or table.startswith(f"{place}{os.sep}")
            ]
            if found:
                message = f"{node_id}: writes to '{said}', and {found[0]}"
                problem = Problem(message, draft.place("path"), "give it a path of its own")
                problems.setdefault(node_id, []).append(problem)

    def _declare(self, node_id: str, schema: Schema) -> None:
        try:
            self._binder.declare(node_id, schema)
        except Exception as error:
            import duckdb

            if not isinstance(error, duckdb.Error):
                raise
            problem = engine_problem(error, "")
            place = self._parsed.drafts[node_id].place()
            message = f"{node_id}: its columns cannot be a table: {problem.message}"
            raise ProjectError([Problem(message, place, problem.hint)]) from error

    def bind(self, node_id: str, schemas: Mapping[str, Schema | None]) -> NodeAnalysis:
        """Analyse one node for inputs with these schemas (None: unknown). Raises ProjectError."""
        analysis = self._bind(node_id, schemas)
        wrong = self._verified(node_id, schemas, analysis)
        if wrong:
            raise ProjectError(wrong)
        return analysis

    def at_run(self, node_id: str) -> Draft:
        """The node as it is executed; see :meth:`ParsedProject.at_run`. Raises ProjectError."""
        return self._parsed.at_run(node_id, self._binder.connection)

    def _verified(self, node_id: str, schemas: Mapping[str, Schema | None], analysis: NodeAnalysis) -> list[Problem]:
        """What the node's kind finds wrong with it for these columns; warnings go to the project's."""
        draft = self._parsed.drafts[node_id]
        inputs = [schemas.get(name) for name in draft.inputs]
        wrong = []
        of_reads = draft.implementation.verify_reads(draft.inputs, inputs)
        for found in (*draft.implementation.verify(draft.spec, inputs, analysis.schema), *of_reads):
            place = draft.place_in_text(found.path, found.offset)
            problem = Problem(f"{node_id}: {found.message}", place, found.hint)
            if not found.is_warning:
                wrong.append(problem)
            elif problem not in self._parsed.warnings:
                self._parsed.warnings.append(problem)
        wrong += analysis.wrong_checks
        if draft.audits:
            own = {node_id: analysis.schema}
            wrong += bind_checks(draft, draft.audits, [node_id], own, self._binder, self._declare).problems
        return wrong

    def _bind(self, node_id: str, schemas: Mapping[str, Schema | None]) -> NodeAnalysis:
        draft = self._parsed.drafts[node_id]
        if draft.sql is None:
            return self._bind_by_kind(draft, schemas)
        canonical = draft.sql.canonical
        volatile = (*draft.sql.volatile, *draft.volatile)
        used = {*draft.sql.references, *(draft.inputs[index] for _, index in draft.sql.positions)}
        if any(schemas.get(name) is None for name in used):
            return NodeAnalysis(None, dict.fromkeys(draft.inputs), canonical, volatile)
        for name in used:
            schema = schemas[name]
            assert schema is not None
            self._declare(name, schema)
        try:
            bound = self._binder.bind(draft.sql, draft.inputs, secret=draft.uses_environment)
        except BindError as error:
            # What the kind itself finds is about the user's fields, and the error may be about SQL of ours.
            wrong = self._verified(node_id, schemas, NodeAnalysis(None, {}))
            if wrong:
                raise ProjectError(wrong) from error
            place = draft.place_in_query(error.problem.offset)
            raise ProjectError([Problem(f"{node_id}: {error.problem.message}", place, error.problem.hint)]) from error
        return NodeAnalysis(bound.schema, bound.reads, canonical, volatile)

    def _bind_by_kind(self, draft: Draft, schemas: Mapping[str, Schema | None]) -> NodeAnalysis:
        inputs: list[dict[str, str] | None] = []
        for name in draft.inputs:
            schema = schemas.get(name)
            inputs.append(None if schema is None else dict(schema))
        try:
            schema = draft.implementation.schema(draft.spec, inputs, self.around)
        except SeeknalError as error:
            raise ProjectError([_of_node(draft, problem) for problem in error.problems()]) from error
        except (OSError, ValueError) as error:
            # A path that the system does not take: too long, or with a null byte.
            raise ProjectError([_of_node(draft, Problem(f"cannot be read: {error}"))]) from error
        if not draft.checks or not draft.inputs or draft.function is not None:
            reads = draft.implementation.reads(draft.spec, draft.inputs, inputs)
            return NodeAnalysis(schema, reads, volatile=draft.volatile)
        bound = bind_checks(draft, draft.checks, draft.inputs, schemas, self._binder, self._declare)
        return NodeAnalysis(schema, bound.reads, volatile=draft.volatile, wrong_checks=tuple(bound.problems))


def _reader() -> Any:
    """A connection that may read files."""
    import duckdb

    connection = duckdb.connect(":memory:", config={"threads": 1, "python_enable_replacements": False})
    connection.execute("SET TimeZone = 'UTC'; SET enable_progress_bar = false")
    return connection


def _of_node(draft: Draft, problem: Problem) -> Problem:
    """A problem that a kind found: at the place it names (a data file), else at the node."""
    if problem.place is not None:
        return Problem(f"{draft.id}: {problem.message}", problem.place, problem.hint)
    path: tuple[Any, ...] = next(((key,) for key in ("table", "path", "transform") if key in draft.fields), ())
    path = problem.field or path
    return Problem(f"{draft.id}: {problem.message}", draft.place(*path), problem.hint)


class CompiledProject(msgspec.Struct, frozen=True):
    """A project that was parsed and analysed; the analysis may hold problems."""

    parsed: ParsedProject
    analysis: Analysis

    @property
    def project(self) -> Project:
        return self.parsed.project

    def place(self, node_id: str) -> Place:
        return self.parsed.drafts[node_id].place()
