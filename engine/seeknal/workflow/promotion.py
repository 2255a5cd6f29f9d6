"""Promotion: an environment's tree becomes another's, by one pointer.

What is written is a new snapshot of a few hundred bytes (same tree, new parent) and one ref, at any size of the
project. Production only moves forward from the state that the environment was planned against: where it moved since,
the promotion is refused with what moved, because the environment was never tried together with that.
"""

from __future__ import annotations

import contextlib
import time

import msgspec

from seeknal.dag.names import PRODUCTION
from seeknal.dag.parameters import GivenParameters, RunParameters
from seeknal.dag.project import Project
from seeknal.errors import BusyError, CorruptObjectError, DeliveryError, PromotionRaceError, SeeknalError
from seeknal.state.locks import Patience
from seeknal.store.objects import EnvironmentRecord, FailedNodes, Snapshot
from seeknal.store.store import Store
from seeknal.workflow.commit import move_to_tree
from seeknal.workflow.events import Listener, silent
from seeknal.workflow.heads import AT_ONCE, environment_lock
from seeknal.workflow.moves import first_few, what_moved
from seeknal.workflow.tree_change import TreeChange, insist_on_objects, tree_change
from seeknal.workflow.views import show_environment, show_record


class Promotion(msgspec.Struct, frozen=True):
    """A promotion that was decided and checked, and not done yet."""

    source: str
    target: str
    record: EnvironmentRecord
    source_snapshot: Snapshot
    source_digest: str
    target_digest: str | None
    change: TreeChange

    def changed_nodes(self) -> list[str]:
        """The nodes that the target will have another output of, or none any more."""
        return list(self.change.changed)

    def categories(self) -> dict[str, str]:
        """What the environment's plan says of the nodes: id → breaking, non_breaking, metadata."""
        return dict(self.record.plan.categories) if self.record.plan else {}

    @property
    def is_breaking(self) -> bool:
        """Whether a node that changes for the target's readers changes in a breaking way."""
        categories = self.categories()
        return any(categories.get(node_id) == "breaking" for node_id in self.changed_nodes())


def plan_promotion(store: Store, record: EnvironmentRecord, target: str, *, force: bool = False) -> Promotion:
    """Decide on a promotion. Reads two snapshots, and what is remembered of the change from one to the other.

    Raises SeeknalError where the environment was not applied as planned, PromotionRaceError where production moved,
    StoreError where what it would show is damaged.
    """
    source = record.name
    if source == target:
        raise SeeknalError(f"'{source}' cannot be promoted to itself")
    state = store.read_state(source)
    if record.status == "failed":
        raise SeeknalError(
            f"Environment '{source}' has not been applied: its last run failed",
            hint=f"fix what failed and run `seeknal run --env {source}`",
        )
    if state is None or record.status == "planned":
        raise SeeknalError(
            f"Environment '{source}' has not been applied" + (" since it was planned" if state else ""),
            hint=f"apply it with `seeknal run --env {source}`",
        )
    digest, snapshot = state
    target_digest, target_snapshot = store.read_state(target) or (None, None)
    same = target_snapshot is not None and target_snapshot.same_content(snapshot)
    if target == PRODUCTION and not force and not same and not _stands_as_planned(store, snapshot, target_digest):
        raise PromotionRaceError(
            f"{what_moved(store, target, snapshot.base)} since '{source}' was planned",
            hint=f"{_plan_again(source)}; or promote with --force",
        )
    promotion = Promotion(
        source,
        target,
        record,
        snapshot,
        digest,
        target_digest,
        tree_change(store, target_snapshot, snapshot),
    )
    _insist_on_whole(store, promotion)
    return promotion


def _stands_as_planned(store: Store, snapshot: Snapshot, production: str | None) -> bool:
    """Say whether production is what an environment was planned against: that state, or another of the same content."""
    if production == snapshot.base:
        return True
    try:
        return (
            production is not None
            and snapshot.base is not None
            and store.read_snapshot(production).same_content(store.read_snapshot(snapshot.base))
        )
    except CorruptObjectError:
        return False


def _insist_on_whole(store: Store, promotion: Promotion) -> None:
    """Refuse a tree that is not what the plan says, holds outputs that are behind, or lacks bytes.

    This rests on what the ref reaches, not on what was noted beside it: a crash may come between the two.
    """
    source = promotion.source
    again = f"run it whole with `seeknal run --env {source}`"
    plan = promotion.record.plan
    if plan is None or promotion.source_snapshot.manifest != plan.manifest:
        raise SeeknalError(f"Environment '{source}' has not been applied as it is planned", hint=again)
    if promotion.change.behind:
        names = first_few(promotion.change.behind)
        raise SeeknalError(f"Environment '{source}' holds outputs that are out of date: {names}", hint=again)
    # Only what changes for the target: what it has already, it has.
    for node_id, entry in promotion.change.changed.items():
        fault = store.find_fault(entry.artifact) if entry is not None else ""
        if fault:
            raise CorruptObjectError(f"the output of {node_id} {fault}", hint=again)


