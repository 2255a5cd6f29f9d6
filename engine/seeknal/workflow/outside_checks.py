"""What stands outside the store, held against what the store says: links, deliveries, records of runs.

Nothing of it is ever read back, apart from the records of runs. So what is gone, or behind, is a note: somebody cleaned
up, or a process was killed before it came to it. What stands in a link's place and is none of ours is damage, because
people and tools take it for what an environment holds.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import msgspec
from msgspec.structs import replace

from seeknal.dag.project import Project
from seeknal.errors import BusyError, FormatTooNewError, SeeknalError
from seeknal.json_document import indented
from seeknal.state.libsql_connection import is_libsql_url
from seeknal.store.column_digests import digest_file
from seeknal.store.filesystem import leads_elsewhere, place
from seeknal.store.findings import FORGET_DELIVERY, SET_ASIDE, SHOW, Finding, Hurt, Repair
from seeknal.store.inventory import VIEW, Stored, stored
from seeknal.store.objects import Deliveries, Delivery, Snapshot, Tree
from seeknal.store.repair import new_quarantine
from seeknal.store.store import Store
from seeknal.workflow.run_records import backend_in_force, database_of, open_backend
from seeknal.workflow.views import show_environment, shown_links, view_entries


def find_outside(project: Project, store: Store) -> list[Finding]:
    """Check what stands outside the store. Environments that cannot be read are passed over: others tell of them."""
    found: list[Finding] = []
    shown = set()
    for name in store.refs.names():
        with contextlib.suppress(SeeknalError):
            if (state := store.read_state(name)) is not None:
                shown.add(state[1].tree)
            found += _Shown(project, store, name).faults()
            found += _deliveries(project, store, name)
    return [*found, *_other_views(project, store, shown), *_records(project)]


class _Shown:
    """The links and documents that show an environment."""

    def __init__(self, project: Project, store: Store, environment: str) -> None:
        self._project = project
        self._store = store
        self._environment = environment
        self._folder = project.environment_folder(environment)

    def faults(self) -> list[Finding]:
        while (state := self._store.read_state(self._environment)) is not None:
            digest, snapshot = state
            tree = self._store.read_tree(snapshot.tree)
            found = [*self._links(digest, snapshot), *self._view(digest, snapshot, tree)]
            # It may have moved meanwhile.
            if self._store.refs.read(self._environment) == digest:
                return found
        return []

    def _finding(self, path: Path, message: str, hurts: list[Hurt], *, is_note: bool) -> Finding:
        where = path.relative_to(self._project.root).as_posix()
        return Finding("view", where, message, is_note, hurts, [Repair(SHOW, self._environment)])

    def _links(self, digest: str, snapshot: Snapshot) -> Iterator[Finding]:
        for name, target in shown_links(self._project, self._store, self._environment, snapshot).items():
            path = self._folder / name
            wanted = os.path.relpath(target, path.parent)
            leads = _link(path)
            # A plan shows its own manifest.
            planned = name == "manifest.json" and leads is not None and path.exists() and _same_folder(path, target)
            if leads == wanted or planned:
                continue
            foreign = leads is not None and leads_elsewhere(path, self._store.root)
            if foreign or (leads is None and os.path.lexists(path)):
                hurts = [Hurt(self._environment, 0, digest, [])]
                what = "leads elsewhere, and stands" if foreign else "stands"
                message = f"{what} where a link shall show what '{self._environment}' holds"
                found = self._finding(path, message, hurts, is_note=False)
                yield replace(found, repairs=[Repair(SET_ASIDE, found.subject), *found.repairs])
            else:
                message = "is missing" if leads is None else f"does not show what '{self._environment}' holds now"
                yield self._finding(path, message, [], is_note=True)

    def _view(self, digest: str, snapshot: Snapshot, tree: Tree) -> Iterator[Finding]:
        view = self._store.view_folder(snapshot.tree)
        if not view.is_dir():
            # Its links say so.
            return
        hurts = [Hurt(self._environment, 0, digest, [])]
        entries = dict(view_entries(self._store, view, tree))
        for path, content in entries.items():
            entry = view / path
            if not os.path.lexists(entry):
                yield self._finding(entry, "is missing", [], is_note=True)
            elif not _stands(entry, content):
                what = "the link to the node's output" if isinstance(content, str) else "what was written there"
                yield self._finding(entry, f"is not {what}", hurts, is_note=False)
        for parent, _, names in os.walk(view):
            for name in names:
                entry = Path(parent, name)
                if entry.relative_to(view).as_posix() not in entries:
                    yield self._finding(entry, "is none of ours", [], is_note=True)


def _other_views(project: Project, store: Store, shown: Collection[str]) -> Iterator[Finding]:
    """The views that show no environment now, and would be wrong if one came back to their tree."""
    views: list[Stored] = []
    with contextlib.suppress(OSError):
        views += stored(store, VIEW)
    for found in views:
        if found.name in shown:
            continue
        try:
            entries = view_entries(store, found.path, store.read_tree(found.name))
            stands = all(_stands(found.path / path, content) for path, content in entries)
        except SeeknalError:
            stands = False
        if not stands:
            where = found.path.relative_to(project.root).as_posix()
            yield Finding("view", where, "does not show its tree", True, [], [Repair(SET_ASIDE, where)])


def _stands(entry: Path, content: str | Mapping[str, Any]) -> bool:
    return _link(entry) == content if isinstance(content, str) else _says(entry, content)


def _link(path: Path) -> str | None:
    """Where a link leads; None for what is no link."""
    try:
        return os.readlink(path)
    except OSError:
        return None


def _says(path: Path, document: Mapping[str, Any]) -> bool:
    """Say whether a file holds a document, whichever version of ours wrote it."""
    try:
        found = msgspec.json.decode(path.read_bytes())
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return False
    wanted = msgspec.json.decode(indented(document))
    if isinstance(found, dict) and isinstance(wanted, dict):
        found = {**found, "seeknal_version": wanted.get("seeknal_version")}
        wanted = {**wanted, "seeknal_version": wanted.get("seeknal_version")}
    return bool(found == wanted)


# deliveries


def _deliveries(project: Project, store: Store, environment: str) -> Iterator[Finding]:
    for node_id, files in store.read_deliveries(environment).nodes.items():
        for known in files.values():
            message = _delivery_fault(known)
            if message:
                path = Path(known.path)
                inside = path.is_relative_to(project.root)
                where = path.relative_to(project.root).as_posix() if inside else str(path)
                repairs = [Repair(FORGET_DELIVERY, f"{environment}/{node_id}")]
                yield Finding("delivery", where, f"{message} ({node_id} of '{environment}')", True, [], repairs)


def _delivery_fault(known: Delivery) -> str:
    if known.sent_at:
        return ""
    try:
        is_same = digest_file(Path(known.path))[0] == known.digest
    except FileNotFoundError:
        return "was delivered, and is gone"
    except OSError as error:
        return f"was delivered, and cannot be read: {error.strerror}"
    return "" if is_same else "is no longer what was delivered"


def _same_folder(link: Path, target: Path) -> bool:
    return os.path.dirname(os.path.realpath(link)) == os.path.realpath(target.parent)


# records of runs


def _records(project: Project) -> Iterator[Finding]:
    backend_type = backend_in_force(project)
    database = database_of(project) if backend_type == "database" else ""
    if is_libsql_url(database) or (database and not Path(database).exists()):
        return
    where = Path(database) if database else project.target / "runs"
    try:
        with contextlib.closing(open_backend(project, backend_type, "seeknal store verify")) as records:
            for run_id in records.list_runs():
                try:
                    records.get_run(run_id)
                except SeeknalError as error:
                    yield _damaged_record(project, where if database else where / f"{run_id}.json", error)
                    if database:
                        return
    except BusyError:
        return
    except SeeknalError as error:
        yield _damaged_record(project, where, error)


def _damaged_record(project: Project, path: Path, error: SeeknalError) -> Finding:
    inside = path.is_relative_to(project.root)
    subject = path.relative_to(project.root).as_posix() if inside else str(path)
    if isinstance(error, FormatTooNewError):
        return Finding("newer-format", subject, error.message)
    # A database may be another program's as well; nobody but its owner takes that away.
    can_go = inside and path.is_file() and path.suffix == ".json"
    repairs = [Repair(SET_ASIDE, subject)] if can_go else []
    message = error.message if repairs or not error.hint else f"{error.message} ({error.hint})"
    return Finding("damaged-run-record", subject, message, False, [], repairs)


# repairs


def repair_outside(
    project: Project, store: Store, repairs: Sequence[Repair], *, lock: Callable[[str], AbstractContextManager[object]]
) -> dict[Repair, str]:
    """Do these repairs; gives what was not done, with the reason. ``lock`` keeps runs off an environment."""
    failed: dict[Repair, str] = {}
    for entry in repairs:
        try:
            _repair(project, store, entry, lock)
        except FileNotFoundError:
            continue
        except (OSError, SeeknalError) as error:
            failed[entry] = error.message if isinstance(error, SeeknalError) else (error.strerror or str(error))
    return failed


def _repair(
    project: Project, store: Store, entry: Repair, lock: Callable[[str], AbstractContextManager[object]]
) -> None:
    if entry.action == SET_ASIDE:
        place(project.root / entry.subject, store.root / new_quarantine() / entry.subject)
        return
    environment, _, node_id = entry.subject.partition("/")
    with lock(environment):
        if entry.action == FORGET_DELIVERY:
            known = store.read_deliveries(environment).nodes
            store.write_deliveries(environment, Deliveries({key: known[key] for key in known if key != node_id}))
        elif entry.action == SHOW:
            _show(project, store, environment)


def _show(project: Project, store: Store, environment: str) -> None:
    state = store.read_state(environment)
    if state is None:
        return
    tree = store.read_tree(state[1].tree)
    view = store.view_folder(state[1].tree)
    if view.is_dir():
        doomed = store.temporary_path("")
        os.rename(view, doomed)
        shutil.rmtree(doomed, ignore_errors=True)
    for error in show_environment(project, store, environment, state[1], tree):
        raise error
