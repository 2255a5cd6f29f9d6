"""The page on the DAGRunner: every snippet of it as it stands there, and what it says about state, hooks and errors."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from seeknal.dag.manifest import Manifest, Node, NodeType
from seeknal.workflow.runner import DAGRunner, ExecutionStatus, ExecutionSummary, NodeResult
from tests.acceptance.project import Project

QUICK_START = """\
from seeknal.dag.manifest import Manifest
from seeknal.workflow.runner import DAGRunner, print_summary
# Load manifest
manifest = Manifest.load("target/manifest.json")
# Create runner
runner = DAGRunner(manifest)
# Run only changed nodes
summary = runner.run()
# Print summary
print_summary(summary)
"""

IMPORTS = """\
import os
from typing import Any, Dict
from seeknal.dag.manifest import Manifest, Node
from seeknal.workflow.runner import DAGRunner, ExecutionStatus, print_summary
manifest = Manifest.load("target/manifest.json")
"""

CHANGED_NODES_ONLY = """\
# Load old and new manifests
old_manifest = Manifest.load("target/manifest.json.old")
new_manifest = Manifest.load("target/manifest.json")

# Create runner with change detection
runner = DAGRunner(new_manifest, old_manifest=old_manifest)

# Run only what changed
summary = runner.run()
print_summary(summary)
"""

FULL_RUN = """\
# Run all nodes regardless of state
runner = DAGRunner(manifest)
summary = runner.run(full=True)
print_summary(summary)
"""

FILTER_BY_TYPE = """\
# Run only feature_groups
runner = DAGRunner(manifest)
summary = runner.run(
    full=True,
    node_types=["feature_group"]
)
"""

SPECIFIC_NODES = """\
# Run specific nodes (will also run downstream dependencies)
runner = DAGRunner(manifest)
summary = runner.run(
    nodes=["user_features", "order_features"]
)
"""

EXCLUDE_TAGS = """\
# Skip nodes tagged as 'expensive' or 'experimental'
runner = DAGRunner(manifest)
summary = runner.run(
    full=True,
    exclude_tags=["expensive", "experimental"]
)
"""

CONTINUE_ON_ERROR = """\
# Keep going even if some nodes fail
runner = DAGRunner(manifest)
summary = runner.run(
    full=True,
    continue_on_error=True,
    retry=2,  # Retry failed nodes twice
)
print_summary(summary)
"""

DRY_RUN = """\
# Show what would be executed
runner = DAGRunner(manifest)

# Just show the plan
runner.print_plan(full=True)

# Or dry run the execution
summary = runner.run(full=True, dry_run=True)
print_summary(summary)
"""

HANDLE_ERRORS = """\
# In production: Continue on error with retries
summary = runner.run(
    full=True,
    continue_on_error=True,
    retry=3
)
# Check results
if summary.failed_nodes > 0:
    for result in summary.results:
        if result.status == ExecutionStatus.FAILED:
            print(f"Failed: {result.node_id} - {result.error_message}")
"""

STATE_SIZE = """\
import os
state_file = "target/state/execution_state.json"
size_mb = os.path.getsize(state_file) / (1024 * 1024)
if size_mb > 10:
    print(f"Warning: State file is {size_mb:.1f}MB")
    # Consider cleanup
"""

CUSTOM_EXECUTOR = '''\
def execute_custom_node(node: Node) -> Dict[str, Any]:
    """Execute a custom node type."""
    # Your custom logic here
    return {
        "row_count": 100,
        "metadata": {"custom": True}
    }
# Register in runner._execute_by_type()
'''

CUSTOM_STATE = """\
class CustomStateBackend:
    def load(self) -> Dict:
        # Load from database, S3, etc.
        pass
    def save(self, state: Dict) -> None:
        # Save to database, S3, etc.
        pass
"""

HOOKS = """\
class DAGRunnerWithHooks(DAGRunner):
    def _execute_node(self, node_id: str, dry_run: bool = False):
        # Before execution
        self.on_node_start(node_id)
        result = super()._execute_node(node_id, dry_run)
        # After execution
        self.on_node_complete(node_id, result)
        return result
