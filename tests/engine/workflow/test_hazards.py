"""What may happen between two steps: files that change while they are read, processes that die, runs of a part."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest

from seeknal.dag.manifest import Manifest
from seeknal.dag.project import Project
from seeknal.errors import BusyError, PromotionRaceError, SeeknalError, UsageError
from seeknal.store.objects import Tree
from seeknal.store.store import Store
from seeknal.workflow import session as session_module
from seeknal.workflow.environment import EnvironmentManager
from seeknal.workflow.results import RunOptions
from seeknal.workflow.runner import DAGRunner
from seeknal.workflow.selection import Filters, select
from seeknal.workflow.session import Session
from seeknal.workflow.settled import settled_run
from seeknal.workflow.summary import ExecutionStatus, NodeResult
from seeknal.workflow.worker import close_workbenches, execute
from tests.engine.workflow.projects import executed_in, run, transform, write, write_project
from tests.store.store.failing_disk import disk

DOUBLED, TRIPLED, FIVEFOLD = (f"SELECT id, amount * {n} AS total FROM source.orders" for n in (2, 3, 5))
SOURCE = "kind: source\nname: orders\nsource: csv\ntable: data/orders.csv\n"
EXPOSURE = "kind: exposure\nname: out\ntype: file\npath: output/{}.csv\ninputs:\n- ref: transform.summary\n"


class Killed(BaseException):
    """The process ended here; nothing of ours may catch it."""


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Path]:
    """orders (csv: 10, 20) → clean (twice the amount) → summary (their sum) → out (a file)."""
    yield write_project(
        tmp_path / "shop",
        {
            "data/orders.csv": "id,amount\n1,10\n2,20\n",
            "seeknal/orders.yml": SOURCE,
            "seeknal/clean.yml": transform("clean", DOUBLED),
            "seeknal/summary.yml": transform("summary", "SELECT sum(total) AS s FROM transform.clean"),
            "seeknal/out.yml": EXPOSURE.format("out"),
        },
    )
    close_workbenches()


def define_clean(root: Path, sql: str) -> None:
    write(root, "seeknal/clean.yml", transform("clean", sql))


def manager_of(root: Path) -> EnvironmentManager:
    return EnvironmentManager(root / "target")


def planned_and_applied(root: Path, environment: str = "dev") -> EnvironmentManager:
    manager = manager_of(root)
    manager.plan(environment)
    assert manager.apply(environment, parallel=False).success
    return manager


def tree_of(store: Store, environment: str = "prod") -> Tree:
    head = store.head(environment)
    assert head is not None
    return store.read_tree(head.tree)


def values(root: Path, column: str, node_id: str, environment: str = "prod") -> list[Any]:
    """One column of a node's output, sorted."""
    store = Project.open(root).store()
    paths = [str(store.blob_path(part)) for part in tree_of(store, environment).nodes[node_id].artifact.parts]
    query = f"SELECT {column} FROM read_parquet($1) ORDER BY 1"
    return [value for (value,) in duckdb.execute(query, [paths]).fetchall()]


def recorded_actions(root: Path) -> list[Path]:
    return [path for path in (root / "target/store/actions").rglob("*") if path.is_file()]


class TestSourcesThatChangeWhileTheyAreRead:
    def test_worker_by_itself_remembers_nothing_so_its_caller_may_die(self, shop: Path) -> None:
        with Session.open(Project.open(shop)) as session:
            session.store.prepare()
            everything = select(session.manifest, Filters(), set())
            resolver = session.resolver(session.base("prod"), everything, full=False)
            assert resolver.decide("source.orders").action == "miss"
            task = resolver.task("source.orders", run_id="r", project_root=str(shop), threads=1, memory_limit_bytes=0)
            write(shop, "data/orders.csv", "id,amount\n1,999\n")
            outcome = execute(task)
        assert outcome.artifact is None
        assert outcome.failure is not None
        assert "changed while it was read" in outcome.failure.message
        assert recorded_actions(shop) == []

    def test_runner_does_not_lead_the_old_content_to_the_new_rows(self, shop: Path) -> None:
        class Meddling(DAGRunner):
            def _execute_node(self, node_id: str, dry_run: bool = False) -> NodeResult:
                if node_id == "source.orders":
                    write(shop, "data/orders.csv", "id,amount\n1,777\n")
                return super()._execute_node(node_id, dry_run)

        with Session.open(Project.open(shop)) as session:
            session.show_manifest()
        summary = Meddling(Manifest.load(shop / "target/manifest.json")).run()
        assert {r.node_id: r.status for r in summary.results}["source.orders"] is ExecutionStatus.FAILED
        write(shop, "data/orders.csv", "id,amount\n1,10\n2,20\n")
        assert "orders" in executed_in(shop)
        assert values(shop, "amount", "source.orders") == [10, 20]


