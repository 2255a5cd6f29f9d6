"""Binding: DuckDB binds each query against empty tables that have its inputs' columns.

- *schema*: output column name → DuckDB type, in order.
- *reads*: for each input, the columns whose values can matter to the result. They come from DuckDB's plan, in which
  only unused columns were taken out. Where a plan could hide a read, the answer is "all columns": never guess low.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from seeknal.dag.filled_sql import FilledSql
from seeknal.dag.lazy_connection import LazyConnection
from seeknal.dag.sql import Sql, quoted, quoted_node
from seeknal.dag.sql_functions import PURE_TABLE_FUNCTIONS
from seeknal.dag.sql_problem import SqlProblem, engine_problem, shifted

Schema = Mapping[str, str]

# The one optimizer that says what a query reads, and those that let it look into WITH clauses and correlated
# subqueries. Any other could take out an expression whose value does not matter but whose type does, or rely on the
# tables being empty.
_OPTIMIZERS = frozenset({"unused_columns", "cte_inlining", "deliminator", "projection_pullup"})

# The operators of a plan over tables. Any other one may stand for something that was read already, so it means:
# reads everything. A test makes each of them.
_PLAIN_OPERATORS = frozenset(
    """BLOCKWISE_NL_JOIN COLUMN_DATA_SCAN CROSS_PRODUCT CTE CTE_SCAN DUMMY_SCAN EMPTY_RESULT EXPRESSION_SCAN FILTER
    HASH_GROUP_BY HASH_JOIN INOUT_FUNCTION LIMIT_PERCENT NESTED_LOOP_JOIN ORDER_BY POSITIONAL_JOIN PROJECTION REC_CTE
    REC_CTE_SCAN RESERVOIR_SAMPLE SEQ_SCAN STREAMING_LIMIT STREAMING_SAMPLE STREAMING_WINDOW UNGROUPED_AGGREGATE UNION
    UNNEST WINDOW""".split()
)
_PLAIN = _PLAIN_OPERATORS | {name.upper() for name in PURE_TABLE_FUNCTIONS}

# Where the empty tables stand. Queries see queries or views of them, as of files when they run: without row ids.
# A table is made once for all nodes that have the same columns; a view has one of its own.
_TABLES = "seeknal_tables"


class Bound(msgspec.Struct, frozen=True):
    """What binding a query told.

    ``schema``: None where it is only known once the query ran. ``reads`` maps an input's node id to column names in
    the input's order, or to None for all of them; inputs that the query does not name are left out. As long as both
    stay the same, and the number of rows of these inputs, and name, type and values of the columns read, so does what
    the query gives (in an order of rows that may differ where the query leaves it open).
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
        self.connection: Any = LazyConnection(_connect)
        self._schemas: set[str] = set()
        self._views: set[str] = set()
        self._tables: set[str] = set()
        self._numbers: dict[tuple[tuple[str, str], ...], int] = {}
        self._declared: dict[str, dict[str, str]] = {}

    def close(self) -> None:
        self.connection.close()

    @property
    def table_count(self) -> int:
        """How many tables stand here; each takes some 15 kB of memory."""
        return len(self._tables)

    def forget_all(self) -> None:
        """Make all nodes' columns unknown again, and give back the memory that they took."""
        self.connection.close()
        self._schemas.clear()
        self._views.clear()
        self._tables.clear()
        self._numbers.clear()
        self._declared.clear()

    def declare(self, node_id: str, schema: Schema) -> None:
        """Make a node's columns known to queries that are bound from now on. Raises duckdb.Error."""
        if self._declared.get(node_id) == schema and list(self._declared.get(node_id, {})) == list(schema):
            return
        self._shared_table(schema, 0)
        self.forget(node_id)
        self._declared[node_id] = dict(schema)

    def forget(self, node_id: str) -> None:
        """Make a node's columns unknown again."""
        self._declared.pop(node_id, None)
        if node_id in self._views:
            self.connection.execute(f"DROP VIEW {quoted_node(node_id)}")
            self._views.remove(node_id)
            self.connection.execute(f"DROP TABLE {_TABLES}.{quoted(node_id)}")
            self._tables.remove(node_id)

    def _shared_table(self, schema: Schema, number: int) -> str:
        """The name of the ``number``-th table with these columns, for nodes that all have them."""
        columns = self._numbers.setdefault(tuple(schema.items()), len(self._numbers))
        name = f"columns_{columns}_{number}"
        if name not in self._tables:
            self._make_table(name, schema)
        return name

    def _make_table(self, name: str, schema: Schema) -> None:
        columns = ", ".join(f"{quoted(name)} {type_}" for name, type_ in schema.items())
        self.connection.execute(f"CREATE TABLE {_TABLES}.{quoted(name)} ({columns})")
        self._tables.add(name)

    def bind(self, sql: Sql, inputs: Sequence[str]) -> Bound:
        """Bind a query. ``inputs`` are the node's, for positional names.

        Raises BindError, also where an input is not declared.
        """
        import duckdb

        named = list(dict.fromkeys([*sql.references, *(inputs[index] for _, index in sql.positions)]))
        are_declared = all(name in self._declared for name in named)
        bound = self._bind_filled_in(sql, inputs, named) if sql.places and are_declared else None
        if bound is not None:
            return bound
        *before, query = sql.bare
        running, prefix = 0, ""
        try:
            self._make_views(named)
            for name, index in sql.positions:
                self.connection.execute(
                    f"CREATE OR REPLACE TEMP VIEW {quoted(name)} AS FROM {quoted_node(inputs[index])}"
                )
            for running, statement in enumerate(before):  # noqa: B007
                self.connection.execute(statement)
            running, prefix = len(before), "DESCRIBE "
            schema = self._schema(query, depends_on_data=sql.depends_on_data)
            if sql.reads_everything or schema is None:
                return Bound(schema, dict.fromkeys(named))
            prefix = "EXPLAIN (FORMAT JSON) "
            return Bound(schema, self._reads(query, {node_id: node_id for node_id in named}))
        except duckdb.Error as error:
            problem = engine_problem(error, sql.statements[running], len(prefix))
            raise BindError(shifted(problem, sql.starts[running])) from error
        finally:
            self._clean(sql)

    def _bind_filled_in(self, sql: Sql, inputs: Sequence[str], named: Sequence[str]) -> Bound | None:
        """Bind a single SELECT with the inputs' tables filled in, which spares it views.

        Gives None where DuckDB refuses that: with views, then, it tells what is wrong, and where.
        """
        import duckdb

        positions, start = dict(sql.positions), sql.starts[0]
        # Of inputs with the same columns, each has a table of its own: the plan says of tables what is read.
        tables: dict[str, str] = {}
        for name in named:
            number = 0
            while (table := self._shared_table(self._declared[name], number)) in tables.values():
                number += 1
            tables[name] = table
        fillings = []
        for place in sql.places:
            name = inputs[positions[place.name]] if place.name in positions else place.name
            fillings.append((place.start - start, place.end - start, place.called, f"FROM {_TABLES}.{tables[name]}"))
        query = FilledSql.of(sql.statements[0], fillings).text
        try:
            # Cheaper than DESCRIBE, as it stops after binding; but its errors do not say where.
            relation = self.connection.sql(query)
            schema = _distinct(zip(relation.columns, map(str, relation.types), strict=True))
            return Bound(schema, self._reads(query, tables))
        except duckdb.Error:
            return None

    def _make_views(self, named: Sequence[str]) -> None:
        for node_id in named:
            if node_id in self._views or node_id not in self._declared:
                continue
            kind = node_id.partition(".")[0]
            if kind not in self._schemas:
                self.connection.execute(f"CREATE SCHEMA IF NOT EXISTS {quoted(kind)}")
                self._schemas.add(kind)
            self._make_table(node_id, self._declared[node_id])
            self.connection.execute(
                f"CREATE OR REPLACE VIEW {quoted_node(node_id)} AS FROM {_TABLES}.{quoted(node_id)}"
            )
            self._views.add(node_id)

    def _schema(self, query: str, *, depends_on_data: bool) -> dict[str, str] | None:
        import duckdb

        try:
            rows = self.connection.execute(f"DESCRIBE {query}").fetchall()
        except (duckdb.BinderException, duckdb.ParserException, duckdb.InvalidInputException):
            # Over empty tables a PIVOT gives no columns, which the query may name.
            if depends_on_data:
                return None
            raise
        if depends_on_data:
            return None
        return _distinct((name, type_) for name, type_, *_ in rows)

    def _reads(self, query: str, tables: Mapping[str, str]) -> dict[str, tuple[str, ...] | None]:
        """Which columns a query reads. ``tables``: each input's node id → the table that stands for it."""
        rows = self.connection.execute(f"EXPLAIN (FORMAT JSON) {query}").fetchall()
        try:
            operators = list(_operators(msgspec.json.decode(rows[0][1])))
        except RecursionError:
            return dict.fromkeys(tables)
        scanned: dict[str, set[str]] = {_table_name(table): set() for table in tables.values()}
        is_plain = True
        for operator in operators:
            name = operator["name"].strip()
            extra = operator.get("extra_info", {})
            if name == "SEQ_SCAN":
                columns = scanned.get(_unquoted(str(extra.get("Table", ""))))
                if columns is None:
                    raise BindError(SqlProblem(f"reads {extra.get('Table')}, which it does not name"))
                projections = extra.get("Projections", [])
                columns.update(map(str, projections if isinstance(projections, list) else [projections]))
                # A filter inside the scan would name columns in text that we do not parse.
                is_plain = is_plain and not any(key.startswith("Filters") for key in extra)
            elif name not in _PLAIN:
                is_plain = False
        if not is_plain:
            return dict.fromkeys(tables)
        return {node_id: self._columns(node_id, scanned[_table_name(table)]) for node_id, table in tables.items()}

    def _columns(self, node_id: str, projected: set[str]) -> tuple[str, ...] | None:
        """Turn what a scan projects (``amount``, or ``s.a`` for a field of a struct) into the input's columns."""
        columns = []
        accounted: set[str] = {""}
        declared = self._declared[node_id]
        for name, type_ in declared.items():
            hits = projected & {name}
            if not type_.isalnum() or type_ in ("JSON", "VARIANT"):
                # A column with parts; one of them may be called like another column with a dot in its name.
                hits |= {entry for entry in projected if entry.startswith((f"{name}.", f"{quoted(name)}."))}
            if hits:
                columns.append(name)
                accounted |= hits
        # Something that no column explains: all columns then.
        return tuple(columns) if projected <= accounted else None

    def _clean(self, sql: Sql) -> None:
        for name, _ in sql.positions:
            self.connection.execute(f"DROP VIEW IF EXISTS temp.{quoted(name)}")
        if len(sql.statements) > 1 or sql.depends_on_data:
            drop_temporary_objects(self.connection)


