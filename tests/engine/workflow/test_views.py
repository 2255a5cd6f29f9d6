from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from seeknal.dag.project import Project
from seeknal.json_document import indented
from seeknal.store.filesystem import digest_bytes
from seeknal.store.objects import Artifact, Blob, EnvironmentRecord, Snapshot, Tree, TreeEntry
from seeknal.store.store import Store
from seeknal.workflow.events import Event, Warned
from seeknal.workflow.views import (
    hide_environment,
    run_state,
    show_environment,
    show_record,
    show_references,
    timestamp,
    write_json,
)

# 2026-02-09T10:00:00 UTC
MOMENT = 1770631200.0


class Shop:
    """A project whose outputs a test makes up."""

    def __init__(self, root: Path) -> None:
        self.project = Project(root)
        self.store: Store = self.project.store()
        self.store.prepare()
        self.warnings: list[str] = []

    def blob(self, content: bytes) -> Blob:
        path = self.store.temporary_path()
        path.write_bytes(content)
        return self.store.adopt_file(path)

    def tree(self, **outputs: bytes) -> Tree:
        """A tree of transforms with these contents."""
        return Tree({f"transform.{name}": self.entry(content) for name, content in outputs.items()})

    def entry(self, *parts: bytes, stale: bool = False) -> TreeEntry:
        blobs = tuple(map(self.blob, parts))
        artifact = Artifact(blobs, 7, built_at=MOMENT, duration_seconds=0.5, run_id="the-run")
        return TreeEntry(digest_bytes(b"".join(parts)), artifact, stale)

    def show(self, environment: str, tree: Tree, manifest: str = "{}") -> list[str]:
        """Show an environment, and note the warnings; gives the errors' messages."""

        def listen(event: Event) -> None:
            assert isinstance(event, Warned)
            self.warnings.append(event.message)

        self.warnings.clear()
        fingerprint = digest_bytes(manifest.encode()) * 2
        self.store.write_manifest(fingerprint, manifest)
        snapshot = Snapshot(environment, fingerprint, self.store.write_tree(tree), None, MOMENT, "me", "test")
        errors = show_environment(self.project, self.store, environment, snapshot, listener=listen)
        return [error.message for error in errors]


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path / "shop")


def contents(folder: Path) -> dict[str, str]:
    """The files below a folder, links followed."""
    return {
        str(Path(base, name).relative_to(folder)): Path(base, name).read_text()
        for base, _, names in os.walk(folder, followlinks=True)
        for name in names
        if name.endswith(".parquet")
    }


