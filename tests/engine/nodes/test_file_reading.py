from __future__ import annotations

import gzip
import random
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import duckdb
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from seeknal.errors import NodeFailedError, Place, ProjectError, SeeknalError
from seeknal.nodes.file_reading import (
    ColumnDeclaration,
    ReadRequest,
    explain_failure,
    output_columns,
    read_query,
)

Schema = Sequence[tuple[str, str]]
ORDERS: Schema = (("id", "integer"), ("name", "string"))


class Folder:
    """A folder of data files, and the reading of them as a source reads them."""

    def __init__(self, root: Path, connection: duckdb.DuckDBPyConnection) -> None:
        self.root = root
        (root / "data").mkdir()
        self.connection = connection

    def write(self, name: str, content: str | bytes) -> str:
        path = self.root / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return name

    def parquet(self, name: str, query: str) -> str:
        self.connection.execute(f"COPY ({query}) TO '{self.root / 'data' / name}' (FORMAT parquet)")
        return name

    def request(self, names: str | Sequence[str], schema: Schema | None = None, **params: Any) -> ReadRequest:
        names = [names] if isinstance(names, str) else list(names)
        kind = Path(names[0].removesuffix(".gz")).suffix[1:]
        declared = None if schema is None else tuple(ColumnDeclaration(*entry) for entry in schema)
        return ReadRequest(
            kind, tuple(str(self.root / "data" / name) for name in names), params, declared, str(self.root)
        )

    def read(self, names: str | Sequence[str], schema: Schema | None = None, **params: Any) -> list[tuple[Any, ...]]:
        """Read the rows; what the query yields must be what output_columns announced."""
        request = self.request(names, schema, **params)
        columns = output_columns(self.connection, request)
        try:
            result = self.connection.execute(read_query(self.connection, request))
            assert [(name, str(type_)) for name, type_, *_ in result.description or ()] == list(columns)
            return result.fetchall()
        except duckdb.Error as error:
            raise explain_failure(error, request) from error

    def columns(self, names: str | Sequence[str], schema: Schema | None = None, **params: Any) -> dict[str, str]:
        return dict(output_columns(self.connection, self.request(names, schema, **params)))

    def failure(self, names: str | Sequence[str], schema: Schema | None = None, **params: Any) -> SeeknalError:
        with pytest.raises(SeeknalError) as caught:
            self.read(names, schema, **params)
        assert "\n" not in caught.value.message
        return caught.value


@pytest.fixture(scope="module")
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as connection:
        yield connection


@pytest.fixture
def folder(tmp_path: Path, connection: duckdb.DuckDBPyConnection) -> Folder:
    connection.execute("SET threads = 2")
    return Folder(tmp_path, connection)


# the contract of a schema


def test_declared_columns_come_in_their_order_and_types_and_others_are_left_out(folder: Folder) -> None:
    folder.write("orders.csv", "name,extra,id,price,day\nx,?,1,2.50,2024-01-10\n")
    schema = (("id", "integer"), ("day", "date"), ("price", "decimal(10,2)"), ("name", "string"))
    assert folder.columns("orders.csv", schema) == {
        "id": "BIGINT", "day": "DATE", "price": "DECIMAL(10,2)", "name": "VARCHAR"
    }  # fmt: skip
    (row,) = folder.read("orders.csv", schema)
    assert [str(value) for value in row] == ["1", "2024-01-10", "2.50", "x"]


def test_declared_column_that_the_file_lacks_names_both_sides(folder: Folder) -> None:
    folder.write("orders.csv", "order_id,customer_id,product_id\n1,2,3\n")
    schema = (("order_id", "integer"), ("cust_id", "integer"), ("zzz", "date"))
    error = folder.failure("orders.csv", schema)
    assert isinstance(error, ProjectError)
    first, second = error.problems()
    assert first.message == (
        "column 'cust_id' declared in schema but not found in data/orders.csv; "
        "the file has: order_id, customer_id, product_id"
    )
    assert first.place == Place("data/orders.csv", 1)
    assert first.hint == "did you mean 'customer_id'?"
    assert "'zzz'" in second.message


def test_column_name_that_differs_in_case_is_found_and_spelled_as_declared(folder: Folder) -> None:
    folder.write("a.csv", "ID,Name\n1,x\n")
    assert folder.columns("a.csv", ORDERS) == {"id": "BIGINT", "name": "VARCHAR"}
    assert folder.read("a.csv", ORDERS) == [(1, "x")]


def test_schema_with_unknown_types_and_repeated_names_reports_every_problem(folder: Folder) -> None:
    folder.write("a.csv", "a\n1\n")
    error = folder.failure("a.csv", (("a", "intger"), ("A", "float"), ("b", "decimal(99,1)")))
    assert [problem.message for problem in error.problems()] == [
        "column 'a' has an unknown data_type 'intger'",
        "column 'A' is declared twice in schema",
        "column 'b' has an unknown data_type 'decimal(99,1)'",
    ]
    assert error.hint == "did you mean 'integer'?"


def test_known_columns_spare_a_second_look_at_the_file(folder: Folder) -> None:
    folder.write("a.csv", "a,b\n1,x\n")
    known = (("b", "VARCHAR"), ("a", "INTEGER"))
    request = ReadRequest("csv", (str(folder.root / "data/a.csv"),), columns=known)
    assert output_columns(folder.connection, request) == known
    assert folder.connection.execute(read_query(folder.connection, request)).fetchall() == [("x", 1)]


