from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, Future, ThreadPoolExecutor
from multiprocessing import forkserver
from pathlib import Path

import msgspec
import pytest

from seeknal.errors import NodeFailedError
from seeknal.nodes.kind import Task
from seeknal.nodes.transform import TransformKind
from seeknal.nodes.workbench import Workbench
from seeknal.store.filesystem import digest_bytes
from seeknal.store.objects import Artifact
from seeknal.store.store import Store
from seeknal.workflow import worker
from seeknal.workflow.worker import Outcome, close_workbenches, decode_outcome, execute
from seeknal.workflow.worker_process import Death
from seeknal.workflow.workers import External, Inline, ProcessWorkers, Workers

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")

PATIENCE_SECONDS = 20.0
ENDLESS = "SELECT sum(hash(i)) AS a FROM range(1_000_000_000_000) t(i)"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store(tmp_path / "store")
    made.prepare()
    yield made
    close_workbenches()


def task_of(store: Store, query: str = "SELECT 42 AS a", node_id: str = "transform.t") -> Task:
    return Task(
        node_id=node_id,
        kind="transform",
        fingerprint=digest_bytes(query.encode()),
        run_id="a-run",
        project_root=str(store.root.parent),
        store_root=str(store.root),
        spec={},
        statements=(query,),
        schema=(("a", "HUGEINT" if query == ENDLESS else "INTEGER"),),
    )


def encoded(store: Store, query: str = "SELECT 42 AS a") -> bytes:
    return msgspec.msgpack.encode(task_of(store, query))


def outcome(future: Future[bytes]) -> Outcome:
    return decode_outcome(future.result(PATIENCE_SECONDS))


def artifact(future: Future[bytes]) -> Artifact:
    found = outcome(future).artifact
    assert found is not None
    return found