def test_time_zone_of_the_machine_changes_no_output(shop: Path) -> None:
    for name in ("summary", "out"):
        (shop / f"seeknal/{name}.yml").unlink()
    write(shop, "data/orders.csv", "id,ts\n1,2024-01-01 00:00:00\n")
    write(
        shop,
        "seeknal/orders.yml",
        SOURCE + "schema: [{name: id, data_type: integer}, {name: ts, data_type: timestamp}]\n",
    )
    define_clean(shop, "SELECT id, epoch(CAST(ts AS TIMESTAMPTZ)) AS e FROM source.orders")
    heads = []
    for zone in ("America/New_York", "Asia/Tokyo"):
        command = [sys.executable, "-m", "seeknal.cli.main", "run", "--full"]
        subprocess.run(command, cwd=shop, env={**os.environ, "TZ": zone}, check=True, capture_output=True)
        heads.append(Project.open(shop).store().refs.read("prod"))
    assert heads[0] == heads[1]
    assert values(shop, "e", "transform.clean") == [1704067200.0]


def test_run_of_a_selection_where_nothing_changed_moves_no_ref(shop: Path) -> None:
    run(shop)
    head = Project.open(shop).store().refs.read("prod")
    assert run(shop, filters=Filters(types=["source"])).snapshot == head


def test_runner_knows_a_node_that_a_failed_run_before_never_reached(shop: Path) -> None:
    always_fails = "SELECT error('boom' || sum(total)) AS s FROM transform.clean"
    write(shop, "seeknal/summary.yml", transform("summary", always_fails))
    with Session.open(Project.open(shop)) as session:
        session.show_manifest()
    manifest = Manifest.load(shop / "target/manifest.json")
    assert DAGRunner(manifest).run().failed_nodes == 1
    again = DAGRunner(manifest).run(nodes=["summary"])
    status = {result.node_id: result.status for result in again.results}
    assert status["transform.summary"] is ExecutionStatus.FAILED
    assert status["exposure.out"] is ExecutionStatus.SKIPPED