# which file


def test_missing_file_is_named_with_the_nearest_that_exists(folder: Folder) -> None:
    folder.write("orders.csv", "a\n1\n")
    error = folder.failure("order.csv", ORDERS)
    assert isinstance(error, NodeFailedError)
    assert str(error) == "data/order.csv: the file does not exist (did you mean 'data/orders.csv'?)"


def test_missing_folder_and_folder_in_place_of_a_file_are_told_apart(folder: Folder) -> None:
    assert folder.failure("nowhere/a.csv", ORDERS).hint == "there is no folder data/nowhere either"
    (folder.root / "data/folder.csv").mkdir()
    assert "folder, not a file" in folder.failure("folder.csv", ORDERS).message


def test_file_outside_the_root_is_shown_by_its_whole_path(folder: Folder) -> None:
    request = ReadRequest("csv", ("/nowhere/a.csv",), {}, None, str(folder.root))
    with pytest.raises(NodeFailedError) as caught:
        output_columns(folder.connection, request)
    assert caught.value.place == Place("/nowhere/a.csv")


@pytest.mark.parametrize(
    "name", ["a*.csv", "a?.csv", "a[x].csv", "[!a].csv", "**.csv", "it's.csv", "a b.csv", "é.csv", 'q".csv', "d*/a.csv"]
)
def test_no_character_of_a_path_is_a_pattern(folder: Folder, name: str) -> None:
    for decoy in ("ax.csv", "ab.csv", "x.csv", "dx/a.csv"):
        folder.write(decoy, "id,name\n0,decoy\n")
    folder.write(name, "id,name\n1,right\n")
    assert folder.read(name, ORDERS) == [(1, "right")]
    folder.write(name, "id,name\nwrong,right\n")
    assert folder.failure(name, ORDERS).place == Place(f"data/{name}", 2)


def test_folder_name_that_looks_like_a_partition_adds_no_column(folder: Folder) -> None:
    folder.write("year=2024/a.csv", "a\n1\n")
    folder.write("year=2024/a.json", '[{"a": 1}]')
    folder.parquet("a.parquet", "SELECT 1::BIGINT AS a")
    (folder.root / "data/a.parquet").rename(folder.root / "data/year=2024/a.parquet")
    for kind in ("csv", "json", "parquet"):
        assert folder.columns(f"year=2024/a.{kind}") == {"a": "BIGINT"}
        assert folder.read(f"year=2024/a.{kind}") == [(1,)]


def test_names_in_the_callers_python_are_not_read(folder: Folder) -> None:
    orders = folder.connection.sql("SELECT 'from Python' AS id")
    folder.write("orders.csv", "id\norders\n")
    assert folder.read("orders.csv", (("id", "string"),)) == [("orders",)]
    assert orders is not None


def test_unknown_format_is_an_error_of_the_project(folder: Folder) -> None:
    folder.write("a.cvs", "a\n1\n")
    error = folder.failure("a.cvs", ORDERS)
    assert isinstance(error, ProjectError)
    assert error.hint.startswith("did you mean 'csv'")


# CSV: how the file is written


@pytest.mark.parametrize(
    ("content", "params"),
    [
        (b"id,name\n1,x\n2,y\n", {}),
        (b"id,name\n1,x\n2,y", {}),
        (b"\xef\xbb\xbfid,name\n1,x\n2,y\n", {}),
        (b'\xef\xbb\xbf"id","name"\n1,x\n2,y\n', {}),
        (b"id,name\r\n1,x\r\n2,y\r\n", {}),
        (b"\n\nid,name\n\n1,x\n\n2,y\n\n", {}),
        (b" id , name\n1,x\n2,y\n", {}),
        (b"id,name,\n1,x,\n2,y,\n", {}),
        (b"id;name\n1;x\n2;y\n", {"delimiter": ";"}),
        (b"id\tname\n1\tx\n2\ty\n", {"delim": "\\t"}),
        (b"id||name\n1||x\n2||y\n", {"delimiter": "||"}),
        (b"'id','name'\n'1','x'\n2,'y'\n", {"quote": "'"}),
        (b"# one\n# two\n\nid,name\n1,x\n2,y\n", {"skip": 2}),
        (b"1,x\n2,y\n", {"header": False}),
        (b"junk\n1,x\n2,y\n", {"header": False, "skip": 1}),
        ("id,name\n1,x\n2,y\n".encode("utf-16"), {"encoding": "UTF-16"}),
    ],
)
def test_same_rows_however_they_are_written(folder: Folder, content: bytes, params: dict[str, Any]) -> None:
    folder.write("a.csv", content)
    assert folder.read("a.csv", ORDERS, **params) == [(1, "x"), (2, "y")]
    if params.get("header", True):
        assert folder.read("a.csv", None, **params) == [(1, "x"), (2, "y")]


def test_unquoted_empty_field_is_null_and_quoted_is_empty_text_but_no_number(folder: Folder) -> None:
    folder.write("a.csv", 'id,name\n1,\n,""\n"",x\n')
    assert folder.read("a.csv", ORDERS) == [(1, None), (None, ""), (None, "x")]


