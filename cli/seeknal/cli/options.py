"""Options that several commands share, and how their values are read."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])


def _split(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    """``--tags a,b --tags c`` means a, b and c. Raises BadParameter for nothing at all: a variable that is not set."""
    parts = tuple(part.strip() for value in values for part in value.split(",") if part.strip())
    if values and not parts:
        raise click.BadParameter("names nothing", context, parameter)
    return parts


def list_option(*names: str, help: str) -> Callable[[F], F]:
    """An option that may be repeated and takes comma-separated lists."""
    return click.option(*names, multiple=True, callback=_split, help=f"{help} Repeatable, or a comma-separated list.")


def project_option(function: F) -> F:
    """``-C/--project-path DIR``, for those who do not stand in the project's folder."""
    return click.option(
        "-C",
        "--project-path",
        "--path",
        "project_path",
        type=click.Path(exists=True, file_okay=False, path_type=Path),
        default=None,
        help="The project's folder. [default: the current one]",
    )(function)


def json_option(function: F) -> F:
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")(function)


def output_option(function: F) -> F:
    """``-o/--output FILE``, of the commands that plan."""
    file = click.Path(dir_okay=False, path_type=Path)
    return click.option("-o", "--output", type=file, help="Also write the plan to this file.")(function)


def _default_workers() -> int:
    from seeknal.workflow.limits import default_workers

    return default_workers()


def parallel_options(function: F) -> F:
    function = click.option(
        "--max-workers",
        type=click.IntRange(1, 256),
        default=_default_workers,
        show_default="the cores, at most 4",
        help="Most worker processes.",
    )(function)
    return click.option("--parallel", is_flag=True, help="Execute independent nodes in worker processes.")(function)


def parameter_options(function: F) -> F:
    """``--date``, ``--params``, ``--start-date``, ``--end-date``: what templates are filled in with."""
    for name, metavar, help_text in reversed(_PARAMETER_OPTIONS):
        function = click.option(name, metavar=metavar, help=help_text)(function)
    return function


_PARAMETER_OPTIONS = (
    ("--date", "YYYY-MM-DD", "The day that {{ today }} and its like count from. [default: today]"),
    ("--params", "JSON", 'Values for templates, as an object: \'{"region": "EU"}\'.'),
    ("--start-date", "DATE", "The value of {{ start_date }}."),
    ("--end-date", "DATE", "The value of {{ end_date }}."),
)


def take_parameters(given: dict[str, Any]) -> Any:
    """Take the values of ``parameter_options``, and ``run_id``, out of a command's options, checked.

    Raises UsageError.
    """
    from seeknal.dag.parameters import given_parameters

    names = ("date", "params", "start_date", "end_date")
    return given_parameters(**{name: given.pop(name) for name in names}, run_id=given.get("run_id"))


def find_project(project_path: Path | None) -> Path:
    """The folder of the project that is meant, else that of the nearest above; its ``.env`` is read first."""
    from seeknal.cli.environment_file import load_environment_file

    load_environment_file(Path.cwd())
    if project_path is not None:
        load_environment_file(project_path)
    from seeknal.dag.project import find_root

    return Path(os.path.realpath(project_path)) if project_path is not None else find_root(Path.cwd())


def hold_lease(project: Any, purpose: str) -> Any:
    """Let garbage collection leave alone what this command reads from here on, until it ends; gives the lease."""
    return click.get_current_context().with_resource(project.store().leases.hold(purpose, only_reading=True))


def open_project(project_path: Path | None) -> Any:
    """Open the project in a folder, else in the current one or the nearest above it; its ``.env`` is read first."""
    root = find_project(project_path)
    from seeknal.dag.project import Project

    return Project.open(root)
