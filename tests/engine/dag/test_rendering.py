"""A node's fields with their templates filled in: names, places, types, paths, and what is new in every run."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seeknal.dag.parameters import RUN_ID_STAND_IN, GivenParameters, RunParameters
from seeknal.dag.parse import ParsedProject, parse_project
from seeknal.dag.project import Project
from seeknal.dag.rendering import RenderedNode, Renderer
from seeknal.dag.templated_text import converted
from seeknal.errors import ProjectError
from seeknal.workflow.session import Session
from tests.engine.workflow.projects import transform, write, write_project

NOW = datetime(2026, 3, 31, 6, 0)


def render(root: Path, given: dict[str, Any] | None = None, /, *, real: bool = False, **fields: Any) -> RenderedNode:
    parameters = RunParameters(GivenParameters(params=given or {}), "run-1", NOW)
    return Renderer(Project.open(root) if root.is_dir() else Project(root), parameters).render(fields, real=real)


def parsed(root: Path, **given: Any) -> ParsedProject:
    return parse_project(Project.open(root), RunParameters(GivenParameters(**given), given.get("run_id", "run-1"), NOW))


def problems(root: Path, **given: Any) -> list[str]:
    with pytest.raises(ProjectError) as raised:
        parsed(root, **given)
    return [str(problem) for problem in raised.value.problems()]


# names


def test_the_first_that_has_a_value_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_REGION", "env")
    write_project(tmp_path, {"seeknal/common/sources.yml": "sources: [{id: shop, ref: source.o, params: {a: shared}}]"})
    own = {"today": "own", "run_id": "own", "a": "own", "shop": {"a": "own"}}
    text = "{{ today }} {{ run_id }} {{ a }} {{ shop.a }} {{ env:SHOP_REGION|x }}"
    fields = {"table": text, "params": own}
    node = render(tmp_path, {"a": "given"}, real=True, table=text)
    assert node.values["table"] == "2026-03-31 run-1 given shared env"
    found = Renderer(Project.open(tmp_path), RunParameters(now=NOW, run_id="run-1")).render(fields, real=True)
    assert found.values["table"] == "own run-1 own own env"


def test_params_may_name_each_other_but_not_in_a_circle() -> None:
    own = {"a": "{{ b }}-{{ c }}", "b": "{{ d|upper }}", "c": 1, "d": "x"}
    fields = {"table": "{{ a }}", "params": own}
    renderer = Renderer(Project(Path("/nowhere")), RunParameters())
    assert renderer.render(fields).values["table"] == "X-1"
    circle = renderer.render({"params": {"a": "{{ b }}", "b": "{{ a }}"}})
    assert all("in a circle: " in problem.message for problem in circle.problems)
    assert circle.problems


def test_every_unknown_name_is_told_at_once_with_its_place_and_near_names(tmp_path: Path) -> None:
    write_project(
        tmp_path,
        {
            "seeknal/a.yml": """
            kind: transform
            name: a
            params: {region: EU, "limit": "{{ leest }}"}
            transform: |
              SELECT '{{ region }}', {{ regoin }},
              {{ today(1, 2) }} -- {{ this_is_a_comment }}
              , {{ start_date }}
            """,
            "seeknal/b.yml": transform("b", "SELECT\n  {{ rules.nope }} AS é, '{{ env:SHOP_NOT_SET }}'"),
            "seeknal/common/rules.yml": "rules: [{id: none, value: true_}]",
        },
    )
    found = problems(tmp_path)
    assert [line.split(" ")[0] for line in found] == [
        "seeknal/a.yml:3:32:",
        "seeknal/a.yml:5:26:",
        "seeknal/a.yml:6:3:",
        "seeknal/a.yml:7:5:",
        "seeknal/b.yml:5:5:",
        "seeknal/b.yml:5:29:",
    ]
    assert "{{ regoin }}: nothing is called 'regoin' (did you mean 'region'? there is: region, limit, today" in found[1]
    assert "'start_date' was not given (give it with --start-date)" in found[3]
    assert "there is no rules.nope (did you mean 'rules.none'? there is: rules.none)" in found[4]
    assert "the environment variable SHOP_NOT_SET is not set (set it, in .env" in found[5]


@pytest.mark.parametrize(
    ("template", "hint"),
    [("source('raw', 'x')", "source.orders"), ("var('x')", "{{ region }}"), ("env_var('X')", "{{ env:NAME }}")],
)
def test_what_other_tools_call_is_told_as_it_is_called_here(tmp_path: Path, template: str, hint: str) -> None:
    write_project(tmp_path, {"seeknal/a.yml": transform("a", f"SELECT {{{{ {template} }}}} AS x")})
    (found,) = problems(tmp_path)
    assert hint in found


def test_what_is_wrong_in_a_shared_value_is_told_once_at_its_own_place(tmp_path: Path) -> None:
    write_project(
        tmp_path,
        {
            "seeknal/a.yml": transform("a", "SELECT 1 AS x WHERE {{ rules.r }}"),
            "seeknal/b.yml": transform("b", "SELECT 1 AS x WHERE {{ rules.r }}"),
            "seeknal/common/rules.yml": "rules:\n- id: r\n  value: a = '{{ nope }}'",
        },
    )
    (found,) = problems(tmp_path)
    assert found.startswith("seeknal/common/rules.yml:3:15: {{ nope }}: nothing is called 'nope'")


def test_shared_values_name_each_other_but_not_in_a_circle(tmp_path: Path) -> None:
    rules = """
    rules:
    - {id: a, value: "x = {{ transforms.t }}"}
    - {id: b, value: "{{ rules.c }}"}
    - {id: c, value: "{{ rules.b }}"}
    """
    write_project(
        tmp_path,
        {
            "seeknal/common/rules.yml": rules,
            "seeknal/common/transformations.yml": "transformations: [{id: t, sql: 'upper({{ column }})'}]",
        },
    )
    fields = {"transform": "{{ rules.a }}", "params": {"column": "y"}}
    renderer = Renderer(Project.open(tmp_path), RunParameters())
    assert renderer.render(fields).values["transform"] == "x = upper(y)"
    (problem,) = renderer.render({"transform": "{{ rules.b }}"}).problems
    assert "in a circle" in problem.message


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("a > 1", "a > 1"),
        ("a > 1 OR b", "(a > 1 OR b)"),
        ("a BETWEEN 1 AND 2 -- both", "(a BETWEEN 1 AND 2 -- both\n)"),
        ("(a OR b)", "(a OR b)"),
        ("'x OR y', 'z'", "'x OR y', 'z'"),
    ],
)
def test_a_rule_of_several_parts_stays_one_predicate(tmp_path: Path, value: str, shown: str) -> None:
    write_project(tmp_path, {"seeknal/common/rules.yml": f'rules: [{{id: r, value: "{value}"}}]'})
    node = render(tmp_path, transform="NOT {{ rules.r }}")
    assert node.values["transform"] == f"NOT {shown}"


# types


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("true", True), ("Yes", True), ("on", True), ("FALSE", False), ("no", False), ("off", False),
        ("1", 1), ("0", 0), ("-12", -12), ("007", "007"), ("1.50", 1.5), ("-0.5e3", -500.0), ("1e5", "1e5"),
        ("9223372036854775808", "9223372036854775808"), ("", ""), ("nan", "nan"), ("1_000", "1_000"), ("a b", "a b"),
    ],
)  # fmt: skip
def test_a_rendered_param_becomes_what_it_says(monkeypatch: pytest.MonkeyPatch, text: str, value: Any) -> None:
    monkeypatch.setenv("SHOP_VALUE", text)
    node = Renderer(Project(Path("/nowhere")), RunParameters()).render({"params": {"p": "{{ env:SHOP_VALUE }}"}})
    assert node.values["params"]["p"] == value
    assert type(node.values["params"]["p"]) is type(value)
    assert converted(text) == value


def test_a_param_that_is_one_template_has_its_type_and_others_are_text() -> None:
    fields = {"params": {"a": "{{ l }}", "b": "{{ l|length }} of {{ l|length }}", "l": [1, {"x": "{{ n }}"}], "n": 2}}
    values = Renderer(Project(Path("/nowhere")), RunParameters()).render(fields).values["params"]
    assert values == {"a": [1, {"x": 2}], "b": "2 of 2", "l": [1, {"x": 2}], "n": 2}
    plain = {"params": {"a": "yes", "b": "1"}, "table": "x"}
    assert Renderer(Project(Path("/nowhere")), RunParameters()).render(plain).values == plain


def test_an_open_brace_in_a_param_is_told_and_can_be_written() -> None:
    renderer = Renderer(Project(Path("/nowhere")), RunParameters())
    (problem,) = renderer.render({"params": {"a": "x {{ y"}}).problems
    assert (problem.offset, "is not closed" in problem.message) == (2, True)
    assert renderer.render({"params": {"a": "x {{ '{{' }} y"}}).values["params"]["a"] == "x {{ y"


def test_fields_that_are_for_people_or_for_names_keep_their_braces() -> None:
    fields = {"kind": "transform", "description": "{{ x }}", "tags": ["{{ y }}"], "inputs": ["{{ z }}"]}
    node = Renderer(Project(Path("/nowhere")), RunParameters()).render(fields)
    assert (node.values, node.problems) == (fields, [])


# checks


@pytest.mark.parametrize(
    ("fields", "rendered"),
    [
        ({"kind": "rule", "rule": "amount > {{ x }}"}, None),
        ({"kind": "rule", "rule": ["amount > {{ x }}"]}, None),
        ({"kind": "rule", "rule": {"value": "amount > {{ x }}"}}, None),
        ({"kind": "rule", "rule": {"type": "sql", "params": {"sql": "SELECT {{ x }}"}}}, None),
        ({"kind": "rule", "rule": {"type": "predicate"}, "params": {"value": "a = {{ x }}"}}, None),
        ({"kind": "transform", "tests": [{"expression": "a = {{ x }}"}]}, None),
        ({"kind": "transform", "audits": [{"type": "custom_sql", "sql": "SELECT {{ x }}"}]}, None),
        ({"kind": "aggregation", "features": [{"since": [{"condition": "a = {{ x }}"}]}]}, None),
        ({"kind": "source", "params": {"query": "SELECT {{ x }}"}}, None),
        ({"kind": "transform", "audits": [{"type": "accepted_values", "values": ["{{ x }}"]}]}, "1 OR 1=1"),
    ],
)
def test_sql_in_checks_and_features_takes_no_foreign_sql(fields: dict[str, Any], rendered: str | None) -> None:
    node = Renderer(Project(Path("/nowhere")), RunParameters(GivenParameters(params={"x": "1 OR 1=1"}))).render(fields)
    if rendered is None:
        (problem,) = node.problems
        assert "is not the project's own" in problem.message
    else:
        assert node.problems == []
        assert rendered in str(node.values)


def test_bounds_of_checks_are_numbers() -> None:
    fields = {"rule": {"type": "range", "column": "a", "params": {"min_val": "{{ n }}"}}, "params": {"n": 5}}
    found = Renderer(Project(Path("/nowhere")), RunParameters()).render(fields).values["rule"]
    assert found["params"]["min_val"] == 5


# paths


@pytest.mark.parametrize(
    ("template", "value", "allowed"),
    [
        ("data/{{ x }}.csv", "eu", True),
        ("data/{{ x }}.csv", "2024/01", True),
        ("data/{{ x }}.csv", "..a", True),
        ("data/{{ x }}.csv", "../secret", False),
        ("data/{{ x }}.csv", "a/../../../secret", False),
        ("data/{{ x }}/a.csv", "..", False),
        ("data/{{ x }}/a.csv", ".. ", False),
        ("data/.{{ x }}/a.csv", ".", False),
        ("data/{{ x }}{{ x }}/a.csv", ".", False),
        ("data\\{{ x }}\\a.csv", "..", False),
        ("{{ x }}/a.csv", "data", True),
        ("{{ x }}/a.csv", "", False),
        ("{{ x }}/a.csv", "/etc", False),
        ("{{ x }}/a.csv", "//etc", False),
        ("{{ x }}/a.csv", "~", False),
        ("{{ x }}/a.csv", "s3://bucket", False),
        ("s{{ x }}/a.csv", "3://bucket", False),
        ("data/{{ x }}.csv", "a\x00b", False),
        ("data/{{ x }}.csv", "a\nb", False),
        ("/mnt/data/{{ x }}.csv", "eu", True),
        ("/mnt/data/{{ x }}.csv", "../../etc/passwd", False),
        ("../{{ x }}/a.csv", "eu", True),
    ],
)
@pytest.mark.parametrize("where", ["table", "path", "params.path"])
def test_a_foreign_value_does_not_lead_a_path_out(where: str, template: str, value: str, allowed: bool) -> None:
    fields: dict[str, Any] = {"params": {"path": template}} if where == "params.path" else {where: template}
    renderer = Renderer(Project(Path("/nowhere")), RunParameters(GivenParameters(params={"x": value})))
    found = renderer.render(fields).problems
    assert bool(found) is not allowed
    assert all("leads out of" in problem.message or "control characters" in problem.message for problem in found)


def test_a_path_may_lead_where_the_author_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_DATA", "/mnt/data")
    fields = {"table": "{{ env:SHOP_DATA }}/a.csv"}
    (problem,) = Renderer(Project(tmp_path), RunParameters()).render(fields).problems
    assert problem.hint == "set `allow_external_paths: true` in seeknal_project.yml"
    (tmp_path / "seeknal").mkdir()
    (tmp_path / "seeknal_project.yml").write_text("allow_external_paths: true\n")
    assert Renderer(Project.open(tmp_path), RunParameters()).render(fields).problems == []
    own = {"table": "{{ folder }}/a.csv", "params": {"folder": "/mnt/data"}}
    assert Renderer(Project(tmp_path), RunParameters()).render(own).problems == []
    inside = {"table": "{{ workspace_path }}/data/a.csv"}
    assert Renderer(Project(tmp_path), RunParameters()).render(inside).values["table"] == f"{tmp_path}/data/a.csv"


# what is sent


def test_what_exposures_send_keeps_its_environment_variables_and_takes_other_values() -> None:
    fields = {
        "kind": "exposure",
        "url": "https://{{ host }}/{{ env:TOKEN }}",
        "params": {"headers": {"X-Day": "{{ today }}", "X-Key": "{{ env:KEY }}"}, "host": "example.com"},
    }
    node = Renderer(Project(Path("/nowhere")), RunParameters(now=NOW)).render(fields)
    assert node.problems == []
    assert node.values["url"] == "https://example.com/{{ env:TOKEN }}"
    assert node.values["params"]["headers"] == {"X-Day": "2026-03-31", "X-Key": "{{ env:KEY }}"}


@pytest.mark.parametrize("value", ["{{ env:SECRET }}", "env:SECRET", "{{env:SECRET|x"])
def test_a_value_cannot_name_an_environment_variable_to_be_sent(value: str) -> None:
    renderer = Renderer(Project(Path("/nowhere")), RunParameters(GivenParameters(params={"x": value})))
    (problem,) = renderer.render({"kind": "exposure", "params": {"headers": {"A": "{{ x }}"}}}).problems
    assert "may not name an environment variable" in problem.message


# what is new in every run


def test_a_volatile_name_has_a_stand_in_and_in_paths_its_value() -> None:
    parameters = RunParameters(run_id="run-1", now=NOW)
    fields = {
        "transform": "SELECT '{{ run_id }}', '{{ me }}'",
        "path": "out/{{ me }}.csv",
        "params": {"me": "{{ run_id }}"},
    }
    renderer = Renderer(Project(Path("/nowhere")), parameters)
    node = renderer.render(fields)
    assert node.values["transform"] == f"SELECT '{RUN_ID_STAND_IN}', '{RUN_ID_STAND_IN}'"
    assert node.values["path"] == "out/run-1.csv"
    assert node.volatile == ("run_id", "me")
    assert parameters.never_settles
    assert renderer.render(fields, real=True).values["transform"] == "SELECT 'run-1', 'run-1'"


def test_a_function_gets_its_params_rendered_and_those_of_the_run_first() -> None:
    fields = {"kind": "transform", "params": {"region": "US", "day": "{{ today }}", "n": "{{ env:SHOP_N|5 }}"}}
    parameters = RunParameters(GivenParameters(params={"region": "EU", "other": 1}), now=NOW)
    renderer = Renderer(Project(Path("/nowhere")), parameters)
    node = renderer.render(fields, code=True)
    assert node.params == {"region": "EU", "day": "2026-03-31", "n": 5}
    assert node.values["params"]["region"] == "US"
    assert {"region", "day", "n"} <= parameters.asked
    assert set(node.uses) == {"region", "today", "env:SHOP_N"}
    assert renderer.render(fields).params["region"] == "US"


# places


@pytest.mark.parametrize("style", ["|", ">"])
def test_errors_in_rendered_sql_point_into_the_file_as_it_is_written(tmp_path: Path, style: str) -> None:
    write_project(
        tmp_path,
        {
            "seeknal/a.yml": f"""
            kind: transform
            name: a
            params: {{short: x, long: {"y" * 50}}}
            transform: {style}
              SELECT '{{{{ long }}}}' AS a, '{{{{ short }}}}' AS b,
                {{{{ today }}}} AS c, nope( 1) AS d
            """
        },
    )
    with Session.open(Project.open(tmp_path)) as session:
        (found,) = session.compiled.analysis.problems["transform.a"]
    assert found.place is not None
    assert (found.place.line, found.place.column) == (6, 23)
    write(
        tmp_path,
        "seeknal/a.yml",
        transform("a", "SELECT\n '{{ today }}' AS a, {{ column }} AS b", params="{column: nope}"),
    )
    with Session.open(Project.open(tmp_path)) as session:
        (found,) = session.compiled.analysis.problems["transform.a"]
    assert found.place is not None
    assert (found.place.line, found.place.column) == (6, 24)


def test_the_manifest_keeps_templates_as_they_are_written(tmp_path: Path) -> None:
    write_project(
        tmp_path, {"seeknal/a.yml": transform("a", "SELECT '{{ today }}' AS d", params='{x: "{{ run_id }}"}')}
    )
    one, other = parsed(tmp_path, date="2024-01-01"), parsed(tmp_path, date="2024-01-02")
    assert one.manifest.nodes["transform.a"].config["transform"] == "SELECT '{{ today }}' AS d\n"
    assert one.manifest.fingerprint() == other.manifest.fingerprint()
    assert one.drafts["transform.a"].spec.transform == "SELECT '2024-01-01' AS d\n"


def test_an_edge_follows_the_name_that_a_template_gives(tmp_path: Path) -> None:
    files = {f"seeknal/{name}.yml": transform(name, "SELECT 1 AS x") for name in ("orders_eu", "orders_us")}
    files["seeknal/a.yml"] = transform("a", "FROM transform.orders_{{ region|default('eu') }}")
    files["seeknal/b.yml"] = transform("b", """FROM ref('{{ name|default("orders_eu") }}') AS o""")
    write_project(tmp_path, files)
    assert parsed(tmp_path).manifest.inputs_of("transform.a") == ["transform.orders_eu"]
    assert parsed(tmp_path).manifest.inputs_of("transform.b") == ["transform.orders_eu"]
    given = parsed(tmp_path, params={"region": "us"})
    assert given.manifest.inputs_of("transform.a") == ["transform.orders_us"]


def test_a_parameter_that_no_node_uses_is_named_in_a_warning(tmp_path: Path) -> None:
    write_project(tmp_path, {"seeknal/a.yml": transform("a", "SELECT '{{ region }}' AS r", params="{region: EU}")})
    found = parsed(tmp_path, params={"regoin": "US", "zzz": 1})
    assert [str(warning) for warning in found.warnings] == [
        "no node uses the parameter 'regoin' (did you mean 'region'?)",
        "no node uses the parameter 'zzz'",
    ]


@settings(max_examples=30, deadline=None)
@given(
    used=st.sets(st.sampled_from(["a", "b", "c"])),
    before=st.dictionaries(st.sampled_from(["a", "b", "c", "d"]), st.integers(0, 2)),
    after=st.dictionaries(st.sampled_from(["a", "b", "c", "d"]), st.integers(0, 2)),
)
def test_only_parameters_that_are_used_change_what_is_rendered(
    used: set[str], before: dict[str, int], after: dict[str, int]
) -> None:
    fields = {
        "params": dict.fromkeys("abc", 9),
        "transform": "SELECT " + ", ".join(["0", *(f"{{{{ {n} }}}}" for n in sorted(used))]),
    }

    def sql(params: dict[str, int]) -> str:
        parameters = RunParameters(GivenParameters(params=params))
        return str(Renderer(Project(Path("/nowhere")), parameters).render(fields).values["transform"])

    same = all(before.get(name, 9) == after.get(name, 9) for name in used)
    assert (sql(before) == sql(after)) is same
