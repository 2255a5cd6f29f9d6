from __future__ import annotations

import copy
import json
import sqlite3
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

from seeknal.dag.project import Project
from seeknal.errors import Problem, ProjectError
from seeknal.workflow.session import Session
from tests.engine.nodes.promised_fields import NODES, PROMISES, Promise
from tests.engine.workflow.projects import write_project

ROWS = [
    {"order_id": 1, "customer_id": 101, "ordered_on": "2024-01-10", "amount": 50.0, "status": "paid"},
    {"order_id": 2, "customer_id": 102, "ordered_on": "2024-01-11", "amount": 20.5, "status": "open"},
]

SURROUNDINGS = """
kind: source
name: orders
source: csv
table: data/orders.csv
---
kind: transform
name: numbers
transform: SELECT order_id AS id, order_id * 2 AS twice, amount FROM source.orders
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import openpyxl

    folder = tmp_path_factory.mktemp("promises")
    write_project(folder, {"seeknal/orders.yml": SURROUNDINGS})
    (folder / "data").mkdir()
    lines = [",".join(ROWS[0]), *(",".join(map(str, row.values())) for row in ROWS)]
    (folder / "data/orders.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (folder / "data/orders.json").write_text(json.dumps(ROWS), encoding="utf-8")
    book = openpyxl.Workbook()
    for row in (list(ROWS[0]), *(list(row.values()) for row in ROWS)):
        book.active.append(row)
    book.save(folder / "data/orders.xlsx")
    connection = sqlite3.connect(folder / "data/o.db")
    connection.execute("CREATE TABLE orders (order_id INTEGER, amount REAL)")
    connection.commit()
    connection.close()
    return folder


def _said(root: Path, node: dict[str, Any]) -> list[Problem]:
    """What is wrong with a node, and what a warning says of it."""
    (root / "seeknal/it.yml").write_text(yaml.safe_dump(node, sort_keys=False), encoding="utf-8")
    try:
        with Session.open(Project.open(root)) as session:
            found = [problem for each in session.compiled.analysis.problems.values() for problem in each]
            return [*found, *session.compiled.parsed.warnings]
    except ProjectError as error:
        return error.problems()


def _with(node: dict[str, Any], path: tuple[str | int, ...], wrong: Any) -> dict[str, Any]:
    """The node with a value at a path, whose parents are made where they are missing."""
    changed = copy.deepcopy(node)
    place: Any = changed
    for key, below in pairwise(path):
        if isinstance(place, dict) and not isinstance(place.get(key), (dict, list)):
            place[key] = [] if isinstance(below, int) else {}
        place = place[key]
    last = path[-1]
    if isinstance(place, list):
        place[int(last) : int(last) + 1] = [wrong]
    else:
        place[last] = wrong
    return changed


def _block(root: Path, field: str) -> range:
    """The lines of a field of the node, counted from 1."""
    lines = (root / "seeknal/it.yml").read_text(encoding="utf-8").splitlines()
    first = next((index for index, line in enumerate(lines, 1) if line.startswith(f"{field}:")), 0)
    after = (index for index, line in enumerate(lines, 1) if index > first and line[0] not in " -")
    return range(first, next(after, len(lines) + 1))


@pytest.mark.parametrize("name", NODES)
def test_the_node_itself_is_right(root: Path, name: str) -> None:
    assert _said(root, NODES[name]) == []


@pytest.mark.parametrize("promise", PROMISES, ids=str)
def test_a_wrong_value_of_a_field_is_told_at_its_place(root: Path, promise: Promise) -> None:
    said = _said(root, _with(NODES[promise.node], promise.path, promise.wrong))
    assert said, "nothing reads the field"
    place = said[0].place
    assert place is not None
    # What a data file lacks may be told at the file.
    if not place.file.startswith("data/"):
        assert place.file == "seeknal/it.yml"
        assert place.line in _block(root, str(promise.path[0])), str(said[0])
