"""Auditing: checks of outputs that are stored already. Nothing is run, and nothing is written.

- an *audit* evaluates the checks that the project's files hold now on what an environment holds.
- a *failure* is what a run remembered of a node whose checks failed; its rows are found again on what was rejected.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from seeknal.dag.draft import Draft
from seeknal.dag.names import PRODUCTION, did_you_mean, environment_name, nodes_named
from seeknal.errors import CorruptObjectError, NotFoundError, ProjectError
from seeknal.nodes.check import Check, CheckResult, results_of, sample_of
from seeknal.nodes.checks import SAMPLE_ROWS, evaluate_stored
from seeknal.nodes.kind import stored_table
from seeknal.nodes.workbench import Workbench
from seeknal.store.objects import Artifact, FailedNode, Snapshot
from seeknal.store.store import Store
from seeknal.workflow.outputs import Outputs, read_outputs
from seeknal.workflow.session import Session


@dataclass(frozen=True)
class NodeAudit:
    """What the checks of a node's stored output gave. Where ``missing`` is set, that node has none, so nothing did."""

    node_id: str
    results: tuple[CheckResult, ...] = ()
    missing: str = ""

    @property
    def passed(self) -> bool:
        return not any(result.failed_for_good for result in self.results)

    def to_dict(self) -> dict[str, Any]:
        return {
            "node_id": self.node_id,
            "passed": self.passed,
            "missing": self.missing or None,
            "checks": [result.to_dict() for result in self.results],
        }


def audit(session: Session, environment: str = PRODUCTION, names: Sequence[str] = ()) -> list[NodeAudit]:
    """Evaluate the checks of the named nodes, else of all, on what an environment holds.

    Raises NotFoundError for names of no node and for environments that hold nothing, ProjectError where a node's checks
    are wrong, CorruptObjectError where a stored table is damaged.
    """
    drafts = session.compiled.parsed.drafts
    chosen = [_find(drafts, name) for name in names] or [
        node_id for node_id in session.manifest.topological_order() if drafts[node_id].checks or drafts[node_id].audits
    ]
    problems = [problem for node_id in chosen for problem in session.compiled.analysis.problems.get(node_id, ())]
    if problems:
        raise ProjectError(problems)
    outputs = read_outputs(session.store, environment)
    bench = Workbench(session.store.root)
    try:
        return [_audit_node(drafts[node_id], outputs, bench) for node_id in dict.fromkeys(chosen)]
    finally:
        bench.close()


def _find(drafts: dict[str, Draft], name: str) -> str:
    found = nodes_named(name, drafts)
    if len(found) == 1:
        return found[0]
    if found:
        raise NotFoundError(f"'{name}' may mean {' or '.join(found)}", hint="write kind.name")
    raise NotFoundError(f"no node is called '{name}'", hint=did_you_mean(name, drafts))


def _audit_node(draft: Draft, outputs: Outputs, bench: Workbench) -> NodeAudit:
    checks = [linked.check for linked in draft.checks or draft.audits]
    names = draft.checked if draft.checks else [draft.id]
    if not checks:
        return NodeAudit(draft.id)
    missing = [name for name in names if name not in outputs.tables]
    if missing:
        return NodeAudit(draft.id, missing=missing[0])
    tables = [(name, outputs.tables[name]) for name in names]
    return NodeAudit(draft.id, _evaluate(checks, tables, bench, time.time(), SAMPLE_ROWS))


def _evaluate(
    checks: Sequence[Check],
    tables: Sequence[tuple[str, Artifact]],
    bench: Workbench,
    now_seconds: float,
    sample_rows: int,
) -> tuple[CheckResult, ...]:
    """Evaluate checks on stored tables, the checked one first."""
    for node_id, artifact in tables:
        fault = bench.store.find_fault(artifact)
        if fault:
            raise CorruptObjectError(f"{node_id}: its data {fault}", hint="`seeknal run` builds it again")
    stored = [stored_table(bench.store, node_id, artifact) for node_id, artifact in tables]
    connection = bench.hermetic_connection(1, 0, (check.sql for check in checks))
    return evaluate_stored(checks, stored, bench, connection, now_seconds=now_seconds, sample_rows=sample_rows)


# failures


def read_failures(store: Store, environment: str = PRODUCTION) -> tuple[str, dict[str, FailedNode]]:
    """The canonical name of an environment, and the nodes whose checks failed there when they were last run."""
    name = environment_name(environment)
    return name, store.read_failed(name).nodes


def gone_back_since(store: Store, environment: str, failed: FailedNode) -> Snapshot | None:
    """The state that an environment was rolled back to after a node's checks failed; None where it was not."""
    with contextlib.suppress(CorruptObjectError):
        head = store.head(environment)
        if head is not None and head.restores and head.created_at > failed.failed_at:
            return head
    return None


def failed_results(store: Store, failed: FailedNode, sample_rows: int) -> tuple[CheckResult, ...]:
    """The results of a failure, with the first rows of each check that failed, found anew.

    They are those that the run saw where what was checked, or the check, is not kept: the rows of a function, and
    a check in which a secret stands.

    Raises CorruptObjectError where what was checked is gone from the store.
    """
    known = results_of(failed.results)
    samples = {index: sample_of(said) for index, said in enumerate(failed.results)}
    if failed.tables:
        wrong = [index for index, result in enumerate(known) if not result.passed and failed.checks[index]]
        checks = [msgspec.convert(failed.checks[index], Check) for index in wrong]
        bench = Workbench(store.root)
        try:
            again = _evaluate(checks, failed.tables, bench, failed.failed_at, sample_rows)
        finally:
            bench.close()
        samples |= {index: result.sample for index, result in zip(wrong, again, strict=True)}
    return tuple(msgspec.structs.replace(result, sample=samples.get(index)) for index, result in enumerate(known))
