"""The manifest: all nodes and edges of a project at one moment.

A :class:`Manifest` is what parsing a project yields and what everything else works on. It is treated as
immutable once parsed; ``add_node`` and ``add_edge`` exist to build one.

- *node*: one step, ``kind`` + ``name``, id ``kind.name``.
- *edge*: ``from_node`` is read by ``to_node``. The edges into a node stand in the order of its inputs.
- *fingerprint*: SHA-256 over everything that the project says, so nothing about when, where or by which
  version it was parsed.
"""

from __future__ import annotations

import contextlib
import enum
import hashlib
import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
from msgspec.structs import replace

from seeknal.errors import FormatTooNewError
from seeknal.json_document import Computed, indented_pieces
from seeknal.store.filesystem import write_atomically
from seeknal.version import __version__

# Of the JSON that a manifest is written as.
SCHEMA_VERSION = 1

# How many nodes or edges are turned into JSON at once.
_AT_ONCE = 200


class NodeType(enum.Enum):
    """The kinds of node; the values are what ``kind:`` says in YAML."""

    SOURCE = "source"
    TRANSFORM = "transform"
    FEATURE_GROUP = "feature_group"
    MODEL = "model"
    AGGREGATION = "aggregation"
    SECOND_ORDER_AGGREGATION = "second_order_aggregation"
    RULE = "rule"
    PROFILE = "profile"
    EXPOSURE = "exposure"
    ENTITY = "entity"
    SEMANTIC_MODEL = "semantic_model"
    METRIC = "metric"
    PYTHON = "python"


