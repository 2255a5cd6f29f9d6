"""All benchmarks, one after the other, and one table of the targets at the end.

    python bench/suite.py [--seeknal PATH] [--out .benchmarks] [--only NAME …] [--quick] [--write]

Each writes NAME.json and NAME.svg. The projects of the larger sizes are built once, in a folder that is removed at the
end. A target that is missed is reported and no error; a benchmark that fails is one, and the others go on. ``--quick``
takes sizes and rounds that say only whether everything works. ``--write`` fills `docs/performance.md` with the results.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import summary
from report import ROOT, checkout_environment


@dataclass(frozen=True)
class Benchmark:
    """A script of this folder, its options here, and its options where it only has to work.

    ``builds``: it builds projects, or uses those that others built. They are removed when everything is over: a disk
    that has just removed thousands of files may take its time to make new ones.
    """

    name: str
    options: str
    quick: str
    builds: bool = True


# The one that builds the largest project comes before those that use it.
BENCHMARKS = (
    Benchmark("startup", "--rounds 15", "--rounds 2", builds=False),
    Benchmark("scheduler", "--rounds 5", "--rounds 1 --nodes 1000", builds=False),
    Benchmark("scale", "--rounds 3", "--rounds 1 --nodes 200"),
    Benchmark("noop", "--rounds 11", "--rounds 2 --nodes 100 200"),
    Benchmark("plan", "--rounds 7", "--rounds 2 --nodes 100 200"),
    Benchmark("promote", "--rounds 15", "--rounds 2 --nodes 8 200"),
    Benchmark("floor", "--rounds 5", "--rounds 1 --nodes 8 100 --rows 100000"),
    Benchmark("phases", "--rounds 3", "--rounds 1 --nodes 100"),
    Benchmark(
        "parallel_vs_sequential", "--rounds 3", "--rounds 1 --workers 2 --cases tutorial heavy --heavy-rows 1000"
    ),
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeknal", default="seeknal", help="the command to measure [default: seeknal]")
    parser.add_argument("--out", type=Path, default=ROOT / ".benchmarks", help="where results go")
    parser.add_argument("--only", nargs="+", choices=[each.name for each in BENCHMARKS], help="leave the others out")
    parser.add_argument("--quick", action="store_true", help="only see that all of them work")
    parser.add_argument("--write", action="store_true", help="fill docs/performance.md with the results")
    given = parser.parse_args()
    if given.quick and given.write:
        parser.error("--quick measures nothing that a page should show")
    out = given.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    failed = []
    # Beside the results, so on the disk of the checkout: a temporary folder may be memory.
    projects = Path(tempfile.mkdtemp(prefix="projects-", dir=out))
    try:
        for benchmark in BENCHMARKS:
            if given.only and benchmark.name not in given.only:
                continue
            begun = time.monotonic()
            options = [*(benchmark.quick if given.quick else benchmark.options).split(), "--seeknal", given.seeknal]
            options += ["--projects", str(projects)] if benchmark.builds else []
            if not passes("bench", [f"bench/{benchmark.name}.py", *options, "--out", str(out)], projects):
                failed.append(benchmark.name)
            print(f"({benchmark.name}: {time.monotonic() - begun:.0f} s)\n", flush=True)
        if not given.only and not passes("hot functions", hot_functions(out, given.quick), projects):
            failed.append("test_hot_functions")
    finally:
        shutil.rmtree(projects, ignore_errors=True)
    measured = summary.Measured(out)
    if given.write:
        summary.write(measured, ROOT / "docs")
    print(summary.printed(measured))
    print(f"{time.monotonic() - started:.0f} s in all.")
    for name in failed:
        print(f"bench/{name}.py failed", file=sys.stderr)
    return 1 if failed else 0


def hot_functions(out: Path, quick: bool) -> list[str]:
    """The arguments with which pytest-benchmark measures what runs once for each node."""
    options = ["-m", "pytest", "bench", "-q", "-p", "no:cacheprovider", "--benchmark-only"]
    options += [f"--benchmark-json={out / 'hot_functions.json'}", "--benchmark-columns=min,median,iqr,ops"]
    return options + (["--benchmark-max-time=0.1", "--benchmark-min-rounds=3"] if quick else [])


def passes(what: str, arguments: list[str], temporary: Path) -> bool:
    """Run a Python of this checkout; gives whether it ended well."""
    environment = {**os.environ, **checkout_environment(), "TMPDIR": str(temporary)}
    print(f"{what}: {' '.join(arguments)}", flush=True)
    return subprocess.run([sys.executable, *arguments], cwd=ROOT, env=environment, check=False).returncode == 0


if __name__ == "__main__":
    sys.exit(main())
