from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from seeknal.dag.diff import ChangeCategory, DiffType, EdgeChange, ManifestDiff, NodeChange
from seeknal.dag.manifest import Manifest, Node, NodeType

BREAKING, NON_BREAKING, METADATA = ChangeCategory.BREAKING, ChangeCategory.NON_BREAKING, ChangeCategory.METADATA

ORDERS = {"order_id": "integer", "customer_id": "integer", "total_amount": "float", "status": "string"}
CLEAN = "SELECT order_id, customer_id, upper(status) AS status FROM source.orders WHERE total_amount > 0"


def node(node_id: str, **fields: Any) -> Node:
    """Make a node; what is no attribute of a node goes to its config."""
    kind, _, name = node_id.partition(".")
    own = {key: fields.pop(key) for key in ("description", "owner", "tags", "columns", "file_path") if key in fields}
    return Node(node_id, name, NodeType(fields.pop("node_type", kind)), config=fields, **own)


def source(name: str = "orders", schema: dict[str, str] | None = None, **fields: Any) -> Node:
    declared = [{"name": column, "data_type": kind} for column, kind in (schema or ORDERS).items()]
    return node(f"source.{name}", **{"source": "csv", "table": f"data/{name}.csv", "schema": declared, **fields})


def transform(name: str, sql: str, *inputs: str, **fields: Any) -> Node:
    return node(f"transform.{name}", transform=sql, inputs=[{"ref": ref} for ref in inputs], **fields)


def manifest(*nodes: Node) -> Manifest:
    """Make a manifest with the edges that the nodes' inputs say."""
    made = Manifest("shop")
    for each in nodes:
        made.add_node(each)
    for each in nodes:
        for entry in each.config.get("inputs", ()):
            made.add_edge(entry["ref"], each.id)
    return made


def shop(orders: Node | None = None, clean: Node | None = None) -> Manifest:
    return manifest(
        orders or source(),
        source("customers", {"customer_id": "integer", "country": "string"}),
        clean or transform("clean_orders", CLEAN, "source.orders"),
        transform(
            "customer_enriched",
            "SELECT * FROM source.customers JOIN transform.clean_orders USING (customer_id)",
            "source.customers",
            "transform.clean_orders",
        ),
        node("exposure.warehouse", type="file", path="out.parquet", inputs=[{"ref": "transform.customer_enriched"}]),
    )


def test_categories_are_ordered_by_severity() -> None:
    assert max([METADATA, BREAKING, NON_BREAKING]) is BREAKING
    assert sorted(ChangeCategory) == [METADATA, NON_BREAKING, BREAKING]
    assert METADATA <= METADATA < NON_BREAKING < BREAKING
    assert [category.value for category in (BREAKING, NON_BREAKING, METADATA)] == [
        "breaking",
        "non_breaking",
        "metadata",
    ]


def test_equal_manifests_have_no_difference() -> None:
    diff = ManifestDiff.compare(shop(), shop())
    assert not diff.has_changes()
    assert diff.summary() == "No changes detected"
    assert diff.get_nodes_to_rebuild(shop()) == {}
    assert diff.get_categorized_changes() == {BREAKING: [], NON_BREAKING: [], METADATA: []}
    assert "No changes detected" in diff.format_plan_output(shop())


def test_a_manifest_read_back_from_json_has_no_difference() -> None:
    assert not ManifestDiff.compare(shop(), Manifest.from_json(shop().to_json())).has_changes()


# the tutorial's two changes


def test_added_column_is_non_breaking_and_reaches_everything_downstream() -> None:
    sql = CLEAN.replace(" FROM", ",\n  -- NEW: discount\n  0.05 AS discount_pct FROM")
    new = shop(clean=transform("clean_orders", sql, "source.orders", description="With a discount"))
    diff = ManifestDiff.compare(shop(), new)

    change = diff.modified_nodes["transform.clean_orders"]
    assert change.category is NON_BREAKING
    assert change.changed_fields == ["description", "transform"]
    assert change.changed_details == ["transform: Added 'discount_pct' column"]
    assert (change.removed_columns, change.added_columns) == ([], ["discount_pct"])
    assert list(diff.get_nodes_to_rebuild(new).items()) == [
        ("transform.clean_orders", NON_BREAKING),
        ("transform.customer_enriched", NON_BREAKING),
        ("exposure.warehouse", NON_BREAKING),
    ]
    assert diff.summary() == "1 node(s) modified"


