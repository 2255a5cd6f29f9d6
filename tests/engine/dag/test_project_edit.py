"""One setting of the project file is changed, and nothing else in it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from seeknal.dag.project import PROJECT_FILE, Project
from seeknal.dag.project_edit import apply_edit, plan_setting
from seeknal.errors import ProjectError, SeeknalError


def edited(folder: Path, text: str | bytes, value: str = "database") -> str:
    """What the file holds after ``state_backend`` was set."""
    file = folder / PROJECT_FILE
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    apply_edit(plan_setting(folder, "state_backend", value))
    assert [path.name for path in folder.iterdir()] == [PROJECT_FILE]
    return file.read_bytes().decode()


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("name: shop\nstate_backend: file\n", "name: shop\nstate_backend: database\n"),
        (
            "# Kopf: é 😀\nname:   shop  # ours\n\nstate_backend:   'file'   # where\nstrict: true",
            "# Kopf: é 😀\nname:   shop  # ours\n\nstate_backend:   'database'   # where\nstrict: true",
        ),
        ('"state_backend": "file"\r\nname: x\r\n', '"state_backend": "database"\r\nname: x\r\n'),
        ("name: shop", "name: shop\nstate_backend: database\n"),
        ("name: shop\r\n# end\r\n", "name: shop\r\n# end\r\nstate_backend: database\r\n"),
        ("  name: shop\n  strict: true\n", "  name: shop\n  strict: true\n  state_backend: database\n"),
        ("{name: shop, state_backend: file} # all\n", "{name: shop, state_backend: database} # all\n"),
        ("{name: shop}\n", "{state_backend: database, name: shop}\n"),
        ("---\nname: shop\n...\n", "---\nstate_backend: database\nname: shop\n...\n"),
        ("\ufeffname: shop\nstate_backend: file\n", "\ufeffname: shop\nstate_backend: database\n"),
        ("", "state_backend: database\n"),
        ("# only a comment\n", "# only a comment\nstate_backend: database\n"),
        ("state_backend: database # already\n", "state_backend: database # already\n"),
        ("description: |\n  state_backend: file\n", "description: |\n  state_backend: file\nstate_backend: database\n"),
    ],
)
def test_everything_else_stays_as_it_stood(tmp_path: Path, before: str, after: str) -> None:
    assert edited(tmp_path, before) == after
    assert Project.open(tmp_path).settings.state_backend == "database"


settings_files = st.lists(
    st.sampled_from(
        [
            "name: shop",
            "# a comment",
            "",
            "strict: true # yes",
            "description: 'a: b # c'",
            "version: 1.0",
            "profile: |\n  x\n",
        ]
    ),
    max_size=6,
    unique_by=lambda line: line.partition(":")[0] or id(line),
)


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    settings_files, st.sampled_from(["\n", "\r\n"]), st.sampled_from([None, "file", "'file'", '"database"', "file #x"])
)
def test_file_says_what_it_said_and_the_setting(
    tmp_path: Path, lines: list[str], line_end: str, said: str | None
) -> None:
    ours = [] if said is None else [f"state_backend: {said}"]
    text = line_end.join("\n".join([*lines[:2], *ours, *lines[2:]]).splitlines())
    after = edited(tmp_path, text)
    assert yaml.safe_load(after) == {**(yaml.safe_load(text) or {}), "state_backend": "database"}
    kept = [line for line in text.splitlines() if not line.startswith("state_backend")]
    assert [line for line in after.splitlines() if not line.startswith("state_backend")] == kept
    assert ("\r\n" in after) == ("\r\n" in text) or "\n" not in text


def test_folder_without_a_project_file_gets_one(tmp_path: Path) -> None:
    (tmp_path / "seeknal").mkdir()
    apply_edit(plan_setting(tmp_path, "state_backend", "database"))
    project = Project.open(tmp_path)
    assert project.settings.state_backend == "database"
    assert project.name == tmp_path.name


@pytest.mark.parametrize(
    "text",
    [
        "- a\n- list\n",
        "name: shop\n---\nname: other\n",
        "name: [",
        b"\xff\xfe",
        "state_backend: >-\n  file\nname: x\n",
        "state_backend: &it file\nname: *it\n",
    ],
)
def test_file_that_only_a_person_can_edit_is_left_alone(tmp_path: Path, text: str | bytes) -> None:
    file = tmp_path / PROJECT_FILE
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    before = file.read_bytes()
    with pytest.raises(ProjectError):
        plan_setting(tmp_path, "state_backend", "database")
    assert file.read_bytes() == before


def test_permissions_and_a_link_stay(tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir()
    real = tmp_path / "shared" / "project.yml"
    real.write_text("name: shop\n")
    real.chmod(0o640)
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / PROJECT_FILE).symlink_to(real)
    apply_edit(plan_setting(tmp_path / "p", "state_backend", "database"))
    assert (tmp_path / "p" / PROJECT_FILE).is_symlink()
    assert real.read_text() == "name: shop\nstate_backend: database\n"
    assert real.stat().st_mode & 0o777 == 0o640
    assert os.listdir(real.parent) == ["project.yml"]


def test_file_that_changed_since_is_not_overwritten(tmp_path: Path) -> None:
    file = tmp_path / PROJECT_FILE
    file.write_text("name: shop\n")
    edit = plan_setting(tmp_path, "state_backend", "database")
    file.write_text("name: store\n")
    with pytest.raises(SeeknalError, match="changed by another"):
        apply_edit(edit)
    assert file.read_text() == "name: store\n"
