"""Where a project's runs are recorded, and how one is.

The backend *in force* is what ``SEEKNAL_STATE_BACKEND`` says, else ``state_backend`` in the project file. A run holds
the *records lock* together with other runs; who moves the records from one backend to the other holds it alone.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from seeknal.dag.project import Project
from seeknal.errors import Problem, ProjectError, UsageError
from seeknal.state.backend import StateBackend, UnknownBackendError, create_state_backend
from seeknal.state.libsql_connection import is_libsql_url
from seeknal.state.locks import FileLock
from seeknal.store.leases import StoreUser
from seeknal.timeline import timed
from seeknal.workflow.heads import AT_ONCE, RUN_COMMAND
from seeknal.workflow.results import RunResult
from seeknal.workflow.views import timestamp

BACKEND_VARIABLE = "SEEKNAL_STATE_BACKEND"
DATABASE_VARIABLE = "SEEKNAL_STATE_DATABASE"


def backend_in_force(project: Project) -> str:
    """Say which type of backend a project's runs are recorded in."""
    return os.environ.get(BACKEND_VARIABLE) or project.settings.state_backend


def database_of(project: Project) -> str:
    """Give the path or URL of a project's database of runs."""
    said = os.environ.get(DATABASE_VARIABLE) or project.settings.state_database
    return said if is_libsql_url(said) else str(project.root / said)


def open_backend(project: Project, backend_type: str, purpose: str) -> StateBackend:
    """Make a backend over a project's records. Touches no disk. Raises UsageError, ProjectError."""
    try:
        if backend_type == "database":
            return create_state_backend(backend_type, db_path=database_of(project), purpose=purpose)
        return create_state_backend(backend_type, base_path=str(project.target), purpose=purpose)
    except UnknownBackendError as error:
        if os.environ.get(BACKEND_VARIABLE):
            raise UnknownBackendError(f"{BACKEND_VARIABLE}: {error.message}", hint=error.hint) from None
        place = project.places.get("state_backend")
        raise ProjectError([Problem(error.message, place, error.hint)]) from None


def records_lock(project: Project, purpose: str, *, shared: bool) -> FileLock:
    """Make the lock on where the records are. No environment has a name that begins with a dot."""
    return FileLock(
        project.store().lock_path(".records"),
        purpose,
        what="the place of the records of runs",
        shared=shared,
        sharers=lambda: _recording(project),
    )


def _recording(project: Project) -> list[StoreUser]:
    """Who records a run just now: whoever executes one holds a lease on the store, too."""
    leases = project.store().leases
    with leases.sweeping():
        holders = [lease.holder for lease in leases.live()]
    return [holder for holder in holders if holder.purpose.startswith((RUN_COMMAND, "DAGRunner"))]


@contextmanager
def recording(project: Project, run_id: str | None) -> Iterator[StateBackend]:
    """Open the records of a project for one run.

    Raises BusyError while they are moved elsewhere, UsageError where there is a run of this id already,
    CorruptObjectError and FormatTooNewError.
    """
    lock = records_lock(project, RUN_COMMAND, shared=True)
    lock.acquire(AT_ONCE)
    with contextlib.ExitStack() as held:
        held.callback(lock.release)
        # Read again: the records may have been moved since the project was.
        now = Project.open(project.root)
        with contextlib.closing(open_backend(now, backend_in_force(now), RUN_COMMAND)) as records:
            records.initialize()
            if run_id is not None and records.get_run(run_id) is not None:
                raise UsageError(f"there is a run '{run_id}' already", hint="choose another --run-id, or none")
            yield records


@timed("record")
def record(records: StateBackend, result: RunResult) -> None:
    """Write a run's record: when, how it ended, and what became of each node."""
    finished = result.finished_at
    started = finished - result.duration_seconds
    config: Mapping[str, Any] = {"environment": result.environment}
    with records.transaction():
        if records.get_run(result.run_id) is None:
            records.create_run(result.run_id, status="running", started_at=timestamp(started), config=dict(config))
        for node in result.nodes:
            records.set_node_state(
                result.run_id,
                node.node_id,
                status=node.status,
                duration_ms=round(node.duration_seconds * 1000, 3),
                row_count=node.row_count,
                fingerprint=node.fingerprint,
                error_message="; ".join(str(problem) for problem in node.problems) or None,
            )
        records.update_run(result.run_id, status=result.status, finished_at=timestamp(finished))
