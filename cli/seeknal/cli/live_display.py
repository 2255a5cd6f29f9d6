"""A live display of a run at the foot of the terminal: how far it is and what runs now."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn


class LiveDisplay:
    """Progress of one run; a context manager. Lines printed meanwhile go above it."""

    def __init__(self) -> None:
        self._progress = Progress(
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.description}", markup=False),
            console=Console(),
            transient=True,
        )
        self._task: Any = None
        self._running: dict[str, None] = {}

    def __enter__(self) -> LiveDisplay:
        self._progress.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._progress.stop()

    def begin(self, total: int) -> None:
        self._task = self._progress.add_task("", total=total)

    def started(self, node_id: str) -> None:
        self._running[node_id] = None
        self._show()

    def finished(self, node_id: str) -> None:
        self._running.pop(node_id, None)
        if self._task is not None:
            self._progress.advance(self._task)
        self._show()

    def _show(self) -> None:
        if self._task is not None:
            names = [node_id.partition(".")[2] for node_id in self._running]
            more = f" and {len(names) - 4} more" if len(names) > 4 else ""
            self._progress.update(self._task, description=", ".join(names[:4]) + more)
