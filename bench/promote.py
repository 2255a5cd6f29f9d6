"""How long a promotion takes inside the process, at any size of the project: planned and executed.

    python bench/promote.py [--rounds 15] [--out FOLDER] [--nodes 8 1000 10000] [--projects FOLDER]

An environment with one edit is promoted, production is rolled back (which is not measured), and so on. Beside that the
whole process of `seeknal promote`, and what the disk takes to make one small file durable.
"""

from __future__ import annotations

import gc
import os
import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from generate import built, edit
from report import (
    ROOT,
    Result,
    Sample,
    Table,
    checkout_environment,
    finish,
    measure_alternating,
    options,
    projects_folder,
    run_inside,
    run_process,
    seeknal_command,
    with_projects,
)

for source in ("engine", "store", "cli"):
    sys.path.insert(0, str(ROOT / source))

TARGET_MS = 10.0


def main() -> None:
    parser = options(__doc__, rounds=15)
    parser.add_argument("--nodes", type=int, nargs="+", default=[8, 1000, 10_000])
    with_projects(parser)
    given = parser.parse_args()
    seeknal, environment = seeknal_command(given.seeknal), checkout_environment()
    with projects_folder(given.projects) as folder:
        folder.mkdir(parents=True, exist_ok=True)
        ways = {"one durable file": partial(durable_file, folder / "probe")}
        for nodes in given.nodes:
            root = built(folder / str(nodes), nodes, seeknal, environment)
            edit(root, nodes - 2, 1_000_000)
            for command in (("plan", "dev"), ("run", "--env", "dev")):
                run_process([*seeknal, *command], cwd=root, environment=environment)
            ways[f"{nodes:,} nodes"] = partial(promote, root)
            ways[f"{nodes:,} nodes, process"] = partial(promote_process, root, seeknal, environment)
        measured = measure_alternating(ways, given.rounds)
        written = {nodes: files_written(folder / str(nodes)) for nodes in given.nodes}
    table = Table("A promotion of one edit")
    table.add(Result.of("one durable file", measured["one durable file"], unit="ms"))
    for nodes in given.nodes:
        name = f"{nodes:,} nodes"
        table.add(Result.of(f"{name}, inside the process", measured[name], unit="ms", target=TARGET_MS))
        table.add(Result.of(f"{name}, inside the process, CPU", measured[name], "cpu_seconds", unit="ms"))
        table.add(Result.of(f"{name}, whole process", measured[f"{name}, process"], unit="ms"))
        table.add(Result(f"{name}, files written", written[nodes], "files"))
    smallest, largest = (measured[f"{nodes:,} nodes"] for nodes in (min(given.nodes), max(given.nodes)))
    table.add(Result.ratio(f"{max(given.nodes):,} over {min(given.nodes):,} nodes", largest, smallest, target=1.25))
    finish("promote", table, given.out, measured)


def promote(root: Path) -> Sample:
    from seeknal.dag.project import Project
    from seeknal.workflow.environment import EnvironmentManager

    put_back(root)
    # What going back left behind in this process is none of the promotion's work.
    gc.collect()
    manager = EnvironmentManager(Project.open(root).target)
    return run_inside(lambda: manager.execute_promotion(manager.plan_promotion("dev", force=True)))


def files_written(root: Path) -> int:
    """How many files a promotion writes anew, of the project's own; links count."""
    put_back(root)
    before = files_of(root)
    promote(root)
    return len(files_of(root) - before)


def files_of(root: Path) -> set[tuple[str, int, int]]:
    found = set()
    for folder, _, names in os.walk(root / "target"):
        for name in names:
            status = os.lstat(os.path.join(folder, name))
            found.add((os.path.join(folder, name), status.st_ino, status.st_mtime_ns))
    return found


def promote_process(root: Path, seeknal: list[str], environment: dict[str, str]) -> Sample:
    put_back(root)
    return run_process([*seeknal, "promote", "dev", "--force", "--yes"], cwd=root, environment=environment)


def put_back(root: Path) -> None:
    """Let production stand where it stood before it was promoted to."""
    from seeknal.dag.project import Project
    from seeknal.workflow.rollback import execute_rollback, plan_rollback

    project = Project.open(root)
    store = project.store()
    head = store.head("prod")
    if head is not None and head.promoted_from:
        execute_rollback(project, store, plan_rollback(store, "prod", "1"))


def durable_file(path: Path) -> Sample:
    def write() -> None:
        with path.open("wb") as file:
            file.write(b"x" * 200)
            file.flush()
            os.fsync(file.fileno())

    return run_inside(write)


if __name__ == "__main__":
    main()
