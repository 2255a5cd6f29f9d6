from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from seeknal.cli.init_command import (
    IGNORED,
    check_project_name,
    execute,
    ignore_text,
    init,
    plan_init,
    project_text,
)
from seeknal.dag.project import Project, ProjectSettings
from seeknal.errors import NameNotAllowedError, NotFoundError, SeeknalError

EXAMPLE = "environment-management"
NODE_FILES = [
    "01_source_orders.yml",
    "02_source_customers.yml",
    "03_source_inventory.yml",
    "04_transform_clean_orders.yml",
    "05_transform_customer_enriched.yml",
    "06_transform_inventory_status.yml",
    "07_aggregation_daily_sales.yml",
    "08_exposure_warehouse.yml",
]
DATA_FILES = ["customers.csv", "inventory.csv", "orders.csv"]
DUCKDB_TYPES = {"integer": "BIGINT", "float": "DOUBLE", "string": "VARCHAR", "date": "DATE"}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, empty, named 'work'."""
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def run(*arguments: str) -> Result:
    return CliRunner().invoke(init, arguments)


def done(*arguments: str) -> str:
    result = run(*arguments)
    assert result.exception is None, result.exception
    return result.output


def refused(*arguments: str) -> SeeknalError:
    error = run(*arguments).exception
    assert isinstance(error, SeeknalError), error
    assert error.exit_code == (2 if isinstance(error, NameNotAllowedError) else 1)
    return error


def holds(folder: Path) -> dict[str, bytes | None]:
    """Everything below a folder: files with their bytes, folders with None."""
    found = sorted(folder.rglob("*"))
    return {path.relative_to(folder).as_posix(): None if path.is_dir() else path.read_bytes() for path in found}


def project(folder: Path) -> dict[str, Any]:
    said: dict[str, Any] = yaml.safe_load((folder / "seeknal_project.yml").read_text(encoding="utf-8"))
    return said


# where a project goes


def test_a_name_other_than_the_current_folders_makes_a_folder_of_that_name(here: Path) -> None:
    output = done("--name", "env-tutorial", "--description", "Environment management tutorial")
    assert set(holds(here / "env-tutorial")) == {
        ".gitignore", ".seeknal", ".seeknal/schema", ".seeknal/schema/node.json", ".seeknal/schema/project.json",
        "data", "profiles.yml", "seeknal",
        "seeknal_project.yml",
    }  # fmt: skip
    assert project(here / "env-tutorial") == {
        "name": "env-tutorial",
        "description": "Environment management tutorial",
        "version": "1.0.0",
        "profile": "default",
        "config-version": 1,
        "state_backend": "file",
    }
    assert [path.name for path in here.iterdir()] == ["env-tutorial"]
    assert str(here / "env-tutorial") in output
    assert "  cd env-tutorial\n" in output


@pytest.mark.parametrize("arguments", [[], ["--name", "work"], ["--path", "."]])
def test_no_name_or_the_current_folders_own_makes_the_project_here(here: Path, arguments: list[str]) -> None:
    output = done(*arguments)
    assert project(here)["name"] == "work"
    assert "description" not in project(here)
    assert "  cd " not in output


def test_what_is_written_opens_as_a_project_without_a_warning(here: Path) -> None:
    done("--name", "fresh", "--description", "What it is for")
    opened = Project.open(here / "fresh")
    assert opened.settings == ProjectSettings(name="fresh", description="What it is for")
    assert opened.warnings == ()


def test_a_path_says_where_and_its_last_part_is_the_name(here: Path) -> None:
    done("--path", "a/b")
    assert project(here / "a" / "b")["name"] == "b"


def test_a_path_and_a_name_need_not_agree(here: Path) -> None:
    done("-p", "folder", "-n", "My project")
    assert project(here / "folder")["name"] == "My project"
    assert not (here / "My project").exists()


def test_the_command_to_type_next_is_quoted_for_the_shell(here: Path) -> None:
    output = done("--name", "my $HOME; project")
    line = next(line for line in output.splitlines() if line.startswith("  cd "))
    assert shlex.split(line) == ["cd", "my $HOME; project"]


def test_a_folder_outside_the_current_one_is_named_in_full(here: Path) -> None:
    assert f"  cd {here.parent / 'aside'}\n" in done("--path", "../aside")


def test_files_that_are_no_projects_stay_as_they_are(here: Path) -> None:
    (here / "notes.txt").write_text("mine")
    (here / "seeknal").mkdir()
    (here / "seeknal" / "own.yml").write_text("kind: source")
    done()
    assert (here / "notes.txt").read_text() == "mine"
    assert (here / "seeknal" / "own.yml").read_text() == "kind: source"


# what is refused


@pytest.mark.parametrize(
    "name",
    ["", "  ", "a/b", "a\\b", "..", ".", "../evil", "a..b", "a\nb", "a\x1b[31m", " a", "a ", "-x", "\udcff", "x" * 129],
)
def test_a_name_that_is_no_folders_name_is_refused_and_nothing_written(here: Path, name: str) -> None:
    error = refused(f"--name={name}")
    assert isinstance(error, NameNotAllowedError)
    assert holds(here) == {}


def test_a_path_does_not_excuse_a_bad_name(here: Path) -> None:
    assert isinstance(refused("--path", "fine", "--name", "a\tb"), NameNotAllowedError)
    assert holds(here) == {}


def test_a_folder_whose_name_cannot_be_a_projects_asks_for_a_name(here: Path) -> None:
    error = refused("--path", "a..b")
    assert "--name" in error.hint
    done("--path", "a..b", "--name", "fine")
    assert project(here / "a..b")["name"] == "fine"


def test_a_control_character_in_the_description_is_refused(here: Path) -> None:
    assert "description" in refused("--description", "red \x1b[31m").message
    assert holds(here) == {}


def test_a_project_is_not_made_twice_and_stays_unchanged(here: Path) -> None:
    done("--description", "first", "--example", EXAMPLE)
    before = holds(here)
    error = refused("--description", "second", "--example", EXAMPLE)
    assert "already holds a project" in error.message
    assert str(here) in error.message
    assert "--force" in error.hint
    assert holds(here) == before


def test_an_unknown_example_is_refused_with_those_that_exist(here: Path) -> None:
    error = refused("--name", "fresh", "--example", "no-such-thing")
    assert isinstance(error, NotFoundError)
    assert EXAMPLE in str(error)
    assert holds(here) == {}


@pytest.mark.parametrize("example", ["", ".", "..", "environment-management/data", "environment-managment"])
def test_an_example_is_a_name_and_never_a_path(here: Path, example: str) -> None:
    error = refused("--example", example)
    assert isinstance(error, NotFoundError)
    assert EXAMPLE in str(error)
    assert holds(here) == {}


def test_other_files_of_an_examples_names_are_not_overwritten(here: Path) -> None:
    (here / "seeknal").mkdir()
    (here / "seeknal" / NODE_FILES[0]).write_text("kind: source\nname: mine\n")
    before = holds(here)
    assert NODE_FILES[0] in refused("--example", EXAMPLE).message
    assert holds(here) == before


@pytest.mark.parametrize("name", ["seeknal", "data"])
def test_a_file_where_a_folder_must_go_is_named_before_anything_is_written(here: Path, name: str) -> None:
    (here / name).write_text("a file")
    assert str(here / name) in refused().message
    assert holds(here) == {name: b"a file"}


def test_a_path_that_is_a_file_is_refused(here: Path) -> None:
    (here / "taken").write_text("a file")
    assert str(here / "taken") in refused("--path", "taken").message
    assert str(here / "taken") in refused("--path", "taken/deeper").message


def test_a_folder_in_a_files_place_is_an_error_that_names_it(here: Path) -> None:
    (here / "profiles.yml").mkdir()
    assert "profiles.yml" in refused().message
    assert list(holds(here)) == ["profiles.yml"]


def test_a_name_too_long_for_the_disk_is_an_error_that_names_the_folder(here: Path) -> None:
    assert "名" * 100 in refused("--name", "名" * 100).message
    assert holds(here) == {}


# force


def test_force_writes_the_project_files_and_the_examples_nodes_again(here: Path) -> None:
    done("--description", "first", "--example", EXAMPLE)
    fresh = holds(here)
    (here / "seeknal" / NODE_FILES[3]).write_text("changed")
    (here / "seeknal_project.yml").write_text("name: changed")
    done("--description", "first", "--example", EXAMPLE, "--force")
    assert holds(here) == fresh


def test_force_without_an_example_leaves_nodes_alone(here: Path) -> None:
    done("--example", EXAMPLE)
    (here / "seeknal" / NODE_FILES[3]).write_text("changed")
    done("-f", "-d", "again")
    assert (here / "seeknal" / NODE_FILES[3]).read_text() == "changed"
    assert project(here)["description"] == "again"


def test_force_keeps_the_users_data_and_profiles_and_says_so(here: Path) -> None:
    done("--example", EXAMPLE)
    (here / "data" / "orders.csv").write_text("order_id\n7\n")
    (here / "data" / "more.csv").write_text("a\n1\n")
    (here / "profiles.yml").write_text("connections: {mine: {type: postgresql}}\n")
    output = done("--example", EXAMPLE, "--force")
    assert (here / "data" / "orders.csv").read_text() == "order_id\n7\n"
    assert (here / "data" / "more.csv").read_text() == "a\n1\n"
    assert (here / "profiles.yml").read_text() == "connections: {mine: {type: postgresql}}\n"
    kept = next(line for line in output.splitlines() if "Kept" in line)
    assert "data/orders.csv" in kept
    assert "profiles.yml" in kept
    assert "customers.csv" not in kept


# the files


def test_planning_writes_nothing_and_executing_writes_exactly_the_plan(tmp_path: Path) -> None:
    plan = plan_init(tmp_path, name="fresh", example=EXAMPLE)
    assert holds(tmp_path) == {}
    execute(plan)
    written = {path: content for path, content in holds(tmp_path / "fresh").items() if content is not None}
    assert written == {str(file.path): file.content for file in plan.files}


def test_the_file_that_marks_a_project_is_written_last(tmp_path: Path) -> None:
    plan = plan_init(tmp_path, name="fresh", example=EXAMPLE)
    assert str(plan.files[-1].path) == "seeknal_project.yml"


def test_profiles_hold_no_setting_until_somebody_writes_one(here: Path) -> None:
    done()
    text = (here / "profiles.yml").read_text()
    assert yaml.safe_load(text) is None
    uncommented = "\n".join(line[2:] for line in text.split("\n\n", 1)[1].splitlines() if not line.startswith("# M"))
    assert set(yaml.safe_load(uncommented)) == {"connections", "source_defaults"}
    assert "password: ${PG_PASSWORD}" in text


def test_secrets_and_outputs_are_kept_out_of_version_control(here: Path) -> None:
    done()
    lines = (here / ".gitignore").read_text().splitlines()
    assert {"profiles.yml", ".env", "target/", "*.duckdb"} <= set(lines)


def test_an_existing_gitignore_keeps_its_lines(here: Path) -> None:
    (here / ".gitignore").write_bytes(b"*.log\n/target\n\xff")
    done()
    lines = (here / ".gitignore").read_bytes().splitlines()
    assert lines[:3] == [b"*.log", b"/target", b"\xff"]
    assert b"profiles.yml" in lines
    assert b"target/" not in lines


@given(st.binary(max_size=60))
def test_extending_a_gitignore_twice_is_extending_it_once(existing: bytes) -> None:
    once = ignore_text(existing)
    assert once.startswith(existing)
    assert ignore_text(once) == once
    assert {line.strip().strip(b"/") for line in once.splitlines()} >= {p.encode().strip(b"/") for p in IGNORED}


def allowed_names() -> st.SearchStrategy[str]:
    def allowed(name: str) -> bool:
        try:
            check_project_name(name)
        except NameNotAllowedError:
            return False
        return True

    words = st.sampled_from(["yes", "null", "123", "1.0.0", "~", "a: b", "#a", "'", '"', "{a", "*a", "%TAG", "é", "名"])
    return st.one_of(words, st.text(min_size=1, max_size=20)).filter(allowed)


@given(name=allowed_names(), description=st.text(st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"])))
def test_any_allowed_name_and_description_is_read_back_as_given(name: str, description: str) -> None:
    said = yaml.safe_load(project_text(name, description))
    assert said["name"] == name
    assert said.get("description", "") == description
    assert said["config-version"] == 1


def test_a_description_of_several_lines_is_read_back_as_given(here: Path) -> None:
    done("--description", "First line.\n\n\tSecond: 'quoted' # not a comment\n")
    assert project(here)["description"] == "First line.\n\n\tSecond: 'quoted' # not a comment\n"


def test_signs_fall_back_to_ascii_where_the_output_cannot_show_them(here: Path) -> None:
    result = CliRunner(charset="ascii").invoke(init, [])
    assert result.exception is None
    assert result.output.startswith("[OK] Project 'work' is ready")


# the example


@pytest.fixture
def example(here: Path) -> Path:
    done("--example", EXAMPLE)
    return here


def nodes(folder: Path) -> Iterator[dict[str, Any]]:
    for path in sorted((folder / "seeknal").iterdir()):
        yield yaml.safe_load(path.read_text(encoding="utf-8"))


def test_the_example_has_the_tutorials_files_and_no_others(example: Path) -> None:
    assert sorted(path.name for path in (example / "seeknal").iterdir()) == NODE_FILES
    assert sorted(path.name for path in (example / "data").iterdir()) == DATA_FILES


def test_the_report_of_an_example_counts_what_it_brought(here: Path) -> None:
    assert "8 files in seeknal/, 3 data files in data/" in done("--example", EXAMPLE)


def test_the_example_has_eight_nodes_and_seven_edges(example: Path) -> None:
    edges = {
        (put["ref"], f"{node['kind']}.{node['name']}") for node in nodes(example) for put in node.get("inputs", [])
    }
    assert len(list(nodes(example))) == 8
    assert edges == {
        ("source.orders", "transform.clean_orders"),
        ("transform.clean_orders", "transform.customer_enriched"),
        ("source.customers", "transform.customer_enriched"),
        ("source.inventory", "transform.inventory_status"),
        ("transform.clean_orders", "aggregation.daily_sales"),
        ("source.customers", "aggregation.daily_sales"),
        ("transform.customer_enriched", "exposure.warehouse_export"),
    }


def test_the_examples_queries_run_over_its_data(example: Path) -> None:
    import duckdb

    with duckdb.connect() as connection:
        connection.execute("CREATE SCHEMA source; CREATE SCHEMA transform; CREATE SCHEMA aggregation")
        for node in nodes(example):
            table = f"{node['kind']}.{node['name']}"
            if node["kind"] == "source":
                columns = {column["name"]: DUCKDB_TYPES[column["data_type"]] for column in node["schema"]}
                read = "SELECT * FROM read_csv($file, header = true, columns = $columns)"
                given_values = {"file": str(example / node["table"]), "columns": columns}
                connection.execute(f"CREATE TABLE {table} AS {read}", given_values)
            elif "transform" in node:
                connection.execute(f"CREATE TABLE {table} AS {node['transform']}")

        def query(sql: str) -> list[tuple[Any, ...]]:
            return connection.execute(sql).fetchall()

        assert query("SELECT order_id, status, validation_status FROM transform.clean_orders ORDER BY ALL") == [
            (1, "COMPLETED", "valid"),
            (2, "COMPLETED", "valid"),
            (3, "PENDING", "valid"),
        ]
        assert query("SELECT full_name, country, order_count, total_spent FROM transform.customer_enriched") == [
            ("John Doe", "US", 2, 95.0),
            ("Jane Smith", "UK", 1, 100.0),
        ]
        assert query("SELECT product_name, stock_status, units_short FROM transform.inventory_status ORDER BY ALL") == [
            ("Widget A", "in_stock", 0),
            ("Widget B", "reorder", 5),
            ("Widget C", "in_stock", 0),
        ]
        daily_sales = "SELECT product_id, country, total_amount, quantity FROM aggregation.daily_sales ORDER BY ALL"
        assert query(daily_sales) == [(1001, "US", 50.0, 2), (1002, "UK", 100.0, 1), (1003, "US", 45.0, 3)]


def test_the_examples_aggregation_uses_only_columns_that_its_query_yields(example: Path) -> None:
    aggregation = next(node for node in nodes(example) if node["kind"] == "aggregation")
    used = {aggregation["id_col"], aggregation["feature_date_col"], aggregation["application_date_col"]}
    used |= set(aggregation["group_by"]) | {feature["column"] for feature in aggregation["features"]}
    assert used == {"product_id", "order_date", "country", "total_amount", "quantity"}
    assert all(column in aggregation["transform"] for column in used)


def test_no_node_downstream_of_clean_orders_reads_columns_it_does_not_name(example: Path) -> None:
    for node in nodes(example):
        assert "*" not in node.get("transform", "").replace("quantity * unit_price", "")


def test_init_is_a_command_with_the_documented_options() -> None:
    options = {name for option in init.params if isinstance(option, click.Option) for name in option.opts}
    assert options == {"--name", "-n", "--description", "-d", "--path", "-p", "--example", "--force", "-f"}