def test_null_texts_are_null_beside_the_empty_field(folder: Folder) -> None:
    folder.write("a.csv", 'id,name\nNA,NA\n"NA","NA"\n,-\n')
    assert folder.read("a.csv", ORDERS, nullstr=["NA", "-"]) == [(None, None), (None, "NA"), (None, None)]


def test_quoted_line_breaks_delimiters_and_quotes_are_part_of_the_value(folder: Folder) -> None:
    folder.write("a.csv", 'id,name\n1,"x\n2,y\r\n"\n3,"say ""hi"", you"\n4,5"\n')
    assert folder.read("a.csv", ORDERS) == [(1, "x\n2,y\r\n"), (3, 'say "hi", you'), (4, '5"')]
    folder.write("a.csv", '"id" , "name"\n"1" , "a, b" \n')
    assert folder.read("a.csv", ORDERS) == [(1, "a, b")]
    folder.write("a.csv", 'id,name\n1,"x\\"y"\n')
    assert folder.read("a.csv", ORDERS, escape="\\") == [(1, 'x"y')]
    folder.write("a.csv", 'id,name\n1,"x\n')
    assert folder.read("a.csv", ORDERS, quote="") == [(1, '"x')]


def test_latin_1_is_read_when_it_is_said_and_refused_when_not(folder: Folder) -> None:
    folder.write("a.csv", b"id,name\n1,x\n2,caf\xe9\n")
    assert folder.read("a.csv", ORDERS, encoding="ISO-8859-1") == [(1, "x"), (2, "café")]
    error = folder.failure("a.csv", ORDERS)
    assert error.place == Place("data/a.csv", 3)
    assert "UTF-8" in error.message
    assert "params.encoding" in error.hint
    folder.write("a.csv", b"id,caf\xe9\n1,x\n")
    assert folder.failure("a.csv").place == Place("data/a.csv", 1)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("id,name\n".encode("utf-16"), "UTF-16"),
        (b"\xfe\xff" + "id,name\n1,x\n".encode("utf-16-be"), "big-endian"),
        (gzip.compress(b"id,name\n1,x\n", mtime=0), "gzip"),
        (b"PAR1....PAR1", "Parquet"),
    ],
)
def test_other_kind_of_file_is_named_for_what_it_is(folder: Folder, content: bytes, said: str) -> None:
    folder.write("a.csv", content)
    assert said in folder.failure("a.csv", ORDERS).message


def test_compressed_file_is_read_by_its_ending_and_a_cut_one_fails(folder: Folder) -> None:
    rows = "id,name\n" + "".join(f"{number},{random.Random(number).random()}\n" for number in range(5000))
    content = gzip.compress(rows.encode())
    folder.write("a.csv.gz", content)
    assert len(folder.read("a.csv.gz", ORDERS)) == 5000
    folder.write("a.csv.gz", content[:-20])
    assert folder.failure("a.csv.gz", ORDERS).place == Place("data/a.csv.gz")
    folder.write("a.csv.gz", gzip.compress(b"id,name\n1\n" + rows.encode())[:-20])
    assert folder.failure("a.csv.gz", ORDERS).place is not None
    folder.write("a.csv.gz", gzip.compress(b"id,name\n1,x\ny,z\n"))
    assert folder.failure("a.csv.gz", ORDERS).place == Place("data/a.csv.gz", 3)


def test_parameters_of_a_wrong_kind_are_all_reported(folder: Folder) -> None:
    folder.write("a.csv", "id,name\n1,x\n")
    error = folder.failure(
        "a.csv", ORDERS, delimiter="", delim=";", header="maybe", skip=-1, encoding="cp1252", nullstr=5, quote="''"
    )
    assert isinstance(error, ProjectError)
    text = str(error)
    for name in ("delimiter", "delim", "header", "skip", "encoding", "nullstr", "quote"):
        assert f"'{name}'" in text


# CSV: the header


def test_file_without_a_header_line_is_empty_and_one_without_rows_is_not(folder: Folder) -> None:
    for content in ("", "\n\n"):
        folder.write("a.csv", content)
        assert folder.failure("a.csv", ORDERS).message == "the file is empty: no header line"
        assert folder.failure("a.csv").message == "the file is empty: no header line"
    for content in ("id,name\n", "id,name"):
        folder.write("a.csv", content)
        assert folder.read("a.csv", ORDERS) == []
        assert folder.columns("a.csv") == {"id": "VARCHAR", "name": "VARCHAR"}


def test_header_name_that_stands_twice_is_an_error_where_it_is_read(folder: Folder) -> None:
    folder.write("a.csv", "id,name,id\n1,x,2\n")
    for schema in (None, ORDERS):
        error = folder.failure("a.csv", schema)
        assert error.message == "the header has 'id' more than once: columns 1 and 3"
        assert error.place == Place("data/a.csv", 1)
    assert folder.read("a.csv", (("name", "string"),)) == [("x",)]


def test_without_a_header_the_schema_names_the_columns_in_order(folder: Folder) -> None:
    folder.write("a.csv", "1,x\n2,y\n")
    assert folder.read("a.csv", ORDERS, header=False) == [(1, "x"), (2, "y")]
    assert folder.columns("a.csv", header=False) == {"column0": "BIGINT", "column1": "VARCHAR"}
    assert folder.read("a.csv", (("column1", "string"),), header=False) == [("x",), ("y",)]
    error = folder.failure("a.csv", (("a", "integer"), ("b", "string"), ("c", "string")), header=False)
    assert error.message == "the file has no header and 2 columns, but schema declares 3"
    folder.write("a.csv", "")
    assert folder.read("a.csv", ORDERS, header=False) == []
    folder.write("b.csv", "1,x\n")
    assert folder.read(["b.csv", "a.csv"], header=False) == [(1, "x")]
    assert folder.failure("a.csv", header=False).message == "the file is empty"


