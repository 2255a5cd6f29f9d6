"""Schema inference: DuckDB binds each query against empty tables that have its inputs' columns.

- *schema*: output column name → DuckDB type, in order.
- *reads*: for each input, the columns whose values can matter to the result. They come from DuckDB's optimised
  plan, with the optimizers off that would move a column out of sight. Where a plan could hide a read, the answer
  is "all columns": never guess low.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from seeknal.dag.sql import Sql, SqlProblem, engine_problem, quoted, quoted_node, shifted

Schema = Mapping[str, str]

# The operators of a plain query over tables. Any other one (a catalog or column-data scan, say) may stand for
# something that was read already, so it means: reads everything.
_PLAIN_OPERATORS = frozenset(
    """PROJECTION FILTER SEQ_SCAN TABLE_SCAN DUMMY_SCAN EMPTY_RESULT UNGROUPED_AGGREGATE HASH_GROUP_BY
    PERFECT_HASH_GROUP_BY PARTITIONED_AGGREGATE HASH_JOIN NESTED_LOOP_JOIN BLOCKWISE_NL_JOIN PIECEWISE_MERGE_JOIN
    IE_JOIN ASOF_JOIN CROSS_PRODUCT POSITIONAL_JOIN POSITIONAL_SCAN LEFT_DELIM_JOIN RIGHT_DELIM_JOIN DELIM_JOIN
    DELIM_SCAN ORDER_BY TOP_N LIMIT LIMIT_PERCENT STREAMING_LIMIT WINDOW STREAMING_WINDOW UNION UNNEST CTE CTE_SCAN
    REC_CTE REC_CTE_SCAN RECURSIVE_CTE RECURSIVE_KEY_CTE UNPIVOT STREAMING_SAMPLE RESERVOIR_SAMPLE INOUT_FUNCTION
    HASH_DISTINCT DISTINCT""".split()
)


@dataclass(frozen=True, slots=True)
class Bound:
    """What binding a query told: its schema (None: only known once it ran), and what it reads of each input.

    ``reads`` maps an input's node id to column names in the input's order, or to None for all of them. Inputs
    that the query does not name are left out.
    """

    schema: dict[str, str] | None
    reads: dict[str, tuple[str, ...] | None]


class BindError(Exception):
    """DuckDB refused the query; ``problem`` says why and at which offset of the SQL's text."""

    def __init__(self, problem: SqlProblem) -> None:
        super().__init__(problem.message)
        self.problem = problem


