"""Workers that crash, hang, leak, flood or leave things behind: what their node is told, and no other hurt."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import duckdb
import pytest

from seeknal.dag.demands import demands_of
from seeknal.dag.project import Project
from seeknal.errors import ProjectError
from seeknal.state.locks import FileLock
from seeknal.workflow import shares
from seeknal.workflow.events import Event, NodeRetried
from seeknal.workflow.limits import StopRequest
from seeknal.workflow.results import NodeOutcome, RunOptions, RunResult
from seeknal.workflow.session import Session
from tests.engine.workflow.projects import transform, write, write_project

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")

FINE = transform("fine", "SELECT i FROM range(1000) t(i)")
BEHIND = transform("behind", "SELECT count(*) AS n FROM transform.fine")

# Without pandas: its import may take longer than a timeout where many tests run.
HEAD = """
import ctypes, os, subprocess, sys, time
from pathlib import Path
from seeknal.pipeline import transform

"""


def python(body: str, decorator: str = "@transform(name='bad')") -> str:
    lines = "\n".join(f"    {line}" for line in body.strip().splitlines())
    return f"{HEAD}{decorator}\ndef bad(ctx):\n{lines}\n"


def project(root: Path, bad: str) -> Path:
    return write_project(root, {"seeknal/fine.yml": FINE, "seeknal/behind.yml": BEHIND, "seeknal/bad.py": bad})


def run(root: Path, **options: object) -> tuple[RunResult, list[NodeRetried]]:
    """Run in parallel, and go on after errors, so that what others come to is seen."""
    retried: list[NodeRetried] = []

    def listen(event: Event) -> None:
        if isinstance(event, NodeRetried):
            retried.append(event)

    chosen = RunOptions(**{"parallel": True, "max_workers": 2, "continue_on_error": True, **options})  # type: ignore[arg-type]
    with Session.open(Project.open(root)) as session:
        return session.run("prod", chosen, listener=listen), retried


def outcome(result: RunResult, name: str) -> NodeOutcome:
    return next(node for node in result.nodes if node.node_id == f"transform.{name}")


def message(result: RunResult) -> str:
    """Why the bad node failed; the others must have come out well."""
    assert (outcome(result, "fine").status, outcome(result, "behind").status) == ("success", "success")
    assert outcome(result, "bad").status == "failed"
    (problem,) = outcome(result, "bad").problems
    assert problem.place is not None
    return f"{problem.message} ({problem.hint})"


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def gone(pid: int) -> bool:
    end = time.monotonic() + 20
    while alive(pid) and time.monotonic() < end:
        time.sleep(0.02)
    return not alive(pid)


@pytest.mark.parametrize(
    ("body", "said", "cause"),
    [
        ("ctypes.string_at(0)", "(SIGSEGV)", "crash in a package's native code"),
        ("os.abort()", "(SIGABRT)", "crash in a package's native code"),
        ("os.kill(os.getpid(), 9)", "(SIGKILL)", "memory"),
        ("os._exit(7)", "(exit code 7)", "os._exit"),
    ],
)
def test_death_of_a_process_is_its_own_nodes_and_says_how(tmp_path: Path, body: str, said: str, cause: str) -> None:
    result, retried = run(project(tmp_path, python(body)))
    text = message(result)
    assert said in text
    assert cause in text
    assert "died twice" in text
    assert [said in event.message for event in retried] == [True]


def test_most_memory_seen_is_named(tmp_path: Path) -> None:
    body = "held = b'x' * 300_000_000\ntime.sleep(1.5)\nos.kill(os.getpid(), 9)"
    root = project(tmp_path, python(body))
    with Session.open(Project.open(root)) as session:
        stop = StopRequest()
        stop.watch = True
        result = session.run("prod", RunOptions(parallel=True, continue_on_error=True), stop=stop)
    used = float(message(result).partition("seen to use ")[2].partition(" MB")[0])
    assert 300 <= used <= 900


def test_process_that_dies_once_costs_nothing(tmp_path: Path) -> None:
    mark = tmp_path / "died"
    body = f"""
mark = Path({str(mark)!r})
if not mark.exists():
    mark.touch()
    os._exit(1)
return ctx.duckdb.sql("SELECT unnest([1, 2]) AS a")
"""
    result, retried = run(project(tmp_path / "p", python(body)))
    assert outcome(result, "bad").row_count == 2
    assert len(retried) == 1


@pytest.mark.parametrize("parallel", [True, False])
def test_node_past_its_timeout_is_ended_with_what_it_started(tmp_path: Path, parallel: bool) -> None:
    pids = tmp_path / "pids"
    body = f"""