@dataclass(frozen=True, slots=True)
class Node:
    """One step of the pipeline as the project declares it.

    ``config`` is the parsed node without ``kind``, ``name``, ``description``, ``owner``, ``tags`` and
    ``columns``, with templates unresolved. ``file_path`` is relative to the project's root.
    """

    id: str
    name: str
    node_type: NodeType
    description: str | None = None
    owner: str | None = None
    tags: list[str] = field(default_factory=list)
    columns: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    file_path: str | None = None

    @property
    def kind(self) -> str:
        """The kind as YAML spells it."""
        return self.node_type.value

    def to_dict(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "name": self.name,
            "type": self.node_type.value,
            "description": self.description,
            "owner": self.owner,
            "tags": list(self.tags),
            "columns": self.columns,
            "config": self.config,
            "file_path": self.file_path,
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Node:
        """Rebuild a node from :meth:`to_dict`. Raises ValueError where a part is missing or of the wrong type."""
        try:
            return cls(
                id=_text(data["id"]),
                name=_text(data["name"]),
                node_type=NodeType(data["type"]),
                description=data.get("description"),
                owner=data.get("owner"),
                tags=list(data.get("tags") or []),
                columns=dict(data.get("columns") or {}),
                config=dict(data.get("config") or {}),
                file_path=data.get("file_path"),
            )
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ValueError(f"manifest: a node is malformed: {error}") from error


class Edge(msgspec.Struct, frozen=True):
    """``from_node`` is an input of ``to_node``."""

    from_node: str
    to_node: str
    edge_type: str = "dependency"

    def to_dict(self) -> dict[str, str]:
        return {"from": self.from_node, "to": self.to_node, "type": self.edge_type}


class ManifestMetadata(msgspec.Struct, frozen=True):
    """Which project a manifest is of, and when and by which version it was parsed."""

    project: str
    seeknal_version: str = __version__
    generated_at: str = ""
    schema_version: int = SCHEMA_VERSION


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value


class _WrittenEdge(msgspec.Struct, gc=False):
    from_node: str = msgspec.field(name="from")
    to_node: str = msgspec.field(name="to")
    edge_type: str = msgspec.field(name="type", default="dependency")

    def says(self, edge: Edge) -> bool:
        return (self.from_node, self.to_node, self.edge_type) == (edge.from_node, edge.to_node, edge.edge_type)


_edge_decoder = msgspec.json.Decoder(_WrittenEdge)


class _Written(msgspec.Struct):
    """A manifest's JSON. Nodes and edges are decoded one by one: all at once they take several times their memory."""

    metadata: dict[str, Any]
    nodes: dict[str, msgspec.Raw]
    edges: list[msgspec.Raw]


class Manifest:
    """All nodes and edges of a project at one moment."""

    def __init__(self, project: str = "", seeknal_version: str = __version__, generated_at: str = "") -> None:
        self.metadata = ManifestMetadata(project, seeknal_version, generated_at)
        self.nodes: dict[str, Node] = {}
        self.edges: list[Edge] = []
        self.path: Path | None = None
        self._inputs: dict[str, list[str]] = {}
        self._readers: dict[str, list[str]] = {}

    # building

    def add_node(self, node: Node) -> None:
        self.nodes[node.id] = node

    def add_edge(self, from_node: str, to_node: str, edge_type: str = "dependency") -> None:
        """Add an edge; adding one that is there already changes nothing."""
        inputs, readers = self._inputs.get(to_node, ()), self._readers.get(from_node, ())
        # Both tell it; the shorter is the faster where a node has very many inputs or readers.
        if from_node in inputs if len(inputs) < len(readers) else to_node in readers:
            return
        self.edges.append(Edge(from_node, to_node, edge_type))
        self._inputs.setdefault(to_node, []).append(from_node)
        self._readers.setdefault(from_node, []).append(to_node)

    # asking

    def get_node(self, node_id: str) -> Node | None:
        return self.nodes.get(node_id)

    def inputs_of(self, node_id: str) -> list[str]:
        """The direct inputs of a node, in its own order."""
        return list(self._inputs.get(node_id, ()))

    def readers_of(self, node_id: str) -> list[str]:
        """The nodes that have this one as a direct input."""
        return list(self._readers.get(node_id, ()))

    def get_upstream_nodes(self, node_id: str) -> set[str]:
        """Direct inputs only."""
        return set(self._inputs.get(node_id, ()))

    def get_downstream_nodes(self, node_id: str) -> set[str]:
        """Direct readers only."""
        return set(self._readers.get(node_id, ()))

    def ancestors_of(self, node_ids: Iterable[str]) -> set[str]:
        """Everything upstream of these nodes, themselves left out unless one is upstream of another."""
        return self._reach(node_ids, self._inputs)

    def descendants_of(self, node_ids: Iterable[str]) -> set[str]:
        """Everything downstream of these nodes, themselves left out unless one is downstream of another."""
        return self._reach(node_ids, self._readers)

    @staticmethod
    def _reach(start: Iterable[str], step: Mapping[str, Iterable[str]]) -> set[str]:
        seen: set[str] = set()
        queue = deque(start)
        while queue:
            for neighbour in step.get(queue.popleft(), ()):
                if neighbour not in seen:
                    seen.add(neighbour)
                    queue.append(neighbour)
        return seen

    def topological_order(self) -> list[str]:
        """Order all nodes so that inputs come first; ties keep the order of ``nodes``. Kahn's algorithm.

        Raises ValueError("DAG contains cycle: a -> b -> a").
        """
        return [node_id for layer in self.topological_layers() for node_id in layer]

    def topological_layers(self) -> list[list[str]]:
        """Group the nodes by their longest distance from a root; within a layer, the order of ``nodes``."""
        missing = dict.fromkeys(self.nodes, 0)
        for edge in self.edges:
            if edge.to_node in missing and edge.from_node in missing:
                missing[edge.to_node] += 1
        position = {node_id: index for index, node_id in enumerate(self.nodes)}
        layers: list[list[str]] = []
        layer = [node_id for node_id, count in missing.items() if not count]
        placed = 0
        while layer:
            layers.append(layer)
            placed += len(layer)
            following: list[str] = []
            for node_id in layer:
                for reader in self._readers.get(node_id, ()):
                    if reader in missing:
                        missing[reader] -= 1
                        if not missing[reader]:
                            following.append(reader)
            layer = sorted(following, key=position.__getitem__)
        if placed != len(self.nodes):
            _, path = self.detect_cycles()
            raise ValueError(f"DAG contains cycle: {' -> '.join(path)}")
        return layers

    def detect_cycles(self) -> tuple[bool, list[str]]:
        """Say whether there is a cycle, and give one as a path that ends with its first node."""
        unseen, on_path, done = 0, 1, 2
        colour = dict.fromkeys(self.nodes, unseen)
        for root in self.nodes:
            if colour[root] != unseen:
                continue
            colour[root] = on_path
            stack = [(root, iter(self._readers.get(root, ())))]
            while stack:
                node_id, readers = stack[-1]
                for reader in readers:
                    if colour.get(reader, done) == on_path:
                        path = [entry[0] for entry in stack]
                        return True, [*path[path.index(reader) :], reader]
                    if colour.get(reader, done) == unseen:
                        colour[reader] = on_path
                        stack.append((reader, iter(self._readers.get(reader, ()))))
                        break
                else:
                    colour[node_id] = done
                    stack.pop()
        return False, []

    def fingerprint(self) -> str:
        """SHA-256 over the nodes, the edges and the project's name, as 64 hexadecimal digits."""
        digest = hashlib.sha256()
        for part in self._canonical_json():
            digest.update(part.encode())
        return digest.hexdigest()

    def _canonical_json(self) -> Iterator[str]:
        """The JSON of what the project says, with sorted keys, in pieces."""
        encode = json.JSONEncoder(sort_keys=True, separators=(",", ":")).encode
        yield '{"edges":['
        yield from self._edges_json(encode)
        yield '],"nodes":{'
        yield from self._nodes_json(encode, sorted(self.nodes))
        yield f'}},"project":{encode(self.metadata.project)}}}'

    # Many at once are fast, and all at once take several times the memory of the text.

    def _nodes_json(self, encode: Callable[[Any], str], names: Sequence[str]) -> Iterator[str]:
        for start in range(0, len(names), _AT_ONCE):
            piece = encode({name: self.nodes[name].to_dict() for name in names[start : start + _AT_ONCE]})
            yield f"{',' if start else ''}{piece[1:-1]}"

    def _edges_json(self, encode: Callable[[Any], str]) -> Iterator[str]:
        for start in range(0, len(self.edges), _AT_ONCE):
            piece = encode([edge.to_dict() for edge in self.edges[start : start + _AT_ONCE]])
            yield f"{',' if start else ''}{piece[1:-1]}"

    # reading and writing

    def to_dict(self) -> dict[str, Any]:
        return {
            "metadata": self._metadata(),
            "nodes": {node_id: node.to_dict() for node_id, node in self.nodes.items()},
            "edges": [edge.to_dict() for edge in self.edges],
        }

    def _metadata(self) -> dict[str, Any]:
        return {
            "project": self.metadata.project,
            "seeknal_version": self.metadata.seeknal_version,
            "generated_at": self.metadata.generated_at,
            "schema_version": SCHEMA_VERSION,
        }

    def insist_on_version(self) -> None:
        """Raise FormatTooNewError where a newer version wrote this manifest. What it says may have been misread."""
        if self.metadata.schema_version > SCHEMA_VERSION:
            name = f"the manifest of '{self.metadata.project}'"
            raise FormatTooNewError.of(name, self.metadata.schema_version, SCHEMA_VERSION)

    def to_json(self, indent: int = 2) -> str:
        return self.to_bytes(indent).decode()

    def to_bytes(self, indent: int = 2) -> bytes:
        """The same in UTF-8."""
        return b"".join(self.pieces(indent))

    def pieces(self, indent: int = 2) -> Iterator[bytes]:
        """The same, piece by piece."""
        encode = json.JSONEncoder().encode
        nodes = Computed(self.nodes, Node.to_dict)
        document = {"metadata": self._metadata(), "nodes": nodes, "edges": map(Edge.to_dict, self.edges)}
        # Python's own encoder is several times faster without an indent.
        return indented_pieces(document, indent, lambda value: encode(value).encode())

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Manifest:
        """Rebuild a manifest from :meth:`to_dict`. Raises ValueError where a part is missing or malformed."""
        if not isinstance(data, dict):
            raise ValueError("manifest: not an object")
        metadata = data.get("metadata")
        if not isinstance(metadata, dict):
            raise ValueError("manifest: 'metadata' is missing or not an object")
        if not isinstance(metadata.get("project"), str):
            raise ValueError("manifest: 'metadata.project' is missing or not a string")
        nodes, edges = data.get("nodes"), data.get("edges")
        if not isinstance(nodes, dict):
            raise ValueError("manifest: 'nodes' is missing or not an object")
        if not isinstance(edges, list):
            raise ValueError("manifest: 'edges' is missing or not an array")
        manifest = cls._empty(metadata)
        for node in nodes.values():
            manifest.add_node(Node.from_dict(node))
        for edge in edges:
            try:
                manifest.add_edge(_text(edge["from"]), _text(edge["to"]), edge.get("type", "dependency"))
            except (KeyError, TypeError, AttributeError) as error:
                raise ValueError(f"manifest: an edge is malformed: {edge!r}") from error
        return manifest

    @classmethod
    def _empty(cls, metadata: Mapping[str, Any]) -> Manifest:
        manifest = cls(
            metadata["project"],
            str(metadata.get("seeknal_version", "")),
            str(metadata.get("generated_at", "")),
        )
        version = metadata.get("schema_version")
        if isinstance(version, int) and version != SCHEMA_VERSION:
            manifest.metadata = replace(manifest.metadata, schema_version=version)
        return manifest

    @classmethod
    def _of_written(cls, written: _Written, like: Manifest | None) -> Manifest:
        manifest = cls._empty(written.metadata)
        for raw in written.nodes.values():
            node = Node.from_dict(msgspec.json.decode(raw))
            twin = like.nodes.get(node.id) if like is not None else None
            manifest.add_node(twin if twin == node and twin is not None else node)
        if like is not None and len(written.edges) == len(like.edges):
            edges = map(_edge_decoder.decode, written.edges)
            if all(map(_WrittenEdge.says, edges, like.edges)):
                manifest.edges, manifest._inputs, manifest._readers = like.edges, like._inputs, like._readers
                return manifest
        known = {name: name for name in manifest.nodes}
        for edge in map(_edge_decoder.decode, written.edges):
            from_node, to_node = edge.from_node, edge.to_node
            manifest.add_edge(known.get(from_node, from_node), known.get(to_node, to_node), edge.edge_type)
        if like is not None:
            for own, others in ((manifest._inputs, like._inputs), (manifest._readers, like._readers)):
                for node_id, names in own.items():
                    if names == others.get(node_id):
                        own[node_id] = others[node_id]
        return manifest

    @classmethod
    def from_json(cls, text: str | bytes, like: Manifest | None = None) -> Manifest:
        """Read a manifest; nodes and lists of edges that are those of ``like`` are its objects, so change neither.

        Raises ValueError as :meth:`from_dict`.
        """
        with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            written = msgspec.json.decode(text, type=_Written)
            if isinstance(written.metadata.get("project"), str):
                return cls._of_written(written, like)
        # It is wrong, which is told more exactly from its values.
        try:
            data = json.loads(text.decode() if isinstance(text, bytes) else text)
        except (json.JSONDecodeError, RecursionError) as error:
            raise ValueError(f"manifest: not JSON: {error}") from error
        return cls.from_dict(data)

    def save(self, path: str | Path) -> None:
        """Write the manifest as JSON, replacing the file in one step; creates its folder."""
        write_atomically(Path(path), self.pieces())

    @classmethod
    def load(cls, path: str | Path, like: Manifest | None = None) -> Manifest:
        """Read a manifest; ``like`` as for :meth:`from_json`.

        Raises FileNotFoundError, or ValueError for anything that is no manifest.
        """
        path = Path(path)
        manifest = cls.from_json(path.read_bytes(), like)
        manifest.path = path
        return manifest
