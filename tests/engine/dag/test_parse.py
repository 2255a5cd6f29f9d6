from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import yaml

from seeknal.dag.manifest import Manifest, NodeType
from seeknal.dag.parse import ParsedProject, parse_manifest, parse_project
from seeknal.dag.project import Project, ProjectSettings
from seeknal.errors import Problem, ProjectError
from seeknal.workflow.session import Session

SOURCE = "kind: source\nname: orders\nsource: csv\ntable: data/orders.csv\n"
CLEAN = "kind: transform\nname: clean\ntransform: SELECT * FROM source.orders\ninputs: [{ref: source.orders}]\n"


def write(root: Path, files: dict[str, str | bytes], settings: ProjectSettings | None = None) -> Project:
    (root / "seeknal").mkdir(exist_ok=True)
    for name, content in files.items():
        path = root / "seeknal" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return Project(root, settings or ProjectSettings(name="shop"))


def parsed(root: Path, files: dict[str, str | bytes]) -> ParsedProject:
    return parse_project(write(root, files))


def said(root: Path, *files: str | bytes, strict: bool = False) -> list[str]:
    """Everything that is said to be wrong with a project of these files, which are called a.yml, b.yml, …"""
    named = {f"{'abcdefgh'[index]}.yml": content for index, content in enumerate(files)}
    with pytest.raises(ProjectError) as caught:
        parse_project(write(root, named, ProjectSettings(strict=strict)))
    return [str(problem).removeprefix("seeknal/") for problem in caught.value.problems()]


# what is read


def test_a_node_keeps_what_its_file_says(tmp_path: Path) -> None:
    text = CLEAN + "description: d\nowner: o\ntags: [x, y]\ncolumns: {a: the a}\nparams: {k: 1}\n"
    project = parsed(tmp_path, {"orders.yml": SOURCE, "sub/clean.yaml": text})
    node = project.manifest.nodes["transform.clean"]
    assert (node.name, node.node_type, node.file_path) == ("clean", NodeType.TRANSFORM, "seeknal/sub/clean.yaml")
    assert (node.description, node.owner, node.tags, node.columns) == ("d", "o", ["x", "y"], {"a": "the a"})
    assert node.config == {
        "transform": "SELECT * FROM source.orders",
        "inputs": [{"ref": "source.orders"}],
        "params": {"k": 1},
    }
    assert project.manifest.inputs_of("transform.clean") == ["source.orders"]
    assert project.manifest.metadata.project == "shop"
    assert project.warnings == []


def test_nodes_may_share_a_file_as_documents_or_as_a_list(tmp_path: Path) -> None:
    listed = (
        "- " + SOURCE.replace("\n", "\n  ").rstrip() + "\n- kind: transform\n  name: b\n  transform: SELECT 1 AS x\n"
    )
    project = parsed(tmp_path, {"a.yml": f"---\n{CLEAN}---\n---\n{listed}...\n", "b.yml": "", "c.yml": "# nothing\n"})
    assert list(project.manifest.nodes) == ["transform.clean", "source.orders", "transform.b"]
    assert str(project.drafts["transform.b"].place("transform")) == "seeknal/a.yml:14:3"


def test_the_order_of_nodes_is_that_of_their_files(tmp_path: Path) -> None:
    files: dict[str, str | bytes] = {
        f"{name}.yml": f"kind: transform\nname: n{name}\ntransform: SELECT 1 AS x" for name in "cab"
    }
    assert list(parsed(tmp_path, files).manifest.nodes) == ["transform.na", "transform.nb", "transform.nc"]


def test_inputs_may_be_declared_in_every_way_or_only_named_in_sql(tmp_path: Path) -> None:
    for inputs in (
        "inputs: [{ref: source.orders}]",
        "inputs: [source.orders]",
        "inputs: [SOURCE.Orders]",
        "",
    ):
        text = f"kind: transform\nname: clean\ntransform: SELECT * FROM source.orders\n{inputs}\n"
        project = parsed(tmp_path, {"a.yml": SOURCE, "b.yml": text})
        assert project.manifest.inputs_of("transform.clean") == ["source.orders"]


