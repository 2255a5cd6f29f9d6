"""Repair: doing what a verification found should be done.

What is damaged is moved to ``quarantine/<when>/``, below the path that it had, and can be moved back from there. Each
repair looks again first, because a run may have put something good there meanwhile.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from seeknal.errors import BusyError, SeeknalError
from seeknal.store.column_digests import digest_file
from seeknal.store.filesystem import place, sync_folder
from seeknal.store.findings import (
    END_HISTORY,
    MEMORY,
    MOVE_REF,
    MOVE_STRAY,
    NOTE_LOSS,
    NOTE_MOVE,
    PROTECT,
    QUARANTINE,
    RESTORE_PIN,
    Repair,
)
from seeknal.store.history import Pin, read_ends, write_ends, write_pin
from seeknal.store.losses import note_losses
from seeknal.store.store import Store


def repair(
    store: Store,
    repairs: Sequence[Repair],
    *,
    who: str,
    lock: Callable[[str], AbstractContextManager[object]],
) -> dict[Repair, str]:
    """Do these repairs; gives what was not done, with the reason.

    ``lock`` keeps runs and promotions off an environment; BusyError of it leaves that environment's ref alone.
    """
    failed: dict[Repair, str] = {}
    quarantine = new_quarantine()
    # One may stand where a folder of the store's must be.
    strays = [entry for entry in repairs if entry.action == MOVE_STRAY]
    for entry in strays:
        try:
            place(store.root / entry.subject, store.root / quarantine / entry.subject)
        except FileNotFoundError:
            continue
        except OSError as error:
            failed[entry] = error.strerror or str(error)
    repairs = [entry for entry in repairs if entry not in strays]
    store.prepare()
    # What is noted goes into good files.
    notes = [entry for entry in repairs if entry.action == QUARANTINE and entry.subject.startswith("notes/")]
    losses = [
        entry.subject
        for entry in repairs
        if entry.action == NOTE_LOSS or (entry.action == QUARANTINE and entry.subject.partition("/")[0] not in MEMORY)
    ]
    for entry in [*notes, *(entry for entry in repairs if entry not in notes)]:
        if losses and entry not in notes:
            note_losses(store, losses)
            losses = []
        try:
            _do(store, entry, quarantine, who, lock)
        except FileNotFoundError:
            continue
        except (OSError, BusyError, SeeknalError) as error:
            failed[entry] = error.message if isinstance(error, SeeknalError) else (error.strerror or str(error))
    if losses:
        note_losses(store, losses)
    return failed


def new_quarantine() -> str:
    """A folder for what is moved aside now, as a path in the store."""
    return f"quarantine/{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{os.getpid()}"


def _do(
    store: Store, entry: Repair, quarantine: str, who: str, lock: Callable[[str], AbstractContextManager[object]]
) -> None:
    """Do one repair. Raises FileNotFoundError where there is nothing to repair any more, OSError, SeeknalError."""
    if entry.action == END_HISTORY:
        _end_history(store, entry.subject)
    elif entry.action == MOVE_REF:
        _move_ref(store, entry, who, lock)
    elif entry.action == NOTE_MOVE:
        with lock(entry.subject):
            store.refs.note(entry.subject, who=who, why="found by store verify")
    elif entry.action == QUARANTINE:
        _quarantine(store, entry.subject, quarantine)
    elif entry.action == RESTORE_PIN:
        digest = entry.subject.partition("/")[2]
        pinned = store.read_snapshot(digest)
        write_pin(store, Pin(digest, pinned.environment, time.time(), who))
    elif entry.action == PROTECT:
        path = store.root / entry.subject
        os.chmod(path, path.stat().st_mode & 0o555)


def _end_history(store: Store, snapshot: str) -> None:
    try:
        known = read_ends(store)
    except SeeknalError:
        known = set()
    write_ends(store, known | {snapshot})


def _move_ref(store: Store, entry: Repair, who: str, lock: Callable[[str], AbstractContextManager[object]]) -> None:
    name = entry.subject
    with lock(name):
        damaged: str | None
        try:
            damaged = store.refs.read(name)
            if damaged is None or _is_readable(store, damaged, name):
                return
        except SeeknalError:
            damaged = None
        why = "repaired: back to the last state that can be read" if entry.value else "repaired: no state can be read"
        store.refs.restore(name, damaged, entry.value, who=who, why=why)


def _is_readable(store: Store, digest: str, environment: str) -> bool:
    try:
        snapshot = store.read_snapshot(digest)
        store.read_tree(snapshot.tree)
    except SeeknalError:
        return False
    return snapshot.environment == environment


def _quarantine(store: Store, subject: str, quarantine: str) -> None:
    """Move a file aside, unless it is a blob that is good by now."""
    path = store.root / subject
    aside = store.root / quarantine / subject
    with store.leases.sweeping():
        folder, _, address = subject.partition("/")
        if folder == "blobs" and _is_good(path, address.replace("/", "")[:32]):
            return
        place(path, aside)
    sync_folder(path.parent)


def _is_good(blob: Path, digest: str) -> bool:
    """Say whether a blob has the bytes of its name. Of one that may not be read, that is not known: PermissionError."""
    try:
        return digest_file(blob)[0] == digest
    except (FileNotFoundError, PermissionError):
        raise
    except OSError:
        return False
