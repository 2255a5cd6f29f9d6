"""Commands that are overtaken: right after one has read where an environment stands, that moves on, and garbage is
collected. It happens the first time that the command reads a ref, then the second, and so on, until it reads no more.

It then works with the old state, which is kept for it, or with the new one, or says that it was overtaken.
"""

from __future__ import annotations

import fcntl
import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from seeknal.dag.project import Project as Opened
from seeknal.errors import BusyError, NotFoundError
from seeknal.store.reach import Retention
from seeknal.store.refs import Refs
from seeknal.workflow.collecting import collect_garbage
from seeknal.workflow.environment import EnvironmentManager
from tests.acceptance.project import Answer, Project
from tests.engine.workflow.projects import run
from tests.reliability import racing

NOTHING_OLD = Retention(keep_last=1, keep_days=0, grace_hours=0)
QUESTION = "SELECT generation FROM c"

COMMANDS = [
    "run",
    "run --env dev",
    "run --env dev --force",
    "plan",
    "plan dev",
    "promote dev --yes",
    "promote dev --yes --dry-run",
    "promote dev staging --yes",
    "rollback prod",
    "rollback prod --dry-run",
    "rollback dev",
    f"repl -e '{QUESTION}'",
    f"repl --env dev -e '{QUESTION}'",
    f"repl --env prod@1 -e '{QUESTION}'",
    "inspect --list",
    "inspect transform.c",
    "inspect transform.c --env dev",
    "entity list",
    "audit",
    "diff",
    "env list",
    "env history prod",
    "env history dev",
    "env du",
    "env pin prod",
    "env delete dev -y",
    "gc --dry-run",
    "gc --keep-last 1 --keep-days 0",
    "store verify",
]

# What may be said, beside success: that the other was faster, or that what was named is not there any more.
WELCOME = {1: "not found|is not kept|has no outputs yet|has not been applied", 4: "", 5: "", 11: ""}


class Overtaking:
    """Somebody who does something in the moment after a ref was read for the n-th time."""

    def __init__(self, project: Project, number: int, act: Callable[[Project], None]) -> None:
        self._project = project
        self.left = number
        self._act = act
        self.has_acted = False

    def read(self, refs: Refs, name: str, real: Callable[[Refs, str], str | None]) -> str | None:
        found = real(refs, name)
        self.left -= 1
        if self.left == 0 and self._can_act():
            try:
                self._act(self._project)
                self.has_acted = True
            except (BusyError, NotFoundError):
                # Who was to be overtaken keeps others off, or the environment is gone.
                pass
        return found

    def _can_act(self) -> bool:
        """Whether nobody would have to wait for who is to be overtaken, who holds a lock for a moment."""
        store = self._project.root / "target/store"
        for path in (store / "locks/.sweep", *(store / "refs").glob("*.lock")):
            with path.open("a") as lock:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    return False
        return True


def move_production(project: Project) -> None:
    racing.edit(project.root)
    assert run(project.root).status == "success"
    collect_garbage(Opened.open(project.root), NOTHING_OLD)


def move_environment(project: Project) -> None:
    racing.edit(project.root)
    manager = EnvironmentManager(project.root / "target")
    manager.plan("dev")
    assert manager.apply("dev", parallel=False).success
    collect_garbage(manager.project, NOTHING_OLD)


def delete_environment(project: Project) -> None:
    manager = EnvironmentManager(project.root / "target")
    manager.delete("dev")
    collect_garbage(manager.project, NOTHING_OLD)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with three states of production and two of an environment."""
    project = racing.make(tmp_path_factory.mktemp("overtaken") / "project" / "shop", "file")
    for _ in range(2):
        racing.edit(project.root)
        project.ok("run")
    for _ in range(2):
        racing.edit(project.root)
        project.ok("plan", "dev")
        project.ok("run", "--env", "dev")
    return project.root.parent


ACTS = (move_production, move_environment, delete_environment)

# What is tried in each test run, each time at one of the first refs that the command reads.
SAMPLE = [
    ("run --env dev", move_environment),
    ("promote dev --yes", delete_environment),
    ("rollback prod", move_production),
    (f"repl -e '{QUESTION}'", move_production),
    ("inspect transform.c --env dev", move_environment),
    ("env list", delete_environment),
    ("gc --dry-run", move_production),
]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Try every command with every act with ``--torture``, else a sample."""
    if "act" in metafunc.fixturenames:
        everything = [(command, act) for command in COMMANDS for act in ACTS]
        pairs = everything if metafunc.config.getoption("--torture") else SAMPLE
        metafunc.parametrize(("command", "act"), pairs, ids=[f"{command}-{act.__name__}" for command, act in pairs])


def test_a_command_that_is_overtaken_goes_on_or_says_so(
    built: Path,
    tmp_path: Path,
    command: str,
    act: Callable[[Project], None],
    torture: bool,
    tally: Callable[[str, int], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = Refs.read
    tries = 0
    for number in range(1, 100 if torture else 3):
        folder = shutil.copytree(built, tmp_path / str(number), symlinks=True)
        project = Project(folder / "shop")
        overtaking = Overtaking(project, number, act)
        with monkeypatch.context() as patch:
            patch.setattr(Refs, "read", lambda refs, name, it=overtaking: it.read(refs, name, real))
            answer = project.seeknal(*shlex.split(command))
        assert is_welcome(answer), f"overtaken at {number}: exit {answer.code}\n{answer.text}"
        if overtaking.left > 0:
            break
        tries += overtaking.has_acted
        check = project.seeknal("store", "verify")
        assert check.code == 0, f"overtaken at {number}: {check.text}\n{answer.text}"
        shutil.rmtree(folder)
    tally("overtaken between reading a ref and following it", tries)


def is_welcome(answer: Answer) -> bool:
    if answer.code == 0:
        return True
    return answer.code in WELCOME and all(re.search(WELCOME[answer.code], line) for line in answer.errors)