def test_column_names_with_quotes_and_other_letters_are_kept(folder: Folder) -> None:
    folder.write("a.csv", '"a ""b"" é",c\'d,列\n1,x,2\n')
    assert folder.columns("a.csv") == {'a "b" é': "BIGINT", "c'd": "VARCHAR", "列": "BIGINT"}
    assert folder.read("a.csv", (("列", "integer"), ('a "b" é', "float"))) == [(2, 1.0)]


def test_single_column_that_looks_like_several_asks_for_the_delimiter(folder: Folder) -> None:
    folder.write("a.csv", "id;name\n1;x\n")
    for schema in (None, ORDERS):
        assert folder.failure("a.csv", schema).hint.startswith("set params.delimiter to ';'")
    assert folder.columns("a.csv", delimiter=",") == {"id;name": "VARCHAR"}


def test_quote_in_the_skipped_lines_cannot_hide_the_header(folder: Folder) -> None:
    for skipped in ('x,"y\nz\n', '"x"y\nz\n', '"x\ny"\n'):
        folder.write("a.csv", f"{skipped}id,name\n1,x\n")
        assert folder.failure("a.csv", ORDERS, skip=2).place == Place("data/a.csv", 1)
    folder.write("a.csv", 'it"s\n"quoted",line\nid,name\n1,x\n')
    assert folder.read("a.csv", ORDERS, skip=2) == [(1, "x")]


@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("inner", ["\n", "\r\n", "\r"])
def test_line_break_within_the_first_line_is_not_taken_for_the_ending_of_lines(
    folder: Folder, ending: str, inner: str
) -> None:
    folder.write("a.csv", ending.join(["id,name", f'1,"x{inner}y"', "2,y", ""]))
    folder.write("b.csv", ending.join([f'id,"na{inner}me"', f'1,"x{inner}y"', "2,y", ""]))
    folder.write("c.csv", ending.join([f'1,"x{inner}y"', "2,y", ""]))
    expected = [(1, f"x{inner}y"), (2, "y")]
    assert folder.read("a.csv", ORDERS) == expected
    assert folder.read("b.csv") == expected
    assert folder.read("c.csv", ORDERS, header=False) == expected


@pytest.mark.parametrize(("usual", "other"), [("\n", "\r\n"), ("\r\n", "\n"), ("\n", "\r"), ("\r", "\r\n")])
@pytest.mark.parametrize("place", [2, 3, 4, 5])
def test_lines_that_end_differently_are_an_error_wherever_they_begin_to(
    folder: Folder, usual: str, other: str, place: int
) -> None:
    lines = ["skipped", "more to skip", "id,name", "1,x", "2,y"]
    folder.write("a.csv", "".join(line + (usual if number < place else other) for number, line in enumerate(lines, 1)))
    error = folder.failure("a.csv", ORDERS, skip=2)
    assert error.message == f"the line ends in {other!r}, those before it end in {usual!r}"
    assert error.place == Place("data/a.csv", place)


# CSV: rows that are wrong


@pytest.mark.parametrize(
    ("rows", "line", "said"),
    [
        ('1,"x\ny"\n2\n', 4, "the row has 1 field, but the header has 2"),
        ("1,x\n\n2,y,z\n", 4, "the row has 3 fields, but the header has 2"),
        ('1,x\n2,"y\n3,z\n', 3, "a quoted value does not end"),
        ('1,x\n2,"y"z\n3,z\n', 3, "a quoted value does not end"),
        ("1,x\n2,y\r\n3,z\n", 3, "the line ends in '\\r\\n', those before it end in '\\n'"),
        ('1,x\n2,"y"\r\n3,z\n', 3, "the line ends in '\\r\\n', those before it end in '\\n'"),
        ("1,x\n2," + "y" * 2_100_000 + "\n", 3, "longer than"),
    ],
)
def test_row_that_cannot_be_read_is_named_by_its_line(folder: Folder, rows: str, line: int, said: str) -> None:
    folder.write("a.csv", "id,name\n" + rows)
    error = folder.failure("a.csv", ORDERS)
    assert isinstance(error, NodeFailedError)
    assert said in error.message
    assert error.place == Place("data/a.csv", line)
    assert error.hint


@pytest.mark.parametrize(
    ("data_type", "value"),
    [
        ("integer", "foo"),
        ("integer", "1.5"),
        ("integer", "9223372036854775808"),
        ("float", "1,5"),
        ("boolean", "maybe"),
        ("date", "10/01/2024"),
        ("date", "2024-01-10 12:30:00"),
        ("timestamp", "yesterday"),
        ("decimal(5,2)", "12345.6"),
        ("json", "{oops"),
        ("integer[]", "[1, x]"),
    ],
)
def test_value_that_does_not_fit_names_line_row_column_and_value(folder: Folder, data_type: str, value: str) -> None:
    folder.write("a.csv", f'name,v\n"two\nlines",\n\nx,"{value}"\ny,"also wrong"\n')
    error = folder.failure("a.csv", (("v", data_type),))
    assert error.message == f"column 'v' is declared {data_type}, but row 2 has {value!r}"
    assert error.place == Place("data/a.csv", 5)
    assert "data_type" in error.hint


