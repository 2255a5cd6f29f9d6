"""What the benchmarks share: measuring ways side by side, and one table, one JSON file and one SVG plot of each.

- *way*: something that is measured; a callable that does it once and gives a :class:`Sample`.
- *series*: the samples of one way; its median is what counts, its least and greatest tell how quiet the machine was.
- *result*: one line of a table: what was measured, the median, and the target beside it.

A machine is never idle, and its speed changes. So ways that are compared are measured in turns, round after round, and
targets are about ratios wherever they can be. CPU seconds (user and system, of the whole tree of processes) stay
nearly the same on a loaded machine; wall seconds do not.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import json
import math
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from html import escape
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Sample:
    """What doing a way once took. ``peak_bytes`` is of the process itself; 0 where it was not measured."""

    wall_seconds: float
    cpu_seconds: float
    peak_bytes: int = 0


@dataclass(frozen=True)
class Series:
    """The samples of one way, in the order in which they were taken."""

    samples: tuple[Sample, ...]

    def values(self, name: str) -> list[float]:
        """``name`` is a field of Sample."""
        return [float(getattr(sample, name)) for sample in self.samples]

    def median(self, name: str = "wall_seconds") -> float:
        return statistics.median(self.values(name))

    def __str__(self) -> str:
        wall = self.values("wall_seconds")
        return f"{statistics.median(wall):.3f} s ({min(wall):.3f} to {max(wall):.3f})"


@dataclass(frozen=True)
class Result:
    """One line of a table. ``target``: at most that much, or at least where ``at_least``; None where there is none.

    ``low`` and ``high`` are the least and greatest of what ``value`` is the median of.
    """

    what: str
    value: float
    unit: str = "s"
    target: float | None = None
    at_least: bool = False
    low: float | None = None
    high: float | None = None
    note: str = ""

    @classmethod
    def of(cls, what: str, series: Series, name: str = "wall_seconds", *, unit: str = "s", **given: Any) -> Result:
        """The median of a series; seconds are shown as milliseconds for the unit ``ms``, bytes as ``MB``."""
        factor = {"ms": 1000.0, "MB": 1e-6}.get(unit, 1.0)
        values = [value * factor for value in series.values(name)]
        return cls(what, statistics.median(values), unit, low=min(values), high=max(values), **given)

    @classmethod
    def ratio(cls, what: str, over: Series, under: Series, name: str = "wall_seconds", **given: Any) -> Result:
        """The ratio of two medians, and those of the rounds' pairs."""
        pairs = [a / b for a, b in zip(over.values(name), under.values(name), strict=True)]
        return cls(what, over.median(name) / under.median(name), "×", low=min(pairs), high=max(pairs), **given)

    @property
    def is_met(self) -> bool | None:
        if self.target is None:
            return None
        return self.value >= self.target if self.at_least else self.value <= self.target


