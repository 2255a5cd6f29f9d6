from __future__ import annotations

import csv
import io
import json
import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest

from tests.acceptance.project import COMMAND, Project
from tests.engine.workflow.projects import transform, write_project

FILES = {
    "data/orders.csv": 'id,amount,who\n1,10.5,"Ann, the first"\n2,,\n3,7.25,Bob\n',
    "seeknal/orders.yml": "kind: source\nname: orders\nsource: csv\ntable: data/orders.csv\n",
    "seeknal/totals.yml": transform("totals", "SELECT count(*) AS n FROM source.orders"),
}


@pytest.fixture
def shop(tmp_path: Path) -> Project:
    """A project that was run, for tests that write something."""
    write_project(tmp_path, FILES)
    project = Project(tmp_path)
    project.ok("run")
    return project


@pytest.fixture(scope="module")
def read_only_shop(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project that was run, for tests that only ask."""
    root = tmp_path_factory.mktemp("shop")
    write_project(root, FILES)
    project = Project(root)
    project.ok("run")
    return project


# one statement


def test_a_result_goes_to_stdout_as_a_table_and_its_count_to_stderr(read_only_shop: Project) -> None:
    answer = read_only_shop.ok("repl", "--exec", "SELECT id, amount FROM orders ORDER BY id")
    assert answer.stdout.splitlines() == ["id | amount", "---|-------", " 1 |   10.5", " 2 |   NULL", " 3 |   7.25"]
    assert answer.stderr == "(3 rows)\n"


def test_csv_has_a_header_and_nothing_for_null(read_only_shop: Project) -> None:
    answer = read_only_shop.ok("repl", "-e", "FROM orders ORDER BY id", "-f", "csv")
    assert answer.stdout == 'id,amount,who\n1,10.5,"Ann, the first"\n2,,\n3,7.25,Bob\n'
    assert answer.stderr == ""


def test_json_is_one_array_of_objects(read_only_shop: Project) -> None:
    sql = "SELECT id, amount, DATE '2024-01-01' AS day, 'NaN'::DOUBLE AS nan FROM orders ORDER BY id LIMIT 2"
    answer = read_only_shop.ok("repl", "-e", sql, "--format", "json")
    assert answer.document == [
        {"id": 1, "amount": 10.5, "day": "2024-01-01", "nan": None},
        {"id": 2, "amount": None, "day": "2024-01-01", "nan": None},
    ]


def test_a_limit_cuts_the_result(read_only_shop: Project) -> None:
    answer = read_only_shop.ok("repl", "-e", "FROM range(1000000000000)", "-f", "csv", "--limit", "2")
    assert answer.stdout == "range\n0\n1\n"


def test_a_query_plan_is_printed_as_it_is(read_only_shop: Project) -> None:
    lines = read_only_shop.ok("repl", "-e", "EXPLAIN SELECT n FROM totals").stdout.splitlines()
    assert lines[0].startswith("╭")
    assert len(lines) > 2
    as_json = read_only_shop.ok("repl", "-e", "EXPLAIN SELECT n FROM totals", "-f", "json").document
    assert as_json[0]["explain_key"] == "physical_plan"


def test_sql_can_come_on_stdin(read_only_shop: Project) -> None:
    done = subprocess.run(
        [*COMMAND, "repl", "--exec", "-", "--format", "csv"],
        cwd=read_only_shop.root,
        input="SELECT 'é' AS e,\n  n FROM totals; -- done\n".encode(),
        capture_output=True,
        timeout=60,
        env={**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    )
    assert (done.returncode, done.stdout.decode()) == (0, "e,n\né,3\n")


def test_stdin_that_is_no_text_is_an_error(read_only_shop: Project) -> None:
    done = subprocess.run(
        [*COMMAND, "repl", "--exec", "-"],
        cwd=read_only_shop.root,
        input=b"SELECT '\xff'",
        capture_output=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert b"UTF-8" in done.stderr
    assert b"Traceback" not in done.stderr


def test_a_reader_that_has_seen_enough_is_no_error(read_only_shop: Project) -> None:
    script = "seeknal repl -e 'FROM range(1000000)' -f csv | head -n 2; echo ${PIPESTATUS[0]}"
    answer = read_only_shop.shell(script)
    assert answer.stdout == "range\n0\n0\n"
    assert answer.stderr == ""


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("SELECT * FROM ordrs", "error: SQL:1:15: no table is called 'ordrs'\n  hint: did you mean 'source.orders'?\n"),
        ("SELECT idd FROM orders", 'error: SQL:1:8: Referenced column "idd" not found in FROM clause\n'),
        ("DROP TABLE orders", "error: DROP is refused: tables can only be read here\n"),
        ("SELECT 1; SELECT 2", "error: one statement at a time; here are 2\n"),
        ("", "error: the SQL is empty\n"),
    ],
)
def test_what_is_wrong_with_the_sql_is_one_error_line(read_only_shop: Project, sql: str, message: str) -> None:
    answer = read_only_shop.seeknal("repl", "-e", sql)
    assert answer.code == 1
    assert answer.stdout == ""
    assert answer.stderr.startswith(message)
    assert len(answer.errors) == 1


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        ([], "--exec"),
        (["--output", "x.csv"], "--exec"),
        (["-e", "SELECT 1", "--output", "x.xlsx"], ".parquet"),
        (["-e", "SELECT 1", "--format", "xml"], "table"),
        (["-e", "SELECT 1", "--limit", "-1"], "--limit"),
        (["-e", "SELECT 1", "--profile", "x.yml"], "not available"),
    ],
)
def test_options_that_make_no_sense_are_a_usage_error(read_only_shop: Project, arguments: list[str], hint: str) -> None:
    answer = read_only_shop.process("repl", *arguments)
    assert answer.code == 2
    assert hint in answer.stderr
    assert "Traceback" not in answer.stderr


def test_asking_changes_nothing_in_the_project(read_only_shop: Project) -> None:
    before = read_only_shop.state(".")
    read_only_shop.ok("repl", "-e", "FROM orders")
    assert read_only_shop.seeknal("repl", "-e", "COPY orders TO 'x.csv'").code == 1
    assert read_only_shop.seeknal("repl", "-e", "FROM orders", "--env", "nobody").code == 1
    assert read_only_shop.state(".") == before


# environments


def test_an_environment_answers_with_its_own_tables(shop: Project) -> None:
    shop.write("seeknal/totals.yml", transform("totals", "SELECT count(*) + 100 AS n FROM source.orders"))
    ask = ("repl", "-e", "SELECT n FROM totals", "-f", "csv")
    shop.ok("plan", "dev")
    planned = shop.ok(*ask, "--env", "dev")
    assert planned.stdout == "n\n3\n"
    assert "not applied yet" in planned.stderr
    shop.ok("run", "--env", "dev")
    assert shop.ok(*ask, "--env", "dev").stdout == "n\n103\n"
    assert shop.ok(*ask).stdout == "n\n3\n"
    shop.ok("promote", "dev", "--yes")
    assert shop.ok(*ask, "--env", "prod").stdout == "n\n103\n"


# files


def test_a_result_is_written_to_a_file_of_the_kind_that_its_name_says(shop: Project) -> None:
    sql = "SELECT id, amount, sum(id) OVER () AS total FROM orders ORDER BY id"
    for name in ("out.csv", "out.json", "out.parquet", "OUT.CSV"):
        shop.write(name, "something older")
        answer = shop.ok("repl", "-e", sql, "--output", name, "--limit", "2")
        assert (answer.stdout, answer.stderr) == ("", f"2 rows written to {name}\n")
    read = list(csv.reader(io.StringIO(shop.read("out.csv"))))
    assert read == [["id", "amount", "total"], ["1", "10.5", "6"], ["2", "", "6"]]
    assert shop.read("OUT.CSV") == shop.read("out.csv")
    assert json.loads(shop.read("out.json"))[1] == {"id": 2, "amount": None, "total": 6}
    assert duckdb.connect().read_parquet(str(shop.root / "out.parquet")).fetchall() == [(1, 10.5, 6), (2, None, 6)]


@pytest.mark.parametrize("name", ["out.csv", "out.json", "out.parquet"])
def test_a_result_that_fails_halfway_leaves_the_file_as_it_was(shop: Project, name: str) -> None:
    shop.write(name, "something older")
    before = shop.state(".")
    sql = "SELECT CASE WHEN range < 200000 THEN 1 ELSE error('stop here') END FROM range(300000)"
    answer = shop.seeknal("repl", "-e", sql, "--output", name)
    assert answer.code == 1
    assert answer.errors == ["stop here"]
    assert shop.state(".") == before


def test_a_file_goes_neither_into_the_store_nor_into_a_folder_that_is_not_there(shop: Project) -> None:
    before = shop.state(".")
    for name in ("target/store/blobs/x.csv", "target/cache/source/x.parquet", "nowhere/x.csv"):
        answer = shop.seeknal("repl", "-e", "SELECT 1", "--output", name)
        assert answer.code == 1
        assert len(answer.errors) == 1
    assert shop.state(".") == before


# a session


class Terminal:
    """`seeknal repl` on a terminal of its own."""

    def __init__(self, root: Path) -> None:
        self._screen, inner = pty.openpty()
        # The terminal becomes its own, so that Ctrl-C reaches it.
        take = "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0)"
        self.process = subprocess.Popen(
            [sys.executable, "-c", f"{take}; os.execv(sys.argv[1], sys.argv[1:])", *COMMAND, "repl"],
            cwd=root,
            stdin=inner,
            stdout=inner,
            stderr=inner,
            start_new_session=True,
        )
        os.close(inner)
        self._unread = ""

    def type(self, text: str) -> None:
        os.write(self._screen, text.encode())

    def until(self, wanted: str, *, pressing: str = "") -> str:
        """Read up to a text, pressing a key every second until it appears; gives what came before and the text."""
        start = pressed = time.monotonic()
        while wanted not in self._unread:
            assert time.monotonic() - start < 30, f"{wanted!r} did not appear after {self._unread!r}"
            if pressing and time.monotonic() - pressed > 1:
                self.type(pressing)
                pressed = time.monotonic()
            if select.select([self._screen], [], [], 0.2)[0]:
                self._unread += os.read(self._screen, 65536).decode(errors="replace")
        before, _, self._unread = self._unread.partition(wanted)
        return before + wanted

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._screen)


@pytest.fixture
def terminal(read_only_shop: Project) -> Iterator[Terminal]:
    opened = Terminal(read_only_shop.root)
    try:
        opened.until("seeknal> ")
        yield opened
    finally:
        opened.close()


def test_a_session_answers_statements_and_dot_commands(terminal: Terminal) -> None:
    terminal.type("SELECT n * 14\nFROM totals;\n")
    assert "42" in terminal.until("(1 row)")
    terminal.type("SELECT ';\n' AS a, nope;\n")
    assert "SQL:2:9" in terminal.until('"nope"')
    terminal.type(".tables\n")
    assert "source.orders" in terminal.until("transform.totals")
    terminal.type(".schema orders\n")
    terminal.until("amount | DOUBLE")
    terminal.type(".schema nothing\n")
    terminal.until("no output of 'nothing'")
    terminal.type(".nonsense\n")
    terminal.until("unknown command .nonsense")
    terminal.type("FROM range(5000);\n")
    terminal.until("(1000 rows; there are more, --limit N shows them)")
    terminal.type("help\n")
    terminal.until("leave (also Ctrl-D)")
    terminal.type("exit;\n")
    assert terminal.process.wait(timeout=60) == 0


def test_ctrl_c_stops_a_query_and_not_the_session(terminal: Terminal) -> None:
    terminal.type("SELECT sum(a.range * b.range) FROM range(10000000) a, range(1000000) b;\n")
    terminal.until("interrupted", pressing="\x03")
    terminal.type("SELECT 41 + 1;\n")
    terminal.until("42")
    terminal.until("seeknal> ")
    terminal.type("\x04")
    assert terminal.process.wait(timeout=60) == 0
