"""Make a project of any number of light nodes, for the benchmarks: a source, then layers of small transforms."""

from __future__ import annotations

import argparse
import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path


def generate(root: Path, nodes: int) -> bool:
    """Write a project of ``nodes`` nodes: one source of 100 rows, and transforms that read one or two earlier nodes.

    Files that say that already are left alone; gives whether one was written.
    """
    changed = False

    def write(name: str, text: str) -> None:
        nonlocal changed
        file = root / name
        if not (file.exists() and file.read_text(encoding="utf-8") == text):
            file.write_text(text, encoding="utf-8")
            changed = True

    (root / "seeknal").mkdir(parents=True, exist_ok=True)
    (root / "data").mkdir(exist_ok=True)
    write("seeknal_project.yml", f"name: generated_{nodes}\n")
    rows = "\n".join(f"{i},{i % 7},{i * 3 % 101}" for i in range(100))
    write("data/events.csv", f"id,kind,amount\n{rows}\n")
    write(
        "seeknal/events.yml",
        "kind: source\nname: events\nsource: csv\ntable: data/events.csv\nschema:\n"
        + "".join(f"  - {{name: {column}, data_type: integer}}\n" for column in ("id", "kind", "amount")),
    )
    for number in range(nodes - 1):
        parent = "source.events" if number < 10 else f"transform.step_{number - 10}"
        sql = f"SELECT id, kind, amount + {number} AS amount FROM {parent} WHERE amount >= 0"
        if number % 5 == 4 and number >= 10:
            other = f"transform.step_{number - 7}"
            sql = f"SELECT l.id, l.kind, l.amount - r.amount AS amount FROM {parent} l JOIN {other} r ON l.id = r.id"
        name = f"step_{number}"
        write(f"seeknal/{name}.yml", f"kind: transform\nname: {name}\ntransform: |\n  {sql}\n")
    return changed


def edit(root: Path, number: int, value: int) -> None:
    """Give the project's ``number``-th transform another query of the same columns."""
    file = root / f"seeknal/step_{number}.yml"
    lines = [line for line in file.read_text(encoding="utf-8").splitlines() if not line.startswith("  LIMIT")]
    file.write_text("\n".join([*lines, f"  LIMIT {value}"]) + "\n", encoding="utf-8")


def built(root: Path, nodes: int, seeknal: Sequence[str], environment: Mapping[str, str]) -> Path:
    """A generated project whose last run left nothing to do. ``seeknal`` is the command that runs it.

    A project that is there already is put back to what was generated, and run where that changed it.
    """
    run = partial(subprocess.run, cwd=root, check=True, stdout=subprocess.DEVNULL, env={**os.environ, **environment})
    if generate(root, nodes) or not (root / "target").exists():
        run([*seeknal, "run", "--parallel", "--max-workers", "2"])
        settle()
    run([*seeknal, "run"])
    return root


def settle() -> None:
    """Wait until the digests of files that were written a moment ago are trusted by the next run."""
    time.sleep(2.5)


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("root", type=Path)
    options.add_argument("--nodes", type=int, default=1000)
    given = options.parse_args()
    generate(given.root, given.nodes)
