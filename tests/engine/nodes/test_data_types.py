from __future__ import annotations

from collections.abc import Iterator

import duckdb
import pytest

from seeknal.nodes.data_types import DOCUMENTED_TYPES, check_type, duckdb_type, fitted, misfit


@pytest.fixture(scope="module")
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect(config={"threads": 1}) as connection:
        yield connection


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("integer", "BIGINT"),
        ("Integer", "BIGINT"),
        ("  int ", "BIGINT"),
        ("float", "DOUBLE"),
        ("double  precision", "DOUBLE"),
        ("string", "VARCHAR"),
        ("varchar(20)", "VARCHAR"),
        ("boolean", "BOOLEAN"),
        ("date", "DATE"),
        ("datetime", "TIMESTAMP"),
        ("timestamp", "TIMESTAMP"),
        ("timestamptz", "TIMESTAMP WITH TIME ZONE"),
        ("decimal(10, 2)", "DECIMAL(10,2)"),
        ("numeric(5)", "DECIMAL(5,0)"),
        ("integer[]", "BIGINT[]"),
        ("string[3][]", "VARCHAR[3][]"),
        ("struct(a integer)", "struct(a integer)"),
        ("intger", None),
        ("decimal(99,1)", None),
        ("decimal(5,6)", None),
        ("intger[]", None),
        ("struct(a integer", None),
        ("", None),
    ],
)
def test_type_as_written_means_a_duckdb_type(written: str, expected: str | None) -> None:
    assert duckdb_type(written) == expected


def test_every_documented_type_is_known_to_duckdb_by_the_name_we_give_it(
    connection: duckdb.DuckDBPyConnection,
) -> None:
    for written in DOCUMENTED_TYPES:
        known = duckdb_type(written)
        assert known is not None
        described = connection.execute(f"DESCRIBE SELECT CAST(NULL AS {known}) AS value").fetchall()
        assert described[0][1] == known


def test_checked_type_has_the_spelling_of_duckdb(connection: duckdb.DuckDBPyConnection) -> None:
    assert check_type(connection, "integer") == "BIGINT"
    assert check_type(connection, "struct(a integer, b varchar)") == "STRUCT(a INTEGER, b VARCHAR)"
    assert check_type(connection, "bit") == "BIT"
    assert check_type(connection, "struct(a nonsense)") is None
    assert check_type(connection, "nonsense") is None


@pytest.mark.parametrize(
    "text",
    ["integer) , (select 1", "integer); drop table t; --", 'integer as "x', "integer) from read_csv('/etc/passwd'"],
)
def test_type_that_would_leave_its_cast_is_none(connection: duckdb.DuckDBPyConnection, text: str) -> None:
    assert check_type(connection, text) is None


FITS = [
    ("VARCHAR", "BIGINT", "'12'", 12),
    ("VARCHAR", "BIGINT", "'12.0'", 12),
    ("VARCHAR", "BIGINT", "'9223372036854775807'", 9223372036854775807),
    ("DOUBLE", "INTEGER", "3.0::DOUBLE", 3),
    ("DECIMAL(38,30)", "BIGINT", "7::DECIMAL(38,30)", 7),
    ("BIGINT", "BOOLEAN", "1::BIGINT", True),
    ("VARCHAR", "DOUBLE", "'1e3'", 1000.0),
    ("BIGINT", "BIGINT", "5::BIGINT", 5),
    ("VARCHAR", "BIGINT", "NULL::VARCHAR", None),
]
MISFITS = [
    ("VARCHAR", "BIGINT", "'1.5'"),
    ("VARCHAR", "BIGINT", "'9223372036854775808'"),
    ("VARCHAR", "BIGINT", "'0x10'"),
    ("VARCHAR", "BIGINT", "''"),
    ("DOUBLE", "BIGINT", "1.5::DOUBLE"),
    ("DECIMAL(3,1)", "INTEGER", "2.5::DECIMAL(3,1)"),
    ("BIGINT", "INTEGER", "5000000000::BIGINT"),
    ("BIGINT", "BOOLEAN", "2::BIGINT"),
    ("VARCHAR", "DATE", "'2024-01-10 12:30:00'"),
    ("TIMESTAMP", "DATE", "TIMESTAMP '2024-01-10 12:30:00'"),
    ("VARCHAR", "BOOLEAN", "'maybe'"),
    ("VARCHAR", "DECIMAL(4,2)", "'123.4'"),
]


@pytest.mark.parametrize(("source", "target", "value", "expected"), FITS)
def test_value_that_fits_is_cast(
    connection: duckdb.DuckDBPyConnection, source: str, target: str, value: str, expected: object
) -> None:
    row = connection.execute(
        f"SELECT {fitted('v', source, target)}, {misfit('v', source, target)} FROM (SELECT {value} AS v)"
    ).fetchone()
    assert row == (expected, False)


@pytest.mark.parametrize(("source", "target", "value"), MISFITS)
def test_value_that_does_not_fit_fails_and_can_be_found(
    connection: duckdb.DuckDBPyConnection, source: str, target: str, value: str
) -> None:
    given = f"FROM (SELECT {value} AS v)"
    with pytest.raises(duckdb.Error):
        connection.execute(f"SELECT {fitted('v', source, target)} {given}").fetchall()
    assert connection.execute(f"SELECT {misfit('v', source, target)} {given}").fetchone() == (True,)


@pytest.mark.parametrize("zone", ["UTC", "Asia/Jakarta", "America/New_York"])
def test_moment_does_not_depend_on_the_zone_of_the_session(zone: str) -> None:
    with duckdb.connect(config={"threads": 1}) as connection:
        connection.execute(f"SET TimeZone = '{zone}'")

        def cast(value: str, source: str, target: str) -> str:
            query = f"SELECT {fitted('v', source, target)} AS t FROM (SELECT {value} AS v)"
            # A moment with a zone prints in the session's, so its distance from 1970 is compared.
            shown = "epoch(t)::BIGINT::VARCHAR" if target.endswith("ZONE") else "t::VARCHAR"
            row = connection.execute(f"SELECT {shown} FROM ({query})").fetchone()
            assert row is not None
            return str(row[0])

        plain, zoned = "TIMESTAMP", "TIMESTAMP WITH TIME ZONE"
        assert cast("'2024-01-01T10:00:00+02:00'", "VARCHAR", plain) == "2024-01-01 08:00:00"
        assert cast("'2024-01-01T10:00:00Z'", "VARCHAR", plain) == "2024-01-01 10:00:00"
        assert cast("'2024-01-01 10:00'", "VARCHAR", plain) == "2024-01-01 10:00:00"
        assert cast("TIMESTAMPTZ '2024-01-01 10:00:00+00'", zoned, plain) == "2024-01-01 10:00:00"
        assert cast("TIMESTAMPTZ '2024-01-01 00:00:00+00'", zoned, "DATE") == "2024-01-01"
        assert cast("TIMESTAMPTZ '2024-01-01 10:00:00+00'", zoned, "VARCHAR") == "2024-01-01 10:00:00+00"
        assert cast("'2024-01-01 10:00:00'", "VARCHAR", zoned) == "1704103200"
        assert cast("'2024-01-01 10:00:00+02'", "VARCHAR", zoned) == "1704096000"
        assert cast("TIMESTAMP '2024-01-01 10:00:00'", plain, zoned) == "1704103200"
