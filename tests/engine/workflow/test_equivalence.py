"""After any edits, every output equals what plain DuckDB computes from scratch: sequentially and in parallel.

Random DAGs of sources and transforms go through random edits (logic, columns, data, nodes added and removed, text
that means nothing). After each, an incremental run must leave every node's table exactly as a loop of CREATE TABLE AS
over the same rows gives it: names, types and rows.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from seeknal.dag.project import Project
from seeknal.workflow.results import RunOptions
from seeknal.workflow.session import Session
from seeknal.workflow.workers import ProcessWorkers
from tests.engine.workflow.projects import transform, write_project

COLUMNS = ("a", "b", "c")


@dataclass
class Pipeline:
    """A pipeline as text: per source its rows, per transform its SQL and comment, both in the order of their making."""

    sources: dict[str, list[tuple[Any, ...]]] = field(default_factory=dict)
    transforms: dict[str, str] = field(default_factory=dict)
    columns: dict[str, list[str]] = field(default_factory=dict)
    serial: int = 0

    def tables(self) -> list[str]:
        return [*(f"source.{name}" for name in self.sources), *(f"transform.{name}" for name in self.transforms)]

    def files(self) -> dict[str, str]:
        files = {}
        for name, rows in self.sources.items():
            lines = [",".join(self.columns[f"source.{name}"])]
            lines += [",".join("" if value is None else str(value) for value in row) for row in rows]
            files[f"data/{name}.csv"] = "\n".join(lines) + "\n"
            schema = "".join(f"  - {{name: {c}, data_type: integer}}\n" for c in self.columns[f"source.{name}"])
            files[f"seeknal/{name}.yml"] = (
                f"kind: source\nname: {name}\nsource: csv\ntable: data/{name}.csv\nschema:\n{schema}"
            )
        for name, sql in self.transforms.items():
            files[f"seeknal/{name}.yml"] = transform(name, sql)
        return files

    def readers_of(self, table: str) -> list[str]:
        return [name for name, sql in self.transforms.items() if f"{table} " in f"{sql} "]


def expressions(draw: st.DrawFn, columns: list[str], prefix: str = "") -> list[str]:
    """A few output columns over the columns of an input."""
    chosen = draw(st.lists(st.sampled_from(columns), min_size=1, max_size=3, unique=True))
    shapes = ("{c}", "{c} + 1", "-{c}", "coalesce({c}, 0)", "{c} % 3", "CASE WHEN {c} > 2 THEN {c} ELSE 0 END")
    return [f"{draw(st.sampled_from(shapes)).format(c=prefix + column)} AS {column}" for column in chosen]


def query(draw: st.DrawFn, pipeline: Pipeline, readable: list[str]) -> tuple[str, list[str]]:
    """A SELECT over one or two tables, with its output columns."""
    left = draw(st.sampled_from(readable))
    columns = pipeline.columns[left]
    shape = draw(st.sampled_from(("plain", "star", "filter", "group", "count", "join", "distinct", "union")))
    if shape == "star":
        return f"SELECT * FROM {left} ", list(columns)
    if shape == "count":
        return f"SELECT count(*) AS a FROM {left} ", ["a"]
    if shape == "group":
        key = draw(st.sampled_from(columns))
        value = draw(st.sampled_from(columns))
        return f"SELECT {key} AS a, sum({value}) AS b, count({value}) AS c FROM {left} GROUP BY 1", ["a", "b", "c"]
    if shape == "join":
        right = draw(st.sampled_from(readable))
        key, other = draw(st.sampled_from(columns)), draw(st.sampled_from(pipeline.columns[right]))
        picked = draw(st.sampled_from(pipeline.columns[right]))
        return f"SELECT l.{key} AS a, r.{picked} AS b FROM {left} l LEFT JOIN {right} r ON l.{key} = r.{other}", [
            "a",
            "b",
        ]
    if shape == "union":
        right = draw(st.sampled_from(readable))
        return f"SELECT {columns[0]} AS a FROM {left} UNION ALL SELECT {pipeline.columns[right][-1]} FROM {right} ", [
            "a"
        ]
    outputs = expressions(draw, columns)
    names = [output.rpartition(" AS ")[2] for output in outputs]
    distinct = "DISTINCT " if shape == "distinct" else ""
    where = f"WHERE {draw(st.sampled_from(columns))} > {draw(st.integers(-2, 6))}" if shape == "filter" else ""
    return f"SELECT {distinct}{', '.join(outputs)} FROM {left} {where}", names


def rows(draw: st.DrawFn, width: int) -> list[tuple[Any, ...]]:
    value = st.one_of(st.none(), st.integers(-3, 9))
    return draw(st.lists(st.tuples(*[value] * width), min_size=0, max_size=6))


def add_source(draw: st.DrawFn, pipeline: Pipeline) -> None:
    name = f"s{pipeline.serial}"
    pipeline.serial += 1
    width = draw(st.integers(2, 3))
    pipeline.columns[f"source.{name}"] = list(COLUMNS[:width])
    pipeline.sources[name] = rows(draw, width)


def add_transform(draw: st.DrawFn, pipeline: Pipeline) -> None:
    name = f"t{pipeline.serial}"
    pipeline.serial += 1
    sql, columns = query(draw, pipeline, pipeline.tables())
    pipeline.transforms[name] = sql
    pipeline.columns[f"transform.{name}"] = columns


@st.composite
def pipelines(draw: st.DrawFn) -> Pipeline:
    pipeline = Pipeline()
    for _ in range(draw(st.integers(1, 2))):
        add_source(draw, pipeline)
    for _ in range(draw(st.integers(2, 6))):
        add_transform(draw, pipeline)
    return pipeline


def edit(draw: st.DrawFn, pipeline: Pipeline) -> None:
    """One random edit that keeps the pipeline valid."""
    kind = draw(st.sampled_from(("data", "rows", "logic", "column", "comment", "add", "remove", "nothing")))
    names = list(pipeline.transforms)
    if kind in ("data", "rows"):
        name = draw(st.sampled_from(list(pipeline.sources)))
        width = len(pipeline.columns[f"source.{name}"])
        old = pipeline.sources[name]
        if kind == "rows" or not old:
            pipeline.sources[name] = rows(draw, width)
        else:
            # One column's values only: readers of the others must not notice, and must not be wrong.
            column = draw(st.integers(0, width - 1))
            step = draw(st.integers(1, 3))
            pipeline.sources[name] = [
                tuple((v + step if v is not None else v) if i == column else v for i, v in enumerate(row))
                for row in old
            ]
    elif kind == "add":
        add_transform(draw, pipeline)
    elif not names:
        return
    elif kind == "comment":
        name = draw(st.sampled_from(names))
        pipeline.transforms[name] = pipeline.transforms[name].replace("SELECT", "/* same */\nselect", 1)
    elif kind == "remove":
        leaves = [name for name in names if not pipeline.readers_of(f"transform.{name}")]
        if leaves:
            gone = draw(st.sampled_from(leaves))
            del pipeline.transforms[gone]
            del pipeline.columns[f"transform.{gone}"]
    elif kind in ("logic", "column"):
        name = draw(st.sampled_from(names))
        table = f"transform.{name}"
        if kind == "column":
            # One more column: who names columns must not notice, who says * must.
            columns = pipeline.columns[table]
            free = [c for c in ("a", "b", "c", "d", "e") if c not in columns]
            if free and not pipeline.readers_of(table):
                pipeline.transforms[name] = f"SELECT *, 7 AS {free[-1]} FROM ({pipeline.transforms[name]}\n) AS q "
                pipeline.columns[table] = [*columns, free[-1]]
            return
        position = names.index(name)
        readable = [*(f"source.{s}" for s in pipeline.sources), *(f"transform.{n}" for n in names[:position])]
        sql, columns = query(draw, pipeline, readable)
        if set(pipeline.columns[table]) <= set(columns) or not pipeline.readers_of(table):
            pipeline.transforms[name] = sql
            pipeline.columns[table] = columns


def from_scratch(pipeline: Pipeline) -> dict[str, tuple[Any, ...]]:
    """What plain DuckDB makes of the same pipeline: per table its columns with types, and its rows, sorted."""
    connection = duckdb.connect()
    connection.execute("CREATE SCHEMA source; CREATE SCHEMA transform")
    expected = {}
    for name, data in pipeline.sources.items():
        columns = pipeline.columns[f"source.{name}"]
        connection.execute(f"CREATE TABLE source.{name} ({', '.join(f'{c} BIGINT' for c in columns)})")
        if data:
            marks = ", ".join("?" for _ in columns)
            connection.executemany(f"INSERT INTO source.{name} VALUES ({marks})", [list(row) for row in data])
        expected[f"source.{name}"] = content(connection, f"source.{name}")
    for name, sql in pipeline.transforms.items():
        connection.execute(f"CREATE TABLE transform.{name} AS {sql}")
        expected[f"transform.{name}"] = content(connection, f"transform.{name}")
    connection.close()
    return expected


def content(connection: duckdb.DuckDBPyConnection, table: str) -> tuple[Any, ...]:
    columns = [(name, type_) for name, type_, *_ in connection.execute(f"DESCRIBE FROM {table}").fetchall()]
    found = connection.execute(f"FROM {table}").fetchall()
    return columns, sorted(found, key=repr)


def stored(root: Path) -> dict[str, tuple[Any, ...]]:
    """What the environment's tables hold, read as any other tool would."""
    connection = duckdb.connect()
    tables = {}
    for file in sorted((root / "target/cache").glob("*/*.parquet")):
        name = f"{file.parent.name}.{file.stem}"
        columns, found = content(connection, f"read_parquet('{file}')")
        tables[name] = (columns, found)
    connection.close()
    return tables


