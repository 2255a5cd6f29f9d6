"""Several processes on one project: what they share, and what they do not take from each other."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from seeknal.dag.project import Project as OpenedProject
from seeknal.workflow.environment import EnvironmentManager
from seeknal.workflow.heads import environment_lock
from tests.acceptance.project import Project
from tests.cli.test_environments import built, shop, total
from tests.cli.test_waiting import start

__all__ = ["built", "shop"]

# Two nodes that say when they are executed; the second goes on when it may.
NODES = """\
import os
import time
from pathlib import Path
from seeknal.pipeline import transform

def executed(name):
    with open(name, "a") as file:
        file.write("x")

@transform(name="first")
def first(ctx):
    executed("first.log")
    return ctx.ref("source.orders")

@transform(name="second", inputs=["transform.first"])
def second(ctx):
    executed("second.log")
    while not Path("go").exists():
        time.sleep(0.01)
    return ctx.ref("transform.first")
"""


def executions(shop: Project, name: str) -> int:
    path = shop.root / f"{name}.log"
    return len(path.read_text()) if path.exists() else 0


def test_environments_run_together_and_share_what_is_built(shop: Project) -> None:
    shop.write("seeknal/9_nodes.py", NODES)
    for name in ("one", "two"):
        shop.ok("plan", name)
    runs = []
    for number, name in enumerate(("one", "two"), 1):
        # The other one comes when the first node is built, and the second just being built.
        runs.append(start(shop, "run", "--env", name, "--json"))
        while executions(shop, "second") < number:
            assert runs[-1].poll() is None, runs[-1].communicate()
            threading.Event().wait(0.02)
    shop.write("go", "")
    for process in runs:
        stdout, stderr = process.communicate(timeout=120)
        assert process.returncode == 0, stdout + stderr
    assert (executions(shop, "first"), executions(shop, "second")) == (1, 2)
    assert shop.rows("transform.second", "one") == shop.rows("transform.second", "two") != []
    assert shop.ok("store", "verify", "--json").document["status"] == "clean"
    shop.ok("promote", "one")
    assert executions(shop, "second") == 2


def test_environment_that_is_deleted_while_it_is_promoted_stays_deleted(shop: Project) -> None:
    manager = EnvironmentManager(shop.root / "target")
    promotion = manager.plan_promotion("dev")
    manager.delete("dev")
    manager.execute_promotion(promotion)
    assert [entry.name for entry in manager.list_environments()] == ["prod"]
    assert total(shop) == 30


@pytest.mark.parametrize("name", ["dev.record", "sweep", "gc"])
def test_no_name_of_an_environment_is_the_lock_of_something_else(shop: Project, name: str) -> None:
    store = OpenedProject.open(Path(shop.root)).store()
    with environment_lock(store, name, "test"):
        planned = threading.Thread(target=lambda: shop.ok("plan", "dev", "--summary"), daemon=True)
        planned.start()
        planned.join(60)
        assert not planned.is_alive()
        shop.ok("gc")
