"""Which Python files are the project's own, and not an installed package's or ours."""

from __future__ import annotations

import sys
from pathlib import Path

# Where the program itself stands; a project may lie around it.
_OWN_FOLDERS = tuple(Path(folder) for folder in getattr(sys.modules["seeknal"], "__path__", ()))


def is_project_file(root: Path, file: str | None) -> bool:
    """Say whether a file is the project's own: below its root, and not an installed package's."""
    if not file:
        return False
    try:
        parts = Path(file).relative_to(root).parts
    except ValueError:
        return False
    if sys.prefix != sys.base_prefix and Path(file).is_relative_to(sys.prefix):
        return False
    if any(Path(file).is_relative_to(folder) for folder in _OWN_FOLDERS if folder != root / "seeknal"):
        return False
    return not {"site-packages", "dist-packages", "target"} & set(parts[:-1])
