from __future__ import annotations

import functools
import itertools
import json
from collections.abc import Callable, Iterator
from typing import Any

import duckdb
import msgspec
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from seeknal.dag import binding
from seeknal.dag.binding import Binder, BindError, Bound
from seeknal.dag.sql import Sql, quoted_node, take_apart
from tests.engine.dag.queries import NAMES, NODES, TYPES, Table, questions, values

T = {
    "id": "INTEGER",
    "a": "INTEGER",
    "b": "DOUBLE",
    "c": "VARCHAR",
    "d": "DATE",
    "s": "STRUCT(x INTEGER, y VARCHAR)",
    "l": "INTEGER[]",
    "m": "MAP(VARCHAR, INTEGER)",
    "e": "ENUM('p', 'q')",
}
U = {"id": "INTEGER", "a": "INTEGER", "k": "VARCHAR", "v": "DOUBLE", "ts": "TIMESTAMP"}
ODD = {
    "my col": "INTEGER",
    "s.x": "INTEGER",
    "s": "STRUCT(x INTEGER)",
    "Zoë": "INTEGER",
    "select": "INTEGER",
    '"': "INTEGER",
}
TABLES = {"source.t": T, "source.u": U, "transform.odd": ODD, "transform.x-y.z": U}


@functools.cache
def parser() -> duckdb.DuckDBPyConnection:
    return duckdb.connect(config={"threads": 1})


def parse(query: str, nodes: tuple[str, ...] = tuple(TABLES)) -> Sql:
    sql = take_apart(query, {name.lower(): name for name in nodes}, lambda name: [], parser())
    assert not sql.problems, sql.problems
    return sql


@pytest.fixture(scope="module")
def shared_binder() -> Iterator[Binder]:
    made = Binder()
    yield made
    made.close()


@pytest.fixture
def binder(shared_binder: Binder) -> Binder:
    for node_id, columns in TABLES.items():
        shared_binder.declare(node_id, columns)
    return shared_binder


@pytest.fixture
def bind(binder: Binder) -> Callable[..., Bound]:
    def bound(query: str, inputs: tuple[str, ...] = ()) -> Bound:
        return binder.bind(parse(query), inputs)

    return bound


def reads(t: str | None = None, u: str | None = None) -> dict[str, tuple[str, ...] | None]:
    """What is expected to be read of source.t and source.u, as words; ``*`` means all columns."""
    found: dict[str, tuple[str, ...] | None] = {}
    for node_id, said in (("source.t", t), ("source.u", u)):
        if said is not None:
            found[node_id] = None if said == "*" else tuple(said.split())
    return found


