"""What a kind of node is: the seam that a new kind plugs into.

A kind is one module with one class, listed in :mod:`seeknal.nodes.registry`. It says which fields its YAML has, what
the node computes as SQL over its inputs where it is SQL, what beside its inputs its output depends on, and how a
worker executes it. Everything else (parsing, planning, caching, scheduling, environments) is the same for all kinds.

- *spec*: the fields of one node, as a msgspec Struct.
- *identity*: what the output depends on beside the inputs; part of the fingerprint.
- *task*: everything a worker needs to execute a node, as one message.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from seeknal.dag.names import PRODUCTION
from seeknal.dag.project import Project
from seeknal.nodes.check import Check
from seeknal.nodes.function_reference import FunctionReference
from seeknal.store.file_memo import FileDigests
from seeknal.store.memo import Memo, key_of
from seeknal.store.objects import Artifact

if TYPE_CHECKING:
    from seeknal.nodes.check_fields import ParsedCheck
    from seeknal.nodes.read_request import Columns
    from seeknal.nodes.workbench import Workbench
    from seeknal.store.store import Store


_encoder = msgspec.msgpack.Encoder(order="deterministic")
_columns_decoder = msgspec.msgpack.Decoder(tuple[tuple[str, str], ...])


class FieldProblem(msgspec.Struct, frozen=True):
    """Something wrong with a node's fields; ``path`` leads to the field, ``offset`` into its text where known.

    ``is_warning``: people should know of it, but the node can run.
    """

    message: str
    path: tuple[str | int, ...] = ()
    hint: str = ""
    offset: int | None = None
    is_warning: bool = False


class Query(msgspec.Struct, frozen=True):
    """A node's SQL, and which part of it the user wrote: ``text[start:start + length]`` is the field at ``path``.

    ``parts`` are further parts that the user wrote, each as start, length and path. ``positions`` are names, lower
    case, that inputs have in it beside ``input_0`` and the like, each with its index.
    """

    text: str
    path: tuple[str | int, ...] = ()
    start: int = 0
    length: int = 0
    positions: tuple[tuple[str, int], ...] = ()
    parts: tuple[tuple[int, int, tuple[str | int, ...]], ...] = ()

    def field_at(self, offset: int | None) -> tuple[tuple[str | int, ...], int | None]:
        """The path of the field that an offset in the query lies in, and the offset there; the query's own path and
        None where it lies in SQL of ours.
        """
        for start, length, path in self.parts:
            if offset is not None and start <= offset <= start + length:
                return path, offset - start
        return self.path, self.offset_in_field(offset)

    def offset_in_field(self, offset: int | None) -> int | None:
        """Turn an offset in the query into one in the user's field; None where it lies in SQL of ours."""
        if offset is None or not self.start <= offset <= self.start + self.length:
            return None
        return offset - self.start


class Surroundings(msgspec.Struct, frozen=True):
    """What a kind may look at outside the node when it plans: the project, files' digests, a DuckDB connection.

    The connection may read files; it is for what a schema depends on, not for data. ``memo`` is where that is
    remembered.
    """

    project: Project
    digests: FileDigests
    connection: Any
    memo: Memo = msgspec.field(default_factory=lambda: Memo(None))

    def columns_in(self, files: Sequence[str], asked: object, find: Callable[[], Columns]) -> Columns:
        """The columns in some files, as ``find`` tells them, or as it told them before for what they hold.

        ``asked``, plain values or Structs, says what else the answer depends on.
        """
        try:
            digests = [self.digests.cheap_digest(file) for file in files]
        except OSError:
            return find()
        key = key_of("columns", asked, digests)
        answer = self.memo.find(key) if None not in digests else None
        if answer is not None:
            return _columns_decoder.decode(answer)
        columns = find()
        # A file may have changed while it was looked at.
        if None not in digests and digests == [self.digests.cheap_digest(file) for file in files]:
            self.memo.keep(key, msgspec.msgpack.encode(columns))
        return columns


class InputTable(msgspec.Struct, frozen=True, array_like=True):
    """A node's output as a worker reads it: its files in row order, and name, type of each column.

    ``metadata`` is what the node's kind tells readers beside the rows.
    """

    node_id: str
    paths: tuple[str, ...]
    columns: tuple[tuple[str, str], ...]
    row_count: int
    metadata: dict[str, Any] = {}


def stored_table(store: Store, node_id: str, artifact: Artifact) -> InputTable:
    """A stored output as a table to read."""
    return InputTable(
        node_id,
        tuple(str(store.blob_path(part)) for part in artifact.parts),
        tuple((column.name, column.type) for column in artifact.columns),
        artifact.row_count,
        artifact.metadata,
    )