def check(root: Path, pipeline: Pipeline, workers: ProcessWorkers | None) -> None:
    shutil.rmtree(root / "seeknal", ignore_errors=True)
    write_project(root, pipeline.files())
    with Session.open(Project.open(root)) as session:
        result = session.run("prod", RunOptions(parallel=workers is not None), workers=workers)
    assert result.status == "success", [str(problem) for node in result.nodes for problem in node.problems]
    schemas = {node.node_id: node.artifact.schema() for node in result.nodes if node.artifact is not None}
    expected = from_scratch(pipeline)
    found = stored(root)
    assert set(found) == set(expected)
    for table, (columns, table_rows) in expected.items():
        assert list(schemas[table].items()) == columns, table
        # HUGEINT is stored as DECIMAL(38,0), which Python shows as Decimal; equal numbers compare equal.
        assert [name for name, _ in found[table][0]] == [name for name, _ in columns], table
        assert sorted(map(_plain, found[table][1]), key=repr) == sorted(map(_plain, table_rows), key=repr), table
    with Session.open(Project.open(root)) as session:
        again = session.run("prod", RunOptions())
    assert again.executed == 0


def _plain(row: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(None if value is None else float(value) for value in row)


@pytest.fixture(scope="module")
def processes() -> Iterator[ProcessWorkers]:
    workers = ProcessWorkers(2)
    yield workers
    workers.close()


def _live_through(data: st.DataObject, workers: ProcessWorkers | None) -> None:
    pipeline = data.draw(pipelines(), label="pipeline")
    root = Path(tempfile.mkdtemp(prefix="equivalence-"))
    try:
        check(root, pipeline, workers)
        for _ in range(data.draw(st.integers(1, 4), label="edits")):
            data.draw(st.composite(lambda draw: edit(draw, pipeline))(), label="edit")
            check(root, pipeline, workers)
    finally:
        shutil.rmtree(root, ignore_errors=True)


SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture]


@settings(max_examples=20, deadline=None, suppress_health_check=SLOW)
@given(data=st.data())
def test_sequential_runs_after_any_edits_equal_a_run_from_scratch(data: st.DataObject) -> None:
    _live_through(data, None)


@settings(max_examples=12, deadline=None, suppress_health_check=SLOW)
@given(data=st.data())
def test_parallel_runs_after_any_edits_equal_a_run_from_scratch(data: st.DataObject, processes: ProcessWorkers) -> None:
    _live_through(data, processes)
