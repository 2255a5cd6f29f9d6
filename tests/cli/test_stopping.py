"""Being asked to stop, at whatever moment."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path
from typing import IO

import pytest

_WRITER = """
import sys
from seeknal.cli.stopping import stop_on_signals

with stop_on_signals() as stop:
    print("ready", flush=True)
    while not stop.requested:
        sys.stderr.write("x" * 1000 + "\\n")
print(stop.signal_number, flush=True)
"""


def _waiting_bytes(pipe: IO[str]) -> int:
    return int.from_bytes(fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)), sys.byteorder)


def _state_of(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="the system does not tell what a process waits for")
def test_wish_to_stop_in_the_midst_of_writing_to_a_reader_that_is_slow_is_heard(tmp_path: Path) -> None:
    # As users have it: with buffers.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    process = subprocess.Popen(
        [sys.executable, "-c", _WRITER],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=tmp_path,
        env=environment,
        text=True,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline() == "ready\n"
    while _state_of(process.pid) != "S" or not _waiting_bytes(process.stderr):
        # Nobody reads, so it comes to wait in the midst of writing.
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    said, complaint = process.communicate(timeout=60)
    assert (said, process.returncode) == (f"{signal.SIGTERM.value}\n", 0), complaint[-1000:]
    assert complaint.count("stopping: running nodes may finish") == 1
