"""`seeknal init`: make a folder into a project.

- *project files*: ``seeknal_project.yml`` (marks the folder), ``profiles.yml`` (connections, not for version
  control), ``.gitignore``, and the JSON Schemas that the comments in YAML files point editors to.
- *example*: a ready project inside the package, copied on request: its node files and folders go to ``seeknal/``,
  its ``data`` folder to ``data/``.
- *user's files*: ``profiles.yml`` and everything below ``data/``. Once there they are never written again, whatever
  the options say: nothing could bring them back.

:func:`plan_init` decides what to write and touches nothing; :func:`execute` writes it.
"""

from __future__ import annotations

import os
import shlex
import sys
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Literal

import click

from seeknal.cli.console import Console
from seeknal.dag.names import LONGEST_NAME, did_you_mean
from seeknal.dag.project import NODES_FOLDER, PROJECT_FILE
from seeknal.errors import NameNotAllowedError, NotFoundError, SeeknalError

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

PROFILES_FILE = "profiles.yml"
IGNORE_FILE = ".gitignore"
DATA_FOLDER = "data"

IGNORED = ("profiles.yml", "profiles-*.yml", ".env", "target/", "*.duckdb")

PROJECT_TEXT = """\
# Marks this folder as a Seeknal project.
{said}
# The connections that nodes use; has no effect yet. See profiles.yml.
profile: default
config-version: 1
# Where runs are recorded: 'file' (below target/) or 'database'.
# The environment variable SEEKNAL_STATE_BACKEND overrides it.
state_backend: file
"""

PROFILES_TEXT = """\
# Connections and defaults for the nodes of this project. Nothing reads this file yet: sources and exposures outside of
# files and APIs are still to come. A project needs nothing of it.
#
# Keep this file out of version control, and keep secrets out of this file: ${NAME} stands for an environment
# variable (also one set in .env), ${NAME:default} for the same with a default. profiles-<env>.yml takes the place
# of this file in the environment of that name. Remove the '#' from what you need.

# connections:
#   warehouse:
#     type: postgresql
#     host: ${PG_HOST:localhost}
#     port: 5432
#     user: ${PG_USER:postgres}
#     password: ${PG_PASSWORD}
#     database: analytics
#     schema: public

# Merged under the params of every source of that type; what the source says wins.
# source_defaults:
#   postgresql:
#     connection: warehouse
"""


@dataclass(frozen=True, slots=True)
class PlannedFile:
    """One file of the project: where it goes, what it will hold, and what that means for what is there now.

    ``write`` creates or replaces, ``same`` is there already with these bytes, ``keep`` is there with other bytes
    that belong to the user.
    """

    path: PurePosixPath
    content: bytes
    action: Literal["write", "same", "keep"]


@dataclass(frozen=True, slots=True)
class InitPlan:
    """Everything that `init` will do in ``root``, in order. The file that marks a project comes last."""

    root: Path
    name: str
    example: str | None
    files: tuple[PlannedFile, ...]
    folders: tuple[PurePosixPath, ...] = (PurePosixPath(NODES_FOLDER), PurePosixPath(DATA_FOLDER))

    def count_below(self, folder: str) -> int:
        """The number of the plan's files that go to ``folder``."""
        return sum(1 for file in self.files if file.path.parts[0] == folder)


def check_project_name(name: str) -> None:
    """Refuse a name that could not be a folder's, or would garble a line of output.

    Raises NameNotAllowedError.
    """
    wrong = None
    if not name.strip():
        wrong = "it is empty"
    elif _unprintable(name):
        wrong = "it holds a control character"
    elif "/" in name or "\\" in name:
        wrong = "it holds a path separator"
    elif name == "." or ".." in name:
        wrong = "it is '.' or holds '..'"
    elif name != name.strip() or name.startswith("-"):
        wrong = "it starts with '-' or white space, or ends with white space"
    elif len(name) > LONGEST_NAME:
        wrong = f"it has more than {LONGEST_NAME} characters"
    if wrong:
        raise NameNotAllowedError(
            f"{name!r} cannot be a project's name: {wrong}",
            hint="give one with --name NAME, and the folder with --path FOLDER",
        )


def _unprintable(text: str, allowed: str = "") -> bool:
    """Whether the text holds control characters, line separators or bytes that were not decoded."""
    return any(unicodedata.category(sign) in ("Cc", "Cs", "Zl", "Zp") and sign not in allowed for sign in text)


