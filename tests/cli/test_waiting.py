"""`--wait`: commands that find another at work, in processes of their own."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner
from msgspec.structs import replace

from seeknal.cli.waiting import WaitingCommand, wait_option
from seeknal.dag.project import Project as OpenedProject
from seeknal.state.locks import FileLock
from seeknal.workflow.heads import environment_lock
from seeknal.workflow.run_records import records_lock
from tests.acceptance.project import COMMAND, Project
from tests.cli.test_environments import built, shop, total

__all__ = ["built", "shop"]

Hold = Callable[[Project], AbstractContextManager[Any]]


def environment(name: str) -> Hold:
    return lambda shop: environment_lock(OpenedProject.open(shop.root).store(), name, "test")


def collection(shop: Project) -> AbstractContextManager[Any]:
    return FileLock(shop.root / "target/store/locks/.gc", "test")


def migration(shop: Project) -> AbstractContextManager[Any]:
    return records_lock(OpenedProject.open(shop.root), "test", shared=False)


@contextmanager
def run_elsewhere(shop: Project) -> Iterator[None]:
    project = OpenedProject.open(shop.root)
    records = records_lock(project, "seeknal run", shared=True)
    with environment_lock(project.store(), "dev", "seeknal run --env dev"), records:
        yield


def damage(shop: Project) -> None:
    shop.write("target/store/refs/prod", "no digest\n")


def second_state(shop: Project) -> None:
    shop.ok("promote", "dev")


def nothing(shop: Project) -> None:
    return


# Command, what makes it wait, and what to do before.
COMMANDS: dict[str, tuple[tuple[str, ...], Hold, Callable[[Project], None]]] = {
    "run": (("run",), environment("prod"), nothing),
    "run during a migration": (("run",), migration, nothing),
    "env apply": (("env", "apply", "dev"), environment("dev"), nothing),
    "promote": (("promote", "dev"), environment("prod"), nothing),
    "rollback": (("rollback", "prod"), environment("prod"), second_state),
    "env delete": (("env", "delete", "dev"), environment("dev"), nothing),
    "gc": (("gc",), collection, nothing),
    "migrate-state": (("migrate-state", "--backend", "database", "--no-dry-run"), run_elsewhere, nothing),
    "store verify": (("store", "verify", "--repair"), environment("prod"), damage),
}


def start(shop: Project, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*COMMAND, *arguments],
        cwd=shop.root,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def waits(process: subprocess.Popen[str]) -> str:
    """Read up to where a process says that it waits."""
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("waiting for "):
            return line
    raise AssertionError(f"exit {process.wait()} without waiting")


@pytest.mark.parametrize(("command", "hold", "before"), list(COMMANDS.values()), ids=list(COMMANDS))
def test_a_command_is_refused_at_once_or_waits_and_goes_on_by_itself(
    shop: Project, command: tuple[str, ...], hold: Hold, before: Callable[[Project], None]
) -> None:
    before(shop)
    with hold(shop):
        refused = shop.seeknal(*command)
        assert refused.code == 11, refused.text
        assert "is locked by " in refused.text
        assert "UTC)" in refused.text
        waiting = start(shop, *command, "--wait")
        said = waits(waiting)
        assert "is locked by " in said
        assert said.endswith(" UTC); Ctrl-C stops waiting\n")
        assert waiting.poll() is None
    stdout, stderr = waiting.communicate(timeout=120)
    assert waiting.returncode == 0, stdout + stderr
    assert "waiting for" not in stderr


def test_ctrl_c_ends_the_waiting_cleanly(shop: Project) -> None:
    with environment("dev")(shop):
        before = shop.state()
        waiting = start(shop, "run", "--env", "dev", "--full", "--wait")
        waits(waiting)
        waiting.send_signal(signal.SIGINT)
        _, stderr = waiting.communicate(timeout=60)
        assert (waiting.returncode, stderr.strip()) == (130, "interrupted")
        assert shop.state() == before


def test_waiting_has_an_end(shop: Project) -> None:
    with environment("prod")(shop):
        answer = shop.seeknal("promote", "dev", "--wait", "0.2s")
    assert answer.code == 11
    assert answer.errors[0].endswith("; waited 0.2 s")


def test_who_waits_goes_on_when_the_holder_is_killed(shop: Project, tmp_path: Path) -> None:
    shop.write("seeknal/9_slow.py", SLOW)
    running = start(shop, "run")
    while not (shop.root / "started").exists():
        assert running.poll() is None, running.communicate()
    waiting = start(shop, "promote", "dev", "--wait", "2m")
    assert f"is locked by seeknal run (process {running.pid} on " in waits(waiting)
    running.kill()
    running.communicate(timeout=60)
    stdout, stderr = waiting.communicate(timeout=120)
    assert waiting.returncode == 0, stdout + stderr
    assert total(shop) == 30


SLOW = """\
import time
from pathlib import Path
from seeknal.pipeline import transform

