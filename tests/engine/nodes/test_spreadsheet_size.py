"""A spreadsheet that nobody's memory can hold is refused before it is opened."""

from __future__ import annotations

import zipfile
from pathlib import Path

import openpyxl
import pytest

from seeknal.nodes import spreadsheet_size
from seeknal.nodes.spreadsheet_size import too_large, too_large_unpacked
from tests.engine.workflow.projects import run, write_project

SOURCE = "kind: source\nname: budget\nsource: excel\ntable: data/budget.xlsx\n"


def workbook(path: Path, *, stray: bool) -> Path:
    book = openpyxl.Workbook()
    sheet = book.active
    assert sheet is not None
    sheet.append(["id"])
    sheet.append([1])
    other = book.create_sheet("A & B's")
    other["A1"] = "id"
    if stray:
        other.cell(row=1_048_576, column=16_384, value=5)
    path.parent.mkdir(parents=True, exist_ok=True)
    book.save(path)
    return path


def test_a_stray_cell_at_the_end_of_a_sheet_is_refused_with_the_name_of_the_sheet(tmp_path: Path) -> None:
    file = str(workbook(tmp_path / "a.xlsx", stray=True))
    assert too_large(file, "Sheet") is None
    said = "the cells of sheet 'A & B's' reach to row 1,048,576 and column 16,384, which are too many"
    assert too_large(file, "A & B's") == said
    assert too_large(file, "none") is None
    assert too_large(str(workbook(tmp_path / "b.xlsx", stray=False)), "A & B's") is None


def test_a_run_survives_it(tmp_path: Path) -> None:
    write_project(tmp_path, {"seeknal/budget.yml": SOURCE + 'params: {sheet_name: "A & B\'s"}\n'})
    workbook(tmp_path / "data/budget.xlsx", stray=True)
    with pytest.raises(Exception, match="reach to row 1,048,576") as raised:
        run(tmp_path)
    assert "data/budget.xlsx" in str(raised.value)
    (tmp_path / "seeknal/budget.yml").write_text(SOURCE)
    assert run(tmp_path).status == "success"


def test_an_archive_that_is_much_larger_unpacked_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = workbook(tmp_path / "a.xlsx", stray=False)
    with zipfile.ZipFile(file, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("xl/media/zeros", bytes(3_000_000))
    monkeypatch.setattr(spreadsheet_size, "MOST_BYTES", 1_000_000)
    said = too_large_unpacked(str(file))
    assert said is not None
    assert "unpacked" in said


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04" + b"x" * 100, b"\xd0\xcf\x11\xe0" + bytes(600)])
def test_of_what_is_no_such_archive_nothing_is_said(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.xlsx").write_bytes(data)
    assert too_large(str(tmp_path / "a.xlsx"), "Sheet") is None
    assert too_large_unpacked(str(tmp_path / "a.xlsx")) is None
