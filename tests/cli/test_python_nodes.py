"""Python nodes from the command line: plans, runs, diffs, what is shown of a failure."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.acceptance.project import Project

NODES = '''\
"""Orders in dollars."""

from seeknal.pipeline import source, transform

from rates import RATE


@source(name="orders", table="data/orders.csv")
def orders(ctx=None):
    pass


@transform(name="dollars", description="In dollars")
def dollars(ctx):
    orders = ctx.relation("source.orders")
    print("converting")
    return ctx.duckdb.sql(f"SELECT id, amount * {RATE} AS amount FROM orders")
'''
TOTAL = "kind: transform\nname: total\ntransform: SELECT sum(amount) AS total FROM transform.dollars\n"


@pytest.fixture
def project(tmp_path: Path) -> Project:
    made = Project(tmp_path / "shop")
    made.write("seeknal_project.yml", "name: shop\n")
    made.write("data/orders.csv", "id,amount\n1,10\n2,20\n")
    made.write("seeknal/nodes.py", NODES)
    made.write("seeknal/total.yml", TOTAL)
    made.write("rates.py", "RATE = 2\n")
    return made


def statuses(project: Project, *options: str) -> dict[str, str]:
    answer = project.seeknal("run", "--json", *options)
    assert answer.code == 0, answer.text
    return {node["node_id"]: node["status"] for node in answer.document["nodes"]}


def test_what_became_of_a_node_stands_below_its_name_while_others_are_cached(project: Project) -> None:
    project.write(
        "seeknal/warned.yml",
        "kind: rule\nname: few\ninputs: [source.orders]\nrule: {value: amount < 15, severity: warn}\n",
    )
    project.ok("run")
    project.write("rates.py", "RATE = 3\n")
    lines = project.ok("run").stdout.splitlines()
    started = next(number for number, line in enumerate(lines) if line.endswith("dollars [RUNNING]"))
    assert lines[started + 1].startswith("  SUCCESS in ")
    few = next(number for number, line in enumerate(lines) if "few [CACHED]" in line)
    assert lines[few + 1].startswith("⚠ few: amount < 15: 1 of 2 rows")


def test_a_run_is_cached_until_a_module_that_a_function_imports_changes(project: Project) -> None:
    everything = {"source.orders", "transform.dollars", "transform.total"}
    assert statuses(project) == dict.fromkeys(everything, "success")
    assert statuses(project) == dict.fromkeys(everything, "cached")
    project.write("rates.py", "RATE = 3\n")
    assert statuses(project) == {
        "source.orders": "cached",
        "transform.dollars": "success",
        "transform.total": "success",
    }
    project.write("rates.py", "RATE = 3  # since May\n")
    assert statuses(project) == dict.fromkeys(everything, "cached")
    more = "from seeknal.pipeline import transform\n\n@transform(sql='SELECT 1 AS n')\ndef more(): ...\n"
    project.write("seeknal/more.py", more)
    assert statuses(project)["transform.more"] == "success"
    project.write("seeknal/more.py", "raise ValueError\n")
    assert project.seeknal("run").code == 1


def test_what_a_function_prints_stands_in_its_log_and_not_on_stdout(project: Project) -> None:
    answer = project.process("run", "--json")
    assert answer.code == 0
    assert answer.document["status"] == "success"
    assert "converting" not in answer.text
    assert project.read("target/logs/transform.dollars.log") == "converting\n"


def test_a_changed_function_is_a_change_that_breaks_nothing(project: Project) -> None:
    project.seeknal("run")
    project.replace("seeknal/nodes.py", "amount * {RATE}", "amount + {RATE}")
    plan = project.seeknal("plan", "--json").document
    assert {node["node_id"]: (node["category"], node["details"]) for node in plan["nodes"]} == {
        "transform.dollars": ("NON_BREAKING", ["function: function changed"]),
        "transform.total": ("NON_BREAKING", []),
    }
    assert [entry["reason"] for entry in plan["forecast"] if entry["node_id"] == "transform.dollars"] == [
        "its function changed"
    ]
    diff = project.seeknal("diff")
    assert "function" in diff.text
    assert "transform.dollars" in diff.text


def test_the_manifest_says_which_function_a_node_is(project: Project) -> None:
    assert project.seeknal("plan").code == 0
    nodes = project.json("target/manifest.json")["nodes"]
    config = nodes["transform.dollars"]["config"]
    assert config.keys() == {"function"}
    assert config["function"]["name"] == "dollars"
    assert nodes["transform.dollars"]["description"] == "In dollars"
    assert nodes["transform.dollars"]["file_path"] == "seeknal/nodes.py"
    assert "function" not in nodes["source.orders"]["config"]


def test_an_environment_has_python_nodes_and_promotes_them(project: Project) -> None:
    project.seeknal("run")
    project.replace("seeknal/nodes.py", "amount * {RATE}", "amount * {RATE} * 10")
    for command in (["plan", "dev"], ["run", "--env", "dev"], ["promote", "dev"]):
        answer = project.seeknal(*command)
        assert answer.code == 0, answer.text
    assert "600" in project.seeknal("inspect", "transform.total").text
    assert set(statuses(project).values()) == {"cached"}


def test_a_failure_names_the_line_and_the_log(project: Project) -> None:
    project.write("rates.py", "def __getattr__(name):\n    raise KeyError(name)\n")
    project.replace("seeknal/nodes.py", "from rates import RATE\n", "import rates\n")
    project.replace("seeknal/nodes.py", "{RATE}", "{rates.RATE}")
    answer = project.seeknal("run")
    assert answer.code == 1
    assert "rates.py:2: transform.dollars: KeyError: 'RATE'" in answer.text
    assert "target/logs/transform.dollars.log" in answer.text
    assert "Traceback" not in answer.text
    assert "Traceback" in project.read("target/logs/transform.dollars.log")


def test_a_column_that_an_input_does_not_have_is_told_before_anything_runs(project: Project) -> None:
    project.replace(
        "seeknal/nodes.py", 'relation("source.orders")', 'relation("source.orders", columns=["id", "amont"])'
    )
    told = "transform.dollars: asks source.orders for a column 'amont', which it does not have (did you mean 'amount'?)"
    for command in ("validate", "plan"):
        assert f"seeknal/nodes.py:15:27: {told}" in project.ok(command).text
    project.replace("seeknal/nodes.py", "amont", "AMOUNT")
    assert "does not have" not in project.ok("validate").text


def test_what_a_function_gives_is_remembered_where_the_store_expects_it(project: Project) -> None:
    project.ok("run")
    assert project.ok("store", "verify", "--json").document["findings"] == []


def test_a_file_that_cannot_be_imported_is_one_line(project: Project) -> None:
    project.replace("seeknal/nodes.py", "from rates import RATE", "from rates import RAET")
    for command in ("plan", "run", "parse"):
        answer = project.seeknal(command)
        assert answer.code == 1
        assert [line.partition(" (")[0] for line in answer.errors] == [
            "seeknal/nodes.py:5: cannot be imported: ImportError: cannot import name 'RAET' from 'rates'"
        ]


def test_a_run_with_nothing_to_do_imports_neither_duckdb_nor_the_users_code(project: Project) -> None:
    assert project.seeknal("run").code == 0
    program = (
        "import sys\nfrom seeknal.cli.main import main\n"
        "try:\n    main(['run'])\nexcept SystemExit as error:\n    assert not error.code\n"
        "print(sorted({'duckdb', 'pandas', 'pyarrow', 'rates', 'seeknal.pipeline.discovery'} & set(sys.modules)))\n"
    )
    command = [sys.executable, "-P", "-c", program]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
    done = subprocess.run(command, cwd=project.root, env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[-1] == "[]", done.stdout + done.stderr


def test_importing_the_decorators_costs_next_to_nothing() -> None:
    heavy = "{'duckdb', 'pandas', 'polars', 'pyarrow', 'sqlglot', 'msgspec', 'yaml'}"
    program = f"import sys, seeknal.pipeline; print(sorted({heavy} & set(sys.modules)))"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
