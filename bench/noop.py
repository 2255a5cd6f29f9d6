"""How long a run takes with nothing to do: whole processes, beside `python -c pass`.

    python bench/noop.py [--seeknal PATH] [--rounds 9] [--out FOLDER] [--nodes 100 1000 10000] [--projects FOLDER]

Projects are built first (cold, in parallel), which takes most of the script's time.
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from generate import built
from report import (
    Result,
    Table,
    checkout_environment,
    finish,
    measure_alternating,
    options,
    projects_folder,
    run_process,
    seeknal_command,
    with_projects,
)

# Seconds, for a whole process on a machine where `python -c pass` takes 0.015.
TARGETS = {1000: 0.25, 10_000: 1.0}
USUAL_START_SECONDS = 0.015


def main() -> None:
    parser = options(__doc__, rounds=9)
    parser.add_argument("--nodes", type=int, nargs="+", default=[100, 1000, 10_000])
    with_projects(parser)
    given = parser.parse_args()
    seeknal = seeknal_command(given.seeknal)
    with projects_folder(given.projects) as folder:
        projects = {
            number: built(folder / str(number), number, seeknal, checkout_environment()) for number in given.nodes
        }
        run = partial(run_process, [*seeknal, "run"], environment=checkout_environment())
        start = partial(run_process, [sys.executable, "-c", "pass"])
        ways = {number: partial(run, cwd=root) for number, root in projects.items()}
        measured = measure_alternating(
            {"start": start, **{str(number): way for number, way in ways.items()}}, given.rounds
        )
    table = Table("A run with nothing to do")
    table.add(Result.of("python -c pass", measured["start"], unit="ms"))
    slowness = measured["start"].median() / USUAL_START_SECONDS
    for number in given.nodes:
        series, target = measured[str(number)], TARGETS.get(number)
        table.add(Result.of(f"{number:,} nodes", series, target=target))
        table.add(Result.of(f"{number:,} nodes, CPU", series, "cpu_seconds"))
        if target is not None:
            said = series.median() / slowness
            table.add(Result(f"{number:,} nodes, were the start 15 ms", said, target=target))
    finish("noop", table, given.out, measured)


if __name__ == "__main__":
    main()
