"""Reading: SQL over the tables that an environment holds, as they stood when it was opened. Nothing can be written.

- *names*: a node's table is ``kind.name``, and also ``kind_name`` and plain ``name`` where only one table can be meant.

The connection sees the store's blobs and no other file, loads no extensions, and its settings are locked. A view is
made when a statement first names its table, because a thousand views take longer than most queries.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seeknal.dag.names import PRODUCTION, did_you_mean, nearest, nodes_named
from seeknal.dag.sql import literal, quoted, quoted_node
from seeknal.dag.sql_problem import SqlProblem, engine_problem
from seeknal.errors import CorruptObjectError, NotFoundError, SeeknalError
from seeknal.store.store import Store
from seeknal.workflow.outputs import Outputs, read_outputs
from seeknal.workflow.read_statement import ReadStatement, read_statement, sql_error, sql_place

if TYPE_CHECKING:
    from duckdb import DuckDBPyRelation

BATCH_ROWS = 1000

_MISSING_TABLE = re.compile(r'Table with name "?(.+?)"? does not exist')
_QUALIFIED = re.compile(r'(?:"[^"]*"|[\w$-]+)(?:\.(?:"[^"]*"|[\w$-]+))*')
_FILE_NAME = re.compile(r"[/\\]|\.(?:csv|parquet|json|jsonl|ndjson|txt|tsv|xlsx|db|duckdb)(?:\.gz)?$", re.IGNORECASE)


@dataclass(frozen=True)
class Rows:
    """A query's result. ``values`` are texts, None for NULL; they stream, and end with the reader's next query.

    ``types`` are DuckDB's. ``is_plan``: the rows are the answer to EXPLAIN.
    """

    columns: tuple[str, ...]
    types: tuple[str, ...]
    values: Iterator[tuple[str | None, ...]]
    is_plan: bool = False


class TableReader:
    """A read-only DuckDB connection over an environment's tables. Use it as a context manager, or close it.

    ``writable`` is the one file that :meth:`write_parquet` may write. Who makes one otherwise than by :meth:`open`
    holds a lease on the store.
    """

    def __init__(self, outputs: Outputs, *, writable: Path | None = None) -> None:
        self.outputs = outputs
        self._writable = writable
        self._connection = _connect(outputs.store, writable)
        # Queries run in a thread of their own, so that Ctrl-C reaches this one and can stop them.
        self._thread = ThreadPoolExecutor(1)
        self._running: Future[Any] | None = None
        self._viewed: set[str] = set()
        # Every short name, lower case, with the tables that could go by it.
        self._names: dict[str, list[str]] = {}
        for node_id in outputs.tables:
            kind, _, name = node_id.partition(".")
            for alias in (f"{kind}_{name}".lower(), name.lower()):
                self._names.setdefault(alias, []).append(node_id)
        self._leases = ExitStack()

    @classmethod
    def open(cls, store: Store, environment: str = PRODUCTION, *, writable: Path | None = None) -> TableReader:
        """Open an environment for reading. Raises as :func:`read_outputs`.

        While it is open, garbage collection leaves alone what it may still read.
        """
        with ExitStack() as undo:
            # In this order: where the environment stands from now on stays there.
            lease = undo.enter_context(store.leases.hold("reading", only_reading=True))
            outputs = read_outputs(store, environment)
            while outputs.moment:
                # What it stood at earlier stays there once the lease names it, if it is there then.
                lease.protect(outputs.snapshot)
                before, outputs = outputs, read_outputs(store, environment)
                if outputs.snapshot == before.snapshot:
                    break
            reader = cls(outputs, writable=writable)
            reader._leases.enter_context(undo.pop_all())
            return reader

    def __enter__(self) -> TableReader:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        self._stop()
        self._thread.shutdown()
        self._connection.close()
        self._leases.close()

    def names(self) -> list[str]:
        """Every name that a table can be asked for by: ids first, then the short names."""
        return [*self.outputs.tables, *(alias for alias, node_ids in self._names.items() if len(node_ids) == 1)]

    def find(self, name: str) -> str:
        """The id of the node that a name means. Raises as :meth:`Outputs.find`."""
        known = self._names.get(name.lower(), ())
        return known[0] if len(known) == 1 else self.outputs.find(name)

    # queries

    def query(self, sql: str, *, limit: int | None = None, as_json: bool = False) -> Rows:
        """Run one statement that reads; at most ``limit`` rows of its result, in its order.

        Values come in DuckDB's own text form, with ``as_json`` as JSON texts (numbers exact, dates as strings; NaN
        and infinities as they are, which JSON does not know). Raises SeeknalError for what is wrong with the SQL,
        at the place in it, NotFoundError for a table that is not there; reading ``values`` raises likewise.
        """
        statement = self._ready(sql)
        if statement.is_plan:
            columns = tuple(entry[0] for entry in self._execute("", statement.text, "").description)
            values = self._fetch(statement.text, 0)
            if as_json:
                values = (tuple(map(json.dumps, row)) for row in values)
            return Rows(columns, ("VARCHAR",) * len(columns), values, is_plan=True)
        columns, types = self._describe(statement)
        value = "to_json(COLUMNS(*))" if as_json else "COLUMNS(*)"
        before = f"SELECT CAST({value} AS VARCHAR) FROM (\n"
        self._execute(before, statement.text, f"\n){_limit(limit)}")
        return Rows(columns, types, self._fetch(statement.text, len(before)))

    def relation(self, sql: str) -> DuckDBPyRelation:
        """DuckDB's relation of one statement that reads, with its own types. It ends with the reader.

        Raises as :meth:`query` for what is wrong with the statement; computing it raises duckdb.Error.
        """
        statement = self._ready(sql)
        # A relation does not put an end to what was executed before it, as execute() does.
        self._connection.complete()
        relation: DuckDBPyRelation = self._stoppable(lambda: self._connection.sql(statement.text), statement.text, 0)
        return relation

    def write_parquet(self, sql: str, *, limit: int | None = None) -> int:
        """Write the result of one statement that reads to the writable file; gives the number of rows.

        Types that Parquet lacks become the nearest that loses nothing. Raises as :meth:`query`.
        """
        from seeknal.nodes.workbench import stored_type

        assert self._writable is not None
        statement = self._ready(sql)
        if statement.is_plan:
            raise SeeknalError("EXPLAIN has no rows to write as Parquet", hint="write .csv or .json")
        casts = [
            f"CAST({quoted(name)} AS {stored_type(type_)}) AS {quoted(name)}"
            for name, type_ in zip(*self._describe(statement), strict=True)
            if stored_type(type_) != type_
        ]
        replaced = f" REPLACE ({', '.join(casts)})" if casts else ""
        before = f"COPY (SELECT *{replaced} FROM (\n"
        options = "FORMAT parquet, COMPRESSION zstd, USE_TMP_FILE false"
        after = f"\n){_limit(limit)}) TO {literal(str(self._writable))} ({options})"
        count: int = self._execute(before, statement.text, after).fetchone()[0]
        return count

    def _describe(self, statement: ReadStatement) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Column names, made unique, and types; the query does not run for it."""
        found = self._execute("FROM (\n", statement.text, "\n) LIMIT 0").description
        return tuple(entry[0] for entry in found), tuple(str(entry[1]) for entry in found)

    def _fetch(self, text: str, shift: int) -> Iterator[tuple[str | None, ...]]:
        while batch := self._stoppable(lambda: self._connection.fetchmany(BATCH_ROWS), text, shift):
            yield from batch

    def _execute(self, before: str, text: str, after: str) -> Any:
        """Execute a user's text inside some of ours."""
        return self._stoppable(lambda: self._connection.execute(f"{before}{text}{after}"), text, len(before))

    def _stoppable(self, work: Callable[[], Any], text: str, shift: int) -> Any:
        import duckdb

        # What a second Ctrl-C left running is in the way.
        self._stop()
        self._running = self._thread.submit(work)
        try:
            return self._running.result()
        except duckdb.Error as error:
            raise self._error(engine_problem(error, text, shift), text) from error
        except KeyboardInterrupt:
            self._stop()
            raise

    def _stop(self) -> None:
        """Interrupt the query that runs, if one does, and wait for its end."""
        # An interruption that comes before the query has begun is lost, so it is repeated until the query is over.
        while self._running is not None and not self._running.done():
            self._connection.interrupt()
            wait([self._running], timeout=0.1)

    # tables

    def _ready(self, sql: str) -> ReadStatement:
        """Check a statement and make the views that it names."""
        statement = read_statement(sql, self._connection)
        for word in self._names if statement.lists_tables else statement.words:
            self._make_views(word)
        return statement

    def _make_views(self, word: str) -> None:
        """Make the views of the tables that go by this name, once."""
        node_ids = self._names.get(word, ())
        for node_id in node_ids:
            self._make_view(quoted_node(node_id), node_id)
        if len(node_ids) == 1:
            self._make_view(f"main.{quoted(word)}", node_ids[0])

    def _make_view(self, view: str, node_id: str) -> None:
        import duckdb

        from seeknal.nodes.kind import stored_table
        from seeknal.nodes.workbench import table_query

        if view in self._viewed:
            return
        store, artifact = self.outputs.store, self.outputs.tables[node_id]
        query = table_query(stored_table(store, node_id, artifact))
        what = store.find_fault(artifact)
        try:
            if not what:
                self._connection.execute(f"CREATE SCHEMA IF NOT EXISTS {quoted(node_id.partition('.')[0])}")
                self._connection.execute(f"CREATE VIEW {view} AS {query}")
                self._viewed.add(view)
                return
        except duckdb.Error as error:
            what = f"cannot be read: {engine_problem(error, query).message}"
        raise CorruptObjectError(f"{node_id}: its data {what}", hint=self._way_out())

    def _way_out(self) -> str:
        if self.outputs.moment:
            return "what history lacks cannot be built again; `seeknal store verify` tells what else is hurt"
        again = "seeknal run" if self.outputs.shown == PRODUCTION else f"seeknal run --env {self.outputs.shown}"
        return f"`{again}` builds it again"

    # what goes wrong

    def _error(self, problem: SqlProblem, text: str) -> SeeknalError:
        missing = _MISSING_TABLE.match(problem.message)
        if missing is None:
            return sql_error(problem, text)
        written = _QUALIFIED.match(text, problem.offset) if problem.offset is not None else None
        name = written[0].replace('"', "") if written else missing[1]
        message, hint = self._about_missing(name)
        return NotFoundError(message, place=sql_place(problem, text), hint=hint)

    def _about_missing(self, name: str) -> tuple[str, str]:
        """What to say of a table that is not there: message and hint."""
        lowered = name.lower()
        meant = self._names.get(lowered, ())
        if len(meant) > 1:
            return f"'{name}' may mean {' or '.join(meant)}", "write kind.name"
        for node_id in nodes_named(name, self.outputs.nodes):
            if node_id not in self.outputs.tables:
                return f"{node_id} has no rows to read", ""
        if _FILE_NAME.search(name):
            return f"'{name}' is a file, and only tables can be read here", "declare a source for the file, and run it"
        near = nearest(lowered, [*self.outputs.tables, *self._names])
        close = dict.fromkeys(node_id for found in near for node_id in self._names.get(found, (found,)))
        if close:
            hint = f"did you mean {' or '.join(map(repr, close))}?"
        else:
            hint = did_you_mean(name, self.outputs.tables) or "`seeknal inspect` lists all there are"
        return f"no table is called '{name}'", hint


def _connect(store: Store, writable: Path | None) -> Any:
    import duckdb

    from seeknal.nodes.workbench import literal_pattern
    from seeknal.workflow.limits import memory_share, usable_cores

    connection = duckdb.connect(
        ":memory:",
        config={
            "threads": usable_cores(),
            "memory_limit": f"{memory_share(1)}B",
            "python_enable_replacements": False,
            "temp_directory": str(store.temporary_folder),
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
        },
    )
    blobs = f"{store.root / 'blobs'}/"
    # DuckDB asks about paths as they stand in the query, and there their special characters are escaped.
    allowed = dict.fromkeys([blobs, literal_pattern(blobs)])
    connection.execute(f"SET allowed_directories = [{', '.join(map(literal, allowed))}]")
    if writable is not None:
        connection.execute(f"SET allowed_paths = [{literal(str(writable))}]")
    connection.execute("SET TimeZone = 'UTC'; SET errors_as_json = true; SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")
    return connection


def _limit(limit: int | None) -> str:
    return "" if limit is None else f" LIMIT {limit}"