class TestWhatMayBePromoted:
    def test_run_of_a_selection_leaves_what_is_behind_unpromoted(self, shop: Path) -> None:
        run(shop)
        define_clean(shop, TRIPLED)
        manager = planned_and_applied(shop)
        write(shop, "data/orders.csv", "id,amount\n1,1000\n2,2000\n")
        with manager.applying("dev") as applying:
            assert applying.run(RunOptions(filters=Filters(types=["source"]))).success
        before = manager.store.refs.read("prod")
        with pytest.raises(SeeknalError, match=r"out of date: .*transform\.clean"):
            manager.promote("dev")
        assert manager.store.refs.read("prod") == before
        manager.apply("dev", parallel=False)
        manager.promote("dev")
        assert values(shop, "total", "transform.clean") == [3000, 6000]

    def test_run_of_a_selection_does_not_make_a_plan_applied(self, shop: Path) -> None:
        run(shop)
        define_clean(shop, TRIPLED)
        manager = manager_of(shop)
        manager.plan("dev")
        with manager.applying("dev") as applying:
            assert applying.run(RunOptions(filters=Filters(types=["source"]))).success
        assert [e.status for e in manager.list_environments() if e.name == "dev"] == ["planned"]
        with pytest.raises(SeeknalError, match="has not been applied"):
            manager.promote("dev")

    def test_crash_after_the_ref_moved_to_stale_outputs_leaves_them_unpromoted(
        self, shop: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        large_is_wrong = "sum(CAST(CASE WHEN total > 100 THEN 'x' ELSE '0' END AS INT))"
        write(shop, "seeknal/summary.yml", transform("summary", f"SELECT {large_is_wrong} AS s FROM transform.clean"))
        run(shop)
        manager = planned_and_applied(shop)
        write(shop, "data/orders.csv", "id,amount\n1,1000\n2,2000\n")
        before = manager.store.refs.read("dev")

        def die(*_: object, **__: object) -> list[str]:
            raise Killed

        with monkeypatch.context() as patched:
            patched.setattr(session_module, "show_environment", die)
            with pytest.raises(Killed):
                manager.apply("dev", parallel=False, continue_on_error=True)
        assert manager.store.refs.read("dev") != before
        assert [e.status for e in manager.list_environments() if e.name == "dev"] == ["applied"]
        with pytest.raises(SeeknalError, match=r"out of date: .*transform\.summary"):
            manager.promote("dev")

    @pytest.mark.parametrize("node_id", ["transform.clean", "exposure.out"])
    def test_output_whose_bytes_are_lost_keeps_production_where_it_is(self, shop: Path, node_id: str) -> None:
        run(shop)
        define_clean(shop, TRIPLED)
        manager = planned_and_applied(shop)
        for blob in tree_of(manager.store, "dev").nodes[node_id].artifact.blobs():
            path = manager.store.blob_path(blob)
            path.chmod(0o644)
            os.truncate(path, 1)
        before = manager.store.refs.read("prod")
        with pytest.raises(SeeknalError, match=f"output of {node_id} is damaged"):
            manager.promote("dev")
        assert manager.store.refs.read("prod") == before
        assert (shop / "output/out.csv").read_text().splitlines() == ["s", "60"]
        # As the hint says: a run makes what is missing again.
        manager.apply("dev", parallel=False)
        manager.promote("dev")
        assert (shop / "output/out.csv").read_text().splitlines() == ["s", "90"]

    def test_same_outputs_of_another_definition_are_another_state(self, shop: Path) -> None:
        run(shop)
        manager = planned_and_applied(shop)
        write(shop, "seeknal/out.yml", EXPOSURE.format("new"))
        run(shop)
        (shop / "output/out.csv").unlink()
        with pytest.raises(PromotionRaceError, match="production moved"):
            manager.promote("dev")
        assert sorted(os.listdir(shop / "output")) == ["new.csv"]
        assert Manifest.load(shop / "target/manifest.json").nodes["exposure.out"].config["path"] == "output/new.csv"


class TestPlans:
    def test_run_of_another_node_keeps_a_breaking_change_in_the_plan(self, shop: Path) -> None:
        run(shop)
        define_clean(shop, "SELECT amount * 2 AS total FROM source.orders")
        write(shop, "seeknal/other.yml", transform("other", "SELECT count(*) AS n FROM source.orders"))
        before = manager_of(shop).plan("dev").categorized_changes
        assert before["transform.clean"] == "breaking"
        run(shop, filters=Filters(nodes=["other"]))
        after = manager_of(shop).plan("dev").categorized_changes
        assert after == {node_id: category for node_id, category in before.items() if node_id != "transform.other"}

    def test_runner_of_a_selection_keeps_a_breaking_change_in_the_plan(self, shop: Path) -> None:
        run(shop)
        define_clean(shop, "SELECT amount * 2 AS total FROM source.orders")
        before = manager_of(shop).plan("dev").categorized_changes
        with Session.open(Project.open(shop)) as session:
            session.show_manifest()
        DAGRunner(Manifest.load(shop / "target/manifest.json")).run(node_types=["source"])
        assert before["transform.clean"] == "breaking"
        assert manager_of(shop).plan("dev").categorized_changes == before

    def test_removed_nodes_that_had_readers_are_breaking_down_to_the_promotion(self, shop: Path) -> None:
        run(shop)
        for name in ("clean", "summary", "out"):
            (shop / f"seeknal/{name}.yml").unlink()
        manager = planned_and_applied(shop)
        plan = manager.plan_promotion("dev")
        assert plan.categories() == {
            "transform.clean": "breaking",
            "transform.summary": "breaking",
            "exposure.out": "non_breaking",
        }
        assert set(plan.changed_nodes()) == set(plan.categories())
        assert plan.is_breaking

    def test_plan_made_during_an_apply_is_kept_and_stays_planned(self, shop: Path) -> None:
        run(shop)
        manager = manager_of(shop)
        manager.plan("dev")
        with manager.applying("dev") as applying:
            define_clean(shop, TRIPLED)
            newest = manager_of(shop).plan("dev")
            assert applying.run(RunOptions()).success
        (environment,) = (e for e in manager.list_environments() if e.name == "dev")
        assert environment.plan is not None
        assert (environment.status, environment.plan.manifest_fingerprint) == ("planned", newest.manifest_fingerprint)

    def test_plan_made_during_a_promotion_is_kept_and_not_taken_for_promoted(self, shop: Path) -> None:
        run(shop)
        define_clean(shop, TRIPLED)
        manager = planned_and_applied(shop)
        promotion = manager.plan_promotion("dev")
        define_clean(shop, FIVEFOLD)
        newest = manager.plan("dev")
        manager.apply("dev", parallel=False)
        manager.execute_promotion(promotion)
        assert values(shop, "total", "transform.clean") == [30, 60]
        (environment,) = (e for e in manager.list_environments() if e.name == "dev")
        assert environment.plan is not None
        assert (environment.status, environment.plan.manifest_fingerprint) == ("applied", newest.manifest_fingerprint)

    def test_looking_with_force_leaves_the_plan_as_it_is(self, shop: Path) -> None:
        run(shop)
        manager = planned_and_applied(shop)
        record = manager.store.read_environment("dev")
        define_clean(shop, TRIPLED)
        looked = manager.apply("dev", force=True, dry_run=True)
        assert "transform.clean" in looked.nodes_to_execute
        assert manager.store.read_environment("dev") == record

    def test_node_that_binds_no_more_stops_neither_the_others_nor_the_plan(self, tmp_path: Path) -> None:
        root = write_project(
            tmp_path / "pivot",
            {
                "data/orders.csv": "id,amount\n1,10\n2,20\n",
                "seeknal/orders.yml": SOURCE,
                "seeknal/wide.yml": transform("wide", "PIVOT source.orders ON id USING sum(amount)"),
                "seeknal/reader.yml": transform("reader", 'SELECT "2" AS two FROM transform.wide'),
                "seeknal/count.yml": transform("count", "SELECT count(*) AS n FROM source.orders"),
            },
        )
        assert run(root).status == "success"
        write(root, "data/orders.csv", "id,amount\n1,10\n3,20\n")
        run(root, continue_on_error=True)
        write(root, "seeknal/count.yml", transform("count", "SELECT count(*) + 100 AS n FROM source.orders"))
        result = run(root, continue_on_error=True)
        assert {n.node_id: n.status for n in result.nodes if n.status in ("success", "failed")} == {
            "transform.count": "success",
            "transform.reader": "failed",
        }
        assert values(root, "n", "transform.count") == [102]
        change = manager_of(root).plan("dev").change
        assert change is not None
        assert any("transform.reader" in str(problem) for problem in change.problems)


def test_environment_whose_record_is_damaged_can_be_removed_and_planned_again(shop: Path) -> None:
    run(shop)
    manager = planned_and_applied(shop)
    (shop / "target/store/environments/dev").write_text("x")
    manager.delete("dev")
    assert manager.store.refs.read("dev") is None
    planned_and_applied(shop)
    assert [e.status for e in manager.list_environments()] == ["applied", "applied"]


def test_session_that_read_the_project_before_another_moved_production_is_refused(shop: Path) -> None:
    run(shop)
    with Session.open(Project.open(shop)) as late:
        define_clean(shop, TRIPLED)
        run(shop)
        with pytest.raises(BusyError, match="moved by another process"):
            late.run("prod", RunOptions())
    assert values(shop, "total", "transform.clean") == [30, 60]
    assert (shop / "output/out.csv").read_text().splitlines() == ["s", "90"]


def test_output_that_was_lost_and_built_again_survives_a_power_cut(shop: Path) -> None:
    run(shop)
    store = Project.open(shop).store()
    head = store.refs.read("prod")
    artifact = tree_of(store).nodes["transform.clean"].artifact
    store.blob_path(artifact.parts[0]).unlink()
    with disk(store.root, None, syncfs=False) as watched:
        assert executed_in(shop) == ["clean"]
        # The tree is the same as before, so there is no new snapshot that would bring its own sync.
        assert store.refs.read("prod") == head
        watched.cut_power()
    assert store.is_whole(artifact)


def test_delivery_that_was_forgotten_and_lost_is_made_again(shop: Path) -> None:
    run(shop)
    project = Project.open(shop)
    assert settled_run(project.root, publish=True) is not None
    (shop / "target/store/deliveries/prod").unlink()
    (shop / "output/out.csv").unlink()
    assert settled_run(project.root, publish=True) is None
    assert executed_in(shop) == []
    assert (shop / "output/out.csv").read_text().splitlines() == ["s", "60"]


def test_run_id_that_was_used_is_refused_before_anything_runs(shop: Path) -> None:
    run(shop, run_id="monday")
    define_clean(shop, TRIPLED)
    head = Project.open(shop).store().refs.read("prod")
    before = recorded_actions(shop)
    with pytest.raises(UsageError, match="run 'monday' already"):
        run(shop, run_id="monday")
    assert recorded_actions(shop) == before
    assert Project.open(shop).store().refs.read("prod") == head
    assert run(shop, run_id="tuesday").run_id == "tuesday"
