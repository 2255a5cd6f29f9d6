"""`seeknal run`: what its options select, that looking writes nothing, failures and interruptions, how it looks."""

from __future__ import annotations

import os
import pty
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from seeknal.store.store import Store
from tests.acceptance.project import COMMAND, Answer, Project

FILES = {
    "seeknal_project.yml": "name: shop\n",
    "data/orders.csv": "id,amount\n1,10\n2,0\n3,5\n",
    "data/prices.csv": "id,price\n1,2\n",
    "seeknal/1_orders.yml": "kind: source\nname: orders\nsource: csv\ntable: data/orders.csv\ntags: [raw]\n",
    "seeknal/2_prices.yml": "kind: source\nname: prices\nsource: csv\ntable: data/prices.csv\ntags: [raw]\n",
    "seeknal/3_clean.yml": """\
kind: transform
name: clean
transform: SELECT id, amount FROM source.orders WHERE amount > 0
inputs: [{ref: source.orders}]
tags: [core]
""",
    "seeknal/4_total.yml": """\
kind: transform
name: total
transform: SELECT sum(amount) AS total FROM transform.clean
inputs: [{ref: transform.clean}]
tags: [report, expensive]
""",
    "seeknal/5_latest.yml": """\
kind: transform
name: latest
transform: SELECT max(id) AS id FROM transform.clean
inputs: [{ref: transform.clean}]
tags: [report]
""",
    "seeknal/6_export.yml": """\
kind: exposure
name: export
type: file
path: output/total.csv
inputs: [{ref: transform.total}]
tags: [delivery]
""",
}
EVERYTHING = {"orders", "prices", "clean", "total", "latest", "export"}

FAILING = "kind: transform\nname: {name}\ntransform: SELECT CAST('x' || id AS INTEGER) AS n FROM {source}\n"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project, parsed by nobody yet; to be copied."""
    project = Project(tmp_path_factory.mktemp("built") / "shop")
    for path, text in FILES.items():
        project.write(path, text)
    return project.root


@pytest.fixture
def fresh(built: Path, tmp_path: Path) -> Project:
    """The project before its first run."""
    return Project(shutil.copytree(built, tmp_path / "shop"))


@pytest.fixture(scope="module")
def ran(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project after its first run; to be copied."""
    project = Project(shutil.copytree(built, tmp_path_factory.mktemp("ran") / "shop"))
    project.ok("run")
    return project.root


@pytest.fixture
def shop(ran: Path, tmp_path: Path) -> Project:
    """The project after its first run."""
    return Project(shutil.copytree(ran, tmp_path / "shop", symlinks=True))


def statuses(answer: Answer) -> dict[str, str]:
    return {node["name"]: node["status"] for node in answer.document["nodes"]}


def executed(answer: Answer) -> set[str]:
    return {name for name, status in statuses(answer).items() if status == "success"}


# selection


@pytest.mark.parametrize(
    ("options", "chosen"),
    [
        ((), EVERYTHING),
        (("--nodes", "clean"), {"clean", "total", "latest", "export"}),
        (("--nodes", "transform.clean"), {"clean", "total", "latest", "export"}),
        (("--nodes", "CLEAN"), {"clean", "total", "latest", "export"}),
        (("--nodes", "transforms/clean"), {"clean", "total", "latest", "export"}),
        (("-n", "latest"), {"latest"}),
        (("--nodes", "latest,export"), {"latest", "export"}),
        (("--nodes", "latest", "--nodes", "source.prices"), {"latest", "prices"}),
        (("--nodes", "latest, source.prices", "-n", "export"), {"latest", "prices", "export"}),
        (("--types", "source"), {"orders", "prices"}),
        (("-t", "source,exposure"), {"orders", "prices", "export"}),
        (("--types", "source", "--types", "transform"), {"orders", "prices", "clean", "total", "latest"}),
        (("--tags", "report"), {"orders", "clean", "total", "latest"}),
        (("--tags", "report,raw"), {"orders", "prices", "clean", "total", "latest"}),
        (("--tags", "expensive", "--tags", "delivery"), {"orders", "clean", "total", "export"}),
        (("--exclude-tags", "expensive"), {"orders", "prices", "clean", "latest", "export"}),
        (("--exclude-tags", "expensive,delivery"), {"orders", "prices", "clean", "latest"}),
        (("--nodes", "clean", "--types", "transform"), {"clean", "total", "latest"}),
        (("--nodes", "clean", "--exclude-tags", "report"), {"clean", "export"}),
        (("--tags", "report", "--types", "transform", "--exclude-tags", "expensive"), {"clean", "latest"}),
    ],
)
def test_full_executes_exactly_what_is_selected(shop: Project, options: tuple[str, ...], chosen: set[str]) -> None:
    assert executed(shop.ok("run", "--full", "--json", *options)) == chosen


