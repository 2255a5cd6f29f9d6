"""What reading and analysing a project gave, remembered: after an edit, only what it reaches is worked out again.

- *documents*: the values in a YAML file, by the digest of its bytes.
- *parts*: a query taken apart, by its text. Which nodes there are matters as well; so what was asked about them on the
  way is remembered with the parts, and these count only where the same questions have the same answers.
- *bound*: what binding a query told, by the query and the columns of what it reads.

Nothing that is wrong is remembered. So errors, their words and their places are always found anew, and are the same
with and without a memo. Nor is a query into which a value of the environment was put: that may be a secret.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from msgspec.structs import replace

from seeknal.dag.binding import Binder, Bound, Schema
from seeknal.dag.sql import Sql, take_apart
from seeknal.dag.syntax_trees import SyntaxTrees
from seeknal.dag.yaml_file import Document, RememberedDocument, load_documents
from seeknal.errors import Problem
from seeknal.store.file_memo import FileDigests
from seeknal.store.filesystem import digest_bytes
from seeknal.store.memo import Memo, key_of

# How many nodes' columns a binder knows at once.
MOST_TABLES = 500


class _Parts(msgspec.Struct, frozen=True, array_like=True):
    """A query taken apart, and what was asked about the project's nodes on the way.

    ``sql`` is without its texts where they are those that stand before: see :func:`_without_twins`.
    """

    known: dict[str, str | None]
    bare: dict[str, list[str]]
    sql: Sql


class _BoundParts(msgspec.Struct, frozen=True, array_like=True):
    schema: dict[str, str] | None
    reads: dict[str, tuple[str, ...] | None]


def _without_twins(sql: Sql, text: str) -> Sql:
    """A query of this ``text`` without what says the same once more."""
    whole = sql.text == text and sql.statements == (text.strip(),)
    return replace(
        sql,
        text="" if whole else sql.text,
        statements=() if whole else sql.statements,
        bare=() if sql.bare == sql.statements else sql.bare,
    )


# Of most queries.
_ONE_START = (0,)


def _with_twins(sql: Sql, text: str) -> Sql:
    """The query again, which nobody else has; a text stands in memory once."""
    put, share = msgspec.structs.force_setattr, sys.intern
    if not sql.statements:
        put(sql, "text", text)
        put(sql, "statements", (text.strip(),))
        put(sql, "starts", _ONE_START if sql.starts == _ONE_START else sql.starts)
    put(sql, "bare", sql.bare or sql.statements)
    put(sql, "references", tuple(map(share, sql.references)))
    for place in sql.places:
        put(place, "name", share(place.name))
        put(place, "called", share(place.called))
    return sql


_encoder = msgspec.msgpack.Encoder()
_parts_decoder = msgspec.msgpack.Decoder(_Parts)
_bound_decoder = msgspec.msgpack.Decoder(_BoundParts)
_values_decoder = msgspec.msgpack.Decoder(list[Any])


class ProjectMemo:
    """Reads YAML, takes queries apart and binds them, or remembers what that gave.

    Without a ``memo`` nothing is remembered; ``digests`` tell what is in the files.
    """

    def __init__(self, memo: Memo | None = None, digests: FileDigests | None = None) -> None:
        self.memo = memo if memo is not None else Memo(None)
        self._digests = digests
        self._next_binder = Binder()
        self._trees = SyntaxTrees(self.parser)

    @property
    def parser(self) -> Any:
        """A DuckDB connection for its parser only. Opening one takes as long as binding ten queries, so the next
        binder binds with it.
        """
        return self._next_binder.connection

    def rest(self) -> None:
        """Write down what is new, and give back the memory that remembering takes until something is asked again."""
        self.memo.rest()

    def save(self) -> None:
        self.memo.save()

    def load_documents(self, path: str, name: str) -> tuple[Sequence[Document | RememberedDocument], list[Problem]]:
        """As :func:`seeknal.dag.yaml_file.load_documents`; places in remembered documents are found when asked for."""
        if self._digests is None:
            return load_documents(Path(path), name)
        try:
            # Whoever opens a project asks for all files' digests first.
            digest = self._digests.asked.get(path) or self._digests.digest(path)[0]
        except OSError:
            return load_documents(Path(path), name)
        key = key_of("documents", digest)
        answer = self.memo.find(key)
        if answer is not None:
            values = _values_decoder.decode(answer)
            return _remembered(values, path, name), []
        documents, problems = load_documents(Path(path), name)
        # The file may have changed since its digest was taken.
        if not problems and documents and digest_bytes(documents[0].source.encode()) == digest:
            self.memo.keep(key, _encoder.encode([document.value for document in documents]))
            # Its places take several times the memory of its values, and are as a rule not asked for.
            return _remembered([document.value for document in documents], path, name), []
        return documents, problems

    def expect(self, queries: Iterable[tuple[str, Iterable[tuple[str, int]]]]) -> None:
        """Say which queries, each with its positions, are to be taken apart next: new ones are cheaper together."""
        self._trees.expect(
            text.strip()
            for text, positions in queries
            if self.memo.find(key_of("parts", text, tuple(positions))) is None
        )

    def take_apart(
        self,
        text: str,
        known: Mapping[str, str],
        resolve_bare: Callable[[str], list[str]],
        connection: Any,
        positions: Iterable[tuple[str, int]] = (),
        *,
        secret: bool = False,
    ) -> Sql:
        """As :func:`seeknal.dag.sql.take_apart`. ``secret``: the text must not be written anywhere."""
        positions = tuple(positions)
        key = key_of("parts", text, positions)
        answer = None if secret else self.memo.find(key)
        if answer is not None:
            parts = _parts_decoder.decode(answer)
            if all(known.get(name) == node_id for name, node_id in parts.known.items()) and all(
                resolve_bare(name) == found for name, found in parts.bare.items()
            ):
                return _with_twins(parts.sql, text)
        asked = _Asked(known, resolve_bare)
        trees = self._trees if connection is self.parser else None
        sql = take_apart(text, asked, asked.resolve_bare, connection, positions, trees)
        if not (sql.problems or secret or asked.for_all):
            short = _without_twins(sql, text)
            self.memo.keep(key, _encoder.encode(_Parts(asked.known, asked.bare, short)))
            return _with_twins(short, text)
        return sql

    def binder(self) -> RememberingBinder:
        """A binder that remembers here what it is told."""
        binder, self._next_binder = self._next_binder, Binder()
        self._trees = SyntaxTrees(self.parser)
        return RememberingBinder(self.memo, binder)


def _remembered(values: Iterable[Any], path: str, name: str) -> list[RememberedDocument]:
    root = sys.intern(path[: -len(name)])
    return [RememberedDocument(value, root, name, index) for index, value in enumerate(values)]


class _Asked(Mapping[str, str]):
    """The ids of a project's nodes, and what was asked of them; ``for_all``: for more than single names."""

    def __init__(self, ids: Mapping[str, str], resolve_bare: Callable[[str], list[str]]) -> None:
        self._ids = ids
        self._resolve_bare = resolve_bare
        self.known: dict[str, str | None] = {}
        self.bare: dict[str, list[str]] = {}
        self.for_all = False

    def __getitem__(self, name: str) -> str:
        found = self.known[name] = self._ids.get(name)
        if found is None:
            raise KeyError(name)
        return found

    def __iter__(self) -> Iterator[str]:
        self.for_all = True
        return iter(self._ids)

    def __len__(self) -> int:
        self.for_all = True
        return len(self._ids)

    def resolve_bare(self, name: str) -> list[str]:
        found = self.bare[name] = self._resolve_bare(name)
        return found


