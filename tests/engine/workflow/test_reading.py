from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest

from seeknal.dag.project import Project
from seeknal.errors import CorruptObjectError, NotFoundError, SeeknalError
from seeknal.store.store import Store
from seeknal.workflow.environment import EnvironmentManager
from seeknal.workflow.outputs import read_outputs
from seeknal.workflow.reading import TableReader
from tests.engine.workflow.projects import run, transform, write, write_project

FILES = {
    "data/orders.csv": "id,amount\n1,10.5\n2,\n3,7.25\n",
    "data/customers.csv": "id,name\n1,Ann\n2,Bob\n",
    "seeknal/orders.yml": "kind: source\nname: orders\nsource: csv\ntable: data/orders.csv\n",
    "seeknal/customers.yml": "kind: source\nname: customers\nsource: csv\ntable: data/customers.csv\n",
    # The short name 'orders' could be either node's.
    "seeknal/orders_too.yml": transform("orders", "SELECT id FROM source.orders"),
    # Its own name is the long name of another node.
    "seeknal/named_alike.yml": transform("source_customers", "SELECT 'x' AS x"),
    "seeknal/totals.yml": transform("totals", "SELECT count(*) AS n, sum(id) AS total FROM source.orders"),
    "seeknal/export.yml": "kind: exposure\nname: export\npath: out/totals.csv\ninputs: [{ref: transform.totals}]\n",
}


