from __future__ import annotations

from collections.abc import Iterator

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seeknal.dag.diff import ChangeCategory, classify_sql_change, describe_sql_change
from seeknal.dag.sql_diff import compare_sql

BREAKING, NON_BREAKING, METADATA = ChangeCategory.BREAKING, ChangeCategory.NON_BREAKING, ChangeCategory.METADATA


@pytest.mark.parametrize(
    ("old", "new", "category"),
    [
        ("SELECT a, b FROM t", "SELECT a FROM t", BREAKING),
        ("SELECT a FROM t", "SELECT a, b FROM t", NON_BREAKING),
        ("SELECT a FROM t", "SELECT a FROM t WHERE a > 1", NON_BREAKING),
        ("SELECT a FROM t WHERE b > 1", "SELECT a FROM t", NON_BREAKING),
        ("SELECT a AS x FROM t", "SELECT a AS y FROM t", BREAKING),
        ("SELECT a FROM t", "SELECT CAST(a AS INT) AS a FROM t", BREAKING),
        ("SELECT a FROM t", "SELECT t.a FROM t JOIN u ON t.k = u.k", NON_BREAKING),
        ("SELECT t.a FROM t JOIN u ON t.k = u.k", "SELECT t.a FROM t", BREAKING),
        ("SELECT a FROM t", "SELECT a FROM u", BREAKING),
        ("SELECT a, b FROM t", "SELECT b, a FROM t", NON_BREAKING),
        ("SELECT a FROM t", "select  a\nfrom t", METADATA),
        ("SELECT a FROM t", "SELECT a -- the key\nFROM t /* all */", METADATA),
        ("SELECT a FROM t", "SELECT a FROM t", METADATA),
        (None, None, METADATA),
        (None, "", METADATA),
        (None, "SELECT 1", NON_BREAKING),
        ("", "SELECT 1", NON_BREAKING),
        ("SELECT 1", None, BREAKING),
        ("SELECT 1", "-- nothing left", BREAKING),
        ("SELECT a FROM t", "SELEC a FRM t", NON_BREAKING),
        ("SELEC a FRM t", "SELECT b FROM t", NON_BREAKING),
        ("SELECT a FROM t", "SELECT a AS FROM t WHERE ((", NON_BREAKING),
    ],
)
def test_category_of_a_change_of_sql(old: str | None, new: str | None, category: ChangeCategory) -> None:
    assert classify_sql_change(old, new) is category


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("select sum(a) over (partition by b) from t", "SELECT SUM(a) OVER (PARTITION BY b) FROM t"),
        ("SELECT a FROM t WHERE a between 1 and 2", "SELECT a FROM t WHERE a BETWEEN 1 AND 2"),
        ("SELECT coalesce(a, 0)::int AS a FROM t", "SELECT COALESCE(a, 0)::INT AS a FROM t"),
        ("select a from t order by a nulls first;", "SELECT a FROM t ORDER BY a NULLS FIRST"),
    ],
)
def test_keyword_case_is_metadata_even_of_words_that_may_be_names(old: str, new: str) -> None:
    assert classify_sql_change(old, new) is METADATA


def test_case_of_a_name_is_no_keyword_case() -> None:
    assert classify_sql_change("SELECT 1 AS Over", "SELECT 1 AS over") is BREAKING
    assert classify_sql_change("SELECT x.Over FROM x", "SELECT x.OVER FROM x") is NON_BREAKING
    assert classify_sql_change("SELECT 'Over' AS a", "SELECT 'OVER' AS a") is NON_BREAKING


def test_details_name_each_column() -> None:
    old = "SELECT order_id, status, CAST(total AS INT) AS total FROM source.orders"
    new = "SELECT order_id, CAST(total AS DOUBLE) AS total, upper(state) AS state FROM source.orders WHERE total > 0"
    assert describe_sql_change(old, new) == [
        "Removed 'status' column",
        "Added 'state' column",
        "Changed type of 'total' from INT to DOUBLE",
        "Changed the filter (WHERE)",
    ]
    assert describe_sql_change("SELECT 1 AS a, 2 AS b", "SELECT 2 AS b, 3 AS a") == [
        "Changed how 'a' is computed",
        "Changed the order of the columns",
    ]
    assert describe_sql_change("SELECT a FROM t", "SELECT a FROM t") == []
    assert describe_sql_change("SELECT a FROM t", "SELECT a FROM t -- why") == ["Changed formatting or comments only"]


