"""The targets, with what was measured beside them, from the JSON files of the benchmarks.

    python bench/summary.py [--results .benchmarks] [--write] [--pages docs]

Prints one table. With ``--write`` it also fills `docs/performance.md`: what stands between ``<!-- measured -->`` and
``<!-- end of measured -->`` is made anew, and so are the profile and the comparison, as far as they were measured.
Plots are copied to `docs/plots/`.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from report import ROOT, Result, Table, shown

#: The benchmarks in the order in which they are shown; each wrote NAME.json and NAME.svg.
BENCHMARKS = ("startup", "noop", "plan", "promote", "floor", "parallel_vs_sequential", "scheduler", "scale")
#: Those that have a place of their own on the page.
APART = ("phases", "peers")


@dataclass(frozen=True)
class Target:
    """A target, and the results that are held to it: those of ``benchmark`` with these words, each by its own line."""

    what: str
    benchmark: str
    results: tuple[str, ...]


ROWS = "10,000,000 rows, 4 transforms"
TARGET_LIST = (
    Target(
        '`seeknal --help` over `python -c "import click"`, CPU time', "startup", ("--help over import click (CPU)",)
    ),
    Target(
        "run with nothing changed, 1,000 nodes, whole process, scaled to a machine where `python -c pass` takes 15 ms",
        "noop",
        ("1,000 nodes, were the start 15 ms",),
    ),
    Target("the same, 10,000 nodes", "noop", ("10,000 nodes, were the start 15 ms",)),
    Target("plan after one edit in 1,000 nodes", "plan", ("1,000 nodes",)),
    Target("1,000 light nodes, sequential, cold, over the plain loop", "floor", ("1000 nodes: sequential over plain",)),
    Target("the same with two workers, over sequential", "floor", ("1000 nodes: 2 workers over sequential",)),
    Target(
        "16 independent CPU-bound nodes: speed-up by two workers, as a share of that by two plain processes",
        "parallel_vs_sequential",
        ("heavy: ours over theirs",),
    ),
    Target(
        "the 8-node tutorial with two workers, over sequential",
        "parallel_vs_sequential",
        ("tutorial: 2 workers, more than sequential",),
    ),
    Target("promote inside the process, 8 nodes", "promote", ("8 nodes, inside the process",)),
    Target("promote inside the process, 10,000 nodes", "promote", ("10,000 nodes, inside the process",)),
    Target("promote inside the process, 10,000 nodes over 8", "promote", ("10,000 over 8 nodes",)),
    Target("10 million rows through 4 transforms, time over the plain loop", "floor", (f"{ROWS}: time over plain",)),
    Target("the same, peak memory", "floor", (f"{ROWS}: peak over plain",)),
    Target(
        "scheduler alone, no-op nodes, with messages",
        "scheduler",
        ("layers of 50, with messages", "all at once, with messages"),
    ),
    Target(
        "memory of the process that runs 10,000 nodes, the greatest of all commands",
        "scale",
        (
            "10,000 nodes, first parallel run: memory",
            "10,000 nodes, nothing to do: memory",
            "10,000 nodes, plan after one edit: memory",
            "10,000 nodes, parallel run of the edit: memory",
            "10,000 nodes, promotion: memory",
        ),
    ),
)


class Measured:
    """What benchmarks wrote into a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._documents = {
            name: json.loads(file.read_bytes())
            for name in (*BENCHMARKS, *APART)
            if (file := folder / f"{name}.json").exists()
        }

    def names(self) -> list[str]:
        """What was measured, without what has a place of its own."""
        return [name for name in self._documents if name not in APART]

    def has(self, name: str) -> bool:
        return name in self._documents

    def title(self, name: str) -> str:
        return str(self._documents[name]["benchmark"])

    def results(self, name: str) -> list[Result]:
        """The lines of a benchmark's table; none where it was not run."""
        known = [field.name for field in fields(Result)]
        found = self._documents.get(name, {}).get("results", ())
        return [Result(**{key: result[key] for key in known}) for result in found]

    def machine(self, *names: str) -> str:
        """What these were measured on, as a sentence: the machine, as the last of them saw it."""
        machines = [self._documents[name]["machine"] for name in names]
        last = max(machines, key=lambda machine: str(machine["date"]))
        commits = ", ".join(dict.fromkeys(machine["commit"] for machine in machines))
        versions = ", ".join(f"{name} {version}" for name, version in last["packages"].items() if name != "seeknal")
        return (
            f"Measured on {last['date']} at {commits}: {last['processor']}, {last['cores']} cores, "
            f"{last['memory_gigabytes']} GB of memory, {last['system']}; Python {last['python']}, {versions}."
        )


