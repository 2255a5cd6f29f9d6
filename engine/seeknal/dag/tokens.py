"""The tokens of SQL: what DuckDB's own tokenizer sees, without comments and without semicolons at the end.

- *token*: strings, nested comments and dollar quotes are cut as DuckDB cuts them. A ``{{ … }}`` outside of strings and
  comments is one token, because it is text until it is resolved.
- *offset*: characters, not bytes, from the start of the text.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from seeknal.late_pattern import late_pattern

_BLANKS = b" \t\n\r\f\v"
_BLOCK_COMMENT = b"*"
_COMMENT_MARK = late_pattern(rb"/\*|\*/")

# A template: no brace closes in it that it did not open, save in quotes. So DuckDB's ``MAP {{'a': 1}: 2}`` is none.
TEMPLATE_PATTERN = r"""\{\{(?:\s*env:[^{}]*+|(?:[^{}'"]|'[^']*'|"[^"]*"|\{[^{}]*\})*+)\}\}"""
_TEMPLATE = late_pattern(TEMPLATE_PATTERN.encode())


class Token(msgspec.Struct, frozen=True):
    """One token.

    ``kind``: a ``word`` is a keyword or an identifier without quotes. ``before`` is what has to stand between the
    token and the one before it: a space; nothing where a template and a word touch; a newline where two strings on
    two lines make one string. ``start`` and ``end`` are offsets.
    """

    text: str
    kind: Literal["word", "string", "template", "other"]
    before: Literal[" ", "", "\n"] = " "
    start: int = 0
    end: int = 0

    @property
    def said(self) -> tuple[str, str, str]:
        """What it says, wherever it stands."""
        return self.text, self.kind, self.before

    @property
    def name(self) -> str:
        """The name that the token is as an identifier, in lower case; the empty text where it is none."""
        if self.kind == "word":
            return self.text.lower()
        if self.text.startswith('"') and self.text.endswith('"') and len(self.text) > 2:
            return self.text[1:-1].replace('""', '"').lower()
        return ""


def tokens(sql: str) -> list[Token]:
    """Cut a query into its tokens; leave out comments, and semicolons at the end."""
    import duckdb

    # Looked up once: the loop below is what a query's tokens cost.
    comment, string = duckdb.token_type.comment, duckdb.token_type.string_const
    words = (duckdb.token_type.identifier, duckdb.token_type.keyword)
    source = sql.encode(errors="replace")
    found: list[Token] = []
    gap = b" "
    start = 0
    counted_bytes = counted = 0
    is_ascii = sql.isascii()

    def characters(position: int) -> int:
        # DuckDB counts bytes. Positions come in order, so each byte is decoded once.
        nonlocal counted_bytes, counted
        if is_ascii:
            return position
        counted += len(source[counted_bytes:position].decode(errors="ignore"))
        counted_bytes = position
        return counted

    while start < len(source):
        cuts = duckdb.tokenize(source[start:].decode())
        if not cuts:
            break
        begins = [start + offset for offset, _ in cuts]
        ends = [*begins[1:], len(source)]
        if any(begin >= end for begin, end in zip(begins, ends, strict=True)):
            # The tokenizer gave up: this is no SQL, and its text is all there is to say about it.
            return [*found, Token(source[start:].decode().strip(), "other", " ", characters(start), len(sql))]
        gap += source[start : begins[0]]
        start = len(source)
        for begin, end, (_, cut) in zip(begins, ends, cuts, strict=True):
            whole = _TEMPLATE.match(source, begin)
            if whole:
                inside = whole[0][2:-2].decode().strip()
                template = Token(f"{{{{ {inside} }}}}", "template", " ", characters(begin), characters(whole.end()))
                _append(found, template, gap)
                # The tokenizer has read the template as SQL; what follows has to be cut again.
                gap, start = b"", whole.end()
                break
            text = source[begin:end].rstrip(_BLANKS)
            if cut == comment and _is_closed(text):
                gap += b"\n" if text.startswith(b"--") else _BLOCK_COMMENT
                continue
            kind: Literal["word", "string", "other"] = "other"
            if cut == string:
                kind = "string"
            elif cut in words and text[:1] not in b'"`':
                kind = "word"
            _append(found, Token(text.decode(), kind, " ", characters(begin), characters(begin + len(text))), gap)
            gap = source[begin + len(text) : end]
    while found and found[-1].text == ";":
        found.pop()
    return found


_BRACKETS = {")": "(", "]": "[", "}": "{"}


def stray_bracket(sql: str) -> Token | None:
    """The first bracket that has no partner in a piece of SQL, which could lead out of what is put around the piece."""
    opened: list[Token] = []
    for token in tokens(sql):
        if token.text in _BRACKETS.values():
            opened.append(token)
        elif token.text in _BRACKETS:
            if not opened or opened[-1].text != _BRACKETS[token.text]:
                return token
            opened.pop()
    return opened[0] if opened else None


def _append(found: list[Token], token: Token, gap: bytes) -> None:
    """Add a token; ``gap`` is the text since the token before, block comments in it written as one ``*``."""
    if found:
        last = found[-1]
        if not gap and "template" in (last.kind, token.kind) and _sticks(last.text[-1]) and _sticks(token.text[0]):
            token = msgspec.structs.replace(token, before="")
        elif last.kind == token.kind == "string" and _BLOCK_COMMENT not in gap and (b"\n" in gap or b"\r" in gap):
            token = msgspec.structs.replace(token, before="\n")
    found.append(token)


def _sticks(character: str) -> bool:
    return character.isalnum() or character in "_{}$.'\"" or not character.isascii()


def _is_closed(comment: bytes) -> bool:
    """Say whether a comment ends where it seems to. One without an end is an error of syntax and has to be seen."""
    depth = sum(1 if mark == b"/*" else -1 for mark in _COMMENT_MARK.findall(comment))
    return comment.startswith(b"--") or depth == 0
