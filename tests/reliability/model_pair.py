"""The real project and its model side by side: commands are called on the one, and compared with the other.

What is looked at after every command: refs, records of environments, all objects of the store, the tables of every
state, people's links, deliveries, rejected outputs, histories, and that the store verifies.
"""

from __future__ import annotations

import os
import shlex
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from hypothesis import note

import seeknal.dag.project
from seeknal.store.inventory import ACTION, BLOB, SNAPSHOT, stored
from seeknal.store.objects import Blob
from seeknal.workflow.checkup import check_store
from seeknal.workflow.worker import close_workbenches
from tests.acceptance.project import Answer
from tests.acceptance.project import Project as RealProject
from tests.reliability.model_edits import first_project
from tests.reliability.model_project import Exposure, Project, Rule
from tests.reliability.model_queries import Table
from tests.reliability.model_world import ENVIRONMENTS, PRODUCTION, Artifact, Forecast, Key, State, World


class Pair:
    """A project and its model, and what connects the two: model key ↔ fingerprint, table ↔ digest."""

    def __init__(self, folder: Path, calls: Counter[str]) -> None:
        self.real = RealProject(folder, keep_connections=True)
        self.world = World()
        self.project: Project = first_project()
        self.fingerprints: dict[Key, str] = {}
        self.keys: dict[str, Key] = {}
        self.digests: dict[Table, str] = {}
        self.tables: dict[str, Table] = {}
        self._calls = calls
        self._looked_at: set[str] = set()
        self._written: dict[str, str] = {}
        self.real.write("seeknal_project.yml", "name: shop\n")
        self.write()
        self.store = seeknal.dag.project.Project.open(folder).store()

    def close(self) -> None:
        close_workbenches()
        shutil.rmtree(self.real.root)

    def write(self) -> None:
        files = self.project.files()
        for path in sorted(self._written.keys() - files.keys()):
            note(f"rm {path}")
            (self.real.root / path).unlink()
        for path, text in files.items():
            if self._written.get(path) != text:
                note(f"cat > {path} <<'EOF'\n{text}EOF")
                self.real.write(path, text)
        self._written = files

    def call(self, *arguments: str, code: int) -> Answer:
        note(f"seeknal {shlex.join(arguments)}")
        answer = self.real.seeknal(*arguments)
        if arguments[:2] != ("env", "history"):
            # That one is called after each of the others, to compare.
            self._calls[" ".join(arguments[:2]) if arguments[0] == "env" else arguments[0]] += 1
        assert answer.code == code, f"seeknal {' '.join(arguments)}: exit {answer.code}, not {code}\n{answer.text}"
        return answer

    def names(self, kind: str) -> set[str]:
        return {entry.name for entry in stored(self.store, kind)}

    def look(self, environment: str) -> None:
        """Compare everything that can be seen with the model."""
        world, store = self.world, self.store
        assert {name: store.refs.read(name) for name in store.refs.names()} == world.heads
        assert self.names(SNAPSHOT) == world.states.keys()
        assert self.names(ACTION) == {self.fingerprints[key] for key in world.actions}
        assert {Path(name).stem for name in self.names(BLOB)} == world.blobs.keys()
        assert set(store.environment_names()) == world.records.keys()
        for name, record in world.records.items():
            real = store.read_environment(name)
            assert real is not None
            assert real.plan is not None
            assert (real.status, real.plan.base) == (record.status, record.plan.base), name
        for name in world.heads:
            self.compare_state(name)
            self.compare_links(name)
        for name in [PRODUCTION, *ENVIRONMENTS]:
            rejected = {
                node_id: {blob.digest for _, table in node.tables for blob in table.blobs()}
                for node_id, node in store.read_failed(name).nodes.items()
            }
            assert rejected == world.rejected.get(name, {}), name
            for path, text in world.delivered.get(name, {}).items():
                folder = self.real.root if name == PRODUCTION else self.real.root / f"target/environments/{name}/output"
                assert (folder / path).read_text() == text
        self.compare_history(environment)
        if store.root.is_dir():
            found = check_store(seeknal.dag.project.Project.open(self.real.root))
            assert [finding for finding in found.findings if not finding.is_note] == []

    def compare_state(self, environment: str) -> None:
        digest, state = self.world.heads[environment], self.world.head(environment)
        assert state is not None
        if digest in self._looked_at:
            return
        self._looked_at.add(digest)
        snapshot = self.store.read_snapshot(digest)
        for field in ("environment", "parent", "reason", "base", "promoted_from", "restores"):
            assert getattr(snapshot, field) == getattr(state, field), field
        real = self.store.read_tree(snapshot.tree).nodes
        assert {
            name: (entry.fingerprint, entry.stale, entry.artifact.run_id, entry.artifact.row_count)
            for name, entry in real.items()
        } == {
            name: (self.fingerprints[entry.key], entry.stale, entry.artifact.run_id, entry.artifact.rows)
            for name, entry in state.tree.items()
        }
        for name, entry in state.tree.items():
            assert [blob.digest for blob in real[name].artifact.blobs()] == [blob for blob, _ in entry.artifact.blobs]
            if entry.artifact.table is not None:
                table = self.tables[entry.artifact.blobs[0][0]]
                assert (table.columns, table.rows) == (entry.artifact.table.columns, entry.artifact.table.rows)

    def compare_links(self, environment: str) -> None:
        """The files that people open are the tables of the state where the environment stands, and no others."""
        target = self.real.root / "target"
        folder = (target if environment == PRODUCTION else target / "environments" / environment) / "cache"
        state = self.world.head(environment)
        assert state is not None
        shown = {
            f"{path.parent.name}.{path.stem}": os.path.realpath(path).rpartition("/blobs/")[2]
            for path in folder.glob("*/*.parquet")
        }
        assert {name: path.replace("/", "").removesuffix(".parquet") for name, path in shown.items()} == {
            name: entry.artifact.blobs[0][0] for name, entry in state.tree.items() if entry.artifact.table is not None
        }

    def compare_history(self, environment: str) -> None:
        world = self.world
        history = world.history(environment)
        answer = self.call("env", "history", environment, "--limit", "500", "--json", code=0 if history else 1)
        if not history:
            return
        entries = answer.document["history"]
        assert [entry["snapshot"] for entry in entries] == history
        for entry in entries:
            state = world.states[entry["snapshot"]]
            assert (entry["reason"], entry["pinned"]) == (state.reason, entry["snapshot"] in world.pins)
            assert (entry["promoted_from"], entry["restores"]) == (state.promoted_from, state.restores)
            if state.parent is not None and state.parent not in world.states:
                assert entry["changed_nodes"] is None
            else:
                before = world.states[state.parent].tree if state.parent else {}
                assert sorted(entry["changed_nodes"]) == changed(before, state.tree)

    def compare_forecast(self, environment: str, entries: list[dict[str, Any]], problem: str | None) -> None:
        """What a plan calls CACHED is found, what will be built is RUN or MAY RUN, and what is checked CHECK."""
        said = {entry["node_id"]: entry["action"] for entry in entries}
        if problem is not None:
            assert said == {}
            return
        for node_id, forecast in self.world.forecast(environment, self.project).items():
            if not forecast.certain or forecast.action == "blocked":
                continue
            if forecast.action == "built":
                assert said[node_id] in ("RUN", "MAY RUN"), (node_id, said)
            elif said[node_id] == "CACHED":
                assert (forecast.action, forecast.checked) == ("found", False), (node_id, forecast)
            elif said[node_id] == "CHECK":
                assert forecast.checked, (node_id, forecast)

    def settle(
        self, forecast: dict[str, Forecast], document: dict[str, Any], again: Callable[[], dict[str, Forecast]]
    ) -> dict[str, Forecast]:
        """The forecast, once it is known how tables without rows came out."""
        import pyarrow.parquet

        blobs = {node["node_id"]: node["artifact"] for node in document["nodes"] if node["status"] == "success"}
        while unknown := [
            (node_id, entry.key)
            for node_id, entry in forecast.items()
            if not entry.rows and entry.table and node_id in blobs and entry.key not in self.world.nullable
        ]:
            node_id, key = unknown[0]
            schema = pyarrow.parquet.ParquetFile(self.store.blob_path(Blob(blobs[node_id], 0))).schema
            columns = [schema.column(number) for number in range(len(schema))]
            self.world.nullable[key] = frozenset(column.name for column in columns if column.max_definition_level)
            forecast = again()
        return forecast

    def compare_run(
        self, document: dict[str, Any], forecast: dict[str, Forecast], *, stops: bool
    ) -> dict[str, Artifact]:
        """Compare what became of each node with what had to; gives the artifacts of what was built.

        A run that ``stops`` at a failure leaves open which of the other nodes came before.
        """
        world = self.world
        said = {node["node_id"]: node["status"] for node in document["nodes"]}
        expected = {node_id: entry.status for node_id, entry in forecast.items()}
        if stops:
            assert "failed" in said.values()
            assert {node_id: status for node_id, status in said.items() if status != "skipped"}.items() <= (
                expected.items()
            ), (said, expected)
            assert said.keys() == expected.keys()
        else:
            assert said == expected
        executed = [node_id for node_id, status in said.items() if status in ("success", "failed")]
        if executed:
            world.runs.add(document["run_id"])
        for fingerprint in self.names(ACTION) - self.keys.keys():
            # One that was never seen: it is of what was built just now, and of a key that was never seen either.
            node_id = self.store.read_action(fingerprint).node_id
            key = forecast[node_id].key
            assert said[node_id] in ("success", "failed")
            assert key not in self.fingerprints, f"{node_id} has another fingerprint than it had for the same inputs"
            self.fingerprints[key], self.keys[fingerprint] = fingerprint, key
        made: dict[str, Artifact] = {}
        for node in document["nodes"]:
            node_id, entry = node["node_id"], forecast[node["node_id"]]
            status = said[node_id]
            if status in ("success", "cached"):
                assert node["fingerprint"] == self.fingerprints[entry.key]
                assert node["row_count"] == entry.rows
            rejected = status == "failed" and not isinstance(self.project.nodes[node_id], Rule)
            if entry.action == "built" and (status == "success" or rejected):
                made[node_id] = self.learn(node_id, entry, document["run_id"])
            if entry.checked and status in ("success", "cached"):
                world.passed.add((self.project.nodes[node_id].audit.said(), entry.table))  # type: ignore[union-attr]
        return made

    def learn(self, node_id: str, entry: Forecast, run_id: str) -> Artifact:
        """Take what was built into the model: it must hold the model's rows, and be named by them."""
        real = self.store.read_action(self.fingerprints[entry.key]).artifact
        assert real.run_id == run_id, f"{node_id} was not built by this run"
        assert real.row_count == entry.rows
        blobs = tuple((blob.digest, blob.size_bytes) for blob in real.blobs())
        if entry.table is not None:
            assert [column.name for column in real.columns] == list(entry.table.columns)
            (digest, _), *more = blobs
            assert not more
            assert self.digests.setdefault(entry.table, digest) == digest, f"{node_id}: the same table, other bytes"
            if digest not in self.tables:
                self.tables[digest] = self.read(self.store.blob_path(real.parts[0]))
            assert self.tables[digest] == replace(entry.table, nullable=frozenset()), node_id
        artifact = Artifact(entry.table, entry.rows, blobs, run_id)
        self.world.actions[entry.key] = artifact
        self.world.blobs |= dict(blobs)
        return artifact

    @staticmethod
    def read(path: Path) -> Table:
        import pyarrow.parquet

        table = pyarrow.parquet.read_table(path)
        rows = zip(*(column.to_pylist() for column in table.columns), strict=True)
        return Table(tuple(table.column_names), tuple(rows))

    def remember_rejected(
        self, environment: str, document: dict[str, Any], forecast: dict[str, Forecast], made: dict[str, Artifact]
    ) -> None:
        """What checks rejected in this run can be looked at; what passed since is forgotten."""
        said = {node["node_id"]: node["status"] for node in document["nodes"]}
        before = self.world.rejected.get(environment, {})
        kept = {name: blobs for name, blobs in before.items() if said.get(name, "success") in ("failed", "skipped")}
        for node_id, status in said.items():
            if status == "failed":
                node = self.project.nodes[node_id]
                looked_at = node.inputs() if isinstance(node, Rule) else (node_id,)
                found = [made.get(name) or forecast[name].known for name in looked_at]
                kept[node_id] = {blob for artifact in found if artifact for blob, _ in artifact.blobs}
        self.world.rejected[environment] = kept

    def moved(self, environment: str, digest: str, state: State) -> None:
        """An environment moved to a state that was never there before."""
        assert digest not in self.world.states
        real = self.store.read_snapshot(digest)
        self.world.states[digest] = replace(state, created_at=real.created_at)
        self.world.heads[environment] = digest

    def deliver(self, environment: str, project: Any, published: set[str], tree: Any) -> None:
        for node_id, node in project.nodes.items():
            if isinstance(node, Exposure) and node_id in published and node_id in tree:
                table = tree[node.source].artifact.table
                self.world.delivered.setdefault(environment, {})[f"output/{node_id[9:]}.csv"] = table.csv()


def changed(before: Any, after: Any) -> list[str]:
    names = {*before, *after}
    return sorted(
        name
        for name in names
        if name not in before or name not in after or before[name].artifact.content() != after[name].artifact.content()
    )


def project_of(state: State) -> Any:
    return replace(first_project(), nodes=dict(state.manifest), data={})
