"""`--json`: exactly one document on stdout, in the documented shape; everything else on stderr."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.project import Answer, Project

ORDERS = "kind: source\nname: orders\nsource: csv\ntable: data/orders.csv\n"
CLEAN = """\
kind: transform
name: clean
transform: SELECT id, amount * 2 AS double FROM source.orders
inputs: [{ref: source.orders}]
"""
TOTAL = "kind: transform\nname: total\ntransform: SELECT sum(double) AS total FROM transform.clean\n"
FAILING = CLEAN.replace("amount * 2", "CAST('x' || id AS INTEGER)")

RUN_KEYS = {"schema_version", "run_id", "env", "status", "duration_seconds", "snapshot", "nodes", "errors"}
NODE_KEYS = {
    "node_id", "kind", "name", "status", "reason", "row_count", "duration_seconds", "fingerprint", "artifact",
    "metadata", "error",
}  # fmt: skip
PLANNED_KEYS = {"node_id", "category", "reason", "changed_fields", "details", "volatile"}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project that ran in production, was changed, and is planned for dev; to be copied."""
    project = Project(tmp_path_factory.mktemp("built") / "shop")
    project.write("seeknal_project.yml", "name: shop\n")
    project.write("data/orders.csv", "id,amount\n1,2.5\n2,3.5\n")
    project.write("seeknal/1_orders.yml", ORDERS)
    project.write("seeknal/2_clean.yml", CLEAN)
    project.write("seeknal/3_total.yml", TOTAL)
    project.ok("run")
    project.write("seeknal/2_clean.yml", CLEAN.replace("amount * 2", "amount * 3"))
    project.ok("plan", "dev")
    return project.root


@pytest.fixture
def shop(built: Path, tmp_path: Path) -> Project:
    return Project(shutil.copytree(built, tmp_path / "shop", symlinks=True))


def check_run(document: Any, environment: str, status: str) -> dict[str, Any]:
    """Check the shape of a run's document; gives its nodes by name."""
    assert document.keys() == RUN_KEYS
    assert (document["schema_version"], document["env"], document["status"]) == (1, environment, status)
    assert document["run_id"]
    assert isinstance(document["duration_seconds"], float)
    for node in document["nodes"]:
        assert node.keys() == NODE_KEYS
        assert node["node_id"] == f"{node['kind']}.{node['name']}"
        assert node["reason"]
        if node["status"] in ("success", "cached"):
            assert re.fullmatch(r"[0-9a-f]{32}", node["fingerprint"])
            assert re.fullmatch(r"[0-9a-f]{32}", node["artifact"])
            assert node["error"] is None
    return {node["name"]: node for node in document["nodes"]}


def statuses(nodes: dict[str, Any]) -> dict[str, str]:
    return {name: node["status"] for name, node in nodes.items()}


def test_run_gives_the_documented_document(shop: Project) -> None:
    answer = shop.ok("run", "--json")
    nodes = check_run(answer.document, "prod", "success")
    assert statuses(nodes) == {"orders": "cached", "clean": "success", "total": "success"}
    assert nodes["clean"]["reason"] == "its definition changed"
    assert nodes["total"]["reason"] == "reads transform.clean.double, which changed"
    assert nodes["clean"]["row_count"] == 2
    assert answer.document["snapshot"] == shop.ref()
    assert answer.document["errors"] == []
    assert "Execution Summary" in answer.stderr


def test_a_run_with_nothing_to_do_gives_the_same_shape(shop: Project) -> None:
    shop.ok("run")
    nodes = check_run(shop.ok("run", "--json").document, "prod", "success")
    assert set(statuses(nodes).values()) == {"cached"}
    nodes = check_run(shop.ok("run", "--json", "--types", "source").document, "prod", "success")
    assert statuses(nodes) == {"orders": "cached", "clean": "skipped", "total": "skipped"}


@pytest.mark.parametrize("command", [("run", "--env", "dev"), ("env", "apply", "dev")])
def test_a_run_in_an_environment_gives_the_same_shape(shop: Project, command: tuple[str, ...]) -> None:
    answer = shop.ok(*command, "--json")
    nodes = check_run(answer.document, "dev", "success")
    assert statuses(nodes) == {"orders": "cached", "clean": "success", "total": "success"}
    assert answer.document["snapshot"] == shop.ref("dev") != shop.ref()


@pytest.mark.parametrize("options", [(), ("--parallel",), ("--continue-on-error",)])
def test_a_run_that_fails_gives_its_document_too(shop: Project, options: tuple[str, ...]) -> None:
    shop.write("seeknal/2_clean.yml", FAILING)
    answer = shop.seeknal("run", "--json", *options)
    assert answer.code == 1
    nodes = check_run(answer.document, "prod", "failed")
    assert statuses(nodes) == {"orders": "cached", "clean": "failed", "total": "skipped"}
    message = "seeknal/2_clean.yml:3:23: transform.clean: Could not convert string 'x1' to INT32"
    assert nodes["clean"]["error"] == message
    assert answer.document["errors"] == [message]
    assert answer.document["snapshot"] == shop.ref()
    assert answer.errors == [message]


def test_a_failed_delivery_stands_in_the_document(shop: Project) -> None:
    shop.write("seeknal/4_out.yml", "kind: exposure\nname: out\npath: out/a.csv\ninputs: [transform.total]\n")
    shop.write("out", "in the way")
    answer = shop.seeknal("run", "--json")
    assert answer.code == 1
    nodes = check_run(answer.document, "prod", "failed")
    assert set(statuses(nodes).values()) <= {"success", "cached"}
    assert len(answer.document["errors"]) == 1
    assert "exposure.out" in answer.document["errors"][0]


