"""The documentation is true: its commands exist, its examples run, its sessions print what they show."""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import click
import msgspec
import pytest

from seeknal import errors
from seeknal.cli.main import cli, main
from seeknal.nodes.registry import DECLARABLE_KINDS, KINDS
from seeknal.workflow.worker import close_workbenches
from tests.docs.markdown import (
    PAGES,
    ROOT,
    Block,
    anchors,
    apply_change,
    blocks,
    commands,
    data_files,
    inline_code,
    links,
    named_file,
    sections,
)

README = ROOT / "README.md"
CONTRIBUTING = ROOT / "CONTRIBUTING.md"
ARCHITECTURE = ROOT / "docs/architecture.md"
GUIDE = ROOT / "docs/guides/environments.md"
HISTORY = ROOT / "docs/guides/history.md"
PYTHON_GUIDE = ROOT / "docs/guides/python.md"
CLI_REFERENCE = ROOT / "docs/reference/cli.md"
NODES_REFERENCE = ROOT / "docs/reference/nodes.md"
TESTING_GUIDE = ROOT / "docs/guides/testing.md"
TEMPLATES_REFERENCE = ROOT / "docs/reference/templates.md"
CHECKS_REFERENCE = ROOT / "docs/reference/checks.md"
API_REFERENCE = ROOT / "docs/reference/python-api.md"

SOURCE_ROOTS = ("engine", "store", "cli")


def page_name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def surroundings(root: Path = ROOT) -> dict[str, str]:
    """The environment in which `seeknal` is the checkout at ``root``."""
    paths = os.pathsep.join(str(root / name) for name in SOURCE_ROOTS)
    binaries = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return {**os.environ, "PYTHONPATH": paths, "PATH": binaries, "PYTHONIOENCODING": "utf-8"}


def seeknal(*arguments: str, folder: Path, root: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "seeknal.cli.main", *arguments],
        cwd=folder,
        env=surroundings(root),
        capture_output=True,
        encoding="utf-8",
        check=False,
    )


# links and commands


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_links_within_the_documentation_resolve(page: Path) -> None:
    for link in links(page):
        if link.startswith(("https://", "http://")):
            continue
        file, _, anchor = link.partition("#")
        target = (page.parent / file).resolve() if file else page
        assert target.exists(), f"{page_name(page)}: {link} leads nowhere"
        if anchor:
            assert anchor in anchors(target), f"{page_name(page)}: {link}: there is no such heading"


def shown_commands(page: Path) -> Iterator[list[str]]:
    """Every `seeknal …` that a page shows, in blocks and in the text, cut into words."""
    lines = [line for block in blocks(page, "sh") for line in block.text.splitlines()]
    lines += [command for block in blocks(page, "console") for command, _ in commands(block)]
    pieces = [piece for line in lines for piece in re.split(r"&&|\||;", line)]
    for text in [*pieces, *inline_code(page)]:
        if re.match(r"\s*(\S*/)?seeknal\s", text):
            yield shlex.split(text, comments=True)[1:]


def check_command(words: list[str]) -> None:
    """Walk the words of a command line down the tree of commands; every option must be of the command it follows."""
    command: click.Command = cli
    for word in words:
        if word.startswith("-"):
            known = {name for option in command.params for name in (*option.opts, *option.secondary_opts)}
            assert word.partition("=")[0] in known | {"-h", "--help"}, f"{word} is no option of `{command.name}`"
        elif isinstance(command, click.Group):
            found = command.get_command(click.Context(command), word)
            assert found is not None, f"there is no command `{word}`"
            command = found


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_commands_shown_exist_with_their_options(page: Path) -> None:
    for words in shown_commands(page):
        try:
            check_command(words)
        except AssertionError as error:
            raise AssertionError(f"{page_name(page)}: `seeknal {shlex.join(words)}`: {error}") from None


def every_command(command: click.Command = cli, path: str = "seeknal") -> Iterator[tuple[str, click.Command]]:
    yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            assert found is not None
            yield from every_command(found, f"{path} {name}")


