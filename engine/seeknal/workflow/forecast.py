"""What a run would do, in order, without executing anything."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from seeknal.dag.inference import CompiledProject
from seeknal.errors import FormatTooNewError, SeeknalError
from seeknal.workflow.resolution import CHECK, DROP, HIT, KEEP, MISS, Base, Resolver
from seeknal.workflow.results import NOT_EXECUTED, Forecast
from seeknal.workflow.selection import Selection

_ACTIONS = {HIT: "CACHED", CHECK: "CHECK", MISS: "RUN", KEEP: "SKIP", DROP: "SKIP"}


def waiting(compiled: CompiledProject) -> dict[str, list[str]]:
    """What each node waits for, in topological order; one that is not executed waits for nothing."""
    manifest, drafts = compiled.parsed.manifest, compiled.parsed.drafts
    return {
        node_id: manifest.inputs_of(node_id) if drafts[node_id].implementation.executes else []
        for node_id in manifest.topological_order()
    }


def forecast_run(
    inputs: Mapping[str, Sequence[str]], resolver: Resolver, selection: Selection, base: Base, *, full: bool
) -> list[Forecast]:
    """Forecast each node; ``inputs`` gives what it waits for, in topological order of nodes."""
    actions: dict[str, Forecast] = {}
    for node_id, waits_for in inputs.items():
        actions[node_id] = _forecast(node_id, waits_for, actions, resolver, selection, base, full=full)
    return list(actions.values())


def _forecast(
    node_id: str,
    waits_for: Sequence[str],
    actions: Mapping[str, Forecast],
    resolver: Resolver,
    selection: Selection,
    base: Base,
    *,
    full: bool,
) -> Forecast:
    waiting = [name for name in waits_for if name not in resolver.artifacts]
    if not waiting or node_id not in selection.considered:
        try:
            decision = resolver.decide(node_id)
        except FormatTooNewError:
            raise
        except (SeeknalError, OSError) as error:
            return Forecast(node_id, "FAIL", str(error))
        if decision.artifact is not None:
            resolver.artifacts[node_id] = decision.artifact
        action = "SKIP" if decision.reason == NOT_EXECUTED else _ACTIONS[decision.action]
        return Forecast(node_id, action, decision.reason, decision.fingerprint)
    dropped = [name for name in waiting if actions[name].action in ("SKIP", "FAIL")]
    if dropped:
        return Forecast(node_id, "SKIP", f"{dropped[0]} will not be built")
    if full and node_id in selection.chosen:
        return Forecast(node_id, "RUN", "full run")
    if node_id not in base.tree.nodes:
        return Forecast(node_id, "RUN", "new, never built")
    if resolver.definition_changed(node_id):
        return Forecast(node_id, "RUN", "its definition changed")
    return Forecast(node_id, "MAY RUN", f"if a column of {', '.join(waiting)} that it reads changes")
