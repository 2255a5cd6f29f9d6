"""Trees in memory: what they and their artifacts have alike is there once.

A project's environments have most of their outputs in common, and most columns go through many nodes unchanged.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import msgspec

from seeknal.errors import CorruptObjectError
from seeknal.store.objects import WAY_OUT, Artifact, Column, Tree, TreeEntry, stored_body

_encoder = msgspec.msgpack.Encoder()
_entry_decoder = msgspec.msgpack.Decoder(TreeEntry)


class _WrittenTree(msgspec.Struct):
    """A tree whose entries are not decoded yet: as a rule most of them are in memory already."""

    nodes: dict[str, msgspec.Raw]


# Of most artifacts; nobody changes an artifact's.
_NO_METADATA: dict[str, Any] = {}

_tree_decoder = msgspec.msgpack.Decoder(_WrittenTree)


class SharedTrees:
    """Reads trees that are in memory together."""

    def __init__(self) -> None:
        self._trees: list[Tree] = []
        self._columns: dict[Column, Column] = {}

    def decode(self, data: bytes, name: str, path: Path | None = None) -> Tree:
        """Read a tree as :func:`seeknal.store.objects.decode` does; entries that stand in another are that one's."""
        nodes: dict[str, TreeEntry] = {}
        try:
            written = _tree_decoder.decode(stored_body(data, Tree, name, path))
            for node_id, raw in written.nodes.items():
                nodes[sys.intern(node_id)] = self._known(node_id, bytes(raw)) or self._new(raw)
        except (msgspec.DecodeError, ValueError, RecursionError) as error:
            raise CorruptObjectError(f"{name} is damaged: {error}", hint=WAY_OUT) from error
        self._trees.append(Tree(nodes))
        return self._trees[-1]

    def _known(self, node_id: str, written: bytes) -> TreeEntry | None:
        for tree in self._trees:
            entry = tree.nodes.get(node_id)
            if entry is not None and _encoder.encode(entry) == written:
                return entry
        return None

    def _new(self, raw: msgspec.Raw) -> TreeEntry:
        entry = _entry_decoder.decode(raw)
        self.share(entry.artifact)
        return entry

    def share(self, artifact: Artifact) -> None:
        """Let what many artifacts have, like columns and their names, be one object: half of a large tree."""
        put, intern = msgspec.structs.force_setattr, sys.intern
        put(artifact, "run_id", intern(artifact.run_id))
        for part in artifact.parts:
            put(part, "suffix", intern(part.suffix))
        for column in artifact.columns:
            put(column, "name", intern(column.name))
            put(column, "type", intern(column.type))
        if not artifact.metadata:
            put(artifact, "metadata", _NO_METADATA)
        put(artifact, "columns", tuple(self._columns.setdefault(column, column) for column in artifact.columns))
