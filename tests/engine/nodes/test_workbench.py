from __future__ import annotations

import hashlib
from pathlib import Path

from seeknal.nodes.workbench import Workbench


def test_one_thread_gives_the_same_bytes_again(tmp_path: Path) -> None:
    bench = Workbench(tmp_path)
    connection = bench.hermetic_connection(1, 0)
    folder = bench.store.temporary_folder
    digests = set()
    for part, start in (("a", 0), ("b", 7)):
        rows = f"SELECT range AS i, range % 1000 AS g, hash(range + {start}) AS h FROM range(300000)"
        connection.execute(f"COPY ({rows}) TO '{folder}/{part}.parquet'")
    for _ in range(12):
        # A UNION takes blocks of both files as they come.
        connection.execute(
            f"COPY (FROM '{folder}/a.parquet' UNION FROM '{folder}/b.parquet') TO '{folder}/both.parquet'"
        )
        digests.add(hashlib.sha256((folder / "both.parquet").read_bytes()).hexdigest())
    bench.close()
    assert len(digests) == 1