def test_tutorial_change_adds_one_column() -> None:
    old = "SELECT order_id, UPPER(TRIM(status)) AS status FROM source.orders WHERE total_amount > 0"
    new = """SELECT order_id, UPPER(TRIM(status)) AS status,
        -- NEW: Calculate discount percentage
        CASE WHEN quantity >= 3 THEN 0.10 ELSE 0.00 END as discount_pct
        FROM source.orders WHERE total_amount > 0"""
    change = compare_sql(old, new)
    assert change.category is NON_BREAKING
    assert change.details == ["Added 'discount_pct' column"]
    assert (change.removed_columns, change.added_columns) == ([], ["discount_pct"])


@pytest.mark.parametrize(
    ("old", "new", "category"),
    [
        ("SELECT * FROM t", "SELECT a FROM t", BREAKING),
        ("SELECT a FROM t", "SELECT * FROM t", NON_BREAKING),
        ("SELECT a + 1 AS x FROM t", "SELECT * FROM t", BREAKING),
        ("SELECT * FROM t", "SELECT * EXCLUDE (a) FROM t", BREAKING),
        ("SELECT * EXCLUDE (a) FROM t", "SELECT * FROM t", NON_BREAKING),
        ("SELECT * FROM t", "SELECT * RENAME (a AS b) FROM t", BREAKING),
        ("SELECT * FROM t", "SELECT * REPLACE (a + 1 AS a) FROM t", NON_BREAKING),
        ("SELECT * FROM t", "SELECT * REPLACE (a::INT AS a) FROM t", BREAKING),
        ("SELECT * FROM t", "SELECT * EXCLUDE (a), f(a) AS a FROM t", NON_BREAKING),
        ("SELECT * FROM t, u", "SELECT t.*, u.* FROM t, u", NON_BREAKING),
        ("SELECT * FROM t, u", "SELECT t.* FROM t, u", BREAKING),
        ("WITH c AS (SELECT a, b FROM t) SELECT * FROM c", "WITH c AS (SELECT a FROM t) SELECT * FROM c", BREAKING),
        ("WITH c AS (SELECT a FROM t) SELECT * FROM c", "SELECT * FROM (SELECT a, b FROM t) AS s", NON_BREAKING),
        ("WITH c(x) AS (SELECT a FROM t) SELECT * FROM c", "WITH c(y) AS (SELECT a FROM t) SELECT * FROM c", BREAKING),
        ("WITH c AS (SELECT a::INT AS a FROM t) FROM c", "WITH c AS (SELECT a::TEXT AS a FROM t) FROM c", BREAKING),
        ("SELECT a FROM t UNION SELECT b FROM u", "SELECT a FROM t UNION SELECT c FROM u", NON_BREAKING),
        ("SELECT a FROM t UNION SELECT b FROM u", "SELECT b FROM t UNION SELECT b FROM u", BREAKING),
        ("FROM t SEMI JOIN u USING (a)", "FROM t", BREAKING),
        (
            "CREATE TEMP TABLE x AS SELECT a, b FROM t; FROM x",
            "CREATE TEMP TABLE x AS SELECT a FROM t; FROM x",
            BREAKING,
        ),
        ("SELECT a FROM t; SELECT b FROM t", "SELECT c FROM t; SELECT b FROM t", NON_BREAKING),
        ("SELECT COLUMNS('a.*') FROM t", "SELECT COLUMNS('b.*') FROM t", BREAKING),
        ("SELECT a + b FROM t", "SELECT a - b FROM t", BREAKING),
        ("SELECT Status FROM t", "SELECT status FROM t", NON_BREAKING),
        ("PIVOT t ON a USING sum(b)", "PIVOT t ON a USING sum(c)", NON_BREAKING),
    ],
)
def test_stars_and_queries_within_queries_are_resolved(old: str, new: str, category: ChangeCategory) -> None:
    assert classify_sql_change(old, new) is category