class Task(msgspec.Struct, frozen=True):
    """Everything a worker needs to execute one node. Paths are absolute.

    ``identity`` is, for a node that reads outside the store, what its fingerprint took to be there, encoded.
    ``positions`` gives further names to inputs by index. ``places``: where the only statement names inputs as tables,
    each as start, end (characters), the input's index and what the rest of the statement calls it, nothing where it has
    an alias; empty where that is not known. ``schema`` is the output's, where planning knows it.
    ``memory_limit_bytes`` 0 means DuckDB's own default. ``function`` gives a Python node's rows. ``checks`` are of the
    node's output, or of the inputs where the node is a rule; ``output`` is an output that is there already and is to be
    checked only. ``environment`` is where it runs: it tells which memory a function has, and counts in no output.
    ``mutexes`` are held while it is executed, against the runs of other processes.
    ``secrets`` are what no text may show.
    ``profiled``: whoever runs it wants to know where the time goes.
    """

    node_id: str
    kind: str
    fingerprint: str
    run_id: str
    project_root: str
    store_root: str
    spec: dict[str, Any]
    inputs: tuple[InputTable, ...] = ()
    positions: tuple[tuple[str, int], ...] = ()
    statements: tuple[str, ...] = ()
    places: tuple[tuple[int, int, int, str], ...] = ()
    schema: tuple[tuple[str, str], ...] | None = None
    identity: bytes = b""
    threads: int = 1
    memory_limit_bytes: int = 0
    function: FunctionReference | None = None
    checks: tuple[Check, ...] = ()
    output: Artifact | None = None
    environment: str = PRODUCTION
    mutexes: tuple[str, ...] = ()
    secrets: tuple[bytes, ...] = ()
    profiled: bool = False


class Kind(Protocol):
    """One kind of node. Implementations hold no state.

    A kind is a subclass that overrides what is different for it; what stands here is true of a node that makes a
    table without SQL, reads nothing outside and delivers nothing.

    ``name`` is what ``kind:`` says in YAML; ``spec`` the Struct of its fields; ``makes_table`` whether other nodes can
    read it; ``reads_outside`` whether its identity can change while it is executed; ``needs_process`` whether it is
    executed in a worker process always, because nothing but that process's end would stop it; ``executes`` is False for
    a kind that is kept in the manifest and nothing more; ``declarable`` is False for one whose nodes the engine makes.
    """

    name: str
    spec: type[msgspec.Struct]
    makes_table: bool = True
    reads_outside: bool = False
    needs_process: bool = False
    executes: bool = True
    declarable: bool = True

    def supplied(self) -> dict[str, Any]:
        """Fields that stand in the spec whatever the node says."""
        return {}

    # what a node says

    def check(self, spec: Any, project: Project) -> Iterable[FieldProblem]:
        """Find what types alone do not: values that do not go together, paths that may not be used."""
        return ()

    def references(self, spec: Any) -> Iterable[tuple[str, tuple[str | int, ...]]]:
        """Nodes that fields other than ``inputs`` name, as ids with the paths to those fields; they become inputs."""
        return ()

    def checks(self, spec: Any) -> Iterable[ParsedCheck]:
        """The checks of its inputs that executing the node evaluates; ``audits`` and ``tests`` are not among them."""
        return ()

    def audits(self, spec: Any) -> Iterable[ParsedCheck | FieldProblem]:
        """The checks of its output that fields of the kind's own mean, beside ``audits`` and ``tests``."""
        return ()

    def declared(self, spec: Any) -> dict[str, str] | None:
        """The output's columns as far as the node itself declares them, with DuckDB types; None where it does not."""
        return None

    def delivers_to(self, spec: Any) -> str | None:
        """The path outside the store that the node's output is delivered to; None where it stays inside."""
        return None

    # what is known before it runs

    def query(self, spec: Any, inputs: Sequence[str]) -> Query | None:
        """The SQL that gives the node's output, over inputs named ``"kind"."name"``; None where it is not SQL."""
        return None

    def schema(self, spec: Any, inputs: Sequence[dict[str, str] | None], around: Surroundings) -> dict[str, str] | None:
        """The output's columns of a node that is not SQL; None where only running it tells.

        Raises SeeknalError where that cannot work, as for a missing file.
        """
        return None

    def verify(
        self, spec: Any, inputs: Sequence[Mapping[str, str] | None], schema: Mapping[str, str] | None
    ) -> Iterable[FieldProblem]:
        """Find what is wrong with the node for these columns of its inputs and its output (None: not known yet).

        Asked when the project is planned, and again before the node runs where planning knew less; also where the
        node's SQL does not bind, without an output then.
        """
        return ()

    def verify_reads(
        self, inputs: Sequence[str], schemas: Sequence[Mapping[str, str] | None]
    ) -> Iterable[FieldProblem]:
        """Find columns that the node asks its inputs for and that these do not have; asked when ``verify`` is."""
        return ()

    def reads(
        self, spec: Any, inputs: Sequence[str], schemas: Sequence[Mapping[str, str] | None]
    ) -> dict[str, tuple[str, ...] | None]:
        """What a node that is not SQL reads: input → columns, None for all. An input left out does not count."""
        return dict.fromkeys(inputs)

    # what it depends on, and what it does

    def identity(self, spec: Any, around: Surroundings) -> list[Any]:
        """What the output depends on beside its inputs and SQL, as plain values. Raises SeeknalError."""
        return []

    def always_runs(self, spec: Any) -> bool:
        """Say whether the node runs every time, whatever is cached, because it depends on the moment."""
        return False

    def execute(self, task: Task, bench: Workbench) -> Artifact:
        """Do the work in a worker and put the output into the store. Raises SeeknalError or duckdb.Error."""
        return bench.store_query(task)


def encoded_identity(identity: list[Any]) -> bytes:
    """An identity as bytes that compare equal where the identities do."""
    return _encoder.encode(identity)


def inside(root: Path, path: Path) -> bool:
    """Say whether a path, links resolved, lies inside a folder."""
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(root))
