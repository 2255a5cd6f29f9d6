"""The page on the workflow modules: its Python snippets and its commands, each as it stands there."""

from __future__ import annotations

import contextlib
import inspect
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from seeknal.dag.diff import ChangeCategory
from seeknal.state.backend import StateBackend
from seeknal.workflow.environment import EnvironmentManager
from tests.acceptance.project import Project, example

CLEAN_ORDERS = "seeknal/04_transform_clean_orders.yml"

COMPARE = """\
from seeknal.dag.diff import ManifestDiff
from seeknal.dag.manifest import Manifest
old_manifest = Manifest.load("manifest.old.json")
new_manifest = Manifest.load("manifest.new.json")
diff = ManifestDiff.compare(old_manifest, new_manifest)
if diff.has_changes():
    to_rebuild = diff.get_nodes_to_rebuild(new_manifest)
"""

REVIEW = """\
# Always check changes first
diff = ManifestDiff.compare(old_manifest, new_manifest)
if diff.has_changes():
    # Review impact
    to_rebuild = diff.get_nodes_to_rebuild(new_manifest)
    print(f"Nodes to rebuild: {len(to_rebuild)}")
"""

CATEGORIES = """\
from seeknal.dag.diff import ChangeCategory
# Categories
ChangeCategory.BREAKING # Requires downstream rebuild
ChangeCategory.NON_BREAKING # Only this node rebuilds
ChangeCategory.METADATA # No rebuild needed
"""

FILE_BACKEND = """\
from seeknal.state.backend import create_state_backend
backend = create_state_backend("file", base_path="target")
backend.initialize()
"""

BOTH_BACKENDS = """\
from seeknal.state.backend import create_state_backend
# File backend
file_backend = create_state_backend("file", base_path="target")
# Database backend
db_backend = create_state_backend("database", db_path="target/state.db")
"""

# The page imports Manifest in another snippet.
ENVIRONMENTS = """\
from seeknal.dag.manifest import Manifest
from seeknal.workflow.environment import EnvironmentManager
manager = EnvironmentManager(target_path="target")
# Create plan
manifest = Manifest.load("manifest.json")
plan = manager.plan("dev", manifest)
# Apply plan
result = manager.apply("dev")
# Promote to production
manager.promote("dev", "prod")
"""

SAFE_DEPLOYMENT = """\
# Create plan in dev environment
plan = manager.plan("dev", manifest)
# Review plan before applying
print(plan.summary)
# Apply only after review
result = manager.apply("dev")
# Promote only after validation
manager.promote("dev", "prod")
"""

PLAN_COMMANDS = """\
# Create plan for environment
seeknal plan dev
# Show plan summary
seeknal plan dev --summary
# Export plan to file
seeknal plan dev --output plan.json
"""

ENVIRONMENT_COMMANDS = """\
# Apply plan to environment
seeknal env apply dev
# Apply with parallel execution
seeknal env apply dev --parallel
# Promote environment
seeknal env promote dev prod
# List environments
seeknal env list
# Delete environment
seeknal env delete dev
# Cleanup expired environments
seeknal env cleanup
"""


@pytest.fixture
def shop(tmp_path: Path) -> Project:
    return example(tmp_path / "shop")


def two_manifests(project: Project) -> None:
    """Make manifest.old.json and manifest.new.json, one column apart."""
    project.ok("parse")
    shutil.copy(project.root / "target/manifest.json", project.root / "manifest.old.json")
    project.replace(CLEAN_ORDERS, "END as validation_status", "END as validation_status, quantity * 2 AS doubled")
    project.ok("parse")
    shutil.copy(project.root / "target/manifest.json", project.root / "manifest.new.json")


# seeknal.dag.diff


def test_two_saved_manifests_can_be_compared(shop: Project) -> None:
    two_manifests(shop)
    names = shop.python(COMPARE)
    assert list(names["to_rebuild"]) == [
        "transform.clean_orders", "transform.customer_enriched", "aggregation.daily_sales", "exposure.warehouse_export",
    ]  # fmt: skip
    assert set(names["to_rebuild"].values()) == {ChangeCategory.NON_BREAKING}
    assert names["diff"].get_categorized_changes() == {
        ChangeCategory.BREAKING: [],
        ChangeCategory.NON_BREAKING: ["transform.clean_orders"],
        ChangeCategory.METADATA: [],
    }
    reviewed = shop.python(REVIEW, **{key: value for key, value in names.items() if key != "printed"})
    assert reviewed["printed"] == "Nodes to rebuild: 4\n"


def test_a_manifest_does_not_differ_from_itself(shop: Project) -> None:
    two_manifests(shop)
    shutil.copy(shop.root / "manifest.old.json", shop.root / "manifest.new.json")
    names = shop.python(COMPARE)
    assert "to_rebuild" not in names
    assert not names["diff"].has_changes()


