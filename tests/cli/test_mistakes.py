"""Mistakes that another system of this kind made, each as a claim that must hold here.

Left for when the thing itself comes:

| what was wrong there                                                        | comes with            |
| --------------------------------------------------------------------------- | --------------------- |
| pending intervals were merged, the first was lost; no backfill              | intervals             |
| the backfill flow crashed; a traceback where Prefect was missing            | Prefect               |
| a failed write to a database left its node green and cached                 | database deliveries   |
| profiles of the project ignored; `$` in passwords; invalid schema prefixes  | profiles              |
| credentials in clear text in manifest, plan and state                       | profiles              |
"""

from __future__ import annotations

import csv
import io
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from seeknal.dag.diff import ChangeCategory, ManifestDiff, classify_sql_change
from seeknal.dag.manifest import Manifest
from seeknal.state.backend import FileBackend
from seeknal.workflow.environment import Environment, EnvironmentManager
from seeknal.workflow.runner import DAGRunner
from tests.acceptance.project import Answer, Project, example

ORDERS = "seeknal/01_source_orders.yml"
CLEAN_ORDERS = "seeknal/04_transform_clean_orders.yml"
ENRICHED = "seeknal/05_transform_customer_enriched.yml"

BROKEN = "kind: transform\nname: broken\ntransform: SELECT CAST('x' || order_id AS INT) AS n FROM source.orders\n"


