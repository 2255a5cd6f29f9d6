"""Linking of checks: the SQL in them is taken apart like a node's own, and reads no more than that may.

A rule's SQL sees the rule's inputs; that of ``audits`` and ``tests`` the output of their node. Beside ``kind.name``,
``ref()``, ``input_N`` and ``__THIS__`` there are the names ``input_data`` (the checked table) and ``kind_name``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import msgspec

from seeknal.dag.sql import Sql, quoted_node
from seeknal.dag.sql_problem import SqlProblem
from seeknal.dag.tokens import stray_bracket
from seeknal.nodes.check import Check
from seeknal.nodes.check_fields import ParsedCheck, Path
from seeknal.nodes.kind import Query


class LinkedCheck(msgspec.Struct, frozen=True):
    """A check of a node: ready for a worker, with the path to it, and its SQL as it is bound."""

    check: Check
    path: Path
    sql: Sql | None = None
    query: Query | None = None


def link_check(
    parsed: ParsedCheck,
    tables: Sequence[str],
    take_apart: Callable[[str, Iterable[tuple[str, int]]], Sql],
) -> LinkedCheck:
    """Take a check's SQL apart. ``tables`` are the ids of the nodes it may mean by position, the checked one first.

    ``take_apart`` takes a text and the names of inputs in it; see :func:`seeknal.dag.sql.take_apart`.

    What is wrong with the SQL stands in ``problems`` of the result's ``sql``.
    """
    check = parsed.check
    if not check.sql:
        return LinkedCheck(check, parsed.path)
    before, after = "", ""
    if check.family == "predicate":
        checked = quoted_node(tables[0]) if tables else "input_0"
        before, after = f"SELECT 1 AS found FROM {checked} WHERE (\n", "\n) IS NOT TRUE"
        stray = stray_bracket(check.sql)
        if stray is not None:
            problem = SqlProblem(f"'{stray.text}' has no partner", stray.start)
            return LinkedCheck(
                check,
                parsed.path,
                Sql(check.sql, problems=(problem,)),
                Query(check.sql, parsed.sql_path, 0, len(check.sql)),
            )
    query = Query(f"{before}{check.sql}{after}", parsed.sql_path, len(before), len(check.sql))
    aliases = {node_id.replace(".", "_", 1).lower(): index for index, node_id in enumerate(tables)}
    names = {"input_data": 0, **aliases}
    sql = take_apart(query.text, names.items())
    statements = sql.statements
    if check.family == "predicate":
        # The condition alone: which columns are selected is up to whoever asks.
        statements = (sql.text[len(before) : len(sql.text) - len(after)],)
    linked = msgspec.structs.replace(
        check, statements=statements, positions=sql.positions, volatile=check.volatile or bool(sql.volatile)
    )
    return LinkedCheck(linked, parsed.path, sql, query)
