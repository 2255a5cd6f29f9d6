"""`seeknal schema`: printed or written, and where the comments of a new project lead."""

from __future__ import annotations

import json
import re
from pathlib import Path

import jsonschema
import pytest
import yaml

from seeknal.dag.json_schema import json_schema, schema_names
from tests.acceptance.project import EXAMPLE, Project


def test_a_schema_is_printed(tmp_path: Path) -> None:
    project = Project(tmp_path)
    assert json.loads(project.seeknal("schema").stdout) == json_schema("node")
    assert json.loads(project.seeknal("schema", "transform").stdout) == json_schema("transform")


def test_what_is_no_kind_is_said_with_what_may_be_meant(tmp_path: Path) -> None:
    answer = Project(tmp_path).seeknal("schema", "transfrom")
    assert answer.code == 1
    assert answer.errors == ["there is no schema of 'transfrom'"]
    assert "did you mean 'transform'?" in answer.stderr


def test_all_schemas_are_written_to_a_folder(tmp_path: Path) -> None:
    project = Project(tmp_path)
    project.seeknal("schema", "--output", "out/schemas")
    written = {path.stem: json.loads(path.read_text()) for path in (tmp_path / "out/schemas").iterdir()}
    assert written == {name: json_schema(name) for name in schema_names()}


@pytest.mark.parametrize("example", [EXAMPLE])
def test_every_yaml_file_of_a_new_project_leads_to_a_schema_that_it_fits(tmp_path: Path, example: str) -> None:
    project = Project(tmp_path)
    project.seeknal("init", "--path", ".", "--name", "shop", "--example", example)
    files = [tmp_path / "seeknal_project.yml", *sorted((tmp_path / "seeknal").rglob("*.yml"))]
    assert len(files) > 1
    for file in files:
        text = file.read_text(encoding="utf-8")
        found = re.match(r"# yaml-language-server: \$schema=(\S+)\n", text)
        assert found is not None, file
        schema = json.loads((file.parent / found[1]).read_text(encoding="utf-8"))
        for document in yaml.safe_load_all(text):
            jsonschema.Draft7Validator(schema).validate(document)
    # Whoever clones the project has them too.
    assert ".seeknal" not in (tmp_path / ".gitignore").read_text()
