"""What a function prints, whoever prints it: Python, a library in C, a program that it starts.

File descriptors 1 and 2 lead to a file without a name while it runs, which ends with the process. What stands in it
reaches the log without secrets, a moment later. Of too much only the beginning and the end are kept; what is in between
is dropped as it comes, so that it does not fill the disk.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec

from seeknal.redaction import longest_form, redacted_bytes
from seeknal.store.filesystem import write_atomically

# The beginning that is kept, the end that is kept, and how large the file may grow before it is cut.
HEAD_BYTES = 256 * 1024
TAIL_BYTES = 256 * 1024
MOST_BYTES = 4 * 1024 * 1024
LOOK_SECONDS = 0.1


class Output(msgspec.Struct):
    """What is printed, and the log that it goes to.

    ``descriptor`` is of the file without a name. ``head`` and ``tail`` are what is kept of the files that were there
    before it. ``shown_bytes`` is how much had been printed when the log was written last.
    """

    path: Path
    descriptor: int
    head: bytes = b""
    tail: bytes = b""
    dropped_bytes: int = 0
    shown_bytes: int = 0
    lock: threading.Lock = msgspec.field(default_factory=threading.Lock)

    def write(self, text: str) -> None:
        """Add a text of ours, behind what was printed."""
        _flush()
        with self.lock:
            os.write(self.descriptor, text.encode(errors="backslashreplace"))

    def cut(self) -> None:
        """Go on in a new file where this one has become too large."""
        with self.lock:
            if os.fstat(self.descriptor).st_size <= MOST_BYTES:
                return
            full = self.descriptor
            self.descriptor = _create(self.path)
            # From here on nobody in this process writes to the full one, so nothing of its end is lost.
            for stream in (1, 2):
                os.dup2(self.descriptor, stream)
            self._take(full)
            # A program that was started before still writes to it.
            os.ftruncate(full, 0)
            os.close(full)

    def show(self) -> None:
        """Bring the beginning of what was printed so far to the log, for those who watch, and in case of a crash."""
        with self.lock:
            size = os.fstat(self.descriptor).st_size
            if self.head or size == self.shown_bytes or self.shown_bytes >= HEAD_BYTES:
                return
            self.shown_bytes = size
            self._log(_without_end(redacted_bytes(os.pread(self.descriptor, HEAD_BYTES, 0))))

    def finish(self) -> None:
        """Write the log. Nobody prints any more."""
        size = os.fstat(self.descriptor).st_size
        if not self.head and size <= MOST_BYTES:
            self._log(redacted_bytes(os.pread(self.descriptor, size, 0)))
            return
        self._take(self.descriptor)
        head, tail = redacted_bytes(self.head), redacted_bytes(self.tail)
        if not self.dropped_bytes:
            self._log(redacted_bytes(self.head + self.tail))
            return
        note = f"\n[… {self.dropped_bytes} bytes left out …]\n".encode()
        # Where something was left out, a part of a secret may stand.
        self._log(_without_end(head) + note + tail[longest_form() :])

    def _log(self, data: bytes) -> None:
        if not data:
            self.path.unlink(missing_ok=True)
            return
        # A new file: somebody may read the old one.
        write_atomically(self.path, data)

    def _take(self, descriptor: int) -> None:
        """Keep the beginning of the first file, and the end of them all."""
        size = os.fstat(descriptor).st_size
        if not self.head:
            self.head = os.pread(descriptor, HEAD_BYTES, 0)
            size -= len(self.head)
        start = os.fstat(descriptor).st_size - min(size, TAIL_BYTES)
        tail = self.tail + os.pread(descriptor, TAIL_BYTES, start)
        self.dropped_bytes += len(self.tail) + size - len(tail[-TAIL_BYTES:])
        self.tail = tail[-TAIL_BYTES:]


def _create(path: Path) -> int:
    """A file on the log's disk that has no name, so that what is printed ends with the process, however that ends."""
    with tempfile.TemporaryFile(dir=path.parent) as unnamed:
        descriptor = os.dup(unnamed.fileno())
    # Everybody appends, so nobody writes over anybody.
    fcntl.fcntl(descriptor, fcntl.F_SETFL, fcntl.fcntl(descriptor, fcntl.F_GETFL) | os.O_APPEND)
    return descriptor


def _without_end(data: bytes) -> bytes:
    """The text without what may be the beginning of a secret."""
    longest = longest_form()
    return data[:-longest] if longest else data


@contextlib.contextmanager
def captured_output(path: Path) -> Iterator[Output]:
    """Lead what is printed into a log, which is not there where nothing was."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    _flush()
    output = Output(path, _create(path))
    before = [(stream, os.dup(stream)) for stream in (1, 2)]
    streams = (sys.stdout, sys.stderr)
    ended = threading.Event()
    watch = threading.Thread(target=_watch, args=(output, ended), daemon=True)
    try:
        for stream in (1, 2):
            os.dup2(output.descriptor, stream)
        watch.start()
        yield output
    finally:
        _flush()
        sys.stdout, sys.stderr = streams
        _flush()
        ended.set()
        watch.join()
        for stream, copy in before:
            os.dup2(copy, stream)
            os.close(copy)
        output.finish()
        os.close(output.descriptor)


def _watch(output: Output, ended: threading.Event) -> None:
    while not ended.wait(LOOK_SECONDS):
        output.cut()
        output.show()


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__):
        with contextlib.suppress(Exception):
            stream.flush()  # type: ignore[union-attr]
