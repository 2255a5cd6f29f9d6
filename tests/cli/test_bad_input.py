"""Bad input: one line for each problem on stderr, its place, the way out, the documented code; nothing is touched."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.acceptance.project import Answer, Project

ORDERS = """\
kind: source
name: orders
source: csv
table: data/orders.csv
schema:
  - {name: id, data_type: integer}
  - {name: amount, data_type: float}
  - {name: day, data_type: date}
tags: [raw]
"""
CLEAN = """\
kind: transform
name: clean
transform: |
  SELECT id,
    amount * 2 AS double
  FROM source.orders
inputs: [{ref: source.orders}]
tags: [fine]
"""
TOTAL = """\
kind: transform
name: total
transform: SELECT sum(double) AS total FROM transform.clean
inputs: [{ref: transform.clean}]
"""
COUNT = """\
kind: transform
name: count
transform: SELECT count(*) AS n FROM source.orders
inputs: [{ref: source.orders}]
"""
DATA = "id,amount,day\n1,2.5,2024-01-01\n2,3.5,2024-01-02\n"

FAILING_CAST = CLEAN.replace("amount * 2", "CAST('x' || id AS INTEGER)")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project of three nodes that ran in production and in the environment dev; to be copied."""
    project = Project(tmp_path_factory.mktemp("built") / "shop")
    project.write("seeknal_project.yml", "name: shop\n")
    project.write("data/orders.csv", DATA)
    project.write("seeknal/1_orders.yml", ORDERS)
    project.write("seeknal/2_clean.yml", CLEAN)
    project.write("seeknal/3_total.yml", TOTAL)
    for command in (("run",), ("plan", "dev"), ("run", "--env", "dev")):
        project.ok(*command)
    return project.root


@pytest.fixture
def shop(built: Path, tmp_path: Path) -> Project:
    return Project(shutil.copytree(built, tmp_path / "shop", symlinks=True))


def change(project: Project, files: Mapping[str, str | bytes | None]) -> None:
    """Write files; None removes one."""
    for path, text in files.items():
        if text is None:
            (project.root / path).unlink()
        else:
            project.write(path, text)


def check_refusal(answer: Answer, code: int, *patterns: str) -> None:
    """Check that there is exactly one error line for each pattern, in order, and nothing like one on stdout."""
    assert answer.code == code, answer.text
    assert len(answer.errors) == len(patterns), answer.stderr
    for line, pattern in zip(answer.errors, patterns, strict=True):
        assert re.search(pattern, line), f"{pattern!r} is not in {line!r}"
    assert "Traceback" not in answer.text
    assert "error" not in answer.stdout.lower()


# what the files say


