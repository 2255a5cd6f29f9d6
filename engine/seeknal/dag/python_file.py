"""Python files as nodes: what discovery found in them becomes drafts, and what is wrong becomes problems.

Files are imported in a process of their own (:mod:`seeknal.pipeline.discovery`), all in one; one that takes the process
down, or does not end, is reported, and the others go on in a new one. What was found is remembered by the digests of
the file and of the project's modules that it imports, so a project that did not change runs no code of the user's.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import xxhash

from seeknal.dag.project import Project
from seeknal.dag.python_stamp import python_stamp
from seeknal.errors import Place, Problem, StoreError
from seeknal.late_pattern import late_pattern
from seeknal.pipeline.discovered import FoundFile, FoundProblem, Request
from seeknal.pipeline.project_files import is_project_file
from seeknal.redaction import secrets
from seeknal.store.filesystem import write_atomically
from seeknal.store.objects import FORMAT_VERSIONS, decode, encode

if TYPE_CHECKING:
    import subprocess

# How long one file may take to import.
PATIENCE_SECONDS = 60.0

_BOOTSTRAP = """
import sys
request = sys.stdin.buffer.read()
search_path, _, request = request.partition(b"\\0")
sys.path[:] = search_path.decode().split("\\n")
import os
os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
from seeknal.pipeline.discovery import main
main(request)
"""

_FRAME = late_pattern(r'^  File "(.*)", line (\d+) in ', re.MULTILINE)


class _Memory(msgspec.Struct, frozen=True):
    """What was found at earlier times, for a Python of this stamp."""

    stamp: str
    files: dict[str, FoundFile]


FORMAT_VERSIONS[_Memory] = ("python", 1)


def find_python_nodes(project: Project, files: Sequence[Path]) -> list[FoundFile]:
    """Find the nodes of a project's Python files, in the order of the files."""
    if not files:
        return []
    names = [file.relative_to(project.root).as_posix() for file in files]
    stamp = python_stamp()
    remembered = _recall(project, stamp)
    digests: dict[str, str] = {}
    found = {name: entry for name in names if (entry := remembered.get(name)) and _stands(project, entry, digests)}
    missing = [name for name in names if name not in found]
    if missing:
        found.update((entry.file, entry) for entry in discover_files(project.root, missing))
        _remember(project, stamp, {name: entry for name, entry in found.items() if entry.repeatable})
    return [found[name] for name in names]


def problem_of(found: FoundProblem) -> Problem:
    return Problem(found.message, Place(found.file, found.line, found.column), found.hint)


# what was found before


def _memory_path(project: Project) -> Path:
    return project.store().root / "memo" / "python"


def _recall(project: Project, stamp: str) -> Mapping[str, FoundFile]:
    try:
        memory = decode(_memory_path(project).read_bytes(), _Memory, "the memory of Python files")
    except (OSError, StoreError):
        return {}
    return memory.files if memory.stamp == stamp else {}


def _remember(project: Project, stamp: str, files: dict[str, FoundFile]) -> None:
    store = project.store()
    # A disk that does not take it costs time, and is no error.
    with contextlib.suppress(OSError):
        if not store.root.is_dir():
            return
        store.prepare()
        write_atomically(_memory_path(project), encode(_Memory(stamp, files)), store.temporary_folder)


def _stands(project: Project, found: FoundFile, digests: dict[str, str]) -> bool:
    """Say whether the file and what it imports are what they were."""
    for name, digest in found.files.items():
        if name not in digests:
            try:
                digests[name] = xxhash.xxh3_128_hexdigest((project.root / name).read_bytes())
            except OSError:
                return False
        if digests[name] != digest:
            return False
    return True


# finding out


def discover_files(root: Path, files: Iterable[str], patience_seconds: float = PATIENCE_SECONDS) -> list[FoundFile]:
    """Import files in a process of their own; gives one entry for each, in their order."""
    found: list[FoundFile] = []
    left = list(files)
    while left:
        batch = _Batch(root, left, patience_seconds)
        answered = batch.run()
        found += answered
        left = left[len(answered) :]
        if left:
            # The process ended, or was ended, in the midst of the next one.
            found.append(batch.failure(left[0]))
            left = left[1:]
    return found


class _Batch:
    """One discovery process, for as many files as it survives."""

    def __init__(self, root: Path, files: Sequence[str], patience_seconds: float) -> None:
        self._root = root
        self._files = files
        self._patience = patience_seconds
        self._trace = ""
        self._status = 0

    def run(self) -> list[FoundFile]:
        """What the process answered, from the first file on."""
        # As a rule what is in the files is remembered.
        import subprocess
        import tempfile

        reader, writer = os.pipe()
        process = None
        # A file without a name, so that nothing is left of it whoever is killed.
        with tempfile.TemporaryFile() as trace:
            try:
                process = subprocess.Popen(
                    [sys.executable, "-P", "-c", _BOOTSTRAP],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    pass_fds=(writer, trace.fileno()),
                    cwd=self._root,
                    start_new_session=True,
                )
                self._ask(process, writer, trace.fileno())
                os.close(writer)
                writer = -1
                found = self._listen(reader)
                # What wrote its last answer, or closed the pipe, is about to end.
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(timeout=2)
                return found
            finally:
                for opened in (reader, writer):
                    if opened >= 0:
                        os.close(opened)
                if process is not None:
                    self._status = _end(process)
                trace.seek(0)
                self._trace = trace.read().decode(errors="replace")

    def _ask(self, process: subprocess.Popen[bytes], answers: int, trace: int) -> None:
        request = Request(str(self._root), list(self._files), answers, trace, self._patience, secrets())
        search_path = "\n".join(os.path.abspath(entry) for entry in sys.path)
        assert process.stdin is not None
        with process.stdin:
            process.stdin.write(search_path.encode() + b"\0" + msgspec.json.encode(request))

    def _listen(self, reader: int) -> list[FoundFile]:
        import select

        found: list[FoundFile] = []
        received = b""
        # The process ends itself where a file takes too long; this is for one that cannot.
        grace = 15.0
        deadline = time.monotonic() + self._patience + grace
        while len(found) < len(self._files):
            ready, _, _ = select.select([reader], [], [], max(deadline - time.monotonic(), 0))
            data = os.read(reader, 1 << 20) if ready else b""
            if not data:
                break
            *lines, received = (received + data).split(b"\n")
            for line in lines:
                deadline = time.monotonic() + self._patience + grace
                if line.startswith(b"{"):
                    found.append(msgspec.json.decode(line, type=FoundFile))
        return found

    def failure(self, file: str) -> FoundFile:
        """What became of the file at which the process ended."""
        where, line = file, 0
        for path, number in _FRAME.findall(self._trace):
            if is_project_file(self._root, path):
                where, line = Path(path).relative_to(self._root).as_posix(), int(number)
                break
        hint = "importing a file must only define things; put work into functions"
        if self._trace.startswith("Timeout"):
            message = f"takes longer than {self._patience:g} seconds to import"
        elif self._status < 0:
            try:
                name = signal.Signals(-self._status).name
            except ValueError:
                name = f"signal {-self._status}"
            message = f"crashes Python when it is imported ({name})"
        else:
            message = f"ends the process when it is imported (exit code {self._status})"
        return FoundFile(file, problems=(FoundProblem(message, where, line, 0, hint),))


def _end(process: subprocess.Popen[bytes]) -> int:
    """End the process and all that it started; gives its exit code, where it ended by itself."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    return process.wait()
