"""pytest-benchmark suite of what runs once for each node: `pytest bench --benchmark-only`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb
import pytest

from seeknal.dag.canonical import canonical_sql
from seeknal.store.column_digests import digest_parquet
from seeknal.store.objects import Artifact, Blob, Column, Tree, TreeEntry, decode, encode
from seeknal.workflow.fingerprint import fingerprint
from seeknal.workflow.scheduler import Execute, Resolve, Scheduler

SQL = """
SELECT o.order_id, o.customer_id, sum(o.amount) AS total -- in cents
FROM source.orders AS o JOIN source.customers AS c USING (customer_id)
WHERE o.status = 'done' GROUP BY ALL
"""


def artifact(columns: int = 8) -> Artifact:
    digests = [f"{number:032x}" for number in range(columns)]
    return Artifact((Blob(digests[0], 4096),), 100, tuple(Column(f"c{d[-2:]}", "BIGINT", d) for d in digests))


@pytest.fixture
def parquet(tmp_path: Path) -> Path:
    file = tmp_path / "eight.parquet"
    columns = ", ".join(f"range * {number} AS c{number}" for number in range(8))
    duckdb.execute(f"COPY (SELECT {columns} FROM range(100)) TO '{file}' (FORMAT parquet, COMPRESSION zstd)")
    return file


def test_digest_of_a_small_parquet_file(benchmark: Any, parquet: Path) -> None:
    assert benchmark(digest_parquet, parquet).row_count == 100


def test_canonical_sql(benchmark: Any) -> None:
    assert "--" not in benchmark(canonical_sql, SQL)


def test_fingerprint_of_a_node_with_three_inputs(benchmark: Any) -> None:
    inputs = [(f"transform.t{number}", artifact(), ("c00", "c01")) for number in range(3)]
    key = benchmark(
        fingerprint, engine="1", kind="transform", canonical=SQL, identity=[], schema={"a": "BIGINT"}, inputs=inputs
    )
    assert len(key) == 32


def test_tree_of_1000_nodes_to_bytes_and_back(benchmark: Any) -> None:
    tree = Tree({f"transform.t{number}": TreeEntry(f"{number:032x}", artifact()) for number in range(1000)})
    assert benchmark(lambda: decode(encode(tree), Tree, "the tree")) == tree


def test_scheduling_1000_nodes(benchmark: Any) -> None:
    inputs = {f"n{number}": [f"n{number - 10}"] if number >= 10 else [] for number in range(1000)}

    def schedule() -> Scheduler:
        scheduler = Scheduler(inputs, 4)
        commands = scheduler.start()
        while commands:
            command = commands.pop()
            if isinstance(command, Resolve):
                commands += scheduler.miss(command.node_id)
            elif isinstance(command, Execute):
                commands += scheduler.succeeded(command.node_id)
        return scheduler

    assert benchmark(schedule).finished
