"""What a query says, read off DuckDB's own parse tree: the tables it names, what it calls, what is no plain reading.

Two ways lead to a :class:`Syntax`:

- *exact*: :func:`read_query`, from the tree that ``json_serialize_sql`` gives. It knows a table from a column, a string
  or a CTE of the same name.
- *outline*: :func:`outline`, from the tokens alone, for what has no such tree (a PIVOT over values of the data, a macro
  with several bodies). It takes every ``kind.name`` for a table and every word before ``(`` for a call: it may see
  too much, never too little.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import msgspec

from seeknal.dag.sql_functions import (
    BUILDING_FUNCTIONS,
    NEVER_NULL_FUNCTIONS,
    TYPE_FUNCTIONS,
    VOLATILE_FUNCTIONS,
    VOLATILE_WORDS,
    is_volatile,
    why_refused,
)
from seeknal.dag.sql_problem import SqlProblem, character_offset
from seeknal.dag.syntax_trees import SyntaxTrees
from seeknal.dag.tokens import Token
from seeknal.late_pattern import late_pattern

POSITIONAL = late_pattern(r"input_(\d{1,9})|__this__", re.IGNORECASE)

# The parts of a tree that only read. Anything else (INSERT_QUERY_NODE, say) is refused.
_READING = frozenset(
    """SELECT_NODE SET_OPERATION_NODE RECURSIVE_CTE_NODE CTE_NODE BASE_TABLE SUBQUERY JOIN TABLE_FUNCTION
    EXPRESSION_LIST PIVOT EMPTY SHOW_REF LIMIT_MODIFIER LIMIT_PERCENT_MODIFIER ORDER_MODIFIER DISTINCT_MODIFIER
    ORDER_DEFAULT ASCENDING DESCENDING""".split()
)

# What has a value of its own for each row, or is no value at all.
_DEPENDING_ON_ROWS = frozenset("COLUMN_REF POSITIONAL_REFERENCE STAR SUBQUERY WINDOW LAMBDA PARAMETER".split())

# Operators that are functions to DuckDB.
_EXTRACTING = frozenset({"ARRAY_EXTRACT", "ARRAY_SLICE", "STRUCT_EXTRACT"})

# In an outline: what may not follow a parenthesis, and what may not be named at all.
_WRITING_WORDS = frozenset("insert update delete merge truncate copy call show".split())
_BEFORE_A_TABLE = frozenset("from join pivot unpivot describe summarize table".split())
_CATALOG_SCHEMAS = frozenset({"information_schema", "pg_catalog"})
_CATALOG_VIEW = late_pattern(r"sqlite_(temp_)?(master|schema)|duckdb_\w+|pragma_database_list|pg_\w+")


class TableName(msgspec.Struct, frozen=True):
    """A table as the query names it, and where; ``has_alias`` says whether the query calls it something else.

    CTEs are left out.
    """

    parts: tuple[str, ...]
    offset: int | None = None
    has_alias: bool = False


class Syntax(msgspec.Struct):
    """What a query says. Offsets are in its text.

    ``needs_types``: what it gives may depend on the type of a column whose values it does not read. So it is where it
    asks for types (DESCRIBE, SUMMARIZE, ``typeof``), and where DuckDB may know a call's value to be NULL without
    looking at all of its arguments: in ``coalesce(a + NULL, 1)::VARCHAR`` the type of ``a`` decides between ``1`` and
    ``1.0``. ``exact``: see the module.
    """

    tables: list[TableName] = []
    volatile: dict[str, None] = {}
    problems: list[SqlProblem] = []
    needs_types: bool = False
    exact: bool = True


class NoTree(Exception):
    """DuckDB has no tree for a text, because it is something else than SELECTs."""


def read_query(text: str, trees: SyntaxTrees, own: Collection[str] = ()) -> list[Syntax]:
    """Read a text of SELECT statements, one Syntax for each. ``own`` are macros that it may call, in lower case.

    Raises NoTree where it holds other statements. What does not parse comes back as a Syntax with that problem.
    """
    try:
        tree = msgspec.json.decode(trees.tree(text))
    except RecursionError:
        raise NoTree from None
    if not tree["error"]:
        return [_Reader(text, own).read(statement) for statement in tree["statements"]]
    if tree["error_type"] != "parser":
        raise NoTree
    position = str(tree.get("position", ""))
    offset = character_offset(text, int(position)) if position.isdigit() else None
    return [Syntax(problems=[SqlProblem(tree["error_message"].splitlines()[0], offset)])]


class _Reader:
    """Walks one statement's tree. ``scope`` holds the names of the CTEs that are visible at a node."""

    def __init__(self, text: str, own: Collection[str]) -> None:
        self._text = text
        self._own = own
        self._found = Syntax()

    def read(self, statement: dict[str, Any]) -> Syntax:
        stack: list[tuple[Any, frozenset[str]]] = [(statement, frozenset())]
        while stack:
            node, scope = stack.pop()
            parts: list[tuple[Any, frozenset[str]]] = []
            if isinstance(node, dict):
                self._visit(node, scope)
                below = node
                if "cte_map" in node:
                    parts, scope = _ctes(node["cte_map"], scope)
                    below = {key: value for key, value in node.items() if key != "cte_map"}
                node = below.values()
            # Most of a tree is names and numbers.
            stack.extend([(item, scope) for item in reversed(node) if isinstance(item, (dict, list))])
            stack.extend(reversed(parts))
        return self._found

    def _visit(self, node: dict[str, Any], scope: frozenset[str]) -> None:
        class_, type_ = node.get("class"), node.get("type")
        if class_ is None:
            if isinstance(type_, str) and "_TYPE_INFO" not in type_:
                self._visit_part(node, type_, scope)
            sample = node.get("sample")
            if sample is not None and sample.get("seed", -1) == -1:
                self._found.volatile["a sample without a seed"] = None
        elif class_ in ("FUNCTION", "WINDOW"):
            self._call(node, as_table=False)
        elif class_ == "OPERATOR" and type_ in _EXTRACTING:
            self._see_arguments(node.get("children", ()))
        elif class_ == "PARAMETER":
            self._refuse("the SQL has parameters ($1 or ?)", self._offset(node), "write the values")
        elif class_ == "COLUMN_REF":
            names = node.get("column_names", [])
            if len(names) == 1 and names[0].lower() in VOLATILE_WORDS:
                self._found.volatile[names[0].lower()] = None

    def _visit_part(self, node: dict[str, Any], type_: str, scope: frozenset[str]) -> None:
        if type_ not in _READING:
            what = type_.removesuffix("_NODE").removesuffix("_QUERY").replace("_", " ")
            self._refuse(f"{what} is not allowed: a node's SQL only reads", self._find(what.split()[0]), "")
        elif type_ == "BASE_TABLE":
            parts = tuple(node["qualified_name"]["path"])
            is_cte = parts[-1].lower() in scope and (len(parts) == 1 or parts[0].lower() == "recurring")
            if not is_cte:
                self._found.tables.append(TableName(parts, self._offset(node), "alias" in node))
        elif type_ == "TABLE_FUNCTION":
            self._call(node["function"], as_table=True)
        elif type_ == "SHOW_REF":
            self._found.needs_types = True
            if "query" not in node:
                self._refuse("SHOW is not allowed: it lists what is there, not a node's inputs", self._find("show"), "")

    def _call(self, node: dict[str, Any], *, as_table: bool) -> None:
        path = node.get("qualified_name", {}).get("path") or [node.get("function_name", "")]
        name = str(path[-1]).lower()
        if name in self._own:
            return
        arguments = [argument.get("expression", argument) for argument in node.get("arguments", ())]
        if is_volatile(name, len(arguments)):
            self._found.volatile[name] = None
        if name in TYPE_FUNCTIONS:
            self._found.needs_types = True
        if name not in BUILDING_FUNCTIONS and node.get("class") == "FUNCTION":
            self._see_arguments(arguments)
        refused = why_refused(name, as_table=as_table)
        if refused:
            offset = self._offset(node)
            self._refuse(refused[0], self._find(name) if offset is None else offset, refused[1])

    def _see_arguments(self, arguments: Iterable[Any]) -> None:
        if any(_may_be_constant_null(argument) for argument in arguments):
            self._found.needs_types = True

    def _refuse(self, message: str, offset: int | None, hint: str) -> None:
        if all(problem.message != message for problem in self._found.problems):
            self._found.problems.append(SqlProblem(message, offset, hint))

    def _offset(self, node: dict[str, Any]) -> int | None:
        position = node.get("query_location")
        return None if position is None else character_offset(self._text, position)

    def _find(self, word: str) -> int | None:
        found = re.search(rf"\b{re.escape(word)}\b", self._text, re.IGNORECASE)
        return found.start() if found else None


