"""The memo of a project: with and without it, everything is the same; with it, less is done."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from seeknal.dag.inference import Inference
from seeknal.dag.parse import IncompleteProjectError, ParsedProject, parse_project
from seeknal.dag.project import Project
from seeknal.dag.project_memo import ProjectMemo
from seeknal.errors import ProjectError
from seeknal.store.file_memo import FileDigests
from seeknal.store.memo import Memo
from tests.engine.dag.mutation import mutated, originals
from tests.engine.workflow.projects import transform, write_project

SOURCE = """
kind: source
name: orders
source: csv
table: data/orders.csv
schema: [{name: id, data_type: integer}, {name: amount, data_type: double}]
"""


def looked_at(root: Path, memo: Path | None) -> list[Any]:
    """Everything that parsing and analysing tells of a project: what it is, or what is wrong with it."""
    digests = FileDigests(root / "no-such-memo", root)
    remembered = ProjectMemo(Memo(memo, root, "stamp"), digests)
    try:
        return ["sound", *described(parse_project(Project.open(root), memo=remembered), digests)]
    except IncompleteProjectError as error:
        sound = described(error.sound, digests) if error.sound is not None else []
        return ["wrong", *map(str, error.problems()), *sound]
    except ProjectError as error:
        return ["refused", *map(str, error.problems())]
    finally:
        remembered.save()


def described(parsed: ParsedProject, digests: FileDigests) -> list[Any]:
    with Inference(parsed, digests) as inference:
        analysis = inference.analyse()
    problems = {node_id: list(map(str, found)) for node_id, found in analysis.problems.items()}
    parts = {node_id: (draft.inputs, draft.sql, draft.query, draft.checks) for node_id, draft in parsed.drafts.items()}
    places = {node_id: str(draft.place("transform")) for node_id, draft in parsed.drafts.items()}
    manifest = parsed.manifest.fingerprint()
    # Mappings are equal in any order, and the order of columns counts.
    columns = [
        (node_id, list((node.schema or {}).items()), list(node.reads)) for node_id, node in analysis.nodes.items()
    ]
    return [manifest, analysis.nodes, columns, problems, parts, places, list(map(str, parsed.warnings))]


NAMES = ["a", "b", "c", "d"]
QUERIES = [
    "SELECT id, amount FROM source.orders",
    "SELECT amount, id FROM source.orders",
    "SELECT id, amount * 2 AS amount FROM ref('orders')",
    "SELECT * FROM transform.a",
    "SELECT id FROM transform.b WHERE amount > 1",
    "SELECT a.id, b.amount FROM transform.a JOIN transform.b USING (id)",
    "SELECT max(amount) AS most FROM input_0",
    "SELECT nothing FROM source.orders",
    "SELECT * FROM transform.gone",
    "SELEC 1",
    "SELECT random() AS r, * FROM transform.c",
    "CREATE TEMP TABLE t AS SELECT * FROM source.orders; SELECT * FROM t",
    "PIVOT source.orders ON id USING sum(amount)",
]
FIELDS = ["", "inputs: [{ref: source.orders}]\n", "audits: [{type: not_null, columns: [id]}]\n", "tags: [x]\n"]

nodes = st.fixed_dictionaries(
    {}, optional={name: st.tuples(st.sampled_from(QUERIES), st.sampled_from(FIELDS)) for name in NAMES}
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(states=st.lists(st.tuples(nodes, st.sampled_from(["double", "integer", "varchar"])), min_size=2, max_size=5))
def test_after_any_edits_a_project_is_seen_the_same_with_a_memo_and_without(
    tmp_path_factory: pytest.TempPathFactory, states: list[Any]
) -> None:
    root = tmp_path_factory.mktemp("project")
    for number, (state, type_) in enumerate(states):
        shutil.rmtree(root / "seeknal", ignore_errors=True)
        files = {f"seeknal/{name}.yml": transform(name, sql) + field for name, (sql, field) in state.items()}
        files["seeknal/orders.yml"] = SOURCE.replace("double", type_)
        write_project(root, {**files, "data/orders.csv": "id,amount\n1,2\n"})
        assert looked_at(root, root / "memo") == looked_at(root, None), f"state {number}"
        assert looked_at(root, root / "memo") == looked_at(root, None), f"state {number}, seen again"


@pytest.mark.parametrize("group", range(4))
def test_damaged_files_have_the_same_errors_with_a_memo_and_without(tmp_path: Path, group: int) -> None:
    projects = originals()
    original = projects[group % len(projects)]
    write_project(tmp_path, {f"seeknal/{name}": text for name, text in original.files.items()})
    if original.data is not None:
        shutil.copytree(original.data, tmp_path / "data")
    memo = tmp_path / "memo"
    wrong = 0
    for seed in range(group, 60, 4):
        name, data = mutated(seed, original)
        file = tmp_path / "seeknal" / name
        whole = file.read_bytes()
        looked_at(tmp_path, memo)
        file.write_bytes(data)
        cold = looked_at(tmp_path, None)
        assert looked_at(tmp_path, memo) == cold, f"seed {seed}"
        assert looked_at(tmp_path, memo) == cold, f"seed {seed}, seen again"
        file.write_bytes(whole)
        wrong += cold[0] != "sound"
    assert wrong > 3


def test_a_name_that_begins_to_mean_something_else_is_seen(tmp_path: Path) -> None:
    one = {"seeknal/a.yml": transform("a", "SELECT 1 AS x"), "seeknal/b.yml": transform("b", "SELECT * FROM ref('a')")}
    write_project(tmp_path, one)
    assert looked_at(tmp_path, tmp_path / "memo")[0] == "sound"
    write_project(tmp_path, {"seeknal/a2.yml": SOURCE.replace("orders", "a", 1)})
    told = looked_at(tmp_path, tmp_path / "memo")
    assert told[0] == "wrong"
    assert "ref('a') may mean transform.a or source.a" in told[1]


PROBE = """
import sys
from pathlib import Path
from seeknal.dag.inference import Inference
from seeknal.dag.parse import parse_project
from seeknal.dag.project import Project
from seeknal.dag.project_memo import ProjectMemo
from seeknal.store.file_memo import FileDigests
from seeknal.store.memo import Memo
root = Path(sys.argv[1])
digests = FileDigests(root / "digests", root)
memo = ProjectMemo(Memo(root / "memo", root, "stamp"), digests)
parsed = parse_project(Project.open(root), memo=memo)
with Inference(parsed, digests) as inference:
    inference.analyse().check()
