"""Which Python files are the project's own, and not an installed package's or ours.

A project's folder is called ``seeknal``, as our namespace is. Where the project's root stands on ``sys.path``, both are
parts of one namespace; ours must come first, or a project's ``seeknal/nodes.py`` would be taken for ``seeknal.nodes``.
"""

from __future__ import annotations

import sys
from pathlib import Path

from seeknal import errors

# Where the program itself stands; a project may lie around it.
_OWN_FOLDERS = (Path(__file__).parents[1], Path(errors.__file__).parent)

# A file of such a name, right in the project's folder, hides ours from scripts that are started in the project.
OWN_NAMES = frozenset("cli connect dag errors nodes pipeline state store version workflow".split())


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
    if any(Path(file).is_relative_to(folder) for folder in _OWN_FOLDERS):
        return False
    return not {"site-packages", "dist-packages", "target"} & set(parts[:-1])


def put_own_modules_first() -> None:
    """Make ``seeknal.…`` mean ours in this process, whatever stands on ``sys.path``."""
    namespace = sys.modules["seeknal"]
    own = [str(folder) for folder in _OWN_FOLDERS]
    namespace.__path__ = [*dict.fromkeys(own), *(entry for entry in namespace.__path__ if entry not in own)]
