"""Whatever happens at whichever file-system call of an operation, nothing is lost.

Each operation is tried once for every call by which it changes or reads a file of the project, as the library
``faults.c`` counts them: its process is killed there, or the call fails, or a write takes half. What must hold then:

- Production and each environment stand where they stood, or where they should; what is shown and delivered is whole.
- The store is whole, or `store verify --repair` makes it so.
- Doing what a user does next leads to exactly the files that it leads to on a calm day.
- An operation that was not killed did all that it had to do, or says what failed, with a documented exit code.
"""

from __future__ import annotations

import itertools
import os
import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.reliability import stage
from tests.reliability.faults import (
    BROKEN,
    BROKEN_ON,
    CHANGING,
    DISK_FULL,
    GROUP_KILLED,
    KILL,
    KILLED,
    NO_ROOM,
    NOTHING,
    ONE_KILLED,
    POWER_CUT,
    READ,
    TEAR,
    TORN,
    UNREADABLE,
    WRITES_LESS,
    WRITES_LESS_ON,
    Fault,
    FaultyProcess,
    Outcome,
)
from tests.reliability.power import cut_power, not_durable

Tally = Callable[[str, int], None]

RUN = ["run"]
TO_DATABASE = ["migrate-state", "--backend", "database", "--no-dry-run"]
TO_FILES = ["migrate-state", "--backend", "file", "--no-dry-run"]
COLLECT = ["gc", "--keep-last", "1", "--grace-hours", "0"]

# World → the world that it begins with, the project's files that are changed there, and the commands that follow.
WORLDS: dict[str, tuple[str, dict[str, str], list[list[str]]]] = {
    "new": ("", stage.FILES, []),
    "ran": ("new", {}, [RUN]),
    "edited": ("ran", stage.CHANGED, []),
    "planned": ("edited", {}, [["plan", "dev"]]),
    "applied": ("planned", {}, [["run", "--env", "dev"]]),
    "moved on": ("applied", {}, [["promote", "dev"]]),
    "in a database": ("moved on", {}, [TO_DATABASE]),
    "with garbage": ("moved on", {}, [["env", "delete", "dev", "--yes"]]),
    "wide": ("ran", stage.MORE, [RUN]),
    "wide edited": ("wide", stage.CHANGED, []),
}


@dataclass(frozen=True)
class Operation:
    """What is done in a world, and what a user does next where it was cut short.

    ``every``: where all calls are tried, every one fails or every eighth, because another operation makes the same.
    """

    words: str
    world: str
    arguments: list[str]
    next: list[list[str]]
    every: int = 1


OPERATIONS = [
    Operation("put", "ran", [], []),
    Operation("first run", "new", RUN, [RUN], every=8),
    Operation("run", "edited", RUN, [RUN]),
    Operation("plan", "edited", ["plan", "dev"], [["plan", "dev"]]),
    Operation("run in an environment", "planned", ["run", "--env", "dev"], [["run", "--env", "dev"]], every=8),
    Operation("promote", "applied", ["promote", "dev"], [["promote", "dev"]]),
    Operation("rollback", "moved on", ["rollback", "prod", "FIRST"], [["rollback", "prod", "FIRST"]]),
    Operation("gc", "with garbage", COLLECT, [COLLECT]),
    Operation("migrate-state", "moved on", TO_DATABASE, [TO_DATABASE]),
    Operation("migrate-state back", "in a database", TO_FILES, [TO_FILES]),
    Operation("env delete", "applied", ["env", "delete", "dev", "--yes"], [["env", "delete", "dev", "--yes"]]),
]


PARALLEL = Operation("run with workers", "wide edited", ["run", "--parallel", "--max-workers", "2"], [RUN], every=12)


