"""A DuckDB connection that is opened when it is first used: a project of which everything is remembered needs none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class LazyConnection:
    """Stands for a connection; has its attributes. ``connect`` opens it."""

    def __init__(self, connect: Callable[[], Any]) -> None:
        self._connect = connect
        self._opened: Any = None

    def __getattr__(self, name: str) -> Any:
        if self._opened is None:
            self._opened = self._connect()
        return getattr(self._opened, name)

    def close(self) -> None:
        """Close it, where it was opened. It may be used again."""
        if self._opened is not None:
            self._opened.close()
            self._opened = None
