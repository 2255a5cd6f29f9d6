from __future__ import annotations

import json
from typing import Any

import pytest

from seeknal.json_document import Computed, indented, indented_pieces

ODD = {"é\u2028": [], "b": {}, "c": [1, 2.5, None, True, 'x\ny\\"'], "d": {"e": [{}, [[]]]}}


@pytest.mark.parametrize("count", [0, 1, 199, 200, 201, 1000])
@pytest.mark.parametrize("indent", [2, 4])
def test_pieces_make_what_python_makes_of_the_whole(count: int, indent: int) -> None:
    numbers = {f"n{number}": number for number in range(count)}

    def encode(value: Any) -> bytes:
        return json.dumps(value).encode()

    for name in ("plain", 'with "quotes" and é', "\n"):
        whole = {"before": ODD, name: {key: {**ODD, "n": value} for key, value in numbers.items()}, "x": list(numbers)}
        lazy = {**whole, name: Computed(numbers, lambda value: {**ODD, "n": value}), "x": iter(numbers)}
        assert b"".join(indented_pieces(lazy, indent, encode)).decode() == json.dumps(whole, indent=indent)


def test_a_document_without_fields_is_an_empty_object() -> None:
    assert indented({}) == b"{}"


def test_a_large_document_is_never_in_one_piece() -> None:
    pieces = list(indented_pieces({"n": Computed(dict.fromkeys(map(str, range(1000))), str), "m": iter(range(1000))}))
    assert len(pieces) > 9
