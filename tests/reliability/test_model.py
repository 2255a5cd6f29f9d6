"""Any sequence of commands against a dictionary: after each, everything that can be seen is what the model says.

The machine edits a project's files and calls the real commands; `model_world.py` predicts in plain Python which nodes
execute, what each environment then holds, which commands are refused and with which code, and what garbage collection
takes. What is looked at after every command: refs, records of environments, all objects of the store, the tables of
every state, people's links, deliveries, rejected outputs, and that the store verifies.
"""

from __future__ import annotations

import os
import shlex
import shutil
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, note, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

import seeknal.dag.project
from seeknal.store.inventory import ACTION, BLOB, SNAPSHOT, stored
from seeknal.store.objects import Blob
from seeknal.workflow.checkup import check_store
from seeknal.workflow.worker import close_workbenches
from tests.acceptance.project import Answer, Project
from tests.reliability.model_edits import edits, first_project
from tests.reliability.model_project import Exposure, Rule, Table
from tests.reliability.model_world import PRODUCTION, Artifact, Forecast, Key, Plan, Record, State, World

ENVIRONMENTS = ["dev", "stage", "hot"]
SEED_VARIABLE = "SEEKNAL_MODEL_SEED"
SEED = int(os.environ.get(SEED_VARIABLE, "1"))

seldom = st.integers(0, 9).map(lambda number: number == 9)

# What may happen, the more often the oftener it is named.
STEPS = (
    "edit", "undo", "plan", "plan_production", "run", "run", "edit_and_run", "edit_and_run", "edit_and_run", "apply",
    "try_out", "try_out", "try_out", "release", "release", "release", "promote", "promote", "rollback", "rollback",
    "pin", "unpin", "delete", "gc", "gc", "give_back", "query", "query_the_past", "query_pinned", "migrate",
)  # fmt: skip


