"""Eight processes do everything at once with one project: run, promote, roll back, delete, collect, read, verify.

None is told anything but that another was faster, nothing that can be reached is lost, every reader sees one whole
state that was current while it read, and each environment's log tells all of its moves.
"""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from seeknal.dag.project import Project as Opened
from seeknal.store.objects import Tree
from seeknal.store.store import Store
from seeknal.workflow.run_records import backend_in_force, open_backend
from tests.acceptance.project import Project
from tests.reliability import racing
from tests.reliability.process_tree import MARK, end, left, needs_proc, new_mark

pytestmark = needs_proc

HANDS = 8
PATIENCE_SECONDS = 120

# A move stands in the log a moment before it is made.
LONGEST_MOVE_SECONDS = 2.0

BUSY = "is locked by|another process has the lock"
NOT_THERE = "has no outputs yet|has no plan|is not kept|Environment .* not found"

# Command → exit code → what its errors may say. Exit code 0 is always welcome.
WELCOME: dict[str, dict[int, str]] = {
    "run": {11: BUSY + "|was moved by another process"},
    "run --env": {
        1: NOT_THERE,
        4: "Plan is stale",
        11: BUSY + "|was moved by another process",
    },
    "plan": {},
    "promote": {
        1: NOT_THERE + "|has not been applied",
        4: "moved",
        11: BUSY + "|was moved by another process",
    },
    "rollback": {
        1: NOT_THERE,
        4: "moved",
        11: BUSY,
        12: "cannot go back",
    },
    "gc": {11: BUSY},
    "env delete": {1: NOT_THERE, 11: BUSY},
    "repl prod": {},
    "repl prod@1": {1: NOT_THERE},
    "repl": {1: NOT_THERE},
    "env history": {1: NOT_THERE},
}


@dataclass(frozen=True)
class Call:
    """One entry of a diary."""

    began: float
    ended: float
    arguments: list[str]
    code: int
    stdout: str
    stderr: str

    @property
    def command(self) -> str:
        """What WELCOME calls it."""
        words = [word for word in self.arguments if not word.startswith("-")]
        if words[0] == "run" and "--env" in self.arguments:
            return "run --env"
        if words[0] == "env":
            return " ".join(words[:2])
        if words[0] == "repl":
            name = self.arguments[2]
            return f"repl {name}" if name.startswith("prod") else "repl"
        return words[0]

    def is_welcome(self) -> bool:
        if "Traceback" in self.stderr:
            return False
        if self.code == 0:
            return True
        errors = [line for line in self.stderr.splitlines() if line.startswith("error:")]
        allowed = WELCOME.get(self.command, {}).get(self.code)
        return bool(errors) and allowed is not None and all(re.search(allowed, line) for line in errors)

    def __str__(self) -> str:
        return f"{' '.join(self.arguments)}: exit {self.code}\n{self.stdout[-300:]}\n{self.stderr[-1500:]}"


class Archive:
    """Copies of each snapshot and tree that ever was, taken before a collector can take them away."""

    def __init__(self, root: Path, folder: Path) -> None:
        self._store = root / "target/store"
        self._copies = Store(folder)
        self._copies.prepare()
        self._generations: dict[str, int | None] = {}
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._copy_until_the_end)
        self._thread.start()

    def _copy_until_the_end(self) -> None:
        done: set[str] = set()
        while not self._end.wait(0.002):
            for kind in ("snapshots", "trees"):
                for name in os.listdir(self._store / kind):
                    if name not in done:
                        with suppress(FileNotFoundError):
                            target = self._copies.root / kind / name
                            target.parent.mkdir(exist_ok=True)
                            target.write_bytes((self._store / kind / name).read_bytes())
                            done.add(name)

    def close(self) -> None:
        self._end.set()
        self._thread.join()

    def generation(self, snapshot: str) -> int | None:
        """The generation of a snapshot, None where it could not be copied in time. Fails where it has several."""
        if snapshot not in self._generations:
            try:
                tree = self._copies.read_tree(self._copies.read_snapshot(snapshot).tree)
            except Exception:
                self._generations[snapshot] = None
            else:
                self._generations[snapshot] = generation_of(tree)
        return self._generations[snapshot]