def _may_be_constant_null(expression: Any) -> bool:
    """Say whether an expression may be NULL whatever the rows are, so that DuckDB can know it while binding."""
    return not _depends_on_rows(expression) and not _is_never_null(expression)


def _depends_on_rows(expression: Any) -> bool:
    stack = [expression]
    while stack:
        node = stack.pop()
        if isinstance(node, dict):
            if node.get("class") in _DEPENDING_ON_ROWS:
                return True
            stack.extend(node.values())
        elif isinstance(node, list):
            stack.extend(node)
    return False


def _is_never_null(expression: Any) -> bool:
    class_ = expression.get("class")
    if class_ == "CONSTANT":
        return bool(expression.get("literal", {}).get("kind", "NULL_LITERAL") != "NULL_LITERAL")
    if class_ == "CAST":
        return not expression.get("try_cast") and _is_never_null(expression["child"])
    if class_ != "FUNCTION":
        return False
    name = str(expression.get("function_name", "")).lower()
    if name in BUILDING_FUNCTIONS or name in VOLATILE_FUNCTIONS:
        return True
    arguments = [argument.get("expression", argument) for argument in expression.get("arguments", ())]
    return name in NEVER_NULL_FUNCTIONS and all(map(_is_never_null, arguments))


def _ctes(cte_map: dict[str, Any], scope: frozenset[str]) -> tuple[list[tuple[Any, frozenset[str]]], frozenset[str]]:
    """The queries of a WITH clause, each with the names that it sees; and the names that the query below it sees."""
    parts = []
    for entry in cte_map.get("map", ()):
        name, value = entry["key"].lower(), entry["value"]
        is_recursive = value.get("query_node", {}).get("type") == "RECURSIVE_CTE_NODE"
        parts.append((value, scope | {name} if is_recursive else scope))
        scope |= {name}
    return parts, scope


