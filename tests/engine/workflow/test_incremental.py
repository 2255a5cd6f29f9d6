"""What runs again after a change, counted by executed nodes: only what reads something that changed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from seeknal.dag.project import Project
from seeknal.workflow.environment import EnvironmentManager
from seeknal.workflow.results import RunOptions
from seeknal.workflow.session import Session
from tests.engine.workflow.projects import executed_in, run, transform, write, write_project

ORDERS = """
order_id,customer_id,amount,status
1,101,50.0,done
2,102,100.0,done
3,101,45.0,open
"""
CLEAN = "SELECT order_id, customer_id, amount, upper(status) AS status FROM source.orders WHERE amount > 0"
CLEAN_WITH_DISCOUNT = CLEAN.replace(
    "upper(status) AS status", "upper(status) AS status, CASE WHEN amount >= 100 THEN 0.1 ELSE 0 END AS discount"
)


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """orders → clean → totals (names columns), everything (SELECT *), counted (COUNT(*)) → report."""
    root = write_project(
        tmp_path / "shop",
        {
            "data/orders.csv": ORDERS,
            "seeknal/orders.yml": "kind: source\nname: orders\nsource: csv\ntable: data/orders.csv\n",
            "seeknal/clean.yml": transform("clean", CLEAN, description="first"),
            "seeknal/totals.yml": transform(
                "totals",
                "SELECT customer_id, sum(amount) AS total FROM transform.clean GROUP BY customer_id ORDER BY 1",
            ),
            "seeknal/everything.yml": transform("everything", "SELECT * FROM transform.clean"),
            "seeknal/counted.yml": transform("counted", "SELECT count(*) AS n FROM transform.clean"),
            "seeknal/report.yml": transform("report", "SELECT max(total) AS best FROM transform.totals"),
        },
    )
    assert executed_in(root) == ["clean", "counted", "everything", "orders", "report", "totals"]
    assert executed_in(root) == []
    return root


def test_comment_white_space_and_keyword_case_run_nothing(shop: Path) -> None:
    changed = CLEAN.replace("SELECT", "-- why\nselect  ").replace("WHERE", "\n  where /* keep */")
    write(shop, "seeknal/clean.yml", transform("clean", changed))
    assert executed_in(shop) == []


def test_description_owner_and_tags_run_nothing(shop: Path) -> None:
    write(shop, "seeknal/clean.yml", transform("clean", CLEAN, description="second", owner="me", tags="[a, b]"))
    assert executed_in(shop) == []


def test_added_column_runs_the_node_and_select_star_readers_only(shop: Path) -> None:
    write(shop, "seeknal/clean.yml", transform("clean", CLEAN_WITH_DISCOUNT))
    assert executed_in(shop) == ["clean", "everything"]


def test_changed_values_of_a_column_run_only_its_readers(shop: Path) -> None:
    write(shop, "seeknal/clean.yml", transform("clean", CLEAN.replace("upper(status)", "lower(status)")))
    assert executed_in(shop) == ["clean", "everything"]


def test_changed_number_of_rows_runs_everything_that_reads_rows(shop: Path) -> None:
    write(shop, "seeknal/clean.yml", transform("clean", CLEAN.replace("amount > 0", "amount > 48")))
    # The best total stays 100, but the totals changed, and report reads them.
    assert executed_in(shop) == ["clean", "counted", "everything", "report", "totals"]


def test_node_that_gives_the_same_as_before_stops_the_wave(shop: Path) -> None:
    write(shop, "seeknal/clean.yml", transform("clean", CLEAN.replace("amount > 0", "amount > 0 AND order_id < 1000")))
    assert executed_in(shop) == ["clean"]


def test_touched_source_file_runs_nothing(shop: Path) -> None:
    file = shop / "data/orders.csv"
    os.utime(file, (1, 1))
    assert executed_in(shop) == []
    file.write_bytes(file.read_bytes())
    assert executed_in(shop) == []


def test_changed_source_column_runs_only_the_chain_that_reads_it(shop: Path) -> None:
    write(shop, "data/orders.csv", ORDERS.replace("open", "held"))
    assert executed_in(shop) == ["clean", "everything", "orders"]


def test_new_source_column_that_nobody_reads_runs_the_source_only(shop: Path) -> None:
    lines = ORDERS.strip().splitlines()
    write(shop, "data/orders.csv", "\n".join([lines[0] + ",note", *(line + ",x" for line in lines[1:])]) + "\n")
    assert executed_in(shop) == ["orders"]


def test_change_made_and_undone_runs_nothing(shop: Path) -> None:
    original = (shop / "seeknal/clean.yml").read_text()
    write(shop, "seeknal/clean.yml", transform("clean", CLEAN_WITH_DISCOUNT))
    assert "clean" in executed_in(shop)
    (shop / "seeknal/clean.yml").write_text(original)
    assert executed_in(shop) == []


def test_change_undone_before_any_run_runs_nothing(shop: Path) -> None:
    original = (shop / "seeknal/clean.yml").read_text()
    write(shop, "seeknal/clean.yml", transform("clean", CLEAN_WITH_DISCOUNT))
    (shop / "seeknal/clean.yml").write_text(original)
    assert executed_in(shop) == []


def test_work_done_in_dev_is_not_done_again_in_production(shop: Path) -> None:
    write(shop, "seeknal/clean.yml", transform("clean", CLEAN_WITH_DISCOUNT))
    manager = EnvironmentManager(shop / "target")
    manager.plan("dev")
    applied = manager.apply("dev", parallel=False)
    assert applied.result.executed == 2
    # Without a promotion: production runs the same change itself, and finds all of it done.
    assert executed_in(shop) == []
    head = manager.store.head("prod")
    assert head is not None
    assert "discount" in manager.store.read_tree(head.tree).nodes["transform.clean"].artifact.schema()


def test_promoted_state_has_nothing_left_to_run(shop: Path) -> None:
    write(shop, "seeknal/clean.yml", transform("clean", CLEAN_WITH_DISCOUNT))
    manager = EnvironmentManager(shop / "target")
    manager.plan("dev")
    manager.apply("dev", parallel=True, max_workers=2)
    assert manager.promote("dev")["promoted"]
    assert executed_in(shop) == []


def test_what_a_failed_run_finished_is_not_done_again(shop: Path) -> None:
    write(shop, "seeknal/clean.yml", transform("clean", CLEAN_WITH_DISCOUNT))
    write(
        shop, "seeknal/totals.yml", transform("totals", "SELECT CAST(status AS INTEGER) AS total FROM transform.clean")
    )
    before = (shop / "target/store/refs/prod").read_text()
    failed = run(shop, continue_on_error=False)
    assert failed.status == "failed"
    assert (shop / "target/store/refs/prod").read_text() == before
    write(shop, "seeknal/totals.yml", transform("totals", "SELECT 7 AS total, count(*) AS n FROM transform.clean"))
    assert "clean" not in executed_in(shop)


def test_renamed_node_runs_itself_and_what_names_it(shop: Path) -> None:
    (shop / "seeknal/clean.yml").unlink()
    write(shop, "seeknal/clean.yml", transform("tidy", CLEAN))
    for name in ("totals", "everything", "counted"):
        file = shop / f"seeknal/{name}.yml"
        file.write_text(file.read_text().replace("transform.clean", "transform.tidy"))
    # The same query over the same data is the same action, whatever the node is called.
    assert executed_in(shop) == ["counted", "everything", "totals"]


def test_removed_node_leaves_the_environment(shop: Path) -> None:
    (shop / "seeknal/report.yml").unlink()
    assert executed_in(shop) == []
    store = EnvironmentManager(shop / "target").store
    head = store.head("prod")
    assert head is not None
    assert "transform.report" not in store.read_tree(head.tree).nodes


def test_deleted_blob_is_built_again(shop: Path) -> None:
    store = EnvironmentManager(shop / "target").store
    head = store.head("prod")
    assert head is not None
    artifact = store.read_tree(head.tree).nodes["transform.clean"].artifact
    store.blob_path(artifact.parts[0]).unlink()
    assert executed_in(shop) == ["clean"]


def test_full_run_executes_everything_and_moves_nothing(shop: Path) -> None:
    before = (shop / "target/store/refs/prod").read_text()
    assert len(executed_in(shop, full=True)) == 6
    assert (shop / "target/store/refs/prod").read_text() == before


def test_types_that_parquet_lacks_survive_between_nodes(tmp_path: Path) -> None:
    root = write_project(
        tmp_path / "types",
        {
            "seeknal/wide.yml": transform(
                "wide",
                """
                SELECT 170141183460469231731687303715884105727::HUGEINT // 10 AS huge, 'b'::ENUM('a', 'b') AS choice,
                  '101'::BIT AS bits, NULL AS nothing, [1::HUGEINT] AS list, {'bit': 1, 'h': 2::HUGEINT} AS pair,
                  TIMESTAMP_MS '2024-01-01 00:00:00' AS moment, INTERVAL 1 MONTH AS span
                """,
            ),
            "seeknal/types.yml": transform(
                "types",
                "SELECT typeof(COLUMNS(*)) FROM transform.wide",
            ),
            "seeknal/values.yml": transform(
                "values_of",
                "SELECT huge + 1 AS more, choice < 'b' AS less, list[1] AS first, pair.h AS h FROM transform.wide",
            ),
        },
    )
    assert executed_in(root) == ["types", "values_of", "wide"]
    import duckdb

    connection = duckdb.connect()
    types = connection.execute(f"FROM read_parquet('{root}/target/cache/transform/types.parquet')").fetchone()
    assert types == (
        "HUGEINT",
        "ENUM('a', 'b')",
        "BIT",
        '"NULL"',
        "HUGEINT[]",
        'STRUCT("bit" INTEGER, h HUGEINT)',
        "TIMESTAMP_MS",
        "INTERVAL",
    )
    values = connection.execute(f"FROM read_parquet('{root}/target/cache/transform/values_of.parquet')").fetchone()
    assert values is not None
    assert int(values[0]) == 17014118346046923173168730371588410573


def test_what_was_bound_during_a_run_is_unchanged_when_the_next_one_knows_more(tmp_path: Path) -> None:
    files = {
        "seeknal/numbers.py": """
            import pyarrow
            from seeknal.pipeline import source

            @source(name="numbers")
            def numbers(ctx):
                return pyarrow.table({"a": [1, 2], "b": [3, 4]})
            """,
        "seeknal/child.yml": transform("child", "SELECT a, b FROM source.numbers"),
        "seeknal/grandchild.yml": transform("grandchild", "SELECT a FROM transform.child"),
    }
    write_project(tmp_path, files)
    # A function's columns are known once it ran: the first run bound its readers as it went, this plan does so before.
    assert executed_in(tmp_path) == ["child", "grandchild", "numbers"]
    with Session.open(Project.open(tmp_path)) as session:
        forecast = session.prepare_run("prod", RunOptions()).forecast()
    assert {entry.action for entry in forecast} == {"CACHED"}
