"""The canonical form of SQL: one text for all ways of laying out, commenting and capitalising the same query.

- *canonical form*: the tokens (:mod:`seeknal.dag.tokens`) in order, keywords in upper case, one space between two
  tokens; without comments and without a semicolon at the end.

The form is a query itself and parses to the same tree as the text that it was made of. So two queries that share a
form are the same query; the reverse is not promised, and identifiers, strings and numbers are never touched.
"""

from __future__ import annotations

from collections.abc import Sequence

from seeknal.dag.names import RESERVED_SQL_WORDS
from seeknal.dag.tokens import Token, tokens

# Words that DuckDB does not reserve, and yet never takes for a column, a table or an alias without AS.
_JOINS = "anti asof cross full inner join left natural outer positional right semi"
_COMPARISONS = "glob ilike is isnull like notnull similar"
SQL_WORDS = RESERVED_SQL_WORDS.union(_JOINS.split(), _COMPARISONS.split(), ("by", "tablesample"))


def canonical_sql(sql: str) -> str:
    """Give the canonical form of a query, or of any text: what is no SQL still gets a form of its own.

    Only words that DuckDB cannot take for a name where they stand are put in upper case. Words such as ``over`` or
    ``between`` may be columns and stay as they are written, and so does any word after ``AS`` or a dot.
    """
    return canonical_of(tokens(sql))


def canonical_of(found: Sequence[Token]) -> str:
    """Give the canonical form of a query that was cut into tokens already."""
    pieces: list[str] = []
    for index, token in enumerate(found):
        before = found[index - 1] if index else None
        after = found[index + 1] if index + 1 < len(found) else None
        if before:
            pieces.append(token.before)
        pieces.append(token.text.upper() if _is_keyword(token, before, after) else token.text)
    return "".join(pieces)


def _is_keyword(token: Token, before: Token | None, after: Token | None) -> bool:
    """Say whether a token is a keyword for certain.

    Any word may be a name after ``AS``, ``::``, a dot or ``$``, and before ``:=`` or ``=>``; one that touches a
    template may be half of a name. Elsewhere DuckDB's grammar admits none of these words as a name, save that of
    a type (``like 'x'``), which no query can see.
    """
    if token.kind != "word" or not token.text.isascii() or token.text.lower() not in SQL_WORDS:
        return False
    if before and (before.text.endswith((".", "$", "::")) or before.text.lower() == "as" or not token.before):
        return False
    return not (after and (after.text.startswith((":=", "=>")) or not after.before))
