"""What stands outside the store and is not what the store says is told, and shown, delivered or put aside again."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from seeknal.store.findings import Verification
from tests.engine.workflow.projects import check, mend, run, transform, write, write_project

NODES = {
    "seeknal/a.yml": transform("a", "SELECT i AS x FROM range(10) t(i)"),
    "seeknal/b.yml": transform("b", "SELECT sum(x) AS y FROM transform.a"),
    "seeknal/out.yml": """
        kind: exposure
        name: out
        type: file
        inputs: [{ref: transform.b}]
        params: {path: output/out.csv, format: csv}
        """,
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = write_project(tmp_path_factory.mktemp("made") / "shop", NODES)
    assert run(root).status == "success"
    return root


@pytest.fixture
def shop(made: Path, tmp_path: Path) -> Path:
    root = Path(shutil.copytree(made, tmp_path / "shop", symlinks=True))
    # A copy's deliveries are remembered by the paths of the original.
    assert run(root).status == "success"
    return root


def subjects(found: Verification) -> tuple[list[str], list[str]]:
    """What is damaged, and what is only noted."""
    return sorted(entry.subject for entry in found.damage), sorted(entry.subject for entry in found.notes)


def test_what_a_run_left_is_as_it_must_be(shop: Path) -> None:
    assert check(shop).findings == []


@pytest.mark.parametrize("heal", [mend, run])
@pytest.mark.parametrize("name", ["run_state.json", "cache/transform/a.parquet", "intermediate/transform_b.parquet"])
def test_a_file_in_the_place_of_a_link_is_damage_until_it_is_shown_again(shop: Path, name: str, heal: object) -> None:
    path = shop / "target" / name
    real = path.resolve()
    write(shop, "mine", "something else")
    os.replace(shop / "mine", path)
    ((subject,), notes) = subjects(check(shop))
    assert Path(subject).name == path.name
    assert notes == []
    assert callable(heal)
    heal(shop)
    assert path.is_symlink()
    assert path.resolve() == real
    assert check(shop).findings == []


def test_a_link_to_something_else_in_a_view_is_damage(shop: Path) -> None:
    path = shop / "target/cache/transform/a.parquet"
    path.unlink()
    path.symlink_to("b.parquet")
    assert len(check(shop).damage) == 1
    assert mend(shop).findings == []


def test_a_changed_document_in_a_view_is_damage(shop: Path) -> None:
    path = (shop / "target/run_state.json").resolve()
    path.write_text(path.read_text().replace('"row_count": 10', '"row_count": 11'))
    assert len(check(shop).damage) == 1
    assert mend(shop).findings == []


@pytest.mark.parametrize("name", ["cache", "run_state.json", "cache/transform/b.parquet"])
def test_a_link_that_is_gone_is_a_note_and_comes_back(shop: Path, name: str) -> None:
    (shop / "target" / name).unlink()
    damage, notes = subjects(check(shop))
    assert damage == []
    assert len(notes) == 1
    assert mend(shop).findings == []
    assert (shop / "target" / name).exists()


def test_a_delivery_that_was_changed_unseen_is_a_note_and_delivered_again(shop: Path) -> None:
    path = shop / "output/out.csv"
    good, stat = path.read_text(), path.stat()
    path.write_text(good.replace("45", "54"))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert subjects(check(shop)) == ([], ["output/out.csv"])
    mend(shop)
    assert run(shop).status == "success"
    assert path.read_text() == good
    assert check(shop).findings == []


def test_a_delivery_that_is_gone_is_a_note_and_the_next_run_delivers_it(shop: Path) -> None:
    (shop / "output/out.csv").unlink()
    assert subjects(check(shop)) == ([], ["output/out.csv"])
    assert run(shop).status == "success"
    assert check(shop).findings == []


def test_a_damaged_record_of_a_run_is_put_aside(shop: Path) -> None:
    path = next((shop / "target/runs").glob("*.json"))
    data = path.read_bytes()
    path.write_bytes(data[:-20])
    assert subjects(check(shop)) == ([f"target/runs/{path.name}"], [])
    assert mend(shop).findings == []
    (aside,) = (shop / "target/store/quarantine").rglob(path.name)
    assert aside.read_bytes() == data[:-20]
    assert run(shop).status == "success"


def test_a_record_of_a_run_by_a_newer_version_is_left_alone(shop: Path) -> None:
    path = next((shop / "target/runs").glob("*.json"))
    path.write_bytes(path.read_bytes().replace(b'"schema_version":1', b'"schema_version":7'))
    (finding,) = check(shop).damage
    assert finding.check == "newer-format"
    assert "made by a newer Seeknal" in finding.message
    assert check(shop).repairs == []


def test_a_damaged_database_of_runs_is_damage_that_is_left_to_its_owner(shop: Path) -> None:
    write(shop, "seeknal_project.yml", "name: shop\nstate_backend: database\n")
    write(shop, "seeknal/a.yml", transform("a", "SELECT i AS x FROM range(11) t(i)"))
    assert run(shop).status == "success"
    (path,) = (path for path in (shop / "target").rglob("*") if path.suffix == ".db")
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * (path.stat().st_size - 4096))
    damage, _ = subjects(check(shop))
    assert damage == [path.relative_to(shop).as_posix()]
    assert subjects(mend(shop))[0] == damage
