"""Refs: environment name → snapshot digest. The only mutable thing that readers start from.

A ref moves by compare-and-swap under a lock, durably, and every move is a line in the ref's log:
``<time> <old> <new> <who> <why>``, tab-separated, ``-`` for none. The line is written first, so a crash may leave one
without its move; the next line then does not start from where that one leads. An empty line follows once a ref
was made, which tells a ref that is lost from one that a crash kept from being made.

    refs/<name>  refs/<name>.log  refs/<name>.lock

A ref whose own name ends like one of the latter two has a ``~`` behind it, which no name has.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from seeknal.errors import CorruptObjectError, NameNotAllowedError
from seeknal.late_pattern import late_pattern
from seeknal.store.filesystem import locked, named, sync_folder, write_atomically, write_whole

REF_NAME = late_pattern(r"[A-Za-z0-9_][A-Za-z0-9_.\-]*")
_BESIDE = (".log", ".lock")
_LINE = late_pattern(r"([0-9]+\.[0-9]+)\t([0-9a-f]{32}|-)\t([0-9a-f]{32}|-)\t([^\t]*)\t([^\t]*)")
_DIGEST = late_pattern(r"[0-9a-f]{32}")
_WAY_OUT = "`seeknal store verify --repair` restores it from its log"


class RefMove(msgspec.Struct, frozen=True):
    """One line of a ref's log. ``at`` is in seconds since 1970."""

    at: float
    old: str | None
    new: str | None
    who: str
    why: str


def is_ref_name(name: str) -> bool:
    """Say whether a name is one that a ref may have."""
    return REF_NAME.fullmatch(name) is not None


def check_ref_name(name: str) -> None:
    """Raise NameNotAllowedError where a ref's name could not be that of a file."""
    if not is_ref_name(name):
        raise NameNotAllowedError(f"'{name}' cannot name a ref", hint="use letters, digits, '_', '-' and '.'")


