"""Which parts of a query changed, for people: by DuckDB's parse trees of two texts, where the columns' types are known.

- *clause*: a part of the outermost SELECT. A query of another form (a UNION, say) is not taken apart.

:mod:`seeknal.dag.sql_diff` says more, also where nothing is known but the text. It takes a tenth of a second to import
its parser, which a plan of a large project would notice.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import msgspec

from seeknal.dag.syntax_trees import SyntaxTrees

# Parts of a tree by DuckDB's name, and what to call them when they changed.
_CLAUSES = {
    "cte_map": "the CTEs",
    "from_table": "FROM or the joins",
    "where_clause": "the filter (WHERE)",
    "group_expressions": "GROUP BY",
    "group_sets": "GROUP BY",
    "aggregate_handling": "GROUP BY",
    "having": "the filter on groups (HAVING)",
    "qualify": "the filter on windows (QUALIFY)",
    "sample": "the sample",
}
_MODIFIERS = {
    "DISTINCT_MODIFIER": "DISTINCT",
    "ORDER_MODIFIER": "ORDER BY",
    "LIMIT_MODIFIER": "LIMIT",
    "LIMIT_PERCENT_MODIFIER": "LIMIT",
}


def changed_clauses(before: str, after: str, parser: Any = None) -> list[str]:
    """List what changed between two queries, one line each, such as ``Changed how 'amount' is computed``.

    ``parser`` is a DuckDB connection, used for its parser only; without one it takes its own. Columns that came or went
    are left out: their types tell of them. Empty where either text has no tree to compare.
    """
    trees = SyntaxTrees(parser if parser is not None else _own_parser())
    trees.expect((before, after))
    old, new = _select(before, trees), _select(after, trees)
    if old is None or new is None:
        return []
    was, now = _columns(old), _columns(new)
    lines = [
        f"Changed how '{now[name][0]}' is computed" for name in now if name in was and was[name][1] != now[name][1]
    ]
    called = [name for part, name in _CLAUSES.items() if old.get(part) != new.get(part)]
    modified, modifies = _modifiers(old), _modifiers(new)
    called += [name for type_, name in _MODIFIERS.items() if modified.get(type_) != modifies.get(type_)]
    return [*lines, *(f"Changed {name}" for name in dict.fromkeys(called))]


@cache
def _own_parser() -> Any:
    import duckdb

    return duckdb.connect(":memory:", config={"threads": 1})


def _select(text: str, trees: SyntaxTrees) -> dict[str, Any] | None:
    """The tree of a text that is one SELECT, without places."""
    import duckdb

    try:
        tree = msgspec.json.decode(trees.tree(text))
    except (duckdb.Error, RecursionError, UnicodeError):
        return None
    statements = tree.get("statements", ())
    if len(statements) != 1 or statements[0]["node"]["type"] != "SELECT_NODE":
        return None
    node: dict[str, Any] = _without_places(statements[0]["node"])
    return node


def _without_places(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_places(item) for key, item in value.items() if not key.startswith("query_location")}
    return [_without_places(item) for item in value] if isinstance(value, list) else value


def _columns(node: dict[str, Any]) -> dict[str, tuple[str, Any]]:
    """Lower-case name → name and expression, of the output columns that the text names."""
    found = {}
    for item in node.get("select_list", ()):
        name = item.get("alias") or (item["column_names"][-1] if item["class"] == "COLUMN_REF" else "")
        if name:
            found[name.lower()] = (name, {key: part for key, part in item.items() if key != "alias"})
    return found


def _modifiers(node: dict[str, Any]) -> dict[str, Any]:
    return {modifier["type"]: modifier for modifier in node.get("modifiers", ())}
