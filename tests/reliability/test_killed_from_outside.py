"""Runs that are ended from outside, at any moment of their life: nothing is lost, nothing must be cleaned up by hand.

A try begins with a project whose production stands at its first version and whose files are at the second. Whatever
ends the run, production then stands at one of the two; what was finished is not done again; and the next run brings
about byte for byte what a calm run does.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.project import Project
from tests.reliability import shop
from tests.reliability.process_tree import Command, needs_proc

pytestmark = needs_proc

QUESTION = "SELECT (SELECT sum(amount) FROM best), (SELECT amount FROM total), (SELECT sum(v) FROM heavy)"

Tally = Callable[[str, int], None]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give each test its seeds; see :func:`seeds`."""
    if "seed" in metafunc.fixturenames:
        sample, everything = metafunc.function.seeds
        metafunc.parametrize("seed", everything if metafunc.config.getoption("--torture") else sample)


def seeds(count: int, *sample: int) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Try a test with so many seeds with ``--torture``, and with the ``sample`` of them without."""

    def remember(function: Callable[..., None]) -> Callable[..., None]:
        function.seeds = (sample, range(count))  # type: ignore[attr-defined]
        return function

    return remember


@dataclass(frozen=True)
class Version:
    """What a calm run of a version brings about."""

    contents: dict[str, list[str]]
    delivered: dict[str, bytes]
    answer: str


@dataclass(frozen=True)
class Calm:
    """Production before a try (``old``) and after it (``new``), the project to begin with, and how long a run takes."""

    begin: Path
    root: Path
    old: Version
    new: Version
    seconds: float


def seen(project: Project) -> Version:
    """What production is now, as its readers see it."""
    contents = shop.stands_at(project.root)
    assert contents is not None
    return Version(contents, shop.delivered(project.root), project.ok("repl", "-e", QUESTION, "-f", "csv").stdout)


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Calm:
    folder = tmp_path_factory.mktemp("outside")
    root = folder / "shop"
    project = shop.write(root, 1)
    project.ok("run")
    old = seen(project)
    shop.write(root, 2)
    begin = shutil.copytree(root, folder / "begin", symlinks=True)
    command = Command(root, folder / "calm", "run", "--parallel", "--max-workers", "3")
    try:
        assert command.wait() == 0, command.stderr
    finally:
        command.end()
    seconds = time.monotonic() - command.began
    new = seen(project)
    assert old.contents.keys() == new.contents.keys()
    assert not any(old.contents[node_id] == new.contents[node_id] for node_id in old.contents)
    return Calm(begin, root, old, new, seconds)


class Try:
    """One run, to be ended from outside, and what must hold afterwards."""

    def __init__(self, calm: Calm, folder: Path, seed: int, chance: random.Random) -> None:
        self.calm = calm
        self.folder = folder
        self.seed = seed
        self.chance = chance
        shutil.rmtree(calm.root)
        shutil.copytree(calm.begin, calm.root, symlinks=True)
        self.project = Project(calm.root)
        self.ref = self.project.ref()
        self.actions = self._files("actions")
        self.trees = self._files("trees")
        self.deliveries = (calm.root / "target/store/deliveries/prod").read_bytes()
        self.command = self.run("victim")

    def run(self, name: str) -> Command:
        workers = str(self.chance.randint(2, 4))
        arguments = ("run", "--parallel", "--max-workers", workers, "--json")
        return Command(self.calm.root, self.folder / name, *arguments)

    def _files(self, folder: str) -> set[str]:
        root = self.calm.root / "target/store" / folder
        return {path.name for path in root.rglob("*") if path.is_file()}

    # moments

    def wait_for_a_moment(self) -> bool:
        """Wait until a moment by chance, anywhere in the run's life; False where the run ended before."""
        moments: list[Callable[[], object]] = [
            self.command.server,
            self.command.workers,
            lambda: self._files("actions") - self.actions,
            lambda: self._files("trees") - self.trees,
            lambda: self.project.ref() != self.ref,
            lambda: (self.calm.root / f"output/parts/region=region-{shop.REGIONS + 1}").exists(),
            self.has_delivered,
        ]
        # Half of the tries at any time, the others at something that is to be seen, or soon after.
        if self.seed % 2 == 0:
            end = self.command.began + self.chance.uniform(0, self.calm.seconds)
            return self.command.wait_for(lambda: time.monotonic() > end)
        if not self.command.wait_for(moments[self.seed // 2 % len(moments)]):
            return False
        end = time.monotonic() + self.chance.choice([0, self.chance.uniform(0, 0.01), self.chance.uniform(0, 0.1)])
        return self.command.wait_for(lambda: time.monotonic() > end)

    def has_delivered(self) -> bool:
        return (self.calm.root / "target/store/deliveries/prod").read_bytes() != self.deliveries

    def stage(self) -> str:
        """How far the run had come, by what it left."""
        if self.has_delivered():
            return "after it had delivered"
        if self.project.ref() != self.ref:
            return "between its ref and its deliveries"
        if self._files("trees") - self.trees:
            return "while it committed"
        if self._files("actions") - self.actions:
            return "while nodes ran"
        return "before the first node was done"

    # what must hold

    def check(self) -> None:
        """Nothing is left of the run; production is old or new; the next run makes it new, and does nothing twice."""
        assert self.command.left() == []
        self._check_production()
        self._check_store()
        finished = self._files("actions")
        document = self._finish()
        again = [
            node["node_id"]
            for node in document["nodes"]
            if node["status"] == "success" and node["fingerprint"][2:] in finished
        ]
        assert again == [], "done already, and done again"
        assert seen(self.project) == self.calm.new
        self._check_store()

    def _check_production(self) -> None:
        moved = self.project.ref() != self.ref
        version = self.calm.new if moved else self.calm.old
        assert shop.stands_at(self.calm.root) == version.contents
        assert self.project.ok("repl", "-e", QUESTION, "-f", "csv").stdout == version.answer
        old, new = self.calm.old.delivered, self.calm.new.delivered
        found = {name: held for name, held in shop.delivered(self.calm.root).items() if not _hidden(name)}
        if not moved:
            assert found == old
        for name in old.keys() | new.keys() | found.keys():
            assert found.get(name) in (old.get(name), new.get(name)), name

    def _check_store(self) -> None:
        answer = self.project.seeknal("store", "verify", "--json")
        assert (answer.code, answer.document["status"]) == (0, "clean"), answer.text

    def _finish(self) -> Any:
        command = self.run("next")
        try:
            assert command.wait() == 0, command.stderr
            assert command.left() == []
        finally:
            command.end()
        return json.loads(command.stdout)


def _hidden(name: str) -> bool:
    return Path(name).name.startswith(".")


@pytest.fixture
def attempt(calm: Calm, tmp_path: Path, seed: int, request: pytest.FixtureRequest) -> Iterator[Try]:
    made = Try(calm, tmp_path, seed, random.Random(f"{request.function.__name__} {seed}"))
    try:
        yield made
    finally:
        made.command.end()


@seeds(200, 5, 7)
def test_a_run_whose_whole_group_is_killed_loses_nothing(attempt: Try, seed: int, tally: Tally) -> None:
    killed = attempt.wait_for_a_moment() and attempt.command.signal(signal.SIGKILL)
    attempt.command.wait()
    if killed:
        tally(f"SIGKILL to a run's process group, {attempt.stage()}", 1)
    attempt.check()


@seeds(40)
def test_a_run_whose_command_is_killed_takes_its_workers_along(attempt: Try, seed: int, tally: Tally) -> None:
    killed = attempt.wait_for_a_moment() and attempt.command.signal(signal.SIGKILL, group=False)
    attempt.command.wait()
    if killed:
        tally("SIGKILL to a run's command alone", 1)
    attempt.check()


def kill(process: int) -> bool:
    try:
        os.kill(process, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def statuses(document: Any) -> dict[str, str]:
    return {node["node_id"]: node["status"] for node in document["nodes"]}


@seeds(60, 0)
def test_a_worker_that_is_killed_costs_one_node_one_attempt(attempt: Try, seed: int, tally: Tally) -> None:
    command = attempt.command
    command.wait_for(command.workers)
    end = time.monotonic() + attempt.chance.uniform(0, attempt.calm.seconds * 0.6)
    command.wait_for(lambda: time.monotonic() > end)
    workers = command.workers()
    killed = bool(workers) and kill(attempt.chance.choice(workers))
    assert command.wait() == 0, command.stderr
    assert set(statuses(json.loads(command.stdout)).values()) == {"success"}
    retries = [line for line in command.stderr.splitlines() if "attempt" in line]
    assert len(retries) <= killed
    assert all("its worker process died (SIGKILL)" in line for line in retries)
    if killed:
        tally("SIGKILL to one worker, its node tried again" if retries else "SIGKILL to one idle worker", 1)
    attempt.check()


@seeds(20)
def test_a_node_whose_workers_are_killed_again_and_again_fails_with_the_reason(
    attempt: Try, seed: int, tally: Tally
) -> None:
    command = attempt.command
    killed = 0
    pause_seconds = attempt.chance.uniform(0.02, 0.15)
    while command.wait_for(command.workers):
        killed += sum(kill(worker) for worker in command.workers())
        time.sleep(pause_seconds)
    if command.wait():
        errors = [line for line in command.stderr.splitlines() if line.startswith("error:")]
        assert command.wait() == 1
        assert errors
        assert all("its worker process died twice (SIGKILL)" in line for line in errors), command.stderr
        assert attempt.project.ref() == attempt.ref
    tally("SIGKILL to every worker, again and again", killed)
    attempt.check()


@seeds(20)
def test_a_run_whose_fork_server_is_killed_goes_on_or_fails_with_a_reason(
    attempt: Try, seed: int, tally: Tally
) -> None:
    command = attempt.command
    killed = False
    if command.wait_for(command.server):
        end = time.monotonic() + attempt.chance.uniform(0, attempt.calm.seconds * 0.6)
        command.wait_for(lambda: time.monotonic() > end)
        server = command.server()
        killed = server is not None and kill(server)
    code = command.wait()
    assert code in (0, 1), command.stderr
    assert "Traceback" not in command.stderr, command.stderr
    if code:
        assert "its worker process died" in command.stderr
    if killed:
        tally("SIGKILL to the server that workers are forked from", 1)
    attempt.check()


@seeds(60, 1, 6)
def test_a_run_that_is_asked_to_stop_says_so_and_keeps_what_it_finished(attempt: Try, seed: int, tally: Tally) -> None:
    command = attempt.command
    number, times = [(signal.SIGINT, 1), (signal.SIGINT, 2), (signal.SIGTERM, 1), (signal.SIGTERM, 2)][seed // 2 % 4]
    # A terminal's Ctrl-C goes to the whole group; a supervisor's SIGTERM may go to the command alone.
    group = number == signal.SIGINT or attempt.chance.random() < 0.5
    sent = attempt.wait_for_a_moment() and command.signal(number, group=group)
    if times == 2:
        end = time.monotonic() + attempt.chance.uniform(0, 0.5)
        command.wait_for(lambda: time.monotonic() > end)
        command.signal(number, group=group)
    code = command.wait()
    if "Pipeline" in command.stderr:
        assert "Traceback" not in command.stderr, command.stderr
    elif "Fatal Python error" in command.stderr:
        # So ends Python where Ctrl-C comes while it starts.
        code = -number
    # Before it has begun to work and after it is done, the signal itself ends it. A shell tells that the same way.
    assert code in (0, 128 + number, -number), command.stderr
    assert code or attempt.project.ref() != attempt.ref
    if sent:
        tally(f"{number.name} to a run, {'once' if times == 1 else 'twice'}", 1)
    attempt.check()
