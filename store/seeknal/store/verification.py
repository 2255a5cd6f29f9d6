"""Verification: is everything in the store what it says it is, and is everything there that something refers to?

- *finding*: something that is not as it must be, or (*note*) something that a crash or a known loss leaves behind and
  that hurts nobody.
- *hurt*: a snapshot, by the environments that stand or stood there, and its nodes whose outputs a finding touches.
- *repair*: what would be done about a finding. Nothing is deleted: what is damaged is moved to ``quarantine/``.

Verifying never raises for what it finds, and changes nothing but the memory of which blobs are good. What repairs do is
in :mod:`seeknal.store.repair`.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field

import msgspec

from seeknal.errors import FormatTooNewError, SeeknalError
from seeknal.store.history import read_ends, read_history, read_pins
from seeknal.store.inventory import (
    ACTION,
    BLOB,
    MANIFEST,
    PIN,
    SNAPSHOT,
    TREE,
    Stored,
    blob_name,
    stored,
    strays,
)
from seeknal.store.losses import read_losses
from seeknal.store.objects import Artifact, Snapshot
from seeknal.store.store import Store

# What a repair does.
QUARANTINE, PROTECT, MOVE_REF, NOTE_MOVE, NOTE_LOSS, END_HISTORY = (
    "quarantine",
    "write-protect",
    "move-ref",
    "note-move",
    "note-loss",
    "end-history",
)


class Hurt(msgspec.Struct, frozen=True):
    """The nodes of a snapshot that a finding touches. ``number``: how many moves ago it was the environment's."""

    environment: str
    number: int
    snapshot: str
    nodes: list[str]


class Repair(msgspec.Struct, frozen=True):
    """One thing to do. ``subject`` is a path in the store, or an environment; ``value`` where its ref shall stand."""

    action: str
    subject: str
    value: str | None = None


class Finding(msgspec.Struct, frozen=True):
    """Something that is not as it must be. ``check`` is the invariant's short name, ``subject`` a path in the store."""

    check: str
    subject: str
    message: str
    is_note: bool = False
    hurts: list[Hurt] = []
    repairs: list[Repair] = []


@dataclass(frozen=True)
class Verification:
    """What verifying found. ``good_blobs`` need not be read again by one that follows at once."""

    findings: list[Finding]
    blobs: int
    blob_bytes: int
    actions: int
    trees: int
    snapshots: int
    environments: int
    good_blobs: frozenset[str] = frozenset()

    @property
    def damage(self) -> list[Finding]:
        return [finding for finding in self.findings if not finding.is_note]

    @property
    def notes(self) -> list[Finding]:
        return [finding for finding in self.findings if finding.is_note]

    @property
    def repairs(self) -> list[Repair]:
        """Everything that a repair would do, each thing once, in the order in which it is done.

        Nothing where a newer version wrote to the store: what it means by that is not ours to judge.
        """
        if any(finding.check == "newer-format" for finding in self.findings):
            return []
        order = [NOTE_LOSS, END_HISTORY, MOVE_REF, NOTE_MOVE, QUARANTINE, PROTECT]
        found = dict.fromkeys(repair for finding in self.findings for repair in finding.repairs)
        return sorted(found, key=lambda repair: order.index(repair.action))


def verify(
    store: Store, check_manifest: Callable[[str], object], *, trusted: Collection[str] = frozenset()
) -> Verification:
    """Check every invariant; reads every byte of the store once.

    ``check_manifest`` reads a manifest by its fingerprint and raises SeeknalError where it is not what that says.
    Blobs in ``trusted`` are not read.
    """
    with store.leases.hold("store verify", only_reading=True):
        return _Verifier(store, check_manifest, trusted).verify()


