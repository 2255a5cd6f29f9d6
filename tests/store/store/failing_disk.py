"""A disk that fails at any call that a test wants, and that knows what a power cut would leave of it."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from seeknal.store import filesystem


def files_below(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


class Disk:
    """The calls that change a disk, counted; from one of them on they fail.

    ``at`` is the number of the call that fails with ``error`` (None: no call does). A write that fails has written
    half of its bytes. Where ``dies`` is set, every later call fails, too, as if the process had ended there. Making
    durable is only noted, because nobody can see it; :meth:`cut_power` takes away what is not durable.
    """

    CALLS = ("open", "write", "fsync", "replace", "rename", "unlink", "mkdir", "symlink", "chmod", "rmdir", "sync")

    def __init__(self, root: Path, at: int | None, error: int = errno.EIO, *, dies: bool = False) -> None:
        self.root = root
        self.story: list[tuple[str, str]] = []
        self.failed = False
        self._at = at
        self._error = error
        self._dies = dies
        self._durable: set[int] = set()

    def install(self, monkeypatch: pytest.MonkeyPatch, *, syncfs: bool) -> None:
        for name in self.CALLS:
            monkeypatch.setattr(os, name, self._wrapped(name, getattr(os, name)))
        monkeypatch.setattr(filesystem, "_syncfs", lambda: self._sync_all if syncfs else None)

    def _wrapped(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            if self._fails(name, arguments):
                if name == "write":
                    real(arguments[0], bytes(arguments[1])[: len(arguments[1]) // 2])
                raise OSError(self._error, os.strerror(self._error))
            if name in ("fsync", "sync"):
                # No real waiting for the disk, whose other users may keep it busy.
                self._durable.update(os.fstat(descriptor).st_ino for descriptor in arguments)
                return None
            return real(*arguments, **options)

        return call

    def _sync_all(self, descriptor: int) -> int:
        if self._fails("syncfs", ()):
            return self._error
        self._durable.update(path.stat().st_ino for path in files_below(self.root))
        return 0

    def _fails(self, name: str, arguments: tuple[Any, ...]) -> bool:
        self.story.append((name, str(arguments[-1]) if name == "replace" else ""))
        if self._at is not None and (len(self.story) == self._at or (self._dies and self.failed)):
            self.failed = True
            return True
        return False

    def mark_durable(self) -> None:
        self._durable.update(path.stat().st_ino for path in files_below(self.root))

    def not_durable(self) -> list[Path]:
        return [path for path in files_below(self.root) if path.stat().st_ino not in self._durable]

    def cut_power(self) -> None:
        for path in self.not_durable():
            path.chmod(0o644)
            os.truncate(path, 0)


@contextmanager
def disk(root: Path, at: int | None, *, syncfs: bool, **how: Any) -> Iterator[Disk]:
    """Put a disk under everything below ``root`` while the block runs; what is there is durable."""
    made = Disk(root, at, **how)
    made.mark_durable()
    with pytest.MonkeyPatch.context() as patched:
        made.install(patched, syncfs=syncfs)
        yield made
