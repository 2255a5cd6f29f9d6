"""A live display of a run at the foot of the terminal: how far it is and what runs now."""

from __future__ import annotations

from typing import Any, TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text


class LiveDisplay:
    """Progress of one run; a context manager. Lines meanwhile go through :meth:`above`."""

    def __init__(self, stream: TextIO) -> None:
        self._progress = Progress(
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.description}", markup=False),
            console=Console(file=stream),
            transient=True,
            # The lines come through `above`; what other parts print to stderr belongs where stderr leads.
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._task: Any = None
        self._running: dict[str, None] = {}

    def __enter__(self) -> LiveDisplay:
        self._progress.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._progress.stop()

    def above(self, line: str) -> None:
        """Print a line, styled or not, above the display."""
        self._progress.console.print(Text.from_ansi(line), soft_wrap=True)

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
