"""Environments: plan a change, try it beside production, promote it.

An environment is a ref to a snapshot, and a record of what was planned for it. Planning writes the record, applying
runs and moves the environment's own ref, promoting gives another environment the same tree: a new snapshot of a few
hundred bytes and one ref, whatever the project's size.

    planned ──apply──► applied ──promote──► promoted
                └────► failed
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from seeknal.dag.manifest import Manifest
from seeknal.dag.names import PRODUCTION, environment_name, one_on_some_disks
from seeknal.dag.parameters import GivenParameters
from seeknal.dag.project import Project
from seeknal.errors import (
    BusyError,
    CorruptObjectError,
    DeliveryError,
    NameNotAllowedError,
    NotFoundError,
    RefusedError,
    SeeknalError,
    StalePlanError,
)
from seeknal.state.locks import Patience
from seeknal.store.objects import EnvironmentPlanRecord, EnvironmentRecord
from seeknal.store.store import Store
from seeknal.workflow.commit import who
from seeknal.workflow.environment_plan import EnvironmentPlan, plan_environment, saved_plan
from seeknal.workflow.events import Listener, silent
from seeknal.workflow.heads import AT_ONCE, environment_lock
from seeknal.workflow.limits import default_workers
from seeknal.workflow.results import RunOptions
from seeknal.workflow.views import hide_environment, timestamp

if TYPE_CHECKING:
    from seeknal.workflow.applying import Applying, ApplyResult
    from seeknal.workflow.promotion import Promotion
    from seeknal.workflow.session import Session

__all__ = ["ApplyResult", "Environment", "EnvironmentManager", "EnvironmentPlan"]


def __getattr__(name: str) -> Any:
    """Give what stands elsewhere and may be asked for here: importing it takes its time."""
    if name == "ApplyResult":
        from seeknal.workflow.applying import ApplyResult

        return ApplyResult
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


class Environment(msgspec.Struct, frozen=True):
    """An environment as it stands. ``ttl_hours`` counts from ``last_accessed``."""

    name: str
    status: str
    created_at: str
    last_accessed: str
    ttl_seconds: int
    promoted_from: str | None
    plan: EnvironmentPlan | None
    nodes: int
    last_updated: str
    expires_at: float | None = None

    @property
    def ttl_hours(self) -> float:
        return self.ttl_seconds / 3600

    def is_expired(self) -> bool:
        return self.expires_at is not None and time.time() > self.expires_at


class EnvironmentManager:
    """The environments of the project whose ``target`` folder this is."""

    def __init__(self, target_path: str | Path = "target") -> None:
        self.project = Project.open(Path(os.path.abspath(target_path)).parent)
        self.store: Store = self.project.store()

    # planning

    def plan(
        self,
        env_name: str,
        manifest: Manifest | None = None,
        profile_path: str | None = None,
        *,
        given: GivenParameters | None = None,
    ) -> EnvironmentPlan:
        """Compare the project (``manifest``: instead of its files) with production, and save that as the plan.

        What is ``given`` is kept in the plan, and holds for the runs that apply it.
        Raises NameNotAllowedError, ProjectError where files are wrong. Queries that no longer bind are in the plan.
        """
        name = self._own_name(env_name)
        with self._session(manifest, given) as session:
            return self.plan_session(name, session, profile_path)

    def plan_session(self, name: str, session: Session, profile_path: str | None = None) -> EnvironmentPlan:
        """As :meth:`plan`, for a project that is open."""
        self._refuse_twin(name)
        return plan_environment(self.project, self.store, name, session, profile_path)

    # applying

    def apply(
        self,
        env_name: str,
        parallel: bool = True,
        *,
        force: bool = False,
        max_workers: int | None = None,
        continue_on_error: bool = False,
        dry_run: bool = False,
        profile_path: str | None = None,
        given: GivenParameters | None = None,
        listener: Listener = silent,
    ) -> ApplyResult:
        """Run the project in an environment, as planned. With ``dry_run`` nothing is executed or written.

        What is ``given`` must be what the plan was given; nothing means the same as the plan. Raises NotFoundError for
        an environment that was never planned, StalePlanError (a ValueError) where the project or what is given changed
        since, unless ``force``, which plans again first.
        """
        workers = default_workers() if max_workers is None else max_workers
        options = RunOptions(parallel=parallel, max_workers=workers, continue_on_error=continue_on_error)
        with self.applying(env_name, force=force, look_only=dry_run, given=given) as applying:
            return applying.look(options) if dry_run else applying.run(options, listener=listener)

    @contextmanager
    def applying(
        self,
        env_name: str,
        *,
        force: bool = False,
        look_only: bool = False,
        given: GivenParameters | None = None,
    ) -> Iterator[Applying]:
        """Open the project for running in an environment, or only for looking at that. Raises as :meth:`apply`."""
        # What only running needs: promoting and listing take a fraction of the time that its imports take.
        from seeknal.workflow.applying import Applying

        name = self._own_name(env_name)
        record, plan = self._planned(name)
        planned = msgspec.convert(plan.parameters, GivenParameters)
        said = given or GivenParameters()
        if said.lasting() == GivenParameters():
            said = msgspec.structs.replace(planned, run_id=said.run_id)
        with self._session(given=said) as session:
            moved = plan.manifest != session.manifest.fingerprint()
            if moved or said.lasting() != planned:
                if not force:
                    what = "manifest has changed" if moved else "it was made with other parameters"
                    raise StalePlanError(
                        f"Plan is stale -- {what}",
                        hint=f"plan again with `seeknal plan {name}`, or run with --force",
                    )
                if not look_only:
                    self.plan_session(name, session, plan.profile_path)
                    record, plan = self._planned(name)
            yield Applying(session, record, plan)

    # promoting

    def promote(
        self,
        source_env: str,
        target_env: str = PRODUCTION,
        *,
        force: bool = False,
        dry_run: bool = False,
        publish: bool = True,
        rematerialize: bool = False,
        profile_path: str | None = None,
        listener: Listener = silent,
    ) -> dict[str, Any]:
        """Make an environment's state another's (production's, unless said otherwise), as one pointer.

        Raises NotFoundError, SeeknalError where the environment was not applied, PromotionRaceError where production
        moved since it was planned (unless ``force``). With ``dry_run`` nothing is written.
        """
        # One for both, so that what is decided on is there when it is done.
        with self.store.leases.hold("promote", only_reading=True):
            promotion = self.plan_promotion(source_env, target_env, force=force)
            errors: list[DeliveryError] = []
            if not dry_run:
                errors = self.execute_promotion(promotion, publish=publish, listener=listener)
        return {
            "promoted": not dry_run,
            "from_env": promotion.source,
            "to_env": promotion.target,
            "changed_filenames": [],
            "changed_nodes": promotion.changed_nodes(),
            "warnings": [str(error) for error in errors],
            "rematerialize_nodes": [],
            "snapshot": self.store.refs.read(promotion.target),
        }

    def plan_promotion(self, source_env: str, target_env: str = PRODUCTION, *, force: bool = False) -> Promotion:
        """Decide what a promotion would do; see :mod:`seeknal.workflow.promotion`."""
        from seeknal.workflow.promotion import plan_promotion

        source = self._own_name(source_env)
        with self.store.leases.hold("promote", only_reading=True):
            return plan_promotion(self.store, self._known(source), environment_name(target_env), force=force)

    def await_environment(self, env_name: str, patience: Patience) -> None:
        """Wait until no run or promotion is at work on an environment. Raises BusyError."""
        with environment_lock(self.store, environment_name(env_name), "waiting for its turn", patience):
            pass

    def execute_promotion(
        self,
        promotion: Promotion,
        *,
        publish: bool = True,
        listener: Listener = silent,
        patience: Patience = AT_ONCE,
    ) -> list[DeliveryError]:
        """Do what was decided. Gives what could not be delivered; the pointer has moved all the same."""
        from seeknal.workflow.promotion import execute_promotion

        return execute_promotion(
            self.project, self.store, promotion, publish=publish, listener=listener, patience=patience
        )

    # the rest

    def list_environments(self) -> list[Environment]:
        """All environments, production (where it has a state) last. What cannot be read has the status ``damaged``."""
        with self.store.leases.hold("env list", only_reading=True):
            names = {*self.store.environment_names(), *self.store.refs.names()}
            return [self._environment(name) for name in sorted(names, key=lambda name: (name == PRODUCTION, name))]

    def _environment(self, name: str) -> Environment:
        try:
            record = self.store.read_environment(name)
            head = self.store.head(name)
            nodes = len(self.store.read_tree(head.tree).nodes) if head else 0
        except CorruptObjectError:
            return Environment(name, "damaged", "", "", 0, None, None, 0, "")
        updated = head.created_at if head else record.last_accessed if record else 0.0
        if record is None or name == PRODUCTION:
            created = head.created_at if head else 0.0
            status = "promoted" if head and head.promoted_from else "applied"
            return Environment(
                name, status, timestamp(created), timestamp(updated), 0, None, None, nodes, timestamp(updated)
            )
        return Environment(
            name,
            record.status,
            timestamp(record.created_at),
            timestamp(record.last_accessed),
            record.ttl_seconds,
            record.promoted_from,
            saved_plan(record),
            nodes,
            timestamp(updated),
            record.last_accessed + record.ttl_seconds,
        )

    def delete(self, env_name: str, *, patience: Patience = AT_ONCE) -> None:
        """Remove an environment: its ref, its record and its views. Its blobs stay until garbage is collected.

        Raises RefusedError for production, NotFoundError, BusyError.
        """
        name = self.check_deletable(env_name)
        with environment_lock(self.store, name, f"seeknal env delete {name}", patience):
            # Somebody else may have deleted it while this one waited.
            self.check_deletable(name)
            self.store.refs.remove(name, who=who(), why="deleted")
            hide_environment(self.project, name)
            # Last, because it is what makes the name known: where this is cut short, it can be done again.
            self.store.remove_environment(name)

    delete_environment = delete

    def check_deletable(self, env_name: str) -> str:
        """The canonical name of an environment that may be deleted. Raises RefusedError, NotFoundError."""
        name = environment_name(env_name)
        if name == PRODUCTION:
            raise RefusedError("production cannot be deleted", hint="name another environment; see `seeknal env list`")
        # A record that is damaged or gone must not keep its environment from being removed.
        with suppress(CorruptObjectError):
            if name not in self.store.refs.names():
                self._known(name)
        return name

    def cleanup_expired(self) -> list[str]:
        """Delete every environment whose time to live is over; gives their names."""
        expired = [environment.name for environment in self.list_environments() if environment.is_expired()]
        removed = []
        for name in expired:
            # One that is at work right now is in use; it is looked at again next time.
            with suppress(BusyError, NotFoundError):
                self.delete(name)
                removed.append(name)
        return removed

    # looking up

    def _session(self, manifest: Manifest | None = None, given: GivenParameters | None = None) -> Session:
        from seeknal.dag.parse import parse_manifest
        from seeknal.workflow.session import Session, run_parameters

        if manifest is None:
            return Session.open(self.project, given)
        return Session(self.project, parse_manifest(self.project, manifest, run_parameters(given)))

    def _own_name(self, name: str) -> str:
        canonical = environment_name(name)
        if canonical == PRODUCTION:
            raise RefusedError(
                "production is not planned or applied as an environment", hint="use `seeknal plan` and `seeknal run`"
            )
        return canonical

    def _refuse_twin(self, name: str) -> None:
        """Raise NameNotAllowedError where another environment's name differs in case alone."""
        for other in self.store.environment_names():
            if other != name and one_on_some_disks(other) == one_on_some_disks(name):
                raise NameNotAllowedError(
                    f"there is an environment '{other}', which would be '{name}' on a disk that ignores case",
                    hint="take that one, or a name that differs in more",
                )

    def _known(self, name: str) -> EnvironmentRecord:
        record = self.store.read_environment(name)
        if record is None:
            from seeknal.workflow.moments import unknown_environment

            raise unknown_environment(self.store, name)
        return record

    def _planned(self, name: str) -> tuple[EnvironmentRecord, EnvironmentPlanRecord]:
        record = self._known(name)
        if record.plan is None:
            raise SeeknalError(f"Environment '{name}' has no plan", hint=f"make one with `seeknal plan {name}`")
        return record, record.plan
