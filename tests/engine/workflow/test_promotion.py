"""Promotion moves one pointer, at any size; rolling a ref back by hand brings the old outputs back."""

from __future__ import annotations

import os
from pathlib import Path

import duckdb
import pytest

from seeknal.dag.manifest import Manifest, Node, NodeType
from seeknal.dag.project import Project
from seeknal.errors import PromotionRaceError, SeeknalError
from seeknal.store.objects import ActionRecord, Artifact, Blob, Column, EnvironmentPlanRecord, EnvironmentRecord, Tree
from seeknal.store.objects import TreeEntry as Entry
from seeknal.workflow.commit import commit
from seeknal.workflow.environment import EnvironmentManager
from seeknal.workflow.session import Session
from seeknal.workflow.views import show_environment
from tests.engine.workflow.projects import executed_in, transform, write, write_project


def files_below(folder: Path) -> dict[str, tuple[int, int]]:
    """Every real file with its inode and modification time; links are not files."""
    found = {}
    for directory, _, names in os.walk(folder):
        for name in names:
            path = Path(directory) / name
            if not path.is_symlink():
                stat = path.stat()
                found[str(path)] = (stat.st_ino, stat.st_mtime_ns)
    return found


def big_project(root: Path, count: int) -> EnvironmentManager:
    """Production and dev of ``count`` nodes each, every node different between the two, with real blobs."""
    project = Project.open(write_project(root, {}))
    store = project.store()
    store.prepare()
    heads = {}
    for environment, value in (("prod", 1), ("dev", 2)):
        manifest = Manifest(project.name)
        entries = {}
        for number in range(count):
            node_id = f"transform.n{number}"
            manifest.add_node(Node(node_id, f"n{number}", NodeType.TRANSFORM, config={"transform": f"SELECT {value}"}))
            file = store.temporary_path()
            file.write_bytes(f"{environment} {number}".encode())
            blob = store.adopt_file(file)
            artifact = Artifact((Blob(blob.digest, blob.size_bytes),), 1, (Column("x", "INTEGER", blob.digest),))
            entries[node_id] = Entry(f"{number:030x}{value:02x}", artifact)
            store.record_action(ActionRecord(entries[node_id].fingerprint, node_id, artifact))
        tree = Tree(entries)
        base = heads.get("prod")
        heads[environment] = commit(
            store,
            environment,
            tree,
            manifest,
            expected_head=None,
            reason="run",
            base=base if environment == "dev" else None,
        )
        show_environment(project, store, environment, store.read_snapshot(heads[environment]), tree)
    plan = EnvironmentPlanRecord(manifest.fingerprint(), heads["prod"], 0.0, {}, [], [], [])
    store.write_environment(EnvironmentRecord("dev", "applied", 0.0, 0.0, plan=plan))
    return EnvironmentManager(root / "target")


@pytest.mark.parametrize("count", [8, 1000])
def test_promotion_writes_no_blob_and_at_most_six_small_files(tmp_path: Path, count: int) -> None:
    manager = big_project(tmp_path / "big", count)
    before = files_below(tmp_path)
    manager.promote("dev")
    after = files_below(tmp_path)
    written = [path for path, stamp in after.items() if before.get(path) != stamp and not path.endswith(".lock")]
    # What is remembered only to be faster is one file, whatever is promoted.
    written = [path for path in written if "/locks/" not in path and "/memo/" not in path]
    assert len(written) <= 6, written
    assert all(Path(path).stat().st_size < 4096 for path in written)
    assert not [path for path in written if "/blobs/" in path]
    dev, prod = manager.store.head("dev"), manager.store.head("prod")
    assert dev is not None
    assert prod is not None
    assert prod.tree == dev.tree


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    root = write_project(tmp_path / "shop", {"seeknal/a.yml": transform("a", "SELECT 1 AS x")})
    assert executed_in(root) == ["a"]
    write(root, "seeknal/a.yml", transform("a", "SELECT 2 AS x, 3 AS y"))
    return root


def columns_of(root: Path, path: str = "target/cache/transform/a.parquet") -> list[str]:
    return [row[0] for row in duckdb.connect().execute(f"DESCRIBE FROM read_parquet('{root / path}')").fetchall()]


def test_ref_moved_back_by_hand_restores_the_old_outputs(shop: Path) -> None:
    manager = EnvironmentManager(shop / "target")
    before = (shop / "target/store/refs/prod").read_text()
    manager.plan("dev")
    manager.apply("dev", parallel=False)
    manager.promote("dev")
    assert columns_of(shop) == ["x", "y"]
    (shop / "target/store/refs/prod").write_text(before)
    head = manager.store.head("prod")
    assert head is not None
    tree = manager.store.read_tree(head.tree)
    part = tree.nodes["transform.a"].artifact.parts[0]
    assert duckdb.connect().execute(f"FROM read_parquet('{manager.store.blob_path(part)}')").fetchall() == [(1,)]
    write(shop, "seeknal/a.yml", transform("a", "SELECT 1 AS x"))
    assert executed_in(shop) == []
    assert columns_of(shop) == ["x"]