def is_alive(pid: int) -> bool:
    """Whether a process is there and not merely waiting for somebody to notice that it ended."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


def until(holds: Callable[[], bool]) -> bool:
    """Wait for something that should come soon; False where it does not."""
    end = time.monotonic() + PATIENCE_SECONDS
    while not holds():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


def pids(workers: ProcessWorkers) -> list[int]:
    return [process.pid for process in workers.processes() if process.pid is not None]


@pytest.fixture
def workers() -> Iterator[ProcessWorkers]:
    """Two slots for worker processes; insists that no process outlives the test."""
    before = {child.pid for child in multiprocessing.active_children()}
    made = ProcessWorkers(2)
    yield made
    left = pids(made)
    made.close(kill=True)
    assert until(lambda: not any(map(is_alive, left)))
    assert until(lambda: {child.pid for child in multiprocessing.active_children()} <= before)


class TestEveryPlace:
    def test_places_give_the_same_and_remember_it(self, store: Store, workers: ProcessWorkers) -> None:
        query = "SELECT i::INTEGER AS a FROM range(1000) t(i)"
        places: list[Workers] = [Inline(), workers]
        found = [artifact(place.submit(encoded(store, query))) for place in places]
        assert found[0].same_content(found[1])
        assert (found[0].row_count, found[0].run_id) == (1000, "a-run")
        recorded = Store(store.root).find_action(digest_bytes(query.encode()))
        assert recorded == found[1]
        assert store.is_whole(found[0])

    def test_what_was_written_is_told(self, store: Store, workers: ProcessWorkers) -> None:
        places: list[Workers] = [Inline(), workers]
        for number, place in enumerate(places):
            written = outcome(place.submit(encoded(store, f"SELECT {number} AS a"))).written
            assert [Path(path).parts[0] for path in written] == ["blobs", "actions"]
            assert all((store.root / path).is_file() for path in written)

    def test_failure_comes_back_as_a_value(self, store: Store, workers: ProcessWorkers) -> None:
        for place in (Inline(), workers):
            found = outcome(place.submit(encoded(store, "SELECT 1 AS b, error('no luck')::INTEGER AS a")))
            assert found.artifact is None
            assert found.failure is not None
            assert "no luck" in found.failure.message

    def test_what_comes_back_may_be_larger_than_a_pipe(self, store: Store, workers: ProcessWorkers) -> None:
        for place in (Inline(), workers):
            found = outcome(place.submit(encoded(store, "SELECT error(repeat('no luck ', 50_000))::INTEGER AS a")))
            assert found.failure is not None
            assert found.failure.message.count("no luck") >= 50_000

    def test_bug_comes_back_as_its_exception_and_the_worker_goes_on(
        self, store: Store, workers: ProcessWorkers
    ) -> None:
        for place in (Inline(), workers):
            with pytest.raises(msgspec.DecodeError):
                place.submit(b"").result(PATIENCE_SECONDS)
        before = pids(workers)
        assert artifact(workers.submit(encoded(store))).row_count == 1
        assert pids(workers) == before

    def test_executor_of_somebody_else_is_used_and_left_open(self, store: Store) -> None:
        queries = [f"SELECT (i + {k})::INTEGER AS a FROM range(20_000) t(i)" for k in range(12)]
        with ThreadPoolExecutor(3) as pool:
            external = External(pool, 3)
            futures = [external.submit(encoded(store, query)) for query in queries]
            assert [artifact(future).row_count for future in futures] == [20_000] * 12
            external.close(kill=True)
            assert pool.submit(lambda: "open").result() == "open"
            # Each thread has connections of its own; each must close them itself.
            while worker._workbenches:
                pool.submit(close_workbenches).result()


class TestProcesses:
    def test_processes_start_when_they_are_needed_and_are_kept(self, store: Store, workers: ProcessWorkers) -> None:
        assert pids(workers) == []
        artifact(workers.submit(encoded(store, "SELECT 1 AS a")))
        first = pids(workers)
        assert len(first) == 1
        artifact(workers.submit(encoded(store, "SELECT 2 AS a")))
        assert pids(workers) == first
        workers.submit(encoded(store, ENDLESS))
        artifact(workers.submit(encoded(store, "SELECT 3 AS a")))
        assert len(set(pids(workers))) == 2

    def test_fork_server_has_one_thread_and_duckdb_but_no_pyarrow(self, store: Store, workers: ProcessWorkers) -> None:
        artifact(workers.submit(encoded(store)))
        server = forkserver._forkserver._forkserver_pid  # type: ignore[attr-defined]
        status = Path(f"/proc/{server}/status").read_text().splitlines()
        assert "Threads:\t1" in status
        mapped = Path(f"/proc/{server}/maps").read_text()
        assert "duckdb" in mapped
        assert "arrow" not in mapped
        (pid,) = pids(workers)
        assert f"PPid:\t{server}" in Path(f"/proc/{pid}/status").read_text().splitlines()

    def test_worker_that_dies_breaks_its_own_future_only(self, store: Store, workers: ProcessWorkers) -> None:
        first, second = (workers.submit(encoded(store, ENDLESS)) for _ in range(2))
        doomed, other = pids(workers)
        os.kill(doomed, signal.SIGKILL)
        with pytest.raises(BrokenExecutor):
            first.result(PATIENCE_SECONDS)
        assert artifact(workers.submit(encoded(store))).row_count == 1
        assert not second.done()
        assert other in pids(workers)
        assert len(pids(workers)) == 2
        assert until(lambda: not is_alive(doomed))

    def test_worker_that_dies_with_nothing_to_do_is_replaced_without_a_word(
        self, store: Store, workers: ProcessWorkers
    ) -> None:
        artifact(workers.submit(encoded(store)))
        (waiting,) = workers._busy.values()
        (pid,) = pids(workers)
        os.kill(pid, signal.SIGKILL)
        assert until(lambda: bool(waiting._executor._broken))
        assert artifact(workers.submit(encoded(store, "SELECT 2 AS a"))).row_count == 1
        assert pid not in pids(workers)

    @pytest.mark.parametrize(
        ("number", "end"),
        [
            (signal.SIGKILL, "SIGKILL"),
            (signal.SIGTERM, "SIGTERM"),
            (signal.SIGRTMIN + 1, "signal 35"),
        ],
    )
    def test_how_a_worker_ended_is_told(
        self, store: Store, workers: ProcessWorkers, number: signal.Signals, end: str
    ) -> None:
        future = workers.submit(encoded(store, ENDLESS))
        assert until(lambda: all(_cpu_ticks(pid) > 5 for pid in pids(workers)))
        os.kill(pids(workers)[0], number)
        with pytest.raises(BrokenExecutor):
            future.result(PATIENCE_SECONDS)
        assert str(workers.death(future)) == f"its worker process died ({end})"

    @pytest.mark.skipif(sys.platform != "linux", reason="opens a pipe by its number in /proc")
    @pytest.mark.parametrize(
        "garbage",
        [b"no answer", b"\0\0\0\5hello", b"\0\0\0\0", b"\0\0\0\x08of before"],
        ids=["text", "hello", "empty", "stale"],
    )
    def test_what_is_no_answer_to_its_task_fails_it(
        self, store: Store, workers: ProcessWorkers, garbage: bytes
    ) -> None:
        future = workers.submit(encoded(store, ENDLESS))
        (garbled,) = workers._busy.values()
        (pid,) = pids(workers)
        Path(f"/proc/self/fd/{garbled._answers.fileno()}").write_bytes(garbage)
        with pytest.raises(BrokenExecutor):
            future.result(PATIENCE_SECONDS)
        death = workers.death(future)
        assert death.garbled
        assert "wrote to a file descriptor" in death.likely_cause
        assert artifact(workers.submit(encoded(store))).row_count == 1
        assert until(lambda: not is_alive(pid))

    def test_end_of_the_fork_server_costs_what_was_running_and_no_more(
        self, store: Store, workers: ProcessWorkers
    ) -> None:
        future = workers.submit(encoded(store, ENDLESS))
        os.kill(forkserver._forkserver._forkserver_pid, signal.SIGKILL)  # type: ignore[attr-defined]
        with pytest.raises(BrokenExecutor):
            future.result(PATIENCE_SECONDS)
        assert workers.death(future) == Death()
        assert artifact(workers.submit(encoded(store))).row_count == 1

    def test_process_that_cannot_be_started_is_one_that_died(
        self, store: Store, workers: ProcessWorkers, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*arguments: object) -> None:
            raise EOFError("unexpected EOF")

        with monkeypatch.context() as patch:
            patch.setattr(forkserver, "read_signed", fail)
            future = workers.submit(encoded(store))
        with pytest.raises(BrokenExecutor, match="no process could be started"):
            future.result(PATIENCE_SECONDS)
        assert workers.death(future) == Death()
        assert artifact(workers.submit(encoded(store))).row_count == 1

    def test_interrupt_from_the_keyboard_is_left_to_the_caller(self, store: Store, workers: ProcessWorkers) -> None:
        artifact(workers.submit(encoded(store)))
        before = pids(workers)
        os.kill(before[0], signal.SIGINT)
        assert artifact(workers.submit(encoded(store, "SELECT 2 AS a"))).row_count == 1
        assert pids(workers) == before

    def test_closing_waits_for_what_runs(self, store: Store) -> None:
        workers = ProcessWorkers(2)
        futures = [workers.submit(encoded(store, f"SELECT {k} AS a")) for k in range(2)]
        started = pids(workers)
        workers.close()
        assert [artifact(future).row_count for future in futures] == [1, 1]
        assert workers.processes() == []
        assert until(lambda: not any(map(is_alive, started)))

    def test_closing_ends_a_worker_although_a_process_that_was_forked_from_this_one_has_its_pipe(
        self, store: Store
    ) -> None:
        workers = ProcessWorkers(1)
        artifact(workers.submit(encoded(store)))
        (process,) = workers._busy.values()
        kept = os.dup(process._tasks.fileno())
        closing = threading.Thread(target=workers.close, daemon=True)
        closing.start()
        closing.join(PATIENCE_SECONDS)
        try:
            assert not closing.is_alive()
        finally:
            os.close(kept)

    def test_closing_takes_what_is_larger_than_a_pipe(self, store: Store) -> None:
        workers = ProcessWorkers(1)
        future = workers.submit(encoded(store, "SELECT error(repeat('no luck ', 50_000))::INTEGER AS a"))
        workers.close()
        failure = outcome(future).failure
        assert failure is not None
        assert "no luck" in failure.message

    def test_what_a_worker_answered_before_it_died_counts(self, store: Store, workers: ProcessWorkers) -> None:
        future = workers.submit(encoded(store))
        assert until(lambda: store.find_action(digest_bytes(b"SELECT 42 AS a")) is not None)
        (answering,) = workers._busy.values()
        assert until(answering._answers.poll)
        (pid,) = pids(workers)
        os.kill(pid, signal.SIGKILL)
        assert until(lambda: bool(answering._executor._broken))
        assert artifact(future).row_count == 1
        assert artifact(workers.submit(encoded(store, "SELECT 2 AS a"))).row_count == 1

    def test_waiting_gives_what_is_over_and_no_more(self, store: Store, workers: ProcessWorkers) -> None:
        endless, quick = (workers.submit(encoded(store, query)) for query in (ENDLESS, "SELECT 1 AS a"))
        assert workers.wait([endless], 0.05) == set()
        assert workers.wait([endless, quick]) == {quick}
        assert workers.wait([endless, quick], 0.0) == {quick}
        assert workers.end(endless)
        assert workers.wait([endless], PATIENCE_SECONDS) == {endless}
        with pytest.raises(BrokenExecutor):
            endless.result()

    def test_closing_by_force_ends_what_runs(self, store: Store) -> None:
        workers = ProcessWorkers(2)
        futures = [workers.submit(encoded(store, ENDLESS)) for _ in range(2)]
        started = pids(workers)
        workers.close(kill=True)
        for future in futures:
            with pytest.raises(BrokenExecutor):
                future.result(PATIENCE_SECONDS)
        assert until(lambda: not any(map(is_alive, started)))

    @pytest.mark.parametrize("why", ["there is none", "its socket's path would be too long"])
    def test_spawn_takes_the_place_of_a_fork_server_that_cannot_be(
        self, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, why: str
    ) -> None:
        if why == "there is none":
            monkeypatch.setattr(multiprocessing, "get_all_start_methods", lambda: ["spawn"])
        else:
            folder = tmp_path / ("long" * 20)
            folder.mkdir()
            monkeypatch.setattr(tempfile, "tempdir", str(folder))
        workers = ProcessWorkers(1)
        try:
            assert artifact(workers.submit(encoded(store))).row_count == 1
            (pid,) = pids(workers)
            assert f"PPid:\t{os.getpid()}" in Path(f"/proc/{pid}/status").read_text().splitlines()
        finally:
            workers.close()


SCRIPT = """
import json, sys
from multiprocessing import forkserver
from seeknal.workflow.workers import ProcessWorkers