@pytest.mark.parametrize("option", ["--dry-run", "--show-plan"])
@pytest.mark.parametrize("command", [("run",), ("run", "--env", "dev"), ("env", "apply", "dev")])
def test_a_dry_run_gives_what_it_would_do(shop: Project, command: tuple[str, ...], option: str) -> None:
    document = shop.ok(*command, option, "--json").document
    assert document["schema_version"] == 1
    assert document["env"] == ("prod" if command == ("run",) else "dev")
    assert [(node["node_id"], node["action"]) for node in document["nodes"]] == [
        ("source.orders", "CACHED"), ("transform.clean", "RUN"), ("transform.total", "MAY RUN"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("command", "environment"), [(("plan",), "prod"), (("plan", "dev"), "dev"), (("env", "plan", "dev"), "dev")]
)
def test_a_plan_gives_the_documented_document(shop: Project, command: tuple[str, ...], environment: str) -> None:
    answer = shop.ok(*command, "--json")
    document = answer.document
    assert {"schema_version", "env", "base", "nodes", "totals"} <= document.keys()
    assert (document["schema_version"], document["env"], document["base"]) == (1, environment, shop.ref())
    assert all(node.keys() >= PLANNED_KEYS for node in document["nodes"])
    assert [(node["node_id"], node["category"]) for node in document["nodes"]] == [
        ("transform.clean", "NON_BREAKING"), ("transform.total", "NON_BREAKING"),
    ]  # fmt: skip
    assert document["totals"]["to_execute"] == 2
    assert document["problems"] == []
    assert "Change Detection" in answer.stderr


def test_a_plan_of_what_does_not_work_gives_its_document_too(shop: Project) -> None:
    shop.write("seeknal/2_clean.yml", CLEAN.replace("amount", "amont"))
    answer = shop.seeknal("plan", "--json")
    assert answer.code == 1
    assert [problem.partition(": ")[0] for problem in answer.document["problems"]] == ["seeknal/2_clean.yml:3:23"]
    assert len(answer.errors) == 1
    # For an environment this is a plan like any other.
    answer = shop.ok("plan", "dev", "--json")
    assert len(answer.document["problems"]) == 1
    assert {node["category"] for node in answer.document["nodes"]} == {"BREAKING"}


def test_a_summary_does_not_change_the_document(shop: Project) -> None:
    assert shop.ok("plan", "--json", "--summary").document == shop.ok("plan", "--json").document


def test_a_promotion_gives_where_it_went(shop: Project) -> None:
    shop.ok("run", "--env", "dev")
    planned = shop.ok("promote", "dev", "--json", "--dry-run").document
    assert (planned["status"], planned["snapshot"]) == ("planned", None)
    answer = shop.ok("env", "promote", "dev", "--json")
    assert answer.document == {
        "schema_version": 1,
        "from_env": "dev",
        "to_env": "prod",
        "status": "success",
        "snapshot": shop.ref(),
        "changed_nodes": ["transform.clean", "transform.total"],
        "errors": [],
    }
    assert "Promoting Environment" in answer.stderr


def test_the_list_of_environments_is_a_document(shop: Project) -> None:
    document = shop.ok("env", "list", "--json").document
    assert document["schema_version"] == 1
    dev, prod = document["environments"]
    assert (dev["name"], dev["status"], dev["ttl_seconds"], dev["expired"]) == ("dev", "planned", 604800, False)
    assert (prod["name"], prod["status"], prod["nodes"]) == ("prod", "applied", 3)


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (("run", "--nodes", "nothing"), 1),
        (("run", "--env", "nowhere"), 1),
        (("plan", "prod"), 5),
        (("promote", "dev"), 1),
        (("env", "plan", "../x"), 2),
        (("run", "--restate"), 2),
    ],
)
def test_a_refusal_is_a_document_too(shop: Project, command: tuple[str, ...], code: int) -> None:
    answer = shop.seeknal(*command, "--json")
    assert answer.code == code
    check_refusal(answer)


def test_a_project_that_cannot_be_read_is_a_document_too(shop: Project) -> None:
    shop.write("seeknal/4_bad.yml", "kind: transform\nname: select\ntransform: SELECT 1\n")
    shop.write("seeknal/5_bad.yml", "kind: [\n")
    for command in (("run",), ("plan",), ("plan", "dev"), ("run", "--dry-run")):
        answer = shop.seeknal(*command, "--json")
        assert answer.code == 1
        check_refusal(answer)
        assert len(answer.document["errors"]) == 2


def check_refusal(answer: Answer) -> None:
    document = answer.document
    assert document.keys() == {"schema_version", "status", "errors"}
    assert (document["schema_version"], document["status"]) == (1, "failed")
    # Each error with its way out, which on stderr has a line of its own.
    assert len(document["errors"]) == len(answer.errors)
    assert all(text.startswith(line) for text, line in zip(document["errors"], answer.errors, strict=True))


def test_only_the_document_goes_through_a_pipe(shop: Project) -> None:
    answer = shop.process("run", "--parallel", "--full", "--json")
    assert answer.code == 0, answer.stderr
    check_run(answer.document, "prod", "success")