@dataclass
class _Verifier:
    store: Store
    check_manifest: Callable[[str], object]
    trusted: Collection[str]
    findings: list[Finding] = field(default_factory=list)
    sizes: dict[str, int] = field(default_factory=dict)
    bad_blobs: dict[str, Stored] = field(default_factory=dict)
    recorded: dict[str, int] = field(default_factory=dict)
    # Tree → its nodes that lack a good blob, with that blob; None where the tree itself is unreadable.
    trees: dict[str, list[tuple[str, str]] | None] = field(default_factory=dict)
    snapshots: dict[str, Snapshot | None] = field(default_factory=dict)
    manifests: dict[str, bool] = field(default_factory=dict)
    losses: Collection[str] = frozenset()

    def verify(self) -> Verification:
        try:
            self.losses = read_losses(self.store)
        except SeeknalError as error:
            self._unreadable("notes/losses", "notes", error)
        self._blobs()
        self._trees()
        actions = self._actions()
        self._manifests()
        self._snapshots()
        self._environments()
        hurts = self._hurts()
        self._report_blobs(hurts)
        return Verification(
            self.findings,
            len(self.sizes) + len(self.bad_blobs),
            sum(self.sizes.values()),
            actions,
            len(self.trees),
            len(self.snapshots),
            len(self.store.refs.names()),
            frozenset(self.sizes),
        )

    # single objects

    def _each(self, kind: str) -> Iterator[Stored]:
        try:
            yield from stored(self.store, kind)
            for stray in strays(self.store, kind):
                self._found("stray", self._path(stray), "is no object of the store", is_note=True)
        except OSError as error:
            self._found("unreadable", kind, f"the folder of {kind}s cannot be read: {error.strerror}")

    def _blobs(self) -> None:
        for blob in self._each(BLOB):
            self._blob(blob)

    def _blob(self, blob: Stored) -> None:
        if blob.name not in self.trusted:
            try:
                is_good = self.store.seals.read(blob.path, blob.name[:32])
            except FileNotFoundError:
                return
            except OSError as error:
                self._found("unreadable", self._path(blob), f"cannot be read: {error.strerror}")
                self.bad_blobs[blob.name] = blob
                return
            if not is_good:
                self.bad_blobs[blob.name] = blob
                return
        self.sizes[blob.name] = blob.size_bytes
        self._mode(blob)

    def _mode(self, found: Stored) -> None:
        if found.mode & 0o222:
            subject = self._path(found)
            message = f"can be written to (mode {found.mode:o})"
            self._found("mode", subject, message, repairs=[Repair(PROTECT, subject)])

    def _lacking(self, artifact: Artifact) -> list[str]:
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

    def _trees(self) -> None:
        for found in self._each(TREE):
            self._tree(found.name)

    def _tree(self, digest: str) -> None:
        try:
            tree = self.store.read_tree(digest)
        except SeeknalError as error:
            if (self.store.root / "trees" / digest).exists():
                self.trees[digest] = None
                self._unreadable(f"trees/{digest}", TREE, error)
            return
        self.trees[digest] = [
            (node_id, name) for node_id, entry in tree.nodes.items() for name in self._lacking(entry.artifact)
        ]

    def _actions(self) -> int:
        count = 0
        for found in self._each(ACTION):
            count += 1
            subject = self._path(found)
            try:
                record = self.store.read_action(found.name)
            except FileNotFoundError:
                continue
            except (OSError, SeeknalError) as error:
                self._unreadable(subject, ACTION, error)
                continue
            lacking = self._lacking(record.artifact)
            if lacking:
                # It is never believed while that is so; but it may stand in the way of finding what is wrong.
                missing = all(name not in self.bad_blobs for name in lacking)
                what = "missing" if missing else "damaged"
                message = f"remembers an output of {record.node_id} whose data is {what}"
                self._found("dangling-action", subject, message, repairs=[Repair(QUARANTINE, subject)])
        return count

    def _manifests(self) -> None:
        for found in self._each(MANIFEST):
            self._mode(found)
            self._manifest(found.name)

    def _manifest(self, fingerprint: str) -> None:
        try:
            self.check_manifest(fingerprint)
        except (SeeknalError, OSError) as error:
            path = self.store.manifest_path(fingerprint)
            if path.exists():
                self.manifests[fingerprint] = False
                self._unreadable(os.fspath(path.relative_to(self.store.root)), MANIFEST, error)
        else:
            self.manifests[fingerprint] = True

    def _snapshots(self) -> None:
        for found in self._each(SNAPSHOT):
            self._snapshot(found.name)

    def _snapshot(self, digest: str) -> None:
        """Read a snapshot, and what it names where that came since it was listed."""
        try:
            snapshot = self.snapshots[digest] = self.store.read_snapshot(digest)
        except SeeknalError as error:
            if (self.store.root / "snapshots" / digest).exists():
                self.snapshots[digest] = None
                self._unreadable(f"snapshots/{digest}", SNAPSHOT, error)
            return
        if snapshot.tree not in self.trees:
            self._tree(snapshot.tree)
        if snapshot.manifest not in self.manifests:
            self._manifest(snapshot.manifest)

    # what stands on them

    def _environments(self) -> None:
        for name in self.store.refs.names():
            self._ref(name)
        for name in self.store.environment_names():
            subject = f"environments/{name}"
            try:
                self.store.read_environment(name)
            except SeeknalError as error:
                self._unreadable(subject, "environment", error)
        for pin in self._each(PIN):
            if self.snapshots.get(pin.name) is None:
                subject = self._path(pin)
                message = "pins a snapshot that is missing or damaged"
                self._found("dangling-pin", subject, message, repairs=[Repair(QUARANTINE, subject)])
        for subject, kind, read in (("pins", PIN, read_pins), ("notes/history_ends", "notes", read_ends)):
            try:
                read(self.store)
            except SeeknalError as error:
                self._unreadable(subject, kind, error)

    def _ref(self, name: str) -> None:
        subject = f"refs/{name}"
        try:
            digest = self.store.refs.read(name)
        except SeeknalError as error:
            way_out = self._last_readable(name)
            self._found("damaged-ref", subject, error.message, repairs=[Repair(MOVE_REF, name, way_out)])
            self._chain(name, way_out)
            return
        if digest is None:
            return
        problem = self._problem_with(digest)
        if problem:
            way_out = self._last_readable(name, but=digest)
            repairs = [Repair(MOVE_REF, name, way_out)]
            self._found("dangling-ref", subject, f"leads to {problem}", repairs=repairs)
            self._chain(name, way_out)
            return
        self._log(name, digest)
        self._chain(name, digest)

    def _problem_with(self, digest: str) -> str:
        """Why a snapshot cannot be read as a whole, or nothing."""
        if digest not in self.snapshots:
            self._snapshot(digest)
        if digest not in self.snapshots:
            return f"snapshot {digest}, which is missing"
        snapshot = self.snapshots[digest]
        if snapshot is None:
            return f"snapshot {digest}, which is damaged"
        if snapshot.tree not in self.trees:
            return f"snapshot {digest}, whose tree is missing"
        return f"snapshot {digest}, whose tree is damaged" if self.trees[snapshot.tree] is None else ""

    def _last_readable(self, name: str, but: str | None = None) -> str | None:
        """The last state of an environment that can be read: by its log, then by its history."""
        moves = [move.new for move in self.store.refs.log(name) if move.new]
        for digest in [*reversed(moves), *self._parents(but)]:
            if digest != but and not self._problem_with(digest):
                return digest
        return None

    def _parents(self, digest: str | None) -> Iterator[str]:
        while digest is not None:
            snapshot = self.snapshots.get(digest)
            digest = snapshot.parent if snapshot is not None else None
            if digest is not None:
                yield digest

    def _log(self, name: str, digest: str) -> None:
        subject = f"refs/{name}.log"
        torn = self.store.refs.torn_lines(name)
        if torn:
            self._found("ref-log", subject, f"{torn} torn line(s), left by a crash", is_note=True)
        moves = list(self.store.refs.log(name))
        while (moves[-1].new if moves else None) != digest:
            # It may have moved since it was read; only while it stands still, the log must lead there.
            before, now = digest, self.store.refs.read(name)
            if now is None:
                return
            if now == before:
                break
            digest, moves = now, list(self.store.refs.log(name))
        last = None
        for move in moves:
            if last is not None and move.old != last:
                self._found("ref-log", subject, "has a gap: a move was not noted", is_note=True)
            last = move.new
        if last != digest:
            message = f"does not lead to where the environment stands ({digest})"
            self._found("ref-log", subject, message, repairs=[Repair(NOTE_MOVE, name, digest)])

    def _chain(self, name: str, digest: str | None) -> None:
        """Check that the history of an environment is there back to its end."""
        try:
            ends = read_ends(self.store)
        except SeeknalError:
            return
        above, below = digest, self.snapshots.get(digest or "")
        while above is not None and below is not None and below.parent is not None:
            if self._problem_with(below.parent) and self.snapshots.get(below.parent) is None:
                if above not in ends:
                    what = "damaged" if below.parent in self.snapshots else "missing"
                    message = f"the history of '{name}' breaks off: {below.parent} is {what}"
                    repairs = [Repair(END_HISTORY, above)]
                    self._found("history", f"snapshots/{below.parent}", message, repairs=repairs)
                return
            above, below = below.parent, self.snapshots[below.parent]

    # who is hurt

    def _hurts(self) -> dict[str, list[Hurt]]:
        """For each blob that is damaged or missing, who lacks it. Trees and manifests that are not there are found."""
        found: dict[str, list[Hurt]] = {}
        for environment, number, digest in self._reached():
            if digest not in self.snapshots:
                self._snapshot(digest)
            snapshot = self.snapshots.get(digest)
            if snapshot is None:
                continue
            hurt = Hurt(environment, number, digest, [])
            if snapshot.manifest not in self.manifests:
                self._lost("missing-manifest", f"manifests/{snapshot.manifest}.json", "a snapshot's manifest", hurt)
            lacking = self.trees.get(snapshot.tree)
            if lacking is None:
                if snapshot.tree not in self.trees:
                    self._lost("missing-tree", f"trees/{snapshot.tree}", "a snapshot's tree", hurt)
                continue
            by_blob: dict[str, list[str]] = {}
            for node_id, name in lacking:
                by_blob.setdefault(name, []).append(node_id)
            for name, nodes in by_blob.items():
                found.setdefault(name, []).append(Hurt(environment, number, digest, nodes))
        return found

    def _reached(self) -> Iterator[tuple[str, int, str]]:
        """Every snapshot that a ref or a pin reaches: environment, number (-1: a pin's), digest."""
        seen = set()
        for name in self.store.refs.names():
            try:
                for moment in read_history(self.store, name):
                    seen.add(moment.digest)
                    yield name, moment.number, moment.digest
            except SeeknalError:
                continue
        for pin in stored(self.store, PIN):
            snapshot = self.snapshots.get(pin.name)
            if pin.name not in seen and snapshot is not None:
                yield snapshot.environment, -1, pin.name

    def _lost(self, check: str, subject: str, what: str, hurt: Hurt) -> None:
        """Report an object that is not there; where only the past lacks it, once."""
        known = subject in self.losses and hurt.number != 0
        repairs = [] if subject in self.losses else [Repair(NOTE_LOSS, subject)]
        self._found(check, subject, f"{what} is missing", is_note=known, hurts=[hurt], repairs=repairs)

    def _report_blobs(self, hurts: dict[str, list[Hurt]]) -> None:
        for name, blob in self.bad_blobs.items():
            subject = self._path(blob)
            recorded = self.recorded.get(name)
            if recorded is not None and blob.size_bytes != recorded:
                message = f"has {blob.size_bytes} bytes, recorded were {recorded}"
            else:
                message = "is damaged: its bytes do not match its address"
            hurt = hurts.get(name, [])
            self._found("damaged-blob", subject, message, hurts=hurt, repairs=[Repair(QUARANTINE, subject)])
        for name, lacking in hurts.items():
            if name in self.bad_blobs:
                continue
            subject = f"blobs/{name[:2]}/{name[2:]}"
            if name in self.sizes:
                message = f"has {self.sizes[name]} bytes, recorded were {self.recorded[name]}"
                self._found("recorded-size", subject, message, hurts=lacking)
                continue
            # What is known to be lost, and only the past lacks, is no news.
            known = subject in self.losses and all(hurt.number != 0 for hurt in lacking)
            repairs = [] if subject in self.losses else [Repair(NOTE_LOSS, subject)]
            self._found("missing-blob", subject, "is missing", is_note=known, hurts=lacking, repairs=repairs)

    # noting

    def _path(self, found: Stored) -> str:
        return os.fspath(found.path.relative_to(self.store.root))

    def _unreadable(self, subject: str, kind: str, error: Exception) -> None:
        if isinstance(error, FormatTooNewError):
            self._found("newer-format", subject, error.message)
            return
        message = error.message if isinstance(error, SeeknalError) else str(error)
        repairs = [Repair(QUARANTINE, subject)] if (self.store.root / subject).is_file() else []
        self._found(f"damaged-{kind}", subject, message, repairs=repairs)

    def _found(
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
