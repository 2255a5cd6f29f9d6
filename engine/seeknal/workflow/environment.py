"""Environments: plan a change, try it beside production, promote it.

An environment is a ref to a snapshot, and a record of what was planned for it. Planning writes the record, applying
runs and moves the environment's own ref, promoting gives another environment the same tree: a new snapshot of a few
hundred bytes and one ref, whatever the project's size.

    planned ──apply──► applied ──promote──► promoted
                └────► failed
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from seeknal.dag.diff import ChangeCategory
from seeknal.dag.manifest import Manifest
from seeknal.dag.names import PRODUCTION, did_you_mean, environment_name
from seeknal.dag.parse import parse_manifest
from seeknal.dag.project import Project
from seeknal.errors import DeliveryError, NotFoundError, RefusedError, SeeknalError, StalePlanError
from seeknal.store.objects import EnvironmentPlanRecord, EnvironmentRecord, Tree
from seeknal.store.store import Store
from seeknal.workflow.commit import who
from seeknal.workflow.events import Listener, silent
from seeknal.workflow.limits import StopRequest
from seeknal.workflow.planning import ChangePlan
from seeknal.workflow.promotion import Promotion, execute_promotion, plan_promotion
from seeknal.workflow.results import RunOptions, RunResult
from seeknal.workflow.runner import ExecutionSummary, summarize
from seeknal.workflow.session import Session, environment_lock, read_head
from seeknal.workflow.views import hide_environment, show_record, show_references, timestamp, write_json


@dataclass(frozen=True)
class EnvironmentPlan:
    """A plan for an environment, as it was saved.

    ``categorized_changes``: node id → ``breaking``, ``non_breaking`` or ``metadata``. ``manifest_fingerprint`` is the
    SHA-256 that the project must still have when the plan is applied.
    """

    env_name: str
    manifest_fingerprint: str
    categorized_changes: dict[str, str]
    added_nodes: list[str]
    removed_nodes: list[str]
    created_at: str
    nodes_to_execute: list[str]
    profile_path: str | None = None
    change: ChangePlan | None = None

    @property
    def total_nodes_to_execute(self) -> int:
        return len(self.nodes_to_execute)

    @property
    def summary(self) -> str:
        """A few lines for people."""
        counts = {category.value: 0 for category in ChangeCategory}
        for value in self.categorized_changes.values():
            counts[value] += 1
        return (
            f"Plan for environment '{self.env_name}' ({self.created_at})\n"
            f"  Nodes to execute: {self.total_nodes_to_execute}\n"
            f"  Breaking: {counts['breaking']}, non-breaking: {counts['non_breaking']}, metadata: {counts['metadata']}\n"
            f"  Added: {len(self.added_nodes)}, removed: {len(self.removed_nodes)}"
        )

    def to_dict(self) -> dict[str, Any]:
        return {
            "env_name": self.env_name,
            "manifest_fingerprint": self.manifest_fingerprint,
            "categorized_changes": self.categorized_changes,
            "added_nodes": self.added_nodes,
            "removed_nodes": self.removed_nodes,
            "created_at": self.created_at,
            "total_nodes_to_execute": self.total_nodes_to_execute,
            "nodes_to_execute": self.nodes_to_execute,
            "profile_path": self.profile_path,
            "details": self.change.to_dict() if self.change else None,
        }

    def save(self, path: str | Path) -> None:
        """Write the plan as JSON. Raises OSError."""
        Path(path).write_bytes(msgspec.json.format(msgspec.json.encode(self.to_dict()), indent=2))


@dataclass(frozen=True)
class Environment:
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


@dataclass(frozen=True)
class EnvironmentConfig:
    """What ``env_config.json`` holds."""

    name: str
    created_at: str
    last_accessed: str
    promoted_from: str | None = None
    ttl_seconds: int = 7 * 24 * 3600


@dataclass(frozen=True)
class EnvironmentRef:
    """One entry of ``refs.json``: a production output that an unchanged node stands on."""

    node_id: str
    output_path: str
    fingerprint: str


@dataclass(frozen=True)
class ApplyResult(Mapping[str, Any]):
    """What applying a plan did. Also a mapping of the names that older callers expect."""

    env_name: str
    result: RunResult
    env_dir: Path
    nodes_to_execute: list[str]
    profile_path: str | None = None

    @property
    def success(self) -> bool:
        return self.result.status == "success"

    @property
    def summary(self) -> ExecutionSummary:
        return summarize(self.result)

    def _as_dict(self) -> dict[str, Any]:
        return {
            "env_name": self.env_name,
            "env_dir": self.env_dir,
            "nodes_to_execute": self.nodes_to_execute,
            "profile_path": self.profile_path,
            "success": self.success,
        }

    def __getitem__(self, key: str) -> Any:
        return self._as_dict()[key]

    def __iter__(self) -> Any:
        return iter(self._as_dict())

    def __len__(self) -> int:
        return len(self._as_dict())


@dataclass(frozen=True)
class _PlannedRecord:
    name: str
    plan: EnvironmentPlanRecord


@dataclass(frozen=True)
class Applying:
    """An environment whose plan was checked against the project, ready to run."""

    manager: EnvironmentManager
    session: Session
    record: _PlannedRecord

    @property
    def name(self) -> str:
        return self.record.name

    @property
    def plan(self) -> EnvironmentPlanRecord:
        return self.record.plan

    def look(self, options: RunOptions) -> ApplyResult:
        """What a run would execute; nothing is written."""
        forecast = self.session.prepare_run(self.name, options).forecast()
        would = [entry.node_id for entry in forecast if entry.action in ("RUN", "MAY RUN")]
        head = self.manager.store.refs.read(self.name)
        return self._result(RunResult("", self.name, "success", 0.0, [], head), would)

    def run(
        self,
        options: RunOptions,
        *,
        listener: Listener = silent,
        stop: StopRequest | None = None,
        publish: bool = True,
    ) -> ApplyResult:
        """Run, and remember how it ended. Raises ProjectError, BusyError."""
        result = self.session.run(
            self.name, options, listener=listener, stop=stop, base_snapshot=self.plan.base, publish=publish
        )
        self.manager.remember_run(self.name, result)
        return self._result(result, self.plan.to_execute)

    def _result(self, result: RunResult, nodes: list[str]) -> ApplyResult:
        folder = self.manager.project.environment_folder(self.name)
        return ApplyResult(self.name, result, folder, nodes, self.plan.profile_path)


class EnvironmentManager:
    """The environments of the project whose ``target`` folder this is."""

    def __init__(self, target_path: str | Path = "target") -> None:
        self.project = Project.open(Path(target_path).resolve().parent)
        self.store: Store = self.project.store()

    # planning

    def plan(
        self, env_name: str, manifest: Manifest | None = None, profile_path: str | None = None
    ) -> EnvironmentPlan:
        """Compare the project (``manifest``: instead of its files) with production, and save that as the plan.

        Raises NameNotAllowedError, ProjectError where files are wrong. Queries that no longer bind are part of the plan.
        """
        name = self._own_name(env_name)
        with self._session(manifest) as session:
            return self.plan_session(name, session, profile_path)

    def plan_session(self, name: str, session: Session, profile_path: str | None = None) -> EnvironmentPlan:
        """As :meth:`plan`, for a project that is open."""
        production = read_head(self.store, PRODUCTION)
        change = session.plan(name)
        now = time.time()
        plan = EnvironmentPlan(
            name,
            change.manifest_fingerprint,
            {node_id: category.value for node_id, category in change.categories.items()},
            list(change.added),
            list(change.removed),
            timestamp(now),
            change.to_execute,
            profile_path,
            change,
        )
        before = self.store.read_environment(name)
        record = EnvironmentRecord(
            name,
            "planned",
            before.created_at if before else now,
            now,
            promoted_from=before.promoted_from if before else None,
            ttl_seconds=before.ttl_seconds if before else EnvironmentRecord.__struct_defaults__[0],
            plan=EnvironmentPlanRecord(
                change.manifest_fingerprint,
                change.base,
                now,
                plan.categorized_changes,
                plan.added_nodes,
                plan.removed_nodes,
                plan.nodes_to_execute,
                profile_path,
                plan.to_dict(),
            ),
        )
        self.store.prepare()
        manifest_path = self.store.write_manifest(change.manifest_fingerprint, session.manifest.to_json())
        self.store.write_environment(record)
        self._show_plan(record, session, production.tree if production else Tree({}), manifest_path)
        return plan

    def _show_plan(self, record: EnvironmentRecord, session: Session, production: Tree, manifest_path: Path) -> None:
        from seeknal.store.filesystem import link_atomically

        assert record.plan is not None
        folder = self.project.environment_folder(record.name)
        write_json(self.store, folder / "plan.json", record.plan.document)
        write_json(self.store, self.project.target / "plans" / f"{record.name}.json", record.plan.document)
        show_record(self.project, self.store, record)
        link_atomically(manifest_path, folder / "manifest.json")
        to_execute = set(record.plan.to_execute)
        unchanged = [node_id for node_id in session.manifest.nodes if node_id not in to_execute]
        show_references(self.project, self.store, record.name, production, unchanged)

    # applying

    def apply(
        self,
        env_name: str,
        parallel: bool = True,
        *,
        force: bool = False,
        max_workers: int = 4,
        continue_on_error: bool = False,
        dry_run: bool = False,
        profile_path: str | None = None,
        listener: Listener = silent,
    ) -> ApplyResult:
        """Run the project in an environment, as planned. With ``dry_run`` nothing is executed or written.

        Raises NotFoundError for an environment that was never planned, StalePlanError (a ValueError) where the project
        changed since, unless ``force``, which plans again first.
        """
        options = RunOptions(parallel=parallel, max_workers=max_workers, continue_on_error=continue_on_error)
        with self.applying(env_name, force=force) as applying:
            return applying.look(options) if dry_run else applying.run(options, listener=listener)

    @contextmanager
    def applying(self, env_name: str, *, force: bool = False) -> Iterator[Applying]:
        """Open the project for running in an environment. Raises as :meth:`apply`."""
        name = self._own_name(env_name)
        record = self._planned(name)
        with self._session() as session:
            if record.plan.manifest != session.manifest.fingerprint():
                if not force:
                    raise StalePlanError(
                        "Plan is stale -- manifest has changed",
                        hint=f"plan again with `seeknal plan {name}`, or run with --force",
                    )
                self.plan_session(name, session, record.plan.profile_path)
                record = self._planned(name)
            yield Applying(self, session, record)

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
        source = self._own_name(source_env)
        return plan_promotion(self.store, self._known(source), environment_name(target_env), force=force)

    def execute_promotion(
        self, promotion: Promotion, *, publish: bool = True, listener: Listener = silent
    ) -> list[DeliveryError]:
        """Do what was decided. Gives what could not be delivered; the pointer has moved all the same."""
        return execute_promotion(self.project, self.store, promotion, publish=publish, listener=listener)

    # the rest

    def list_environments(self) -> list[Environment]:
        """All environments, production (where it has a state) last."""
        names = [*self.store.environment_names(), *([PRODUCTION] if self.store.refs.read(PRODUCTION) else [])]
        return [self._environment(name) for name in dict.fromkeys(names) if name != PRODUCTION] + [
            self._environment(name) for name in names if name == PRODUCTION
        ][:1]

    def _environment(self, name: str) -> Environment:
        record = self.store.read_environment(name)
        head = self.store.head(name)
        nodes = len(self.store.read_tree(head.tree).nodes) if head else len(record.plan.to_execute) if record and record.plan else 0
        updated = head.created_at if head else record.last_accessed if record else 0.0
        if record is None or name == PRODUCTION:
            created = head.created_at if head else 0.0
            status = "promoted" if head and head.promoted_from else "applied"
            return Environment(name, status, timestamp(created), timestamp(updated), 0, None, None, nodes, timestamp(updated))
        return Environment(
            name,
            record.status,
            timestamp(record.created_at),
            timestamp(record.last_accessed),
            record.ttl_seconds,
            record.promoted_from,
            _saved_plan(record),
            nodes,
            timestamp(updated),
            record.last_accessed + record.ttl_seconds,
        )

    def delete(self, env_name: str) -> None:
        """Remove an environment: its ref, its record and its views. Its blobs stay until garbage is collected.

        Raises RefusedError for production, NotFoundError.
        """
        name = self.check_deletable(env_name)
        with environment_lock(self.store, name, "env delete"):
            self.store.refs.compare_and_swap(name, self.store.refs.read(name), None, who=who(), why="deleted")
            self.store.remove_environment(name)
            hide_environment(self.project, name)

    delete_environment = delete

    def check_deletable(self, env_name: str) -> str:
        """The canonical name of an environment that may be deleted. Raises RefusedError, NotFoundError."""
        name = environment_name(env_name)
        if name == PRODUCTION:
            raise RefusedError("production cannot be deleted", hint="name another environment; see `seeknal env list`")
        self._known(name)
        return name

    def cleanup_expired(self) -> list[str]:
        """Delete every environment whose time to live is over; gives their names."""
        expired = [environment.name for environment in self.list_environments() if environment.is_expired()]
        for name in expired:
            self.delete(name)
        return expired

    # looking up

    def _session(self, manifest: Manifest | None = None) -> Session:
        if manifest is None:
            return Session.open(self.project)
        return Session(self.project, parse_manifest(self.project, manifest))

    def _own_name(self, name: str) -> str:
        canonical = environment_name(name)
        if canonical == PRODUCTION:
            raise RefusedError(
                "production is not planned or applied as an environment", hint="use `seeknal plan` and `seeknal run`"
            )
        return canonical

    def _known(self, name: str) -> EnvironmentRecord:
        record = self.store.read_environment(name)
        if record is None:
            known = self.store.environment_names()
            hint = did_you_mean(name, known) if known else f"make it with `seeknal plan {name}`"
            raise NotFoundError(f"Environment '{name}' not found", hint=hint)
        return record

    def _planned(self, name: str) -> _PlannedRecord:
        record = self._known(name)
        if record.plan is None:
            raise SeeknalError(f"Environment '{name}' has no plan", hint=f"make one with `seeknal plan {name}`")
        return _PlannedRecord(name, record.plan)

    def remember_run(self, name: str, result: RunResult) -> None:
        """Note in an environment's record how its run ended."""
        status = {"success": "applied"}.get(result.status, "failed")
        record = msgspec.structs.replace(self._known(name), status=status, last_accessed=time.time())
        self.store.write_environment(record)
        show_record(self.project, self.store, record)


def _saved_plan(record: EnvironmentRecord) -> EnvironmentPlan | None:
    plan = record.plan
    if plan is None:
        return None
    return EnvironmentPlan(
        record.name,
        plan.manifest,
        plan.categories,
        plan.added,
        plan.removed,
        timestamp(plan.created_at),
        plan.to_execute,
        plan.profile_path,
    )


__all__ = [
    "ApplyResult",
    "Environment",
    "EnvironmentConfig",
    "EnvironmentManager",
    "EnvironmentPlan",
    "EnvironmentRef",
]
