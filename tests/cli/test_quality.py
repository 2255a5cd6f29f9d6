"""Checks as a gate: what fails them reaches no environment, and can be looked at."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.acceptance.project import Project

GOOD = "order_id,customer_id,amount\n1,10,5.5\n2,11,7\n"
BAD = "order_id,customer_id,amount\n1,10,5.5\n2,,7\n2,12,-3\n"

SOURCE = """\
kind: source
name: orders
source: csv
table: data/orders.csv
schema:
  - {name: order_id, data_type: integer}
  - {name: customer_id, data_type: integer}
  - {name: amount, data_type: double}
"""

CLEAN = """\
kind: transform
name: clean
transform: SELECT * FROM source.orders
audits:
  - not_null: [customer_id]
  - {type: unique, columns: [order_id]}
"""

TOTAL = "kind: transform\nname: total\ntransform: SELECT sum(amount) AS total FROM transform.clean\n"

EXPORT = "kind: exposure\nname: export\ninputs: [transform.clean]\npath: output/clean.csv\n"

RULE = """\
kind: rule
name: amounts
inputs: [{ref: source.orders}]
rule: {type: range, column: amount, params: {min_val: 0}}
"""


@pytest.fixture
def shop(tmp_path: Path) -> Project:
    project = Project(tmp_path / "shop")
    project.write("seeknal_project.yml", "name: shop\n")
    project.write("data/orders.csv", GOOD)
    project.write("seeknal/orders.yml", SOURCE)
    project.write("seeknal/clean.yml", CLEAN)
    project.write("seeknal/total.yml", TOTAL)
    project.write("seeknal/export.yml", EXPORT)
    return project


def statuses(project: Project, *arguments: str) -> dict[str, str]:
    document = project.seeknal("run", "--json", *arguments).document
    return {node["name"]: node["status"] for node in document["nodes"]}


def shown(project: Project, *arguments: str) -> str:
    return project.ok(
        "repl", "--format", "csv", *arguments, "--exec", "SELECT count(*) AS n FROM transform.clean"
    ).stdout


# production


@pytest.mark.parametrize("options", [(), ("--parallel",)])
def test_a_failed_audit_keeps_production_where_it_was(shop: Project, options: tuple[str, ...]) -> None:
    shop.ok("run")
    before, exported = shown(shop), shop.read("output/clean.csv")
    ref = shop.read("target/store/refs/prod")
    shop.write("data/orders.csv", BAD)
    answer = shop.seeknal("run", *options)
    assert answer.code == 1
    assert shop.read("target/store/refs/prod") == ref
    assert (shown(shop), shop.read("output/clean.csv")) == (before, exported)
    assert answer.errors == [
        "seeknal/clean.yml:5:5: transform.clean: not_null(customer_id): 1 of 3 rows with NULL in customer_id",
        "seeknal/clean.yml:6:5: transform.clean: unique(order_id): 1 of 3 rows repeating another row's order_id",
    ]
    assert "seeknal inspect transform.clean --failed" in answer.stderr
    assert "NULL" in answer.stdout
    assert "Data quality:   2 check(s), 0 passed, 2 error(s)" in answer.stdout
    assert statuses(shop) == {"orders": "cached", "clean": "failed", "total": "skipped", "export": "skipped"}
    shop.write("data/orders.csv", GOOD.replace("7", "8"))
    shop.ok("run")
    assert shop.read("target/store/refs/prod") != ref


def test_a_failed_rule_keeps_production_where_it_was(shop: Project) -> None:
    shop.ok("run")
    shop.write("seeknal/rule.yml", RULE)
    ref = shop.read("target/store/refs/prod")
    shop.write("data/orders.csv", GOOD.replace("7", "-7"))
    answer = shop.seeknal("run")
    assert answer.code == 1
    assert answer.errors == ["seeknal/rule.yml:4:1: rule.amounts: range(amount): 1 of 2 rows outside amount ≥ 0"]
    assert shop.read("target/store/refs/prod") == ref
    shop.write("data/orders.csv", GOOD)
    shop.ok("run")


def test_nothing_is_built_of_a_first_run_that_fails(shop: Project) -> None:
    shop.write("data/orders.csv", BAD)
    assert shop.seeknal("run").code == 1
    assert not (shop.root / "target/store/refs/prod").exists()
    assert not (shop.root / "output").exists()
    assert "not_null(customer_id)" in shop.ok("inspect", "clean", "--failed").stdout


def test_continue_on_error_keeps_the_former_output_and_marks_it_stale(shop: Project) -> None:
    shop.ok("run")
    before = shown(shop)
    shop.write("data/orders.csv", BAD)
    assert shop.seeknal("run", "--continue-on-error").code == 1
    assert shown(shop) == before
    listed = shop.ok("inspect").stdout
    assert "transform.clean (stale)" in listed
    assert "transform.total (stale)" in listed
    assert "source.orders (stale)" not in listed


# environments


def test_an_environment_whose_audit_fails_is_not_promoted(shop: Project) -> None:
    shop.ok("run")
    ref = shop.read("target/store/refs/prod")
    shop.replace("seeknal/clean.yml", "SELECT *", "SELECT DISTINCT * REPLACE (1 AS order_id)")
    shop.ok("plan", "dev")
    answer = shop.seeknal("env", "apply", "dev")
    assert answer.code == 1
    assert "unique(order_id)" in answer.stderr
    assert "seeknal inspect transform.clean --failed --env dev" in answer.stderr
    assert shop.seeknal("promote", "dev", "--yes").code == 1
    assert shop.read("target/store/refs/prod") == ref
    assert "FAIL unique(order_id)" in shop.ok("inspect", "clean", "--failed", "--env", "dev").stdout
    assert shop.seeknal("inspect", "clean", "--failed").code == 1


def test_what_passed_in_an_environment_is_not_checked_again(shop: Project) -> None:
    shop.ok("run")
    shop.replace("seeknal/clean.yml", "SELECT *", "SELECT *, amount * 2 AS twice")
    shop.ok("plan", "dev")
    shop.ok("env", "apply", "dev")
    shop.ok("promote", "dev", "--yes")
    records = sorted(path.name for path in (shop.root / "target/store/checks").rglob("*") if path.is_file())
    assert len(records) == 2
    document = shop.ok("run", "--json").document
    assert {node["status"] for node in document["nodes"]} == {"cached"}
    assert [node["checks"][0]["passed"] for node in document["nodes"] if node["name"] == "clean"] == [True]


# caching


def test_a_new_audit_is_checked_without_building_the_node_again(shop: Project) -> None:
    shop.ok("run")
    shop.write("seeknal/clean.yml", CLEAN + "  - amount > 6\n")
    forecast = {node["node_id"]: node["action"] for node in shop.ok("run", "--dry-run", "--json").document["nodes"]}
    assert forecast["transform.clean"] == "CHECK"
    assert forecast["transform.total"] == "CACHED"
    answer = shop.seeknal("run")
    assert answer.code == 1
    assert answer.errors == [
        "seeknal/clean.yml:7:5: transform.clean: amount > 6: 1 of 2 rows not fulfilling the condition"
    ]
    assert statuses(shop)["clean"] == "failed"
    shop.write("seeknal/clean.yml", CLEAN + "  - amount > 5\n")
    document = shop.ok("run", "--json").document
    assert [(node["status"], len(node["checks"])) for node in document["nodes"] if node["name"] == "clean"] == [
        ("cached", 3)
    ]


def test_adding_audits_is_a_change_of_metadata(shop: Project) -> None:
    shop.ok("run")
    shop.write("seeknal/total.yml", TOTAL + "audits: [{type: row_count, min: 1}]\n")
    (node,) = [node for node in shop.ok("plan", "--json").document["nodes"] if node["node_id"] == "transform.total"]
    assert node["category"] == "METADATA"


def test_rejected_output_is_kept_until_the_checks_change(shop: Project) -> None:
    shop.write("data/orders.csv", BAD)
    shop.seeknal("run")
    shop.replace("seeknal/clean.yml", "  - {type: unique, columns: [order_id]}\n", "")
    shop.replace("seeknal/clean.yml", "not_null: [customer_id]", "not_null: [order_id]")
    assert statuses(shop) == {"orders": "cached", "clean": "cached", "total": "success", "export": "success"}


def test_a_rule_runs_again_only_for_the_columns_that_it_checks(shop: Project) -> None:
    shop.write("seeknal/rule.yml", RULE)
    shop.ok("run")
    shop.write("data/orders.csv", GOOD.replace("11", "12"))
    assert statuses(shop)["amounts"] == "cached"
    shop.write("data/orders.csv", GOOD.replace("7", "8"))
    assert statuses(shop)["amounts"] == "success"


def test_a_freshness_rule_runs_every_time(shop: Project) -> None:
    shop.write("seeknal/seen.yml", "kind: transform\nname: seen\ntransform: SELECT TIMESTAMP '2100-01-01' AS seen\n")
    shop.write(
        "seeknal/fresh.yml",
        "kind: rule\nname: fresh\ninputs: [transform.seen]\nrule: {type: freshness, column: seen, max_age: 1d}\n",
    )
    assert statuses(shop)["fresh"] == "success"
    assert statuses(shop)["fresh"] == "success"
    assert statuses(shop)["seen"] == "cached"


# warnings


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("seeknal/clean.yml", CLEAN + "  - {type: row_count, min: 5, severity: warn}\n"),
        (
            "seeknal/few.yml",
            "kind: rule\nname: few\ninputs: [source.orders]\nrule: {type: row_count, min: 5, severity: warn}\n",
        ),
    ],
)
def test_a_warning_is_told_and_told_again_while_it_is_cached(shop: Project, file: str, text: str) -> None:
    shop.write(file, text)
    said = "2 rows, and at least 5 are expected"
    for _ in range(3):
        answer = shop.ok("run")
        assert said in answer.stdout
        assert "1 warning(s)" in answer.stdout
    # Not even with the record of a run that left nothing to do.
    (shop.root / "target/store/memo/settled").unlink()
    assert said in shop.ok("run").stdout


# looking at what failed


def test_the_rows_that_were_rejected_can_be_seen_until_the_node_passes(shop: Project) -> None:
    shop.write("data/orders.csv", BAD)
    shop.seeknal("run")
    answer = shop.ok("inspect", "transform.clean", "--failed")
    assert "Checked: transform.clean, 3 rows" in answer.stdout
    assert "FAIL not_null(customer_id): 1 of 3 rows with NULL in customer_id" in answer.stdout
    assert "2        | NULL        | 7.0" in answer.stdout
    assert "2        | 2" in answer.stdout
    assert "transform.clean: not_null(customer_id), unique(order_id)" in shop.ok("inspect", "--failed").stdout
    shop.write("data/orders.csv", GOOD)
    shop.ok("run")
    assert shop.seeknal("inspect", "clean", "--failed").code == 1
    assert "None" in shop.ok("inspect", "--failed").stdout


def test_what_failed_is_forgotten_by_the_run_after_the_edit_was_taken_back(shop: Project) -> None:
    shop.write("seeknal/rule.yml", RULE)
    shop.ok("run")
    shop.write("seeknal/rule.yml", RULE.replace("min_val: 0", "min_val: 1000000"))
    assert shop.seeknal("run").code == 1
    assert "amounts" in shop.ok("inspect", "--failed").stdout
    shop.write("seeknal/rule.yml", RULE)
    # Production stands where its last good run left it, so there is nothing else to do.
    shop.ok("run")
    assert "amounts" not in shop.seeknal("inspect", "--failed").text


def test_what_failed_in_another_environment_is_found(shop: Project) -> None:
    shop.ok("run")
    shop.write("data/orders.csv", BAD)
    shop.ok("plan", "dev")
    assert shop.seeknal("run", "--env", "dev").code == 1
    answer = shop.seeknal("inspect", "clean", "--failed")
    assert "no checks of 'clean' failed in environment 'prod'" in answer.stderr
    assert "hint: they failed in dev: add `--env dev`" in answer.stderr


def test_a_rule_shows_what_its_checks_found(shop: Project) -> None:
    shop.write("seeknal/rule.yml", RULE.replace("}}", "}, severity: warn}"))
    shop.ok("run")
    text = shop.ok("inspect", "amounts").stdout
    assert "PASS range(amount): none of 2 rows outside" in text
    assert "deliver" not in text
    shop.write("data/orders.csv", GOOD.replace("7", "-7"))
    shop.ok("run")
    assert "WARN range(amount): 1 of 2 rows outside" in shop.ok("inspect", "rule.amounts").stdout


def test_the_input_of_a_rule_that_failed_can_be_seen(shop: Project) -> None:
    shop.write("seeknal/rule.yml", RULE)
    shop.write("data/orders.csv", GOOD.replace("7", "-7"))
    assert shop.seeknal("run").code == 1
    answer = shop.ok("inspect", "amounts", "--failed")
    assert "Checked: source.orders, 2 rows" in answer.stdout
    assert "2        | 11          | -7.0" in answer.stdout


# audit and validate


def test_audit_checks_what_is_stored_without_running(shop: Project) -> None:
    shop.write("seeknal/rule.yml", RULE)
    shop.ok("run")
    state = shop.state()
    assert "Audit Summary: 3 passed, 0 failed" in shop.ok("audit").stdout
    shop.write("seeknal/clean.yml", CLEAN + "tests:\n  - amount > 6\n  - {type: row_count, max: 1, severity: warn}\n")
    answer = shop.seeknal("audit", "clean")
    assert answer.code == 1
    assert "FAIL transform.clean: amount > 6: 1 of 2 rows not fulfilling the condition" in answer.stdout
    assert "Audit Summary: 2 passed, 1 failed, 1 warning(s)" in answer.stdout
    document = shop.seeknal("audit", "--json", "transform.clean").document
    assert document["status"] == "failed"
    assert [check["passed"] for check in document["nodes"][0]["checks"]] == [True, True, False, False]
    assert shop.state() == state
    shop.write("seeknal/clean.yml", CLEAN + "tests:\n  - {type: row_count, max: 1, severity: warn}\n")
    assert shop.ok("audit").code == 0
    assert shop.seeknal("audit", "cleen").errors == ["no node is called 'cleen'"]


def test_audit_looks_at_the_environment_that_is_named(shop: Project) -> None:
    shop.ok("run")
    shop.replace("seeknal/clean.yml", "SELECT *", "SELECT * REPLACE (amount + 1 AS amount)")
    shop.ok("plan", "dev")
    shop.ok("run", "--env", "dev")
    shop.write("seeknal/clean.yml", shop.read("seeknal/clean.yml") + "  - amount > 6\n")
    assert shop.seeknal("audit", "clean").code == 1
    assert shop.ok("audit", "clean", "--env", "dev").code == 0


def test_validate_lists_every_problem(shop: Project) -> None:
    assert "The project is valid: 4 nodes" in shop.ok("validate").stdout
    shop.write(
        "seeknal/clean.yml",
        CLEAN + "  - not_null: [customer]\n  - amuont > 0\n  - {type: range, column: amount, min_val: low}\n",
    )
    shop.write("seeknal/rule.yml", RULE.replace("column: amount", "column: amounts"))
    state = (shop.root / "target").exists()
    answer = shop.seeknal("validate")
    assert answer.code == 1
    assert sorted(answer.errors) == [
        "seeknal/clean.yml:7:5: transform.clean: not_null(customer): no column 'customer'",
        'seeknal/clean.yml:8:5: transform.clean: amuont > 0: Referenced column "amuont" not found in FROM clause',
        "seeknal/clean.yml:9:35: transform.clean: range(amount): 'low' is no DOUBLE",
        "seeknal/rule.yml:4:21: rule.amounts: range(amounts): no column 'amounts'",
    ]
    assert "did you mean 'customer_id'?" in answer.stderr
    assert (shop.root / "target").exists() == state
    document = shop.seeknal("validate", "--json").document
    assert document["status"] == "failed"
    assert len(document["errors"]) == 4
    assert shop.seeknal("run").code == 1


@pytest.mark.parametrize(
    ("audit", "message"),
    [
        (
            "  - custom_sql: SELECT * FROM source.orders\n",
            "a check of transform.clean reads its own rows only, not source.orders",
        ),
        ("  - custom_sql: SELECT * FROM 'data/orders.csv'\n", "'data/orders.csv' is a file, and a node reads nodes"),
        ("  - custom_sql: DELETE FROM __THIS__\n", "DELETE is not allowed here"),
        ("  - custom_sql: SELECT getenv('HOME')\n", "getenv"),
        ("  - custom_sql: SELEC 1\n", "syntax error"),
        ("  - {type: freshness, column: amount, max_age: 1d}\n", "the column is DOUBLE, and an age needs a date"),
    ],
)
def test_a_check_reads_its_table_and_nothing_else(shop: Project, audit: str, message: str) -> None:
    shop.write("seeknal/clean.yml", CLEAN + audit)
    answer = shop.seeknal("validate")
    assert answer.code == 1
    assert message in answer.errors[0]
    assert answer.errors[0].startswith("seeknal/clean.yml:7:")


def test_audits_of_a_node_without_rows_are_refused(shop: Project) -> None:
    shop.write("seeknal/export.yml", EXPORT + "audits: [{type: row_count, min: 1}]\n")
    assert "'audits' are checks of a node's rows" in shop.seeknal("validate").errors[0]


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM input_data WHERE order_id > 1",
        "SELECT * FROM source_orders WHERE order_id > 1",
        "SELECT * FROM source.orders WHERE order_id > 1",
        "SELECT * FROM ref('source.orders') WHERE order_id > 1",
        "SELECT c.* FROM input_0 o JOIN input_1 c USING (order_id) WHERE order_id > 1",
        "SELECT * FROM transform_clean WHERE order_id > 1",
        "CREATE TEMP VIEW late AS FROM input_data WHERE order_id > 1; SELECT * FROM late",
        "WITH input_data AS (SELECT 1 AS a) SELECT * FROM input_data",
        "SELECT * FROM transform.total",
    ],
)
def test_the_sql_of_a_rule_finds_its_inputs_by_every_name(shop: Project, sql: str) -> None:
    shop.write(
        "seeknal/rule.yml",
        "kind: rule\nname: late\ninputs: [source.orders, transform.clean]\nrule:\n"
        f'  - {{type: sql_assertion, sql: "{sql}"}}\n',
    )
    answer = shop.seeknal("run")
    assert answer.code == 1
    assert answer.errors == ["seeknal/rule.yml:5:5: rule.late: sql_assertion: the query gives 1 row"]


def test_checks_have_templates(shop: Project) -> None:
    shop.write("seeknal/clean.yml", CLEAN + "  - amount > {{ least }}\nparams: {least: 6}\n")
    assert "amount > 6: 1 of 2 rows" in shop.seeknal("run").errors[0]
    shop.ok("run", "--params", '{"least": 1}')


def test_a_rule_checks_the_rows_of_a_function(shop: Project) -> None:
    shop.write(
        "seeknal/checked.py",
        "from seeknal.pipeline import rule\n\n\n"
        "@rule(name='checked', rule=[{'type': 'not_null', 'columns': ['a']}, 'a > 0'])\n"
        "def checked(ctx):\n    return ctx.duckdb.sql('SELECT unnest([1, -1]) AS a')\n",
    )
    answer = shop.seeknal("run")
    assert answer.code == 1, answer.text
    assert "rule.checked: a > 0: 1 of 2 rows not fulfilling the condition" in answer.errors[0]
    assert "-1" in shop.ok("inspect", "checked", "--failed").stdout