def generation_of(tree: Tree) -> int:
    """The generation of a tree, by what is known of its outputs. Fails where they are of several."""
    rows = {name: tree.nodes[f"transform.{name}"].artifact.row_count for name in ("a", "b", "c")}
    assert rows == {"a": rows["a"], "b": rows["a"], "c": 1}
    assert not any(entry.stale for entry in tree.nodes.values())
    return rows["a"]


@dataclass(frozen=True)
class State:
    """What an environment stood at, from its move's line in the log until it had certainly moved on."""

    since: float
    until: float
    snapshot: str | None


def states(project: Project, environment: str, *, kills: bool) -> list[State]:
    """The states of an environment by its log, oldest first. Fails where the log has a gap or a torn line.

    With ``kills`` a line may be of a move that was not made, because its maker was killed.
    """
    path = project.root / f"target/store/refs/{environment}.log"
    lines = [line for line in path.read_text().splitlines() if line] if path.exists() else []
    moves = [line.split("\t") for line in lines]
    assert all(len(move) == 5 for move in moves), lines
    if kills:
        following = [*(move[1] for move in moves[1:]), project.ref(environment) or "-"]
        moves = [move for move, old in zip(moves, following, strict=False) if move[2] == old]
    assert [move[1] for move in moves] == ["-", *(move[2] for move in moves)][: len(moves)], lines
    assert (project.ref(environment) or "-") == (moves[-1][2] if moves else "-")
    times = [float(move[0]) for move in moves]
    assert times == sorted(times)
    found = [State(0.0, times[0] + LONGEST_MOVE_SECONDS if times else float("inf"), None)]
    for number, move in enumerate(moves):
        later = [*times[number + 1 : number + 2], float("inf")][0] + LONGEST_MOVE_SECONDS
        # The next line but one is written when the next move is done.
        until = min([later, *times[number + 2 : number + 3]])
        found.append(State(times[number], until, None if move[2] == "-" else move[2]))
    return found


def during(states: list[State], began: float, ended: float) -> set[str | None]:
    """What an environment stood at between two moments."""
    return {state.snapshot for state in states if state.since <= ended and began <= state.until}


