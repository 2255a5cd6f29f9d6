from __future__ import annotations

from pathlib import Path

import pytest

from seeknal.dag.project import Project, ProjectSettings, find_root, node_files
from seeknal.errors import NotFoundError, ProjectError


def write(root: Path, text: str) -> Path:
    (root / "seeknal_project.yml").write_text(text, encoding="utf-8")
    return root


def said(root: Path) -> list[str]:
    with pytest.raises(ProjectError) as caught:
        Project.open(root)
    return [str(problem) for problem in caught.value.problems()]


def test_settings_are_read_from_the_project_file(tmp_path: Path) -> None:
    project = Project.open(write(tmp_path, "name: shop\nversion: 2.0.1\nconfig-version: 1\nstrict: true\n"))
    assert project.settings == ProjectSettings(name="shop", version="2.0.1", strict=True)
    assert (project.name, project.root, project.warnings) == ("shop", tmp_path.resolve(), ())


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n", "null\n"])
def test_an_empty_project_file_means_defaults_and_the_folders_name(tmp_path: Path, text: str) -> None:
    project = Project.open(write(tmp_path, text))
    assert project.settings == ProjectSettings()
    assert project.name == tmp_path.name


def test_a_folder_of_nodes_alone_is_a_project(tmp_path: Path) -> None:
    (tmp_path / "seeknal").mkdir()
    assert Project.open(tmp_path).name == tmp_path.name


def test_any_other_folder_is_none(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="is not a Seeknal project") as caught:
        Project.open(tmp_path)
    assert "seeknal init" in caught.value.hint


def test_a_version_may_look_like_a_number(tmp_path: Path) -> None:
    assert Project.open(write(tmp_path, "version: '2'")).settings.version == "2"
    assert Project.open(write(tmp_path, "version: 2")).settings.version == "2"
    assert Project.open(write(tmp_path, "version: 1.5")).settings.version == "1.5"


def test_all_that_is_wrong_with_settings_is_said_at_once(tmp_path: Path) -> None:
    write(tmp_path, "nam: shop\nstrict: maybe\nprofile: [a]\nconfig-version: x\n")
    assert said(tmp_path) == [
        "seeknal_project.yml:1:1: unknown setting 'nam' (did you mean 'name'?)",
        "seeknal_project.yml:2:1: setting 'strict': expected true or false, got text",
        "seeknal_project.yml:3:1: setting 'profile': expected text, got a list",
        "seeknal_project.yml:4:1: setting 'config-version': expected a whole number, got text",
    ]


def test_a_setting_that_looks_like_none_is_a_warning_or_under_strict_an_error(tmp_path: Path) -> None:
    project = Project.open(write(tmp_path, "name: x\nweather: fine\n"))
    assert [str(warning) for warning in project.warnings] == ["seeknal_project.yml:2:1: unknown setting 'weather'"]
    write(tmp_path, "strict: true\nweather: fine\n")
    assert said(tmp_path) == ["seeknal_project.yml:2:1: unknown setting 'weather'"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("name: [x", "seeknal_project.yml:1:9: is not valid YAML"),
        ("name: x\nname: y", "seeknal_project.yml:2:1: 'name' is given twice"),
        ("- name", "seeknal_project.yml:1:1: the project file must be a mapping of settings"),
        ("shop", "seeknal_project.yml:1:1: the project file must be a mapping of settings"),
        ("name: x\n---\nstrict: true", "seeknal_project.yml:3:1: the project file has a second document"),
    ],
)
def test_a_project_file_that_is_no_mapping_is_refused(tmp_path: Path, text: str, problem: str) -> None:
    found = said(write(tmp_path, text))
    assert len(found) == 1
    assert found[0].startswith(problem)


def test_the_root_is_found_from_any_folder_below(tmp_path: Path) -> None:
    deep = tmp_path / "seeknal" / "sources"
    deep.mkdir(parents=True)
    write(tmp_path, "name: x")
    assert find_root(deep) == tmp_path.resolve()
    (tmp_path / "seeknal_project.yml").unlink()
    assert find_root(deep) == deep.resolve()


def test_production_stands_directly_below_target(tmp_path: Path) -> None:
    project = Project(tmp_path)
    assert project.environment_folder("prod") == tmp_path / "target"
    assert project.environment_folder("dev") == tmp_path / "target" / "environments" / "dev"
    assert project.store().root == tmp_path / "target" / "store"


def test_node_files_are_found_in_every_folder_but_the_shared_ones(tmp_path: Path) -> None:
    names = [
        "b.yml",
        "a.yaml",
        "deep/er/c.yml",
        "deep/common/d.yml",
        "common/sources.yml",
        "templates/x.yml",
        ".hidden.yml",
        ".git/x.yml",
        "x.YML",
        "x.txt",
        "common.yml",
    ]
    for name in names:
        path = tmp_path / "seeknal" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    (tmp_path / "seeknal" / "folder.yml").mkdir()
    (tmp_path / "seeknal" / "broken.yml").symlink_to(tmp_path / "nowhere")
    # Who reads that one says what is wrong with it; without it its nodes would be gone.
    in_yaml, in_python = node_files(Project(tmp_path))
    found = [Path(path).relative_to(tmp_path / "seeknal").as_posix() for path in in_yaml]
    assert found == [
        "a.yaml",
        "b.yml",
        "broken.yml",
        "common.yml",
        "deep/common/d.yml",
        "deep/er/c.yml",
    ]
    assert in_python == []
    assert node_files(Project(tmp_path / "none")) == ([], [])