EXACT = [
    ("SELECT a FROM source.t", reads("a")),
    ("FROM source.t SELECT a", reads("a")),
    ("SELECT A FROM Source.T", reads("a")),
    ("SELECT x.a FROM source.t AS x", reads("a")),
    ("SELECT source.t.a FROM source.t", reads("a")),
    ("SELECT 1 AS one FROM source.t", reads("")),
    ("SELECT count(*) AS n FROM source.t", reads("")),
    ("SELECT count(*) AS n FROM source.t, source.u", reads("", "")),
    ("SELECT count(a) AS n FROM source.t", reads("a")),
    ("SELECT count(*) AS n FROM (SELECT * FROM source.t)", reads("")),
    ("SELECT count(*) AS n FROM (SELECT DISTINCT a, c FROM source.t)", reads("a c")),
    ("SELECT max(a) AS n, min(b) AS o FROM source.t", reads("a b")),
    ("SELECT * FROM source.u", reads(u="id a k v ts")),
    ("SELECT * EXCLUDE (k, ts) FROM source.u", reads(u="id a v")),
    ("SELECT * REPLACE (a + 1 AS v) FROM source.u", reads(u="id a k ts")),
    ("SELECT * EXCLUDE (k) RENAME (v AS w) FROM source.u", reads(u="id a v ts")),
    ("SELECT * LIKE 'k%' FROM source.u", reads(u="k")),
    ("SELECT COLUMNS('^(a|v)$') FROM source.u", reads(u="a v")),
    ("SELECT COLUMNS(lambda name: name IN ('a', 'k')) FROM source.u", reads(u="a k")),
    ("SELECT greatest(*COLUMNS('^(a|id)$')) AS g FROM source.t", reads("id a")),
    ("SELECT min(COLUMNS('^(a|id)$')) FROM source.t", reads("id a")),
    ("SELECT s.x FROM source.t", reads("s")),
    ("SELECT (s).y, t.s.x FROM source.t AS t", reads("s")),
    ("SELECT unnest(s) FROM source.t", reads("s")),
    ("SELECT u FROM source.u AS u", reads(u="id a k v ts")),
    ("SELECT to_json(u) AS j FROM source.u AS u", reads(u="id a k v ts")),
    ("SELECT struct_pack(*COLUMNS('a|id')) AS p FROM source.u", reads(u="id a")),
    ("SELECT m['x'] AS x, e FROM source.t", reads("m e")),
    ("SELECT a FROM source.t WHERE b > 1 AND c LIKE 'x%'", reads("a b c")),
    ("SELECT a FROM source.t WHERE false", reads("a")),
    ("SELECT a FROM source.t WHERE 1 = 0 AND b > 1", reads("a b")),
    ("SELECT CASE WHEN true THEN 1 ELSE a END AS x FROM source.t", reads("a")),
    ("SELECT coalesce(1, a)::VARCHAR AS x FROM source.t", reads("a")),
    ("SELECT a FROM source.t ORDER BY b", reads("a b")),
    ("SELECT a FROM source.t ORDER BY b LIMIT 3 OFFSET 1", reads("a b")),
    ("SELECT a FROM source.t ORDER BY 1, d DESC LIMIT 10 PERCENT", reads("a d")),
    ("SELECT a FROM source.t LIMIT 0", reads("a")),
    ("SELECT a FROM source.t LIMIT (SELECT max(v)::INTEGER FROM source.u)", reads("a", "v")),
    ("SELECT a, c FROM source.t ORDER BY ALL", reads("a c")),
    ("SELECT a, count(*) AS n FROM source.t GROUP BY ALL", reads("a")),
    ("SELECT count(*) AS n FROM source.t GROUP BY c", reads("c")),
    ("SELECT c, sum(a) AS n FROM source.t GROUP BY ROLLUP (c) HAVING max(b) > 1", reads("a b c")),
    ("SELECT c FROM source.t GROUP BY GROUPING SETS ((c, a), ())", reads("a c")),
    ("SELECT sum(a) FILTER (WHERE b > 1) AS n FROM source.t", reads("a b")),
    ("SELECT string_agg(c ORDER BY d) AS x, arg_max(a, b) AS y FROM source.t", reads("a b c d")),
    ("SELECT DISTINCT a FROM source.t", reads("a")),
    ("SELECT DISTINCT ON (b) a FROM source.t ORDER BY d", reads("a b d")),
    ("SELECT row_number() OVER () AS n FROM source.t", reads("")),
    ("SELECT row_number() OVER (PARTITION BY b ORDER BY d) AS n FROM source.t", reads("b d")),
    ("SELECT sum(a) OVER w AS n FROM source.t WINDOW w AS (ORDER BY d RANGE INTERVAL 3 DAY PRECEDING)", reads("a d")),
    ("SELECT a FROM source.t QUALIFY rank() OVER (ORDER BY b) = 1", reads("a b")),
    (
        "SELECT a FROM (SELECT *, row_number() OVER (PARTITION BY id ORDER BY d) AS n FROM source.t) WHERE n = 1",
        reads("id a d"),
    ),
    ("SELECT lag(a, 1, NULL) OVER (ORDER BY id) AS n FROM source.t", reads("id a")),
    ("SELECT t.b FROM source.t JOIN source.u USING (id)", reads("id b", "id")),
    ("SELECT t.b FROM source.t LEFT JOIN source.u ON t.id = u.id AND u.v > 1", reads("id b", "id v")),
    ("SELECT t.b FROM source.t FULL JOIN source.u USING (id, a)", reads("id a b", "id a")),
    ("SELECT t.b FROM source.t NATURAL JOIN source.u", reads("id a b", "id a")),
    ("SELECT t.b FROM source.t, source.u WHERE t.id = u.id", reads("id b", "id")),
    ("SELECT t.b FROM source.t POSITIONAL JOIN source.u", reads("b", "")),
    ("SELECT t.b FROM source.t ASOF JOIN source.u ON t.id = u.id AND t.d >= u.ts", reads("id b d", "id ts")),
    ("SELECT b FROM source.t SEMI JOIN source.u USING (id)", reads("id b", "id")),
    ("SELECT t.b FROM source.t ANTI JOIN source.u ON t.a < u.a", reads("a b", "a")),
    ("SELECT t.b FROM source.t LEFT JOIN source.u ON t.a < u.a OR t.id > u.id", reads("id a b", "id a")),
    ("SELECT t.a FROM source.t LEFT JOIN (SELECT id FROM source.u GROUP BY id) AS g USING (id)", reads("id a", "id")),
    ("SELECT a FROM source.t WHERE id IN (SELECT id FROM source.u)", reads("id a", "id")),
    ("SELECT a FROM source.t WHERE (id, b) NOT IN (SELECT id, v FROM source.u)", reads("id a b", "id v")),
    ("SELECT a FROM source.t WHERE EXISTS (SELECT 1 FROM source.u WHERE u.id = t.id)", reads("id a", "id")),
    ("SELECT a FROM source.t WHERE a > ALL (SELECT a FROM source.u WHERE u.id = t.id)", reads("id a", "id a")),
    ("SELECT a, (SELECT max(v) FROM source.u WHERE u.id = t.id) AS v FROM source.t", reads("id a", "id v")),
    (
        "SELECT a, (SELECT count(*) FROM source.u WHERE u.id = t.id AND v > b) AS n FROM source.t",
        reads("id a b", "id v"),
    ),
    (
        "WITH x AS (SELECT * FROM source.t) SELECT a, (SELECT count(*) FROM source.u WHERE id = x.id) AS n FROM x",
        reads("id a", "id"),
    ),
    (
        "SELECT a, z.v FROM source.t, LATERAL (SELECT v FROM source.u WHERE u.id = t.id LIMIT 1) AS z",
        reads("id a", "id v"),
    ),
    ("SELECT a, z.x FROM source.t, LATERAL (VALUES (a + 1), (id)) AS z(x)", reads("id a")),
    ("WITH x AS (SELECT * FROM source.t) SELECT a FROM x", reads("a")),
    ("WITH x AS MATERIALIZED (SELECT * FROM source.t) SELECT a FROM x", reads("a")),
    ("WITH x AS (SELECT * FROM source.t) SELECT p.a, q.b FROM x AS p JOIN x AS q USING (id)", reads("id a b")),
    (
        "WITH x AS (SELECT * FROM source.t), y AS (SELECT * FROM x JOIN source.u USING (id)) SELECT k FROM y",
        reads("id", "id k"),
    ),
    ("WITH unused AS (SELECT v FROM source.u) SELECT a FROM source.t", reads("a", "")),
    (
        "WITH RECURSIVE r(n) AS (SELECT id FROM source.t UNION ALL SELECT n + 1 FROM r WHERE n < 3) SELECT n FROM r",
        reads("id"),
    ),
    (
        "WITH RECURSIVE r AS (SELECT * FROM source.t UNION SELECT * FROM r WHERE id < 3) SELECT a FROM r",
        reads(" ".join(T)),
    ),
    ("SELECT a FROM source.t UNION ALL SELECT a FROM source.u", reads("a", "a")),
    ("SELECT a, b FROM source.t UNION ALL BY NAME SELECT a, v FROM source.u", reads("a b", "a v")),
    ("SELECT a FROM source.t EXCEPT SELECT id FROM source.u", reads("a", "id")),
    ("SELECT a FROM (SELECT * FROM source.t UNION ALL SELECT * FROM source.t)", reads("a")),
    ("SELECT a FROM (SELECT a, c FROM source.t INTERSECT ALL SELECT a, k FROM source.u)", reads("a c", "a k")),
    ("VALUES (1), (2)", {}),
    ("SELECT a FROM source.t, (VALUES (1), (2)) AS v(x) WHERE x = id", reads("id a")),
    ("SELECT a, x FROM source.t, range(id) AS r(x)", reads("id a")),
    ("SELECT x FROM generate_series(1, 3) AS g(x)", {}),
    ("SELECT a, unnest(l) AS x FROM source.t", reads("a l")),
    ("SELECT a, x FROM source.t, unnest(l) AS z(x)", reads("a l")),
    ("SELECT list_transform(l, lambda x: x + a) AS n FROM source.t", reads("a l")),
    ("SELECT [x + a for x in l if x > id] AS n FROM source.t", reads("id a l")),
    ("SELECT a, value FROM source.t, json_each(c)", reads("a c")),
    ("FROM (SELECT a, id FROM source.t) UNPIVOT (v FOR n IN (a, id))", reads("id a")),
    ("UNPIVOT source.u ON a, id", reads(u="id a k v ts")),
    ("FROM source.t PIVOT (sum(b) FOR c IN ('x', 'y') GROUP BY a)", reads("a b c")),
    ("PIVOT (SELECT a, b, c FROM source.t) ON c IN ('x', 'y') USING sum(b)", reads("a b c")),
    ("SELECT a FROM source.t USING SAMPLE reservoir(3 ROWS) REPEATABLE (1)", reads("a")),
    ("SELECT #2 FROM source.u", reads(u="a")),
    ("SELECT x FROM source.u AS r(w, x)", reads(u="a")),
    ("SELECT d + INTERVAL 3 DAY AS x, date_trunc('month', d) AS y FROM source.t", reads("d")),
    ("SELECT a FROM source.t WHERE d >= current_date - INTERVAL 7 DAY AND c IN ('x', NULL)", reads("a c d")),
    ("SELECT input_0.a, INPUT_1.v FROM input_0 JOIN input_1 USING (id)", reads("id a", "id v")),
]


