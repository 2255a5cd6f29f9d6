"""Trees of queries that are asked for together are those that each has alone."""

from __future__ import annotations

import itertools
from typing import Any

import duckdb
import pytest

from seeknal.dag.syntax_trees import SyntaxTrees

TEXTS = [
    "SELECT a, count(*) FROM source.t JOIN source.u USING (k) GROUP BY ALL",
    "WITH c AS (FROM source.t) SELECT *, row_number() OVER (PARTITION BY a) FROM c",
    "PIVOT source.t ON a IN (1, 2) USING sum(b)",
    "SELECT 'ä€😀'",
    "SELECT 1; SELECT 2",
    "SELECT FROM WHERE",
    "INSERT INTO a VALUES (1)",
    "",
    "nonsense",
]


class Counting:
    """A connection that counts the statements it is given."""

    def __init__(self) -> None:
        self.connection = duckdb.connect()
        self.count = 0

    def execute(self, *arguments: Any) -> Any:
        self.count += 1
        return self.connection.execute(*arguments)


@pytest.fixture
def connection() -> Counting:
    return Counting()


def test_expected_trees_are_those_of_the_texts_alone(connection: Counting) -> None:
    trees = SyntaxTrees(connection)
    trees.expect(TEXTS)
    together = [trees.tree(text) for text in TEXTS]
    assert connection.count == 1
    assert together == [SyntaxTrees(connection).tree(text) for text in TEXTS]


def test_more_texts_than_are_read_at_once_in_any_order(connection: Counting) -> None:
    texts = [f"SELECT {number}" for number in range(1000)]
    trees = SyntaxTrees(connection)
    trees.expect(texts)
    for text in itertools.chain(reversed(texts), texts[:5], ["SELECT 'not expected'"]):
        assert trees.tree(text) == SyntaxTrees(connection.connection).tree(text)
    assert connection.count < 20


def test_a_text_that_is_none_spoils_no_other(connection: Counting) -> None:
    trees = SyntaxTrees(connection)
    trees.expect(["SELECT 1", "SELECT '\ud800'", "SELECT 2"])
    assert trees.tree("SELECT 1") == SyntaxTrees(connection).tree("SELECT 1")
    assert trees.tree("SELECT 2") == SyntaxTrees(connection).tree("SELECT 2")