def test_environment_never_applied_cannot_be_promoted(shop: Path) -> None:
    manager = EnvironmentManager(shop / "target")
    manager.plan("dev")
    with pytest.raises(SeeknalError, match="has not been applied"):
        manager.promote("dev")


def test_environment_planned_again_cannot_be_promoted_before_it_is_applied(shop: Path) -> None:
    manager = EnvironmentManager(shop / "target")
    manager.plan("dev")
    manager.apply("dev", parallel=False)
    write(shop, "seeknal/a.yml", transform("a", "SELECT 9 AS x"))
    manager.plan("dev")
    with pytest.raises(SeeknalError, match="has not been applied since it was planned"):
        manager.promote("dev")


def test_environment_whose_run_failed_cannot_be_promoted(shop: Path) -> None:
    manager = EnvironmentManager(shop / "target")
    write(shop, "seeknal/a.yml", transform("a", "SELECT CAST('x' || random() AS INTEGER) AS x"))
    manager.plan("dev")
    assert not manager.apply("dev", parallel=False).success
    with pytest.raises(SeeknalError, match="its last run failed"):
        manager.promote("dev")


def test_promotion_is_refused_where_production_moved_and_names_what_moved(shop: Path) -> None:
    manager = EnvironmentManager(shop / "target")
    manager.plan("dev")
    manager.apply("dev", parallel=False)
    write(shop, "seeknal/b.yml", transform("b", "SELECT 5 AS z"))
    executed_in(shop)
    head = manager.store.refs.read("prod")
    with pytest.raises(PromotionRaceError, match=r"production moved.*transform\.b"):
        manager.promote("dev")
    assert manager.store.refs.read("prod") == head
    assert manager.promote("dev", force=True)["promoted"]


def test_dry_run_of_a_promotion_changes_no_file(shop: Path) -> None:
    manager = EnvironmentManager(shop / "target")
    manager.plan("dev")
    manager.apply("dev", parallel=False)
    before = files_below(shop)
    report = manager.promote("dev", dry_run=True)
    assert report["changed_nodes"] == ["transform.a"]
    assert files_below(shop) == before


def test_promotion_chain_leads_through_staging_to_production(shop: Path) -> None:
    manager = EnvironmentManager(shop / "target")
    manager.plan("dev")
    manager.apply("dev", parallel=False)
    manager.promote("dev", "staging")
    assert columns_of(shop) == ["x"]
    assert columns_of(shop, "target/environments/staging/cache/transform/a.parquet") == ["x", "y"]
    staging = {environment.name: environment for environment in manager.list_environments()}["staging"]
    assert staging.promoted_from == "dev"
    manager.promote("staging")
    assert columns_of(shop) == ["x", "y"]


def test_environment_can_be_promoted_again_after_its_own_promotion(shop: Path) -> None:
    manager = EnvironmentManager(shop / "target")
    for value in (5, 6):
        write(shop, "seeknal/a.yml", transform("a", f"SELECT {value} AS x"))
        manager.plan("dev")
        manager.apply("dev", parallel=False)
        manager.promote("dev")
    file = shop / "target/cache/transform/a.parquet"
    assert duckdb.connect().execute(f"FROM read_parquet('{file}')").fetchall() == [(6,)]


def test_deleting_an_environment_leaves_production_whole(shop: Path) -> None:
    manager = EnvironmentManager(shop / "target")
    manager.plan("dev")
    manager.apply("dev", parallel=False)
    manager.promote("dev")
    manager.delete("dev")
    assert [environment.name for environment in manager.list_environments()] == ["prod"]
    assert not (shop / "target/environments/dev").exists()
    assert columns_of(shop) == ["x", "y"]
    with Session.open(Project.open(shop)) as session:
        assert session.store.head("prod") is not None


def test_production_run_with_nothing_to_do_after_a_promotion_moves_no_ref(shop: Path) -> None:
    manager = EnvironmentManager(shop / "target")
    manager.plan("dev")
    manager.apply("dev", parallel=False)
    manager.promote("dev")
    head = manager.store.refs.read("prod")
    write(shop, "seeknal/b.yml", transform("b", "SELECT 5 AS z"))
    manager.plan("next")
    manager.apply("next", parallel=False)
    (shop / "seeknal/b.yml").unlink()
    assert executed_in(shop) == []
    assert manager.store.refs.read("prod") == head
    # So what was planned meanwhile is still planned against production as it is.
    assert manager.promote("next")["promoted"]


def test_promotion_of_a_node_whose_text_changed_and_output_did_not_lists_nothing(shop: Path) -> None:
    manager = EnvironmentManager(shop / "target")
    write(shop, "seeknal/a.yml", transform("a", "SELECT 2 - 1 AS x"))
    manager.plan("dev")
    manager.apply("dev", parallel=False)
    assert manager.promote("dev")["changed_nodes"] == []
