"""The files that a pattern means (``data/**/*.csv``), found once each, in an order that does not depend on the disk.

Patterns are those of Python's :mod:`glob`; a folder's ``**`` is all folders below it, hidden ones left out. Links to
folders are followed, but no folder is gone into twice: links may lead in circles, and a row must not count twice for
being reached by two ways. Where there are two, the one without a link is taken, else the first by name.
"""

from __future__ import annotations

import errno
import glob
import os

#: More folders than these are no data of a project's; ``/**`` would be the whole disk.
MOST_FOLDERS = 100_000


def matching_files(pattern: str) -> list[str]:
    """Give the paths that a pattern matches, sorted; also those of folders and of links that lead nowhere.

    Raises OSError where there are more than MOST_FOLDERS folders to look into.
    """
    if "**" not in pattern:
        return sorted(glob.glob(pattern))
    found = {""}
    parts = _parts(pattern)
    for index, part in enumerate(parts):
        if part != "**":
            found = {path for folder in found for path in glob.glob(_joined(glob.escape(folder), part))}
        elif index == len(parts) - 1:
            found = {path for folder in found for below in _folders(folder) for path in _entries(below)} | found
        else:
            found = {below for folder in found for below in _folders(folder)}
    return sorted(found - {""})


def _parts(pattern: str) -> list[str]:
    """The pattern cut before and behind each ``**``; several of these in a row are one."""
    parts: list[str] = []
    for name in pattern.split("/"):
        if name == "**":
            if parts[-1:] != ["**"]:
                parts.append(name)
        elif parts and parts[-1] != "**":
            parts[-1] += f"/{name}"
        else:
            parts.append(name)
    # The first name of an absolute path is nothing.
    return [part or "/" for part in parts]


def _joined(folder: str, name: str) -> str:
    return os.path.join(folder, name) if folder else name


def _entries(folder: str) -> list[str]:
    try:
        return [_joined(folder, name) for name in os.listdir(folder or ".") if not name.startswith(".")]
    except OSError:
        return []


def _folders(top: str) -> list[str]:
    """A folder and all below it, each once."""
    found: list[str] = []
    seen: set[tuple[int, int]] = set()
    # Folders of their own before those that links lead to.
    waiting, links = [top], list[str]()
    while waiting or links:
        folder = waiting.pop() if waiting else links.pop(0)
        try:
            stat = os.stat(folder or ".")
            entries = sorted(os.scandir(folder or "."), key=lambda entry: entry.name)
        except OSError:
            continue
        if (stat.st_dev, stat.st_ino) in seen:
            continue
        seen.add((stat.st_dev, stat.st_ino))
        found.append(folder)
        if len(found) > MOST_FOLDERS:
            raise OSError(errno.E2BIG, f"more than {MOST_FOLDERS:,} folders to look into")
        for entry in entries:
            if entry.name.startswith("."):
                continue
            path = _joined(folder, entry.name)
            if entry.is_symlink():
                links.append(path)
            elif entry.is_dir():
                waiting.append(path)
    return found
