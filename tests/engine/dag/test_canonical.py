from __future__ import annotations

import itertools
import json
from typing import Any

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seeknal.dag.canonical import canonical_sql
from seeknal.dag.tokens import tokens

QUERIES = [
    "select a, b from t where a is not null and b like 'x%' -- the end",
    "SELECT sum(a) OVER (PARTITION BY b ORDER BY c DESC ROWS BETWEEN 1 PRECEDING AND CURRENT ROW) AS s FROM t",
    "with c as (select 1 as End) select t.Order, c.* exclude (x) from c left join t using (k), u",
    "SELECT 'a'\n  'b' AS ab, E'x\\'y', $$a 'b' $$, x'ff', N'n', b'1'",
    "SELECT 'a' -- half /* and * all\n 'b'",
    "SELECT 1/* a /* nested */ comment */+2 -- /* not one",
    'SELECT "a -- b", "Select" FROM "x ""y"""',
    "SELECT a<-1, a>=-1, a||-1, -a, - -a, a::int, a[1:-1], a->>'x', x.y.z, 1e-5, .5, 0xff, 1_000",
    "SELECT {'a': 1, 'b': {'c': 2}}.b.c, MAP {{'a': 1}: 'x'}, [x + 1 for x in y if x > 2]",
    "SELECT list_transform(a, lambda x: x + 1), COLUMNS('a.*'), f(b := 1) FROM t",
    "from t select a\r\n,b\tlimit\f5;",
    "select case when a then b else c end::int as x from t group by all order by all qualify 1",
    "SELECT é, 😀 AS 'x y' FROM \"ü\"",
    "SELECT U&'x', a$b, $1, $name, ? FROM t",
    "create temp table x as select 1; select * from x",
]


def tree(sql: str) -> Any:
    """Parse as DuckDB does, and leave out where in the text things stand."""

    def without_places(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: without_places(item) for key, item in value.items() if not key.startswith("query_location")}
        return [without_places(item) for item in value] if isinstance(value, list) else value

    # All rows: a result that is not read to its end leaves the connection, which tests share, busy.
    ((text,),) = duckdb.execute("SELECT json_serialize_sql(?::VARCHAR)", [sql]).fetchall()
    parsed = json.loads(text)
    return {"error": parsed["error_type"]} if parsed["error"] else without_places(parsed)


@pytest.mark.parametrize("sql", QUERIES)
def test_the_form_parses_to_the_tree_of_the_text(sql: str) -> None:
    form = canonical_sql(sql)
    assert tree(form) == tree(sql)
    assert canonical_sql(form) == form


def test_layout_comments_and_keyword_case_do_not_count() -> None:
    plain = "SELECT a FROM t LEFT JOIN u ON t.x = u.x WHERE a IS NOT NULL GROUP BY a"
    other = "select/* all */ a\n\tfrom t -- orders\n left join u on t . x=u.x where a is not null group by a ;"
    assert canonical_sql(other) == canonical_sql(plain)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("SELECT a FROM t", "SELECT a FROM T"),
        ("SELECT 1 AS End", "SELECT 1 AS END"),
        ("SELECT t.Order FROM t", "SELECT t.order FROM t"),
        ("SELECT Between FROM t", "SELECT between FROM t"),
        ("SELECT struct_pack(left := 1)", "SELECT struct_pack(LEFT := 1)"),
        ("SELECT 'a  b'", "SELECT 'a b'"),
        ("SELECT 'a -- b'", "SELECT 'a '"),
        ("SELECT 'select'", "SELECT 'SELECT'"),
        ('SELECT "From"', 'SELECT "FROM"'),
        ("SELECT a < = b", "SELECT a <= b"),
        ("SELECT 1 .5", "SELECT 1.5"),
        ("SELECT 'a' 'b'", "SELECT 'a'\n'b'"),
        ("SELECT 'a' /* \n */ 'b'", "SELECT 'a'\n'b'"),
        ("SELECT 1 /* no end", "SELECT 1"),
        ("SELECT {{ a }}", "SELECT {{ b }}"),
        ("SELECT {{ env:X|a--b }}", "SELECT {{ env:X|a--c }}"),
        ("SELECT {{ env:from }}", "SELECT {{ env:FROM }}"),
        ("SELECT a_{{ x }}", "SELECT a_ {{ x }}"),
        ("SELECT {{ x }}{{ y }}", "SELECT {{ x }} {{ y }}"),
        ("SELECT end{{ x }}", "SELECT END{{ x }}"),
        ("SELECT /* {{ */ a /* }} */ FROM t", "SELECT /* {{ */ b /* }} */ FROM t"),
        ("SELECT '{{a}}'", "SELECT '{{ a }}'"),
    ],
)
def test_different_queries_have_different_forms(one: str, other: str) -> None:
    assert canonical_sql(one) != canonical_sql(other)


def test_white_space_inside_and_around_a_template_does_not_count() -> None:
    assert canonical_sql("SELECT a\nFROM {{ref('x')}} where {{ a }} = 1") == canonical_sql(
        "SELECT a FROM {{  ref('x')  }}\nWHERE\n{{a}}=1 -- {{ b }}"
    )


def test_text_that_is_no_sql_has_a_form_too() -> None:
    assert canonical_sql("") == canonical_sql(" \n-- nothing\n/* at all */ ") == ""
    assert canonical_sql("select 'no end") == "SELECT 'no end"
    assert canonical_sql("$: what") != canonical_sql("$: which")
    assert canonical_sql("SELECT {{ no end") != canonical_sql("SELECT {{ no start")


