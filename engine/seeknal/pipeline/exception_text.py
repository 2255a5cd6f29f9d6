"""An exception of the user's code as one line, and the place in the project that it comes from."""

from __future__ import annotations

import traceback
from pathlib import Path

from seeknal.pipeline.project_files import is_project_file
from seeknal.redaction import redacted

LONGEST_MESSAGE = 300


def last_place(root: Path, error: BaseException) -> tuple[str, int] | None:
    """File and line of the last frame of a traceback that is the project's own."""
    found = None
    for frame, line in traceback.walk_tb(error.__traceback__):
        file = frame.f_code.co_filename
        if is_project_file(root, file):
            found = (Path(file).relative_to(root).as_posix(), line)
    return found


def described(error: BaseException) -> str:
    """An exception as one line: its type and what it says."""
    message = said(error)
    return f"{type(error).__name__}: {message}" if message else type(error).__name__


def said(error: BaseException) -> str:
    try:
        return " ".join(str(error).encode(errors="backslashreplace").decode().split())
    except Exception:
        return ""


def cut(message: str) -> str:
    """A message of bounded length; without secrets, because the beginning of one is one, too."""
    message = redacted(message)
    return message if len(message) <= LONGEST_MESSAGE else message[: LONGEST_MESSAGE - 1] + "…"