class Pipelines(RuleBasedStateMachine):
    """A project, the model of it, and what connects the two: model key ↔ fingerprint, table ↔ digest."""

    def __init__(self, folder: Path, calls: Counter[str]) -> None:
        super().__init__()
        self.real = Project(folder, keep_connections=True)
        self.calls = calls
        self.world = World()
        self.project = first_project()
        self.past = [self.project]
        self.fingerprints: dict[Key, str] = {}
        self.keys: dict[str, Key] = {}
        self.digests: dict[Table, str] = {}
        self.tables: dict[str, Table] = {}
        self.looked_at: set[str] = set()
        self.steps = 0
        self.written: dict[str, str] = {}
        self.real.write("seeknal_project.yml", "name: shop\n")
        self.write()
        self.store = seeknal.dag.project.Project.open(folder).store()

    def teardown(self) -> None:
        close_workbenches()
        shutil.rmtree(self.real.root)

    @initialize(runs=st.integers(0, 4))
    def begin(self, runs: int) -> None:
        """Most often in production."""
        if runs:
            self.do_run(PRODUCTION)

    @rule(name=st.sampled_from(STEPS), data=st.data())
    def step(self, name: str, data: st.DataObject) -> None:
        self.steps += 1
        getattr(self, name)(data)

    # the files

    def write(self) -> None:
        files = self.project.files()
        for path in sorted(self.written.keys() - files.keys()):
            note(f"rm {path}")
            (self.real.root / path).unlink()
        for path, text in files.items():
            if self.written.get(path) != text:
                note(f"cat > {path} <<'EOF'\n{text}EOF")
                self.real.write(path, text)
        self.written = files

    def become(self, project: Any) -> None:
        if project != self.project:
            self.past.append(self.project)
            self.project = project
            self.write()

    def edit(self, data: st.DataObject) -> None:
        if not self.world.would_succeed(PRODUCTION, self.project) and data.draw(st.booleans()):
            return self.repair()
        project = data.draw(edits(self.project))[1]
        if project != self.project:
            self.past.append(self.project)
            self.project = project
            self.write()
        return None

    def undo(self, data: st.DataObject) -> None:
        """Give the files a content that they had before."""
        for _ in range(data.draw(st.integers(1, len(self.past)))):
            self.project = self.past.pop()
        self.past = self.past or [self.project]
        self.write()

    def repair(self) -> None:
        """Undo until the project runs."""
        while self.past and not self.world.would_succeed(PRODUCTION, self.project):
            self.project = self.past.pop()
        self.past = self.past or [self.project]
        self.write()

    # planning

    def plan(self, data: st.DataObject) -> None:
        self.do_plan(data.draw(st.sampled_from(ENVIRONMENTS)))

    def do_plan(self, environment: str) -> None:
        problem = self.world.problem(self.project)
        answer = self.call("plan", environment, "--json", code=1 if problem == "link" else 0)
        if problem != "link":
            self.replan(environment)
            self.compare_forecast(environment, answer.document["forecast"], problem)
        self.look(environment)

    def replan(self, environment: str) -> None:
        plan = Plan(self.project.said(), self.world.heads.get(PRODUCTION), self.project)
        self.world.records[environment] = Record("planned", plan)

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

    def plan_production(self, data: st.DataObject) -> None:
        """Its exit code tells whether a run would change anything."""
        problem = self.world.problem(self.project)
        code = 1 if problem else 3 if self.would_change() else 0
        self.call("plan", "--detailed-exitcode", code=code)
        self.look(PRODUCTION)

    def would_change(self) -> bool:
        head = self.world.head(PRODUCTION)
        if head is None or head.manifest != self.project.said():
            return True
        tree = {node_id: (entry.key, entry.stale) for node_id, entry in head.tree.items()}
        forecast = self.world.forecast(PRODUCTION, self.project)
        return {node_id: (entry.key, False) for node_id, entry in forecast.items()} != tree

    # running

    def run(self, data: st.DataObject) -> None:
        self.do_run(PRODUCTION, **{option: data.draw(seldom) for option in ("full", "parallel", "keep_going")})

    def apply(self, data: st.DataObject) -> None:
        options = {option: data.draw(seldom) for option in ("force", "parallel", "keep_going", "env_apply")}
        self.do_run(self.other_environment(data), **options)

    def try_out(self, data: st.DataObject) -> str:
        """An edit, planned and run in an environment."""
        environment = data.draw(st.sampled_from(ENVIRONMENTS))
        self.edit(data)
        self.do_plan(environment)
        self.do_run(environment)
        return environment

    def release(self, data: st.DataObject) -> None:
        """An edit, tried and promoted."""
        environment = self.try_out(data)
        self.do_promote(environment, data.draw(st.sampled_from([PRODUCTION, "stage"])), force=False)

    def edit_and_run(self, data: st.DataObject) -> None:
        self.edit(data)
        self.do_run(PRODUCTION)

    def do_run(
        self,
        environment: str,
        *,
        force: bool = False,
        full: bool = False,
        parallel: bool = False,
        keep_going: bool = False,
        env_apply: bool = False,
    ) -> None:
        world, project = self.world, self.project
        command = ["run"] if environment == PRODUCTION else ["env", "apply", environment]
        if environment != PRODUCTION and not env_apply:
            command = ["run", "--env", environment]
        options = {"--force": force, "--full": full, "--parallel": parallel, "--continue-on-error": keep_going}
        command += ["--json", *(option for option, given in options.items() if given)]
        problem = world.problem(project)
        base: str | None = None
        if environment != PRODUCTION:
            if environment not in world.records or problem == "link":
                self.call(*command, code=1)
                return self.look(environment)
            if world.records[environment].plan.manifest != project.said():
                if not force:
                    self.call(*command, code=4)
                    return self.look(environment)
                self.replan(environment)
            base = world.records[environment].plan.base
        if problem is not None:
            self.call(*command, code=1)
            return self.look(environment)
        forecast = world.forecast(environment, project, full=full)
        fails = any(entry.status == "failed" for entry in forecast.values())
        answer = self.call(*command, code=1 if fails else 0)
        document = answer.document
        forecast = self.settle(forecast, document, lambda: world.forecast(environment, project, full=full))
        made = self.compare_run(document, forecast, stops=fails and not keep_going)
        self.remember_rejected(environment, document, forecast, made)
        if environment != PRODUCTION:
            record = world.records[environment]
            world.records[environment] = replace(record, status="failed" if fails else "applied")
        if fails and not keep_going:
            assert document["snapshot"] == world.heads.get(environment)
            return self.look(environment)
        tree = world.tree_after(environment, forecast, made, document["run_id"])
        manifest = world.manifest_after(environment, project, forecast)
        head = world.head(environment)
        same_base = head is not None and (base is None or head.base == base)
        if head is not None and same_base and (head.tree, head.manifest) == (tree, manifest):
            assert document["snapshot"] == world.heads[environment]
        else:
            parent = world.heads.get(environment)
            state = State(environment, manifest, tree, parent, "run", base)
            self.moved(environment, document["snapshot"], state)
        published = {name for name, entry in forecast.items() if entry.status in ("success", "cached")}
        self.deliver(environment, project, published, tree)
        return self.look(environment)

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

    # promoting, going back

    def promote(self, data: st.DataObject) -> None:
        into = data.draw(st.sampled_from([PRODUCTION, PRODUCTION, *ENVIRONMENTS]))
        self.do_promote(self.other_environment(data), into, force=data.draw(seldom))

    def do_promote(self, environment: str, target: str, *, force: bool) -> None:
        world = self.world
        command = ["promote", environment, *([target] if target != PRODUCTION else []), "--json"]
        refusal = self.refusal(environment, target, force)
        answer = self.call(*command, *(["--force"] if force else []), code=refusal)
        if refusal == 0:
            digest, source = world.heads[environment], world.head(environment)
            assert source is not None
            state = replace(
                source,
                environment=target,
                parent=world.heads.get(target),
                reason=f"promoted from {environment}",
                promoted_from=digest,
                restores=None,
            )
            before = world.head(target)
            changed = self.changed(before.tree if before else {}, source.tree)
            assert sorted(answer.document["changed_nodes"]) == changed
            self.moved(target, answer.document["snapshot"], state)
            record = world.records[environment]
            if target == PRODUCTION:
                plan = replace(record.plan, base=world.heads[target])
                world.records[environment] = Record("promoted", plan)
            else:
                world.records[target] = Record("applied", record.plan)
            world.rejected[target] = {}
            self.deliver(target, self.project_of(source), set(source.tree), source.tree)
        self.look(target)

    def refusal(self, environment: str, target: str, force: bool) -> int:
        """The exit code that a promotion must have."""
        world = self.world
        if environment == PRODUCTION:
            return 5
        record, state = world.records.get(environment), world.head(environment)
        if record is None or environment == target or record.status in ("failed", "planned") or state is None:
            return 1
        now = world.head(target)
        same = now is not None and (now.tree, now.manifest) == (state.tree, state.manifest)
        if target == PRODUCTION and world.heads.get(target) != state.base and not force and not same:
            return 4
        whole = all(node_id in state.tree for node_id, _ in state.manifest)
        stale = any(entry.stale for entry in state.tree.values())
        return 0 if whole and not stale and state.manifest == record.plan.manifest else 1

    @staticmethod
    def project_of(state: State) -> Any:
        return replace(first_project(), nodes=dict(state.manifest), data={})

    @staticmethod
    def changed(before: Any, after: Any) -> list[str]:
        names = {*before, *after}
        return sorted(
            name
            for name in names
            if name not in before
            or name not in after
            or before[name].artifact.content() != after[name].artifact.content()
        )

    def rollback(self, data: st.DataObject) -> None:
        world, how = self.world, data.draw(st.sampled_from(["steps", "snapshot", "at", "name"]))
        environment, back = self.some_moment(data)
        history = world.history(environment)
        back = max(back, 1) if how == "steps" else back
        if back < len(history):
            target: str | None = history[back]
        else:
            target = None
        moment = target or "abcdef0123"
        if how == "steps":
            command = ["rollback", environment, "--steps", str(back)]
        elif how == "snapshot":
            command = ["rollback", environment, moment[:12]]
        elif how == "name":
            command = ["rollback", f"{environment}@{back}"]
        else:
            # The time at which the state began, or one before all of them.
            at = world.states[target].created_at if target else 86400.0
            command = ["rollback", environment, "--at", datetime.fromtimestamp(at, UTC).isoformat()]
        state = world.states[target] if target else None
        answer = self.call(*command, "--json", code=0 if state else 1)
        if state is not None:
            head = world.head(environment)
            assert head is not None
            unchanged = (head.tree, head.manifest) == (state.tree, state.manifest)
            assert answer.document["status"] == ("unchanged" if unchanged else "success")
            assert sorted(answer.document["changed_nodes"]) == self.changed(head.tree, state.tree)
            if not unchanged:
                after = replace(
                    state,
                    parent=world.heads[environment],
                    reason=f"rolled back to {str(target)[:12]}",
                    base=None if environment == PRODUCTION else state.base,
                    promoted_from=None,
                    restores=target,
                )
                self.moved(environment, answer.document["snapshot"], after)
                fresh = {name for name, entry in state.tree.items() if not entry.stale}
                self.deliver(environment, self.project_of(state), fresh, state.tree)
        self.look(environment)

    # keeping and giving up

    def pin(self, data: st.DataObject) -> None:
        environment, back = self.some_moment(data)
        history = self.world.history(environment)
        found = back < len(history)
        self.call("env", "pin", environment, str(back), code=0 if found else 1)
        if found:
            self.world.pins[history[back]] = environment
        self.look(environment)

    def unpin(self, data: st.DataObject) -> None:
        environment = data.draw(st.sampled_from([*self.world.pins.values(), PRODUCTION]))
        pinned = [digest for digest, name in self.world.pins.items() if name == environment]
        self.call("env", "unpin", environment, code=0 if pinned else 1)
        for digest in pinned:
            del self.world.pins[digest]
        self.look(environment)

    def delete(self, data: st.DataObject) -> None:
        self.do_delete(self.some_environment(data))

    def do_delete(self, environment: str) -> None:
        world = self.world
        code = 5 if environment == PRODUCTION else 0 if environment in world.records else 1
        self.call("env", "delete", environment, code=code)
        if code == 0:
            for remembered in (world.records, world.heads, world.rejected, world.delivered):
                remembered.pop(environment, None)  # type: ignore[attr-defined]
            assert not (self.real.root / "target/environments" / environment).exists()
        self.look(environment)

    def gc(self, data: st.DataObject) -> None:
        kept = data.draw(
            st.sampled_from([(0, False), (1, False), (1, False), (2, False), (None, False), (None, True), (3, True)])
        )
        self.do_gc(*kept, grace=data.draw(st.booleans()))

    def do_gc(self, keep_last: int | None, keeps_days: bool, *, grace: bool) -> int:
        command = ["gc", "--json", *(["--keep-last", str(keep_last)] if keep_last is not None else [])]
        command += ["--keep-days", "1000"] if keeps_days else []
        command += [] if grace else ["--grace-hours", "0"]
        if not grace:
            # The clock of the disk moves by some milliseconds at a time.
            time.sleep(0.02)
        by_settings = keep_last is None and not keeps_days
        answer = self.call(*command, code=0)
        gone = self.world.collect(keep_last or 0, keeps_days or by_settings, grace=grace)
        assert answer.document["removed"]["bytes"] == gone
        assert answer.document["removed"]["spared"] == 0
        for environment in [PRODUCTION, *ENVIRONMENTS]:
            self.look(environment)
        return gone

    def give_back(self, data: st.DataObject) -> None:
        """Deleting an environment and collecting garbage gives back exactly what it alone needed."""
        environment = self.other_environment(data)
        self.do_gc(None, True, grace=False)
        used = {
            entry["name"]: entry["unique_bytes"]
            for entry in self.call("env", "du", "--json", code=0).document["environments"]
        }
        assert used == self.world.usage(), (used, self.world.usage())
        self.do_delete(environment)
        assert self.do_gc(None, True, grace=False) == used.get(environment, 0)

    # reading

    def query(self, data: st.DataObject) -> None:
        """What people read is what the model holds; an environment that was only planned shows production."""
        environment = self.some_environment(data)
        shown = self.world.head(environment)
        if shown is None and environment in self.world.records:
            shown = self.world.head(PRODUCTION)
        self.compare_query(environment, shown, data)

    def query_the_past(self, data: st.DataObject) -> None:
        environment, back = self.some_moment(data)
        history = self.world.history(environment)
        moments = [str(back), history[back][:10]] if back < len(history) else [str(back)]
        shown = self.world.states[history[back]] if back < len(history) else None
        where = f"{environment}@{data.draw(st.sampled_from(moments))}"
        self.compare_query(where, shown, data)

    def query_pinned(self, data: st.DataObject) -> None:
        """A pinned state can be read, also when its environment is gone."""
        if not self.world.pins:
            return self.pin(data)
        digest, environment = data.draw(st.sampled_from(sorted(self.world.pins.items())))
        return self.compare_query(f"{environment}@{digest[:12]}", self.world.states[digest], data)

    def compare_query(self, where: str, shown: State | None, data: st.DataObject) -> None:
        tables = sorted(n for n, e in shown.tree.items() if e.artifact.table) if shown else []
        node_id = data.draw(st.sampled_from(tables)) if tables else "transform.none"
        sql = f"SELECT * FROM {node_id}"
        answer = self.call("repl", "--env", where, "--format", "json", "--exec", sql, code=0 if tables else 1)
        if tables:
            assert shown is not None
            table = shown.tree[node_id].artifact.table
            assert table is not None
            assert answer.document == [dict(zip(table.columns, row, strict=True)) for row in table.rows]

    # records of runs

    def migrate(self, data: st.DataObject) -> None:
        world, backend = self.world, data.draw(st.sampled_from(["file", "database"]))
        code = 0 if world.runs else 1
        self.call("migrate-state", "--backend", backend, "--no-dry-run", code=code)
        if code == 0:
            world.backend = backend
            counts = self.call("migrate-state", "--backend", backend, "--summary", "--json", code=0).document
            assert counts["in_force"] == backend
            assert {name: found["runs"] for name, found in counts["backends"].items()} == {
                name: len(world.runs) if name == backend else 0 for name in ("file", "database")
            }
        self.look(PRODUCTION)

    # looking

    def some_environment(self, data: st.DataObject) -> str:
        """Production, or another that there is; seldom one that there is not."""
        return PRODUCTION if data.draw(st.booleans()) else self.other_environment(data)

    def other_environment(self, data: st.DataObject) -> str:
        return data.draw(
            st.sampled_from(ENVIRONMENTS if data.draw(seldom) else sorted(self.world.records) or ENVIRONMENTS)
        )

    def some_moment(self, data: st.DataObject) -> tuple[str, int]:
        """An environment and a number of moves back, now and then one too far."""
        environment = self.some_environment(data)
        return environment, data.draw(st.integers(0, len(self.world.history(environment))))

    def call(self, *arguments: str, code: int) -> Answer:
        note(f"seeknal {shlex.join(arguments)}")
        answer = self.real.seeknal(*arguments)
        if arguments[:2] != ("env", "history"):
            # That one is called after each of the others, to compare.
            self.calls[" ".join(arguments[:2]) if arguments[0] == "env" else arguments[0]] += 1
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
        if digest in self.looked_at:
            return
        self.looked_at.add(digest)
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
                assert sorted(entry["changed_nodes"]) == self.changed(before, state.tree)


@pytest.mark.parametrize("part", range(4))
def test_commands_in_any_order_do_what_a_dictionary_does(
    part: int, tmp_path: Path, torture: bool, tally: Callable[[str, int], None]
) -> None:
    calls: Counter[str] = Counter()
    numbers = count()
    chosen = SEED + part
    print(f"seed {chosen}; {SEED_VARIABLE}={chosen} makes it that of the first part")
    run_state_machine_as_test(
        seed(chosen)(lambda: Pipelines(tmp_path / str(next(numbers)), calls)),
        settings=settings(
            max_examples=40 if torture else 4,
            stateful_step_count=40 if torture else 15,
            database=None,
            deadline=None,
            print_blob=False,
            suppress_health_check=list(HealthCheck),
            phases=(Phase.generate, Phase.shrink),
        ),
    )
    print(dict(calls))
    tally("any command after any others, against a model", sum(calls.values()))
