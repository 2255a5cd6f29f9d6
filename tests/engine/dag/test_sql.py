from __future__ import annotations

import functools

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seeknal.dag.sql import Sql, literal, quoted, quoted_node, take_apart

NODES = (
    "source.orders",
    "source.customers",
    "transform.clean_orders",
    "transform.x-y",
    "transform.v1.2",
    "exposure.out",
)


@functools.cache
def parser() -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect(config={"threads": 1, "enable_external_access": False})
    connection.execute("SET errors_as_json = true")
    return connection


def resolve_bare(name: str) -> list[str]:
    twins = {"twin": ["source.twin", "transform.twin"]}
    return twins.get(name.lower(), [node for node in NODES if node.partition(".")[2] == name.lower()])


def apart(text: str) -> Sql:
    return take_apart(text, {node.lower(): node for node in NODES}, resolve_bare, parser())


def good(text: str) -> Sql:
    sql = apart(text)
    assert not sql.problems, sql.problems
    return sql


# references

REFERENCES = [
    ("SELECT 1", []),
    ("FROM source.orders", ["source.orders"]),
    ("FROM SOURCE.Orders", ["source.orders"]),
    ('FROM "source"."ORDERS" AS o(a, b)', ["source.orders"]),
    ("TABLE source.orders", ["source.orders"]),
    ("DESCRIBE source.orders", ["source.orders"]),
    ("FROM source /* of */ .\n orders", ["source.orders"]),
    ('FROM transform."x-y", transform."v1.2"', ["transform.x-y", "transform.v1.2"]),
    ("FROM source.customers NATURAL JOIN source.orders", ["source.customers", "source.orders"]),
    ("SELECT (SELECT max(id) FROM source.customers) FROM source.orders", ["source.customers", "source.orders"]),
    (
        "SELECT 1 WHERE EXISTS (FROM source.orders) OR 1 IN (SELECT id FROM source.customers)",
        ["source.orders", "source.customers"],
    ),
    ("SELECT ARRAY(SELECT id FROM source.orders) AS ids", ["source.orders"]),
    ("SELECT * FROM range(3) AS r(x), LATERAL (SELECT x FROM source.orders) AS o", ["source.orders"]),
    ("SELECT 1 LIMIT (SELECT count(*) FROM source.orders)", ["source.orders"]),
    ("WITH orders AS (FROM source.orders) FROM orders", ["source.orders"]),
    ("WITH source AS (SELECT 1 AS orders) SELECT source.orders FROM source", []),
    ("WITH a AS (FROM source.orders), b AS (FROM a) FROM b, a", ["source.orders"]),
    (
        "WITH RECURSIVE r(n) AS (SELECT id FROM source.orders UNION ALL SELECT n + 1 FROM r WHERE n < 3) FROM r",
        ["source.orders"],
    ),
    (
        "WITH RECURSIVE r(n) USING KEY (n) AS (SELECT 1 UNION SELECT n + 1 FROM recurring.r) FROM r",
        [],
    ),
    ('SELECT \'source.orders\', "source.orders" FROM (SELECT 1 AS "source.orders") -- source.customers', []),
    ("PIVOT source.orders ON status IN ('a') USING sum(x)", ["source.orders"]),
    ("PIVOT source.orders ON status USING sum(x)", ["source.orders"]),
    (
        'FROM (PIVOT "source"."orders" ON status USING sum(x)) JOIN source.customers USING (id)',
        ["source.orders", "source.customers"],
    ),
    ("CREATE TEMP TABLE x AS FROM source.orders; FROM x", ["source.orders"]),
    ("CREATE TEMP VIEW x(a, b) AS FROM source.orders; FROM temp.x", ["source.orders"]),
    (
        "CREATE OR REPLACE TEMPORARY TABLE x AS FROM source.orders; FROM x, source.customers",
        ["source.orders", "source.customers"],
    ),
    ("CREATE TEMP MACRO n() AS (SELECT count(*) FROM source.orders); SELECT n()", ["source.orders"]),
    ("CREATE TEMP MACRO n(a) AS a, (a, b) AS (SELECT max(id) FROM source.orders); SELECT n(1)", ["source.orders"]),
    ("CREATE TEMP MACRO t(n) AS TABLE FROM source.orders LIMIT n; FROM t(3)", ["source.orders"]),
    ("CREATE TEMP TABLE x AS PIVOT source.orders ON status USING sum(x); FROM x", ["source.orders"]),
    ("CREATE TEMP TYPE t AS ENUM (SELECT name FROM source.customers); SELECT 'a'::t", ["source.customers"]),
]