def _distinct(columns: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Columns as a schema. Raises BindError where two have one name."""
    schema: dict[str, str] = {}
    lowered: dict[str, str] = {}
    for name, type_ in columns:
        twin = lowered.get(name.lower())
        if twin is not None:
            both = f"'{name}'" if twin == name else f"'{twin}' and '{name}'"
            raise BindError(SqlProblem(f"two output columns are called {both}", None, "name one of them with AS"))
        lowered[name.lower()] = name
        schema[name] = type_
    return schema


def _connect() -> Any:
    import duckdb

    connection = duckdb.connect(
        ":memory:", config={"threads": 1, "python_enable_replacements": False, "enable_external_access": False}
    )
    known = [name for (name,) in connection.execute("SELECT name FROM duckdb_optimizers()").fetchall()]
    disabled = ",".join(name for name in known if name not in _OPTIMIZERS)
    connection.execute("SET TimeZone = 'UTC'; SET errors_as_json = true")
    connection.execute(f"SET disabled_optimizers = '{disabled}'")
    connection.execute(f"CREATE SCHEMA {_TABLES}")
    return connection


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
            connection.execute(f"DROP {kind} IF EXISTS temp.{quoted(name)} CASCADE")


def _operators(plan: Any) -> Iterator[dict[str, Any]]:
    stack = list(plan) if isinstance(plan, list) else [plan]
    while stack:
        operator = stack.pop()
        yield operator
        stack.extend(operator.get("children", ()))


def _table_name(table: str) -> str:
    return f"memory.{_TABLES}.{table}".lower()


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
