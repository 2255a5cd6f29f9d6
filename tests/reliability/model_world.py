"""Environments, history and the cache as dictionaries, for the model test.

- *artifact*: what a run of a node gave: its table, the digests of its blobs, and the run that made it.
- *action*: key → artifact, what every environment may use again.
- *state*: what an environment stands at: its tree, its manifest, its parent.

Digests are not predicted but learned, from the first artifact of a kind; from then on the same content must have the
same digest, and other content another one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from tests.reliability.model_project import DoesNotBind, DoesNotLink, Project, Transform
from tests.reliability.model_queries import Table

PRODUCTION = "prod"
ENVIRONMENTS = ["dev", "stage", "hot"]

Key = tuple[Any, ...]
Manifest = frozenset[Any]


@dataclass(frozen=True)
class Artifact:
    """``table`` is None for a rule. ``blobs`` are (digest, bytes)."""

    table: Table | None
    rows: int
    blobs: tuple[tuple[str, int], ...]
    run_id: str

    def content(self) -> tuple[object, ...]:
        return self.table, self.rows, self.blobs


@dataclass(frozen=True)
class Entry:
    """A node in a tree. ``stale``: it could not be built anew, and is as it was."""

    key: Key
    artifact: Artifact
    stale: bool = False


Tree = dict[str, Entry]


@dataclass(frozen=True)
class State:
    """A state of an environment. ``parent``: where it stood before; ``base``: production when it was planned."""

    environment: str
    manifest: Manifest
    tree: Tree
    parent: str | None
    reason: str
    base: str | None = None
    promoted_from: str | None = None
    restores: str | None = None
    created_at: float = 0.0


@dataclass(frozen=True)
class Plan:
    manifest: Manifest
    base: str | None
    project: Project


@dataclass(frozen=True)
class Record:
    """What is known of an environment beside where it stands."""

    status: str
    plan: Plan


@dataclass(frozen=True)
class Forecast:
    """What will become of a node: ``found`` in the cache, ``built``, or ``blocked`` by an input that fails.

    ``checked``: its audit is evaluated; ``passes``: no check of it fails. ``known`` is the artifact that was found.
    ``certain``: it rests on no table without rows that was never built.
    """

    action: str
    key: Key = ()
    table: Table | None = None
    rows: int = 0
    checked: bool = False
    passes: bool = True
    known: Artifact | None = None
    certain: bool = True

    @property
    def status(self) -> str:
        if self.action == "blocked":
            return "skipped"
        return "failed" if not self.passes else "cached" if self.action == "found" else "success"


@dataclass
class World:
    """All that the store must remember, and nothing that it need not."""

    actions: dict[Key, Artifact] = field(default_factory=dict)
    passed: set[tuple[Any, ...]] = field(default_factory=set)
    states: dict[str, State] = field(default_factory=dict)
    heads: dict[str, str] = field(default_factory=dict)
    records: dict[str, Record] = field(default_factory=dict)
    pins: dict[str, str] = field(default_factory=dict)
    rejected: dict[str, dict[str, set[str]]] = field(default_factory=dict)
    blobs: dict[str, int] = field(default_factory=dict)
    runs: set[str] = field(default_factory=set)
    backend: str = "file"
    delivered: dict[str, dict[str, str]] = field(default_factory=dict)
    # Of tables without rows it depends on DuckDB's statistics what it says of NULLs; learned when they are built.
    nullable: dict[Key, frozenset[str]] = field(default_factory=dict)

    # what stands where

    def head(self, environment: str) -> State | None:
        return self.states[self.heads[environment]] if environment in self.heads else None

    def history(self, environment: str) -> list[str]:
        """The digests of an environment's states, newest first, as far back as they are kept."""
        found: list[str] = []
        digest: str | None = self.heads.get(environment)
        while digest is not None and digest in self.states:
            found.append(digest)
            digest = self.states[digest].parent
        return found

    def base_tree(self, environment: str) -> Tree:
        """What a run compares with: production's outputs, and over them the environment's own."""
        production, own = self.head(PRODUCTION), self.head(environment)
        return (
            {**(production.tree if production else {}), **(own.tree if own else {})}
            if (environment != PRODUCTION)
            else dict(own.tree if own else {})
        )

    def base_manifest(self, environment: str) -> Manifest | None:
        state = self.head(environment) or self.head(PRODUCTION)
        return state.manifest if state else None

    # running

    def problem(self, project: Project) -> str | None:
        """``link``: the project cannot be read; ``bind``: it can, but not run; None: it can."""
        try:
            project.schemas()
        except DoesNotLink:
            return "link"
        except DoesNotBind:
            return "bind"
        return None

    def forecast(self, environment: str, project: Project, *, full: bool = False) -> dict[str, Forecast]:
        """What a run that goes on after failures does with each node, in order."""
        base = self.base_tree(environment)
        tables: dict[str, Table] = {}
        found: dict[str, Forecast] = {}
        for node_id in project.order():
            node = project.nodes[node_id]
            if any(found[name].status in ("failed", "skipped") for name in node.inputs()):
                found[node_id] = Forecast("blocked")
                continue
            key = project.key(node_id, tables)
            table = project.table(node_id, tables)
            certain = all(found[name].certain for name in node.inputs())
            if table is not None and not table.rows:
                certain = certain and key in self.nullable
                table = replace(table, nullable=self.nullable.get(key, frozenset()))
            rows = len(table.rows if table else tables[node.inputs()[0]].rows)
            entry = base.get(node_id)
            known = None
            if not full:
                known = entry.artifact if entry is not None and entry.key == key else self.actions.get(key)
            forecast = Forecast("found" if known else "built", key, table, rows, known=known, certain=certain)
            if isinstance(node, Transform) and node.audit is not None:
                assert table is not None
                remembered = known is not None and (node.audit.said(), table) in self.passed
                forecast = replace(forecast, checked=not remembered, passes=remembered or node.audit.passes(table))
            elif node_id.startswith("rule.") and known is None:
                forecast = replace(forecast, passes=node.check.passes(tables[node.source]))  # type: ignore[union-attr]
            if table is not None:
                tables[node_id] = table
            found[node_id] = forecast
        return found

    def tree_after(
        self, environment: str, forecast: Mapping[str, Forecast], made: Mapping[str, Artifact], run_id: str
    ) -> Tree:
        """The tree of a run that succeeded, or went on after failures. ``made``: the artifacts of what was built."""
        base, tree = self.base_tree(environment), Tree()
        for node_id, entry in forecast.items():
            before = base.get(node_id)
            if entry.status in ("success", "cached"):
                artifact = entry.known or made[node_id]
                if entry.known is None and before is not None and before.artifact.content() == artifact.content():
                    artifact = before.artifact
                tree[node_id] = Entry(entry.key, artifact)
            elif before is not None:
                tree[node_id] = replace(before, stale=True)
        return tree

    def manifest_after(self, environment: str, project: Project, forecast: Mapping[str, Forecast]) -> Manifest:
        """The manifest of that tree: what was not built stands in it as it was built before."""
        before = dict(self.base_manifest(environment) or ())
        base = self.base_tree(environment)
        said: dict[str, Any] = {}
        for node_id, entry in forecast.items():
            if entry.status in ("success", "cached"):
                said[node_id] = project.nodes[node_id]
            elif node_id in base and node_id in before:
                said[node_id] = before[node_id]
        return frozenset(said.items())

    def would_succeed(self, environment: str, project: Project) -> bool:
        return self.problem(project) is None and all(
            entry.status in ("success", "cached") for entry in self.forecast(environment, project).values()
        )

    # garbage

    def needed(self, states: Iterable[str]) -> tuple[set[Key], set[str]]:
        """The actions and the blobs that states need."""
        keys: set[Key] = set()
        blobs: set[str] = set()
        for digest in states:
            for entry in self.states[digest].tree.values():
                keys.add(entry.key)
                blobs |= {blob for blob, _ in entry.artifact.blobs}
        return keys, blobs | self.blobs_of(keys)

    def blobs_of(self, keys: Iterable[Key]) -> set[str]:
        return {blob for key in keys if key in self.actions for blob, _ in self.actions[key].blobs}

    def blobs_of_environment(self, environment: str) -> set[str]:
        """What an environment needs with its history, and what can be looked at because checks rejected it."""
        rejected = self.rejected.get(environment, {}).values()
        return self.needed(self.history(environment))[1].union(*rejected)

    def kept_states(self, keep_last: int, keeps_days: bool) -> set[str]:
        kept = set(self.pins)
        for environment in self.heads:
            history = self.history(environment)
            kept |= set(history if keeps_days else history[: max(keep_last, 1)])
        return kept

    def collect(self, keep_last: int, keeps_days: bool, *, grace: bool) -> int:
        """Take away what garbage collection must take; gives the bytes of blobs. ``grace``: the young may stay."""
        states = self.kept_states(keep_last, keeps_days)
        keys, blobs = self.needed(states)
        for nodes in self.rejected.values():
            blobs = blobs.union(*nodes.values())
        if grace:
            # What no state held is too young to go; what only former states held goes with them.
            held_keys, held_blobs = self.needed(self.states)
            young = set(self.actions) - held_keys
            keys |= young
            blobs |= self.blobs_of(young) | (set(self.blobs) - held_blobs)
        gone = sum(size for blob, size in self.blobs.items() if blob not in blobs)
        self.states = {digest: state for digest, state in self.states.items() if digest in states}
        self.actions = {key: artifact for key, artifact in self.actions.items() if key in keys}
        self.blobs = {blob: size for blob, size in self.blobs.items() if blob in blobs}
        return gone

    def usage(self) -> dict[str, int]:
        """The bytes that each environment needs alone."""
        environments = [*self.heads, *(name for name, nodes in self.rejected.items() if nodes)]
        needs = {environment: self.blobs_of_environment(environment) for environment in environments}
        pinned = self.needed(self.pins)[1]
        alone = {}
        for environment, blobs in needs.items():
            others = pinned.union(*(found for name, found in needs.items() if name != environment))
            alone[environment] = sum(self.blobs[blob] for blob in blobs - others)
        return alone
