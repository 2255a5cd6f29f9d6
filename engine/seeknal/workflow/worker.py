"""The worker: executes one task, in a process of its own or in the caller's.

What crosses the process boundary is one msgspec-encoded Task and one msgspec-encoded Outcome; never data. A worker
writes the blob, then the action record, so its work counts even if the caller dies before it hears of it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from multiprocessing import connection, parent_process, util
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import msgspec

from seeknal.errors import NodeFailedError, SeeknalError
from seeknal.nodes.check import CheckResult
from seeknal.nodes.kind import Task
from seeknal.redaction import hide_secrets
from seeknal.store.objects import ActionRecord, Artifact, CheckRecord
from seeknal.timeline import Span, is_recording, recording, span
from seeknal.workflow.descendants import adopt_descendants, end_descendants
from seeknal.workflow.fork_server import SAFE_PATH

if TYPE_CHECKING:
    from seeknal.nodes.workbench import Workbench


class Failure(msgspec.Struct, frozen=True):
    """Why a task failed. ``statement`` and ``offset`` point into the task's SQL; ``file`` names a data file instead."""

    message: str
    hint: str = ""
    statement: int | None = None
    offset: int | None = None
    file: str | None = None
    line: int = 0
    column: int = 0


class Outcome(msgspec.Struct, frozen=True):
    """What became of a task: an artifact, or a failure; both where the artifact's checks failed.

    ``written`` are files, by paths below the store's root. ``checks`` are the results of all checks, where there are
    any. ``seals`` are those of the blobs in ``written``, for whoever makes them durable. ``spans`` say where the time
    went, where somebody wants to know.
    """

    node_id: str
    artifact: Artifact | None = None
    failure: Failure | None = None
    written: tuple[str, ...] = ()
    checks: tuple[CheckResult, ...] = ()
    seals: bytes = b""
    spans: tuple[Span, ...] = ()


_encode = msgspec.msgpack.encode
_task_decoder = msgspec.msgpack.Decoder(Task)
_outcome_decoder = msgspec.msgpack.Decoder(Outcome)


def decode_outcome(data: bytes) -> Outcome:
    return _outcome_decoder.decode(data)


# Of a worker process: where its caller reads since when it holds the mutexes of its task, by the monotonic clock.
_held_from: Any = None

# A task that goes to a worker process begins with so many bytes, and so does its answer.
KEY_BYTES = 8

# Of a worker process: where its tasks come from, and where its answers go.
_pipes: tuple[connection.Connection, connection.Connection] | None = None


def start_worker(held_from: Any, tasks: connection.Connection, answers: connection.Connection) -> None:
    """Prepare a worker process: Ctrl-C is the caller's affair, and a caller that dies takes its workers along."""
    global _held_from, _pipes
    _held_from, _pipes = held_from, (tasks, answers)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Held back until now, for this process and for what code of the user's may start.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    util.Finalize(None, _end_worker, exitpriority=sys.maxsize)
    with contextlib.suppress(OSError):
        # A group of its own: whatever the node's code starts ends with the worker.
        os.setpgid(0, 0)
    adopt_descendants()
    if os.environ.get("PYTHONSAFEPATH") == SAFE_PATH:
        # Meant for the fork server, not for programs that code of the user's may start.
        del os.environ["PYTHONSAFEPATH"]
    parent = parent_process()
    if parent is not None:
        sentinel = parent.sentinel

        def follow_parent() -> None:
            connection.wait([sentinel])
            _end_group()

        threading.Thread(target=follow_parent, daemon=True).start()


def _end_worker() -> None:
    """End this process, which has nothing to do any more, at once.

    Python would wait for threads that code of the user's started, as long as they like.
    """
    _end_group()


def _end_group() -> NoReturn:
    """End this process at once, and all that code of the user's started."""
    end_descendants(os.getpid())
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(0)


def execute_task(data: bytes) -> bytes:
    """Execute an encoded Task; gives an encoded Outcome. Raises only what is a bug."""
    task = _task_decoder.decode(data)
    with _holding(task):
        if not task.profiled or is_recording():
            # Where the caller records, and this is the caller's process, its recording has it all.
            with span("execute", task.node_id):
                return _encode(execute(task))
        with recording() as own:
            with span("execute", task.node_id):
                outcome = execute(task)
            return _encode(msgspec.structs.replace(outcome, spans=tuple(own.spans)))


def serve() -> None:
    """Execute the tasks that the caller of a worker process sends, until it sends an empty message or is gone.

    Raises what is a bug, after an empty answer.
    """
    assert _pipes is not None
    tasks, answers = _pipes
    while True:
        try:
            message = tasks.recv_bytes()
        except EOFError:
            return
        if not message:
            return
        key, task = message[:KEY_BYTES], message[KEY_BYTES:]
        try:
            answer = execute_task(task)
        except BaseException:
            answers.send_bytes(key)
            raise
        answers.send_bytes(key + answer)


@contextlib.contextmanager
def _holding(task: Task) -> Iterator[None]:
    """Hold the task's mutexes against other runs of the project; this run starts no two tasks that share one."""
    if not task.mutexes:
        yield
        return
    from seeknal.state.locks import FileLock, Patience

    with contextlib.ExitStack() as held:
        # In one order everywhere, so that no two wait for each other.
        for name in sorted(task.mutexes):
            # No environment has a name that begins with a dot, so this is no environment's own lock.
            path = Path(task.store_root) / "locks" / f".mutex-{name.lower()}"
            lock = FileLock(path, task.node_id, what=f"mutex '{name}'")
            lock.acquire(Patience(float("inf")))
            held.callback(lock.release)
        if _held_from is not None:
            _held_from.value = time.monotonic()
        yield


