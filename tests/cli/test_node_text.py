from __future__ import annotations

from typing import Any

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from seeknal.cli.node_text import count_changes, difference, node_lines
from seeknal.dag.manifest import Node, NodeType

texts = st.text(st.sampled_from("ab: -#'\"|>\n\t é漢\u00a0\u2028\x07{}[]%&*!?,"), max_size=12)
scalars = st.none() | st.booleans() | st.integers(-5, 5) | st.floats(-1e3, 1e3) | texts
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3), max_leaves=8
)
configs = st.dictionaries(st.sampled_from(["transform", "inputs", "params", "schema", "limit", "zone"]), values)


def node(config: dict[str, Any], **fields: Any) -> Node:
    return Node("transform.x", "x", NodeType.TRANSFORM, config=config, **fields)


def reordered(value: Any) -> Any:
    """The same value with the keys of every mapping the other way round."""
    if isinstance(value, dict):
        return {key: reordered(value[key]) for key in reversed(value)}
    return [reordered(entry) for entry in value] if isinstance(value, list) else value


@given(configs)
@settings(max_examples=150)
def test_the_text_is_yaml_that_says_what_the_node_says(config: dict[str, Any]) -> None:
    read = yaml.safe_load("\n".join([*node_lines(node(config, tags=["t"], owner="me")), ""]))
    assert read == {"kind": "transform", "name": "x", "owner": "me", "tags": ["t"], **config}


@given(configs)
@settings(max_examples=50)
def test_the_order_of_fields_makes_no_difference(config: dict[str, Any]) -> None:
    assert difference(node(config), node(reordered(config))) == []


def test_sql_stands_as_a_block_line_by_line_with_its_spaces() -> None:
    lines = node_lines(node({"transform": "SELECT a,  \n\n  b\nFROM t -- c\n"}))
    assert lines == ["kind: transform", "name: x", "transform: |", "  SELECT a,  ", "", "    b", "  FROM t -- c"]


def test_each_line_that_differs_is_counted_and_the_headings_are_not() -> None:
    lines = difference(node({"transform": "--- a\n--- b\nc\n"}), node({"transform": "--- a\n+++ b\nc\nd\n"}))
    assert lines[:2] == ["--- transform.x (production)", "+++ transform.x (files)"]
    assert count_changes(lines) == (2, 1)


def test_a_node_that_is_not_there_is_dev_null() -> None:
    there = node({}, file_path="seeknal/x.yml")
    assert difference(None, there)[:2] == ["--- /dev/null", "+++ seeknal/x.yml (files)"]
    assert difference(there, None)[:2] == ["--- seeknal/x.yml (production)", "+++ /dev/null"]
    assert count_changes(difference(there, None)) == (0, 2)
