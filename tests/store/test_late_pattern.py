"""Patterns that are compiled when they are used."""

from __future__ import annotations

import copy
import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import seeknal.version
from seeknal.late_pattern import LatePattern, late_pattern

ROOT = Path(seeknal.version.__file__).parents[2]


def modules() -> Iterator[str]:
    """The modules of ours that name a late pattern."""
    for root in ("store", "engine", "cli"):
        for file in sorted((ROOT / root).rglob("*.py")):
            if "late_pattern" in file.read_text(encoding="utf-8"):
                yield ".".join(file.relative_to(ROOT / root).with_suffix("").parts)


def patterns(value: object) -> Iterator[LatePattern]:
    if isinstance(value, LatePattern):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from patterns(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from patterns(inner)


def test_a_late_pattern_does_what_its_pattern_does() -> None:
    late, pattern = late_pattern(r"(a)(?P<b>b)?", re.IGNORECASE), re.compile(r"(a)(?P<b>b)?", re.IGNORECASE)
    assert late.findall("xABa") == pattern.findall("xABa") == [("A", "B"), ("a", "")]
    assert late.sub("-", "cab") == "c-"
    assert (late.pattern, late.flags, late.groupindex) == (pattern.pattern, pattern.flags, pattern.groupindex)
    assert late_pattern(rb"\w+").fullmatch(b"bytes")


def test_nothing_is_compiled_before_it_is_used() -> None:
    broken = late_pattern("(")
    with pytest.raises(re.error):
        broken.match("a")


@pytest.mark.parametrize("module", list(modules()))
def test_all_of_ours_can_be_compiled(module: str) -> None:
    found = list(patterns(list(vars(importlib.import_module(module)).values())))
    for late in found:
        assert late.pattern


def test_a_pattern_can_be_copied_before_and_after_its_first_use() -> None:
    pattern = late_pattern("a+")
    assert copy.deepcopy(pattern).fullmatch("aaa")
    assert pattern.fullmatch("aaa")
    assert copy.copy(pattern).fullmatch("aaa")
