"""Values in SQL: what a place allows, and what attempts to leave it come to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seeknal.dag.parameters import GivenParameters, RunParameters
from seeknal.dag.project import Project
from seeknal.dag.rendering import RenderedNode, Renderer

ATTEMPTS = [
    "' OR '1'='1",
    "x'; DROP TABLE t; --",
    "1 OR 1=1",
    "1; SELECT 2",
    "a, b",
    "a -- b",
    "a/*",
    "*/ x",
    "(SELECT 1)",
    "f(x)",
    "a b",
    "a.b.",
    '"a"',
    "$$x$$",
    "a\x00b",
    "a\nb",
    "é",
    "",
    "or",
    "NOT",
    "source.select",
    "{{ run_id }}",
    "0x1F",
    "1e",
    "--1",
    "E'x'",
]


def rendered(sql: str, given: dict[str, Any] | None = None, own: dict[str, Any] | None = None) -> RenderedNode:
    fields: dict[str, Any] = {"kind": "transform", "name": "n", "transform": sql}
    if own is not None:
        fields["params"] = own
    parameters = RunParameters(GivenParameters(params=given or {}))
    return Renderer(Project(Path("/nowhere")), parameters).render(fields)


def sql(text: str, given: dict[str, Any] | None = None, own: dict[str, Any] | None = None) -> str:
    node = rendered(text, given, own)
    assert node.problems == []
    return str(node.values["transform"])


def problem(text: str, given: dict[str, Any] | None = None, own: dict[str, Any] | None = None) -> str:
    (found,) = rendered(text, given, own).problems
    return f"{found.message} ({found.hint})"


def answer(query: str, *values: str) -> list[tuple[Any, ...]]:
    with duckdb.connect() as connection:
        return list(connection.execute(query, list(values)).fetchall())


# what a place allows


@pytest.mark.parametrize(
    ("value", "quoted", "free"),
    [
        (10, "'10'", "10"),
        (-1.5, "'-1.5'", "-1.5"),
        (True, "'true'", "true"),
        ("2024-01-31", "'2024-01-31'", "DATE '2024-01-31'"),
        ("2024-01-31T06:00:00", "'2024-01-31T06:00:00'", "TIMESTAMP '2024-01-31T06:00:00'"),
        ("amount", "'amount'", "amount"),
        ("source.orders", "'source.orders'", "source.orders"),
        ("12", "'12'", "12"),
        ("FALSE", "'FALSE'", "FALSE"),
    ],
)
@pytest.mark.parametrize("origin", ["given", "own"])
def test_a_plain_value_has_one_form_in_quotes_and_one_outside(origin: str, value: Any, quoted: str, free: str) -> None:
    assert sql("SELECT '{{ x }}', {{ x }}", **{origin: {"x": value}}) == f"SELECT {quoted}, {free}"


def test_a_text_of_the_projects_own_is_sql_outside_of_quotes_and_text_inside() -> None:
    own = {"x": "a > 1 OR b = 'O'"}
    assert sql("SELECT '{{ x }}' WHERE {{ x }}", own=own) == "SELECT 'a > 1 OR b = ''O''' WHERE a > 1 OR b = 'O'"


def test_null_is_a_value_outside_of_quotes_only() -> None:
    assert sql("SELECT {{ x }}", {"x": None}) == "SELECT NULL"
    assert "has no value" in problem("SELECT '{{ x }}'", {"x": None})


@pytest.mark.parametrize("origin", ["given", "own"])
def test_a_list_is_its_elements_as_literals(origin: str) -> None:
    found = sql("SELECT 1 IN ({{ x }})", **{origin: {"x": ["O'Hara", 2, None]}})
    assert found == "SELECT 1 IN ('O''Hara', 2, NULL)"
    assert "is an empty list" in problem("SELECT 1 IN ({{ x }})", **{origin: {"x": []}})
    assert "is a list" in problem("SELECT '{{ x }}'", **{origin: {"x": [1]}})


def test_several_texts_cannot_be_joined_inside_of_quotes() -> None:
    text = """SELECT 'a' IN ('{{ x|join("','") }}')"""
    assert "write IN ({{ names|literal }})" in problem(text, own={"x": ["a", "b"]})


def test_a_mapping_is_no_value_and_its_parts_are() -> None:
    assert "is a mapping" in problem("SELECT {{ x }}", {"x": {"a": 1}})
    assert sql("SELECT {{ x.a }}, {{ x['b c'] }}", {"x": {"a": 1, "b c": 2}}) == "SELECT 1, 2"


def test_the_filters_make_any_text_fit() -> None:
    given_ = {"x": "O'H\"", "l": ["a b", "c"]}
    assert sql("SELECT {{ x|literal }} AS {{ x|identifier }}", given_) == "SELECT 'O''H\"' AS \"O'H\"\"\""
    assert sql("SELECT {{ l|identifier }}, {{ l|literal }}", given_) == "SELECT \"a b\", \"c\", 'a b', 'c'"
    assert "is not a name" in problem("SELECT {{ x|identifier }}", {"x": 1})


def test_what_touches_a_word_is_part_of_a_name() -> None:
    assert sql("FROM source.orders_{{ x }}", {"x": "eu"}) == "FROM source.orders_eu"
    for value in ("e-u", "e u", "2024-01-31", ""):
        assert "is no part of a name" in problem("FROM source.orders_{{ x }}", {"x": value})
    # Letters before quotes would make another kind of string of what is in them.
    assert "touches what stands beside it" in problem("SELECT {{ x }}'a\\n'", {"x": "e"})


def test_a_date_of_the_projects_own_does_not_touch_a_word_either() -> None:
    assert "is no part of a name" in problem("SELECT x_{{ d }}", own={"d": "2024-01-31"})


def test_two_minus_signs_do_not_become_a_comment() -> None:
    assert sql("SELECT 5 -{{ x }} AS a", {"x": -1}) == "SELECT 5 -(-1) AS a"


@pytest.mark.parametrize(
    ("quotes", "expected"),
    [
        ("'{{ x }}'", "O'H\"\\n$$"),
        ("E'{{ x }}'", "O'H\"\\n$$"),
        ("e'a{{ x }}'", "aO'H\"\\n$$"),
        ("$a${{ x }}$a$", None),
        ("$$ {{ x }} $$", None),
        ("x'{{ x }}'", None),
    ],
)
def test_every_kind_of_quotes_holds(quotes: str, expected: str | None) -> None:
    value = {"x": "O'H\"\\n$$"}
    if expected is None:
        assert "cannot stand in this kind of string" in problem(f"SELECT {quotes}", value)
    else:
        assert answer(sql(f"SELECT {quotes}", value)) == [(expected,)]


# attempts


@pytest.mark.parametrize("value", ATTEMPTS)
def test_foreign_text_cannot_be_sql(value: str) -> None:
    for place in ("WHERE {{ x }}", "{{ x }}", "WHERE a = {{x}} AND b", "WHERE a = {{ x|trim(none) }}"):
        node = rendered(f"SELECT 1 {place}", {"x": value})
        assert node.problems, place
        assert node.problems[0].path == ("transform",)


@pytest.mark.parametrize(
    "expression",
    [
        "x",
        "x ~ ''",
        "'' + x",
        "x|upper|lower",
        "[x][0]",
        "[x]|join",
        "{'a': x}.a",
        "x or 'a'",
        "'a' and x",
        "x|default('a')",
    ],
)
def test_what_is_computed_from_foreign_text_is_foreign(expression: str) -> None:
    assert "is not the project's own" in problem(f"SELECT {{{{ {expression} }}}}", {"x": "1 or 1=1"})


def test_a_param_made_of_foreign_text_is_foreign(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_REGION", "1 or 1=1")
    for own in ({"y": "{{ env:SHOP_REGION }}"}, {"y": "a {{ z }}", "z": "{{ env:SHOP_REGION|b }}"}):
        assert "is not the project's own" in problem("SELECT {{ y }}", own=own)
    assert "is not the project's own" in problem("SELECT {{ y.a[0] }}", own={"y": {"a": ["{{ env:SHOP_REGION }}"]}})


def test_the_value_of_an_environment_variable_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_SECRET", "s3cr et")
    for text in ("SELECT {{ env:SHOP_SECRET }}", "SELECT a_{{ env:SHOP_SECRET }}"):
        assert "s3cr" not in problem(text)
        assert "(not shown)" in problem(text)


def test_a_choice_between_the_projects_own_texts_is_the_projects_own() -> None:
    text = "SELECT 1 ORDER BY 1 {{ 'DESC NULLS LAST' if x == 'newest' else 'ASC' }}"
    assert sql(text, {"x": "newest"}) == "SELECT 1 ORDER BY 1 DESC NULLS LAST"
    assert sql(text, {"x": "' OR 1"}) == "SELECT 1 ORDER BY 1 ASC"


def test_a_value_in_quotes_that_other_text_has_closed_is_refused() -> None:
    text = "SELECT {{ open }}, '{{ x }}'"
    assert "the quotes around this template" in problem(text, {"x": "; DROP"}, {"open": "'a"})


@settings(max_examples=60, deadline=None)
@given(
    st.text(max_size=12)
    | st.text("'\"\\$-*/;{}() aE1\n", max_size=10)
    | st.integers(-(2**40), 2**40)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.booleans()
)
def test_a_foreign_value_stays_one_value(value: Any) -> None:
    """In quotes DuckDB reads back the same text; outside it is refused, or one expression and nothing more."""
    if isinstance(value, str) and any(0xD800 <= ord(character) < 0xE000 for character in value):
        return
    text = str(value).lower() if isinstance(value, bool) else str(value)
    node = rendered("SELECT '{{ x }}' AS a, 'z' AS b", {"x": value})
    if not node.problems:
        assert answer(node.values["transform"]) == [(text, "z")]
    else:
        assert "\x00" in text or "'" in text
    node = rendered("SELECT [{{ x }}, 7] AS a FROM (SELECT 1 AS a) AS q", {"x": value})
    if not node.problems:
        ((tree,),) = answer("SELECT json_serialize_sql($1::VARCHAR)", node.values["transform"])
        (statement,) = json.loads(tree)["statements"]
        (selected,) = statement["node"]["select_list"]
        assert len(selected.get("children", selected.get("arguments"))) == 2


# where no template is


def test_comments_and_lone_braces_are_left_as_they_are() -> None:
    text = "SELECT 1 -- {{ nothing }}\n, /* {{ nope }} */ '{{' AS a, MAP {{'a': 1}: {'b': 2}} AS m"
    assert sql(text) == text


def test_braces_can_be_written() -> None:
    assert sql("""SELECT '{{ "{{" }} x }}', {{ "'{{'" }}""") == "SELECT '{{ x }}', '{{'"


def test_what_is_no_expression_says_the_way_out() -> None:
    assert "put a space between them" in problem("SELECT {{ 'a': 1 }}")
    assert "choose inside a template" in problem("SELECT {% if x %} 1 {% endif %}")
    assert sql("SELECT '{% x %}', 1 % 2 -- {% y %}") == "SELECT '{% x %}', 1 % 2 -- {% y %}"
