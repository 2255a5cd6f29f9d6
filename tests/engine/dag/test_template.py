"""Expressions, their sandbox, and where in a rendered text what stands."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from datetime import date
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seeknal.dag.parameters import DayText, Value
from seeknal.dag.template import TemplateError, assemble, evaluate, templates_in, unclosed


class Answers:
    """A scope of a few values; what begins with ``foreign`` is not trusted."""

    def __init__(self, **values: Any) -> None:
        self._values = values

    def find(self, name: str) -> Value | None:
        if name not in self._values:
            return None
        return Value(self._values[name], trusted=not name.startswith("foreign"))

    def variable(self, name: str) -> str | None:
        return {"SET": "value", "EMPTY": ""}.get(name)

    def unknown(self, names: Sequence[str]) -> TemplateError:
        return TemplateError(f"nobody knows {', '.join(names)}")


def said(expression: str, **values: Any) -> str:
    with pytest.raises(TemplateError) as raised:
        evaluate(expression, Answers(**values))
    return raised.value.message


def test_an_expression_has_the_type_of_its_value() -> None:
    assert evaluate(" a + 1 ", Answers(a=2)).value == 3
    assert evaluate("a", Answers(a=[1, None])).value == [1, None]
    assert evaluate("a|map('upper')", Answers(a=["x"])).value == ["X"]
    assert evaluate("a if b > 1 else c", Answers(a=1, b=2, c=3)).value == 1


def test_a_plain_name_and_a_day_with_an_offset_need_no_jinja() -> None:
    script = (
        "import sys\nfrom datetime import date\nfrom seeknal.dag.parameters import DayText\n"
        "from seeknal.dag.template import evaluate\nfrom tests.engine.dag.test_template import Answers\n"
        "day = Answers(today=DayText(date(2024, 3, 1)), a=1)\n"
        "print(evaluate(' today(-1) ', day).value, evaluate('today( )', day).value, evaluate('a', day).value)\n"
        "print('jinja2' in sys.modules)\n"
    )
    path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
    done = subprocess.run(
        [sys.executable, "-c", script], env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True
    )
    assert done.stdout.split() == ["2024-02-29", "2024-03-01", "1", "False"], done.stderr
    assert said("a(1)", a=1) == "{{ a(1) }}: it takes no offset"
    assert said("today(999999999)", today=DayText(date(2024, 3, 1))).startswith("{{ today(999999999) }}: ")
    assert [evaluate(word, Answers()).value for word in ("true", "None")] == [True, None]


def test_a_name_that_nobody_knows_is_an_error_unless_something_else_stands_for_it() -> None:
    assert said(" nope ") == "{{ nope }}: nobody knows nope"
    assert said("a + nope", a=1) == "{{ a + nope }}: nobody knows nope"
    assert evaluate("nope|default('x')", Answers()).value == "x"
    assert evaluate("a if true else nope", Answers(a=1)).value == 1
    assert "has no attribute 'b'" in said("a.b", a={"c": 1})


def test_an_environment_variable_has_its_value_or_the_default_behind_the_bar() -> None:
    assert evaluate("env:SET", Answers()) == Value("value", trusted=False)
    assert evaluate(" env: EMPTY |x", Answers()) == Value("", trusted=False)
    assert evaluate("env:NONE| it's | all of it ", Answers()) == Value("it's | all of it")
    assert evaluate("env:NONE|", Answers()) == Value("")
    assert said("env:NONE") == "the environment variable NONE is not set"
    assert "names no variable" in said("env:1A")


@pytest.mark.parametrize(
    "expression",
    [
        "''.__class__.__mro__",
        "a.__init__.__globals__",
        "a|attr('__class__')",
        "''['__class__']",
        "self",
        "cycler.__init__",
        "lipsum",
        "'{0.__class__}'.format(a)",
        "a.append(1)",
        "9 ** 99999",
        "'a' * 10000000",
        "1 / 0",
        "a[7]",
        "'x' + 1",
        "a()",
        "'%3000000000d' % 1",
        "'%3000000000d'|format(1)",
        "'%*d'|format(3000000000, 1)",
        "'{:>3000000000}'.format(1)",
        "'a'.ljust(3000000000)",
        "'a'|center(3000000000)",
        "'a'|indent(3000000000)",
        "a|batch(3000000000, 'x')|list",
        "1e400",
        "0 + " + "(" * 60 + "1" + ")" * 60 + " / 0",
    ],
)
def test_nothing_leads_out_of_the_sandbox_and_every_failure_is_told(expression: str) -> None:
    assert said(expression, a=[1]).startswith("{{ ")


def test_an_expression_that_is_nested_too_deeply_is_told() -> None:
    assert "cannot be read" in said("(" * 3000 + "1" + ")" * 3000)


def test_widths_that_are_of_use_are_filled_in() -> None:
    for expression, text in (
        ("'%05d'|format(7)", "00007"),
        ("'{:>6.2f}'.format(1.5)", "  1.50"),
        ("'12345678'.ljust(9)", "12345678 "),
    ):
        assert evaluate(expression, Answers()).value == text


@pytest.mark.parametrize("expression", ["", "a b", "a +", "a; b", "'a': 1", "a | nofilter", "(", "lambda: 1"])
def test_what_is_no_expression_is_told(expression: str) -> None:
    assert "is no expression" in said(expression, a=1)


@pytest.mark.parametrize(
    ("expression", "trusted"),
    [
        ("a", True),
        ("foreign", False),
        ("a ~ foreign", False),
        ("[a, foreign]", False),
        ("a if foreign == 1 else 'b'", True),
        ("foreign if a else 'b'", False),
        ("foreign or a", False),
        ("not foreign", True),
        ("foreign is defined", True),
        ("a[foreign]", False),
        ("a|replace('x', foreign)", False),
    ],
)
def test_trust_follows_what_a_value_is_made_of(expression: str, trusted: bool) -> None:
    assert evaluate(expression, Answers(a="x12", foreign=1)).trusted is trusted


def test_templates_end_where_their_braces_do() -> None:
    text = """{{ a }}{{b|default("}}")}} {{ {'x': 1}.x }} {{ env:A|it's }} {{ ref('o') }} MAP {{'a': 1}: 2} {{ open"""
    found = [template.expression for template in templates_in(text)]
    assert found == [" a ", 'b|default("}}")', " {'x': 1}.x ", " env:A|it's "]
    assert unclosed(text) == text.index("{{'a'")
    assert unclosed("a {{ b }} {") is None


def test_looking_for_templates_takes_no_time_in_hostile_texts() -> None:
    assert list(templates_in("{{" * 20_000)) == []
    assert list(templates_in("{{ '" + "a" * 20_000)) == []


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(st.text("ab\n", max_size=4), st.text("XYZ", max_size=5)), max_size=5), st.text("ab", max_size=3)
)
def test_an_offset_in_a_rendered_text_leads_to_the_same_character_or_to_the_template(
    parts: list[tuple[str, str]], rest: str
) -> None:
    text = "".join(f"{literal}{{{{ x }}}}" for literal, _ in parts) + rest
    values = [(found, value, True) for found, (_, value) in zip(templates_in(text), parts, strict=True)]
    rendered = assemble(text, values)
    assert rendered.text == "".join(literal + value for literal, value in parts) + rest
    for offset, character in enumerate(rendered.text):
        source = rendered.source_offset(offset)
        assert text[source] == (character if character in "ab\n" else "{")
    assert rendered.source_offset(len(rendered.text)) in (len(text), text.rfind("{{"))