def test_renamed_source_column_is_breaking_for_everything_downstream() -> None:
    renamed = {("cust_id" if name == "customer_id" else name): kind for name, kind in ORDERS.items()}
    new = shop(orders=source(schema=renamed))
    diff = ManifestDiff.compare(shop(), new)

    change = diff.modified_nodes["source.orders"]
    assert change.category is BREAKING
    assert change.changed_fields == ["schema"]
    assert change.changed_details == [
        "schema.customer_id: REMOVED (column deleted)",
        "schema.cust_id: ADDED (new column)",
    ]
    assert (change.removed_columns, change.added_columns) == (["customer_id"], ["cust_id"])
    assert set(diff.get_nodes_to_rebuild(new).values()) == {BREAKING}
    assert len(diff.get_nodes_to_rebuild(new)) == 4

    text = diff.format_plan_output(new)
    assert text.startswith(f"Change Detection\n{'=' * 60}\nℹ Analyzing 5 nodes...\n\nModified Nodes:\n  1. orders\n")
    assert "     Category: BREAKING\n     Changed fields: schema\n     Details:\n" in text
    assert "       - schema.customer_id: REMOVED (column deleted)\n" in text
    assert "⚠ WARNING: Breaking changes detected!\n\nDownstream Impact:\n" in text
    assert "  2. clean_orders\n     Reason: Depends on orders (BREAKING change)\n     Category: BREAKING\n" in text
    assert "  3. customer_enriched\n     Reason: Depends on clean_orders\n     Category: BREAKING\n" in text
    assert text.endswith(
        "  Total nodes to rebuild: 4\n  Breaking changes: 4\n  Non-breaking changes: 0\n  Metadata-only changes: 0"
    )


def test_metadata_reaches_nobody() -> None:
    new = shop(clean=transform("clean_orders", CLEAN, "source.orders", owner="data-team", tags=["raw"]))
    diff = ManifestDiff.compare(shop(), new)
    assert diff.has_changes()
    assert diff.get_nodes_to_rebuild(new) == {}
    assert diff.get_nodes_to_rebuild(new, include_metadata=True) == {"transform.clean_orders": METADATA}
    assert diff.get_categorized_changes()[METADATA] == ["transform.clean_orders"]
    assert diff.modified_nodes["transform.clean_orders"].changed_details == ["owner: Added", "tags: Added 'raw'"]
    assert "Metadata-only changes: 1" in diff.format_plan_output(new)


def test_a_node_takes_the_worst_category_that_reaches_it() -> None:
    diamond = ["a", "b", "c"]

    def project(a_sql: str, b_sql: str, c_owner: str) -> Manifest:
        return manifest(
            transform("a", a_sql),
            transform("b", b_sql),
            transform("c", "SELECT 1 AS x", "transform.a", "transform.b", owner=c_owner),
            transform("d", "SELECT 1 AS x", "transform.c"),
        )

    new = project("SELECT 1 AS y", "SELECT 2 AS x", "b")
    diff = ManifestDiff.compare(project("SELECT 1 AS x", "SELECT 1 AS x", "a"), new)
    assert [diff.modified_nodes[f"transform.{name}"].category for name in diamond] == [BREAKING, NON_BREAKING, METADATA]
    assert diff.get_nodes_to_rebuild(new) == {
        "transform.a": BREAKING,
        "transform.b": NON_BREAKING,
        "transform.c": BREAKING,
        "transform.d": BREAKING,
    }
    assert "Reason: Depends on a (BREAKING change)\n     Category: BREAKING" in diff.format_plan_output(new)


# nodes and edges


def test_new_nodes_are_non_breaking() -> None:
    empty = Manifest("shop")
    diff = ManifestDiff.compare(empty, shop())
    assert list(diff.added_nodes) == list(shop().nodes)
    assert diff.get_nodes_to_rebuild(shop()) == dict.fromkeys(shop().topological_order(), NON_BREAKING)
    assert list(diff.get_nodes_to_rebuild(shop())) == shop().topological_order()
    assert diff.summary() == "5 node(s) added, 4 edge(s) added"


def test_removing_a_node_is_breaking_only_if_something_read_it() -> None:
    leaf = manifest(*(each for each in shop().nodes.values() if each.id != "exposure.warehouse"))
    assert ManifestDiff.compare(shop(), leaf).get_categorized_changes()[NON_BREAKING] == ["exposure.warehouse"]

    without_customers = manifest(*(each for each in shop().nodes.values() if each.id != "source.customers"))
    without_customers.edges = [edge for edge in without_customers.edges if edge.from_node != "source.customers"]
    diff = ManifestDiff.compare(shop(), without_customers)
    assert "source.customers" in diff.get_categorized_changes()[BREAKING]
    assert diff.removed_edges == [EdgeChange("source.customers", "transform.customer_enriched", DiffType.REMOVED)]
    assert "Removed Nodes:\n  1. customers\n     Category: BREAKING" in diff.format_plan_output(without_customers)


