"""Cold runs: a project's runs from nothing, and the same work as a plain loop of COPYs.

- *cold*: nothing is in the store. What a run before left is moved aside, and removed at the end of everything: a disk
  that has just removed thousands of files may take its time to make new ones (ext4 does not give their inodes out again
  for a while, and looks at each).
- *tree of processes*: the command and all that it starts, also what outlives it.
"""

from __future__ import annotations

import ctypes
import itertools
import json
import os
import re
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from report import ROOT, Sample, checkout_environment

_PR_SET_CHILD_SUBREAPER = 36
_SAMPLING_SECONDS = 0.02
_NAMED = re.compile(r"\b(source|transform)\.(\w+)")


class ColdProject:
    """A generated project below ``root``, and the statements that do the same in a plain loop.

    ``aside`` is a folder on the same disk for what earlier runs left.
    """

    def __init__(self, root: Path, aside: Path) -> None:
        self.root = root
        self._aside = aside
        self._numbers = itertools.count()
        self._plain = root / "plain"
        self._statements = root / "statements.json"
        adopt_orphans()

    def run(self, seeknal: Sequence[str], *options: str, memory: bool = False) -> Sample:
        """Run the project from nothing."""
        self._clear()
        return run_tree([*seeknal, "run", *options], cwd=self.root, memory=memory)

    def loop(self, *, processes: int = 1, threads: int | None = None, memory: bool = False) -> Sample:
        """Do the same in plain loops, each with every n-th statement; more than one need independent nodes."""
        self._clear()
        self._plain.mkdir()
        statements = plain_statements(self.root, self._plain)
        files = []
        for number in range(processes):
            files.append(self.root / f"statements-{number}.json")
            files[-1].write_text(json.dumps(statements[number::processes]), encoding="utf-8")
        script = str(Path(__file__).with_name("plain_loop.py"))
        threads_said = () if threads is None else ("--threads", str(threads))
        commands = [[sys.executable, script, str(file), *threads_said] for file in files]
        return run_tree(*commands, cwd=self.root, memory=memory)

    def _clear(self) -> None:
        self._aside.mkdir(parents=True, exist_ok=True)
        for name in ("target", "plain"):
            if (self.root / name).exists():
                os.rename(self.root / name, self._aside / f"{self.root.name}-{next(self._numbers)}")


def plain_statements(root: Path, out: Path) -> list[str]:
    """The COPY of each node of a generated project, inputs first; sources are read as the project says."""
    import yaml

    queries: dict[str, str] = {}
    for file in sorted((root / "seeknal").glob("*.yml")):
        node = yaml.safe_load(file.read_text(encoding="utf-8"))
        if node["kind"] == "source":
            path = root / node["table"]
            columns = ", ".join(f"{c['name']}::{c['data_type']} AS {c['name']}" for c in node.get("schema", ()))
            reader = "read_csv" if node["source"] == "csv" else "read_parquet"
            queries[f"source.{node['name']}"] = f"SELECT {columns or '*'} FROM {reader}('{path}')"
        else:
            queries[f"transform.{node['name']}"] = node["transform"].strip()
    order: dict[str, None] = {}

    def visit(node_id: str) -> None:
        if node_id not in order:
            for kind, name in _NAMED.findall(queries[node_id]) if node_id.startswith("transform") else ():
                visit(f"{kind}.{name}")
            order[node_id] = None

    sys.setrecursionlimit(100_000)
    for node_id in queries:
        visit(node_id)

    def file_of(node_id: str) -> str:
        return f"'{out / node_id}.parquet'"

    def filled_in(node_id: str) -> str:
        if node_id.startswith("source"):
            return queries[node_id]
        return _NAMED.sub(lambda match: f"{file_of(match[0])}", queries[node_id])

    return [f"COPY ({filled_in(node_id)}) TO {file_of(node_id)} (FORMAT parquet)" for node_id in order]


def adopt_orphans() -> None:
    """Become the parent of what outlives a command, so that its CPU time counts. Linux only; elsewhere it does not."""
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def run_tree(
    *commands: Sequence[str], cwd: Path, memory: bool = False, environment: Mapping[str, str] | None = None
) -> Sample:
    """Run commands side by side to their end, and to the end of all that they start.

    The peak is the most that all of them used together (proportional set size), looked at every 20 ms; only with
    ``memory``, because looking takes time. Raises CalledProcessError.
    """
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = {**os.environ, **checkout_environment(), **(environment or {})}
    started = time.perf_counter()
    running = [
        subprocess.Popen(command, cwd=cwd, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        for command in commands
    ]
    peak = [0]
    over = threading.Event()
    watcher = threading.Thread(target=_watch, args=(peak, over), daemon=True)
    if memory:
        watcher.start()
    for command, process in zip(commands, running, strict=True):
        _, errors = process.communicate()
        if process.returncode:
            sys.stderr.buffer.write(errors)
            raise subprocess.CalledProcessError(process.returncode, command)
    wall = time.perf_counter() - started
    over.set()
    if memory:
        watcher.join()
    _bury()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Sample(wall, cpu, peak[0])


def _bury() -> None:
    """Wait for the orphans that this process adopted."""
    try:
        while True:
            os.waitpid(-1, 0)
    except ChildProcessError:
        return


def _watch(peak: list[int], over: threading.Event) -> None:
    while not over.wait(_SAMPLING_SECONDS):
        peak[0] = max(peak[0], sum(map(_resident_bytes, _descendants(os.getpid()))))


def _descendants(process: int) -> Iterable[int]:
    try:
        for task in os.listdir(f"/proc/{process}/task"):
            for child in Path(f"/proc/{process}/task/{task}/children").read_text().split():
                yield int(child)
                yield from _descendants(int(child))
    except OSError:
        return


def _resident_bytes(process: int) -> int:
    try:
        for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0


__all__ = ["ROOT", "ColdProject", "adopt_orphans", "plain_statements", "run_tree"]
