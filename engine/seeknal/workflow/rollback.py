"""Rollback: an environment goes back to a state of its history, by one pointer.

What is written is a new snapshot of a few hundred bytes (the old tree, and as its parent the state that is left) and
the ref, at any size of the project. So a rollback is a move like any other: it stands in the history, and rolling back
again takes it back. Nothing is computed; production's deliveries are made again from the store.

What it changes is remembered where a run or a promotion led from the one state to the other (see
:mod:`seeknal.workflow.tree_change`); otherwise two trees are read.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, replace

from seeknal.dag.names import PRODUCTION
from seeknal.dag.parameters import RunParameters
from seeknal.dag.project import Project
from seeknal.errors import CorruptObjectError, DeliveryError, PromotionRaceError
from seeknal.state.locks import Patience
from seeknal.store.history import Moment
from seeknal.store.leases import Lease
from seeknal.store.objects import Snapshot
from seeknal.store.store import Store
from seeknal.workflow.commit import move_to_tree
from seeknal.workflow.delivery import deliver
from seeknal.workflow.events import Listener, silent
from seeknal.workflow.heads import AT_ONCE, environment_lock
from seeknal.workflow.moments import find_moment, is_number
from seeknal.workflow.moves import first_few, what_moved
from seeknal.workflow.tree_change import TreeChange, insist_on_objects, tree_change
from seeknal.workflow.views import show_environment


@dataclass(frozen=True)
class Rollback:
    """A rollback that was decided and checked, and not done yet. ``head`` is where the environment stands.

    ``counted``: its target was counted from there, so it is another one when the environment moves.
    """

    environment: str
    counted: bool
    head: Moment
    target: Moment
    change: TreeChange

    @property
    def changes_nothing(self) -> bool:
        """Whether the environment stands at the same outputs and definitions already, delivered to the same places."""
        return _same_state(self.head.snapshot, self.target.snapshot)

    def changed_nodes(self) -> list[str]:
        """The nodes that will have another output, or none any more."""
        return list(self.change.changed)


def plan_rollback(store: Store, environment: str, moment: str = "1", *, lease: Lease | None = None) -> Rollback:
    """Decide on a rollback to a moment (see :mod:`seeknal.workflow.moments`). Writes nothing.

    While ``lease`` is held, garbage collection leaves the target alone. Raises NotFoundError where the environment has
    no such state, StoreError where outputs of it are gone.
    """
    holding = nullcontext(lease) if lease is not None else store.leases.hold("rollback", only_reading=True)
    with holding as lease:
        head = find_moment(store, environment, "")
        target = find_moment(store, environment, moment)
        # In this order: what is there once the lease names it stays there.
        lease.protect(target.digest)
        change = _change(store, head.snapshot, target.snapshot)
        rollback = Rollback(environment, is_number(moment), head, target, change)
        _insist_on_whole(store, rollback)
        return rollback


def _change(store: Store, head: Snapshot, target: Snapshot) -> TreeChange:
    try:
        return tree_change(store, head, target)
    except CorruptObjectError:
        # Where it is the tree of now that is damaged, that is a reason to leave it.
        return tree_change(store, None, target)


def _insist_on_target(store: Store, rollback: Rollback) -> None:
    try:
        insist_on_objects(store, store.read_snapshot(rollback.target.digest), rollback.change)
    except CorruptObjectError as error:
        raise CorruptObjectError(
            f"'{rollback.environment}' cannot go back to {rollback.target.digest[:12]}: {error.message}",
            hint=f"`seeknal env history {rollback.environment}` lists what is kept",
        ) from error


def _insist_on_whole(store: Store, rollback: Rollback) -> None:
    changed = rollback.change.changed
    # Only what changes: what the environment has already, it has.
    gone = [name for name, entry in changed.items() if entry is not None and not store.is_whole(entry.artifact)]
    if gone:
        raise CorruptObjectError(
            f"'{rollback.environment}' cannot go back to {rollback.target.digest[:12]}: "
            f"outputs of it are damaged or gone from the store: {first_few(gone)}",
            hint="`seeknal store verify` tells what else is missing",
        )


def execute_rollback(
    project: Project,
    store: Store,
    rollback: Rollback,
    *,
    publish: bool = True,
    listener: Listener = silent,
    patience: Patience = AT_ONCE,
) -> tuple[str, list[DeliveryError]]:
    """Move the ref, then the views, then the deliveries. Gives the new snapshot, and what could not be delivered.

    Where the environment moved since the rollback was decided, it goes to the same target from where it stands now,
    unless that was counted. Where it stands at the target's outputs already, the ref stays, and the views and the
    deliveries follow it: a rollback may have been cut short after its move. Raises PromotionRaceError, BusyError where
    a run or a promotion is at work on the environment, StoreError where outputs went away meanwhile.
    """
    environment, target = rollback.environment, rollback.target
    with environment_lock(store, environment, f"seeknal rollback {environment}", patience) as lease:
        head = store.refs.read(environment)
        if head != rollback.head.digest and (rollback.counted or head is None):
            raise PromotionRaceError(
                f"{what_moved(store, environment, rollback.head.digest)} meanwhile, so nothing was rolled back",
                hint=f"`seeknal env history {environment}` shows where it stands; "
                "a snapshot's digest means the same state whatever moves",
            )
        # In this order: what is there once the lease names it stays there.
        lease.protect(target.digest)
        _insist_on_target(store, rollback)
        if head is not None and head != rollback.head.digest:
            # Outputs that the environment had when this was decided, it may have left since.
            rollback = replace(rollback, change=_change(store, store.read_snapshot(head), target.snapshot))
        _insist_on_whole(store, rollback)
        if head is not None and _same_state(store.read_snapshot(head), target.snapshot):
            digest = head
        else:
            digest = move_to_tree(
                store,
                environment,
                target.snapshot,
                expected_head=head,
                base=None if environment == PRODUCTION else target.snapshot.base,
                promoted_from=None,
                restores=target.digest,
                reason=f"rolled back to {target.digest[:12]}",
                listener=listener,
            )
        errors = show_environment(project, store, environment, store.read_snapshot(digest), None, listener)
        if publish:
            errors += deliver(
                project,
                store,
                environment,
                rollback.change.manifest(),
                rollback.change.tree(),
                None,
                listener,
                parameters=RunParameters.of_run(target.snapshot),
            )
        return digest, errors


def _same_state(now: Snapshot, then: Snapshot) -> bool:
    return now.same_content(then) and now.parameters == then.parameters