def test_inputs_come_in_the_order_declared_then_in_that_of_the_sql(tmp_path: Path) -> None:
    source = "kind: source\nname: {}\nsource: csv\ntable: x.csv\n"
    text = (
        "kind: transform\nname: t\ninputs: [source.c, source.a]\n"
        "transform: SELECT * FROM ref('b') JOIN source.a USING (id), {{ ref('source.d') }}, input_0"
    )
    files: dict[str, str | bytes] = {f"{name}.yml": source.format(name) for name in "abcd"}
    project = parsed(tmp_path, {**files, "t.yml": text})
    assert project.manifest.inputs_of("transform.t") == ["source.c", "source.a", "source.b", "source.d"]
    sql = project.drafts["transform.t"].sql
    assert sql is not None
    assert sql.positions == (("input_0", 0),)


def test_an_exposure_may_say_depends_on(tmp_path: Path) -> None:
    text = "kind: exposure\nname: out\ndepends_on: [{ref: source.orders}]\npath: output/x.csv\n"
    assert parsed(tmp_path, {"a.yml": SOURCE, "b.yml": text}).manifest.inputs_of("exposure.out") == ["source.orders"]


def test_a_manifest_can_take_the_place_of_files(tmp_path: Path) -> None:
    project = parsed(tmp_path, {"a.yml": SOURCE, "b.yml": CLEAN + "tags: [x]\n"})
    again = parse_manifest(Project(tmp_path, ProjectSettings(name="shop")), project.manifest)
    assert again.manifest.fingerprint() == project.manifest.fingerprint()
    broken = Manifest("shop")
    broken.add_node(project.manifest.nodes["transform.clean"])
    with pytest.raises(ProjectError, match=r"seeknal/b.yml: input 'source.orders' does not exist"):
        parse_manifest(Project(tmp_path), broken)


def test_line_ends_and_a_byte_order_mark_change_nothing(tmp_path: Path) -> None:
    plain = parsed(tmp_path, {"a.yml": SOURCE, "b.yml": CLEAN}).manifest.fingerprint()
    odd = {"a.yml": ("\ufeff" + SOURCE.replace("\n", "\r\n")).encode(), "b.yml": CLEAN.replace("\n", "\r\n").encode()}
    assert parsed(tmp_path, odd).manifest.fingerprint() == plain  # type: ignore[arg-type]


# what is wrong with a node


