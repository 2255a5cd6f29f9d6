"""Which of DuckDB's functions a node's SQL may call, and which make its result differ from one run to the next.

- *pure*: gives the same for the same arguments. Table functions are allowed only where they are listed here.
- *refused*: reads what is no input of the node: files, settings, the catalog, SQL given as text.
- *volatile*: allowed, but may give something else each time.
"""

from __future__ import annotations

import re

from seeknal.dag.names import nearest
from seeknal.late_pattern import late_pattern

PURE_TABLE_FUNCTIONS = frozenset(
    """generate_series json_each json_tree range repeat repeat_row summary test_all_types test_vector_types
    unnest""".split()
)

# The table functions that read files; the way out for them is a source.
FILE_FUNCTIONS = frozenset(
    """arrow_scan arrow_scan_dumb glob pandas_scan parquet_bloom_probe parquet_file_metadata parquet_full_metadata
    parquet_kv_metadata parquet_metadata parquet_scan parquet_schema python_arrow_scan read_blob read_csv read_csv_auto
    read_duckdb read_json read_json_auto read_json_objects read_json_objects_auto read_ndjson read_ndjson_auto
    read_ndjson_objects read_parquet read_single_csv_file read_single_json_file read_single_parquet_file read_text
    sniff_csv iceberg_scan delta_scan postgres_scan sqlite_scan mysql_scan st_read read_xlsx""".split()
)

# The table functions that run SQL, or read a table, whose name they get as text.
TEXT_FUNCTIONS = frozenset("query query_table histogram histogram_values json_execute_serialized_sql".split())

# Functions in expressions that read the settings, the catalog or a table's storage, or write a log.
REFUSED_FUNCTIONS = FILE_FUNCTIONS | frozenset(
    """current_setting getenv getvariable get_block_size index_key json_serialize_plan pg_get_constraintdef
    pg_get_viewdef stats write_log""".split()
)

VOLATILE_FUNCTIONS = frozenset(
    """ago current_connection_id current_database current_date current_localtime current_localtimestamp current_query
    current_query_id current_schema current_schemas current_time current_timestamp current_transaction_id currval
    gen_random_uuid get_current_time get_current_timestamp in_search_path localtime localtimestamp nextval now
    pg_conf_load_time pg_postmaster_start_time random setseed setval today transaction_timestamp txid_current uuid
    uuidv4 uuidv7 vector_type""".split()
)

# They give something that depends on an argument's type alone; DuckDB then does not read the argument.
TYPE_FUNCTIONS = frozenset("can_cast_implicitly cast_to_type get_type pg_typeof replace_type st_crs typeof".split())

# They make a value of their arguments, NULL or not; [1, NULL] is list_value(1, NULL).
BUILDING_FUNCTIONS = frozenset("list_value row struct_pack".split())

# They never give NULL for arguments that are not NULL; most are what DuckDB makes of INTERVAL 3 DAY.
NEVER_NULL_FUNCTIONS = frozenset(
    """+ - * || to_centuries to_days to_decades to_hours to_microseconds to_millennia
    to_milliseconds to_minutes to_months to_quarters to_seconds to_weeks to_years trunc""".split()
)

# The volatile ones that may stand without parentheses.
VOLATILE_WORDS = frozenset("current_date current_time current_timestamp localtime localtimestamp".split())

# What table functions that are not pure are called, for SQL of which we see words only; a test goes through them all.
_IMPURE_TABLE_FUNCTION = late_pattern(
    r"""(duckdb|pragma|parquet|read|enable|disable)_\w+ | \w+_scan(_dumb)? | (force_)?checkpoint | icu_calendar_names
    | pg_timezone_names | python_map_function | which_secret | truncate_duckdb_logs | \w+_external_resource(_type)?""",
    re.VERBOSE,
)


def is_volatile(name: str, argument_count: int) -> bool:
    """Say whether a call of a function may give something else each time. ``age`` with one argument counts from now."""
    return name in VOLATILE_FUNCTIONS or (name == "age" and argument_count == 1)


def why_refused(name: str, *, as_table: bool | None) -> tuple[str, str] | None:
    """Say why a function may not be called, and the way out; None where it may.

    ``as_table``: it stands in a FROM clause, not in an expression; None where that is not known.
    """
    if as_table:
        refused = name not in PURE_TABLE_FUNCTIONS
    else:
        refused = name in REFUSED_FUNCTIONS
        if as_table is None:
            refused = refused or name in TEXT_FUNCTIONS or _IMPURE_TABLE_FUNCTION.fullmatch(name) is not None
    if not refused:
        return None
    if name in FILE_FUNCTIONS:
        hint = "declare a source for the file and read that"
    elif name in TEXT_FUNCTIONS:
        hint = "name the tables in the SQL itself"
    elif as_table:
        close = nearest(name, PURE_TABLE_FUNCTIONS, 1)
        hint = f"did you mean '{close[0]}'?" if close else f"allowed are {', '.join(sorted(PURE_TABLE_FUNCTIONS))}"
    else:
        hint = "write the value"
    return f"{name}() is not allowed: a node reads its declared inputs only", hint
