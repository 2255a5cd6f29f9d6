"""Nodes whose rows a Python function gives: any kind, with the function in the place of what its fields would read.

Of a source and a transform the function's rows are the output. Of the other kinds the kind then works on these rows, as
if they were its one input (``function.rows``). A function that has nothing in it is no such node: its fields say all.

Its schema is known only when it has run; the last one is remembered, for the same function, parameters and input
columns, so that readers can be checked before anything runs. That is a memo: what comes out decides.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import xxhash

from seeknal.dag.names import did_you_mean
from seeknal.dag.project import Project
from seeknal.dag.sql import literal, quoted
from seeknal.dag.type_message import in_words
from seeknal.errors import NodeFailedError, Place, SeeknalError
from seeknal.nodes.check_fields import ParsedCheck
from seeknal.nodes.function_call import call_function, function_running
from seeknal.nodes.function_reference import ROWS, FunctionReference
from seeknal.nodes.kind import FieldProblem, InputTable, Kind, Query, Surroundings, Task
from seeknal.nodes.registry import KINDS
from seeknal.nodes.source import FreshnessFields
from seeknal.nodes.transform import OutputFields
from seeknal.nodes.workbench import QueryFailed, Workbench, file_list, stored_type, table_query
from seeknal.store.filesystem import write_atomically
from seeknal.store.objects import Artifact

# The kinds whose output the function's rows are.
_ROW_KINDS = frozenset({"source", "transform"})


class RowsSpec(msgspec.Struct, frozen=True, kw_only=True):
    """The fields of a source or transform whose rows a function gives.

    ``source``, ``table`` and ``schema`` are what a source is loaded from where its function returns None;
    ``transform`` has no effect.
    """

    source: str = "csv"
    table: str = ""
    schema: list[dict[str, Any]] | None = None
    freshness: FreshnessFields = FreshnessFields()
    transform: str = ""
    output: OutputFields = OutputFields()
    inputs: list[Any] = []
    params: dict[str, Any] = {}


class PythonFunction(Kind):
    """A kind whose rows come from a function."""

    def __init__(self, kind: Kind, function: FunctionReference) -> None:
        self._kind = kind
        self._function = function
        self._gives_output = kind.name in _ROW_KINDS
        self.name = kind.name
        self.spec = RowsSpec if self._gives_output else kind.spec
        self.makes_table = kind.makes_table
        self.reads_outside = kind.reads_outside
        self.executes = kind.executes

    # what it says

    def supplied(self) -> dict[str, Any]:
        if self._gives_output:
            return {}
        own = {entry.encode_name for entry in msgspec.structs.fields(self._kind.spec)}
        return {name: value for name, value in (("inputs", [ROWS]), ("source", ROWS)) if name in own}

    def check(self, spec: Any, project: Project) -> Iterable[FieldProblem]:
        if self._function.reads_outside and self.name != "source":
            message = "may read files or the network, and a change there runs nothing again"
            hint = "read them in a source, or promise that it does not: reads_outside=False"
            yield FieldProblem(message, ("function",), hint, is_warning=True)
        if not self._gives_output:
            yield from self._kind.check(spec, project)
        elif self.name == "source" and spec.table:
            # What a function that returns None leaves to the fields.
            try:
                fields = _source_spec(spec)
            except msgspec.ValidationError as error:
                said, path = in_words(str(error))
                yield FieldProblem(f"'{'.'.join(map(str, path))}': {said}", path)
                return
            yield from self._kind.check(fields, project)

    def references(self, spec: Any) -> Iterable[tuple[str, tuple[str | int, ...]]]:
        for index, node_id in enumerate(self._function.references):
            yield node_id, ("function", "references", index)
        if not self._gives_output:
            yield from (entry for entry in self._kind.references(spec) if entry[0] != ROWS)

    def checks(self, spec: Any) -> Iterable[ParsedCheck]:
        return () if self._gives_output else self._kind.checks(spec)

    def audits(self, spec: Any) -> Iterable[ParsedCheck | FieldProblem]:
        return spec.freshness.checks() if self._gives_output else self._kind.audits(spec)

    def declared(self, spec: Any) -> dict[str, str] | None:
        return None if self._gives_output else self._kind.declared(spec)

    def delivers_to(self, spec: Any) -> str | None:
        return None if self._gives_output else self._kind.delivers_to(spec)

    # what is known before it runs

    def schema(self, spec: Any, inputs: Sequence[dict[str, str] | None], around: Surroundings) -> dict[str, str] | None:
        if any(schema is None for schema in inputs):
            return None
        path = self._memory(around.project.store().root, spec, [list((schema or {}).items()) for schema in inputs])
        try:
            return dict(msgspec.msgpack.decode(path.read_bytes(), type=list[tuple[str, str]]))
        except (OSError, msgspec.MsgspecError):
            return None

    def verify(
        self, spec: Any, inputs: Sequence[Mapping[str, str] | None], schema: Mapping[str, str] | None
    ) -> Iterable[FieldProblem]:
        return () if self._gives_output else self._kind.verify(spec, [None], schema)

    def verify_reads(
        self, inputs: Sequence[str], schemas: Sequence[Mapping[str, str] | None]
    ) -> Iterable[FieldProblem]:
        # A warning, because the code that asks may never be reached.
        known = {name.lower(): schema for name, schema in zip(inputs, schemas, strict=True)}
        for index, node_id in enumerate(self._function.references):
            schema = known.get(node_id.lower())
            actual = {column.lower() for column in schema or ()}
            for column in self._function.reads.get(node_id.lower()) or ():
                if schema is not None and column.lower() not in actual:
                    message = f"asks {node_id} for a column '{column}', which it does not have"
                    path = ("function", "references", index)
                    yield FieldProblem(message, path, did_you_mean(column, schema), is_warning=True)

    def reads(
        self, spec: Any, inputs: Sequence[str], schemas: Sequence[Mapping[str, str] | None]
    ) -> dict[str, tuple[str, ...] | None]:
        found: dict[str, tuple[str, ...] | None] = {}
        for name, schema in zip(inputs, schemas, strict=True):
            shown = self._function.reads.get(name.lower())
            actual = {column.lower(): column for column in schema or ()}
            if shown is None or not all(column.lower() in actual for column in shown):
                found[name] = None
            else:
                found[name] = tuple(actual[column.lower()] for column in shown)
        return found

    # what it depends on

    def identity(self, spec: Any, around: Surroundings) -> list[Any]:
        said = [self._function.digest, self._function.node_id, msgspec.to_builtins(spec)]
        if not self._gives_output:
            return [*said, self._kind.identity(spec, around)]
        if self.name == "source" and spec.table:
            # What the function may leave to the fields, or read itself.
            try:
                return [*said, KINDS["source"].identity(_source_spec(spec), around)]
            except SeeknalError:
                return said
        return said

    def always_runs(self, spec: Any) -> bool:
        if self._gives_output:
            return self.name == "source" and self._function.reads_outside
        return self._kind.always_runs(spec)

    # running

    def execute(self, task: Task, bench: Workbench) -> Artifact:
        spec: Any = msgspec.convert(task.spec, self.spec)
        root = Path(task.project_root)
        context = self._context(task, bench)
        rows: Artifact | InputTable | None = None
        # What an earlier attempt left there does not go with this one's output.
        context.forget_what_waits()
        try:
            with function_running(root, self._function, context.params):
                value = call_function(root, self._function, context)
                if not (value is None and self.name == "source"):
                    # A relation is computed only now, by code of the user's.
                    rows = self._stored(value, task, bench)
        except BaseException:
            context.forget_what_waits()
            raise
        finally:
            context.close()
        if rows is None and not spec.table:
            raise self._failure("returned None", "return its rows, or name what is read: table=…")
        if rows is None:
            fields = msgspec.to_builtins(_source_spec(spec))
            artifact = KINDS["source"].execute(msgspec.structs.replace(task, spec=fields), bench)
        elif isinstance(rows, Artifact):
            artifact = rows
        else:
            artifact = self._by_kind(rows, spec, task, bench)
        schema = list(artifact.schema().items())
        path = self._memory(Path(task.store_root), spec, [list(table.columns) for table in task.inputs])
        write_atomically(path, msgspec.msgpack.encode(schema), bench.store.temporary_folder)
        return artifact

    def _stored(self, value: Any, task: Task, bench: Workbench) -> Artifact | InputTable:
        """The rows as an output, or as a table in a temporary file for the kind to work on."""
        import duckdb

        from seeknal.nodes.returned_rows import rows_of

        connection = bench.outside_connection(task.threads, task.memory_limit_bytes)
        try:
            with rows_of(value, connection) as rows:
                if self._gives_output:
                    return bench.copy_to_store(rows.connection, rows.query, rows.schema)
                file = bench.store.temporary_path()
                columns = ", ".join(
                    f"CAST({quoted(name)} AS {stored_type(type_)}) AS {quoted(name)}"
                    for name, type_ in rows.schema.items()
                )
                target = f"{literal(str(file))} (FORMAT parquet, COMPRESSION zstd)"
                rows.connection.execute(f"COPY (SELECT {columns} FROM ({rows.query})) TO {target}")
                counted = connection.execute(f"SELECT count(*) FROM read_parquet({file_list((str(file),))})")
                return InputTable(ROWS, (str(file),), tuple(rows.schema.items()), counted.fetchall()[0][0])
        except (NodeFailedError, duckdb.Error) as error:
            message = error.message if isinstance(error, NodeFailedError) else " ".join(str(error).split())
            hint = error.hint if isinstance(error, NodeFailedError) else ""
            raise self._failure(_predicate(message), hint) from error

    def _failure(self, message: str, hint: str) -> NodeFailedError:
        """What is wrong with what the function returned, at the function."""
        place = Place(self._function.file, self._function.line)
        return NodeFailedError(f"{self._function.name}() {message}", place=place, hint=hint)

    def _by_kind(self, rows: InputTable, spec: Any, task: Task, bench: Workbench) -> Artifact:
        """Let the kind work on the function's rows, which are removed afterwards."""
        useless = f"gives rows that the {self.name} cannot use"
        try:
            for wrong in self._kind.verify(spec, [dict(rows.columns)], None):
                if not wrong.is_warning:
                    raise self._failure(f"{useless}: {wrong.message}", wrong.hint)
            inner = msgspec.structs.replace(task, inputs=(rows,), positions=(), statements=(), places=(), schema=None)
            query = self._kind.query(spec, (ROWS,))
            if query is not None:
                inner = self._with_query(inner, query, bench)
            return self._kind.execute(inner, bench)
        except QueryFailed as error:
            raise self._failure(f"{useless}: {error.problem.message}", error.problem.hint) from error
        finally:
            for file in rows.paths:
                Path(file).unlink(missing_ok=True)

    def _with_query(self, task: Task, query: Query, bench: Workbench) -> Task:
        """A task that runs a kind's query over the function's rows. Raises NodeFailedError where it cannot be."""
        from seeknal.dag.sql import take_apart

        connection = bench.hermetic_connection(task.threads, task.memory_limit_bytes)
        sql = take_apart(query.text, {ROWS: ROWS}, lambda name: [], connection, query.positions)
        if sql.problems:
            problem = sql.problems[0]
            raise NodeFailedError(f"cannot be computed from the function's rows: {problem.message}", hint=problem.hint)
        return msgspec.structs.replace(task, positions=sql.positions, statements=sql.statements)

    def _context(self, task: Task, bench: Workbench) -> Any:
        from seeknal.pipeline.context import Input, Limits, PipelineContext

        root = Path(task.project_root)
        inputs = {
            table.node_id.lower(): Input(
                table_query(table), table.columns, self._function.reads.get(table.node_id.lower()), table.metadata
            )
            for table in task.inputs
        }
        return PipelineContext(
            project_path=root,
            target_dir=root / "target",
            environment=task.environment,
            node_id=task.node_id,
            params=task.spec.get("params") or {},
            node_meta={"kind": task.kind, "name": task.node_id.partition(".")[2], **task.spec},
            inputs=inputs,
            limits=Limits(task.threads, task.memory_limit_bytes, str(bench.store.temporary_folder)),
            _fingerprint=task.fingerprint,
        )

    def _memory(self, store_root: Path, spec: Any, inputs: Sequence[Sequence[Sequence[str]]]) -> Path:
        said = [self._function.digest, self.name, msgspec.to_builtins(spec), inputs]
        return store_root / "memo" / "schemas" / xxhash.xxh3_128_hexdigest(msgspec.msgpack.encode(said))


def _source_spec(spec: Any) -> Any:
    kind = KINDS["source"].spec
    names = {entry.encode_name for entry in msgspec.structs.fields(kind)}
    fields = {name: value for name, value in msgspec.to_builtins(spec).items() if name in names and value is not None}
    return msgspec.convert(fields, kind)


def _predicate(message: str) -> str:
    return message if message.split(" ")[0] in ("returned", "has", "gives", "cannot") else f"failed: {message}"
