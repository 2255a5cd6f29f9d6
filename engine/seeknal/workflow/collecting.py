"""Collecting garbage in a project: the store's plan, with what only the engine knows to be in use."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from seeknal.dag.project import Project
from seeknal.errors import CorruptObjectError
from seeknal.state.locks import FileLock, Patience
from seeknal.store.collection import Collected, CollectionPlan, execute_collection, plan_collection
from seeknal.store.inventory import MANIFEST
from seeknal.store.reach import Retention, Root
from seeknal.store.store import Store
from seeknal.workflow.heads import AT_ONCE
from seeknal.workflow.session import UNFINISHED_SECONDS

_LONGEST_COLLECTION_SECONDS = 60.0


def retention_of(project: Project) -> Retention:
    """How much of the past a project's settings keep."""
    return Retention(project.settings.keep_last, project.settings.keep_days)


def plan_garbage(project: Project, retention: Retention) -> CollectionPlan:
    """Decide what may go; see :func:`seeknal.store.collection.plan_collection`. Raises StoreError."""
    store = project.store()
    if not store.root.is_dir():
        return CollectionPlan(retention, [], [], frozenset())
    try:
        return _plan(project, retention)
    except CorruptObjectError:
        # Another process may have collected what was about to be read. What cannot be read while that is kept off is
        # damaged. Not with a lease: what is to be told is what would go without one.
        lock = _lock(store)
        lock.acquire(Patience(_LONGEST_COLLECTION_SECONDS))
        try:
            return _plan(project, retention)
        finally:
            lock.release()


def _plan(project: Project, retention: Retention) -> CollectionPlan:
    return plan_collection(project.store(), retention, lambda: shown_manifests(project))


def _lock(store: Store) -> FileLock:
    return FileLock(store.root / "locks" / ".gc", "seeknal gc", what="garbage collection")


def collect_garbage(
    project: Project, retention: Retention, patience: Patience = AT_ONCE
) -> tuple[CollectionPlan, Collected]:
    """Decide what may go, and take it away. Raises BusyError where another process does that, StoreError, OSError."""
    store = project.store()
    if not store.root.is_dir():
        return plan_garbage(project, retention), Collected(0, 0, 0, 0)
    store.prepare()
    lock = _lock(store)
    lock.acquire(patience)
    try:
        plan = _plan(project, retention)
        done = execute_collection(store, plan, lambda: shown_manifests(project))
        store.sweep_temporary(UNFINISHED_SECONDS)
    finally:
        lock.release()
    return plan, done


def shown_manifests(project: Project) -> Iterator[Root]:
    """The manifests that links below ``target/`` show."""
    folders = [project.target, *sorted((project.target / "environments").glob("*"))]
    for folder in folders:
        try:
            name = Path(os.readlink(folder / "manifest.json")).name
        except OSError:
            continue
        where = folder.relative_to(project.root)
        yield Root(f"shown as {where}/manifest.json", ((MANIFEST, name.removesuffix(".json")),))