@pytest.mark.parametrize(("text", "expected"), REFERENCES, ids=[text for text, _ in REFERENCES])
def test_tables_are_found_wherever_a_query_names_them(text: str, expected: list[str]) -> None:
    sql = good(text)
    assert list(sql.references) == expected
    assert sql.positions == ()
    for node_id in expected:
        at = sql.text[sql.offset_of(node_id) :].lower()
        assert at.startswith((node_id.partition(".")[0], f'"{node_id.partition(".")[0]}"'))


@pytest.mark.parametrize(
    ("text", "replaced", "references"),
    [
        ("FROM ref('source.orders')", 'FROM "source"."orders"', ("source.orders",)),
        ('FROM ref("Source.Orders")', 'FROM "source"."orders"', ("source.orders",)),
        ("FROM {{ ref('orders') }} AS o", 'FROM "source"."orders" AS o', ("source.orders",)),
        ('FROM {{ref( "clean_orders" )}}', 'FROM "transform"."clean_orders"', ("transform.clean_orders",)),
        ("FROM ref (\n 'v1.2')", 'FROM "transform"."v1.2"', ("transform.v1.2",)),
        ("SELECT 'ref(''orders'')' AS a -- ref('no')\n /* {{ ref('no') }} */", None, ()),
        ("SELECT x.y AS ref FROM (SELECT 1 AS y) AS x", None, ()),
    ],
)
def test_ref_stands_for_the_quoted_name_of_its_node(
    text: str, replaced: str | None, references: tuple[str, ...]
) -> None:
    sql = good(text)
    assert sql.text == (replaced or text)
    assert sql.references == references


@given(
    st.lists(
        st.sampled_from(["ref('orders')", '{{ ref("source.customers") }}', "ref('transform.clean_orders')"]), max_size=4
    )
)
@settings(max_examples=30)
def test_offsets_lead_back_to_the_text_before_ref_was_replaced(refs: list[str]) -> None:
    text = (
        "SELECT 'é' FROM " + "".join(f"{ref} AS mark{index}, " for index, ref in enumerate(refs)) + "range(3) AS last"
    )
    sql = good(text)
    for index in range(len(refs)):
        assert sql.original_offset(sql.text.index(f"mark{index}")) == text.index(f"mark{index}")
    assert sql.original_offset(sql.text.index("last")) == text.index("last")
    assert sql.original_offset(len(sql.text)) == len(text)


def test_positional_names_are_tables_unless_a_cte_hides_them() -> None:
    assert good("SELECT input_1.x FROM INPUT_0 JOIN input_1 USING (id)").positions == (("input_0", 0), ("input_1", 1))
    assert good("SELECT id, __this__.x FROM __THIS__").positions == (("__this__", 0),)
    assert good("SELECT 'input_0' AS input_1, 1 AS input_2 -- input_3").positions == ()
    assert good("WITH input_0 AS (SELECT 1 AS x) FROM input_0").positions == ()
    assert good("WITH a AS (FROM input_0), input_0 AS (SELECT 1 AS x) FROM input_0, a").positions == (("input_0", 0),)
    assert good("CREATE TEMP VIEW input_0 AS SELECT 1 AS x; FROM input_0").positions == ()


def test_a_positional_name_is_sure_unless_only_its_letters_are_known() -> None:
    assert good("FROM input_0").sure
    pivot = good("PIVOT input_0 ON input_7 USING sum(x)")
    assert pivot.positions == (("input_0", 0), ("input_7", 7))
    assert not pivot.sure


def test_statements_are_cut_where_semicolons_stand() -> None:
    text = (
        " -- SELECT 1;\nCREATE TEMP TABLE x AS SELECT ';' AS a /* ; */ ;;\n-- CREATE\n SELECT $$;$$, a FROM x ; -- ;\n"
    )
    sql = good(text)
    assert sql.statements == ("CREATE TEMP TABLE x AS SELECT ';' AS a", "SELECT $$;$$, a FROM x")
    assert [text[start:].startswith(said) for start, said in zip(sql.starts, sql.statements, strict=True)] == [
        True,
        True,
    ]
    assert sql.bare == ("CREATE TEMP TABLE x AS SELECT ';' AS a WITH NO DATA", "SELECT $$;$$, a FROM x")


