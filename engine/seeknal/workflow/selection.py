"""Selection: which nodes a run considers at all. The others keep the output that they have."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING

import msgspec

from seeknal.dag.names import did_you_mean
from seeknal.errors import NotFoundError

if TYPE_CHECKING:
    from seeknal.dag.manifest import Manifest
    from seeknal.store.objects import Tree
    from seeknal.store.store import Store

# Feature groups make the ones, what is checked makes the others.
_FOLLOWERS = ("entity", "rule")


class Filters(msgspec.Struct, frozen=True):
    """What was asked for; empty means no filter. ``nodes`` are ids or bare names and bring what is downstream,
    ``tags`` bring what is upstream."""

    nodes: Sequence[str] = ()
    types: Sequence[str] = ()
    tags: Sequence[str] = ()
    exclude_tags: Sequence[str] = ()

    def __bool__(self) -> bool:
        return bool(self.nodes or self.types or self.tags or self.exclude_tags)


class Selection(msgspec.Struct, frozen=True):
    """``chosen``: the nodes that were asked for. ``considered``: those and the inputs that they lack.

    ``left_out`` gives the reason for every other node.
    """

    chosen: frozenset[str]
    considered: frozenset[str]
    left_out: dict[str, str]


def select(manifest: Manifest, filters: Filters, has_output: Collection[str]) -> Selection:
    """Apply filters. ``has_output`` are the nodes whose stored output can stand in.

    Raises NotFoundError for a node, type or tag that nothing has.
    """
    every = set(manifest.nodes)
    chosen = set(every)
    left_out: dict[str, str] = {}
    if filters.nodes:
        named = {node_id for name in filters.nodes for node_id in find_nodes(manifest, name)}
        chosen &= named | manifest.descendants_of(named)
    if filters.tags:
        tagged = _with_tags(manifest, filters.tags)
        chosen &= tagged | manifest.ancestors_of(tagged)
    if filters.types:
        wanted = {_type(manifest, name) for name in filters.types}
        chosen = {node_id for node_id in chosen if manifest.nodes[node_id].kind in wanted}
    if filters.types or filters.tags:
        chosen |= _followers_of(manifest, chosen, has_output)
    excluded = _with_tags(manifest, filters.exclude_tags) if filters.exclude_tags else set()
    chosen -= excluded
    considered = set(chosen)
    for node_id in reversed(manifest.topological_order()):
        lacks_output = node_id not in has_output and node_id not in excluded
        if lacks_output and any(reader in considered for reader in manifest.readers_of(node_id)):
            considered.add(node_id)
    for node_id in every - considered:
        left_out[node_id] = "excluded by tag" if node_id in excluded else "not selected"
    asked_for = frozenset(chosen)
    # One set where they are the same, as they are without filters.
    return Selection(asked_for, asked_for if considered == chosen else frozenset(considered), left_out)


def _followers_of(manifest: Manifest, chosen: set[str], has_output: Collection[str]) -> set[str]:
    """The entities of chosen feature groups and the rules about chosen nodes, as far as that builds no other node.

    Entities follow their groups. A rule says what may get into the environment, so only a selection that excludes its
    tag leads around it.
    """
    found = {
        name for node_id in chosen for name in manifest.readers_of(node_id) if manifest.nodes[name].kind in _FOLLOWERS
    }
    return {name for name in found if all(read in chosen or read in has_output for read in manifest.inputs_of(name))}


def outputs_of(store: Store, tree: Tree, filters: Filters) -> set[str]:
    """The nodes whose stored output can stand in for a node that filters leave out: it must be whole.

    Without filters no node is left out, and none is looked at.
    """
    if not filters:
        return set(tree.nodes)
    return {node_id for node_id, entry in tree.nodes.items() if store.is_whole(entry.artifact)}


def find_nodes(manifest: Manifest, name: str) -> list[str]:
    """The nodes that an id, a bare name or ``kinds/name`` means. Raises NotFoundError."""
    if name in manifest.nodes:
        return [name]
    plain = name
    if "/" in name:
        folder, _, bare = name.rpartition("/")
        plain = f"{folder.removesuffix('s')}.{bare}"
    lowered = plain.lower()
    found = [node_id for node_id, node in manifest.nodes.items() if lowered in (node_id.lower(), node.name.lower())]
    if not found:
        raise NotFoundError(f"no node is called '{name}'", hint=did_you_mean(name, manifest.nodes))
    return found


def _type(manifest: Manifest, name: str) -> str:
    kinds = {node.kind for node in manifest.nodes.values()}
    # Nobody declares entities, so that there are none is nobody's mistake.
    if name not in kinds and name != "entity":
        raise NotFoundError(f"no node is of type '{name}'", hint=did_you_mean(name, kinds))
    return name


def _with_tags(manifest: Manifest, tags: Iterable[str]) -> set[str]:
    known = {tag for node in manifest.nodes.values() for tag in node.tags}
    for tag in tags:
        if tag not in known:
            raise NotFoundError(f"no node has the tag '{tag}'", hint=did_you_mean(tag, known))
    wanted = set(tags)
    return {node_id for node_id, node in manifest.nodes.items() if not wanted.isdisjoint(node.tags)}
