"""A project in a folder, driven as a user drives it: files are written, `seeknal` is called, what it says is read.

- *answer*: what a command said on stdout and stderr, and its exit code.
- *state*: every file and link below a folder with what it holds, to compare two moments.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seeknal.cli.main import main
from seeknal.workflow.worker import close_workbenches

# The command as it was installed beside the interpreter that runs the tests; the module where it was not.
SEEKNAL = shutil.which("seeknal", path=str(Path(sys.executable).parent))
COMMAND = [SEEKNAL] if SEEKNAL else [sys.executable, "-m", "seeknal.cli.main"]

EXAMPLE = "environment-management"


@dataclass(frozen=True)
class Answer:
    """What a command said. Its text is that of both streams, stdout first."""

    code: int
    stdout: str
    stderr: str

    @property
    def text(self) -> str:
        return self.stdout + self.stderr

    @property
    def document(self) -> Any:
        """The one JSON document on stdout; fails where stdout holds anything else."""
        return json.loads(self.stdout)

    @property
    def errors(self) -> list[str]:
        """The lines on stderr that begin with ``error:``, without that word."""
        return [line.removeprefix("error: ") for line in self.stderr.splitlines() if line.startswith("error: ")]


class Project:
    """A project's folder. ``seeknal`` runs in this process, ``process`` and ``shell`` in processes of their own.

    ``keep_connections``: those that nodes are executed on stay open from one call to the next, which saves time.
    """

    def __init__(self, root: Path, *, keep_connections: bool = False) -> None:
        self.root = root
        self._keep_connections = keep_connections
        root.mkdir(parents=True, exist_ok=True)

    # files

    def write(self, path: str, text: str | bytes) -> Path:
        """Write a file below the project, and the folders it needs."""
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(text, bytes):
            file.write_bytes(text)
        else:
            file.write_text(text, encoding="utf-8")
        return file

    def read(self, path: str) -> str:
        return (self.root / path).read_text(encoding="utf-8")

    def replace(self, path: str, old: str, new: str) -> None:
        """Replace a text that the file must hold."""
        text = self.read(path)
        assert old in text, f"{path} does not hold {old!r}"
        self.write(path, text.replace(old, new))

    def json(self, path: str) -> Any:
        return json.loads(self.read(path))

    def state(self, folder: str = "target") -> dict[str, str]:
        """Every file below a folder with its digest, every link with where it leads.

        Left out is what is remembered only to be faster, and the locks: neither says anything about the project.
        """
        found: dict[str, str] = {}
        root = self.root / folder
        for path in sorted(root.rglob("*")):
            name = path.relative_to(root).as_posix()
            if {"memo", "locks"} & {*path.parts}:
                continue
            if path.is_symlink():
                found[name] = f"-> {os.readlink(path)}"
            elif path.is_file():
                found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
        return found

    def kept_state(self) -> dict[str, str]:
        """The state of ``target`` without what a run that fails may add: finished outputs and its own record."""
        free = ("store/blobs/", "store/actions/", "runs/")
        return {name: held for name, held in self.state().items() if not name.startswith(free)}

    # commands

    def seeknal(self, *arguments: str) -> Answer:
        """Call the command in this process, in the project's folder."""
        stdout, stderr = _stream(), _stream()
        code: Any = 0
        with contextlib.chdir(self.root), contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
            try:
                main(list(arguments))
            except SystemExit as exit_:
                code = exit_.code
            finally:
                if not self._keep_connections:
                    close_workbenches()
        assert isinstance(code, int), code
        return Answer(code, _text(stdout), _text(stderr))

    def ok(self, *arguments: str) -> Answer:
        """Call the command, which must succeed."""
        answer = self.seeknal(*arguments)
        assert answer.code == 0, f"seeknal {' '.join(arguments)}: exit {answer.code}\n{answer.text}"
        return answer

    def type_in(self, lines: str) -> Answer:
        """Call, in this process, the commands that stand in lines of a shell, up to the first that fails."""
        stdout = stderr = ""
        code = 0
        for line in lines.splitlines():
            words = shlex.split(line, comments=True)
            if words and not code:
                assert words[0] == "seeknal", line
                answer = self.seeknal(*words[1:])
                code, stdout, stderr = answer.code, stdout + answer.stdout, stderr + answer.stderr
        return Answer(code, stdout, stderr)

    def process(self, *arguments: str, environment: Mapping[str, str] | None = None) -> Answer:
        """Call the command as a process with pipes, stdin not a terminal."""
        done = subprocess.run(
            [*COMMAND, *arguments],
            cwd=self.root,
            env={**os.environ, **(environment or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=120,
        )
        return Answer(done.returncode, done.stdout.decode(), done.stderr.decode())

    def shell(self, script: str) -> Answer:
        """Run lines of a shell, with ``seeknal`` and ``python`` on the path; stops at the first that fails."""
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
        done = subprocess.run(
            ["bash", "-e", "-c", script],
            cwd=self.root,
            env={**os.environ, "PATH": path, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
        )
        return Answer(done.returncode, done.stdout, done.stderr)

    # Python

    def script(self, text: str) -> Answer:
        """Save a script in the project's folder and run it as a process."""
        file = self.write("script.py", text)
        done = subprocess.run(
            [sys.executable, str(file)],
            cwd=self.root,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
        )
        return Answer(done.returncode, done.stdout, done.stderr)

    def python(self, snippet: str, **names: Any) -> dict[str, Any]:
        """Execute a snippet in this process, in the project's folder; gives its names, and what it printed."""
        stdout = _stream()
        with contextlib.chdir(self.root), contextlib.redirect_stdout(stdout):
            try:
                exec(compile(snippet, "snippet", "exec"), names)
            finally:
                close_workbenches()
        return {**names, "printed": _text(stdout)}

    # what a user asks the results

    def rows(self, node_id: str, environment: str | None = None) -> list[dict[str, Any]]:
        """The rows of a node's table in production or an environment, read from the file that a user would open."""
        import pyarrow.parquet

        kind, _, name = node_id.partition(".")
        target = self.root / "target"
        folder = target / "environments" / environment if environment else target
        rows: list[dict[str, Any]] = pyarrow.parquet.read_table(folder / "cache" / kind / f"{name}.parquet").to_pylist()
        return rows

    def ref(self, environment: str = "prod") -> str | None:
        """The digest that an environment's ref holds."""
        try:
            return self.read(f"target/store/refs/{environment}").strip()
        except FileNotFoundError:
            return None


def example(root: Path) -> Project:
    """Make the example project of eight nodes in a folder."""
    root.mkdir(parents=True, exist_ok=True)
    project = Project(root)
    project.ok("init", "--path", str(root), "--name", "shop", "--example", EXAMPLE)
    return project


def _stream() -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True)


def _text(stream: io.TextIOWrapper) -> str:
    stream.flush()
    buffer = stream.buffer
    assert isinstance(buffer, io.BytesIO)
    return buffer.getvalue().decode()
