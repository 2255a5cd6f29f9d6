from __future__ import annotations

from pathlib import Path

import pytest

from tests.acceptance.project import Project
from tests.engine.workflow.projects import transform, write_project

FILES = {
    "data/orders.csv": 'id,amount,who\n1,10.5,Ann\n2,,Bob\n3,7.25,"C\tD"\n',
    "seeknal/orders.yml": "kind: source\nname: orders\nsource: csv\ntable: data/orders.csv\n",
    "seeknal/totals.yml": transform("totals", "SELECT count(*) AS n FROM source.orders"),
    "seeknal/export.yml": "kind: exposure\nname: export\npath: out/totals.csv\ninputs: [{ref: transform.totals}]\n",
}


@pytest.fixture
def shop(tmp_path: Path) -> Project:
    write_project(tmp_path, FILES)
    project = Project(tmp_path)
    project.ok("run")
    return project


def cells(text: str) -> list[list[str]]:
    """The rows of every table in a text."""
    return [[cell.strip() for cell in line.split(" | ")] for line in text.splitlines() if " | " in line]


@pytest.mark.parametrize("arguments", [[], ["--list"]])
def test_without_a_node_every_output_is_listed(shop: Project, arguments: list[str]) -> None:
    listed = cells(shop.ok("inspect", *arguments).stdout)
    assert listed[0] == ["Node", "Rows", "Columns", "Size"]
    assert [row[:3] for row in listed[1:]] == [
        ["source.orders", "3", "3"],
        ["transform.totals", "1", "1"],
        ["exposure.export", "1", "-"],
    ]
    assert all(row[3].endswith(("B", "kB")) for row in listed[1:])


@pytest.mark.parametrize("name", ["orders", "source.orders", "sources/orders"])
def test_a_node_shows_its_columns_and_its_rows(shop: Project, name: str) -> None:
    text = shop.ok("inspect", name).stdout
    assert text.startswith("source.orders (prod)\n")
    assert cells(text) == [
        ["Column", "Type"],
        ["id", "BIGINT"],
        ["amount", "DOUBLE"],
        ["who", "VARCHAR"],
        ["id", "amount", "who"],
        ["1", "10.5", "Ann"],
        ["2", "NULL", "Bob"],
        ["3", "7.25", "C\\tD"],
    ]
    assert "First 3 of 3 rows:" in text


def test_a_limit_shows_fewer_rows_and_says_of_how_many(shop: Project) -> None:
    text = shop.ok("inspect", "orders", "--limit", "1").stdout
    assert "First 1 of 3 rows:" in text
    assert "Bob" not in text


def test_the_schema_alone_shows_no_rows(shop: Project) -> None:
    text = shop.ok("inspect", "orders", "--schema").stdout
    assert ["amount", "DOUBLE"] in cells(text)
    assert "Ann" not in text


def test_an_exposure_shows_its_file_and_what_became_of_it(shop: Project) -> None:
    file = shop.root / "out" / "totals.csv"
    assert shop.ok("inspect", "export").stdout.splitlines()[-1] == f"  out/totals.csv  {file.stat().st_size} B"
    file.write_text("n\n3\nand more\n", encoding="utf-8")
    assert shop.ok("inspect", "export").stdout.rstrip().endswith("(changed since)")
    file.unlink()
    assert shop.ok("inspect", "export").stdout.rstrip().endswith("(no longer there)")


def test_an_exposure_that_was_not_published_says_so(tmp_path: Path) -> None:
    write_project(tmp_path, FILES)
    project = Project(tmp_path)
    project.ok("run", "--no-publish")
    assert "Not delivered" in project.ok("inspect", "export").stdout


def test_an_environment_shows_its_own_output_once_it_has_one(shop: Project) -> None:
    shop.write("seeknal/totals.yml", transform("totals", "SELECT count(*) + 100 AS n FROM source.orders"))
    shop.ok("plan", "dev")
    planned = shop.ok("inspect", "totals", "--env", "dev")
    assert ["3"] not in cells(planned.stdout)
    assert "transform.totals (prod)" in planned.stdout
    assert "not applied yet" in planned.stderr
    shop.ok("run", "--env", "dev")
    applied = shop.ok("inspect", "totals", "--env", "dev")
    assert "transform.totals (dev)" in applied.stdout
    assert "103" in applied.stdout
    assert "103" not in shop.ok("inspect", "totals").stdout
    assert "environments/dev/output/out/totals.csv" in shop.ok("inspect", "export", "--env", "dev").stdout


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["totls"], 1, "transform.totals"),
        (["totals", "--env", "dev"], 1, "'dev' not found"),
        (["totals", "--env", "../x"], 2, "not a valid environment name"),
        (["totals", "--list"], 2, "--list"),
        (["--schema"], 2, "NODE"),
        (["totals", "--limit", "-1"], 2, "--limit"),
    ],
)
def test_what_does_not_make_sense_is_one_error(shop: Project, arguments: list[str], code: int, message: str) -> None:
    answer = shop.seeknal("inspect", *arguments)
    assert answer.code == code
    assert answer.stdout == ""
    assert message in answer.stderr
    assert "Traceback" not in answer.stderr


def test_a_project_that_was_never_run_says_what_to_do(tmp_path: Path) -> None:
    write_project(tmp_path, FILES)
    answer = Project(tmp_path).seeknal("inspect")
    assert answer.code == 1
    assert "seeknal run" in answer.stderr
    assert not (tmp_path / "target").exists()
