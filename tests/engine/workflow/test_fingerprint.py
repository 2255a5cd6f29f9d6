from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import duckdb
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seeknal.store.objects import Artifact, Blob, Column
from seeknal.workflow import fingerprint as module
from seeknal.workflow.fingerprint import engine_identity, fingerprint
from tests.engine.workflow.projects import executed_in, run, transform, write, write_project

words = st.sampled_from(["", "a", "b", "ab"])
digests = st.sampled_from([digit * 32 for digit in "012"])
scalars = st.sampled_from([None, False, True, 0, 1, -1, "", "1", "a"])
plain = scalars | st.lists(scalars, max_size=2) | st.dictionaries(words, scalars, max_size=2)


@st.composite
def artifacts(draw: st.DrawFn) -> Artifact:
    names = draw(st.lists(st.sampled_from("abcde"), unique=True, max_size=4))
    columns = tuple(Column(name, draw(st.sampled_from(["INTEGER", "DATE"])), draw(digests)) for name in names)
    side_blobs = tuple((name, Blob(draw(digests), 1)) for name in draw(st.lists(words, unique=True, max_size=2)))
    return Artifact((Blob(draw(digests), 9),), draw(st.integers(0, 3)), columns, side_blobs, {"x": draw(plain)})


@st.composite
def questions(draw: st.DrawFn) -> dict[str, Any]:
    """Draw the arguments of a fingerprint."""
    inputs = []
    for node_id in draw(st.lists(st.sampled_from(["source.a", "transform.b", "transform.c"]), unique=True)):
        artifact = draw(artifacts())
        names = [column.name for column in artifact.columns]
        reads = draw(st.none() | (st.lists(st.sampled_from(names), unique=True) if names else st.just([])))
        inputs.append((node_id, artifact, reads))
    return {
        "engine": draw(words),
        "kind": draw(words),
        "canonical": draw(words),
        "identity": draw(st.lists(plain, max_size=2)),
        "schema": draw(st.none() | st.dictionaries(words, words, max_size=3)),
        "inputs": inputs,
    }


def what_counts(question: dict[str, Any]) -> list[Any]:
    """The same facts as plain values, that are equal exactly where the fingerprints must be."""
    inputs = []
    for node_id, artifact, reads in question["inputs"]:
        columns = [
            (column.name, column.type, column.digest)
            for column in artifact.columns
            if reads is None or column.name in reads
        ]
        files = [(name, blob.digest) for name, blob in artifact.side_blobs] if reads is None else []
        inputs.append((node_id, artifact.row_count, columns, files))
    schema = question["schema"]
    rest = [question["engine"], question["kind"], question["canonical"], question["identity"]]
    # As text, because Python says that 1 is True.
    text = msgspec.json.encode(rest, order="deterministic")
    return [text, None if schema is None else list(schema.items()), inputs]


@settings(max_examples=80)
@given(questions())
def test_equal_facts_give_the_same_key(question: dict[str, Any]) -> None:
    key = fingerprint(**question)
    assert re.fullmatch("[0-9a-f]{32}", key)
    assert fingerprint(**copy.deepcopy(question)) == key


@settings(max_examples=80)
@given(questions(), questions(), st.data())
def test_any_fact_that_differs_gives_another_key(
    one: dict[str, Any], other: dict[str, Any], data: st.DataObject
) -> None:
    changed = data.draw(st.lists(st.sampled_from(sorted(one)), min_size=1, unique=True))
    two = {**one, **{fact: other[fact] for fact in changed}}
    assert (fingerprint(**one) == fingerprint(**two)) == (what_counts(one) == what_counts(two))


@settings(max_examples=80)
@given(questions(), st.data())
def test_what_the_node_does_not_read_is_no_part_of_it(question: dict[str, Any], data: st.DataObject) -> None:
    changed = []
    for node_id, artifact, reads in question["inputs"]:
        columns = [
            column
            if reads is None or column.name in reads
            else Column(column.name, data.draw(words), data.draw(digests))
            for column in artifact.columns
        ]
        if reads is not None:
            columns.insert(data.draw(st.integers(0, len(columns))), Column("new", "INTEGER", data.draw(digests)))
        built = msgspec.structs.replace(
            artifact,
            parts=(Blob(data.draw(digests), data.draw(st.integers(0, 9))),) * data.draw(st.integers(1, 2)),
            columns=tuple(columns),
            metadata={"other": 1},
            built_at=data.draw(st.floats(0, 9)),
            duration_seconds=data.draw(st.floats(0, 9)),
            run_id=data.draw(words),
            side_blobs=artifact.side_blobs if reads is None else (),
        )
        changed.append((node_id, built, reads))
    assert fingerprint(**{**question, "inputs": changed}) == fingerprint(**question)


