"""What Seeknal adds to the SQL that it runs: cold runs of generated projects over a plain loop of COPYs.

    python bench/floor.py [--seeknal PATH] [--rounds 3] [--nodes 8 100 1000] [--rows 10000000] [--out FOLDER]

Whole processes, each way once in every round. The plain loop is one Python process with one DuckDB connection that does
``COPY (SELECT … FROM 'parent.parquet') TO …`` for every node of the same project: no types are checked, nothing is
remembered, and nothing is durable.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from cold import ColdProject
from generate import generate
from report import (
    Result,
    Series,
    Table,
    finish,
    measure_alternating,
    options,
    projects_folder,
    seeknal_command,
    with_projects,
)

ROWS_QUERIES = {
    "clean": "SELECT id, customer, amount, day, note FROM source.events WHERE amount >= 5",
    "priced": "SELECT id, customer, amount * 1.21 AS gross, amount % 7 AS grade, day FROM transform.clean",
    "dated": "SELECT *, day - DATE '2020-01-01' AS age FROM transform.priced",
    "daily": "SELECT day, grade, count(*) AS n, sum(gross) AS gross FROM transform.dated GROUP BY ALL",
}


def rows_project(root: Path, rows: int) -> None:
    """A project of a Parquet source of so many rows and five columns, and four transforms in a chain."""
    import duckdb

    (root / "seeknal").mkdir(parents=True)
    (root / "data").mkdir()
    (root / "seeknal_project.yml").write_text("name: rows\n", encoding="utf-8")
    duckdb.execute(
        "COPY (SELECT range AS id, hash(range) % 100000 AS customer, (hash(range + 1) % 1000)::INTEGER AS amount,"
        " DATE '2020-01-01' + (range % 1000)::INTEGER AS day, 'note ' || (range % 5000) AS note"
        f" FROM range({rows})) TO '{root}/data/events.parquet' (FORMAT parquet)"
    )
    (root / "seeknal/events.yml").write_text(
        "kind: source\nname: events\nsource: parquet\ntable: data/events.parquet\n", encoding="utf-8"
    )
    for name, sql in ROWS_QUERIES.items():
        (root / f"seeknal/{name}.yml").write_text(f"kind: transform\nname: {name}\ntransform: |\n  {sql}\n")


def main() -> None:
    parser = options(__doc__, rounds=3)
    parser.add_argument("--nodes", type=int, nargs="*", default=[8, 100, 1000])
    parser.add_argument("--rows", type=int, default=10_000_000, help="0 leaves the rows out")
    with_projects(parser)
    given = parser.parse_args()
    seeknal = seeknal_command(given.seeknal)
    table = Table("Cold runs over a plain loop of COPYs (whole processes)")
    series: dict[str, Series] = {}
    with projects_folder(given.projects, "floor") as folder:
        for nodes in given.nodes:
            root = folder / f"nodes-{nodes}"
            generate(root, nodes)
            project = ColdProject(root, folder / "aside")
            ways = {
                "plain loop": project.loop,
                "sequential": lambda project=project: project.run(seeknal),
                "2 workers": lambda project=project: project.run(seeknal, "--parallel", "--max-workers", "2"),
            }
            found = measure_alternating(ways, given.rounds, warm_up=0)
            plain, sequential, parallel = found["plain loop"], found["sequential"], found["2 workers"]
            is_large = nodes >= 1000
            table.add(
                Result.of(f"{nodes} nodes: plain loop", plain),
                Result.of(f"{nodes} nodes: sequential", sequential),
                Result.ratio(
                    f"{nodes} nodes: sequential over plain", sequential, plain, target=1.5 if is_large else None
                ),
                Result.ratio(f"{nodes} nodes: the same, CPU time", sequential, plain, "cpu_seconds"),
                Result.ratio(
                    f"{nodes} nodes: 2 workers over sequential", parallel, sequential, target=0.7 if is_large else None
                ),
            )
            series |= {f"{nodes} nodes: {name}": samples for name, samples in found.items()}
        if given.rows:
            root = folder / "rows"
            rows_project(root, given.rows)
            project = ColdProject(root, folder / "aside")
            found = measure_alternating(
                {
                    "plain loop": lambda: project.loop(memory=True),
                    "sequential": lambda: project.run(seeknal, memory=True),
                },
                given.rounds,
                warm_up=0,
            )
            plain, sequential = found["plain loop"], found["sequential"]
            what = f"{given.rows:,} rows, 4 transforms"
            table.add(
                Result.of(f"{what}: plain loop", plain),
                Result.of(f"{what}: sequential", sequential),
                Result.ratio(f"{what}: time over plain", sequential, plain, target=1.15),
                Result.ratio(f"{what}: the same, CPU time", sequential, plain, "cpu_seconds"),
                Result.of(f"{what}: plain loop, peak", plain, "peak_bytes", unit="MB"),
                Result.of(f"{what}: sequential, peak", sequential, "peak_bytes", unit="MB"),
                Result.ratio(f"{what}: peak over plain", sequential, plain, "peak_bytes", target=1.25),
            )
            series |= {f"{what}: {name}": samples for name, samples in found.items()}
    finish("floor", table, given.out, series)


if __name__ == "__main__":
    main()