class Binder:
    """A DuckDB connection that holds empty tables only, and answers what a query over them would give."""

    def __init__(self) -> None:
        import duckdb

        self.connection = duckdb.connect(
            ":memory:", config={"threads": 1, "python_enable_replacements": False, "enable_external_access": False}
        )
        self.connection.execute(
            "SET errors_as_json = true; "
            "SET disabled_optimizers = 'filter_pushdown,statistics_propagation,late_materialization'"
        )
        self._schemas: set[str] = set()
        self._declared: dict[str, dict[str, str]] = {}

    def close(self) -> None:
        self.connection.close()

    def declare(self, node_id: str, schema: Schema) -> None:
        """Make a node's columns known to queries that are bound from now on."""
        if self._declared.get(node_id) == schema and list(self._declared.get(node_id, {})) == list(schema):
            return
        kind = node_id.partition(".")[0]
        if kind not in self._schemas:
            self.connection.execute(f"CREATE SCHEMA IF NOT EXISTS {quoted(kind)}")
            self._schemas.add(kind)
        columns = ", ".join(f"{quoted(name)} {type_}" for name, type_ in schema.items())
        self.connection.execute(f"CREATE OR REPLACE TABLE {quoted_node(node_id)} ({columns})")
        self._declared[node_id] = dict(schema)

    def forget(self, node_id: str) -> None:
        """Make a node's columns unknown again."""
        if self._declared.pop(node_id, None) is not None:
            self.connection.execute(f"DROP TABLE {quoted_node(node_id)}")

    def bind(self, sql: Sql, inputs: Sequence[str]) -> Bound:
        """Bind a query whose inputs are all declared. ``inputs`` are the node's, for positional names.

        Raises BindError.
        """
        import duckdb

        named = list(dict.fromkeys([*sql.references, *(inputs[i] for _, i in sql.positions if i < len(inputs))]))
        *before, query = sql.statements
        running, prefix = 0, ""
        try:
            self._make_positional(sql, inputs)
            for running, statement in enumerate(before):
                self.connection.execute(statement)
            running, prefix = len(before), "DESCRIBE "
            schema = self._schema(query, data_dependent=sql.reads_everything)
            if sql.reads_everything or schema is None:
                return Bound(schema, dict.fromkeys(named))
            prefix = "EXPLAIN (FORMAT JSON) "
            return Bound(schema, self._reads(query, named))
        except duckdb.Error as error:
            problem = engine_problem(error, sql.statements[running], len(prefix))
            raise BindError(shifted(problem, sql.starts[running])) from error
        finally:
            self._clean(sql)

    def _make_positional(self, sql: Sql, inputs: Sequence[str]) -> None:
        for name, index in sql.positions:
            if index >= len(inputs):
                raise BindError(
                    SqlProblem(f"{name}: the node has {len(inputs)} input(s)", sql.text.lower().find(name), "count from 0")
                )
            if name == "__this__" and len(inputs) != 1:
                raise BindError(SqlProblem(f"__THIS__ needs exactly one input; the node has {len(inputs)}"))
            self.connection.execute(f"CREATE OR REPLACE TEMP VIEW {name} AS FROM {quoted_node(inputs[index])}")

    def _schema(self, query: str, *, data_dependent: bool) -> dict[str, str] | None:
        import duckdb

        try:
            rows = self.connection.execute(f"DESCRIBE {query}").fetchall()
        except (duckdb.BinderException, duckdb.ParserException, duckdb.InvalidInputException):
            if data_dependent and "pivot" in query.lower():
                return None
            raise
        schema: dict[str, str] = {}
        lowered: dict[str, str] = {}
        for name, type_, *_ in rows:
            twin = lowered.get(name.lower())
            if twin is not None:
                both = f"'{name}'" if twin == name else f"'{twin}' and '{name}'"
                raise BindError(SqlProblem(f"two output columns are called {both}", None, "name one of them with AS"))
            lowered[name.lower()] = name
            schema[name] = type_
        return schema

    def _reads(self, query: str, named: Sequence[str]) -> dict[str, tuple[str, ...] | None]:
        rows = self.connection.execute(f"EXPLAIN (FORMAT JSON) {query}").fetchall()
        scanned: dict[str, set[str]] = {_table_name(node_id): set() for node_id in named}
        for operator in _operators(json.loads(rows[0][1])):
            name = operator["name"].strip()
            if name not in _PLAIN_OPERATORS:
                return dict.fromkeys(named)
            if name not in ("SEQ_SCAN", "TABLE_SCAN"):
                continue
            extra = operator.get("extra_info", {})
            columns = scanned.get(_unquoted(str(extra.get("Table", ""))))
            if columns is None:
                return dict.fromkeys(named)
            projections = extra.get("Projections", [])
            for column in projections if isinstance(projections, list) else [projections]:
                columns.add(str(column))
            if any(key.startswith("Filters") and "optional" not in str(value) for key, value in extra.items()):
                # A filter inside the scan would name columns in text that we do not parse.
                return dict.fromkeys(named)
        return {node_id: self._columns(node_id, scanned[_table_name(node_id)]) for node_id in named}

    def _columns(self, node_id: str, projected: set[str]) -> tuple[str, ...] | None:
        """Turn what a scan projects (``amount``, or ``s.a`` for a field of a struct) into the input's columns."""
        columns = []
        accounted: set[str] = {""}
        for name in self._declared[node_id]:
            hits = {entry for entry in projected if entry == name or entry.startswith((f"{name}.", f'"{name}"'))}
            if hits:
                columns.append(name)
                accounted |= hits
        # Something that no column explains (a row id, a name we cannot read): all columns then.
        return tuple(columns) if projected <= accounted else None

    def _clean(self, sql: Sql) -> None:
        for name, _ in sql.positions:
            self.connection.execute(f"DROP VIEW IF EXISTS temp.{name}")
        if len(sql.statements) > 1:
            drop_temporary_objects(self.connection)


def drop_temporary_objects(connection: Any) -> None:
    """Drop every temporary view, table, macro and type of a connection."""
    macros = "SELECT DISTINCT function_name FROM duckdb_functions() WHERE database_name = 'temp' AND NOT internal"
    listings = (
        ("VIEW", "SELECT view_name FROM duckdb_views() WHERE temporary AND NOT internal"),
        ("TABLE", "SELECT table_name FROM duckdb_tables() WHERE temporary"),
        ("MACRO", f"{macros} AND function_type = 'macro'"),
        ("MACRO TABLE", f"{macros} AND function_type = 'table_macro'"),
        ("TYPE", "SELECT type_name FROM duckdb_types() WHERE database_name = 'temp' AND NOT internal"),
        ("SEQUENCE", "SELECT sequence_name FROM duckdb_sequences() WHERE temporary"),
    )
    for kind, listing in listings:
        for (name,) in connection.execute(listing).fetchall():
            connection.execute(f"DROP {kind} IF EXISTS temp.{quoted(name)}")


def _operators(plan: Any) -> Iterator[dict[str, Any]]:
    stack = list(plan) if isinstance(plan, list) else [plan]
    while stack:
        operator = stack.pop()
        yield operator
        stack.extend(operator.get("children", ()))


def _table_name(node_id: str) -> str:
    return f"memory.{node_id}".lower()


def _unquoted(qualified: str) -> str:
    """``memory."source".orders`` without its quotes, lower case; a doubled quote inside stands for one."""
    result, inside, index = [], False, 0
    while index < len(qualified):
        character = qualified[index]
        if character == '"':
            if inside and qualified[index + 1 : index + 2] == '"':
                result.append('"')
                index += 1
            else:
                inside = not inside
        else:
            result.append(character)
        index += 1
    return "".join(result).lower()
