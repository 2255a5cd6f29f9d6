"""Whatever happens to the store's files, verifying says so, repairing mends it, and the next run builds the rest."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seeknal.dag.project import Project
from seeknal.errors import CorruptObjectError, FormatTooNewError
from seeknal.store.findings import Verification
from seeknal.store.history import read_pins
from seeknal.store.refs import RefMove, Refs
from seeknal.workflow.environment import EnvironmentManager
from seeknal.workflow.lookback import pin_moment
from seeknal.workflow.outputs import read_outputs
from tests.engine.workflow.projects import check, executed, mend, run, transform, write, write_project

NODES = {
    "seeknal/a.yml": transform("a", "SELECT i AS x FROM range(10) t(i)"),
    "seeknal/b.yml": transform("b", "SELECT x, x + 1 AS y FROM transform.a"),
    "seeknal/c.yml": transform("c", "SELECT sum(y) AS total FROM transform.b"),
    "seeknal/out.yml": """
        kind: exposure
        name: out
        type: file
        inputs: [{ref: transform.c}]
        params: {path: output/out.csv, format: csv}
        """,
}


AUDITS = "[{type: not_null, columns: [x]}]"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose production ran twice, the second time with another b."""
    root = write_project(tmp_path_factory.mktemp("made") / "shop", NODES)
    assert run(root).status == "success"
    write(root, "seeknal/b.yml", transform("b", "SELECT x, x + 2 AS y FROM transform.a"))
    assert run(root).status == "success"
    return root


@pytest.fixture
def shop(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "shop", symlinks=True))


def blob_of(root: Path, node_id: str) -> Path:
    store = Project.open(root).store()
    (blob,) = read_outputs(store).nodes[node_id].artifact.blobs()
    return store.blob_path(blob)


def lose_what_only_the_past_has(root: Path) -> None:
    """Remove the output of b that production stood at before."""
    store = Project.open(root).store()
    head = store.head("prod")
    assert head is not None
    assert head.parent is not None
    old = store.read_tree(store.read_snapshot(head.parent).tree).nodes["transform.b"].artifact
    store.blob_path(old.blobs()[0]).unlink()


def change(path: Path, data: bytes) -> None:
    mode = path.stat().st_mode
    path.chmod(0o644)
    path.write_bytes(data)
    path.chmod(mode)


def flip(path: Path, at: int = 30) -> None:
    data = bytearray(path.read_bytes())
    data[at % len(data)] ^= 1
    change(path, bytes(data))


