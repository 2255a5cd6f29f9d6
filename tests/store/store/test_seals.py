"""What looks as it did when its bytes were known is believed; everything else is read before it is."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from seeknal.store import seals
from seeknal.store.objects import ActionRecord, Artifact, Blob
from seeknal.store.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store(tmp_path / "store")
    made.prepare()
    return made


def put(store: Store, data: bytes) -> Blob:
    path = store.temporary_path(".bin")
    path.write_bytes(data)
    return store.adopt_file(path)


def overwrite(path: Path, data: bytes) -> None:
    """Change a file in place and give it back its mode, its size and the time of its last write."""
    stat = path.stat()
    path.chmod(0o644)
    with path.open("r+b") as file:
        file.write(data)
    path.chmod(stat.st_mode)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


class Reads:
    """The blobs that were read because no seal vouched for them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.paths: list[Path] = []
        digest_file = seals.digest_file

        def counting(path: Path) -> tuple[str, int]:
            self.paths.append(path)
            return digest_file(path)

        monkeypatch.setattr(seals, "digest_file", counting)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Reads:
    return Reads(monkeypatch)


def test_a_blob_that_was_synced_is_believed_unread_by_the_next_process(store: Store, reads: Reads) -> None:
    blob = put(store, b"data")
    store.sync()
    assert Store(store.root).is_whole(Artifact((blob,), 1))
    assert reads.paths == []


def test_a_blob_that_was_not_synced_is_read_by_the_next_process_and_then_believed(store: Store, reads: Reads) -> None:
    blob = put(store, b"data")
    for _ in range(2):
        assert Store(store.root).is_whole(Artifact((blob,), 1))
    assert reads.paths == [store.blob_path(blob)]


def test_a_change_that_leaves_size_mode_and_time_of_writing_is_noticed(store: Store) -> None:
    blob = put(store, b"data")
    store.sync()
    overwrite(store.blob_path(blob), b"dart")
    for each in (store, Store(store.root)):
        assert not each.is_whole(Artifact((blob,), 1))
        assert each.find_fault(Artifact((blob,), 1)) == "is damaged in the store"


def test_a_damaged_blob_is_replaced_when_it_is_built_again(store: Store) -> None:
    blob = put(store, b"data")
    store.sync()
    overwrite(store.blob_path(blob), b"dart")
    again = Store(store.root)
    assert put(again, b"data") == blob
    assert store.blob_path(blob).read_bytes() == b"data"
    assert again.is_whole(Artifact((blob,), 1))


def test_copies_of_a_store_are_read_once(store: Store, reads: Reads, tmp_path: Path) -> None:
    blob = put(store, b"data")
    store.sync()
    (tmp_path / "copy").mkdir()
    copy = Store(tmp_path / "copy/store")
    shutil.copytree(store.root, copy.root)
    for _ in range(2):
        assert Store(copy.root).is_whole(Artifact((blob,), 1))
    assert reads.paths == [copy.blob_path(blob)]


@pytest.mark.parametrize("damage", [b"", b"seeknal se", b"\x00" * 100, b"seeknal seals 1 000000000000001\n" + b"x" * 7])
def test_a_damaged_file_of_seals_costs_reading_and_is_made_anew(store: Store, reads: Reads, damage: bytes) -> None:
    blob = put(store, b"data")
    store.sync()
    (store.root / "memo/seals").write_bytes(damage)
    for _ in range(3):
        assert Store(store.root).is_whole(Artifact((blob,), 1))
    assert len(reads.paths) == 1


def test_seals_of_a_newer_version_are_neither_believed_nor_overwritten(store: Store, reads: Reads) -> None:
    blob = put(store, b"data")
    store.sync()
    path = store.root / "memo/seals"
    newer = path.read_bytes().replace(b"seals 1", b"seals 2")
    path.write_bytes(newer)
    assert Store(store.root).is_whole(Artifact((blob,), 1))
    put(store, b"more")
    store.sync()
    assert path.read_bytes() == newer
    assert len(reads.paths) == 1


def test_seals_that_other_processes_wrote_are_seen_without_opening_the_store_again(store: Store, reads: Reads) -> None:
    other = Store(store.root)
    for number in range(5):
        for writer, reader in ((store, other), (other, store)):
            blob = put(writer, f"{number}{writer is store}".encode())
            writer.sync()
            assert reader.is_whole(Artifact((blob,), 1))
    assert reads.paths == []


def test_blobs_are_believed_unread_however_many_are_asked_for(store: Store, reads: Reads) -> None:
    blobs = [put(store, str(number).encode()) for number in range(100)]
    store.sync()
    reader = Store(store.root)
    assert all(reader.is_whole(Artifact((blob,), 1)) for blob in blobs[:10])
    late = put(store, b"late")
    store.sync()
    with (store.root / "memo/seals").open("ab") as file:
        file.write(b"torn")
    assert all(reader.is_whole(Artifact((blob,), 1)) for blob in [late, *blobs])
    assert reads.paths == []


def test_few_seals_are_looked_for_without_cutting_up_the_whole_file(store: Store, reads: Reads) -> None:
    blobs = [put(store, str(number).encode()) for number in range(100)]
    store.sync()
    reader = Store(store.root)
    assert all(reader.is_whole(Artifact((blob,), 1)) for blob in blobs[:3])
    assert not reader.seals._kept
    assert reads.paths == []


def test_seals_of_blobs_that_are_gone_are_dropped_in_time(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seals, "_WORTH_CLEANING", 8)
    path = store.root / "memo/seals"
    kept = put(store, b"kept")
    (store.root / "blobs/.DS_Store").write_bytes(b"a file manager's")
    for number in range(100):
        writer = Store(store.root)
        blob = put(writer, f"{number}".encode())
        writer.sync()
        writer.blob_path(blob).unlink()
    assert path.stat().st_size < 32 + 16 * 30
    assert Store(store.root).is_whole(Artifact((kept,), 1))


def test_taking_a_blob_into_use_leaves_it_sealed(store: Store, reads: Reads) -> None:
    blob = put(store, b"data")
    store.record_action(ActionRecord("0" * 32, "transform.t", Artifact((blob,), 1)))
    store.sync()
    for _ in range(2):
        user = Store(store.root)
        with user.leases.hold("a test"):
            assert user.find_action("0" * 32) is not None
    assert reads.paths == []