child = subprocess.Popen(["sleep", "600"])
Path({str(pids)!r}).write_text(f"{{os.getpid()}} {{child.pid}}")
time.sleep(600)
"""
    root = project(tmp_path / "p", python(body, "@transform(name='bad', timeout='8s')"))
    result, _ = run(root, parallel=parallel)
    assert "took longer than its timeout of 8 s" in message(result)
    assert all(gone(int(pid)) for pid in pids.read_text().split())


def test_query_past_its_timeout_is_ended(tmp_path: Path) -> None:
    endless = transform("bad", "SELECT sum(hash(i)) AS a FROM range(1_000_000_000_000) t(i)", timeout="0.5")
    root = write_project(tmp_path, {"seeknal/fine.yml": FINE, "seeknal/behind.yml": BEHIND, "seeknal/bad.yml": endless})
    result, _ = run(root, parallel=False)
    assert "took longer than its timeout of 0.5 s" in message(result)


def test_timeout_counts_as_an_attempt(tmp_path: Path) -> None:
    tries = tmp_path / "tries"
    body = f"""
tries = Path({str(tries)!r})
tries.write_text((tries.read_text() if tries.exists() else "") + "x")
if len(tries.read_text()) == 1:
    time.sleep(600)
return ctx.duckdb.sql("SELECT 1 AS a")
"""
    result, retried = run(project(tmp_path / "p", python(body, "@transform(name='bad', timeout=8)")), retry=1)
    assert outcome(result, "bad").status == "success"
    assert [(event.attempt, event.attempts) for event in retried] == [(2, 2)]


def test_attempts_are_repeated_after_growing_delays(tmp_path: Path) -> None:
    result, retried = run(project(tmp_path, python("raise ValueError('not today')")), retry=2)
    assert "not today" in message(result)
    first, second = (event.delay_seconds for event in retried)
    assert 0.25 <= first <= 0.5 <= second <= 1.0


def test_what_a_node_started_ends_with_the_run(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    body = f"""
child = subprocess.Popen(["sleep", "600"])
Path({str(pids)!r}).write_text(str(child.pid))
return ctx.duckdb.sql("SELECT 1 AS a")
"""
    result, _ = run(project(tmp_path / "p", python(body)))
    assert outcome(result, "bad").status == "success"
    assert gone(int(pids.read_text()))


def test_flood_on_stderr_stands_in_nobodys_way(tmp_path: Path) -> None:
    body = """
for _ in range(2000):
    print("x" * 10_000, file=sys.stderr)
    os.write(2, b"y" * 10_000)
return ctx.duckdb.sql("SELECT 1 AS a")
"""
    result, _ = run(project(tmp_path, python(body)))
    assert {node.status for node in result.nodes} == {"success"}
    logs = list((tmp_path / "target").rglob("*.log"))
    assert sum(path.stat().st_size for path in logs) < 5_000_000


def test_worker_that_keeps_its_memory_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shares, "LEAST_HEAVY_BYTES", 400 * 1024**2)
    monkeypatch.setattr(shares, "memory_share", lambda busy: 800 * 1024**2)
    leaking = """
import os, sys
import pandas
from seeknal.pipeline import transform

{nodes}
"""
    node = """
@transform(name="n{0}")
def n{0}(ctx):
    {before}
    sys.leaked = getattr(sys, "leaked", []) + [b"x" * {megabytes}_000_000]
    return pandas.DataFrame({{"pid": [os.getpid()]}})
"""
    files = {}
    for index, (megabytes, before) in enumerate(
        [(1, "pass"), (700, "ctx.ref('transform.n0')"), (1, "ctx.ref('transform.n1')")]
    ):
        files[f"seeknal/n{index}.py"] = leaking.format(nodes=node.format(index, megabytes=megabytes, before=before))
    root = write_project(tmp_path, files)
    result, _ = run(root, parallel=False)
    assert {node.status for node in result.nodes} == {"success"}, [node.problems for node in result.nodes]

    paths = [root / f"target/cache/transform/n{index}.parquet" for index in range(3)]
    pids = [duckdb.sql(f"SELECT pid FROM '{path}'").fetchall()[0][0] for path in paths]
    assert pids[0] == pids[1] != pids[2]


class TestMutexes:
    def test_nodes_with_one_mutex_take_turns_in_one_run_and_across_runs(self, tmp_path: Path) -> None:
        log = tmp_path / "log"
        body = f"""
