"""What somebody else put where Seeknal has its own: it is told, never deleted, and in nobody's way."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from seeknal.store.store import OURS
from tests.acceptance.project import Project
from tests.reliability.lived_in import live, read_rows

COMMANDS = (
    "run",
    "plan",
    "plan dev",
    "run --env dev",
    "env list",
    "env delete dev --yes",
    "rollback prod",
    "gc",
    "store verify",
    "repl --exec x",
    "inspect --list",
)


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return live(tmp_path_factory.mktemp("lived") / "shop")


@pytest.fixture
def project(lived: Project, tmp_path: Path) -> Project:
    return Project(Path(shutil.copytree(lived.root, tmp_path / "shop", symlinks=True)))


def identity(path: Path) -> tuple[int, int, int]:
    """What tells a file from another in its place; looking at a link changes when it was last looked at."""
    stat = path.lstat()
    return stat.st_mode, stat.st_ino, stat.st_mtime_ns


@pytest.mark.parametrize("name", ["target", "target/store"])
@pytest.mark.parametrize("leads", ["in a circle", "nowhere", "a file"])
def test_something_in_the_place_of_a_folder_is_named_in_one_line(project: Project, name: str, leads: str) -> None:
    path = project.root / name
    shutil.rmtree(path)
    if leads == "a file":
        path.write_text("mine")
    else:
        path.symlink_to(path.name if leads == "in a circle" else "/nowhere/at/all")
    before = identity(path)
    for command in COMMANDS:
        answer = project.seeknal(*command.split())
        assert answer.code == 1, answer.text
        assert len(answer.errors) == 1, answer.text
        assert answer.errors[0].startswith(f"{name} "), answer.text
        assert identity(path) == before


@pytest.mark.parametrize("name", ["seeknal/top.yml", "data/orders.csv", "seeknal_project.yml", "output/report.csv"])
def test_a_link_to_itself_in_the_project_is_named(project: Project, name: str) -> None:
    path = project.root / name
    path.unlink()
    path.symlink_to(path.name)
    for command in ("plan", "run --full"):
        answer = project.seeknal(*command.split())
        assert "Traceback" not in answer.text
        if name.startswith("output"):
            continue
        assert answer.code == 1
        assert name in answer.errors[0]


def test_a_folder_of_nodes_that_cannot_be_read_is_an_error_and_no_nodes_are_lost(project: Project) -> None:
    shutil.move(project.root / "seeknal", project.root / "aside")
    (project.root / "seeknal").symlink_to("seeknal")
    answer = project.seeknal("run")
    assert answer.code == 1
    assert answer.errors == ["seeknal: cannot be read: Too many levels of symbolic links"]


def test_target_may_be_a_link_to_another_disk(project: Project, tmp_path: Path) -> None:
    shutil.move(project.root / "target", tmp_path / "elsewhere")
    (project.root / "target").symlink_to(tmp_path / "elsewhere")
    for command in ("run", "env list", "run --env dev", "env delete trial --yes", "gc"):
        project.ok(*command.split())


def foreign(project: Project, name: str, what: str) -> Path:
    """Put something of the user's where a link of ours stands; gives a file that must survive."""
    path = project.root / "target" / name
    path.unlink()
    if what == "file":
        path.write_text("mine")
        return path
    folder = path if what == "folder" else project.root / "mine"
    folder.mkdir()
    if what == "link":
        path.symlink_to(folder)
    (folder / "file").write_text("mine")
    return folder / "file"


@pytest.mark.parametrize("what", ["file", "folder", "link"])
@pytest.mark.parametrize("name", ["cache", "intermediate", "environments/dev/cache"])
def test_what_stands_in_the_place_of_a_link_is_left_and_told_and_moved_by_a_repair(
    project: Project, name: str, what: str
) -> None:
    mine = foreign(project, name, what)
    project.replace("seeknal/totals.yml", "sum(amount)", "min(amount)")
    for command in ("plan dev", "run --env dev", "run"):
        answer = project.ok(*command.split())
        assert mine.read_text() == "mine"
        said = [line for line in answer.text.splitlines() if "none of Seeknal's" in line]
        assert len(said) == (command == ("run --env dev" if "dev" in name else "run")), answer.text
    assert project.seeknal("store", "verify").code == 12
    project.ok("store", "verify", "--repair")
    path = project.root / "target" / name
    assert path.is_symlink()
    assert (path / "transform/totals.parquet" if path.name == "cache" else path / "transform_totals.parquet").is_file()
    kept = [found for found in project.root.rglob("*") if found.is_file() and found.read_bytes() == b"mine"]
    assert len(kept) == 1


def test_a_project_that_was_copied_without_its_links_is_shown_again_by_a_repair(
    project: Project, tmp_path: Path
) -> None:
    copy = Project(Path(shutil.copytree(project.root, tmp_path / "copy")))
    copy.ok("run")
    copy.ok("store", "verify", "--repair")
    copy.ok("store", "verify")
    assert (copy.root / "target/cache").is_symlink()
    assert read_rows(copy, "prod") == read_rows(project, "prod")


def test_strangers_in_the_stores_folders_are_in_nobodys_way_and_move_aside(project: Project) -> None:
    store = project.root / "target/store"
    wanted = {state: read_rows(project, state) for state in ("prod", "dev", "prod@2")}
    folders = sorted(OURS - {"format", "memo", "tmp"})
    for name in folders:
        (store / name / "stranger").mkdir(parents=True)
        (store / name / "stranger/file").write_text("mine")
        (store / name / ".hidden file").write_text("mine")
    (store / "stranger").write_text("mine")
    (store / "refs/prod.log.d").mkdir()
    for command in ("gc", "run --full", "env list", "env du", "env history prod", "env delete trial --yes", "gc"):
        project.ok(*command.split())
    answer = project.ok("store", "verify")
    for name in folders:
        assert f"{name}/stranger" in answer.text
        assert (store / name / "stranger/file").read_text() == "mine"
    project.ok("store", "verify", "--repair")
    assert "nothing of the store's" not in project.ok("store", "verify").text
    kept = [path for path in (store / "quarantine").rglob("*") if path.is_file() and path.read_bytes() == b"mine"]
    # Files in locks/ may have any name, and mean nothing.
    assert len(kept) == 2 * len(folders) + 1 - 1
    project.ok("gc")
    assert {state: read_rows(project, state) for state in wanted} == wanted


@pytest.mark.parametrize("name", ["refs/prod", "environments/dev", "deliveries/prod", "refs/prod.lock", "locks/prod"])
def test_a_folder_in_the_place_of_a_record_is_moved_by_a_repair(project: Project, name: str) -> None:
    wanted = read_rows(project, "prod")
    path = project.root / "target/store" / name
    path.unlink()
    path.mkdir()
    (path / "file").write_text("mine")
    assert "Traceback" not in project.seeknal("run").text
    project.seeknal("store", "verify", "--repair")
    project.ok("store", "verify")
    assert read_rows(project, "prod") == wanted
    project.ok("gc")
    assert os.listdir(next((project.root / "target/store/quarantine").glob(f"*/{name}"))) == ["file"]
