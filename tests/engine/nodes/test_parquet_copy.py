from __future__ import annotations

import re
from pathlib import Path

import duckdb
import pytest

from seeknal.dag.project import Project
from seeknal.nodes import parquet_copy
from seeknal.store.objects import Artifact
from seeknal.workflow.heads import read_head
from seeknal.workflow.session import Session
from tests.engine.workflow.projects import run, transform, write_project

ROWS = "SELECT range AS id, 'n' || range % 7 AS name, DATE '2024-01-01' + (range % 9)::INTEGER AS day FROM range(5000)"
SOURCE = "kind: source\nname: rows\nsource: parquet\ntable: data/{table}\n{more}"
TOTAL = transform("total", "SELECT name, day, sum(id) AS id, count(*) AS n FROM source.rows WHERE id > 17 GROUP BY ALL")


@pytest.fixture(autouse=True)
def small_files_are_copied_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet_copy, "SMALLEST_BYTES", 0)


def project(root: Path, query: str = ROWS, *, more: str = "", table: str = "rows.parquet", options: str = "") -> Path:
    write_project(root, {"seeknal/rows.yml": SOURCE.format(table=table, more=more), "seeknal/total.yml": TOTAL})
    (root / "data").mkdir()
    duckdb.execute(f"COPY ({query}) TO '{root}/data/rows.parquet' (FORMAT parquet{options})")
    return root / "data/rows.parquet"


def output(root: Path, node_id: str = "source.rows") -> tuple[Artifact, Path]:
    store = Project.open(root).store()
    head = read_head(store, "prod")
    assert head is not None
    artifact = head.tree.nodes[node_id].artifact
    return artifact, store.blob_path(artifact.parts[0])


def is_copy(root: Path, file: Path) -> bool:
    return output(root)[1].read_bytes() == file.read_bytes()


def test_a_plain_file_is_taken_as_it_is_and_its_columns_are_known(tmp_path: Path) -> None:
    file = project(tmp_path)
    assert run(tmp_path).status == "success"
    artifact, blob = output(tmp_path)
    assert blob.read_bytes() == file.read_bytes()
    assert artifact.schema() == {"id": "BIGINT", "name": "VARCHAR", "day": "DATE"}
    assert artifact.row_count == 5000
    assert run(tmp_path).count("cached") == 2


def test_who_writes_into_the_file_afterwards_changes_no_output(tmp_path: Path) -> None:
    file = project(tmp_path)
    run(tmp_path)
    blob = output(tmp_path)[1]
    before = blob.read_bytes()
    with file.open("r+b") as written:
        written.write(b"\0" * 100)
    assert blob.read_bytes() == before
    assert blob.stat().st_nlink == 1


def test_readers_get_the_rows_that_they_get_of_a_file_that_is_written_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = []
    for name, smallest in (("copied", 0), ("anew", 1 << 60)):
        monkeypatch.setattr(parquet_copy, "SMALLEST_BYTES", smallest)
        file = project(tmp_path / name)
        run(tmp_path / name)
        assert is_copy(tmp_path / name, file) is (smallest == 0)
        blob = output(tmp_path / name, "transform.total")[1]
        rows.append(duckdb.execute(f"FROM '{blob}' ORDER BY ALL").fetchall())
    assert rows[0] == rows[1]


SCHEMA = "schema:\n  - {name: id, data_type: bigint}\n  - {name: name, data_type: string}\n"


@pytest.mark.parametrize(
    ("query", "more", "options"),
    [
        (ROWS, SCHEMA + "  - {name: day, data_type: timestamp}\n", ""),
        (ROWS, "schema:\n  - {name: day, data_type: date}\n" + SCHEMA.removeprefix("schema:\n"), ""),
        (f"SELECT *, 1 AS further FROM ({ROWS})", SCHEMA + "  - {name: day, data_type: date}\n", ""),
        (f"SELECT *, [id] AS list FROM ({ROWS})", "", ""),
        (f"SELECT *, {{'i': id}} AS struct FROM ({ROWS})", "", ""),
        (f"SELECT *, '1'::JSON AS document FROM ({ROWS})", "", ""),
    ],
    ids=["cast", "other order", "column left out", "list", "struct", "json"],
)
def test_what_is_not_plain_is_written_anew(tmp_path: Path, query: str, more: str, options: str) -> None:
    file = project(tmp_path, query, more=more, options=options)
    assert run(tmp_path).status == "success"
    assert not is_copy(tmp_path, file)


def test_a_schema_that_says_what_the_file_has_changes_nothing(tmp_path: Path) -> None:
    file = project(tmp_path, more=SCHEMA + "  - {name: day, data_type: date}\n")
    assert run(tmp_path).status == "success"
    assert is_copy(tmp_path, file)


def test_files_of_other_writers_and_several_files_are_written_anew(tmp_path: Path) -> None:
    file = project(tmp_path, table="*.parquet")
    data = file.read_bytes()
    assert b"DuckDB" in data
    file.write_bytes(data.replace(b"DuckDB", b"duckdb"))
    assert run(tmp_path).status == "success"
    assert not is_copy(tmp_path, file)
    file.write_bytes(data)
    (tmp_path / "data/second.parquet").write_bytes(data)
    assert run(tmp_path).status == "success"
    assert output(tmp_path)[0].row_count == 10_000


def test_small_files_are_written_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = project(tmp_path)
    monkeypatch.setattr(parquet_copy, "SMALLEST_BYTES", file.stat().st_size + 1)
    run(tmp_path)
    assert not is_copy(tmp_path, file)


def test_damage_in_the_file_is_found_when_it_is_taken(tmp_path: Path) -> None:
    file = project(tmp_path, options=", COMPRESSION zstd")
    data = bytearray(file.read_bytes())
    data[4:40] = b"\xff" * 36
    file.write_bytes(data)
    result = run(tmp_path)
    (problem,) = result.problems()
    assert result.status == "failed"
    assert re.search(r"source\.rows: .*damaged", problem.message)
    assert problem.place is not None
    assert problem.place.file == "data/rows.parquet"
    with Session.open(Project.open(tmp_path)) as session:
        assert not list((session.store.root / "tmp").iterdir())