def test_type_guessed_from_the_first_rows_is_named_as_such_when_a_later_row_breaks_it(folder: Folder) -> None:
    folder.write("a.csv", "v\n" + "1\n" * 20_480 + "x\n")
    error = folder.failure("a.csv")
    assert error.message == "column 'v' is BIGINT after its first rows, but row 20481 has 'x'"
    assert error.place == Place("data/a.csv", 20_482)


def test_long_value_is_shown_shortened(folder: Folder) -> None:
    folder.write("a.csv", "v\n" + "x" * 5000 + "\n")
    assert len(folder.failure("a.csv", (("v", "integer"),)).message) < 200


def test_types_are_taken_from_the_rows_where_nothing_is_declared(folder: Folder) -> None:
    columns = {
        "BIGINT": ("1", "-2", "", "+3"),
        "DOUBLE": ("1", ".5", "-2e3", ""),
        "BOOLEAN": ("true", "FALSE", "", ""),
        "DATE": ("2024-01-10", "", "2024-02-29", ""),
        "TIMESTAMP": ("2024-01-10", "2024-01-10 12:30:00", "2024-01-10T12:30:00.5Z", "2024-01-10 12:30+02:00"),
        "TIME": ("12:30:00", "", "", "09:00"),
    }
    texts = {
        "zip": ("01234", "1", "2", "3"),
        "long": ("12345678901234567890", "1", "2", "3"),
        "day": ("2023-02-29", "", "", ""),
        "none": ("", "", "", ""),
        "mixed": ("1", "true", "", ""),
        "infinite": ("1e999", "1", "", ""),
        "spaced": (" 1", "2", "", ""),
    }
    rows = zip(*(columns | texts).values(), strict=True)
    folder.write("a.csv", "\n".join(",".join(row) for row in [tuple(columns | texts), *rows]) + "\n")
    expected = {name: name for name in columns} | dict.fromkeys(texts, "VARCHAR")
    assert folder.columns("a.csv") == expected
    assert len(folder.read("a.csv")) == 4


# several files


def test_files_are_matched_by_name_and_their_rows_come_in_order(folder: Folder) -> None:
    names = [
        folder.write("1.csv", "id,name\n1,a\n2,b\n"),
        folder.write("2.csv", "name,more,id\r\nc,?,3\r\n"),
        folder.write("3.csv", "id,name\n"),
        folder.write("4.csv", "id,name\n4,d\n"),
    ]
    assert folder.read(names, ORDERS) == [(1, "a"), (2, "b"), (3, "c"), (4, "d")]
    folder.write("2.csv", "name,id\nc,3\n")
    assert folder.read(names) == [(1, "a"), (2, "b"), (3, "c"), (4, "d")]
    folder.write("4.csv", "id,name\n4,d\nx,e\n")
    assert folder.failure(names, ORDERS).place == Place("data/4.csv", 3)


def test_rows_of_differing_files_keep_their_order_in_a_copy(folder: Folder) -> None:
    count = 130_000
    names = [
        folder.write("1.csv", "id,name\n" + "".join(f"{number},x\n" for number in range(count))),
        folder.write("2.csv", "name,id\n" + "".join(f"x,{number}\n" for number in range(count, 2 * count))),
    ]
    out = folder.root / "out.parquet"
    for threads in (1, 4):
        folder.connection.execute(f"SET threads = {threads}")
        query = read_query(folder.connection, folder.request(names, ORDERS))
        folder.connection.execute(f"COPY ({query}) TO '{out}' (FORMAT parquet)")
        rows = f"read_parquet('{out}', file_row_number=true)"
        found = folder.connection.execute(f"SELECT count(*) FILTER (id <> file_row_number), count(*) FROM {rows}")
        assert found.fetchone() == (0, 2 * count)


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_file_that_lacks_a_column_of_the_others_is_named(folder: Folder, kind: str) -> None:
    if kind == "csv":
        folder.write("1.csv", "id,name\n1,x\n")
        folder.write("2.csv", "id\n2\n")
    else:
        folder.parquet("1.parquet", "SELECT 1::BIGINT AS id, 'x' AS name")
        folder.parquet("2.parquet", "SELECT 2::BIGINT AS id")
    names = [f"1.{kind}", f"2.{kind}"]
    for schema, why in ((ORDERS, "declared in schema"), (None, "of the other files")):
        error = folder.failure(names, schema)
        assert f"column 'name' {why} but not found in data/2.{kind}" in error.message
    error = folder.failure(names[::-1])
    assert error.message == f"the file has column 'name', which data/2.{kind} has not"
    assert folder.read(names[::-1], ORDERS[:1]) == [(2,), (1,)]


# large CSV files


def large_values(seed: int) -> list[str]:
    """Values full of line breaks and quotes, among which DuckDB's guess where a record begins goes wrong."""
    chance = random.Random(seed)
    pools = (["\n", ",", '"', "1,x\n", '9999,"zz"\n', "ab"], ['"\n', '",\n"', "a\n"], ['","\n', '"7","x"\n'])
    values: list[str] = []
    while sum(map(len, values)) < 9_500_000:
        values.append("".join(chance.choices(chance.choice(pools), k=chance.choice([1000, 100_000, 200_000]))))
    return values


