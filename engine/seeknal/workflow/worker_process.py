"""One worker process: the tasks that it is given, its memory, its end, and what the system tells of both.

An executor of its own starts the process, notices its end, and puts it away. Tasks do not take the executor's way,
which leads through two threads and a queue: where nodes are light, handing them over would take as long as executing
them. They go through a pipe, and whoever waits for a reply reads it off another.

- *reply*: a future whose result is read when somebody asks for it.
- *peak*: the most memory that the process was seen to use; a short rise between two looks is missed.
- *death*: how a process ended that should not have.
- *key*: what a task's answer begins with. Code of the user's can write to any pipe of its process.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterable
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import connection, sharedctypes
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from seeknal.quantity import size_text
from seeknal.workflow.descendants import end_descendants
from seeknal.workflow.limits import control_group_texts
from seeknal.workflow.worker import KEY_BYTES, serve, start_worker

_CRASHES = frozenset(
    getattr(signal, name)
    for name in ("SIGSEGV", "SIGBUS", "SIGILL", "SIGFPE", "SIGABRT", "SIGSYS")
    if hasattr(signal, name)
)

# A process that ended is buried at once, but not always noticed at once.
_LONGEST_BURIAL_SECONDS = 5.0

# Text that code of the user's writes to the pipe would be read as the length of an answer beyond this.
_LARGEST_ANSWER_BYTES = 256 * 1024**2

# What multiprocessing says of a process whose end only a fork server knew that is gone, too.
_FORK_SERVER_GONE = 255


@dataclass(frozen=True)
class Death:
    """How a worker process ended. ``exit_code`` is negative for a signal, None where it cannot be told.

    ``memory_ran_out``: the system ended a process for want of memory while this one lived. ``garbled``: it was ended
    because something else than its answer came back.
    """

    exit_code: int | None = None
    peak_bytes: int = 0
    memory_ran_out: bool = False
    garbled: bool = False

    def __str__(self) -> str:
        return self.told()

    def told(self, times: str = "") -> str:
        """What happened, ``times`` over: ``twice``, say."""
        return " ".join(filter(None, ("its worker process died", times, f"({self.how})" if self.how else "")))

    @property
    def how(self) -> str:
        """The signal's name, or the exit code; empty where it cannot be told."""
        if self.exit_code is None:
            return ""
        if self.exit_code >= 0:
            return f"exit code {self.exit_code}"
        try:
            return signal.Signals(-self.exit_code).name
        except ValueError:
            return f"signal {-self.exit_code}"

    @property
    def likely_cause(self) -> str:
        """What most probably ended it, how much memory it was seen to use, and what to do."""
        used = f"; it was seen to use {size_text(self.peak_bytes)} of memory" if self.peak_bytes else ""
        return self._cause() + used

    def _cause(self) -> str:
        if self.garbled:
            return "code that the node runs wrote to a file descriptor that it did not open"
        if self.exit_code is not None and self.exit_code >= 0:
            return "code that the node runs ended the process, with os._exit or the like"
        if self.exit_code is not None and -self.exit_code in _CRASHES:
            return "a crash in a package's native code"
        if self.memory_ran_out:
            return "memory ran out, and the system ends processes then: use fewer workers, or `resources: {memory: …}`"
        return "out of memory? give it fewer workers beside it"


class Reply(Future[bytes]):
    """What a worker process answers to its task; it comes when somebody asks whether it has come.

    ``life`` is the executor's future of the process's own work: it ends when the process does.
    """

    def __init__(self, process: WorkerProcess, life: Future[None]) -> None:
        super().__init__()
        self._process = process
        self._life = life

    def done(self) -> bool:
        self._read(0.0)
        return super().done()

    def result(self, timeout: float | None = None) -> bytes:
        self._read(timeout)
        return super().result(0.0)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        self._read(timeout)
        return super().exception(0.0)

    def _read(self, timeout: float | None) -> None:
        if super().done() or not wait_for_one([self._process], timeout):
            return
        answer = self._process.answer()
        if answer:
            self.set_result(answer)
            return
        # Executing the task raised what is a bug, or the process ended.
        error: BaseException | None = None
        with contextlib.suppress(TimeoutError):
            error = self._life.exception(_LONGEST_BURIAL_SECONDS)
        self.set_exception(error or BrokenExecutor("the process does not answer any more"))


