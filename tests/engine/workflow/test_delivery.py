from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest

from seeknal.dag.manifest import Manifest, Node, NodeType
from seeknal.dag.project import Project, ProjectSettings
from seeknal.errors import DeliveryError
from seeknal.store.filesystem import digest_bytes
from seeknal.store.objects import Artifact, Tree, TreeEntry
from seeknal.store.store import Store
from seeknal.workflow.delivery import deliver, delivery_path
from seeknal.workflow.events import Delivered, Event
from tests.engine.workflow.projects import run, transform, write, write_project

Files = Mapping[str, bytes]


@dataclass
class Shop:
    """A project of exposures, whose outputs a test makes up."""

    project: Project
    store: Store
    manifest: Manifest = field(default_factory=Manifest)
    tree: Tree = field(default_factory=lambda: Tree({}))
    told: list[tuple[str, str]] = field(default_factory=list)

    @property
    def root(self) -> Path:
        return self.project.root

    def expose(self, name: str, content: bytes | Files, *, path: str = "", stale: bool = False) -> None:
        """Say that an exposure has this content: one file, or several by name."""
        node_id = f"exposure.{name}"
        config = {"type": "file", "path": path or f"output/{name}.csv", "inputs": [{"ref": "transform.t"}]}
        self.manifest.add_node(Node(node_id, name, NodeType.EXPOSURE, config=config))
        blobs = []
        for file, data in ({"": content} if isinstance(content, bytes) else content).items():
            temporary = self.store.temporary_path(".csv")
            temporary.write_bytes(data)
            blobs.append((file, self.store.adopt_file(temporary)))
        entry = TreeEntry(digest_bytes(node_id.encode()), Artifact((), 1, (), tuple(blobs)), stale)
        self.tree = Tree({**self.tree.nodes, node_id: entry})

    def deliver(self, environment: str = "prod", *only: str) -> list[str]:
        """Deliver; gives the errors' messages."""
        errors = self.try_deliver(environment, *only)
        return [str(error) for error in errors]

    def try_deliver(self, environment: str = "prod", *only: str) -> list[DeliveryError]:
        def listen(event: Event) -> None:
            assert isinstance(event, Delivered)
            self.told.append((event.node_id.partition(".")[2], event.path))

        names = {f"exposure.{name}" for name in only} or None
        self.told.clear()
        return deliver(self.project, self.store, environment, self.manifest, self.tree, names, listen)

    def delivered(self) -> list[str]:
        """The exposures of which the last delivery wrote files."""
        return [name for name, _ in self.told]

    def files(self, folder: str = "output") -> dict[str, bytes]:
        below = self.root / folder
        return {str(path.relative_to(below)): path.read_bytes() for path in below.rglob("*") if path.is_file()}


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    project = Project((tmp_path / "shop").resolve())
    project.root.mkdir()
    store = project.store()
    store.prepare()
    return Shop(project, store)


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    return folder


