"""JSON Schemas: what is right passes them, what is wrong does not, and every field says what it means."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from seeknal.dag.draft import CommonFields
from seeknal.dag.field_documentation import field_texts, structs_within, summary
from seeknal.dag.json_schema import json_schema, schema_comment, schema_names
from seeknal.dag.project import ProjectSettings
from seeknal.errors import NotFoundError
from seeknal.nodes.registry import DECLARABLE_KINDS, KINDS
from tests.docs.markdown import PAGES, ROOT, blocks

EXAMPLES = ROOT / "cli/seeknal/cli/examples"


def problems(text: str, name: str = "node") -> list[str]:
    """What a schema finds wrong in the documents of a YAML text."""
    validator = jsonschema.Draft7Validator(json_schema(name))
    documents = [document for document in yaml.safe_load_all(text) if document is not None]
    return [error.message for document in documents for error in validator.iter_errors(document)]


def example_files() -> Iterator[Path]:
    for path in sorted(EXAMPLES.rglob("*.yml")):
        if not {"common", "templates"} & set(path.parts):
            yield path


def documented_nodes() -> Iterator[Any]:
    for page in PAGES:
        if page.name == "CONTRIBUTING.md":
            # Its kind is not one of ours.
            continue
        for block in blocks(page, "yaml"):
            if "kind: " in block.text and "name: " in block.text:
                yield pytest.param(block.text, id=str(block))


@pytest.mark.parametrize("name", schema_names())
def test_every_schema_is_a_schema(name: str) -> None:
    schema = json_schema(name)
    jsonschema.Draft7Validator.check_schema(schema)
    assert schema["title"]


@pytest.mark.parametrize("path", list(example_files()), ids=lambda path: path.name)
def test_the_examples_fit_the_schemas(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert problems(text) == []
    for document in yaml.safe_load_all(text):
        for node in document if isinstance(document, list) else [document]:
            assert problems(yaml.safe_dump(node), node["kind"]) == []


@pytest.mark.parametrize("text", list(documented_nodes()))
def test_the_examples_of_the_reference_fit_the_schemas(text: str) -> None:
    assert problems(text) == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{kind: sourse, name: a}", "'sourse' is not one of"),
        ("{name: a}", "'kind' is a required property"),
        ("{kind: transform, name: a}", "'transform' is a required property"),
        ("[{kind: transform, name: a}]", "'transform' is a required property"),
        ("{kind: transform, name: a, transform: 1}", "1 is not of type 'string'"),
        ("{kind: transform, name: a, transform: SELECT 1, tags: all}", "'all' is not valid under any"),
        ("{kind: transform, name: a, transform: SELECT 1, inputs: [{reff: source.a}]}", "is not valid under any of"),
        ("{kind: source, name: a, source: cvs, table: a.csv}", "'cvs' is not one of"),
        ("{kind: source, name: a, source: csv, schema: [{name: a}]}", "[{'name': 'a'}] is not valid under any"),
        ("{kind: model, name: a, inputs: [source.a], training: {algorithm: magic, label_column: b}}", "'magic' is not"),
        ("{kind: aggregation, name: a, features: [{column: b}]}", "'name' is a required property"),
    ],
)
def test_what_is_wrong_does_not_fit(text: str, said: str) -> None:
    assert any(said in problem for problem in problems(text)), problems(text)


def test_fields_that_no_kind_has_are_left_to_the_plan() -> None:
    assert problems("{kind: transform, name: a, transform: SELECT 1, team: data}") == []


def test_the_project_file_fits_its_schema_and_a_wrong_one_does_not() -> None:
    assert problems("{name: shop, config-version: 1, strict: true}", "project") == []
    assert problems("{strict: maybe}", "project") == ["'maybe' is not of type 'boolean'"]


def test_there_is_no_schema_of_what_is_no_kind() -> None:
    with pytest.raises(NotFoundError, match="there is no schema of 'transfrom'"):
        json_schema("transfrom")


def test_an_editor_shows_what_a_field_means() -> None:
    properties = json_schema("source")["properties"]
    assert properties["source"]["description"].startswith("the format: `csv`")
    assert properties["owner"]["description"] == "for people"
    definitions = json_schema("model")["definitions"]
    assert definitions["TrainingSpec"]["properties"]["label_column"]["description"] == "the column to predict"


def test_the_comment_leads_from_a_file_to_the_schema() -> None:
    assert schema_comment(2) == "# yaml-language-server: $schema=../../.seeknal/schema/node.json\n"


STRUCTS = [
    struct
    for type_ in (CommonFields, ProjectSettings, *(KINDS[kind].spec for kind in DECLARABLE_KINDS))
    for struct in structs_within(type_)
]


@pytest.mark.parametrize(
    "struct", list(dict.fromkeys(STRUCTS)), ids=lambda struct: f"{struct.__module__}.{struct.__name__}"
)
def test_every_field_of_every_struct_says_what_it_means(struct: Any) -> None:
    fields = set(struct.__struct_encode_fields__)
    documented = field_texts(struct)
    assert fields - documented.keys() == set()
    assert documented.keys() - fields == set()
    assert all(documented.values())
    assert summary(struct)
