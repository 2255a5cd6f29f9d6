"""What discovery finds in a project's Python files, as values that cross the process boundary and can be kept."""

from __future__ import annotations

from typing import Any

import msgspec

KeyPath = tuple[str | int, ...]


class FoundReference(msgspec.Struct, frozen=True, array_like=True):
    """A node that a function reads; ``columns`` None where all of them. Lines and columns of text count from 1."""

    node_id: str
    columns: tuple[str, ...] | None
    line: int
    column: int


class FoundPlace(msgspec.Struct, frozen=True, array_like=True):
    """Where an argument of a decorator stands: by line and column from 1, its value by index in the file."""

    path: KeyPath
    line: int
    column: int
    start: int
    end: int
    style: str | None = None


class FoundProblem(msgspec.Struct, frozen=True, array_like=True):
    """Something wrong in a file; ``file`` is relative to the project's root."""

    message: str
    file: str
    line: int = 0
    column: int = 0
    hint: str = ""


class FoundNode(msgspec.Struct, frozen=True):
    """A decorated function.

    ``keywords`` are the decorator's, as values that JSON has. ``name`` is
    what was given, whatever it is. ``empty``: it has nothing in it, so the fields say all.
    ``reads_unseen``: it may read inputs in a way that its code does not show. ``files``: the digests of the project's
    files that are imported with it.
    """

    kind: str
    name: Any
    function: str
    keywords: dict[str, Any]
    places: tuple[FoundPlace, ...]
    targets: tuple[dict[str, Any], ...] = ()
    references: tuple[FoundReference, ...] = ()
    empty: bool = False
    reads_unseen: bool = False
    reads_outside: bool = False
    digest: str = ""


class FoundFile(msgspec.Struct, frozen=True):
    """One file: its nodes, or what is wrong. ``repeatable``: importing it again would find the same.

    ``lost`` are the names of nodes that cannot be; without any, all of a file with problems is lost.

    ``files``: path from the root → content digest, of the file and of the project's files that are imported with it.
    """

    file: str
    nodes: tuple[FoundNode, ...] = ()
    problems: tuple[FoundProblem, ...] = ()
    files: dict[str, str] = {}
    repeatable: bool = False
    lost: tuple[str, ...] = ()


class Request(msgspec.Struct, frozen=True):
    """What the process is asked. ``answers`` and ``trace`` are file descriptors: for answers, and for a crash.

    ``secrets`` are what no text may show.
    """

    root: str
    files: list[str]
    answers: int
    trace: int
    patience_seconds: float
    secrets: tuple[bytes, ...] = ()
