"""Compare sequential and parallel runs: whole processes, side by side, medians of a few rounds.

    python bench/parallel_vs_sequential.py [--seeknal PATH] [--rounds 3] [--json FILE]

Cases: light nodes (what a node costs beside its query) and CPU-bound independent nodes (what the cores give). Each
round runs every way once, in turn, so that a machine that slows down slows all of them. Every run is a cold one: the
project's `target` folder is removed before it.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from generate import generate

HEAVY = """kind: transform
name: heavy_{number}
transform: |
  SELECT sum(hash(a.range * 31 + b.range + {number}) % 1000) AS checksum
  FROM range(6000) AS a, range(6000) AS b
"""


def heavy_project(root: Path, nodes: int) -> None:
    """A project of independent nodes that do nothing but compute, about a second each."""
    (root / "seeknal").mkdir(parents=True)
    (root / "seeknal_project.yml").write_text(f"name: heavy_{nodes}\n", encoding="utf-8")
    for number in range(nodes):
        (root / f"seeknal/heavy_{number}.yml").write_text(HEAVY.format(number=number), encoding="utf-8")


def timed(seeknal: str, root: Path, *options: str) -> float:
    """Seconds of one cold run as a whole process. Raises CalledProcessError where it fails."""
    shutil.rmtree(root / "target", ignore_errors=True)
    started = time.perf_counter()
    subprocess.run(
        [seeknal, "run", *options], cwd=root, check=True, stdout=subprocess.DEVNULL, env={**os.environ, "NO_COLOR": "1"}
    )
    return time.perf_counter() - started


def measure(seeknal: str, root: Path, rounds: int) -> dict[str, float]:
    """Median seconds: one after the other, and with 2 and 4 workers."""
    ways = {
        "sequential": (),
        "2 workers": ("--parallel", "--max-workers", "2"),
        "4 workers": ("--parallel", "--max-workers", "4"),
    }
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(rounds):
        for way, options in ways.items():
            seconds[way].append(timed(seeknal, root, *options))
    return {way: statistics.median(values) for way, values in seconds.items()}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--seeknal", default="seeknal")
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--json", type=Path)
    given = options.parse_args()
    seeknal = shutil.which(given.seeknal) or given.seeknal
    results = {}
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        for name, make in (
            ("200 light nodes", lambda root: generate(root, 200)),
            ("16 CPU-bound nodes", lambda root: heavy_project(root, 16)),
        ):
            root = Path(folder) / name.replace(" ", "-")
            make(root)
            results[name] = measure(seeknal, root, given.rounds)
    print(f"{'case':<22}{'sequential':>12}{'2 workers':>12}{'4 workers':>12}{'gain of 2':>12}")
    for name, found in results.items():
        one, two, four = found["sequential"], found["2 workers"], found["4 workers"]
        print(f"{name:<22}{one:>11.2f}s{two:>11.2f}s{four:>11.2f}s{one / two:>11.2f}×")
    if given.json:
        given.json.write_text(json.dumps({"cores": os.cpu_count(), "medians": results}, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main()