@pytest.mark.parametrize(("query", "expected"), EXACT, ids=[query for query, _ in EXACT])
def test_reads_are_exact(bind: Callable[..., Bound], query: str, expected: dict[str, tuple[str, ...] | None]) -> None:
    assert bind(query, ("source.t", "source.u")).reads == expected


# What the answer "all columns" is for: a plan that shows less than what can matter.
@pytest.mark.parametrize("query", [case[0] for case in EXACT])
def test_a_query_with_its_tables_filled_in_is_bound_as_it_is_with_views(binder: Binder, query: str) -> None:
    sql = parse(query)
    inputs = ("source.t", "source.u")
    assert binder.bind(sql, inputs) == binder.bind(msgspec.structs.replace(sql, places=()), inputs)


def test_most_queries_need_no_views(binder: Binder) -> None:
    needing = [query for query, _ in EXACT if not parse(query).places and "source." in query]
    assert len(needing) < len(EXACT) / 4, needing


EVERYTHING = [
    "SELECT column_name FROM (DESCRIBE source.u)",
    "SELECT max FROM (SUMMARIZE source.u)",
    "DESCRIBE source.u",
    "PIVOT source.u ON k USING sum(v)",
    "SELECT count(*) AS n FROM (PIVOT source.u ON k USING sum(v) GROUP BY a)",
    "PIVOT source.u ON k IN (SELECT 'x') USING sum(v)",
    "CREATE TEMP TABLE x AS SELECT a FROM source.u; SELECT a FROM x",
    "CREATE TEMP VIEW x AS SELECT a FROM source.u; SELECT a FROM x",
    "CREATE TEMP MACRO twice(x) AS x * 2; SELECT twice(a) AS a FROM source.u",
    "CREATE TEMP MACRO few() AS TABLE SELECT a FROM source.u; SELECT a FROM few()",
    "SELECT typeof(a) AS t FROM source.u",
    "SELECT count(*) AS n FROM source.u WHERE pg_typeof(v) = 'double'",
    "SELECT can_cast_implicitly(a, v) AS x FROM source.u",
    "SELECT coalesce(a + NULL, 1)::VARCHAR AS x FROM source.u",
    "SELECT coalesce(a + TRY_CAST('x' AS INTEGER), 1)::VARCHAR AS x FROM source.u",
    "SELECT coalesce(a + nullif(1, 1), 1)::VARCHAR AS x FROM source.u",
    "SELECT coalesce(greatest(q + NULL, 0), 1)::VARCHAR AS x FROM (SELECT 1 AS q UNION ALL SELECT v FROM source.u)",
]


