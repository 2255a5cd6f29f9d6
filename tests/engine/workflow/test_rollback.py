"""History and rollback: every move leaves a state that can be read, named and gone back to, as one pointer."""

from __future__ import annotations

import shutil
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from seeknal.dag.parameters import RunParameters, given_parameters
from seeknal.dag.project import Project
from seeknal.errors import BusyError, CorruptObjectError, NotFoundError, PromotionRaceError, SeeknalError, UsageError
from seeknal.store.history import read_history
from seeknal.store.store import Store
from seeknal.workflow.commit import commit
from seeknal.workflow.environment import EnvironmentManager
from seeknal.workflow.heads import environment_lock, read_manifest
from seeknal.workflow.lookback import look_back, pin_moment, unpin_moments
from seeknal.workflow.moments import find_moment, split_moment
from seeknal.workflow.outputs import read_outputs
from seeknal.workflow.reading import TableReader
from seeknal.workflow.results import RunOptions
from seeknal.workflow.rollback import execute_rollback, plan_rollback
from seeknal.workflow.session import Session
from seeknal.workflow.views import show_environment
from tests.engine.workflow.projects import executed_in, run, transform, write, write_project
from tests.engine.workflow.test_promotion import big_project, files_below

OUT = "kind: exposure\nname: out\ntype: file\ninputs: [{ref: transform.a}]\nparams: {path: out.csv, format: csv}\n"


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A project that ran three times: a is 1, then 2, then 3."""
    root = write_project(tmp_path / "shop", {"seeknal/out.yml": OUT})
    for value in (1, 2, 3):
        write(root, "seeknal/a.yml", transform("a", f"SELECT {value} AS x"))
        assert run(root).status == "success"
    return root


def store_of(root: Path) -> Store:
    return Project.open(root).store()


def value(root: Path, environment: str = "prod") -> str | None:
    with TableReader.open(store_of(root), environment) as reader:
        return next(iter(reader.query("SELECT x FROM a").values))[0]


def roll_back(root: Path, moment: str = "1", environment: str = "prod") -> str:
    project = Project.open(root)
    digest, errors = execute_rollback(project, project.store(), plan_rollback(project.store(), environment, moment))
    assert errors == []
    return digest


def test_every_run_is_a_state_with_its_number_and_what_it_changed(shop: Path) -> None:
    found = look_back(store_of(shop), "prod", 20)
    entries, more = found.states, found.more
    assert not more
    assert [(entry.number, entry.reason, entry.changed) for entry in entries] == [
        (number, "run", ["transform.a", "exposure.out"]) for number in range(3)
    ]
    assert look_back(store_of(shop), "prod", 2).more


def test_the_past_is_read_by_number_by_digest_and_by_time(shop: Path) -> None:
    store = store_of(shop)
    moments = list(read_history(store, "prod"))
    assert [value(shop, f"prod@{number}") for number in range(3)] == ["3", "2", "1"]
    assert [value(shop, f"production@{moment.digest[:9]}") for moment in moments] == ["3", "2", "1"]
    for moment, expected in zip(moments, "321", strict=True):
        then = datetime.fromtimestamp(moment.snapshot.created_at, UTC)
        assert value(shop, f"prod@{then.isoformat()}") == expected
    assert value(shop, "prod@2999-01-01") == "3"


@pytest.mark.parametrize(
    ("moment", "error", "text"),
    [
        ("3", NotFoundError, "goes 2 moves back"),
        ("2020-01-01", NotFoundError, "its history begins at"),
        ("0123456", NotFoundError, "never stood at"),
        ("", UsageError, "is no moment"),
        ("yesterday", UsageError, "is no moment"),
        ("-1", UsageError, "is no moment"),
        ("abcdef", UsageError, "is no moment"),
        ("2020-99-99", UsageError, "is no moment"),
    ],
)
def test_a_moment_that_there_is_not_is_one_clear_error(
    shop: Path, moment: str, error: type[SeeknalError], text: str
) -> None:
    with pytest.raises(error, match=text):
        read_outputs(store_of(shop), f"prod@{moment}")


def test_a_moment_of_an_unknown_environment_is_not_found(shop: Path) -> None:
    with pytest.raises(NotFoundError, match="'dev' not found"):
        read_outputs(store_of(shop), "dev@1")


def test_a_rollback_restores_outputs_views_and_deliveries_and_computes_nothing(shop: Path) -> None:
    blobs = files_below(shop / "target/store/blobs")
    roll_back(shop, "2")
    assert value(shop) == "1"
    assert (shop / "out.csv").read_text().split() == ["x", "1"]
    assert files_below(shop / "target/store/blobs") == blobs
    store = store_of(shop)
    part = read_outputs(store).nodes["transform.a"].artifact.parts[0]
    assert (shop / "target/cache/transform/a.parquet").resolve() == store.blob_path(part)


def test_a_rollback_is_a_state_of_its_own_and_can_be_taken_back(shop: Path) -> None:
    store = store_of(shop)
    before = find_moment(store, "prod", "")
    roll_back(shop)
    assert value(shop) == "2"
    head = find_moment(store, "prod", "").snapshot
    assert head.parent == before.digest
    assert head.restores == find_moment(store, "prod", "2").digest
    roll_back(shop)
    assert value(shop) == "3"
    assert len(list(read_history(store, "prod"))) == 5
    assert [move.new for move in store.refs.log("prod")][::-1] == [m.digest for m in read_history(store, "prod")]


def test_a_run_after_a_rollback_goes_where_the_files_say_from_the_cache(shop: Path) -> None:
    roll_back(shop, "2")
    assert executed_in(shop) == []
    assert value(shop) == "3"


def test_a_rollback_to_the_same_state_is_known_to_change_nothing(shop: Path) -> None:
    roll_back(shop)
    assert plan_rollback(store_of(shop), "prod", "2").changes_nothing


def test_a_rollback_to_where_it_stands_finishes_one_that_was_cut_short_after_its_move(shop: Path) -> None:
    project, store = Project.open(shop), store_of(shop)
    before = store.head("prod")
    assert before is not None
    digest = roll_back(shop, "2")
    # What the one that was cut short had not come to.
    show_environment(project, store, "prod", before)
    (shop / "out.csv").write_text("x\n3\n")
    assert roll_back(shop, "0") == digest == store.refs.read("prod")
    assert (shop / "out.csv").read_text().split() == ["x", "1"]
    part = read_outputs(store).nodes["transform.a"].artifact.parts[0]
    assert (shop / "target/cache/transform/a.parquet").resolve() == store.blob_path(part)


def test_planning_a_rollback_writes_nothing(shop: Path) -> None:
    before = files_below(shop)
    assert plan_rollback(store_of(shop), "prod").changed_nodes() == ["transform.a", "exposure.out"]
    assert files_below(shop) == before


def test_the_loser_of_a_race_changes_nothing(shop: Path) -> None:
    project = Project.open(shop)
    plan = plan_rollback(project.store(), "prod", "2")
    roll_back(shop, "1")
    before = files_below(shop / "target/store/refs")
    with pytest.raises(PromotionRaceError, match=r"production moved to .* UTC; nodes that differ: transform\.a.*"):
        execute_rollback(project, project.store(), plan)
    assert files_below(shop / "target/store/refs") == before
    assert value(shop) == "2"


def test_a_rollback_to_a_named_state_goes_there_from_wherever_the_environment_stands(shop: Path) -> None:
    project = Project.open(shop)
    store = project.store()
    oldest = list(read_history(store, "prod"))[-1].digest
    plan = plan_rollback(store, "prod", oldest)
    roll_back(shop, "1")
    head = store.refs.read("prod")
    digest, _ = execute_rollback(project, store, plan)
    assert store.read_snapshot(digest).parent == head
    assert value(shop) == "1"


def test_a_rollback_waits_for_no_run(shop: Path) -> None:
    project = Project.open(shop)
    plan = plan_rollback(project.store(), "prod")
    with environment_lock(project.store(), "prod", "run"), pytest.raises(BusyError):
        execute_rollback(project, project.store(), plan)
    assert value(shop) == "3"


def test_a_state_whose_outputs_are_gone_is_refused_with_their_names(shop: Path) -> None:
    store = store_of(shop)
    old = read_outputs(store, "prod@2").nodes["transform.a"].artifact
    plan = plan_rollback(store, "prod", "2")
    store.blob_path(old.parts[0]).unlink()
    with pytest.raises(CorruptObjectError, match=r"outputs of it are damaged or gone from the store: transform\.a"):
        plan_rollback(store, "prod", "2")
    with pytest.raises(CorruptObjectError, match=r"outputs of it are damaged or gone from the store: transform\.a"):
        execute_rollback(Project.open(shop), store, plan)
    assert value(shop) == "3"


def test_outputs_that_the_environment_left_after_the_plan_are_looked_at_again(shop: Path) -> None:
    store = store_of(shop)
    oldest = find_moment(store, "prod", "2").digest
    old = read_outputs(store, "prod@2").nodes["transform.a"].artifact
    roll_back(shop, "2")
    plan = plan_rollback(store, "prod", oldest)
    assert plan.changed_nodes() == []
    roll_back(shop)
    store.blob_path(old.parts[0]).unlink()
    with pytest.raises(CorruptObjectError, match=r"outputs of it are damaged or gone from the store: transform\.a"):
        execute_rollback(Project.open(shop), store, plan)
    assert value(shop) == "3"


def test_an_environment_goes_back_beside_production(shop: Path) -> None:
    manager = EnvironmentManager(shop / "target")
    for number in (4, 5):
        write(shop, "seeknal/a.yml", transform("a", f"SELECT {number} AS x"))
        manager.plan("dev")
        manager.apply("dev", parallel=False)
    delivered = (shop / "out.csv").read_text()
    roll_back(shop, "1", "dev")
    assert (value(shop, "dev"), value(shop)) == ("4", "3")
    assert (shop / "out.csv").read_text() == delivered
    with pytest.raises(SeeknalError, match="has not been applied as it is planned"):
        manager.promote("dev")


@pytest.mark.parametrize("count", [8, 1000])
def test_a_rollback_writes_no_blob_and_at_most_six_small_files(tmp_path: Path, count: int) -> None:
    manager = big_project(tmp_path / "big", count)
    store = manager.store
    dev = store.head("dev")
    before = store.refs.read("prod")
    assert dev is not None
    commit(
        store,
        "prod",
        store.read_tree(dev.tree),
        read_manifest(store, dev.manifest),
        expected_head=before,
        reason="run",
    )
    head = store.head("prod")
    assert head is not None
    show_environment(manager.project, store, "prod", head)
    plan = plan_rollback(store, "prod")
    assert len(plan.changed_nodes()) == count
    files = files_below(tmp_path)
    execute_rollback(manager.project, store, plan)
    written = [path for path, stamp in files_below(tmp_path).items() if files.get(path) != stamp]
    # What is remembered only to be faster is one file, whatever is rolled back.
    written = [
        path for path in written if not path.endswith(".lock") and "/locks/" not in path and "/memo/" not in path
    ]
    assert len(written) <= 6, written
    assert all(Path(path).stat().st_size < 4096 for path in written)
    assert not [path for path in written if "/blobs/" in path]
    now = store.head("prod")
    assert now is not None
    assert now.tree == store.read_snapshot(before or "").tree


def test_pins_are_listed_kept_and_taken_away(shop: Path) -> None:
    store = store_of(shop)
    first, now = pin_moment(store, "prod", "2"), pin_moment(store, "prod")
    entries = look_back(store, "prod", 20).states
    assert [entry.pinned for entry in entries] == [True, False, True]
    assert unpin_moments(store, "prod", first.digest[:10]) == [first.digest]
    with pytest.raises(NotFoundError, match="is not pinned"):
        unpin_moments(store, "prod", "2")
    assert unpin_moments(store, "prod") == [now.digest]
    with pytest.raises(NotFoundError, match="nothing of 'prod' is pinned"):
        unpin_moments(store, "prod")


def test_what_is_gone_cannot_be_pinned(shop: Path) -> None:
    store = store_of(shop)
    old = read_outputs(store, "prod@2").nodes["transform.a"].artifact
    store.blob_path(old.parts[0]).unlink()
    with pytest.raises(CorruptObjectError, match="cannot be kept"):
        pin_moment(store, "prod", "2")
    assert not any(entry.pinned for entry in look_back(store, "prod", 20).states)


def test_a_pinned_state_of_a_deleted_environment_is_read_by_its_digest(shop: Path) -> None:
    manager = EnvironmentManager(shop / "target")
    write(shop, "seeknal/a.yml", transform("a", "SELECT 9 AS x"))
    manager.plan("dev")
    manager.apply("dev", parallel=False)
    digest = pin_moment(manager.store, "dev").digest
    manager.delete("dev")
    assert value(shop, f"dev@{digest[:8]}") == "9"


def test_a_history_that_is_damaged_is_told_up_to_there(shop: Path) -> None:
    store = store_of(shop)
    (store.root / "snapshots" / find_moment(store, "prod", "1").digest).write_bytes(b"")
    assert value(shop) == "3"
    found = look_back(store, "prod", 20)
    assert [state.number for state in found.states] == [0]
    assert "is damaged" in str(found.broken)


def test_names_and_moments_are_told_apart() -> None:
    assert split_moment("prod") == ("prod", "")
    assert split_moment("Production@3") == ("prod", "3")
    assert split_moment("dev@2026-02-09T10:00") == ("dev", "2026-02-09T10:00")
    with pytest.raises(UsageError):
        split_moment("dev@")


def test_the_state_of_a_time_is_the_last_one_before_it(shop: Path) -> None:
    store = store_of(shop)
    head = store.head("prod")
    assert head is not None
    before = store.refs.read("prod")
    later = msgspec.structs.replace(head, created_at=float(int(time.time()) + 5000) + 0.5, parent=before)
    assert store.refs.compare_and_swap("prod", before, store.write_snapshot(later), who="me", why="test")
    then = datetime.fromtimestamp(later.created_at, UTC)
    assert find_moment(store, "prod", then.strftime("%Y-%m-%d %H:%M:%S")).number == 0
    assert find_moment(store, "prod", then.strftime("%Y-%m-%dT%H:%M:%S.4")).number == 1
    assert find_moment(store, "prod", (then - timedelta(seconds=1)).strftime("%Y-%m-%dT%H:%M:%SZ")).number == 1


TEMPLATED = """
kind: exposure
name: out
type: file
inputs: [{ref: transform.a}]
params: {path: "out/{{ region }}/{{ run_date }}.csv", format: csv}
"""


def run_for(root: Path, region: str, **params: str) -> None:
    given = given_parameters(params={"region": region, **params})
    with Session.open(Project.open(root), given) as session:
        result = session.run("prod", RunOptions())
    assert (result.status, [node.warnings for node in result.nodes if node.warnings]) == ("success", [])


def delivered_by_going_back(root: Path) -> dict[str, str]:
    """Roll back where nothing is delivered any more; give what is then: path → content."""
    shutil.rmtree(root / "out")
    roll_back(root)
    return {str(path.relative_to(root)): path.read_text().split()[-1] for path in (root / "out").rglob("*.csv")}


def test_a_rollback_delivers_with_the_parameters_of_the_run_that_made_the_state(tmp_path: Path) -> None:
    root = write_project(tmp_path / "shop", {"seeknal/out.yml": TEMPLATED})
    files: list[set[str]] = []
    for number, region in enumerate(("eu", "us"), 1):
        write(root, "seeknal/a.yml", transform("a", f"SELECT {number} AS x"))
        run_for(root, region)
        files.append({str(path.relative_to(root)) for path in (root / "out").rglob(f"{region}/*.csv")})
    assert delivered_by_going_back(root) == dict.fromkeys(files[0], "1")
    # From the snapshot of a run, to that which the rollback made.
    assert delivered_by_going_back(root) == dict.fromkeys(files[1], "2")
    assert delivered_by_going_back(root) == dict.fromkeys(files[0], "1")


def test_states_that_differ_in_what_their_runs_were_given_alone_are_gone_back_to(tmp_path: Path) -> None:
    files = {"seeknal/out.yml": TEMPLATED, "seeknal/a.yml": transform("a", "SELECT 1 AS x")}
    root = write_project(tmp_path / "shop", files)
    run_for(root, "eu")
    run_for(root, "us")
    assert not plan_rollback(store_of(root), "prod").changes_nothing
    (path,) = delivered_by_going_back(root)
    assert path.startswith("out/eu/")
    head = store_of(root).refs.read("prod")
    run_for(root, "eu")
    assert store_of(root).refs.read("prod") == head


def test_no_snapshot_holds_a_secret_that_a_run_was_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_PIN", "hunter22hunter")
    body = TEMPLATED.replace("{{ region }}", "{{ region }}{{ pin }}/{{ env:SHOP_PIN }}")
    files = {"seeknal/out.yml": body, "seeknal/a.yml": transform("a", "SELECT 1 AS x")}
    root = write_project(tmp_path / "shop", files)
    run_for(root, "eu", pin="hunter22hunter")
    head = store_of(root).head("prod")
    assert head is not None
    assert head.parameters == {"params": {"region": "eu"}}
    assert not [path for path in (root / "target/store/snapshots").iterdir() if b"hunter22" in path.read_bytes()]


def test_a_snapshot_of_before_parameters_were_kept_is_read(shop: Path) -> None:
    store = store_of(shop)
    old = store.head("prod")
    assert old is not None
    fields = {name: value for name, value in msgspec.to_builtins(old).items() if name not in ("parameters", "began_at")}
    known = msgspec.msgpack.decode(msgspec.msgpack.encode(fields), type=type(old))
    assert known.parameters == {}
    assert RunParameters.of_run(known).now == datetime.fromtimestamp(old.created_at)
