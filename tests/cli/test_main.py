"""The command itself: what it shows without doing anything, what it imports for that, how it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from seeknal.cli.main import COMMANDS, cli
from seeknal.version import __version__
from tests.acceptance.project import COMMAND, Project

HEAVY = ("duckdb", "pyarrow", "sqlglot", "rich", "yaml", "msgspec", "jinja2", "concurrent.futures", "multiprocessing")


@pytest.fixture
def folder(tmp_path: Path) -> Project:
    return Project(tmp_path / "folder")


# What a command that executes nothing has no use for.
ENGINES = ("duckdb", "pyarrow", "sqlglot", "rich", "jinja2", "urllib3", "pandas", "sklearn")


def imported(*arguments: str, folder: Path, **variables: str) -> set[str]:
    """The modules that a call imports."""
    code = "import sys\nfrom seeknal.cli.main import main\ntry:\n    main(sys.argv[1:])\n"
    code += "finally:\n    print('modules:', *sys.modules, file=sys.stderr)\n"
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path), **variables},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    (line,) = (line for line in done.stderr.splitlines() if line.startswith("modules: "))
    return set(line.split())


@pytest.mark.parametrize("arguments", [("--help",), ("--version",), ("-h",), ("env", "--help"), ("run", "--help")])
def test_looking_for_help_imports_nothing_heavy(folder: Project, arguments: tuple[str, ...]) -> None:
    assert among(HEAVY, imported(*arguments, folder=folder.root)) == set()


@pytest.mark.parametrize("instruction", ["bash_source", "bash_complete"])
def test_completing_a_command_imports_nothing_heavy(folder: Project, instruction: str) -> None:
    words = {"COMP_WORDS": "seeknal ru", "COMP_CWORD": "1"}
    # The name of the variable follows the name of the command.
    names = imported(folder=folder.root, _SEEKNAL_COMPLETE=instruction, **words)
    assert among(HEAVY, names) == set()
    assert "click.shell_completion" in names


@pytest.fixture
def settled(tmp_path: Path) -> Project:
    """A project with nothing to do, and an environment that can be promoted."""
    project = Project(tmp_path / "settled")
    project.write("seeknal_project.yml", "name: settled\n")
    node = project.write("seeknal/one.yml", "kind: transform\nname: one\ntransform: SELECT 1 AS a\n")
    project.write(
        "seeknal/out.yml",
        "kind: exposure\nname: out\ntype: file\ndepends_on: [{ref: transform.one}]\n"
        "params: {format: csv, path: out/one.csv}\n",
    )
    project.ok("run")
    node.write_text(node.read_text().replace("1 AS a", "2 AS a"))
    for command in (("plan", "dev"), ("run", "--env", "dev"), ("run",)):
        project.ok(*command)
    return project


def test_a_run_with_nothing_to_do_imports_no_engine_and_no_yaml(settled: Project) -> None:
    names = imported("run", folder=settled.root)
    assert among((*ENGINES, "yaml", "hashlib"), names) == set()
    assert not {"seeknal.dag.manifest", "seeknal.dag.rendering", "seeknal.nodes.kind"} & names
    assert "seeknal.workflow.settled" in names


# What only planning and running need of our own.
RUNNING = ("seeknal.dag.parse", "seeknal.dag.inference", "seeknal.workflow.session", "seeknal.workflow.execution")


def test_listing_environments_imports_no_engine(settled: Project) -> None:
    names = imported("env", "list", folder=settled.root)
    assert among((*ENGINES, *RUNNING), names) == set()


# What a plan of an edited query has no use for, in a project of plain queries: other engines, what runs and delivers,
# what starts processes, kinds that the project does not have, and what only wrong names and new versions need.
NOT_FOR_A_PLAN = (
    *(name for name in ENGINES if name != "duckdb"),
    "concurrent",
    "croniter",
    "difflib",
    "logging",
    "multiprocessing",
    "packaging",
    "subprocess",
    "seeknal.dag.entities",
    "seeknal.nodes.function_call",
    "seeknal.nodes.model",
    "seeknal.nodes.aggregation",
    "seeknal.nodes.python_function",
    "seeknal.nodes.source",
    "seeknal.pipeline.context",
    "seeknal.workflow.delivery",
    "seeknal.workflow.execution",
    "seeknal.workflow.settled",
    "seeknal.workflow.tree_change",
    "seeknal.workflow.workers",
)


def test_planning_an_edit_imports_only_what_the_project_has_use_for(settled: Project) -> None:
    node = settled.root / "seeknal/one.yml"
    node.write_text(node.read_text().replace("2 AS a", "3 AS a"))
    names = imported("plan", "dev", folder=settled.root)
    assert {"duckdb", "yaml", "seeknal.dag.clause_diff", "seeknal.nodes.transform"} <= names
    assert among(NOT_FOR_A_PLAN, names) == set()


def test_an_edit_that_reads_nothing_new_is_planned_with_one_connection(settled: Project) -> None:
    node = settled.root / "seeknal/one.yml"
    node.write_text(node.read_text().replace("2 AS a", "3 AS a"))
    code = (
        "import duckdb, sys\nfrom seeknal.cli.main import main\n"
        "opened, connect = [], duckdb.connect\n"
        "duckdb.connect = lambda *said, **how: opened.append(said) or connect(*said, **how)\n"
        "try:\n    main(['plan', 'dev'])\nexcept SystemExit as error:\n    assert not error.code\n"
        "assert len(opened) == 1, opened\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=settled.root, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "Changed how 'a' is computed" in done.stdout


def test_promoting_imports_no_engine(settled: Project) -> None:
    names = imported("promote", "dev", "--force", folder=settled.root)
    assert among((*ENGINES, *RUNNING), names) == set()


def among(modules: tuple[str, ...], names: set[str]) -> set[str]:
    return {name for name in names for module in modules if name == module or name.startswith(f"{module}.")}


def test_whoever_profiles_the_process_sees_its_end(folder: Project, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "cProfile", "-o", str(tmp_path / "profile"), "-m", "seeknal.cli.main", "--version"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    subprocess.run(command, cwd=folder.root, env=environment, capture_output=True, check=True, timeout=60)
    assert (tmp_path / "profile").stat().st_size


def test_the_version_is_the_packages(folder: Project) -> None:
    assert folder.ok("--version").stdout == f"seeknal, version {__version__}\n"


def test_help_lists_every_command_and_the_exit_codes(folder: Project) -> None:
    text = folder.ok("--help").stdout
    for name in COMMANDS:
        assert f"\n  {name} " in text
    for name in ("env plan", "env apply", "env promote"):
        assert f"seeknal {name}" in text
    for code in ("0 done", "1 failed", "2 usage", "4 stale plan", "5 refused", "11 busy", "12 corr", "130", "143"):
        assert code in text


@pytest.mark.parametrize("name", list(COMMANDS))
def test_every_command_has_help_and_a_short_text_for_the_list(folder: Project, name: str) -> None:
    text = folder.ok(name, "--help").stdout
    assert text.startswith(f"Usage: seeknal {name} ")
    assert COMMANDS[name][2].endswith(".")


def test_without_a_command_it_shows_help_and_exits_with_2(folder: Project) -> None:
    answer = folder.seeknal()
    assert answer.code == 2
    assert "Commands:" in answer.stderr


def test_a_command_that_is_nearly_one_is_recognised(folder: Project) -> None:
    answer = folder.seeknal("parmote")
    assert answer.code == 2
    assert "No such command 'parmote'. Did you mean 'promote'" in answer.stderr
    answer = folder.seeknal("zzz")
    assert answer.code == 2
    assert "No such command 'zzz'.\n" in answer.stderr
    answer = folder.process("history", "prod")
    assert "No such command 'history'. Did you mean 'env history'?" in answer.stderr


def test_commands_of_later_versions_are_unknown_for_now(folder: Project) -> None:
    for name in ("intervals", "prefect"):
        assert folder.seeknal(name).code == 2


@pytest.mark.parametrize("option", ["-C", "--project-path", "--path"])
def test_a_project_can_be_named_from_elsewhere(folder: Project, tmp_path: Path, option: str) -> None:
    project = Project(tmp_path / "elsewhere")
    project.write("seeknal_project.yml", "name: elsewhere\n")
    project.write("seeknal/one.yml", "kind: transform\nname: one\ntransform: SELECT 1 AS a\n")
    for command in (("plan",), ("run",), ("plan", "dev"), ("env", "apply", "dev"), ("promote", "dev"), ("env", "list")):
        folder.ok(*command, option, str(project.root))
    assert project.rows("transform.one") == [{"a": 1}]
    assert list(folder.root.iterdir()) == []


def test_a_project_is_found_from_a_folder_inside_it(tmp_path: Path) -> None:
    project = Project(tmp_path / "shop")
    project.write("seeknal_project.yml", "name: shop\n")
    project.write("seeknal/deep/er/one.yml", "kind: transform\nname: one\ntransform: SELECT 1 AS a\n")
    Project(project.root / "seeknal" / "deep").ok("run")
    assert project.rows("transform.one") == [{"a": 1}]
    assert not (project.root / "seeknal" / "deep" / "target").exists()


def test_the_module_runs_like_the_command(folder: Project) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "seeknal.cli.main", "run"],
        cwd=folder.root,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert done.stdout == ""


def test_ctrl_c_before_anything_runs_ends_with_130_and_no_traceback(folder: Project) -> None:
    folder.write("seeknal/wide.yml", "kind: source\nname: wide\nsource: json\ntable: data/wide.json\n")
    # Without a schema all rows are read to find the columns: long enough to be interrupted in.
    row = ", ".join(f'"column_{number}": {{"value": {number}}}' for number in range(300))
    folder.write("data/wide.json", f"{{{row}}}\n" * 20_000)
    process = subprocess.Popen(
        [*COMMAND, "plan"], cwd=folder.root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    while not has_open(process.pid, "wide.json") and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert "Traceback" not in stderr
    assert stdout == ""


def has_open(process: int, name: str) -> bool:
    """Whether a process has a file of this name open."""
    folder = f"/proc/{process}/fd"
    try:
        return any(os.readlink(f"{folder}/{number}").endswith(name) for number in os.listdir(folder))
    except OSError:
        return False


def test_streams_that_the_caller_closed_do_no_harm(folder: Project) -> None:
    folder.write("seeknal/one.yml", "kind: transform\nname: one\ntransform: SELECT 1 AS a\n")
    answer = folder.shell("seeknal run >&-")
    assert (answer.code, answer.stderr) == (0, "")
    assert folder.rows("transform.one") == [{"a": 1}]
    folder.write("seeknal/two.yml", "kind: nothing\n")
    answer = folder.shell("seeknal run 2>&-")
    assert answer.code == 1
    assert "Traceback" not in answer.text


def test_a_command_that_ends_at_once_leaves_nothing_behind(
    folder: Project, tmp_path_factory: pytest.TempPathFactory
) -> None:
    for name in "abc":
        folder.write(f"seeknal/{name}.yml", f"kind: transform\nname: {name}\ntransform: SELECT 1 AS a\n")
    # A fork server needs a short path for its socket.
    temporary = tmp_path_factory.mktemp("t")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "TMPDIR": str(temporary)}
    command = [*COMMAND, "run", "--parallel", "--max-workers", "2"]
    with subprocess.Popen(command, cwd=folder.root, env=environment, stdout=subprocess.PIPE) as process:
        # Its workers have the pipe as well: this ends when all of them have.
        said, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert b"3 nodes" in said
    assert list(temporary.iterdir()) == []


def test_every_command_can_be_loaded() -> None:
    context = cli.make_context("seeknal", ["--debug", "run"])
    for name in cli.list_commands(context):
        assert cli.get_command(context, name) is not None
    assert cli.get_command(context, "nothing") is None