@pytest.fixture
def fresh(tmp_path: Path) -> Project:
    """The example before its first run."""
    return example(tmp_path / "shop")


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example after its first run; to be copied."""
    project = example(tmp_path_factory.mktemp("ran") / "shop")
    project.ok("run")
    return project.root


@pytest.fixture
def shop(ran: Path, tmp_path: Path) -> Project:
    """The example after its first run."""
    return Project(shutil.copytree(ran, tmp_path / "shop", symlinks=True))


def by_name(answer: Answer, key: str = "status") -> dict[str, Any]:
    return {node["node_id"].partition(".")[2]: node[key] for node in answer.document["nodes"]}


def double_the_amounts(project: Project) -> None:
    project.replace(CLEAN_ORDERS, "    total_amount,", "    total_amount * 2 AS total_amount,")


# the tutorial's project


def test_the_tutorial_project_runs_green(fresh: Project) -> None:
    assert set(by_name(fresh.ok("run", "--json")).values()) == {"success"}
    assert {row["country"] for row in fresh.rows("aggregation.daily_sales")} == {"US", "UK"}


def test_an_exposure_takes_path_and_format_at_top_level_and_in_params(fresh: Project) -> None:
    fresh.write(
        "seeknal/09_export.yml",
        "kind: exposure\nname: nested\ntype: file\nparams: {path: output/nested.csv, format: csv}\n"
        "inputs: [{ref: transform.customer_enriched}]\n",
    )
    fresh.ok("run")
    assert (fresh.root / "output/warehouse_export.parquet").is_file()
    assert fresh.read("output/nested.csv").startswith("customer_id,email,")


def test_after_a_failed_run_the_next_one_reads_what_is_cached(fresh: Project) -> None:
    good = fresh.read(ENRICHED)
    fresh.replace(ENRICHED, "COUNT(orders.order_id)", "COUNT(CAST('x' || orders.order_id AS INTEGER))")
    assert fresh.seeknal("run").code == 1
    fresh.write(ENRICHED, good)
    statuses = by_name(fresh.ok("run", "--json"))
    assert (statuses["clean_orders"], statuses["customer_enriched"]) == ("cached", "success")


def test_qualified_names_work_in_an_environment(shop: Project) -> None:
    double_the_amounts(shop)
    shop.ok("plan", "dev")
    shop.ok("run", "--env", "dev")
    assert [row["total_amount"] for row in shop.rows("transform.clean_orders", "dev")] == [100.0, 200.0, 90.0]


@pytest.mark.parametrize("options", [(), ("--parallel",)])
def test_a_run_that_fails_exits_with_1_everywhere(fresh: Project, options: tuple[str, ...]) -> None:
    fresh.write("seeknal/09_broken.yml", BROKEN)
    assert fresh.seeknal("run", *options).code == 1
    fresh.ok("plan", "dev")
    for command in (("run", "--env", "dev"), ("env", "apply", "dev")):
        assert fresh.seeknal(*command, *options).code == 1
        environments = fresh.ok("env", "list", "--json").document["environments"]
        assert [(entry["name"], entry["status"]) for entry in environments] == [("dev", "failed")]


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("seeknal/07_aggregation_daily_sales.yml", "basic: [sum, avg]", "basic: [sum, avg, max]"),
        ("seeknal/08_exposure_warehouse.yml", "compression: snappy", "compression: zstd"),
    ],
    ids=["aggregation", "exposure"],
)
def test_a_changed_aggregation_or_exposure_can_be_promoted(shop: Project, file: str, old: str, new: str) -> None:
    shop.replace(file, old, new)
    shop.ok("plan", "dev")
    shop.ok("run", "--env", "dev")
    shop.ok("promote", "dev")
    assert "No changes detected. Nothing to run." in shop.ok("run").stdout


# parallel


def test_parallel_nodes_do_not_get_in_each_others_way(fresh: Project) -> None:
    for number in range(12):
        fresh.write(
            f"seeknal/2{number:02}_wide.yml",
            f"kind: transform\nname: wide_{number}\ntransform: SELECT order_id + {number} AS n FROM source.orders\n",
        )
    statuses = by_name(fresh.ok("run", "--parallel", "--json"))
    assert len(statuses) == 20
    assert set(statuses.values()) == {"success"}
    assert [fresh.rows(f"transform.wide_{number}")[0]["n"] for number in range(12)] == list(range(1, 13))


def test_a_parallel_run_is_remembered_like_any_other(fresh: Project) -> None:
    fresh.ok("run", "--parallel")
    assert set(by_name(fresh.ok("run", "--json")).values()) == {"cached"}
    assert all(len(node["hash"]) == 32 for node in fresh.json("target/run_state.json")["nodes"].values())


@pytest.mark.parametrize("options", [(), ("--parallel",)])
def test_errors_of_sql_are_retried_too(shop: Project, options: tuple[str, ...]) -> None:
    shop.write("seeknal/09_broken.yml", BROKEN)
    answer = shop.seeknal("run", "--retry", "2", *options)
    assert answer.code == 1
    assert re.findall(r"attempt (\d) of (\d)", answer.stdout) == [("2", "3"), ("3", "3")]


# planning


def test_a_stale_plan_is_noticed(shop: Project) -> None:
    double_the_amounts(shop)
    shop.ok("plan", "dev")
    shop.replace(CLEAN_ORDERS, "total_amount * 2", "total_amount * 3")
    assert shop.seeknal("run", "--env", "dev").code == 4
    assert shop.ref("dev") is None


def test_a_new_description_is_metadata_and_builds_nothing(shop: Project) -> None:
    shop.replace(CLEAN_ORDERS, "description: Clean and validate order data", "description: Other words")
    document = shop.ok("plan", "dev", "--json").document
    assert {node["node_id"]: node["category"] for node in document["nodes"]} == {"transform.clean_orders": "METADATA"}
    assert document["totals"]["to_execute"] == 0
    assert set(by_name(shop.ok("run", "--env", "dev", "--json")).values()) == {"cached"}


def test_a_removed_output_column_is_breaking(shop: Project) -> None:
    shop.replace(CLEAN_ORDERS, "    unit_price,\n", "")
    categories = by_name(shop.ok("plan", "dev", "--json"), "category")
    assert categories["clean_orders"] == "BREAKING"


def test_a_renamed_column_of_a_sources_schema_is_breaking(shop: Project) -> None:
    shop.replace(ORDERS, "name: unit_price", "name: price")
    shop.replace("data/orders.csv", "unit_price", "price")
    categories = by_name(shop.ok("plan", "dev", "--json"), "category")
    assert categories["orders"] == categories["clean_orders"] == "BREAKING"


def test_white_space_and_comments_in_sql_are_metadata(shop: Project) -> None:
    shop.replace(CLEAN_ORDERS, "  FROM source.orders\n", "  from\n    source.orders  -- the raw ones\n")
    document = shop.ok("plan", "dev", "--json").document
    assert {node["node_id"]: node["category"] for node in document["nodes"]} == {"transform.clean_orders": "METADATA"}
    assert document["totals"]["to_execute"] == 0


def test_planning_production_hides_nothing_from_the_plan_of_an_environment(shop: Project) -> None:
    double_the_amounts(shop)
    shop.ok("plan")
    shop.ok("parse")
    assert by_name(shop.ok("plan", "dev", "--json"), "category")["clean_orders"] == "NON_BREAKING"


# aggregations and exposures


def test_an_aggregation_reads_its_input_and_not_what_was_built_last(fresh: Project) -> None:
    fresh.write(
        "seeknal/09_other.yml",
        "kind: transform\nname: zz_other\ntransform: SELECT *, -1.0 AS total FROM source.orders\n",
    )
    fresh.write(
        "seeknal/10_totals.yml",
        "kind: aggregation\nname: totals\nid_col: customer_id\nfeature_date_col: order_date\n"
        "application_date_col: order_date\ninputs: [{ref: transform.clean_orders}]\n"
        "features: [{name: spent, column: total_amount, basic: [sum]}]\n",
    )
    fresh.ok("run")
    assert [row["spent_sum"] for row in fresh.rows("aggregation.totals")] == [50.0, 45.0, 100.0]


def test_rolling_windows_and_ratios_are_computed(fresh: Project) -> None:
    fresh.write(
        "seeknal/10_windows.yml",
        "kind: aggregation\nname: windows\nid_col: customer_id\nfeature_date_col: order_date\n"
        "application_date_col: order_date\ninputs: [{ref: transform.clean_orders}]\nfeatures:\n"
        "  - name: spent\n    column: total_amount\n    rolling: [{window: 7d, aggs: [sum]}]\n"
        "    ratio: [{numerator: 1, denominator: 7, aggs: [sum]}]\n",
    )
    fresh.ok("run")
    rows = {(row["customer_id"], str(row["order_date"])): row for row in fresh.rows("aggregation.windows")}
    last = rows[101, "2024-01-12"]
    assert last["spent_sum_7d"] == 95.0
    assert last["spent_sum_ratio_1d_7d"] == pytest.approx(45 / 95)


def test_an_exposure_without_its_input_delivers_nothing(fresh: Project) -> None:
    fresh.replace(ENRICHED, "COUNT(orders.order_id)", "COUNT(CAST('x' || orders.order_id AS INTEGER))")
    document = fresh.seeknal("run", "--json").document
    assert {node["name"]: node["status"] for node in document["nodes"]}["warehouse_export"] == "skipped"
    assert not (fresh.root / "output").exists()


def test_an_exposure_of_an_empty_table_has_its_header_and_no_invented_rows(fresh: Project) -> None:
    fresh.replace(CLEAN_ORDERS, "AND total_amount > 0", "AND false")
    fresh.write(
        "seeknal/09_export.yml",
        "kind: exposure\nname: none\ntype: file\npath: output/none.csv\ninputs: [{ref: transform.clean_orders}]\n",
    )
    fresh.ok("run")
    rows = list(csv.reader(io.StringIO(fresh.read("output/none.csv"))))
    assert len(rows) == 1
    assert rows[0][0] == "order_id"


def test_an_exposure_in_an_environment_delivers_that_environments_rows_beside_production(fresh: Project) -> None:
    fresh.write(
        "seeknal/09_export.yml",
        "kind: exposure\nname: out\ntype: file\npath: output/orders.csv\ninputs: [{ref: transform.clean_orders}]\n",
    )
    fresh.ok("run")
    production = fresh.read("output/orders.csv")
    double_the_amounts(fresh)
    fresh.ok("plan", "dev")
    fresh.ok("run", "--env", "dev")
    assert fresh.read("output/orders.csv") == production
    development = fresh.read("target/environments/dev/output/output/orders.csv")
    assert development != production
    fresh.ok("promote", "dev")
    assert fresh.read("output/orders.csv") == development


def test_a_failed_delivery_is_neither_green_nor_forgotten(fresh: Project) -> None:
    fresh.write("output", "in the way")
    answer = fresh.seeknal("run", "--json")
    assert answer.code == 1
    assert answer.document["status"] == "failed"
    assert "warehouse_export" in answer.document["errors"][0]
    (fresh.root / "output").unlink()
    fresh.ok("run")
    assert (fresh.root / "output/warehouse_export.parquet").is_file()


def test_fields_without_an_effect_yet_are_named(fresh: Project) -> None:
    fresh.write(
        "seeknal/09_written.yml",
        "kind: transform\nname: written\ntransform: SELECT 1 AS a\nmaterialization: {enabled: true}\n",
    )
    answer = fresh.ok("run")
    assert "seeknal/09_written.yml:4:1: iceberg targets are not available yet: nothing is written" in answer.stdout


def test_audits_of_a_transform_are_run(fresh: Project) -> None:
    fresh.write(
        "seeknal/09_audited.yml",
        "kind: transform\nname: audited\ntransform: SELECT NULL AS a\naudits: [{type: not_null, columns: [a]}]\n",
    )
    answer = fresh.seeknal("run")
    assert answer.code == 1
    assert "seeknal/09_audited.yml:4:10: transform.audited: not_null(a): 1 of 1 rows" in answer.stderr


# selection


@pytest.mark.parametrize(
    "selection",
    [
        ("--types", "transform,aggregation"),
        ("--types", "transform", "--types", "aggregation"),
        ("--nodes", "clean_orders,inventory_status"),
    ],
)
def test_lists_with_commas_select_what_they_name(shop: Project, selection: tuple[str, ...]) -> None:
    statuses = by_name(shop.ok("run", "--full", "--json", *selection))
    done = {name for name, status in statuses.items() if status == "success"}
    expected = {"clean_orders", "customer_enriched", "inventory_status", "daily_sales"}
    assert done == (expected if "--types" in selection else expected | {"warehouse_export"})


def test_a_selection_of_nothing_is_an_error(fresh: Project) -> None:
    assert fresh.seeknal("run", "--types", "feature_group").code == 1
    assert fresh.seeknal("run", "--nodes", "nothing").code == 1


# reading the project


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("kind: transform\nname: [unclosed\n", "is not valid YAML"),
        ("kind: tranform\nname: new\n", "unknown kind 'tranform'"),
        ("kind: transform\nname: clean_orders\ntransform: SELECT 1 AS a\n", "is declared twice"),
        ("kind: transform\nname: new\ntransform: SELECT 1 AS a\ninputs: [source.nowhere]\n", "does not exist"),
    ],
    ids=["unreadable", "unknown kind", "declared twice", "missing input"],
)
def test_nothing_wrong_in_a_file_is_passed_over(fresh: Project, text: str, message: str) -> None:
    fresh.write("seeknal/09_new.yml", text)
    for command in (("run",), ("plan",), ("plan", "dev")):
        answer = fresh.seeknal(*command)
        assert answer.code == 1
        assert message in "\n".join(answer.errors)


def test_names_of_environments_stay_in_their_folder(fresh: Project) -> None:
    before = {path.name for path in fresh.root.parent.rglob("*")}
    for name in ("a/../../x", "../x", "/tmp/x", "a/b", ".."):
        assert fresh.seeknal("plan", name).code == 2
    assert {path.name for path in fresh.root.parent.rglob("*")} == before


# asking


def test_nothing_asks_where_nobody_can_answer(shop: Project) -> None:
    shop.replace(CLEAN_ORDERS, "    unit_price,\n", "")
    shop.ok("plan", "dev")
    shop.ok("run", "--env", "dev")
    assert shop.process("promote", "dev").code == 0
    assert shop.process("env", "delete", "dev").code == 0


def test_yes_is_an_answer_in_advance(shop: Project) -> None:
    shop.ok("plan", "dev")
    shop.ok("run", "--env", "dev")
    shop.ok("promote", "dev", "--yes")
    shop.ok("env", "delete", "dev", "--yes")


# what was ignored


@pytest.mark.parametrize("options", ["--start 2024-01-01", "--end 2024-01-02", "--restate", "--profile p.yml"])
def test_an_option_without_an_effect_is_refused(fresh: Project, options: str) -> None:
    assert fresh.seeknal("run", *options.split()).code == 2


def test_options_count_in_an_environment_too(shop: Project) -> None:
    shop.ok("plan", "dev")
    shop.ok("run", "--env", "dev")
    document = shop.ok("run", "--env", "dev", "--full", "--types", "source", "--run-id", "mine", "--json").document
    assert document["run_id"] == "mine"
    done = {node["name"] for node in document["nodes"] if node["status"] == "success"}
    assert done == {"orders", "customers", "inventory"}


# the documented Python names


def test_the_documented_python_names_exist(fresh: Project) -> None:
    assert classify_sql_change("SELECT a, b FROM t", "SELECT a FROM t") is ChangeCategory.BREAKING
    assert set(ManifestDiff().get_categorized_changes()) == set(ChangeCategory)
    backend = FileBackend(str(fresh.root / "target"))
    backend.initialize()
    backend.create_run("a-run")
    manager = EnvironmentManager(target_path=str(fresh.root / "target"))
    assert "Nodes to execute: 8" in manager.plan("dev").summary
    assert [type(entry) for entry in manager.list_environments()] == [Environment]
    manager.delete("dev")
    assert manager.list_environments() == []
    manifest = Manifest("empty")
    assert DAGRunner(manifest, state_dir=fresh.root / "target/state").state_dir == fresh.root / "target/state"


def test_nodes_that_are_run_by_name_have_data(fresh: Project) -> None:
    fresh.ok("parse")
    summary = DAGRunner(Manifest.load(fresh.root / "target/manifest.json")).run(nodes=["clean_orders"])
    assert {result.node_id: result.row_count for result in summary.results}["transform.clean_orders"] == 3
    assert len(fresh.rows("transform.clean_orders")) == 3


def test_diff_finds_changes_in_a_flat_folder(shop: Project) -> None:
    double_the_amounts(shop)
    answer = shop.ok("diff")
    assert "clean_orders" in answer.stdout
    assert "NON_BREAKING" in answer.stdout


def test_the_repl_knows_tables_by_their_qualified_names(shop: Project) -> None:
    answer = shop.ok("repl", "--exec", "SELECT count(*) AS n FROM transform.clean_orders", "--format", "csv")
    assert answer.stdout.split() == ["n", "3"]


def test_the_repl_reads_only(shop: Project) -> None:
    before = shop.state()
    for statement in ("DROP VIEW transform.clean_orders", "COPY (SELECT 1) TO 'stolen.csv'", "SELECT 1; DROP TABLE a"):
        answer = shop.seeknal("repl", "--exec", statement)
        assert answer.code == 1
        assert answer.errors
    assert shop.state() == before
    assert not (shop.root / "stolen.csv").exists()


def test_init_makes_a_folder_of_the_projects_name(tmp_path: Path) -> None:
    folder = Project(tmp_path)
    folder.ok("init", "--name", "fresh")
    assert (tmp_path / "fresh" / "seeknal_project.yml").is_file()
    assert folder.seeknal("init", "--name", "fresh").code == 1


def test_a_run_calls_the_project_by_its_own_name_and_not_by_its_folders(tmp_path: Path) -> None:
    project = example(tmp_path / "a_folder")
    assert "  Project: shop\n" in project.ok("run", "--dry-run").stdout
