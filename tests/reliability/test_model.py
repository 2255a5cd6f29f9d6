"""Any sequence of commands against a dictionary: after each, everything that can be seen is what the model says.

The machine edits a project's files and calls the real commands; `model_world.py` predicts in plain Python which nodes
execute, what each environment then holds, which commands are refused and with which code, and what garbage collection
takes; `model_pair.py` compares.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from itertools import count
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from tests.reliability.model_edits import edits
from tests.reliability.model_pair import Pair, changed, project_of
from tests.reliability.model_project import Project
from tests.reliability.model_world import ENVIRONMENTS, PRODUCTION, Plan, Record, State, World

SEED_VARIABLE = "SEEKNAL_MODEL_SEED"
SEED = int(os.environ.get(SEED_VARIABLE, "1"))

seldom = st.integers(0, 9).map(lambda number: number == 9)

# What may happen, the more often the oftener it is named.
STEPS = (
    "edit", "undo", "plan", "plan_production", "run", "run", "edit_and_run", "edit_and_run", "edit_and_run", "apply",
    "try_out", "try_out", "try_out", "release", "release", "release", "promote", "promote", "rollback", "rollback",
    "promote_the_past", "pin", "unpin", "delete", "gc", "gc", "give_back", "query", "query_the_past", "query_pinned",
    "migrate",
)  # fmt: skip


class Pipelines(RuleBasedStateMachine):
    """What may happen to a project. Methods named in ``STEPS`` draw what they need, and call the others."""

    def __init__(self, folder: Path, calls: Counter[str]) -> None:
        super().__init__()
        self.pair = Pair(folder, calls)
        self.past = [self.project]

    @property
    def project(self) -> Project:
        return self.pair.project

    @property
    def world(self) -> World:
        return self.pair.world

    def teardown(self) -> None:
        self.pair.close()

    @initialize(runs=st.integers(0, 4))
    def begin(self, runs: int) -> None:
        """Most often in production."""
        if runs:
            self.do_run(PRODUCTION)

    @rule(name=st.sampled_from(STEPS), data=st.data())
    def step(self, name: str, data: st.DataObject) -> None:
        getattr(self, name)(data)

    # the files

    def edit(self, data: st.DataObject) -> None:
        if not self.world.would_succeed(PRODUCTION, self.project) and data.draw(st.booleans()):
            return self.repair()
        project = data.draw(edits(self.project))[1]
        if project != self.project:
            self.past.append(self.project)
            self.pair.project = project
            self.pair.write()
        return None

    def undo(self, data: st.DataObject) -> None:
        """Give the files a content that they had before."""
        for _ in range(data.draw(st.integers(1, len(self.past)))):
            self.pair.project = self.past.pop()
        self.past = self.past or [self.project]
        self.pair.write()

    def repair(self) -> None:
        """Undo until the project runs."""
        while self.past and not self.world.would_succeed(PRODUCTION, self.project):
            self.pair.project = self.past.pop()
        self.past = self.past or [self.project]
        self.pair.write()

    # planning

    def plan(self, data: st.DataObject) -> None:
        self.do_plan(data.draw(st.sampled_from(ENVIRONMENTS)))

    def do_plan(self, environment: str) -> None:
        problem = self.world.problem(self.project)
        answer = self.pair.call("plan", environment, "--json", code=1 if problem == "link" else 0)
        if problem != "link":
            self.replan(environment)
            self.pair.compare_forecast(environment, answer.document["forecast"], problem)
        self.pair.look(environment)

    def replan(self, environment: str) -> None:
        plan = Plan(self.project.said(), self.world.heads.get(PRODUCTION), self.project)
        self.world.records[environment] = Record("planned", plan)

    def plan_production(self, data: st.DataObject) -> None:
        """Its exit code tells whether a run would change anything."""
        problem = self.world.problem(self.project)
        code = 1 if problem else 3 if self.would_change() else 0
        self.pair.call("plan", "--detailed-exitcode", code=code)
        self.pair.look(PRODUCTION)

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
                self.pair.call(*command, code=1)
                return self.pair.look(environment)
            if world.records[environment].plan.manifest != project.said():
                if not force:
                    self.pair.call(*command, code=4)
                    return self.pair.look(environment)
                self.replan(environment)
            base = world.records[environment].plan.base
        if problem is not None:
            self.pair.call(*command, code=1)
            return self.pair.look(environment)
        forecast = world.forecast(environment, project, full=full)
        fails = any(entry.status == "failed" for entry in forecast.values())
        answer = self.pair.call(*command, code=1 if fails else 0)
        document = answer.document
        forecast = self.pair.settle(forecast, document, lambda: world.forecast(environment, project, full=full))
        made = self.pair.compare_run(document, forecast, stops=fails and not keep_going)
        self.pair.remember_rejected(environment, document, forecast, made)
        if environment != PRODUCTION:
            record = world.records[environment]
            world.records[environment] = replace(record, status="failed" if fails else "applied")
        if fails and not keep_going:
            assert document["snapshot"] == world.heads.get(environment)
            return self.pair.look(environment)
        tree = world.tree_after(environment, forecast, made, document["run_id"])
        manifest = world.manifest_after(environment, project, forecast)
        head = world.head(environment)
        same_base = head is not None and (base is None or head.base == base)
        if head is not None and same_base and (head.tree, head.manifest) == (tree, manifest):
            assert document["snapshot"] == world.heads[environment]
        else:
            parent = world.heads.get(environment)
            state = State(environment, manifest, tree, parent, "run", base)
            self.pair.moved(environment, document["snapshot"], state)
        published = {name for name, entry in forecast.items() if entry.status in ("success", "cached")}
        self.pair.deliver(environment, project, published, tree)
        return self.pair.look(environment)

    # promoting, going back

    def promote(self, data: st.DataObject) -> None:
        into = data.draw(st.sampled_from([PRODUCTION, PRODUCTION, *ENVIRONMENTS]))
        self.do_promote(self.other_environment(data), into, force=data.draw(seldom))

    def do_promote(self, environment: str, target: str, *, force: bool) -> None:
        world = self.world
        command = ["promote", environment, *([target] if target != PRODUCTION else []), "--json"]
        refusal = self.refusal(environment, target, force)
        answer = self.pair.call(*command, *(["--force"] if force else []), code=refusal)
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
            expected = changed(before.tree if before else {}, source.tree)
            assert sorted(answer.document["changed_nodes"]) == expected
            self.pair.moved(target, answer.document["snapshot"], state)
            record = world.records[environment]
            if target == PRODUCTION:
                plan = replace(record.plan, base=world.heads[target])
                world.records[environment] = Record("promoted", plan)
            else:
                world.records[target] = Record("applied", record.plan)
            world.rejected[target] = {}
            self.pair.deliver(target, project_of(source), set(source.tree), source.tree)
        self.pair.look(target)

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
        planned = world.states.get(state.base) if state.base else None
        came_back = now and planned and (now.tree, now.manifest) == (planned.tree, planned.manifest)
        moved = world.heads.get(target) != state.base and not came_back
        if target == PRODUCTION and moved and not force and not same:
            return 4
        whole = all(node_id in state.tree for node_id, _ in state.manifest)
        stale = any(entry.stale for entry in state.tree.values())
        return 0 if whole and not stale and state.manifest == record.plan.manifest else 1

    def rollback(self, data: st.DataObject) -> None:
        environment, back = self.some_moment(data)
        self.do_rollback(environment, back, data.draw(st.sampled_from(["steps", "snapshot", "at", "name"])))

    def promote_the_past(self, data: st.DataObject) -> None:
        """What an environment went back to may not be what was planned for it."""
        environment = self.other_environment(data)
        self.do_rollback(environment, data.draw(st.integers(1, 3)), "steps")
        self.do_promote(environment, data.draw(st.sampled_from([PRODUCTION, "stage"])), force=data.draw(st.booleans()))

    def do_rollback(self, environment: str, back: int, how: str) -> None:
        world = self.world
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
        answer = self.pair.call(*command, "--json", code=0 if state else 1)
        if state is not None:
            head = world.head(environment)
            assert head is not None
            unchanged = (head.tree, head.manifest) == (state.tree, state.manifest)
            assert answer.document["status"] == ("unchanged" if unchanged else "success")
            assert sorted(answer.document["changed_nodes"]) == changed(head.tree, state.tree)
            if not unchanged:
                after = replace(
                    state,
                    parent=world.heads[environment],
                    reason=f"rolled back to {str(target)[:12]}",
                    base=None if environment == PRODUCTION else state.base,
                    promoted_from=None,
                    restores=target,
                )
                self.pair.moved(environment, answer.document["snapshot"], after)
                fresh = {name for name, entry in state.tree.items() if not entry.stale}
                self.pair.deliver(environment, project_of(state), fresh, state.tree)
        self.pair.look(environment)

    # keeping and giving up

    def pin(self, data: st.DataObject) -> None:
        environment, back = self.some_moment(data)
        history = self.world.history(environment)
        found = back < len(history)
        self.pair.call("env", "pin", environment, str(back), code=0 if found else 1)
        if found:
            self.world.pins[history[back]] = environment
        self.pair.look(environment)

    def unpin(self, data: st.DataObject) -> None:
        environment = data.draw(st.sampled_from([*self.world.pins.values(), PRODUCTION]))
        pinned = [digest for digest, name in self.world.pins.items() if name == environment]
        self.pair.call("env", "unpin", environment, code=0 if pinned else 1)
        for digest in pinned:
            del self.world.pins[digest]
        self.pair.look(environment)

    def delete(self, data: st.DataObject) -> None:
        self.do_delete(self.some_environment(data))

    def do_delete(self, environment: str) -> None:
        world = self.world
        code = 5 if environment == PRODUCTION else 0 if environment in world.records else 1
        self.pair.call("env", "delete", environment, code=code)
        if code == 0:
            for remembered in (world.records, world.heads, world.rejected, world.delivered):
                remembered.pop(environment, None)
            assert not (self.pair.real.root / "target/environments" / environment).exists()
        self.pair.look(environment)

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
        answer = self.pair.call(*command, code=0)
        gone = self.world.collect(keep_last or 0, keeps_days or by_settings, grace=grace)
        assert answer.document["removed"]["bytes"] == gone
        assert answer.document["removed"]["spared"] == 0
        for environment in [PRODUCTION, *ENVIRONMENTS]:
            self.pair.look(environment)
        return gone

    def give_back(self, data: st.DataObject) -> None:
        """Deleting an environment and collecting garbage gives back exactly what it alone needed."""
        environment = self.other_environment(data)
        self.do_gc(None, True, grace=False)
        used = {
            entry["name"]: entry["unique_bytes"]
            for entry in self.pair.call("env", "du", "--json", code=0).document["environments"]
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
        answer = self.pair.call("repl", "--env", where, "--format", "json", "--exec", sql, code=0 if tables else 1)
        if tables:
            assert shown is not None
            table = shown.tree[node_id].artifact.table
            assert table is not None
            assert answer.document == [dict(zip(table.columns, row, strict=True)) for row in table.rows]

    # records of runs

    def migrate(self, data: st.DataObject) -> None:
        world, backend = self.world, data.draw(st.sampled_from(["file", "database"]))
        code = 0 if world.runs else 1
        self.pair.call("migrate-state", "--backend", backend, "--no-dry-run", code=code)
        if code == 0:
            world.backend = backend
            counts = self.pair.call("migrate-state", "--backend", backend, "--summary", "--json", code=0).document
            assert counts["in_force"] == backend
            assert {name: found["runs"] for name, found in counts["backends"].items()} == {
                name: len(world.runs) if name == backend else 0 for name in ("file", "database")
            }
        self.pair.look(PRODUCTION)

    # choosing

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