def test_a_project_without_nodes_says_how_to_begin(tmp_path: Path) -> None:
    assert said(tmp_path) == [": the project has no nodes (" + said(tmp_path)[0].split("(", 1)[1]]
    assert "seeknal init" in said(tmp_path, "", "# nothing")[0]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("name: orders", "a.yml:1:1: 'kind' is missing (add `kind:` with one of source, "),
        ("knd: source\nname: orders", "a.yml:1:1: 'kind' is missing ('knd' looks like it)"),
        ("kind:\nname: orders", "a.yml:1:1: 'kind' is missing"),
        ("name: x\nkind: sorce", "a.yml:2:1: unknown kind 'sorce' (did you mean 'source'?)"),
        ("name: x\nkind: Source", "a.yml:2:1: unknown kind 'Source' (did you mean 'source'?)"),
        ("name: x\nkind: [source]", "a.yml:2:1: 'kind' must be text, not ['source']"),
        ("name: x\nkind: {a: 1}", "a.yml:2:1: 'kind' must be text, not {'a': 1}"),
        ("name: x\nkind: 1", "a.yml:2:1: 'kind' must be text, not 1"),
        (
            "kind: python\nname: x",
            "a.yml:1:1: kind 'python' is not declared in YAML (decorate a function in a .py file",
        ),
        ("kind: transform\ntransform: SELECT 1", "a.yml:1:1: 'name' is missing"),
        ("kind: transform\nname: 2024\ntransform: x", "a.yml:2:1: 'name' must be text, not 2024 (put it in quotes)"),
        ("kind: transform\nname: yes\ntransform: x", "a.yml:2:1: 'name' must be text, not True"),
        ("kind: transform\nname: [a]\ntransform: x", "a.yml:2:1: 'name' must be text, not ['a']"),
        ("kind: transform\nname: ''\ntransform: x", "a.yml:2:1: name '' is not allowed"),
        ("kind: transform\nname: ../x\ntransform: x", "a.yml:2:1: name '../x' is not allowed"),
        ("kind: transform\nname: a/b\ntransform: x", "a.yml:2:1: name 'a/b' is not allowed"),
        ("kind: transform\nname: 'it''s'\ntransform: x", 'a.yml:2:1: name "it\'s" is not allowed'),
        ('kind: transform\nname: "a\\nb"\ntransform: x', "a.yml:2:1: name 'a\\nb' is not allowed"),
        ('kind: transform\nname: "a\\0b"\ntransform: x', "a.yml:2:1: name 'a\\x00b' is not allowed"),
        (
            "kind: transform\nname: Select\ntransform: x",
            "a.yml:2:1: name 'Select' is not allowed ('Select' is a reserved word of SQL",
        ),
        (
            "kind: transform\nname: class\ntransform: x",
            "a.yml:2:1: name 'class' is not allowed ('class' is a reserved word of Python",
        ),
        (f"kind: transform\nname: {'x' * 200}\ntransform: x", "a.yml:2:1: name 'xxx"),
        ("kind: transform\nname: x", "a.yml:1:1: 'transform' is missing (add `transform:`; a transform needs it)"),
        ("kind: transform\nname: x\ntransform:", "a.yml:3:1: 'transform' is missing"),
        ("kind: transform\nname: x\ntransform: 5", "a.yml:3:1: 'transform': expected text, got a whole number"),
        (
            "kind: transform\nname: x\ntransform: SELECT 1\nparams: [a]",
            "a.yml:4:1: 'params': expected a mapping, got a list",
        ),
        (
            "kind: transform\nname: x\ntransform: SELECT 1\ntags:\n  - a\n  - 1",
            "a.yml:6:5: 'tags.1': expected text, got a whole number",
        ),
        (
            "kind: transform\nname: x\ntransform: SELECT 1\ntags: a",
            "a.yml:4:1: 'tags': expected a list or nothing, got text",
        ),
        (
            "kind: transform\nname: x\ntransform: SELECT 1\ndescription: [a]",
            "a.yml:4:1: 'description': expected text or nothing, got a list",
        ),
        (
            "kind: transform\nname: x\ntransform: SELECT 1\ncolumns: [a]",
            "a.yml:4:1: 'columns': expected a mapping or nothing, got a list (write `name: description` for each",
        ),
        ("kind: aggregation\nname: x", "a.yml:1:1: 'id_col' is missing (add `id_col:`; an aggregation needs it)"),
        (
            "kind: transform\nname: x\ntransfrm: SELECT 1",
            "a.yml:3:1: unknown field 'transfrm' of a transform (did you mean 'transform'?)",
        ),
        (
            "kind: transform\nname: x\ntransform: SELECT 1\ninput: []",
            "a.yml:4:1: unknown field 'input' of a transform (did you mean 'inputs'?)",
        ),
        (
            "kind: transform\nname: x\ntransform: SELECT 1\ninputs: {a: source.x}",
            "a.yml:4:1: 'inputs': expected a list",
        ),
        (
            "kind: transform\nname: x\ntransform: SELECT 1\ninputs:\n  - {reff: source.x}",
            "a.yml:5:5: an input must name a node",
        ),
        ("kind: transform\nname: x\ntransform: SELECT 1\ninputs: [1]", "a.yml:4:10: an input must name a node"),
        (
            "kind: source\nname: x\nsource: cvs\ntable: x.csv",
            "a.yml:3:1: unknown source type 'cvs' (did you mean 'csv'?)",
        ),
        ("- just text", "a.yml:1:3: a node must be a mapping with kind and name"),
        ("just text", "a.yml:1:1: a node must be a mapping with kind and name"),
        ("- [a]", "a.yml:1:3: a node must be a mapping with kind and name"),
        ("kind: source\nname: [", "a.yml:2:8: is not valid YAML"),
        ("kind: source\nkind: source", "a.yml:2:1: 'kind' is given twice"),
        (b"kind: \xff", "a.yml:1:7: is not UTF-8 text"),
        ("a: " + "[" * 3000, "a.yml:1:103: is nested deeper than 100 levels"),
    ],
)
def test_what_is_wrong_is_said_with_its_place_and_the_way_out(tmp_path: Path, text: str | bytes, problem: str) -> None:
    assert any(found.startswith(problem) for found in said(tmp_path, text)), said(tmp_path, text)