@pytest.mark.parametrize(
    ("files", "patterns", "way_out"),
    [
        pytest.param(
            {"seeknal/3_total.yml": "kind: transform\nname: total\ntransform: [unclosed\n"},
            [r"^seeknal/3_total\.yml:3:21: is not valid YAML: "],
            "",
            id="malformed YAML",
        ),
        pytest.param(
            {"seeknal/2_clean.yml": "kind: transform\nname: clean\ntransform: [unclosed\n"},
            [r"^seeknal/2_clean\.yml:3:21: is not valid YAML: "],
            "",
            id="malformed YAML of a node that others read",
        ),
        pytest.param(
            {"seeknal/3_total.yml": b"kind: transform\nname: total\ndescription: caf\xe9\n"},
            [r"^seeknal/3_total\.yml:3:17: is not UTF-8 text$"],
            "save the file as UTF-8",
            id="YAML that is not UTF-8",
        ),
        pytest.param(
            {"seeknal/2_clean.yml": CLEAN.replace("source.orders", "transform.total").replace("amount", "total")},
            [r"^seeknal/2_clean\.yml:7:10: DAG contains cycle: transform\.clean -> transform\.total -> .*clean$"],
            "remove one of these inputs",
            id="cycle",
        ),
        pytest.param(
            {"seeknal/2_clean.yml": CLEAN.replace("SELECT", "SELEC")},
            [r'^seeknal/2_clean\.yml:4:3: .*syntax error at or near "SELEC"'],
            "",
            id="SQL that does not parse",
        ),
        pytest.param(
            {"seeknal/2_clean.yml": CLEAN.replace("amount * 2 AS", "amount *  AS")},
            [r'^seeknal/2_clean\.yml:5:15: .*syntax error at or near "AS"'],
            "",
            id="SQL that does not parse in its second line",
        ),
        pytest.param(
            {"seeknal/4_new.yml": "kind: transform\nname: class\ntransform: SELECT 1 AS a\n"},
            [r"^seeknal/4_new\.yml:2:1: name 'class' is not allowed$"],
            "reserved word of Python; try 'class_data'",
            id="name reserved in Python",
        ),
        pytest.param(
            {"seeknal/4_new.yml": "kind: transform\nname: select\ntransform: SELECT 1 AS a\n"},
            [r"^seeknal/4_new\.yml:2:1: name 'select' is not allowed$"],
            "reserved word of SQL; try 'select_data'",
            id="name reserved in SQL",
        ),
        pytest.param(
            {"seeknal/4_new.yml": "kind: transform\nname: ../evil\ntransform: SELECT 1 AS a\n"},
            [r"^seeknal/4_new\.yml:2:1: name '\.\./evil' is not allowed$"],
            "a letter or '_', then letters, digits",
            id="name that leads out of the folder",
        ),
        pytest.param(
            {"seeknal/4_new.yml": 'kind: transform\nname: "o\'clock"\ntransform: SELECT 1 AS a\n'},
            [r"""^seeknal/4_new\.yml:2:1: name "o'clock" is not allowed$"""],
            "a letter or '_', then letters, digits",
            id="name with a quote",
        ),
        pytest.param(
            {"seeknal/4_new.yml": "kind: transform\nname: 'a\"; DROP TABLE b; --'\ntransform: SELECT 1 AS a\n"},
            [r"^seeknal/4_new\.yml:2:1: name .*DROP TABLE b.* is not allowed$"],
            "a letter or '_', then letters, digits",
            id="name with SQL in it",
        ),
        pytest.param(
            {"seeknal/4_new.yml": "kind: tranform\nname: new\ntransform: SELECT 1 AS a\n"},
            [r"^seeknal/4_new\.yml:1:1: unknown kind 'tranform'$"],
            "did you mean 'transform'?",
            id="unknown kind",
        ),
        pytest.param(
            {"seeknal/4_new.yml": "kind: transform\nname: clean\ntransform: SELECT 1 AS a\n"},
            [r"^seeknal/4_new\.yml:2:1: transform\.clean is declared twice; the other is at seeknal/2_clean\.yml:2:1$"],
            "rename one",
            id="name declared twice",
        ),
        pytest.param(
            {"seeknal/4_new.yml": "kind: transform\nname: new\ntransform: SELECT 1 AS a\ninputs: [source.ordrs]\n"},
            [r"^seeknal/4_new\.yml:4:10: input 'source\.ordrs' does not exist$"],
            "did you mean 'source.orders'?",
            id="input that does not exist",
        ),
        pytest.param(
            {"seeknal/4_new.yml": "kind: transform\nname: new\ntransform: SELECT 1 AS a FROM source.ordrs\n"},
            [r"^seeknal/4_new\.yml:3:31: .*'source\.ordrs'"],
            "did you mean 'source.orders'?",
            id="table that does not exist",
        ),
        pytest.param(
            {"seeknal/4_new.yml": "kind: transform\nname: new\ntransfrom: SELECT 1 AS a\n"},
            [r"^seeknal/4_new\.yml:.*'transform' is missing", r"^seeknal/4_new\.yml:3:1: unknown field 'transfrom'"],
            "did you mean 'transform'?",
            id="unknown field",
        ),
        pytest.param(
            {"seeknal_project.yml": "name: shop\ndeterministc: true\n"},
            [r"^seeknal_project\.yml:2:1: unknown setting 'deterministc'$"],
            "did you mean 'deterministic'?",
            id="unknown setting",
        ),
    ],
)
def test_a_wrong_file_is_named_with_line_and_column(
    shop: Project, files: Mapping[str, str | bytes | None], patterns: list[str], way_out: str
) -> None:
    change(shop, files)
    before = shop.state()
    for command in (("plan",), ("parse",), ("plan", "dev"), ("run",), ("run", "--dry-run"), ("run", "--parallel")):
        answer = shop.seeknal(*command)
        check_refusal(answer, 1, *patterns)
        assert way_out in answer.stderr
    assert shop.state() == before


def test_every_problem_of_a_project_is_told_at_once(shop: Project) -> None:
    shop.write("seeknal/4_new.yml", "kind: transform\nname: select\ntransform: SELECT 1 AS a\n")
    shop.write("seeknal/5_new.yml", "kind: transform\nname: fresh\ntransform: SELEC 1\n")
    shop.write("seeknal/6_new.yml", "kind: tranform\nname: other\n")
    places = (r"^seeknal/4_new\.yml:2:1: ", r"^seeknal/5_new\.yml:3:12: ", r"^seeknal/6_new\.yml:1:1: ")
    check_refusal(shop.seeknal("run"), 1, *places)