def test_every_command_and_option_is_in_the_reference() -> None:
    described = sections(CLI_REFERENCE)
    for path, command in every_command():
        assert path in described, f"{page_name(CLI_REFERENCE)} has no section `{path}`"
        for option in command.params:
            if isinstance(option, click.Option):
                for name in (*option.opts, *option.secondary_opts):
                    assert f"`{name}" in described[path] or f" {name}" in described[path], f"{path} {name}"


@pytest.mark.parametrize("page", [README, CLI_REFERENCE], ids=page_name)
def test_every_exit_code_is_explained(page: Path) -> None:
    explained = {int(code) for code in re.findall(r"^\| (\d+) \|", page.read_text(encoding="utf-8"), re.MULTILINE)}
    raised = {
        value.exit_code
        for value in vars(errors).values()
        if isinstance(value, type) and issubclass(value, errors.SeeknalError)
    }
    assert raised | {0, 3, 130, 143} == explained


def test_the_map_of_the_code_names_every_module() -> None:
    text = ARCHITECTURE.read_text(encoding="utf-8")
    modules = [path for root in SOURCE_ROOTS for path in (ROOT / root).rglob("*.py") if path.name != "__init__.py"]
    modules = [path for path in modules if "examples" not in path.parts]
    named = set(re.findall(r"^ +(\w+\.py) ", text, re.MULTILINE))
    missing = [path.relative_to(ROOT).as_posix() for path in modules if path.name not in named]
    gone = named - {path.name for path in modules}
    assert not missing, f"{page_name(ARCHITECTURE)} does not say what these are for: {', '.join(missing)}"
    assert not gone, f"{page_name(ARCHITECTURE)} names what is not there: {', '.join(gone)}"


# nodes


def kind_pages() -> list[Path]:
    """The pages of kinds that have one of their own."""
    return [page for page in PAGES if page.parent == NODES_REFERENCE.parent and page.stem in KINDS]


def test_every_field_of_every_kind_is_in_the_reference() -> None:
    described = sections(NODES_REFERENCE)
    own = {page.stem: page.read_text(encoding="utf-8") for page in kind_pages()}
    for kind in KINDS.values():
        text = described.get(kind.name, "") + own.get(kind.name, "")
        assert text, f"{page_name(NODES_REFERENCE)} has no section on {kind.name}, nor is there a page"
        for field in msgspec.structs.fields(kind.spec):
            assert f"`{field.encode_name}`" in text, f"{kind.name}: {field.encode_name}"