def test_without_full_a_selection_executes_what_changed_in_it(shop: Project) -> None:
    shop.replace("seeknal/5_latest.yml", "max(id)", "min(id)")
    shop.replace("seeknal/4_total.yml", "sum(amount)", "avg(amount)")
    answer = shop.ok("run", "--json", "--nodes", "latest")
    assert statuses(answer) == dict.fromkeys(EVERYTHING, "skipped") | {"latest": "success"}
    assert shop.rows("transform.latest") == [{"id": 1}]
    # What was left out kept its output, and is done when its turn comes.
    assert shop.rows("transform.total") == [{"total": 15}]
    assert executed(shop.ok("run", "--json")) == {"total", "export"}


def test_what_a_selected_node_reads_is_built_where_it_never_was(fresh: Project) -> None:
    answer = fresh.ok("run", "--json", "--nodes", "latest")
    assert executed(answer) == {"orders", "clean", "latest"}
    assert {name for name, status in statuses(answer).items() if status == "skipped"} == {"prices", "total", "export"}


def test_what_needs_an_excluded_node_that_was_never_built_is_skipped(fresh: Project) -> None:
    answer = fresh.ok("run", "--json", "--exclude-tags", "core")
    assert executed(answer) == {"orders", "prices"}


def test_only_the_node_whose_file_changed_and_what_reads_it_is_executed(shop: Project) -> None:
    shop.write("data/orders.csv", "id,amount\n1,10\n2,0\n3,6\n")
    answer = shop.ok("run", "--json")
    assert executed(answer) == {"orders", "clean", "total", "export"}
    # Reads id alone, and no id changed.
    assert statuses(answer)["latest"] == "cached"
    reasons = {node["name"]: node["reason"] for node in answer.document["nodes"]}
    assert reasons["latest"] == "reads no changed column of transform.clean"


# looking


@pytest.mark.parametrize("option", ["--dry-run", "--show-plan", "-p"])
@pytest.mark.parametrize("more", [(), ("--full",), ("--parallel",), ("--nodes", "latest")])
def test_looking_writes_nothing(fresh: Project, option: str, more: tuple[str, ...]) -> None:
    before = fresh.state(".")
    answer = fresh.ok("run", option, *more)
    assert "Execution Plan" in answer.stdout
    assert fresh.state(".") == before
    assert not (fresh.root / "target").exists()


def test_looking_at_a_changed_project_writes_nothing_and_says_what_would_run(shop: Project) -> None:
    shop.replace("seeknal/4_total.yml", "sum(amount)", "avg(amount)")
    before = shop.state(".")
    for command in (("run", "--dry-run"), ("run", "--show-plan"), ("run", "--dry-run", "--full")):
        answer = shop.ok(*command)
    assert shop.state(".") == before
    lines = shop.ok("run", "--dry-run").stdout.splitlines()
    assert "   4. RUN     transform.total [report, expensive]  its definition changed" in lines
    assert "   5. CACHED  transform.latest [report]  unchanged" in lines
    assert lines[-1] == "Total: 6 nodes, 1 to run, 1 more if what they read changes"
    assert "Total: 6 nodes, 6 to run" in answer.stdout


