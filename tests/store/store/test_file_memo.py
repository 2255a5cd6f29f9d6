from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from seeknal.store import file_memo
from seeknal.store.column_digests import digest_file
from seeknal.store.file_memo import RACY_NS, FileDigests
from seeknal.store.filesystem import digest_bytes


class Memo:
    """A memo on disk that is opened anew for each question, and what was read for it."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "memo"
        self.temporary_folder = folder / "tmp"
        self.temporary_folder.mkdir()
        self.read: list[Path] = []
        # How far its clock is ahead, for files that were written a moment ago and are to count as old.
        self.ahead_ns = 0

    def digest(self, path: Path) -> str:
        with self.opened() as digests:
            return digests.digest(path)[0]

    @contextmanager
    def opened(self) -> Iterator[FileDigests]:
        digests = FileDigests(self.path, self.temporary_folder, clock=lambda: time.time_ns() + self.ahead_ns)
        yield digests
        digests.save()


@pytest.fixture
def memo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Memo:
    made = Memo(tmp_path)

    def digest_and_count(path: Path) -> tuple[str, int]:
        made.read.append(path)
        return digest_file(path)

    monkeypatch.setattr(file_memo, "digest_file", digest_and_count)
    return made


@pytest.fixture
def old_file(memo: Memo, tmp_path: Path) -> Path:
    """A file that was last written long ago."""
    memo.ahead_ns = 60 * 10**9
    path = tmp_path / "data.csv"
    path.write_bytes(b"a,b\n1,2\n")
    age(path, 60)
    return path


def age(path: Path, seconds: float) -> None:
    before = time.time_ns() - int(seconds * 1e9)
    os.utime(path, ns=(before, before))


def test_unchanged_file_is_read_once(memo: Memo, old_file: Path) -> None:
    for _ in range(3):
        assert memo.digest(old_file) == digest_bytes(b"a,b\n1,2\n")
    assert memo.read == [old_file]
    with memo.opened() as digests:
        assert digests.digest(old_file) == digests.digest(old_file) == (digest_bytes(b"a,b\n1,2\n"), 8)
    assert memo.read == [old_file]


def test_file_that_was_just_written_is_read_again_because_its_time_may_not_move(memo: Memo, tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    path.write_bytes(b"one")
    memo.digest(path)
    stat = path.stat()
    path.write_bytes(b"two")
    # As a clock of coarse ticks would leave it.
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert memo.digest(path) == digest_bytes(b"two")


def test_file_is_trusted_from_the_moment_that_it_was_left_alone_for_long_enough(memo: Memo, tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    path.write_bytes(b"one")
    memo.ahead_ns = RACY_NS - 10**9
    memo.digest(path)
    memo.digest(path)
    assert len(memo.read) == 2
    memo.ahead_ns = RACY_NS + 10**9
    memo.digest(path)
    memo.digest(path)
    assert len(memo.read) == 3


def test_file_that_was_just_unpacked_is_read_again_however_old_its_time_says_it_is(memo: Memo, tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    path.write_bytes(b"one")
    age(path, 3600)
    memo.digest(path)
    memo.digest(path)
    assert len(memo.read) == 2


def test_files_that_are_gone_are_forgotten_when_the_memory_is_written(
    memo: Memo, old_file: Path, tmp_path: Path
) -> None:
    gone = tmp_path / "gone"
    gone.write_bytes(b"1")
    memo.digest(old_file)
    memo.digest(gone)
    gone.unlink()
    memo.digest(old_file)
    assert str(gone).encode() in memo.path.read_bytes()
    old_file.write_bytes(b"2")
    memo.digest(old_file)
    assert str(gone).encode() not in memo.path.read_bytes()


def test_touched_file_is_read_again_and_has_the_same_digest(memo: Memo, old_file: Path) -> None:
    before = memo.digest(old_file)
    age(old_file, 30)
    assert memo.digest(old_file) == before
    assert len(memo.read) == 2


def test_changed_file_of_the_same_size_is_read_again(memo: Memo, old_file: Path) -> None:
    memo.digest(old_file)
    old_file.write_bytes(b"a,b\n1,3\n")
    assert memo.digest(old_file) == digest_bytes(b"a,b\n1,3\n")


def test_change_is_noticed_where_a_tool_set_the_time_back(memo: Memo, old_file: Path) -> None:
    stat = old_file.stat()
    memo.digest(old_file)
    old_file.write_bytes(b"a,b\n1,4\n")
    os.utime(old_file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert old_file.stat().st_ino == stat.st_ino
    assert memo.digest(old_file) == digest_bytes(b"a,b\n1,4\n")


def test_other_file_of_the_same_size_and_time_is_read(memo: Memo, old_file: Path, tmp_path: Path) -> None:
    memo.digest(old_file)
    stat = old_file.stat()
    other = tmp_path / "other"
    other.write_bytes(b"a,b\n9,9\n")
    os.utime(other, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    os.replace(other, old_file)
    assert memo.digest(old_file) == digest_bytes(b"a,b\n9,9\n")


def test_file_that_changes_while_it_is_read_is_read_again(
    memo: Memo, old_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def digest_then_change(path: Path) -> tuple[str, int]:
        found = digest_file(path)
        path.write_bytes(b"a,b\n5,5\n")
        return found

    with monkeypatch.context() as patched:
        patched.setattr(file_memo, "digest_file", digest_then_change)
        memo.digest(old_file)
    assert memo.digest(old_file) == digest_bytes(b"a,b\n5,5\n")


@pytest.mark.parametrize(
    "damage",
    [b"", b"anything", b"seeknal file-memo 1 00\n\x80", b"seeknal file-memo 999 \n", b"seeknal tree 1 0\n\x80"],
)
def test_memory_that_cannot_be_read_costs_one_reading(memo: Memo, old_file: Path, damage: bytes) -> None:
    memo.digest(old_file)
    memo.path.write_bytes(damage)
    assert memo.digest(old_file) == digest_bytes(b"a,b\n1,2\n")
    memo.digest(old_file)
    assert len(memo.read) == 2


def test_nothing_is_written_where_nothing_changed(memo: Memo, old_file: Path) -> None:
    memo.digest(old_file)
    before = memo.path.stat().st_ino
    memo.digest(old_file)
    assert memo.path.stat().st_ino == before


def test_disk_that_does_not_take_the_memory_costs_one_reading(
    memo: Memo, old_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object) -> None:
        raise OSError("no space left")

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", fail)
        memo.digest(old_file)
    assert list(memo.temporary_folder.iterdir()) == []
    memo.digest(old_file)
    assert len(memo.read) == 2


def test_missing_file_is_an_error_of_the_operating_system(memo: Memo, old_file: Path) -> None:
    memo.digest(old_file)
    old_file.unlink()
    with pytest.raises(FileNotFoundError):
        memo.digest(old_file)