def test_tables_are_planned_without_data_whatever_the_text_says_about_it() -> None:
    for clause in ("", " WITH DATA", " WITH NO DATA"):
        sql = good(f"CREATE TEMP TABLE x AS (SELECT 1 AS a){clause}; FROM x")
        assert sql.bare[0] == "CREATE TEMP TABLE x AS (SELECT 1 AS a) WITH NO DATA"
        assert sql.statements[0] == f"CREATE TEMP TABLE x AS (SELECT 1 AS a){clause}"


# what is wrong, and where

PROBLEMS = [
    ("", 0, "empty"),
    (" -- nothing\n;;", 0, "empty"),
    ("SELECT é, amount,, FROM source.orders", 17, "syntax error"),
    ("SELECT 'é\n FROM source.orders", None, "unterminated"),
    ("SELEC 1", 0, "syntax error"),
    ("CREATE TEMP TABLE é AS SELECT 1; SELEC 2", 33, "syntax error"),
    ("CREATE TEMP TABLE é AS SELEC 1; SELECT 2", 23, "syntax error"),
    ("FROM source.ordrs", 5, "no node is called 'source.ordrs'"),
    ("SELECT 'é' FROM source.orders JOIN sorce.customers USING (id)", 35, "no node is called 'sorce.customers'"),
    ("FROM orders", 5, "no node is called 'orders'"),
    ("FROM memory.source.orders", 5, "no node is called 'memory.source.orders'"),
    ("FROM 'source.orders'", 5, "like that"),
    ('FROM "source.orders"', 5, "like that"),
    ("FROM transform.v1.orders", 5, "no node is called"),
    ("FROM x.parquet", 5, "is a file"),
    ("FROM 'data/x.parquet'", 5, "is a file"),
    ('FROM "x.csv"', 5, "is a file"),
    ("FROM '/etc/passwd'", 5, "is a file"),
    ("FROM 's3://bucket/key'", 5, "is a file"),
    ("CREATE TEMP VIEW v AS FROM 'x.csv'; FROM v", 27, "is a file"),
    ("FROM ref('ordrs')", 5, "ref('ordrs'): no such node"),
    ("FROM {{ ref('twin') }}", 5, "may mean source.twin or transform.twin"),
    ("FROM read_csv('x.csv')", 5, "read_csv() is not allowed"),
    ("FROM source.orders, main.Read_Parquet('x')", 25, "read_parquet() is not allowed"),
    ("FROM glob('*')", 5, "glob() is not allowed"),
    ("SELECT 'x.csv'.read_text()", 15, "read_text() is not allowed"),
    ("SELECT getenv('HOME')", 7, "getenv() is not allowed"),
    ("SELECT 1, current_setting('threads')", 10, "current_setting() is not allowed"),
    ("FROM query('SELECT 1')", 5, "query() is not allowed"),
    ("FROM query_table('source.orders')", 5, "query_table() is not allowed"),
    ("FROM histogram(source.orders, id)", 5, "histogram() is not allowed"),
    ("FROM duckdb_settings()", 5, "duckdb_settings() is not allowed"),
    ("FROM duckdb_tables", 5, "no node is called 'duckdb_tables'"),
    ("FROM information_schema.tables", 5, "no node is called 'information_schema.tables'"),
    ("FROM sqlite_master", 5, "no node is called 'sqlite_master'"),
    ("FROM (SHOW TABLES)", 6, "SHOW is not allowed"),
    ("SELECT $1", 7, "parameters"),
    ("SELECT 1 WHERE 2 = ?", 19, "parameters"),
    ("WITH x AS (INSERT INTO source.orders BY NAME SELECT 1 AS id RETURNING id) FROM x", 11, "INSERT is not allowed"),
    ("WITH x AS (DELETE FROM source.orders RETURNING id) FROM x", 11, "DELETE is not allowed"),
    ("WITH x AS (UPDATE source.orders SET id = 1 RETURNING id) FROM x", 11, "UPDATE is not allowed"),
    ("CREATE TEMP TABLE x AS SELECT 1", 0, "the last statement is CREATE"),
    ("SELECT 1; SELECT 2", 0, "SELECT is not allowed here"),
    ("CREATE TABLE x AS SELECT 1; FROM x", 0, "only CREATE TEMP"),
    ("CREATE TABLE temp.x AS SELECT 1; FROM x", 0, "only CREATE TEMP"),
    ("CREATE TEMPORARY SECRET s (TYPE s3); SELECT 1", 0, "only CREATE TEMP"),
    ("CREATE SCHEMA s; SELECT 1", 0, "only CREATE TEMP"),
    ("SELECT 1; PIVOT source.orders ON status", 0, "SELECT is not allowed here"),
    ("PIVOT source.orders ON status; SELECT 1", 0, "PIVOT is not allowed here"),
    ("PIVOT (FROM read_csv('x')) ON a", 12, "read_csv() is not allowed"),
    ("PIVOT (FROM pragma_version()) ON a", 12, "pragma_version() is not allowed"),
    ("PIVOT (FROM query_table('source.orders')) ON a", 12, "query_table() is not allowed"),
    ("PIVOT information_schema.tables ON a", 6, "DuckDB's catalog"),
    ("PIVOT (FROM main.duckdb_tables) ON a", 17, "DuckDB's catalog"),
    (
        "WITH x AS (INSERT INTO source.orders BY NAME SELECT 1 AS id RETURNING id) PIVOT x ON id",
        11,
        "INSERT is not allowed",
    ),
    ("CREATE TEMP MACRO f() AS TABLE FROM read_text('x'); FROM f()", 36, "read_text() is not allowed"),
    ("CREATE TEMP MACRO f(a) AS a, (a, b) AS (FROM read_text('x')); SELECT f(1)", 45, "read_text() is not allowed"),
]
OTHER_STATEMENTS = """INSERT INTO source.orders VALUES (1)|UPDATE source.orders SET id = 1|DELETE FROM source.orders
TRUNCATE source.orders|MERGE INTO source.orders USING source.customers ON true WHEN MATCHED THEN DELETE
COPY source.orders TO 'x.csv'|COPY source.orders FROM 'x.csv'|COPY (SELECT 1) TO 'x.csv'|EXPORT DATABASE 'x'
IMPORT DATABASE 'x'|ATTACH 'x.db' AS y|DETACH y|USE memory|INSTALL httpfs|LOAD httpfs|SET threads = 8|RESET threads
SET VARIABLE x = 1|PRAGMA version|CALL pragma_version()|CHECKPOINT|VACUUM|ANALYZE|EXPLAIN SELECT 1|PREPARE p AS SELECT 1
EXECUTE p|DEALLOCATE p|BEGIN|COMMIT|ROLLBACK|DROP TABLE source.orders|ALTER TABLE source.orders RENAME TO x
COMMENT ON TABLE source.orders IS 'x'|UPDATE EXTENSIONS""".replace("\n", "|").split("|")


