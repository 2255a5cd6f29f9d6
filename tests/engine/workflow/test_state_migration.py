"""Moving the records of runs: nothing is lost, wherever it is cut short and whoever works meanwhile."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from seeknal.dag.project import Project
from seeknal.errors import BusyError, CorruptObjectError, NotFoundError, ProjectError, UsageError
from seeknal.state.backend import StateBackend, StateBackendError
from seeknal.workflow.heads import environment_lock
from seeknal.workflow.run_records import backend_in_force, open_backend, recording
from seeknal.workflow.session import run_purpose
from seeknal.workflow.state_migration import MigrationPlan, count_records, execute_migration, places, plan_migration
from tests.engine.workflow.projects import run, transform, write_project
from tests.store.state.libsql_servers import HranaServer

Everything = dict[str, Any]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A project that keeps two runs in files."""
    root = write_project(tmp_path / "shop", {"seeknal/a.yml": transform("a", "SELECT 1 AS n")})
    (root / "seeknal_project.yml").write_text("# ours\nname: shop # the shop\n")
    fill(root, "file", "r1", "r2")
    return root


def fill(root: Path, backend_type: str, *run_ids: str) -> None:
    with closing(open_backend(Project.open(root), backend_type, "test")) as backend:
        backend.initialize()
        for run_id in run_ids:
            backend.create_run(run_id, metadata={"by": backend_type}, who="mia")
            backend.set_node_state(run_id, "source.a", status="success", row_count=3, duration_ms=1.5, version=2)
            backend.add_completed_interval(run_id, "source.a", "2024-01-01", "2024-01-02")
            backend.add_completed_partition(run_id, "source.a", "2024-01")


def held(root: Path, backend_type: str | None = None) -> Everything:
    """All records of a backend; of the one in force where none is named."""
    project = Project.open(root)
    with closing(open_backend(project, backend_type or backend_in_force(project), "test")) as backend:
        return contents(backend)


def contents(backend: StateBackend) -> Everything:
    return {run_id: (backend.get_run(run_id), backend.get_all_node_states(run_id)) for run_id in backend.list_runs()}


def migrate(root: Path, target: Any) -> MigrationPlan:
    project = Project.open(root)
    return execute_migration(project, plan_migration(project, target))


def test_migration_moves_everything_and_switches(root: Path) -> None:
    before = held(root)
    migrate(root, "database")
    assert (root / "seeknal_project.yml").read_text() == "# ours\nname: shop # the shop\nstate_backend: database\n"
    assert backend_in_force(Project.open(root)) == "database"
    assert held(root) == before
    assert held(root, "file") == {}
    migrate(root, "file")
    assert (root / "seeknal_project.yml").read_text() == "# ours\nname: shop # the shop\nstate_backend: file\n"
    assert held(root) == before
    assert held(root, "database") == {}


def test_planning_and_counting_write_nothing(root: Path) -> None:
    before = sorted(path.stat().st_mtime_ns for path in root.rglob("*"))
    plan = plan_migration(Project.open(root), "database")
    assert plan.is_needed
    assert (plan.to_copy.runs, plan.to_copy.rows) == (2, 8)
    counts = count_records(Project.open(root))
    assert (counts["file"].rows, counts["database"].rows) == (8, 0)
    assert sorted(path.stat().st_mtime_ns for path in root.rglob("*")) == before


def test_migration_to_where_the_records_are_does_nothing(root: Path) -> None:
    project = (root / "seeknal_project.yml").read_text()
    assert not migrate(root, "file").is_needed
    assert (root / "seeknal_project.yml").read_text() == project
    assert not (root / "target" / "state.db").exists()


def test_project_without_records_is_told_so(tmp_path: Path) -> None:
    root = write_project(tmp_path, {})
    with pytest.raises(NotFoundError, match="no run was recorded yet"):
        migrate(root, "database")
    assert not (root / "target").exists()


def test_records_that_only_the_target_has_stay_there(root: Path) -> None:
    fill(root, "database", "r2", "mine")
    before = held(root)
    only = held(root, "database")["mine"]
    plan = migrate(root, "database")
    assert (plan.copy.different, plan.copy.only_in_target) == (("r2",), ("mine",))
    assert held(root) == {**before, "mine": only}


def test_records_left_in_the_old_backend_are_brought_over_without_harm(root: Path) -> None:
    migrate(root, "database")
    before = held(root)
    fill(root, "file", "r1", "late")
    late = held(root, "file")
    plan = migrate(root, "database")
    assert plan.copy.different == ("r1",)
    assert held(root) == {**before, "late": late["late"]}
    assert held(root, "file") == {"r1": late["r1"]}


