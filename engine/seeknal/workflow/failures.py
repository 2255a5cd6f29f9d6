"""Why nodes failed, as problems with places, and as what is remembered of those that their checks rejected."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import msgspec

from seeknal.dag.draft import Draft
from seeknal.dag.inference import CompiledProject
from seeknal.dag.names import PRODUCTION
from seeknal.errors import Place, Problem, SeeknalError
from seeknal.nodes.check import Check, CheckResult, kept
from seeknal.nodes.function_reference import log_path
from seeknal.quantity import duration_text
from seeknal.redaction import redacted
from seeknal.store.objects import Artifact, FailedNode
from seeknal.workflow.results import NodeOutcome
from seeknal.workflow.worker import Failure
from seeknal.workflow.worker_process import Death


def error_problems(compiled: CompiledProject, node_id: str, error: Exception) -> tuple[Problem, ...]:
    """Problems of an error that came up before the node was executed."""
    found = error.problems() if isinstance(error, SeeknalError) else [Problem(str(error))]
    return tuple(
        problem if problem.place else Problem(f"{node_id}: {problem.message}", compiled.place(node_id), problem.hint)
        for problem in found
    )


def failure_problem(draft: Draft, failure: Failure) -> Problem:
    """A worker's failure, at its place in the node's SQL or in a data file; ``draft`` is the node as executed."""
    message = f"{draft.id}: {failure.message}"
    if failure.file is not None:
        return Problem(message, Place(failure.file, failure.line, failure.column), failure.hint)
    offset = failure.offset
    if offset is not None and draft.sql is not None and failure.statement is not None:
        offset += draft.sql.starts[failure.statement]
    return Problem(message, draft.place_in_query(offset) if draft.query else draft.place(), failure.hint)


def check_problems(draft: Draft, results: tuple[CheckResult, ...], environment: str) -> tuple[Problem, ...]:
    """A problem for each check of severity error that failed, at its place in the file."""
    problems = [
        Problem(f"{draft.id}: {result.label}: {result.message}", draft.place(*linked.path))
        for linked, result in zip(draft.checks or draft.audits, results, strict=True)
        if result.failed_for_good
    ]
    if any(result.sample for result in results):
        option = "" if environment == PRODUCTION else f" --env {environment}"
        problems[-1] = replace(problems[-1], hint=f"`seeknal inspect {draft.id} --failed{option}` shows the rows")
    return tuple(problems)


def death_failure(compiled: CompiledProject, node_id: str, death: Death) -> Failure:
    """The failure of a node whose process died under it, for good."""
    root = compiled.project.root
    log = log_path(root, node_id)
    cause = death.likely_cause
    if compiled.parsed.drafts[node_id].function is not None and log.is_file():
        cause += f"; what it printed is in {log.relative_to(root)}"
    return Failure(death.told("twice"), cause)


def timeout_failure(timeout_seconds: float) -> Failure:
    """The failure of an attempt that took too long."""
    return Failure(
        f"took longer than its timeout of {duration_text(timeout_seconds)}, and was ended",
        "give it more time with `timeout:`, or less to do",
    )


def rejected_nodes(
    compiled: CompiledProject, run_id: str, outcomes: Mapping[str, NodeOutcome], artifacts: Mapping[str, Artifact]
) -> dict[str, FailedNode]:
    """What is to be remembered of the nodes whose checks failed in a run."""
    found = {}
    for node_id, outcome in outcomes.items():
        if outcome.status != "failed" or not outcome.checks:
            continue
        draft = compiled.parsed.drafts[node_id]
        tables = [(name, artifacts[name]) for name in draft.inputs if draft.function is None]
        if outcome.rejected is not None:
            tables = [(node_id, outcome.rejected)]
        checks = [_to_be_kept(linked.check) for linked in draft.checks or draft.audits]
        results = [kept(result) for result in outcome.checks]
        found[node_id] = FailedNode(node_id, run_id, time.time(), tables, checks, results)
    return found


def _to_be_kept(check: Check) -> dict[str, Any]:
    """A check as plain values; nothing where a secret stands in it, which no file may hold."""
    plain: dict[str, Any] = msgspec.to_builtins(check)
    return {} if redacted(repr(plain)) != repr(plain) else plain
