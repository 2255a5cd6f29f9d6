"""The commands that look back, go back, give space back and check the store, as they are typed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.acceptance.project import Project


@pytest.fixture
def shop(tmp_path: Path) -> Project:
    """A project that ran three times: a is 1, then 2, then 3."""
    project = Project(tmp_path / "shop")
    project.write("seeknal_project.yml", "name: shop\n")
    for value in (1, 2, 3):
        project.write("seeknal/a.yml", f"kind: transform\nname: a\ntransform: SELECT {value} AS x\n")
        project.ok("run")
    return project


def value(project: Project, environment: str = "prod") -> str:
    return project.ok("repl", "--env", environment, "-f", "csv", "-e", "SELECT x FROM a").stdout.split()[1]


def test_history_is_listed_and_every_line_of_it_can_be_read(shop: Project) -> None:
    document = shop.ok("env", "history", "prod", "--json").document
    assert document["env"] == "prod"
    assert [entry["number"] for entry in document["history"]] == [0, 1, 2]
    for entry, expected in zip(document["history"], "321", strict=True):
        assert value(shop, f"prod@{entry['number']}") == value(shop, f"prod@{entry['snapshot']}") == expected
    text = shop.ok("env", "history", "prod", "-n", "2").stdout
    assert "@1" in text
    assert "@2" not in text
    assert "there are more" in text


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [((), "2"), (("2",), "1"), (("--steps", "2"), "1")],
)
def test_rollback_goes_where_it_is_told(shop: Project, arguments: tuple[str, ...], expected: str) -> None:
    assert shop.ok("rollback", "prod", *arguments, "--dry-run", "--json").document["status"] in ("planned", "unchanged")
    assert value(shop) == "3"
    document = shop.ok("rollback", "prod", *arguments, "--json").document
    assert value(shop) == expected
    assert document["snapshot"] == shop.ref()
    assert document["changed_nodes"] == ([] if expected == "3" else ["transform.a"])


def test_rollback_takes_the_moment_with_the_name_too(shop: Project) -> None:
    shop.ok("rollback", "prod@2")
    assert value(shop) == "1"


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (("prod", "1", "--steps", "2"), 2, "give one of SNAPSHOT, --steps and --at"),
        (("prod@1", "--at", "2026-01-01"), 2, "give one of"),
        (("prod", "--at", "noon"), 2, "is no time"),
        (("prod", "--steps", "0"), 2, "0 is not in the range"),
        (("prod", "--steps", "9"), 1, "is not kept"),
        (("nope",), 1, "'nope' not found"),
        (("prod", "ffffffff"), 1, "never stood at"),
    ],
)
def test_a_rollback_that_cannot_be_is_one_clear_line(
    shop: Project, arguments: tuple[str, ...], code: int, text: str
) -> None:
    before = shop.state()
    answer = shop.seeknal("rollback", *arguments)
    assert answer.code == code
    assert text in answer.stderr
    assert "Traceback" not in answer.text
    assert shop.state() == before


def test_an_inspected_past_says_that_it_is_one(shop: Project) -> None:
    assert "transform.a (prod@1)" in shop.ok("inspect", "a", "--env", "prod@1").stdout
    assert "Stored Outputs: prod@2" in shop.ok("inspect", "--env", "prod@2").stdout


@pytest.mark.parametrize("command", [("run", "--env", "dev@1"), ("plan", "dev@1"), ("promote", "dev@1")])
def test_a_moment_is_for_reading_only(shop: Project, command: tuple[str, ...]) -> None:
    answer = shop.seeknal(*command)
    assert answer.code == 2
    assert "'dev@1' is not a valid environment name" in answer.stderr


@pytest.mark.parametrize("name", ["a/b", ".hidden", "it's", "x" * 300])
def test_a_name_that_no_environment_has_is_wrong_usage_everywhere(shop: Project, name: str) -> None:
    for command in (
        f"run --env {name}|plan {name}|promote {name}|rollback {name}|env plan {name}|env apply {name}|"
        f"env promote {name}|"
        f"env delete {name} --yes|env history {name}|env pin {name} 1|env unpin {name} 1|repl --exec x --env {name}|"
        f"inspect a --env {name}|audit --env {name}|entity list --env {name}"
    ).split("|"):
        answer = shop.seeknal(*command.split())
        assert (answer.code, len(answer.errors)) == (2, 1), (command, answer.text)


def test_a_time_to_come_is_refused(shop: Project) -> None:
    for command in (("rollback", "prod", "--at", "2999-01-01"), ("rollback", "prod@2999-01-01T10:00")):
        answer = shop.seeknal(*command)
        assert answer.code == 2
        assert "is in the future" in answer.errors[0]


@pytest.mark.parametrize("option", ["--keep-days", "--keep-last", "--grace-hours"])
@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "1e400", "-1", "1e300"])
def test_garbage_is_not_collected_by_a_number_that_is_none(shop: Project, option: str, value: str) -> None:
    answer = shop.seeknal("gc", option, value)
    assert answer.code == 2
    assert "Invalid value" in answer.stderr


def test_production_that_came_back_to_what_was_planned_against_is_promoted_to(shop: Project) -> None:
    shop.ok("run")
    shop.ok("plan", "back")
    shop.ok("run", "--env", "back")
    shop.ok("rollback", "prod")
    assert shop.seeknal("promote", "back", "--yes").code in (0, 4)
    shop.ok("rollback", "prod", "--steps", "1")
    shop.ok("promote", "back", "--yes")


def test_garbage_is_listed_before_it_goes(shop: Project) -> None:
    before = shop.state()
    plan = shop.ok("gc", "--dry-run", "--keep-last", "1", "--json").document
    assert shop.state() == before
    assert plan["status"] == "planned"
    assert [entry["kind"] for entry in plan["goes"]].count("blob") == 2
    done = shop.ok("gc", "--keep-last", "1", "--json").document
    assert done["goes"] == plan["goes"]
    assert done["removed"]["bytes"] == plan["bytes"] == sum(e["bytes"] for e in plan["goes"] if e["kind"] == "blob") > 0
    assert value(shop) == "3"
    assert "is not kept" in shop.seeknal("repl", "--env", "prod@1", "-e", "SELECT 1").stderr
    assert shop.ok("store", "verify", "--json").document["findings"] == []


def test_the_usual_collection_keeps_the_usual_past(shop: Project) -> None:
    assert "Gone:\n  nothing" in shop.ok("gc").stdout
    assert value(shop, "prod@2") == "1"


def test_pinned_states_outlive_collection(shop: Project) -> None:
    snapshot = shop.ok("env", "history", "prod", "--json").document["history"][2]["snapshot"]
    assert snapshot[:12] in shop.ok("env", "pin", "prod", "2").stdout
    shop.ok("gc", "--keep-last", "1")
    assert value(shop, f"prod@{snapshot[:12]}") == "1"
    shop.ok("rollback", "prod", snapshot[:12])
    assert value(shop) == "1"
    shop.ok("env", "unpin", "prod", snapshot[:12])
    assert shop.seeknal("env", "unpin", "prod").code == 1


def test_deleting_an_environment_gives_back_what_du_calls_unique(shop: Project) -> None:
    shop.write("seeknal/b.yml", "kind: transform\nname: b\ntransform: SELECT range AS y FROM range(1000)\n")
    shop.ok("plan", "dev")
    shop.ok("run", "--env", "dev")
    shop.ok("gc")
    usage = {entry["name"]: entry for entry in shop.ok("env", "du", "--json").document["environments"]}
    shop.ok("env", "delete", "dev", "--yes")
    assert shop.ok("gc", "--json").document["removed"]["bytes"] == usage["dev"]["unique_bytes"] > 0
    assert "Needed by none: 0 B" in shop.ok("env", "du").stdout


def test_an_environment_whose_only_run_was_rejected_counts_what_can_be_looked_at(shop: Project) -> None:
    sql = "SELECT range AS y FROM range(1000)"
    shop.write("seeknal/b.yml", f"kind: transform\nname: b\ntransform: {sql}\naudits: [y < 5]\n")
    shop.ok("plan", "dev")
    assert shop.seeknal("run", "--env", "dev").code == 1
    shop.ok("gc", "--grace-hours", "0")
    usage = {entry["name"]: entry for entry in shop.ok("env", "du", "--json").document["environments"]}
    assert usage["dev"]["current_bytes"] == 0
    shop.ok("env", "delete", "dev", "--yes")
    answer = shop.ok("gc", "--grace-hours", "0", "--json")
    assert answer.document["removed"]["bytes"] == usage["dev"]["unique_bytes"] > 0


def test_damage_is_found_with_exit_code_12_repaired_and_rebuilt(shop: Project) -> None:
    assert shop.ok("store", "verify").stdout.endswith("The store is whole\n")
    path = (shop.root / "target/cache/transform/a.parquet").resolve()
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-1])
    answer = shop.seeknal("store", "verify")
    assert answer.code == 12
    assert "hurts prod: transform.a" in answer.stdout
    document = shop.seeknal("store", "verify", "--json").document
    assert document["status"] == "damaged"
    assert not any(entry["done"] for entry in document["repairs"])
    answer = shop.seeknal("store", "verify", "--repair")
    assert answer.code == 12
    assert "`seeknal run` builds again what 'prod' lacks" in answer.stdout
    shop.ok("run")
    assert shop.ok("store", "verify", "--json").document["status"] == "clean"
    assert value(shop) == "3"


def test_repairing_what_needs_no_run_ends_well(shop: Project) -> None:
    path = (shop.root / "target/cache/transform/a.parquet").resolve()
    path.chmod(0o666)
    assert shop.seeknal("store", "verify").code == 12
    assert "The store is whole again" in shop.ok("store", "verify", "--repair").stdout


def test_a_store_that_cannot_be_understood_keeps_everything(shop: Project) -> None:
    shop.write("target/store/refs/prod", "rubbish\n")
    answer = shop.seeknal("gc", "--keep-last", "0")
    assert answer.code == 12
    assert len(answer.errors) == 1


def test_a_rollback_that_moves_nothing_says_so_to_programs(shop: Project) -> None:
    for arguments, status, moved in ((("0", "--dry-run"), "unchanged", False), (("0",), "unchanged", False)):
        document = shop.ok("rollback", "prod", *arguments, "--json").document
        assert (document["status"], document["moved"]) == (status, moved)
    document = shop.ok("rollback", "prod", "--dry-run", "--json").document
    assert (document["status"], document["moved"]) == ("planned", False)
    document = shop.ok("rollback", "prod", "--json").document
    assert (document["status"], document["moved"]) == ("success", True)


def test_what_failed_before_a_rollback_can_be_looked_at_and_is_told_as_that(shop: Project) -> None:
    audits = "audits: [{type: not_null, columns: [x]}]\n"
    shop.write("seeknal/a.yml", f"kind: transform\nname: a\ntransform: SELECT NULL::INT AS x\n{audits}")
    assert shop.seeknal("run").code == 1
    assert "rolled back" not in shop.ok("inspect", "--failed").stdout
    shop.ok("rollback", "prod")
    for arguments in (("a", "--failed"), ("--failed",)):
        said = shop.ok("inspect", *arguments).stdout
        assert "not_null(x)" in said
        assert "'prod' was rolled back" in said


def test_history_tells_what_each_run_was_given(shop: Project) -> None:
    shop.write("seeknal/a.yml", "kind: transform\nname: a\ntransform: SELECT '{{ region }}' AS x\n")
    shop.ok("run", "--params", '{"region": "eu"}', "--date", "2026-01-31")
    history = shop.ok("env", "history", "prod", "--json").document["history"]
    given = [entry["parameters"] for entry in history]
    assert given == [{"date": "2026-01-31", "params": {"region": "eu"}}, {}, {}, {}]