@pytest.mark.parametrize("query", EVERYTHING)
def test_where_a_read_could_hide_all_columns_are_read(bind: Callable[..., Bound], query: str) -> None:
    assert bind(query).reads == {"source.u": None}


def test_an_input_that_the_query_does_not_name_is_left_out(bind: Callable[..., Bound]) -> None:
    assert bind("SELECT a FROM source.t", ("source.t", "source.u")).reads == reads("a")


def test_columns_with_odd_names_are_read_by_themselves(bind: Callable[..., Bound]) -> None:
    for name in ODD:
        # Both a field of s and a column are called s.x; the plan does not tell them apart.
        expected = ("s.x", "s") if name == "s.x" else (name,)
        assert bind("SELECT " + '"' + name.replace('"', '""') + '" FROM transform.odd').reads == {
            "transform.odd": expected
        }
    assert bind("SELECT odd.s.x FROM transform.odd").reads == {"transform.odd": ("s.x", "s")}
    assert bind('SELECT zoë, "MY COL" FROM transform.odd').reads == {"transform.odd": ("my col", "Zoë")}


def test_nodes_with_dots_and_dashes_in_their_names_can_be_read(bind: Callable[..., Bound]) -> None:
    assert bind('SELECT k FROM transform."x-y.z"').reads == {"transform.x-y.z": ("k",)}


