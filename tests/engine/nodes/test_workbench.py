from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest

from seeknal.dag.sql import take_apart
from seeknal.nodes import workbench
from seeknal.nodes.kind import InputTable, Task, stored_table
from seeknal.nodes.workbench import QueryFailed, Workbench

ORDERS = {"id": "INTEGER", "amount": "HUGEINT", "filename": "VARCHAR"}
CLEAN = {"id": "INTEGER", "status": "ENUM('new', 'done')"}


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Workbench]:
    bench = Workbench(tmp_path)
    yield bench
    bench.close()


def tables(bench: Workbench) -> tuple[InputTable, ...]:
    """The inputs ``source.orders`` and ``transform.clean``, in the store."""
    connection = bench.hermetic_connection(1, 0)
    orders = "SELECT range::INTEGER AS id, range::HUGEINT AS amount, 'f' || range AS filename FROM range(5)"
    clean = "SELECT range::INTEGER AS id, 'done'::ENUM('new', 'done') AS status FROM range(2, 7)"
    return (
        stored_table(bench.store, "source.orders", bench.copy_to_store(connection, orders, ORDERS)),
        stored_table(bench.store, "transform.clean", bench.copy_to_store(connection, clean, CLEAN)),
    )


def task(bench: Workbench, inputs: tuple[InputTable, ...], query: str, schema: dict[str, str]) -> Task:
    """A task of a query over these inputs, which knows where it names them."""
    ids = [table.node_id for table in inputs]
    sql = take_apart(query, {name: name for name in ids}, lambda name: [], bench.hermetic_connection(1, 0))
    assert not sql.problems, sql.problems
    index = {**dict(sql.positions), **{name: at for at, name in enumerate(ids)}}
    places = [(place.start, place.end, index[place.name], place.called) for place in sql.places]
    return Task(
        node_id="transform.x",
        kind="transform",
        fingerprint="",
        run_id="",
        project_root="",
        store_root="",
        spec={},
        inputs=inputs,
        positions=sql.positions,
        statements=sql.statements,
        places=tuple(places),
        schema=tuple(schema.items()),
    )


FILLED_IN = [
    ("SELECT id, amount FROM source.orders", {"id": "INTEGER", "amount": "HUGEINT"}),
    ("SELECT \"orders\".id FROM Source . Orders /* all */ WHERE filename > 'f2'", {"id": "INTEGER"}),
    ("SELECT o.id, status FROM source.orders AS o JOIN transform.clean USING (id)", CLEAN),
    ("SELECT o.a FROM source.orders o(a, b, c) WHERE a IN (SELECT id FROM transform.clean)", {"a": "INTEGER"}),
    ("WITH w AS (FROM input_0) SELECT w.id FROM w, transform.clean WHERE w.id = clean.id", {"id": "INTEGER"}),
    ("SELECT a.id FROM source.orders a, source.orders b WHERE a.id = b.id + 1", {"id": "INTEGER"}),
    # The table inside has a column of that name to DuckDB, where it is read as a file.
    (
        "SELECT (SELECT max(clean.id) FROM transform.clean WHERE filename = 'f3') AS id FROM source.orders",
        {"id": "INTEGER"},
    ),
    ("SELECT count(*) AS id FROM source.orders TABLESAMPLE reservoir(3 ROWS) REPEATABLE (1)", {"id": "BIGINT"}),
]


@pytest.mark.parametrize(("query", "schema"), FILLED_IN)
def test_a_query_with_its_inputs_filled_in_gives_the_bytes_that_views_give(
    bench: Workbench, query: str, schema: dict[str, str]
) -> None:
    filled_in = task(bench, tables(bench), query, schema)
    assert filled_in.places
    artifact = bench.store_query(filled_in)
    views = "SELECT count(*) FROM duckdb_views() WHERE NOT internal"
    assert bench.hermetic_connection(1, 0).execute(views).fetchone() == (0,)
    assert bench.store_query(Task(**{**_fields(filled_in), "places": ()})) == artifact


def _fields(task: Task) -> dict[str, object]:
    return {name: getattr(task, name) for name in task.__struct_fields__}


@pytest.mark.parametrize(
    "query",
    [
        "SELECT source.orders.id FROM source.orders",
        "SELECT typeof(id) AS t FROM source.orders",
        "CREATE TEMP TABLE t AS FROM source.orders; FROM t",
    ],
)
def test_a_query_that_needs_its_inputs_by_their_full_names_has_no_places(bench: Workbench, query: str) -> None:
    assert not task(bench, tables(bench), query, {}).places


def test_two_tables_of_one_name_and_two_kinds_get_views(bench: Workbench) -> None:
    one, two = tables(bench)
    inputs = (one, InputTable("transform.orders", two.paths, two.columns, two.row_count))
    both = task(bench, inputs, "SELECT count(*) AS n FROM source.orders, transform.orders", {"n": "BIGINT"})
    assert both.places
    assert bench.store_query(both).row_count == 1


def test_an_error_is_told_where_it_stands_in_the_query_as_it_is_written(bench: Workbench) -> None:
    query = "SELECT o.id FROM source.orders o, transform.clean AS c WHERE CAST(filename AS INTEGER) > c.id"
    with pytest.raises(QueryFailed) as caught:
        bench.store_query(task(bench, tables(bench), query, {"id": "INTEGER"}))
    assert "Could not convert" in caught.value.problem.message
    assert caught.value.problem.offset in (None, query.index("CAST"))


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


def test_a_node_larger_than_its_memory_spills_to_the_disk_and_finishes(bench: Workbench) -> None:
    query = "SELECT range AS id, md5(range::VARCHAR) AS text FROM range(1200000) ORDER BY text"
    schema = {"id": "BIGINT", "text": "VARCHAR"}
    connection = bench.hermetic_connection(1, 48 << 20)
    # The proof that it does not fit.
    connection.execute("SET max_temp_directory_size = '0B'")
    with pytest.raises(QueryFailed, match="failed to offload"):
        bench.copy_to_store(connection, query, schema)
    connection.execute("RESET max_temp_directory_size")
    artifact = bench.copy_to_store(connection, query, schema)
    assert artifact.row_count == 1_200_000
    (first,) = connection.execute(f"SELECT text FROM '{bench.store.blob_path(artifact.parts[0])}' LIMIT 1").fetchall()
    assert first == connection.execute("SELECT min(md5(range::VARCHAR)) FROM range(1200000)").fetchone()
    bench.close()
    assert not list(bench.store.temporary_folder.iterdir())


def test_small_results_are_compressed_fast_and_large_ones_well(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading = task(bench, tables(bench), "SELECT id FROM source.orders", {"id": "INTEGER"})
    codecs = []
    for rows in (workbench.ROWS_WORTH_ZSTD, 0):
        monkeypatch.setattr(workbench, "ROWS_WORTH_ZSTD", rows)
        file = bench.store.blob_path(bench.store_query(reading).parts[0])
        (said,) = duckdb.execute(f"SELECT compression FROM parquet_metadata('{file}')").fetchall()
        codecs.append(said[0])
    assert codecs == ["SNAPPY", "ZSTD"]
