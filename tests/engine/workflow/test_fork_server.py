"""What workers come from starts ahead of them, unharmed, and where nothing else notices."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")

SCRIPT = """
import json, multiprocessing, os, signal, sys, tempfile
from multiprocessing import forkserver
from pathlib import Path
from seeknal.workflow.fork_server import expect_workers, process_context

def server():
    return forkserver._forkserver._forkserver_pid

before = dict(os.environ)
{first}
expect_workers()
expected = server()
{then}
process = process_context().Process(target=print, args=("from a worker",))
process.start()
process.join()
print(json.dumps([expected, server(), process.exitcode, dict(os.environ) == before]))
"""


def told(folder: Path, first: str = "", then: str = "") -> list[Any]:
    """What the script says of the server that was expected and the one that was used, without a word on stderr."""
    script = folder / "script.py"
    script.write_text(SCRIPT.format(first=first, then=then))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, str(script)], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    spoken, last = done.stdout.splitlines()
    assert spoken == "from a worker"
    found: list[Any] = json.loads(last)
    return found


def test_workers_come_from_the_server_that_was_started_ahead(tmp_path: Path) -> None:
    expected, used, exit_code, same_environment = told(tmp_path, then="expect_workers()")
    assert expected == used is not None
    assert exit_code == 0
    assert same_environment


def test_a_server_that_starts_is_spared_what_the_keyboard_sends(tmp_path: Path) -> None:
    # Whatever it has come to by then: Python itself, the server's start, the imports.
    expected, used, exit_code, _ = told(
        tmp_path, then="import time\nfor _ in range(50): os.kill(expected, signal.SIGINT); time.sleep(0.002)"
    )
    assert expected == used is not None
    assert exit_code == 0


def test_a_server_that_ends_before_it_is_used_is_started_again(tmp_path: Path) -> None:
    expected, used, exit_code, _ = told(
        tmp_path, then="os.kill(expected, signal.SIGKILL); os.waitid(os.P_PID, expected, os.WEXITED | os.WNOWAIT)"
    )
    assert None not in (expected, used)
    assert expected != used
    assert exit_code == 0


@pytest.mark.parametrize(
    "why",
    [
        "multiprocessing.get_all_start_methods = lambda: ['spawn']",
        "tempfile.tempdir = str(Path('long' * 20).resolve()); os.mkdir(tempfile.tempdir)",
    ],
)
def test_nothing_starts_ahead_where_there_can_be_no_server(tmp_path: Path, why: str) -> None:
    assert told(tmp_path, first=why) == [None, None, 0, True]