@pytest.mark.parametrize(
    "query", ["SELECT rowid FROM source.t", 'SELECT t."ROWID" FROM source.t', "SELECT max(rowid) FROM source.t"]
)
def test_row_ids_of_inputs_are_refused(bind: Callable[..., Bound], query: str) -> None:
    with pytest.raises(BindError, match=r"(?i)rowid"):
        bind(query)


def test_a_column_called_rowid_is_a_column(binder: Binder) -> None:
    binder.declare("source.numbered", {"rowid": "INTEGER", "a": "INTEGER"})
    sql = parse("SELECT rowid FROM source.numbered", ("source.numbered",))
    assert binder.bind(sql, ()).reads == {"source.numbered": ("rowid",)}


# Name capture: a column that an input got since changes what a name means, so it must be among the reads.
CAPTURES = [
    ("SELECT (SELECT max(v) FROM source.u) AS x FROM source.t", "source.t", "v", False),
    ("SELECT (SELECT max(new) FROM source.u) AS x FROM (SELECT a AS new FROM source.t)", "source.u", "new", True),
    ("SELECT a AS new, new + 1 AS y FROM source.t", "source.t", "new", True),
    ("SELECT a AS new FROM source.t ORDER BY new", "source.t", "new", False),
    ("SELECT max(a) AS y FROM (SELECT a, 1 AS new FROM source.t) GROUP BY new", "source.t", "new", False),
    ("SELECT 1 AS new, count(*) AS n FROM source.t GROUP BY new", "source.t", "new", True),
    ("SELECT a % 2 AS new FROM source.t WHERE new = 1", "source.t", "new", True),
    ("SELECT t.a FROM source.t NATURAL JOIN source.u", "source.t", "k", True),
    ("SELECT count(*) AS n FROM source.t NATURAL JOIN source.u", "source.u", "c", True),
    ("SELECT count(*) AS n FROM source.t JOIN source.u USING (id)", "source.t", "k", False),
    ("SELECT a FROM source.t WHERE EXISTS (SELECT 1 FROM source.u WHERE c = 'x')", "source.u", "c", True),
    ("SELECT a, z FROM source.t, LATERAL (SELECT c AS z FROM source.u) AS w", "source.u", "c", True),
    ("SELECT greatest(*COLUMNS('^a')) AS g FROM source.t", "source.t", "a_new", True),
    ("SELECT hash(t) AS h FROM source.t AS t", "source.t", "new", True),
    ("SELECT count(*) AS n FROM (SELECT DISTINCT * FROM source.t)", "source.t", "new", True),
    ("SELECT max(c) AS c FROM source.t GROUP BY ALL", "source.t", "new", False),
    ("WITH new AS (SELECT 1 AS x) SELECT a FROM source.t, new", "source.t", "new", False),
]


@pytest.mark.parametrize(("query", "node_id", "column", "captures"), CAPTURES, ids=[case[0] for case in CAPTURES])
def test_a_column_added_later_is_read_if_it_captures_a_name(
    query: str, node_id: str, column: str, captures: bool
) -> None:
    binder = Binder()
    try:
        for name in ("source.t", "source.u"):
            binder.declare(name, TABLES[name])
        before = binder.bind(parse(query), ())
        binder.declare(node_id, {**TABLES[node_id], column: "VARCHAR" if column in ("k", "c") else "INTEGER"})
        after = binder.bind(parse(query), ())
    finally:
        binder.close()
    assert after.schema == before.schema or captures
    if captures:
        assert column in (after.reads[node_id] or ())
    else:
        assert after.reads == before.reads


