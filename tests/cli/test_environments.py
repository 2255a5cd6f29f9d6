"""Environments on the command line: what is refused and with which code, and that nothing else is touched."""

from __future__ import annotations

import os
import pty
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.acceptance.project import COMMAND, Project

FILES = {
    "seeknal_project.yml": "name: shop\n",
    "data/orders.csv": "id,amount\n1,10\n2,5\n",
    "seeknal/1_orders.yml": "kind: source\nname: orders\nsource: csv\ntable: data/orders.csv\n",
    "seeknal/2_clean.yml": "kind: transform\nname: clean\ntransform: SELECT id, amount FROM source.orders\n",
    "seeknal/3_total.yml": "kind: transform\nname: total\ntransform: SELECT sum(amount) AS total FROM input_0\n"
    "inputs: [transform.clean]\n",
    "seeknal/4_export.yml": "kind: exposure\nname: export\npath: output/total.csv\ninputs: [transform.total]\n",
}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project that ran in production, and whose change ran in dev; to be copied."""
    project = Project(tmp_path_factory.mktemp("built") / "shop")
    for path, text in FILES.items():
        project.write(path, text)
    project.ok("run")
    project.replace("seeknal/2_clean.yml", "amount FROM", "amount * 2 AS amount FROM")
    project.ok("plan", "dev")
    project.ok("run", "--env", "dev")
    return project.root


@pytest.fixture
def shop(built: Path, tmp_path: Path) -> Project:
    return Project(shutil.copytree(built, tmp_path / "shop", symlinks=True))


def total(project: Project, environment: str | None = None) -> float:
    (row,) = project.rows("transform.total", environment)
    return float(row["total"])


def at_terminal(project: Project, answer: str, *arguments: str) -> tuple[int, str]:
    """Call the command with a terminal as stdin, and type an answer there; gives its code and what it said."""
    controller, terminal = pty.openpty()
    process = subprocess.Popen(
        [*COMMAND, *arguments],
        cwd=project.root,
        stdin=terminal,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    os.close(terminal)
    os.write(controller, f"{answer}\n".encode())
    said, _ = process.communicate(timeout=60)
    os.close(controller)
    return process.returncode, said


# planning


def test_the_exit_code_of_a_plan_can_tell_of_changes(shop: Project) -> None:
    assert shop.seeknal("plan", "--detailed-exitcode").code == 3
    assert shop.seeknal("plan", "new", "--detailed-exitcode").code == 3
    shop.ok("promote", "dev")
    assert shop.seeknal("plan", "--detailed-exitcode").code == 0
    assert shop.seeknal("plan", "new", "--detailed-exitcode").code == 0
    assert "No changes detected" in shop.ok("plan", "new").stdout


def test_a_plan_tells_of_data_that_were_seen_before(shop: Project) -> None:
    shop.ok("promote", "dev")
    before = shop.read("data/orders.csv")
    shop.write("data/orders.csv", "id,amount\n1,10\n2,6\n")
    shop.ok("run")
    shop.write("data/orders.csv", before)
    # Nothing will run, and yet production will change.
    answer = shop.seeknal("plan", "--detailed-exitcode")
    assert answer.code == 3
    assert "Changed Data:\n  1. orders\n     Reason: production has another output of it" in answer.stdout
    assert "Total nodes to rebuild: 0" in answer.stdout
    shop.ok("plan", "dev")
    shop.ok("run", "--env", "dev")
    # Against production, whatever the environment itself stands at.
    assert shop.seeknal("plan", "dev", "--detailed-exitcode").code == 3
    shop.ok("run")
    assert total(shop) == 30
    assert shop.seeknal("plan", "--detailed-exitcode").code == 0


def test_planning_again_takes_the_right_to_be_promoted_away(shop: Project) -> None:
    shop.ok("plan", "dev")
    answer = shop.seeknal("promote", "dev")
    assert answer.code == 1
    assert answer.errors == ["Environment 'dev' has not been applied since it was planned"]


def test_an_environment_planned_before_production_ever_ran_stands_on_its_own(tmp_path: Path) -> None:
    project = Project(tmp_path / "new")
    for path, text in FILES.items():
        project.write(path, text)
    assert "Base: none (production was never run)" in project.ok("plan", "dev").stdout
    project.ok("run", "--env", "dev")
    assert total(project, "dev") == 15
    assert project.ref() is None
    assert not (project.root / "output").exists()
    project.ok("promote", "dev")
    assert total(project) == 15
    assert project.read("output/total.csv").split() == ["total", "15"]
    assert "No changes detected. Nothing to run." in project.ok("run").stdout


def test_a_name_of_production_in_other_words_is_production(shop: Project) -> None:
    shop.ok("promote", "dev", "production")
    assert total(shop) == 30


# promoting


def test_a_promotion_that_is_only_looked_at_changes_nothing(shop: Project) -> None:
    before = shop.state(".")
    answer = shop.ok("promote", "dev", "--dry-run")
    assert "Nodes with another output: 3" in answer.stdout
    assert "Dry run: nothing was changed" in answer.stdout
    assert shop.state(".") == before


def test_a_promotion_over_a_production_that_moved_is_refused_and_says_what_moved(shop: Project) -> None:
    shop.write("data/orders.csv", "id,amount\n1,10\n2,6\n")
    shop.ok("run")
    before = shop.state(".")
    answer = shop.seeknal("promote", "dev")
    assert answer.code == 4
    (error,) = answer.errors
    head = shop.ok("env", "history", "prod", "--json").document["history"][0]
    assert error.startswith(f"production moved to {head['snapshot'][:12]} (run, by {head['created_by']}, 20")
    assert "UTC; nodes that differ: source.orders" in error
    assert error.endswith("since 'dev' was planned")
    assert "seeknal plan dev" in answer.stderr
    assert shop.state(".") == before
    shop.ok("promote", "dev", "--force")
    assert total(shop) == 30


def test_a_source_whose_file_is_gone_is_not_told_of_as_a_query(shop: Project) -> None:
    (shop.root / "data/orders.csv").unlink()
    answer = shop.ok("plan", "new")
    assert "Reason: what it reads can no longer be read\n" in answer.stdout
    assert "query" not in answer.stdout


def test_a_promotion_says_which_nodes_go(shop: Project) -> None:
    (shop.root / "seeknal/4_export.yml").unlink()
    shop.ok("plan", "dev")
    shop.ok("run", "--env", "dev")
    assert "    - export (removed, NON_BREAKING)\n" in shop.ok("promote", "dev").stdout


def test_promoting_delivers_and_no_publish_does_not(shop: Project) -> None:
    assert shop.read("output/total.csv").split() == ["total", "15"]
    shop.ok("promote", "dev", "--no-publish")
    assert total(shop) == 30
    assert shop.read("output/total.csv").split() == ["total", "15"]
    # The next run makes up for it.
    shop.ok("run")
    assert shop.read("output/total.csv").split() == ["total", "30"]


def breaking(project: Project) -> None:
    """Run in dev a change that takes a column away."""
    project.ok("promote", "dev")
    project.replace("seeknal/2_clean.yml", "id, amount", "amount")
    project.ok("plan", "dev")
    project.ok("run", "--env", "dev")


def test_a_breaking_promotion_is_asked_about_where_somebody_can_answer(shop: Project) -> None:
    breaking(shop)
    ref = shop.ref()
    code, said = at_terminal(shop, "n", "promote", "dev")
    assert code == 5
    assert "Promote breaking changes to prod?" in said
    assert "error: not promoted" in said
    assert shop.ref() == ref
    code, said = at_terminal(shop, "y", "promote", "dev")
    assert code == 0, said
    assert shop.ref() != ref


def test_a_breaking_promotion_says_so_and_asks_no_script(shop: Project) -> None:
    breaking(shop)
    answer = shop.process("promote", "dev")
    assert answer.code == 0
    assert "breaking change(s): readers of these nodes may fail" in answer.stdout
    assert "Safe to promote" not in answer.stdout


# deleting


def test_deleting_one_environment_leaves_all_others_whole(shop: Project) -> None:
    shop.ok("plan", "other")
    shop.ok("run", "--env", "other")
    shop.ok("env", "delete", "other")
    assert total(shop, "dev") == 30
    assert total(shop) == 15
    assert shop.ref("other") is None
    left = {name for name in shop.state() if "other" in Path(name).parts}
    assert left == set()
    shop.ok("env", "delete", "dev")
    assert total(shop) == 15
    assert not (shop.root / "target/plans/dev.json").exists()


def test_deleting_is_asked_about_where_somebody_can_answer(shop: Project) -> None:
    code, said = at_terminal(shop, "n", "env", "delete", "dev")
    assert code == 5
    assert "Delete environment 'dev'?" in said
    assert total(shop, "dev") == 30
    code, _ = at_terminal(shop, "y", "env", "delete", "dev")
    assert code == 0
    assert shop.ref("dev") is None


def test_a_deleted_environment_can_be_made_again(shop: Project) -> None:
    shop.ok("env", "delete", "dev")
    shop.ok("plan", "dev")
    document = shop.ok("run", "--env", "dev", "--json").document
    # What it had built is still known.
    assert {node["status"] for node in document["nodes"]} == {"cached"}
    assert total(shop, "dev") == 30


@pytest.mark.parametrize("name", ["dev.log", "dev.lock", "dev.tmp", "dev-2", "dev.2"])
def test_environments_whose_names_begin_alike_do_not_meet(shop: Project, name: str) -> None:
    answer = shop.seeknal("plan", name)
    if answer.code:
        # Refusing the name is as good.
        assert "is not a valid environment name" in answer.errors[0]
    else:
        shop.ok("run", "--env", name)
        assert total(shop, name) == 30
        shop.ok("env", "delete", name)
    assert [entry["name"] for entry in shop.ok("env", "list", "--json").document["environments"]] == ["dev", "prod"]
    shop.ok("promote", "dev")
    assert total(shop) == 30


# listing


def test_the_list_is_a_table_with_production_last(shop: Project) -> None:
    lines = shop.ok("env", "list").stdout.splitlines()
    assert lines[0] == "Virtual Environments"
    assert lines.pop().endswith("Times are in UTC")
    assert [line.split("|")[0].strip() for line in lines[2:] if "---" not in line] == ["Environment", "dev", "prod"]
    assert len({line.index("|") for line in lines[2:]}) == 1


def test_the_list_of_a_project_that_never_ran_says_how_to_begin(tmp_path: Path) -> None:
    project = Project(tmp_path / "new")
    project.write("seeknal_project.yml", "name: new\n")
    assert "seeknal plan NAME" in project.ok("env", "list").stdout
    assert not (project.root / "target").exists()


# other processes, damage


HOLD = """\
import sys, time
from pathlib import Path
from seeknal.dag.project import Project
from seeknal.workflow.heads import environment_lock

