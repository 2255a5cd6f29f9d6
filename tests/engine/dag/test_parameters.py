"""What a run is given, and the names that it answers."""

from __future__ import annotations

from datetime import date, datetime
from pathlib import Path
from typing import Any

import pytest

from seeknal.dag.parameters import (
    RUN_DATE_STAND_IN,
    RUN_ID_STAND_IN,
    DayText,
    GivenParameters,
    RunParameters,
    given_parameters,
)
from seeknal.dag.project import Project
from seeknal.errors import UsageError
from seeknal.redaction import hide
from seeknal.store.objects import Snapshot

TODAY = date(2026, 3, 31)
NOW = datetime(2026, 3, 31, 6, 0)


@pytest.mark.parametrize("text", ["2000-01-01", "2026-03-31", "2027-03-31", "2024-02-29"])
def test_a_date_from_2000_to_a_year_ahead_is_taken(text: str) -> None:
    assert given_parameters(date=text, today=TODAY).date == text


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("1999-12-31", "is out of range"),
        ("2027-04-01", "is out of range"),
        ("2101-01-01", "is out of range"),
        ("2024-02-30", "is not a date"),
        ("20240101", "is not a date"),
        ("2024-1-1", "is not a date"),
        ("2024-W01-1", "is not a date"),
        ("", "is not a date"),
        ("yesterday", "is not a date"),
        ("2024-01-01' OR 1", "is not a date"),
    ],
)
def test_another_date_is_refused(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said) as raised:
        given_parameters(date=text, today=TODAY)
    assert raised.value.exit_code == 2
    assert raised.value.hint


def test_bounds_are_dates_or_times_in_order() -> None:
    found = given_parameters(start_date="2024-01-01", end_date="2024-01-31T12:30:00")
    assert (found.start_date, found.end_date) == ("2024-01-01", "2024-01-31T12:30:00")
    with pytest.raises(UsageError, match="--end-date 'soon' is not a date"):
        given_parameters(end_date="soon")
    with pytest.raises(UsageError, match="is after --end-date"):
        given_parameters(start_date="2024-02-01", end_date="2024-01-31")


def test_params_are_a_json_object_with_names() -> None:
    assert given_parameters(params='{"a": [1, "x"], "b": null}').params == {"a": [1, "x"], "b": None}
    for text, said in [
        ("{a: 1}", "not valid JSON"),
        ("[1]", "not a JSON object"),
        ('"a"', "not a JSON object"),
        ("null", "not a JSON object"),
        ('{"a": 1, "a": 2}', "'a' is given twice"),
        ('{"a": NaN}', "NaN is no number"),
        ('{"a-b": 1}', "'a-b' is not a name"),
        ('{"a": [123456789012345678901]}', "'a' is a number beyond 64 bits"),
        (r'{"a": "\ud800"}', "'a' is not text"),
        ("[" * 100_000, "nested too deeply|not valid JSON"),
    ]:
        with pytest.raises(UsageError, match=said) as raised:
            given_parameters(params=text)
        assert raised.value.exit_code == 2


@pytest.mark.parametrize(
    ("unit", "day", "offset", "expected"),
    [
        ("day", TODAY, -31, "2026-02-28"),
        ("day", TODAY, 0, "2026-03-31"),
        ("month", date(2026, 3, 1), -3, "2025-12-01"),
        ("month", date(2026, 3, 1), 10, "2027-01-01"),
        ("year", date(2026, 1, 1), -1, "2025-01-01"),
    ],
)
def test_a_day_is_called_with_an_offset_in_its_unit(unit: str, day: date, offset: int, expected: str) -> None:
    assert DayText(day, unit)(offset) == expected


def test_an_offset_that_is_no_whole_number_is_refused() -> None:
    for offset in (True, 1.5, "1"):
        with pytest.raises(ValueError, match="whole number"):
            DayText(TODAY)(offset)  # type: ignore[arg-type]


def value(parameters: RunParameters, name: str, *, real: bool = True) -> Any:
    project = Project(Path("/projects/shop"))
    found = parameters.override(name) or parameters.context(name, project, real=real) or parameters.day(name)
    return found.value if found else None


def test_days_count_from_the_given_date_and_else_from_the_moment_of_the_run() -> None:
    names = ("today", "date", "yesterday", "month_start", "year_start")
    expected = ["2026-03-31", "2026-03-31", "2026-03-30", "2026-03-01", "2026-01-01"]
    assert [value(RunParameters(now=NOW), name) for name in names] == expected
    given = GivenParameters(date="2024-03-01")
    expected = ["2024-03-01", "2024-03-01", "2024-02-29", "2024-03-01", "2024-01-01"]
    assert [value(RunParameters(given, now=NOW), name) for name in names] == expected


def test_what_is_new_in_every_run_has_a_stand_in() -> None:
    parameters = RunParameters(GivenParameters(run_id="nightly"), "nightly", NOW)
    assert value(parameters, "run_id") == "nightly"
    assert value(parameters, "run_id", real=False) == RUN_ID_STAND_IN
    assert value(parameters, "run_date") == "2026-03-31T06:00:00"
    assert value(parameters, "run_date", real=False) == RUN_DATE_STAND_IN
    dated = RunParameters(GivenParameters(date="2024-01-31"), now=NOW)
    assert value(dated, "run_date", real=False) == "2024-01-31"


def test_options_go_before_params_of_the_same_name_and_both_before_the_rest() -> None:
    given = GivenParameters(
        date="2024-01-31", run_id="r", params={"date": "x", "run_id": "x", "today": "t", "project_id": "p"}
    )
    parameters = RunParameters(given, "r", NOW)
    assert [value(parameters, name) for name in ("date", "run_id", "today", "project_id", "workspace_path")] == [
        "2024-01-31",
        "r",
        "t",
        "p",
        "/projects/shop",
    ]


def test_what_was_asked_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_REGION", "eu")
    monkeypatch.delenv("SHOP_OWNER", raising=False)
    parameters = RunParameters(now=NOW)
    assert not parameters.rests_on_today
    assert value(parameters, "region") is None
    assert value(parameters, "yesterday")
    assert (parameters.variable("SHOP_REGION"), parameters.variable("SHOP_OWNER")) == ("eu", None)
    assert parameters.asked == {"region", "yesterday", "date"}
    assert parameters.variables == {"SHOP_REGION": "eu", "SHOP_OWNER": None}
    assert parameters.rests_on_today


def test_a_plan_keeps_everything_but_the_id_of_the_run() -> None:
    given = given_parameters(date="2024-01-31", run_id="r", params={"a": 1}, today=TODAY)
    assert given.lasting() == GivenParameters(date="2024-01-31", params={"a": 1})


def test_a_snapshot_keeps_what_was_given_without_secrets_and_the_plan_has_them() -> None:
    hide("hunter22hunter")
    given = GivenParameters(date="2026-03-30", params={"region": "eu", "pins": ["hunter22hunter"]})
    kept = RunParameters(given, "r1", NOW).kept()
    assert kept == {"date": "2026-03-30", "params": {"region": "eu"}}
    snapshot = Snapshot("dev", "", "", None, 9.0, "", "", "r1", parameters=kept, began_at=NOW.timestamp())
    assert RunParameters.of_run(snapshot, given) == RunParameters(given, "r1", NOW)
    other = GivenParameters(date="2026-03-31", params=given.params)
    assert (
        RunParameters.of_run(snapshot, other).given == given.without_secrets() == RunParameters.of_run(snapshot).given
    )
