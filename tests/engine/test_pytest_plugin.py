"""The plugin in real pytest processes, each with a project of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from seeknal.workflow.environment import EnvironmentManager
from seeknal.workflow.results import RunOptions
from tests.engine.workflow.projects import run, transform, write, write_project

TESTS = """
def test_rows(seeknal_env, node):
    assert seeknal_env.name == "{name}"
    assert node("transform.t").rows() == [{{"a": {value}}}]
    assert node("t").row_count == 1
    assert seeknal_env.query("SELECT max(a) + 1 FROM transform.t").value() == {value} + 1
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A project whose table holds 1 in production and 2 in the environment dev."""
    project = write_project(tmp_path / "shop", {"seeknal/t.yml": transform("t", "SELECT 1 AS a")})
    run(project)
    write(project, "seeknal/t.yml", transform("t", "SELECT 2 AS a"))
    manager = EnvironmentManager(project / "target")
    manager.plan("dev")
    with manager.applying("dev") as applying:
        assert applying.run(RunOptions()).success
    manager.plan("planned")
    return project


def pytest_in(folder: Path, *arguments: str, plugins: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    paths = os.pathsep.join(str(Path(__file__).parents[2] / name) for name in ("engine", "store", "cli"))
    # As an entry point loads it, wherever the package is installed or not.
    named = [word for name in ("seeknal.pytest_plugin", *plugins) for word in ("-p", name)]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *named, *arguments]
    environment = {**os.environ, "PYTHONPATH": paths, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    environment.pop("PYTEST_ADDOPTS", None)
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)


def passes(folder: Path, *arguments: str, plugins: tuple[str, ...] = ()) -> None:
    done = pytest_in(folder, *arguments, plugins=plugins)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("arguments", "name", "value"),
    [
        ((), "prod", 1),
        (("--env", "dev"), "dev", 2),
        (("--env=dev",), "dev", 2),
        (("--seeknal-env", "dev"), "dev", 2),
        (("--env", "prod"), "prod", 1),
    ],
)
def test_tables_are_those_of_the_named_environment(
    root: Path, arguments: tuple[str, ...], name: str, value: int
) -> None:
    write(root, "tests/test_it.py", TESTS.format(name=name, value=value))
    passes(root, "tests", *arguments)


def test_project_is_found_from_a_folder_below_it_or_named(root: Path, tmp_path: Path) -> None:
    write(root, "tests/test_it.py", TESTS.format(name="prod", value=1))
    passes(root / "tests")
    passes(tmp_path, "--seeknal-project", "shop", "shop/tests")


def test_workers_of_xdist_know_the_environment_too(root: Path) -> None:
    write(root, "tests/test_it.py", TESTS.format(name="dev", value=2))
    passes(root, "tests", "--env", "dev", "-n", "1", plugins=("xdist",))


def test_option_of_the_projects_own_is_left_to_it(root: Path) -> None:
    write(root, "conftest.py", "def pytest_addoption(parser):\n    parser.addoption('--env')\n")
    text = TESTS.format(name="dev", value=2) + "\ndef test_own(pytestconfig):\n"
    write(root, "tests/test_it.py", text + "    assert pytestconfig.getoption('--env') == 'qa'\n")
    passes(root, "tests", "--env", "qa", "--seeknal-env", "dev")


def test_results_come_as_arrow_pandas_and_relation(root: Path) -> None:
    write(
        root,
        "tests/test_it.py",
        """
        import pytest
        from seeknal.errors import SeeknalError

        def test_forms(node, seeknal_env):
            table = node("transform.t")
            assert table.arrow().to_pylist() == [{"a": 1}]
            assert table.pandas()["a"].tolist() == [1]
            assert table.relation.aggregate("sum(a)").fetchall() == [(1,)]
            assert table.columns == ["a"]
            assert seeknal_env.nodes == ["transform.t"]
            with pytest.raises(SeeknalError, match="one value was expected"):
                seeknal_env.query("SELECT 1, 2").value()
            with pytest.raises(SeeknalError, match="no table is called"):
                seeknal_env.query("FROM transform.u")
            with pytest.raises(SeeknalError, match="environment 'prod' has no output of 'transform.tt'"):
                node("transform.tt")
            with pytest.raises(SeeknalError):
                seeknal_env.query("COPY (SELECT 1) TO 'x.csv'")
        """,
    )
    passes(root, "tests")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--env", "dve"), "Environment 'dve' not found (did you mean 'dev'?)"),
        (("--env", "planned"), "environment 'planned' was not run yet (`seeknal run --env planned`)"),
        (("--seeknal-project", "nowhere"), "is not a Seeknal project"),
    ],
)
def test_what_is_not_there_is_one_line(root: Path, arguments: tuple[str, ...], said: str) -> None:
    write(root, "tests/test_it.py", TESTS.format(name="prod", value=1))
    done = pytest_in(root, "tests", *arguments)
    assert done.returncode == 1
    assert said in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


def test_importing_the_plugin_imports_no_engine(tmp_path: Path) -> None:
    write(
        tmp_path,
        "test_it.py",
        """
        import sys

        def test_nothing_else():
            assert "seeknal.pytest_plugin" in sys.modules
            assert {"duckdb", "msgspec", "yaml", "pyarrow", "seeknal.errors"}.isdisjoint(sys.modules)
        """,
    )
    passes(tmp_path)
