"""The floor: one Python process, one DuckDB connection, one COPY after the other. Nothing is checked or remembered.

    python bench/plain_loop.py STATEMENTS.json [--threads N]

STATEMENTS.json holds a list of SQL texts. :mod:`floor` and :mod:`parallel_vs_sequential` write it.
"""

from __future__ import annotations

import json
import sys


def main() -> None:
    import duckdb

    config = {"threads": int(sys.argv[3])} if sys.argv[2:3] == ["--threads"] else {}
    connection = duckdb.connect(config=config)
    with open(sys.argv[1], encoding="utf-8") as file:
        statements = json.load(file)
    for statement in statements:
        connection.execute(statement)


if __name__ == "__main__":
    main()