@pytest.mark.parametrize(("text", "offset", "message"), PROBLEMS, ids=[case[0] for case in PROBLEMS])
def test_what_is_wrong_is_said_with_its_place(text: str, offset: int | None, message: str) -> None:
    problems = apart(text).problems
    assert len(problems) == 1
    assert message in problems[0].message
    if offset is not None:
        assert problems[0].offset == offset


@pytest.mark.parametrize("text", OTHER_STATEMENTS)
def test_all_other_statements_are_refused_by_their_name(text: str) -> None:
    for position, sql in ((0, text), (0, f"{text}; SELECT 1"), (10, f"SELECT 1;\n{text}")):
        problems = [problem for problem in apart(sql).problems if problem.offset == position]
        assert len(problems) == 1
        assert problems[0].message.startswith((text.split()[0], "syntax error"))


def test_all_that_is_wrong_is_said_at_once() -> None:
    problems = apart("SELECT getenv('A') FROM nope JOIN source.ordrs USING (id), read_csv('x')").problems
    assert len(problems) == 4


def test_an_unknown_table_comes_with_the_nearest_name() -> None:
    assert apart("FROM source.ordrs").problems[0].hint == "did you mean 'source.orders'?"
    assert apart("FROM sources.orders").problems[0].hint.startswith("did you mean 'source.orders'")
    assert apart("FROM orders").problems[0].hint == "write source.orders"
    assert apart('FROM "transform.x-y"').problems[0].hint == 'write "transform"."x-y"'
    assert apart("FROM 'x.csv'").problems[0].hint == "declare a source for the file"
    assert apart("FROM ref('ordrs')").problems[0].missing == "ordrs"


