"""Linking: the inputs of each draft, from what it declares and from what its SQL names, become edges.

- *bare name*: a node's name without its kind.
- *dangling*: a reference to a node that does not exist.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from msgspec.structs import replace

from seeknal.dag.check_linking import LinkedCheck, link_check
from seeknal.dag.draft import Draft, node_of
from seeknal.dag.manifest import Manifest
from seeknal.dag.names import did_you_mean, shown
from seeknal.dag.project_memo import ProjectMemo
from seeknal.dag.sql import Sql
from seeknal.dag.tokens import stray_bracket
from seeknal.errors import Place, Problem, ProjectError
from seeknal.nodes.check_fields import ParsedCheck, checks_of_list
from seeknal.nodes.kind import FieldProblem, Query

INPUT_FIELDS = ("inputs", "depends_on")
AUDIT_FIELDS = ("audits", "tests")


def link_again(draft: Draft, drafts: Mapping[str, Draft], connection: Any) -> None:
    """Take the SQL of a draft apart that was linked before, with other text. Raises ProjectError."""
    linker = Linker(drafts)
    query = draft.implementation.query(draft.spec, draft.inputs)
    if query is not None and linker.take_apart(draft, query, connection):
        linker.check_positions(draft)
    linker.link_checks([draft])
    if linker.problems:
        raise ProjectError(linker.problems)


class Linker:
    """Links the drafts of one project; what is wrong stands in ``problems``.

    ``lost`` are names, in lower case, of nodes that are in the files but could not be read: a reference to one is not
    worth a problem of its own. Where whole files could not be read, no dangling reference is. ``memo`` remembers
    queries that were taken apart before.
    """

    def __init__(
        self,
        drafts: Mapping[str, Draft],
        lost: Collection[str] = (),
        *,
        files_lost: bool = False,
        memo: ProjectMemo | None = None,
    ) -> None:
        self.problems: list[Problem] = []
        self._memo = memo or ProjectMemo()
        self._drafts = drafts
        self._lost = lost
        self._files_lost = files_lost
        self._known = {node_id.lower(): node_id for node_id in drafts}
        # Drafts of which an input was not found: what their positions mean is not known.
        self._broken: set[str] = set()
        self._by_name: dict[str, list[str]] = {}
        for draft in drafts.values():
            self._by_name.setdefault(draft.name.lower(), []).append(draft.id)

    def link(self) -> None:
        """Resolve the inputs of all drafts, and take their SQL apart."""
        for draft in self._drafts.values():
            resolved = list(dict.fromkeys(self._resolved(draft)))
            if len(resolved) < len(draft.inputs):
                self._broken.add(draft.id)
            draft.inputs = resolved
        queries: list[tuple[Draft, Query]] = []
        for draft in self._drafts.values():
            query = draft.implementation.query(draft.spec, draft.inputs) if draft.spec is not None else None
            if query is not None:
                queries.append((draft, query))
        if queries:
            self._link_by_sql(queries)
        self.link_checks(self._drafts.values())

    def manifest(self, project: str) -> Manifest:
        """Make the manifest of the linked drafts; a cycle is a problem."""
        manifest = Manifest(project, generated_at=datetime.now(UTC).isoformat(timespec="seconds"))
        for draft in self._drafts.values():
            manifest.add_node(node_of(draft))
        for draft in self._drafts.values():
            for node_id in draft.inputs:
                manifest.add_edge(node_id, draft.id)
        has_cycle, path = manifest.detect_cycles()
        if has_cycle:
            # The cycle runs from input to reader; the last but one is what the first one reads.
            first = self._drafts[path[0]]
            self._report(
                f"DAG contains cycle: {' -> '.join(path)}",
                self._place_of_input(first, path[-2]),
                "remove one of these inputs",
            )
        return manifest

    def found_all(self, draft: Draft) -> bool:
        """Say whether every node that a draft names was found; one that was lost is no problem of its own."""
        checks = [linked.sql for linked in (*draft.checks, *draft.audits) if linked.sql is not None]
        texts = [*checks, *([draft.sql] if draft.sql is not None else ())]
        return draft.id not in self._broken and not any(sql.problems for sql in texts)

    def _report(self, message: str, place: Place, hint: str = "") -> None:
        self.problems.append(Problem(message, place, hint))

    def _resolved(self, draft: Draft) -> Iterable[str]:
        for reference in draft.inputs:
            target = self._known.get(reference.lower())
            if target is None:
                if not self._is_lost(reference):
                    bare = self._by_name.get(reference.lower())
                    hint = f"write {' or '.join(bare)}" if bare else did_you_mean(reference, self._drafts)
                    place = self._place_of_input(draft, reference)
                    self._report(f"input '{shown(reference)}' does not exist", place, hint)
            elif target == draft.id:
                self._report(f"{draft.id} is its own input", self._place_of_input(draft, reference))
            elif self._has_rows(target) or not draft.implementation.executes:
                yield target
            else:
                kind = self._drafts[target].kind
                message = f"input '{reference}' is of kind {kind}, which has no rows to read"
                self._report(message, self._place_of_input(draft, reference))

    def _is_lost(self, reference: str) -> bool:
        bare = reference.lower().partition(".")[2] or reference.lower()
        return self._files_lost or bare in self._lost

    def _has_rows(self, node_id: str) -> bool:
        return self._drafts[node_id].implementation.makes_table

    def _place_of_input(self, draft: Draft, reference: str) -> Place:
        """Where an input is declared, else where the SQL names it."""
        for key in INPUT_FIELDS:
            entries = draft.fields.get(key)
            for index, entry in enumerate(entries if isinstance(entries, list) else ()):
                said = entry.get("ref") if isinstance(entry, dict) else entry
                if isinstance(said, str) and said.lower() == reference.lower():
                    return draft.place(key, index)
        if reference.lower() in draft.references:
            return draft.place(*draft.references[reference.lower()])
        if draft.sql is not None and reference in draft.sql.references:
            return draft.place_in_query(draft.sql.offset_of(reference))
        return draft.place("inputs")

    # SQL

    def _link_by_sql(self, queries: Sequence[tuple[Draft, Query]]) -> None:
        self._memo.expect((query.text, query.positions) for _, query in queries)
        for draft, query in queries:
            if self.take_apart(draft, query, self._memo.parser):
                self._add_inputs(draft)

    # checks

    def link_checks(self, drafts: Iterable[Draft]) -> None:
        """Take the SQL in the checks of these drafts apart."""
        for draft in drafts:
            own = list(draft.implementation.checks(draft.spec)) if draft.spec is not None else []
            audits = list(self._audits(draft))
            draft.checks = tuple(self._link_check(draft, parsed, None) for parsed in own)
            draft.audits = tuple(self._link_check(draft, parsed, draft.id) for parsed in audits)

    def _audits(self, draft: Draft) -> Iterable[ParsedCheck]:
        for found in self._said_audits(draft):
            if isinstance(found, FieldProblem):
                self._report(found.message, draft.place(*found.path), found.hint)
            else:
                yield found

    def _said_audits(self, draft: Draft) -> Iterable[ParsedCheck | FieldProblem]:
        if draft.spec is not None:
            yield from draft.implementation.audits(draft.spec)
        for key in AUDIT_FIELDS:
            entries = draft.values.get(key)
            if not isinstance(entries, list) or not entries:
                continue
            if not draft.implementation.makes_table or not draft.implementation.executes:
                message = f"'{key}' are checks of a node's rows, and a node of kind {draft.kind} has none"
                self._report(message, draft.place(key), "give them to its input, or make a rule of them")
                continue
            yield from checks_of_list(key, entries)

    def _link_check(self, draft: Draft, parsed: ParsedCheck, own: str | None) -> LinkedCheck:
        """Link a check of a node's inputs, or of its ``own`` output."""
        tables = draft.checked if own is None else [own]
        known = ChainMap({name.lower(): name for name in tables}, self._known)

        def apart(text: str, positions: Iterable[tuple[str, int]]) -> Sql:
            return self._apart(draft, text, positions, self._memo.parser, known)

        linked = link_check(parsed, tables, apart)
        sql, query = linked.sql, linked.query
        if sql is None or query is None:
            return linked

        def place(offset: int | None) -> Place:
            original = None if offset is None else sql.original_offset(offset)
            return draft.place_in_text(query.path, query.offset_in_field(original))

        for problem in sql.problems:
            if problem.missing is None or not self._is_lost(problem.missing):
                self._report(problem.message, place(problem.offset), problem.hint)
        for name, index in sql.positions:
            if sql.sure and (index >= len(tables) or (name == "__this__" and len(tables) != 1)):
                said = f"{name} means nothing here: there are {len(tables)} table(s), counted from 0"
                self._report(said, place(sql.offset_of(name)))
        for node_id in sql.references:
            if own is not None and node_id != own:
                message = f"a check of {own} reads its own rows only, not {node_id}"
                self._report(message, place(sql.offset_of(node_id)), "make it a rule with both as inputs")
            elif own is not None or node_id in tables:
                continue
            elif draft.function is not None:
                message = f"a check of a function's rows reads no other node: {node_id}"
                self._report(message, place(sql.offset_of(node_id)), "read it there")
            elif not self._has_rows(node_id):
                message = f"'{node_id}' is of kind {node_id.partition('.')[0]}, which has no rows to read"
                self._report(message, place(sql.offset_of(node_id)))
            else:
                draft.inputs.append(node_id)
        return linked

    def take_apart(self, draft: Draft, query: Query, connection: Any) -> bool:
        """Take a draft's SQL apart; say whether it is all right."""
        strays = [(path, stray_bracket(query.text[start : start + length])) for start, length, path in query.parts]
        for path, stray in strays:
            if stray is not None:
                self._report(f"'{stray.text}' has no partner", draft.place_in_text(path, stray.start))
        if any(stray is not None for _, stray in strays):
            return False
        own = query.text[query.start : query.start + query.length]
        if query.path and query.text != own:
            # The user's part on its own first: its errors are then about what stands in the file.
            draft.query = Query(own, query.path, 0, query.length, query.positions)
            draft.sql = self._apart(draft, own, query.positions, connection, self._known)
            if self._report_sql(draft, draft.sql):
                return False
        draft.query = query
        draft.sql = self._apart(draft, query.text, query.positions, connection, self._known)
        return not self._report_sql(draft, draft.sql)

    def _apart(
        self,
        draft: Draft,
        text: str,
        positions: Iterable[tuple[str, int]],
        connection: Any,
        known: Mapping[str, str],
    ) -> Sql:
        return self._memo.take_apart(
            text, known, self._resolve_bare, connection, positions, secret=draft.uses_environment
        )

    def _resolve_bare(self, name: str) -> list[str]:
        return self._by_name.get(name.lower(), [])

    def _report_sql(self, draft: Draft, sql: Sql) -> bool:
        for problem in sql.problems:
            if problem.missing is None or not self._is_lost(problem.missing):
                self._report(problem.message, draft.place_in_query(problem.offset), problem.hint)
        return bool(sql.problems)

    def _add_inputs(self, draft: Draft) -> None:
        assert draft.sql is not None
        for node_id in draft.sql.references:
            if not self._has_rows(node_id):
                message = f"'{node_id}' is of kind {self._drafts[node_id].kind}, which has no rows to read"
                self._report(message, draft.place_in_query(draft.sql.offset_of(node_id)))
            elif node_id == draft.id:
                self._report(f"{draft.id} reads itself", draft.place_in_query(draft.sql.offset_of(node_id)))
            elif node_id not in draft.inputs:
                draft.inputs.append(node_id)
        self.check_positions(draft)

    def check_positions(self, draft: Draft) -> None:
        """See that every positional name has its input; one that may be no table at all is let go where it has none."""
        sql = draft.sql
        assert sql is not None
        count = len(draft.inputs)
        kept = []
        for name, index in sql.positions:
            is_there = count == 1 if name == "__this__" else index < count
            if is_there:
                kept.append((name, index))
            elif sql.sure and draft.id not in self._broken:
                place = draft.place_in_query(sql.offset_of(name))
                if name == "__this__":
                    self._report(f"__THIS__ needs exactly one input; {draft.id} has {count}", place)
                else:
                    self._report(f"{name}: {draft.id} has {count} input(s), counted from 0", place)
        if len(kept) < len(sql.positions):
            draft.sql = replace(sql, positions=tuple(kept))