with environment_lock(Project.open(Path(sys.argv[1])).store(), sys.argv[2], "test"):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize(
    ("environment", "command"),
    [("prod", ("run", "--full")), ("prod", ("promote", "dev")), ("dev", ("run", "--env", "dev", "--full")),
     ("dev", ("env", "delete", "dev"))],
)  # fmt: skip
def test_what_another_process_is_at_work_on_is_busy(shop: Project, environment: str, command: tuple[str, ...]) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(shop.root), environment],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        before = shop.kept_state()
        answer = shop.seeknal(*command)
        assert answer.code == 11
        assert f"environment '{environment}' is locked by test (process {holder.pid} on " in answer.errors[0]
        assert answer.errors[0].endswith(" UTC)")
        assert "--wait" in answer.stderr
        assert shop.kept_state() == before
        holder.communicate("")
    shop.ok(*command)


def test_other_environments_are_not_busy(shop: Project) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(shop.root), "prod"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        shop.ok("run", "--env", "dev", "--full")
        shop.ok("plan", "other")
        holder.communicate("")


@pytest.mark.parametrize("folder", ["snapshots", "trees"])
def test_a_damaged_store_is_told_and_not_believed(shop: Project, folder: str) -> None:
    for path in (shop.root / "target/store" / folder).iterdir():
        path.chmod(0o644)
        path.write_bytes(b"\x00" + path.read_bytes()[1:])
    before = shop.state()
    for command in (("run",), ("run", "--full"), ("plan",), ("promote", "dev")):
        answer = shop.seeknal(*command)
        assert answer.code == 12, answer.text
        assert "is damaged" in answer.errors[0]
    # Who looks for a way out is shown what there is.
    assert shop.ok("env", "list").stdout.count("| damaged") == 2
    assert shop.state() == before


def test_a_damaged_ref_is_told_with_how_it_is_restored(shop: Project) -> None:
    shop.write("target/store/refs/prod", "not a digest\n")
    answer = shop.seeknal("run")
    assert answer.code == 12
    assert answer.errors == ["the ref of environment 'prod' is damaged"]
    assert "`seeknal store verify --repair` restores it from its log" in answer.stderr


def test_a_missing_output_is_built_again(shop: Project) -> None:
    blob = (shop.root / "target/cache/transform/clean.parquet").resolve()
    blob.unlink()
    shop.replace("seeknal/2_clean.yml", "amount * 2 AS amount FROM", "amount FROM")
    document = shop.ok("run", "--json").document
    reasons = {node["name"]: (node["status"], node["reason"]) for node in document["nodes"]}
    assert reasons["clean"] == ("success", "its output is missing from the store")
    assert total(shop) == 15
