from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from random import Random
from types import FrameType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seeknal.dag.demands import NO_DEMANDS, Demands
from seeknal.workflow.capacity import Capacity
from seeknal.workflow.scheduler import (
    DONE,
    OVER,
    Command,
    Execute,
    InvalidTransition,
    NodeState,
    Resolve,
    Scheduler,
    Skip,
)

Dag = dict[str, list[str]]

CHAIN: Dag = {"a": [], "b": ["a"], "c": ["b"]}
DIAMOND: Dag = {"a": [], "b": ["a"], "c": ["a"], "d": ["b", "c"]}


@st.composite
def dags(draw: st.DrawFn) -> Dag:
    """Draw a DAG, its nodes in topological order; an input may be named twice."""
    count = draw(st.integers(0, 12))
    return {
        f"n{i}": [f"n{j}" for j in draw(st.lists(st.integers(0, i - 1), max_size=3))] if i else [] for i in range(count)
    }


def descendants(dag: Dag, roots: Iterable[str]) -> set[str]:
    found = set(roots)
    for node_id, inputs in dag.items():
        if not found.isdisjoint(inputs):
            found.add(node_id)
    return found - set(roots)


def ids(commands: Iterable[Command], kind: type[Command]) -> list[str]:
    return [command.node_id for command in commands if isinstance(command, kind)]


@dataclass
class History:
    """Drives a scheduler, holds it to its promises at every step, and remembers what happened."""

    dag: Dag
    scheduler: Scheduler
    demands: dict[str, Demands] = field(default_factory=dict)
    resolving: set[str] = field(default_factory=set)
    running: set[str] = field(default_factory=set)
    delayed: set[str] = field(default_factory=set)
    done: set[str] = field(default_factory=set)
    failed: set[str] = field(default_factory=set)
    dropped: set[str] = field(default_factory=set)
    skipped: dict[str, str] = field(default_factory=dict)
    executed: list[str] = field(default_factory=list)
    missed: set[str] = field(default_factory=set)
    stopped: bool = False

    def obey(self, commands: list[Command]) -> None:
        for command in commands:
            node_id = command.node_id
            assert node_id not in self.skipped
            if isinstance(command, Resolve):
                assert not self.stopped
                assert node_id not in self.resolving | self.missed | self.done
                assert self.done.issuperset(self.dag[node_id])
                self.resolving.add(node_id)
            elif isinstance(command, Execute):
                assert not self.stopped
                assert node_id in self.missed
                assert node_id not in self.running | self.done | self.failed | self.delayed
                self.running.add(node_id)
                self.executed.append(node_id)
            else:
                assert isinstance(command, Skip)
                assert command.because
                assert node_id not in self.running | self.done | self.failed
                self.skipped[node_id] = command.because
        self.insist_on_demands()
        assert len(self.running) <= self.scheduler.slots
        assert self.scheduler.running == len(self.running)
        self.scheduler.validate()
        over = self.done | self.failed | set(self.skipped)
        assert {node_id for node_id, state in self.scheduler.state.items() if state in OVER} == over
        assert self.scheduler.finished == (len(over) == len(self.dag))

    def insist_on_demands(self) -> None:
        """What runs together fits together; one node alone always does."""
        running = [self.demands.get(node_id, NO_DEMANDS) for node_id in self.running]
        held = [name for demands in running for name in demands.mutexes]
        assert len(held) == len(set(held))
        # One that wants more than there is gets all of it, beside others that want nothing.
        slots, memory_bytes = self.scheduler.slots, self.scheduler.capacity.memory_bytes
        assert sum(min(demands.slots, slots) for demands in running) <= slots
        assert sum(min(demands.memory_bytes, memory_bytes) for demands in running) <= memory_bytes

    def answer(self, node_id: str, event: str) -> None:
        """Tell the scheduler what became of a node."""
        self.resolving.discard(node_id)
        self.running.discard(node_id)
        self.delayed.discard(node_id)
        if event == "miss":
            self.missed.add(node_id)
            self.obey(self.scheduler.miss(node_id))
        elif event == "hit":
            self.done.add(node_id)
            self.obey(self.scheduler.hit(node_id))
        elif event == "succeeded":
            self.done.add(node_id)
            self.obey(self.scheduler.succeeded(node_id))
        elif event == "delayed":
            self.delayed.add(node_id)
            self.obey(self.scheduler.delayed(node_id))
        elif event == "due":
            self.obey(self.scheduler.due(node_id))
        elif event == "dropped":
            self.dropped.add(node_id)
            self.obey(self.scheduler.dropped(node_id, "nobody wants it"))
        else:
            self.failed.add(node_id)
            self.stopped |= not self.scheduler.continue_on_error
            self.obey(self.scheduler.failed(node_id))

    def stop(self) -> None:
        self.stopped = True
        self.obey(self.scheduler.stop("interrupted"))

    def live(self, random: Random, resolved: list[str], ran: list[str], stop_chance: float = 0.0) -> None:
        """Let random things happen in random order until nothing is left to happen."""
        self.obey(self.scheduler.start())
        while self.resolving or self.running or self.delayed:
            if random.random() < stop_chance:
                self.stop()
            node_id = random.choice(sorted(self.resolving | self.running | self.delayed))
            if node_id in self.delayed:
                self.answer(node_id, "failed" if self.stopped else "due")
            else:
                self.answer(node_id, random.choice(resolved if node_id in self.resolving else ran))