@transform(name="slow")
def slow(ctx):
    Path("started").touch()
    time.sleep(100)
"""


def test_a_run_that_waited_is_one_of_the_files_as_they_are_then(shop: Project) -> None:
    with environment("prod")(shop):
        waiting = start(shop, "run", "--wait")
        waits(waiting)
        shop.replace("seeknal/2_clean.yml", "amount * 2", "amount * 3")
    stdout, stderr = waiting.communicate(timeout=120)
    assert waiting.returncode == 0, stdout + stderr
    assert total(shop) == 45


def test_a_promotion_that_waited_for_another_is_told_what_moved(shop: Project) -> None:
    shop.replace("seeknal/3_total.yml", "sum(amount)", "max(amount)")
    shop.ok("plan", "other")
    shop.ok("run", "--env", "other")
    with environment("prod")(shop):
        waiting = start(shop, "promote", "other", "--wait")
        waits(waiting)
        # As the other promotion does, before it delivers.
        store = OpenedProject.open(shop.root).store()
        stood, source = store.refs.read("prod"), store.refs.read("dev")
        assert source is not None
        dev = store.write_snapshot(replace(store.read_snapshot(source), environment="prod", parent=stood))
        store.refs.compare_and_swap("prod", stood, dev, who="ann", why="promoted from dev")
        at_once = shop.seeknal("promote", "other")
    stdout, stderr = waiting.communicate(timeout=120)
    assert (at_once.code, waiting.returncode) == (4, 4), stdout + stderr
    for said in (at_once.stderr, stderr):
        assert f"production moved to {dev[:12]} " in said
        assert "nodes that differ: transform.clean, transform.total" in said
        assert "`seeknal plan other`, `seeknal run --env other`" in said
    assert store.refs.read("prod") == dev


@click.command(cls=WaitingCommand)
@click.argument("names", nargs=-1)
@click.option("--force", is_flag=True)
@wait_option
def command(names: tuple[str, ...], wait: float, force: bool) -> None:
    click.echo(f"{' '.join(names)}|{wait}")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("dev", "dev|0.0"),
        ("--wait", "|inf"),
        ("--wait dev", "dev|inf"),
        ("dev --wait --force", "dev|inf"),
        ("--wait 30s dev", "dev|30.0"),
        ("--wait=5m dev", "dev|300.0"),
        ("--wait 1.5h", "|5400.0"),
        ("--wait 7", "|7.0"),
        ("-- --wait", "--wait|0.0"),
    ],
)
def test_a_time_behind_wait_may_be_left_out(arguments: str, said: str) -> None:
    assert CliRunner().invoke(command, arguments.split()).output == f"{said}\n"


def test_a_time_that_is_none_is_refused() -> None:
    answer = CliRunner().invoke(command, ["--wait=soon"])
    assert answer.exit_code == 2
    assert "'soon' is no time; write it like 30s, 5m or 1h" in answer.output
