"""A hand: one of several processes that do everything that can be done with one project, at random and at once.

    python -m tests.reliability.racing ROOT NAME SEED SECONDS DIARY

- *generation*: a number that a hand writes into the project's first node before it runs. All tables of one state hold
  one generation, and the first has as many rows, so a state that is torn or lost shows.
- *diary*: a line for each call, as JSON: when it began and ended, its arguments, exit code, stdout and stderr.

Most commands are called in this process, one after the other; some are processes of their own.
"""

from __future__ import annotations

import fcntl
import json
import os
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.acceptance.project import Answer, Project

ENVIRONMENTS = ("dev", "staging")

# One row: the generations of each table, and rows as they should be counted.
QUESTION = (
    "SELECT (SELECT list(DISTINCT generation) FROM a) AS a, (SELECT list(DISTINCT generation) FROM b) AS b, "
    "(SELECT list(generation) FROM c) AS c, (SELECT count(*) FROM a) AS a_rows, (SELECT n FROM c) AS b_rows"
)

FILES = {
    "seeknal/b.yml": "kind: transform\nname: b\ntransform: SELECT generation, i * 2 AS j FROM transform.a\n",
    "seeknal/c.yml": (
        "kind: transform\nname: c\ntransform: SELECT max(generation) AS generation, count(*) AS n FROM transform.b\n"
    ),
    "seeknal/sound.yml": "kind: rule\nname: sound\ninputs: [transform.b]\nrule: {value: j >= 0}\n",
    "seeknal/told.yml": "kind: exposure\nname: told\ntype: file\npath: output/told.csv\ninputs: [transform.c]\n",
}


def make(root: Path, backend: str) -> Project:
    """Write the project, at generation 1, and run it."""
    project = Project(root)
    project.write("seeknal_project.yml", f"name: shop\nstate_backend: {backend}\n")
    for path, text in FILES.items():
        project.write(path, text)
    project.write("../generation", "0")
    edit(root)
    project.ok("run")
    return project


def edit(root: Path) -> int:
    """Bring the project's files to a generation that never was, in one step; gives it."""
    with (root.parent / "generation").open("r+") as counter:
        fcntl.flock(counter, fcntl.LOCK_EX)
        generation = int(counter.read()) + 1
        counter.seek(0)
        counter.write(str(generation))
        counter.flush()
        query = f"SELECT {generation} AS generation, i::INTEGER AS i FROM range({generation}) t(i)"
        temporary = root / f".{os.getpid()}"
        temporary.write_text(f"kind: transform\nname: a\ntransform: {query}\n")
        temporary.replace(root / "seeknal/a.yml")
    return generation


class Hand:
    """One process's way of working."""

    def __init__(self, root: Path, chance: random.Random, diary: Path) -> None:
        self.project = Project(root)
        self.chance = chance
        self.diary = diary.open("a", encoding="utf-8")
        self.calls = 0
        # What is done, and how often as compared with the rest.
        self.doings: dict[Callable[[], None], int] = {
            self.run: 6,
            self.change: 6,
            self.promote: 2,
            self.roll_back: 3,
            self.collect: 4,
            self.delete: 1,
            self.read: 8,
            self.read_twice: 3,
            self.look_around: 4,
            self.verify: 3,
        }

    def work(self, end: float) -> None:
        while time.time() < end:
            (do,) = self.chance.choices(list(self.doings), list(self.doings.values()))
            do()

    def call(self, *arguments: str) -> Answer:
        """Call the command here, and now and then as a process of its own."""
        apart = self.chance.random() < 0.1
        began = time.time()
        answer = (self.project.process if apart else self.project.seeknal)(*arguments)
        self.note(began, arguments, answer)
        return answer

    def note(self, began: float, arguments: tuple[str, ...], answer: Answer) -> None:
        entry: dict[str, Any] = {"began": began, "ended": time.time(), "arguments": arguments, "code": answer.code}
        print(json.dumps({**entry, "stdout": answer.stdout, "stderr": answer.stderr}), file=self.diary, flush=True)

    def environment(self) -> str:
        return self.chance.choice(ENVIRONMENTS)

    # doings

    def run(self) -> None:
        if self.chance.random() < 0.8:
            edit(self.project.root)
        self.call("run", "--json", *self.chance.choice([(), ("--parallel",), ("--full",)]))

    def change(self) -> None:
        name = self.environment()
        edit(self.project.root)
        if self.call("plan", name, "--json").code == 0:
            force = () if self.chance.random() < 0.5 else ("--force",)
            if self.call("run", "--env", name, "--json", *force).code == 0:
                self.promote(name)

    def promote(self, name: str = "") -> None:
        name = name or self.environment()
        to = [other for other in ENVIRONMENTS if other != name] if self.chance.random() < 0.2 else []
        force = () if self.chance.random() < 0.7 else ("--force",)
        self.call("promote", name, *to, "--yes", "--json", *force)

    def roll_back(self) -> None:
        self.call("rollback", self.chance.choice(["prod", "prod", self.environment()]), "--json")

    def collect(self) -> None:
        keep = self.chance.choice(["1", "1", "2"])
        self.call("gc", "--keep-last", keep, "--keep-days", "0", "--grace-hours", "0", "--json")

    def delete(self) -> None:
        self.call("env", "delete", self.environment(), "-y")

    def read(self) -> None:
        name = self.chance.choice(["prod", "prod", self.environment(), "prod@1"])
        self.call("repl", "--env", name, "-e", QUESTION, "-f", "json")

    def read_twice(self) -> None:
        """Read through one reader that stays open: what it opened stays what it is, whatever others do."""
        from seeknal.dag.project import Project as Opened
        from seeknal.errors import SeeknalError
        from seeknal.workflow.reading import TableReader

        began = time.time()
        answers = []
        try:
            with TableReader.open(Opened.open(self.project.root).store(), "prod") as reader:
                opened = time.time()
                for _ in range(2):
                    rows = reader.query(QUESTION, as_json=True)
                    answers.append([dict(zip(rows.columns, map(json.loads, row), strict=True)) for row in rows.values])
                    time.sleep(self.chance.uniform(0, 0.3))
        except SeeknalError as error:
            self.note(began, ("reader",), Answer(error.exit_code, "", f"error: {error}"))
            return
        code = 0 if answers[0] == answers[1] else -1
        entry = {"began": began, "ended": opened, "arguments": ["repl", "--env", "prod"], "code": code}
        print(json.dumps({**entry, "stdout": json.dumps(answers[0]), "stderr": ""}), file=self.diary, flush=True)

    def look_around(self) -> None:
        name = self.chance.choice(["prod", self.environment()])
        self.call(
            *self.chance.choice(
                [
                    ("env", "list", "--json"),
                    ("env", "history", name, "--json"),
                    ("env", "du", "--json"),
                    ("inspect", "--list"),
                    ("diff",),
                    ("plan", "--json"),
                    ("audit", "--json"),
                    ("gc", "--dry-run", "--json"),
                ]
            )
        )

    def verify(self) -> None:
        self.call("store", "verify", "--json")


def main(root: str, name: str, seed: str, seconds: str, diary: str) -> None:
    import duckdb  # noqa: F401

    print("ready", flush=True)
    sys.stdin.readline()
    hand = Hand(Path(root), random.Random(f"{seed} {name}"), Path(diary))
    hand.work(time.time() + float(seconds))


if __name__ == "__main__":
    main(*sys.argv[1:])
