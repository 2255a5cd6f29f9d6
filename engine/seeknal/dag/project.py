"""The project: a folder, its settings, and where in it things stand.

``seeknal_project.yml`` marks the root. A folder without one is still a project, as long as it has ``seeknal/``;
its name is then the folder's.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec

from seeknal.dag.names import PRODUCTION, nearest
from seeknal.errors import NotFoundError, Place, Problem, ProjectError, SeeknalError
from seeknal.store.store import Store

if TYPE_CHECKING:
    from seeknal.dag.yaml_file import Document

PROJECT_FILE = "seeknal_project.yml"
NODES_FOLDER = "seeknal"


class ProjectSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What ``seeknal_project.yml`` may say.

    - ``name``: the project's name; without it the folder's
    - ``version``: for people
    - ``description``: for people
    - ``profile``: kept; no effect yet
    - ``config-version``: kept; no effect yet
    - ``state_backend``: where runs are recorded: ``file`` (below ``target/runs``) or ``database``; the environment
      variable ``SEEKNAL_STATE_BACKEND`` wins over it
    - ``state_database``: the database's path, or its ``libsql://`` URL; ``SEEKNAL_STATE_DATABASE`` wins over it
    - ``strict``: unknown fields and settings are errors
    - ``deterministic``: one thread for every node, so that the same inputs give the same bytes at any size
    - ``allow_external_paths``: exposures may write outside the project
    - ``keep_last``: how many states of each environment ``seeknal gc`` keeps at least
    - ``keep_days``: for how many days it keeps what was an environment's current state
    """

    name: str = ""
    version: str = "1.0.0"
    description: str | None = None
    profile: str = "default"
    config_version: int = msgspec.field(default=1, name="config-version")
    state_backend: str = "file"
    state_database: str = "target/state.db"
    strict: bool = False
    deterministic: bool = False
    allow_external_paths: bool = False
    keep_last: Annotated[int, msgspec.Meta(ge=0)] = 10
    keep_days: Annotated[float, msgspec.Meta(ge=0, le=1e6)] = 30.0


class Project(msgspec.Struct, frozen=True):
    """A project's folder and settings; ``places`` is where those stand that the project file gives."""

    root: Path
    settings: ProjectSettings = msgspec.field(default_factory=ProjectSettings)
    warnings: tuple[Problem, ...] = ()
    places: Mapping[str, Place] = {}

    @property
    def name(self) -> str:
        return self.settings.name or self.root.name

    @property
    def target(self) -> Path:
        """Everything that Seeknal writes inside the project stands below this folder."""
        return self.root / "target"

    @property
    def nodes_folder(self) -> Path:
        return self.root / NODES_FOLDER

    def store(self) -> Store:
        """Give the project's store, which need not exist yet.

        Raises FormatTooNewError, and SeeknalError where something stands in the place of its folder.
        """
        store = Store(self.target / "store")
        try:
            store.insist_on_format()
        except OSError:
            for folder in (self.target, store.root):
                if os.path.lexists(folder) and not folder.is_dir():
                    raise self._no_folder(folder) from None
        return store

    def _no_folder(self, path: Path) -> SeeknalError:
        shown = path.relative_to(self.root).as_posix()
        try:
            path.stat()
            why = "a file"
        except FileNotFoundError:
            why = "a link that leads nowhere"
        except OSError as error:
            return SeeknalError(
                f"{shown} cannot be used: {error.strerror}", hint="see where it leads, and who may use it"
            )
        return SeeknalError(f"{shown} is {why}, where Seeknal needs a folder", hint="move it away, then try again")

    def environment_folder(self, environment: str) -> Path:
        """Where an environment's views stand: production's directly below ``target``."""
        return self.target if environment == PRODUCTION else self.target / "environments" / environment

    @classmethod
    def open(cls, root: Path) -> Project:
        """Read a project's settings.

        Raises NotFoundError where the folder is no project, ProjectError where its settings are wrong.
        """
        root = Path(os.path.realpath(root))
        file = root / PROJECT_FILE
        # A link that leads nowhere must not pass for no settings.
        if not os.path.lexists(file):
            if (root / NODES_FOLDER).is_dir():
                return cls(root)
            raise NotFoundError(
                f"{root} is not a Seeknal project: it has neither {PROJECT_FILE} nor a folder {NODES_FOLDER}/",
                hint="change to your project's folder, or make one with `seeknal init --name NAME`",
            )
        from seeknal.dag.yaml_file import Document, load_documents

        documents, problems = load_documents(file, PROJECT_FILE)
        if problems:
            raise ProjectError(problems)
        if len(documents) > 1:
            place = documents[1].place((), PROJECT_FILE)
            raise ProjectError([Problem("the project file has a second document", place, "put all settings into one")])
        document = documents[0] if documents else Document({})
        if not isinstance(document.value, dict):
            raise ProjectError([Problem("the project file must be a mapping of settings", Place(PROJECT_FILE, 1, 1))])
        return cls._from_settings(root, document)

    @classmethod
    def _from_settings(cls, root: Path, document: Document) -> Project:
        from seeknal.dag.type_message import in_words

        problems: list[Problem] = []
        warnings: list[Problem] = []
        fields = {entry.encode_name: entry for entry in msgspec.structs.fields(ProjectSettings)}
        values: dict[str, Any] = {}
        said = document.value
        for key, value in said.items():
            place = document.place((key,), PROJECT_FILE)
            if key not in fields:
                close = nearest(key, fields, 1)
                problem = Problem(f"unknown setting '{key}'", place, f"did you mean '{close[0]}'?" if close else "")
                (problems if close or said.get("strict") is True else warnings).append(problem)
                continue
            if key == "version" and isinstance(value, int | float) and not isinstance(value, bool):
                value = str(value)
            try:
                values[fields[key].name] = msgspec.convert(value, fields[key].type)
            except msgspec.ValidationError as error:
                problems.append(Problem(f"setting '{key}': {in_words(str(error))[0]}", place))
        if problems:
            raise ProjectError(problems)
        places = {fields[key].name: document.place((key,), PROJECT_FILE) for key in said if key in fields}
        return cls(root, ProjectSettings(**values), tuple(warnings), places)


