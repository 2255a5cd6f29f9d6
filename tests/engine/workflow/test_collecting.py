"""Collecting garbage in a project, also while others run, read and promote."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from seeknal.dag.project import Project
from seeknal.errors import BusyError, CorruptObjectError, PromotionRaceError
from seeknal.state.locks import FileLock
from seeknal.store.reach import Retention
from seeknal.workflow.checkup import check_store
from seeknal.workflow.collecting import collect_garbage, plan_garbage, retention_of
from seeknal.workflow.environment import EnvironmentManager
from seeknal.workflow.reading import TableReader
from seeknal.workflow.rollback import execute_rollback, plan_rollback
from tests.engine.workflow.projects import executed_in, run, transform, write, write_project

NOTHING_OLD = Retention(keep_last=1, keep_days=0, grace_hours=0)


def change(root: Path, value: object) -> None:
    write(root, "seeknal/a.yml", transform("a", f"SELECT {value} AS x"))


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A project whose a was 1 and is 2, with a reader."""
    root = write_project(tmp_path / "shop", {"seeknal/b.yml": transform("b", "SELECT x + 1 AS y FROM transform.a")})
    for value in (1, 2):
        change(root, value)
        assert run(root).status == "success"
    return root


def apply(root: Path, environment: str, value: object) -> EnvironmentManager:
    change(root, value)
    manager = EnvironmentManager(root / "target")
    manager.plan(environment)
    assert manager.apply(environment, parallel=False).success
    return manager


def test_after_collecting_the_project_is_whole_and_nothing_runs_again(shop: Path) -> None:
    project = Project.open(shop)
    _, done = collect_garbage(project, NOTHING_OLD)
    assert done.blob_bytes > 0
    assert check_store(project).findings == []
    assert executed_in(shop) == []
    assert (shop / "target/manifest.json").exists()
    assert (shop / "target/cache/transform/a.parquet").exists()
    change(shop, 1)
    assert executed_in(shop) == ["a", "b"]


def test_a_project_without_a_store_has_no_garbage_and_gets_no_store(tmp_path: Path) -> None:
    project = Project.open(write_project(tmp_path / "new", {}))
    assert plan_garbage(project, NOTHING_OLD).goes == []
    assert collect_garbage(project, NOTHING_OLD)[1].objects == 0
    assert not project.target.exists()


def test_the_settings_say_how_much_is_kept(shop: Path) -> None:
    (shop / "seeknal_project.yml").write_text("name: shop\nkeep_last: 3\nkeep_days: 0.5\n")
    assert retention_of(Project.open(shop)) == Retention(3, 0.5)


def test_one_process_collects_at_a_time(shop: Path) -> None:
    project = Project.open(shop)
    with FileLock(project.store().root / "locks/.gc", "seeknal gc"), pytest.raises(BusyError, match="seeknal gc"):
        collect_garbage(project, NOTHING_OLD)


def test_a_reader_keeps_what_it_opened(shop: Path) -> None:
    project = Project.open(shop)
    with TableReader.open(project.store(), "prod@1") as reader:
        collect_garbage(project, NOTHING_OLD)
        assert list(reader.query("SELECT y FROM b").values) == [("2",)]
    assert collect_garbage(project, NOTHING_OLD)[1].blob_bytes > 0


def test_a_promotion_of_what_was_deleted_and_collected_meanwhile_is_refused(shop: Path) -> None:
    manager = apply(shop, "dev", 3)
    promotion = manager.plan_promotion("dev")
    before = manager.store.refs.read("prod")
    manager.delete("dev")
    collect_garbage(manager.project, NOTHING_OLD)
    with pytest.raises(PromotionRaceError, match="'dev' was moved or deleted"):
        manager.execute_promotion(promotion)
    assert manager.store.refs.read("prod") == before
    assert check_store(manager.project).damage == []


def test_a_rollback_to_what_was_collected_meanwhile_is_refused(shop: Path) -> None:
    project = Project.open(shop)
    plan = plan_rollback(project.store(), "prod")
    collect_garbage(project, NOTHING_OLD)
    with pytest.raises(CorruptObjectError):
        execute_rollback(project, project.store(), plan)
    assert executed_in(shop) == []


def test_a_rollback_whose_lease_lasts_finds_its_target(shop: Path) -> None:
    project = Project.open(shop)
    store = project.store()
    with store.leases.hold("test") as lease:
        plan = plan_rollback(store, "prod", lease=lease)
        change(shop, 3)
        assert run(shop).status == "success"
        collect_garbage(project, NOTHING_OLD)
        entry = plan.change.changed["transform.a"]
        assert entry is not None
        assert store.read_tree(store.read_snapshot(plan.target.digest).tree).nodes["transform.a"] == entry
        assert store.is_whole(entry.artifact)
    collect_garbage(project, NOTHING_OLD)
    with pytest.raises(CorruptObjectError):
        store.read_snapshot(plan.target.digest)


def test_production_that_moved_is_told_also_where_its_old_state_is_gone(shop: Path) -> None:
    manager = apply(shop, "dev", 3)
    change(shop, 4)
    assert run(shop).status == "success"
    collect_garbage(manager.project, NOTHING_OLD)
    with pytest.raises(PromotionRaceError, match=r"production moved to .* not kept any more.* since 'dev' was planned"):
        manager.plan_promotion("dev")


RUNNER = """
import sys
from pathlib import Path
from tests.engine.workflow.projects import run
from tests.engine.workflow.test_collecting import change
for number in range(12):
    change(Path(sys.argv[1]), number % 3)
    result = run(Path(sys.argv[1]))
    assert result.status == "success", [str(p) for node in result.nodes for p in node.problems]
print("done")
"""

COLLECTOR = """
import sys
from pathlib import Path
from seeknal.dag.project import Project
from seeknal.workflow.collecting import collect_garbage
from tests.engine.workflow.test_collecting import NOTHING_OLD
project = Project.open(Path(sys.argv[1]))
print("ready", flush=True)
while True:
    collect_garbage(project, NOTHING_OLD)
"""


def test_runs_that_go_to_and_fro_lose_nothing_to_a_collector_beside_them(shop: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    command = [sys.executable, "-c"]
    with subprocess.Popen([*command, COLLECTOR, str(shop)], stdout=subprocess.PIPE, env=environment) as collector:
        assert collector.stdout is not None
        assert collector.stdout.readline() == b"ready\n"
        done = subprocess.run(
            [*command, RUNNER, str(shop)], capture_output=True, text=True, env=environment, timeout=120, check=False
        )
        assert collector.poll() is None
        # In the midst of whatever it does.
        collector.kill()
    assert done.stdout == "done\n", done.stderr
    project = Project.open(shop)
    assert check_store(project).damage == []
    collect_garbage(project, NOTHING_OLD)
    assert check_store(project).damage == []