def make_shop(root: Path) -> Store:
    write_project(root, FILES)
    assert run(root).status == "success"
    return Project.open(root).store()


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store that the tests only read."""
    return make_shop(tmp_path_factory.mktemp("shop"))


@pytest.fixture(scope="module")
def reader(store: Store) -> Iterator[TableReader]:
    with TableReader.open(store) as opened:
        yield opened


def answer(reader: TableReader, sql: str, *, limit: int | None = None) -> list[tuple[str | None, ...]]:
    return list(reader.query(sql, limit=limit).values)


def error_of(reader: TableReader, sql: str) -> SeeknalError:
    with pytest.raises(SeeknalError) as caught:
        answer(reader, sql)
    return caught.value


# names


@pytest.mark.parametrize(
    "name",
    ["transform.totals", "totals", "transform_totals", '"transform"."totals"', "'totals'", "TOTALS"],
)
def test_a_table_goes_by_its_id_and_its_short_names(reader: TableReader, name: str) -> None:
    assert answer(reader, f"SELECT n FROM {name}") == [("3",)]


def test_a_table_named_in_a_text_is_found(reader: TableReader) -> None:
    assert answer(reader, "FROM query('SELECT n FROM totals')") == [("3",)]
    assert answer(reader, "SELECT n FROM query_table('totals')") == [("3",)]


@pytest.mark.parametrize(
    ("name", "both"),
    [
        ("orders", ("source.orders", "transform.orders")),
        ("source_customers", ("source.customers", "transform.source_customers")),
    ],
)
def test_a_short_name_that_two_tables_could_go_by_stands_for_neither(
    reader: TableReader, name: str, both: tuple[str, str]
) -> None:
    error = error_of(reader, f"FROM {name}")
    assert set(error.message.removeprefix(f"'{name}' may mean ").split(" or ")) == set(both)
    assert name not in reader.names()
    for node_id in both:
        assert len(answer(reader, f"FROM {node_id}")) > 0


@pytest.mark.parametrize("sql", ["FROM totls", "DESCRIBE totls", "SUMMARIZE totls", "EXPLAIN FROM totls"])
def test_a_table_that_is_not_there_is_answered_with_the_nearest(reader: TableReader, sql: str) -> None:
    error = error_of(reader, sql)
    assert isinstance(error, NotFoundError)
    assert error.message == "no table is called 'totls'"
    assert "transform.totals" in error.hint


def test_a_table_of_another_kind_is_answered_as_it_was_written(reader: TableReader) -> None:
    error = error_of(reader, "SELECT *\nFROM source.totals")
    assert error.message == "no table is called 'source.totals'"
    assert "transform.totals" in error.hint
    assert str(error.place) == "SQL:2:6"


def test_a_node_without_rows_is_no_table(reader: TableReader) -> None:
    assert error_of(reader, "FROM exposure.export").message == "exposure.export has no rows to read"
    assert error_of(reader, "FROM export").message == "exposure.export has no rows to read"


def test_show_tables_lists_every_table_though_no_query_named_it(store: Store) -> None:
    with TableReader.open(store) as fresh:
        short = {row[0] for row in answer(fresh, "SHOW TABLES")}
        assert short == set(fresh.names()) - set(fresh.outputs.tables)
        listed = {f"{row[0]}.{row[1]}" for row in answer(fresh, "SELECT schema, name FROM (SHOW ALL TABLES)")}
        assert set(fresh.outputs.tables) <= listed


def test_a_table_that_is_damaged_keeps_nobody_from_reading_the_others(tmp_path: Path) -> None:
    store = make_shop(tmp_path)
    part = read_outputs(store).tables["source.customers"].parts[0]
    store.blob_path(part).unlink()
    with TableReader.open(store) as opened:
        assert answer(opened, "SELECT n FROM totals") == [("3",)]
        error = error_of(opened, "FROM customers")
    assert isinstance(error, CorruptObjectError)
    assert "source.customers" in error.message
    assert "seeknal run" in error.hint


# values


def test_values_are_texts_and_null_is_none(reader: TableReader) -> None:
    assert answer(reader, "FROM source.orders ORDER BY id") == [("1", "10.5"), ("2", None), ("3", "7.25")]


def test_numbers_are_exact_and_moments_need_no_module(reader: TableReader) -> None:
    sql = """SELECT 170141183460469231731687303715884105727 AS h, 12345678901234567890.1234567890::DECIMAL(38, 10) AS d,
        TIMESTAMPTZ '2024-01-01 10:00:00+02' AS t, DATE '2024-02-29' AS day, INTERVAL 1 MONTH AS i"""
    rows = reader.query(sql)
    assert list(rows.values) == [
        (
            "170141183460469231731687303715884105727",
            "12345678901234567890.1234567890",
            "2024-01-01 08:00:00+00",
            "2024-02-29",
            "1 month",
        )
    ]
    assert rows.types == ("HUGEINT", "DECIMAL(38,10)", "TIMESTAMP WITH TIME ZONE", "DATE", "INTERVAL")


def test_json_texts_hold_numbers_as_numbers_and_everything_else_as_it_nests(reader: TableReader) -> None:
    sql = "SELECT 9007199254740993::HUGEINT AS h, 1.5::DECIMAL(3, 2) AS d, 'é\"' AS s, [1, NULL] AS l, {'a': true} AS o"
    [row] = reader.query(sql, as_json=True).values
    assert [json.loads(value or "null") for value in row] == [9007199254740993, 1.5, 'é"', [1, None], {"a": True}]


def test_columns_of_one_name_get_names_of_their_own(reader: TableReader) -> None:
    assert len(set(reader.query("SELECT 1 AS a, 2 AS a, 3 AS a").columns)) == 3


def test_the_order_of_a_result_is_kept(reader: TableReader) -> None:
    rows = answer(reader, "SELECT range AS r FROM range(300000) ORDER BY hash(r)")
    expected = duckdb.execute("SELECT range AS r FROM range(300000) ORDER BY hash(r)").fetchall()
    assert rows == [(str(value),) for (value,) in expected]


def test_rows_stream_so_that_an_endless_result_has_a_first_row(reader: TableReader) -> None:
    rows = reader.query("FROM range(1000000000000000)")
    assert next(rows.values) == ("0",)


def test_a_limit_takes_the_first_rows(reader: TableReader) -> None:
    assert answer(reader, "FROM source.customers ORDER BY id DESC", limit=1) == [("2", "Bob")]
    assert answer(reader, "FROM source.customers", limit=0) == []
    assert answer(reader, "FROM source.customers LIMIT 5 -- all", limit=100) == [("1", "Ann"), ("2", "Bob")]


def test_an_error_that_comes_while_rows_are_read_is_one_of_ours(reader: TableReader) -> None:
    rows = reader.query("SELECT CASE WHEN range < 500000 THEN 1 ELSE error('stop here') END FROM range(1000000)")
    with pytest.raises(SeeknalError, match="stop here"):
        list(rows.values)


# what may be asked


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT 1",
        "WITH x AS (SELECT 1 AS a) SELECT a FROM x",
        "WITH x AS MATERIALIZED (SELECT 1 AS a) SELECT a FROM x",
        "WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t WHERE n < 3) FROM t",
        "FROM totals;",
        "TABLE totals",
        "VALUES (1), (2)",
        "SHOW TABLES",
        "SHOW totals",
        "DESCRIBE totals",
        "DESCRIBE",
        "SUMMARIZE totals",
        "EXPLAIN FROM totals",
        "EXPLAIN ANALYZE FROM totals",
        "EXPLAIN (FORMAT JSON) FROM totals",
        "explain (analyze, format json) (FROM totals)",
        "PIVOT source.customers ON name USING count(*)",
        "FROM (PIVOT source.customers ON name USING count(*))",
        "UNPIVOT totals ON n, total",
        "SELECT 1 UNION SELECT 2 EXCEPT SELECT 3 ORDER BY 1",
        'SELECT copy, "insert" FROM (SELECT 1 AS copy, 2 AS "insert")',
        "-- a comment\nSELECT 1 /* ; */ -- ;",
        "SELECT ';' AS semicolon;;",
    ],
)
def test_statements_that_read_are_answered(reader: TableReader, sql: str) -> None:
    assert len(answer(reader, sql)) > 0


@pytest.mark.parametrize(
    "sql",
    [
        "COPY totals TO '{path}'",
        "WITH x AS (COPY (SELECT 1) TO '{path}') FROM x",
        "WITH x AS /* */ NOT MATERIALIZED ( -- \n copy (SELECT 1) TO '{path}') FROM x",
        "SELECT (WITH x AS (COPY (SELECT 1) TO '{path}') SELECT count(*) FROM x)",
        "WITH x AS (COPY (SELECT 1 AS a) TO '{path}') PIVOT x ON Count USING count(*)",
        "WITH\u00a0x\u00a0AS\u00a0(\u00a0COPY (SELECT 1) TO '{path}') PIVOT x ON Count USING count(*)",
        "EXPLAIN ANALYZE COPY (SELECT 1) TO '{path}'",
        "EXPLAIN (ANALYZE) COPY (SELECT 1) TO '{path}'",
        "EXPLAIN ANALYZE WITH x AS (COPY (SELECT 1) TO '{path}') FROM x",
        "WITH x AS (INSERT INTO y VALUES (1) RETURNING *) FROM x",
        "CREATE TABLE t AS SELECT 1",
        "CREATE OR REPLACE VIEW totals AS SELECT 1",
        "DROP VIEW totals",
        "INSERT INTO totals VALUES (1, 1)",
        "SET threads = 1",
        "RESET allowed_directories",
        "PRAGMA enable_profiling",
        "CALL enable_logging()",
        "FROM enable_logging(storage := 'file', storage_config := {{'path': '{path}'}})",
        "ATTACH '{path}' AS other",
        "INSTALL httpfs",
        "LOAD httpfs",
        "EXPORT DATABASE '{path}'",
        "PREPARE p AS SELECT 1",
        "BEGIN",
        "SELECT 1; SELECT 2",
        "SELECT 1; COPY totals TO '{path}'",
        "SELECT 1) TO '{path}' --",
        "EXPLAIN EXPLAIN SELECT 1",
        "EXPLAIN",
        "SELECT $1",
        "SELECT \ud800",
        "",
        " \n",
        "-- only a comment",
        ";",
    ],
)
def test_everything_else_is_refused_and_does_nothing(reader: TableReader, store: Store, sql: str) -> None:
    before = sorted((store.root / "blobs").rglob("*"))
    path = store.root / "blobs" / "written.parquet"
    error = error_of(reader, sql.format(path=path) if "{path}" in sql else sql)
    assert error.exit_code == 1
    assert "\n" not in error.message
    assert sorted((store.root / "blobs").rglob("*")) == before
    assert answer(reader, "SELECT n FROM totals") == [("3",)]


@pytest.mark.parametrize(
    "sql",
    ["FROM read_csv('{file}')", "FROM '{file}'", 'FROM "{file}"', "FROM read_text('{file}')", "FROM glob('{file}')"],
)
def test_no_other_file_can_be_read(reader: TableReader, tmp_path: Path, sql: str) -> None:
    secret = tmp_path / "secret.csv"
    secret.write_text("word\nopensesame\n", encoding="utf-8")
    error = error_of(reader, sql.format(file=secret))
    assert error.exit_code == 1
    assert "opensesame" not in str(error)
    assert "read here" in str(error)


def test_a_variable_of_python_is_no_table(reader: TableReader) -> None:
    frame = duckdb.sql("SELECT 1 AS a")
    assert frame is not None
    assert isinstance(error_of(reader, "FROM frame"), NotFoundError)


def test_an_error_names_its_place_in_the_sql(reader: TableReader) -> None:
    assert str(error_of(reader, "SELECT 'é',\n  nope FROM totals").place) == "SQL:2:3"
    assert str(error_of(reader, "EXPLAIN SELECT nope FROM totals").place) == "SQL:1:16"
    assert error_of(reader, "SELECT 1 +").place is not None


# environments


def test_an_environment_shows_its_own_tables_and_production_keeps_its(tmp_path: Path) -> None:
    store = make_shop(tmp_path)
    write(tmp_path, "seeknal/totals.yml", transform("totals", "SELECT count(*) + 100 AS n FROM source.orders"))
    manager = EnvironmentManager(tmp_path / "target")
    manager.plan("dev")
    planned = read_outputs(store, "dev")
    assert (planned.environment, planned.shown) == ("dev", "prod")
    with TableReader(planned) as opened:
        assert answer(opened, "SELECT n FROM totals") == [("3",)]
    manager.apply("dev", parallel=False)
    with TableReader.open(store, "dev") as opened:
        assert opened.outputs.shown == "dev"
        assert answer(opened, "SELECT n FROM totals") == [("103",)]
    with TableReader.open(store, "production") as opened:
        assert answer(opened, "SELECT n FROM totals") == [("3",)]


def test_a_reader_goes_on_reading_what_it_opened(tmp_path: Path) -> None:
    store = make_shop(tmp_path)
    with TableReader.open(store) as before:
        write(tmp_path, "data/customers.csv", "id,name\n7,Zoe\n")
        assert run(tmp_path).status == "success"
        assert answer(before, "SELECT name FROM customers ORDER BY id") == [("Ann",), ("Bob",)]
    with TableReader.open(store) as after:
        assert answer(after, "SELECT name FROM customers") == [("Zoe",)]


def test_an_environment_that_nobody_planned_is_not_found(store: Store) -> None:
    with pytest.raises(NotFoundError, match="'dev' not found") as caught:
        TableReader.open(store, "dev")
    assert "seeknal plan dev" in caught.value.hint


def test_what_was_never_run_has_nothing_to_read_and_gets_no_store(tmp_path: Path) -> None:
    write_project(tmp_path, FILES)
    with pytest.raises(NotFoundError, match="no outputs yet") as caught:
        TableReader.open(Project.open(tmp_path).store())
    assert "seeknal run" in caught.value.hint
    assert not (tmp_path / "target").exists()


# Parquet


def test_a_result_is_written_as_parquet_with_its_types(store: Store, tmp_path: Path) -> None:
    file = tmp_path / "it's.parquet"
    with TableReader.open(store, writable=file) as opened:
        sql = "SELECT sum(id) + 9007199254740993 AS big, DATE '2024-01-01' AS day, 1 AS x, 2 AS x FROM source.orders"
        assert opened.write_parquet(sql) == 1
        assert opened.write_parquet("FROM source.orders", limit=2) == 2
        assert opened.write_parquet(sql) == 1
    read = duckdb.connect().read_parquet(str(file))
    assert read.fetchall()[0][0] == 9007199254740999
    assert [str(type_) for type_ in read.types] == ["DECIMAL(38,0)", "DATE", "INTEGER", "INTEGER"]


def test_no_file_but_the_writable_one_can_be_written(store: Store, tmp_path: Path) -> None:
    with TableReader.open(store, writable=tmp_path / "a.parquet") as opened:
        with pytest.raises(SeeknalError, match="no rows to write"):
            opened.write_parquet("EXPLAIN SELECT 1")
        with pytest.raises(SeeknalError):
            opened.write_parquet(f"WITH x AS (COPY (SELECT 1) TO '{tmp_path / 'a.parquet'}') FROM x")
        with pytest.raises(SeeknalError):
            opened.write_parquet("SELECT nope FROM totals")
    assert list(tmp_path.iterdir()) == []


# finding nodes


def test_a_node_is_found_by_id_by_name_and_by_folder(store: Store) -> None:
    outputs = read_outputs(store)
    for name in ("transform.totals", "totals", "transforms/totals", "transform/totals", "TOTALS"):
        assert outputs.find(name) == "transform.totals"
    assert outputs.find("export") == "exposure.export"
    with pytest.raises(SeeknalError, match=r"source\.orders or transform\.orders"):
        outputs.find("orders")
    with pytest.raises(NotFoundError) as caught:
        outputs.find("totls")
    assert "transform.totals" in caught.value.hint
