"""The file ``.env``: environment variables of a project that stand in no shell.

It is looked for in a folder and in up to three above it. A variable that is set already keeps its value. No message
repeats a value of it.
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
    from dotenv import dotenv_values, load_dotenv

    try:
        load_dotenv(path, override=False)
        # What the shell has set goes before; but what stands in the file may be in use all the same.
        said = {name: value for name, value in dotenv_values(path).items() if value}
    except OSError as error:
        raise ProjectError([Problem(f"cannot be read: {error.strerror}", Place(str(path)))]) from error
    except ValueError as error:
        raise ProjectError([Problem(f"cannot be read: {error}", Place(str(path)), "save it as UTF-8 text")]) from error
    from seeknal.redaction import hide_variables, is_setting_of_ours

    hide_variables([name for name in said if not is_setting_of_ours(name)], said)
    hide_variables(name for name in said if not is_setting_of_ours(name))
    return path