def project_text(name: str, description: str = "") -> str:
    """Write ``seeknal_project.yml`` for a new project."""
    import yaml

    from seeknal.dag.json_schema import PROJECT, schema_comment

    said = {"name": name, **({"description": description} if description else {}), "version": "1.0.0"}
    dumped = yaml.safe_dump(said, sort_keys=False, allow_unicode=True, width=sys.maxsize)
    return schema_comment(0, PROJECT) + PROJECT_TEXT.format(said=dumped.rstrip("\n"))


def ignore_text(existing: bytes) -> bytes:
    """Add to a ``.gitignore`` what it lacks; lines that are there stay as they are."""
    present = {line.strip().strip(b"/") for line in existing.splitlines()}
    missing = [pattern for pattern in IGNORED if pattern.encode().strip(b"/") not in present]
    if not missing:
        return existing
    gap = b"" if not existing else b"\n" if existing.endswith(b"\n") else b"\n\n"
    header = "# Seeknal: secrets, and what it makes itself"
    return existing + gap + "\n".join([header, *missing, ""]).encode()


def example_names() -> list[str]:
    """The examples inside the package, sorted."""
    return sorted(entry.name for entry in _examples().iterdir() if entry.is_dir() and entry.name[0] not in "._")


def example_files(example: str) -> Iterator[tuple[PurePosixPath, bytes]]:
    """Give every file of an example with its place in a project. Raises NotFoundError."""
    names = example_names()
    if example not in names:
        raise NotFoundError(f"there is no example {example!r}", hint=did_you_mean(example, names))
    for place, file in _files_below(_examples().joinpath(example), PurePosixPath()):
        inside = place if place.parts[0] == DATA_FOLDER else PurePosixPath(NODES_FOLDER, place)
        yield inside, _for_editors(inside, file.read_bytes())


def _files_below(folder: Traversable, place: PurePosixPath) -> Iterator[tuple[PurePosixPath, Traversable]]:
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if entry.is_file():
            yield place / entry.name, entry
        elif entry.name != "__pycache__":
            yield from _files_below(entry, place / entry.name)


def _examples() -> Traversable:
    from importlib.resources import files

    return files("seeknal.cli").joinpath("examples")


def plan_init(
    current: Path,
    *,
    name: str | None = None,
    description: str = "",
    path: Path | None = None,
    example: str | None = None,
    force: bool = False,
) -> InitPlan:
    """Decide what a new project consists of; reads what is there and writes nothing.

    The folder is ``path``; without one, ``current`` where that has the project's name (or none is given), else a
    folder of that name in ``current``. ``force`` allows project files and an example's node files to be replaced.

    Raises NameNotAllowedError, NotFoundError (unknown example), OSError, and SeeknalError where the folder holds a
    project already or files that would be lost.
    """
    if path is not None:
        root = Path(os.path.abspath(current / path))
    else:
        root = current if name in (None, current.name) else current / name
    name = root.name if name is None else name
    check_project_name(name)
    if _unprintable(description, allowed="\n\t"):
        raise SeeknalError("the description holds a control character")
    copied = list(example_files(example)) if example is not None else []

    if (root / PROJECT_FILE).exists() and not force:
        raise SeeknalError(
            f"{click.format_filename(root)} already holds a project",
            hint=f"--force writes its project files again and keeps {PROFILES_FILE} and {DATA_FOLDER}/",
        )
    plan = InitPlan(root, name, example, tuple(_plan_files(root, project_text(name, description), copied)))
    for folder in (root, *(root / folder for folder in plan.folders)):
        if folder.exists() and not folder.is_dir():
            raise SeeknalError(f"{click.format_filename(folder)} is a file, and a project needs a folder there")
    lost = [
        str(file.path)
        for file in plan.files
        if file.path.parts[0] == NODES_FOLDER and file.action == "write" and (root / file.path).exists()
    ]
    if lost and not force:
        raise SeeknalError(
            f"{click.format_filename(root)} already holds other versions of {', '.join(lost)}",
            hint="--force replaces them",
        )
    return plan