@pytest.mark.parametrize("seed", [0, 5])  # DuckDB's guess goes right and wrong
def test_large_file_with_quoted_line_breaks_is_read_whole_whatever_the_threads(folder: Folder, seed: int) -> None:
    values = large_values(seed)
    quoted = (f'{number},"{value.replace(chr(34), chr(34) * 2)}"' for number, value in enumerate(values))
    folder.write("a.csv", "id,name\n" + "\n".join(quoted) + "\n")
    for threads in (1, 4):
        folder.connection.execute(f"SET threads = {threads}")
        assert folder.read("a.csv", ORDERS) == list(enumerate(values))


@pytest.mark.parametrize("count", [3, 400_000])
def test_last_value_whose_quote_never_ends_loses_no_row_silently(folder: Folder, count: int) -> None:
    folder.write("a.csv", "id,name\n" + '1,"abcdefgh, abcdefgh"\n' * count + '2,"open\n3,x\n')
    error = folder.failure("a.csv", ORDERS)
    assert "quoted value does not end" in error.message
    assert error.place == Place("data/a.csv", count + 2)


def test_first_wrong_row_is_reported_whatever_the_threads(folder: Folder) -> None:
    rows = [f"{number},some text to fill the line" for number in range(300_000)]
    for wrong in (123_456, 250_000, 299_999):
        rows[wrong] = "x,y"
    folder.write("a.csv", "id,name\n" + "\n".join(rows) + "\n")
    for threads in (1, 4):
        folder.connection.execute(f"SET threads = {threads}")
        assert folder.failure("a.csv", ORDERS).place == Place("data/a.csv", 123_458)


def test_connection_that_gives_up_the_order_of_rows_is_refused(folder: Folder) -> None:
    folder.write("a.csv", "id,name\n1,x\n")
    request = folder.request("a.csv", ORDERS)
    with duckdb.connect() as careless:
        careless.execute("SET preserve_insertion_order = false")
        with pytest.raises(ValueError, match="preserve_insertion_order"):
            read_query(careless, request)


def test_no_setting_of_the_connection_is_changed(folder: Folder) -> None:
    folder.write("a.csv", "id,name\n1,x\n")
    folder.write("wrong.csv", "id,name\n1\n")
    folder.write("a.json", '[{"id": 1, "name": "x"}]')
    folder.parquet("a.parquet", "SELECT 1 AS id, 'x' AS name")
    query = "SELECT name, value FROM duckdb_settings() ORDER BY name"
    before = folder.connection.execute(query).fetchall()
    for kind in ("csv", "json", "parquet"):
        for schema in (ORDERS, None):
            read_query(folder.connection, folder.request(f"a.{kind}", schema))
    folder.failure("wrong.csv", ORDERS)
    assert folder.connection.execute(query).fetchall() == before


# JSON


@pytest.mark.parametrize(
    ("name", "content", "params"),
    [
        ("a.json", '[{"id": 1, "name": "x"},\n {"id": 2}]', {}),
        ("a.json", '[{"id": 1, "name": "x"},\n {"id": 2}]', {"format": "array"}),
        ("a.json", '\n [{"id": 1, "name": "x"}, {"name": null, "id": 2}]\n', {}),
        ("a.json", '{"id": 1, "name": "x"}\n\n{"id": 2, "more": [1]}\n', {}),
        ("a.json", '{"id": 1, "name": "x"}\n{"id": 2}', {"format": "newline"}),
        ("a.json", '{"id": 1,\n "name": "x"}\n{"id": 2}', {}),
        ("a.json", '\ufeff{"id": 1, "name": "x"}\n{"id": 2}\n', {}),
        ("a.json", '\ufeff[{"id": 1, "name": "x"}, {"id": 2}]', {}),
        ("a.jsonl", '\ufeff{"id": 1, "name": "x"}\n{"id": 2}\n', {}),
        ("a.jsonl", '{"id": 1, "name": "x"}\r\n{"id": "2"}\r\n', {}),
    ],
)
def test_same_rows_in_every_layout_of_json(folder: Folder, name: str, content: str, params: dict[str, Any]) -> None:
    folder.write(name, content)
    assert folder.read(name, ORDERS, **params) == [(1, "x"), (2, None)]
    folder.write(name + ".gz", gzip.compress(content.encode()))
    assert folder.read(name + ".gz", ORDERS, **params) == [(1, "x"), (2, None)]