def test_removed_input_is_breaking_and_added_input_is_not() -> None:
    sql = "SELECT a FROM source.x"
    one, two = transform("t", sql, "source.x"), transform("t", sql, "source.x", "source.y")
    both = (source("x"), source("y"))
    added = ManifestDiff.compare(manifest(*both, one), manifest(*both, two))
    assert added.modified_nodes["transform.t"].category is NON_BREAKING
    assert added.modified_nodes["transform.t"].changed_details == ["inputs: Added 'source.y'"]
    assert added.added_edges == [EdgeChange("source.y", "transform.t", DiffType.ADDED)]

    removed = ManifestDiff.compare(manifest(*both, two), manifest(*both, one))
    assert removed.modified_nodes["transform.t"].category is BREAKING
    assert removed.modified_nodes["transform.t"].changed_details == ["inputs: Removed 'source.y'"]


def test_an_edge_that_no_field_declares_counts_as_an_input() -> None:
    old, new = manifest(source("x"), transform("t", "SELECT 1")), manifest(source("x"), transform("t", "SELECT 1"))
    old.add_edge("source.x", "transform.t")
    change = ManifestDiff.compare(old, new).modified_nodes["transform.t"]
    assert (change.category, change.changed_fields) == (BREAKING, ["inputs"])


def test_another_way_to_write_inputs_is_metadata_but_their_order_is_not() -> None:
    plain = node("transform.t", transform="SELECT 1", inputs=["source.x", "source.y"])
    old = transform("t", "SELECT 1", "source.x", "source.y")
    diff = ManifestDiff.compare(_lone(old), _lone(plain))
    assert diff.modified_nodes["transform.t"].category is METADATA
    swapped = transform("t", "SELECT 1", "source.y", "source.x")
    assert ManifestDiff.compare(_lone(old), _lone(swapped)).modified_nodes["transform.t"].category is NON_BREAKING


def _lone(only: Node) -> Manifest:
    """Make a manifest of one node and no edges, as somebody may build it by hand."""
    made = Manifest("shop")
    made.add_node(only)
    return made


# schemas known, secrets


def test_values_that_may_be_secret_are_not_told() -> None:
    old, new = source(params={"password": "hunter2"}), source(params={"password": "hunter3"})
    diff = ManifestDiff.compare(manifest(old), manifest(new))
    assert "hunter" not in json.dumps(diff.to_dict()) + diff.format_plan_output(manifest(new))
    assert diff.modified_nodes["source.orders"].changed_details == ["params.password: Changed"]


def test_formatting_is_metadata_whatever_the_schemas_say() -> None:
    old = transform("t", "SELECT a, sum(b) OVER (PARTITION BY c) FROM source.x", "source.x")
    for sql in ("select a, sum(b) OVER (PARTITION BY c)\nfrom source.x -- new", old.config["transform"].lower()):
        new = transform("t", sql.replace("source.X", "source.x"), "source.x")
        diff = ManifestDiff.compare(
            manifest(source("x"), old),
            manifest(source("x"), new),
            old_schemas={"transform.t": {"a": "INTEGER"}},
            new_schemas={"transform.t": {"b": "INTEGER"}},
        )
        assert diff.modified_nodes["transform.t"].category is METADATA
        assert diff.get_nodes_to_rebuild(manifest(source("x"), new)) == {}


def test_columns_that_an_input_changed_are_not_laid_at_the_reader() -> None:
    old = manifest(source("x"), transform("t", "FROM source.x", "source.x"))
    new = manifest(source("x", {"a": "integer"}), transform("t", "FROM source.x", "source.x", owner="me"))
    before = {"source.x": dict(ORDERS), "transform.t": dict(ORDERS)}
    after = {"source.x": {"a": "INTEGER"}, "transform.t": {"a": "INTEGER"}}
    diff = ManifestDiff.compare(old, new, old_schemas=before, new_schemas=after)
    assert diff.modified_nodes["transform.t"].category is METADATA
    assert diff.get_nodes_to_rebuild(new) == {"source.x": BREAKING, "transform.t": BREAKING}


def test_a_file_whose_header_changed_is_a_change_of_its_source() -> None:
    project = manifest(source(), transform("t", CLEAN, "source.orders"))
    diff = ManifestDiff.compare(
        project,
        project,
        old_schemas={"source.orders": {"a": "BIGINT", "b": "DATE"}},
        new_schemas={"source.orders": {"a": "BIGINT", "c": "DATE"}},
    )
    assert diff.modified_nodes["source.orders"].changed_details == [
        "schema.b: REMOVED (column deleted)",
        "schema.c: ADDED (new column)",
    ]
    assert diff.get_nodes_to_rebuild(project) == {"source.orders": BREAKING, "transform.t": BREAKING}


