"""DAGRunner: run a manifest from Python, one node after the other, with hooks to override.

It is the same engine as the command line's: the same store, fingerprints and cache, and a successful run moves
production's ref. What it adds are its extension points, which subclasses override:

- ``_execute_node(node_id, dry_run)``: called once for each attempt at a node; wrap it for event hooks.
- ``_execute_by_type(node)``: does the work and gives ``{"row_count": …, "metadata": {…}}``; override it to execute
  kinds of your own.

``execution_state.json`` in the state folder records how each node's last execution ended; a ``state_backend`` with
``load() -> dict`` and ``save(state)`` takes its place.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Protocol

from seeknal.dag.diff import ManifestDiff
from seeknal.dag.manifest import Manifest, Node
from seeknal.dag.names import PRODUCTION
from seeknal.dag.project import Project
from seeknal.errors import SeeknalError
from seeknal.nodes.check import summary
from seeknal.nodes.registry import KINDS
from seeknal.store.filesystem import digest_bytes, write_atomically
from seeknal.store.objects import Artifact
from seeknal.workflow.driven_run import DrivenRun, open_driven_run
from seeknal.workflow.heads import environment_lock
from seeknal.workflow.selection import Filters, Selection, select
from seeknal.workflow.summary import RULE, ExecutionStatus, ExecutionSummary, NodeResult, print_summary, say


class StateStore(Protocol):
    """Where the states of node executions are kept."""

    def load(self) -> dict[str, Any]: ...

    def save(self, state: dict[str, Any]) -> None: ...


class _StateFile:
    def __init__(self, path: Path) -> None:
        self.path = path

    def load(self) -> dict[str, Any]:
        try:
            state = json.loads(self.path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return state if isinstance(state, dict) else {}

    def save(self, state: dict[str, Any]) -> None:
        write_atomically(self.path, json.dumps(state, indent=2).encode())


class DAGRunner:
    """Runs a manifest in its project's production. ``old_manifest``: what changed since then is run at least."""

    def __init__(
        self,
        manifest: Manifest,
        old_manifest: Manifest | None = None,
        state_dir: str | Path | None = None,
        *,
        target_path: str | Path | None = None,
        exec_context: Any = None,
        state_backend: StateStore | None = None,
    ) -> None:
        self.manifest = manifest
        self.old_manifest = old_manifest
        self.exec_context = exec_context
        self.root = _project_root(manifest, state_dir, target_path)
        self.state_dir = Path(state_dir) if state_dir is not None else self.root / "target" / "state"
        self._state: StateStore = state_backend or _StateFile(self.state_dir / "execution_state.json")
        self._results: dict[str, NodeResult] = {}
        self._engine: DrivenRun | None = None

    # running

    def run(
        self,
        full: bool = False,
        dry_run: bool = False,
        node_types: list[str] | None = None,
        nodes: list[str] | None = None,
        exclude_tags: list[str] | None = None,
        continue_on_error: bool = False,
        retry: int = 0,
        tags: list[str] | None = None,
    ) -> ExecutionSummary:
        """Execute what is not cached; see the module for what can be overridden.

        Raises ValueError("DAG contains cycle: …"), ProjectError where the project does not type-check, NotFoundError
        for a name that nothing has, BusyError where another process runs.
        """
        started = time.perf_counter()
        self._results = {}
        order = self._get_topological_order()
        filters = Filters(nodes or (), node_types or (), tags or (), exclude_tags or ())
        state = self._state.load() or {}
        with nullcontext() if dry_run else self._production_lock():
            selection = self._open(filters, full, state)
            try:
                self._each(order, selection, full, state, continue_on_error, 0 if dry_run else retry, dry_run=dry_run)
                if not dry_run:
                    self._commit(order, continue_on_error)
                    self._save_state(state)
            finally:
                self._close()
        return self._summary(order, time.perf_counter() - started)

    def _each(
        self,
        order: Sequence[str],
        selection: Selection,
        full: bool,
        state: Mapping[str, Any],
        continue_on_error: bool,
        retry: int,
        *,
        dry_run: bool,
    ) -> None:
        stopped = ""
        dirty = self._dirty(full, state)
        for number, node_id in enumerate(order, 1):
            blocked = self._blocked(node_id)
            if node_id not in selection.considered:
                self._keep(node_id, selection.left_out[node_id])
            elif stopped or blocked:
                self._results[node_id] = NodeResult(node_id, ExecutionStatus.SKIPPED, error_message=stopped or blocked)
            elif self._is_cached(node_id, dirty):
                self._results[node_id] = self._cached(node_id)
            else:
                say(f"ℹ {number}/{len(order)}: {node_id} [RUNNING]")
                result = self._attempt(node_id, dry_run, retry)
                self._results[node_id] = result
                name = node_id.partition(".")[2]
                if result.status is ExecutionStatus.FAILED:
                    say(f"✗ {name} failed: {result.error_message}")
                    stopped = "" if continue_on_error else f"not started, because {node_id} failed"
                else:
                    say(f"✓ {name} completed in {result.duration:.2f}s")
        if not any(r.status in (ExecutionStatus.SUCCESS, ExecutionStatus.FAILED) for r in self._results.values()):
            say("ℹ No changes detected. Nothing to run.")

    def _attempt(self, node_id: str, dry_run: bool, retry: int) -> NodeResult:
        result = self._execute_node(node_id, dry_run)
        for _ in range(retry):
            if result.status is not ExecutionStatus.FAILED:
                break
            result = self._execute_node(node_id, dry_run)
        return result

    def _execute_node(self, node_id: str, dry_run: bool = False) -> NodeResult:
        """Make one attempt at a node; errors come back as a FAILED result. Override to add hooks."""
        node = self.manifest.get_node(node_id)
        if node is None:
            return NodeResult(node_id, ExecutionStatus.FAILED, error_message=f"Node not found: {node_id}")
        if dry_run:
            return NodeResult(node_id, ExecutionStatus.SUCCESS, metadata={"dry_run": True})
        started = time.perf_counter()
        try:
            done = self._execute_by_type(node)
        except Exception as error:
            # An executor of the user's may raise anything; one node's error is that node's result.
            return NodeResult(node_id, ExecutionStatus.FAILED, time.perf_counter() - started, error_message=str(error))
        return NodeResult(
            node_id,
            ExecutionStatus.SUCCESS,
            time.perf_counter() - started,
            int(done.get("row_count") or 0),
            metadata=dict(done.get("metadata") or {}),
        )

    def _execute_by_type(self, node: Node) -> dict[str, Any]:
        """Do a node's work. Override for kinds of your own; call this one for the rest. Raises SeeknalError."""
        engine = self._engine
        if engine is None or not engine.knows(node.id):
            raise SeeknalError(
                f"{node.id}: no executor for kind '{node.kind}'", hint="override DAGRunner._execute_by_type for it"
            )
        decision, outcome = engine.execute(node.id)
        artifact = engine.outputs[node.id]
        metadata = {"fingerprint": decision.fingerprint, "reason": decision.reason}
        if outcome.checks:
            metadata.update(summary(outcome.checks))
        elif engine.has_checks(node.id):
            metadata.update(artifact.metadata)
        return {"row_count": artifact.row_count, "metadata": metadata}

    # deciding

    def _dirty(self, full: bool, state: Mapping[str, Any]) -> set[str]:
        """The nodes of the user's own kinds that must run: nothing is known of their fingerprint.

        One that reads a node which is executed in this run must run too; see :meth:`_is_cached`.
        """
        if full:
            return set(self.manifest.nodes)
        ours = self._engine.session.manifest.nodes if self._engine else {}
        changed = {
            node_id
            for node_id, node in self.manifest.nodes.items()
            if node_id not in ours
            and (state.get(node_id, {}).get("status"), state.get(node_id, {}).get("hash"))
            != ("success", _definition_digest(node))
        }
        if self.old_manifest is not None:
            changed |= set(ManifestDiff.compare(self.old_manifest, self.manifest).get_nodes_to_rebuild(self.manifest))
        return changed | self.manifest.descendants_of(changed)

    def _blocked(self, node_id: str) -> str:
        for name in self.manifest.inputs_of(node_id):
            result = self._results.get(name)
            if result is not None and result.status is ExecutionStatus.FAILED:
                return f"{name} failed"
            if result is not None and result.status is ExecutionStatus.SKIPPED and name not in self._known_outputs():
                return f"{name} was skipped"
        return ""

    def _known_outputs(self) -> Mapping[str, Artifact]:
        return self._engine.outputs if self._engine else {}

    def _is_cached(self, node_id: str, dirty: set[str]) -> bool:
        engine = self._engine
        if engine is not None and engine.knows(node_id):
            return engine.find(node_id)
        inputs_stand = all(
            self._results[name].status is not ExecutionStatus.SUCCESS for name in self.manifest.inputs_of(node_id)
        )
        return inputs_stand and node_id not in dirty

    def _cached(self, node_id: str) -> NodeResult:
        artifact = self._known_outputs().get(node_id)
        return NodeResult(node_id, ExecutionStatus.CACHED, row_count=artifact.row_count if artifact else 0)

    def _keep(self, node_id: str, why: str) -> None:
        if self._engine is not None and self._engine.knows(node_id):
            self._engine.keep(node_id)
        self._results[node_id] = NodeResult(node_id, ExecutionStatus.SKIPPED, error_message=why)

    # opening and committing

    def _open(self, filters: Filters, full: bool, state: Mapping[str, Any]) -> Selection:
        """Open the engine on the nodes whose kinds, and whose inputs' kinds, we know; give what is selected.

        A node of a kind of ours that says nothing is one that the caller executes.
        """
        project = Project.open(self.root)
        foreign = {
            node_id for node_id, node in self.manifest.nodes.items() if node.kind not in KINDS or not node.config
        }
        foreign |= self.manifest.descendants_of(foreign)
        built = {node_id for node_id in foreign if state.get(node_id, {}).get("status") == "success"}
        ours = Manifest(self.manifest.metadata.project)
        for node_id, node in self.manifest.nodes.items():
            if node_id not in foreign:
                ours.add_node(node)
        for edge in self.manifest.edges:
            if edge.to_node not in foreign:
                ours.add_edge(edge.from_node, edge.to_node)
        if not ours.nodes:
            return select(self.manifest, filters, built)
        self._engine = open_driven_run(project, ours, self.manifest, filters, built, full=full)
        return self._engine.selection

    def _production_lock(self) -> AbstractContextManager[object]:
        return environment_lock(Project.open(self.root).store(), PRODUCTION, "DAGRunner.run")

    def _close(self) -> None:
        if self._engine is not None:
            self._engine.close()
            self._engine = None

    def _commit(self, order: Sequence[str], continue_on_error: bool) -> None:
        engine = self._engine
        failed = any(result.status is ExecutionStatus.FAILED for result in self._results.values())
        if engine is None or (failed and not continue_on_error):
            return
        done = (ExecutionStatus.SUCCESS, ExecutionStatus.CACHED)
        left = {node_id for node_id, result in self._results.items() if result.status not in done}
        kept = {node_id for node_id in left if self._results[node_id].status is ExecutionStatus.SKIPPED}
        not_shown, not_delivered = engine.commit(self.manifest, order, left, kept)
        for error in not_delivered:
            node_id = error.message.partition(":")[0]
            self._results[node_id] = NodeResult(node_id, ExecutionStatus.FAILED, error_message=error.message)
        if not_shown:
            raise not_shown[0]

    def _save_state(self, state: dict[str, Any]) -> None:
        built = self._engine.built if self._engine else {}
        for node_id, result in self._results.items():
            if result.status in (ExecutionStatus.SUCCESS, ExecutionStatus.FAILED):
                key = built[node_id][0] if node_id in built else _definition_digest(self.manifest.nodes[node_id])
                state[node_id] = {
                    "status": result.status.value,
                    "duration": result.duration,
                    "row_count": result.row_count,
                    "last_run": time.time(),
                    "hash": key,
                }
        self._state.save(state)

    def _summary(self, order: Iterable[str], seconds: float) -> ExecutionSummary:
        results = [self._results[node_id] for node_id in order]

        def count(status: ExecutionStatus) -> int:
            return sum(result.status is status for result in results)

        executed = count(ExecutionStatus.SUCCESS) + count(ExecutionStatus.FAILED)
        return ExecutionSummary(
            len(results),
            executed,
            count(ExecutionStatus.CACHED),
            count(ExecutionStatus.SUCCESS),
            count(ExecutionStatus.FAILED),
            count(ExecutionStatus.SKIPPED),
            seconds,
            results,
        )

    # the plan and the order

    def print_plan(
        self,
        full: bool = False,
        node_types: list[str] | None = None,
        nodes: list[str] | None = None,
        exclude_tags: list[str] | None = None,
    ) -> None:
        """Print what a run would do, a line for each node."""
        filters = Filters(nodes or (), node_types or (), (), exclude_tags or ())
        state = self._state.load() or {}
        order = self._get_topological_order()
        self._results = {}
        selection = self._open(filters, full, state)
        try:
            dirty = self._dirty(full, state)
            say("ℹ Execution Plan:")
            say(f"ℹ {RULE}")
            for number, node_id in enumerate(order, 1):
                if node_id not in selection.considered:
                    self._keep(node_id, selection.left_out[node_id])
                    action = "SKIP"
                else:
                    action = "CACHED" if self._is_cached(node_id, dirty) else "RUN"
                node = self.manifest.nodes[node_id]
                say(f"{number:>4}. {action} {node_id} [{', '.join(node.tags) or node.kind}]")
            say(f"ℹ {RULE}")
        finally:
            self._close()

    def _get_topological_order(self) -> list[str]:
        return self.manifest.topological_order()

    def _get_topological_layers(self) -> list[list[str]]:
        return self.manifest.topological_layers()


def _definition_digest(node: Node) -> str:
    """What a node of the user's own kind is known by: its kind and fields."""
    return digest_bytes(json.dumps([node.kind, node.config], sort_keys=True).encode())


def _project_root(manifest: Manifest, state_dir: str | Path | None, target_path: str | Path | None) -> Path:
    """The project of a manifest: above the target folder that was named, else above the manifest's own."""
    if target_path is not None:
        return Path(os.path.abspath(target_path)).parent
    if manifest.path is not None and manifest.path.absolute().parent.name == "target":
        return manifest.path.absolute().parent.parent
    if state_dir is not None and Path(state_dir).absolute().parent.name == "target":
        return Path(state_dir).absolute().parent.parent
    return Path.cwd()


__all__ = ["DAGRunner", "ExecutionStatus", "ExecutionSummary", "NodeResult", "print_summary"]
