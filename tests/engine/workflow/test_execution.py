"""One run: what it forecasts, what it does when nodes fail or worlds change under it, what it commits."""

from __future__ import annotations

from pathlib import Path

import pytest

from seeknal.dag.project import Project
from seeknal.errors import BusyError, ProjectError
from seeknal.workflow.events import Event, NodeRetried, NodeStarted
from seeknal.workflow.heads import environment_lock
from seeknal.workflow.limits import StopRequest
from seeknal.workflow.reading import TableReader
from seeknal.workflow.results import RunOptions
from seeknal.workflow.selection import Filters
from seeknal.workflow.session import Session
from tests.engine.workflow.projects import executed_in, run, transform, write, write_project


@pytest.fixture
def chain(tmp_path: Path) -> Path:
    """numbers (csv) → doubled → summed; lonely beside them."""
    return write_project(
        tmp_path / "chain",
        {
            "data/numbers.csv": "n\n1\n2\n3\n",
            "seeknal/numbers.yml": "kind: source\nname: numbers\nsource: csv\ntable: data/numbers.csv\n",
            "seeknal/doubled.yml": transform("doubled", "SELECT n * 2 AS n FROM source.numbers"),
            "seeknal/summed.yml": transform("summed", "SELECT sum(n) AS total FROM transform.doubled"),
            "seeknal/lonely.yml": transform("lonely", "SELECT 42 AS answer"),
        },
    )


def head_of(root: Path) -> str | None:
    return Project.open(root).store().refs.read("prod")


def forecast(root: Path, **options: object) -> dict[str, str]:
    with Session.open(Project.open(root)) as session:
        found = session.prepare_run("prod", RunOptions(**options)).forecast()  # type: ignore[arg-type]
    return {entry.node_id.partition(".")[2]: entry.action for entry in found}


def test_forecast_is_exact_where_inputs_are_known_and_says_may_run_where_not(chain: Path) -> None:
    assert set(forecast(chain).values()) == {"RUN"}
    run(chain)
    assert set(forecast(chain).values()) == {"CACHED"}
    write(chain, "seeknal/doubled.yml", transform("doubled", "SELECT n * 2 + 0 AS n FROM source.numbers"))
    assert forecast(chain) == {"numbers": "CACHED", "lonely": "CACHED", "doubled": "RUN", "summed": "MAY RUN"}
    assert executed_in(chain) == ["doubled"]


def test_forecast_writes_nothing_into_the_store(chain: Path) -> None:
    forecast(chain)
    assert not (chain / "target").exists()


def test_failure_skips_what_depends_on_it_and_leaves_the_ref(chain: Path) -> None:
    run(chain)
    head = head_of(chain)
    write(
        chain, "seeknal/doubled.yml", transform("doubled", "SELECT CAST('x' || n AS INTEGER) AS n FROM source.numbers")
    )
    result = run(chain)
    status = {node.node_id: node.status for node in result.nodes}
    assert status["transform.doubled"] == "failed"
    assert status["transform.summed"] == "skipped"
    assert head_of(chain) == head
    problem = next(node for node in result.nodes if node.status == "failed").problems[0]
    assert problem.place is not None
    assert (problem.place.file, problem.place.line) == ("seeknal/doubled.yml", 4)
    assert "Could not convert" in problem.message


class Insisting(StopRequest):
    """A wish to stop that is not looked at for ever."""

    looks = 0

    def overdue(self) -> bool:
        self.looks += 1
        assert self.looks < 100
        return super().overdue()


def test_run_that_is_told_to_stop_at_once_does_not_wait_for_further_attempts(chain: Path) -> None:
    write(
        chain, "seeknal/doubled.yml", transform("doubled", "SELECT CAST('x' || n AS INTEGER) AS n FROM source.numbers")
    )
    stop = Insisting()

    def listen(event: Event) -> None:
        if isinstance(event, NodeRetried):
            stop.request()
            stop.request()

    with Session.open(Project.open(chain)) as session:
        result = session.run("prod", RunOptions(retry=5), listener=listen, stop=stop)
    assert result.status == "interrupted"
    status = {node.node_id: node.status for node in result.nodes}
    assert (status["transform.doubled"], status["transform.summed"]) == ("failed", "skipped")


def test_continue_on_error_moves_the_ref_and_keeps_failed_nodes_as_stale(chain: Path) -> None:
    run(chain)
    head = head_of(chain)
    write(
        chain, "seeknal/doubled.yml", transform("doubled", "SELECT CAST('x' || n AS INTEGER) AS n FROM source.numbers")
    )
    write(chain, "seeknal/lonely.yml", transform("lonely", "SELECT 43 AS answer"))
    result = run(chain, continue_on_error=True)
    assert result.status == "failed"
    store = Project.open(chain).store()
    assert head_of(chain) != head
    snapshot = store.head("prod")
    assert snapshot is not None
    entries = store.read_tree(snapshot.tree).nodes
    assert {node_id for node_id, entry in entries.items() if entry.stale} == {"transform.doubled", "transform.summed"}


