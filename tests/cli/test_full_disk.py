"""A disk that is full or must not be written to is named in one line, with what can be done, and nothing is lost."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.project import Project
from tests.reliability.lived_in import live, read_rows

COMMANDS = ("run", "run --full", "plan new", "promote trial --force --yes", "rollback prod", "env pin prod 1")


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return live(tmp_path_factory.mktemp("lived") / "shop")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small disk of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], capture_output=True).returncode:
        pytest.skip("only root may mount a disk")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


@pytest.fixture
def project(lived: Project, disk: Path) -> Project:
    return Project(Path(shutil.copytree(lived.root, disk / "shop", symlinks=True)))


def fill(disk: Path) -> None:
    with (disk / "fill").open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(bytes(4096)):
            continue


def test_a_full_disk_is_named_with_the_way_to_give_back_space(project: Project, disk: Path) -> None:
    before = read_rows(project, "prod")
    project.replace("seeknal/big.yml", "amount > 20", "amount > 30")
    fill(disk)
    for command in COMMANDS:
        answer = project.seeknal(*command.split())
        assert answer.code == 1, answer.text
        assert "Traceback" not in answer.text
        assert f"{disk}/shop/target" in answer.errors[0], (command, answer.text)
        assert "No space left on device" in answer.errors[0]
        assert "`seeknal gc` gives back" in answer.stderr, (command, answer.text)
    project.ok("gc", "--dry-run")
    assert read_rows(project, "prod") == before
    (disk / "fill").unlink()
    project.ok("run")
    project.ok("store", "verify")


def test_a_disk_that_is_mounted_read_only_is_named(project: Project, disk: Path) -> None:
    before = read_rows(project, "prod")
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    for command in (*COMMANDS, "gc", "env delete dev --yes"):
        answer = project.seeknal(*command.split())
        assert answer.code == 1, answer.text
        assert len(answer.errors) == 1, (command, answer.text)
        assert f"{disk}/shop/target" in answer.errors[0], (command, answer.text)
        assert "mounted read-only" in answer.stderr, (command, answer.text)
    for command in ("env list", "env history prod", "store verify", "diff", "inspect big"):
        project.ok(*command.split())
    assert read_rows(project, "prod") == before


@pytest.mark.parametrize("name", ["runs", "store/blobs", "store/locks", "store/tmp", "store/leases", "store/views"])
def test_a_file_in_the_place_of_a_folder_is_named(lived: Project, tmp_path: Path, name: str) -> None:
    project = Project(Path(shutil.copytree(lived.root, tmp_path / "shop", symlinks=True)))
    path = project.root / "target" / name
    shutil.rmtree(path)
    path.write_text("mine")
    answer = project.seeknal("run", "--full")
    assert answer.code == 1
    assert str(path) in answer.errors[0]
    assert "something stands where Seeknal needs a folder" in answer.stderr
    assert path.read_text() == "mine"
    if name.startswith("store"):
        project.seeknal("store", "verify", "--repair")
        assert not path.is_file()
        project.ok("run", "--full")


def test_a_migration_that_a_full_disk_ends_leaves_no_database_and_is_done_again(project: Project, disk: Path) -> None:
    runs = sorted((project.root / "target/runs").glob("*.json"))
    fill(disk)
    # Enough to begin with, and not to end.
    with (disk / "fill").open("r+b") as file:
        file.truncate((disk / "fill").stat().st_size - 16384)
    answer = project.seeknal("migrate-state", "-b", "database", "--no-dry-run")
    assert answer.code == 1, answer.text
    assert list((project.root / "target").glob("state.db*")) == []
    assert sorted((project.root / "target/runs").glob("*.json")) == runs
    (disk / "fill").unlink()
    project.ok("migrate-state", "-b", "database", "--no-dry-run")
    assert project.ok("store", "verify", "--json").document["status"] == "clean"
