"""What is wrong with a SQL text, and where in it; and how DuckDB's errors become that.

- *offset*: characters from the start of the text.
"""

from __future__ import annotations

import json
import re

import msgspec
from msgspec.structs import replace

from seeknal.late_pattern import late_pattern

# How many of an error's further lines are worth showing: DuckDB lists all forty overloads of a function.
_MOST_HINT_LINES = 4

_QUOTED_NAME = late_pattern(r'"((?:[^"]|"")+)"')


class SqlProblem(msgspec.Struct, frozen=True):
    """What is wrong with a SQL text, and at which offset of it (None where that is not known).

    ``missing`` is the name of the node that does not exist, where that is the problem.
    """

    message: str
    offset: int | None = None
    hint: str = ""
    missing: str | None = None


def engine_problem(error: Exception, text: str, shift: int = 0) -> SqlProblem:
    """Read DuckDB's error about ``text``, which stood ``shift`` bytes into what was executed.

    It may come from a connection with ``errors_as_json`` or without.
    """
    head, brace, body = str(error).partition("{")
    if brace and '"exception_message"' in body:
        try:
            said = json.loads(brace + body)
        except json.JSONDecodeError:
            said = {"exception_message": body}
        message = str(said.get("exception_message", ""))
        position = str(said.get("position", ""))
        offset = character_offset(text, int(position) - shift) if position.isdigit() else None
    else:
        message, _, where = str(error).partition("\n\nLINE ")
        message = message.partition(": ")[2] or message
        offset = _caret_offset(text, where, shift)
    # Inputs are bound as views over values, which is nothing that the author of the query wrote.
    message = message.replace('Values list "', 'Table "')
    lines = [line.strip() for line in message.splitlines() if line.strip()] or [head.strip(": ")]
    if offset is None:
        offset = _named_in(lines[0], text)
    further = lines[1:]
    if len(further) > _MOST_HINT_LINES:
        further = [*further[: _MOST_HINT_LINES - 1], "…"]
    return SqlProblem(lines[0].rstrip("!"), offset, "; ".join(further).replace("Candidate bindings: ", "candidates: "))


def shifted(problem: SqlProblem, by: int) -> SqlProblem:
    """The same problem in a text that has ``by`` more characters before it."""
    return problem if problem.offset is None else replace(problem, offset=problem.offset + by)


def character_offset(text: str, position: int) -> int | None:
    """Turn a position in the text's bytes into an offset; None where it lies outside."""
    if text.isascii():
        return position if 0 <= position <= len(text) else None
    data = text.encode(errors="replace")
    return len(data[:position].decode(errors="ignore")) if 0 <= position <= len(data) else None


def _named_in(message: str, text: str) -> int | None:
    """Where the first name that the message quotes stands in the text: some errors come without a position."""
    quoted = _QUOTED_NAME.search(message)
    if quoted is None:
        return None
    name = quoted[1].replace('""', '"')
    found = re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text, re.IGNORECASE)
    return found.start() if found else None


def _caret_offset(text: str, where: str, shift: int) -> int | None:
    first, _, rest = where.partition("\n")
    number, _, shown = first.partition(": ")
    caret = rest.find("^")
    if not number.isdigit() or caret < 0 or "..." in shown:
        return None
    column = caret - len(f"LINE {number}: ")
    lines = text.split("\n")
    line = int(number) - 1
    if line == 0:
        column -= shift
    if line >= len(lines) or column < 0:
        return None
    return sum(len(previous) + 1 for previous in lines[:line]) + min(column, len(lines[line]))
