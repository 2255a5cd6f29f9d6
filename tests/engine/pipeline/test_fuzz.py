"""Damage 500 Python files: each loads, or is told with a place, on one line."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from seeknal.dag.parse import parse_project
from seeknal.dag.project import Project
from seeknal.dag.python_file import discover_files
from seeknal.errors import ProjectError
from tests.engine.workflow.projects import write_project

TEXT = '''\
# /// script
# requires-python = ">=3.11"
# dependencies = [
#     "msgspec",
# ]
# ///
"""Nodes of a shop: «ünïcode» and all."""

from dataclasses import dataclass

from seeknal.pipeline import aggregation, exposure, feature_group, materialize, source, transform

RATE, LIMITS = 2, {"low": 1, "high": [1, 2, 3]}


@dataclass
class Shape:
    size: int = 1


def helper(ctx, name="source.orders"):
    return ctx.ref(name, columns=["id", "amount"])


@source(name="orders", source="csv", table="data/orders.csv", columns={"id": "The id."}, delimiter=",")
def orders(ctx=None):
    """From a file."""
    pass


@transform(name="clean", sql="SELECT id, amount FROM source.orders WHERE amount > 0", tags=["core"])
def clean(): ...


@transform(name="double", inputs=["source.orders"], description="Twice", limits=LIMITS, params={"rate": RATE})
@materialize(type="iceberg", table="atlas.shop.double", unique_keys=["id"])
def double(ctx):
    rows = helper(ctx)
    return ctx.duckdb.sql(f"SELECT id, amount * {RATE} AS amount FROM rows")


@feature_group(name="features", entity={"name": "user", "join_keys": ["user_id"]}, features={"age": {"dtype": "int"}})
def features(ctx):
    return ctx.ref("transform.double")


@aggregation(name="daily", id_col="id", feature_date_col="day", application_date_col="day",
             features=[{"name": "amount", "basic": ["sum", "count"]}])
def daily(ctx):
    return ctx.relation("transform.clean", ["id"])


@exposure(name="export", type="file", path="output/x.csv")
def export(ctx):
    return ctx.features("user", ["features.age"])


if __name__ == "__main__":
    print(Shape())
'''

PIECES = [
    "\0", "\t", "\n", "\r", "\ufeff", "\u2028", "é", "\N{SNOWMAN}", "(", ")", "[", "{", "'", '"', '"""', "\\", "#", ":",
    ",", "=", "@", "*", "**", "None", "True", "-1", "1e999", "10**400", "0x", "nan", "lambda: 0", "object()", "b'x'",
    "...", "print", "len", "{}", "[]", "()", "float('nan')", "raise", "return", "yield", "await", "async ", "del ",
    "import ", "from . import x", "global x", "name=5", "name=''", "name='has space'", "inputs=5", "tags='x'",
    "params=[]", "{{ x }}", "'\\ud800'", "source.nothing", "exit()", "raise SystemExit(3)", "1 / 0", "assert False",
    "breakpoint", "__import__('nothing')", "globals().clear()", "del __builtins__", "[[[[[[[[[[[[[[[[[[[[",
]  # fmt: skip


def delete_characters(text: str, chance: random.Random) -> str:
    start = chance.randrange(len(text))
    return text[:start] + text[start + chance.randint(1, 40) :]


def delete_line(text: str, chance: random.Random) -> str:
    lines = text.split("\n")
    del lines[chance.randrange(len(lines))]
    return "\n".join(lines)


def swap_lines(text: str, chance: random.Random) -> str:
    lines = text.split("\n")
    first, second = chance.randrange(len(lines)), chance.randrange(len(lines))
    lines[first], lines[second] = lines[second], lines[first]
    return "\n".join(lines)


def repeat_line(text: str, chance: random.Random) -> str:
    lines = text.split("\n")
    at = chance.randrange(len(lines))
    return "\n".join([*lines[:at], *[lines[at]] * chance.randint(2, 5), *lines[at:]])


def insert(text: str, chance: random.Random) -> str:
    at = chance.randrange(len(text))
    return text[:at] + chance.choice(PIECES) + text[at:]


def replace_word(text: str, chance: random.Random) -> str:
    words = [word for word in text.split() if len(word) > 1] or [text]
    return text.replace(chance.choice(words), chance.choice(PIECES), chance.randint(1, 3))


def cut(text: str, chance: random.Random) -> str:
    return text[: chance.randrange(len(text))]


MUTATIONS: list[Callable[[str, random.Random], str]] = [
    delete_characters, delete_line, swap_lines, repeat_line, insert, insert, replace_word, replace_word, cut,
]  # fmt: skip


def damaged(seed: int) -> bytes:
    chance = random.Random(seed)
    text = TEXT
    for _ in range(chance.randint(1, 3)):
        text = chance.choice(MUTATIONS)(text, chance) or "x"
    data = text.encode("utf-8", "surrogatepass")
    if seed % 10 == 0:
        at = chance.randrange(len(data))
        data = data[:at] + bytes([chance.randrange(256)]) + data[at:]
    return data


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = write_project(tmp_path_factory.mktemp("damaged"), {})
    for seed in range(500):
        (root / f"seeknal/file_{seed:03}.py").write_bytes(damaged(seed))
    return root


def test_the_file_that_is_damaged_is_all_right(tmp_path: Path) -> None:
    write_project(tmp_path, {"seeknal/shop.py": TEXT})
    (found,) = discover_files(tmp_path, ["seeknal/shop.py"])
    assert found.problems == ()
    assert len(found.nodes) == 6


def test_every_damaged_file_loads_or_is_told_with_a_place(project: Path) -> None:
    with pytest.raises(ProjectError) as raised:
        parse_project(Project.open(project))
    problems = raised.value.problems()
    for problem in problems:
        assert problem.place is not None, problem
        assert (project / problem.place.file).is_file(), problem
        assert problem.place.line, problem
        said = str(problem)
        assert said.isprintable(), repr(said)
        assert "Traceback" not in said
        assert len(said) < 1000, said
    # Enough of them to be worth the name.
    assert len({problem.place.file for problem in problems if problem.place}) > 300
