"""What a function prints, whoever prints it: Python, a library in C, a program that it starts.

File descriptors 1 and 2 lead to a file while it runs. Of too much only the beginning and the end are kept; what is in
between is dropped as it comes, so that it does not fill the disk.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

# The beginning that is kept, the end that is kept, and how large the file may grow before it is cut.
HEAD_BYTES = 256 * 1024
TAIL_BYTES = 256 * 1024
MOST_BYTES = 4 * 1024 * 1024
LOOK_SECONDS = 0.1


@dataclass
class Output:
    """The file that output goes to. ``head`` and ``tail`` are what is kept of the files that were there before it."""

    path: Path
    descriptor: int
    head: bytes = b""
    tail: bytes = b""
    dropped_bytes: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

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
            self.path.unlink(missing_ok=True)
            self.descriptor = _create(self.path)
            # From here on nobody in this process writes to the full one, so nothing of its end is lost.
            for stream in (1, 2):
                os.dup2(self.descriptor, stream)
            self._take(full)
            # A program that was started before still writes to it.
            os.ftruncate(full, 0)
            os.close(full)

    def finish(self) -> None:
        """Put together what is kept. Nobody writes any more."""
        if not self.head and os.fstat(self.descriptor).st_size <= MOST_BYTES:
            return
        self._take(self.descriptor)
        note = f"\n[… {self.dropped_bytes} bytes left out …]\n".encode() if self.dropped_bytes else b""
        os.ftruncate(self.descriptor, 0)
        os.write(self.descriptor, self.head + note + self.tail)

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
    # Everybody appends, so nobody writes over anybody.
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)


@contextlib.contextmanager
def captured_output(path: Path) -> Iterator[Output]:
    """Lead what is printed into a file, which is removed again where nothing was."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # A new file: somebody may read the old one.
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
        is_empty = os.fstat(output.descriptor).st_size == 0
        os.close(output.descriptor)
        if is_empty:
            path.unlink(missing_ok=True)


def _watch(output: Output, ended: threading.Event) -> None:
    while not ended.wait(LOOK_SECONDS):
        output.cut()


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__):
        with contextlib.suppress(Exception):
            stream.flush()  # type: ignore[union-attr]
