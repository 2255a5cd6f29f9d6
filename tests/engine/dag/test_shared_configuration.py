"""Shared configuration: what it gives, and how what is wrong with it is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from seeknal.dag.project import Project, ProjectSettings
from seeknal.dag.shared_configuration import SharedConfiguration, read_shared_configuration
from tests.engine.workflow.projects import write_project


def read(root: Path, files: dict[str, str], *, strict: bool = False) -> SharedConfiguration:
    write_project(root, {f"seeknal/common/{name}": text for name, text in files.items()})
    return read_shared_configuration(Project(root, ProjectSettings(strict=strict)))


def test_the_three_files_give_sources_rules_and_transformations(tmp_path: Path) -> None:
    found = read(
        tmp_path,
        {
            "sources.yml": "sources: [{id: shop, ref: source.orders, params: {currency: EUR}}, {id: bare}]",
            "rules.yaml": "rules:\n- {id: not-null, value: a IS NOT NULL, description: for readers}",
            "transformations.yml": "transformations:\n- {id: net, sql: a / 1.2}",
        },
    )
    assert found.problems == found.warnings == []
    assert found.keys() == ["shop.currency", "shop.ref", "rules.not-null", "transforms.net"]
    assert found.rules["not-null"].value == "a IS NOT NULL"
    assert str(found.transforms["net"].place(2)) == "seeknal/common/transformations.yml:2:20"


def test_no_files_and_empty_files_are_nothing(tmp_path: Path) -> None:
    assert read(tmp_path, {}).keys() == []
    assert read(tmp_path, {"rules.yml": "", "sources.yml": "sources:\n", "transformations.yml": "{}"}).problems == []


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("rules.yml", "- {id: a, value: b}", "rules.yml:1:1: the file must be a mapping with 'rules'"),
        ("rules.yml", "rule: []", "rules.yml:1:1: unknown key 'rule' (write `rules:`)"),
        ("rules.yml", "rules: {a: b}", "rules.yml:1:1: 'rules' must be a list"),
        ("rules.yml", "rules: [a]", "rules.yml:1:9: an entry must be a mapping with 'id'"),
        ("rules.yml", "rules:\n- value: b", "rules.yml:2:3: 'id' is missing"),
        ("rules.yml", "rules:\n- {id: a}", "rules.yml:2:3: 'value' is missing"),
        ("rules.yml", "rules:\n- {id: a, value: 1}", "rules.yml:2:11: 'value': expected text, got a whole number"),
        ("rules.yml", "rules:\n- {id: a, vaule: b, value: c}", "2:11: unknown field 'vaule' (did you mean 'value'?)"),
        ("rules.yml", "rules:\n- {id: a, value: b}\n- {id: a, value: c}", "rules.yml:3:4: id 'a' is given twice"),
        ("rules.yml", "rules:\n- {id: ' ', value: b}", "rules.yml:2:4: 'id' is empty"),
        ("rules.yml", "rules: [{id: a, value: b}]\n---\nrules: []", "rules.yml:3:1: the file has a second document"),
        ("rules.yml", "rules: [", "is not valid YAML"),
        ("sources.yml", "sources: [{id: rules}]", "sources.yml:1:12: id 'rules' is reserved"),
        ("sources.yml", "sources: [{id: a, params: [1]}]", "1:19: 'params': expected a mapping, got a list"),
        ("transformations.yml", "transformations: [{id: a, sql: [b]}]", "'sql': expected text, got a list"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(tmp_path: Path, name: str, text: str, said: str) -> None:
    problems = read(tmp_path, {name: text}).problems
    assert len(problems) == 1
    assert said in str(problems[0])
    assert str(problems[0]).startswith(f"seeknal/common/{name}:")


def test_an_unknown_field_is_a_warning_and_in_a_strict_project_an_error(tmp_path: Path) -> None:
    text = "rules:\n- {id: a, value: b, team: sales}"
    assert [str(warning) for warning in read(tmp_path, {"rules.yml": text}).warnings] == [
        "seeknal/common/rules.yml:2:21: unknown field 'team'"
    ]
    assert read(tmp_path, {"rules.yml": text}, strict=True).problems


def test_two_files_of_one_name_are_refused(tmp_path: Path) -> None:
    problems = read(tmp_path, {"rules.yml": "rules: []", "rules.yaml": "rules: []"}).problems
    assert [str(problem) for problem in problems] == [
        "seeknal/common/rules.yaml: there is rules.yml already (put both into one file)"
    ]