def test_everything_that_is_wrong_is_said_at_once_in_the_order_of_files(tmp_path: Path) -> None:
    found = said(
        tmp_path,
        "kind: source\nname: orders\nsource: cvs\ntable: 5\nsource_: 1",
        "kind: transform\nname: select\ntransform: SELECT 1",
        CLEAN + "tags: 5\ninputs_: []",
        "kind: transform\nname: d\ntransform: SELEC 1",
        "kind: transform\nname: e\ntransform: SELECT 1 AS x\ninputs: [source.ordrs]",
    )
    assert [problem.split(": ")[0] for problem in found] == [
        "a.yml:4:1",
        "a.yml:5:1",
        "b.yml:2:1",
        "c.yml:5:1",
        "c.yml:6:1",
        "d.yml:3:12",
        "e.yml:4:10",
    ]


def test_a_field_that_looks_like_none_is_a_warning_and_under_strict_an_error(tmp_path: Path) -> None:
    text = "kind: transform\nname: x\ntransform: SELECT 1 AS x\nweather: fine\nschedule: '@daily'\n"
    warnings = [str(warning) for warning in parsed(tmp_path, {"a.yml": text}).warnings]
    assert warnings == [
        "seeknal/a.yml:4:1: unknown field 'weather' of a transform",
        "seeknal/a.yml:5:1: 'schedule' has no effect yet",
    ]
    assert said(tmp_path, text, strict=True) == ["a.yml:4:1: unknown field 'weather' of a transform"]


@pytest.mark.parametrize("name", ["orders", "Orders", "ORDERS"])
def test_an_id_is_declared_once_whatever_its_case(tmp_path: Path, name: str) -> None:
    found = said(tmp_path, SOURCE, "\n" + SOURCE.replace("orders", name, 1))
    assert found == [f"b.yml:3:1: source.{name} is declared twice; the other is at seeknal/a.yml:2:1 (rename one)"]


def test_one_name_may_be_of_two_kinds(tmp_path: Path) -> None:
    text = CLEAN.replace("clean", "orders")
    assert set(parsed(tmp_path, {"a.yml": SOURCE, "b.yml": text}).manifest.nodes) == {
        "source.orders",
        "transform.orders",
    }


# what is wrong between nodes


def test_a_dangling_input_comes_with_the_nearest_name(tmp_path: Path) -> None:
    for reference, hint in (("source.ordrs", "did you mean 'source.orders'?"), ("orders", "write source.orders")):
        text = f"kind: transform\nname: t\ntransform: SELECT 1 AS x\ninputs:\n  - ref: {reference}\n"
        assert said(tmp_path, SOURCE, text) == [f"b.yml:5:5: input '{reference}' does not exist ({hint})"]


def test_an_input_must_have_rows(tmp_path: Path) -> None:
    out = "kind: exposure\nname: out\ninputs: [source.orders]\npath: output/x.csv\n"
    text = "kind: transform\nname: t\ninputs: [exposure.out]\ntransform: SELECT * FROM exposure.out\n"
    assert said(tmp_path, SOURCE, out, text) == [
        "c.yml:3:10: input 'exposure.out' is of kind exposure, which has no rows to read",
        "c.yml:4:26: 'exposure.out' is of kind exposure, which has no rows to read",
    ]


def test_no_node_reads_itself(tmp_path: Path) -> None:
    text = "kind: transform\nname: t\ninputs: [transform.T]\ntransform: SELECT * FROM transform.t\n"
    assert said(tmp_path, text) == ["a.yml:3:10: transform.t is its own input", "a.yml:4:26: transform.t reads itself"]


def test_a_cycle_is_said_with_its_path_at_an_input_of_it(tmp_path: Path) -> None:
    one = "kind: transform\nname: a\ninputs: [transform.b]\ntransform: SELECT 1 AS x\n"
    two = "kind: transform\nname: b\ntransform: |\n  SELECT *\n  FROM transform.a\n"
    found = said(tmp_path, one, two)
    assert found == [
        "a.yml:3:10: DAG contains cycle: transform.a -> transform.b -> transform.a (remove one of these inputs)"
    ]
    by_sql = said(tmp_path, one.replace("inputs: [transform.b]\n", "").replace("1 AS x", "* FROM transform.b"), two)
    assert by_sql[0].startswith("a.yml:3:26: DAG contains cycle")


