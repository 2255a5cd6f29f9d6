"""No text obeys: what a terminal would act upon is spelled out."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from seeknal.visible_text import visible, visible_cell


def test_what_a_terminal_obeys_is_spelled_out() -> None:
    assert visible("a\x1b[31mred\x07\x9b0m\r") == "a\\x1b[31mred\\x07\\x9b0m\\r"
    assert visible("invoice\u202efdp.exe\u2066 \u200f") == "invoice\\u202efdp.exe\\u2066 \\u200f"
    assert visible("tag \U000e0041 \ud800") == "tag \\U000e0041 \\ud800"
    assert visible("two\nlines\tand 表 é 👩‍🔬") == "two\nlines\tand 表 é 👩‍🔬"
    assert visible_cell("two\nlines\t") == "two\\nlines\\t"


@given(st.text())
@settings(max_examples=50)
def test_nothing_is_left_that_moves_the_cursor(text: str) -> None:
    assert all(letter.isprintable() or letter not in "\x1b\x9b\r\b\n\t\u202e" for letter in visible_cell(text))