def test_the_tables_of_fields_are_as_the_code_says() -> None:
    command = [sys.executable, str(ROOT / "docs/generate.py"), "--check"]
    done = subprocess.run(command, env=surroundings(), capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0, f"`make docs` changes:\n{done.stdout}{done.stderr}"


def test_every_kind_has_its_table_of_fields() -> None:
    text = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    missing = [kind for kind in ("node", "project", *DECLARABLE_KINDS) if f"<!-- fields: {kind} -->" not in text]
    assert not missing, f"put `<!-- fields: {missing[0]} -->` and `<!-- end of fields -->` into its page"


def node_examples(page: Path) -> list[Block]:
    return [block for block in blocks(page, "yaml") if re.search(r"^kind:", block.text, re.MULTILINE)]


def write_project(folder: Path, page: Path) -> None:
    """Make a project of a page's nodes and data files."""
    (folder / "seeknal").mkdir(parents=True)
    for number, block in enumerate(node_examples(page)):
        (folder / "seeknal" / f"{number:02}.yml").write_text(block.text, encoding="utf-8")
    for name, text in data_files(page).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")


def test_every_kind_has_an_example() -> None:
    pages = [NODES_REFERENCE, *kind_pages()]
    examples = "".join(block.text for page in pages for block in node_examples(page))
    for kind in DECLARABLE_KINDS:
        assert f"kind: {kind}\n" in examples, f"the reference has no example of a {kind}"


def test_the_examples_of_nodes_run_as_one_project(tmp_path: Path) -> None:
    write_project(tmp_path, NODES_REFERENCE)
    result = seeknal("run", folder=tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "FAILED" not in result.stdout
    assert (tmp_path / "output").is_dir()


@pytest.mark.parametrize("page", [*kind_pages(), CHECKS_REFERENCE], ids=page_name)
def test_the_examples_of_a_kind_run_as_one_project(page: Path, tmp_path: Path) -> None:
    write_project(tmp_path, page)
    # In an environment, where nothing is sent over the network.
    for arguments in (("plan", "docs"), ("run", "--env", "docs")):
        result = seeknal(*arguments, folder=tmp_path)
        assert result.returncode == 0, result.stdout + result.stderr
        assert "FAILED" not in result.stdout


def test_the_examples_of_templates_run_as_one_project(tmp_path: Path) -> None:
    write_project(tmp_path, TEMPLATES_REFERENCE)
    for block in blocks(TEMPLATES_REFERENCE, "yaml"):
        if block not in node_examples(TEMPLATES_REFERENCE):
            path = tmp_path / named_file(block)
            path.parent.mkdir(exist_ok=True)
            path.write_text(block.text, encoding="utf-8")
    lines = [line for block in blocks(TEMPLATES_REFERENCE, "sh") for line in block.text.splitlines()]
    assert len(lines) == 2
    for line in lines:
        result = seeknal(*shlex.split(line)[1:], folder=tmp_path)
        assert result.returncode == 0, result.stdout + result.stderr


def test_the_nodes_of_the_python_guide_run_as_one_project(tmp_path: Path) -> None:
    write_project(tmp_path, PYTHON_GUIDE)
    for block in blocks(PYTHON_GUIDE, "python"):
        (tmp_path / named_file(block)).write_text(block.text, encoding="utf-8")
    result = seeknal("run", folder=tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr
    log = (tmp_path / "target/logs/transform.customer_levels.log").read_text(encoding="utf-8")
    assert log == "2 levels, 1 customers\n"


def test_the_worked_example_of_a_new_kind_works(tmp_path: Path) -> None:
    for name in SOURCE_ROOTS:
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for block in blocks(CONTRIBUTING, "diff"):
        apply_change(block, tmp_path)
    module, test = blocks(CONTRIBUTING, "python")
    for block in (module, test):
        path = tmp_path / named_file(block)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(block.text, encoding="utf-8")
    project = tmp_path / "project"
    write_project(project, CONTRIBUTING)
    result = seeknal("run", folder=project, root=tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr
    tested = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests"],
        cwd=tmp_path,
        env=surroundings(tmp_path),
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert tested.returncode == 0, tested.stdout + tested.stderr


# sessions and Python


def plain(line: str, home: Path) -> str:
    """A line without what differs from run to run: seconds, times, digests, run ids, paths, users."""
    line = line.replace(str(home), "/home/you")
    for pattern, replacement in (
        (r"\d+\.\d\ds", "0.00s"),
        (r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d", "TIME"),
        (r"\d{10}\.\d{6}", "TIME"),
        (r"\b[0-9a-f]{32}\b", "DIGEST"),
        (r"\b\d{8}T\d{6}-[0-9a-f]{8}\b", "RUN"),
        (r"\b[\w.-]+@[\w.-]+\b", "you@host"),
    ):
        line = re.sub(pattern, replacement, line)
    return line.rstrip()


def check_printed(expected: list[str], printed: list[str], where: str) -> None:
    """Compare line by line; a line ``…`` stands for any lines, and ``…`` within a line for any text."""
    position, skipping = 0, False
    for line in expected:
        if line == "…":
            skipping = True
            continue
        pattern = re.compile(".*".join(map(re.escape, line.split("…"))))
        while skipping and position < len(printed) and not pattern.fullmatch(printed[position]):
            position += 1
        actual = printed[position] if position < len(printed) else "(nothing more)"
        assert pattern.fullmatch(actual), f"{where}\nshown:   {line}\nprinted: {actual}\nin:\n" + "\n".join(printed)
        position, skipping = position + 1, False
    rest = printed[position:]
    assert skipping or not any(rest), f"{where}\nalso printed:\n" + "\n".join(rest)


def run_shown(command: str, folder: Path) -> tuple[str, Path]:
    """Run a command as a page shows it; gives what it prints, and the folder where the session then is.

    A plain call of seeknal is run in this process, which saves starting one for each.
    """
    if command.startswith("seeknal ") and not set("|;&<>$") & set(command):
        return call_seeknal(shlex.split(command)[1:], folder), folder
    with tempfile.NamedTemporaryFile("r", encoding="utf-8") as remembered:
        result = subprocess.run(
            ["bash", "-c", f"{command}\npwd > {shlex.quote(remembered.name)}"],
            cwd=folder,
            env=surroundings(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            check=False,
        )
        return result.stdout, Path(remembered.read().strip())


def call_seeknal(arguments: list[str], folder: Path) -> str:
    """Call the command line's main function in a folder; gives what it prints."""
    stream = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True)
    with contextlib.chdir(folder), contextlib.redirect_stdout(stream), contextlib.redirect_stderr(stream):
        try:
            main(arguments)
        except SystemExit:
            pass
        finally:
            close_workbenches()
    assert isinstance(stream.buffer, io.BytesIO)
    return stream.buffer.getvalue().decode()


@pytest.mark.parametrize("page", [README, GUIDE, HISTORY], ids=page_name)
def test_sessions_print_what_they_show(page: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    folder = home
    for block in blocks(page, "console", "diff", "python"):
        if block.info == "diff":
            apply_change(block, folder)
            continue
        if block.info == "python":
            (folder / named_file(block)).write_text(block.text, encoding="utf-8")
            continue
        for command, expected in commands(block):
            text, folder = run_shown(command, folder)
            printed = [plain(line, home) for line in text.splitlines()]
            shown = [plain(line, Path("/home/you")) for line in expected]
            while shown and not shown[-1]:
                shown.pop()
            check_printed(shown, printed, f"{block}: $ {command}")


def test_python_examples_run_in_order(tmp_path: Path) -> None:
    made = seeknal("init", "--path", ".", "--name", "shop", "--example", "environment-management", folder=tmp_path)
    assert made.returncode == 0, made.stderr
    run = seeknal("run", folder=tmp_path)
    assert run.returncode == 0, run.stderr
    examples = blocks(API_REFERENCE, "python")
    script = "\n".join(f"# {block}\n{block.text}" for block in examples)
    result = subprocess.run(
        [sys.executable, "-"], input=script, cwd=tmp_path, env=surroundings(), capture_output=True, encoding="utf-8"
    )
    assert result.returncode == 0, result.stdout + result.stderr
    printed = result.stdout.splitlines()
    shown = [line for block in blocks(API_REFERENCE, "text") for line in block.text.splitlines()]
    missing = [line for line in shown if line not in printed]
    assert not missing, f"not printed: {missing}\nprinted:\n{result.stdout}"


def test_the_guide_on_testing_tests_production_and_an_environment(tmp_path: Path) -> None:
    made = seeknal("init", "--path", ".", "--name", "shop", "--example", "environment-management", folder=tmp_path)
    assert made.returncode == 0, made.stderr
    for arguments in (("run",), ("plan", "dev"), ("run", "--env", "dev")):
        assert seeknal(*arguments, folder=tmp_path).returncode == 0
    (block,) = blocks(TESTING_GUIDE, "python")
    (tmp_path / "tests").mkdir()
    (tmp_path / named_file(block)).write_text(block.text, encoding="utf-8")
    (shown,) = blocks(TESTING_GUIDE, "sh")
    for command in shown.text.splitlines():
        tested = subprocess.run(
            [sys.executable, "-m", *shlex.split(command), "-p", "seeknal.pytest_plugin", "-p", "no:cacheprovider"],
            cwd=tmp_path,
            env={**surroundings(), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
            capture_output=True,
            encoding="utf-8",
            check=False,
        )
        assert tested.returncode == 0, tested.stdout + tested.stderr
        assert "2 passed" in tested.stdout
