"""Hostile input: names, links, files and texts that somebody else wrote. One line each, in time, and nothing obeys."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from tests.acceptance.project import Answer, Project

ORDERS = "kind: source\nname: orders\nsource: csv\ntable: data/orders.csv\n"
COUNT = "kind: transform\nname: {}\ntransform: SELECT count(*) AS n FROM source.orders\n"
HOSTILE = "\x1b]0;owned\x07\x1b[31m\u202eevil\u2066\x9b0m"
OBEYED = ("\x1b", "\x07", "\x9b", "\u202e", "\u2066")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    project = Project(tmp_path_factory.mktemp("built") / "shop")
    project.write("seeknal_project.yml", "name: shop\n")
    project.write("data/orders.csv", "id,amount\n1,2.5\n")
    project.write("seeknal/orders.yml", ORDERS)
    project.ok("run")
    return project.root


@pytest.fixture
def shop(built: Path, tmp_path: Path) -> Project:
    return Project(shutil.copytree(built, tmp_path / "shop", symlinks=True))


def refused(answer: Answer, code: int, message: str) -> None:
    assert answer.code == code, answer.text
    assert len(answer.errors) == 1, answer.stderr
    assert message in answer.errors[0], answer.errors[0]
    assert "Traceback" not in answer.text


# texts


def test_no_text_of_a_file_talks_to_the_terminal(shop: Project) -> None:
    fields = {
        "kind": "transform",
        "name": "t",
        "description": HOSTILE.replace("\x1b", "").replace("\x07", "").replace("\x9b", ""),
        "tags": ["\u202etag"],
        "owner": "\u2066me",
        "transform": "SELECT '\u202e' AS \"\u202ename\", chr(27) || '[31m' AS red FROM source.orders",
        "audits": [{"name": "\u202echeck", "severity": "warn", "value": "red IS NULL"}],
    }
    shop.write("seeknal/t.yml", json.dumps(fields))
    commands = [
        ("plan",), ("run",), ("run", "--dry-run"), ("diff",), ("inspect", "t"), ("inspect", "t", "--schema"),
        ("audit",),
        ("repl", "--exec", "SELECT * FROM transform.t"), ("repl", "--exec", 'SELECT "\u202enope" FROM transform.t'),
        ("run", "--nodes", HOSTILE), ("plan", HOSTILE), ("inspect", HOSTILE), (HOSTILE,), ("run", "--run-id", HOSTILE),
        ("plan", "--json"),
    ]  # fmt: skip
    for command in commands:
        answer = shop.seeknal(*command)
        assert not any(mark in answer.text for mark in OBEYED), (command, answer)
        assert "Traceback" not in answer.text


def test_what_a_function_raises_does_not_talk_to_the_terminal(shop: Project) -> None:
    shop.write("seeknal/n.py", f"raise ValueError({HOSTILE!r})\n")
    answer = shop.seeknal("plan")
    refused(answer, 1, "cannot be imported")
    assert not any(mark in answer.text for mark in OBEYED)


# names


@pytest.mark.parametrize("name", ["../x", "a\nb", "-x", "prod@3", "nul", "CON.x", "é", "x" * 129, "a.", "~", HOSTILE])
def test_a_hostile_name_of_an_environment_is_refused(shop: Project, name: str) -> None:
    refused(shop.seeknal("plan", "--", name), 2, "is not a valid environment name")


def test_environments_do_not_collide_where_case_is_ignored(shop: Project) -> None:
    shop.ok("plan", "dev")
    refused(shop.seeknal("plan", "DEV"), 2, "there is an environment 'dev', which would be 'DEV' on a disk")
    refused(shop.seeknal("run", "--env", "DEV"), 1, "Environment 'DEV' not found")
    shop.ok("plan", "dev")


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("~/x.csv", "begins with '~'"),
        ("C:\\x.csv", "is a drive or a URL"),
        ("s3://bucket/x.csv", "is a drive or a URL"),
        ("out\\..\\x.csv", "has a backslash in it"),
        ("out/\u202ex.csv", "has invisible characters in it"),
        ("out/a\nb.csv", "has invisible characters in it"),
        ("out/x.csv.", "ends with a dot or a space"),
        ("out/x.csv ", "begins or ends with a space"),
        ("out/nul.csv", "is a device on some systems"),
        (f"out/{'é' * 120}.csv", "has a part of more than 200 bytes"),
        ("a/" * 600 + "x.csv", "has more than 1000 bytes"),
        ("out/", "is a folder"),
        ("../x.csv", "leads out of the project"),
        ("TARGET/x.csv", "is the project's own"),
    ],
)
def test_a_hostile_path_of_an_exposure_is_refused(shop: Project, path: str, why: str) -> None:
    fields = {"kind": "exposure", "name": "e", "path": path, "inputs": ["source.orders"]}
    shop.write("seeknal/e.yml", json.dumps(fields))
    refused(shop.seeknal("plan"), 1, why)


def test_exposures_do_not_collide_where_case_or_composition_is_ignored(shop: Project) -> None:
    for index, path in enumerate(["out/Straße.csv", "out/STRASSE.csv", "out/cafe\u0301.csv", "out/caf\u00e9.csv"]):
        fields = {"kind": "exposure", "name": f"e{index}", "path": path, "inputs": ["source.orders"]}
        shop.write(f"seeknal/e{index}.yml", json.dumps(fields))
    answer = shop.seeknal("run")
    assert answer.code == 1
    assert [line.partition(":")[0] for line in answer.errors] == ["exposure.e1", "exposure.e3"]


# links and what is no file


def test_a_linked_node_file_counts_by_what_it_leads_to(shop: Project, tmp_path: Path) -> None:
    outside = tmp_path / "outside.yml"
    outside.write_text(COUNT.format("linked"))
    os.symlink(outside, shop.root / "seeknal/linked.yml")
    shop.ok("run")
    assert shop.rows("transform.linked") == [{"n": 1}]
    outside.write_text(COUNT.format("linked").replace("count(*)", "count(*) + 1"))
    shop.ok("run")
    assert shop.rows("transform.linked") == [{"n": 2}]
    outside.unlink()
    # Its node would leave production, if nobody said so.
    refused(shop.seeknal("run"), 1, "seeknal/linked.yml: cannot be read: No such file or directory")


def test_a_link_to_a_folder_of_nodes_is_not_followed_and_told(shop: Project, tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    (tmp_path / "more/t.yml").write_text(COUNT.format("t"))
    os.symlink(tmp_path / "more", shop.root / "seeknal/more")
    os.symlink("..", shop.root / "seeknal/circle")
    answer = shop.ok("plan")
    assert "seeknal/more: is a link to a folder, and not searched for nodes" in answer.text
    assert "transform.t" not in answer.text


@pytest.mark.parametrize("name", ["seeknal_project.yml", "seeknal/x.yml", "seeknal/x.py", "seeknal/common/rules.yml"])
@pytest.mark.parametrize("what", ["pipe", "circle", "endless", "gone", "huge"])
def test_what_is_no_file_is_refused_in_time(shop: Project, name: str, what: str) -> None:
    file = shop.root / name
    file.parent.mkdir(exist_ok=True)
    file.unlink(missing_ok=True)
    if what == "pipe":
        os.mkfifo(file)
    elif what == "huge":
        with file.open("wb") as stream:
            stream.truncate(64 * 1024 * 1024)
    else:
        os.symlink({"circle": file.name, "endless": "/dev/zero", "gone": "nowhere"}[what], file)
    message = "is larger than 1 MiB" if what == "huge" else "cannot be read: "
    refused(shop.seeknal("plan"), 1, message)


@pytest.mark.parametrize(
    ("what", "message"),
    [("pipe", "is no regular file"), ("gone", "is a link that leads nowhere"), ("folder", "is a folder")],
)
def test_a_source_that_is_no_file_says_so(shop: Project, what: str, message: str) -> None:
    file = shop.root / "data/orders.csv"
    file.unlink()
    if what == "pipe":
        os.mkfifo(file)
    elif what == "gone":
        os.symlink("nowhere", file)
    else:
        file.mkdir()
    refused(shop.seeknal("run"), 1, message)


def test_data_behind_links_is_data_and_circles_count_once(shop: Project, tmp_path: Path) -> None:
    shutil.move(shop.root / "data", tmp_path / "elsewhere")
    os.symlink(tmp_path / "elsewhere", shop.root / "data")
    os.symlink(".", tmp_path / "elsewhere/again")
    shop.write("seeknal/orders.yml", ORDERS.replace("data/orders.csv", "data/**/*.csv"))
    shop.ok("run")
    assert len(shop.rows("source.orders")) == 1


def test_a_project_works_below_a_link_and_with_its_target_elsewhere(shop: Project, tmp_path: Path) -> None:
    shutil.move(shop.root / "target", tmp_path / "scratch")
    os.symlink(tmp_path / "scratch", shop.root / "target")
    os.symlink(shop.root, tmp_path / "link")
    linked = Project(tmp_path / "link")
    linked.write("seeknal/t.yml", COUNT.format("t"))
    linked.ok("run")
    assert linked.rows("transform.t") == [{"n": 1}]
    linked.ok("store", "verify")


# .env


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("A=é\n".encode("utf-16"), "cannot be read: "),
        (b"A=x\0y\n", "cannot be read: "),
        (b"A=" + b"x" * 300_000, "it is larger than 256 KiB"),
        (b"".join(b"A%d=x\n" % number for number in range(2000)), "it has more than 1000 variables"),
    ],
)
def test_a_hostile_file_of_variables_is_refused(shop: Project, data: bytes, message: str) -> None:
    shop.write(".env", data)
    before = dict(os.environ)
    refused(shop.seeknal("plan"), 1, message)
    assert dict(os.environ) == before


def test_lines_of_the_file_of_variables_that_are_none_are_named_in_one_line(
    shop: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOSTILE_GOOD", "")
    monkeypatch.delenv("HOSTILE_GOOD")
    shop.write(".env", "HOSTILE_GOOD=1\n=x\n'unclosed\n")
    answer = shop.ok("plan")
    assert os.environ["HOSTILE_GOOD"] == "1"
    assert answer.stderr.count("\n") == 1
    assert ".env: left out, because it is not NAME=VALUE: line 2, 3" in answer.stderr
