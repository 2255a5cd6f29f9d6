from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seeknal.dag.manifest import Edge, Manifest, Node, NodeType


def node(node_id: str, **fields: Any) -> Node:
    kind, _, name = node_id.partition(".")
    return Node(node_id, name, NodeType(kind), **fields)


def graph(*edges: str, nodes: str = "") -> Manifest:
    """Make a manifest of edges such as ``a>b``; all nodes are transforms."""
    manifest = Manifest("test")
    pairs = [edge.split(">") for edge in edges]
    for name in dict.fromkeys([*nodes.split(), *(name for pair in pairs for name in pair)]):
        manifest.add_node(node(f"transform.{name}"))
    for one, other in pairs:
        manifest.add_edge(f"transform.{one}", f"transform.{other}")
    return manifest


def names(node_ids: Any) -> list[str]:
    return [node_id.removeprefix("transform.") for node_id in node_ids]


def test_inputs_keep_their_order_and_an_edge_counts_once() -> None:
    manifest = graph("b>c", "a>c", "b>c")
    assert names(manifest.inputs_of("transform.c")) == ["b", "a"]
    assert names(manifest.readers_of("transform.b")) == ["c"]
    assert manifest.edges == [Edge("transform.b", "transform.c"), Edge("transform.a", "transform.c")]


def test_upstream_and_downstream_are_direct_and_ancestors_are_all() -> None:
    manifest = graph("a>b", "b>c", "c>d", "x>c")
    assert names(sorted(manifest.get_upstream_nodes("transform.c"))) == ["b", "x"]
    assert names(sorted(manifest.get_downstream_nodes("transform.b"))) == ["c"]
    assert names(sorted(manifest.ancestors_of(["transform.d"]))) == ["a", "b", "c", "x"]
    assert names(sorted(manifest.descendants_of(["transform.a", "transform.c"]))) == ["b", "c", "d"]
    assert manifest.inputs_of("transform.none") == []
    assert manifest.get_node("transform.none") is None


def test_layers_are_longest_distances_from_a_root() -> None:
    manifest = graph("a>b", "b>c", "a>c", "x>d", nodes="d c b a")
    assert [names(layer) for layer in manifest.topological_layers()] == [["a", "x"], ["d", "b"], ["c"]]
    assert names(manifest.topological_order()) == ["a", "x", "d", "b", "c"]


def test_a_cycle_is_given_as_a_path_that_closes() -> None:
    has_cycle, path = graph("a>b", "b>c", "c>b").detect_cycles()
    assert has_cycle
    assert names(path) == ["b", "c", "b"]
    assert graph("a>b", "a>c", "b>d", "c>d").detect_cycles() == (False, [])
    with pytest.raises(ValueError, match=r"DAG contains cycle: transform\.b -> transform\.c -> transform\.b"):
        graph("a>b", "b>c", "c>b").topological_order()


@settings(max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=25))
def test_an_order_has_every_input_first_and_exists_unless_there_is_a_cycle(pairs: list[tuple[int, int]]) -> None:
    manifest = graph(*(f"n{one}>n{other}" for one, other in pairs))
    has_cycle, path = manifest.detect_cycles()
    if has_cycle:
        assert path[0] == path[-1]
        assert all(second in manifest.readers_of(first) for first, second in itertools.pairwise(path))
        return
    order = manifest.topological_order()
    assert sorted(order) == sorted(manifest.nodes)
    assert all(order.index(edge.from_node) < order.index(edge.to_node) for edge in manifest.edges)


def test_very_long_chains_need_no_deep_stack() -> None:
    manifest = graph(*(f"n{index}>n{index + 1}" for index in range(5000)))
    assert len(manifest.topological_layers()) == 5001
    assert manifest.detect_cycles() == (False, [])


FULL = {
    "description": "d",
    "owner": "o",
    "tags": ["x"],
    "columns": {"a": "the a"},
    "config": {"transform": "SELECT 1", "params": {"é": [1, None, 2.5]}},
    "file_path": "seeknal/a.yml",
}


def test_the_fingerprint_is_of_what_the_project_says_and_of_nothing_else() -> None:
    one, other = Manifest("p", "1.0", "today"), Manifest("p", "2.0", "tomorrow")
    for manifest in (one, other):
        manifest.add_node(node("source.a", **FULL))
    assert one.fingerprint() == other.fingerprint()
    assert len(one.fingerprint()) == 64
    for field, value in (("description", "e"), ("tags", []), ("config", {}), ("file_path", "seeknal/b.yml")):
        changed = Manifest("p")
        changed.add_node(node("source.a", **{**FULL, field: value}))
        assert changed.fingerprint() != one.fingerprint()