# schemas


def test_the_schema_is_what_the_query_gives_in_its_order(bind: Callable[..., Bound]) -> None:
    assert bind("SELECT v AS second, a, count(*) AS n FROM source.u GROUP BY ALL").schema == {
        "second": "DOUBLE",
        "a": "INTEGER",
        "n": "BIGINT",
    }


@pytest.mark.parametrize(
    "query",
    [
        "PIVOT source.u ON k USING sum(v)",
        "SELECT x FROM (PIVOT source.u ON k USING sum(v) GROUP BY a)",
        "WITH p AS (PIVOT source.u ON k USING sum(v)) SELECT * FROM p",
        "CREATE TEMP TABLE p AS PIVOT source.u ON k USING sum(v); SELECT * FROM p",
        "CREATE TEMP TYPE kinds AS ENUM (SELECT DISTINCT k FROM source.u); SELECT k::kinds AS k FROM source.u",
    ],
)
def test_a_schema_that_depends_on_the_data_is_unknown(bind: Callable[..., Bound], query: str) -> None:
    assert bind(query).schema is None


def test_every_type_of_a_schema_can_be_declared_again(bind: Callable[..., Bound], binder: Binder) -> None:
    schema = bind(
        """CREATE TEMP TYPE mood AS ENUM ('it''s', 'b'); CREATE TEMP TYPE pair AS STRUCT(x INTEGER, y mood);
        SELECT 'b'::mood AS m, NULL::pair AS p, NULL AS n, [NULL] AS l, {'a b': 1, 'select': {'"': 2}} AS s, 1.5 AS d,
        union_value(k := 1) AS u, MAP {'a': [DATE '2020-01-01']} AS map, now() AS w, [1, 2]::INTEGER[2] AS r,
        '1'::JSON AS j"""
    ).schema
    assert schema is not None
    binder.declare("source.again", schema)
    assert binder.bind(parse("FROM source.again", ("source.again",)), ()).schema == schema


@pytest.mark.parametrize(
    "query", ["SELECT a, a FROM source.t", "SELECT t.a, u.a FROM source.t, source.u", "SELECT 1 AS x, 2 AS X"]
)
def test_two_output_columns_of_one_name_are_refused(bind: Callable[..., Bound], query: str) -> None:
    with pytest.raises(BindError, match="two output columns are called"):
        bind(query)


def test_planning_computes_no_rows(bind: Callable[..., Bound]) -> None:
    query = "CREATE TEMP TABLE x AS FROM range(1_000_000_000_000); CREATE TEMP VIEW y AS FROM range(1000000000000); "
    assert bind(query + "SELECT count(*) AS n FROM x, y").schema == {"n": "BIGINT"}


def test_what_a_statement_creates_is_gone_afterwards(bind: Callable[..., Bound], binder: Binder) -> None:
    query = (
        "CREATE TEMP TABLE one AS SELECT 1 AS x; CREATE TEMP VIEW two AS FROM one; CREATE TEMP SEQUENCE six; "
        "CREATE TEMP MACRO three(x) AS x, (x, y) AS y; CREATE TEMP MACRO four() AS TABLE SELECT 4 AS x; "
        "CREATE TEMP TYPE five AS ENUM ('a'); CREATE TEMP TYPE seven AS STRUCT(x five); "
        "SELECT three(x) AS x, nextval('six') AS y, 'a'::five AS z FROM two, four() AS f(w)"
    )
    assert bind(query) == bind(query)
    left = binder.connection.execute(
        "SELECT table_name FROM duckdb_tables() WHERE temporary"
        " UNION ALL SELECT view_name FROM duckdb_views() WHERE temporary AND NOT internal"
        " UNION ALL SELECT function_name FROM duckdb_functions() WHERE database_name = 'temp'"
        " UNION ALL SELECT type_name FROM duckdb_types() WHERE database_name = 'temp' AND NOT internal"
        " UNION ALL SELECT sequence_name FROM duckdb_sequences()"
    ).fetchall()
    assert left == []


