"""The same generated project with Seeknal and with SQLMesh: whole processes, in turns.

    python bench/peers.py [--install] [--seeknal PATH] [--rounds 3] [--nodes 100] [--out FOLDER]

``--install`` puts SQLMesh, as `bench/peers-requirements.txt` asks for it, into an environment of its own below
`.benchmarks/`, with the package index that pip uses. Without that, an installation that is there is used.

Every node of the project is a model of the kind FULL, in a DuckDB database file; its source is a model that reads the
same CSV file. Both tools do the same: everything from nothing, a run with nothing to do, a plan after one edit, the
edit in an environment, and that environment to production. Each has its usual settings; neither runs in parallel.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import yaml
from generate import edit, generate, settle
from report import (
    ROOT,
    Result,
    Sample,
    Series,
    Table,
    checkout_environment,
    finish,
    options,
    run_process,
    seeknal_command,
)

ENVIRONMENT = ROOT / ".benchmarks" / "peers"
REQUIREMENTS = Path(__file__).with_name("peers-requirements.txt")
VERSION = "import importlib.metadata as m; print(', '.join(f'{n} {m.version(n)}' for n in ('sqlmesh', 'duckdb')))"

CONFIG = """gateways:
  local:
    connection:
      type: duckdb
      database: db.duckdb
default_gateway: local
model_defaults:
  dialect: duckdb
  start: 2025-01-01
disable_anonymized_analytics: true
"""
MODEL = "MODEL (name shop.{name}, kind FULL);\n\n{sql}\n"
_NAMED = re.compile(r"\b(?:source|transform)\.(\w+)")

APPLY = ("--no-prompts", "--auto-apply")
#: What is measured → the command of each tool, without its name.
STEPS: dict[str, tuple[Sequence[str], Sequence[str]]] = {
    "everything from nothing": (("run",), ("plan", *APPLY)),
    "run with nothing to do": (("run",), ("run",)),
    "plan after one edit": (("plan", "dev"), ("plan", "dev", "--no-prompts", "--explain")),
    "the edit in an environment": (("run", "--env", "dev"), ("plan", "dev", *APPLY)),
    "promotion": (("promote", "dev", "--yes"), ("plan", *APPLY)),
}


def install() -> None:
    """Make the environment, or bring it up to date. Raises CalledProcessError."""
    if not (ENVIRONMENT / "bin/python").exists():
        subprocess.run([sys.executable, "-m", "venv", str(ENVIRONMENT)], check=True)
    pip = [str(ENVIRONMENT / "bin/python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "--requirement", str(REQUIREMENTS)], check=True)


def translate(root: Path, other: Path) -> None:
    """Write a generated project's nodes as models of SQLMesh; files that say that already are left alone."""
    (other / "models").mkdir(parents=True, exist_ok=True)
    (other / "config.yaml").write_text(CONFIG, encoding="utf-8")
    for file in (root / "seeknal").glob("*.yml"):
        node = yaml.safe_load(file.read_text(encoding="utf-8"))
        if node["kind"] == "source":
            columns = ", ".join(f"{c['name']}::{c['data_type']} AS {c['name']}" for c in node["schema"])
            sql = f"SELECT {columns} FROM read_csv('{root / node['table']}')"
        else:
            sql = _NAMED.sub(r"shop.\1", node["transform"].strip())
        model, text = other / f"models/{node['name']}.sql", MODEL.format(name=node["name"], sql=sql)
        if not (model.exists() and model.read_text(encoding="utf-8") == text):
            model.write_text(text, encoding="utf-8")


def round_of(
    root: Path,
    nodes: int,
    clean: Callable[[], None],
    changed: Callable[[], None],
    ways: dict[str, Callable[[], Sample]],
) -> dict[str, Sample]:
    """Do all steps once, from nothing."""
    generate(root, nodes)
    clean()
    changed()
    samples = {}
    for what, way in ways.items():
        if what == "run with nothing to do":
            settle()
        if what == "plan after one edit":
            edit(root, nodes - 2, 1_000_000)
            changed()
        samples[what] = way()
    return samples


def main() -> None:
    parser = options(__doc__, rounds=3)
    parser.add_argument("--nodes", type=int, default=100)
    parser.add_argument("--install", action="store_true", help="install what is compared with")
    given = parser.parse_args()
    if given.install:
        install()
    if not (ENVIRONMENT / "bin/sqlmesh").exists():
        sys.exit("SQLMesh is not installed: run this with --install, or `make bench-peers`")
    version = subprocess.run(
        [str(ENVIRONMENT / "bin/python"), "-c", VERSION], capture_output=True, encoding="utf-8", check=True
    ).stdout.strip()
    commands = {"Seeknal": seeknal_command(given.seeknal), "SQLMesh": [str(ENVIRONMENT / "bin/sqlmesh")]}
    found: dict[str, list[Sample]] = {}
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        root, other = Path(folder) / "seeknal", Path(folder) / "sqlmesh"

        def clean_ours() -> None:
            shutil.rmtree(root / "target", ignore_errors=True)

        def clean_theirs() -> None:
            shutil.rmtree(other, ignore_errors=True)

        rounds = {
            "Seeknal": (root, clean_ours, lambda: None),
            "SQLMesh": (other, clean_theirs, lambda: translate(root, other)),
        }
        for _ in range(given.rounds):
            for tool, (place, clean, changed) in rounds.items():
                environment = checkout_environment() if tool == "Seeknal" else {"NO_COLOR": "1"}
                run = partial(run_process, cwd=place, environment=environment)
                index = list(rounds).index(tool)
                ways = {what: partial(run, [*commands[tool], *words[index]]) for what, words in STEPS.items()}
                for what, sample in round_of(root, given.nodes, clean, changed, ways).items():
                    found.setdefault(f"{what}: {tool}", []).append(sample)
    series = {name: Series(tuple(samples)) for name, samples in found.items()}
    table = Table(f"The same project of {given.nodes} nodes with Seeknal and SQLMesh ({version})")
    for what in STEPS:
        ours, theirs = series[f"{what}: Seeknal"], series[f"{what}: SQLMesh"]
        table.add(
            Result.of(f"{what}: Seeknal", ours),
            Result.of(f"{what}: SQLMesh", theirs),
            Result.ratio(f"{what}: SQLMesh over Seeknal", theirs, ours),
            Result.ratio(f"{what}: the same, CPU time", theirs, ours, "cpu_seconds"),
        )
    finish("peers", table, given.out, series)


if __name__ == "__main__":
    main()
