"""The canonical form of SQL: one text for all ways of laying out, commenting and capitalising the same query.

- *token*: what DuckDB's own tokenizer sees, so that strings, nested comments and dollar quotes are cut as DuckDB
  cuts them. A ``{{ … }}`` outside of strings and comments is one token, because it is text until it is resolved.
- *canonical form*: the tokens in order, keywords in upper case, one space between two tokens; without comments and
  without a semicolon at the end.

The form is a query itself and parses to the same tree as the text that it was made of. So two queries that share a
form are the same query; the reverse is not promised, and identifiers, strings and numbers are never touched.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from seeknal.dag.names import RESERVED_SQL_WORDS

# Words that DuckDB does not reserve, and yet never takes for a column, a table or an alias without AS.
_JOINS = "anti asof cross full inner join left natural outer positional right semi"
_COMPARISONS = "glob ilike is isnull like notnull similar"
_KEYWORDS = RESERVED_SQL_WORDS.union(_JOINS.split(), _COMPARISONS.split(), ("by", "tablesample"))

_BLANKS = b" \t\n\r\f\v"
_BLOCK_COMMENT = b"*"


class Token(NamedTuple):
    """One token of a query.

    ``kind``: a ``word`` is a keyword or an identifier without quotes. ``before`` is what has to stand between the
    token and the one before it: a space; nothing where a template and a word touch; a newline where two strings on
    two lines make one string.
    """

    text: str
    kind: Literal["word", "string", "template", "other"]
    before: Literal[" ", "", "\n"] = " "


def canonical_sql(sql: str) -> str:
    """Give the canonical form of a query, or of any text: what is no SQL still gets a form of its own.

    Only words that DuckDB cannot take for a name where they stand are put in upper case. Words such as ``over`` or
    ``between`` may be columns and stay as they are written, and so does any word after ``AS`` or a dot.
    """
    found = tokens(sql)
    pieces: list[str] = []
    for index, token in enumerate(found):
        before = found[index - 1] if index else None
        after = found[index + 1] if index + 1 < len(found) else None
        if before:
            pieces.append(token.before)
        pieces.append(token.text.upper() if _is_keyword(token, before, after) else token.text)
    return "".join(pieces)


def tokens(sql: str) -> list[Token]:
    """Cut a query into its tokens; comments, and semicolons at the end, are left out."""
    import duckdb

    source = sql.encode()
    found: list[Token] = []
    gap = b" "
    start = 0
    while start < len(source):
        cuts = duckdb.tokenize(source[start:].decode())
        if not cuts:
            break
        begins = [start + offset for offset, _ in cuts]
        ends = [*begins[1:], len(source)]
        if any(begin >= end for begin, end in zip(begins, ends, strict=True)):
            # The tokenizer gave up: this is no SQL, and its text is all there is to say about it.
            return [*found, Token(source[start:].decode().strip(), "other")]
        gap += source[start : begins[0]]
        start = len(source)
        for begin, end, (_, cut) in zip(begins, ends, cuts, strict=True):
            close = source.find(b"}}", begin + 2) if source.startswith(b"{{", begin) else -1
            if close >= 0:
                inside = source[begin + 2 : close].decode().strip()
                _append(found, Token(f"{{{{ {inside} }}}}", "template"), gap)
                # The tokenizer has read the template as SQL; what follows has to be cut again.
                gap, start = b"", close + 2
                break
            text = source[begin:end].rstrip(_BLANKS)
            if cut == duckdb.token_type.comment and _is_closed(text):
                gap += source[begin:end] if text.startswith(b"--") else _BLOCK_COMMENT
                continue
            kind: Literal["word", "string", "other"] = "other"
            if cut == duckdb.token_type.string_const:
                kind = "string"
            elif cut in (duckdb.token_type.identifier, duckdb.token_type.keyword) and text[:1] not in b'"`':
                kind = "word"
            _append(found, Token(text.decode(), kind), gap)
            gap = source[begin + len(text) : end]
    while found and found[-1].text == ";":
        found.pop()
    return found


def _append(found: list[Token], token: Token, gap: bytes) -> None:
    """Add a token; ``gap`` is the text since the token before, block comments in it written as one ``*``."""
    if found:
        last = found[-1]
        if not gap and "template" in (last.kind, token.kind) and _sticks(last.text[-1]) and _sticks(token.text[0]):
            token = token._replace(before="")
        elif last.kind == token.kind == "string" and _BLOCK_COMMENT not in gap and (b"\n" in gap or b"\r" in gap):
            token = token._replace(before="\n")
    found.append(token)


def _sticks(character: str) -> bool:
    return character.isalnum() or character in "_{}$.'\"" or not character.isascii()


def _is_closed(comment: bytes) -> bool:
    """Say whether a comment ends where it seems to. One without an end is an error of syntax and has to be seen."""
    return comment.startswith(b"--") or comment.count(b"/*") == comment.count(b"*/")


def _is_keyword(token: Token, before: Token | None, after: Token | None) -> bool:
    """Say whether a token is a keyword for certain.

    Any word may be a name after ``AS``, ``::``, a dot or ``$``, and before ``:=`` or ``=>``; one that touches a
    template may be half of a name. Elsewhere DuckDB's grammar admits none of these words as a name, save that of
    a type (``like 'x'``), which no query can see.
    """
    if token.kind != "word" or not token.text.isascii() or token.text.lower() not in _KEYWORDS:
        return False
    if before and (before.text.endswith((".", "$", "::")) or before.text.lower() == "as" or not token.before):
        return False
    return not (after and (after.text.startswith((":=", "=>")) or not after.before))
