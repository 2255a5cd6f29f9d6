"""The objects of a store, one by one: is each what it says it is, and does it have what it refers to?

What stands on them (refs, history, who is hurt) is in :mod:`seeknal.store.verification`.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial

from seeknal.errors import FormatTooNewError, SeeknalError
from seeknal.store.findings import MOVE_STRAY, PROTECT, QUARANTINE, Finding, Hurt, Repair
from seeknal.store.inventory import (
    ACTION,
    BLOB,
    CHECKS,
    MANIFEST,
    SNAPSHOT,
    TREE,
    VIEW,
    Stored,
    blob_name,
    foreign,
    stored,
    strays,
)
from seeknal.store.inventory import QUARANTINE as QUARANTINED
from seeknal.store.objects import Artifact, Snapshot
from seeknal.store.store import Store


@dataclass
class Objects:
    """The objects of a store as they are found, with what is wrong with them in ``findings``.

    ``sizes`` are those of the good blobs, by name; ``recorded`` what artifacts say of them. ``trees``: tree → its nodes
    that lack a good blob, with that blob; None where the tree itself is unreadable. ``snapshots`` are None where they
    are unreadable, ``manifests`` False. Blobs in ``trusted`` are not read.
    """

    store: Store
    read_manifest: Callable[[str], object]
    trusted: Collection[str]
    findings: list[Finding] = field(default_factory=list)
    sizes: dict[str, int] = field(default_factory=dict)
    bad_blobs: dict[str, Stored] = field(default_factory=dict)
    unreadable_blobs: dict[str, OSError] = field(default_factory=dict)
    recorded: dict[str, int] = field(default_factory=dict)
    trees: dict[str, list[tuple[str, str]] | None] = field(default_factory=dict)
    snapshots: dict[str, Snapshot | None] = field(default_factory=dict)
    manifests: dict[str, bool] = field(default_factory=dict)

    def each(self, kind: str) -> Iterator[Stored]:
        try:
            yield from stored(self.store, kind)
            for stray in strays(self.store, kind):
                self.stray(self.path(stray))
        except OSError as error:
            self.found("unreadable", kind, f"the folder of {kind}s cannot be read: {error.strerror}")

    def check_blobs(self) -> None:
        for blob in self.each(BLOB):
            self._blob(blob)

    def _blob(self, blob: Stored) -> None:
        if blob.name not in self.trusted:
            try:
                is_good = self.store.seals.read(blob.path, blob.name[:32])
            except FileNotFoundError:
                return
            except OSError as error:
                self.bad_blobs[blob.name] = blob
                self.unreadable_blobs[blob.name] = error
                return
            if not is_good:
                self.bad_blobs[blob.name] = blob
                return
        self.sizes[blob.name] = blob.size_bytes
        self._mode(blob)

    def is_forbidden(self, name: str) -> bool:
        """Say whether a blob is one that this user may not read: then nothing is known to be wrong with it."""
        return name in self.unreadable_blobs and isinstance(self.unreadable_blobs[name], PermissionError)

    def _mode(self, found: Stored) -> None:
        if found.mode & 0o222:
            subject = self.path(found)
            message = f"can be written to (mode {found.mode:o})"
            self.found("mode", subject, message, repairs=[Repair(PROTECT, subject)])

    def lacking(self, artifact: Artifact) -> list[str]:
        """The names of an artifact's blobs that are not there as they are recorded."""
        lacking = []
        for blob in artifact.blobs():
            name = blob_name(blob)
            self.recorded.setdefault(name, blob.size_bytes)
            if name not in self.sizes and name not in self.bad_blobs:
                # Put since the blobs were listed, it may be.
                path = self.store.blob_path(blob)
                with contextlib.suppress(OSError):
                    stat = path.stat()
                    self._blob(Stored(BLOB, name, path, stat.st_size, stat.st_mtime_ns, stat.st_mode & 0o7777))
            if self.sizes.get(name) != blob.size_bytes:
                lacking.append(name)
        return lacking

    def check_trees(self) -> None:
        for found in self.each(TREE):
            self.check_tree(found.name)

    def check_tree(self, digest: str) -> None:
        try:
            tree = self.store.read_tree(digest)
        except SeeknalError as error:
            if (self.store.root / "trees" / digest).exists():
                self.trees[digest] = None
                self.unreadable(f"trees/{digest}", TREE, error)
            return
        self.trees[digest] = [
            (node_id, name) for node_id, entry in tree.nodes.items() for name in self.lacking(entry.artifact)
        ]

    def check_actions(self) -> int:
        count = 0
        for found in self.each(ACTION):
            count += 1
            subject = self.path(found)
            try:
                record = self.store.read_action(found.name)
            except FileNotFoundError:
                continue
            except (OSError, SeeknalError) as error:
                self.unreadable(subject, ACTION, error)
                continue
            lacking = self.lacking(record.artifact)
            if lacking and not all(map(self.is_forbidden, lacking)):
                # It is never believed while that is so; but it may stand in the way of finding what is wrong.
                missing = all(name not in self.bad_blobs for name in lacking)
                what = "missing" if missing else "damaged"
                message = f"remembers an output of {record.node_id} whose data is {what}"
                self.found("dangling-action", subject, message, repairs=[Repair(QUARANTINE, subject)])
        return count

    def check_manifests(self) -> None:
        for found in self.each(MANIFEST):
            self._mode(found)
            self.check_manifest(found.name)

    def check_manifest(self, fingerprint: str) -> None:
        try:
            self.read_manifest(fingerprint)
        except (SeeknalError, OSError) as error:
            path = self.store.manifest_path(fingerprint)
            if path.exists():
                self.manifests[fingerprint] = False
                self.unreadable(os.fspath(path.relative_to(self.store.root)), MANIFEST, error)
        else:
            self.manifests[fingerprint] = True

    def check_snapshots(self) -> None:
        for found in self.each(SNAPSHOT):
            self.check_snapshot(found.name)

    def check_snapshot(self, digest: str) -> None:
        """Read a snapshot, and what it names where that came since it was listed."""
        try:
            snapshot = self.snapshots[digest] = self.store.read_snapshot(digest)
        except SeeknalError as error:
            if (self.store.root / "snapshots" / digest).exists():
                self.snapshots[digest] = None
                self.unreadable(f"snapshots/{digest}", SNAPSHOT, error)
            return
        if snapshot.tree not in self.trees:
            self.check_tree(snapshot.tree)
        if snapshot.manifest not in self.manifests:
            self.check_manifest(snapshot.manifest)

    def check_memory(self) -> None:
        """Check what is only remembered, and look for what is not ours."""
        for record in self.each(CHECKS):
            self._remembered(self.path(record), CHECKS, partial(self.store.read_checks, record.name))
        for folder, load in (("deliveries", self.store.load_deliveries), ("failed", self.store.load_failed)):
            for name in self.store.names_in(folder):
                self._remembered(f"{folder}/{name}", folder, partial(load, name))
        self._remembered("format", "format", self.store.read_format)
        for kind in (VIEW, QUARANTINED):
            for _ in self.each(kind):
                continue
        for subject in foreign(self.store):
            self.stray(subject)

    def _remembered(self, subject: str, kind: str, read: Callable[[], object]) -> None:
        try:
            read()
        except FileNotFoundError:
            return
        except (OSError, SeeknalError) as error:
            self.unreadable(subject, kind, error)

    # noting

    def path(self, found: Stored) -> str:
        return os.fspath(found.path.relative_to(self.store.root))

    def stray(self, subject: str) -> None:
        self.found("stray", subject, "is nothing of the store's", is_note=True, repairs=[Repair(MOVE_STRAY, subject)])

    def unreadable(self, subject: str, kind: str, error: Exception, then: Iterable[Repair] = ()) -> None:
        """Note an object that cannot be read; once it is moved aside, ``then`` is done."""
        if isinstance(error, FormatTooNewError):
            self.found("newer-format", subject, error.message)
            return
        message = error.message if isinstance(error, SeeknalError) else str(error)
        repairs = [Repair(QUARANTINE, subject), *then] if (self.store.root / subject).is_file() else []
        self.found(f"damaged-{kind}", subject, message, repairs=repairs)

    def found(
        self,
        check: str,
        subject: str,
        message: str,
        *,
        is_note: bool = False,
        hurts: Iterable[Hurt] = (),
        repairs: Iterable[Repair] = (),
    ) -> None:
        self.findings.append(Finding(check, subject, message, is_note, list(hurts), list(repairs)))
