"""Resolution: what to do with a node, once its inputs' outputs are known.

- *hit*: the cache has what the node's fingerprint gives.
- *check*: as hit, but its checks have not been passed by that output yet.
- *miss*: the node must be executed.
- *keep*: the run leaves the node alone; its output from before stands.
- *drop*: the run leaves the node alone, and it has no output.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
from msgspec.structs import replace

from seeknal.dag.canonical import canonical_sql
from seeknal.dag.demands import DEMAND_FIELDS
from seeknal.dag.draft import Draft, node_of, spec_fields
from seeknal.dag.inference import Inference, NodeAnalysis
from seeknal.dag.linking import AUDIT_FIELDS
from seeknal.dag.manifest import Manifest
from seeknal.dag.names import PRODUCTION
from seeknal.errors import CorruptObjectError
from seeknal.nodes.check import CheckResult, results_in, results_of
from seeknal.nodes.kind import InputTable, Task, encoded_identity, stored_table
from seeknal.redaction import secrets
from seeknal.store.objects import Artifact, Tree
from seeknal.store.store import Store
from seeknal.timeline import is_recording
from seeknal.workflow.fingerprint import checks_key, engine_identity, fingerprint
from seeknal.workflow.results import BUILT_BEFORE, NOT_EXECUTED
from seeknal.workflow.selection import Selection

HIT, CHECK, MISS, KEEP, DROP = "hit", "check", "miss", "keep", "drop"

# A node that is kept for other tools counts as built, with nothing in it: so it stands in every tree, and in the way
# of no promotion.
NOTHING = Artifact((), 0)


class Decision(msgspec.Struct, frozen=True):
    """What to do with a node and why. ``artifact`` is there for hit, check and keep.

    ``checks`` are, for a hit, the results of its checks as they are remembered.
    """

    action: str
    reason: str
    fingerprint: str = ""
    artifact: Artifact | None = None
    checks: tuple[CheckResult, ...] = ()


class Base(msgspec.Struct, frozen=True):
    """What the run starts from: the tree of the environment's (else production's) snapshot and its manifest."""

    tree: Tree
    manifest: Manifest | None


class Resolver:
    """Decides node by node. Outputs of nodes are told to it in ``artifacts`` as they come to be known."""

    def __init__(
        self,
        store: Store,
        inference: Inference,
        drafts: Mapping[str, Draft],
        analyses: Mapping[str, NodeAnalysis],
        base: Base,
        selection: Selection,
        *,
        full: bool,
    ) -> None:
        self.artifacts: dict[str, Artifact] = {}
        self._store = store
        self._inference = inference
        self._drafts = drafts
        self._planned = analyses
        self._analyses = dict(analyses)
        self._base = base
        self._selection = selection
        self._full = full
        self._engine = engine_identity()
        self._decisions: dict[str, Decision] = {}
        self._identities: dict[str, list[Any]] = {}
        self._at_run: dict[str, Draft] = {}

    def decide(self, node_id: str) -> Decision:
        """Decide on a node whose inputs all stand in ``artifacts``. The answer does not change.

        Raises ProjectError where the node does not bind to its inputs as they came out, SeeknalError or OSError
        where what it depends on outside, or an input that is kept as it is, cannot be read.
        """
        decision = self._decisions.get(node_id)
        if decision is None:
            decision = self._with_checks(node_id, self._decide(node_id))
            if decision.action == MISS:
                self._insist_on_inputs(node_id)
            self._decisions[node_id] = decision
        return decision

    def forget_decisions(self) -> None:
        """Give back the memory of what was decided, which nobody asks for any more."""
        self._decisions.clear()
        self._identities.clear()

    def _insist_on_inputs(self, node_id: str) -> None:
        """Raise CorruptObjectError where what is left as it was, and read now, cannot be read."""
        for name in self._drafts[node_id].inputs:
            decision = self._decisions.get(name)
            fault = self._store.find_fault(self.artifacts[name]) if decision and decision.action == KEEP else ""
            if fault:
                raise CorruptObjectError(
                    f"{name}, which it reads and which this run leaves alone, {fault}",
                    hint="a run that considers it builds it again",
                )

    def _with_checks(self, node_id: str, decision: Decision) -> Decision:
        """The decision with what is remembered of the node's checks; of a hit that did not pass them yet, a check."""
        draft, artifact = self._drafts[node_id], decision.artifact
        if decision.action != HIT or artifact is None:
            return decision
        if not draft.audits:
            return replace(decision, checks=results_in(artifact.metadata)) if draft.checks else decision
        checks = [linked.check for linked in draft.audits]
        if draft.always_checks:
            return replace(decision, action=CHECK, reason="its checks depend on the moment")
        known = self._store.find_checks(checks_key(self._engine, checks, artifact))
        if known is None:
            return replace(decision, action=CHECK, reason="its checks changed, or were not passed yet")
        return replace(decision, checks=results_of(known.results))

    def _decide(self, node_id: str) -> Decision:
        if not self._drafts[node_id].implementation.executes:
            return Decision(HIT, NOT_EXECUTED, artifact=NOTHING)
        entry = self._base.tree.nodes.get(node_id)
        if node_id not in self._selection.considered:
            why = self._selection.left_out[node_id]
            if entry is None:
                return Decision(DROP, f"{why}, and never built")
            return Decision(KEEP, why, entry.fingerprint, entry.artifact)
        key = self._fingerprint(node_id)
        if self._full and node_id in self._selection.chosen:
            return Decision(MISS, "full run", key)
        draft = self._drafts[node_id]
        if draft.always_runs:
            return Decision(MISS, "depends on the moment, so it runs every time", key)
        if entry is not None and entry.fingerprint == key and self._store.is_whole(entry.artifact):
            return Decision(HIT, self._why_unchanged(node_id), entry.fingerprint, entry.artifact)
        found = self._store.find_action(key)
        if found is not None:
            return Decision(HIT, BUILT_BEFORE, key, found)
        if entry is not None and entry.fingerprint == key:
            fault = self._store.find_fault(entry.artifact)
            return Decision(MISS, f"its output {fault or 'is missing from the store'}", key)
        return Decision(MISS, self._why_changed(node_id), key)

    def _fingerprint(self, node_id: str) -> str:
        draft = self._drafts[node_id]
        analysis = self._analysis(node_id)
        kind = draft.implementation
        counted = [name for name in draft.inputs if name in analysis.reads]
        identity = kind.identity(draft.spec, self._inference.around)
        if kind.reads_outside:
            # What the worker compares with is what it reads, with the real values.
            real = kind.identity(self.executed(node_id).spec, self._inference.around) if draft.volatile else identity
            self._identities[node_id] = real
        return fingerprint(
            engine=self._engine,
            kind=draft.kind,
            canonical=analysis.canonical,
            identity=identity,
            # What a function gives is only remembered, if known at all.
            schema=None if draft.function else analysis.schema,
            inputs=[(name, self.artifacts[name], analysis.reads[name]) for name in counted],
        )

    def _analysis(self, node_id: str) -> NodeAnalysis:
        """The node's analysis for its inputs' real columns; planning may have known less, or something else."""
        draft = self._drafts[node_id]
        real = {
            name: self.artifacts[name].schema()
            for name in draft.inputs
            if self._drafts[name].implementation.makes_table
        }
        for name, schema in real.items():
            # What the node was planned with, not what its input was found to be since.
            assumed = self._planned[name].schema
            if assumed is None or list(assumed.items()) != list(schema.items()):
                self._analyses[node_id] = self._inference.bind(node_id, real)
                break
        return self._analyses[node_id]

    def executed(self, node_id: str) -> Draft:
        """The node as it is executed, with the real values of volatile parameters. Raises ProjectError."""
        if not self._drafts[node_id].volatile:
            return self._drafts[node_id]
        if node_id not in self._at_run:
            self._at_run[node_id] = self._inference.at_run(node_id)
        return self._at_run[node_id]

    def task(
        self,
        node_id: str,
        *,
        run_id: str,
        project_root: str,
        threads: int,
        memory_limit_bytes: int,
        environment: str = PRODUCTION,
        mutexes: tuple[str, ...] = (),
    ) -> Task:
        """Everything a worker needs to execute a node that was decided to be a miss."""
        draft = self.executed(node_id)
        analysis = self._analyses[node_id]
        inputs = tuple(
            stored_table(self._store, name, self.artifacts[name])
            for name in draft.inputs
            if self.artifacts[name].columns or self.artifacts[name].parts
        )
        return Task(
            node_id=node_id,
            kind=draft.kind,
            fingerprint=self._decisions[node_id].fingerprint,
            run_id=run_id,
            environment=environment,
            project_root=project_root,
            store_root=str(self._store.root),
            spec=spec_fields(draft),
            inputs=inputs,
            positions=draft.sql.positions if draft.sql else (),
            statements=draft.sql.statements if draft.sql else (),
            places=_places(draft, inputs),
            schema=None if analysis.schema is None else tuple(analysis.schema.items()),
            identity=encoded_identity(self._identities[node_id]) if draft.implementation.reads_outside else b"",
            threads=threads,
            memory_limit_bytes=memory_limit_bytes,
            function=draft.function,
            checks=tuple(linked.check for linked in (draft.checks or draft.audits)),
            output=self._decisions[node_id].artifact,
            mutexes=mutexes,
            secrets=secrets(),
            profiled=is_recording(),
        )

    # reasons

    def _changed_inputs(self, node_id: str) -> Iterable[tuple[str, list[str], bool]]:
        """The inputs whose output is not the base's: id, changed columns, whether the number of rows changed."""
        for name in self._drafts[node_id].inputs:
            entry = self._base.tree.nodes.get(name)
            artifact = self.artifacts[name]
            if entry is None:
                yield name, [column.name for column in artifact.columns], True
                continue
            if artifact is entry.artifact:
                continue
            before = {column.name: column for column in entry.artifact.columns}
            changed = [column.name for column in artifact.columns if before.get(column.name) != column]
            changed += [gone for gone in before if gone not in artifact.schema()]
            if changed or artifact.row_count != entry.artifact.row_count:
                yield name, changed, artifact.row_count != entry.artifact.row_count

    def _why_unchanged(self, node_id: str) -> str:
        changed = [name for name, _, _ in self._changed_inputs(node_id)]
        if changed:
            return f"reads no changed column of {', '.join(changed)}"
        return "unchanged"

    def _why_changed(self, node_id: str) -> str:
        entry = self._base.tree.nodes.get(node_id)
        if entry is None:
            return "new, never built"
        reads = self._analyses[node_id].reads
        for name, changed, rows_changed in self._changed_inputs(node_id):
            wanted = reads.get(name) if name in reads else ()
            read = [column for column in changed if wanted is None or column in wanted]
            if read:
                columns = ", ".join(f"{name}.{column}" for column in read[:3]) + (", …" if len(read) > 3 else "")
                return f"reads {columns}, which changed"
            if rows_changed and name in reads:
                return f"reads the rows of {name}, whose number changed"
        if self.definition_changed(node_id):
            return "its function changed" if self._only_function_changed(node_id) else "its definition changed"
        uses = self._drafts[node_id].uses
        if uses and self._drafts[node_id].kind != "source":
            return f"a parameter that it uses changed: {' or '.join(uses)}"
        return "its file changed" if self._drafts[node_id].kind == "source" else "what it depends on changed"

    def _only_function_changed(self, node_id: str) -> bool:
        before = self._base.manifest.nodes.get(node_id) if self._base.manifest else None
        if before is None:
            return False
        new = _config(self._drafts[node_id])
        return _said({**before.config, "function": None}) == _said({**new, "function": None})

    def definition_changed(self, node_id: str) -> bool:
        """Say whether a node's fields are others than in the base's manifest; the layout of SQL does not count."""
        before = self._base.manifest.nodes.get(node_id) if self._base.manifest else None
        return before is None or _said(before.config) != _said(_config(self._drafts[node_id]))


def _places(draft: Draft, inputs: Sequence[InputTable]) -> tuple[tuple[int, int, int, str], ...]:
    """Where the draft's only statement names its inputs as tables, as a task says it."""
    if draft.sql is None or not draft.sql.places:
        return ()
    positions, index = dict(draft.sql.positions), {table.node_id: at for at, table in enumerate(inputs)}
    start = draft.sql.starts[0]
    found = []
    for place in draft.sql.places:
        node_id = draft.inputs[positions[place.name]] if place.name in positions else place.name
        if node_id not in index:
            return ()
        found.append((place.start - start, place.end - start, index[node_id], place.called))
    return tuple(found)


def _said(config: dict[str, object]) -> dict[str, object]:
    return {
        key: canonical_sql(value) if key == "transform" and isinstance(value, str) else value
        for key, value in config.items()
        # They are about the output or the machine, and are not part of what makes it.
        if key not in AUDIT_FIELDS and key not in DEMAND_FIELDS
    }


def _config(draft: Draft) -> dict[str, object]:
    return node_of(draft).config
