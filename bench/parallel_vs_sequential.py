"""Parallel runs over sequential ones, and both over plain processes that do the same.

    python bench/parallel_vs_sequential.py [--rounds 3] [--workers 1 2 4 8] [--cases NAME …] [--out FOLDER]

Whole processes, from nothing, each way once in every round. Cases:

- ``tutorial``: the eight nodes of the tutorial. What starting workers costs where they are of no use.
- ``heavy``: 16 independent nodes that only compute. What the cores give, beside what they give two plain processes,
  each of one thread with every second node. Neither reads anything, so nothing but the cores is in their way.
- ``wide``: 200 light nodes that read one source. ``layered``: 60 light nodes in layers. What a node costs beside its
  query.
"""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from cold import ColdProject
from generate import generate
from report import (
    Result,
    Series,
    Table,
    checkout_environment,
    finish,
    measure_alternating,
    options,
    projects_folder,
    seeknal_command,
    with_projects,
)

HEAVY = """kind: transform
name: heavy_{number}
transform: |
  SELECT sum(hash(a.range * 31 + b.range + {number}) % 1000) AS checksum
  FROM range({rows}) AS a, range({rows}) AS b
"""


def heavy_project(root: Path, nodes: int, rows: int) -> None:
    """A project of independent nodes that do nothing but compute."""
    (root / "seeknal").mkdir(parents=True)
    (root / "seeknal_project.yml").write_text(f"name: heavy_{nodes}\n", encoding="utf-8")
    for number in range(nodes):
        text = HEAVY.format(number=number, rows=rows)
        (root / f"seeknal/heavy_{number}.yml").write_text(text, encoding="utf-8")


def wide_project(root: Path, nodes: int) -> None:
    """A project of a small source, and transforms that read nothing else."""
    generate(root, 1)
    for number in range(nodes - 1):
        sql = f"SELECT id, kind, amount + {number} AS amount FROM source.events"
        text = f"kind: transform\nname: wide_{number}\ntransform: {sql}\n"
        (root / f"seeknal/wide_{number}.yml").write_text(text, encoding="utf-8")


def tutorial_project(root: Path, seeknal: list[str]) -> None:
    """The project that the tutorial is about."""
    command = [*seeknal, "init", "--path", str(root), "--name", "tutorial", "--example", "environment-management"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env={**os.environ, **checkout_environment()})


def results_of(case: str, found: dict[str, Series]) -> list[Result]:
    """What a case says, with its targets."""
    sequential = found["sequential"]
    results = [Result.of(f"{case}: {name}", series) for name, series in found.items()]
    if case == "tutorial":
        more = found["2 workers"].median() - sequential.median()
        results.append(Result(f"{case}: 2 workers, more than sequential", more, target=0.25))
    elif case == "heavy":
        ours, plain = found["2 workers"], found["2 plain processes"]
        gain = sequential.median() / ours.median()
        floor = found["1 plain process"].median() / plain.median()
        results += [
            Result(f"{case}: gain of 2 workers", gain, "×"),
            Result(f"{case}: gain of 2 plain processes", floor, "×"),
            Result(f"{case}: ours over theirs", 100 * gain / floor, "%", target=95, at_least=True),
        ]
    else:
        results.append(Result.ratio(f"{case}: 2 workers over sequential", found["2 workers"], sequential))
    return results


def main() -> None:
    parser = options(__doc__, rounds=3)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4, 8], help="2 is always among them")
    parser.add_argument("--cases", nargs="+", default=["tutorial", "heavy", "wide", "layered"])
    parser.add_argument("--heavy-rows", type=int, default=6000, help="how much a heavy node computes: its square")
    with_projects(parser)
    given = parser.parse_args()
    seeknal = seeknal_command(given.seeknal)
    make = {
        "tutorial": lambda root: tutorial_project(root, seeknal),
        "heavy": lambda root: heavy_project(root, 16, given.heavy_rows),
        "wide": lambda root: wide_project(root, 200),
        "layered": lambda root: generate(root, 60),
    }
    table = Table("Parallel runs over sequential ones (whole processes, from nothing)")
    series: dict[str, Series] = {}
    with projects_folder(given.projects, "parallel") as folder:
        for case in given.cases:
            root = folder / case
            make[case](root)
            project = ColdProject(root, folder / "aside")
            ways = {"sequential": functools.partial(project.run, seeknal)}
            for workers in sorted({2, *given.workers}):
                name = f"{workers} worker{'s' if workers > 1 else ''}"
                ways[name] = functools.partial(project.run, seeknal, "--parallel", "--max-workers", str(workers))
            if case == "heavy":
                ways["1 plain process"] = functools.partial(project.loop, threads=1)
                ways["2 plain processes"] = functools.partial(project.loop, processes=2, threads=1)
            found = measure_alternating(ways, given.rounds, warm_up=0)
            table.add(*results_of(case, found))
            series |= {f"{case}: {name}": samples for name, samples in found.items()}
    finish("parallel_vs_sequential", table, given.out, series)


if __name__ == "__main__":
    main()
