"""The few things the store asks of a disk: write in one step, make durable, lock, link.

*Atomic* means that another process sees the old file or the new one and nothing between. *Durable* means that
the file is there after a power cut. The two are asked for apart, because making things durable one by one costs
more than most nodes do: see :func:`sync_filesystem`.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import stat
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path

import xxhash

_WRITE_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0)
# Of linux/fs.h.
_FICLONE = 0x40049409
_serial = iter(range(1 << 62))


def digest_bytes(*parts: bytes | memoryview) -> str:
    """xxh3_128 of some bytes, in parts, as 32 hexadecimal digits: the address of everything in the store."""
    return xxhash.xxh3_128_hexdigest(parts[0]) if len(parts) == 1 else digest_pieces(parts)


def digest_pieces(pieces: Iterable[bytes | memoryview]) -> str:
    """The same of bytes that come piece by piece."""
    digest = xxhash.xxh3_128()
    for piece in pieces:
        digest.update(piece)
    return digest.hexdigest()


def open_regular(path: str | os.PathLike[str], flags: int = os.O_RDONLY) -> int:
    """Open a file for reading; gives its descriptor. Raises OSError, also where it is no regular file.

    It never waits, as opening a named pipe does, nor reads what has no end, as some devices.
    """
    descriptor = os.open(path, flags | os.O_NONBLOCK | getattr(os, "O_CLOEXEC", 0))
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode):
        return descriptor
    os.close(descriptor)
    code = errno.EISDIR if stat.S_ISDIR(mode) else errno.EINVAL
    raise OSError(code, os.strerror(code) if stat.S_ISDIR(mode) else "it is no regular file", str(path))


def read_regular(path: str | os.PathLike[str], most_bytes: int) -> bytes:
    """Read a file, but of one that is larger than ``most_bytes`` only one byte more. Raises OSError."""
    with open(open_regular(path), "rb") as file:
        return file.read(most_bytes + 1)


def temporary_name(folder: Path, suffix: str = "") -> Path:
    """A path in ``folder`` that no other thread, process or host will choose."""
    unique = f"{os.uname().nodename}-{os.getpid()}-{time.time_ns():x}-{next(_serial)}"
    return folder / f"{digest_bytes(unique.encode())}{suffix}"


def appearance(stat: os.stat_result) -> tuple[int, int, int, int]:
    """How a file looks from outside: size, times of the last change of content and of anything, inode.

    One that looks the same was not changed since, unless it was changed twice within a tick of the disk's clock.
    """
    return stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino


@contextlib.contextmanager
def named(path: Path) -> Iterator[None]:
    """Let the system's errors name this file, where they come from a descriptor, which has no name."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno is not None:
            error.filename = os.fspath(path)
        raise


def write_whole(descriptor: int, data: bytes) -> None:
    """Write all of these bytes: a system may take some of them and be asked again."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def write_atomically(
    path: Path,
    data: bytes | Iterable[bytes],
    temporary_folder: Path | None = None,
    *,
    durable: bool = False,
    read_only: bool = False,
) -> None:
    """Replace ``path`` by a file of these bytes, given whole or in pieces; creates its folder.

    What a kill leaves unfinished lies in ``temporary_folder``, which is on the same disk; without one, hidden beside.
    """
    if temporary_folder is None:
        path.parent.mkdir(parents=True, exist_ok=True)
    temporary = (
        path.with_name(f".{temporary_name(path.parent).name}")
        if temporary_folder is None
        else temporary_name(temporary_folder)
    )
    try:
        with named(path):
            descriptor = os.open(temporary, _WRITE_FLAGS, 0o444 if read_only else 0o644)
            try:
                for piece in [data] if isinstance(data, bytes) else data:
                    write_whole(descriptor, piece)
                if durable:
                    os.fsync(descriptor)
            finally:
                os.close(descriptor)
            place(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    if durable:
        sync_folder(path.parent)


def place(temporary: Path, path: Path) -> None:
    """Rename, making the target's folder where it is missing."""
    try:
        os.replace(temporary, path)
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.replace(temporary, path)


