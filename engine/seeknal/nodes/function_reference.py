"""A node's function as a value: where it stands, and what its code says about it."""

from __future__ import annotations

from pathlib import Path

import msgspec

# What the environment variables of a node's params begin with.
PREFIX = "SEEKNAL_PARAM_"

# What its rows are called as the one input of a kind that works on them.
ROWS = "function.rows"


class FunctionReference(msgspec.Struct, frozen=True):
    """A node's function: where it is, and what its code says about it.

    ``file`` is relative to the project's root, ``name`` the function's own. ``digest`` covers all code that its result
    may depend on; ``files`` are the digests of the files that it is imported from. ``reads``: input, in lower case →
    columns shown to be read, None for all. ``reads_outside``: it may read what no fingerprint holds.
    """

    node_id: str
    file: str
    name: str
    digest: str
    line: int = 0
    files: dict[str, str] = {}
    reads: dict[str, tuple[str, ...] | None] = {}
    references: tuple[str, ...] = ()
    reads_outside: bool = False


def log_path(project_root: Path, node_id: str) -> Path:
    """Where what a node's function printed stands."""
    return project_root / "target" / "logs" / f"{node_id}.log"
