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
from dataclasses import dataclass
from pathlib import Path

# The beginning that is kept, the end that is kept, and how large the file may grow before it is cut.
HEAD_BYTES = 256 * 1024
TAIL_BYTES = 256 * 1024
MOST_BYTES = 4 * 1024 * 1024
LOOK_SECONDS = 0.1


@dataclass
class Output:
    """The file that output goes to."""

    descriptor: int
    head: bytes = b""
    dropped_bytes: int = 0

    def write(self, text: str) -> None:
        """Add a text of ours, behind what was printed."""
        _flush()
        os.write(self.descriptor, text.encode(errors="backslashreplace"))

    def cut(self) -> None:
        """Drop the middle, where there is too much."""
        size = os.fstat(self.descriptor).st_size
        if size <= MOST_BYTES:
            return
        if not self.head:
            self.head = os.pread(self.descriptor, HEAD_BYTES, 0)
            size -= len(self.head)
        tail = os.pread(self.descriptor, TAIL_BYTES, os.fstat(self.descriptor).st_size - TAIL_BYTES)
        # Everybody appends, so nobody leaves a hole behind.
        os.ftruncate(self.descriptor, 0)
        os.write(self.descriptor, tail)
        self.dropped_bytes += size - len(tail)

    def finish(self) -> None:
        """Put the beginning back in front."""
        self.cut()
        if self.head:
            rest = os.pread(self.descriptor, MOST_BYTES + TAIL_BYTES, 0)
            os.ftruncate(self.descriptor, 0)
            note = f"\n[… {self.dropped_bytes} bytes left out …]\n"
            os.write(self.descriptor, self.head + note.encode() + rest)


@contextlib.contextmanager
def captured_output(path: Path) -> Iterator[Output]:
    """Lead what is printed into a file, which is removed again where nothing was."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # A new file: somebody may read the old one.
    path.unlink(missing_ok=True)
    _flush()
    output = Output(os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644))
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
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