@pytest.mark.parametrize(
    ("name", "content", "place", "said"),
    [
        ("a.json", '[{"id": 1, "name": "x"},\n {"id": 2}\n{"id": 3}]', (3, 1), "',' or ']' is missing"),
        ("a.json", '[{"id": 1, "name": "x"},\n {"id": 2', (2, 10), "the file ends too early"),
        ("a.json", '[{"id": 1, "name": "x"}]\n x', (2, 2), "text follows the array"),
        ("a.json", "hello", (1, 1), "malformed"),
        ("a.json", '{"id": 1,\n "name": x}', (2, 10), "malformed"),
        ("a.jsonl", '{"id": 1, "name": "x"}\n\n{"id":\n{}\n', (3, 7), "the line ends too early"),
        ("a.json", "[1, 2]", (1, 0), "a row must be an object, not a number"),
        ("a.jsonl", '{"id": 1, "name": "x"}\n["a"]\n', (2, 0), "a row must be an object, not an array"),
        ("a.json", '[{"id": 1, "name": "x"},\n{"id": 1, "id": 2}]', (2, 0), "the row has key 'id' twice"),
        ("a.jsonl", '[{"id": 1}]', (1, 0), "the file holds an array"),
        ("a.json", "", (0, 0), "the file is empty: no JSON"),
    ],
)
def test_malformed_json_names_file_and_line(
    folder: Folder, name: str, content: str, place: tuple[int, int], said: str
) -> None:
    folder.write(name, content)
    for schema in (ORDERS, None):
        error = folder.failure(name, schema)
        assert isinstance(error, NodeFailedError)
        assert said in error.message
        assert error.place == Place(f"data/{name}", *place)


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.json", '[{"id": 1},\n\n{"id": VALUE}]'), ("a.jsonl", '{"id": 1}\n\n{"id": VALUE}\n{"id": "z"}\n')],
)
@pytest.mark.parametrize(("value", "shown"), [('"foo"', "'foo'"), ("1.5", "'1.5'"), ("true", "'true'")])
def test_json_value_that_does_not_fit_names_line_row_column_and_value(
    folder: Folder, name: str, content: str, value: str, shown: str
) -> None:
    folder.write(name, content.replace("VALUE", value))
    error = folder.failure(name, ORDERS[:1])
    assert error.message == f"column 'id' is declared integer, but row 2 has {shown}"
    assert error.place == Place(f"data/{name}", 3)


def test_json_column_that_no_row_has_is_an_error_and_one_that_some_lack_is_null_there(folder: Folder) -> None:
    folder.write("1.jsonl", '{"ident": 1, "name": "x"}\n')
    folder.write("2.jsonl", '{"name": "y"}\n' * 1500 + '{"Id": 7}\n')
    error = folder.failure("1.jsonl", ORDERS)
    assert error.message == "column 'id' declared in schema but not found in data/1.jsonl; the file has: ident, name"
    rows = folder.read(["1.jsonl", "2.jsonl"], ORDERS)
    assert rows[:2] == [(None, "x"), (None, "y")]
    assert rows[-1] == (7, None)


def test_json_columns_are_taken_from_all_rows_where_nothing_is_declared(folder: Folder) -> None:
    row = '{"id": 1, "day": "2024-01-10", "ambiguous": "01/02/2024", "code": "007", "none": null}'
    late = '{"id": 2, "late": {"x": [1, 2]}, "at": "2024-01-01T10:00:00+02:00"}'
    folder.write("a.jsonl", (row + "\n") * 25_000 + late + "\n")
    assert folder.columns("a.jsonl") == {
        "id": "BIGINT", "day": "DATE", "ambiguous": "VARCHAR", "code": "VARCHAR", "none": "VARCHAR",
        "late": "STRUCT(x BIGINT[])", "at": "TIMESTAMP",
    }  # fmt: skip
    last = folder.read("a.jsonl")[-1]
    assert last[0] == 2
    assert last[5] == {"x": [1, 2]}
    assert str(last[6]) == "2024-01-01 08:00:00"


def test_json_keys_that_differ_in_case_alone_are_told_apart_by_the_schema_only(folder: Folder) -> None:
    folder.write("a.json", '[{"ID": 1, "id": 2}]')
    assert folder.read("a.json", (("id", "integer"),)) == [(2,)]
    assert "'ID' and 'id'" in folder.failure("a.json").message
    assert "'ID' and 'id'" in folder.failure("a.json", (("Id", "integer"),)).message


def test_nested_json_is_read_as_its_declared_type(folder: Folder) -> None:
    folder.write("a.json", '[{"list": [1, 2], "object": {"k": "v"}, "any": {"z": [true]}}]')
    schema = (("list", "integer[]"), ("object", "struct(k string)"), ("any", "json"))
    assert folder.columns("a.json", schema)["object"] == "STRUCT(k VARCHAR)"
    assert folder.read("a.json", schema) == [([1, 2], {"k": "v"}, '{"z":[true]}')]
    folder.write("a.json", '[{"list": [1]}, {"list": ["x"]}]')
    assert '"x"' in folder.failure("a.json", schema[:1]).message


def test_json_without_rows_needs_a_schema(folder: Folder) -> None:
    for name, content in (("a.json", "[]"), ("a.json", " [ ] "), ("a.jsonl", "")):
        folder.write(name, content)
        assert folder.read(name, ORDERS) == []
        assert folder.failure(name).message == "the file holds no row"


def test_json_files_of_one_source_have_one_layout(folder: Folder) -> None:
    names = [folder.write("1.json", '{"id": 1}'), folder.write("2.json", '[{"id": 2}]')]
    assert folder.failure(names).message == "data/2.json holds an array, this file does not"
    assert folder.failure(names, format="array").place == Place("data/1.json", 1)
    assert "'format'" in folder.failure(names, format="lines").message


# Parquet


def test_parquet_columns_are_matched_by_name_and_cast(folder: Folder) -> None:
    folder.parquet("1.parquet", "SELECT 1::SMALLINT AS id, 'x' AS name, 5 AS more")
    folder.parquet("2.parquet", "SELECT 'y' AS name, 2.0::DOUBLE AS ID")
    assert folder.read(["1.parquet", "2.parquet"], ORDERS) == [(1, "x"), (2, "y")]
    assert folder.columns("1.parquet") == {"id": "SMALLINT", "name": "VARCHAR", "more": "INTEGER"}