def _insist_on_identity(task: Task, bench: Workbench) -> None:
    """Raise NodeFailedError where what was read outside is not what the fingerprint was computed for.

    Its output must not be remembered: the fingerprint would lead to other data than it says.
    """
    from seeknal.dag.project import Project
    from seeknal.nodes.kind import Surroundings, encoded_identity
    from seeknal.nodes.registry import implementation_of
    from seeknal.store.file_memo import FileDigests

    if not task.identity:
        return
    kind = implementation_of(task.kind, task.function)
    # Without a memory: what was read was read a moment ago, so only the content itself can tell.
    digests = FileDigests(bench.store.root / "memo" / "none", bench.store.temporary_folder)
    around = Surroundings(Project(Path(task.project_root)), digests, None)
    if encoded_identity(kind.identity(msgspec.convert(task.spec, kind.spec), around)) != task.identity:
        raise NodeFailedError("what it reads changed while it was read", hint="run again")


def execute(task: Task) -> Outcome:
    """Execute a task: run the node, store its output, remember it under the fingerprint, and check it.

    An output that its checks reject is remembered as well: once the checks have changed, it may do.
    """
    import duckdb

    from seeknal.dag.sql_problem import engine_problem
    from seeknal.nodes.checks import ChecksFailed
    from seeknal.nodes.registry import implementation_of
    from seeknal.nodes.workbench import QueryFailed

    hide_secrets(task.secrets)
    bench = _workbench(task.store_root)
    started = time.perf_counter()
    artifact: Artifact | None = None
    checks: tuple[CheckResult, ...] = ()
    try:
        kind = implementation_of(task.kind, task.function)
        artifact = task.output
        if artifact is None:
            artifact = kind.execute(task, bench)
            _insist_on_identity(task, bench)
            artifact = msgspec.structs.replace(
                artifact, built_at=time.time(), duration_seconds=time.perf_counter() - started, run_id=task.run_id
            )
            bench.store.record_action(ActionRecord(task.fingerprint, task.node_id, artifact))
        if task.checks and kind.makes_table:
            with span("check"):
                checks = _check_output(task, artifact, bench)
    except ChecksFailed as error:
        written = tuple(bench.store.take_written())
        seals = bench.store.seals.take_fresh()
        return Outcome(task.node_id, artifact, Failure(error.message), written, error.results, seals)
    except QueryFailed as error:
        _forget_if_fatal(error.__cause__)
        problem = error.problem
        return Outcome(task.node_id, failure=Failure(problem.message, problem.hint, error.statement, problem.offset))
    except SeeknalError as error:
        problem_ = error.problems()[0]
        place = problem_.place
        file, line, column = (place.file, place.line, place.column) if place else (None, 0, 0)
        return Outcome(task.node_id, failure=Failure(problem_.message, problem_.hint, None, None, file, line, column))
    except duckdb.Error as error:
        _forget_if_fatal(error)
        found = engine_problem(error, "")
        return Outcome(task.node_id, failure=Failure(found.message, found.hint))
    except OSError as error:
        name = f" ({error.filename})" if error.filename else ""
        return Outcome(task.node_id, failure=Failure(f"{error.strerror or error}{name}"))
    written = tuple(bench.store.take_written())
    return Outcome(task.node_id, artifact, written=written, checks=checks, seals=bench.store.seals.take_fresh())


def _check_output(task: Task, artifact: Artifact, bench: Workbench) -> tuple[CheckResult, ...]:
    """Check a node's output, and remember that it passed. Raises ChecksFailed."""
    from seeknal.nodes.checks import insist_on_checks
    from seeknal.nodes.kind import stored_table
    from seeknal.workflow.fingerprint import checks_key, engine_identity

    results = insist_on_checks(task, [stored_table(bench.store, task.node_id, artifact)], bench)
    if not any(check.volatile for check in task.checks):
        key = checks_key(engine_identity(), task.checks, artifact)
        bench.store.record_checks(CheckRecord(key, task.node_id, [result.to_dict() for result in results]))
    return results


# By thread, because a connection serves one at a time; and by store.
_workbenches: dict[tuple[int, str], Workbench] = {}


def _workbench(store_root: str) -> Workbench:
    from seeknal.nodes.workbench import Workbench

    key = (threading.get_ident(), store_root)
    if key not in _workbenches:
        _workbenches[key] = Workbench(Path(store_root))
    return _workbenches[key]


def _forget_if_fatal(error: BaseException | None) -> None:
    """Drop connections that an error of DuckDB's own made useless; the next task opens new ones."""
    import duckdb

    if isinstance(error, (duckdb.FatalException, duckdb.InternalException)):
        close_workbenches()


def interrupt_queries() -> None:
    """End the queries that run in this process; their tasks fail."""
    for bench in list(_workbenches.values()):
        bench.interrupt()


def close_workbenches() -> None:
    """Close this thread's connections."""
    here = threading.get_ident()
    for key in [key for key in _workbenches if key[0] == here]:
        _workbenches.pop(key).close()
