"""Outputs: what an environment holds, node by node, for whoever wants to look at it.

An environment shows the tree that its ref stands at, or stood at earlier (``prod@3``, see
:mod:`seeknal.workflow.moments`). One that was planned and never applied has none of its own yet and shows production's.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from seeknal.dag.names import PRODUCTION, did_you_mean, nodes_named
from seeknal.errors import NotFoundError, SeeknalError
from seeknal.store.objects import Artifact, TreeEntry
from seeknal.store.store import Store
from seeknal.workflow.moments import find_moment, nothing_yet, split_moment, unknown_environment


@dataclass(frozen=True)
class Outputs:
    """The stored outputs that an environment shows. ``shown`` is the environment they belong to.

    ``snapshot`` is the digest of the state that they are; ``moment`` says which was asked for, empty for the current.
    """

    store: Store
    environment: str
    shown: str
    nodes: dict[str, TreeEntry]
    snapshot: str = ""
    moment: str = ""

    @property
    def label(self) -> str:
        """What to call what is shown: the environment, with the moment where it is not the current one."""
        return f"{self.shown}@{self.moment}" if self.moment else self.shown

    @cached_property
    def tables(self) -> dict[str, Artifact]:
        """The outputs that have rows, by node id."""
        return {node_id: entry.artifact for node_id, entry in self.nodes.items() if entry.artifact.parts}

    def find(self, name: str) -> str:
        """The id of the node that an id, a bare name or ``kinds/name`` means.

        Raises NotFoundError where there is no output of it, SeeknalError where several nodes are meant.
        """
        folder, slash, bare = name.lower().rpartition("/")
        wanted = f"{folder.removesuffix('s')}.{bare}" if slash else name.lower()
        found = nodes_named(wanted, self.nodes)
        if len(found) == 1:
            return found[0]
        if found:
            raise SeeknalError(f"'{name}' may mean {' or '.join(found)}", hint="write kind.name")
        hint = did_you_mean(name, self.nodes) or "`seeknal inspect` lists all there are"
        raise NotFoundError(f"environment '{self.label}' has no output of '{name}'", hint=hint)


def read_outputs(store: Store, environment: str = PRODUCTION) -> Outputs:
    """Read which outputs an environment shows, at an earlier moment where the name has one: ``prod@3``.

    Raises NameNotAllowedError, UsageError for what is no moment, NotFoundError where there is no such environment or
    moment or nothing was run yet, StoreError.
    """
    name, moment = split_moment(environment)
    if moment:
        found = find_moment(store, name, moment)
        return Outputs(store, name, name, store.read_tree(found.snapshot.tree).nodes, found.digest, moment)
    state, shown = store.read_state(name), name
    if state is None and name != PRODUCTION:
        if store.read_environment(name) is None:
            raise unknown_environment(store, name)
        state, shown = store.read_state(PRODUCTION), PRODUCTION
    if state is None:
        raise nothing_yet(name)
    digest, head = state
    return Outputs(store, name, shown, store.read_tree(head.tree).nodes, digest)
