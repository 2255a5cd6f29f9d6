"""A run whose nodes somebody else drives, one by one: which comes next, how often each is tried, when to stop.

It is the same engine as every run's: a session, a resolver, the store, a worker process for code of the user's. What
was executed or found is *built*; :meth:`DrivenRun.commit` makes production stand at it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from concurrent.futures import BrokenExecutor

import msgspec

from seeknal.dag.manifest import Manifest
from seeknal.dag.names import PRODUCTION
from seeknal.dag.parse import parse_manifest
from seeknal.dag.project import Project
from seeknal.errors import DeliveryError, SeeknalError
from seeknal.nodes.kind import Task
from seeknal.pipeline.node_state import keep_states
from seeknal.store.objects import Artifact, Tree, TreeEntry
from seeknal.workflow.commit import commit, fingerprints_of
from seeknal.workflow.delivery import deliver
from seeknal.workflow.limits import usable_cores
from seeknal.workflow.resolution import CHECK, KEEP, MISS, Base, Decision, Resolver
from seeknal.workflow.run_tree import built_manifest
from seeknal.workflow.selection import Filters, Selection, outputs_of, select
from seeknal.workflow.session import Session, run_parameters
from seeknal.workflow.views import show_environment
from seeknal.workflow.worker import Failure, Outcome, close_workbenches, decode_outcome, execute
from seeknal.workflow.workers import ProcessWorkers


class DrivenRun:
    """A run of production, open; see :func:`open_driven_run`. ``selection`` says which nodes it considers.

    ``built`` are the nodes that have an output in this run: node id → fingerprint and artifact. ``outputs`` are those,
    and the ones that are kept from before.
    """

    def __init__(self, session: Session, base: Base, selection: Selection, *, full: bool) -> None:
        self.session = session
        self.selection = selection
        self.built: dict[str, tuple[str, Artifact]] = {}
        self._base = base
        self._resolver: Resolver = session.resolver(base, selection, full=full)
        self._workers = ProcessWorkers(1)
        self._written: list[str] = []

    @property
    def outputs(self) -> dict[str, Artifact]:
        """What the nodes that come next can read."""
        return self._resolver.artifacts

    def knows(self, node_id: str) -> bool:
        """Say whether this run can execute a node."""
        return node_id in self.session.manifest.nodes

    def has_checks(self, node_id: str) -> bool:
        """Say whether a node's output is checked."""
        draft = self.session.compiled.parsed.drafts[node_id]
        return bool(draft.checks or draft.audits)

    def find(self, node_id: str) -> bool:
        """Take a node's output from what is remembered; says whether there is one."""
        if any(name not in self.outputs for name in self.session.manifest.inputs_of(node_id)):
            # In a dry run the inputs that would run have no output to decide by.
            return False
        decision = self._resolver.decide(node_id)
        if decision.action in (MISS, CHECK) or decision.artifact is None:
            return False
        self._build(node_id, decision, decision.artifact)
        return True

    def keep(self, node_id: str) -> None:
        """Leave a node as it is: who reads it reads what it gave before."""
        decision = self._resolver.decide(node_id)
        if decision.action == KEEP and decision.artifact is not None:
            self.outputs[node_id] = decision.artifact

    def execute(self, node_id: str) -> tuple[Decision, Outcome]:
        """Execute a node: why, and what came of it. Raises SeeknalError where it failed."""
        decision = self._resolver.decide(node_id)
        task = self._resolver.task(
            node_id,
            run_id=self.session.parameters.run_id,
            project_root=str(self.session.project.root),
            threads=usable_cores(),
            memory_limit_bytes=0,
        )
        # Code of the user's never runs in this process.
        outcome = execute(task) if task.function is None else self._execute_apart(task)
        self._written += outcome.written
        if outcome.failure is not None or outcome.artifact is None:
            failure = outcome.failure
            message = f"{node_id}: {failure.message if failure else 'no output'}"
            raise SeeknalError(message, hint=failure.hint if failure else "")
        self._build(node_id, decision, outcome.artifact)
        return decision, outcome

    def _execute_apart(self, task: Task) -> Outcome:
        future = self._workers.submit(msgspec.msgpack.encode(task))
        try:
            return decode_outcome(future.result())
        except BrokenExecutor:
            return Outcome(task.node_id, failure=Failure("its worker process died"))

    def _build(self, node_id: str, decision: Decision, artifact: Artifact) -> None:
        self.built[node_id] = (decision.fingerprint, artifact)
        self.outputs[node_id] = artifact

    def commit(
        self, manifest: Manifest, order: Sequence[str], left: Collection[str], kept: Collection[str]
    ) -> tuple[list[DeliveryError], list[DeliveryError]]:
        """Make production stand at what was built, show it and deliver it.

        ``manifest`` has all nodes, also those that this run does not know, in ``order``, inputs first. ``left`` are
        those that were not done, of which the ``kept`` stand as they did on purpose. Gives what could not be shown, and
        what could not be delivered.
        """
        session, tree = self.session, self._tree(order, kept)
        digest = commit(
            session.store,
            PRODUCTION,
            tree,
            built_manifest(manifest, self._base.manifest, left, tree),
            expected_head=session.store.refs.read(PRODUCTION),
            reason="run",
            run_id=session.parameters.run_id,
            parameters=session.parameters,
            written=self._written,
        )
        keep_states(session.project.target, fingerprints_of(tree, self.built.keys()))
        snapshot = session.store.read_snapshot(digest)
        not_shown = show_environment(session.project, session.store, PRODUCTION, snapshot, tree)
        not_delivered = deliver(
            session.project,
            session.store,
            PRODUCTION,
            session.manifest,
            tree,
            set(self.built),
            parameters=session.parameters,
        )
        return not_shown, not_delivered

    def _tree(self, order: Sequence[str], kept: Collection[str]) -> Tree:
        entries: dict[str, TreeEntry] = {}
        for node_id in order:
            before = self._base.tree.nodes.get(node_id)
            if node_id in self.built:
                key, artifact = self.built[node_id]
                same = before is not None and before.artifact.same_content(artifact)
                entries[node_id] = TreeEntry(key, before.artifact if before is not None and same else artifact)
            elif before is not None:
                stands = node_id in kept and node_id in self.outputs
                entries[node_id] = before if stands else TreeEntry(before.fingerprint, before.artifact, True)
        return Tree(entries)

    def close(self) -> None:
        self._workers.close()
        self.session.close()
        close_workbenches()


def open_driven_run(
    project: Project, ours: Manifest, whole: Manifest, filters: Filters, others: set[str], *, full: bool
) -> DrivenRun:
    """Open a run of the nodes ``ours`` among those of the ``whole`` manifest; ``others`` have outputs elsewhere.

    Raises ProjectError where the project does not type-check, NotFoundError for a name that nothing has.
    """
    session = Session(project, parse_manifest(project, ours, run_parameters()))
    try:
        session.compiled.analysis.check()
        session.store.prepare()
        base = session.base(PRODUCTION)
        selection = select(whole, filters, others | outputs_of(session.store, base.tree, filters))
        return DrivenRun(session, base, selection, full=full)
    except BaseException:
        session.close()
        raise
