"""The store of one project: one folder, and the order in which things are written to it.

    store/
      format                     which version made it
      blobs/ab/cdef….parquet     outputs, read-only
      actions/ab/cdef…           fingerprint → artifact
      trees/ snapshots/          immutable objects, named by their digest
      manifests/<sha256>.json    the manifest of each snapshot
      refs/<env>                 one snapshot digest, with refs/<env>.log beside it
      checks/ab/cdef…            checks and an output → that it passed them
      failed/<env>               the nodes whose checks failed, and on what
      environments/ deliveries/  what is known of an environment beside its ref
      views/<tree>/              folders of links for people and other tools
      pins/ notes/ leases/       what is kept on purpose, what is known to be gone, who is at work
      quarantine/                what was found damaged, moved aside
      memo/                      things remembered only to be faster; losing them costs time
      tmp/                       every write starts here

Invariants:

1. Commit order: blobs → action records → tree, manifest, snapshot → ref. A reader starts from a ref, so whatever
   a crash leaves behind is unreachable, never wrong.
2. Everything a ref reaches is durable before the ref moves: one :meth:`Store.sync` for all of it.
3. Existence is not trust: a blob counts only while it looks as it did when its bytes were last known, or once it was
   read again; see :mod:`seeknal.store.seals`.
4. A blob never changes once it has its name; the only mutable thing that readers start from is a ref.
5. What is put, and what a holder of a lease takes into use, is marked as new, so that garbage collection leaves it
   alone; see :mod:`seeknal.store.leases`.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TypeVar

import msgspec

from seeknal.errors import CorruptObjectError
from seeknal.store.column_digests import digest_file, digest_parquet
from seeknal.store.filesystem import (
    digest_bytes,
    digest_pieces,
    locked,
    place,
    sync_filesystem,
    sync_folder,
    temporary_name,
    write_atomically,
)
from seeknal.store.leases import Leases
from seeknal.store.objects import (
    WAY_OUT,
    ActionRecord,
    Artifact,
    Blob,
    CheckRecord,
    Column,
    Deliveries,
    EnvironmentRecord,
    FailedNodes,
    Snapshot,
    StoreFormat,
    Tree,
    decode,
    encode,
    encode_tree,
    insist_on_version,
)
from seeknal.store.refs import Refs, check_ref_name, is_ref_name
from seeknal.store.seals import Seals
from seeknal.store.shared_trees import SharedTrees
from seeknal.timeline import span

T = TypeVar("T", bound=msgspec.Struct)


# What stands in a store's folder.
OURS = frozenset(
    "actions blobs checks deliveries environments failed format leases locks manifests memo notes pins quarantine refs "
    "snapshots tmp trees views".split()
)


class Store:
    """The store below one folder. Creating the object touches nothing; :meth:`prepare` makes the folders."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.temporary_folder = root / "tmp"
        self._blobs = str(root / "blobs")
        self.refs = Refs(root / "refs", self.temporary_folder)
        self.leases = Leases(root)
        self.seals = Seals(root, self.temporary_folder)
        self._actions = str(root / "actions")
        self._written: list[Path] = []

    def prepare(self) -> None:
        """Make the folders that writing needs; does nothing where they are there."""
        for name in ("tmp", "blobs", "actions", "refs"):
            (self.root / name).mkdir(parents=True, exist_ok=True)
        path = self.root / "format"
        if not path.exists():
            write_atomically(path, encode(StoreFormat()), self.temporary_folder)

    def insist_on_format(self) -> None:
        """Raise FormatTooNewError where a newer version keeps this store, OSError where it does not say.

        That is ours: what it holds says so for itself.
        """
        with contextlib.suppress(CorruptObjectError):
            self.read_format()

    def read_format(self) -> StoreFormat:
        """What the store says of itself. Raises OSError, StoreError."""
        path = self.root / "format"
        return decode(path.read_bytes(), StoreFormat, "the store", path)

    def sweep_temporary(self, older_than_seconds: float) -> None:
        """Remove what killed processes left unfinished; what is younger may belong to one that lives."""
        oldest = time.time() - older_than_seconds
        for entry in os.scandir(self.temporary_folder):
            with contextlib.suppress(OSError):
                if entry.stat(follow_symlinks=False).st_mtime >= oldest:
                    continue
                if entry.is_dir(follow_symlinks=False):
                    shutil.rmtree(entry.path, ignore_errors=True)
                else:
                    os.unlink(entry.path)

    # blobs

    def blob_path(self, blob: Blob) -> Path:
        return Path(self._blob_file(blob))

    def _blob_file(self, blob: Blob) -> str:
        # A plan looks for every node's, and a Path takes several times as long to make.
        return f"{self._blobs}{os.sep}{blob.digest[:2]}{os.sep}{blob.digest[2:]}{blob.suffix}"

    def temporary_path(self, suffix: str = ".parquet") -> Path:
        """Where to write a file that :meth:`adopt_parquet` or :meth:`adopt_file` will take over."""
        return temporary_name(self.temporary_folder, suffix)

    def adopt_parquet(self, path: Path, types: Iterable[str]) -> tuple[Blob, int, tuple[Column, ...]]:
        """Take over a finished Parquet file as a blob: it is moved, not copied.

        ``types`` are the columns' logical types in file order. Returns the blob, its row count and its columns.
        Raises CorruptObjectError where the file is no Parquet file, or has another number of columns.
        """
        with span("hash"):
            found = digest_parquet(path)
        named = list(types)
        if len(named) != len(found.columns):
            raise CorruptObjectError(f"{path.name} has {len(found.columns)} columns where {len(named)} were expected")
        blob = Blob(found.digest, found.size_bytes)
        with span("write"):
            self._place_blob(path, blob)
        columns = tuple(Column(name, kind, digest) for (name, digest), kind in zip(found.columns, named, strict=True))
        return blob, found.row_count, columns

    def adopt_file(self, path: Path) -> Blob:
        """Take over any finished file as a blob: it is moved, not copied."""
        digest, size_bytes = digest_file(path)
        blob = Blob(digest, size_bytes, path.suffix)
        self._place_blob(path, blob)
        return blob

    def _place_blob(self, temporary: Path, blob: Blob) -> None:
        path = self.blob_path(blob)
        # It counts as written even where it is there: whoever put it there may have died before it was durable.
        self._written.append(path)
        # A good one is left alone, because readers may have it open. A bad one is what a power cut can leave behind.
        if self._has(blob) and self._renew([path]):
            self.seals.add_fresh(path, blob.digest)
            temporary.unlink()
            return
        os.chmod(temporary, 0o444)
        # It may have been copied with the times of another file.
        os.utime(temporary)
        with self._placing(path):
            place(temporary, path)
        self.seals.add_fresh(path, blob.digest)

    def _placing(self, path: Path) -> AbstractContextManager[None]:
        """Keep garbage collection from taking away, as the old one, what takes its place."""
        return self.leases.using() if path.exists() else nullcontext()

    def _renew(self, paths: Iterable[Path]) -> bool:
        """Take objects into use; says whether all are there."""
        with self.leases.using():
            return all(self.leases.renew(path) for path in paths)

    def _has(self, blob: Blob) -> bool:
        return self.seals.vouch_for(self._blob_file(blob), blob.digest, blob.size_bytes)

    def is_whole(self, artifact: Artifact) -> bool:
        """Say whether every blob of an artifact is there and holds the bytes that its name is the digest of.

        A blob that looks as it did when its bytes were last known is not read; see :mod:`seeknal.store.seals`.
        """
        return all(map(self._has, artifact.blobs()))

    def find_fault(self, artifact: Artifact) -> str:
        """Say what keeps an artifact from being read, as the end of a sentence; nothing where it is whole."""
        for blob in artifact.blobs():
            if not self._has(blob):
                there = self.blob_path(blob).exists()
                return "is damaged in the store" if there else "is missing from the store"
        return ""

    # action records

    def _action_path(self, fingerprint: str) -> Path:
        return Path(f"{self._actions}{os.sep}{fingerprint[:2]}{os.sep}{fingerprint[2:]}")

    def find_action(self, fingerprint: str) -> Artifact | None:
        """The artifact that this fingerprint gave before, None where none is known, whole and readable.

        For a process that holds a lease, it stays that while the lease lasts. Raises FormatTooNewError: what a newer
        version remembers is not written over.
        """
        try:
            record = self.read_action(fingerprint)
        except (OSError, CorruptObjectError):
            return None
        # Before it is marked as new: its blobs look different then.
        if not self.is_whole(record.artifact):
            return None
        if self.leases.held:
            blobs = {self.blob_path(blob): blob.digest for blob in record.artifact.blobs()}
            if not self._renew([*blobs, self._action_path(fingerprint)]):
                return None
            for path, digest in blobs.items():
                self.seals.renewed(path, digest)
        return record.artifact

    def read_action(self, fingerprint: str) -> ActionRecord:
        """The record of a fingerprint, whether its blobs are there or not. Raises OSError, StoreError."""
        name = f"action {fingerprint}"
        path = self._action_path(fingerprint)
        record = decode(path.read_bytes(), ActionRecord, name, path)
        if record.fingerprint != fingerprint:
            raise CorruptObjectError(f"{name} is damaged: it is the record of {record.fingerprint}", hint=WAY_OUT)
        return record

    def record_action(self, record: ActionRecord) -> None:
        """Remember what a fingerprint gave. The blobs are in the store already (commit order)."""
        path = self._action_path(record.fingerprint)
        with span("write"), self._placing(path):
            write_atomically(path, encode(record), self.temporary_folder)
        self._written.append(path)

    # checks

    def _checks_path(self, key: str) -> Path:
        return self.root / "checks" / key[:2] / key[2:]

    def find_checks(self, key: str) -> CheckRecord | None:
        """What is remembered under a key of checks and the output that passed them; None where that is nothing.

        Raises FormatTooNewError.
        """
        try:
            record = self.read_checks(key)
        except (OSError, CorruptObjectError):
            return None
        if self.leases.held and not self._renew([self._checks_path(key)]):
            return None
        return record

    def read_checks(self, key: str) -> CheckRecord:
        """The record of a key of checks. Raises OSError, StoreError."""
        path = self._checks_path(key)
        record = decode(path.read_bytes(), CheckRecord, f"checks {key}", path)
        if record.key != key:
            raise CorruptObjectError(f"checks {key} are damaged: they are the record of {record.key}", hint=WAY_OUT)
        return record

    def record_checks(self, record: CheckRecord) -> None:
        """Remember that an output passed its checks."""
        path = self._checks_path(record.key)
        with self._placing(path):
            write_atomically(path, encode(record), self.temporary_folder)
        self._written.append(path)

    def _failed_path(self, environment: str) -> Path:
        return self.root / "failed" / environment

    def read_failed(self, environment: str) -> FailedNodes:
        """The nodes whose checks failed in an environment; none where that was forgotten."""
        try:
            return self.load_failed(environment)
        except (OSError, CorruptObjectError):
            return FailedNodes()

    def load_failed(self, environment: str) -> FailedNodes:
        """As :meth:`read_failed`, but raises OSError and StoreError where they cannot be read."""
        path = self._failed_path(environment)
        return decode(path.read_bytes(), FailedNodes, f"the failed nodes of environment '{environment}'", path)

    def failed_names(self) -> list[str]:
        """The environments where the checks of nodes failed, sorted."""
        return self.names_in("failed")

    def names_in(self, folder: str) -> list[str]:
        """The environments that a file in a folder is called by, sorted."""
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            entries = os.scandir(self.root / folder)
            return sorted(entry.name for entry in entries if is_ref_name(entry.name) and not entry.is_dir())
        return []

    def write_failed(self, environment: str, failed: FailedNodes) -> None:
        """Remember which nodes' checks failed in an environment, for who looks at them."""
        path = self._failed_path(environment)
        if failed.nodes:
            write_atomically(path, encode(failed), self.temporary_folder)
        else:
            path.unlink(missing_ok=True)

    def rejected(self) -> Iterator[Artifact]:
        """Every output that can still be looked at because its checks failed, or those of a rule that read it."""
        for environment in self.failed_names():
            for node in self.read_failed(environment).nodes.values():
                yield from (artifact for _, artifact in node.tables)

    # trees, manifests, snapshots

    def tree_path(self, digest: str) -> Path:
        return self.root / "trees" / digest

    def write_tree(self, tree: Tree) -> str:
        return self._write_object("trees", lambda: encode_tree(tree))

    def read_tree(self, digest: str, shared: SharedTrees | None = None) -> Tree:
        """Read a tree; what it has in common with those that are ``shared`` takes no memory of its own."""
        name, path, data = self._stored("trees", digest, Tree)
        return decode(data, Tree, name, path) if shared is None else shared.decode(data, name, path)

    def write_snapshot(self, snapshot: Snapshot, *, durable: bool = False) -> str:
        """Put a snapshot into the store; ``durable`` where all that it names is that already, instead of a sync."""
        encoded = [encode(snapshot)]
        digest = self._write_object("snapshots", lambda: encoded)
        if durable:
            path = self._written.pop()
            # In this order one commit of a journal takes both.
            sync_folder(path)
            sync_folder(path.parent)
        return digest

    def read_snapshot(self, digest: str) -> Snapshot:
        return self._read_object("snapshots", digest, Snapshot)

    def manifest_path(self, fingerprint: str) -> Path:
        return self.root / "manifests" / f"{fingerprint}.json"

    def write_manifest(self, fingerprint: str, text: str | Iterable[bytes]) -> Path:
        """Keep a manifest's JSON, as a text or in pieces, under its SHA-256 fingerprint.

        It takes the place of one that says the same or was cut short.
        """
        path = self.manifest_path(fingerprint)
        # A snapshot may name the one that is there, so what takes its place is durable first.
        # People see it through links; what they write there must not change what a snapshot names.
        with self._placing(path):
            data = [text.encode()] if isinstance(text, str) else text
            write_atomically(path, data, self.temporary_folder, durable=path.exists(), read_only=True)
        self._written.append(path)
        return path

    def _write_object(self, folder: str, pieces: Callable[[], Iterable[bytes]]) -> str:
        digest = digest_pieces(pieces())
        path = self.root / folder / digest
        self._written.append(path)
        try:
            if digest_file(path)[0] == digest and self._renew([path]):
                return digest
        except OSError:
            pass
        with self._placing(path):
            write_atomically(path, pieces(), self.temporary_folder)
        return digest

    def _read_object(self, folder: str, digest: str, expected: type[T]) -> T:
        name, path, data = self._stored(folder, digest, expected)
        return decode(data, expected, name, path)

    def _stored(self, folder: str, digest: str, expected: type[msgspec.Struct]) -> tuple[str, Path, bytes]:
        """An object's bytes, which are those of its address; before them what it is called, and its path."""
        name = f"{folder.removesuffix('s')} {digest}"
        path = self.root / folder / digest
        try:
            data = path.read_bytes()
        except FileNotFoundError as error:
            raise CorruptObjectError(f"{name} is missing from the store", hint=WAY_OUT) from error
        except OSError as error:
            raise CorruptObjectError(f"{name} cannot be read: {error.strerror}", hint=WAY_OUT) from error
        if digest_bytes(data) != digest:
            # Of a newer version, nothing is known but that it is one.
            insist_on_version(data, expected, name, path)
            raise CorruptObjectError(f"{name} is damaged: its bytes do not match its address", hint=WAY_OUT)
        return name, path, data

    # environments

    def read_state(self, environment: str) -> tuple[str, Snapshot] | None:
        """Where an environment stands, as digest and snapshot; None where nothing ever succeeded there.

        Raises StoreError, also where the ref leads to another environment's state.
        """
        digest = self.refs.read(environment)
        if digest is None:
            return None
        snapshot = self.read_snapshot(digest)
        if snapshot.environment != environment:
            other = f"snapshot {digest} of '{snapshot.environment}'"
            raise CorruptObjectError(
                f"the ref of environment '{environment}' is damaged: it leads to {other}", hint=WAY_OUT
            )
        return digest, snapshot

    def head(self, environment: str) -> Snapshot | None:
        """The snapshot an environment stands at; see :meth:`read_state`."""
        state = self.read_state(environment)
        return None if state is None else state[1]

    def _environment_path(self, name: str) -> Path:
        return self.root / "environments" / name

    def read_environment(self, name: str) -> EnvironmentRecord | None:
        """What is known of an environment, None where that is nothing. Raises StoreError."""
        path, called = self._environment_path(name), f"the record of environment '{name}'"
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise CorruptObjectError(f"{called} cannot be read: {error.strerror}", hint=WAY_OUT) from error
        record = decode(data, EnvironmentRecord, called, path)
        if record.name != name:
            raise CorruptObjectError(f"{called} is damaged: it is that of '{record.name}'", hint=WAY_OUT)
        return record

    def write_environment(self, record: EnvironmentRecord) -> None:
        """Remember an environment, durably. Raises NameNotAllowedError where it could not have a ref of that name."""
        check_ref_name(record.name)
        path = self._environment_path(record.name)
        write_atomically(path, encode(record), self.temporary_folder, durable=True)

    def update_environment(
        self, name: str, change: Callable[[EnvironmentRecord | None], EnvironmentRecord]
    ) -> EnvironmentRecord:
        """Replace an environment's record by what ``change`` makes of it as it is now; nobody else writes meanwhile.

        Gives the new record. ``change`` is short: others wait for it.
        """
        with locked(self._record_lock(name)):
            record = change(self.read_environment(name))
            self.write_environment(record)
            return record

    def change_environment(
        self, name: str, change: Callable[[EnvironmentRecord], EnvironmentRecord]
    ) -> EnvironmentRecord | None:
        """As :meth:`update_environment`, where there is a record; else nothing is written, and None given."""
        with locked(self._record_lock(name)):
            before = self.read_environment(name)
            if before is None:
                return None
            record = change(before)
            self.write_environment(record)
            return record

    def _record_lock(self, name: str) -> Path:
        # No environment has a name that begins with a dot, so this is no environment's own lock.
        return self.root / "locks" / f".{name}.record"

    def remove_environment(self, name: str) -> None:
        """Forget an environment's failures, deliveries and record, in this order: with the record goes its name.

        Its ref is removed by whoever moves refs.
        """
        self._failed_path(name).unlink(missing_ok=True)
        self._deliveries_path(name).unlink(missing_ok=True)
        self._environment_path(name).unlink(missing_ok=True)

    def environment_names(self) -> list[str]:
        """Every environment that has a record, sorted."""
        return self.names_in("environments")

    def _deliveries_path(self, environment: str) -> Path:
        return self.root / "deliveries" / environment

    def read_deliveries(self, environment: str) -> Deliveries:
        """What an environment delivered; nothing where that was forgotten, which costs a second delivery."""
        try:
            return self.load_deliveries(environment)
        except (OSError, CorruptObjectError):
            return Deliveries()

    def load_deliveries(self, environment: str) -> Deliveries:
        """As :meth:`read_deliveries`, but raises OSError and StoreError where they cannot be read."""
        path = self._deliveries_path(environment)
        return decode(path.read_bytes(), Deliveries, f"the deliveries of environment '{environment}'", path)

    def write_deliveries(self, environment: str, deliveries: Deliveries) -> None:
        write_atomically(self._deliveries_path(environment), encode(deliveries), self.temporary_folder)

    def view_folder(self, tree: str) -> Path:
        """Where the links for one tree stand."""
        return self.root / "views" / tree

    def lock_path(self, environment: str) -> Path:
        """The lock that runs and promotions on one environment exclude each other by."""
        return self.root / "locks" / environment

    # durability

    def take_written(self) -> list[str]:
        """What was written since the last sync, by paths below ``root``, for whoever syncs in this process's stead."""
        written, self._written = self._written, []
        above = len(f"{self.root}{os.sep}")
        return [str(path)[above:] for path in written]

    def sync(self, extra: Collection[str] = ()) -> None:
        """Make everything written so far durable, together; ``extra`` is what other processes took as written."""
        if self._written or extra:
            with span("sync"):
                # As a rule nobody asks for the list, which is long.
                sync_filesystem(self.root, lambda: [*self._written, *(self.root / name for name in extra)])
            self._written.clear()
            self.seals.keep()
