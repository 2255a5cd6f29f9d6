"""What somebody may do to a project's files, as hypothesis strategies for the model test."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import strategies as st

from tests.reliability.model_project import Check, DoesNotBind, DoesNotLink, Exposure, Project, Rule, Source, Transform
from tests.reliability.model_queries import Count, Group, Join, Query, Select, Star, Table

NAMES = ("id", "a", "b", "c")
NUMBERS = st.integers(0, 4)
EDITS = (
    "data", "data", "constant", "constant", "column of a source", "less of a source", "rename in a source",
    "column", "less", "rename", "rows", "new transform", "new transform", "new rule", "new exposure", "new source",
    "remove", "audit", "rule", "rule", "comment", "remark", "layout", "declare",
)  # fmt: skip


def first_project() -> Project:
    """Two sources of which a transform each reads some columns, what joins them, and a rule over that."""
    orders = Table(("id", "a", "b"), ((1, 0, 2), (2, 3, 2), (3, 1, 4)))
    people = Table(("id", "c"), ((1, 4), (2, 0), (4, 1)))
    joined = Join("transform.t0", "source.s1", ("id", "id"), (("id", 0, "id"), ("a", 0, "a"), ("c", 1, "c")))
    return Project(
        {
            "source.s0": Source(),
            "source.s1": Source(("id", "c")),
            "transform.t0": Transform(Select("source.s0", (("id", "id", 0), ("a", "a", 1)))),
            "transform.t1": Transform(joined),
            "transform.t2": Transform(Count("source.s1")),
            "rule.r0": Rule("transform.t1", Check("range", "a", 100)),
        },
        {"source.s0": orders, "source.s1": people},
    )


@st.composite
def edits(draw: st.DrawFn, project: Project) -> tuple[str, Project]:
    """An edit of a project, in a word, and what the project is then. Some leave it in a state that does not run."""
    kind = draw(st.sampled_from(EDITS))
    edited = _edit(draw, kind, project)
    if edited is None or (not draws_a_broken_one(draw) and not _runs(edited)):
        return "data", _data(draw, project)
    return kind, edited


def draws_a_broken_one(draw: st.DrawFn) -> bool:
    return draw(st.integers(0, 4)) == 4


def _runs(project: Project) -> bool:
    try:
        project.schemas()
    except (DoesNotBind, DoesNotLink):
        return False
    return True


def _edit(draw: st.DrawFn, kind: str, project: Project) -> Project | None:
    if kind == "data":
        return _data(draw, project)
    if kind in ("column of a source", "less of a source", "rename in a source", "declare"):
        return _source(draw, kind, project)
    if kind in ("constant", "column", "less", "rename", "rows"):
        return _select(draw, kind, project)
    if kind.startswith("new "):
        return _new(draw, kind.removeprefix("new "), project)
    if kind == "remove":
        node_id = draw(st.sampled_from(sorted(project.nodes)))
        left = project.without_node(node_id)
        return left if any(isinstance(node, Source) for node in left.nodes.values()) else None
    if kind == "comment":
        return project.with_comment(draw(st.sampled_from(sorted(project.nodes))), draw(NUMBERS))
    if kind == "rule":
        return _rule(draw, project)
    return _about_a_transform(draw, kind, project)


def _data(draw: st.DrawFn, project: Project) -> Project:
    node_id = draw(st.sampled_from(sorted(project.data)))
    table = project.data[node_id]
    rows = list(table.rows)
    at = draw(st.integers(0, len(rows)))
    if at == len(rows):
        rows.append(tuple(draw(NUMBERS) for _ in table.columns))
    elif len(rows) > 1 and draw(st.booleans()):
        del rows[at]
    else:
        column = draw(st.integers(0, len(table.columns) - 1))
        rows[at] = tuple(draw(NUMBERS) if index == column else value for index, value in enumerate(rows[at]))
    return project.with_node(node_id, project.nodes[node_id], Table(table.columns, tuple(rows)))


def _source(draw: st.DrawFn, kind: str, project: Project) -> Project | None:
    node_id = draw(st.sampled_from(sorted(project.data)))
    node, table = project.nodes[node_id], project.data[node_id]
    assert isinstance(node, Source)
    columns, rows = list(table.columns), [list(row) for row in table.rows]
    declared = list(node.declared) if node.declared else None
    if kind == "declare":
        # Perhaps not all of them: what is not declared is left out.
        some = draw(st.lists(st.sampled_from(columns), min_size=1, unique=True))
        ordered = tuple(name for name in columns if name in some)
        return project.with_node(node_id, Source(None if node.declared else ordered))
    new = [name for name in (*NAMES, "d") if name not in columns]
    at = draw(st.integers(0, len(columns) - 1))
    if kind == "less of a source":
        if len(columns) == 1 or (declared and len(declared) == 1):
            return None
        gone = columns.pop(at)
        for row in rows:
            del row[at]
        declared = [name for name in declared if name != gone] if declared else None
    elif not new:
        return None
    elif kind == "rename in a source":
        name = draw(st.sampled_from(new))
        declared = [name if column == columns[at] else column for column in declared] if declared else None
        columns[at] = name
    else:
        columns.insert(at, draw(st.sampled_from(new)))
        for row in rows:
            row.insert(at, draw(NUMBERS))
        if declared is not None and draw(st.booleans()):
            declared.append(columns[at])
    data = Table(tuple(columns), tuple(map(tuple, rows)))
    return project.with_node(node_id, Source(tuple(declared) if declared else None), data)


def _transforms(project: Project) -> list[str]:
    return sorted(node_id for node_id, node in project.nodes.items() if isinstance(node, Transform))


def _select(draw: st.DrawFn, kind: str, project: Project) -> Project | None:
    chosen = [name for name in _transforms(project) if isinstance(project.nodes[name].query, Select)]  # type: ignore[union-attr]
    if not chosen:
        return None
    node_id = draw(st.sampled_from(chosen))
    node = project.nodes[node_id]
    assert isinstance(node, Transform)
    query = node.query
    assert isinstance(query, Select)
    outputs = list(query.outputs)
    at = draw(st.integers(0, len(outputs) - 1))
    alias, column, _ = outputs[at]
    free = [name for name in (*NAMES, "x", "y") if name not in {output[0] for output in outputs}]
    if kind == "constant":
        outputs[at] = (alias, column, draw(NUMBERS))
    elif kind == "rows":
        columns = _columns(project, query.source)
        minimum = (draw(st.sampled_from(columns)), draw(NUMBERS)) if columns and draw(st.booleans()) else None
        return project.with_node(node_id, replace(node, query=replace(query, minimum=minimum)))
    elif kind == "less":
        if len(outputs) == 1:
            return None
        del outputs[at]
    elif not free:
        return None
    elif kind == "rename":
        outputs[at] = (draw(st.sampled_from(free)), column, outputs[at][2])
    else:
        columns = _columns(project, query.source)
        new = draw(st.sampled_from([None, *columns]))
        outputs.insert(at, (draw(st.sampled_from(free)), new, draw(NUMBERS)))
    return project.with_node(node_id, replace(node, query=replace(query, outputs=tuple(outputs))))


def _columns(project: Project, node_id: str) -> list[str]:
    try:
        return list(project.schemas().get(node_id, ()))
    except (DoesNotBind, DoesNotLink):
        return []


def _new(draw: st.DrawFn, kind: str, project: Project) -> Project | None:
    if len(project.nodes) > 12:
        return None
    if kind == "source":
        name = _free_name(project, "source", "s")
        columns = tuple(draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=3, unique=True)))
        row = st.tuples(*(NUMBERS for _ in columns))
        return project.with_node(name, Source(), Table(columns, tuple(draw(st.lists(row, min_size=1, max_size=3)))))
    try:
        schemas = project.schemas()
    except (DoesNotBind, DoesNotLink):
        return None
    source = draw(st.sampled_from(sorted(schemas)))
    if kind == "rule":
        return project.with_node(_free_name(project, "rule", "r"), Rule(source, draw(checks(schemas[source]))))
    if kind == "exposure":
        return project.with_node(_free_name(project, "exposure", "e"), Exposure(source))
    query = draw(queries(source, schemas))
    return project.with_node(_free_name(project, "transform", "t"), Transform(query))


@st.composite
def queries(draw: st.DrawFn, source: str, schemas: dict[str, tuple[str, ...]]) -> Query:
    columns = st.sampled_from(schemas[source])
    kind = draw(st.sampled_from(["select", "select", "star", "join", "group", "count"]))
    if kind == "star":
        return Star(source)
    if kind == "count":
        return Count(source)
    if kind == "group":
        return Group(source, draw(columns), draw(columns))
    if kind == "select":
        names = draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=3, unique=True))
        outputs = tuple((name, draw(columns), draw(NUMBERS)) for name in names)
        return Select(source, outputs, (draw(columns), draw(NUMBERS)) if draw(st.booleans()) else None)
    other = draw(st.sampled_from(sorted(name for name in schemas if name != source) or [source]))
    sides = (schemas[source], schemas[other])
    outputs_ = [("id", 0, draw(columns))]
    for name in draw(st.lists(st.sampled_from(["a", "b", "c"]), max_size=2, unique=True)):
        side = draw(st.integers(0, 1))
        outputs_.append((name, side, draw(st.sampled_from(sides[side]))))
    return Join(source, other, (draw(columns), draw(st.sampled_from(sides[1]))), tuple(outputs_))


def checks(columns: tuple[str, ...]) -> st.SearchStrategy[Check]:
    forms = st.sampled_from(["range", "range", "condition", "unique", "row_count"])
    return st.builds(Check, forms, st.sampled_from(columns), st.sampled_from([0, 2, 4, 100, 100, 100]))


def _rule(draw: st.DrawFn, project: Project) -> Project | None:
    """Tighten or relax a rule."""
    rules = sorted(node_id for node_id in project.nodes if node_id.startswith("rule."))
    if not rules:
        return None
    node_id = draw(st.sampled_from(rules))
    node = project.nodes[node_id]
    assert isinstance(node, Rule)
    columns = _columns(project, node.source)
    return project.with_node(node_id, replace(node, check=draw(checks(tuple(columns))))) if columns else None


def _about_a_transform(draw: st.DrawFn, kind: str, project: Project) -> Project | None:
    """Change what is no part of a transform: its audit, or how it is written."""
    transforms = _transforms(project)
    if not transforms:
        return None
    node_id = draw(st.sampled_from(transforms))
    node = project.nodes[node_id]
    assert isinstance(node, Transform)
    if kind == "remark":
        return project.with_node(node_id, replace(node, remark=draw(NUMBERS)))
    if kind == "layout":
        return project.with_node(node_id, replace(node, blanks=3 - node.blanks))
    columns = _columns(project, node_id)
    audit = draw(st.none() | checks(tuple(columns))) if columns else None
    return project.with_node(node_id, replace(node, audit=audit))


def _free_name(project: Project, kind: str, letter: str) -> str:
    """A name that is free; also one that was there before, so that what comes back is recognised."""
    return next(f"{kind}.{letter}{number}" for number in range(100) if f"{kind}.{letter}{number}" not in project.nodes)
