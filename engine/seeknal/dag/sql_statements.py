"""The statements of a SQL text by their tokens: where each ends, what it creates, which nodes it calls by ``ref()``.

Tokens know nothing of what DuckDB thinks of the text, so this holds for one that does not parse as well.
"""

from __future__ import annotations

from collections.abc import Sequence

from seeknal.dag.tokens import Token
from seeknal.late_pattern import late_pattern

# What CREATE TEMP may make. (A secret may be temporary too; it is not in the list.)
_TEMPORARY_THINGS = frozenset({"table", "view", "macro", "function", "type", "sequence", "recursive"})

_REF_TEMPLATE = late_pattern(r"""\{\{ ref\s*\(\s*(?P<quote>['"])(?P<target>[^'"]*)(?P=quote)\s*\) \}\}""")


def ref_calls(pieces: Sequence[Token]) -> list[tuple[int, int, str]]:
    """Every ``ref('…')`` and ``{{ ref('…') }}``: start, end and what is in the quotes."""
    found = []
    for index, piece in enumerate(pieces):
        if piece.kind == "template":
            match = _REF_TEMPLATE.fullmatch(piece.text)
            if match:
                found.append((piece.start, piece.end, match["target"]))
        elif piece.kind == "word" and piece.text == "ref" and (index == 0 or pieces[index - 1].text != "."):
            call = pieces[index + 1 : index + 4]
            texts = [token.text for token in call]
            if len(texts) == 3 and texts[0] == "(" and texts[2] == ")" and texts[1][0] in "'\"":
                found.append((piece.start, call[2].end, texts[1][1:-1]))
    return found


def split_statements(pieces: Sequence[Token]) -> list[list[Token]]:
    """The tokens of each statement, without semicolons."""
    parts: list[list[Token]] = [[]]
    for piece in pieces:
        if piece.text == ";" and piece.kind == "other":
            parts.append([])
        else:
            parts[-1].append(piece)
    return [part for part in parts if part]


def is_temporary(part: Sequence[Token]) -> bool:
    """Say whether a CREATE makes something that ends with its connection."""
    words = [piece.name for piece in part[:6]]
    if words[1:3] == ["or", "replace"]:
        del words[1:3]
    return len(words) > 2 and words[1] in ("temp", "temporary") and words[2] in _TEMPORARY_THINGS


def created(part: Sequence[Token]) -> tuple[str, str, int | None]:
    """What a CREATE TEMP makes (table, view, …), its name in lower case, and the index of the token after its AS."""
    index = next(i for i, piece in enumerate(part) if piece.name in ("temp", "temporary")) + 1
    thing = part[index].name
    index += 2 if thing == "recursive" else 1
    while index < len(part) and part[index].name in ("if", "not", "exists"):
        index += 1
    while index + 2 < len(part) and part[index + 1].text == ".":
        index += 2
    name = part[index].name if index < len(part) else ""
    depth = 0
    for i in range(index + 1, len(part)):
        text = part[i].text
        depth += (text == "(") - (text == ")")
        if depth == 0 and part[i].name == "as":
            return ("macro" if thing == "function" else thing), name, i + 1
    return thing, name, None


def without_data_clause(part: Sequence[Token]) -> int:
    """How many tokens of a CREATE TABLE stand before its ``WITH [NO] DATA``."""
    words = [piece.name for piece in part[-3:]]
    if words == ["with", "no", "data"]:
        return len(part) - 3
    return len(part) - 2 if words[1:] == ["with", "data"] else len(part)
