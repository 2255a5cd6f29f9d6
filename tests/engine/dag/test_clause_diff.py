"""What a plan says of a changed query beside its columns."""

from __future__ import annotations

import pytest

from seeknal.dag.clause_diff import changed_clauses

QUERY = "SELECT id, qty * price AS amount FROM transform.orders WHERE qty > 0"


@pytest.mark.parametrize(
    ("after", "lines"),
    [
        ("SELECT id, qty * price * 1.1 AS amount FROM transform.orders WHERE qty > 0", ["how 'amount' is computed"]),
        ("SELECT id + 0 AS ID, qty * price AS amount FROM transform.orders WHERE qty > 0", ["how 'ID' is computed"]),
        ("SELECT id, qty * price AS amount FROM transform.orders WHERE qty > 1", ["the filter (WHERE)"]),
        ("SELECT id, qty * price AS amount FROM transform.orders", ["the filter (WHERE)"]),
        ("SELECT DISTINCT id, qty * price AS amount FROM transform.orders WHERE qty > 0", ["DISTINCT"]),
        (f"{QUERY} ORDER BY id LIMIT 3", ["ORDER BY", "LIMIT"]),
        (f"{QUERY} GROUP BY ALL", ["GROUP BY"]),
        (f"{QUERY} USING SAMPLE 10 ROWS", ["the sample"]),
        (f"{QUERY} QUALIFY row_number() OVER (PARTITION BY id) = 1", ["the filter on windows (QUALIFY)"]),
        (QUERY.replace("orders", "orders JOIN source.prices USING (id)"), ["FROM or the joins"]),
        (f"WITH a AS (SELECT 1) {QUERY}", ["the CTEs"]),
        ("SELECT id,\n qty * price AS amount, /* new */ 'EUR' AS currency FROM transform.orders WHERE qty > 0", []),
    ],
)
def test_parts_that_changed_are_named(after: str, lines: list[str]) -> None:
    assert changed_clauses(QUERY, after) == [f"Changed {line}" for line in lines]


@pytest.mark.parametrize(
    "after", ["SELECT {{ column }} FROM t", "SELEC", f"{QUERY} UNION ALL {QUERY}", "SELECT '\ud800'", ""]
)
def test_what_has_no_tree_of_one_select_is_not_taken_apart(after: str) -> None:
    assert changed_clauses(QUERY, after) == []
