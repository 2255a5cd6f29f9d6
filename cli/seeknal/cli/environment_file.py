"""The file ``.env``: environment variables of a project that stand in no shell.

It is looked for in a folder and in up to three above it. A variable that is set already keeps its value. No message
repeats a value of it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from seeknal.errors import Place, Problem, ProjectError

ENVIRONMENT_FILE = ".env"
MOST_PARENTS = 3
MOST_BYTES = 256 * 1024
MOST_VARIABLES = 1000


def load_environment_file(folder: Path) -> Path | None:
    """Set the variables of the nearest ``.env``; gives its path. Raises ProjectError where it cannot be read."""
    folder = Path(os.path.realpath(folder))
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
    import io

    from dotenv.main import DotEnv

    from seeknal.store.filesystem import read_regular

    try:
        text = read_regular(path, MOST_BYTES)
        if len(text) > MOST_BYTES:
            raise ValueError(f"it is larger than {MOST_BYTES // 1024} KiB")
        with _lines_left_out(path):
            # What the shell has set goes before; but what stands in the file may be in use all the same.
            file = DotEnv(None, stream=io.StringIO(text.decode("utf-8-sig")), override=False)
            said = {name: value for name, value in file.dict().items() if value}
        if len(said) > MOST_VARIABLES:
            raise ValueError(f"it has more than {MOST_VARIABLES} variables")
        file.set_as_environment_variables()
    except OSError as error:
        raise ProjectError([Problem(f"cannot be read: {error.strerror}", Place(str(path)))]) from error
    except ValueError as error:
        raise ProjectError([Problem(f"cannot be read: {error}", Place(str(path)), "save it as UTF-8 text")]) from error
    from seeknal.redaction import hide_variables, is_setting_of_ours

    hide_variables([name for name in said if not is_setting_of_ours(name)], said)
    hide_variables(name for name in said if not is_setting_of_ours(name))
    return path


@contextmanager
def _lines_left_out(path: Path) -> Iterator[None]:
    """Tell in one line what dotenv logs: the lines that are no variable."""
    import logging

    from seeknal.cli.console import tell

    lines: list[str] = []

    def note(record: logging.LogRecord) -> bool:
        lines.extend(map(str, record.args if isinstance(record.args, tuple) else ()))
        return False

    logger = logging.getLogger("dotenv.main")
    logger.addFilter(note)
    try:
        yield
    finally:
        logger.removeFilter(note)
    if lines:
        more = f", and {len(lines) - 5} more" if len(lines) > 5 else ""
        tell(f"warning: {path}: left out, because it is not NAME=VALUE: line {', '.join(lines[:5])}{more}")
