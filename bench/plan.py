"""How long `seeknal plan` takes after one edit: whole processes, and beside that a plan that remembers nothing.

    python bench/plan.py [--seeknal PATH] [--rounds 7] [--out FOLDER] [--nodes 100 1000 10000] [--projects FOLDER]

Each round edits another of the project's last transforms, so that no answer of an earlier round is of use.
"""

from __future__ import annotations

import itertools
import shutil
import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from generate import built, edit
from report import (
    Result,
    Sample,
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

TARGETS = {1000: 0.5}


def main() -> None:
    parser = options(__doc__, rounds=7)
    parser.add_argument("--nodes", type=int, nargs="+", default=[100, 1000, 10_000])
    parser.add_argument("--cold", action="store_true", help="measure plans that remember nothing as well")
    with_projects(parser)
    given = parser.parse_args()
    seeknal = seeknal_command(given.seeknal)
    environment = checkout_environment()
    numbers = itertools.count(1)

    def plan(root: Path, nodes: int, *, cold: bool) -> Sample:
        edit(root, nodes - 2 - next(numbers) % 5, 1_000_000 + next(numbers))
        if cold:
            shutil.rmtree(root / "target/store/memo")
        return run_process([*seeknal, "plan", "dev"], cwd=root, environment=environment)

    with projects_folder(given.projects) as folder:
        projects = {nodes: built(folder / str(nodes), nodes, seeknal, environment) for nodes in given.nodes}
        ways = {f"{nodes:,} nodes": partial(plan, root, nodes, cold=False) for nodes, root in projects.items()}
        measured = measure_alternating(ways, given.rounds)
        if given.cold:
            cold = {f"{nodes:,} nodes, cold": partial(plan, root, nodes, cold=True) for nodes, root in projects.items()}
            measured |= measure_alternating(cold, max(1, given.rounds // 3), warm_up=0)
    table = Table("A plan after one edit")
    for nodes in given.nodes:
        for name in (f"{nodes:,} nodes", f"{nodes:,} nodes, cold"):
            if name in measured:
                warm = not name.endswith("cold")
                table.add(Result.of(name, measured[name], target=TARGETS.get(nodes) if warm else None))
                table.add(Result.of(f"{name}, CPU", measured[name], "cpu_seconds"))
    finish("plan", table, given.out, measured)


if __name__ == "__main__":
    main()
