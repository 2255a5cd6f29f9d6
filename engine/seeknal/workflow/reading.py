"""Reading: SQL over the tables that an environment holds, as they stood when it was opened. Nothing can be written.

- *outputs*: what an environment shows, node by node. An environment that was planned and never applied shows
  production's.
- *names*: a node's table is ``kind.name``, and also ``kind_name`` and plain ``name`` where only one table can be meant.

One statement at a time, and only one that reads. The connection sees the store's blobs and no other file, loads no
extensions, and its settings are locked. A view is made when a statement first names its table, because a thousand
views take longer than most queries.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from seeknal.dag.names import PRODUCTION, did_you_mean, environment_name, nearest
from seeknal.dag.sql import SqlProblem, Token, engine_problem, literal, quoted, quoted_node, tokens
from seeknal.errors import CorruptObjectError, NotFoundError, Place, SeeknalError
from seeknal.store.objects import Artifact, TreeEntry
from seeknal.store.store import Store

# The parts of a query that DuckDB's parser may find in one that only reads. A WITH clause may also hold INSERT,
# UPDATE, DELETE and even COPY … TO a file, each of them in a node of its own.
_READING_NODES = frozenset({"SELECT_NODE", "SET_OPERATION_NODE", "RECURSIVE_CTE_NODE", "CTE_NODE"})
_PARSER_NODE = re.compile(r'"type":\s*"(\w+_NODE)"')
_COPY = re.compile(r"\bcopy\b", re.IGNORECASE)

# Words that ask about tables without naming them.
_CATALOG_WORD = re.compile(r"tables|information_schema|(?:duckdb|pg|pragma|sqlite)_\w+")
_LISTINGS = ({"show"}, {"describe"}, {"desc"})

_MISSING_TABLE = re.compile(r'Table with name "?(.+?)"? does not exist')
_QUALIFIED = re.compile(r'(?:"[^"]*"|[\w$-]+)(?:\.(?:"[^"]*"|[\w$-]+))*')
_FILE_NAME = re.compile(r"[/\\]|\.(?:csv|parquet|json|jsonl|ndjson|txt|tsv|xlsx|db|duckdb)(?:\.gz)?$", re.IGNORECASE)

BATCH_ROWS = 1000


@dataclass(frozen=True)
class Outputs:
    """The stored outputs that an environment shows. ``shown`` is the environment they belong to."""

    store: Store
    environment: str
    shown: str
    nodes: dict[str, TreeEntry]

    @cached_property
    def tables(self) -> dict[str, Artifact]:
        """The outputs that have rows, by node id."""
        return {node_id: entry.artifact for node_id, entry in self.nodes.items() if entry.artifact.parts}

    def find(self, name: str) -> str:
        """The id of the node that an id, a bare name or ``kinds/name`` means.

        Raises NotFoundError where there is no output of it, SeeknalError where several nodes are meant.
        """
        folder, slash, bare = name.lower().rpartition("/")
        wanted = f"{folder.removesuffix('s')}.{bare}" if slash else name.lower()
        found = [node_id for node_id in self.nodes if wanted in (node_id.lower(), node_id.partition(".")[2].lower())]
        exact = [node_id for node_id in found if node_id.lower() == wanted]
        if len(exact or found) == 1:
            return (exact or found)[0]
        if found:
            raise SeeknalError(f"'{name}' may mean {' or '.join(found)}", hint="write kind.name")
        hint = did_you_mean(name, self.nodes) or "`seeknal inspect` lists all there are"
        raise NotFoundError(f"environment '{self.shown}' has no output of '{name}'", hint=hint)


def read_outputs(store: Store, environment: str = PRODUCTION) -> Outputs:
    """Read which outputs an environment shows.

    Raises NameNotAllowedError, NotFoundError where there is no such environment or nothing was run yet, StoreError.
    """
    name = environment_name(environment)
    head = store.head(name)
    shown = name
    if head is None and name != PRODUCTION:
        if store.read_environment(name) is None:
            hint = did_you_mean(name, store.environment_names()) or f"make it with `seeknal plan {name}`"
            raise NotFoundError(f"Environment '{name}' not found", hint=hint)
        shown, head = PRODUCTION, store.head(PRODUCTION)
    if head is None:
        command = "seeknal run" if name == PRODUCTION else f"seeknal run --env {name}"
        raise NotFoundError(f"environment '{name}' has no outputs yet", hint=f"make them with `{command}`")
    return Outputs(store, name, shown, store.read_tree(head.tree).nodes)


@dataclass(frozen=True)
class Rows:
    """A query's result. ``values`` are texts, None for NULL; they stream, and end with the reader's next query.

    ``types`` are DuckDB's. ``is_plan``: the rows are the answer to EXPLAIN.
    """

    columns: tuple[str, ...]
    types: tuple[str, ...]
    values: Iterator[tuple[str | None, ...]]
    is_plan: bool = False


@dataclass(frozen=True)
class _Statement:
    """One statement that only reads, without a semicolon; with the words in it."""

    text: str
    is_plan: bool
    words: frozenset[str] = field(default_factory=frozenset)


class TableReader:
    """A read-only DuckDB connection over an environment's tables. Use it as a context manager, or close it.

    ``writable`` is the one file that :meth:`write_parquet` may write.
    """

    def __init__(self, outputs: Outputs, *, writable: Path | None = None) -> None:
        self.outputs = outputs
        self._writable = writable
        self._viewed: set[str] = set()
        self._connection = _connect(outputs.store, writable)
        # Every name that a table goes by, lower case; those that several tables could go by stand for none.
        self._names: dict[str, list[str]] = {}
        for node_id in outputs.tables:
            kind, _, name = node_id.partition(".")
            for alias in dict.fromkeys((f"{kind}_{name}".lower(), name.lower())):
                self._names.setdefault(alias, []).append(node_id)

    @classmethod
    def open(cls, store: Store, environment: str = PRODUCTION, *, writable: Path | None = None) -> TableReader:
        """Open an environment for reading. Raises as :func:`read_outputs`."""
        return cls(read_outputs(store, environment), writable=writable)

    def __enter__(self) -> TableReader:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        self._connection.close()

    def names(self) -> list[str]:
        """Every name that a table can be asked for by: ids first, then the short names."""
        return [*self.outputs.tables, *(alias for alias, node_ids in self._names.items() if len(node_ids) == 1)]

    # queries

    def query(self, sql: str, *, limit: int | None = None, as_json: bool = False) -> Rows:
        """Run one statement that reads; at most ``limit`` rows of its result, in its order.

        Values come in DuckDB's own text form, with ``as_json`` as JSON texts (numbers exact, dates as strings; NaN
        and infinities as they are, which JSON does not know). Raises SeeknalError for what is wrong with the SQL,
        at the place in it, NotFoundError for a table that is not there; reading ``values`` raises likewise.
        """
        statement = self._ready(sql)
        if statement.is_plan:
            result = self._execute("", statement.text, "")
            columns = [entry[0] for entry in result.description]
            form = "CAST(to_json({}) AS VARCHAR)" if as_json else "{}"
            del form
            return Rows(tuple(columns), ("VARCHAR",) * len(columns), self._fetch(statement.text, 0), True)
        columns, types = self._describe(statement)
        value = "to_json(COLUMNS(*))" if as_json else "COLUMNS(*)"
        before = f"SELECT CAST({value} AS VARCHAR) FROM (\n"
        self._execute(before, statement.text, f"\n){_limit(limit)}")
        return Rows(tuple(columns), tuple(types), self._fetch(statement.text, len(before)))

    def write_parquet(self, sql: str, *, limit: int | None = None) -> int:
        """Write the result of one statement that reads to the writable file; gives the number of rows.

        Types that Parquet lacks become the nearest that loses nothing. Raises as :meth:`query`.
        """
        from seeknal.nodes.workbench import stored_type

        assert self._writable is not None
        statement = self._ready(sql)
        if statement.is_plan:
            raise SeeknalError("EXPLAIN has no rows to write as Parquet", hint="write .csv or .json")
        columns, types = self._describe(statement)
        casts = [
            f"CAST({quoted(name)} AS {stored_type(type_)}) AS {quoted(name)}"
            for name, type_ in zip(columns, types, strict=True)
            if stored_type(type_) != type_
        ]
        before = f"COPY (SELECT *{f' REPLACE ({", ".join(casts)})' if casts else ''} FROM (\n"
        options = "FORMAT parquet, COMPRESSION zstd, USE_TMP_FILE false"
        after = f"\n){_limit(limit)}) TO {literal(str(self._writable))} ({options})"
        count: int = self._execute(before, statement.text, after).fetchone()[0]
        return count

    def _describe(self, statement: _Statement) -> tuple[list[str], list[str]]:
        """Column names, made unique, and types; the query does not run for it."""
        found = self._execute("FROM (\n", statement.text, "\n) LIMIT 0").description
        return [entry[0] for entry in found], [str(entry[1]) for entry in found]

    def _fetch(self, text: str, shift: int) -> Iterator[tuple[str | None, ...]]:
        import duckdb

        while True:
            try:
                batch = self._connection.fetchmany(BATCH_ROWS)
            except duckdb.Error as error:
                raise self._error(error, text, shift) from error
            if not batch:
                return
            yield from batch

    def _execute(self, before: str, text: str, after: str) -> Any:
        import duckdb

        try:
            return self._connection.execute(f"{before}{text}{after}")
        except duckdb.Error as error:
            raise self._error(error, text, len(before)) from error

    # what may be asked

    def _ready(self, sql: str) -> _Statement:
        """Check a statement and make the views that it names."""
        statement = self._check(sql)
        words = statement.words
        if words in _LISTINGS or any(_CATALOG_WORD.fullmatch(word) for word in words):
            words = frozenset(name.lower() for name in self.names()) | {
                node_id.partition(".")[2].lower() for node_id in self.outputs.tables
            }
        for word in words:
            self._make_views(word)
        return statement

    def _check(self, sql: str) -> _Statement:
        """Take the text apart with DuckDB's parser. Raises SeeknalError unless it is one statement that reads."""
        import duckdb

        try:
            pieces = [token for token in tokens(sql) if token.kind != "comment"]
        except UnicodeError:
            raise SeeknalError("the SQL is not valid Unicode text") from None
        while pieces and not pieces[-1].text.strip(";"):
            pieces.pop()
        if not pieces:
            raise SeeknalError("the SQL is empty")
        text = sql[: pieces[-1].offset + len(pieces[-1].text)]
        query = _explained(text, pieces)
        try:
            found = self._connection.extract_statements(query)
        except duckdb.Error as error:
            raise self._error(error, query, 0, text.find(query)) from error
        if len(found) != 1:
            raise SeeknalError(f"one statement at a time; here are {len(found)}")
        kind = found[0].type.name
        if kind not in ("SELECT", "MULTI"):
            raise SeeknalError(f"{kind} is refused: tables can only be read here", hint="write a SELECT")
        if not self._only_reads(query):
            raise SeeknalError(
                "a statement that writes is refused, also inside WITH: tables can only be read here",
                hint='a column called copy is written "copy" in PIVOT' if kind == "MULTI" else "write a SELECT",
            )
        return _Statement(text, query is not text, _words(pieces))

    def _only_reads(self, query: str) -> bool:
        serialized: str = self._connection.execute("SELECT json_serialize_sql(?)", [query]).fetchone()[0]
        nodes = set(_PARSER_NODE.findall(serialized))
        # The parser prints no tree of a PIVOT. There is nothing to insert into; COPY alone could do harm.
        return nodes <= _READING_NODES if nodes else not _COPY.search(query)

    def _make_views(self, word: str) -> None:
        """Make the views of the tables that go by this name, once."""
        if word in self._viewed:
            return
        self._viewed.add(word)
        node_ids = self._names.get(word, ())
        for node_id in node_ids:
            if node_id not in self._viewed:
                self._viewed.add(node_id)
                self._connection.execute(f"CREATE SCHEMA IF NOT EXISTS {quoted(node_id.partition('.')[0])}")
                self._connection.execute(f"CREATE VIEW {quoted_node(node_id)} AS {self._table_query(node_id)}")
        if len(node_ids) == 1:
            self._connection.execute(f"CREATE VIEW main.{quoted(word)} AS FROM {quoted_node(node_ids[0])}")

    def _table_query(self, node_id: str) -> str:
        from seeknal.nodes.kind import InputTable
        from seeknal.nodes.workbench import table_query

        store, artifact = self.outputs.store, self.outputs.tables[node_id]
        if not store.is_whole(artifact):
            raise CorruptObjectError(
                f"{node_id}: its data is missing from the store", hint="run `seeknal run`; it rebuilds what is missing"
            )
        paths = tuple(str(store.blob_path(part)) for part in artifact.parts)
        columns = tuple((column.name, column.type) for column in artifact.columns)
        return table_query(InputTable(node_id, paths, columns, artifact.row_count))

    # what goes wrong

    def _error(self, error: Exception, text: str, shift: int, start: int = 0) -> SeeknalError:
        """Put DuckDB's error about ``text`` into one line, with its place in what was asked."""
        problem = engine_problem(error, text, shift)
        place = None
        if problem.offset is not None:
            lines = text[: problem.offset].split("\n")
            place = Place("SQL", len(lines), len(lines[-1]) + 1 + (start if len(lines) == 1 else 0))
        missing = _MISSING_TABLE.match(problem.message)
        if missing:
            return self._missing_table(_as_written(text, problem) or missing[1], place)
        hint = "only the project's tables can be read here" if "disabled by config" in problem.message else problem.hint
        return SeeknalError(problem.message, place=place, hint=hint)

    def _missing_table(self, name: str, place: Place | None) -> SeeknalError:
        lowered = name.lower()
        meant = self._names.get(lowered, ())
        if len(meant) > 1:
            return SeeknalError(f"'{name}' may mean {' or '.join(meant)}", place=place, hint="write kind.name")
        for node_id in self.outputs.nodes:
            if node_id not in self.outputs.tables and lowered in (node_id.lower(), node_id.partition(".")[2].lower()):
                return NotFoundError(f"{node_id} has no rows to read", place=place)
        if _FILE_NAME.search(name):
            hint = "declare a source for the file, and run it"
            return NotFoundError(f"'{name}' is a file, and only tables can be read here", place=place, hint=hint)
        close = {node_id for near in nearest(lowered, [*self.outputs.tables, *self._names]) for node_id in self._ids(near)}
        hint = did_you_mean(name, close or self.outputs.tables) or "`.tables` and `seeknal inspect` list all there are"
        if close:
            hint = f"did you mean {' or '.join(repr(node_id) for node_id in sorted(close))}?"
        return NotFoundError(f"no table is called '{name}'", place=place, hint=hint)

    def _ids(self, name: str) -> list[str]:
        return [name] if name in self.outputs.tables else self._names.get(name, [])


