"""The store's checkup: verification and repair, with what only the engine knows about manifests and locks."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from seeknal.dag.project import Project
from seeknal.errors import BusyError
from seeknal.state.locks import Patience
from seeknal.store.findings import OUTSIDE, Repair, Verification
from seeknal.store.leases import Lease
from seeknal.store.repair import repair
from seeknal.store.verification import verify
from seeknal.workflow.commit import who
from seeknal.workflow.heads import AT_ONCE, environment_lock, read_manifest
from seeknal.workflow.outside_checks import find_outside, repair_outside

_MOST_ROUNDS = 5


def check_store(project: Project, *, trusted: Collection[str] = frozenset()) -> Verification:
    """Verify a project's store and what stands outside of it.

    See :func:`seeknal.store.verification.verify` and :mod:`seeknal.workflow.outside_checks`.
    """
    store = project.store()
    with store.leases.hold("store verify", only_reading=True):
        found = verify(store, lambda fingerprint: read_manifest(store, fingerprint), trusted=trusted)
        return replace(found, findings=[*found.findings, *find_outside(project, store)])


@dataclass(frozen=True)
class Repaired:
    """What was done, what of it failed and why, and what verifying finds now.

    ``is_busy``: some failed because another process is at work on their environment.
    """

    done: list[Repair]
    failed: dict[Repair, str]
    left: Verification
    is_busy: bool


def repair_store(project: Project, found: Verification, patience: Patience = AT_ONCE) -> Repaired:
    """Do the repairs that verifying found. The next run builds what is missing then."""
    store = project.store()
    busy: set[str] = set()

    @contextmanager
    def lock(name: str) -> Iterator[Lease]:
        try:
            with environment_lock(store, name, "seeknal store verify --repair", patience) as lease:
                yield lease
        except BusyError:
            busy.add(name)
            raise

    done: list[Repair] = []
    failed: dict[Repair, str] = {}
    # A ref that went back may lead to what nobody missed before.
    for _ in range(_MOST_ROUNDS):
        repairs = [entry for entry in found.repairs if entry not in done and entry not in failed]
        if not repairs:
            break
        inside = [entry for entry in repairs if entry.action not in OUTSIDE]
        failed |= repair(store, inside, who=who(), lock=lock)
        failed |= repair_outside(project, store, [entry for entry in repairs if entry.action in OUTSIDE], lock=lock)
        done += [entry for entry in repairs if entry not in failed]
        found = check_store(project, trusted=found.good_blobs)
    return Repaired(done, failed, found, bool(busy))