def test_there_are_three_categories(shop: Project) -> None:
    shop.python(CATEGORIES)
    assert {category.name: category.value for category in ChangeCategory} == {
        "BREAKING": "breaking",
        "NON_BREAKING": "non_breaking",
        "METADATA": "metadata",
    }


@pytest.mark.parametrize(
    ("old_sql", "new_sql", "category"),
    [
        ("SELECT a, b FROM t", "SELECT a FROM t", "BREAKING"),
        ("SELECT a FROM t", "SELECT a, b FROM t", "NON_BREAKING"),
        ("SELECT a FROM t", "SELECT a FROM t WHERE a > 1", "NON_BREAKING"),
        ("SELECT a FROM t WHERE b > 1", "SELECT a FROM t", "NON_BREAKING"),
        ("SELECT a AS x FROM t", "SELECT a AS y FROM t", "BREAKING"),
        ("SELECT a FROM t", "SELECT CAST(a AS INT) AS a FROM t", "BREAKING"),
        ("SELECT a FROM t", "SELECT t.a FROM t JOIN u ON t.a = u.a", "NON_BREAKING"),
        ("SELECT t.a FROM t JOIN u ON t.a = u.a", "SELECT t.a FROM t", "BREAKING"),
        ("SELECT a, b FROM t", "SELECT b, a FROM t", "NON_BREAKING"),
        ("SELECT a FROM t", "select   a\nfrom t", "METADATA"),
        ("SELECT a FROM t", "SELECT a /* why */ FROM t -- what", "METADATA"),
        ("SELECT a FROM t", "SELECT a FROM t", "METADATA"),
        ("", "SELECT a FROM t", "NON_BREAKING"),
        ("SELECT a FROM t", "", "BREAKING"),
        ("SELECT a FROM t", "SELECT a FROM", "NON_BREAKING"),
    ],
)
def test_changes_of_sql_are_classified(shop: Project, old_sql: str, new_sql: str, category: str) -> None:
    names = shop.python(
        "from seeknal.dag.diff import classify_sql_change\ncategory = classify_sql_change(old_sql, new_sql)",
        old_sql=old_sql,
        new_sql=new_sql,
    )
    assert names["category"] is ChangeCategory[category]


# seeknal.state.backend


