"""The store's checkup: verification and repair, with what only the engine knows about manifests and locks."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from seeknal.dag.project import Project
from seeknal.store.repair import repair
from seeknal.store.verification import Repair, Verification, verify
from seeknal.workflow.commit import who
from seeknal.workflow.session import environment_lock, read_manifest


def check_store(project: Project, *, trusted: Collection[str] = frozenset()) -> Verification:
    """Verify a project's store; see :func:`seeknal.store.verification.verify`."""
    store = project.store()
    return verify(store, lambda fingerprint: read_manifest(store, fingerprint), trusted=trusted)


def repair_store(project: Project, repairs: Sequence[Repair]) -> dict[Repair, str]:
    """Do repairs; gives what could not be done, with the reason. The next run builds what is missing then."""
    store = project.store()
    return repair(store, repairs, who=who(), lock=lambda name: environment_lock(store, name, "store verify"))
