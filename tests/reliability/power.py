"""A power cut: what was not made durable is lost.

- *durable*: a file's content after an fsync of it, or a syncfs of all. Names are taken for durable at once and in
  order, as journals of file systems keep them; so a file may have its new name and not its content.
- *lost*: content that was written after that. A file that is new is empty then; one that was written to in its place is
  what it was.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from tests.reliability.faults import MAKE, WRITE, Call

# SQLite makes its own files durable bit by bit, which calls by their names do not tell.
_LEFT_ALONE = ("state.db", "state.db-wal", "state.db-shm", "state.db-journal")


def not_durable(calls: Iterable[Call]) -> dict[str, bool]:
    """The files with content that these calls did not make durable: path → whether it has come there by its name."""
    found: dict[str, bool] = {}
    for call in calls:
        if call.does in (MAKE, WRITE) or "truncate" in call.name:
            found.setdefault(call.path, False)
        elif call.name.startswith("rename"):
            for path in [path for path in found if path == call.path or path.startswith(f"{call.path}/")]:
                del found[path]
                found[call.to + path.removeprefix(call.path)] = True
        elif call.name in ("fsync", "fdatasync"):
            found.pop(call.path, None)
        elif call.name == "syncfs":
            found.clear()
    return found


def cut_power(root: Path, before: Path, calls: Iterable[Call]) -> int:
    """Take away what was not durable in a folder that was ``before`` when these calls began; says of how many files."""
    lost = 0
    for path, was_moved in not_durable(calls).items():
        file, was = Path(path), before / os.path.relpath(path, root)
        if not file.is_file() or file.is_symlink() or file.name in _LEFT_ALONE or file.parent.name == "locks":
            continue
        mode = file.stat().st_mode
        file.chmod(0o644)
        if was.is_file() and not was_moved:
            shutil.copyfile(was, file)
        else:
            os.truncate(file, 0)
        file.chmod(mode)
        lost += 1
    return lost