def outline(
    pieces: Sequence[Token], known: Collection[str], own: Collection[str] = (), positions: Collection[str] = ()
) -> Syntax:
    """Read a query off its tokens. ``known`` are the ids of all nodes, in lower case; offsets are the tokens' own.

    ``positions`` are names of inputs beside ``input_0`` and the like.
    """
    found = Syntax(exact=False)
    padded = [None, *pieces, None, None]
    in_catalog: Token | None = None
    for before, piece, after, last in zip(padded, pieces, padded[2:], padded[3:], strict=False):
        name = piece.name
        if not name:
            continue
        dotted = before is not None and before.text == "."
        leads = after is not None and after.text == "." and last is not None and last.name
        called = after is not None and after.text == "("
        if leads and f"{name}.{leads}" in known:
            found.tables.append(TableName((name, leads), piece.start))
        elif leads and name in _CATALOG_SCHEMAS:
            found.problems.append(_catalog(f"{name}.{leads}", piece.start))
            in_catalog = last
        elif not (leads or dotted or name in own) and (name in positions or POSITIONAL.fullmatch(name)):
            found.tables.append(TableName((name,), piece.start))
        elif not leads and not called and before is not None and _CATALOG_VIEW.fullmatch(name):
            if piece is not in_catalog and (dotted or before.text == "," or before.name in _BEFORE_A_TABLE):
                found.problems.append(_catalog(name, piece.start))
        elif before is not None and before.text == "(" and name in _WRITING_WORDS and not called:
            found.problems.append(SqlProblem(f"{name.upper()} is not allowed: a node's SQL only reads", piece.start))
        if name in own:
            continue
        refused = why_refused(name, as_table=None) if called else None
        if refused:
            found.problems.append(SqlProblem(refused[0], piece.start, refused[1]))
        if (name in VOLATILE_WORDS and not dotted) or (called and is_volatile(name, 1)):
            found.volatile[name] = None
    return found


def _catalog(name: str, offset: int) -> SqlProblem:
    return SqlProblem(f"'{name}' is DuckDB's catalog, and a node reads nodes", offset)