class WorkerProcess:
    """A process that executes one task at a time. It starts with the first one."""

    def __init__(self, context: BaseContext) -> None:
        # Shared with the process, which writes there since when it holds the mutexes of its task.
        self._held_from = sharedctypes.RawValue("d", 0.0)
        theirs, self._tasks = context.Pipe(duplex=False)
        self._answers, answers = context.Pipe(duplex=False)
        # The process's ends. Ours would keep it from noticing that we are gone, and us from noticing its end.
        self._theirs = (theirs, answers)
        self._executor = ProcessPoolExecutor(
            max_workers=1, mp_context=context, initializer=start_worker, initargs=(self._held_from, theirs, answers)
        )
        self._life: Future[None] | None = None
        self._reply: Reply | None = None
        self._process: BaseProcess | None = None
        self._manager: Any = None
        self._peak_bytes = 0
        self._key = b""
        self._garbled = False
        self._kills_before = _kills_for_want_of_memory()

    def submit(self, task: bytes) -> Reply:
        """Begin a task. Raises BrokenExecutor where the process died while it had nothing to do."""
        self._held_from.value = 0.0
        self._peak_bytes = 0
        if self._life is None or self._life.done():
            # For the first time, or because the task before raised what is a bug.
            self._life = self._executor.submit(serve)
            self._process = self._process or self.process
            # An executor that is shut down forgets it.
            self._manager = self._executor._executor_manager_thread
            for end in self._theirs:
                end.close()
        if self._process is None:
            raise BrokenExecutor("the process died before it began")
        try:
            self._key = os.urandom(KEY_BYTES)
            self._tasks.send_bytes(self._key + task)
        except OSError as error:
            raise BrokenExecutor("the process died while it had nothing to do") from error
        self._reply = Reply(self, self._life)
        return self._reply

    @property
    def sources(self) -> list[connection.Connection | int]:
        """What becomes readable once it has answered, or cannot any more."""
        return [self._answers, *([self._process.sentinel] if self._process is not None else ())]

    def answer(self) -> bytes | None:
        """What it answered: empty where executing the task raised what is a bug, None where it ended before."""
        try:
            # What it answered before it ended counts.
            answer = self._answers.recv_bytes(_LARGEST_ANSWER_BYTES) if self._answers.poll() else None
        except EOFError:
            return None
        except OSError:
            if not self._answers.closed:
                # It ended in the middle of its answer. A length that no answer has closes the pipe.
                return None
            answer = b""
        if answer is None or answer.startswith(self._key):
            return answer and answer[KEY_BYTES:]
        # Nothing that comes after it could be believed.
        self._garbled = True
        self.kill()
        return None

    @property
    def process(self) -> BaseProcess | None:
        """The process, None before the first task and once the executor noticed that it died.

        Asking the process itself would read its exit code, which the executor's own thread waits for.
        """
        # A copy, because an executor whose process dies changes its own.
        return next(iter(list((self._executor._processes or {}).values())), None)

    def held_from(self) -> float | None:
        """Since when the task holds its mutexes, by the monotonic clock; None while it waits for them."""
        return self._held_from.value or None

    def look(self) -> None:
        """Notice how much memory it uses now."""
        self._peak_bytes = max(self._peak_bytes, self.resident_bytes())

    def resident_bytes(self) -> int:
        """The memory that it uses now; 0 where that cannot be told."""
        with contextlib.suppress(OSError, ValueError, IndexError):
            if self._process is not None:
                pages = int(Path(f"/proc/{self._process.pid}/statm").read_text().split()[1])
                return pages * os.sysconf("SC_PAGE_SIZE")
        return 0

    def death(self) -> Death:
        """How the process ended. It has: its future raised BrokenExecutor."""
        # The executor's own thread waits for the process as well, and the exit code can be read once.
        if self._manager is not None:
            self._manager.join(_LONGEST_BURIAL_SECONDS)
        code = self._process.exitcode if self._process is not None else None
        if code == _FORK_SERVER_GONE:
            code = None
        ran_out = _kills_for_want_of_memory() > self._kills_before
        return Death(code, self._peak_bytes, ran_out, self._garbled)

    def kill(self) -> None:
        """End the process at once, and what it started."""
        if self._process is None or self._process.pid is None:
            return
        with contextlib.suppress(OSError):
            # A worker leads a process group of its own once it has begun (see start_worker).
            if os.getpgid(self._process.pid) == self._process.pid:
                # So that it starts no more.
                os.kill(self._process.pid, signal.SIGSTOP)
                end_descendants(self._process.pid)
                os.killpg(self._process.pid, signal.SIGKILL)
        self._process.kill()

    def bury(self) -> None:
        """End what the process started and left behind when it died: the others in its process group."""
        if self._process is not None and self._process.pid is not None:
            with contextlib.suppress(OSError):
                os.killpg(self._process.pid, signal.SIGKILL)
        self.close(wait=False)

    def close(self, *, wait: bool) -> None:
        """Let the process end when it is done."""
        if wait and self._reply is not None:
            # A long one is not sent to its end before it is read.
            self._reply.exception()
        with contextlib.suppress(OSError):
            # Closing our end is not enough where a process that somebody forked from this one has it, too.
            self._tasks.send_bytes(b"")
        for end in (self._tasks, *self._theirs):
            end.close()
        self._executor.shutdown(wait=wait, cancel_futures=True)


def wait_for_one(workers: Iterable[WorkerProcess], seconds: float | None) -> bool:
    """Wait until one of these has answered, or cannot any more; False where so many seconds were not enough."""
    return bool(connection.wait([source for worker in workers for source in worker.sources], seconds))


def _kills_for_want_of_memory() -> int:
    """How many processes the system ended for want of memory: on the machine, or in this control group."""
    count = 0
    for text in (*control_group_texts("", "memory.events"), _text(Path("/proc/vmstat"))):
        for line in text.splitlines():
            name, _, number = line.partition(" ")
            if name == "oom_kill" and number.isdigit():
                count += int(number)
    return count


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