@pytest.mark.parametrize(("value", "shown"), [("'foo'", "'foo'"), ("1.5", "'1.5'")])
def test_parquet_value_that_does_not_fit_names_row_column_and_value(folder: Folder, value: str, shown: str) -> None:
    cast = "VARCHAR" if value.startswith("'") else "DOUBLE"
    folder.parquet(
        "a.parquet",
        f"SELECT CASE WHEN i = 3000 THEN {value} ELSE i::{cast} END AS id, 'x' AS name FROM range(5000) t(i)",
    )
    error = folder.failure("a.parquet", ORDERS)
    assert error.message == f"column 'id' is declared integer, but row 3001 has {shown}"
    assert error.place == Place("data/a.parquet")


def test_broken_parquet_file_is_named_with_what_is_wrong(folder: Folder) -> None:
    folder.parquet("a.parquet", "SELECT i AS id, 'x' || i AS name FROM range(10000) t(i)")
    whole = (folder.root / "data/a.parquet").read_bytes()
    damaged = whole[:500] + b"\xff" * 200 + whole[700:]
    for content, said in (
        (b"", "not a Parquet file"),
        (b"hello, I am text, not Parquet", "not a Parquet file"),
        (whole[:-100], "cut off"),
        (damaged, "damaged"),
    ):
        folder.write("a.parquet", content)
        error = folder.failure("a.parquet", ORDERS)
        assert isinstance(error, NodeFailedError)
        assert said in error.message
        assert error.place == Place("data/a.parquet")
        assert str(folder.root) not in error.message


# failures that are not the files' fault


def test_failure_without_a_fault_in_the_files_says_what_duckdb_said(folder: Folder) -> None:
    folder.write("a.csv", "id,name\n1,x\n")
    request = folder.request("a.csv", ORDERS)
    raised = duckdb.IOException('IO Error: Could not write "out.parquet": No space left\n\nLINE 1: COPY')
    error = explain_failure(raised, request)
    assert error.message == 'reading the files failed: Could not write "out.parquet": No space left'
    assert error.place is None
    assert "memory" in explain_failure(duckdb.OutOfMemoryException("Out of Memory Error: 1 GB"), request).message
    assert explain_failure(RuntimeError("boom"), request).message == "reading the files failed: boom"
    known = NodeFailedError("known")
    assert explain_failure(known, request) is known


# properties

texts = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=12)
values = st.one_of(st.none(), texts)
names = st.lists(
    texts.map(str.strip).filter(bool), min_size=1, max_size=4, unique_by=lambda name: name.encode().lower()
)


def written(value: str | None, delimiter: str) -> str:
    """Write a value as CSV, with quotes unless it is NULL; a quoted empty text is no NULL."""
    return "" if value is None else '"' + value.replace('"', '""') + '"'


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data(), names, st.sampled_from([",", ";", "\t", "||"]), st.sampled_from(["\n", "\r\n"]))
def test_texts_come_back_as_they_were_written(
    data: st.DataObject, header: list[str], delimiter: str, ending: str
) -> None:
    # A row of nothing but one NULL would be a blank line, which is no row where there are more columns.
    rows = data.draw(st.lists(st.tuples(*[values] * len(header)), max_size=5))
    lines = [delimiter.join(written(value, delimiter) for value in row) for row in [tuple(header), *rows]]
    with tempfile.TemporaryDirectory() as root, duckdb.connect(config={"threads": 1}) as connection:
        path = Path(root, "a.csv")
        path.write_bytes("".join(line + ending for line in lines).encode())
        schema = tuple(ColumnDeclaration(name, "string") for name in reversed(header))
        request = ReadRequest("csv", (str(path),), {"delimiter": delimiter}, schema)
        found = connection.execute(read_query(connection, request)).fetchall()
    assert found == [tuple(reversed(row)) for row in rows]


@settings(max_examples=15, deadline=None)
@given(st.lists(st.text(st.sampled_from('ab,"\n'), max_size=6), max_size=6), st.integers(0, 3), st.integers(0, 3))
def test_line_of_a_wrong_value_is_the_line_it_stands_on(before: list[str], skipped: int, blank: int) -> None:
    lines = ["skipped"] * skipped + ["id,name"]
    for number, value in enumerate(before):
        lines.append(f"{number},{written(value, ',')}")
    lines += [""] * blank
    line = "\n".join(lines).count("\n") + 2
    text = "\n".join([*lines, "wrong,x", "99,y"]) + "\n"
    with tempfile.TemporaryDirectory() as root, duckdb.connect(config={"threads": 1}) as connection:
        Path(root, "a.csv").write_bytes(text.encode())
        schema = tuple(ColumnDeclaration(*entry) for entry in ORDERS)
        request = ReadRequest("csv", (str(Path(root, "a.csv")),), {"skip": skipped}, schema, root)
        with pytest.raises(duckdb.Error) as caught:
            connection.execute(read_query(connection, request)).fetchall()
        error = explain_failure(caught.value, request)
    assert error.place == Place("a.csv", line)
    assert f"row {len(before) + 1} has 'wrong'" in error.message