class Race:
    """Hands at work on one project, and what must hold when they are done."""

    def __init__(self, folder: Path, backend: str, seed: str, *, kills: bool = False) -> None:
        self.folder = folder
        self.kills = kills
        self.killed = 0
        self.mark = new_mark()
        self.project = racing.make(folder / "shop", backend)
        self.seed = seed
        self.archive = Archive(self.project.root, folder / "archive")

    def run(self, seconds: float) -> None:
        (self.folder / "diaries").mkdir()
        chance = random.Random(self.seed)
        with ExitStack() as opened:
            hands = [self.begin(opened, str(number), seconds) for number in range(HANDS)]
            for hand in hands:
                assert hand.stdout is not None
                assert hand.stdout.readline() == "ready\n"
            until = time.time() + seconds
            for hand in hands:
                let_go(hand)
            while self.kills and (left_seconds := until - time.time()) > 0:
                time.sleep(min(chance.uniform(0, 1.0), left_seconds))
                number = chance.randrange(HANDS)
                os.killpg(hands[number].pid, signal.SIGKILL)
                self.killed += 1
                hands[number].communicate()
                hands[number] = self.begin(opened, f"{number}-{self.killed}", until - time.time())
                let_go(hands[number])
            for hand in hands:
                said, _ = hand.communicate(timeout=seconds + PATIENCE_SECONDS)
                assert hand.returncode == 0, said
        assert left(self.mark) == []

    def begin(self, opened: ExitStack, name: str, seconds: float) -> subprocess.Popen[str]:
        """Start a hand, which waits until it is let go."""
        search_path = os.pathsep.join(path for path in sys.path if path)
        arguments = [str(self.project.root), name, self.seed, str(seconds), str(self.folder / "diaries" / name)]
        hand = subprocess.Popen(
            [sys.executable, "-m", "tests.reliability.racing", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONPATH": search_path, MARK: self.mark},
            text=True,
            start_new_session=True,
        )
        opened.enter_context(hand)
        opened.callback(end, self.mark)
        return hand

    def calls(self) -> list[Call]:
        """What all hands did, in order of time; not what one was killed over."""
        texts = [path.read_text(encoding="utf-8") for path in (self.folder / "diaries").iterdir()]
        entries = [json.loads(line) for text in texts for line in text.split("\n")[:-1]]
        return sorted((Call(**entry) for entry in entries), key=lambda call: call.began)

    # what must hold

    def check(self) -> None:
        calls = self.calls()
        unwelcome = [str(call) for call in calls if not call.is_welcome()]
        assert unwelcome == [], f"{len(unwelcome)} of {len(calls)}\n" + "\n\n".join(unwelcome[:20])
        answer = self.project.seeknal("store", "verify", "--json")
        assert (answer.code, answer.document["status"]) == (0, "clean"), answer.text
        assert self.kills or answer.document["findings"] == []
        self.check_readers(calls)
        self.check_records(calls)
        if not self.kills:
            self.check_deliveries()
        after = self.project.process("run", "--parallel")
        assert after.code == 0, after.text
        self.check_deliveries()

    def check_readers(self, calls: list[Call]) -> None:
        histories = {name: states(self.project, name, kills=self.kills) for name in ("prod", *racing.ENVIRONMENTS)}
        stood_at = [state.snapshot for found in histories.values() for state in found if state.snapshot]
        known = [self.archive.generation(snapshot) for snapshot in stood_at]
        # One that was gone before it could be copied could be any; there must be few of them.
        assert sum(generation is None for generation in known) <= len(known) // 10
        for call in calls:
            if call.code or call.command.partition(" ")[0] != "repl":
                continue
            (row,) = json.loads(call.stdout)
            generation = row["a_rows"]
            assert row == {
                "a": [generation], "b": [generation], "c": [generation], "a_rows": generation, "b_rows": generation
            }, row  # fmt: skip
            name, _, moment = call.arguments[2].partition("@")
            if moment:
                continue
            possible = during(histories[name], call.began, call.ended)
            if None in possible:
                # What has no state of its own shows production's.
                possible |= during(histories["prod"], call.began, call.ended)
            generations = {self.archive.generation(snapshot) for snapshot in possible if snapshot}
            assert generation in generations or None in generations, (call, generations)

    def check_deliveries(self) -> None:
        store = Opened.open(self.project.root).store()
        head = store.refs.read("prod")
        assert head is not None
        generation = generation_of(store.read_tree(store.read_snapshot(head).tree))
        assert self.project.read("output/told.csv").split() == ["generation,n", f"{generation},{generation}"]
        assert [row["generation"] for row in self.project.rows("transform.c")] == [generation]

    def check_records(self, calls: list[Call]) -> None:
        opened = Opened.open(self.project.root)
        records = open_backend(opened, backend_in_force(opened), "test")
        for call in calls:
            if call.code == 0 and call.command in ("run", "run --env"):
                document = json.loads(call.stdout)
                if any(node["status"] == "success" for node in document["nodes"]):
                    found = records.get_run(document["run_id"])
                    assert found is not None, document["run_id"]
                    assert found["status"] == "success"
        records.close()


def let_go(hand: subprocess.Popen[str]) -> None:
    assert hand.stdin is not None
    hand.stdin.write("go\n")
    hand.stdin.flush()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Race with either backend of records, and with ``--torture`` also where hands are killed."""
    if "kills" in metafunc.fixturenames:
        kills = [False, True] if metafunc.config.getoption("--torture") else [False]
        metafunc.parametrize("kills", kills, ids=["some killed" if each else "none killed" for each in kills])


@pytest.mark.parametrize("backend", ["file", "database"])
def test_hands_that_do_everything_at_once_hear_of_each_other_and_of_nothing_else(
    tmp_path: Path, backend: str, kills: bool, torture: bool, tally: Callable[[str, int], None]
) -> None:
    race = Race(tmp_path, backend, "torture" if torture else "sample", kills=kills)
    try:
        race.run(60 if torture else 4)
    finally:
        race.archive.close()
    calls = race.calls()
    print(sorted(Counter((call.command, call.code) for call in calls).items()))
    beside = " while some are killed" if kills else ""
    tally(f"a command of one of eight processes at once{beside}", len(calls))
    tally(f"… of those, one that met another and did nothing{beside}", sum(call.code in (4, 11) for call in calls))
    if kills:
        tally("SIGKILL to one of eight processes at once", race.killed)
    race.check()