def test_variable_that_would_undo_the_switch_is_refused(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEEKNAL_STATE_BACKEND", "file")
    with pytest.raises(UsageError, match="overrides the project file"):
        migrate(root, "database")
    monkeypatch.setenv("SEEKNAL_STATE_BACKEND", "database")
    migrate(root, "database")
    monkeypatch.delenv("SEEKNAL_STATE_BACKEND")
    assert set(held(root)) == {"r1", "r2"}


def test_migration_is_refused_while_a_run_goes_on(root: Path) -> None:
    before = held(root)
    project = Project.open(root)
    refused = pytest.raises(BusyError, match=r"records of runs is locked by seeknal run --env dev \(process \d+ ")
    with environment_lock(project.store(), "dev", run_purpose("dev")), recording(project, None), refused:
        migrate(root, "database")
    assert held(root) == before
    migrate(root, "database")


def test_run_that_was_opened_before_the_migration_records_where_the_records_are_now(root: Path) -> None:
    opened = Project.open(root)
    migrate(root, "database")
    with recording(opened, "late") as records:
        records.create_run("late")
    assert set(held(root)) == {"r1", "r2", "late"}
    assert held(root, "file") == {}


def test_damaged_records_stop_the_migration_before_anything_is_switched(root: Path) -> None:
    (root / "target" / "runs" / "r2.json").write_text("{")
    with pytest.raises(CorruptObjectError, match=r"r2\.json"):
        migrate(root, "database")
    assert backend_in_force(Project.open(root)) == "file"
    assert not (root / "target" / "state.db").exists()


def test_copy_that_went_wrong_is_not_switched_to(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from seeknal.state.database_backend import DatabaseBackend

    before = held(root)
    add = DatabaseBackend.set_node_state

    def forget(self: DatabaseBackend, run_id: str, node_id: str, state: Any = None, **changes: Any) -> None:
        add(self, run_id, node_id, {**state, "row_count": 4}, **changes)

    monkeypatch.setattr(DatabaseBackend, "set_node_state", forget)
    with pytest.raises(CorruptObjectError, match="not copied as they are"):
        migrate(root, "database")
    monkeypatch.undo()
    assert backend_in_force(Project.open(root)) == "file"
    assert held(root) == before
    migrate(root, "database")
    assert held(root) == before


def test_runs_are_recorded_in_the_database_and_the_views_go_on(root: Path) -> None:
    migrate(root, "database")
    result = run(root)
    records = held(root)
    assert set(records) == {"r1", "r2", result.run_id}
    run_record, nodes = records[result.run_id]
    assert (run_record["status"], run_record["config"]) == ("success", {"environment": "prod"})
    assert nodes["transform.a"]["row_count"] == 1
    assert held(root, "file") == {}
    for view in ("run_state.json", "manifest.json", "cache/transform/a.parquet", "intermediate/transform_a.parquet"):
        assert (root / "target" / view).is_file()


# Migrates in a child for each step, which is killed before that step; then checks what is left, and finishes it.
KILL = """
import os, shutil, signal, sys
from contextlib import closing
from pathlib import Path
from seeknal.dag.project import Project
from seeknal.state.database_connection import SqliteConnection
from seeknal.workflow.run_records import backend_in_force, open_backend
from seeknal.workflow.state_migration import execute_migration, plan_migration

root, target = Path(sys.argv[1]), sys.argv[2]

def held(folder):
    project = Project.open(folder)
    with closing(open_backend(project, backend_in_force(project), "test")) as backend:
        return {id: (backend.get_run(id), backend.get_all_node_states(id)) for id in backend.list_runs()}

def migrate(folder):
    project = Project.open(folder)
    execute_migration(project, plan_migration(project, target))

def killed_at(step):
    left = step
    def counting(change):
        def counted(*arguments, **options):
            nonlocal left
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return change(*arguments, **options)
        return counted
    os.replace, os.fsync = counting(os.replace), counting(os.fsync)
    Path.unlink = counting(Path.unlink)
    execute, counted = SqliteConnection.execute, counting(SqliteConnection.execute)
    SqliteConnection.execute = lambda self, statement, values=(): (
        execute if statement.startswith(("SELECT", "PRAGMA")) else counted)(self, statement, values)

before = held(root)
seen = []
# Every other step, to save time: what comes between two of them is one write.
for step in range(1, 1000, 2):
    copy = root.with_name(f"copy-{step}")
    shutil.copytree(root, copy)
    child = os.fork()
    if not child:
        killed_at(step)
        migrate(copy)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    assert held(copy) == before, f"killed before step {step}"
    seen.append(backend_in_force(Project.open(copy)))
    migrate(copy)
    assert held(copy) == before and backend_in_force(Project.open(copy)) == target, step
    other = "file" if target == "database" else "database"
    with closing(open_backend(Project.open(copy), other, "test")) as backend:
        assert backend.list_runs() == [], step
    if not any(path.name == ".seeknal_project.yml.new" for path in copy.iterdir()):
        shutil.rmtree(copy)
    else:
        raise AssertionError(f"left over after step {step}")
    if status == 0:
        break
print(*seen)
"""


@pytest.mark.parametrize("target", ["database", "file"])
def test_migration_killed_at_any_step_leaves_one_backend_whole_and_a_repeat_finishes(root: Path, target: str) -> None:
    if target == "file":
        migrate(root, "database")
    done = subprocess.run(
        [sys.executable, "-c", KILL, root, target],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    assert done.returncode == 0, done.stderr
    in_force = done.stdout.split()
    source = "file" if target == "database" else "database"
    # The old one up to some step, the new one from then on.
    switched = in_force.index(target)
    assert 5 < switched < len(in_force) - 1
    assert set(in_force[:switched]) == {source}
    assert set(in_force[switched:]) == {target}


RUN = """
import sys
from pathlib import Path
from seeknal.dag.project import Project
from seeknal.workflow.results import RunOptions
from seeknal.workflow.session import Session
for number in range(2):
    with Session.open(Project.open(Path(sys.argv[1]))) as session:
        result = session.run(sys.argv[2], RunOptions(full=True))
        assert result.status == "success"
        print(result.run_id)
"""


def test_runs_of_several_processes_are_all_recorded_in_one_database(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEEKNAL_STATE_BACKEND", "database")
    started = [
        subprocess.Popen(
            [sys.executable, "-c", RUN, root, environment],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        for environment in ("prod", "dev", "staging")
    ]
    run_ids: list[str] = []
    for process in started:
        output, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
        run_ids += output.split()
    records = held(root)
    assert sorted(records) == sorted(run_ids)
    assert len(run_ids) == 6
    assert all(set(nodes) == {"transform.a"} for _, nodes in records.values())


def test_run_with_damaged_records_executes_nothing(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEEKNAL_STATE_BACKEND", "database")
    (root / "target" / "state.db").write_bytes(b"not a database" * 100)
    with pytest.raises(CorruptObjectError, match="damaged"):
        run(root)
    assert list((root / "target").rglob("*.parquet")) == []


def test_run_that_is_to_be_recorded_on_a_server_that_is_away_executes_nothing(root: Path) -> None:
    with (root / "seeknal_project.yml").open("a") as file:
        file.write("state_backend: database\nstate_database: http://127.0.0.1:9\n")
    with pytest.raises(StateBackendError, match="does not answer"):
        run(root)
    assert list((root / "target").rglob("*.parquet")) == []


def test_records_move_to_a_server_and_back_and_its_token_is_not_told(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = HranaServer()
    try:
        server.token = "canary"
        monkeypatch.setenv("SEEKNAL_STATE_DATABASE", f"{server.url(root / 'server.db')}&authToken=canary")
        before = held(root)
        assert "canary" not in str(places(Project.open(root)))
        migrate(root, "database")
        assert held(root) == before != {}
        assert run(root).status == "success"
        migrate(root, "file")
        assert before.items() <= held(root).items()
    finally:
        server.close()


def test_backend_that_there_is_not_is_told_where_it_is_named(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (root / "seeknal_project.yml").open("a") as file:
        file.write("state_backend: foo\n")
    with pytest.raises(ProjectError) as caught:
        run(root)
    (problem,) = caught.value.problems()
    line = len((root / "seeknal_project.yml").read_text().splitlines())
    assert str(problem.place) == f"seeknal_project.yml:{line}:1"
    assert problem.message == "there is no state backend 'foo'"
    monkeypatch.setenv("SEEKNAL_STATE_BACKEND", "bar")
    with pytest.raises(UsageError, match="SEEKNAL_STATE_BACKEND: there is no state backend 'bar'"):
        run(root)


def test_database_stands_where_the_project_says(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (root / "seeknal_project.yml").open("a") as file:
        file.write("state_database: records/runs.db\n")
    migrate(root, "database")
    assert (root / "records" / "runs.db").is_file()
    assert not (root / "target" / "state.db").exists()
    monkeypatch.setenv("SEEKNAL_STATE_DATABASE", str(root / "other.db"))
    assert held(root) == {}
