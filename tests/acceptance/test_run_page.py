"""The page on `seeknal run`: every example of it as it stands there, and every option of its table."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from seeknal.workflow.limits import default_workers
from tests.acceptance.project import Answer, Project

# A project with the names that the examples use. Feature groups do not exist yet, so a transform has that name.
ORDERS = """\
kind: source
name: orders
source: csv
table: data/orders.csv
tags: [raw]
"""
CLEAN_DATA = """\
kind: transform
name: clean_data
transform: SELECT id, amount FROM source.orders WHERE amount > 0
inputs: [{ref: source.orders}]
tags: [cleaning]
"""
USER_FEATURES = """\
kind: transform
name: user_features
transform: SELECT id, sum(amount) AS total FROM transform.clean_data GROUP BY ALL
inputs: [{ref: transform.clean_data}]
tags: [expensive]
"""
ORDER_FEATURES = """\
kind: transform
name: order_features
transform: SELECT count(*) AS orders FROM transform.clean_data
inputs: [{ref: transform.clean_data}]
tags: [experimental]
"""
BROKEN = """\
kind: transform
name: broken
transform: SELECT CAST('word ' || id AS INTEGER) AS number FROM source.orders
inputs: [{ref: source.orders}]
"""

ALL_NODES = ["orders", "clean_data", "user_features", "order_features"]


@pytest.fixture
def shop(tmp_path: Path) -> Project:
    project = Project(tmp_path / "shop")
    project.write("seeknal_project.yml", "name: shop\n")
    project.write("data/orders.csv", "id,amount\n1,10\n2,0\n3,5\n")
    project.write("seeknal/1_orders.yml", ORDERS)
    project.write("seeknal/2_clean_data.yml", CLEAN_DATA)
    project.write("seeknal/3_user_features.yml", USER_FEATURES)
    project.write("seeknal/4_order_features.yml", ORDER_FEATURES)
    return project


def executed(answer: Answer) -> list[str]:
    """The names of the nodes that were executed, in order."""
    lines = answer.stdout.splitlines()
    return [line.split(": ")[1].removesuffix(" [RUNNING]") for line in lines if line.endswith("[RUNNING]")]


def test_run_executes_changed_nodes_only(shop: Project) -> None:
    assert executed(shop.type_in("seeknal run")) == ALL_NODES
    again = shop.type_in("seeknal run")
    assert executed(again) == []
    assert "No changes detected. Nothing to run." in again.stdout
    shop.write("seeknal/4_order_features.yml", ORDER_FEATURES.replace("count(*)", "count(*) + 1"))
    assert executed(shop.type_in("seeknal run")) == ["order_features"]


def test_run_full_executes_all_nodes_whatever_the_state(shop: Project) -> None:
    shop.ok("run")
    for command in ("seeknal run --full", "seeknal run -f"):
        answer = shop.type_in(command)
        assert executed(answer) == ALL_NODES
        assert "Mode: Full" in answer.stdout


@pytest.mark.parametrize("command", ["seeknal run --dry-run", "seeknal run --show-plan", "seeknal run -p"])
def test_a_dry_run_and_the_plan_say_what_would_run(shop: Project, command: str) -> None:
    before = shop.state(".")
    answer = shop.type_in(command)
    assert answer.code == 0
    assert "RUN     transform.clean_data [cleaning]" in answer.stdout
    assert "Total: 4 nodes, 4 to run" in answer.stdout
    assert shop.state(".") == before


def test_nodes_can_be_named_one_option_each(shop: Project) -> None:
    # The page's second name is a feature group's, which cannot be made yet.
    command = "seeknal run --nodes transform.clean_data --nodes feature_group.user_features"
    refused = shop.type_in(command)
    assert refused.code == 1
    assert refused.errors == ["no node is called 'feature_group.user_features'"]
    assert "transform.user_features" in refused.stderr
    answer = shop.type_in(command.replace("feature_group.", "transform."))
    assert answer.code == 0, answer.text
    assert executed(answer) == ALL_NODES


def test_types_take_a_list_with_commas(shop: Project) -> None:
    # As with --nodes: no node is a feature group, and that is said.
    refused = shop.type_in("seeknal run --types transform,feature_group")
    assert refused.code == 1
    assert refused.errors == ["no node is of type 'feature_group'"]
    shop.ok("run")
    answer = shop.type_in("seeknal run --full --types transform,transform")
    assert executed(answer) == ALL_NODES[1:]
    assert executed(shop.type_in("seeknal run --full --types source")) == ["orders"]


def test_nodes_and_tags_take_lists_with_commas(shop: Project) -> None:
    shop.ok("run")
    assert executed(shop.type_in("seeknal run --full --nodes user_features,order_features")) == ALL_NODES[2:]
    assert executed(shop.type_in("seeknal run --full --exclude-tags expensive,experimental")) == ALL_NODES[:2]


def test_run_continues_on_error_where_told_to(shop: Project) -> None:
    shop.write("seeknal/0_broken.yml", BROKEN)
    answer = shop.type_in("seeknal run --continue-on-error")
    assert answer.code == 1
    assert set(executed(answer)) == {*ALL_NODES, "broken"}
    assert shop.rows("transform.order_features") == [{"orders": 2}]


def test_run_retries_failed_nodes(shop: Project) -> None:
    shop.write("seeknal/0_broken.yml", BROKEN)
    for command, attempts in (("seeknal run --retry 2", 3), ("seeknal run -r 3", 4)):
        answer = shop.type_in(command)
        assert answer.code == 1
        assert answer.stdout.count(f"of {attempts}") == attempts - 1


def test_run_goes_on_in_parallel(shop: Project) -> None:
    first = shop.type_in("seeknal run --parallel\nseeknal run --parallel --max-workers 8 --full")
    assert first.code == 0, first.text
    assert f"Max workers: {default_workers()}" in first.stdout
    assert "Max workers: 8" in first.stdout
    assert set(executed(first)) == set(ALL_NODES)


def test_run_goes_into_a_virtual_environment(shop: Project) -> None:
    shop.ok("plan", "dev")
    answer = shop.type_in("seeknal run --env dev\nseeknal run --env dev --parallel")
    assert answer.code == 0, answer.text
    assert shop.rows("transform.order_features", "dev") == [{"orders": 2}]
    assert shop.ref() is None


@pytest.mark.parametrize(
    ("command", "option"),
    [
        ("seeknal run --start 2024-01-01 --end 2024-01-31", "--start"),
        ("seeknal run --end 2024-01-31", "--end"),
        ("seeknal run --backfill --start 2024-01-01 --end 2024-01-31", "--start"),
        ("seeknal run --restate", "--restate"),
        ("seeknal run --profile profiles.yml", "--profile with a file of connections"),
        ("seeknal run --materialize", "--materialize"),
    ],
)
def test_what_is_to_come_is_refused_and_not_ignored(shop: Project, command: str, option: str) -> None:
    answer = shop.type_in(command)
    assert answer.code == 2
    assert answer.errors == [f"{option} is not available yet"]
    assert answer.stdout == ""
    assert shop.state() == {}


def test_a_backfill_without_its_bounds_is_a_usage_error(shop: Project) -> None:
    answer = shop.type_in("seeknal run --backfill")
    assert answer.code == 2
    assert answer.errors == ["--backfill needs --start and --end"]


def test_no_materialize_suppresses_what_does_not_happen_anyway(shop: Project) -> None:
    assert shop.type_in("seeknal run --no-materialize").code == 0


@pytest.mark.parametrize("date", ["2024-13-01", "yesterday", "1999-12-31", "2101-01-01"])
def test_the_date_is_checked(shop: Project, date: str) -> None:
    answer = shop.type_in(f"seeknal run --date {date}")
    assert answer.code == 2
    assert date in answer.errors[0]


def test_a_run_has_the_id_that_it_is_given(shop: Project) -> None:
    assert shop.type_in("seeknal run --run-id nightly-2024-01-31 --json").document["run_id"] == "nightly-2024-01-31"
    assert (shop.root / "target" / "runs").is_dir()


def test_every_option_of_the_table_is_in_the_help(shop: Project, help_of: Callable[[str], str]) -> None:
    text = help_of("run")
    for option in (
        "--dry-run", "--full", "-f", "--nodes", "-n", "--types", "-t", "--exclude-tags", "--continue-on-error",
        "--retry", "-r", "--show-plan", "-p", "--parallel", "--max-workers", "--materialize", "--no-materialize",
        "--env", "--date", "--run-id", "--start", "--end", "--backfill", "--restate", "--profile",
    ):  # fmt: skip
        assert option in text
    assert "at most 4" in " ".join(text.split())


@pytest.fixture
def help_of(shop: Project) -> Callable[[str], str]:
    return lambda command: shop.ok(command, "--help").stdout
