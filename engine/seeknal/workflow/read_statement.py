"""What may be asked of tables that can only be read: one statement that only reads.

A statement's type does not tell: DuckDB calls ``WITH x AS (COPY … TO 'file') FROM x`` a SELECT, and ``EXPLAIN ANALYZE``
executes what it explains. So the parser's tree of the statement is looked at.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from seeknal.dag.sql_problem import SqlProblem, engine_problem
from seeknal.dag.tokens import Token, tokens
from seeknal.errors import Place, SeeknalError

# The nodes of a query that reads. INSERT, UPDATE, DELETE and COPY inside WITH have nodes of their own.
_READING_NODES = frozenset({"SELECT_NODE", "SET_OPERATION_NODE", "RECURSIVE_CTE_NODE", "CTE_NODE"})
_PARSER_NODE = re.compile(r'"type":\s*"(\w+_NODE)"')
_COPY = re.compile(r"\bcopy\b", re.IGNORECASE)

# Words that ask about tables without naming them.
_CATALOG_WORD = re.compile(r"tables|information_schema|(?:duckdb|pg|pragma|sqlite)_\w+")
_LISTINGS = ({"show"}, {"describe"}, {"desc"})


@dataclass(frozen=True, slots=True)
class ReadStatement:
    """One statement that only reads, without its semicolon.

    ``is_plan``: it is an EXPLAIN. ``words``: everything in it that could be a table's name, lower case.
    """

    text: str
    is_plan: bool
    words: frozenset[str]

    @property
    def lists_tables(self) -> bool:
        """Whether it asks which tables there are, as ``SHOW TABLES`` does."""
        return self.words in _LISTINGS or any(_CATALOG_WORD.fullmatch(word) for word in self.words)


def read_statement(sql: str, connection: Any) -> ReadStatement:
    """Check a text with DuckDB's parser. Raises SeeknalError unless it is one statement that only reads."""
    import duckdb

    try:
        sql.encode()
    except UnicodeEncodeError:
        raise SeeknalError("the SQL is not valid Unicode text") from None
    pieces = tokens(sql)
    if not pieces:
        raise SeeknalError("the SQL is empty")
    text = sql[: pieces[-1].end]
    query, is_plan = _explained(text, pieces)
    try:
        found = connection.extract_statements(query)
    except duckdb.Error as error:
        raise sql_error(engine_problem(error, query), query, len(text) - len(query)) from error
    if len(found) != 1:
        raise SeeknalError(f"one statement at a time; here are {len(found)}")
    kind = found[0].type.name
    if kind not in ("SELECT", "MULTI"):
        raise SeeknalError(f"{kind} is refused: tables can only be read here", hint="write a SELECT")
    if not _only_reads(query, connection):
        raise SeeknalError(
            "a statement that writes is refused, also inside WITH: tables can only be read here",
            hint="a PIVOT may not hold the word copy" if kind == "MULTI" else "write a SELECT",
        )
    return ReadStatement(text, is_plan, _words(pieces))


def sql_error(problem: SqlProblem, text: str, start: int = 0) -> SeeknalError:
    """Make an error of a problem, at its place in the SQL; ``text`` begins ``start`` characters into its line."""
    hint = "only the project's tables can be read here" if "disabled by config" in problem.message else problem.hint
    return SeeknalError(problem.message, place=sql_place(problem, text, start), hint=hint)


def sql_place(problem: SqlProblem, text: str, start: int = 0) -> Place | None:
    """Where in the SQL a problem stands, None where that is not known."""
    if problem.offset is None:
        return None
    lines = text[: problem.offset].split("\n")
    return Place("SQL", len(lines), len(lines[-1]) + 1 + (start if len(lines) == 1 else 0))


def _only_reads(query: str, connection: Any) -> bool:
    serialized: str = connection.execute("SELECT json_serialize_sql(?)", [query]).fetchone()[0]
    nodes = set(_PARSER_NODE.findall(serialized))
    # The parser prints no tree of a PIVOT. There is nothing to insert into; COPY alone could do harm.
    return nodes <= _READING_NODES if nodes else not _COPY.search(query)


def _explained(text: str, pieces: list[Token]) -> tuple[str, bool]:
    """What an EXPLAIN explains, and whether it is one; any other text as it is."""
    words = [piece.text.lower() for piece in pieces]
    if words[0] != "explain":
        return text, False
    first = 2 if words[1:2] == ["analyze"] else 1
    if words[first : first + 2] in (["(", "analyze"], ["(", "format"]) and ")" in words[first:]:
        first = words.index(")", first) + 1
    return (text[pieces[first].start :], True) if first < len(pieces) else (text, False)


def _words(pieces: list[Token]) -> frozenset[str]:
    words: set[str] = set()
    for piece in pieces:
        if piece.kind == "string":
            # 'orders' may stand for a table, and query() takes SQL as a text.
            inner = re.findall(r"[\w.\-]+", piece.text.lower())
            words.update(inner, (word.rpartition(".")[2] for word in inner))
        else:
            words.add(piece.name)
    return frozenset(words)
