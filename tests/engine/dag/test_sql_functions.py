"""Our lists of functions against DuckDB's own: each function that it has is pure, refused or known to be volatile."""

from __future__ import annotations

import functools
import re

import duckdb
import pytest

from seeknal.dag.binding import Binder, BindError
from seeknal.dag.sql import Sql, take_apart
from seeknal.dag.sql_functions import PURE_TABLE_FUNCTIONS, REFUSED_FUNCTIONS, TYPE_FUNCTIONS, is_volatile, why_refused


@functools.cache
def connection() -> duckdb.DuckDBPyConnection:
    return duckdb.connect(config={"threads": 1})


def functions(condition: str) -> list[str]:
    query = f"SELECT DISTINCT function_name FROM duckdb_functions() WHERE {condition} ORDER BY 1"
    return [name for (name,) in connection().execute(query).fetchall()]


def problems(text: str) -> list[str]:
    known = {"source.orders": "source.orders"}
    return [problem.message for problem in take_apart(text, known, lambda name: [], connection()).problems]


TABLE_FUNCTIONS = functions("function_type IN ('table', 'table_macro')")


@pytest.mark.parametrize("name", TABLE_FUNCTIONS)
def test_every_table_function_is_pure_or_refused(name: str) -> None:
    refused = [f"{name}() is not allowed: a node reads its declared inputs only"]
    expected = [] if name in PURE_TABLE_FUNCTIONS else refused
    assert problems(f"SELECT 1 AS a FROM {name}('x')") == expected
    assert problems(f'SELECT 1 AS a FROM source.orders, "{name.upper()}"(1) AS x') == expected
    # Where only words are known, as in a PIVOT over values of the data.
    assert problems(f"PIVOT (FROM {name}('x')) ON a USING sum(b)") == expected


def test_pure_table_functions_read_nothing_but_their_arguments() -> None:
    assert set(TABLE_FUNCTIONS) >= PURE_TABLE_FUNCTIONS
    calls = {
        "generate_series": "generate_series(1, 3)",
        "json_each": "json_each('[1, 2]')",
        "json_tree": "json_tree('{\"a\": [1]}')",
        "range": "range(3)",
        "repeat": "repeat('x', 2)",
        "repeat_row": "repeat_row(1, num_rows = 2)",
        "summary": "summary((SELECT 1 AS a))",
        "test_all_types": "test_all_types()",
        "test_vector_types": "test_vector_types(NULL::INTEGER)",
        "unnest": "unnest([1, 2])",
    }
    assert set(calls) == PURE_TABLE_FUNCTIONS
    one, other = (duckdb.connect(config={"enable_external_access": False}) for _ in range(2))
    other.execute("CREATE TABLE x AS SELECT 1 AS a; SET VARIABLE y = 1")
    for call in calls.values():
        query = f"SELECT made::VARCHAR FROM {call} AS made"
        assert one.execute(query).fetchall() == other.execute(query).fetchall()


def test_every_view_of_the_catalog_is_refused() -> None:
    views = connection().execute("SELECT schema_name, view_name FROM duckdb_views() WHERE internal").fetchall()
    assert len(views) > 30
    for schema, view in views:
        for name in (view, f"{schema}.{view}"):
            assert problems(f"FROM {name}") == [f"no node is called '{name}'"]
            # Where only words are known; a view of information_schema does not exist without its schema.
            said = problems(f"PIVOT {name} ON a USING sum(b)")
            if name != view or schema != "information_schema":
                shown = view if schema == "main" else name
                assert said == [f"'{shown}' is DuckDB's catalog, and a node reads nodes"]


def test_every_volatile_function_is_known_as_such() -> None:
    # They differ from run to run in nothing that can be seen.
    harmless = {"error", "sleep_ms", "pg_sleep"}
    for name in functions("stability IN ('VOLATILE', 'CONSISTENT_WITHIN_QUERY')"):
        assert is_volatile(name, 0) or name in REFUSED_FUNCTIONS or name in harmless, name