def history(dag: Dag, slots: int = 2, **options: Any) -> History:
    return History(dag, Scheduler(dag, slots, **options))


randoms = st.randoms(use_true_random=False)
slot_counts = st.integers(1, 4)
demanding = st.builds(
    Demands,
    memory_bytes=st.integers(0, 6),
    slots=st.integers(1, 5),
    mutexes=st.lists(st.sampled_from("xyz"), max_size=3, unique=True).map(lambda names: tuple(sorted(names))),
)


@settings(max_examples=200)
@given(dags(), slot_counts, st.booleans(), randoms, st.sampled_from([0.0, 0.1]), st.data())
def test_every_history_ends_with_every_node_over(
    dag: Dag, slots: int, continue_on_error: bool, random: Random, stop_chance: float, data: st.DataObject
) -> None:
    resolved = data.draw(st.lists(st.sampled_from(["hit", "miss", "dropped", "failed"]), min_size=1))
    ran = [*data.draw(st.lists(st.sampled_from(["succeeded", "failed", "delayed"]))), "succeeded"]
    weights = {node_id: random.random() for node_id in dag if random.random() < 0.5}
    demands = {node_id: data.draw(demanding) for node_id in dag if random.random() < 0.5}
    scheduler = Scheduler(dag, Capacity(slots, 4, demands), weights, continue_on_error=continue_on_error)
    lived = History(dag, scheduler, demands)
    lived.live(random, resolved, ran, stop_chance)
    assert lived.scheduler.finished
    assert lived.scheduler.most_running <= slots
    # What was skipped, was for a reason that somebody can follow.
    if not lived.stopped:
        assert set(lived.skipped) == lived.dropped | descendants(dag, lived.failed | lived.dropped)
    for node_id, because in lived.skipped.items():
        if node_id not in lived.dropped and not lived.stopped:
            cause = because.split()[0]
            assert node_id in descendants(dag, [cause])
            assert because == f"{cause} {'failed' if cause in lived.failed else 'was skipped'}"


@settings(max_examples=60)
@given(dags(), slot_counts, randoms)
def test_without_failures_every_node_is_done(dag: Dag, slots: int, random: Random) -> None:
    lived = history(dag, slots)
    lived.live(random, ["hit", "miss"], ["succeeded"])
    assert lived.done == set(dag)
    assert lived.skipped == {}


@settings(max_examples=60)
@given(dags(), slot_counts, randoms)
def test_with_continue_on_error_a_failure_skips_its_descendants_and_nothing_else(
    dag: Dag, slots: int, random: Random
) -> None:
    lived = history(dag, slots, continue_on_error=True)
    lived.live(random, ["hit", "miss", "failed"], ["succeeded", "failed"])
    assert set(lived.skipped) == descendants(dag, lived.failed)
    assert lived.done == set(dag) - lived.failed - set(lived.skipped)


@settings(max_examples=60)
@given(dags(), slot_counts, randoms)
def test_without_it_nothing_starts_after_a_failure(dag: Dag, slots: int, random: Random) -> None:
    lived = history(dag, slots)
    lived.live(random, ["miss"], ["succeeded", "succeeded", "failed"])
    # That nothing starts is insisted on by History; what ran may finish and counts.
    assert lived.done | lived.failed == set(lived.executed)


