"""Moving a project's run records to another backend: plan, copy, verify, switch, and clear what was copied.

- *in force*: the backend in which runs are recorded now; see :mod:`seeknal.workflow.run_records`.
- *switch*: changing ``state_backend`` in the project file, in one step. Before it the old backend is in force,
  complete; after it the new one. So whatever ends a migration early, doing it again finishes it.

The records that the new backend was verified to have leave the old one last: what stayed could come back, stale, when
somebody moves the records the other way.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from seeknal.dag.project import Project
from seeknal.dag.project_edit import ProjectEdit, apply_edit, plan_setting
from seeknal.errors import NotFoundError, UsageError
from seeknal.state.backend import StateBackend
from seeknal.state.copying import CopyPlan, Counts, Inventory, check_copy, copy_runs, plan_copy, take_inventory
from seeknal.state.libsql_connection import is_libsql_url, server_address
from seeknal.state.locks import Patience
from seeknal.workflow.heads import AT_ONCE
from seeknal.workflow.run_records import (
    BACKEND_VARIABLE,
    backend_in_force,
    database_of,
    open_backend,
    records_lock,
)

BackendType = Literal["file", "database"]

SETTING = "state_backend"

_PURPOSE = "seeknal migrate-state"


@dataclass(frozen=True)
class MigrationPlan:
    """What a migration to ``target`` will do. ``source`` is the other backend, in force or not; ``edit`` the switch."""

    target: BackendType
    source: BackendType
    in_force: str
    held: dict[BackendType, Inventory]
    copy: CopyPlan
    edit: ProjectEdit | None

    @property
    def is_needed(self) -> bool:
        return self.edit is not None or bool(self.copy.moved)

    @property
    def to_copy(self) -> Counts:
        return self.held[self.source].total(self.copy.copied)


def places(project: Project) -> dict[BackendType, str]:
    """Say where each backend keeps a project's records, relative to the project where it is inside."""
    database = database_of(project)
    # A URL may hold a token.
    shown = (
        server_address(database).shown if is_libsql_url(database) else database.removeprefix(f"{project.root}{os.sep}")
    )
    return {"file": str((project.target / "runs").relative_to(project.root)), "database": shown}


def count_records(project: Project) -> dict[BackendType, Counts]:
    """Count what each backend holds. Writes nothing."""
    with _both(project) as backends:
        return {name: take_inventory(backend).total() for name, backend in backends.items()}


def plan_migration(project: Project, target: BackendType) -> MigrationPlan:
    """Decide what a migration has to do. Writes nothing.

    Raises NotFoundError where no run was ever recorded, UsageError where the environment would undo the switch,
    ProjectError where the project file cannot be edited, and what reading the records raises.
    """
    with _both(project) as backends:
        return _plan(project, target, backends)


def execute_migration(project: Project, plan: MigrationPlan, patience: Patience = AT_ONCE) -> MigrationPlan:
    """Do what is to do now, which is what was planned, and what was recorded since; gives the plan that was done.

    Runs must not go on meanwhile: raises BusyError where one does. Raises as :func:`plan_migration`, and
    CorruptObjectError where the copy is not what was copied; then nothing was switched.
    """
    if not plan.is_needed:
        return plan
    project.store().prepare()
    with _alone(project, patience), _nothing_half_made(project) as keep, _both(project) as backends:
        source, target = backends[plan.source], backends[plan.target]
        # Keeps out those, too, who write through the API, until the copied records are gone from the source.
        source.initialize()
        with source.transaction():
            plan = _plan(Project.open(project.root), plan.target, backends)
            if not plan.is_needed:
                return plan
            target.initialize()
            copy_runs(plan.copy, source, target)
            with contextlib.closing(open_backend(project, plan.target, _PURPOSE)) as fresh:
                check_copy(plan.copy, plan.held[plan.source], take_inventory(fresh))
            keep()
            if plan.edit is not None:
                apply_edit(plan.edit)
            for run_id in plan.copy.moved:
                source.delete_run(run_id)
    return plan


@contextlib.contextmanager
def _nothing_half_made(project: Project) -> Iterator[Callable[[], None]]:
    """Take away a database that is made while the block runs, where it ends by an error before its yield is called."""
    database = database_of(project)
    files = [] if is_libsql_url(database) else [Path(f"{database}{ending}") for ending in ("", "-wal", "-shm")]
    made = [path for path in files if not os.path.lexists(path)] if files and not os.path.lexists(files[0]) else []
    try:
        yield made.clear
    except BaseException:
        for path in made:
            with contextlib.suppress(OSError):
                path.unlink()
        raise


def _plan(project: Project, target: BackendType, backends: dict[BackendType, StateBackend]) -> MigrationPlan:
    source: BackendType = "file" if target == "database" else "database"
    said = os.environ.get(BACKEND_VARIABLE)
    if said and said != target:
        raise UsageError(
            f"{BACKEND_VARIABLE}={said} overrides the project file, so nothing would be recorded in '{target}'",
            hint=f"unset {BACKEND_VARIABLE}",
        )
    in_force = backend_in_force(project)
    if in_force not in backends:
        raise UsageError(f"runs are recorded in '{in_force}', which only its own program can move elsewhere")
    held = {name: take_inventory(backend) for name, backend in backends.items()}
    if not any(inventory.digests for inventory in held.values()):
        raise NotFoundError(
            "there is no state to migrate: no run was recorded yet",
            hint=f"`seeknal run` makes some, or set 'state_backend: {target}' in the project file",
        )
    return MigrationPlan(
        target=target,
        source=source,
        in_force=in_force,
        held=held,
        copy=plan_copy(held[source], held[target], target_wins=in_force == target),
        edit=plan_setting(project.root, SETTING, target) if project.settings.state_backend != target else None,
    )


@contextlib.contextmanager
def _alone(project: Project, patience: Patience) -> Iterator[None]:
    """Keep runs, and other migrations, off the records."""
    lock = records_lock(project, _PURPOSE, shared=False)
    lock.acquire(patience)
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def _both(project: Project) -> Iterator[dict[BackendType, StateBackend]]:
    with contextlib.ExitStack() as opened:
        yield {
            name: opened.enter_context(contextlib.closing(open_backend(project, name, _PURPOSE)))
            for name in ("file", "database")
        }
