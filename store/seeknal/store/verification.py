"""Verification: is everything in the store what it says it is, and is everything there that something refers to?

Verifying never raises for what it finds, and changes nothing but the memory of which blobs are good. What repairs do is
in :mod:`seeknal.store.repair`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

from seeknal.errors import SeeknalError
from seeknal.store.findings import (
    END_HISTORY,
    MOVE_REF,
    NOTE_LOSS,
    NOTE_MOVE,
    QUARANTINE,
    RESTORE_PIN,
    Hurt,
    Repair,
    Verification,
)
from seeknal.store.history import read_ends, read_history, read_pin
from seeknal.store.inventory import PIN, Stored, stored
from seeknal.store.losses import read_losses
from seeknal.store.object_checks import Objects
from seeknal.store.store import Store


def verify(
    store: Store, check_manifest: Callable[[str], object], *, trusted: Collection[str] = frozenset()
) -> Verification:
    """Check every invariant; reads every byte of the store once.

    ``check_manifest`` reads a manifest by its fingerprint and raises SeeknalError where it is not what that says.
    Blobs in ``trusted`` are not read.
    """
    with store.leases.hold("store verify", only_reading=True):
        return _Verifier(Objects(store, check_manifest, trusted)).verify()


@dataclass
class _Verifier:
    objects: Objects
    losses: Collection[str] = frozenset()

    @property
    def store(self) -> Store:
        return self.objects.store

    def verify(self) -> Verification:
        objects = self.objects
        try:
            self.losses = read_losses(self.store)
        except SeeknalError as error:
            objects.unreadable("notes/losses", "notes", error)
        objects.check_blobs()
        objects.check_trees()
        actions = objects.check_actions()
        objects.check_manifests()
        objects.check_snapshots()
        objects.check_memory()
        self._environments()
        hurts = self._hurts()
        self._report_blobs(hurts)
        return Verification(
            objects.findings,
            len(objects.sizes) + len(objects.bad_blobs),
            sum(objects.sizes.values()),
            actions,
            len(objects.trees),
            len(objects.snapshots),
            len(self.store.refs.names()),
            frozenset(objects.sizes),
        )

    # what stands on them

    def _environments(self) -> None:
        for name in self.store.refs.names():
            self._ref(name)
        for name in self.store.environment_names():
            subject = f"environments/{name}"
            try:
                self.store.read_environment(name)
            except SeeknalError as error:
                self.objects.unreadable(subject, "environment", error)
        for pin in self.objects.each(PIN):
            self._pin(pin)
        try:
            read_ends(self.store)
        except SeeknalError as error:
            self.objects.unreadable("notes/history_ends", "notes", error)

    def _pin(self, pin: Stored) -> None:
        subject = self.objects.path(pin)
        if self.objects.snapshots.get(pin.name) is None:
            message = "pins a snapshot that is missing or cannot be read"
            self.objects.found("dangling-pin", subject, message, repairs=[Repair(QUARANTINE, subject)])
            return
        try:
            read_pin(pin.path)
        except FileNotFoundError:
            return
        except SeeknalError as error:
            # Its name says what it pins.
            self.objects.unreadable(subject, PIN, error, [Repair(RESTORE_PIN, subject)])

    def _ref(self, name: str) -> None:
        subject = f"refs/{name}"
        try:
            digest = self.store.refs.read(name)
        except SeeknalError as error:
            way_out = self._last_readable(name)
            self.objects.found("damaged-ref", subject, error.message, repairs=[Repair(MOVE_REF, name, way_out)])
            self._chain(name, way_out)
            return
        if digest is None:
            return
        problem = self._problem_with(digest, name)
        if problem:
            way_out = self._last_readable(name, but=digest)
            repairs = [Repair(MOVE_REF, name, way_out)]
            self.objects.found("dangling-ref", subject, f"leads to {problem}", repairs=repairs)
            self._chain(name, way_out)
            return
        self._log(name, digest)
        self._chain(name, digest)

    def _problem_with(self, digest: str, environment: str = "") -> str:
        """Why a snapshot cannot be read as a whole, as a state of this environment; nothing where it can."""
        if digest not in self.objects.snapshots:
            self.objects.check_snapshot(digest)
        if digest not in self.objects.snapshots:
            return f"snapshot {digest}, which is missing"
        snapshot = self.objects.snapshots[digest]
        if snapshot is None:
            return f"snapshot {digest}, which cannot be read"
        if environment and snapshot.environment != environment:
            return f"snapshot {digest}, which is of '{snapshot.environment}'"
        if snapshot.tree not in self.objects.trees:
            return f"snapshot {digest}, whose tree is missing"
        return f"snapshot {digest}, whose tree cannot be read" if self.objects.trees[snapshot.tree] is None else ""

    def _last_readable(self, name: str, but: str | None = None) -> str | None:
        """The last state of an environment that can be read: by its log, then by its history."""
        moves = [move.new for move in self.store.refs.log(name, whole=True) if move.new]
        for digest in [*reversed(moves), *self._parents(but)]:
            if digest != but and not self._problem_with(digest, name):
                return digest
        return None

    def _parents(self, digest: str | None) -> Iterator[str]:
        while digest is not None:
            snapshot = self.objects.snapshots.get(digest)
            digest = snapshot.parent if snapshot is not None else None
            if digest is not None:
                yield digest

    def _log(self, name: str, digest: str) -> None:
        subject = f"refs/{name}.log"
        torn = self.store.refs.torn_lines(name)
        if torn:
            self.objects.found("ref-log", subject, f"{torn} torn line(s), left by a crash", is_note=True)
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
                self.objects.found("ref-log", subject, "has a gap: a move was not noted", is_note=True)
            last = move.new
        if last != digest:
            message = f"does not lead to where the environment stands ({digest})"
            self.objects.found("ref-log", subject, message, repairs=[Repair(NOTE_MOVE, name, digest)])

    def _chain(self, name: str, digest: str | None) -> None:
        """Check that the history of an environment is there back to its end."""
        try:
            ends = read_ends(self.store)
        except SeeknalError:
            return
        above, below = digest, self.objects.snapshots.get(digest or "")
        while above is not None and below is not None and below.parent is not None:
            if self._problem_with(below.parent) and self.objects.snapshots.get(below.parent) is None:
                if above not in ends:
                    what = "unreadable" if below.parent in self.objects.snapshots else "missing"
                    message = f"the history of '{name}' breaks off: {below.parent} is {what}"
                    repairs = [Repair(END_HISTORY, above)]
                    self.objects.found("history", f"snapshots/{below.parent}", message, repairs=repairs)
                return
            above, below = below.parent, self.objects.snapshots[below.parent]

    # who is hurt

    def _hurts(self) -> dict[str, list[Hurt]]:
        """For each blob that is damaged or missing, who lacks it. Trees and manifests that are not there are found."""
        found: dict[str, list[Hurt]] = {}
        for environment, number, digest in self._reached():
            if digest not in self.objects.snapshots:
                self.objects.check_snapshot(digest)
            snapshot = self.objects.snapshots.get(digest)
            if snapshot is None:
                continue
            hurt = Hurt(environment, number, digest, [])
            if snapshot.manifest not in self.objects.manifests:
                self._lost("missing-manifest", f"manifests/{snapshot.manifest}.json", "a snapshot's manifest", hurt)
            lacking = self.objects.trees.get(snapshot.tree)
            if lacking is None:
                if snapshot.tree not in self.objects.trees:
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
            snapshot = self.objects.snapshots.get(pin.name)
            if pin.name not in seen and snapshot is not None:
                yield snapshot.environment, -1, pin.name

    def _lost(self, check: str, subject: str, what: str, hurt: Hurt) -> None:
        """Report an object that is not there; where only the past lacks it, once."""
        known = subject in self.losses and hurt.number != 0
        repairs = [] if subject in self.losses else [Repair(NOTE_LOSS, subject)]
        self.objects.found(check, subject, f"{what} is missing", is_note=known, hurts=[hurt], repairs=repairs)

    def _report_blobs(self, hurts: dict[str, list[Hurt]]) -> None:
        for name, blob in self.objects.bad_blobs.items():
            subject = self.objects.path(blob)
            recorded = self.objects.recorded.get(name)
            error = self.objects.unreadable_blobs.get(name)
            if self.objects.is_forbidden(name):
                message = "may not be read by this user; let it, and verify again"
                self.objects.found("unreadable", subject, message, hurts=hurts.get(name, []))
                continue
            if error is not None:
                message = f"cannot be read: {error.strerror}"
            elif recorded is not None and blob.size_bytes != recorded:
                message = f"has {blob.size_bytes} bytes, recorded were {recorded}"
            else:
                message = "is damaged: its bytes do not match its address"
            hurt = hurts.get(name, [])
            self.objects.found("damaged-blob", subject, message, hurts=hurt, repairs=[Repair(QUARANTINE, subject)])
        for name, lacking in hurts.items():
            if name in self.objects.bad_blobs:
                continue
            subject = f"blobs/{name[:2]}/{name[2:]}"
            if name in self.objects.sizes:
                message = f"has {self.objects.sizes[name]} bytes, recorded were {self.objects.recorded[name]}"
                self.objects.found("recorded-size", subject, message, hurts=lacking)
                continue
            # What is known to be lost, and only the past lacks, is no news.
            known = subject in self.losses and all(hurt.number != 0 for hurt in lacking)
            repairs = [] if subject in self.losses else [Repair(NOTE_LOSS, subject)]
            self.objects.found("missing-blob", subject, "is missing", is_note=known, hurts=lacking, repairs=repairs)