class RememberingBinder:
    """A :class:`seeknal.dag.binding.Binder` that is asked only for what is not remembered.

    Its connection is opened, and tables are made in it, when something has to be bound after all.
    """

    def __init__(self, memo: Memo, binder: Binder) -> None:
        self._memo = memo
        self._binder = binder
        self._schemas: dict[str, Schema] = {}
        # One of each: most nodes of a project have the columns of others.
        self._shared: dict[tuple[tuple[str, str], ...], dict[str, str]] = {}
        self._shared_reads: dict[tuple[str, ...], tuple[str, ...]] = {}
        # What the binder was not told yet.
        self._untold: set[str] = set()

    @property
    def connection(self) -> Any:
        """The binder's own connection."""
        return self._binder.connection

    @property
    def table_count(self) -> int:
        """How many tables the binder itself made."""
        return self._binder.table_count

    def close(self) -> None:
        self._binder.close()

    def declare(self, node_id: str, schema: Schema) -> None:
        """Make a node's columns known to queries that are bound from now on. Raises duckdb.Error."""
        before = self._schemas.get(node_id)
        if before is schema:
            return
        columns = list(schema.items())
        if before is not None and list(before.items()) == columns:
            return
        key = key_of("table", columns)
        if self._memo.find(key) is None:
            self._make_room()
            self._binder.declare(node_id, schema)
            self._memo.keep(key, b"")
            self._untold.discard(node_id)
        else:
            self._untold.add(node_id)
        self._schemas[node_id] = schema

    def forget(self, node_id: str) -> None:
        """Make a node's columns unknown again."""
        if self._schemas.pop(node_id, None) is not None:
            self._untold.discard(node_id)
            self._binder.forget(node_id)

    def bind(self, sql: Sql, inputs: Sequence[str], *, secret: bool = False) -> Bound:
        """Bind a query whose inputs are all declared; see :meth:`seeknal.dag.binding.Binder.bind`.

        ``secret``: nothing of it must be written anywhere. Raises BindError.
        """
        named = dict.fromkeys([*sql.references, *(inputs[index] for _, index in sql.positions)])
        read = [
            (node_id, list(self._schemas[node_id].items()) if node_id in self._schemas else None) for node_id in named
        ]
        positions = [(name, inputs[index]) for name, index in sql.positions]
        flags = (sql.reads_everything, sql.depends_on_data)
        key = key_of("bound", sql.statements, sql.bare, sql.references, positions, flags, read)
        answer = None if secret else self._memo.find(key)
        if answer is not None:
            bound = _bound_decoder.decode(answer)
            return self._sharing(bound.schema, bound.reads)
        self._make_room()
        for node_id in named:
            if node_id in self._untold:
                self._binder.declare(node_id, self._schemas[node_id])
                self._untold.discard(node_id)
        found = self._binder.bind(sql, inputs)
        if not secret:
            self._memo.keep(key, _encoder.encode(_BoundParts(found.schema, found.reads)))
        return self._sharing(found.schema, found.reads)

    def _sharing(self, schema: dict[str, str] | None, reads: dict[str, tuple[str, ...] | None]) -> Bound:
        """What binding told, in terms of what it told before."""
        if schema is not None:
            schema = self._shared.setdefault(tuple(schema.items()), schema)
        for name, columns in reads.items():
            if columns is not None:
                reads[name] = self._shared_reads.setdefault(columns, columns)
        return Bound(schema, reads)

    def _make_room(self) -> None:
        """Let the binder begin anew where it knows very many nodes: as a rule most of them are not read any more."""
        if self._binder.table_count >= MOST_TABLES:
            self.rest()

    def rest(self) -> None:
        """Give back the memory that only binding takes; it is taken again when there is something to bind."""
        self._binder.forget_all()
        self._untold = set(self._schemas)

    def evaluates(self, sql: str) -> bool:
        """Say whether DuckDB evaluates a query that reads no table."""
        import duckdb

        try:
            self.connection.execute(sql).fetchall()
        except duckdb.Error:
            return False
        return True
