from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from seeknal.dag.inference import Analysis, Inference
from seeknal.dag.parse import parse_project
from seeknal.dag.project import Project, ProjectSettings
from seeknal.errors import ProjectError
from seeknal.store.file_memo import FileDigests

ORDERS = """kind: source
name: orders
source: csv
table: data/orders.csv
schema: [{name: id, data_type: integer}, {name: day, data_type: date}, {name: amount, data_type: float}]
"""


def transform(name: str, sql: str) -> str:
    lines = "\n".join(f"  {line}" for line in sql.splitlines())
    return f"kind: transform\nname: {name}\ntransform: |\n{lines}\n"


@contextmanager
def inference(root: Path, *nodes: str) -> Iterator[Inference]:
    (root / "seeknal").mkdir(exist_ok=True)
    (root / "data").mkdir(exist_ok=True)
    (root / "data" / "orders.csv").write_text("id,day,amount\n1,2024-01-01,2.5\n")
    for index, node in enumerate(nodes):
        (root / "seeknal" / f"{'abcdefgh'[index]}.yml").write_text(node)
    project = Project(root, ProjectSettings(name="shop"))
    with Inference(parse_project(project), FileDigests(root / "memo", root)) as made:
        yield made


def analysed(root: Path, *nodes: str) -> Analysis:
    with inference(root, *nodes) as made:
        return made.analyse()


def said(analysis: Analysis) -> list[str]:
    with pytest.raises(ProjectError) as caught:
        analysis.check()
    return [str(problem) for problem in caught.value.problems()]


def test_every_nodes_columns_and_reads_are_known_before_anything_runs(tmp_path: Path) -> None:
    analysis = analysed(
        tmp_path,
        ORDERS,
        transform("daily", "SELECT day, sum(amount) AS total, count(*) AS n FROM source.orders GROUP BY day"),
        transform("best", "SELECT max(total) AS best FROM transform.daily"),
    )
    analysis.check()
    assert analysis.schemas() == {
        "source.orders": {"id": "BIGINT", "day": "DATE", "amount": "DOUBLE"},
        "transform.daily": {"day": "DATE", "total": "DOUBLE", "n": "BIGINT"},
        "transform.best": {"best": "DOUBLE"},
    }
    assert analysis.nodes["transform.daily"].reads == {"source.orders": ("day", "amount")}
    assert analysis.nodes["transform.best"].reads == {"transform.daily": ("total",)}
    assert not (tmp_path / "target").exists()


def test_a_query_that_does_not_bind_is_said_at_its_place_with_candidates(tmp_path: Path) -> None:
    found = said(analysed(tmp_path, ORDERS, transform("t", "SELECT 'é' AS x,\n  amout\nFROM source.orders")))
    assert len(found) == 1
    assert found[0].startswith('seeknal/b.yml:5:5: transform.t: Referenced column "amout" not found')
    assert '"amount"' in found[0]


def test_every_node_that_does_not_bind_is_said_and_its_readers_are_not(tmp_path: Path) -> None:
    analysis = analysed(
        tmp_path,
        ORDERS,
        transform("a", "SELECT nope FROM source.orders"),
        transform("b", "SELECT x FROM transform.a"),
        transform("c", "SELECT nope FROM source.orders"),
    )
    assert [problem.split(":")[0] for problem in said(analysis)] == ["seeknal/b.yml", "seeknal/d.yml"]
    assert analysis.nodes["transform.b"].schema is None
    assert analysis.nodes["transform.b"].reads == {"transform.a": None}


def test_what_reads_an_unknown_schema_is_bound_when_the_real_one_has_come(tmp_path: Path) -> None:
    with inference(
        tmp_path,
        ORDERS,
        transform("p", "PIVOT source.orders ON day USING sum(amount) GROUP BY id"),
        transform("t", 'SELECT id, "2024-01-01" AS x FROM transform.p'),
    ) as made:
        analysis = made.analyse()
        analysis.check()
        assert analysis.nodes["transform.p"].reads == {"source.orders": None}
        assert [analysis.nodes[name].schema for name in ("transform.p", "transform.t")] == [None, None]
        bound = made.bind(
            "transform.t", {"transform.p": {"id": "BIGINT", "2024-01-01": "DOUBLE", "2024-01-02": "DOUBLE"}}
        )
        assert bound.schema == {"id": "BIGINT", "x": "DOUBLE"}
        assert bound.reads == {"transform.p": ("id", "2024-01-01")}
        with pytest.raises(ProjectError, match=r"seeknal/c.yml:4:14: transform.t: .*2024-01-01"):
            made.bind("transform.t", {"transform.p": {"id": "BIGINT", "2024-01-03": "DOUBLE"}})