def test_looking_into_an_environment_writes_nothing(shop: Project) -> None:
    shop.replace("seeknal/4_total.yml", "sum(amount)", "avg(amount)")
    shop.ok("plan", "dev")
    before = shop.state(".")
    for command in (("run", "--env", "dev", "--dry-run"), ("env", "apply", "dev", "--show-plan")):
        assert "RUN     transform.total" in shop.ok(*command).stdout
    assert shop.state(".") == before


# failures


def test_retries_are_counted_and_give_one_error_in_the_end(fresh: Project) -> None:
    fresh.write("seeknal/7_bad.yml", FAILING.format(name="bad", source="source.orders"))
    answer = fresh.seeknal("run", "--retry", "3", "--json")
    assert answer.code == 1
    assert re.findall(r"bad: .*; attempt (\d) of 4", answer.stderr) == ["2", "3", "4"]
    assert len(answer.errors) == 1
    fresh.replace("seeknal/7_bad.yml", "'x' || id", "id")
    answer = fresh.ok("run", "--retry", "3", "--json")
    assert "attempt" not in answer.stderr
    assert statuses(answer)["bad"] == "success"


def test_without_continue_on_error_nothing_more_is_started(fresh: Project) -> None:
    fresh.write("seeknal/0_bad.yml", FAILING.format(name="bad", source="source.first"))
    fresh.write("seeknal/00_first.yml", FILES["seeknal/1_orders.yml"].replace("name: orders", "name: first"))
    answer = fresh.seeknal("run", "--json")
    assert answer.code == 1
    done = statuses(answer)
    assert done["bad"] == "failed"
    assert done["clean"] == "skipped"
    reasons = {node["name"]: node["reason"] for node in answer.document["nodes"]}
    assert reasons["clean"] == "not started, because transform.bad failed"
    assert fresh.ref() is None
    assert "production is as it was" in answer.stderr


@pytest.mark.parametrize("options", [(), ("--parallel",)])
def test_continue_on_error_keeps_what_failed_at_its_former_output_marked_stale(
    shop: Project, options: tuple[str, ...]
) -> None:
    before = shop.ref()
    good = shop.read("seeknal/4_total.yml")
    shop.replace("seeknal/4_total.yml", "sum(amount)", "sum(CAST('x' || amount AS INTEGER))")
    shop.write("data/orders.csv", "id,amount\n1,10\n4,7\n")
    answer = shop.seeknal("run", "--continue-on-error", "--json", *options)
    assert answer.code == 1
    assert statuses(answer) == {
        "orders": "success", "prices": "cached", "clean": "success", "total": "failed", "latest": "success",
        "export": "skipped",
    }  # fmt: skip
    assert shop.ref() != before
    assert answer.document["snapshot"] == shop.ref()
    assert shop.rows("transform.latest") == [{"id": 4}]
    assert shop.rows("transform.total") == [{"total": 15}]
    assert shop.read("output/total.csv").split() == ["total", "15"]
    store = Store(shop.root / "target" / "store")
    head = store.head("prod")
    assert head is not None
    stale = {node_id for node_id, entry in store.read_tree(head.tree).nodes.items() if entry.stale}
    assert stale == {"transform.total", "exposure.export"}
    assert shop.json("target/run_state.json")["nodes"]["transform.total"]["status"] == "stale"
    assert "marked stale" in answer.stderr
    # What is stale is not taken for done.
    shop.write("seeknal/4_total.yml", good)
    assert {"total", "export"} <= executed(shop.ok("run", "--json"))
    assert shop.read("output/total.csv").split() == ["total", "17"]


def test_a_stale_node_is_tried_again_though_nothing_changed(shop: Project) -> None:
    shop.replace("seeknal/4_total.yml", "sum(amount)", "sum(CAST('x' || amount AS INTEGER))")
    assert shop.seeknal("run", "--continue-on-error").code == 1
    again = shop.seeknal("run", "--json")
    assert again.code == 1
    assert statuses(again)["total"] == "failed"


