"""A plan for an environment: made, saved, shown and read back."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from seeknal.dag.diff import ChangeCategory
from seeknal.dag.names import PRODUCTION
from seeknal.dag.project import Project
from seeknal.store.objects import EnvironmentPlanRecord, EnvironmentRecord, Tree
from seeknal.store.store import Store
from seeknal.workflow.events import silent
from seeknal.workflow.planning import ChangePlan
from seeknal.workflow.views import show_link, show_record, show_references, timestamp, write_json

if TYPE_CHECKING:
    from seeknal.workflow.session import Session


class EnvironmentPlan(msgspec.Struct, frozen=True):
    """A plan for an environment, as it was saved.

    ``categorized_changes``: node id → ``breaking``, ``non_breaking`` or ``metadata``. ``manifest_fingerprint`` is the
    SHA-256 that the project must still have when the plan is applied. ``parameters`` are what it was given.
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
    parameters: dict[str, Any] = {}

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
            f"  Breaking: {counts['breaking']}, non-breaking: {counts['non_breaking']}, "
            f"metadata: {counts['metadata']}\n"
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
            "parameters": self.parameters,
            "details": self.change.to_dict() if self.change else None,
        }

    def save(self, path: str | Path) -> None:
        """Write the plan as JSON. Raises OSError."""
        Path(path).write_bytes(msgspec.json.format(msgspec.json.encode(self.to_dict()), indent=2))


def saved_plan(record: EnvironmentRecord) -> EnvironmentPlan | None:
    """The plan that an environment's record holds, None where it has none."""
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
        parameters=plan.parameters,
    )


def plan_environment(
    project: Project, store: Store, name: str, session: Session, profile_path: str | None = None
) -> EnvironmentPlan:
    """Compare an open project with production, and save that as an environment's plan."""
    change = session.plan(name)
    parameters = msgspec.to_builtins(session.parameters.given.lasting())
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
        parameters,
    )
    planned = EnvironmentPlanRecord(
        change.manifest_fingerprint,
        change.base,
        now,
        plan.categorized_changes,
        plan.added_nodes,
        plan.removed_nodes,
        plan.nodes_to_execute,
        profile_path,
        parameters=parameters,
    )

    def with_plan(before: EnvironmentRecord | None) -> EnvironmentRecord:
        if before is None:
            return EnvironmentRecord(name, "planned", now, now, plan=planned)
        return msgspec.structs.replace(before, status="planned", last_accessed=now, plan=planned)

    store.prepare()
    manifest_path = store.write_manifest(change.manifest_fingerprint, session.manifest.pieces())
    record = store.update_environment(name, with_plan)
    _show_plan(project, store, record, plan, session, session.base(PRODUCTION).tree, manifest_path)
    return plan


def _show_plan(
    project: Project,
    store: Store,
    record: EnvironmentRecord,
    plan: EnvironmentPlan,
    session: Session,
    production: Tree,
    manifest_path: Path,
) -> None:
    folder = project.environment_folder(record.name)
    document = plan.to_dict()
    write_json(store, folder / "plan.json", document)
    write_json(store, project.target / "plans" / f"{record.name}.json", document)
    show_record(project, store, record)
    show_link(store, manifest_path, folder / "manifest.json", silent)
    to_execute = set(plan.nodes_to_execute)
    unchanged = [node_id for node_id in session.manifest.nodes if node_id not in to_execute]
    show_references(project, store, record.name, production, unchanged)