def test_a_file_backend_keeps_runs_nodes_intervals_and_locks(shop: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(shop.root)
    backend: Any = shop.python(FILE_BACKEND)["backend"]
    backend.create_run("run-1", status="running")
    backend.update_run("run-1", status="success")
    assert backend.get_run("run-1")["status"] == "success"
    assert backend.get_run("run-2") is None
    backend.set_node_state("run-1", "source.orders", status="success", row_count=3)
    assert backend.get_node_state("run-1", "source.orders")["row_count"] == 3
    backend.add_completed_interval("run-1", "source.orders", "2024-01-01", "2024-01-02")
    assert len(backend.get_completed_intervals("run-1", "source.orders")) == 1
    with contextlib.suppress(LookupError), backend.transaction():
        backend.update_run("run-1", status="failed")
        raise LookupError
    assert backend.get_run("run-1")["status"] == "success"
    assert backend.acquire_lock("run-1", timeout_ms=100) is True
    backend.close()
    assert isinstance(backend, StateBackend)


def test_the_file_backend_has_the_runs_of_the_command_line(shop: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(shop.root)
    document = shop.ok("run", "--json").document
    backend: Any = shop.python(FILE_BACKEND)["backend"]
    assert backend.list_runs() == [document["run_id"]]
    assert backend.get_run(document["run_id"])["status"] == "success"
    assert backend.get_node_state(document["run_id"], "source.orders")["row_count"] == 3


def test_both_backends_of_the_page_keep_the_same(shop: Project) -> None:
    made = shop.python(BOTH_BACKENDS)
    with contextlib.chdir(shop.root):
        for backend in (made["file_backend"], made["db_backend"]):
            backend.initialize()
            backend.create_run("run-1", status="running", started_at="2024-01-01T00:00:00")
            backend.set_node_state("run-1", "source.orders", status="success", row_count=3)
            backend.add_completed_interval("run-1", "source.orders", "2024-01-01", "2024-01-02")
            assert isinstance(backend, StateBackend)
            backend.close()
    one, other = made["file_backend"], made["db_backend"]
    assert one.get_run("run-1") == other.get_run("run-1")
    assert one.get_all_node_states("run-1") == other.get_all_node_states("run-1")
    assert (shop.root / "target/state.db").is_file()
    other.close()


def test_an_unknown_backend_is_a_value_error_that_names_the_known_ones(shop: Project) -> None:
    with pytest.raises(ValueError, match="file"):
        shop.python('from seeknal.state.backend import create_state_backend\ncreate_state_backend("redis")')


# seeknal.workflow.environment


def test_the_environment_snippet_runs_as_a_script(shop: Project) -> None:
    shop.ok("parse")
    shutil.copy(shop.root / "target/manifest.json", shop.root / "manifest.json")
    answer = shop.script(ENVIRONMENTS)
    assert answer.code == 0, answer.text
    assert answer.stderr == ""
    assert len(shop.rows("transform.clean_orders")) == 3
    statuses = {entry["name"]: entry["status"] for entry in shop.ok("env", "list", "--json").document["environments"]}
    assert statuses == {"dev": "promoted", "prod": "promoted"}


def test_the_plan_can_be_reviewed_before_it_is_applied(shop: Project) -> None:
    shop.ok("run")
    shop.replace(CLEAN_ORDERS, "total_amount,", "total_amount * 2 AS total_amount,")
    shop.ok("parse")
    shutil.copy(shop.root / "target/manifest.json", shop.root / "manifest.json")
    opening, _, _ = ENVIRONMENTS.partition("plan = manager.plan")
    names = shop.python(opening + SAFE_DEPLOYMENT)
    assert names["printed"].startswith("Plan for environment 'dev'")
    assert "Non-breaking" in names["printed"] or "non-breaking" in names["printed"]
    assert names["plan"].total_nodes_to_execute >= 1
    assert names["result"].success
    assert names["result"].summary.successful_nodes >= 1
    assert names["result"]["env_name"] == "dev"
    assert [row["total_amount"] for row in shop.rows("transform.clean_orders")] == [100.0, 200.0, 90.0]


def test_apply_takes_parallel_by_default_and_in_its_place(shop: Project) -> None:
    parameters = list(inspect.signature(EnvironmentManager.apply).parameters.values())
    assert [parameter.name for parameter in parameters[:3]] == ["self", "env_name", "parallel"]
    assert parameters[2].default is True


def test_environments_are_listed_with_their_attributes_and_deleted(shop: Project) -> None:
    manager = EnvironmentManager(target_path=str(shop.root / "target"))
    manager.plan("dev")
    (environment,) = manager.list_environments()
    assert (environment.name, environment.status, environment.ttl_hours) == ("dev", "planned", 168)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", environment.created_at)
    assert environment.plan is not None
    assert environment.plan.total_nodes_to_execute == 8
    manager.apply("dev", parallel=False)
    assert [entry.status for entry in manager.list_environments()] == ["applied"]
    manager.promote("dev", "prod")
    assert [(entry.name, entry.status) for entry in manager.list_environments()] == [
        ("dev", "promoted"), ("prod", "promoted"),
    ]  # fmt: skip
    assert manager.cleanup_expired() == []
    manager.delete("dev")
    assert [entry.name for entry in manager.list_environments()] == ["prod"]


def test_a_stale_plan_and_a_missing_one_are_value_errors_or_say_so(shop: Project) -> None:
    manager = EnvironmentManager(shop.root / "target")
    manager.plan("dev")
    shop.replace(CLEAN_ORDERS, "total_amount > 0", "total_amount > 1")
    with pytest.raises(ValueError, match="Plan is stale"):
        manager.apply("dev", parallel=False)
    with pytest.raises(Exception, match="Environment 'nowhere' not found"):
        manager.apply("nowhere", parallel=False)
    with pytest.raises(Exception, match="Environment 'nowhere' not found"):
        manager.delete("nowhere")


# the commands


def test_the_plan_commands_print_summarize_and_export(shop: Project) -> None:
    shop.ok("run")
    shop.replace(CLEAN_ORDERS, "total_amount > 0", "total_amount > 60")
    answer = shop.type_in(PLAN_COMMANDS)
    assert answer.code == 0, answer.text
    assert answer.stdout.count("Environment Plan: dev") == 3
    exported = shop.json("plan.json")
    assert exported["env_name"] == "dev"
    assert exported["nodes_to_execute"][0] == "transform.clean_orders"
    assert exported == shop.json("target/environments/dev/plan.json")
    summary = shop.ok("plan", "dev", "--summary").stdout
    assert "Nodes to execute:" in summary
    assert "clean_orders" not in summary


def test_the_environment_commands_run_one_after_the_other(shop: Project) -> None:
    shop.ok("plan", "dev")
    answer = shop.type_in(ENVIRONMENT_COMMANDS)
    assert answer.code == 0, answer.text
    assert "Environment 'dev' deleted" in answer.stdout
    # Production stands on its own feet.
    assert len(shop.rows("transform.clean_orders")) == 3
    assert [entry["name"] for entry in shop.ok("env", "list", "--json").document["environments"]] == ["prod"]