def _for_editors(place: PurePosixPath, content: bytes) -> bytes:
    """A node file with the comment that tells editors its schema; other files as they are."""
    from seeknal.dag.json_schema import schema_comment

    inside = place.parts[0] == NODES_FOLDER and place.parts[1] not in ("common", "templates")
    is_node_file = inside and place.suffix in (".yml", ".yaml")
    return schema_comment(len(place.parts) - 1).encode() + content if is_node_file else content


def _plan_files(root: Path, project: str, copied: Iterable[tuple[PurePosixPath, bytes]]) -> Iterator[PlannedFile]:
    from seeknal.dag.json_schema import FOLDER, NODE, PROJECT, json_schema, schema_text

    ignored = root / IGNORE_FILE
    wanted = [
        *copied,
        (PurePosixPath(PROFILES_FILE), PROFILES_TEXT.encode()),
        (PurePosixPath(IGNORE_FILE), ignore_text(ignored.read_bytes() if ignored.exists() else b"")),
        *((PurePosixPath(FOLDER, f"{name}.json"), schema_text(json_schema(name)).encode()) for name in (NODE, PROJECT)),
        (PurePosixPath(PROJECT_FILE), project.encode()),
    ]
    for path, content in wanted:
        target = root / path
        if not target.exists():
            yield PlannedFile(path, content, "write")
        elif target.read_bytes() == content:
            yield PlannedFile(path, content, "same")
        else:
            users = path.parts[0] in (PROFILES_FILE, DATA_FOLDER)
            yield PlannedFile(path, content, "keep" if users else "write")


def execute(plan: InitPlan) -> None:
    """Make the folders and write the files. Raises OSError; what was written until then stays."""
    for folder in plan.folders:
        (plan.root / folder).mkdir(parents=True, exist_ok=True)
    for file in plan.files:
        if file.action == "write":
            (plan.root / file.path).parent.mkdir(parents=True, exist_ok=True)
            (plan.root / file.path).write_bytes(file.content)


@click.command("init")
@click.option("--name", "-n", metavar="NAME", help="The project's name; the folder's name when left out.")
@click.option("--description", "-d", metavar="TEXT", default="", help="What the project is for, in a sentence.")
@click.option(
    "--path",
    "-p",
    metavar="FOLDER",
    type=click.Path(path_type=Path),
    help="Where to make it. Default: ./NAME, or here when NAME is left out or is this folder's name.",
)
@click.option(
    "--example",
    metavar="NAME",
    help="Start from a ready project: ecommerce (all kinds) or environment-management (the guides' one).",
)
@click.option(
    "--force",
    "-f",
    is_flag=True,
    help="Write the project files (and the example's node files) again where they exist. "
    "profiles.yml and everything in data/ is kept.",
)
def init(name: str | None, description: str, path: Path | None, example: str | None, force: bool) -> None:
    """Make a folder into a project."""
    try:
        current = Path.cwd()
        plan = plan_init(current, name=name, description=description, path=path, example=example, force=force)
        execute(plan)
    except OSError as error:
        place = f"{click.format_filename(error.filename)}: " if error.filename else ""
        raise SeeknalError(f"cannot make the project: {place}{error.strerror or error}") from error
    report(plan, current, Console())


def report(plan: InitPlan, current: Path, console: Console) -> None:
    """Say what was made and which commands come next."""
    console.mark("ok", f"Project {plan.name!r} is ready")
    console.line(f"  Path: {click.format_filename(plan.root)}")
    console.mark("ok", f"{PROJECT_FILE}, {PROFILES_FILE}, {IGNORE_FILE}")
    if plan.example is not None:
        nodes, data = plan.count_below(NODES_FOLDER), plan.count_below(DATA_FOLDER)
        brought = f"{nodes} files in {NODES_FOLDER}/, {data} data files in {DATA_FOLDER}/"
        console.mark("ok", f"Example {plan.example}: {brought}")
    kept = [str(file.path) for file in plan.files if file.action == "keep"]
    if kept:
        console.mark("info", f"Kept as you have them: {', '.join(kept)}")
    console.line()
    console.line("Next:")
    if plan.root != current:
        folder = plan.root.relative_to(current) if plan.root.is_relative_to(current) else plan.root
        console.line(f"  cd {shlex.quote(click.format_filename(folder))}")
    if plan.example is None:
        console.line(f"  (put node files into {NODES_FOLDER}/)")
    console.line("  seeknal plan")
    console.line("  seeknal run")
