"""Where the characters of a YAML text stand in its file.

YAML writes a text in five styles: plain, ``'…'``, ``"…"``, ``|`` and ``>``. It folds lines, drops indentation and
replaces escapes, so a text's third line is not the third line of what stands in the file. But what is no white space
stands in both in the same order; so the two are read side by side.
"""

from __future__ import annotations

import re

from seeknal.late_pattern import late_pattern

_BREAK = late_pattern("\r\n|[\n\r\x85\u2028\u2029]")
_ESCAPE = late_pattern(r"\\(?:x([0-9A-Fa-f]{2})|u([0-9A-Fa-f]{4})|U([0-9A-Fa-f]{8})|(.))", re.DOTALL)
_SHORT = {"0": "\0", "a": "\a", "b": "\b", "e": "\x1b", "v": "\v", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
_SPACES = {"N": "\x85", "_": "\xa0", "L": "\u2028", "P": "\u2029"}


def find_character(source: str, start: int, end: int, style: str | None, text: str, offset: int) -> int:
    """Find the character ``text[offset]`` in ``source[start:end]``, which is how YAML wrote the text in ``style``.

    Gives its index in the source. White space, and the end of the text, count as standing right behind the character
    before them; where the two cannot be matched, the answer is ``start``.
    """
    position = start
    if style in ("|", ">"):
        header = _BREAK.search(source, start, end)
        position = header.end() if header else end
    elif style in ("'", '"'):
        position += 1
    behind = position
    for index, character in enumerate(text[: offset + 1]):
        if character.isspace():
            continue
        position = _skip_space(source, position, end, style)
        found, length = _read(source, position, style)
        if found != character or position >= end:
            return start
        if index == offset:
            return position
        position = behind = position + length
    # White space as far as it is the same in both, for a gap of several characters.
    gap = text[:offset]
    for _ in range(len(gap) - len(gap.rstrip())):
        if source[behind : behind + 1] != " " or behind >= end:
            break
        behind += 1
    return behind


def _skip_space(source: str, position: int, end: int, style: str | None) -> int:
    while position < end:
        character, length = _read(source, position, style)
        if character and not character.isspace():
            break
        position += length
    return position


def _read(source: str, position: int, style: str | None) -> tuple[str, int]:
    """The character that stands at a position and how many it takes there; no character where lines are joined."""
    character = source[position : position + 1]
    if style == "'" and character == "'":
        return "'", 2
    if style != '"' or character != "\\":
        return character, max(len(character), 1)
    escape = _ESCAPE.match(source, position)
    if escape is None:
        return character, 1
    code = escape[1] or escape[2] or escape[3]
    if code:
        return chr(int(code, 16)), len(escape[0])
    if _BREAK.match(escape[4]):
        return "", len(escape[0])
    return _SHORT.get(escape[4]) or _SPACES.get(escape[4]) or escape[4], len(escape[0])