with open({str(log)!r}, "a", buffering=1) as log:
    log.write("begin\\n")
    time.sleep(0.15)
    log.write("end\\n")
return ctx.duckdb.sql("SELECT 1 AS a")
"""
        nodes = "\n".join(
            python(body, f"@transform(name='m{index}', resources={{'mutex': 'warehouse'}})").replace(
                "def bad", f"def m{index}"
            )
            for index in range(3)
        )
        root = write_project(tmp_path / "p", {"seeknal/m.py": nodes})
        command = [sys.executable, "-m", "seeknal.cli.main", "run", "--parallel", "--max-workers", "3", "--full"]
        first = subprocess.Popen([*command, "--project-path", str(root)], stdout=subprocess.DEVNULL)
        with Session.open(Project.open(root)) as session:
            result = session.run("dev", RunOptions(parallel=True, max_workers=3, full=True))
        assert first.wait(60) == 0
        assert result.status == "success"
        assert log.read_text().split() == ["begin", "end"] * 6

    def test_waiting_for_another_run_does_not_count_towards_the_timeout(self, tmp_path: Path) -> None:
        slow = transform("slow", "SELECT 1 AS a", timeout="4", resources="{mutex: warehouse}")
        root = write_project(tmp_path / "p", {"seeknal/slow.yml": slow})
        lock = FileLock(root / "target/store/locks/.mutex-warehouse", "another run")
        lock.acquire()
        freeing = threading.Timer(6, lock.release)
        freeing.start()
        result, _ = run(root)
        freeing.join()
        assert outcome(result, "slow").status == "success"

    def test_run_that_waits_for_another_ends_when_it_is_asked_to(self, tmp_path: Path) -> None:
        waiting = transform("waiting", "SELECT 1 AS a", resources="{mutex: warehouse}")
        root = write_project(tmp_path / "p", {"seeknal/waiting.yml": waiting})
        lock = FileLock(root / "target/store/locks/.mutex-warehouse", "another run")
        lock.acquire()
        stop = StopRequest()
        stop.watch = True
        stop.grace_seconds = 0.2
        asking = threading.Timer(2, stop.request)
        asking.start()
        with Session.open(Project.open(root)) as session:
            result = session.run("prod", RunOptions(), stop=stop)
        asking.join()
        lock.release()
        assert result.status == "interrupted"

    def test_names_that_differ_in_case_alone_are_one_mutex(self, tmp_path: Path) -> None:
        nodes = transform("twice", "SELECT 1 AS a", timeout="60", resources="{mutex: [Warehouse, warehouse]}")
        root = write_project(tmp_path / "p", {"seeknal/twice.yml": nodes})
        assert outcome(run(root)[0], "twice").status == "success"
        assert demands_of({"resources": {"mutex": ["B", "a", "b"]}}).mutexes == ("a", "b")


class TestFields:
    @pytest.mark.parametrize(
        ("fields", "said"),
        [
            ("timeout: soon", "3:1: 'timeout' is 'soon', which is no time above zero"),
            ("timeout: 0", "3:1: 'timeout' is 0, which is no time above zero"),
            ("resources: {memory: much}", "'resources.memory' is 'much', which is no size"),
            ("resources: {memory: 1kB}", "DuckDB needs more"),
            ("resources: {slots: 0}", "'resources.slots'"),
            ("resources: {mutex: ''}", "'' is no name of a mutex"),
            ("resources: {mutx: a}", "'resources': unknown field 'mutx'"),
            ("resources: {mutex: 'a b'}", "'a b' is no name of a mutex"),
            ("resources: {cores: 2}", "cores"),
            ("resources: 4GB", "'resources'"),
        ],
    )
    def test_wrong_demands_are_named_with_their_place(self, tmp_path: Path, fields: str, said: str) -> None:
        root = write_project(tmp_path, {})
        write(root, "seeknal/t.yml", f"kind: transform\nname: t\n{fields}\ntransform: SELECT 1 AS a\n")
        with pytest.raises(ProjectError) as raised:
            Session.open(Project.open(root))
        (problem,) = raised.value.problems()
        assert said in f"{problem}"
        assert problem.place is not None
        assert problem.place.line == 3

    def test_changed_demands_execute_nothing(self, tmp_path: Path) -> None:
        root = write_project(tmp_path, {"seeknal/fine.yml": FINE})
        run(root)
        write(root, "seeknal/fine.yml", FINE + "timeout: 5m\nresources: {memory: 1GB, slots: 2, mutex: [a, b]}\n")
        result, _ = run(root)
        assert outcome(result, "fine").status == "cached"
        assert os.listdir(root / "target")