"""

USERS = "kind: source\nname: users\nsource: csv\ntable: data/users.csv\n"
CLEAN_USERS = """\
kind: transform
name: clean_users
transform: SELECT id, upper(name) AS name FROM source.users WHERE id > 0
inputs: [{ref: source.users}]
"""
USER_FEATURES = """\
kind: transform
name: user_features
transform: SELECT count(*) AS users FROM transform.clean_users
inputs: [{ref: transform.clean_users}]
tags: [expensive]
"""
ORDER_FEATURES = """\
kind: transform
name: order_features
transform: SELECT max(id) AS last FROM transform.clean_users
inputs: [{ref: transform.clean_users}]
tags: [experimental]
"""
BROKEN = """\
kind: transform
name: broken
transform: SELECT CAST(name AS INTEGER) AS number FROM source.users
inputs: [{ref: source.users}]
"""

SOURCE, CLEAN, USER, ORDER = (
    "source.users", "transform.clean_users", "transform.user_features", "transform.order_features",
)  # fmt: skip
SUCCESS, CACHED, SKIPPED, FAILED = (
    ExecutionStatus.SUCCESS, ExecutionStatus.CACHED, ExecutionStatus.SKIPPED, ExecutionStatus.FAILED,
)  # fmt: skip


@pytest.fixture
def users(tmp_path: Path) -> Project:
    """A project of four nodes, parsed, never run."""
    project = Project(tmp_path / "users")
    project.write("seeknal_project.yml", "name: users\n")
    project.write("data/users.csv", "id,name\n1,ann\n2,bob\n0,none\n")
    project.write("seeknal/1_users.yml", USERS)
    project.write("seeknal/2_clean.yml", CLEAN_USERS)
    project.write("seeknal/3_user_features.yml", USER_FEATURES)
    project.write("seeknal/4_order_features.yml", ORDER_FEATURES)
    project.ok("parse")
    return project


def with_feature_group(project: Project) -> None:
    """Add to the saved manifest a node of a kind that only the user's own executor knows."""
    path = project.root / "target/manifest.json"
    manifest = Manifest.load(path)
    manifest.add_node(Node("feature_group.old_features", "old_features", NodeType.FEATURE_GROUP, tags=["deprecated"]))
    manifest.add_edge(CLEAN, "feature_group.old_features")
    path.unlink()
    manifest.save(path)


def run(project: Project, snippet: str, **names: Any) -> tuple[ExecutionSummary, str]:
    """Execute a snippet behind the imports that it needs; gives its summary and what it printed."""
    given = "".join(f"{name} = given_{name}\n" for name in names)
    opening = "" if snippet is QUICK_START else IMPORTS + given
    done = project.python(opening + snippet, **{f"given_{name}": value for name, value in names.items()})
    summary = done["summary"]
    assert isinstance(summary, ExecutionSummary)
    return summary, done["printed"]


def statuses(summary: ExecutionSummary) -> dict[str, ExecutionStatus]:
    return {result.node_id: result.status for result in summary.results}


# the examples


def test_the_quick_start_runs_everything_once(users: Project) -> None:
    summary, printed = run(users, QUICK_START)
    assert statuses(summary) == {SOURCE: SUCCESS, CLEAN: SUCCESS, USER: SUCCESS, ORDER: SUCCESS}
    assert "ℹ 1/4: source.users [RUNNING]" in printed
    assert re.search(r"^✓ users completed in \d+\.\d\ds$", printed, re.M)
    assert re.search(r"^  Total nodes: +4$", printed, re.M)
    assert re.search(r"^  Duration: +\d+\.\d\ds$", printed, re.M)
    assert users.rows(ORDER) == [{"last": 2}]
    # One engine: the command line finds the same outputs.
    assert "No changes detected. Nothing to run." in users.ok("run").stdout
    summary, printed = run(users, QUICK_START)
    assert set(statuses(summary).values()) == {CACHED}
    assert "No changes detected. Nothing to run." in printed
    assert (summary.changed_nodes, summary.cached_nodes) == (0, 4)


def test_the_quick_start_runs_as_a_script(users: Project) -> None:
    answer = users.script(QUICK_START)
    assert answer.code == 0, answer.text
    assert answer.stderr == ""
    assert "Execution Summary" in answer.stdout


def test_a_stream_that_knows_ascii_only_does_not_end_the_run(users: Project) -> None:
    answer = users.script("import sys\nsys.stdout.reconfigure(encoding='ascii')\n" + QUICK_START)
    assert answer.code == 0, answer.stderr
    assert "? 1/4: source.users [RUNNING]" in answer.stdout


