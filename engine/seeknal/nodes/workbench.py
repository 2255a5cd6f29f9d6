"""The workbench: what a worker process has at hand to execute nodes, kept warm between them.

- the *hermetic* connection runs users' SQL. It can read and write the store's blobs and temporary files and nothing
  else; neither that nor the refusal of extensions can be turned back by SQL.
- the *outside* connection reads sources. It runs SQL of ours only.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from seeknal.dag.binding import drop_temporary_objects
from seeknal.dag.filled_sql import FilledSql
from seeknal.dag.sql import literal, quoted, quoted_node
from seeknal.dag.sql_problem import SqlProblem, engine_problem
from seeknal.late_pattern import late_pattern
from seeknal.nodes.kind import InputTable, Task
from seeknal.store.objects import Artifact
from seeknal.store.store import Store
from seeknal.timeline import span

# Types that Parquet cannot hold are stored as one that loses nothing, and cast back in the view of the table.
# The look-ahead leaves alone a struct's field of such a name: a type follows it.
_STORED_AS = (
    (late_pattern(r'(?<!")\bU?HUGEINT\b(?!"|\s+["\w])'), "DECIMAL(38,0)"),
    (late_pattern(r'(?<!")\b(?:BIT|BIGNUM)\b(?!"|\s+["\w])'), "VARCHAR"),
    (late_pattern(r'(?<!")\bTIMESTAMP_M?S\b(?!"|\s+["\w])'), "TIMESTAMP"),
    (late_pattern(r"\bENUM\('(?:[^']|'')*'(?:, '(?:[^']|'')*')*\)"), "VARCHAR"),
)


# Level 1 gives files of the same size as DuckDB's own choice, 3, and takes a sixth less time.
_ZSTD = "COMPRESSION zstd, COMPRESSION_LEVEL 1"

# Of a file of a few kilobytes, zstd takes a sixth of the time that all of the node takes, and saves nothing: a block of
# the disk is as large.
_SNAPPY = "COMPRESSION snappy"
ROWS_WORTH_ZSTD = 20_000

_PATTERN_CHARACTER = late_pattern(r"([*?[])")


@cache
def stored_type(type_: str) -> str:
    """The DuckDB type that a column of this type has in a blob."""
    for pattern, replacement in _STORED_AS:
        type_ = pattern.sub(replacement, type_)
    return type_


def file_list(paths: tuple[str, ...]) -> str:
    """Paths as a SQL list for ``read_parquet``; characters that would make a pattern stand for themselves."""
    return f"[{', '.join(literal(literal_pattern(path)) for path in paths)}]"


def literal_pattern(path: str) -> str:
    return _PATTERN_CHARACTER.sub(r"[\1]", path)


def table_query(table: InputTable) -> str:
    """SQL that gives a stored table with its own types."""
    columns = ", ".join(
        quoted(name) if stored_type(type_) == type_ else f"CAST({quoted(name)} AS {type_}) AS {quoted(name)}"
        for name, type_ in table.columns
    )
    files = f"FROM read_parquet({file_list(table.paths)})"
    return files if all(stored_type(type_) == type_ for _, type_ in table.columns) else f"SELECT {columns} {files}"


def _is_small(task: Task) -> bool:
    """Guess from its inputs whether a task's result is small; of one that reads nothing, nobody can tell."""
    return len(task.inputs) > 0 and sum(table.row_count for table in task.inputs) < ROWS_WORTH_ZSTD


class QueryFailed(Exception):
    """DuckDB could not run a node's SQL: why, and in which of the task's statements (-1: the last)."""

    def __init__(self, problem: SqlProblem, statement: int) -> None:
        super().__init__(problem.message)
        self.problem = problem
        self.statement = statement