def _plan_again(source: str) -> str:
    return f"plan and run again (what is unchanged is cached): `seeknal plan {source}`, `seeknal run --env {source}`"


def _insist_on_source(store: Store, promotion: Promotion) -> None:
    """Refuse a state that is gone, because the environment went on meanwhile and garbage was collected."""
    try:
        insist_on_objects(store, store.read_snapshot(promotion.source_digest), promotion.change)
    except CorruptObjectError:
        if store.refs.read(promotion.source) == promotion.source_digest:
            raise
        raise PromotionRaceError(
            f"environment '{promotion.source}' was moved or deleted by another process meanwhile",
            hint="look at it, then try again",
        ) from None


def execute_promotion(
    project: Project,
    store: Store,
    promotion: Promotion,
    *,
    publish: bool = True,
    listener: Listener = silent,
    patience: Patience = AT_ONCE,
) -> list[DeliveryError]:
    """Move the target's ref, then its views, then its deliveries. Gives what could not be delivered.

    Raises BusyError where a run or another promotion is at work on the target, PromotionRaceError where it moved after
    the promotion was decided.
    """
    purpose = f"seeknal promote {promotion.source}"
    if promotion.target != PRODUCTION:
        purpose += f" {promotion.target}"
    with contextlib.ExitStack() as held:
        try:
            lease = held.enter_context(environment_lock(store, promotion.target, purpose, patience))
        except BusyError:
            # Another promotion may have won already, and only deliver still.
            _insist_on_target(store, promotion)
            raise
        _insist_on_target(store, promotion)
        # In this order: what is there once the lease names it stays there, though its environment may be deleted.
        lease.protect(promotion.source_digest)
        _insist_on_source(store, promotion)
        _insist_on_whole(store, promotion)
        digest = move_to_tree(
            store,
            promotion.target,
            promotion.source_snapshot,
            expected_head=promotion.target_digest,
            base=promotion.source_snapshot.base,
            promoted_from=promotion.source_digest,
            reason=f"promoted from {promotion.source}",
            listener=listener,
        )
        snapshot = store.read_snapshot(digest)
        # What it shows from now on passed its checks.
        store.write_failed(promotion.target, FailedNodes())
        errors = show_environment(project, store, promotion.target, snapshot, None, listener)
        _remember(project, store, promotion, digest)
        if not publish or not (promotion.change.exposures or store.read_deliveries(promotion.target).nodes):
            return errors
        from seeknal.workflow.delivery import deliver

        return errors + deliver(
            project,
            store,
            promotion.target,
            promotion.change.manifest(),
            promotion.change.tree(),
            None,
            listener,
            parameters=RunParameters.of_run(promotion.source_snapshot, _planned(promotion)),
        )


def _insist_on_target(store: Store, promotion: Promotion) -> None:
    """Refuse where the target moved after the promotion was decided."""
    if store.refs.read(promotion.target) == promotion.target_digest:
        return
    source, target = promotion.source, promotion.target
    moved = what_moved(store, target, promotion.target_digest)
    raise PromotionRaceError(
        f"{moved} meanwhile, so '{source}' was not promoted",
        hint=_plan_again(source) if target == PRODUCTION else f"look at it, then `seeknal promote {source} {target}`",
    )


def _planned(promotion: Promotion) -> GivenParameters:
    """What the environment's plan was given."""
    plan = promotion.record.plan
    return msgspec.convert(plan.parameters if plan else {}, GivenParameters)


def _remember(project: Project, store: Store, promotion: Promotion, digest: str) -> None:
    """Note the promotion in the record of the environment that it concerns."""
    now = time.time()
    plan = promotion.record.plan

    def promoted(record: EnvironmentRecord) -> EnvironmentRecord:
        if record.plan is None or record.plan != plan:
            return record
        # From here on the environment stands on what production became, so it can be promoted again.
        moved = msgspec.structs.replace(record.plan, base=digest)
        return msgspec.structs.replace(record, status="promoted", last_accessed=now, plan=moved)

    def received(record: EnvironmentRecord | None) -> EnvironmentRecord:
        record = record or EnvironmentRecord(promotion.target, "applied", now, now)
        return msgspec.structs.replace(
            record, status="applied", last_accessed=now, promoted_from=promotion.source, plan=plan
        )

    if promotion.target == PRODUCTION:
        # One that was deleted meanwhile stays deleted.
        if (moved := store.change_environment(promotion.source, promoted)) is not None:
            show_record(project, store, moved)
    else:
        show_record(project, store, store.update_environment(promotion.target, received))