def test_example_1_runs_what_changed_between_two_manifests(users: Project) -> None:
    users.ok("run")
    shutil.copy(users.root / "target/manifest.json", users.root / "target/manifest.json.old")
    users.write("seeknal/3_user_features.yml", USER_FEATURES.replace("count(*)", "count(*) + 1"))
    users.ok("parse")
    summary, _ = run(users, CHANGED_NODES_ONLY)
    assert statuses(summary) == {SOURCE: CACHED, CLEAN: CACHED, USER: SUCCESS, ORDER: CACHED}
    assert users.rows(USER) == [{"users": 3}]


def test_example_2_runs_all_nodes_regardless_of_state(users: Project) -> None:
    users.ok("run")
    summary, _ = run(users, FULL_RUN)
    assert set(statuses(summary).values()) == {SUCCESS}
    assert summary.total_nodes == summary.changed_nodes == summary.successful_nodes == 4


def test_example_3_runs_the_nodes_of_a_type(users: Project) -> None:
    users.ok("run")
    summary, _ = run(users, FILTER_BY_TYPE.replace("feature_group", "transform"))
    assert statuses(summary) == {SOURCE: SKIPPED, CLEAN: SUCCESS, USER: SUCCESS, ORDER: SUCCESS}


def test_example_3_runs_feature_groups_by_the_users_own_executor(users: Project) -> None:
    users.ok("run")
    with_feature_group(users)

    class WithFeatureGroups(DAGRunner):
        def _execute_by_type(self, node: Node) -> dict[str, Any]:
            if node.node_type is NodeType.FEATURE_GROUP:
                return {"row_count": 7, "metadata": {}}
            return super()._execute_by_type(node)

    summary, _ = run(users, FILTER_BY_TYPE, DAGRunner=WithFeatureGroups)
    done = statuses(summary)
    assert done.pop("feature_group.old_features") is SUCCESS
    assert set(done.values()) == {SKIPPED}


def test_example_4_runs_nodes_by_bare_name(users: Project) -> None:
    summary, _ = run(users, SPECIFIC_NODES)
    # What they read was never built, so it is built too.
    assert set(statuses(summary).values()) == {SUCCESS}
    users.write("seeknal/4_order_features.yml", ORDER_FEATURES.replace("max(id)", "min(id)"))
    users.write("seeknal/2_clean.yml", CLEAN_USERS.replace("upper(name)", "lower(name)"))
    users.ok("parse")
    summary, _ = run(users, SPECIFIC_NODES)
    assert statuses(summary) == {SOURCE: SKIPPED, CLEAN: SKIPPED, USER: CACHED, ORDER: SUCCESS}


def test_example_4_brings_what_is_downstream(users: Project) -> None:
    users.ok("run")
    summary, _ = run(users, SPECIFIC_NODES.replace('"user_features", "order_features"', '"clean_users"') + "\n")
    assert SKIPPED not in {status for node_id, status in statuses(summary).items() if node_id != SOURCE}


def test_example_5_leaves_out_tagged_nodes(users: Project) -> None:
    summary, _ = run(users, EXCLUDE_TAGS)
    assert statuses(summary) == {SOURCE: SUCCESS, CLEAN: SUCCESS, USER: SKIPPED, ORDER: SKIPPED}


def test_example_6_goes_on_after_an_error_and_tries_three_times(users: Project) -> None:
    users.write("seeknal/0_broken.yml", BROKEN)
    users.ok("parse")
    attempts: list[str] = []

    class Counting(DAGRunner):
        def _execute_node(self, node_id: str, dry_run: bool = False) -> NodeResult:
            attempts.append(node_id)
            return super()._execute_node(node_id, dry_run)

    summary, printed = run(users, CONTINUE_ON_ERROR, DAGRunner=Counting)
    assert statuses(summary)["transform.broken"] is FAILED
    assert (summary.failed_nodes, summary.successful_nodes) == (1, 4)
    assert attempts.count("transform.broken") == 3
    assert attempts.count(CLEAN) == 1
    assert re.search(r"^  Failed: +1$", printed, re.M)
    assert "✗ transform.broken:" in printed