def test_a_local_name_is_no_table() -> None:
    old = "WITH recent AS (SELECT * FROM source.orders) SELECT a FROM recent"
    new = "CREATE TEMP TABLE latest AS SELECT * FROM source.orders; SELECT a FROM latest"
    assert classify_sql_change(old, new) is NON_BREAKING
    assert "Removed table 'source.orders'" in describe_sql_change(old, "SELECT a FROM recent")


@pytest.mark.parametrize(
    "new",
    [
        "SELECT a FROM ref('source.orders')",
        "SELECT a FROM {{ ref('source.orders') }} AS o",
        "SELECT a FROM input_0",
        "SELECT a FROM __THIS__",
    ],
)
def test_every_way_to_name_an_input_is_the_same_table(new: str) -> None:
    inputs = ["source.orders"]
    change = compare_sql("SELECT a FROM source.orders", new, old_inputs=inputs, new_inputs=inputs)
    assert change.category is NON_BREAKING


def test_templates_do_not_stop_the_comparison() -> None:
    old = "SELECT a, {{ extra }} FROM {{ table }} WHERE {{ rules.valid }} AND d = '{{ today }}' LIMIT {{ n }}"
    assert classify_sql_change(old, old.replace("{{ n }}", "{{  n}}")) is METADATA
    assert classify_sql_change(old, old.replace("SELECT a", "SELECT a, b")) is NON_BREAKING
    assert describe_sql_change(old, old.replace(", {{ extra }}", "")) == ["Removed '{{ extra }}' column"]


def test_a_query_too_deep_to_parse_is_only_different() -> None:
    deep = "SELECT " + "(" * 5000 + "1" + ")" * 5000
    assert classify_sql_change("SELECT a FROM t", deep) is NON_BREAKING


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=40), st.text(max_size=40))
def test_any_two_texts_have_a_category(old: str, new: str) -> None:
    assert classify_sql_change(old, new) in ChangeCategory
    assert classify_sql_change(old, old) is METADATA


PROJECTIONS = st.lists(
    st.sampled_from(
        """a|b|t.c|A|(b)|a AS b|b AS x|a + b AS x|a + b|upper(c) AS c|count(*) OVER ()|*|t.*|* EXCLUDE (a)
        |* EXCLUDE (a, b)|t.* EXCLUDE (c)|* REPLACE (a + 1 AS a)|* RENAME (a AS z)""".split("|")
    ),
    min_size=1,
    max_size=3,
)
SHAPES = st.sampled_from(
    [
        "SELECT {} FROM t",
        "WITH q AS (SELECT {} FROM t) SELECT * FROM q",
        "SELECT s.* FROM (SELECT {} FROM t) AS s",
        "SELECT {} FROM t JOIN u ON a = d",
        "SELECT {} FROM t UNION ALL SELECT {} FROM t",
        "CREATE TEMP TABLE x AS SELECT {} FROM t; SELECT * FROM x",
    ]
)


def _columns(connection: duckdb.DuckDBPyConnection, sql: str) -> list[str]:
    """Ask DuckDB which columns a query gives, as they would be written to a file."""
    *before, last = sql.split("; ")
    connection.execute("BEGIN")
    try:
        for statement in before:
            connection.execute(statement)
        connection.execute(f"CREATE TABLE result AS {last}")
        return [name for name, *_ in connection.execute("DESCRIBE result").fetchall()]
    finally:
        connection.execute("ROLLBACK")


@pytest.fixture(scope="module")
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as connection:
        connection.execute("CREATE TABLE t (a INTEGER, b INTEGER, c VARCHAR); CREATE TABLE u (d INTEGER, e VARCHAR)")
        yield connection


@settings(max_examples=120, deadline=None)
@given(shapes=st.tuples(SHAPES, SHAPES), projections=st.tuples(PROJECTIONS, PROJECTIONS))
def test_no_column_that_duckdb_sees_vanish_is_missed(
    connection: duckdb.DuckDBPyConnection, shapes: tuple[str, str], projections: tuple[list[str], list[str]]
) -> None:
    old, new = (
        shape.replace("{}", ", ".join(projection)) for shape, projection in zip(shapes, projections, strict=True)
    )
    try:
        lost = set(_columns(connection, old)) - set(_columns(connection, new))
    except duckdb.Error:
        return
    if lost:
        assert classify_sql_change(old, new) is BREAKING, lost