def test_references_to_nodes_that_could_not_be_read_are_not_held_against_their_readers(tmp_path: Path) -> None:
    found = said(tmp_path, SOURCE.replace("kind: source", "kind: sorce"), CLEAN)
    assert found == ["a.yml:1:1: unknown kind 'sorce' (did you mean 'source'?)"]
    assert said(tmp_path, SOURCE + "kind: x\n", CLEAN) == ["a.yml:5:1: 'kind' is given twice (keep one)"]
    missing = said(
        tmp_path,
        "kind: python\nname: m\n",
        "kind: transform\nname: t\ninputs: [python.m]\ntransform: SELECT * FROM python.m\n",
    )
    (only,) = missing
    assert only.startswith("a.yml:1:1: kind 'python' is not declared in YAML")


# SQL


@pytest.mark.parametrize(
    "field",
    [
        "transform: SELECT é, amount,, x FROM source.orders",
        "transform: 'SELECT ''é'', amount,, x FROM source.orders'",
        'transform: "SELECT \\"é\\",\\n  amount,, x FROM source.orders"',
        "transform: SELECT é,\n  amount,,\n  x FROM source.orders",
        "transform: |\n  SELECT é,\n    amount,, x\n  FROM source.orders\n",
        "transform: |-\n\n    SELECT é,\n\n      amount,, x\n    FROM source.orders",
        "transform: >\n  SELECT é,\n  amount,, x\n  FROM source.orders\n",
        "transform: >-\n\n  SELECT\n    é,\n    amount,, x\n  FROM source.orders\n",
        "transform: |\r\n  SELECT é,\r\n  amount,, x\r\n  FROM source.orders\r\n",
        "? transform\n: |\n  SELECT amount,, x\n",
    ],
)
def test_a_syntax_error_stands_at_its_line_and_column(tmp_path: Path, field: str) -> None:
    text = f"# é\nkind: transform\nname: t\n{field}"
    before = text[: text.index(",,") + 1].replace("\r\n", "\n")
    line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
    # The last comma before the x is where DuckDB stumbles.
    assert said(tmp_path, text) == [f'a.yml:{line}:{column}: syntax error at or near ","']


def test_a_place_behind_a_replaced_ref_is_that_of_the_file(tmp_path: Path) -> None:
    text = (
        "kind: transform\nname: t\ntransform: |\n  SELECT *\n"
        "  FROM ref('orders') JOIN {{ ref('orders') }} AS o USING (id), source.ordrs\n"
    )
    assert said(tmp_path, SOURCE, text) == [
        "b.yml:5:64: no node is called 'source.ordrs' (did you mean 'source.orders'?)"
    ]


def test_every_unknown_table_is_said_with_a_hint(tmp_path: Path) -> None:
    sql = "SELECT * FROM orders, source.ordrs,\n    'data/x.csv', read_csv('y.csv')"
    text = f"kind: transform\nname: t\ntransform: |\n  {sql}\n"
    assert said(tmp_path, SOURCE, text) == [
        "b.yml:4:17: no node is called 'orders' (write source.orders)",
        "b.yml:4:25: no node is called 'source.ordrs' (did you mean 'source.orders'?)",
        "b.yml:5:5: 'data/x.csv' is a file, and a node reads nodes (declare a source for the file)",
        "b.yml:5:19: read_csv() is not allowed: a node reads its declared inputs only"
        " (declare a source for the file and read that)",
    ]


def test_a_position_without_an_input_is_said_where_it_stands(tmp_path: Path) -> None:
    text = "kind: transform\nname: t\ninputs: [source.orders]\ntransform: |\n  SELECT 1 AS x\n  FROM input_0, input_2\n"
    assert said(tmp_path, SOURCE, text) == ["b.yml:6:17: input_2: transform.t has 1 input(s), counted from 0"]
    text = "kind: transform\nname: t\ntransform: SELECT * FROM __THIS__\n"
    assert said(tmp_path, SOURCE, text) == ["b.yml:3:26: __THIS__ needs exactly one input; transform.t has 0"]