def copy_file(source: Path, target: Path) -> None:
    """Copy a file's bytes to a new file. Raises OSError.

    Where the disk can, the two share them until one is written to. Never a hard link: whoever owns the original may
    write into it, and the copy must not change then.
    """
    with source.open("rb") as read, target.open("xb") as written:
        if _clone(read.fileno(), written.fileno()):
            return
    shutil.copyfile(source, target)


def _clone(read: int, written: int) -> bool:
    """Let a file share another's bytes; False where the system or the disk cannot."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        fcntl.ioctl(written, _FICLONE, read)
    except OSError:
        return False
    return True


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable, or a file's content."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_filesystem(folder: Path, new_files: Callable[[], list[Path]]) -> None:
    """Make everything written below ``folder`` durable, together. Raises OSError where the disk failed.

    One ``syncfs`` where the system has it; else an fsync for each of ``new_files()`` and of the folders above them,
    and a ``sync`` for what an earlier process left behind.
    """
    if _sync_at_once(folder):
        return
    folders = {folder}
    for path in new_files():
        with contextlib.suppress(FileNotFoundError):
            sync_folder(path)
            folders.update(parent for parent in path.parents if parent.is_relative_to(folder))
    for below in folders:
        sync_folder(below)
    for above in folder.parents:
        # They may be new, too, or be none of our business.
        with contextlib.suppress(OSError):
            sync_folder(above)
    os.sync()


def _sync_at_once(folder: Path) -> bool:
    syncfs = _syncfs()
    if syncfs is None:
        return False
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        failure = syncfs(descriptor)
    finally:
        os.close(descriptor)
    if failure in (0, errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP):
        return not failure
    # The system says so once; an fsync of the same file could succeed after it.
    raise OSError(failure, os.strerror(failure), str(folder))


@cache
def _syncfs() -> Callable[[int], int] | None:
    """The system's ``syncfs``, giving 0 or an error number; None where there is none."""
    if not sys.platform.startswith("linux"):
        return None
    import ctypes

    try:
        function = ctypes.CDLL(None, use_errno=True).syncfs
    except (OSError, AttributeError):
        return None
    return lambda descriptor: ctypes.get_errno() if function(descriptor) else 0


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive kernel lock while the block runs; waits for it. The lock dies with its holder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def link_atomically(target: Path, link: Path, temporary_folder: Path, *, ours: Path | None = None) -> None:
    """Make ``link`` a relative symbolic link to ``target``, replacing one that is there, or an empty folder.

    Does nothing where the link already says so. Raises FileExistsError where something of somebody else's stands in
    the way: a folder with files in it; a file, where the link leads to a folder; a link to what is not below ``ours``.
    ``temporary_folder`` is on the same disk; there, and not beside the link, lies what a kill leaves unfinished.
    """
    relative = os.path.relpath(target, link.parent)
    with contextlib.suppress(OSError):
        if os.readlink(link) == relative:
            return
    if link.is_symlink():
        if ours is not None and leads_elsewhere(link, ours):
            raise FileExistsError(errno.EEXIST, "it leads elsewhere", str(link))
    elif link.is_dir():
        try:
            link.rmdir()
        except OSError:
            raise FileExistsError(errno.EEXIST, "it is a folder with files in it", str(link)) from None
    elif link.exists() and target.is_dir():
        raise FileExistsError(errno.EEXIST, "it is a file", str(link))
    link.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_name(temporary_folder)
    os.symlink(relative, temporary)
    try:
        os.replace(temporary, link)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def leads_elsewhere(link: Path, ours: Path) -> bool:
    """Say whether a link leads to something that is there, and not below the folder ``ours``."""
    return link.exists() and not Path(os.path.realpath(link)).is_relative_to(os.path.realpath(ours))
