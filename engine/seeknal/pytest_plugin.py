"""A pytest plugin: tests of the tables that an environment holds.

- ``--env NAME`` (and ``--seeknal-env NAME``, which no other plugin takes): the environment; production without it.
- ``--seeknal-project PATH``: the project's folder; else the one in or above the current folder, or pytest's root.
- fixture ``seeknal_env``: the environment's tables, an
  :class:`~seeknal.workflow.environment_tables.EnvironmentTables`.
- fixture ``node``: ``node("transform.clean_orders")`` is that node's table.

Importing this imports pytest and nothing else; the engine comes with the first test that asks for it.
"""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from seeknal.workflow.environment_tables import EnvironmentTables, Table

_GROUP = "seeknal"
_DESTINATION = "seeknal_env"


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup(_GROUP, "Seeknal")
    group.addoption("--seeknal-env", dest=_DESTINATION, metavar="NAME", help="The environment whose tables are tested.")
    group.addoption("--seeknal-project", metavar="PATH", help="The folder of the Seeknal project.")


@pytest.hookimpl(wrapper=True)
def pytest_load_initial_conftests(parser: pytest.Parser) -> Generator[None, object, object]:
    """Take ``--env`` where nobody else does: not before other plugins and the project's own conftest have had it."""
    try:
        return (yield)
    finally:
        with contextlib.suppress(argparse.ArgumentError, ValueError):
            parser.getgroup(_GROUP).addoption(
                "--env", dest=_DESTINATION, metavar="NAME", help="The same, where no other plugin has this option."
            )


@pytest.fixture(scope="session")
def seeknal_env(request: pytest.FixtureRequest) -> Iterator[EnvironmentTables]:
    """The tables of the environment that ``--env`` names, read-only, as they stand when the first test asks."""
    from seeknal.errors import SeeknalError
    from seeknal.workflow.environment_tables import EnvironmentTables

    try:
        folder = _project_folder(request.config)
        tables = EnvironmentTables.open(folder, request.config.getoption(_DESTINATION) or "prod")
    except SeeknalError as error:
        pytest.fail(str(error), pytrace=False)
    with tables:
        yield tables


def _project_folder(config: pytest.Config) -> Path:
    from seeknal.dag.project import NODES_FOLDER, PROJECT_FILE, find_root

    given, here = config.getoption("seeknal_project"), config.invocation_params.dir
    if given:
        return Path(here, given)
    above = find_root(here)
    has_project = (above / PROJECT_FILE).is_file() or (above / NODES_FOLDER).is_dir()
    return above if has_project else find_root(config.rootpath)


@pytest.fixture(scope="session")
def node(seeknal_env: EnvironmentTables) -> Callable[[str], Table]:
    """Give the table of a node: ``node("transform.clean_orders").rows()``."""
    return seeknal_env.node
