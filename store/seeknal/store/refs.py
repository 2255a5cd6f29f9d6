"""Refs: environment name → snapshot digest. The only mutable thing that readers start from.

A ref moves by compare-and-swap under a lock, durably, and every move is a line in the ref's log:
``<time> <old> <new> <who> <why>``, tab-separated, ``-`` for none.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from seeknal.errors import CorruptObjectError
from seeknal.store.filesystem import locked, sync_folder, write_atomically

_DIGEST = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class RefMove:
    """One line of a ref's log."""

    at: float
    old: str | None
    new: str | None
    who: str
    why: str


class Refs:
    """The refs of a store, in the folder ``refs``."""

    def __init__(self, folder: Path, temporary_folder: Path) -> None:
        self._folder = folder
        self._temporary_folder = temporary_folder

    def read(self, name: str) -> str | None:
        """The snapshot an environment stands at, None where it has none. Raises CorruptObjectError."""
        try:
            text = (self._folder / name).read_text(encoding="ascii", errors="replace").strip()
        except (FileNotFoundError, NotADirectoryError):
            return None
        if not _DIGEST.fullmatch(text):
            raise CorruptObjectError(
                f"the ref of environment '{name}' is damaged",
                hint=f"its last good value is in the last line of {self._folder / (name + '.log')}",
            )
        return text

    def names(self) -> list[str]:
        """All environments that have a ref, sorted."""
        try:
            entries = os.listdir(self._folder)
        except FileNotFoundError:
            return []
        return sorted(name for name in entries if not name.endswith((".log", ".lock")))

    def compare_and_swap(self, name: str, expected: str | None, new: str | None, *, who: str, why: str) -> bool:
        """Move a ref from ``expected`` to ``new`` (None removes it); False where it stands elsewhere.

        After True, the move is durable and the log has its line.
        """
        with locked(self._folder / f"{name}.lock"):
            if self.read(name) != expected:
                return False
            # The log comes first: a ref that moved without a line could not be traced; a line without a move
            # is seen to be one, because the next line does not start from it.
            self._append(name, RefMove(time.time(), expected, new, who, why))
            if new is None:
                (self._folder / name).unlink(missing_ok=True)
                sync_folder(self._folder)
            else:
                write_atomically(self._folder / name, f"{new}\n".encode(), self._temporary_folder, durable=True)
            return True

    def _append(self, name: str, move: RefMove) -> None:
        who, why = (text.replace("\t", " ").replace("\n", " ") for text in (move.who, move.why))
        line = f"{move.at:.6f}\t{move.old or '-'}\t{move.new or '-'}\t{who}\t{why}\n"
        descriptor = os.open(self._folder / f"{name}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            os.write(descriptor, line.encode())
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def log(self, name: str) -> Iterator[RefMove]:
        """The moves of a ref, oldest first. A torn last line is left out."""
        try:
            text = (self._folder / f"{name}.log").read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return
        for line in text.splitlines():
            fields = line.split("\t")
            if len(fields) == 5:
                at, old, new, who, why = fields
                yield RefMove(float(at), None if old == "-" else old, None if new == "-" else new, who, why)