# what type-checking finds before anything runs


@pytest.mark.parametrize(
    ("files", "pattern", "way_out"),
    [
        pytest.param(
            {"seeknal/2_clean.yml": CLEAN.replace("amount * 2", "amont * 2")},
            r'^seeknal/2_clean\.yml:5:5: transform\.clean: .*"amont" not found',
            'candidates: "amount"',
            id="column that does not exist",
        ),
        pytest.param(
            {"data/orders.csv": None},
            r"^seeknal/1_orders\.yml:4:1: source\.orders: .*data/orders\.csv",
            "paths count from",
            id="missing CSV",
        ),
        pytest.param(
            {"data/orders.csv": None, "data/ordres.csv": DATA},
            r"^seeknal/1_orders\.yml:4:1: source\.orders: .*data/orders\.csv",
            "did you mean 'ordres.csv'?",
            id="CSV with another name",
        ),
        pytest.param(
            {"data/orders.csv": ""},
            r"^data/orders\.csv(:1)?: source\.orders: .*empty",
            "write the column names",
            id="empty CSV",
        ),
        pytest.param(
            {"data/orders.csv": "id,amont,day\n1,2.5,2024-01-01\n"},
            r"^data/orders\.csv:1: source\.orders: column 'amount' declared in schema but not found.*id, amont, day$",
            "did you mean 'amont'?",
            id="declared column that the file lacks",
        ),
        pytest.param(
            {"data/orders.csv": b"id,amount,day,caf\xe9\n1,2.5,2024-01-01,a\n"},
            r"^data/orders\.csv:1: source\.orders: .*not UTF-8",
            "save the file as UTF-8",
            id="CSV whose header is not UTF-8",
        ),
    ],
)
def test_what_cannot_work_is_found_before_anything_runs(
    shop: Project, files: Mapping[str, str | bytes | None], pattern: str, way_out: str
) -> None:
    shop.write("seeknal/0_count.yml", COUNT)
    change(shop, files)
    before, ref = shop.kept_state(), shop.ref()
    blobs = shop.state("target/store/blobs")
    for command in (("plan",), ("run",), ("run", "--parallel"), ("run", "--full"), ("run", "--continue-on-error")):
        answer = shop.seeknal(*command)
        check_refusal(answer, 1, pattern)
        assert way_out in answer.stderr
        assert "[RUNNING]" not in answer.stdout
    assert shop.kept_state() == before
    assert shop.state("target/store/blobs") == blobs
    assert shop.ref() == ref


# what only running tells


@pytest.mark.parametrize(
    ("files", "pattern", "way_out"),
    [
        pytest.param(
            {"seeknal/2_clean.yml": FAILING_CAST},
            r"^seeknal/2_clean\.yml:5:5: transform\.clean: Could not convert string 'x1' to INT32$",
            "",
            id="failing CAST",
        ),
        pytest.param(
            {"seeknal/2_clean.yml": CLEAN.replace("amount * 2", "error('no ' || id)")},
            r"^seeknal/2_clean\.yml:\d+:\d+: transform\.clean: no 1$",
            "",
            id="error of the query's own",
        ),
        pytest.param(
            {"data/orders.csv": "id,amount,day\n1,2.5,2024-01-01\n2\n"},
            r"^data/orders\.csv:3: source\.orders: .*\b1 field\b.*\b3\b",
            "complete the row",
            id="CSV with a short row",
        ),
        pytest.param(
            {"data/orders.csv": "id,amount,day\n1,2.5,2024-01-01\n2,abc,2024-01-02\n"},
            r"^data/orders\.csv:3(:\d+)?: source\.orders: column 'amount' is declared float, but row 2 has 'abc'$",
            "correct the value, or the data_type",
            id="value that does not fit its declared type",
        ),
        pytest.param(
            {"data/orders.csv": b"id,amount,day\n1,2.5,2024-01-01\n2,\xe9,2024-01-02\n"},
            r"^data/orders\.csv:3: source\.orders: .*not UTF-8",
            "save the file as UTF-8",
            id="CSV that is not UTF-8",
        ),
    ],
)
@pytest.mark.parametrize("options", [(), ("--parallel",)], ids=["sequential", "parallel"])
def test_a_node_that_fails_is_told_with_its_place_and_the_ref_stays(
    shop: Project, files: Mapping[str, str | bytes | None], pattern: str, way_out: str, options: tuple[str, ...]
) -> None:
    change(shop, files)
    before, ref = shop.kept_state(), shop.ref()
    answer = shop.seeknal("run", *options)
    check_refusal(answer, 1, pattern)
    assert way_out in answer.stderr
    assert "FAILED" in answer.stdout
    assert re.search(r"^  Failed: +1$", answer.stdout, re.M)
    assert shop.kept_state() == before
    assert shop.ref() == ref