def test_a_failed_query_leaves_the_binder_clean(bind: Callable[..., Bound]) -> None:
    for query in ("CREATE TEMP TABLE x AS SELECT 1 AS a; SELECT nope FROM x", "SELECT nope FROM input_0"):
        for _ in range(2):
            with pytest.raises(BindError, match="nope"):
                bind(query, ("source.t",))


def test_an_error_stands_at_its_place_in_the_text(bind: Callable[..., Bound]) -> None:
    for query in (
        "SELECT 'é😀', a,\n  amnt FROM source.t",
        "CREATE TEMP TABLE x AS SELECT 'é' AS y, amnt FROM source.t; SELECT 1",
        "-- SELECT amnt\nCREATE TEMP VIEW x AS SELECT 1 AS y; /* amnt */ SELECT amnt FROM x",
        "SELECT * EXCLUDE (amnt) FROM source.t",
        "SELECT s.amnt FROM source.t",
    ):
        with pytest.raises(BindError) as caught:
            bind(query)
        assert caught.value.problem.offset is not None
        assert query[caught.value.problem.offset :].startswith(("amnt", "s.amnt"))


def test_the_binders_candidates_become_the_hint(bind: Callable[..., Bound]) -> None:
    with pytest.raises(BindError) as caught:
        bind("SELECT vv FROM source.u")
    assert '"v"' in caught.value.problem.hint
    with pytest.raises(BindError) as caught:
        bind("SELECT a + k FROM source.u")
    assert len(caught.value.problem.hint) < 300


def test_a_node_may_change_its_columns_and_be_forgotten(binder: Binder) -> None:
    sql = parse("SELECT * FROM source.changing", ("source.changing",))
    for columns in (
        {"a": "INTEGER"},
        {"a": "VARCHAR"},
        {"b": "INTEGER", "a": "VARCHAR"},
        {"a": "VARCHAR", "b": "INTEGER"},
    ):
        binder.declare("source.changing", columns)
        assert list((binder.bind(sql, ()).schema or {}).items()) == list(columns.items())
    binder.forget("source.changing")
    with pytest.raises(BindError, match="does not exist"):
        binder.bind(sql, ())


def test_the_binder_reads_no_file(binder: Binder, tmp_path: Any) -> None:
    (tmp_path / "x.csv").write_text("a\n1\n")
    for query in (f"FROM '{tmp_path}/x.csv'", f"FROM read_csv('{tmp_path}/x.csv')", "FROM glob('/etc/*')"):
        with pytest.raises(BindError):
            binder.bind(Sql(query, (query,), (query,), (0,)), ())


def test_a_table_that_is_scanned_unnamed_is_never_passed_over(binder: Binder) -> None:
    query = "SELECT a FROM source.t"
    with pytest.raises(BindError, match="does not name"):
        binder.bind(Sql(query, (query,), (query,), (0,)), ())


# the operators of plans


def operators(binder: Binder, query: str) -> set[str]:
    row = binder.connection.execute(f"EXPLAIN (FORMAT JSON) {query}").fetchall()[0]
    stack, names = list(json.loads(row[1])), set()
    while stack:
        operator = stack.pop()
        names.add(operator["name"].strip())
        stack += operator["children"]
    return names


def test_every_operator_that_counts_as_plain_is_seen_in_a_plan_of_a_test(binder: Binder) -> None:
    seen: set[str] = set()
    queries = [query for query, _ in EXACT if "input_" not in query]
    for query in [
        *queries,
        "SELECT a FROM source.t USING SAMPLE 10%",
        "SELECT 1",
        "SELECT a FROM source.t TABLESAMPLE 3 ROWS",
    ]:
        seen |= operators(binder, query)
    assert binding._PLAIN_OPERATORS - seen == set()


def test_only_chosen_optimizers_are_on(binder: Binder) -> None:
    disabled = binder.connection.execute("SELECT current_setting('disabled_optimizers')").fetchall()[0][0].split(",")
    known = {name for (name,) in binder.connection.execute("SELECT name FROM duckdb_optimizers()").fetchall()}
    assert known - set(disabled) == binding._OPTIMIZERS


# the property: what is not read does not matter