class Table:
    """The results of one benchmark, as one table."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.results: list[Result] = []

    def add(self, *results: Result) -> None:
        self.results += results

    def __str__(self) -> str:
        head = ("what", "measured", "from", "to", "target", "")
        lines = [head, *map(self._cells, self.results)]
        widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
        text = []
        for line in lines:
            cells = [line[0].ljust(widths[0]), *(cell.rjust(widths[i]) for i, cell in enumerate(line[1:5], 1)), line[5]]
            text.append("  ".join(cells).rstrip())
        rule = "-" * max(map(len, text))
        return "\n".join([self.title, rule, text[0], rule, *text[1:], rule])

    @staticmethod
    def _cells(result: Result) -> tuple[str, ...]:
        def cell(value: float | None) -> str:
            return "" if value is None else shown(value, result.unit)

        sign = "" if result.target is None else ("≥ " if result.at_least else "≤ ")
        verdict = {True: "met", False: "NOT MET", None: ""}[result.is_met]
        note = f"{verdict}  {result.note}" if result.note else verdict
        return (
            result.what,
            cell(result.value),
            cell(result.low),
            cell(result.high),
            sign + cell(result.target),
            note,
        )


@dataclass(frozen=True)
class Machine:
    """What was measured on, and with which versions."""

    processor: str
    cores: int
    memory_gigabytes: float
    system: str
    python: str
    commit: str
    date: str
    load: float
    packages: dict[str, str] = field(default_factory=dict)

    @classmethod
    def this(cls) -> Machine:
        names = ("seeknal", "duckdb", "msgspec", "click", "sqlglot", "pyarrow")
        return cls(
            _processor(),
            len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
            round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
            f"{platform.system()} {platform.release()}",
            platform.python_version(),
            _commit(),
            time.strftime("%Y-%m-%d", time.gmtime()),
            round(os.getloadavg()[0], 2),
            {name: version for name in names if (version := _version(name))},
        )

    def __str__(self) -> str:
        versions = ", ".join(f"{name} {version}" for name, version in self.packages.items())
        return (
            f"{self.processor}, {self.cores} cores, {self.memory_gigabytes} GB, {self.system}; "
            f"Python {self.python}, {versions}; load: {self.load}"
        )


def run_process(
    command: Sequence[str],
    *,
    cwd: Path | None = None,
    environment: Mapping[str, str] | None = None,
    memory: bool = False,
) -> Sample:
    """Run a whole process, with its output thrown away. Raises CalledProcessError where it fails.

    CPU seconds are those of the process and of all descendants that were waited for. The peak is the resident memory
    of the process itself, not of those that it starts; only with ``memory``, and only on Linux.
    """
    started = time.perf_counter()
    with subprocess.Popen(
        command, cwd=cwd, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env={**os.environ, **(environment or {})}
    ) as process:
        watcher = _PeakWatcher(process.pid)
        if memory:
            watcher.start()
        assert process.stderr is not None
        errors = process.stderr.read()
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        watcher.over.set()
    if process.returncode:
        sys.stderr.buffer.write(errors)
        raise subprocess.CalledProcessError(process.returncode, command)
    return Sample(wall, usage.ru_utime + usage.ru_stime, watcher.peak_bytes)


class _PeakWatcher(threading.Thread):
    """Looks at a process until it ends. What the system says afterwards (``ru_maxrss``) counts its children too."""

    def __init__(self, process: int) -> None:
        super().__init__(daemon=True)
        self.peak_bytes = 0
        self.over = threading.Event()
        self._file = Path(f"/proc/{process}/status")

    def run(self) -> None:
        while not self.over.wait(0.01):
            try:
                text = self._file.read_text(encoding="ascii")
            except OSError:
                return
            found = [line.split() for line in text.splitlines() if line.startswith("VmHWM:")]
            self.peak_bytes = max([self.peak_bytes, *(int(words[1]) * 1024 for words in found)])


def run_inside(function: Callable[[], object]) -> Sample:
    """Call a function in this process."""
    wall, cpu = time.perf_counter(), time.process_time()
    function()
    return Sample(time.perf_counter() - wall, time.process_time() - cpu)


def measure_alternating(ways: Mapping[str, Callable[[], Sample]], rounds: int, warm_up: int = 1) -> dict[str, Series]:
    """Measure each way once in each round, in turns. The first ``warm_up`` rounds do not count."""
    samples: dict[str, list[Sample]] = {name: [] for name in ways}
    for turn in range(warm_up + rounds):
        for name, way in ways.items():
            sample = way()
            if turn >= warm_up:
                samples[name].append(sample)
    return {name: Series(tuple(found)) for name, found in samples.items()}


def options(description: str | None, *, rounds: int) -> argparse.ArgumentParser:
    """The options that all benchmarks have: --seeknal, --rounds, --out."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeknal", default="seeknal", help="the command to measure [default: seeknal]")
    parser.add_argument(
        "--rounds", type=int, default=rounds, help=f"how often each way is measured [default: {rounds}]"
    )
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="write NAME.json and NAME.svg there as well")
    return parser


def with_projects(parser: argparse.ArgumentParser) -> None:
    """Add --projects, the option of benchmarks that build projects."""
    parser.add_argument(
        "--projects",
        type=Path,
        metavar="FOLDER",
        help="build projects there and leave them, or use those that are there already",
    )


@contextlib.contextmanager
def projects_folder(given: Path | None, name: str = "") -> Iterator[Path]:
    """The folder for projects: that of ``--projects``, or one that is removed in the end.

    ``name``: that of the folder in it whose projects are no other benchmark's.
    """
    if given is not None:
        own = given.resolve() / name
        own.mkdir(parents=True, exist_ok=True)
        yield own
        return
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        yield Path(folder)


def seeknal_command(given: str) -> list[str]:
    """The command line that starts Seeknal: ``given`` where it is a command, else this checkout with this Python."""
    found = shutil.which(given)
    return [str(Path(found).absolute())] if found else [sys.executable, "-m", "seeknal.cli.main"]