class Refs:
    """The refs of a store, in the folder ``refs``."""

    def __init__(self, folder: Path, temporary_folder: Path) -> None:
        self._folder = folder
        self._temporary_folder = temporary_folder

    def _path(self, name: str) -> Path:
        return self._folder / (f"{name}~" if name.endswith(_BESIDE) else name)

    def read(self, name: str) -> str | None:
        """The snapshot an environment stands at, None where it has none.

        Raises CorruptObjectError, also where the ref is gone and nobody deleted it: then there is a history to lose.
        """
        text = self._text(name)
        if text is None and self._is_lost(name):
            # It may have come and moved since it was looked for.
            text = self._text(name)
            if text is None:
                raise CorruptObjectError(
                    f"the ref of environment '{name}' is missing, and nobody deleted the environment", hint=_WAY_OUT
                )
        if text is None:
            return None
        if not _DIGEST.fullmatch(text):
            raise CorruptObjectError(f"the ref of environment '{name}' is damaged", hint=_WAY_OUT)
        return text

    def _text(self, name: str) -> str | None:
        try:
            return self._path(name).read_text(encoding="ascii", errors="replace").strip()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise CorruptObjectError(
                f"the ref of environment '{name}' cannot be read: {error.strerror}", hint=_WAY_OUT
            ) from error

    def _is_lost(self, name: str) -> bool:
        """Say whether a ref that is not there once was, by its log, and was not removed.

        A log that ends with the line that makes the ref is that of a process that died before it did.
        """
        lines = self._lines(name)[:-1]
        moves = [(index, move) for index, line in enumerate(lines) if (move := _move(line)) is not None]
        if not moves or moves[-1][1].new is None:
            return False
        index, move = moves[-1]
        return move.old is not None or index + 1 < len(lines)

    def names(self) -> list[str]:
        """All environments that have a ref, or lost it, sorted."""
        try:
            entries = list(os.scandir(self._folder))
        except FileNotFoundError:
            return []
        except NotADirectoryError as error:
            raise CorruptObjectError(f"{self._folder} is no folder, so the environments are unknown") from error
        names = [entry.name for entry in entries if not entry.is_dir()]
        there = {name.removesuffix("~") for name in names if not name.endswith(_BESIDE)}
        logged = {name.removesuffix(".log") for name in names if name.endswith(".log")}
        there |= {name for name in logged - there if self._is_lost(name)}
        return sorted(filter(is_ref_name, there))

    def strays(self) -> list[str]:
        """What in the refs' folder is no ref of ours, nor what stands beside one: other names, and folders."""
        with contextlib.suppress(OSError):
            return sorted(
                entry.name
                for entry in os.scandir(self._folder)
                if entry.is_dir() or not is_ref_name(entry.name.removesuffix("~"))
            )
        return []

    def compare_and_swap(self, name: str, expected: str | None, new: str | None, *, who: str, why: str) -> bool:
        """Move a ref from ``expected`` to ``new`` (None removes it); False where it stands elsewhere.

        After True, the move is durable and the log has its line. Raises NameNotAllowedError, CorruptObjectError, and
        OSError where the disk failed: then the ref stands where it stood, or where it should.
        """
        check_ref_name(name)
        with locked(self._folder / f"{name}.lock"):
            if self.read(name) != expected:
                return False
            self._move(name, expected, new, who, why)
            return True

    def restore(self, name: str, damaged: str | None, new: str | None, *, who: str, why: str) -> bool:
        """Move a ref that is damaged (``damaged`` None), or leads to ``damaged``; False where it does neither any more.

        ``new`` None removes it. As durable as :meth:`compare_and_swap`, and raises likewise.
        """
        if damaged is not None:
            return self.compare_and_swap(name, damaged, new, who=who, why=why)
        with locked(self._folder / f"{name}.lock"):
            try:
                self.read(name)
                return False
            except CorruptObjectError:
                pass
            self._move(name, self._last_noted(name), new, who, why)
            return True

    def remove(self, name: str, *, who: str, why: str) -> None:
        """Remove a ref wherever it stands, also where it is damaged. As durable as :meth:`compare_and_swap`.

        Raises OSError where the disk failed; it can be done again.
        """
        with locked(self._folder / f"{name}.lock"):
            try:
                stands = self.read(name)
                if stands is None:
                    return
            except CorruptObjectError:
                stands = self._last_noted(name)
            self._move(name, stands, None, who, why)

    def note(self, name: str, *, who: str, why: str) -> None:
        """Write the line that is missing where the log does not lead to where the ref stands."""
        with locked(self._folder / f"{name}.lock"):
            now = self.read(name)
            if now != self._last_noted(name):
                self._append(name, RefMove(time.time(), self._last_noted(name), now, who, why))

    def _last_noted(self, name: str) -> str | None:
        moves = list(self.log(name))
        return moves[-1].new if moves else None

    def _move(self, name: str, old: str | None, new: str | None, who: str, why: str) -> None:
        # The log comes first: a ref that moved without a line could not be traced.
        self._append(name, RefMove(time.time(), old, new, who, why))
        if new is None:
            self._path(name).unlink(missing_ok=True)
            sync_folder(self._folder)
        else:
            write_atomically(self._path(name), f"{new}\n".encode(), self._temporary_folder, durable=True)
            if old is None:
                self._say_made(name)

    def _append(self, name: str, move: RefMove) -> None:
        who, why = (re.sub(r"[\t\r\n]", " ", text) for text in (move.who, move.why))
        line = f"{move.at:.6f}\t{move.old or '-'}\t{move.new or '-'}\t{who}\t{why}\n".encode(errors="replace")
        path = self._folder / f"{name}.log"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            with named(path):
                size = os.fstat(descriptor).st_size
                if size and os.pread(descriptor, 1, size - 1) != b"\n":
                    # The line before was torn; it shall not take this one along.
                    line = b"\n" + line
                write_whole(descriptor, line)
                os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _say_made(self, name: str) -> None:
        """End the log with an empty line. Nothing needs it while the ref is there, so it may fail and need not last."""
        with contextlib.suppress(OSError):
            descriptor = os.open(self._folder / f"{name}.log", os.O_WRONLY | os.O_APPEND)
            try:
                write_whole(descriptor, b"\n")
            finally:
                os.close(descriptor)

    def logged_names(self) -> list[str]:
        """All environments that ever had a ref, sorted."""
        with contextlib.suppress(FileNotFoundError):
            return sorted(name.removesuffix(".log") for name in os.listdir(self._folder) if name.endswith(".log"))
        return []

    def torn_lines(self, name: str) -> int:
        """How many lines of a ref's log are not whole."""
        lines = self._lines(name)
        return sum(line != "" and _move(line) is None for line in lines)

    def _lines(self, name: str) -> list[str]:
        try:
            return (self._folder / f"{name}.log").read_bytes().decode(errors="replace").split("\n")
        except (FileNotFoundError, IsADirectoryError):
            return []

    def log(self, name: str, *, whole: bool = False) -> Iterator[RefMove]:
        """The moves of a ref, oldest first; lines that are torn or were not followed by their move are left out.

        ``whole``: where the ref stands now is not believed, so the last line is not left out.
        """
        # In this order: a move in between is then left out, and makes none before it look undone.
        now: str | None
        try:
            now = self.read(name)
        except CorruptObjectError:
            now = "unknown"
        found = [_move(line) for line in self._lines(name)[:-1] if line]
        for index, move in enumerate(found):
            if move is None:
                continue
            if index + 1 < len(found):
                following = found[index + 1]
                stood = following is None or following.old == move.new
            else:
                stood = whole or now in (move.new, "unknown")
            if stood:
                yield move


def _move(line: str) -> RefMove | None:
    fields = _LINE.fullmatch(line)
    if fields is None:
        return None
    at, old, new, who, why = fields.groups()
    return RefMove(float(at), None if old == "-" else old, None if new == "-" else new, who, why)