# the rest of the interface


def test_classify_change_judges_changes_of_its_own_and_made_by_hand() -> None:
    old, new = shop(), shop(orders=source(schema={"order_id": "integer"}))
    diff = ManifestDiff.compare(old, new)
    for change in diff.changes():
        assert diff.classify_change(change) is change.category
    before, after = transform("t", "SELECT a, b FROM x"), transform("t", "SELECT a FROM x")
    by_hand = NodeChange("transform.t", DiffType.MODIFIED, METADATA, before, after, ["transform"], [])
    assert diff.classify_change(by_hand) is BREAKING
    assert (
        diff.classify_change(NodeChange("transform.t", DiffType.ADDED, METADATA, None, after, [], [])) is NON_BREAKING
    )


def test_to_dict_is_json_with_every_change() -> None:
    new = shop(clean=transform("clean_orders", CLEAN + " AND status <> ''", "source.orders"))
    new.add_node(node("rule.checks", rule={"type": "range"}))
    data = json.loads(json.dumps(ManifestDiff.compare(shop(), new).to_dict()))
    assert data == {
        "summary": "1 node(s) added, 1 node(s) modified",
        "nodes": [
            {
                "node_id": "transform.clean_orders",
                "change": "modified",
                "category": "non_breaking",
                "changed_fields": ["transform"],
                "details": ["transform: Changed the filter (WHERE)"],
            },
            {
                "node_id": "rule.checks",
                "change": "added",
                "category": "non_breaking",
                "changed_fields": [],
                "details": [],
            },
        ],
        "added_edges": [],
        "removed_edges": [],
    }
    assert ManifestDiff.compare(shop(), new).get_affected_nodes() == {"transform.clean_orders", "rule.checks"}


NAMES = [f"n{index}" for index in range(6)]


@st.composite
def projects(draw: st.DrawFn) -> Manifest:
    """Draw a project of transforms; a node reads nodes that come before it."""
    chosen = draw(st.lists(st.sampled_from(NAMES), unique=True).map(sorted))
    made = []
    for index, name in enumerate(chosen):
        inputs = draw(st.lists(st.sampled_from(chosen[:index]), unique=True)) if index else []
        columns = draw(st.lists(st.sampled_from("abc"), unique=True, min_size=1).map(", ".join))
        owner = draw(st.sampled_from([None, "me"]))
        made.append(transform(name, f"SELECT {columns} FROM x", *(f"transform.{each}" for each in inputs), owner=owner))
    return manifest(*made)


@settings(max_examples=60, deadline=None)
@given(projects(), projects())
def test_what_is_rebuilt_is_what_a_change_reaches(old: Manifest, new: Manifest) -> None:
    diff = ManifestDiff.compare(old, new)
    rebuild = diff.get_nodes_to_rebuild(new)
    changed = {change.node_id for change in diff.changes() if change.category is not METADATA and change.new_value}
    assert set(rebuild) == changed | new.descendants_of(changed)
    assert list(rebuild) == [node_id for node_id in new.topological_order() if node_id in rebuild]
    for edge in new.edges:
        if edge.from_node in rebuild:
            assert rebuild[edge.to_node] >= rebuild[edge.from_node]
    assert diff.has_changes() == (old.to_dict()["nodes"] != new.to_dict()["nodes"])
    assert diff.format_plan_output(new)


@settings(max_examples=40, deadline=None)
@given(projects(), projects())
def test_the_way_back_undoes_what_was_added_and_removed(old: Manifest, new: Manifest) -> None:
    there, back = ManifestDiff.compare(old, new), ManifestDiff.compare(new, old)
    assert list(there.added_nodes) == list(back.removed_nodes)
    assert {(edge.from_node, edge.to_node) for edge in there.added_edges} == {
        (edge.from_node, edge.to_node) for edge in back.removed_edges
    }
    assert set(there.modified_nodes) == set(back.modified_nodes)


def test_comparing_equal_manifests_imports_no_heavy_module() -> None:
    program = (
        "import sys; from seeknal.dag.diff import ManifestDiff; from seeknal.dag.manifest import Manifest;"
        "ManifestDiff.compare(Manifest(), Manifest());"
        "print({'duckdb', 'sqlglot', 'pyarrow', 'jinja2'} & set(sys.modules))"
    )
    environment = {"PYTHONPATH": ":".join(sys.path)}
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment)
    assert ran.stdout.strip() == "set()"