def _connect(store: Store, writable: Path | None) -> Any:
    import duckdb

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
    connection.execute(f"SET allowed_directories = [{literal(f'{store.root / "blobs"}/')}]")
    if writable is not None:
        connection.execute(f"SET allowed_paths = [{literal(str(writable))}]")
    connection.execute("SET enable_external_access = false; SET errors_as_json = true; SET lock_configuration = true")
    return connection


def _limit(limit: int | None) -> str:
    return "" if limit is None else f" LIMIT {limit}"


def _explained(text: str, pieces: list[Token]) -> str:
    """What an EXPLAIN explains; any other text as it is."""
    if pieces[0].text.lower() != "explain":
        return text
    words = [piece.text.lower() for piece in pieces]
    first = 2 if words[1:2] == ["analyze"] else 1
    if words[first : first + 1] == ["("] and words[first + 1 : first + 2] in (["analyze"], ["format"]):
        first = words.index(")", first) + 1 if ")" in words[first:] else first
    return text[pieces[first].offset :] if first < len(pieces) else text


def _words(pieces: list[Token]) -> frozenset[str]:
    """Everything in a statement that could be a table's name, lower case."""
    words: set[str] = set()
    for piece in pieces:
        if piece.kind == "string_const":
            # 'orders' may stand for a table, and query() takes SQL as a text.
            inner = re.findall(r"[\w.\-]+", piece.text.lower())
            words.update(inner, (word.rpartition(".")[2] for word in inner))
        else:
            words.add(piece.text.strip('"').replace('""', '"').lower())
    return frozenset(words)


def _as_written(text: str, problem: SqlProblem) -> str:
    """The qualified name at which an error points, without its quotes."""
    match = _QUALIFIED.match(text, problem.offset) if problem.offset is not None else None
    return match[0].replace('"', "") if match else ""