def test_a_word_that_may_be_a_column_needs_no_input(tmp_path: Path) -> None:
    text = "kind: transform\nname: t\ntransform: PIVOT source.orders ON input_7 USING count(*)\n"
    sql = parsed(tmp_path, {"a.yml": SOURCE, "b.yml": text}).drafts["transform.t"].sql
    assert sql is not None
    assert sql.positions == ()


AGGREGATION = """kind: aggregation
name: daily
id_col: id
feature_date_col: day
application_date_col: day
inputs: [source.orders]
features: [{name: amount, basic: [sum]}]
"""


def test_an_error_in_the_sql_of_an_aggregation_stands_in_its_transform(tmp_path: Path) -> None:
    text = AGGREGATION + "transform: |\n  SELECT *\n  FROM source.ordrs\n"
    assert said(tmp_path, SOURCE, text) == [
        "b.yml:10:8: no node is called 'source.ordrs' (did you mean 'source.orders'?)"
    ]
    assert parsed(tmp_path, {"a.yml": SOURCE, "b.yml": AGGREGATION}).manifest.inputs_of("aggregation.daily") == [
        "source.orders"
    ]
    missing = said(tmp_path, SOURCE, AGGREGATION.replace("source.orders", "source.ordrs"))
    assert missing == ["b.yml:6:10: input 'source.ordrs' does not exist (did you mean 'source.orders'?)"]


def test_a_file_name_that_cannot_be_shown_is_refused(tmp_path: Path) -> None:
    found = said(tmp_path)
    (tmp_path / "seeknal" / "a\nb.yml").write_text(SOURCE)
    found = said(tmp_path)
    assert found == ["a\\nb.yml: the name of the file has characters that cannot be printed (rename it)"]


def test_values_stay_what_json_can_hold(tmp_path: Path) -> None:
    text = CLEAN + "params: {on: yes, 1: 2, day: 2024-01-01, at: 12:30}\n"
    manifest = parsed(tmp_path, {"a.yml": SOURCE, "b.yml": text}).manifest
    assert manifest.nodes["transform.clean"].config["params"] == {
        "on": True,
        "1": 2,
        "day": "2024-01-01",
        "at": "12:30",
    }
    assert json.loads(manifest.to_json())["nodes"]["transform.clean"]["config"]["params"]["day"] == "2024-01-01"


# any file at all

FILES = [
    SOURCE
    + "params: {delimiter: ',', header: true}\n"
    + "schema: [{name: id, data_type: integer}, {name: day, data_type: date}]\n",
    CLEAN.replace("SELECT *", "|\n  SELECT id, day, upper('é') AS x -- c\n ").replace(" FROM", "  FROM"),
    AGGREGATION + "transform: SELECT id, day, 1 AS amount FROM transform.clean\n",
    "kind: exposure\nname: out\ntype: file\ndepends_on: [{ref: aggregation.daily}]\npath: output/x.csv\n"
    "params: {partition_by: [day]}\n",
    "- kind: transform\n  name: p\n  transform: PIVOT source.orders ON id USING count(*)\n  tags: [a, b]\n",
]
SNIPPETS = """: - [ ] { } , & * *x &x <<: ! !!binary ' " | > |- # % @ ` ~ null yes .nan 1e999 2024-01-01 --- ... ? $1 ;
kind: name: inputs: transform: source.orders ref('x') {{x}} ../x \x00 \x01 é 😀 \ufeff \u2028 '' select x y.z -- /*
99999999999999999999 input_5 __THIS__ PIVOT CREATE COPY""".split()
SNIPPETS += ["\t", "\r", "\n", "\ud800"]


def mutated(chance: random.Random, text: str) -> str:
    for _ in range(chance.choice((1, 1, 2, 4))):
        position = chance.randrange(len(text) + 1)
        way = chance.randrange(6)
        if way == 0:
            text = text[:position] + chance.choice(SNIPPETS) + text[position:]
        elif way == 1:
            text = text[:position] + text[position + chance.randrange(1, 12) :]
        elif way == 2:
            lines = text.split("\n")
            chance.shuffle(lines)
            text = "\n".join(lines)
        elif way == 3:
            words = text.split(" ")
            words[chance.randrange(len(words))] = chance.choice(SNIPPETS)
            text = " ".join(words)
        elif way == 4:
            lines = text.split("\n")
            lines.insert(chance.randrange(len(lines)), " " * chance.randrange(5) + chance.choice(lines))
            text = "\n".join(lines)
        else:
            text = text[:position] + chance.choice("aé \n:'\"") * chance.randrange(1, 300) + text[position:]
    return text