class Stage:
    """Worlds, kept as copies; the one that is played in lies where all of them were made."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "shop"
        self._folder = folder
        self._kept: dict[str, Path] = {}
        self._calm: dict[str, tuple[Outcome, dict[str, Any], dict[str, Any]]] = {}
        self.process = FaultyProcess(folder / "faults", self.root)
        self.parquet = folder / "put.parquet"

    def put_back(self, world: str) -> None:
        """Make the project's folder what it is in a world."""
        if world not in self._kept:
            self._make(world)
        shutil.rmtree(self.root, ignore_errors=True)
        shutil.copytree(self._kept[world], self.root, symlinks=True)

    def _make(self, world: str) -> None:
        before, files, commands = WORLDS[world]
        if before:
            self.put_back(before)
        stage.write(str(self.root), files)
        for arguments in commands:
            outcome = self.process.call(stage.command, *arguments)
            assert not outcome.traceback, outcome.traceback
            assert outcome.value["code"] == 0, outcome.value
        self._kept[world] = self._folder / f"world-{len(self._kept)}"
        shutil.copytree(self.root, self._kept[world], symlinks=True)

    def act(self, operation: Operation, fault: Fault) -> Outcome:
        """Do an operation in its world, with a fault."""
        self.put_back(operation.world)
        if operation.words == "put":
            return self.process.call(stage.put, str(self.parquet), fault=fault)
        return self.process.call(stage.command, *self.written_out(operation.arguments), fault=fault)

    def kept(self, world: str) -> Path:
        """The copy of a world that was played in."""
        return self._kept[world]

    def written_out(self, arguments: list[str]) -> list[str]:
        first = (self.root / "target/store/refs/prod.log").read_text().split()[2] if "FIRST" in arguments else ""
        return [first if argument == "FIRST" else argument for argument in arguments]

    def go_on(self, operation: Operation) -> dict[str, Any]:
        """Look, do what a user does next, look again."""
        following = [self.written_out(arguments) for arguments in operation.next]
        outcome = self.process.call(stage.go_on, *following)
        assert not outcome.traceback, outcome.traceback
        value: dict[str, Any] = outcome.value
        return value

    def calm(self, operation: Operation) -> tuple[Outcome, dict[str, Any], dict[str, Any]]:
        """What happens without a fault: the operation with its calls, the facts before it, and those after it."""
        if operation.words not in self._calm:
            self.put_back(operation.world)
            before = self.process.call(stage.look).value["facts"]
            # Once to import everything, once to see which calls there are.
            self.act(operation, Fault("", NOTHING, CHANGING | READ))
            outcome = self.act(operation, Fault("", NOTHING, CHANGING | READ))
            assert outcome.value["code"] == 0, outcome
            after = self.process.call(stage.look).value
            assert after["verify"]["code"] == 0, after
            self._calm[operation.words] = outcome, before, after["facts"]
        return self._calm[operation.words]