def test_every_macro_that_calls_a_volatile_function_is_known_as_such() -> None:
    rows = (
        connection()
        .execute("SELECT function_name, macro_definition FROM duckdb_functions() WHERE function_type = 'macro'")
        .fetchall()
    )
    for name, definition in rows:
        words = set(re.findall(r"\w+", definition.lower()))
        if any(is_volatile(word, 0) for word in words):
            # current_catalog is the name of the database, which is the same in every worker.
            assert is_volatile(name, 0) or name == "current_catalog", (name, definition)


def test_every_macro_that_reads_the_catalog_or_settings_is_refused() -> None:
    rows = (
        connection()
        .execute("SELECT function_name, macro_definition FROM duckdb_functions() WHERE function_type = 'macro'")
        .fetchall()
    )
    for name, definition in rows:
        if re.search(r"\b(duckdb_\w+|pragma_\w+|current_setting|getvariable)\(", definition):
            # format_type looks up the name of a type of DuckDB's own by its number.
            assert why_refused(name, as_table=False) or name == "format_type", (name, definition)


def test_functions_that_read_settings_files_or_statistics_are_refused() -> None:
    for name in ("current_setting", "getvariable", "getenv", "stats", "write_log", "json_serialize_plan", "read_text"):
        assert problems(f"SELECT {name}('x') AS a")


def argument_types(parameters: list[str] | None) -> list[str] | None:
    generic = {"ANY": "INTEGER", "T": "INTEGER", "K": "INTEGER", "V": "INTEGER", "NULL": "INTEGER", '"NULL"': "INTEGER"}
    generic |= {
        "ANY[]": "INTEGER[]",
        "T[]": "INTEGER[]",
        "LIST": "INTEGER[]",
        "ARRAY": "INTEGER[3]",
        "DECIMAL": "DECIMAL(9,2)",
    }
    generic |= {
        "STRUCT": "STRUCT(x INTEGER)",
        "MAP": "MAP(VARCHAR, INTEGER)",
        "ENUM": "ENUM('p')",
        "UNION": "UNION(k INTEGER)",
    }
    types = [generic.get(type_ or "ANY", type_ or "INTEGER") for type_ in parameters or []]
    return types if types and len(types) <= 3 and "LAMBDA" not in types else None


def test_only_known_functions_leave_an_argument_unread() -> None:
    """A function that DuckDB evaluates while binding reads no column, and yet may depend on the column's type."""
    rows = (
        connection()
        .execute(
            "SELECT DISTINCT ON (function_name, len(parameters)) function_name, parameter_types"
            " FROM duckdb_functions() "
            "WHERE function_type IN ('scalar', 'aggregate', 'macro') AND function_name NOT LIKE '\\_\\_%' ESCAPE '\\' "
            "AND function_name NOT LIKE '%collate%' ORDER BY 1, len(parameters), parameter_types::VARCHAR"
        )
        .fetchall()
    )
    binder = Binder()
    seen, unread = 0, set()
    for name, parameters in rows:
        types = argument_types(parameters)
        if types is None or not re.fullmatch(r"\w+", name):
            continue
        columns = {f"c{index}": type_ for index, type_ in enumerate(types)}
        query = f'SELECT "{name}"({", ".join(columns)}) AS r FROM source.orders'
        try:
            binder.declare("source.orders", columns)
            bound = binder.bind(Sql(query, (query,), (query,), (0,), ("source.orders",)), ())
        except (BindError, duckdb.Error):
            continue
        seen += 1
        read = bound.reads["source.orders"]
        if read is not None and len(read) < len(columns):
            unread.add(name)
    binder.close()
    assert seen > 400
    # What these give is the same whatever they are called with: PostgreSQL's questions about rights, for one.
    same = re.compile(
        r"has_\w+_privilege|pg_has_role|pg_\w+_is_visible|(col|obj|shobj)_description|pg_is_other_temp_schema|pg_get_expr"
    )
    # It formats a date by its first argument's type, and reads it.
    formats = {"json_copy_strftime_if_date", "json_copy_strftime_if_timestamp"}
    assert {name for name in unread if not same.fullmatch(name)} - formats <= TYPE_FUNCTIONS