class TestEnvironments:
    def test_production_shows_its_outputs_directly_below_target(self, shop: Shop) -> None:
        assert shop.show("prod", shop.tree(a=b"A", b=b"B"), '{"a": 1}') == []
        target = shop.project.target
        assert contents(target / "cache") == {"transform/a.parquet": "A", "transform/b.parquet": "B"}
        assert contents(target / "intermediate") == {"transform_a.parquet": "A", "transform_b.parquet": "B"}
        assert json.loads((target / "manifest.json").read_text()) == {"a": 1}
        assert set(json.loads((target / "run_state.json").read_text())["nodes"]) == {"transform.a", "transform.b"}
        assert not (target / "state.json").exists()

    def test_each_environment_shows_its_own(self, shop: Shop) -> None:
        shop.show("prod", shop.tree(a=b"old"))
        shop.show("dev", shop.tree(a=b"new"))
        folder = shop.project.target / "environments" / "dev"
        assert contents(folder / "cache") == {"transform/a.parquet": "new"}
        assert contents(shop.project.target / "cache") == {"transform/a.parquet": "old"}
        assert (folder / "state.json").read_text() == (folder / "run_state.json").read_text()

    def test_views_follow_the_environment(self, shop: Shop) -> None:
        shop.show("prod", shop.tree(a=b"1"))
        shop.show("prod", shop.tree(a=b"2", b=b"x"), '{"second": 2}')
        assert contents(shop.project.target / "cache") == {"transform/a.parquet": "2", "transform/b.parquet": "x"}
        assert json.loads((shop.project.target / "manifest.json").read_text()) == {"second": 2}
        shop.show("prod", shop.tree(a=b"1"))
        assert contents(shop.project.target / "cache") == {"transform/a.parquet": "1"}

    def test_views_survive_a_move_of_the_project(self, shop: Shop, tmp_path: Path) -> None:
        shop.show("dev", shop.tree(a=b"A"))
        os.rename(shop.project.root, tmp_path / "moved")
        assert contents(tmp_path / "moved/target/environments/dev/cache") == {"transform/a.parquet": "A"}

    def test_every_part_is_shown(self, shop: Shop) -> None:
        tree = Tree({"source.s": shop.entry(b"first", b"second"), "exposure.e": shop.entry()})
        shop.show("prod", tree)
        assert contents(shop.project.target / "cache") == {"source/s.parquet": "first", "source/s.1.parquet": "second"}

    def test_cost_of_a_promotion_does_not_grow_with_the_nodes(
        self, shop: Shop, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        calls: list[str] = []
        for name in ("symlink", "replace", "rename", "mkdir", "open"):
            real = getattr(os, name)

            def counted(*arguments: Any, name: str = name, real: Any = real, **options: Any) -> Any:
                calls.append(name)
                return real(*arguments, **options)

            monkeypatch.setattr(os, name, counted)

        def cost_of_promotion(count: int) -> int:
            tree = shop.tree(**{f"n{k}_of_{count}": str(k).encode() for k in range(count)})
            snapshot = Snapshot("dev", "f" * 64, shop.store.write_tree(tree), None, MOMENT, "me", "test")
            show_environment(shop.project, shop.store, "dev", snapshot, tree)
            calls.clear()
            assert show_environment(shop.project, shop.store, "prod", snapshot, tree) == []
            assert calls.count("symlink") <= 4
            return len(calls)

        cost_of_promotion(1)
        assert cost_of_promotion(200) == cost_of_promotion(2)


class TestWhatStandsInTheWay:
    def test_real_folder_is_left_alone_with_a_warning(self, shop: Shop) -> None:
        mine = shop.project.target / "cache" / "mine.parquet"
        mine.parent.mkdir()
        mine.write_text("mine")
        assert shop.show("prod", shop.tree(a=b"A")) == []
        (warning,) = shop.warnings
        assert warning.startswith(
            f"{shop.project.target / 'cache'} is none of Seeknal's (it is a folder with files in it)"
        )
        assert contents(shop.project.target / "cache") == {"mine.parquet": "mine"}
        assert contents(shop.project.target / "intermediate") == {"transform_a.parquet": "A"}

    def test_empty_folders_files_and_broken_links_make_way(self, shop: Shop) -> None:
        target = shop.project.target
        (target / "cache").mkdir()
        (target / "intermediate").symlink_to("nowhere")
        (target / "run_state.json").write_text("{}")
        assert shop.show("prod", shop.tree(a=b"A")) == []
        assert contents(target / "cache") == {"transform/a.parquet": "A"}
        assert (target / "run_state.json").is_symlink()

    def test_view_that_cannot_be_made_is_an_error_and_leaves_nothing(
        self, shop: Shop, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*arguments: object, **options: object) -> None:
            raise OSError(28, "No space left on device", "the/link")

        tree = shop.tree(a=b"A")
        with monkeypatch.context() as patched:
            patched.setattr(os, "symlink", fail)
            (error,) = shop.show("prod", tree)
        assert "No space left on device" in error
        assert list(shop.store.temporary_folder.iterdir()) == []
        assert not (shop.store.root / "views").exists()
        assert shop.show("prod", tree) == []

    def test_link_that_cannot_be_made_is_an_error_and_the_others_are(
        self, shop: Shop, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        real = os.replace

        def fail_for_one(source: Path, target: Path) -> None:
            if target.name == "intermediate":
                raise OSError(13, "Permission denied")
            real(source, target)

        monkeypatch.setattr(os, "replace", fail_for_one)
        (error,) = shop.show("prod", shop.tree(a=b"A"))
        assert error.endswith("intermediate does not show this environment: Permission denied")
        assert contents(shop.project.target / "cache") == {"transform/a.parquet": "A"}

    def test_of_two_that_build_one_view_the_second_takes_the_firsts(
        self, shop: Shop, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        tree = shop.tree(a=b"A")
        real = os.rename

        def lose(source: Path, target: Path) -> None:
            shutil.copytree(source, target, symlinks=True)
            real(source, target)

        monkeypatch.setattr(os, "rename", lose)
        assert shop.show("prod", tree) == []
        assert contents(shop.project.target / "cache") == {"transform/a.parquet": "A"}
        assert list(shop.store.temporary_folder.iterdir()) == []


class TestDocuments:
    def test_run_state_tells_of_every_node(self, shop: Shop) -> None:
        tree = Tree({"source.s": shop.entry(b"x"), "transform.t": shop.entry(b"y", stale=True)})
        document = run_state(tree)
        assert (document["last_run"], document["run_id"]) == ("2026-02-09T10:00:00", "the-run")
        fresh, stale = document["nodes"]["source.s"], document["nodes"]["transform.t"]
        assert (fresh["status"], stale["status"]) == ("success", "stale")
        assert (fresh["duration_ms"], fresh["row_count"], fresh["fingerprint"]) == (500.0, 7, digest_bytes(b"x"))
        assert fresh["metadata"]["blobs"] == [digest_bytes(b"x")]
        assert json.loads(indented(document)) == document
        assert run_state(Tree({}))["nodes"] == {}

    def test_record_of_an_environment(self, shop: Shop) -> None:
        show_record(shop.project, shop.store, EnvironmentRecord("dev", "planned", MOMENT, MOMENT + 60, 3600, "staging"))
        assert json.loads((shop.project.target / "environments/dev/env_config.json").read_text()) == {
            "name": "dev",
            "created_at": "2026-02-09T10:00:00",
            "last_accessed": "2026-02-09T10:01:00",
            "promoted_from": "staging",
            "ttl_seconds": 3600,
            "status": "planned",
        }

    def test_references_name_the_production_outputs_that_stand(self, shop: Shop) -> None:
        tree = Tree({**shop.tree(a=b"A", b=b"B").nodes, "exposure.e": shop.entry()})
        show_references(shop.project, shop.store, "dev", tree, ["transform.a", "exposure.e", "transform.new"])
        refs = json.loads((shop.project.target / "environments/dev/refs.json").read_text())["refs"]
        assert refs == [
            {
                "node_id": "transform.a",
                "output_path": "target/cache/transform/a.parquet",
                "fingerprint": digest_bytes(b"A"),
                "size_bytes": 1,
            }
        ]

    def test_json_is_replaced_in_one_step(self, shop: Shop) -> None:
        path = shop.project.target / "deep" / "it.json"
        for document in ({"a": 1}, {"a": [2]}):
            write_json(shop.store, path, document)
            assert json.loads(path.read_text()) == document
        assert [entry.name for entry in path.parent.iterdir()] == ["it.json"]

    def test_times_are_utc(self) -> None:
        assert timestamp(0) == "1970-01-01T00:00:00"
        assert timestamp(MOMENT + 0.9) == "2026-02-09T10:00:00"


class TestHiding:
    def test_environment_is_gone_with_its_plan_and_the_others_stay(self, shop: Shop) -> None:
        tree = shop.tree(a=b"A")
        for environment in ("prod", "dev", "dev2"):
            shop.show(environment, tree)
            write_json(shop.store, shop.project.target / "plans" / f"{environment}.json", {})
        hide_environment(shop.project, "dev")
        hide_environment(shop.project, "dev")
        environments = shop.project.target / "environments"
        assert [entry.name for entry in environments.iterdir()] == ["dev2"]
        assert sorted(entry.name for entry in (shop.project.target / "plans").iterdir()) == ["dev2.json", "prod.json"]
        assert contents(environments / "dev2/cache") == contents(shop.project.target / "cache") != {}

    def test_production_is_never_hidden(self, shop: Shop) -> None:
        shop.show("prod", shop.tree(a=b"A"))
        write_json(shop.store, shop.project.target / "plans" / "prod.json", {})
        hide_environment(shop.project, "prod")
        assert (shop.project.target / "plans" / "prod.json").is_file()
        assert contents(shop.project.target / "cache") == {"transform/a.parquet": "A"}