def test_parallel_gives_what_sequential_gives(built: Path, tmp_path: Path) -> None:
    results = []
    for name, options in (("one", ()), ("two", ("--parallel", "--max-workers", "3"))):
        project = Project(shutil.copytree(built, tmp_path / name))
        for number in range(6):
            project.write(
                f"seeknal/7_{number}.yml",
                f"kind: transform\nname: wide_{number}\ntransform: SELECT id * {number} AS n FROM transform.clean\n",
            )
        document = project.ok("run", "--json", *options).document
        keys = ("status", "row_count", "fingerprint", "artifact")
        results.append({node["node_id"]: [node[key] for key in keys] for node in document["nodes"]})
        assert project.read("output/total.csv").split() == ["total", "15"]
    assert results[0] == results[1]
    assert {status for status, *_ in results[0].values()} == {"success"}


def test_what_one_mode_built_the_other_finds(shop: Project) -> None:
    assert set(statuses(shop.ok("run", "--parallel", "--json")).values()) == {"cached"}
    shop.ok("run", "--parallel", "--full")
    assert set(statuses(shop.ok("run", "--json")).values()) == {"cached"}


def test_an_impossible_run_id_is_refused_before_anything_is_executed(fresh: Project) -> None:
    answer = fresh.seeknal("run", "--run-id", "../../escaped")
    assert answer.code == 2
    assert answer.errors == ["'../../escaped' is not a valid run id"]
    assert "[RUNNING]" not in answer.stdout
    assert not list(fresh.root.parent.rglob("escaped*"))


@pytest.mark.parametrize("name", ["it's a [test]", "100% {done} *?", "Bücher, 東京", "-f --help"])
def test_a_project_may_stand_in_any_folder(built: Path, tmp_path: Path, name: str) -> None:
    project = Project(shutil.copytree(built, tmp_path / name))
    project.replace("seeknal/1_orders.yml", "data/orders.csv", "data/ord*.csv")
    project.ok("run")
    project.ok("run", "--parallel", "--full")
    assert set(statuses(project.ok("run", "--json")).values()) == {"cached"}
    project.replace("seeknal/4_total.yml", "sum(amount)", "sum(amount) + 1")
    for command in (("plan", "dev"), ("run", "--env", "dev"), ("promote", "dev")):
        project.ok(*command)
    assert project.read("output/total.csv").split() == ["total", "16"]


# interruptions


SLOW = """\
kind: transform
name: slow_{number}
transform: >
  SELECT count(*) AS n FROM range(1000000) a, range(1000000) b WHERE (a.range * b.range + {number}) % 7 = 3
"""