print("the script runs", flush=True)
workers = ProcessWorkers(2)
futures = [workers.submit(bytes.fromhex(task)) for task in sys.argv[1:]]
if "{wait}":
    pids = [process.pid for process in workers.processes()]
    print(json.dumps([forkserver._forkserver._forkserver_pid, *pids]), flush=True)
print(*[len(future.result()) > 0 for future in futures])
workers.close()
"""


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}


class TestCallers:
    @pytest.mark.parametrize("from_stdin", [True, False])
    def test_script_needs_no_guard_around_what_it_does(self, store: Store, tmp_path: Path, from_stdin: bool) -> None:
        script = tmp_path / "script.py"
        script.write_text(SCRIPT.format(wait=""))
        told = subprocess.run(
            [sys.executable, "-" if from_stdin else str(script), encoded(store).hex()],
            input=script.read_text() if from_stdin else None,
            env=environment(),
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert (told.stdout, told.stderr, told.returncode) == ("the script runs\nTrue\n", "", 0)

    def test_caller_that_is_killed_takes_its_workers_along(self, store: Store, tmp_path: Path) -> None:
        script = tmp_path / "script.py"
        script.write_text(SCRIPT.format(wait="yes"))
        command = [sys.executable, str(script), *[encoded(store, ENDLESS).hex()] * 2]
        with subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, text=True) as caller:
            assert caller.stdout is not None
            assert caller.stdout.readline() == "the script runs\n"
            started = json.loads(caller.stdout.readline())
            assert len(started) == 3
            # The workers are at work, not only about to be.
            assert until(lambda: all(_cpu_ticks(pid) > 20 for pid in started[1:]))
            caller.kill()
        try:
            assert until(lambda: not any(map(is_alive, started)))
        finally:
            for pid in filter(is_alive, started):
                os.kill(pid, signal.SIGKILL)


def _cpu_ticks(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11])

    def test_interrupt_from_the_keyboard_disturbs_no_process_that_starts(self, store: Store, tmp_path: Path) -> None:
        script = tmp_path / "script.py"
        ignoring = "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        script.write_text(ignoring + SCRIPT.format(wait=""))
        command = [sys.executable, str(script), *[encoded(store).hex()] * 2]
        with subprocess.Popen(
            command,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        ) as caller:
            assert caller.stdout is not None
            assert caller.stdout.readline() == "the script runs\n"
            while caller.poll() is None:
                os.killpg(caller.pid, signal.SIGINT)
                time.sleep(0.005)
            assert caller.communicate() == ("True True\n", "")


class TestTasks:
    def test_error_that_names_a_place_keeps_it(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        from seeknal.errors import Place

        def execute_node(kind: TransformKind, task: Task, bench: Workbench) -> Artifact:
            raise NodeFailedError("bad value", place=Place("data.csv", 7, 3), hint="mend it")

        monkeypatch.setattr(TransformKind, "execute", execute_node)
        failure = execute(task_of(store)).failure
        assert failure is not None
        assert (failure.message, failure.hint) == ("bad value", "mend it")
        assert (failure.file, failure.line, failure.column) == ("data.csv", 7, 3)

    def test_full_disk_is_a_failure_and_no_bug(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(self: Store, record: object) -> None:
            raise OSError(28, "No space left on device", "/the/store")

        monkeypatch.setattr(Store, "record_action", fail)
        found = execute(task_of(store))
        assert found.artifact is None
        assert found.failure is not None
        assert found.failure.message == "No space left on device (/the/store)"

    def test_connection_that_is_past_help_is_not_used_again(
        self, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        import duckdb

        benches: list[Workbench] = []

        def execute_node(kind: TransformKind, task: Task, bench: Workbench) -> Artifact:
            benches.append(bench)
            raise errors.pop()

        errors = [duckdb.ConversionException("a"), duckdb.FatalException("b"), duckdb.ConversionException("c")]
        monkeypatch.setattr(TransformKind, "execute", execute_node)
        for _ in range(3):
            assert execute(task_of(store)).failure is not None
        first, second, third = benches
        assert first is second is not third