class TestOneFile:
    def test_delivering_again_writes_nothing(self, shop: Shop) -> None:
        shop.expose("sales", b"a\n1\n")
        assert shop.deliver() == []
        assert shop.told == [("sales", str(shop.root / "output/sales.csv"))]
        file = shop.root / "output/sales.csv"
        before = file.stat()
        assert (file.read_bytes(), before.st_mode & 0o777) == (b"a\n1\n", 0o644)
        assert shop.deliver() == []
        assert shop.told == []
        assert file.stat() == before
        assert [path.name for path in file.parent.iterdir()] == ["sales.csv"]

    def test_new_content_takes_the_place_of_the_old(self, shop: Shop) -> None:
        shop.expose("sales", b"old")
        shop.deliver()
        shop.expose("sales", b"new")
        assert shop.deliver() == []
        assert shop.files() == {"sales.csv": b"new"}

    def test_a_file_is_durable_before_it_has_its_name(self, shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
        shop.expose("sales", b"a\n1\n")
        durable: list[int] = []
        fsync, replace_ = os.fsync, os.replace

        def note(descriptor: int) -> None:
            durable.append(os.fstat(descriptor).st_ino)
            fsync(descriptor)

        def insist(temporary: Path, place: Path) -> None:
            assert "store" in place.parts or os.stat(temporary).st_ino in durable
            replace_(temporary, place)

        monkeypatch.setattr(os, "fsync", note)
        monkeypatch.setattr(os, "replace", insist)
        assert shop.deliver() == []
        assert durable != []

    @pytest.mark.parametrize("damage", ["removed", "changed", "touched", "folder removed"])
    def test_file_that_somebody_changed_or_removed_is_delivered_again(self, shop: Shop, damage: str) -> None:
        shop.expose("sales", b"good")
        shop.deliver()
        file = shop.root / "output/sales.csv"
        if damage == "removed":
            file.unlink()
        elif damage == "changed":
            file.write_bytes(b"bad!")
        elif damage == "touched":
            os.utime(file, (1, 1))
        else:
            shutil.rmtree(file.parent)
        assert shop.deliver() == []
        assert shop.delivered() == ["sales"]
        assert shop.files() == {"sales.csv": b"good"}

    def test_file_that_was_there_before_is_replaced(self, shop: Shop) -> None:
        (shop.root / "output").mkdir()
        (shop.root / "output/sales.csv").write_bytes(b"by hand")
        (shop.root / "output/other.csv").write_bytes(b"mine")
        shop.expose("sales", b"good")
        shop.deliver()
        assert shop.files() == {"sales.csv": b"good", "other.csv": b"mine"}

    def test_forgotten_deliveries_cost_a_second_one_and_nothing_else(self, shop: Shop) -> None:
        shop.expose("sales", b"good")
        shop.deliver()
        (shop.store.root / "deliveries/prod").write_bytes(b"damaged")
        assert shop.deliver() == []
        assert shop.delivered() == ["sales"]
        assert shop.deliver() == []
        assert shop.delivered() == []

    def test_path_that_changed_is_delivered_to_and_the_old_file_stays(self, shop: Shop) -> None:
        shop.expose("sales", b"good")
        shop.deliver()
        shop.expose("sales", b"good", path="out/new.csv")
        assert shop.deliver() == []
        assert shop.files("out") == {"new.csv": b"good"}
        assert shop.files("output") == {"sales.csv": b"good"}


class TestWhichNodes:
    def test_only_the_named_nodes_are_delivered_and_the_rest_is_remembered(self, shop: Shop) -> None:
        for name in ("a", "b"):
            shop.expose(name, name.encode())
        shop.deliver("prod", "a")
        assert shop.delivered() == ["a"]
        shop.deliver("prod", "b")
        assert shop.delivered() == ["b"]
        shop.deliver()
        assert shop.delivered() == []

    def test_stale_output_is_not_delivered(self, shop: Shop) -> None:
        shop.expose("sales", b"old", stale=True)
        assert shop.deliver() == []
        assert shop.delivered() == []

    def test_exposure_that_is_gone_is_forgotten_and_its_file_stays(self, shop: Shop) -> None:
        shop.expose("a", b"a")
        shop.expose("b", b"b")
        shop.deliver()
        shop.manifest = Manifest()
        shop.expose("b", b"b")
        shop.deliver()
        assert list(shop.store.read_deliveries("prod").nodes) == ["exposure.b"]
        assert shop.files() == {"a.csv": b"a", "b.csv": b"b"}

    def test_second_node_with_the_same_path_is_an_error(self, shop: Shop) -> None:
        shop.expose("first", b"1", path="output/x.csv")
        shop.expose("second", b"2", path="output/../output/x.csv")
        shop.expose("third", b"3", path="output/x.csv")
        for only, refused in (((), ["second", "third"]), (("third",), ["third"])):
            errors = shop.deliver("prod", *only)
            assert [error.partition(":")[0] for error in errors] == [f"exposure.{name}" for name in refused]
            assert all("is where exposure.first is delivered to" in error for error in errors)
        assert shop.files() == {"x.csv": b"1"}


class TestEnvironments:
    def test_environment_has_a_place_of_its_own(self, shop: Shop) -> None:
        shop.expose("sales", b"new")
        assert shop.deliver("dev") == []
        assert shop.files("target/environments/dev/output") == {"output/sales.csv": b"new"}
        assert not (shop.root / "output").exists()
        assert shop.deliver("prod") == []
        assert shop.files() == {"sales.csv": b"new"}
        assert shop.deliver("dev") == []
        assert shop.delivered() == []

    @pytest.mark.parametrize(
        ("path", "inner"),
        [("output/a.csv", "output/a.csv"), ("../a.csv", "a.csv"), ("/srv/a.csv", "srv/a.csv"), ("x/../../a", "x/a")],
    )
    def test_no_path_leads_out_of_it(self, shop: Shop, path: str, inner: str) -> None:
        assert delivery_path(shop.project, "prod", path) == shop.root / path
        assert delivery_path(shop.project, "dev", path) == shop.root / "target/environments/dev/output" / inner


class TestSeveralFiles:
    def test_files_of_the_last_delivery_are_replaced_and_others_left_alone(self, shop: Shop) -> None:
        shop.expose("days", {"day=1/x.csv": b"1", "day=2/x.csv": b"2"}, path="output/days")
        assert shop.deliver() == []
        (shop.root / "output/days/day=1/mine.csv").write_bytes(b"mine")
        shop.expose("days", {"day=2/x.csv": b"two", "day=3/a=1/x.csv": b"3"}, path="output/days")
        assert shop.deliver() == []
        assert shop.files("output/days") == {
            "day=1/mine.csv": b"mine",
            "day=2/x.csv": b"two",
            "day=3/a=1/x.csv": b"3",
        }
        shop.expose("days", {"day=2/x.csv": b"two"}, path="output/days")
        shop.deliver()
        assert sorted(path.name for path in (shop.root / "output/days").iterdir()) == ["day=1", "day=2"]
        assert shop.deliver() == []
        assert shop.delivered() == []

    def test_file_that_somebody_changed_is_not_removed(self, shop: Shop) -> None:
        shop.expose("days", {"day=1/x.csv": b"1", "day=2/x.csv": b"2"}, path="output/days")
        shop.deliver()
        (shop.root / "output/days/day=1/x.csv").write_bytes(b"edited")
        shop.expose("days", {"day=2/x.csv": b"2"}, path="output/days")
        assert shop.deliver() == []
        assert shop.files("output/days") == {"day=1/x.csv": b"edited", "day=2/x.csv": b"2"}

    def test_no_files_is_a_delivery_too(self, shop: Shop) -> None:
        shop.expose("days", {"day=1/x.csv": b"1"}, path="output/days")
        shop.deliver()
        shop.expose("days", {}, path="output/days")
        assert shop.deliver() == []
        assert shop.files() == {}
        assert shop.deliver() == []

    def test_file_and_folder_take_each_others_place(self, shop: Shop) -> None:
        shop.expose("days", b"all", path="output/days")
        shop.deliver()
        shop.expose("days", {"day=1/x.csv": b"1"}, path="output/days")
        assert shop.deliver() == []
        assert shop.files() == {"days/day=1/x.csv": b"1"}
        shop.expose("days", b"all", path="output/days")
        assert shop.deliver() == []
        assert shop.files() == {"days": b"all"}

    def test_folder_with_somebodys_files_does_not_make_way(self, shop: Shop) -> None:
        shop.expose("days", {"day=1/x.csv": b"1"}, path="output/days")
        shop.deliver()
        (shop.root / "output/days/mine.csv").write_bytes(b"mine")
        shop.expose("days", b"all", path="output/days")
        (error,) = shop.deliver()
        assert error.startswith(f"exposure.days: could not write {shop.root}/output/days: ")
        assert shop.files() == {"days/mine.csv": b"mine"}


class TestWhatGoesWrong:
    def test_failure_is_an_error_of_its_node_and_the_others_go_on(self, shop: Shop) -> None:
        (shop.root / "output").mkdir()
        (shop.root / "output/blocked").write_bytes(b"a file")
        shop.expose("a", b"a")
        shop.expose("b", b"b", path="output/blocked/b.csv")
        shop.expose("c", b"c")
        (error,) = shop.try_deliver()
        assert error.message.startswith(f"exposure.b: could not write {shop.root}/output/blocked/b.csv: ")
        assert error.hint
        assert shop.delivered() == ["a", "c"]
        assert shop.files() == {"a.csv": b"a", "c.csv": b"c", "blocked": b"a file"}
        (shop.root / "output/blocked").unlink()
        assert shop.deliver() == []
        assert shop.delivered() == ["b"]

    def test_missing_output_is_said_to_be_that(self, shop: Shop) -> None:
        shop.expose("a", b"a")
        ((_, blob),) = shop.tree.nodes["exposure.a"].artifact.side_blobs
        shop.store.blob_path(blob).unlink()
        assert [error.message for error in shop.try_deliver()] == ["exposure.a: its output is missing from the store"]
        assert shop.files() == {}

    def test_no_half_file_is_seen_or_left(self, shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
        shop.expose("a", b"old")
        shop.deliver()
        shop.expose("a", b"new")

        def fail_halfway(source: Path, target: Path) -> None:
            target.write_bytes(b"ne")
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patched:
            patched.setattr(shutil, "copyfile", fail_halfway)
            (error,) = shop.deliver()
        assert "No space left on device" in error
        assert shop.files() == {"a.csv": b"old"}
        assert shop.deliver() == []
        assert shop.files() == {"a.csv": b"new"}

    def test_what_a_killed_delivery_left_is_replaced_by_the_next(self, shop: Shop) -> None:
        code = """if True:
            import os, signal, sys
            from pathlib import Path
            from seeknal.store.objects import Blob
            from seeknal.store.store import Store
            from seeknal.workflow import delivery
            delivery.digest_file = lambda path: os.kill(os.getpid(), signal.SIGKILL)
            place = Path(sys.argv[3])
            delivery._copy(Store(Path(sys.argv[1])), Blob(sys.argv[2], 1, ".csv"), place, place)
        """
        shop.expose("a", b"1")
        ((_, blob),) = shop.tree.nodes["exposure.a"].artifact.side_blobs
        place = shop.root / "output/a.csv"
        arguments = [str(shop.store.root), blob.digest, str(place)]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        done = subprocess.run([sys.executable, "-c", code, *arguments], env=environment, check=False)
        assert done.returncode == -signal.SIGKILL
        assert [path.suffix for path in place.parent.iterdir()] == [".part"]
        assert shop.deliver() == []
        assert shop.files() == {"a.csv": b"1"}

    def test_files_of_a_delivery_that_broke_off_are_known_to_the_next(
        self, shop: Shop, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        shop.expose("days", {"day=1/x.csv": b"1", "day=2/x.csv": b"2"}, path="output/days")
        real = shutil.copyfile
        copied: list[object] = []

        def fail_on_the_second(source: Path, target: Path) -> None:
            copied.append(source)
            if len(copied) == 2:
                raise OSError(5, "Input/output error")
            real(source, target)

        with monkeypatch.context() as patched:
            patched.setattr(shutil, "copyfile", fail_on_the_second)
            assert len(shop.deliver()) == 1
        assert shop.files("output/days") == {"day=1/x.csv": b"1"}
        shop.expose("days", {"day=3/x.csv": b"3"}, path="output/days")
        assert shop.deliver() == []
        assert shop.files("output/days") == {"day=3/x.csv": b"3"}

    def test_delivery_that_cannot_be_noted_is_an_error(self, shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(*arguments: object) -> None:
            raise OSError(28, "No space left on device")

        shop.expose("a", b"a")
        monkeypatch.setattr(Store, "write_deliveries", fail)
        assert shop.deliver() == ["exposure.a: delivered, but that could not be noted: No space left on device"]
        assert shop.files() == {"a.csv": b"a"}


class TestLinks:
    @pytest.mark.parametrize("environment", ["prod", "dev"])
    def test_link_that_leads_out_of_the_project_is_not_followed(
        self, shop: Shop, elsewhere: Path, environment: str
    ) -> None:
        base = shop.root if environment == "prod" else shop.root / "target/environments/dev/output"
        base.mkdir(parents=True, exist_ok=True)
        (base / "output").symlink_to(elsewhere)
        (base / "link.csv").symlink_to(elsewhere / "file.csv")
        (base / "days").mkdir()
        (base / "days/day=1").symlink_to(elsewhere)
        shop.expose("folder", b"1", path="output/a.csv")
        shop.expose("file", b"2", path="link.csv")
        shop.expose("inner", {"day=1/x.csv": b"3"}, path="days")
        shop.expose("good", b"4", path="good.csv")
        errors = shop.try_deliver(environment)
        assert [error.message.partition(":")[0] for error in errors] == [
            "exposure.folder",
            "exposure.file",
            "exposure.inner",
        ]
        assert all("leads out of the project" in error.message for error in errors)
        assert all("allow_external_paths" in error.hint for error in errors)
        assert list(elsewhere.iterdir()) == []
        assert shop.delivered() == ["good"]

    def test_path_that_leads_out_is_refused_even_where_planning_let_it_pass(self, shop: Shop, elsewhere: Path) -> None:
        shop.expose("a", b"1", path="../elsewhere/a.csv")
        shop.expose("b", b"1", path=str(elsewhere / "b.csv"))
        assert len(shop.deliver()) == 2
        assert list(elsewhere.iterdir()) == []

    def test_settings_allow_it(self, shop: Shop, elsewhere: Path) -> None:
        shop.project = msgspec.structs.replace(shop.project, settings=ProjectSettings(allow_external_paths=True))
        (shop.root / "output").symlink_to(elsewhere)
        (shop.root / "link.csv").symlink_to(elsewhere / "file.csv")
        shop.expose("folder", b"1", path="output/a.csv")
        shop.expose("file", b"2", path="link.csv")
        shop.expose("outside", b"3", path=str(elsewhere / "b.csv"))
        assert shop.deliver() == []
        assert {path.name: path.read_bytes() for path in elsewhere.iterdir()} == {
            "a.csv": b"1",
            "file.csv": b"2",
            "b.csv": b"3",
        }
        assert (shop.root / "link.csv").is_symlink()
        assert shop.deliver() == []
        assert shop.delivered() == []

    @pytest.mark.parametrize("allowed", [True, False])
    def test_nothing_is_delivered_into_what_is_our_own(self, shop: Shop, allowed: bool) -> None:
        shop.project = msgspec.structs.replace(shop.project, settings=ProjectSettings(allow_external_paths=allowed))
        (shop.root / "output").symlink_to(shop.store.root / "blobs")
        shop.expose("a", b"1", path="output/a.csv")
        (error,) = shop.deliver()
        assert "leads into target/" in error

    def test_links_inside_the_project_and_a_target_that_is_one_are_followed(self, tmp_path: Path) -> None:
        root = tmp_path / "shop"
        (root / "real").mkdir(parents=True)
        (root / "output").symlink_to("real")
        (tmp_path / "scratch").mkdir()
        (root / "target").symlink_to(tmp_path / "scratch")
        project = Project(root)
        shop = Shop(project, project.store())
        shop.store.prepare()
        shop.expose("a", b"1", path="output/a.csv")
        assert shop.deliver() == []
        assert shop.deliver("dev") == []
        assert shop.files("real") == {"a.csv": b"1"}
        assert shop.files("target/environments/dev/output") == {"output/a.csv": b"1"}

    def test_file_behind_a_link_that_was_turned_outward_is_not_removed(self, shop: Shop, elsewhere: Path) -> None:
        shop.expose("days", {"day=1/x.csv": b"1", "day=2/x.csv": b"2"}, path="days")
        shop.deliver()
        os.rename(shop.root / "days/day=1", elsewhere / "day=1")
        (shop.root / "days/day=1").symlink_to(elsewhere / "day=1")
        shop.expose("days", {"day=2/x.csv": b"2"}, path="days")
        assert shop.deliver() == []
        assert (elsewhere / "day=1/x.csv").read_bytes() == b"1"

    def test_link_in_a_circle_is_an_error(self, shop: Shop) -> None:
        (shop.root / "output").symlink_to("output")
        shop.expose("a", b"1", path="output/a.csv")
        (error,) = shop.deliver()
        assert error.startswith("exposure.a: ")


def test_partitions_stay_below_their_folder_whatever_their_values_are(tmp_path: Path) -> None:
    root = write_project(
        tmp_path / "shop",
        {
            "seeknal/transforms/t.yml": transform(
                "t", "SELECT unnest(['../../up', '/abs', 'a=b', '..', 'é', NULL]) AS k, 1 AS v"
            ),
        },
    )
    exposure: dict[str, Any] = {
        "kind": "exposure",
        "name": "e",
        "type": "file",
        "inputs": [{"ref": "transform.t"}],
        "path": "output/e",
        "format": "csv",
        "params": {"partition_by": "k"},
    }
    write(root, "seeknal/exposures/e.yml", msgspec.yaml.encode(exposure).decode())
    result = run(root)
    assert result.status == "success", result
    files = [path.relative_to(root / "output/e") for path in (root / "output/e").rglob("*") if path.is_file()]
    assert len(files) == 6
    assert all(len(path.parts) == 2 and path.parts[0].startswith("k=") for path in files)
    assert {path.name for path in tmp_path.iterdir()} == {"shop"}
    assert [path.name for path in (root / "output").iterdir()] == ["e"]