def targets(measured: Measured) -> Iterator[tuple[Target, Result | None]]:
    """Each target with its result: of several, the one that is worst off. None where there is none."""
    for target in TARGET_LIST:
        found = [result for result in measured.results(target.benchmark) if result.what in target.results]
        worst = max(found, key=lambda result: -result.value if result.at_least else result.value, default=None)
        yield target, worst if len(found) == len(target.results) else None


def printed(measured: Measured) -> str:
    """The targets as a table for a terminal."""
    table = Table("Targets")
    missing = []
    for target, result in targets(measured):
        what = target.what.replace("`", "")
        if result is None:
            missing.append(what)
        else:
            table.add(replace(result, what=what, note=""))
    lines = [str(table), *(f"not measured: {what}" for what in missing)]
    met = [result.is_met for result in table.results]
    return "\n".join([*lines, f"{sum(map(bool, met))} of {len(TARGET_LIST)} targets met."])


def page(measured: Measured) -> str:
    """The targets, the machine and all plots, as Markdown."""
    lines = [
        measured.machine(*measured.names()),
        "",
        "| what | target | measured | from | to | |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for target, result in targets(measured):
        if result is None:
            lines.append(f"| {target.what} | | not measured | | | |")
            continue
        sign = "≥" if result.at_least else "≤"
        spread = [shown(value, result.unit) if value is not None else "" for value in (result.low, result.high)]
        cells = [
            target.what,
            f"{sign} {shown(result.target or 0, result.unit)}",
            shown(result.value, result.unit),
            *spread,
            "met" if result.is_met else "**missed**",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    for name in measured.names():
        lines += ["", f"![{measured.title(name)}](plots/{name}.svg)"]
    return "\n".join(lines)


def apart_page(measured: Measured, name: str) -> str:
    """One benchmark's table, machine and plot, as Markdown."""
    lines = [
        f"{measured.title(name)}. {measured.machine(name)}",
        "",
        "| what | median | from | to | |",
        "| --- | --- | --- | --- | --- |",
    ]
    for result in measured.results(name):
        values = (result.value, result.low, result.high)
        cells = [shown(value, result.unit) if value is not None else "" for value in values]
        lines.append(f"| {' | '.join([result.what, *cells, result.note])} |")
    return "\n".join([*lines, "", f"![{measured.title(name)}](plots/{name}.svg)"])


def write(measured: Measured, pages: Path) -> None:
    """Fill `performance.md` and copy the plots. What was not measured leaves its part of the page as it is."""
    file = pages / "performance.md"
    text = file.read_text(encoding="utf-8")
    if measured.names():
        text = between(text, "measured", page(measured))
    apart = [name for name in APART if measured.has(name)]
    for name in apart:
        text = between(text, name, apart_page(measured, name))
    file.write_text(text, encoding="utf-8")
    (pages / "plots").mkdir(exist_ok=True)
    for name in (*measured.names(), *apart):
        shutil.copyfile(measured.folder / f"{name}.svg", pages / "plots" / f"{name}.svg")


def between(text: str, mark: str, content: str) -> str:
    """A page with what stands between two comments replaced. Raises ValueError where they are not there."""
    pattern = re.compile(rf"(<!-- {mark} -->\n).*?(<!-- end of {mark} -->)", re.DOTALL)
    filled, count = pattern.subn(lambda match: f"{match[1]}\n{content}\n\n{match[2]}", text)
    if count != 1:
        raise ValueError(f"the page has {count} places for what is {mark}, not one")
    return filled


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=ROOT / ".benchmarks", help="where the JSON files are")
    parser.add_argument("--write", action="store_true", help="fill performance.md as well")
    parser.add_argument("--pages", type=Path, default=ROOT / "docs", help="the folder of performance.md")
    given = parser.parse_args()
    measured = Measured(given.results)
    if given.write:
        write(measured, given.pages)
    print(printed(measured))


if __name__ == "__main__":
    main()