def start_slow(project: Project, *options: str) -> subprocess.Popen[str]:
    """Start a run that never ends by itself, and wait until its slow nodes are running."""
    for number in range(2):
        project.write(f"seeknal/8_slow_{number}.yml", SLOW.format(number=number))
    process = subprocess.Popen(
        [*COMMAND, "run", *options],
        cwd=project.root,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    slow_count = 2 if "--parallel" in options else 1
    wait_until(lambda: len(list((project.root / "target/store/tmp").glob("*.parquet"))) >= slow_count, process)
    return process


def wait_until(holds: Any, process: subprocess.Popen[str]) -> None:
    for _ in range(600):
        if holds():
            return
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    raise AssertionError("the slow nodes never started")


def process_fields(process: int | str) -> list[str]:
    """What /proc says of a process behind its name: state, parent, group, session, …; nothing where it is gone."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def alive_in_session(session: int) -> list[int]:
    """The processes of a session that are not merely waiting to be buried."""
    fields = {entry.name: process_fields(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()}
    return [int(name) for name, said in fields.items() if said and int(said[3]) == session and said[0] not in "ZX"]


def parent_of(process: int) -> int:
    return int(process_fields(process)[1])


needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc to find processes")


@needs_proc
@pytest.mark.parametrize(
    ("options", "signals", "code"),
    [
        ((), [signal.SIGINT], 130),
        ((), [signal.SIGTERM, signal.SIGTERM], 143),
        (("--parallel",), [signal.SIGTERM], 143),
        (("--parallel",), [signal.SIGINT, signal.SIGINT], 130),
    ],
    ids=["sequential, once", "sequential, insisting", "parallel, once", "parallel, insisting"],
)
def test_an_interrupted_run_ends_within_seconds_and_the_next_one_goes_on(
    fresh: Project, options: tuple[str, ...], signals: list[signal.Signals], code: int
) -> None:
    process = start_slow(fresh, *options)
    for each in signals:
        process.send_signal(each)
        time.sleep(0.3)
    try:
        # One signal leaves running nodes five seconds; two leave them none.
        stdout, stderr = process.communicate(timeout=20)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
    assert process.returncode == code, stderr
    assert "Traceback" not in stderr
    assert "nanobind" not in stderr
    assert "the next run goes on from there" in stdout
    assert "▕" not in stdout, "something drew a progress bar"
    assert "faster" not in stdout
    for _ in range(100):
        if not alive_in_session(process.pid):
            break
        time.sleep(0.05)
    assert alive_in_session(process.pid) == []
    assert fresh.ref() is None
    for number in range(2):
        (fresh.root / f"seeknal/8_slow_{number}.yml").unlink()
    answer = fresh.ok("run", "--json")
    done = statuses(answer)
    assert set(done.values()) <= {"cached", "success"}
    if "--parallel" not in options or len(signals) == 1:
        # It was done before the slow nodes began, or had five seconds beside them.
        assert done["orders"] == "cached"
    assert fresh.read("output/total.csv").split() == ["total", "15"]


@needs_proc
def test_a_worker_that_is_killed_is_replaced_and_its_node_tried_again(fresh: Project) -> None:
    process = start_slow(fresh, "--parallel", "--max-workers", "2")
    try:
        # The fork server and the tracker are the run's children, the workers are the fork server's.
        parents = {pid: parent_of(pid) for pid in alive_in_session(process.pid) if pid != process.pid}
        workers = [pid for pid, parent in parents.items() if parent in parents]
        assert len(workers) == 2
        os.kill(workers[0], signal.SIGKILL)
        assert process.stdout is not None
        for line in process.stdout:
            if "its worker process died (SIGKILL); attempt 2" in line:
                break
        else:
            raise AssertionError("nothing was said of the worker that died")
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


# how it looks


def test_output_in_a_pipe_is_plain(fresh: Project) -> None:
    answer = fresh.process("run", environment={"TERM": "xterm-256color"})
    assert answer.code == 0
    assert "\x1b" not in answer.text
    assert "\r" not in answer.text
    assert "✓ State saved" in answer.stdout


def test_an_ascii_terminal_gets_marks_in_brackets(fresh: Project) -> None:
    fresh.write("seeknal/7_bad.yml", FAILING.format(name="bad", source="source.orders"))
    answer = fresh.process("run", environment={"PYTHONIOENCODING": "ascii"})
    assert answer.code == 1
    assert "[INFO] Building DAG" in answer.stdout
    assert "[OK] DAG built" in answer.stdout
    assert "[WARN] bad failed" in answer.stdout
    assert answer.text.isascii()
    assert "Traceback" not in answer.stderr


def test_a_change_that_was_built_before_is_not_called_no_change(shop: Project) -> None:
    shop.replace("seeknal/3_clean.yml", "amount > 0", "amount > 7")
    shop.ok("run")
    shop.replace("seeknal/3_clean.yml", "amount > 7", "amount > 0")
    before = shop.ok("repl", "-e", "FROM total").stdout
    told = shop.ok("run", "--dry-run").stdout
    assert "0 to run, 4 changed but built before" in told
    assert "✓ Nothing to run: 4 changed nodes were built before." in told
    text = shop.ok("run").stdout
    assert "✓ Nothing to run: 4 changed nodes were built before." in text
    assert shop.ok("repl", "-e", "FROM total").stdout != before
    assert "✓ No changes detected. Nothing to run." in shop.ok("run").stdout


def test_nodes_of_one_name_are_told_with_their_kinds(fresh: Project) -> None:
    fresh.write("seeknal/7_clean.yml", "kind: profile\nname: clean\ninputs: [transform.clean]\n")
    assert ". transform.clean [NON_BREAKING]" in fresh.ok("plan", "dev").stdout
    applied = fresh.ok("run", "--env", "dev").stdout
    assert ": transform.clean [RUNNING]" in applied
    assert ": profile.clean [RUNNING]" in applied
    assert ": total [RUNNING]" in applied
    promoted = fresh.ok("promote", "dev").stdout
    assert "- profile.clean (NON_BREAKING)" in promoted
    assert "- total (NON_BREAKING)" in promoted


def test_names_that_the_terminal_cannot_show_do_no_harm(fresh: Project) -> None:
    fresh.write("seeknal_project.yml", "name: Bücher\n")
    answer = fresh.process("run", "--dry-run", environment={"PYTHONIOENCODING": "ascii"})
    assert answer.code == 0
    assert "Project: B?cher" in answer.stdout


def test_a_reader_that_goes_away_does_not_stop_the_run(fresh: Project) -> None:
    answer = fresh.shell("set -o pipefail\nseeknal run | head -1")
    assert answer.code == 0, answer.text
    assert answer.stdout == "Seeknal Pipeline Execution\n"
    assert answer.stderr == ""
    assert fresh.read("output/total.csv").split() == ["total", "15"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
@pytest.mark.parametrize("options", ["", " --json"])
def test_a_full_disk_under_its_log_does_not_stop_the_run(fresh: Project, options: str) -> None:
    answer = fresh.shell(f"seeknal run{options} > /dev/full")
    assert answer.code == 1
    assert answer.stderr.splitlines()[-1] == (
        "error: done, but not everything could be printed: No space left on device"
    )
    assert fresh.read("output/total.csv").split() == ["total", "15"]
    assert fresh.shell(f"seeknal run{options} 2> /dev/full").code == (1 if options else 0)


def in_terminal(project: Project, *arguments: str, **environment: str) -> tuple[int, str]:
    """Call the command at a terminal of 100 columns; gives its code and everything it sent there."""
    controller, terminal = pty.openpty()
    process = subprocess.Popen(
        [*COMMAND, *arguments],
        cwd=project.root,
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        env={**os.environ, "NO_COLOR": "", "TERM": "xterm", "COLUMNS": "100", **environment},
    )
    os.close(terminal)
    sent = b""
    while True:
        try:
            data = os.read(controller, 65536)
        except OSError:
            break
        if not data:
            break
        sent += data
    os.close(controller)
    return process.wait(timeout=60), sent.decode()


def visible_lines(sent: str) -> list[str]:
    """What is left to see, line by line, of what was sent to a terminal: erased lines are gone."""
    lines = []
    for line in sent.replace("\r\n", "\n").split("\n"):
        shown = re.split(r"\r?\x1b\[2K|\r", line)[-1]
        lines.append(re.sub(r"\x1b\[[?0-9;]*[A-Za-z]", "", shown).rstrip())
    return lines


def test_at_a_terminal_the_lines_stand_above_the_moving_display(fresh: Project) -> None:
    fresh.write("seeknal/7_bad.yml", FAILING.format(name="bad", source="source.orders"))
    code, sent = in_terminal(fresh, "run")
    assert code == 1
    assert "\x1b[" in sent
    lines = visible_lines(sent)
    for wanted in ("Execution", "1/7: orders [RUNNING]", "  Rows: 3", "Execution Summary", "  Failed:         1"):
        assert wanted in lines
    assert any(line.startswith("error: seeknal/7_bad.yml:3:19: transform.bad: Could not") for line in lines)
    assert not any("━" in line and "[RUNNING]" in line for line in lines)


def test_no_color_at_a_terminal_means_none(fresh: Project) -> None:
    _, sent = in_terminal(fresh, "run", "--dry-run", NO_COLOR="1")
    assert re.search(r"\x1b\[[0-9;]*m", sent) is None
    _, sent = in_terminal(fresh, "run", "--dry-run")
    assert re.search(r"\x1b\[[0-9;]*m", sent) is not None