def test_source_that_changes_while_it_is_read_fails_and_is_not_remembered(chain: Path) -> None:
    def meddle(event: Event) -> None:
        if isinstance(event, NodeStarted) and event.node_id == "source.numbers":
            (chain / "data/numbers.csv").write_text("n\n7\n")

    with Session.open(Project.open(chain)) as session:
        result = session.run("prod", RunOptions(), listener=meddle)
    assert result.status == "failed"
    failed = next(node for node in result.nodes if node.status == "failed")
    assert "changed while it was read" in failed.problems[0].message
    # Back to the old content: the old fingerprint must not lead to what was read of the new one.
    (chain / "data/numbers.csv").write_text("n\n1\n2\n3\n")
    assert "numbers" in executed_in(chain)


def test_node_that_does_not_bind_stops_everything_before_anything_runs(chain: Path) -> None:
    write(chain, "seeknal/summed.yml", transform("summed", "SELECT sum(m) AS total FROM transform.doubled"))
    with pytest.raises(ProjectError, match=r'summed\.yml:4:14: transform\.summed: .*"m" not found'):
        run(chain)
    assert not (chain / "target/store/blobs").exists()


def test_second_run_in_an_environment_is_refused_while_the_first_is_at_work(chain: Path) -> None:
    store = Project.open(chain).store()
    with environment_lock(store, "prod", "run"), pytest.raises(BusyError, match="prod"):
        run(chain)
    assert executed_in(chain)


def test_selected_nodes_bring_what_is_downstream_and_the_inputs_they_lack(chain: Path) -> None:
    assert executed_in(chain, filters=Filters(nodes=["doubled"])) == ["doubled", "numbers", "summed"]
    assert executed_in(chain) == ["lonely"]


def test_excluded_node_keeps_its_output_for_readers(chain: Path) -> None:
    write(chain, "seeknal/doubled.yml", transform("doubled", "SELECT n * 2 AS n FROM source.numbers", tags="[slow]"))
    run(chain)
    write(chain, "seeknal/doubled.yml", transform("doubled", "SELECT n * 3 AS n FROM source.numbers", tags="[slow]"))
    assert executed_in(chain, filters=Filters(exclude_tags=["slow"])) == []
    assert executed_in(chain) == ["doubled", "summed"]


def test_full_run_of_a_selection_leaves_the_rest_alone(chain: Path) -> None:
    run(chain)
    assert executed_in(chain, full=True, filters=Filters(nodes=["doubled"])) == ["doubled", "summed"]


def test_sequential_and_parallel_runs_write_the_same_blobs(chain: Path, tmp_path: Path) -> None:
    import shutil

    twin = tmp_path / "twin"
    shutil.copytree(chain, twin)
    one = {node.node_id: node.artifact.blobs() for node in run(chain).nodes if node.artifact}
    other = {node.node_id: node.artifact.blobs() for node in run(twin, parallel=True).nodes if node.artifact}
    assert one == other


@pytest.mark.parametrize(
    "path",
    [
        "seeknal/numbers.yml",
        "seeknal_project.yml",
        "profiles.yml",
        ".git/config",
        "TARGET/x.csv",
        "data/numbers.csv",
        "data",
    ],
)
def test_exposure_that_would_overwrite_the_project_is_refused_before_anything_runs(chain: Path, path: str) -> None:
    write(
        chain,
        "seeknal/out.yml",
        f"kind: exposure\nname: out\ntype: file\nformat: csv\npath: {path}\ninputs: [{{ref: source.numbers}}]\n",
    )
    before = (chain / "seeknal/numbers.yml").read_bytes()
    with pytest.raises(ProjectError, match=r"out\.yml:5:1: .*(project's own|source\.numbers reads it)"):
        run(chain)
    assert (chain / "seeknal/numbers.yml").read_bytes() == before
    assert head_of(chain) is None


def test_two_exposures_of_one_path_are_refused_before_anything_runs(chain: Path) -> None:
    for name in ("one", "two"):
        write(
            chain,
            f"seeknal/{name}.yml",
            f"kind: exposure\nname: {name}\ntype: file\npath: output/x.csv\ninputs: [{{ref: source.numbers}}]\n",
        )
    with pytest.raises(ProjectError, match=r"exposure\.two: writes to 'output/x.csv', and so does exposure\.one"):
        run(chain)


def test_project_in_a_folder_whose_name_looks_like_a_pattern_runs_and_can_be_queried(tmp_path: Path) -> None:
    root = write_project(tmp_path / "br[a]ck*t", {"seeknal/one.yml": transform("one", "SELECT 1 AS x")})
    write(root, "seeknal/two.yml", transform("two", "SELECT x + 1 AS y FROM transform.one"))
    assert executed_in(root) == ["one", "two"]
    with TableReader.open(Project.open(root).store(), "prod") as reader:
        assert list(reader.query("SELECT y FROM two").values) == [("2",)]