class Runner:
    """Runs queries over real rows, in an order of rows that depends on nothing else than the rows."""

    def __init__(self) -> None:
        # DuckDB's threads for I/O may change the order of rows even where there is one thread for work.
        self.connection = duckdb.connect(config={"threads": 1, "async_threads": 0})
        self.connection.execute("CREATE SCHEMA source; CREATE SCHEMA transform")
        self.made: dict[str, Table] = {}

    def rows(self, query: str, tables: dict[str, Table]) -> list[tuple[str, ...]]:
        for node_id, table in tables.items():
            if self.made.get(node_id) != table:
                name = node_id.replace(".", "_")
                self.connection.execute(f"CREATE OR REPLACE TABLE {name} AS {table.query()}")
                self.connection.execute(f"CREATE OR REPLACE VIEW {quoted_node(node_id)} AS FROM {name}")
                self.made[node_id] = table
        return [tuple(map(repr, row)) for row in self.connection.execute(query).fetchall()]


@pytest.fixture(scope="module")
def runner() -> Iterator[Runner]:
    made = Runner()
    yield made
    made.connection.close()


def bound_over(binder: Binder, sql: Sql, tables: dict[str, Table]) -> Bound | None:
    for node_id, table in tables.items():
        binder.declare(node_id, table.columns)
    try:
        return binder.bind(sql, ())
    except BindError:
        return None


@st.composite
def changes(draw: st.DrawFn, table: Table, read: tuple[str, ...] | None) -> Table:
    """The table with a column that is not read as it was: other values or type, no such column, a new one.

    Where all columns are read (``read`` None), also those to come, there is none.
    """
    if read is None:
        return table
    unread = [name for name in table.columns if name not in read]
    free = [name for name in NAMES if name.lower() not in map(str.lower, table.columns)]
    ways = (["values", "type"] if unread else []) + (["drop"] if unread and len(table.columns) > 1 else [])
    way = draw(st.sampled_from(ways + (["add"] if free else []))) if ways or free else "none"
    columns, cells = dict(table.columns), dict(table.values)
    if way == "add":
        name, type_ = draw(st.sampled_from(free)), draw(st.sampled_from(TYPES))
        items = list(columns.items())
        items.insert(draw(st.integers(0, len(items))), (name, type_))
        columns, cells[name] = dict(items), draw(values(type_, table.row_count))
    elif way != "none":
        name = draw(st.sampled_from(unread))
        if way == "drop":
            del columns[name]
        else:
            columns[name] = draw(st.sampled_from(TYPES)) if way == "type" else columns[name]
            cells[name] = draw(values(columns[name], table.row_count))
    return Table(columns, cells, table.row_count)


@settings(
    max_examples=60,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.data_too_large],
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
)
@given(question=questions(), data=st.data())
def test_what_is_not_read_does_not_change_the_result(
    binder: Binder, runner: Runner, question: tuple[dict[str, Table], str], data: st.DataObject
) -> None:
    tables, query = question
    sql = take_apart(query, {node_id: node_id for node_id in NODES}, lambda name: [], runner.connection)
    bound = None if sql.problems else bound_over(binder, sql, tables)
    if bound is None:
        return
    try:
        rows = runner.rows(query, tables)
    except duckdb.Error:
        return
    for node_id, table in tables.items():
        for _ in range(2):
            changed = {**tables, node_id: data.draw(changes(table, bound.reads.get(node_id, ())))}
            if bound_over(binder, sql, changed) == bound:
                assert runner.rows(query, changed) == rows


def test_nodes_with_the_same_columns_are_told_apart_and_share_tables(binder: Binder) -> None:
    same = {"id": "INTEGER", "a": "INTEGER", "b": "INTEGER"}
    names = tuple(f"source.same_{number}" for number in range(20))
    for name in names:
        binder.declare(name, same)
    before = binder.table_count
    sql = "SELECT x.a, y.b, z.a AS c FROM {} x JOIN {} y ON x.id = y.id JOIN {} z ON true"
    for first, second in itertools.pairwise(names):
        bound = binder.bind(parse(sql.format(first, second, first), names), ())
        assert bound.reads == {first: ("id", "a"), second: ("id", "b")}
    assert binder.table_count - before <= 1
    # With views as well, which queries of several statements see.
    several = parse(f"CREATE TEMP TABLE t AS SELECT a FROM {names[0]}; SELECT t.a, y.b FROM t, {names[1]} y", names)
    assert binder.bind(several, ()).schema == {"a": "INTEGER", "b": "INTEGER"}
