"""The file ``.env``: environment variables of a project that stand in no shell.

It is looked for in a folder and in up to three above it. A variable that is set already keeps its value.
"""

from __future__ import annotations

from pathlib import Path

from seeknal.errors import Place, Problem, ProjectError

ENVIRONMENT_FILE = ".env"
MOST_PARENTS = 3


def load_environment_file(folder: Path) -> Path | None:
    """Set the variables of the nearest ``.env``; gives its path. Raises ProjectError where it cannot be read."""
    folder = folder.resolve()
    path = next(
        (
            place / ENVIRONMENT_FILE
            for place in (folder, *folder.parents[:MOST_PARENTS])
            if (place / ENVIRONMENT_FILE).is_file()
        ),
        None,
    )
    if path is None:
        return None
    from dotenv import load_dotenv

    try:
        load_dotenv(path, override=False)
    except OSError as error:
        raise ProjectError([Problem(f"cannot be read: {error.strerror}", Place(str(path)))]) from error
    except ValueError as error:
        raise ProjectError([Problem(f"cannot be read: {error}", Place(str(path)), "save it as UTF-8 text")]) from error
    return path
