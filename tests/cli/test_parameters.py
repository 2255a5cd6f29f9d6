"""Templates and parameters on the command line: what they give, what runs again for them, what is refused."""

from __future__ import annotations

import os
from datetime import date, timedelta
from pathlib import Path

import pytest

from tests.acceptance.project import Answer, Project

SOURCE = """
kind: source
name: orders
source: csv
table: data/orders.csv
"""
REGION = """
kind: transform
name: of_region
params: {region: EU}
inputs: [source.orders]
transform: |
  SELECT * FROM source.orders WHERE region = '{{ region }}'
"""
DAY = """
kind: transform
name: of_day
inputs: [source.orders]
transform: |
  SELECT *, {{ today }} AS seen FROM source.orders
"""
STAMPED = """
kind: transform
name: stamped
inputs: [transform.of_region]
transform: |
  SELECT *, '{{ run_id }}' AS run, {{ run_date }} AS at FROM transform.of_region
"""


@pytest.fixture
def shop(tmp_path: Path) -> Project:
    project = Project(tmp_path / "shop")
    project.write("seeknal_project.yml", "name: shop\n")
    project.write("data/orders.csv", "id,region\n1,EU\n2,US\n3,O'Hara\n")
    for name, text in (("a", SOURCE), ("b", REGION), ("c", DAY), ("d", STAMPED)):
        project.write(f"seeknal/{name}.yml", text)
    return project


def executed(answer: Answer) -> list[str]:
    return sorted(node["name"] for node in answer.document["nodes"] if node["status"] == "success")


def run(project: Project, *arguments: str) -> list[str]:
    return executed(project.ok("run", "--json", *arguments))


ALL = ["of_day", "of_region", "orders", "stamped"]


def test_values_reach_the_outputs(shop: Project) -> None:
    shop.ok("run", "--date", "2024-01-31", "--run-id", "nightly", "--params", """{"region": "O'Hara"}""")
    (row,) = shop.rows("transform.stamped")
    assert (row["id"], row["run"], row["at"].isoformat()) == (3, "nightly", "2024-01-31")
    assert {str(row["seen"]) for row in shop.rows("transform.of_day")} == {"2024-01-31"}


def test_a_run_executes_the_nodes_whose_values_changed(shop: Project) -> None:
    assert run(shop, "--date", "2024-01-31") == ALL
    assert run(shop, "--date", "2024-01-31") == []
    assert run(shop, "--date", "2024-02-01") == ["of_day", "stamped"]
    assert run(shop, "--date", "2024-02-01", "--params", '{"region": "US"}') == ["of_region", "stamped"]
    # Back where it was: everything is in the cache.
    assert run(shop, "--date", "2024-01-31") == []


def test_why_a_node_runs_again_names_the_parameter(shop: Project) -> None:
    shop.ok("run", "--date", "2024-01-31")
    answer = shop.ok("run", "--dry-run", "--date", "2024-02-01")
    assert "a parameter that it uses changed: today" in answer.stdout


def test_a_node_that_uses_the_run_id_runs_when_something_else_changes(shop: Project) -> None:
    shop.ok("run", "--run-id", "one")
    assert run(shop, "--run-id", "two") == []
    assert run(shop) == []
    assert shop.rows("transform.stamped")[0]["run"] == "one"
    assert run(shop, "--run-id", "three", "--params", '{"region": "US"}') == ["of_region", "stamped"]
    assert shop.rows("transform.stamped")[0]["run"] == "three"


def test_in_worker_processes_the_values_are_the_same(shop: Project) -> None:
    assert run(shop, "--parallel", "--run-id", "one") == ALL
    assert shop.rows("transform.stamped")[0]["run"] == "one"


def test_the_plan_names_volatile_nodes(shop: Project) -> None:
    shop.ok("run")
    shop.replace("seeknal/d.yml", "SELECT *", "SELECT id")
    assert "Volatile: uses run_id, run_date; built once for each change" in shop.ok("plan").stdout
    nodes = {node["node_id"]: node["volatile"] for node in shop.ok("plan", "--json").document["nodes"]}
    assert nodes == {"transform.stamped": True}


# a run with nothing to do


def is_settled(project: Project, *arguments: str, environment: dict[str, str] | None = None) -> bool:
    """Whether a run finds nothing to do without looking at the project: DuckDB is not imported for it."""
    script = (
        "import sys\nfrom seeknal.cli.main import main\n"
        f"try:\n    main({['run', *arguments]!r})\n"
        "except SystemExit as exit_:\n    assert exit_.code == 0, exit_.code\n"
        "print('duckdb' not in sys.modules)\n"
    )
    for name, value in (environment or {}).items():
        script = f"import os\nos.environ[{name!r}] = {value!r}\n" + script
    project.write("probe.py", script)
    answer = project.shell("python probe.py")
    assert answer.code == 0, answer.text
    return answer.stdout.splitlines()[-1] == "True"


