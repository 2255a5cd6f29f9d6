"""Changes from one tree to another: remembered or not they are the same, and damage is not passed over."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from seeknal.dag.project import Project
from seeknal.errors import StoreError
from seeknal.store.objects import Snapshot
from seeknal.store.store import Store
from seeknal.workflow.environment import EnvironmentManager
from seeknal.workflow.rollback import execute_rollback, plan_rollback
from seeknal.workflow.tree_change import TreeChange, stands, tree_change
from tests.engine.workflow.projects import run, transform, write_project

EXPOSURE = """
kind: exposure
name: out
type: file
depends_on: [{ref: transform.b}]
params: {format: csv, path: out/b.csv}
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A project of which ``dev`` changes one node, lacks another, and leaves the third and the exposure alone."""
    files = {f"seeknal/{name}.yml": transform(name, f"SELECT '{name}' AS x") for name in "abc"}
    write_project(tmp_path, {**files, "seeknal/out.yml": EXPOSURE})
    run(tmp_path)
    write_project(tmp_path, {"seeknal/a.yml": transform("a", "SELECT 'other' AS x")})
    (tmp_path / "seeknal" / "c.yml").unlink()
    manager = manager_of(tmp_path)
    manager.plan("dev")
    assert manager.apply("dev").success
    return tmp_path


def manager_of(root: Path) -> EnvironmentManager:
    return EnvironmentManager(Project.open(root).target)


def states(root: Path) -> tuple[Store, Snapshot, Snapshot]:
    store = Project.open(root).store()
    before, after = store.head("prod"), store.head("dev")
    assert before is not None
    assert after is not None
    return store, before, after


def memo(root: Path) -> Path:
    return root / "target" / "store" / "memo" / "changes"


def test_a_run_remembers_what_its_promotion_would_change(root: Path) -> None:
    assert memo(root).is_file()
    store, before, after = states(root)
    change = tree_change(store, before, after)
    assert list(change.changed) == ["transform.a", "transform.c"]
    assert change.changed["transform.c"] is None
    assert change.behind == []
    assert [node["id"] for node in change.exposures] == ["exposure.out"]


@pytest.mark.parametrize("back", [False, True])
def test_what_is_remembered_is_what_the_trees_say(root: Path, back: bool) -> None:
    store, before, after = states(root)
    start, end = (after, before) if back else (before, after)
    remembered = tree_change(store, start, end)
    memo(root).unlink()
    assert tree_change(store, start, end) == remembered
    assert list(remembered.changed) == ["transform.a", "transform.c"]
    assert (remembered.changed["transform.c"] is None) is not back
    assert tree_change(store, None, after).changed.keys() == {"transform.a", "transform.b", "exposure.out"}


def test_without_what_is_remembered_a_promotion_does_the_same(root: Path) -> None:
    memo(root).unlink()
    report = manager_of(root).promote("dev")
    assert report["changed_nodes"] == ["transform.a", "transform.c"]
    assert (root / "out" / "b.csv").read_text() == "x\nb\n"


def test_a_promotion_delivers_what_was_lost_although_no_node_of_it_changes(root: Path) -> None:
    (root / "out" / "b.csv").unlink()
    manager_of(root).promote("dev")
    assert (root / "out" / "b.csv").read_text() == "x\nb\n"


def test_a_promotion_reads_no_tree_where_the_change_is_remembered(root: Path) -> None:
    store, before, _ = states(root)
    store.tree_path(before.tree).rename(root / "elsewhere")
    assert manager_of(root).promote("dev")["changed_nodes"] == ["transform.a", "transform.c"]


def test_going_back_from_a_promotion_and_forth_again_reads_no_tree(root: Path) -> None:
    _, before, after = states(root)
    manager_of(root).promote("dev")
    for expected in (before, after):
        assert rolled_back_without_reading(root) == ["transform.a", "transform.c"]
        assert stood_at(root) == expected.tree


def test_going_back_from_a_run_reads_no_tree(root: Path) -> None:
    _, before, _ = states(root)
    assert run(root).status == "success"
    assert rolled_back_without_reading(root) == ["transform.a", "transform.c"]
    assert stood_at(root) == before.tree


def test_going_back_where_no_change_is_remembered_does_the_same(root: Path) -> None:
    store, before, _ = states(root)
    assert run(root).status == "success"
    memo(root).unlink()
    rollback = plan_rollback(store, "prod")
    assert rollback.changed_nodes() == ["transform.a", "transform.c"]
    execute_rollback(Project.open(root), store, rollback)
    assert stood_at(root) == before.tree


def test_going_back_leaves_a_tree_that_is_damaged(root: Path) -> None:
    store, before, _ = states(root)
    assert run(root).status == "success"
    memo(root).unlink()
    store.tree_path(stood_at(root)).unlink()
    # What changes is then unknown, so it is everything.
    assert len(plan_rollback(store, "prod").changed_nodes()) == 4
    execute_rollback(Project.open(root), store, plan_rollback(store, "prod"))
    assert stood_at(root) == before.tree


def rolled_back_without_reading(root: Path) -> list[str]:
    """Roll production back while the tree that it stands at is away; gives the nodes that this changed."""
    project = Project.open(root)
    store = project.store()
    path = store.tree_path(stood_at(root))
    away = path.rename(root / "away")
    rollback = plan_rollback(store, "prod")
    _, errors = execute_rollback(project, store, rollback)
    assert errors == []
    away.rename(path)
    return rollback.changed_nodes()


def stood_at(root: Path) -> str:
    """The tree of production."""
    head = Project.open(root).store().head("prod")
    assert head is not None
    return head.tree


@pytest.mark.parametrize("what", ["tree", "manifest"])
@pytest.mark.parametrize("damage", ["flip", "truncate", "remove"])
def test_damage_is_noticed_although_the_change_is_remembered(root: Path, what: str, damage: str) -> None:
    store, before, after = states(root)
    change = tree_change(store, before, after)
    path = store.tree_path(after.tree) if what == "tree" else store.manifest_path(after.manifest)
    data = bytearray(path.read_bytes())
    os.chmod(path, 0o644)
    if damage == "flip":
        # In a word, so that the manifest stays JSON.
        data[data.index(b"transform" if what == "tree" else b"seeknal/") + 2] ^= 1
        path.write_bytes(data)
    elif damage == "truncate":
        path.write_bytes(data[:-1])
    else:
        path.unlink()
    assert not stands(store, after, change)
    head = store.refs.read("prod")
    with pytest.raises(StoreError):
        manager_of(root).promote("dev")
    assert store.refs.read("prod") == head


def test_a_memo_of_something_else_is_as_good_as_none(root: Path) -> None:
    store, before, after = states(root)
    memo(root).write_bytes(b"something else")
    change = tree_change(store, before, after)
    assert isinstance(change, TreeChange)
    assert list(change.changed) == ["transform.a", "transform.c"]