def open_or_refuse(project: Project) -> str:
    """Parse a project and analyse it. Anything but an error of ours with a place is a bug."""
    problems: list[Problem] = []
    try:
        parse_project(project)
    except ProjectError as error:
        problems = error.problems()
    for problem in problems:
        assert problem.message
        assert problem.place is not None
        assert problem.place.file.startswith("seeknal/")
        assert problem.place.line >= 1
    if problems:
        return "refused"
    with Session.open(project) as session:
        problems = [problem for found in session.compiled.analysis.problems.values() for problem in found]
        assert all(problem.message and problem.place for problem in problems)
    return "opened"


def with_data(root: Path) -> Path:
    (root / "data").mkdir()
    (root / "data" / "orders.csv").write_text("id,day\n1,2024-01-01\n")
    return root


def test_the_files_that_are_changed_at_random_are_all_right(tmp_path: Path) -> None:
    project = write(with_data(tmp_path), {f"{number}.yml": text for number, text in enumerate(FILES)})
    with Session.open(project) as session:
        session.compiled.analysis.check()


@pytest.mark.parametrize("seed", range(3))
def test_a_project_of_any_text_is_opened_or_refused_with_places(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    with_data(tmp_path)
    outcomes = []
    for _ in range(35):
        files = list(FILES)
        index = chance.randrange(len(files))
        files[index] = mutated(chance, files[index])
        content: dict[str, str | bytes] = {
            f"{number}.yml": text.encode(errors="surrogatepass") for number, text in enumerate(files)
        }
        outcomes.append(open_or_refuse(write(tmp_path, content)))
    assert "refused" in outcomes


VALUES: list[Any] = [
    None,
    True,
    0,
    -1,
    2**62,
    1.5,
    "",
    " ",
    "x",
    "é😀",
    "../x",
    "/etc/passwd",
    "a\x00b",
    "x" * 5000,
    "source.orders",
]
VALUES += [
    "SELECT",
    "SELECT 1 AS x",
    "SELECT * FROM source.orders",
    "ref('orders')",
    "{{ x }}",
    "'; DROP TABLE x; --",
    "*",
    "**/*",
]
VALUES += [
    "input_3",
    "PIVOT source.orders ON id",
    "SELECT nope FROM source.orders",
    "CREATE TEMP TABLE x AS SELECT 1; FROM x",
]
VALUES += [
    [],
    [None],
    ["a", ["b"]],
    {},
    {"a": {"b": []}},
    {"ref": "source.orders"},
    [{"ref": 5}],
    {"sum": "amount"},
    "output",
    "\n",
]


def changed(chance: random.Random, value: Any) -> Any:
    """A copy of a value in which one thing, somewhere inside, is something else."""
    if isinstance(value, dict) and value and chance.random() < 0.9:
        key = chance.choice(list(value))
        way = chance.random()
        if way < 0.1:
            return {name: item for name, item in value.items() if name != key}
        if way < 0.2:
            return {**value, chance.choice(("x", "inputs", key + "s", "schema", "path", "é")): chance.choice(VALUES)}
        return {**value, key: changed(chance, value[key])}
    if isinstance(value, list) and value and chance.random() < 0.8:
        index = chance.randrange(len(value))
        return [*value[:index], changed(chance, value[index]), *value[index + 1 :]]
    return chance.choice(VALUES)


@pytest.mark.parametrize("seed", range(3))
def test_a_project_of_any_values_is_opened_or_refused_with_places(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    with_data(tmp_path)
    nodes = [yaml.safe_load(text) for text in FILES]
    outcomes = []
    for _ in range(35):
        files: dict[str, str | bytes] = {}
        index = chance.randrange(len(nodes))
        for number, node in enumerate(nodes):
            if number == index:
                node = changed(chance, node)
            files[f"{number}.yml"] = yaml.safe_dump(node, allow_unicode=True, sort_keys=False)
        outcomes.append(open_or_refuse(write(tmp_path, files)))
    assert set(outcomes) == {"refused", "opened"}
