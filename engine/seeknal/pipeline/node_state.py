"""A node's own memory between its runs: names and values that JSON has, in one file for each node.

It is no part of what a node's output is computed from: a value that changes here runs nothing again. Every environment
has a memory of its own, which begins as production's.

What a function saves becomes the node's memory when its environment moves to the output that goes with it, after the
ref. Until then it waits under the output's fingerprint. So a node whose output its checks rejected, or whose run failed
elsewhere, never forgets what it has not delivered: whoever fetches what is new since a moment fetches it again.

    state/nodes/<node>.json  state/waiting/<node>/<fingerprint>.json
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from seeknal.store.filesystem import write_atomically


def state_path(folder: Path, node_id: str) -> Path:
    """Where a node's memory is kept; ``folder`` is where its environment's views stand."""
    return folder / "state" / "nodes" / f"{node_id}.json"


def waiting_path(folder: Path, node_id: str, fingerprint: str) -> Path:
    """Where what a function saved waits for its output to be committed."""
    return folder / "state" / "waiting" / node_id / f"{fingerprint}.json"


def keep_states(folder: Path, committed: Mapping[str, str]) -> None:
    """Make what was saved beside committed outputs (node id → fingerprint) their nodes' memory. Raises OSError."""
    try:
        waiting = os.listdir(folder / "state" / "waiting")
    except FileNotFoundError:
        return
    for node_id in waiting:
        if node_id in committed:
            path = waiting_path(folder, node_id, committed[node_id])
            if path.is_file():
                kept = state_path(folder, node_id)
                kept.parent.mkdir(parents=True, exist_ok=True)
                os.replace(path, kept)
            # What goes with other outputs of the node will never be committed after this one.
            shutil.rmtree(path.parent, ignore_errors=True)


class NodeState:
    """Names and values; nothing is kept before :meth:`save`. ``first`` is read while there is no file at ``path``.

    With ``waiting`` they are saved there; what an earlier attempt left there is forgotten.
    """

    def __init__(self, path: Path, first: Path | None = None, waiting: Path | None = None) -> None:
        self._path = path
        self._first = first
        self._saved = waiting or path
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
        """Keep the values, replacing the file in one step. Raises TypeError for what JSON does not have.

        The last save counts; it holds from when the node's output is committed.
        """
        write_atomically(self._saved, json.dumps(self._loaded(), indent=2, sort_keys=True).encode())