memo.save()
print("duckdb" in sys.modules)
"""


def test_duckdb_is_not_imported_for_what_is_remembered(tmp_path: Path) -> None:
    names = {"a": "SELECT 1 AS x", "b": "SELECT x + 1 AS y FROM transform.a", "c": "SELECT * FROM ref('b')"}
    write_project(tmp_path, {f"seeknal/{name}.yml": transform(name, sql) for name, sql in names.items()})

    def imports_duckdb() -> str:
        done = subprocess.run(
            [sys.executable, "-c", PROBE, str(tmp_path)],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.strip()

    assert imports_duckdb() == "True"
    assert imports_duckdb() == "False"
    write_project(tmp_path, {"seeknal/b.yml": transform("b", "SELECT x + 2 AS y FROM transform.a")})
    assert imports_duckdb() == "True"


def test_values_of_the_environment_are_not_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN", "planted-secret")
    sql = "SELECT '{{ env:TOKEN }}' AS x"
    write_project(
        tmp_path, {"seeknal/a.yml": transform("a", sql), "seeknal/b.yml": transform("b", "SELECT 'seen' AS x")}
    )
    assert looked_at(tmp_path, tmp_path / "memo")[0] == "sound"
    kept = (tmp_path / "memo").read_bytes()
    assert b"seen" in kept
    assert b"planted-secret" not in kept


def test_places_are_looked_up_in_the_file_as_it_is(tmp_path: Path) -> None:
    write_project(tmp_path, {"seeknal/a.yml": "# a comment\n" + transform("a", "SELECT 1 AS x")})
    digests = FileDigests(tmp_path / "digests", tmp_path)

    def parsed() -> ParsedProject:
        memo = ProjectMemo(Memo(tmp_path / "memo", tmp_path, "stamp"), digests)
        found = parse_project(Project.open(tmp_path), memo=memo)
        memo.save()
        return found

    parsed()
    warm = parsed()
    assert str(warm.drafts["transform.a"].place("name")) == "seeknal/a.yml:3:1"
    late = parsed()
    (tmp_path / "seeknal" / "a.yml").write_text(transform("b", "SELECT 2 AS x"))
    assert str(late.drafts["transform.a"].place("name")) == "seeknal/a.yml"


def test_what_is_found_does_not_depend_on_how_many_tables_are_known_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {"seeknal/orders.yml": SOURCE, "data/orders.csv": "id,amount\n1,2.5\n"}
    before = "source.orders"
    for number in range(6):
        sql = f"SELECT l.*, r.amount AS a{number} FROM {before} AS l JOIN source.orders AS r USING (id)"
        files[f"seeknal/n{number}.yml"] = transform(f"n{number}", sql)
        before = f"transform.n{number}"
    root = write_project(tmp_path / "shop", files)
    everything = looked_at(root, None)
    assert everything[0] == "sound"
    monkeypatch.setattr("seeknal.dag.project_memo.MOST_TABLES", 1)
    assert looked_at(root, None) == everything
    assert looked_at(root, tmp_path / "memo") == everything
    assert looked_at(root, tmp_path / "memo") == everything