def test_a_settled_run_rests_on_the_parameters_that_were_asked_for(shop: Project) -> None:
    shop.ok("run", "--date", "2024-01-31", "--params", '{"region": "US"}')
    assert is_settled(shop, "--date", "2024-01-31", "--params", '{"region": "US"}')
    assert not is_settled(shop, "--date", "2024-01-31", "--params", '{"region": "US", "other": 1}')
    # These two execute nodes.
    assert not is_settled(shop, "--date", "2024-01-31")
    assert not is_settled(shop, "--date", "2024-02-01")
    assert is_settled(shop, "--date", "2024-02-01", "--start-date", "2024-01-01")


def test_a_settled_run_rests_on_environment_variables_and_shared_files(shop: Project) -> None:
    shop.write("seeknal/b.yml", REGION.replace("region: EU", 'region: "{{ env:SHOP_REGION|EU }}"'))
    shop.write("seeknal/c.yml", DAY.replace("{{ today }}", "{{ transforms.seen }}"))
    shop.write("seeknal/common/transformations.yml", "transformations: [{id: seen, sql: '1'}]\n")
    assert not is_settled(shop)
    assert is_settled(shop)
    assert not is_settled(shop, environment={"SHOP_REGION": "US"})
    assert is_settled(shop, environment={"SHOP_REGION": "US"})
    shop.write("seeknal/common/transformations.yml", "transformations: [{id: seen, sql: '2'}]\n")
    assert not is_settled(shop, environment={"SHOP_REGION": "US"})
    assert shop.rows("transform.of_day")[0]["seen"] == 2
    shop.write("seeknal/common/rules.yml", "rules: [{id: a, value: 'true'}]\n")
    assert not is_settled(shop, environment={"SHOP_REGION": "US"})
    record = (shop.root / "target/store/memo/settled").read_bytes()
    assert b"SHOP_REGION" in record
    assert b"US" not in record


def test_a_settled_run_rests_on_the_day_where_the_day_matters(shop: Project) -> None:
    shop.ok("run")
    assert is_settled(shop)
    record = (shop.root / "target/store/memo/settled").read_bytes()
    assert date.today().isoformat().encode() in record
    shop.write("seeknal/c.yml", DAY.replace("{{ today }}", "1"))
    shop.ok("run")
    assert is_settled(shop)
    record = (shop.root / "target/store/memo/settled").read_bytes()
    assert date.today().isoformat().encode() not in record


def test_where_a_path_is_new_in_every_run_no_run_is_settled(shop: Project) -> None:
    exposure = 'kind: exposure\nname: out\npath: "out/{{ run_id }}.csv"\ninputs: [transform.of_region]\n'
    shop.write("seeknal/e.yml", exposure)
    shop.ok("run", "--run-id", "one")
    assert not is_settled(shop)
    assert run(shop, "--run-id", "two") == []
    assert {"one.csv", "two.csv"} & {path.name for path in (shop.root / "out").iterdir()} >= {"two.csv"}


# environments


def test_a_plan_keeps_its_parameters_for_the_runs_that_apply_it(shop: Project) -> None:
    shop.ok("run", "--date", "2024-01-31")
    shop.write(
        "seeknal/e.yml", 'kind: exposure\nname: out\npath: "out/{{ date }}.csv"\ninputs: [transform.of_region]\n'
    )
    shop.ok("plan", "dev", "--date", "2024-02-01", "--params", '{"region": "US"}')
    assert shop.json("target/environments/dev/plan.json")["parameters"] == {
        "date": "2024-02-01",
        "params": {"region": "US"},
    }
    assert run(shop, "--env", "dev") == ["of_day", "of_region", "out", "stamped"]
    assert [row["id"] for row in shop.rows("transform.of_region", "dev")] == [2]
    assert run(shop, "--env", "dev", "--date", "2024-02-01", "--params", '{"region": "US"}', "--run-id", "r") == []
    answer = shop.seeknal("run", "--env", "dev", "--date", "2024-02-02")
    assert answer.code == 4
    assert "Plan is stale -- it was made with other parameters" in answer.stderr
    assert executed(shop.ok("env", "apply", "dev", "--json", "--date", "2024-02-02", "--force")) == [
        "of_day",
        "out",
        "stamped",
    ]
    shop.ok("env", "plan", "dev", "--date", "2024-02-01", "--params", '{"region": "US"}')
    shop.ok("run", "--env", "dev")
    shop.ok("promote", "dev", "--yes")
    assert (shop.root / "out/2024-02-01.csv").read_text() == "id,region\n2,US\n"
    assert run(shop, "--date", "2024-02-01", "--params", '{"region": "US"}') == []