def test_without_continue_on_error_nothing_is_started_after_a_failure(users: Project) -> None:
    users.write("seeknal/0_broken.yml", BROKEN.replace("source.users", "source.first").replace("name AS", "'x' AS"))
    users.write("seeknal/00_first.yml", USERS.replace("name: users", "name: first"))
    users.ok("parse")
    before = users.ref()
    summary, _ = run(users, FULL_RUN)
    done = statuses(summary)
    assert done["transform.broken"] is FAILED
    assert done[CLEAN] is SKIPPED
    assert users.ref() == before


def test_example_7_shows_a_plan_and_writes_nothing(users: Project) -> None:
    before = users.state()
    summary, printed = run(users, DRY_RUN)
    assert set(statuses(summary).values()) == {SUCCESS}
    assert all(result.metadata == {"dry_run": True} for result in summary.results)
    assert "ℹ Execution Plan:\nℹ " + "=" * 60 in printed
    assert users.state() == before


def test_print_plan_has_a_line_for_each_node(users: Project) -> None:
    with_feature_group(users)
    done = users.python(IMPORTS + 'DAGRunner(manifest).print_plan(full=True, exclude_tags=["deprecated"])')
    lines = [line.strip() for line in done["printed"].splitlines()]
    assert lines[:2] == ["ℹ Execution Plan:", "ℹ " + "=" * 60]
    assert lines[2:4] == ["1. RUN source.users [source]", "2. RUN transform.clean_users [transform]"]
    assert lines[6:] == ["5. SKIP feature_group.old_features [deprecated]", "ℹ " + "=" * 60]


# best practices


def test_failures_can_be_gone_through(users: Project) -> None:
    users.write("seeknal/0_broken.yml", BROKEN)
    users.ok("parse")
    _, printed = run(users, "runner = DAGRunner(manifest)\n" + HANDLE_ERRORS)
    assert re.search(r"^Failed: transform.broken - .*ann", printed, re.M)


def test_the_state_file_can_be_measured(users: Project) -> None:
    run(users, QUICK_START)
    names = users.python(STATE_SIZE)
    assert 0 < names["size_mb"] < 10
    assert names["printed"] == ""


# state


def test_the_state_file_says_how_each_node_ended(users: Project) -> None:
    run(users, QUICK_START)
    state = users.json("target/state/execution_state.json")
    assert list(state) == [SOURCE, CLEAN, USER, ORDER]
    entry = state[CLEAN]
    assert (entry["status"], entry["row_count"]) == ("success", 2)
    assert isinstance(entry["duration"], float)
    assert entry["last_run"] > 1_700_000_000


def test_a_damaged_or_missing_state_file_does_no_harm(users: Project) -> None:
    run(users, QUICK_START)
    users.write("target/state/execution_state.json", "{not json")
    summary, _ = run(users, QUICK_START)
    assert set(statuses(summary).values()) == {CACHED}
    (users.root / "target/state/execution_state.json").unlink()
    assert set(statuses(run(users, FULL_RUN)[0]).values()) == {SUCCESS}


def test_a_state_backend_of_ones_own_takes_the_files_place(users: Project) -> None:
    class InMemory:
        state: dict[str, Any]

        def __init__(self) -> None:
            self.state = {}

        def load(self) -> dict[str, Any]:
            return json.loads(json.dumps(self.state))  # type: ignore[no-any-return]

        def save(self, state: dict[str, Any]) -> None:
            self.state = state

    backend = InMemory()
    run(users, "runner = DAGRunner(manifest, state_backend=backend)\nsummary = runner.run()", backend=backend)
    assert set(backend.state) == {SOURCE, CLEAN, USER, ORDER}
    assert not (users.root / "target/state").exists()


def test_the_state_backend_of_the_page_which_keeps_nothing_works(users: Project) -> None:
    summary, _ = run(
        users, CUSTOM_STATE + "summary = DAGRunner(manifest, state_backend=CustomStateBackend()).run(full=True)"
    )
    assert set(statuses(summary).values()) == {SUCCESS}


def test_the_state_can_be_kept_in_another_folder(users: Project) -> None:
    run(users, 'runner = DAGRunner(manifest, state_dir="elsewhere")\nsummary = runner.run()')
    assert SOURCE in users.json("elsewhere/execution_state.json")
    assert users.rows(ORDER) == [{"last": 2}]


