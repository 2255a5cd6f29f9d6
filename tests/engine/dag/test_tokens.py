from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seeknal.dag.tokens import Token, stray_bracket, tokens

PIECES = [
    "select",
    "é",
    '"ü "" x"',
    "'it''s'",
    "$$a;b$$",
    "1.5e3",
    "->>",
    "{{ x }}",
    "::",
    "-- c\n",
    "/* é /* n */ */",
    ";",
    "😀",
]


def test_tokens_are_duckdbs_with_comments_left_out() -> None:
    found = tokens("SELECT a.b, 'x -- y' /* c /* d */ */ FROM \"T t\" -- end\n;;")
    assert [token.text for token in found] == ["SELECT", "a", ".", "b", ",", "'x -- y'", "FROM", '"T t"']
    assert [token.kind for token in found] == ["word", "word", "other", "word", "other", "string", "word", "other"]


def test_a_template_is_one_token_wherever_it_stands() -> None:
    found = tokens("SELECT {{ ref( 'a' ) }}, x_{{y}} FROM '{{ z }}' -- {{ c }}")
    assert [token.text for token in found] == ["SELECT", "{{ ref( 'a' ) }}", ",", "x_", "{{ y }}", "FROM", "'{{ z }}'"]
    assert found[4].before == ""


def test_a_token_is_a_name_in_lower_case_without_quotes() -> None:
    assert [token.name for token in tokens('SELECT Abc "D ""e""" \'x\' 1 .')] == ["select", "abc", 'd "e"', "", "", ""]


def test_tokens_say_the_same_wherever_they_stand() -> None:
    assert [token.said for token in tokens("a,  b")] == [token.said for token in tokens(" a /* c */ , b;")]
    assert Token("a", "word", " ", 1, 2).said == Token("a", "word", " ", 5, 6).said


@settings(max_examples=100)
@given(st.lists(st.sampled_from(PIECES), max_size=12), st.sampled_from([" ", "\n", "\t "]))
def test_offsets_count_characters(pieces: list[str], gap: str) -> None:
    text = gap.join(pieces)
    for token in tokens(text):
        written = text[token.start : token.end]
        assert written == token.text or token.kind == "template"


@pytest.mark.parametrize(
    ("sql", "offset"),
    [
        ("a > 1) OR (true", 5),
        ("((a)", 0),
        ("f(a[1)", 5),
        ("a IN (1, 2) AND b[1] = ')' -- )", None),
        ("{'a': [1]}.a /* ( */ = $$ ( $$", None),
    ],
)
def test_a_bracket_without_a_partner_is_found(sql: str, offset: int | None) -> None:
    found = stray_bracket(sql)
    assert (found and found.start) == offset
