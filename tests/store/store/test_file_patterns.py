"""A pattern means what Python's glob says it means; but links lead nobody in circles, and no file counts twice."""

from __future__ import annotations

import glob
import os
from pathlib import Path

import pytest

from seeknal.store import file_patterns
from seeknal.store.file_patterns import matching_files


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in ("a.csv", "x/b.csv", "x/y/c.csv", "x/y/.hidden/d.csv", "x/.e.csv", "z/a.csv", "z/f.txt", "x[1]/g.csv"):
        file = tmp_path / "data" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("")
    return tmp_path / "data"


@pytest.mark.parametrize(
    "pattern",
    ["*.csv", "**/*.csv", "**", "x/**", "**/y/*.csv", "**/**/c.csv", "x/**/c.csv", "*/*.csv", "**/x/**/*.csv",
     "[xz]/**/*", "no/**/*.csv", "x/b.csv", "**/a.csv", "x[[]1]/*.csv", "?/**/?.csv", ".hidden/**"],
)  # fmt: skip
def test_a_pattern_means_what_globs_mean(tree: Path, pattern: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def files(paths: list[str]) -> list[str]:
        return sorted({os.path.normpath(path) for path in paths if os.path.isfile(path)})

    absolute = os.path.join(glob.escape(str(tree)), pattern)
    assert files(matching_files(absolute)) == files(glob.glob(absolute, recursive=True))
    monkeypatch.chdir(tree)
    assert files(matching_files(pattern)) == files(glob.glob(pattern, recursive=True))


def test_links_lead_nobody_in_circles_and_no_file_counts_twice(tree: Path) -> None:
    before = matching_files(f"{tree}/**/*.csv")
    for name in ("up", "x/up", "x/y/up", "z/up", "latest"):
        os.symlink(tree if name != "latest" else tree / "x", tree / name)
    assert matching_files(f"{tree}/**/*.csv") == before


def test_links_to_folders_elsewhere_are_followed(tree: Path) -> None:
    other = tree.parent / "other"
    other.mkdir()
    (other / "h.csv").write_text("")
    os.symlink(other, tree / "linked")
    assert str(tree / "linked/h.csv") in matching_files(f"{tree}/**/*.csv")


def test_a_pattern_that_is_the_whole_disk_ends(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_patterns, "MOST_FOLDERS", 3)
    with pytest.raises(OSError, match="more than 3 folders"):
        matching_files(f"{tree}/**/*.csv")
