"""A node's own memory between its runs: names and values that JSON has, in one file for each node.

It is no part of what a node's output is computed from: a value that changes here runs nothing again. Every environment
has a memory of its own, which begins as production's.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any


class NodeState:
    """Names and values; nothing is kept before :meth:`save`. ``first`` is read while there is no file at ``path``."""

    def __init__(self, path: Path, first: Path | None = None) -> None:
        self._path = path
        self._first = first
        self._values: dict[str, Any] | None = None

    def _loaded(self) -> dict[str, Any]:
        if self._values is None:
            path = self._first if self._first is not None and not self._path.exists() else self._path
            try:
                values = json.loads(path.read_text(encoding="utf-8"))
            except (OSError, ValueError):
                values = {}
            self._values = values if isinstance(values, dict) else {}
        return self._values

    def get(self, name: str, default: Any = None) -> Any:
        return self._loaded().get(name, default)

    def set(self, name: str, value: Any) -> None:
        self._loaded()[name] = value

    def delete(self, name: str) -> None:
        """Forget a name; one that is not there changes nothing."""
        self._loaded().pop(name, None)

    def __contains__(self, name: str) -> bool:
        return name in self._loaded()

    def __iter__(self) -> Iterator[str]:
        return iter(self._loaded())

    def save(self) -> None:
        """Keep the values, replacing the file in one step. Raises TypeError for what JSON does not have."""
        text = json.dumps(self._loaded(), indent=2, sort_keys=True)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=self._path.parent, prefix=".state-")
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(text)
            os.replace(temporary, self._path)
        except BaseException:
            os.unlink(temporary)
            raise