class TestOrder:
    def test_longest_remaining_path_goes_first(self) -> None:
        dag: Dag = {"short": [], "long": [], "after": ["long"], "middle": []}
        lived = history(dag, 2, weights={"short": 1, "long": 1, "after": 5, "middle": 3})
        lived.obey(lived.scheduler.start())
        for node_id in ("short", "middle", "long"):
            lived.answer(node_id, "miss")
        # Both slots were taken before "long" was known to be missing.
        assert lived.executed == ["short", "middle"]
        assert lived.scheduler.waiting_for_a_slot == 1
        lived.answer("short", "succeeded")
        assert lived.executed[-1] == "long"

    def test_queue_is_ordered_by_path_and_then_by_place(self) -> None:
        dag: Dag = {name: [] for name in "abcd"}
        lived = history(dag, 2, weights={"a": 9, "b": 1, "c": 4, "d": 1})
        lived.obey(lived.scheduler.start())
        for node_id in "abcd":
            lived.answer(node_id, "miss")
        for node_id in ("a", "b", "c", "d"):
            lived.answer(node_id, "succeeded")
        assert lived.executed == ["a", "b", "c", "d"]

    def test_one_slot_keeps_the_order_of_the_nodes(self) -> None:
        dag: Dag = {"a": [], "b": [], "c": ["b"], "d": []}
        lived = history(dag, 1, weights={"d": 100})
        lived.obey(lived.scheduler.start())
        for node_id in ("d", "b", "a"):
            lived.answer(node_id, "miss")
        assert lived.executed == ["d"]
        lived.answer("d", "succeeded")
        lived.answer("a", "succeeded")
        assert lived.executed == ["d", "a", "b"]

    def test_slots_are_filled_as_soon_as_they_are_free(self) -> None:
        dag: Dag = {name: [] for name in "abcde"}
        lived = history(dag, 3)
        lived.obey(lived.scheduler.start())
        for node_id in dag:
            lived.answer(node_id, "miss")
        assert len(lived.running) == 3
        lived.answer("b", "succeeded")
        assert len(lived.running) == 3
        assert lived.scheduler.most_running == 3


class TestDemands:
    def test_large_node_is_not_overtaken_for_ever(self) -> None:
        dag: Dag = {name: [] for name in "abcd"}
        demands = {"c": Demands(slots=2)}
        scheduler = Scheduler(dag, Capacity(2, 0, demands), {"a": 9, "b": 8, "c": 5, "d": 1})
        lived = History(dag, scheduler, demands)
        lived.obey(scheduler.start())
        for node_id in dag:
            lived.answer(node_id, "miss")
        lived.answer("a", "succeeded")
        assert lived.executed == ["a", "b"]
        lived.answer("b", "succeeded")
        assert lived.executed == ["a", "b", "c"]

    def test_nodes_that_wait_for_a_mutex_are_overtaken(self) -> None:
        dag: Dag = {name: [] for name in "abcd"}
        demands = dict.fromkeys("abc", Demands(mutexes=("warehouse",)))
        scheduler = Scheduler(dag, Capacity(2, 0, demands), {"a": 9, "b": 8, "c": 5, "d": 1})
        lived = History(dag, scheduler, demands)
        lived.obey(scheduler.start())
        for node_id in dag:
            lived.answer(node_id, "miss")
        assert lived.executed == ["a", "d"]
        assert not scheduler.waiting_for_a_slot
        lived.answer("a", "succeeded")
        assert lived.executed == ["a", "d", "b"]

    def test_more_than_there_is_means_all_of_it(self) -> None:
        dag: Dag = {"a": [], "b": []}
        demands = {"a": Demands(memory_bytes=10**15, slots=99)}
        scheduler = Scheduler(dag, Capacity(4, 1000, demands), {"a": 9})
        lived = History(dag, scheduler, demands)
        lived.obey(scheduler.start())
        lived.answer("a", "miss")
        lived.answer("b", "miss")
        assert lived.executed == ["a"]

    def test_delayed_node_holds_nothing(self) -> None:
        dag: Dag = {"a": [], "b": [], "c": []}
        demands = dict.fromkeys("ab", Demands(slots=2, mutexes=("x",)))
        lived = History(dag, Scheduler(dag, Capacity(2, 0, demands)), demands)
        lived.obey(lived.scheduler.start())
        lived.answer("a", "miss")
        lived.answer("b", "miss")
        lived.answer("a", "delayed")
        assert lived.executed == ["a", "b"]
        lived.answer("a", "due")
        lived.answer("b", "succeeded")
        assert lived.executed == ["a", "b", "a"]


