"""What rules, audits and tests may say, and what is wrong with what they say."""

from __future__ import annotations

from typing import Any

import pytest

from seeknal.nodes.check import Check
from seeknal.nodes.check_fields import ParsedCheck, checks_of_list, checks_of_rule
from seeknal.nodes.kind import FieldProblem


def checks(*entries: Any) -> list[Check]:
    found = list(checks_of_list("audits", entries))
    assert all(isinstance(entry, ParsedCheck) for entry in found), found
    return [entry.check for entry in found if isinstance(entry, ParsedCheck)]


def problem(entry: Any) -> FieldProblem:
    (found,) = [found for found in checks_of_list("audits", [entry]) if isinstance(found, FieldProblem)]
    return found


@pytest.mark.parametrize(
    ("long", "short"),
    [
        ({"type": "not_null", "columns": ["a", "b"]}, {"not_null": ["a", "b"]}),
        ({"type": "unique", "columns": ["a"]}, {"unique": "a"}),
        ({"type": "null", "columns": ["a"]}, {"null": ["a"]}),
        (
            {"type": "accepted_values", "column": "a", "values": [1, 2]},
            {"accepted_values": {"column": "a", "values": [1, 2]}},
        ),
        ({"type": "row_count", "min": 1}, {"row_count": {"min": 1}}),
        ({"type": "custom_sql", "sql": "SELECT 1"}, {"custom_sql": "SELECT 1"}),
        ({"type": "not_null", "columns": ["a"], "severity": "warn"}, {"not_null": ["a"], "severity": "warn"}),
        ({"value": "a > 0"}, "a > 0"),
        ({"type": "range", "column": "a", "params": {"min_val": 0}}, {"range": {"columns": ["a"], "min": 0}}),
    ],
)
def test_both_forms_mean_the_same(long: Any, short: Any) -> None:
    assert checks(long) == checks(short)


def test_an_unquoted_null_is_the_type_null() -> None:
    assert checks({"type": None, "columns": ["a"]}) == checks({"type": "null", "columns": ["a"]})


def test_params_of_the_node_count_where_the_check_says_nothing() -> None:
    rule = [{"type": "not_null", "columns": ["a"]}, {"type": "not_null", "columns": ["b"], "severity": "error"}]
    found = list(checks_of_rule(rule, {"severity": "warn", "error_message": "Look!", "name": "region"}))
    said = [entry.check for entry in found if isinstance(entry, ParsedCheck)]
    assert [(check.severity, check.message, check.name) for check in said] == [
        ("warn", "Look!", ""),
        ("error", "Look!", ""),
    ]


def test_a_list_of_conditions_is_a_check_each() -> None:
    assert [check.sql for check in checks({"value": ["a > 0", "b > 0"]})] == ["a > 0", "b > 0"]
    assert [entry.check.sql for entry in checks_of_rule(["a > 0", "b > 0"], {}) if isinstance(entry, ParsedCheck)] == [
        "a > 0",
        "b > 0",
    ]


@pytest.mark.parametrize(("text", "seconds"), [("30s", 30), ("15m", 900), ("24h", 86400), ("7d", 604800), (90, 90)])
def test_ages_have_units(text: Any, seconds: float) -> None:
    (check,) = checks({"type": "freshness", "column": "at", "max_age": text})
    assert check.max_age_seconds == seconds
    assert check.volatile


def test_a_profile_check_with_fail_and_warn_is_two() -> None:
    warn, fail = sorted(
        checks({"type": "profile_check", "column": "a", "metric": "mean", "fail": ">= 20", "warn": "between 5 and 10"}),
        key=lambda check: check.severity,
        reverse=True,
    )
    assert (warn.severity, warn.minimum, warn.maximum, warn.inside) == ("warn", 5, 10, True)
    assert (fail.severity, fail.minimum, fail.maximum, fail.exclusive) == ("error", None, 20, True)
    assert warn.metric == fail.metric == "avg"


@pytest.mark.parametrize(
    ("entry", "message", "path", "hint"),
    [
        (1, "a check must be a mapping or text", (), ""),
        ({"type": "uniqe", "columns": ["a"]}, "there is no check of type 'uniqe'", ("type",), "'unique'"),
        ({"not_nul": ["a"]}, "a check needs a type", (), "'not_null'"),
        ({"not_null": ["a"], "unique": ["a"]}, "two checks in one: not_null and unique", (), ""),
        ({"type": "not_null"}, "a check of type not_null needs 'columns'", (), ""),
        ({"not_null": []}, "must name a column, or a list of columns", ("columns",), ""),
        ({"type": "not_null", "columns": ["a"], "colums": 1}, "has no field 'colums'", ("colums",), "'columns'"),
        ({"type": "null", "columns": ["a"], "max_null_percentage": 5}, "is a share", ("max_null_percentage",), "0.05"),
        ({"type": "range", "column": "a"}, "a check of type range needs 'min_val' or 'max_val'", (), ""),
        ({"type": "range", "column": "a", "min_val": 3, "max_val": 1}, "nothing is at least 3 and at most 1", (), ""),
        ({"type": "row_count", "min": 1.5}, "whole numbers", (), ""),
        ({"type": "accepted_values", "column": "a"}, "accepted_values needs 'values'", (), ""),
        ({"type": "freshness", "column": "a", "max_age": "soon"}, "freshness needs 'max_age'", ("max_age",), "24h"),
        ({"type": "custom"}, "a check of type custom needs 'sql'", (), ""),
        ({"not_null": ["a"], "severity": "fatal"}, "severity 'fatal' is none", ("severity",), "error or warn"),
        ({"value": 5}, "must be a condition in SQL, as text", ("value",), ""),
        ("unique", "'unique' alone is no condition", (), "`unique: [id]`"),
        ({"type": "profile_check", "metric": "averag", "max": 1}, "there is no metric 'averag'", ("metric",), "'avg'"),
        ({"type": "profile_check", "metric": "avg", "max": 1}, "the metric avg needs a 'column'", (), ""),
        ({"type": "profile_check", "metric": "row_count"}, "needs 'min' or 'max'", (), ""),
        ({"type": "profile_check", "metric": "row_count", "fail": "5"}, "'5' is no condition", ("fail",), "> 5"),
    ],
)
def test_what_is_wrong_is_said_where_it_stands(entry: Any, message: str, path: tuple[str, ...], hint: str) -> None:
    found = problem(entry)
    assert message in found.message
    assert found.path == ("audits", 0, *path)
    assert hint in found.hint


def test_everything_wrong_is_found() -> None:
    found = list(checks_of_list("tests", [{"not_null": []}, {"unique": ["a"]}, {"type": "what"}]))
    assert [type(entry) for entry in found] == [FieldProblem, ParsedCheck, FieldProblem]