def test_an_environment_that_moves_while_it_is_verified_is_no_damage(
    shop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Refs.log

    def overtaken(refs: Refs, name: str) -> Iterator[RefMove]:
        monkeypatch.setattr(Refs, "log", real)
        write(shop, "seeknal/b.yml", transform("b", "SELECT x, x + 3 AS y FROM transform.a"))
        assert run(shop).status == "success"
        yield from real(refs, name)

    monkeypatch.setattr(Refs, "log", overtaken)
    assert check(shop).findings == []


def as_newer(data: bytes) -> bytes:
    """A stored object as a version to come may write it."""
    header, _, body = data.partition(b"\n")
    word, kind, version, _ = header.split(b" ")
    return b"%s %s %d %s\n" % (word, kind, int(version) + 1, b"0" * 32) + body


def kinds(found: Verification) -> set[str]:
    return {finding.check for finding in found.damage}


def test_a_store_that_was_only_used_is_whole(shop: Path) -> None:
    found = check(shop)
    assert found.findings == []
    assert (found.snapshots, found.environments) == (2, 1)
    assert found.repairs == []


@pytest.mark.parametrize("damage", ["flipped", "cut", "gone"])
def test_a_damaged_output_is_named_with_who_lacks_it_and_rebuilt_alone(shop: Path, damage: str) -> None:
    path = blob_of(shop, "transform.b")
    if damage == "flipped":
        flip(path)
    elif damage == "cut":
        change(path, path.read_bytes()[:-10])
    else:
        path.unlink()
    found = check(shop)
    assert "missing-blob" in kinds(found) if damage == "gone" else "damaged-blob" in kinds(found)
    (finding,) = (finding for finding in found.damage if finding.check.endswith("-blob"))
    assert finding.subject == os.fspath(path.relative_to(shop / "target/store"))
    assert [(hurt.environment, hurt.number, hurt.nodes) for hurt in finding.hurts] == [("prod", 0, ["transform.b"])]
    assert kinds(mend(shop)) == {"missing-blob"}
    assert executed(run(shop)) == ["b"]
    assert check(shop).damage == []


def test_an_output_that_both_now_and_before_lack_names_both(shop: Path) -> None:
    flip(blob_of(shop, "transform.a"))
    (finding,) = (finding for finding in check(shop).damage if finding.check == "damaged-blob")
    assert [(hurt.environment, hurt.number) for hurt in finding.hurts] == [("prod", 0), ("prod", 1)]


def test_what_only_the_past_lacks_is_reported_once(shop: Path) -> None:
    lose_what_only_the_past_has(shop)
    assert kinds(check(shop)) == {"missing-blob", "dangling-action"}
    after = mend(shop)
    assert after.damage == []
    assert [finding.check for finding in after.notes] == ["missing-blob"]


def test_damaged_blobs_are_moved_aside_not_deleted(shop: Path) -> None:
    path = blob_of(shop, "transform.b")
    flip(path)
    data = path.read_bytes()
    mend(shop)
    assert not path.exists()
    (aside,) = (shop / "target/store/quarantine").rglob(path.name)
    assert aside.read_bytes() == data


def test_a_writable_blob_is_made_read_only_again(shop: Path) -> None:
    path = blob_of(shop, "transform.b")
    path.chmod(0o664)
    assert kinds(check(shop)) == {"mode"}
    assert mend(shop).findings == []
    assert path.stat().st_mode & 0o777 == 0o444


@pytest.mark.parametrize("folder", ["actions", "trees", "snapshots", "manifests"])
@pytest.mark.parametrize("damage", ["flipped", "emptied", "foreign"])
def test_every_damaged_object_is_found_and_the_next_run_heals_production(shop: Path, folder: str, damage: str) -> None:
    for path in [path for path in (shop / "target/store" / folder).rglob("*") if path.is_file()]:
        if damage == "flipped":
            flip(path)
        else:
            change(path, b"" if damage == "emptied" else b"\x00\xff not of ours")
    found = check(shop)
    assert f"damaged-{folder[:-1]}" in kinds(found)
    mend(shop)
    result = run(shop)
    assert result.status == "success"
    assert check(shop).damage == []


def test_a_ref_whose_snapshot_is_damaged_goes_back_to_the_last_good_state(shop: Path) -> None:
    store = Project.open(shop).store()
    now = store.refs.read("prod")
    assert now is not None
    before = store.read_snapshot(now).parent
    flip(shop / "target/store/snapshots" / now)
    assert "dangling-ref" in kinds(check(shop))
    assert mend(shop).damage == []
    assert store.refs.read("prod") == before
    assert [move.new for move in store.refs.log("prod")][-1] == before


def test_a_damaged_ref_is_restored_from_its_log(shop: Path) -> None:
    store = Project.open(shop).store()
    now = store.refs.read("prod")
    (shop / "target/store/refs/prod").write_bytes(b"\x00" * 33)
    assert kinds(check(shop)) == {"damaged-ref"}
    assert mend(shop).damage == []
    assert store.refs.read("prod") == now


def test_a_ref_that_leads_to_another_environments_state_is_an_error_and_restored_from_its_log(shop: Path) -> None:
    store = Project.open(shop).store()
    now, head = store.refs.read("prod"), store.head("prod")
    assert head is not None
    foreign = store.write_snapshot(msgspec.structs.replace(head, environment="dev"))
    (shop / "target/store/refs/prod").write_text(f"{foreign}\n")
    with pytest.raises(CorruptObjectError, match="of 'dev'"):
        read_outputs(store)
    assert kinds(check(shop)) == {"dangling-ref"}
    assert mend(shop).damage == []
    assert store.refs.read("prod") == now


def test_damaged_lists_of_losses_and_ends_are_replaced_by_what_is_found_lost_now(shop: Path) -> None:
    lose_what_only_the_past_has(shop)
    for name in ("losses", "history_ends"):
        write(shop, f"target/store/notes/{name}", "damaged")
    assert mend(shop).damage == []
    assert check(shop).damage == []


def test_a_damaged_pin_is_made_again(shop: Path) -> None:
    store = Project.open(shop).store()
    digest = pin_moment(store, "prod", "1").digest
    path = shop / "target/store/pins" / digest
    path.write_bytes(path.read_bytes()[:-1])
    assert kinds(check(shop)) == {"damaged-pin"}
    assert mend(shop).damage == []
    assert [(pin.snapshot, pin.environment) for pin in read_pins(store)] == [(digest, "prod")]


@pytest.mark.parametrize("folder", ["checks", "deliveries", "environments"])
def test_records_beside_the_refs_are_checked(shop: Path, folder: str) -> None:
    write(shop, "seeknal/b.yml", transform("b", "SELECT x, x + 2 AS y FROM transform.a", audits=AUDITS))
    assert run(shop).status == "success"
    EnvironmentManager(shop / "target").plan("dev")
    path = next(path for path in (shop / "target/store" / folder).rglob("*") if path.is_file())
    flip(path)
    assert kinds(check(shop)) == {f"damaged-{folder.removesuffix('s') if folder == 'environments' else folder}"}
    assert mend(shop).damage == []
    assert run(shop).status == "success"


def test_what_is_not_of_the_store_is_a_note(shop: Path) -> None:
    for path in ("mine.txt", "refs/a b", "environments/a b", "blobs/x"):
        write(shop, f"target/store/{path}", "?")
    found = check(shop)
    assert found.damage == []
    assert sorted(finding.subject for finding in found.notes) == ["blobs/x", "environments/a b", "mine.txt", "refs/a b"]


def test_a_store_of_a_newer_version_is_refused_and_a_damaged_format_is_not_taken_for_one(
    shop: Path,
) -> None:
    path = shop / "target/store/format"
    good = path.read_bytes()
    path.write_bytes(as_newer(good))
    with pytest.raises(FormatTooNewError, match=r"target/store/format\) was made by a newer Seeknal"):
        Project.open(shop).store()
    path.write_bytes(good.replace(b"store 1", b"store 3"))
    assert kinds(check(shop)) == {"damaged-format"}
    assert mend(shop).damage == []
    assert run(shop).status == "success"
    assert path.read_bytes() == good


def test_a_ref_moved_by_hand_gets_its_line_in_the_log(shop: Path) -> None:
    store = Project.open(shop).store()
    head = store.head("prod")
    assert head is not None
    other = store.write_snapshot(msgspec.structs.replace(head, reason="by hand"))
    (shop / "target/store/refs/prod").write_text(f"{other}\n")
    assert kinds(check(shop)) == {"ref-log"}
    assert mend(shop).damage == []
    assert [move.new for move in store.refs.log("prod")][-1] == other


def test_what_a_newer_version_wrote_is_reported_and_left_alone(shop: Path) -> None:
    flip(blob_of(shop, "transform.b"))
    (path,) = [path for path in (shop / "target/store/actions").rglob("*") if path.is_file()][:1]
    change(path, as_newer(path.read_bytes()))
    found = check(shop)
    assert "newer-format" in kinds(found)
    assert found.repairs == []


def test_a_torn_line_of_a_log_is_a_note(shop: Path) -> None:
    with (shop / "target/store/refs/prod.log").open("a") as log:
        log.write("1.0\tgarb\n")
    found = check(shop)
    assert found.damage == []
    assert [finding.check for finding in found.notes] == ["ref-log"]


def test_a_move_that_was_noted_and_not_made_is_no_damage(shop: Path) -> None:
    store = Project.open(shop).store()
    head = store.refs.read("prod")
    with (shop / "target/store/refs/prod.log").open("a") as log:
        log.write(f"99.000000\t{head}\t{'0' * 32}\tme\tkilled\n")
    assert check(shop).damage == []


@settings(max_examples=12)
@given(seed=st.integers(0, 2**32), share=st.sampled_from([0.05, 0.2, 0.6]))
def test_after_any_damage_repair_and_run_give_the_same_outputs(
    made: Path, tmp_path_factory: pytest.TempPathFactory, seed: int, share: float
) -> None:
    root = Path(shutil.copytree(made, tmp_path_factory.mktemp("any") / "shop", symlinks=True))
    chance = random.Random(seed)
    store = root / "target/store"
    wanted = {
        node_id: entry.artifact.parts for node_id, entry in read_outputs(Project.open(root).store()).nodes.items()
    }
    for path in sorted(path for path in store.rglob("*") if path.is_file() and not path.is_symlink()):
        if chance.random() < share and "locks" not in path.parts:
            match chance.choice(["flip", "cut", "delete"]):
                case "flip" if path.stat().st_size:
                    flip(path, chance.randrange(1 << 20))
                case "cut":
                    change(path, path.read_bytes()[: chance.randrange(path.stat().st_size + 1)])
                case _:
                    path.unlink()
    mend(root)
    assert run(root).status == "success"
    assert check(root).damage == []
    assert {
        node_id: entry.artifact.parts for node_id, entry in read_outputs(Project.open(root).store()).nodes.items()
    } == wanted


def test_a_lost_ref_is_damage_that_nothing_goes_on_from_and_that_is_restored(shop: Path) -> None:
    run(shop)
    write(shop, "seeknal/b.yml", transform("b", "SELECT x, x + 3 AS y FROM transform.a"))
    run(shop)
    ref = shop / "target/store/refs/prod"
    stood = ref.read_text()
    ref.unlink()
    assert "damaged-ref" in kinds(check(shop))
    with pytest.raises(CorruptObjectError, match="is missing"):
        run(shop)
    mend(shop)
    assert ref.read_text() == stood
    assert check(shop).findings == []