class Workbench:
    """A worker's connections and store; one for each worker process and store."""

    def __init__(self, store_root: Path) -> None:
        self.store = Store(store_root)
        self._hermetic: Any = None
        self._outside: Any = None
        self._views: dict[str, str] = {}
        self._settings: dict[int, tuple[int, int, int]] = {}

    def interrupt(self) -> None:
        """End the queries that run on these connections; callable from any thread."""
        for connection in (self._hermetic, self._outside):
            if connection is not None:
                connection.interrupt()

    def close(self) -> None:
        for connection in (self._hermetic, self._outside):
            if connection is not None:
                connection.close()
        self._hermetic = self._outside = None
        self._views.clear()
        self._settings.clear()

    def hermetic_connection(self, threads: int, memory_limit_bytes: int, queries: Iterable[str] = ()) -> Any:
        """The connection for ``queries`` of the user's, and for any of ours."""
        if self._hermetic is None:
            self.store.prepare()
            connection = self._connect()
            folders = [f"{self.store.root / name}/" for name in ("blobs", "tmp")]
            # DuckDB asks about paths as they stand in the query, and there their special characters are escaped.
            allowed = dict.fromkeys([*folders, *map(literal_pattern, folders)])
            connection.execute(f"SET allowed_directories = [{', '.join(map(literal, allowed))}]")
            connection.execute("SET enable_external_access = false; SET errors_as_json = true")
            self._hermetic = connection
        # With one thread for everything, a recursive part that reads a file waits for ever for what is read ahead.
        recursive = any("recursive" in query.lower() for query in queries)
        return self._tuned(self._hermetic, threads, memory_limit_bytes, async_threads=int(recursive))

    def outside_connection(self, threads: int, memory_limit_bytes: int) -> Any:
        if self._outside is None:
            self.store.prepare()
            self._outside = self._connect()
        return self._tuned(self._outside, threads, memory_limit_bytes)

    def _connect(self) -> Any:
        with span("connect"):
            import duckdb

            connection = duckdb.connect(
                ":memory:",
                config={
                    "threads": 1,
                    # Blocks that are read ahead arrive in any order, and then one thread is not enough for equal bytes.
                    "async_threads": 0,
                    "python_enable_replacements": False,
                    "temp_directory": str(self.store.temporary_folder),
                    "autoinstall_known_extensions": False,
                },
            )
        # A slow query would draw its progress on stdout, which belongs to whoever runs us.
        # And what a node gives must not depend on where the machine stands.
        connection.execute("SET enable_progress_bar = false; SET TimeZone = 'UTC'")
        return connection

    def _tuned(self, connection: Any, threads: int, memory_limit_bytes: int, *, async_threads: int = 0) -> Any:
        wanted = (threads, memory_limit_bytes, async_threads)
        if self._settings.get(id(connection), (1, 0, 0)) != wanted:
            connection.execute(f"SET threads = {threads}; SET async_threads = {async_threads}")
            if memory_limit_bytes:
                connection.execute(f"SET memory_limit = '{memory_limit_bytes}B'")
            else:
                connection.execute("RESET memory_limit")
            self._settings[id(connection)] = wanted
        return connection

    def make_views(self, connection: Any, task: Task) -> None:
        """Give the task's inputs their names. Views that stand already, for the same data, are left."""
        names = [self.make_view(connection, table) for table in task.inputs]
        for alias, index in task.positions:
            connection.execute(f"CREATE OR REPLACE TEMP VIEW {quoted(alias)} AS FROM {names[index]}")

    def make_view(self, connection: Any, table: InputTable) -> str:
        """Give a table its name; gives that name as SQL."""
        name, query = quoted_node(table.node_id), table_query(table)
        if self._views.get(name) != query:
            if name not in self._views:
                connection.execute(f"CREATE SCHEMA IF NOT EXISTS {quoted(table.node_id.partition('.')[0])}")
            connection.execute(f"CREATE OR REPLACE VIEW {name} AS {query}")
            self._views[name] = query
        return name

    def store_query(self, task: Task) -> Artifact:
        """Run a task's SQL over its inputs and put the result into the store."""
        connection = self.hermetic_connection(task.threads, task.memory_limit_bytes, task.statements)
        if task.places and task.schema is not None:
            artifact = self._store_filled_in(connection, task, dict(task.schema))
            if artifact is not None:
                return artifact
        self.make_views(connection, task)
        try:
            *before, query = task.statements
            for index, statement in enumerate(before):
                self._execute(connection, "", statement, "", index)
            schema = None if task.schema is None else dict(task.schema)
            if schema is None:
                # Statements whose columns depend on the data (PIVOT) run into a table first.
                self._execute(connection, "CREATE TEMP TABLE seeknal_result AS ", query, "", len(before))
                query = "FROM seeknal_result"
                schema = {name: type_ for name, type_, *_ in connection.execute(f"DESCRIBE {query}").fetchall()}
            return self.copy_to_store(connection, query, schema, small=_is_small(task))
        finally:
            if len(task.statements) > 1 or task.schema is None or task.positions:
                drop_temporary_objects(connection)

    def _store_filled_in(self, connection: Any, task: Task, schema: dict[str, str]) -> Artifact | None:
        """Run a task's only statement with its inputs' queries in place of their names, which spares it views.

        Gives None where DuckDB does not bind that: with views, then, it tells what is wrong.
        """
        import duckdb

        fillings = [(start, end, called, table_query(task.inputs[index])) for start, end, index, called in task.places]
        query = FilledSql.of(task.statements[0], fillings)
        try:
            return self.copy_to_store(connection, query.text, schema, small=_is_small(task))
        except QueryFailed as error:
            if isinstance(error.__cause__, (duckdb.ParserException, duckdb.BinderException, duckdb.CatalogException)):
                return None
            offset = error.problem.offset
            problem = replace(error.problem, offset=None if offset is None else query.original_offset(offset))
            raise QueryFailed(problem, error.statement) from error.__cause__

    def copy_to_store(self, connection: Any, query: str, schema: dict[str, str], *, small: bool = False) -> Artifact:
        """Stream a query's result into a blob. ``schema`` is what the query gives: name → DuckDB type.

        ``small``: it is expected to be no larger than a few megabytes.

        Raises QueryFailed on the hermetic connection, duckdb.Error on the other.
        """
        casts = [
            f"CAST({quoted(name)} AS {stored_type(type_)}) AS {quoted(name)}"
            for name, type_ in schema.items()
            if stored_type(type_) != type_
        ]
        before, after = ("(", "\n)")
        if casts:
            before, after = f"(SELECT * REPLACE ({', '.join(casts)}) FROM (", "\n))"
        file = self.store.temporary_path()
        try:
            # The file that is written has a temporary name already.
            options = f"FORMAT parquet, {_SNAPPY if small else _ZSTD}, USE_TMP_FILE false"
            self._execute(connection, f"COPY {before}", query, f"{after} TO {literal(str(file))} ({options})", -1)
            blob, row_count, columns = self.store.adopt_parquet(file, schema.values())
        finally:
            file.unlink(missing_ok=True)
        return Artifact((blob,), row_count, columns)

    def _execute(self, connection: Any, before: str, query: str, after: str, statement: int) -> None:
        import duckdb

        try:
            with span("query"):
                connection.execute(f"{before}{query}{after}")
        except duckdb.Error as error:
            if connection is not self._hermetic:
                raise
            raise QueryFailed(engine_problem(error, query, len(before.encode())), statement) from error