BASE: dict[str, Any] = {
    "engine": "1/duckdb-2.0.0",
    "kind": "transform",
    "canonical": "SELECT a FROM t",
    "identity": ["x", 1],
    "schema": {"a": "INTEGER", "b": "DATE"},
    "inputs": [
        (
            "source.t",
            Artifact((Blob("0" * 32, 9),), 3, (Column("a", "INTEGER", "1" * 32), Column("b", "DATE", "2" * 32))),
            ["a"],
        ),
        ("source.u", Artifact((), 0, (), (("model", Blob("3" * 32, 5, ".bin")),)), None),
    ],
}


def with_table(**changes: Any) -> list[Any]:
    node_id, artifact, reads = BASE["inputs"][0]
    return [(node_id, msgspec.structs.replace(artifact, **changes), reads), BASE["inputs"][1]]


T, U = BASE["inputs"]


@pytest.mark.parametrize(
    "changes",
    [
        {"engine": "2/duckdb-2.0.0"},
        {"engine": "1/duckdb-2.0.1"},
        {"kind": "aggregation"},
        {"canonical": "SELECT b FROM t"},
        {"identity": ["x", 2]},
        {"identity": ["x", "1"]},
        {"identity": ["x1"]},
        {"identity": []},
        {"schema": None},
        {"schema": {}},
        {"schema": {"b": "DATE", "a": "INTEGER"}},
        {"schema": {"a": "BIGINT", "b": "DATE"}},
        {"schema": {"a": "INTEGER"}},
        {"inputs": [U, T]},
        {"inputs": [T]},
        {"inputs": [("source.other", *T[1:]), U]},
        {"inputs": with_table(row_count=4)},
        {"inputs": with_table(columns=(Column("a", "INTEGER", "9" * 32), T[1].columns[1]))},
        {"inputs": with_table(columns=(Column("a", "DATE", "1" * 32), T[1].columns[1]))},
        {"inputs": [(*T[:2], ["b"]), U]},
        {"inputs": [(*T[:2], ["a", "b"]), U]},
        {"inputs": [(*T[:2], None), U]},
        {"inputs": [(*T[:2], []), U]},
        {"inputs": [T, (U[0], Artifact((), 0, (), (("model", Blob("4" * 32, 5, ".bin")),)), None)]},
        {"inputs": [T, (U[0], Artifact((), 0, (), (("other", Blob("3" * 32, 5, ".bin")),)), None)]},
    ],
)
def test_each_part_changes_the_key(changes: dict[str, Any]) -> None:
    assert fingerprint(**{**BASE, **changes}) != fingerprint(**BASE)


def test_order_of_columns_counts_where_they_are_read() -> None:
    a, b = T[1].columns
    swapped = msgspec.structs.replace(T[1], columns=(b, a))
    for reads, same in ((["a"], True), (["a", "b"], False), (["b", "a"], False), (None, False), ([], True)):
        keys = {fingerprint(**{**BASE, "inputs": [("source.t", table, reads)]}) for table in (T[1], swapped)}
        assert (len(keys) == 1) is same, reads


def test_column_that_the_input_does_not_have_makes_all_of_it_count() -> None:
    def key(reads: list[str] | None, b: str) -> str:
        table = msgspec.structs.replace(T[1], columns=(T[1].columns[0], Column("b", "DATE", b)))
        return fingerprint(**{**BASE, "inputs": [("source.t", table, reads)]})

    assert key(["a", "B"], "2" * 32) != key(["a", "B"], "8" * 32)
    assert key(["a", "B"], "2" * 32) == key(None, "2" * 32)
    assert key(["a"], "2" * 32) == key(["a"], "8" * 32)


def test_engine_is_our_epoch_and_duckdbs_version(monkeypatch: pytest.MonkeyPatch) -> None:
    before = engine_identity()
    assert duckdb.__version__ in before
    monkeypatch.setattr(module, "ENGINE_EPOCH", module.ENGINE_EPOCH + 1)
    assert engine_identity() != before


def test_what_people_write_about_a_node_rebuilds_nothing(tmp_path: Path) -> None:
    def project(sql: str, **fields: str) -> None:
        write(tmp_path, "seeknal/transforms/up.yml", transform("up", "SELECT 1 AS a, 2 AS b"))
        write(tmp_path, "seeknal/transforms/down.yml", transform("down", sql, **fields))

    write_project(tmp_path, {})
    project("SELECT a FROM transform.up")
    assert executed_in(tmp_path) == ["down", "up"]
    project(
        "select  a -- the first\nfrom transform.up",
        description="What it is",
        owner="somebody",
        tags="[daily]",
    )
    assert executed_in(tmp_path) == []
    assert {node.status for node in run(tmp_path).nodes} == {"cached"}
    project("SELECT a + 1 AS a FROM transform.up", description="What it is")
    assert executed_in(tmp_path) == ["down"]
