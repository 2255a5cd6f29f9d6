"""Edits of ``seeknal_project.yml`` that leave alone what they are not about: comments, order, quotes, line ends.

- *edit*: the file's bytes before and after. Planning it checks that the file then says exactly what it said, and the
  one setting; applying it replaces the file in one step.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seeknal.dag.project import PROJECT_FILE
from seeknal.dag.yaml_file import Document, parse_documents
from seeknal.errors import Problem, ProjectError, SeeknalError
from seeknal.store.filesystem import sync_folder

_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class ProjectEdit:
    """What a project file holds and what it is to hold. ``before`` is None where there is none yet."""

    path: Path
    before: bytes | None
    after: bytes

    @property
    def changes(self) -> bool:
        return self.before != self.after


def plan_setting(root: Path, setting: str, value: str) -> ProjectEdit:
    """Plan that a project's file has this setting. ``value`` is a word that YAML reads as text.

    Raises ProjectError where the file is not one mapping, or is laid out so that only a person can edit it.
    """
    path = root / PROJECT_FILE
    try:
        before = path.read_bytes()
    except FileNotFoundError:
        return ProjectEdit(path, None, f"# Marks this folder as a Seeknal project.\n{setting}: {value}\n".encode())
    except OSError as error:
        raise SeeknalError(f"{PROJECT_FILE} cannot be read: {error.strerror}") from error
    try:
        text = before.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ProjectError([Problem(f"{PROJECT_FILE} is not UTF-8 text", hint="save the file as UTF-8")]) from error
    document = _only_document(text)
    wanted = {**document.value, setting: value}
    for edited in _candidates(text, document, setting, value):
        documents, problems = parse_documents(edited, PROJECT_FILE)
        if not problems and len(documents) == 1 and documents[0].value == wanted:
            bom = _BOM if before.startswith(_BOM) else b""
            return ProjectEdit(path, before, bom + edited.encode())
    place = document.place((setting,), PROJECT_FILE)
    raise ProjectError(
        [Problem(f"'{setting}' cannot be changed here without changing more", place, f"set '{setting}: {value}'")]
    )


def apply_edit(edit: ProjectEdit) -> None:
    """Replace the file, atomically and durably. Raises SeeknalError where it is not what the edit was planned for."""
    if not edit.changes:
        return
    # A link stays one: what it leads to is replaced.
    path = Path(os.path.realpath(edit.path))
    new = path.with_name(f".{path.name}.new")
    try:
        now = path.read_bytes() if path.exists() else None
        if now != edit.before:
            raise SeeknalError(f"{PROJECT_FILE} was changed by another meanwhile", hint="try again")
        with new.open("wb") as file:
            if edit.before is not None:
                os.fchmod(file.fileno(), path.stat().st_mode & 0o7777)
            file.write(edit.after)
            file.flush()
            os.fsync(file.fileno())
        os.replace(new, path)
        sync_folder(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            new.unlink()
        raise SeeknalError(f"{PROJECT_FILE} cannot be written: {error.strerror}") from error


def _only_document(text: str) -> Document:
    documents, problems = parse_documents(text, PROJECT_FILE)
    if problems:
        raise ProjectError(problems)
    document = documents[0] if documents else Document({})
    if len(documents) > 1 or not isinstance(document.value, dict):
        place = document.place((), PROJECT_FILE)
        raise ProjectError([Problem("the project file must be one mapping of settings", place)])
    return document


def _candidates(text: str, document: Document, setting: str, value: str) -> Iterator[str]:
    """Edited texts, the least intrusive first. Whether one says what it should is for the caller to see."""
    line_end = "\r\n" if "\r\n" in text else "\n"
    spot: Any = document.places.get((setting,))
    if spot is not None:
        quote = spot.style if spot.style in ("'", '"') else ""
        yield text[: spot.start] + f"{quote}{value}{quote}" + text[spot.end :]
        return
    gap = "" if not text or text.endswith(("\n", "\r")) else line_end
    first = next((place for path, place in document.places.items() if len(path) == 1), None)
    indent = " " * (first.column - 1 if first else 0)
    yield f"{text}{gap}{indent}{setting}: {value}{line_end}"
    whole = document.places.get(())
    if whole is not None:
        # A file that ends with a document's end mark, then one in braces.
        yield f"{text[: whole.start]}{setting}: {value}{line_end}{indent}{text[whole.start :]}"
        yield f"{text[: whole.start + 1]}{setting}: {value}, {text[whole.start + 1 :]}"
