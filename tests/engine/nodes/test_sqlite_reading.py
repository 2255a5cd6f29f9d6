from __future__ import annotations

import datetime
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest

from seeknal.errors import ProjectError
from seeknal.nodes.sqlite_reading import is_query, own_type
from seeknal.workflow.settled import settled_run
from tests.engine.workflow.projects import executed_in, run, write, write_project


def change(file: Path, *statements: str, rows: Sequence[Sequence[Any]] = ()) -> None:
    """Execute statements in a database; the last one for each row where there are rows."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(file)) as connection, connection:
        for statement in statements[:-1] if rows else statements:
            connection.execute(statement)
        if rows:
            connection.executemany(statements[-1], rows)


def source(root: Path, more: str = "table: data/x.db\n") -> Path:
    return write_project(root, {"seeknal/s.yml": f"kind: source\nname: s\nsource: sqlite\n{more}"})


def project(root: Path, *statements: str, rows: Sequence[Sequence[Any]] = (), more: str = "table: data/x.db\n") -> Path:
    change(root / "data/x.db", *statements, rows=rows)
    return source(root, more)


def rows_of(root: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pyarrow.parquet.read_table(root / "target/cache/source/s.parquet").to_pylist()
    return rows


def read(root: Path) -> list[dict[str, Any]]:
    result = run(root)
    assert result.status == "success", result.problems()
    return rows_of(root)


def failure(root: Path) -> str:
    try:
        return str(run(root).problems()[0])
    except ProjectError as error:
        return str(error)


def schema_of(root: Path) -> dict[str, str]:
    artifact = run(root).nodes[0].artifact
    assert artifact is not None
    return artifact.schema()


@pytest.mark.parametrize(
    ("declared", "expected"),
    [
        ("INTEGER", "BIGINT"),
        ("int(11)", "BIGINT"),
        ("TINYINT", "BIGINT"),
        ("UNSIGNED BIG INT", "BIGINT"),
        ("REAL", "DOUBLE"),
        ("DOUBLE PRECISION", "DOUBLE"),
        ("FLOAT", "DOUBLE"),
        ("TEXT", "VARCHAR"),
        ("NVARCHAR(100)", "VARCHAR"),
        ("CHARACTER VARYING(20)", "VARCHAR"),
        ("DECIMAL(10,2)", "DECIMAL(10,2)"),
        ("BOOLEAN", "BOOLEAN"),
        ("DATE", "DATE"),
        ("DATETIME", "TIMESTAMP"),
        ("", None),
        ("BLOB", None),
        ("NUMERIC", None),
        ("whatever", None),
    ],
)
def test_declared_types_are_duckdbs(declared: str, expected: str | None) -> None:
    assert own_type(declared) == expected


def test_types_come_from_the_table(tmp_path: Path) -> None:
    root = project(
        tmp_path,
        "CREATE TABLE t (id INTEGER PRIMARY KEY, price DECIMAL(10, 2), day DATE, at DATETIME, ok BOOLEAN, name TEXT,"
        " raw BLOB, free, big INTEGER)",
        "INSERT INTO t VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        rows=[
            (1, 1.5, "2024-01-02", "2024-01-02 03:04:05", 1, "001", b"\x00\xff", 1, 2**62 + 1),
            (2, None, None, None, 0, "é", None, 2.5, None),
        ],
    )
    assert schema_of(root) == {
        "id": "BIGINT",
        "price": "DECIMAL(10,2)",
        "day": "DATE",
        "at": "TIMESTAMP",
        "ok": "BOOLEAN",
        "name": "VARCHAR",
        "raw": "BLOB",
        "free": "DOUBLE",
        "big": "BIGINT",
    }
    first, second = rows_of(root)
    assert (first["day"], first["at"]) == (datetime.date(2024, 1, 2), datetime.datetime(2024, 1, 2, 3, 4, 5))
    assert (first["raw"], first["big"], second["free"]) == (b"\x00\xff", 2**62 + 1, 2.5)


@pytest.mark.parametrize(
    ("type_", "value", "shown"),
    [
        ("INTEGER", "x", "is BIGINT in the table, but row 3 has 'x'"),
        ("INTEGER", 1.5, "is BIGINT in the table, but row 3 has '1.5'"),
        ("REAL", "", "is DOUBLE in the table, but row 3 has ''"),
        ("DATE", 1700000000, "is DATE in the table, but row 3 has '1700000000'"),
        ("DATETIME", "yesterday", "is TIMESTAMP in the table, but row 3 has 'yesterday'"),
        ("BOOLEAN", 2, "is BOOLEAN in the table, but row 3 has '2'"),
    ],
)
def test_value_that_does_not_fit_its_column_is_named(tmp_path: Path, type_: str, value: Any, shown: str) -> None:
    rows = [(None,), (None,), (value,), (value,)]
    root = project(tmp_path, f"CREATE TABLE t (a {type_})", "INSERT INTO t VALUES (?)", rows=rows)
    assert failure(root) == (
        f"data/x.db: source.s: column 'a' {shown} (correct the value, or declare the column's type in schema)"
    )
    write(root, "seeknal/s.yml", (root / "seeknal/s.yml").read_text() + "schema: [{name: a, data_type: string}]\n")
    assert read(root)[2] == {"a": str(value)}


def test_bytes_among_other_values_are_named(tmp_path: Path) -> None:
    root = project(tmp_path, "CREATE TABLE t (a)", "INSERT INTO t VALUES (?)", rows=[("x",), (b"y",)])
    assert "column 'a' holds bytes in row 2 and other values elsewhere" in failure(root)


def test_schema_is_the_contract(tmp_path: Path) -> None:
    more = "table: data/x.db\nschema: [{name: b, data_type: string}, {name: a, data_type: float}]\n"
    root = project(tmp_path, "CREATE TABLE t (a INTEGER, b INTEGER, c)", "INSERT INTO t VALUES (1, 2, 3)", more=more)
    assert read(root) == [{"b": "2", "a": 1.0}]
    write(root, "seeknal/s.yml", f"kind: source\nname: s\nsource: sqlite\n{more.replace('name: b', 'name: z')}")
    assert "column 'z' declared in schema but not found in data/x.db; the file has: a, b, c" in failure(root)


def test_many_rows_keep_their_order(tmp_path: Path) -> None:
    rows = [(number,) for number in range(25_000)]
    root = project(tmp_path, "CREATE TABLE t (a INTEGER)", "INSERT INTO t VALUES (?)", rows=rows)
    assert [row["a"] for row in read(root)] == list(range(25_000))


class TestWhichTable:
    TWO = ("CREATE TABLE t (a INTEGER)", "CREATE TABLE u (b INTEGER)", "INSERT INTO u VALUES (1)")

    @pytest.mark.parametrize(
        "more",
        [
            "table: data/x.db\nparams: {table: u}\n",
            "table: data/x.db\nparams: {table: U, schema: main}\n",
            "table: u\nparams: {path: data/x.db}\n",
            "params: {path: data/x.db, table: u}\n",
            "params: {path: data/x.db, query: 'SELECT b FROM u'}\n",
            "table: data/x.db\nparams: {query: 'WITH w AS (SELECT * FROM u) SELECT * FROM w; -- all'}\n",
        ],
    )
    def test_table_is_named_in_any_of_these_ways(self, tmp_path: Path, more: str) -> None:
        assert read(project(tmp_path, *self.TWO, more=more)) == [{"b": 1}]

    def test_view_is_a_table_too(self, tmp_path: Path) -> None:
        view = "CREATE VIEW v AS SELECT b + 1 AS c FROM u"
        assert read(project(tmp_path, *self.TWO, view, more="table: data/x.db\nparams: {table: v}\n")) == [{"c": 2}]

    @pytest.mark.parametrize(
        ("more", "said"),
        [
            ("table: data/x.db\n", "which table is meant? The file has: t, u"),
            ("table: data/x.db\nparams: {table: tt}\n", "there is no table 'tt'; the file has: t, u"),
            ("table: data/y.db\n", "data/y.db not found"),
            ("params: {table: u}\n", "'table' is missing"),
            ("table: data/*.db\nparams: {schema: other}\n", "a SQLite file has the schema 'main' only"),
            ("table: data/x.db\nparams: {table: 1}\n", "param 'table' must be text, not 1"),
            ("table: data/x.db\nparams: {table: t, query: SELECT 1}\n", "table and query are two ways"),
            ("table: data/x.db\nparams: {query: DELETE FROM t}\n", "query must be one SELECT"),
            ("table: data/x.db\nparams: {query: 'SELECT b FROM t'}\n", "params.query fails: no such column: b"),
            ("table: data/x.db\nparams: {query: 'SELECT 1 AS a, 2 AS A'}\n", "two columns are called 'A'"),
        ],
    )
    def test_what_cannot_be_meant_is_an_error(self, tmp_path: Path, more: str, said: str) -> None:
        assert said in failure(project(tmp_path, *self.TWO, more=more))

    @pytest.mark.parametrize(
        "query",
        [
            "WITH w AS (SELECT 1) DELETE FROM t",
            "SELECT 1; DELETE FROM t",
            "SELECT load_extension('x')",
            "WITH w AS (SELECT 1) INSERT INTO t SELECT 1",
        ],
    )
    def test_query_changes_nothing(self, tmp_path: Path, query: str) -> None:
        root = project(tmp_path, *self.TWO, more=f'table: data/x.db\nparams: {{query: "{query}"}}\n')
        before = (root / "data/x.db").read_bytes()
        assert failure(root)
        assert (root / "data/x.db").read_bytes() == before

    def test_order_of_a_query_is_kept(self, tmp_path: Path) -> None:
        query = "SELECT a FROM t ORDER BY a DESC"
        root = project(
            tmp_path,
            "CREATE TABLE t (a INTEGER)",
            "INSERT INTO t VALUES (1), (3), (2)",
            more=f"table: data/x.db\nparams: {{query: {query}}}\n",
        )
        assert [row["a"] for row in read(root)] == [3, 2, 1]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("SELECT 1", True),
        ("  -- why\n/* and */ with x as (select 1) select 1", True),
        ("INSERT INTO t SELECT 1", False),
        ("SELECTED", False),
        ("", False),
    ],
)
def test_query_begins_with_select_or_with(text: str, expected: bool) -> None:
    assert is_query(text) == expected


class TestContent:
    def test_only_new_content_is_read_again(self, tmp_path: Path) -> None:
        root = project(tmp_path, "CREATE TABLE t (a INTEGER)", "INSERT INTO t VALUES (1)")
        assert executed_in(root) == ["s"]
        assert executed_in(root) == []
        assert settled_run(root, publish=True) is not None
        change(root / "data/x.db", "INSERT INTO t VALUES (2)")
        assert settled_run(root, publish=True) is None
        assert executed_in(root) == ["s"]
        assert rows_of(root) == [{"a": 1}, {"a": 2}]

    def test_what_stands_in_the_log_counts(self, tmp_path: Path) -> None:
        root = project(tmp_path, "CREATE TABLE t (a INTEGER)", "INSERT INTO t VALUES (1)")
        assert executed_in(root) == ["s"]
        with closing(sqlite3.connect(root / "data/x.db")) as connection:
            connection.execute("PRAGMA journal_mode = WAL")
            with connection:
                connection.execute("INSERT INTO t VALUES (2)")
            assert settled_run(root, publish=True) is None
            assert executed_in(root) == ["s"]
            assert rows_of(root) == [{"a": 1}, {"a": 2}]
            assert executed_in(root) == []
            with connection:
                connection.execute("INSERT INTO t VALUES (3)")
            assert executed_in(root) == ["s"]
            assert len(rows_of(root)) == 3

    def test_reading_leaves_nothing_beside_the_database(self, tmp_path: Path) -> None:
        root = project(tmp_path, "PRAGMA journal_mode = WAL", "CREATE TABLE t (a INTEGER)")
        assert [path.name for path in (root / "data").iterdir()] == ["x.db"]
        assert read(root) == []
        assert [path.name for path in (root / "data").iterdir()] == ["x.db"]

    @pytest.mark.parametrize("content", [b"no database at all", b"SQLite format 3\x00" + bytes(100)])
    def test_what_is_no_database_is_said_so(self, tmp_path: Path, content: bytes) -> None:
        root = source(tmp_path)
        (root / "data").mkdir()
        (root / "data/x.db").write_bytes(content)
        assert failure(root).startswith("data/x.db: source.s: the ")

    def test_text_that_is_not_utf8_is_an_error(self, tmp_path: Path) -> None:
        root = project(tmp_path, "CREATE TABLE t (a TEXT)", "INSERT INTO t VALUES (CAST(x'ff' AS TEXT))")
        assert "a text is not UTF-8: column 'a'" in failure(root)
