from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from seeknal.store import filesystem
from seeknal.store.filesystem import (
    copy_file,
    link_atomically,
    locked,
    place,
    sync_filesystem,
    temporary_name,
    write_atomically,
)


@pytest.fixture
def temporary_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "tmp"
    folder.mkdir()
    return folder


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The paths that were made durable, one by one, in order."""
    paths: list[Path] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        paths.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    return paths


def give(error: int) -> Callable[[], Callable[[int], int]]:
    return lambda: lambda descriptor: error


class TestWriting:
    def test_file_and_its_folder_come_into_being(self, tmp_path: Path, temporary_folder: Path) -> None:
        path = tmp_path / "a" / "b" / "c"
        write_atomically(path, b"one", temporary_folder)
        assert path.read_bytes() == b"one"
        write_atomically(path, b"", temporary_folder)
        assert path.read_bytes() == b""
        assert list(temporary_folder.iterdir()) == []

    @pytest.mark.parametrize("call", ["open", "write", "fsync", "replace"])
    def test_failure_leaves_the_old_file_and_no_other(
        self, tmp_path: Path, temporary_folder: Path, monkeypatch: pytest.MonkeyPatch, call: str
    ) -> None:
        path = tmp_path / "file"
        path.write_bytes(b"old")

        def fail(*arguments: object, **options: object) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        with monkeypatch.context() as patched:
            patched.setattr(os, call, fail)
            with pytest.raises(OSError, match="No space"):
                write_atomically(path, b"new", temporary_folder, durable=True)
        assert path.read_bytes() == b"old"
        assert list(temporary_folder.iterdir()) == []

    def test_first_error_is_the_one_that_is_raised(
        self, tmp_path: Path, temporary_folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*arguments: object) -> None:
            raise OSError(errno.EIO if len(arguments) == 1 else errno.ENOSPC, "it")

        monkeypatch.setattr(os, "write", fail)
        monkeypatch.setattr(os, "unlink", fail)
        with pytest.raises(OSError, match="it") as caught:
            write_atomically(tmp_path / "file", b"new", temporary_folder)
        assert caught.value.errno == errno.ENOSPC

    def test_writes_that_stop_short_go_on(
        self, tmp_path: Path, temporary_folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        real = os.write
        monkeypatch.setattr(os, "write", lambda descriptor, data: real(descriptor, data[:7]))
        write_atomically(tmp_path / "file", bytes(range(256)), temporary_folder)
        assert (tmp_path / "file").read_bytes() == bytes(range(256))

    def test_durable_means_the_file_before_its_name_and_then_the_folder(
        self, tmp_path: Path, temporary_folder: Path, synced: list[Path]
    ) -> None:
        write_atomically(tmp_path / "file", b"x", temporary_folder, durable=True)
        assert [path.parent for path in synced] == [temporary_folder, tmp_path.parent]
        assert synced[1] == tmp_path

    def test_place_makes_the_folder_and_replaces(self, tmp_path: Path) -> None:
        for content in ("one", "two"):
            (tmp_path / "new").write_text(content)
            place(tmp_path / "new", tmp_path / "deep" / "er" / "file")
            assert (tmp_path / "deep" / "er" / "file").read_text() == content
        with pytest.raises(FileNotFoundError):
            place(tmp_path / "new", tmp_path / "other" / "file")

    def test_temporary_names_do_not_repeat(self, tmp_path: Path) -> None:
        names = {temporary_name(tmp_path, ".csv") for _ in range(1000)}
        assert len(names) == 1000
        assert all(name.parent == tmp_path and name.suffix == ".csv" for name in names)


class TestDurability:
    def test_one_call_makes_everything_durable_where_there_is_one(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, synced: list[Path]
    ) -> None:
        called: list[str] = []

        def syncfs(descriptor: int) -> int:
            called.append(os.readlink(f"/proc/self/fd/{descriptor}"))
            return 0

        monkeypatch.setattr(filesystem, "_syncfs", lambda: syncfs)
        sync_filesystem(tmp_path, lambda: pytest.fail("nobody needs to know the files"))
        assert called == [str(tmp_path)]
        assert synced == []

    @pytest.mark.skipif(sys.platform != "linux", reason="syncfs is a call of Linux")
    def test_real_call_says_whether_it_worked(self, tmp_path: Path) -> None:
        syncfs = filesystem._syncfs()
        assert syncfs is not None
        descriptor = os.open(tmp_path, os.O_RDONLY)
        try:
            assert syncfs(descriptor) == 0
        finally:
            os.close(descriptor)
        assert syncfs(descriptor) == errno.EBADF

    @pytest.mark.parametrize("syncfs", [lambda: None, give(errno.ENOSYS), give(errno.EINVAL)])
    def test_without_it_files_and_all_folders_up_to_the_top_are_synced(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, synced: list[Path], syncfs: Callable[[], object]
    ) -> None:
        monkeypatch.setattr(filesystem, "_syncfs", syncfs)
        root = tmp_path / "store"
        files = [root / "blobs" / "ab" / "one", root / "blobs" / "cd" / "two", root / "three"]
        for path in files:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        gone = root / "blobs" / "ef" / "gone"
        sync_filesystem(root, lambda: [*files, gone])
        assert synced[:3] == files
        assert set(synced[3:7]) == {root, root / "blobs", root / "blobs" / "ab", root / "blobs" / "cd"}
        assert synced[7:] == list(root.parents)

    def test_failure_of_the_disk_is_not_mistaken_for_a_missing_call(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, synced: list[Path]
    ) -> None:
        monkeypatch.setattr(filesystem, "_syncfs", give(errno.EIO))
        with pytest.raises(OSError, match="Input/output") as caught:
            sync_filesystem(tmp_path, list)
        assert (caught.value.errno, caught.value.filename) == (errno.EIO, str(tmp_path))
        assert synced == []


class TestLocks:
    def test_lock_keeps_other_processes_out_until_it_is_given_back(self, tmp_path: Path) -> None:
        path = tmp_path / "locks" / "it"
        attempt = (
            "import fcntl, sys\n"
            "try: fcntl.flock(open(sys.argv[1]), fcntl.LOCK_EX | fcntl.LOCK_NB)\n"
            "except BlockingIOError: sys.exit(7)"
        )

        def try_elsewhere() -> int:
            return subprocess.run([sys.executable, "-S", "-c", attempt, str(path)], check=False).returncode

        with locked(path):
            assert try_elsewhere() == 7
        assert try_elsewhere() == 0
        with pytest.raises(RuntimeError), locked(path):
            raise RuntimeError
        assert try_elsewhere() == 0


class TestLinks:
    def test_link_is_relative_and_moves(self, tmp_path: Path) -> None:
        for name in ("one", "two"):
            (tmp_path / "store" / name).mkdir(parents=True)
            (tmp_path / "store" / name / "here").touch()
        link = tmp_path / "shown" / "deep" / "link"
        link_atomically(tmp_path / "store" / "one", link, tmp_path)
        assert os.readlink(link) == "../../store/one"
        link_atomically(tmp_path / "store" / "two", link, tmp_path)
        assert link.resolve() == tmp_path / "store" / "two"
        assert [entry.name for entry in link.parent.iterdir()] == ["link"]

    def test_link_that_says_so_already_is_left_alone(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        link_atomically(tmp_path / "target", tmp_path / "link", tmp_path)
        monkeypatch.setattr(os, "symlink", lambda *arguments: pytest.fail("a link was made"))
        link_atomically(tmp_path / "target", tmp_path / "link", tmp_path)

    def test_a_link_elsewhere_and_a_file_in_a_folders_place_are_somebody_elses(self, tmp_path: Path) -> None:
        ours, link = tmp_path / "ours", tmp_path / "link"
        (ours / "new").mkdir(parents=True)
        (tmp_path / "mine").mkdir()
        link.symlink_to("mine")
        with pytest.raises(FileExistsError):
            link_atomically(ours / "new", link, tmp_path, ours=ours)
        assert os.readlink(link) == "mine"
        link.unlink()
        link.write_text("mine")
        with pytest.raises(FileExistsError):
            link_atomically(ours / "new", link, tmp_path, ours=ours)
        assert link.read_text() == "mine"

    def test_files_links_and_empty_folders_make_way_and_full_folders_do_not(self, tmp_path: Path) -> None:
        link = tmp_path / "link"
        link.write_text("a document")
        link_atomically(tmp_path / "target", link, tmp_path)
        assert link.is_symlink()
        link.unlink()
        link.symlink_to(tmp_path / "nowhere")
        link_atomically(tmp_path / "target", link, tmp_path)
        assert os.readlink(link) == "target"
        link.unlink()
        link.mkdir()
        link_atomically(tmp_path / "target", link, tmp_path)
        assert link.is_symlink()
        link.unlink()
        (link / "mine").mkdir(parents=True)
        with pytest.raises(FileExistsError):
            link_atomically(tmp_path / "target", link, tmp_path)
        assert (link / "mine").is_dir()

    def test_what_a_kill_leaves_unfinished_lies_in_the_temporary_folder(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        unfinished: list[Path] = []
        replace = os.replace

        def note(temporary: Path, link: Path) -> None:
            unfinished.append(temporary.parent)
            replace(temporary, link)

        monkeypatch.setattr(os, "replace", note)
        (tmp_path / "tmp").mkdir()
        link_atomically(tmp_path / "target", tmp_path / "shown" / "link", tmp_path / "tmp")
        assert unfinished == [tmp_path / "tmp"]

    def test_failure_leaves_nothing_beside_the_link(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        link_atomically(tmp_path / "one", tmp_path / "link", tmp_path)

        def fail(*arguments: object) -> None:
            raise OSError(errno.EIO, "no")

        monkeypatch.setattr(os, "replace", fail)
        with pytest.raises(OSError, match="no"):
            link_atomically(tmp_path / "two", tmp_path / "link", tmp_path)
        assert os.readlink(tmp_path / "link") == "one"
        assert [entry.name for entry in tmp_path.iterdir()] == ["link"]


# copies


def test_a_copy_stays_as_it_is_when_the_original_is_written_to(tmp_path: Path) -> None:
    original, copy = tmp_path / "original", tmp_path / "copy"
    original.write_bytes(b"before" * 10_000)
    copy_file(original, copy)
    assert copy.read_bytes() == b"before" * 10_000
    with original.open("r+b") as file:
        file.write(b"after")
    assert copy.read_bytes() == b"before" * 10_000
    assert copy.stat().st_ino != original.stat().st_ino


def test_a_copy_takes_no_other_files_place(tmp_path: Path) -> None:
    original, other = tmp_path / "original", tmp_path / "other"
    original.write_bytes(b"one")
    other.write_bytes(b"two")
    with pytest.raises(FileExistsError):
        copy_file(original, other)
    assert other.read_bytes() == b"two"