class TestStopping:
    def test_what_runs_may_finish_and_the_rest_is_skipped_with_the_reason(self) -> None:
        lived = history({"a": [], "b": [], "c": ["a"]}, 1)
        lived.obey(lived.scheduler.start())
        lived.answer("a", "miss")
        lived.answer("b", "miss")
        lived.stop()
        assert lived.skipped == {"b": "interrupted", "c": "interrupted"}
        lived.answer("a", "succeeded")
        assert lived.scheduler.finished
        assert lived.scheduler.state["a"] is NodeState.SUCCESS

    def test_first_reason_stays(self) -> None:
        lived = history(DIAMOND)
        lived.obey(lived.scheduler.start())
        lived.stop()
        assert lived.scheduler.stop("something else") == []
        assert lived.scheduler.stopped == "interrupted"
        assert set(lived.skipped.values()) == {"interrupted"}

    def test_node_that_is_resolved_after_the_stop_is_skipped_or_counts_as_cached(self) -> None:
        for event, state in (("miss", NodeState.SKIPPED), ("hit", NodeState.CACHED)):
            lived = history(CHAIN)
            lived.obey(lived.scheduler.start())
            lived.stop()
            lived.answer("a", event)
            assert lived.scheduler.state["a"] is state
            assert lived.scheduler.finished

    def test_run_without_nodes_is_finished_before_it_starts(self) -> None:
        lived = history({})
        assert lived.scheduler.finished
        assert lived.scheduler.start() == []


class TestInvalidEvents:
    @pytest.mark.parametrize(
        "event",
        [
            lambda scheduler: scheduler.hit("b"),
            lambda scheduler: scheduler.miss("b"),
            lambda scheduler: scheduler.succeeded("a"),
            lambda scheduler: scheduler.failed("b"),
            lambda scheduler: scheduler.dropped("b", "no"),
        ],
    )
    def test_event_out_of_turn_tells_the_nodes_story(self, event: Callable[[Scheduler], object]) -> None:
        scheduler = Scheduler(CHAIN, 2)
        scheduler.start()
        with pytest.raises(InvalidTransition, match=r"its story: .*→"):
            event(scheduler)

    def test_story_has_every_step(self) -> None:
        scheduler = Scheduler(CHAIN, 2)
        scheduler.start()
        scheduler.miss("a")
        scheduler.succeeded("a")
        steps = "waiting → resolving, resolving → queued, queued → running, running → success, success → cached"
        with pytest.raises(InvalidTransition, match=f"a: expected resolving; its story: {steps}"):
            scheduler.hit("a")

    def test_validation_notices_a_node_that_started_before_its_input(self) -> None:
        scheduler = Scheduler(CHAIN, 2)
        scheduler.start()
        scheduler.state["b"] = NodeState.RESOLVING
        with pytest.raises(InvalidTransition, match="b started before a was done"):
            scheduler.validate()
        assert scheduler.state["a"] not in DONE


def lines_executed(action: Callable[[], object]) -> int:
    """How many lines of Python an action takes: its cost, without a clock."""
    count = 0

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal count
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        action()
    finally:
        sys.settrace(before)
    return count


def in_a_chain(count: int) -> Dag:
    return {f"n{i}": [f"n{i - 1}"] if i else [] for i in range(count)}


def around_one(count: int) -> Dag:
    return {f"n{i}": ["n0"] if i else [] for i in range(count)}


def side_by_side(count: int) -> Dag:
    return {f"n{i}": [] for i in range(count)}


def run_all(scheduler: Scheduler, first: str = "miss", stops: bool = False) -> None:
    """Answer every command at once, as a run does; with ``stops`` say so again after each."""
    pending = scheduler.start()
    events: dict[type[Command], Callable[[str], list[Command]]] = {
        Resolve: getattr(scheduler, first),
        Execute: scheduler.succeeded,
    }
    while pending:
        command = pending.pop()
        if not isinstance(command, Skip):
            pending += events[type(command)](command.node_id)
        if stops:
            pending += scheduler.stop("interrupted")
        if scheduler.finished and not pending:
            break


@pytest.mark.parametrize("shape", [in_a_chain, around_one, side_by_side])
@pytest.mark.parametrize("ending", ["all run", "all cached", "first fails", "interrupted"])
def test_cost_grows_in_proportion_to_the_nodes(shape: Callable[[int], Dag], ending: str) -> None:
    def cost(count: int) -> int:
        scheduler = Scheduler(shape(count), 4, continue_on_error=True)
        how = {"all run": {}, "all cached": {"first": "hit"}, "first fails": {"first": "failed"}}
        return lines_executed(lambda: run_all(scheduler, **how.get(ending, {"stops": True})))

    assert cost(1600) < 5 * cost(400)


def test_ten_thousand_nodes_in_layers_all_run() -> None:
    dag: Dag = {
        f"n{i}": [f"n{j}" for j in range((i // 100 - 1) * 100, (i // 100) * 100, 25)] if i >= 100 else []
        for i in range(10_000)
    }
    scheduler = Scheduler(dag, 8)
    run_all(scheduler)
    assert scheduler.finished
    assert set(scheduler.state.values()) == {NodeState.SUCCESS}
    assert scheduler.most_running <= 8