@pytest.mark.parametrize(
    "text",
    [
        "SELECT id AS glob_, id AS stats, id AS query, amount AS read_csv FROM source.orders AS getenv",
        "WITH stats(a) AS (SELECT 1), query(b) AS (SELECT 2) FROM stats, query",
        "FROM source.orders AS stats(a, b)",
        "SELECT stats.query FROM (SELECT 1 AS query) AS stats",
        "SELECT name GLOB ('a*') AS x FROM source.customers",
        "SELECT 'read_csv(''x'')' AS a, \"getenv(\" FROM (SELECT 1 AS \"getenv(\") -- FROM read_csv('x')",
        "/* COPY x TO 'y'; ATTACH 'z' */ SELECT 'DROP TABLE x; INSERT INTO y' AS a",
        "SELECT insert, update, delete, copy FROM (SELECT 1 AS insert, 2 AS update, 3 AS delete, 4 AS copy)",
        'SELECT "$1" AS dollar, \'?\' AS mark FROM (SELECT 1 AS "$1")',
        "SELECT MAP {{'a': 1}: 'x'} AS m, '{{' AS a, '{ {x} }' AS b -- {{ x",
        "CREATE TEMP MACRO stats(x) AS x + 1; SELECT stats(1) AS a",
        "CREATE TEMP MACRO query() AS TABLE SELECT 1 AS a; FROM query()",
        "SELECT json_serialize_sql('SELECT 1') AS j, parse_path('a/b') AS p",
    ],
)
def test_words_that_only_look_forbidden_are_allowed(text: str) -> None:
    good(text)


@pytest.mark.parametrize(
    ("text", "volatile"),
    [
        ("SELECT now() AS a, random() AS b", ["now", "random"]),
        (
            "SELECT current_date AS a, Current_Timestamp AS b, localtime AS c",
            ["current_date", "current_timestamp", "localtime"],
        ),
        ("SELECT ago(INTERVAL 1 DAY) AS a", ["ago"]),
        ("SELECT age(d) AS a FROM source.orders", ["age"]),
        ("SELECT age(d, d) AS a FROM source.orders", []),
        ("FROM source.orders USING SAMPLE 10%", ["a sample without a seed"]),
        ("FROM source.orders TABLESAMPLE reservoir(10) REPEATABLE (42)", []),
        ("SELECT 'now()' AS now, x.current_date AS b -- random()\nFROM (SELECT 1 AS current_date) AS x", []),
        ("PIVOT source.orders ON status USING max(now())", ["now"]),
        ("CREATE TEMP TABLE x AS SELECT uuid() AS u; FROM x", ["uuid"]),
        ("CREATE TEMP MACRO f() AS (SELECT today()); SELECT f()", ["today"]),
    ],
)
def test_what_may_differ_from_run_to_run_is_named(text: str, volatile: list[str]) -> None:
    assert list(good(text).volatile) == volatile


def test_very_long_and_very_deep_queries_are_taken_apart() -> None:
    wide = good("SELECT " + ", ".join(f"{index} AS c{index}" for index in range(2000)) + " FROM source.orders")
    assert wide.references == ("source.orders",)
    deep = good(f"SELECT {'+'.join(['id'] * 900)} AS total FROM source.orders")
    assert deep.references == ("source.orders",)


@given(st.text(max_size=60))
@settings(max_examples=60)
def test_any_text_is_taken_apart_or_refused(text: str) -> None:
    sql = apart(text)
    for problem in sql.problems:
        assert problem.message
        assert problem.offset is None or 0 <= problem.offset <= len(sql.text)


@given(
    st.lists(
        st.sampled_from(
            """SELECT FROM WITH AS ( ) , ; source.orders * ref('orders') {{ ref('x') }} 'a' "b" $1 PIVOT ON USING sum(a)
            CREATE TEMP TABLE MACRO x input_0 VALUES 1 /* -- */ UNION read_csv('x') INSERT INTO WHERE é""".split()
        ),
        max_size=14,
    )
)
@settings(max_examples=150)
def test_any_sequence_of_tokens_is_taken_apart_or_refused(pieces: list[str]) -> None:
    sql = apart(" ".join(pieces))
    for problem in sql.problems:
        assert problem.message
        assert problem.offset is None or 0 <= problem.offset <= len(sql.text)


def test_names_and_texts_are_quoted_so_that_they_stand_for_themselves() -> None:
    assert quoted('a"b') == '"a""b"'
    assert quoted_node("source.a.b") == '"source"."a.b"'
    text = 'it\'s; -- "x"\n'
    assert parser().execute(f"SELECT {literal(text)} AS {quoted(text)}").fetchall() == [(text,)]
