from __future__ import annotations

import datetime
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import openpyxl
import pyarrow.parquet
import pytest

from seeknal.errors import ProjectError
from seeknal.workflow.results import RunResult
from seeknal.workflow.settled import settled_run
from tests.engine.workflow.projects import executed_in, run, write, write_project

Rows = Sequence[Sequence[Any]]


def book(path: Path, sheets: Mapping[str, Rows]) -> None:
    """Write a workbook."""
    path.parent.mkdir(parents=True, exist_ok=True)
    workbook = openpyxl.Workbook()
    workbook.remove(workbook.active)
    for name, rows in sheets.items():
        sheet = workbook.create_sheet(name)
        for number, row in enumerate(rows, 1):
            for column, value in enumerate(row, 1):
                if value is not None:
                    sheet.cell(number, column, value)
    workbook.save(path)


def project(root: Path, rows: Rows | Mapping[str, Rows], more: str = "", table: str = "data/x.xlsx") -> Path:
    book(root / "data/x.xlsx", rows if isinstance(rows, Mapping) else {"One": rows})
    return write_project(root, {"seeknal/s.yml": f"kind: source\nname: s\nsource: excel\ntable: {table}\n{more}"})


def rows_of(root: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pyarrow.parquet.read_table(root / "target/cache/source/s.parquet").to_pylist()
    return rows


def read(root: Path) -> list[dict[str, Any]]:
    assert run(root).status == "success"
    return rows_of(root)


def types(result: RunResult) -> dict[str, str]:
    artifact = result.nodes[0].artifact
    assert artifact is not None
    return artifact.schema()


def failure(root: Path) -> str:
    try:
        return str(run(root).problems()[0])
    except ProjectError as error:
        return str(error)


def test_types_come_from_the_values(tmp_path: Path) -> None:
    moment, day = datetime.datetime(2024, 1, 2, 3, 4, 5), datetime.date(2024, 1, 2)
    root = project(
        tmp_path,
        [
            [" id ", "amount", "at", "day", "time", "ok", "text", "mixed", "nothing", "long"],
            [1, 1, moment, day, datetime.time(1, 2, 3), True, "001", "a", None, datetime.timedelta(hours=30)],
            [2, 1.5, day, day, None, False, "b", 3, None, None],
        ],
    )
    result = run(root)
    assert types(result) == {
        "id": "BIGINT",
        "amount": "DOUBLE",
        "at": "TIMESTAMP",
        "day": "DATE",
        "time": "TIME",
        "ok": "BOOLEAN",
        "text": "VARCHAR",
        "mixed": "VARCHAR",
        "nothing": "VARCHAR",
        "long": "INTERVAL",
    }
    first, second = rows_of(root)
    assert (first["at"], second["at"]) == (moment, datetime.datetime(2024, 1, 2))
    assert (first["text"], first["mixed"], second["mixed"]) == ("001", "a", "3")


def test_empty_rows_and_columns_are_left_out(tmp_path: Path) -> None:
    root = project(tmp_path, [[], [None, "a", None, "b"], [None, 1, None, 2], [], [None, 3, None, None], [None, None]])
    assert read(root) == [{"a": 1, "b": 2}, {"a": 3, "b": None}]


def test_schema_is_the_contract(tmp_path: Path) -> None:
    schema = "schema: [{name: b, data_type: string}, {name: a, data_type: integer}]\n"
    assert read(project(tmp_path, [["a", "b", "c"], [1.0, 2, 3]], schema)) == [{"b": "2", "a": 1}]


@pytest.mark.parametrize(
    ("type_", "value", "shown"),
    [
        ("integer", "x", "'x'"),
        ("integer", 1.5, "'1.5'"),
        ("integer", datetime.date(2024, 1, 2), "'2024-01-02'"),
        ("date", 45000, "'45000'"),
        ("date", datetime.datetime(2024, 1, 2, 3, 4), "'2024-01-02 03:04:00'"),
        ("boolean", 2, "'2'"),
        ("timestamp", True, "'true'"),
    ],
)
def test_value_that_does_not_fit_is_named_with_its_row(tmp_path: Path, type_: str, value: Any, shown: str) -> None:
    schema = f"schema: [{{name: a, data_type: {type_}}}]\n"
    root = project(tmp_path, [["a"], [], [None], [value]], schema)
    assert failure(root) == (
        f"data/x.xlsx:4: source.s: column 'a' is declared {type_}, but row 4 of sheet 'One' has {shown}"
        " (correct the value, or the data_type of the column)"
    )


def test_error_of_a_formula_is_null(tmp_path: Path) -> None:
    root = project(tmp_path, [["a", "b"], [1, "#N/A"]], "schema: [{name: b, data_type: float}]\n")
    assert read(root) == [{"b": None}]


def test_missing_column_is_named_with_those_there_are(tmp_path: Path) -> None:
    root = project(tmp_path, [["id", "amount"], [1, 2]], "schema: [{name: amuont, data_type: float}]\n")
    assert "column 'amuont' declared in schema but not found in data/x.xlsx; the file has: id, amount" in failure(root)


class TestParams:
    def test_sheet_is_chosen_by_name_or_number(self, tmp_path: Path) -> None:
        sheets = {"One": [["a"], [1]], "Two": [["a"], [2]]}
        for more, expected in (("", 1), ("params: {sheet_name: Two}\n", 2), ("params: {sheet_name: 1}\n", 2)):
            assert read(project(tmp_path, sheets, more)) == [{"a": expected}]

    def test_sheet_that_is_not_there_is_answered_with_those_there_are(self, tmp_path: Path) -> None:
        root = project(tmp_path, [["a"]], "params: {sheet_name: Tow}\n")
        assert "there is no sheet 'Tow'; the file has: One" in failure(root)

    def test_rows_are_skipped_and_counted_from_the_top(self, tmp_path: Path) -> None:
        root = project(tmp_path, [["title"], [], ["a", "b"], [1, 2]], "params: {skip: 2}\n")
        assert read(root) == [{"a": 1, "b": 2}]

    def test_without_header_columns_have_numbers_or_the_names_of_the_schema(self, tmp_path: Path) -> None:
        rows, params = [[1, "x"], [2, "y"]], "params: {header: false}\n"
        assert read(project(tmp_path, rows, params)) == [
            {"column0": 1, "column1": "x"},
            {"column0": 2, "column1": "y"},
        ]
        schema = "schema: [{name: id, data_type: integer}, {name: b, data_type: string}]\n"
        assert read(project(tmp_path, rows, params + schema))[1] == {"id": 2, "b": "y"}
        schema = "schema: [{name: id, data_type: integer}]\n"
        assert "no header and 2 columns, but schema declares 1" in failure(project(tmp_path, rows, params + schema))

    @pytest.mark.parametrize(
        ("params", "said"),
        [
            ("{header: 1}", "param 'header' must be true or false, not 1"),
            ("{skip: -1}", "param 'skip' must be a number of rows, not -1"),
            ("{sheet_name: [a]}", "param 'sheet_name' must be a name, or a number from 0"),
            ("{sheetname: a}", "unknown param 'sheetname' of a excel source (did you mean 'sheet_name'?)"),
        ],
    )
    def test_wrong_param_is_an_error(self, tmp_path: Path, params: str, said: str) -> None:
        assert said in failure(project(tmp_path, [["a"], [1]], f"params: {params}\n"))


class TestFiles:
    def test_files_of_a_pattern_follow_each_other(self, tmp_path: Path) -> None:
        root = project(tmp_path, [["a", "b"], [1, "x"]], table="data/*.xlsx")
        book(root / "data/y.xlsx", {"One": [["b", "a"], ["y", 2.5]]})
        assert read(root) == [{"a": 1.0, "b": "x"}, {"a": 2.5, "b": "y"}]
        write(root, "seeknal/s.yml", (root / "seeknal/s.yml").read_text() + "schema: [{name: a, data_type: integer}]\n")
        assert failure(root).startswith("data/y.xlsx:2: source.s: column 'a' is declared integer, but row 2 of sheet")

    def test_files_of_other_columns_are_refused(self, tmp_path: Path) -> None:
        root = project(tmp_path, [["a", "b"], [1, 1]], table="data/*.xlsx")
        book(root / "data/y.xlsx", {"One": [["a"], [1]]})
        assert "column 'b' of data/x.xlsx not found; the sheet has: a" in failure(root)
        book(root / "data/y.xlsx", {"One": [["a", "b", "c"], [1, 1, 1]]})
        assert "the sheet has column 'c', which data/x.xlsx has not" in failure(root)

    def test_only_new_content_is_read_again(self, tmp_path: Path) -> None:
        root = project(tmp_path, [["a"], [1]])
        assert executed_in(root) == ["s"]
        assert executed_in(root) == []
        assert settled_run(root, publish=True) is not None
        book(root / "data/x.xlsx", {"One": [["a"], [2]]})
        assert settled_run(root, publish=True) is None
        assert executed_in(root) == ["s"]
        assert rows_of(root) == [{"a": 2}]

    @pytest.mark.parametrize("content", [b"no", b"PK\x03\x04 cut off", b"", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1 old"])
    def test_what_is_no_spreadsheet_is_said_so(self, tmp_path: Path, content: bytes) -> None:
        root = project(tmp_path, [["a"], [1]])
        (root / "data/x.xlsx").write_bytes(content)
        assert "data/x.xlsx: source.s: the file cannot be read as a spreadsheet" in failure(root)

    def test_empty_sheet_and_alike_names_are_errors(self, tmp_path: Path) -> None:
        assert "sheet 'One' is empty" in failure(project(tmp_path, []))
        assert "two columns are called 'A'" in failure(project(tmp_path, [["a", "A"], [1, 2]]))

    def test_header_alone_is_a_table_without_rows(self, tmp_path: Path) -> None:
        assert read(project(tmp_path, [["a"]])) == []


def test_missing_reader_is_said_with_the_command_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = project(tmp_path, [["a"], [1]])
    monkeypatch.setitem(sys.modules, "python_calamine", None)
    assert (
        failure(root) == "seeknal/s.yml:3:1: reading spreadsheets needs python-calamine (pip install 'seeknal[excel]')"
    )
