from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from seeknal.dag.project import Project
from seeknal.workflow.results import RunOptions
from seeknal.workflow.session import Session
from tests.engine.workflow.projects import write_project

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux lets a process adopt others")

# Without pandas: its import may take longer than a timeout where many tests run.
NODE = """
import os, subprocess, time
from pathlib import Path
from seeknal.pipeline import transform

@transform(name="starts"{more})
def starts(ctx):
    sleeping = subprocess.Popen(["sleep", "600"]{options})
    Path({pids!r}).open("a").write(f"{{sleeping.pid}} ")
    {then}
    return ctx.duckdb.sql("SELECT 1 AS a")
"""


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


@pytest.mark.parametrize(
    ("options", "then", "more", "status"),
    [
        (", start_new_session=True", "pass", "", "success"),
        (", start_new_session=True", "time.sleep(600)", ", timeout='8'", "failed"),
        ("", "os._exit(1)", "", "failed"),
    ],
    ids=["of a session of its own", "beside a timeout", "beside a worker that dies"],
)
def test_nothing_that_a_node_started_outlives_the_run(
    tmp_path: Path, options: str, then: str, more: str, status: str
) -> None:
    pids = tmp_path / "pids"
    node = NODE.format(options=options, then=then, more=more, pids=str(pids))
    root = write_project(tmp_path / "p", {"seeknal/starts.py": node})
    with Session.open(Project.open(root)) as session:
        assert session.run("prod", RunOptions()).status == status
    started = [int(pid) for pid in pids.read_text().split()]
    assert started
    until = time.monotonic() + 20
    try:
        while any(map(lives, started)) and time.monotonic() < until:
            time.sleep(0.05)
        assert not any(map(lives, started))
    finally:
        for pid in filter(lives, started):
            os.kill(pid, signal.SIGKILL)


def test_descendants_of_a_process_are_found_at_any_depth() -> None:
    from seeknal.workflow.descendants import end_descendants

    deep = "import subprocess; subprocess.run(['setsid', 'sleep', '600'])"
    with subprocess.Popen([sys.executable, "-c", deep]) as process:
        while b"sleep" not in _commands_below(process.pid):
            time.sleep(0.02)
        end_descendants(process.pid)
        assert process.wait(20) == 0


def _commands_below(pid: int) -> bytes:
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return b"".join(Path(f"/proc/{child}/cmdline").read_bytes() for child in children)
    except OSError:
        return b""