def checkout_environment() -> dict[str, str]:
    """Environment variables with which a Python finds this checkout's own code, compiled as an installed one is."""
    return {
        "PYTHONPATH": os.pathsep.join(str(ROOT / name) for name in ("engine", "store", "cli")),
        # Whatever the surroundings say: compiling the code anew in each process would be most of what is measured.
        "PYTHONDONTWRITEBYTECODE": "",
        "PYTHONPYCACHEPREFIX": str(ROOT / ".benchmarks" / "bytecode"),
        "NO_COLOR": "1",
    }


def finish(name: str, table: Table, out: Path | None, series: Mapping[str, Series] | None = None) -> None:
    """Print a benchmark's table; with ``out``, write its JSON and its plot too."""
    machine = Machine.this()
    print(table)
    print(machine)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        write_json(out / f"{name}.json", table, machine, series or {})
        write_svg(out / f"{name}.svg", table, str(machine))


def write_json(file: Path, table: Table, machine: Machine, series: Mapping[str, Series]) -> None:
    """Write the results, every sample that they come from, and the machine."""
    document = {
        "benchmark": table.title,
        "machine": asdict(machine),
        "results": [{**asdict(result), "met": result.is_met} for result in table.results],
        "samples": {name: [asdict(sample) for sample in found.samples] for name, found in series.items()},
    }
    file.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


_WIDTH, _LEFT, _BAR, _ROW, _TOP = 900, 330, 380, 26, 44


def write_svg(file: Path, table: Table, footer: str = "") -> None:
    """Draw the results as bars, with a line from the least to the greatest and a red mark at the target.

    Each unit has a scale of its own, linear from zero.
    """
    parts: list[str] = []
    y = _TOP
    for unit in dict.fromkeys(result.unit for result in table.results):
        group = [result for result in table.results if result.unit == unit]
        scale = _BAR / _round_up(max(max(r.value, r.target or 0.0, r.high or 0.0) for r in group))
        for result in group:
            parts += _bar(result, y, scale)
            y += _ROW
        y += _ROW // 2
    height = y + 26
    text = "".join(parts)
    file.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}" '
        'font-family="system-ui, sans-serif" font-size="12">\n'
        f'<rect width="{_WIDTH}" height="{height}" fill="#ffffff"/>\n'
        f'<text x="12" y="24" font-size="15" font-weight="600" fill="#1f2328">{escape(table.title)}</text>\n'
        f'{text}<text x="12" y="{height - 10}" font-size="9" fill="#656d76">{escape(footer)}</text>\n</svg>\n',
        encoding="utf-8",
    )


def _bar(result: Result, y: int, scale: float) -> Iterable[str]:
    middle = y + _ROW / 2 - 2
    width = max(result.value * scale, 1)
    colour = {True: "#2da44e", False: "#cf222e", None: "#8c959f"}[result.is_met]
    yield f'<text x="{_LEFT - 10}" y="{middle + 4:.1f}" text-anchor="end" fill="#1f2328">{escape(result.what)}</text>\n'
    yield f'<rect x="{_LEFT}" y="{y}" width="{width:.1f}" height="{_ROW - 8}" fill="{colour}" fill-opacity="0.75"/>\n'
    right = width
    if result.low is not None and result.high is not None:
        low, right = _LEFT + result.low * scale, max(width, result.high * scale)
        yield f'<path d="M{low:.1f} {middle - 3:.1f}H{_LEFT + result.high * scale:.1f}" stroke="#1f2328"/>\n'
    label = shown(result.value, result.unit)
    if result.target is not None:
        x = _LEFT + result.target * scale
        yield f'<path d="M{x:.1f} {y - 3}V{y + _ROW - 5}" stroke="#cf222e" stroke-width="2" stroke-dasharray="3 2"/>\n'
        right = max(right, result.target * scale)
        label += f" (target {'≥' if result.at_least else '≤'} {_number(result.target)})"
    yield f'<text x="{_LEFT + right + 8:.1f}" y="{middle + 4:.1f}" fill="#1f2328">{escape(label)}</text>\n'


def _round_up(value: float) -> float:
    """The next number of one digit and zeros."""
    if value <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return math.ceil(value / power) * power


def shown(value: float, unit: str) -> str:
    """A value for people; what is counted has no decimals."""
    return f"{value:,.0f} {unit}" if unit == "files" else f"{_number(value)} {unit}"


def _number(value: float) -> str:
    """Three significant digits, never as a power of ten."""
    if value == 0:
        return "0"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:,.{min(digits, 4)}f}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _commit() -> str:
    found = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, encoding="utf-8", check=False
    )
    return found.stdout.strip()


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""