# A hole for a word, in the places where words stand in a query; `SELECT {} 'x'` and `a::{}` name a type, whose case
# no query can see, and are left out.
PLACES = """
SELECT {} FROM t|SELECT 1 {}|SELECT 1 AS {}|SELECT a {} FROM t|SELECT t.{} FROM t|SELECT {}.a FROM t|SELECT * FROM {}
SELECT * FROM t {}|SELECT * FROM t AS {}|SELECT * FROM s.{}|SELECT {}(a)|SELECT {}(*)|SELECT {{{}: 1}}|SELECT {}: 1
SELECT f({} := 1)|SELECT f({} => 1)|SELECT * FROM t a({})|WITH {} AS (SELECT 1) SELECT 1|SELECT * EXCLUDE ({}) FROM t
SELECT * REPLACE (1 AS {}) FROM t|SELECT * RENAME (a AS {}) FROM t|SELECT a::STRUCT({} INT)|SELECT f({} -> {} + 1)
SELECT f(lambda {}: {} + 1)|SELECT f(a) OVER (ORDER {} a)|SELECT a FROM t GROUP {} a|SELECT a FROM t ORDER BY {}
SELECT a FROM t {} JOIN u USING (a)|SELECT a FROM t {} u|SELECT a FROM t JOIN u USING ({})|SELECT a {} b
SELECT a {} NULL|SELECT a IS {}|SELECT a {}|SELECT {} (SELECT 1)|SELECT {} a FROM t|SELECT {} [1]|SELECT [x FOR {} IN y]
SELECT 1 {} SELECT 2|SELECT 1 {} ALL SELECT 2|{} a FROM t|{} t|SELECT CASE {} a THEN b END|SELECT CASE WHEN a THEN b {}
SELECT a NOT {} 'x'|SELECT a COLLATE {}|SELECT * FROM t {} SAMPLE 10%|SELECT a.{}(1)|SELECT (1).{}|SELECT "a".{}
SELECT $ {}|SELECT ${}|SELECT COLUMNS({} -> true)|SELECT * FROM t PIVOT (sum(a) FOR {} IN (1, 2))
SELECT * FROM (t {})|SELECT * FROM {}: t|SELECT a FROM t {} a > 1|SELECT a FROM t LIMIT {}|SELECT trim({} FROM a)
SELECT f(a ORDER BY {})|SELECT f({} ORDER BY a)
"""


@pytest.mark.parametrize("place", [place for line in PLACES.split("\n") for place in line.split("|") if place])
def test_no_keyword_is_taken_for_one_where_duckdb_reads_a_name(place: str) -> None:
    words = duckdb.execute(
        "SELECT DISTINCT keyword_name FROM duckdb_keywords() WHERE keyword_category IN ('reserved', 'type_function')"
    ).fetchall()
    assert words
    for (word,) in words:
        lower, upper = (place.format(*[text] * place.count("{}")) for text in (word, word.upper()))
        if canonical_sql(lower) == canonical_sql(upper):
            assert tree(lower) == tree(upper), word


WORDS = ["select", "from", "left", "is", "a", "Status", "over", "é", "total_1", "end", "as"]
SYMBOLS = ["(", ")", ",", "=", "<", ">", "+", "-", "*", "/", ".", "::", "[", "]", "{", ":", "||"]
LITERALS = ["1", "2.5", "1e5", '"Quoted ""name"""', '"select"', "{{ today }}", "{{ ref('x.y') }}"]
STRINGS = ["'x'", "'-- x'", "'it''s'", "'/*'", "$$ a $$"]
# White space comes first: DuckDB itself does not find the operator in `::/* y */`.
BLANKS = st.sampled_from([" ", "\n", "\t", "\r\n", "\f "])
COMMENTS = st.sampled_from(["", "-- x\n", "/* y */", "/* a /* b */ 'c */ ", '-- "\n/**/'])


def _no_two_strings(sequence: list[str]) -> bool:
    return not any(one in STRINGS and other in STRINGS for one, other in itertools.pairwise(sequence))


SEQUENCES = st.lists(st.sampled_from([*WORDS, *SYMBOLS, *LITERALS, *STRINGS]), max_size=12).filter(_no_two_strings)


@settings(max_examples=200, deadline=None)
@given(sequence=SEQUENCES, data=st.data())
def test_gaps_between_tokens_never_change_the_form(sequence: list[str], data: st.DataObject) -> None:
    spread = "".join(token + data.draw(BLANKS) + data.draw(COMMENTS) for token in ["", *sequence])
    assert canonical_sql(spread) == canonical_sql(" ".join(sequence))
    assert [token.text for token in tokens(spread)] == sequence


@settings(max_examples=200, deadline=None)
@given(one=SEQUENCES, other=SEQUENCES)
def test_sequences_of_tokens_share_a_form_only_if_they_are_the_same(one: list[str], other: list[str]) -> None:
    assert (canonical_sql(" ".join(one)) == canonical_sql(" ".join(other))) == (one == other)


@settings(max_examples=200, deadline=None)
@given(st.text(st.sampled_from(list("aSé😀 \n\t\r'\"$-/*{}.:1e;,()\x00\xa0`#@\\")), max_size=25))
def test_any_text_has_a_form_that_is_its_own_form(text: str) -> None:
    assert canonical_sql(canonical_sql(text)) == canonical_sql(text)


# No "left" and "is": `left 'x'` names a type, in a case that no query can see.
PIECES = [
    *SYMBOLS,
    *STRINGS,
    "select",
    "from",
    "where",
    "end",
    "as",
    "a",
    "Over",
    "é",
    "1",
    "\n",
    " ",
    "-- c\n",
    "/**/",
]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=9))
def test_a_query_and_its_form_are_one_query(pieces: list[str]) -> None:
    sql = "SELECT a " + "".join(pieces)
    assert tree(canonical_sql(sql)) == tree(sql)
