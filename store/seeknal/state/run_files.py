"""The files of the file backend: one JSON file a run, and what makes several change as one.

    <folder>/<run_id>.json      a run record; replaced whole, so it is never seen half-written
    <folder>/.new-<run_id>      a record about to take its place
    <folder>/.journal           the *journal*: which records a transaction puts in place
    <folder>/.write.lock        held by whoever writes, for as long as the transaction lasts
    <folder>/.locks/            the locks of runs, which callers ask for

The writes of one run are kept by one rename. Those of several are kept by the rename of their journal: from
then on whoever comes next finishes what is left, should this process die in between.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import msgspec

from seeknal.errors import CorruptObjectError, way_out_of
from seeknal.state.errors import StateBackendError, TransactionError
from seeknal.state.locks import FileLock, Patience
from seeknal.state.records import (
    SCHEMA_VERSION,
    RunRecord,
    check_run_id,
    check_schema_version,
    decode_run,
    encode_run,
    is_run_id,
)
from seeknal.store.filesystem import sync_folder


class _Journal(msgspec.Struct, frozen=True):
    """Which records a transaction replaces, by their ``.new-`` files, and which it deletes."""

    schema_version: int
    replaced: list[str]
    deleted: list[str]


class RunFiles:
    """Read and write run records in a folder. Every run id given has been checked by the caller.

    ``purpose`` is what another process is told when it waits in vain for the write lock.
    """

    def __init__(self, folder: Path, purpose: str, wait_seconds: float) -> None:
        self.folder = folder
        self._journal = folder / ".journal"
        self._purpose = purpose
        self._wait_seconds = wait_seconds

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the write lock; :meth:`keep` needs it. Makes the folder. Raises BusyError."""
        lock = FileLock(self.folder / ".write.lock", self._purpose, what=f"{self.folder}")
        lock.acquire(Patience(self._wait_seconds))
        try:
            self._finish_journal()
            yield
        finally:
            lock.release()

    def run_lock(self, run_id: str) -> FileLock:
        """Give a lock object for a run, a new one each time, not yet acquired."""
        return FileLock(self.folder / ".locks" / f"{run_id}.lock", self._purpose, what=f"run '{run_id}'")

    def is_usable(self) -> bool:
        """Say whether the folder exists and can be read and written."""
        return self.folder.is_dir() and os.access(self.folder, os.R_OK | os.W_OK | os.X_OK)

    def run_ids(self) -> set[str]:
        """Name the runs that have a record. Other files in the folder are passed over."""
        self._await_journal()
        with _reporting(f"cannot list {self.folder}"):
            if not self.folder.exists():
                return set()
            return {path.stem for path in self.folder.iterdir() if path.suffix == ".json" and is_run_id(path.stem)}

    def load(self, run_id: str) -> RunRecord | None:
        """Read a record; None where there is none. Raises CorruptObjectError, FormatTooNewError."""
        self._await_journal()
        path = self._path(run_id)
        with _reporting(f"cannot read {path}"):
            try:
                raw = path.read_bytes()
            except FileNotFoundError:
                return None
        return decode_run(raw, run_id, str(path))

    def keep(self, writes: Mapping[str, RunRecord | None]) -> None:
        """Put records in place, and delete those that are None: all of it or nothing, and durably.

        Raises TransactionError where nothing was kept. The caller has the write lock.
        """
        replaced = {run_id: record for run_id, record in writes.items() if record is not None}
        deleted = [run_id for run_id, record in writes.items() if record is None and self._path(run_id).exists()]
        if not replaced and not deleted:
            return
        with _reporting(f"cannot write to {self.folder}, so nothing was kept", TransactionError):
            for run_id, record in replaced.items():
                _write_durably(self._new_path(run_id), encode_run(record))
            if len(replaced) + len(deleted) > 1:
                # The journal must not outlive a power cut that the names of the files it counts on do not.
                sync_folder(self.folder)
                new_journal = self._new_path(self._journal.name)
                journal = _Journal(SCHEMA_VERSION, list(replaced), deleted)
                _write_durably(new_journal, [msgspec.json.encode(journal)])
                os.replace(new_journal, self._journal)
            elif replaced:
                (run_id,) = replaced
                os.replace(self._new_path(run_id), self._path(run_id))
            else:
                self._path(deleted[0]).unlink()
        with _reporting(f"wrote to {self.folder}, but it may not outlast a power cut"):
            sync_folder(self.folder)
        self._finish_journal()

    def remove_left_overs(self) -> None:
        """Delete the files of writes that were never kept. The caller has the write lock."""
        with _reporting(f"cannot clean {self.folder}"):
            for left_over in self.folder.glob(".new-*"):
                left_over.unlink(missing_ok=True)

    def _finish_journal(self) -> None:
        """Finish the transaction that a journal tells of, if there is one. The caller has the write lock."""
        with _reporting(f"cannot finish the transaction in {self._journal}"):
            try:
                raw = self._journal.read_bytes()
            except FileNotFoundError:
                return
            journal = _decode_journal(raw, str(self._journal))
            for run_id in journal.replaced:
                # Missing where the process that wrote the journal, or one that came to finish it, got so far.
                with contextlib.suppress(FileNotFoundError):
                    os.replace(self._new_path(run_id), self._path(run_id))
            for run_id in journal.deleted:
                self._path(run_id).unlink(missing_ok=True)
            sync_folder(self.folder)
            self._journal.unlink(missing_ok=True)

    def _await_journal(self) -> None:
        """Let a transaction that is being put in place be finished, by ourselves where its process died."""
        if self._journal.exists():
            with self.writing():
                return

    def _path(self, run_id: str) -> Path:
        return self.folder / f"{run_id}.json"

    def _new_path(self, run_id: str) -> Path:
        return self.folder / f".new-{run_id}"


def _decode_journal(raw: bytes, where: str) -> _Journal:
    check_schema_version(raw, where)
    try:
        journal = msgspec.json.decode(raw, type=_Journal)
    except msgspec.MsgspecError as error:
        raise CorruptObjectError(f"{where} cannot be read: {error}") from error
    for run_id in (*journal.replaced, *journal.deleted):
        check_run_id(run_id)
    return journal


@contextlib.contextmanager
def _reporting(what: str, kind: type[StateBackendError] = StateBackendError) -> Iterator[None]:
    """Turn the system's errors into ours."""
    try:
        yield
    except OSError as error:
        raise kind(f"{what}: {error.strerror or error}", hint=way_out_of(error)) from error


def _write_durably(path: Path, pieces: Iterable[bytes]) -> None:
    """Write a file that is about to take the place of another, which waits until a journal says so."""
    with path.open("wb") as file:
        file.writelines(pieces)
    sync_folder(path)