# extending


def test_an_executor_of_ones_own_is_registered_by_type(users: Project) -> None:
    with_feature_group(users)
    register = """
class CustomRunner(DAGRunner):
    def _execute_by_type(self, node):
        if node.node_type.value == "feature_group":
            return execute_custom_node(node)
        return super()._execute_by_type(node)
summary = CustomRunner(manifest).run()
"""
    summary, _ = run(users, CUSTOM_EXECUTOR + register)
    by_id = {result.node_id: result for result in summary.results}
    custom = by_id["feature_group.old_features"]
    assert (custom.status, custom.row_count, custom.metadata) == (SUCCESS, 100, {"custom": True})
    assert by_id[CLEAN].status is SUCCESS
    # It is remembered like the others.
    assert statuses(run(users, CUSTOM_EXECUTOR + register)[0])["feature_group.old_features"] is CACHED


def test_a_kind_without_an_executor_fails_and_says_how_to_get_one(users: Project) -> None:
    with_feature_group(users)
    summary, _ = run(users, "summary = DAGRunner(manifest).run(continue_on_error=True)")
    by_id = {result.node_id: result for result in summary.results}
    assert by_id["feature_group.old_features"].status is FAILED
    assert "_execute_by_type" in str(by_id["feature_group.old_features"].error_message)
    assert by_id[ORDER].status is SUCCESS


def test_hooks_are_called_around_every_node(users: Project) -> None:
    events: list[str] = []
    watch = """
class Watching(DAGRunnerWithHooks):
    def on_node_start(self, node_id):
        events.append(f"start {node_id}")
    def on_node_complete(self, node_id, result):
        events.append(f"complete {node_id} {result.status.value}")
summary = Watching(manifest).run()
"""
    run(users, HOOKS + watch, events=events)
    assert events[:2] == [f"start {SOURCE}", f"complete {SOURCE} success"]
    assert events[2:4] == [f"start {CLEAN}", f"complete {CLEAN} success"]
    assert len(events) == 8


def test_an_executor_that_raises_fails_its_node_only(users: Project) -> None:
    class Raising(DAGRunner):
        def _execute_by_type(self, node: Node) -> dict[str, Any]:
            if node.id == USER:
                raise LookupError("no such thing")
            return super()._execute_by_type(node)

    summary, _ = run(users, CONTINUE_ON_ERROR, DAGRunner=Raising)
    by_id = {result.node_id: result for result in summary.results}
    assert by_id[USER].status is FAILED
    assert by_id[USER].error_message == "no such thing"
    assert by_id[ORDER].status is SUCCESS


# troubleshooting


def test_a_cycle_is_a_value_error_that_shows_the_path(users: Project) -> None:
    manifest = Manifest.load(users.root / "target/manifest.json")
    manifest.add_edge(CLEAN, SOURCE)
    with pytest.raises(ValueError) as raised:  # noqa: PT011
        DAGRunner(manifest).run()
    assert str(raised.value) == "DAG contains cycle: source.users -> transform.clean_users -> source.users"


def test_parse_finds_a_cycle_in_the_files(users: Project) -> None:
    looped = CLEAN_USERS.replace("source.users", "transform.user_features")
    users.write("seeknal/2_clean.yml", looped.replace("id, upper(name) AS name", "users AS id"))
    answer = users.seeknal("parse")
    assert answer.code == 1
    assert answer.errors == [
        "seeknal/2_clean.yml:4:10: DAG contains cycle: transform.clean_users -> transform.user_features "
        "-> transform.clean_users"
    ]


def test_a_node_that_is_not_there_fails_as_not_found(users: Project) -> None:
    done = users.python(IMPORTS + 'result = DAGRunner(manifest)._execute_node("source.nowhere")')
    assert done["result"].status is FAILED
    assert done["result"].error_message == "Node not found: source.nowhere"


def test_the_summary_becomes_plain_values(users: Project) -> None:
    summary, _ = run(users, QUICK_START)
    assert json.loads(json.dumps(summary.to_dict()))["results"][0]["status"] == "success"
    fields = (
        "total_nodes", "changed_nodes", "cached_nodes", "successful_nodes", "failed_nodes", "skipped_nodes",
        "total_duration", "results",
    )  # fmt: skip
    assert list(summary.to_dict()) == list(fields)