def test_a_column_added_to_an_input_changes_no_analysis_of_who_does_not_read_it(tmp_path: Path) -> None:
    before = {"a": "BIGINT", "b": "DOUBLE"}
    after = {"a": "BIGINT", "discount_pct": "DOUBLE", "b": "DOUBLE"}
    queries = [
        "SELECT a FROM transform.t",
        "WITH x AS (SELECT * FROM transform.t) SELECT a, sum(b) AS s FROM x GROUP BY ALL",
        "SELECT count(*) AS n FROM transform.t",
        "SELECT COLUMNS('^[ab]$') FROM transform.t",
    ]
    nodes = [transform(f"q{index}", query) for index, query in enumerate(queries)]
    with inference(tmp_path, ORDERS, transform("t", "SELECT id AS a, amount AS b FROM source.orders"), *nodes) as made:
        for index in range(len(queries)):
            node_id = f"transform.q{index}"
            assert made.bind(node_id, {"transform.t": before}) == made.bind(node_id, {"transform.t": after})


def test_comments_and_layout_change_no_analysis_and_any_other_word_does(tmp_path: Path) -> None:
    def analysis(sql: str) -> object:
        return analysed(tmp_path, ORDERS, transform("t", sql)).nodes["transform.t"]

    plain = analysis("SELECT id FROM source.orders WHERE amount > 1")
    assert analysis("select id -- the id\n  from source.orders\n where amount > 1;") == plain
    assert analysis("SELECT id FROM source.orders WHERE amount > 2") != plain


def test_a_volatile_query_is_said_to_be_one(tmp_path: Path) -> None:
    analysis = analysed(tmp_path, ORDERS, transform("t", "SELECT id, now() AS seen FROM source.orders"))
    assert analysis.nodes["transform.t"].volatile == ("now",)


def test_a_source_that_is_missing_is_said_at_its_table(tmp_path: Path) -> None:
    found = said(analysed(tmp_path, ORDERS.replace("orders.csv", "ordrs.csv")))
    assert len(found) == 1
    assert found[0].startswith("seeknal/a.yml:4:1: source.orders: data/ordrs.csv not found")
    assert "orders.csv" in found[0]


@pytest.mark.parametrize("table", ["x" * 5000 + ".csv", '"a\\0b.csv"'])
def test_a_path_that_the_system_does_not_take_is_a_problem_and_no_crash(tmp_path: Path, table: str) -> None:
    found = said(analysed(tmp_path, ORDERS.replace("data/orders.csv", table)))
    assert found[0].startswith("seeknal/a.yml:4:1: source.orders: ")


def test_a_column_that_cannot_be_kept_is_said(tmp_path: Path) -> None:
    found = said(analysed(tmp_path, ORDERS, transform("t", "SELECT get_type(id) AS kind FROM source.orders")))
    assert len(found) == 1
    assert found[0].startswith("seeknal/b.yml:1:1: transform.t: its columns cannot be a table")


def test_columns_that_an_aggregation_names_in_vain_are_said_at_their_fields(tmp_path: Path) -> None:
    analysis = analysed(
        tmp_path,
        ORDERS,
        "kind: aggregation\nname: daily\nid_col: idd\nfeature_date_col: day\napplication_date_col: day\n"
        "group_by: [day, region]\nfeatures:\n  - {name: amont, basic: [sum]}\n"
        "  - {name: n, column: amout, basic: [sum]}\n"
        "  - {name: odd, since: [{condition: id > 0}]}\ninputs: [source.orders]\n",
    )
    assert said(analysis) == [
        "seeknal/b.yml:3:1: aggregation.daily: column 'idd' is missing from the input (did you mean 'id'?)",
        "seeknal/b.yml:6:17: aggregation.daily: column 'region' is missing from the input (there is: amount, day, id)",
        "seeknal/b.yml:8:6: aggregation.daily: column 'amont' is missing from the input (did you mean 'amount'?)",
        "seeknal/b.yml:9:15: aggregation.daily: column 'amout' is missing from the input (did you mean 'amount'?)",
    ]