def test_a_manifest_survives_its_file(tmp_path: Path) -> None:
    manifest = Manifest("p", "1.0", "today")
    manifest.add_node(node("source.a", **FULL))
    manifest.add_node(node("transform.b"))
    manifest.add_edge("source.a", "transform.b")
    path = tmp_path / "deep" / "manifest.json"
    manifest.save(path)
    loaded = Manifest.load(path)
    assert (loaded.nodes, loaded.edges, loaded.metadata) == (manifest.nodes, manifest.edges, manifest.metadata)
    assert loaded.fingerprint() == manifest.fingerprint()
    assert loaded.path == path
    assert list(path.parent.iterdir()) == [path]


def test_nodes_that_another_manifest_has_too_are_its_objects(tmp_path: Path) -> None:
    manifest, other = Manifest("p"), Manifest("p")
    for made, value in ((manifest, 1), (other, 2)):
        made.add_node(node("source.a", **FULL))
        made.add_node(node("transform.b", config={"value": value}))
        made.add_edge("source.a", "transform.b")
    manifest.save(tmp_path / "m.json")
    loaded = Manifest.load(tmp_path / "m.json", other)
    assert (loaded.nodes, loaded.edges) == (manifest.nodes, manifest.edges)
    assert loaded.nodes["source.a"] is other.nodes["source.a"]
    assert loaded.nodes["transform.b"] is not other.nodes["transform.b"]


@pytest.mark.parametrize("count", [0, 1, 200, 201, 450])
def test_a_fingerprint_is_that_of_the_whole_as_sorted_json(count: int) -> None:
    manifest = Manifest("p")
    for number in range(count):
        manifest.add_node(node(f"transform.n{number}", tags=["ü"]))
        manifest.add_edge(f"transform.n{number}", f"transform.n{number + 1}")
    said = manifest.to_dict()
    whole = {"project": "p", "nodes": said["nodes"], "edges": said["edges"]}
    text = json.dumps(whole, sort_keys=True, separators=(",", ":"))
    assert manifest.fingerprint() == hashlib.sha256(text.encode()).hexdigest()


def test_a_file_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    graph("a>b").save(path)
    before = path.read_text()
    broken = Manifest("p")
    broken.add_node(node("source.a", config={"x": {1, 2}}))
    with pytest.raises(TypeError):
        broken.save(path)
    assert path.read_text() == before
    assert list(tmp_path.iterdir()) == [path]


GOOD = json.loads(graph("a>b").to_json())


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        "{}",
        "[" * 100_000,
        json.dumps({**GOOD, "metadata": None}),
        json.dumps({**GOOD, "metadata": {}}),
        json.dumps({**GOOD, "nodes": []}),
        json.dumps({**GOOD, "nodes": {"a": 1}}),
        json.dumps({**GOOD, "nodes": {"a": {"id": "a"}}}),
        json.dumps({**GOOD, "nodes": {"a": {"id": "a", "name": "a", "type": "nothing"}}}),
        json.dumps({**GOOD, "nodes": {"a": {"id": ["a"], "name": "a", "type": "source"}}}),
        json.dumps({**GOOD, "nodes": {"a": {"id": "a", "name": "a", "type": "source", "config": 5}}}),
        json.dumps({**GOOD, "edges": {}}),
        json.dumps({**GOOD, "edges": [1]}),
        json.dumps({**GOOD, "edges": [{"from": "a"}]}),
        json.dumps({**GOOD, "edges": [{"from": ["a"], "to": "b"}]}),
    ],
)
def test_anything_that_is_no_manifest_is_a_value_error(text: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="manifest"):
        Manifest.from_json(text)
    (tmp_path / "m.json").write_text(text)
    with pytest.raises(ValueError, match="manifest"):
        Manifest.load(tmp_path / "m.json")


def test_a_file_that_is_no_text_is_a_value_error(tmp_path: Path) -> None:
    (tmp_path / "m.json").write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match="codec"):
        Manifest.load(tmp_path / "m.json")
    with pytest.raises(FileNotFoundError):
        Manifest.load(tmp_path / "none.json")


def test_the_json_is_laid_out_as_pythons_own() -> None:
    manifest = graph("a>b")
    first = manifest.nodes["transform.a"]
    config = {"é\u2028": [], "b": {}, "c": [1, 2.5, None, True, 'x\ny\\"'], "d": {"e": [{}, [[]]]}}
    manifest.add_node(dataclasses.replace(first, config=config))
    for indent in (2, 4):
        assert manifest.to_json(indent) == json.dumps(manifest.to_dict(), indent=indent)