def test_what_a_failing_run_finished_is_not_done_again(shop: Project) -> None:
    shop.write("data/orders.csv", "id,amount,day\n7,1,2024-02-01\n")
    shop.write("seeknal/0_count.yml", COUNT)
    shop.write("seeknal/2_clean.yml", FAILING_CAST)
    answer = shop.seeknal("run")
    check_refusal(answer, 1, r"^seeknal/2_clean\.yml:5:5: transform\.clean: ")
    document = shop.seeknal("run", "--json").document
    assert {node["name"]: node["status"] for node in document["nodes"]} == {
        "orders": "cached", "count": "cached", "clean": "failed", "total": "skipped",
    }  # fmt: skip
    assert shop.rows("source.orders")[0]["id"] == 1
    shop.write("seeknal/2_clean.yml", CLEAN)
    document = shop.ok("run", "--json").document
    assert {node["name"]: node["status"] for node in document["nodes"]} == {
        "orders": "cached", "count": "cached", "clean": "success", "total": "success",
    }  # fmt: skip
    assert shop.rows("transform.total") == [{"total": 2.0}]


def test_a_failure_in_an_environment_leaves_it_and_production_as_they_were(shop: Project) -> None:
    shop.write("seeknal/2_clean.yml", CLEAN.replace("amount * 2", "amount * 3"))
    shop.ok("plan", "dev")
    shop.ok("run", "--env", "dev")
    shop.write("seeknal/2_clean.yml", FAILING_CAST)
    shop.ok("plan", "dev")
    refs = shop.ref(), shop.ref("dev")
    answer = shop.seeknal("run", "--env", "dev")
    check_refusal(answer, 1, r"^seeknal/2_clean\.yml:5:5: transform\.clean: ")
    assert (shop.ref(), shop.ref("dev")) == refs
    assert [row["double"] for row in shop.rows("transform.clean", "dev")] == [7.5, 10.5]
    answer = shop.seeknal("promote", "dev")
    check_refusal(answer, 1, r"^Environment 'dev' has not been applied: its last run failed$")
    assert shop.ref() == refs[0]


def test_a_delivery_that_fails_fails_the_run_and_is_repeated_by_the_next(shop: Project) -> None:
    exposure = "kind: exposure\nname: export\ntype: file\npath: out/total.csv\ninputs: [{ref: transform.total}]\n"
    shop.write("seeknal/4_export.yml", exposure)
    shop.write("out", "a file where a folder should be")
    answer = shop.seeknal("run")
    check_refusal(answer, 1, r"^exposure\.export: could not write .*out/total\.csv: ")
    assert "run again" in answer.stderr
    assert "⚠ 1 delivery failed; the tables are as they should be, and the next run delivers again" in answer.stdout
    (shop.root / "out").unlink()
    shop.ok("run")
    assert shop.read("out/total.csv").splitlines() == ["total", "12.0"]


# names on the command line