def find_root(start: Path) -> Path:
    """The nearest folder upward from ``start`` that holds a project file, else ``start`` itself."""
    start = Path(os.path.realpath(start))
    for folder in (start, *start.parents):
        if os.path.lexists(folder / PROJECT_FILE):
            return folder
    return start


def shared_files(project: Project) -> list[Path]:
    """The files of the project's shared configuration that are there; see :mod:`seeknal.dag.shared_configuration`."""
    folder = project.nodes_folder / "common"
    names = [f"{stem}.{ending}" for stem in ("sources", "rules", "transformations") for ending in ("yml", "yaml")]
    return [folder / name for name in names if os.path.lexists(folder / name)]


def node_files(project: Project) -> tuple[list[str], list[str]]:
    """The files that may declare nodes, those in YAML and those in Python, each in the order of their paths.

    Shared configuration, files and folders whose names begin with a dot, and Python files whose names begin with ``_``
    are left out.
    """
    files, shared = _files(project), _shared_folder(project)
    in_yaml = [path for path in files if _declares_in_yaml(path, shared)]
    return in_yaml, [path for path in files if _declares_in_python(path)]


def project_files(project: Project) -> list[str]:
    """The files that say what the project is: its settings, its shared configuration and its nodes."""
    settings = project.root / PROJECT_FILE
    shared = _shared_folder(project)
    return [
        *([str(settings)] if os.path.lexists(settings) else []),
        *map(str, shared_files(project)),
        *(path for path in _files(project) if _declares_in_yaml(path, shared) or _declares_in_python(path)),
    ]


def _shared_folder(project: Project) -> str:
    return os.path.join(project.nodes_folder, "common", "")


def _declares_in_yaml(path: str, shared: str) -> bool:
    return path.endswith((".yml", ".yaml")) and not path.startswith(shared)


def _declares_in_python(path: str) -> bool:
    return path.endswith(".py") and not os.path.basename(path).startswith("_")


def _files(project: Project) -> list[str]:
    """The paths of all files that may declare something, in the order of their parts."""
    # Paths are texts here: a Path for each costs more than all else that a run with nothing to do does.
    found: list[tuple[list[str], str]] = []
    waiting: list[tuple[str, list[str]]] = [(str(project.nodes_folder), [])]
    while waiting:
        folder, inside = waiting.pop()
        try:
            entries = list(os.scandir(folder))
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            # Passed over, it would take its nodes out of the project.
            place = Place(os.path.relpath(folder, project.root))
            raise ProjectError([Problem(f"cannot be read: {error.strerror}", place)]) from None
        for entry in entries:
            name = entry.name
            if name[0] == ".":
                continue
            if name.endswith((".yml", ".yaml", ".py")) and not _leads_to_folder(entry):
                found.append(([*inside, name], entry.path))
            elif _is_folder(entry) and (inside or name != "templates"):
                waiting.append((entry.path, [*inside, name]))
    return [path for _, path in sorted(found)]


def linked_folders(project: Project) -> list[str]:
    """The links to folders below the nodes' folder, from the project's root. What is behind them is not searched."""
    found: list[str] = []
    for folder, folders, _ in os.walk(project.nodes_folder):
        folders[:] = [name for name in folders if name[0] != "."]
        paths = (os.path.join(folder, name) for name in folders)
        found += (os.path.relpath(path, project.root) for path in paths if os.path.islink(path))
    return sorted(found)


def _leads_to_folder(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a folder, links followed. What is no file either is read as one, and that says why not.

    A link that leads nowhere passed over in silence would take its nodes out of the project.
    """
    try:
        return entry.is_dir()
    except OSError:
        return False


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a folder of its own; links to folders are not followed, for they may lead in circles."""
    try:
        return entry.is_dir(follow_symlinks=False)
    except OSError:
        return False
