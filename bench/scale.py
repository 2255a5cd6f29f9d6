"""A project of 10,000 nodes: each command's time, and the most memory that its own process holds.

    python bench/scale.py [--seeknal PATH] [--rounds 3] [--out FOLDER] [--nodes 10000] [--projects FOLDER]

The first run, with two workers, is done once. Workers are processes of their own and do not count. After it each round
is a run with nothing to do, an edit, a plan and a parallel run in an environment, a promotion, and the way back.
"""

from __future__ import annotations

import shutil
import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from generate import edit, generate, settle
from report import (
    Result,
    Sample,
    Series,
    Table,
    checkout_environment,
    finish,
    options,
    projects_folder,
    run_process,
    seeknal_command,
    with_projects,
)

MOST_MEGABYTES = 150.0
PARALLEL = ("--parallel", "--max-workers", "2")
COMMANDS = {
    "nothing to do": ("run",),
    "plan after one edit": ("plan", "dev"),
    "parallel run of the edit": ("run", "--env", "dev", *PARALLEL),
    "promotion": ("promote", "dev", "--force", "--yes"),
}


def main() -> None:
    parser = options(__doc__, rounds=3)
    parser.add_argument("--nodes", type=int, default=10_000)
    with_projects(parser)
    given = parser.parse_args()
    seeknal = seeknal_command(given.seeknal)
    with projects_folder(given.projects) as folder:
        root = folder / str(given.nodes)
        if root.exists():
            shutil.rmtree(root)
        generate(root, given.nodes)
        run = partial(run_process, cwd=root, environment=checkout_environment(), memory=True)
        samples: dict[str, list[Sample]] = {"first parallel run": [run([*seeknal, "run", *PARALLEL])]}
        for turn in range(given.rounds):
            settle()
            run([*seeknal, "run"])
            for what, command in COMMANDS.items():
                if what.startswith("plan"):
                    edit(root, given.nodes - 2, 1_000_000 + turn)
                samples.setdefault(what, []).append(run([*seeknal, *command]))
            # Production back to where it was, and the files too.
            run([*seeknal, "rollback", "prod"])
            generate(root, given.nodes)
    found = {f"{given.nodes:,} nodes, {what}": Series(tuple(of)) for what, of in samples.items()}
    table = Table("Every command on a large project (whole processes)")
    table.add(*(Result.of(f"{what}: time", series) for what, series in found.items()))
    table.add(
        *(
            Result.of(f"{what}: memory", series, "peak_bytes", unit="MB", target=MOST_MEGABYTES)
            for what, series in found.items()
        )
    )
    finish("scale", table, given.out, found)


if __name__ == "__main__":
    main()