# what is refused


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--date", "2024-13-01"), "--date '2024-13-01' is not a date"),
        (("--date", "1999-12-31"), "--date 1999-12-31 is out of range"),
        (("--date", (date.today() + timedelta(days=366)).isoformat()), "is out of range"),
        (("--params", "{region: EU}"), "--params is not valid JSON"),
        (("--params", "[1]"), "--params is not a JSON object"),
        (("--start-date", "soon"), "--start-date 'soon' is not a date"),
        (("--start-date", "2024-02-01", "--end-date", "2024-01-01"), "is after --end-date"),
    ],
)
@pytest.mark.parametrize("command", ["run", "plan", "parse", "diff"])
def test_a_wrong_value_of_an_option_is_refused(
    shop: Project, command: str, arguments: tuple[str, ...], said: str
) -> None:
    answer = shop.seeknal(command, *arguments)
    assert answer.code == 2
    assert said in answer.errors[0]
    assert not (shop.root / "target").exists()


def test_an_attempt_to_put_sql_into_a_query_changes_nothing(shop: Project) -> None:
    shop.write("seeknal/b.yml", REGION.replace("'{{ region }}'", "{{ region }}").replace("EU", "region"))
    shop.ok("run")
    before = shop.kept_state()
    answer = shop.seeknal("run", "--params", """{"region": "'EU' OR true"}""")
    assert answer.code == 1
    assert answer.errors[0].startswith("seeknal/b.yml:7:46: the value of {{ region }} is not the project's own")
    assert shop.kept_state() == before
    shop.write("seeknal/b.yml", REGION)
    shop.ok("run", "--params", """{"region": "EU' OR 'a' = 'a"}""")
    assert shop.rows("transform.of_region") == []


def test_a_file_of_another_folder_cannot_be_read_through_a_parameter(shop: Project) -> None:
    (shop.root.parent / "secret.csv").write_text("id,region\n9,EU\n")
    shop.write("seeknal/a.yml", SOURCE.replace("orders.csv", "{{ env:SHOP_FILE|orders }}.csv"))
    shop.ok("run")
    answer = shop.process("run", environment={"SHOP_FILE": "../../secret"})
    assert answer.code == 1
    assert answer.errors == ["seeknal/a.yml:5:13: the value leads out of its folder: 'data/***.csv'"]


# .env


def test_variables_stand_in_the_nearest_env_file_and_keep_what_is_set(shop: Project) -> None:
    shop.write("seeknal/b.yml", REGION.replace("region: EU", 'region: "{{ env:SHOP_REGION }}"'))
    assert shop.process("run").code == 1
    (shop.root.parent / ".env").write_text('SHOP_REGION="US"\n')
    assert shop.process("run").code == 0
    assert [row["region"] for row in shop.rows("transform.of_region")] == ["US"]
    shop.write(".env", "export SHOP_REGION='EU'\n")
    assert shop.process("run").code == 0
    assert [row["region"] for row in shop.rows("transform.of_region")] == ["EU"]
    assert shop.process("run", environment={"SHOP_REGION": "US"}).code == 0
    assert [row["region"] for row in shop.rows("transform.of_region")] == ["US"]


def test_the_env_file_of_a_project_elsewhere_is_read_too(shop: Project, tmp_path: Path) -> None:
    shop.write("seeknal/b.yml", REGION.replace("region: EU", 'region: "{{ env:SHOP_REGION }}"'))
    shop.write(".env", "SHOP_REGION=US\n")
    elsewhere = Project(tmp_path / "elsewhere")
    assert elsewhere.process("run", "-C", str(shop.root)).code == 0
    assert [row["region"] for row in shop.rows("transform.of_region")] == ["US"]


def test_an_env_file_is_looked_for_three_folders_up_and_no_further(tmp_path: Path) -> None:
    from seeknal.cli.environment_file import load_environment_file

    deep = tmp_path / "a/b/c/d"
    deep.mkdir(parents=True)
    (tmp_path / ".env").write_text("")
    assert load_environment_file(deep) is None
    assert load_environment_file(deep.parent) == tmp_path / ".env"


def test_an_env_file_that_cannot_be_read_is_an_error_with_its_path(shop: Project) -> None:
    shop.write(".env", b"A=\xff\xfe\n")
    answer = shop.process("plan")
    assert answer.code == 1
    assert answer.errors[0].startswith(f"{shop.root}{os.sep}.env: cannot be read: ")
