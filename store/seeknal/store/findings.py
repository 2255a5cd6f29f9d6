"""Findings: what verifying finds, as values.

- *finding*: something that is not as it must be, or (*note*) something that a crash or a known loss leaves behind and
  that hurts nobody.
- *hurt*: a snapshot, by the environments that stand or stood there, and its nodes whose outputs a finding touches.
- *repair*: what would be done about a finding. Nothing is deleted: what is damaged is moved to ``quarantine/``.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

# What a repair does.
QUARANTINE, MOVE_STRAY, PROTECT, MOVE_REF, NOTE_MOVE, NOTE_LOSS, END_HISTORY, RESTORE_PIN = (
    "quarantine",
    "move-stray",
    "write-protect",
    "move-ref",
    "note-move",
    "note-loss",
    "end-history",
    "restore-pin",
)

# What a repair does outside the store, where whoever uses the store has put something.
SET_ASIDE, SHOW, FORGET_DELIVERY = OUTSIDE = ("set-aside", "show", "forget-delivery")

# Where things are only remembered: nobody misses what is gone from there.
MEMORY = ("actions", "checks", "deliveries", "failed", "format")


class Hurt(msgspec.Struct, frozen=True):
    """The nodes of a snapshot that a finding touches. ``number``: how many moves ago it was the environment's."""

    environment: str
    number: int
    snapshot: str
    nodes: list[str]


class Repair(msgspec.Struct, frozen=True):
    """One thing to do. ``subject`` is a path in the store, or an environment; ``value`` where its ref shall stand.

    Outside the store, it is an environment to show, ``environment/node`` of a delivery, or a path in the project.
    """

    action: str
    subject: str
    value: str | None = None


class Finding(msgspec.Struct, frozen=True):
    """Something that is not as it must be. ``check`` is the invariant's short name.

    ``subject`` is a path in the store; outside of it, one in the project.
    """

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
        order = [MOVE_STRAY, NOTE_LOSS, END_HISTORY, MOVE_REF, NOTE_MOVE, QUARANTINE, RESTORE_PIN, PROTECT, *OUTSIDE]
        found = dict.fromkeys(repair for finding in self.findings for repair in finding.repairs)
        return sorted(found, key=lambda repair: order.index(repair.action))