@pytest.fixture(scope="module")
def theatre(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    import pyarrow
    import pyarrow.parquet

    folder = tmp_path_factory.mktemp("steps")
    made = Stage(folder)
    pyarrow.parquet.write_table(pyarrow.table({"n": [1, 2, 3]}), made.parquet)
    with made.process:
        yield made


def points(torture: bool, operation: Operation, faults: list[Fault], outcome: Outcome, sample: int) -> Iterator[Fault]:
    """Every call of every fault, as far as they are to be tried, or some of them."""
    every = [
        fault.number(at)
        for fault in faults
        for at in range(1, 1 + sum(call.does & fault.kinds != 0 for call in outcome.calls), steps(operation, fault))
    ]
    seed = operation.words + faults[0].words
    yield from every if torture else random.Random(seed).sample(every, min(sample, len(every)))


def steps(operation: Operation, fault: Fault) -> int:
    """How many calls lie between two that are tried."""
    return fault.every * (1 if fault.mode in (KILL, TEAR) else operation.every)


def try_everything(
    theatre: Stage, operation: Operation, faults: list[Fault], torture: bool, tally: Tally, sample: int
) -> None:
    calm, before, after = theatre.calm(operation)
    wrong: list[str] = []
    tries: dict[str, int] = {}
    for fault in points(torture, operation, faults, calm, sample):
        outcome = theatre.act(operation, fault)
        if outcome.tried:
            tries[fault.words] = tries.get(fault.words, 0) + 1
            where = outcome.calls[fault.at - 1]
            names = " ".join(os.path.relpath(path, theatre.root) for path in (where.path, where.to) if path)
            place = f"{operation.words}: {fault.words}, number {fault.at}: {where.name} {names}"
            if fault.words == POWER_CUT.words:
                cut_power(theatre.root, theatre.kept(operation.world), outcome.calls[: fault.at - 1])
            found = complaints(operation, outcome, theatre.go_on(operation), before, after)
            wrong += [f"{place}\n    {complaint}" for complaint in found]
    for words, number in tries.items():
        tally(words, number)
    assert not wrong, f"{len(wrong)} of {sum(tries.values())}\n" + "\n".join(wrong)


def complaints(
    operation: Operation, outcome: Outcome, following: dict[str, Any], before: Any, after: Any
) -> Iterator[str]:
    """What is not as it must be after a fault."""
    first, answers, then = following["first"], following["answers"], following["then"]
    if outcome.ended:
        yield from complaints_about_words(outcome)
        if outcome.value and outcome.value["code"] == 0:
            if first["verify"] is None or first["verify"]["code"]:
                yield f"succeeded, and the store is damaged: {first['verify']}"
            yield from differences("succeeded", first["facts"], after)
    if first["verify"]:
        if first["verify"]["stderr"] or "Traceback" in first["verify"]["stdout"]:
            yield f"verify: {first['verify']}"
        if first["repair"] and first["repair"]["code"]:
            yield f"not repaired: {first['repair']['stdout']}"
        yield from complaints_about_facts(first["facts"], before, after)
    for answer in answers:
        fine = answer["code"] == 0 or (operation.words == "env delete" and "'dev' not found" in answer["stderr"])
        if not fine:
            yield f"what came next failed: {answer['code']} {answer['stderr']} {answer['stdout']}"
    if answers:
        if then["verify"]["code"]:
            yield f"damaged after all: {then['verify']['stdout']}"
        yield from differences("after all", then["facts"], after)


def complaints_about_words(outcome: Outcome) -> Iterator[str]:
    if outcome.traceback:
        yield outcome.traceback
        return
    code, said = outcome.value["code"], outcome.value["stderr"]
    if "Traceback" in said or "Traceback" in outcome.value["stdout"]:
        yield f"a traceback: {said}"
    if code not in (0, 1, 12):
        yield f"exit code {code}: {said}"
    if code and not any(line.startswith(("error: ", "✗ ")) for line in said.splitlines()):
        yield f"exit code {code} without an error: {said} {outcome.value['stdout']}"


def complaints_about_facts(facts: Any, before: Any, after: Any) -> Iterator[str]:
    """Each environment is what it was, or what it is to be, and so is what is shown and delivered."""
    names = {*facts["environments"], *before_of(before), *before_of(after)}
    for name in sorted(names):
        now, old, new = (before_of(some).get(name) for some in (facts, before, after))
        if (now and now["state"]) not in [(old and old["state"]), (new and new["state"])]:
            yield f"{name} stands between: {now}"
        if now is None:
            continue
        if not now["log_leads_here"]:
            yield f"the log of {name} does not lead to where it stands"
        for path, held in now["shown"].items():
            if held not in [some["shown"].get(path) for some in (old, new) if some]:
                yield f"{name} shows at {path}: {held}"
        for path, text in now["delivered"].items():
            if text not in [None if some is None else some["delivered"][path] for some in (old, new)]:
                yield f"{name} delivered to {path}: {text!r}"
    if not {*before["records"], *after["records"]} >= {*facts["records"]} if before else False:
        yield f"environments: {facts['records']}"


def before_of(facts: Any) -> dict[str, Any]:
    return {} if facts is None else facts["environments"]


def differences(words: str, facts: Any, after: Any) -> Iterator[str]:
    """What is not as on a calm day."""
    for name in sorted({*facts["environments"], *after["environments"]}):
        now, calm = facts["environments"].get(name), after["environments"].get(name)
        if now is None or calm is None:
            yield f"{words}: {name} is {'gone' if now is None else 'there'}"
            continue
        for part in ("state", "log_leads_here", "shown", "delivered"):
            if now[part] != calm[part]:
                yield f"{words}: {name}, {part}: {apart(now[part], calm[part])}"
    for part in ("records", "blobs", "in_force", "left", "actions"):
        if facts[part] != after[part]:
            yield f"{words}: {part}: {apart(facts[part], after[part])}"


def apart(now: Any, calm: Any) -> str:
    """Where two values differ, in words."""
    if isinstance(now, dict):
        keys = [key for key in {**now, **calm} if now.get(key) != calm.get(key)]
        return "; ".join(f"{key}: {apart(now.get(key), calm.get(key))}" for key in keys)
    return f"{now} instead of {calm}"


@pytest.fixture(params=OPERATIONS, ids=lambda operation: operation.words.replace(" ", "-"))
def operation(request: pytest.FixtureRequest) -> Operation:
    chosen: Operation = request.param
    return chosen


def test_killed_anywhere_it_loses_nothing(theatre: Stage, operation: Operation, torture: bool, tally: Tally) -> None:
    try_everything(theatre, operation, [KILLED, TORN], torture, tally, 1)


def test_a_power_cut_anywhere_loses_nothing(theatre: Stage, operation: Operation, torture: bool, tally: Tally) -> None:
    try_everything(theatre, operation, [POWER_CUT], torture, tally, 1)


def test_it_succeeds_or_says_what_failed(theatre: Stage, operation: Operation, torture: bool, tally: Tally) -> None:
    faults = [BROKEN, BROKEN_ON, NO_ROOM, DISK_FULL, UNREADABLE, WRITES_LESS, WRITES_LESS_ON]
    try_everything(theatre, operation, faults, torture, tally, 2)


@pytest.mark.parametrize("words", ["first run", "run", "run in an environment", "promote", "rollback"])
def test_what_a_ref_leads_to_is_durable_before_it_moves_and_all_else_follows(theatre: Stage, words: str) -> None:
    operation = next(operation for operation in OPERATIONS if operation.words == words)
    calls = [call for call in theatre.calm(operation)[0].calls if call.does != READ]
    store = f"{theatre.root}/target/store/"
    moved = next(number for number, call in enumerate(calls) if f"{store}refs/" in call.to)
    before, ref, after = calls[:moved], calls[moved], calls[moved + 1 :]
    # Outputs before the records that lead to them, and those before the objects that name them.
    order = ["blobs", "actions", "trees", "manifests", "snapshots"]
    put = [call.to.removeprefix(store).partition("/")[0] for call in before if call.to.startswith(store)]
    # What has no folder yet is renamed twice.
    put = [folder for folder, _ in itertools.groupby(put) if folder in order]
    assert "snapshots" in put
    assert [folder for folder in put if folder not in order[:2]] == [name for name in order[2:] if name in put]
    assert put[: put.count("blobs") + put.count("actions")] == ["blobs", "actions"] * put.count("blobs")
    # All of it at once, or the only file and its name; then the log, then the ref.
    if put == ["snapshots"]:
        synced = next(number for number, call in enumerate(before) if call.path == f"{store}snapshots")
        assert [call.name for call in before[synced - 1 : synced + 1]] == ["fsync", "fsync"]
    else:
        synced = next(number for number, call in enumerate(before) if call.name == "syncfs")
    assert not any(call.to.startswith(tuple(store + name for name in order)) for call in before[synced:])
    lost = not_durable(before).keys()
    assert lost.isdisjoint({f"{ref.to}.log", ref.path})
    assert not any(path.startswith(tuple(store + name for name in order)) for path in lost)
    assert any(call.name == "fsync" and call.path == f"{ref.to}.log" for call in before[synced:])
    assert (after[0].name, after[0].path) == ("fsync", f"{store}refs")
    assert not any("/reports/" in path or "/cache" in path for call in before for path in (call.path, call.to))
    assert not any(call.to.startswith(f"{store}blobs") for call in after)


def test_with_workers_it_loses_nothing_whichever_process_is_killed(theatre: Stage, torture: bool, tally: Tally) -> None:
    try_everything(theatre, PARALLEL, [ONE_KILLED, GROUP_KILLED], torture, tally, 1)


def test_with_workers_it_succeeds_or_says_what_failed(theatre: Stage, torture: bool, tally: Tally) -> None:
    if not torture:
        pytest.skip("only at full length: each try takes seconds")
    try_everything(theatre, PARALLEL, [BROKEN, DISK_FULL, WRITES_LESS_ON], torture, tally, 1)