@pytest.mark.parametrize(
    ("command", "code", "error", "way_out"),
    [
        (("env", "delete", "prod"), 5, "production cannot be deleted", "env list"),
        (("env", "delete", "production", "--yes"), 5, "production cannot be deleted", "env list"),
        (("env", "delete", "PROD", "--yes"), 5, "production cannot be deleted", "env list"),
        (("env", "delete", "dve"), 1, "Environment 'dve' not found", "did you mean 'dev'?"),
        (("env", "delete", "../dev"), 2, "'../dev' is not a valid environment name", "a letter or digit"),
        (("run", "--env", "dve"), 1, "Environment 'dve' not found", "did you mean 'dev'?"),
        (("env", "apply", "nightly"), 1, "Environment 'nightly' not found", "there is: dev"),
        (("promote", "dve"), 1, "Environment 'dve' not found", "did you mean 'dev'?"),
        (("promote", "dev", "dev"), 1, "'dev' cannot be promoted to itself", ""),
        (("promote", "dev", "../../x"), 2, "'../../x' is not a valid environment name", "a letter or digit"),
        (("plan", "prod"), 5, "production is not planned or applied as an environment", "`seeknal plan`"),
        (("run", "--env", "prod"), 5, "production is not planned or applied as an environment", "`seeknal run`"),
        (("plan", "a/../../x"), 2, "'a/../../x' is not a valid environment name", "a letter or digit"),
        (("plan", "it's"), 2, "'it's' is not a valid environment name", "a letter or digit"),
        (("plan", ""), 2, "'' is not a valid environment name", "a letter or digit"),
        (("run", "--nodes", "source.ordres"), 1, "no node is called 'source.ordres'", "did you mean 'source.orders'"),
        (("run", "--nodes", "claen"), 1, "no node is called 'claen'", "did you mean 'transform.clean'"),
        (("run", "--nodes", "clean,ordres"), 1, "no node is called 'ordres'", "did you mean 'source.orders'"),
        (("run", "--types", "tranform"), 1, "no node is of type 'tranform'", "did you mean 'transform'?"),
        (("run", "--tags", "fime"), 1, "no node has the tag 'fime'", "did you mean 'fine'?"),
        (("run", "--exclude-tags", "rwa"), 1, "no node has the tag 'rwa'", "did you mean 'raw'?"),
        (("plan", "--tags", "fime"), 1, "no node has the tag 'fime'", "did you mean 'fine'?"),
        (("run", "--force"), 2, "--force goes with --env", "--full"),
        (("run", "--run-id", "../../x", "--full"), 2, "'../../x' is not a valid run id", "letters, digits"),
        (("plan", "dev", "--tags", "a"), 2, "--tags and --exclude-tags do not go with an environment", "seeknal run"),
    ],
)
def test_a_name_that_nothing_has_or_may_have_is_refused(
    shop: Project, command: tuple[str, ...], code: int, error: str, way_out: str
) -> None:
    before = shop.state()
    answer = shop.seeknal(*command)
    check_refusal(answer, code, f"^{re.escape(error)}$")
    assert way_out in answer.stderr
    assert "[RUNNING]" not in answer.stdout
    assert shop.state() == before
    assert not (shop.root.parent / "x").exists()


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (("rn",), "No such command 'rn'. Did you mean 'run'?"),
        (("promot", "dev"), "No such command 'promot'. Did you mean 'promote'"),
        (("env", "lst"), "No such command 'lst'. Did you mean 'list'?"),
        (("run", "--ful"), "No such option '--ful'. Did you mean '--full'?"),
        (("env", "apply", "dev", "--dryrun"), "No such option '--dryrun'. (Did you mean one of: '--dry-run'"),
        (("promote",), "Missing argument 'ENV'"),
        (("run", "everything"), "Got unexpected extra argument (everything)"),
        (("run", "--max-workers", "0"), "0 is not in the range"),
        (("run", "--max-workers", "many"), "'many' is not a valid integer"),
        (("run", "--retry", "-1"), "-1 is not in the range"),
        # A variable of a script that is not set must not mean everything.
        (("run", "--nodes", ""), "names nothing"),
        (("run", "--full", "--types", " , "), "names nothing"),
        (("run", "--project-path", "nowhere"), "Directory 'nowhere' does not exist"),
    ],
)
def test_a_wrong_command_line_exits_with_2_and_says_what_was_meant(
    shop: Project, command: tuple[str, ...], message: str
) -> None:
    before = shop.state()
    answer = shop.seeknal(*command)
    assert answer.code == 2
    assert answer.stdout == ""
    assert message in answer.stderr
    assert "Traceback" not in answer.stderr
    assert shop.state() == before


def test_a_folder_that_is_no_project_says_how_to_make_one(tmp_path: Path) -> None:
    project = Project(tmp_path / "empty")
    for command in (("run",), ("plan",), ("plan", "dev"), ("env", "list"), ("promote", "dev")):
        answer = project.seeknal(*command)
        check_refusal(answer, 1, "is not a Seeknal project")
        assert "seeknal init" in answer.stderr
    assert list(project.root.iterdir()) == []


def test_a_project_without_nodes_says_where_to_put_them(tmp_path: Path) -> None:
    project = Project(tmp_path / "bare")
    project.write("seeknal_project.yml", "name: bare\n")
    answer = project.seeknal("run")
    check_refusal(answer, 1, r"^seeknal/: the project has no nodes$")
    assert "--example ecommerce" in answer.stderr


def test_a_traceback_is_shown_only_to_who_asks(shop: Project) -> None:
    shop.write("seeknal/2_clean.yml", CLEAN.replace("SELECT", "SELEC"))
    assert "Traceback" not in shop.process("run").text
    debugged = shop.process("--debug", "run")
    assert debugged.code == 1
    assert "Traceback" in debugged.stderr
