from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from itertools import count
from pathlib import Path

import duckdb
import msgspec
import pytest

from seeknal.errors import CorruptObjectError, FormatTooNewError, NameNotAllowedError
from seeknal.store import filesystem
from seeknal.store.column_digests import digest_file, digest_parquet
from seeknal.store.filesystem import digest_bytes
from seeknal.store.objects import (
    ActionRecord,
    Artifact,
    Blob,
    Deliveries,
    Delivery,
    EnvironmentRecord,
    Snapshot,
    Tree,
    TreeEntry,
    encode,
)
from seeknal.store.store import Store
from tests.store.store.failing_disk import Disk, disk, files_below

KEY = digest_bytes(b"a fingerprint")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store(tmp_path / "target" / "store")
    made.prepare()
    return made


@pytest.fixture(scope="session")
def tables(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    """Three Parquet files of the columns k and v."""
    folder = tmp_path_factory.mktemp("tables")
    with duckdb.connect(config={"threads": 1}) as connection:
        for number in range(3):
            query = f"SELECT i AS k, 'value {number}' AS v FROM range({number + 1}) t(i)"
            connection.execute(f"COPY ({query}) TO '{folder}/{number}.parquet' (FORMAT parquet)")
    return [(folder / f"{number}.parquet").read_bytes() for number in range(3)]


def put(store: Store, table: bytes) -> Artifact:
    """Put a table into the store as a worker does."""
    path = store.temporary_path()
    path.write_bytes(table)
    blob, row_count, columns = store.adopt_parquet(path, ["BIGINT", "VARCHAR"])
    return Artifact((blob,), row_count, columns)


def put_file(store: Store, content: bytes, suffix: str = ".csv") -> Blob:
    path = store.temporary_path(suffix)
    path.write_bytes(content)
    return store.adopt_file(path)


def commit(store: Store, table: bytes, *, environment: str = "prod") -> str:
    """Put a table, remember it, and make an environment stand at it, in the order of the invariants."""
    artifact = put(store, table)
    artifact = msgspec.structs.replace(artifact, side_blobs=(("notes", put_file(store, table[:50])),))
    key = digest_bytes(table)
    store.record_action(ActionRecord(key, "transform.t", artifact))
    tree = store.write_tree(Tree({"transform.t": TreeEntry(key, artifact)}))
    store.write_manifest("f" * 64, f'{{"rows": {artifact.row_count}}}')
    before = store.refs.read(environment)
    snapshot = store.write_snapshot(Snapshot(environment, "f" * 64, tree, before, 1.0, "me", "test"))
    store.sync()
    assert store.refs.compare_and_swap(environment, before, snapshot, who="me", why="test")
    return snapshot


def check_whole(store: Store, environment: str = "prod") -> str | None:
    """Read everything that a ref reaches, down to the last byte; gives the snapshot's digest."""
    head = store.refs.read(environment)
    digest = head
    while digest is not None:
        snapshot = store.read_snapshot(digest)
        assert store.manifest_path(snapshot.manifest).read_text().startswith('{"rows": ')
        for entry in store.read_tree(snapshot.tree).nodes.values():
            for blob in entry.artifact.blobs():
                assert digest_file(store.blob_path(blob)) == (blob.digest, blob.size_bytes)
            found = digest_parquet(store.blob_path(entry.artifact.parts[0]))
            assert found.row_count == entry.artifact.row_count
            assert [column.digest for column in entry.artifact.columns] == [digest for _, digest in found.columns]
        digest = snapshot.parent
    log = list(store.refs.log(environment))
    assert (log[-1].new if log else None) == head
    return head


class TestBlobs:
    def test_adopting_moves_the_file_and_tells_what_it_is(self, store: Store, tables: list[bytes]) -> None:
        path = store.temporary_path()
        path.write_bytes(tables[2])
        blob, row_count, columns = store.adopt_parquet(path, ["BIGINT", "VARCHAR"])
        assert not path.exists()
        assert store.blob_path(blob).read_bytes() == tables[2]
        assert (blob.size_bytes, row_count) == (len(tables[2]), 3)
        assert [(column.name, column.type) for column in columns] == [("k", "BIGINT"), ("v", "VARCHAR")]
        assert tuple(column.digest for column in columns) == tuple(
            digest for _, digest in digest_parquet(store.blob_path(blob)).columns
        )

    def test_blobs_are_read_only(self, store: Store, tables: list[bytes]) -> None:
        for blob in (put(store, tables[0]).parts[0], put_file(store, b"text")):
            assert store.blob_path(blob).stat().st_mode & 0o777 == 0o444

    def test_same_bytes_are_one_blob_that_is_left_alone(self, store: Store, tables: list[bytes]) -> None:
        first = put(store, tables[1])
        inode = store.blob_path(first.parts[0]).stat().st_ino
        assert put(store, tables[1]) == first
        assert store.blob_path(first.parts[0]).stat().st_ino == inode
        assert list(store.temporary_folder.iterdir()) == []
        assert put_file(store, b"x", ".json") == put_file(store, b"x", ".json") != put_file(store, b"x", ".csv")

    @pytest.mark.parametrize("damage", [lambda raw: b"", lambda raw: raw[:-1], lambda raw: raw[:9] + b"?" + raw[10:]])
    def test_putting_the_bytes_again_heals_a_damaged_blob(
        self, store: Store, tables: list[bytes], damage: Callable[[bytes], bytes]
    ) -> None:
        blob = put(store, tables[1]).parts[0]
        path = store.blob_path(blob)
        path.chmod(0o644)
        path.write_bytes(damage(tables[1]))
        assert put(store, tables[1]).parts[0] == blob
        assert path.read_bytes() == tables[1]
        assert path.stat().st_mode & 0o777 == 0o444

    def test_file_that_is_no_table_or_has_other_columns_is_refused_and_left_to_its_owner(
        self, store: Store, tables: list[bytes]
    ) -> None:
        path = store.temporary_path()
        path.write_bytes(b"not a table")
        with pytest.raises(CorruptObjectError, match="well-formed"):
            store.adopt_parquet(path, ["BIGINT"])
        path.write_bytes(tables[0])
        with pytest.raises(CorruptObjectError, match="2 columns where 1"):
            store.adopt_parquet(path, ["BIGINT"])
        assert path.exists()
        assert [path for path in store.root.rglob("blobs/**/*") if path.is_file()] == []

    def test_artifact_is_whole_while_every_blob_has_its_size(self, store: Store, tables: list[bytes]) -> None:
        side = put_file(store, b"a model")
        artifact = msgspec.structs.replace(put(store, tables[0]), side_blobs=(("model", side),))
        assert store.is_whole(artifact)
        store.blob_path(side).unlink()
        assert not store.is_whole(artifact)
        assert put_file(store, b"a model") == side
        assert store.is_whole(artifact)


class TestActionRecords:
    def test_what_was_recorded_is_found(self, store: Store, tables: list[bytes]) -> None:
        artifact = put(store, tables[0])
        assert store.find_action(KEY) is None
        store.record_action(ActionRecord(KEY, "transform.t", artifact))
        assert store.find_action(KEY) == artifact
        later = msgspec.structs.replace(artifact, run_id="later")
        store.record_action(ActionRecord(KEY, "transform.t", later))
        assert store.find_action(KEY) == later

    def test_record_is_a_miss_while_a_blob_is_missing_or_has_another_size(
        self, store: Store, tables: list[bytes]
    ) -> None:
        artifact = put(store, tables[0])
        store.record_action(ActionRecord(KEY, "transform.t", artifact))
        path = store.blob_path(artifact.parts[0])
        path.chmod(0o644)
        os.truncate(path, 10)
        assert store.find_action(KEY) is None
        path.unlink()
        assert store.find_action(KEY) is None
        assert put(store, tables[0]) == artifact
        assert store.find_action(KEY) == artifact

    def test_record_that_cannot_be_read_is_a_miss(self, store: Store, tables: list[bytes]) -> None:
        record = ActionRecord(KEY, "transform.t", put(store, tables[0]))
        store.record_action(record)
        (path,) = (path for path in (store.root / "actions").rglob("*") if path.is_file())
        good = path.read_bytes()
        other = encode(msgspec.structs.replace(record, fingerprint=digest_bytes(b"another")))
        for bad in (b"", good[:-1], good + b"x", encode(Tree({})), other):
            path.write_bytes(bad)
            assert store.find_action(KEY) is None
        path.unlink()
        path.mkdir()
        assert store.find_action(KEY) is None

    def test_record_of_a_newer_version_is_refused_and_not_taken_for_a_miss(self, store: Store) -> None:
        store.record_action(ActionRecord(KEY, "transform.t", Artifact((), 0)))
        (path,) = (path for path in (store.root / "actions").rglob("*") if path.is_file())
        path.write_bytes(b"seeknal action 9 zstd\n?")
        with pytest.raises(FormatTooNewError, match="made by a newer Seeknal"):
            store.find_action(KEY)


class TestObjects:
    def test_objects_come_back_and_have_the_address_of_their_bytes(self, store: Store, tables: list[bytes]) -> None:
        tree = Tree({"transform.t": TreeEntry(KEY, put(store, tables[0]), True)})
        digest = store.write_tree(tree)
        assert store.write_tree(tree) == digest
        assert store.read_tree(digest) == tree
        snapshot = Snapshot("prod", "f" * 64, digest, None, 1.0, "me", "why")
        assert store.read_snapshot(store.write_snapshot(snapshot)) == snapshot
        assert digest_bytes((store.root / "trees" / digest).read_bytes()) == digest

    def test_damaged_or_missing_object_is_corrupt_and_writing_it_again_heals_it(self, store: Store) -> None:
        tree = Tree({})
        digest = store.write_tree(tree)
        path = store.root / "trees" / digest
        good = path.read_bytes()
        for bad in (b"", good[:-1], bytes(len(good)), encode(Snapshot("e", "", "", None, 0.0, "", ""))):
            path.write_bytes(bad)
            with pytest.raises(CorruptObjectError, match=f"tree {digest} is damaged"):
                store.read_tree(digest)
        assert store.write_tree(tree) == digest
        assert store.read_tree(digest) == tree
        path.unlink()
        with pytest.raises(CorruptObjectError, match="is missing from the store"):
            store.read_tree(digest)

    def test_object_of_a_newer_format_is_refused_as_that(self, store: Store) -> None:
        newer = b"seeknal snapshot 99\nwho knows"
        (store.root / "snapshots").mkdir()
        (store.root / "snapshots" / digest_bytes(newer)).write_bytes(newer)
        with pytest.raises(FormatTooNewError, match="format 99"):
            store.read_snapshot(digest_bytes(newer))

    def test_head_is_the_snapshot_that_the_ref_names(self, store: Store, tables: list[bytes]) -> None:
        assert store.head("prod") is None
        assert store.head("dev") is None
        digest = commit(store, tables[0])
        assert store.head("prod") == store.read_snapshot(digest)

    def test_manifest_is_read_only_from_the_moment_it_is_there(
        self, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        real = filesystem.place

        def crash(temporary: Path, path: Path) -> None:
            real(temporary, path)
            raise KeyboardInterrupt

        monkeypatch.setattr(filesystem, "place", crash)
        with pytest.raises(KeyboardInterrupt):
            store.write_manifest("a" * 64, "{}")
        assert store.manifest_path("a" * 64).stat().st_mode & 0o777 == 0o444

    def test_manifest_that_a_crash_cut_short_is_replaced(self, store: Store) -> None:
        path = store.write_manifest("a" * 64, "{}")
        path.write_text("")
        assert store.write_manifest("a" * 64, "{}") == path
        assert path.read_text() == "{}"


class TestEnvironments:
    RECORD = EnvironmentRecord("dev", "planned", 1.0, 2.0)

    def test_record_comes_back_until_it_is_removed(self, store: Store) -> None:
        assert store.environment_names() == []
        assert store.read_environment("dev") is None
        store.write_environment(self.RECORD)
        store.write_environment(msgspec.structs.replace(self.RECORD, name="a.b"))
        assert store.read_environment("dev") == self.RECORD
        assert store.environment_names() == ["a.b", "dev"]
        store.write_deliveries("dev", Deliveries({"exposure.e": {}}))
        store.remove_environment("dev")
        store.remove_environment("dev")
        assert store.read_environment("dev") is None
        assert store.read_deliveries("dev") == Deliveries()

    def test_environment_that_could_not_have_a_ref_is_refused_from_the_start(self, store: Store) -> None:
        for name in ("", "../dev", "dev/x"):
            with pytest.raises(NameNotAllowedError):
                store.write_environment(msgspec.structs.replace(self.RECORD, name=name))

    def test_damaged_record_is_corrupt(self, store: Store) -> None:
        store.write_environment(self.RECORD)
        path = store.root / "environments" / "dev"
        good = path.read_bytes()
        for bad in (b"", good[:-1], encode(Deliveries())):
            path.write_bytes(bad)
            with pytest.raises(CorruptObjectError, match="environment 'dev'"):
                store.read_environment("dev")
        path.write_bytes(b"seeknal environment 2\n")
        with pytest.raises(FormatTooNewError):
            store.read_environment("dev")
        path.unlink()
        path.mkdir()
        with pytest.raises(CorruptObjectError, match="cannot be read"):
            store.read_environment("dev")

    def test_deliveries_come_back_and_damaged_ones_count_as_none(self, store: Store) -> None:
        deliveries = Deliveries({"exposure.e": {"": Delivery("out.csv", KEY, 3, 4)}})
        assert store.read_deliveries("prod") == Deliveries()
        store.write_deliveries("prod", deliveries)
        assert store.read_deliveries("prod") == deliveries
        assert store.read_deliveries("dev") == Deliveries()
        path = store.root / "deliveries" / "prod"
        for bad in (b"", path.read_bytes()[:-1], encode(Tree({}))):
            path.write_bytes(bad)
            assert store.read_deliveries("prod") == Deliveries()
        path.write_bytes(b"seeknal deliveries 2 \n")
        with pytest.raises(FormatTooNewError):
            store.read_deliveries("prod")


def commit_on(store: Store, table: bytes, failing: Disk) -> bool:
    """Try to commit; False where the disk prevented that."""
    try:
        commit(store, table)
    except OSError:
        assert failing.failed
        return False
    return True


class TestCommitOrder:
    def test_blobs_come_before_records_and_these_before_objects_and_the_ref_comes_last(
        self, store: Store, tables: list[bytes]
    ) -> None:
        with disk(store.root, None, syncfs=True) as watched:
            commit(store, tables[0])
        seen = [
            Path(target).relative_to(store.root).parts[0] if name == "replace" else name
            for name, target in watched.story
            if name == "syncfs" or (name == "replace" and str(store.root) in target)
        ]
        expected = ["blobs", "blobs", "actions", "trees", "manifests", "snapshots", "syncfs", "memo", "refs"]
        assert list(dict.fromkeys(seen)) == list(dict.fromkeys(expected))

    @pytest.mark.parametrize("syncfs", [True, False])
    def test_everything_that_was_written_is_durable_before_the_ref_moves(
        self, store: Store, tables: list[bytes], syncfs: bool
    ) -> None:
        with disk(store.root, None, syncfs=syncfs) as watched:
            commit(store, tables[0])
            assert {path.name for path in watched.not_durable()} == {"seals", "prod.lock"}
            store.write_environment(EnvironmentRecord("dev", "planned", 1.0, 2.0))
            assert {path.name for path in watched.not_durable()} == {"seals", "prod.lock"}

    def test_what_workers_wrote_is_made_durable_by_whoever_commits(self, store: Store, tables: list[bytes]) -> None:
        worker = Store(store.root)
        with disk(store.root, None, syncfs=False) as watched:
            worker.record_action(ActionRecord(KEY, "transform.t", put(worker, tables[0])))
            written = worker.take_written()
            assert worker.take_written() == []
            assert {store.root / name for name in written} == set(files_below(store.root)) - {store.root / "format"}
            worker.sync()
            assert len(watched.not_durable()) == 2
            store.sync(written)
            assert watched.not_durable() == []

    def test_blob_that_an_earlier_process_left_is_made_durable_too(self, store: Store, tables: list[bytes]) -> None:
        put(Store(store.root), tables[0])
        with disk(store.root, None, syncfs=False) as watched:
            watched._durable.clear()
            commit(store, tables[0])
            assert {path.name for path in watched.not_durable()} == {"format", "seals", "prod.lock", ".sweep"}

    def test_nothing_is_synced_where_nothing_was_written(self, store: Store) -> None:
        with disk(store.root, None, syncfs=True) as watched:
            store.sync()
        assert watched.story == []


@pytest.mark.parametrize(
    ("error", "dies", "syncfs"),
    [(errno.EIO, False, True), (errno.ENOSPC, False, False), (errno.EIO, True, True), (errno.EIO, True, False)],
)
def test_wherever_the_disk_fails_the_ref_is_old_or_new_and_all_that_it_reaches_is_whole(
    tmp_path: Path, tables: list[bytes], error: int, dies: bool, syncfs: bool
) -> None:
    first = Store(tmp_path / "first")
    first.prepare()
    with disk(first.root, None, syncfs=syncfs):
        old = commit(first, tables[0])
    failures = 0
    for at in count(1):
        store = Store(tmp_path / str(at))
        shutil.copytree(first.root, store.root)
        with disk(store.root, at, syncfs=syncfs, error=error, dies=dies) as failing:
            done = commit_on(store, tables[1], failing)
        if dies and failing.failed:
            failing.cut_power()
        store = Store(store.root)
        head = check_whole(store)
        assert head != old if done else head is not None
        if not failing.failed:
            break
        failures += 1
        # The next attempt goes through, whatever was left behind.
        if head == old:
            with disk(store.root, None, syncfs=syncfs):
                new = commit(store, tables[1])
            assert check_whole(store) == new
        assert store.find_action(digest_bytes(tables[1])) is not None
        shutil.rmtree(store.root)
    assert done
    assert failures > 20


def test_sweep_removes_old_unfinished_files_and_leaves_young_ones(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    store.prepare()
    old, young = store.temporary_folder / "old.parquet", store.temporary_folder / "young.parquet"
    folder = store.temporary_folder / "old_folder"
    folder.mkdir()
    (folder / "part.csv").write_bytes(b"x")
    for file in (old, young):
        file.write_bytes(b"x")
    for path in (old, folder):
        os.utime(path, (1, 1))
    store.sweep_temporary(3600)
    assert os.listdir(store.temporary_folder) == ["young.parquet"]
