from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seeknal.dag.manifest import Manifest, Node, NodeType
from seeknal.errors import NotFoundError
from seeknal.workflow.selection import Filters, find_nodes, select


def manifest_of(*nodes: tuple[str, list[str], list[str]]) -> Manifest:
    """A manifest of (id, inputs, tags)."""
    manifest = Manifest("shop")
    for node_id, _, tags in nodes:
        kind, _, name = node_id.partition(".")
        manifest.add_node(Node(node_id, name, NodeType(kind), tags=tags))
    for node_id, inputs, _ in nodes:
        for name in inputs:
            manifest.add_edge(name, node_id)
    return manifest


SHOP = manifest_of(
    ("source.orders", [], ["raw"]),
    ("source.people", [], ["raw"]),
    ("transform.orders", ["source.orders"], ["daily"]),
    ("transform.joined", ["transform.orders", "source.people"], ["daily", "core"]),
    ("exposure.report", ["transform.joined"], ["core"]),
    ("transform.alone", [], []),
)
EVERY = set(SHOP.nodes)


def chosen(has_output: set[str] = EVERY, **filters: list[str]) -> set[str]:
    return set(select(SHOP, Filters(**filters), has_output).chosen)


def considered(has_output: set[str], **filters: list[str]) -> set[str]:
    return set(select(SHOP, Filters(**filters), has_output).considered)


class TestChosen:
    def test_without_filters_it_is_everything(self) -> None:
        selection = select(SHOP, Filters(), ())
        assert selection.chosen == selection.considered == EVERY
        assert selection.left_out == {}
        assert not Filters()
        assert Filters(tags=["x"])

    def test_nodes_bring_what_is_downstream(self) -> None:
        assert chosen(nodes=["transform.joined"]) == {"transform.joined", "exposure.report"}
        assert chosen(nodes=["alone", "report"]) == {"transform.alone", "exposure.report"}

    def test_tags_bring_what_is_upstream(self) -> None:
        assert chosen(tags=["core"]) == EVERY - {"transform.alone"}
        assert chosen(tags=["daily"]) == EVERY - {"transform.alone", "exposure.report"}

    def test_types_bring_nothing_else(self) -> None:
        assert chosen(types=["source", "exposure"]) == {"source.orders", "source.people", "exposure.report"}

    def test_filters_narrow_each_other(self) -> None:
        assert chosen(tags=["daily"], types=["transform"]) == {"transform.orders", "transform.joined"}
        assert chosen(nodes=["people"], exclude_tags=["core"]) == {"source.people"}

    def test_excluded_nodes_say_why_they_are_left_out(self) -> None:
        selection = select(SHOP, Filters(nodes=["people"], exclude_tags=["core"]), EVERY)
        assert selection.left_out["transform.joined"] == "excluded by tag"
        assert selection.left_out["transform.alone"] == "not selected"
        assert set(selection.left_out) == EVERY - {"source.people"}


class TestConsidered:
    def test_inputs_without_output_come_along(self) -> None:
        assert considered(EVERY, nodes=["report"]) == {"exposure.report"}
        assert considered({"transform.joined"}, nodes=["report"]) == {"exposure.report"}
        assert considered({"transform.orders"}, nodes=["report"]) == {
            "exposure.report",
            "transform.joined",
            "source.people",
        }
        assert considered(set(), nodes=["report"]) == EVERY - {"transform.alone"}

    def test_excluded_inputs_do_not(self) -> None:
        selection = select(SHOP, Filters(nodes=["report"], exclude_tags=["daily"]), ())
        assert selection.considered == {"exposure.report"}

    @settings(max_examples=100)
    @given(
        st.lists(st.sampled_from(sorted(EVERY)), max_size=2),
        st.lists(st.sampled_from(["raw", "daily", "core"]), max_size=2),
        st.lists(st.sampled_from(["raw", "daily", "core"]), max_size=1),
        st.sets(st.sampled_from(sorted(EVERY))),
    )
    def test_every_considered_node_has_or_gets_its_inputs(
        self, nodes: list[str], tags: list[str], exclude_tags: list[str], has_output: set[str]
    ) -> None:
        selection = select(SHOP, Filters(nodes=nodes, tags=tags, exclude_tags=exclude_tags), has_output)
        excluded = {node_id for node_id, why in selection.left_out.items() if why == "excluded by tag"}
        assert selection.chosen <= selection.considered
        assert selection.considered.isdisjoint(selection.left_out)
        assert selection.considered | set(selection.left_out) == EVERY
        for node_id in selection.considered:
            assert selection.considered | has_output | excluded >= set(SHOP.inputs_of(node_id))
        # What comes along is needed by somebody, and has no output yet.
        for node_id in selection.considered - selection.chosen:
            assert node_id not in has_output
            assert not selection.considered.isdisjoint(SHOP.readers_of(node_id))


class TestNames:
    @pytest.mark.parametrize(
        ("name", "found"),
        [
            ("transform.orders", ["transform.orders"]),
            ("orders", ["source.orders", "transform.orders"]),
            ("ORDERS", ["source.orders", "transform.orders"]),
            ("Transform.Orders", ["transform.orders"]),
            ("transforms/orders", ["transform.orders"]),
            ("source/people", ["source.people"]),
        ],
    )
    def test_node_goes_by_id_name_or_file(self, name: str, found: list[str]) -> None:
        assert find_nodes(SHOP, name) == found

    @pytest.mark.parametrize(
        ("filters", "message", "hint"),
        [
            (Filters(nodes=["transform.joind"]), "no node is called 'transform.joind'", "transform.joined"),
            (Filters(types=["transfrom"]), "no node is of type 'transfrom'", "transform"),
            (Filters(tags=["dayly"]), "no node has the tag 'dayly'", "daily"),
            (Filters(exclude_tags=["dayly"]), "no node has the tag 'dayly'", "daily"),
            (Filters(nodes=[""]), "no node is called ''", ""),
        ],
    )
    def test_name_that_nothing_has_is_an_error_with_the_nearest(
        self, filters: Filters, message: str, hint: str
    ) -> None:
        with pytest.raises(NotFoundError, match=message) as caught:
            select(SHOP, filters, ())
        assert hint in caught.value.hint
