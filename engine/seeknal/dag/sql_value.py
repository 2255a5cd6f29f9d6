"""What a template's value may be in SQL, by where it stands.

Inside quotes a value is text, and cannot end them. Outside of quotes it stands for one thing: a number, a truth value,
a date, a name. A text of the project's author (*trusted*) may be any SQL there; one from the command line or the
environment may not. Lists are their elements with commas between them.

    WHERE region = '{{ region }}'          in quotes: O'Hara becomes O''Hara
    WHERE region = {{ region|literal }}    the same, with the quotes made here
    ORDER BY {{ column }}                  a name, when it is one
    ORDER BY {{ column|identifier }}       a name, whatever it is
    WHERE day >= {{ today }}               DATE '2024-01-31'
    WHERE region IN ({{ regions }})        'EU', 'US'
"""

from __future__ import annotations

import math
import re
from datetime import date, datetime
from typing import Any

from seeknal.dag.canonical import SQL_WORDS
from seeknal.dag.sql import literal, quoted
from seeknal.dag.template import Found, SqlText, TemplateError
from seeknal.dag.tokens import Token

_NUMBER = re.compile(r"-?\d+(\.\d+)?([eE][+-]?\d+)?")
_NAMES = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", re.ASCII)
_WORD = re.compile(r"\w+", re.ASCII)
_DAY = re.compile(r"\d{4}-\d\d-\d\d")
_MOMENT = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d{1,6})?)?")
# What `'{{ names|join("','") }}'` would make.
_SEVERAL = re.compile(r"'\s*,\s*'")
_CONSTANTS = frozenset({"true", "false"})


def in_sql(value: Any, found: Found, text: str, token: Token | None, *, trusted: bool) -> str:
    """Give a value the form that the place of its template allows; ``token`` is the one that it stands in.

    Raises TemplateError.
    """
    name = found.expression.strip()
    if token is not None and token.kind == "string":
        return _in_quotes(value, name, token.text)
    if token is not None and token.kind == "other" and token.text.startswith('"'):
        return _plain(value, name).replace('"', '""')
    if isinstance(value, SqlText) or (isinstance(value, str) and trusted and not _is_moment(value)):
        return str(value)
    before, after = text[: found.start][-2:], text[found.end : found.end + 2]
    if _touches(before[-1:]) or _touches(after[:1]) or before == "}}" or after == "{{":
        return _part_of_a_word(value, name, before[-1:], after[:1])
    form = _on_its_own(value, name)
    # Two minus signs begin a comment.
    return f"({form})" if form.startswith("-") and before.endswith("-") else form


def as_literals(value: Any) -> SqlText:
    """The filter ``literal``: a text as a string of SQL, a list as several."""
    values = value if isinstance(value, list | tuple) else [value]
    return SqlText(", ".join(_literal(item) for item in values))


def as_identifiers(value: Any) -> SqlText:
    """The filter ``identifier``: a text as a quoted name, a list as several."""
    values = value if isinstance(value, list | tuple) else [value]
    for item in values:
        if not isinstance(item, str) or not item or "\0" in item:
            raise TemplateError(f"{item!r} is not a name")
    return SqlText(", ".join(quoted(item) for item in values))


def _literal(value: Any) -> str:
    if isinstance(value, str):
        _refuse_nul(value, "literal")
        return literal(value)
    return _on_its_own(value, "literal")


def _in_quotes(value: Any, name: str, quote: str) -> str:
    text = _plain(value, name)
    if _SEVERAL.search(text):
        raise TemplateError(
            f"{{{{ {name} }}}} holds quotes around a comma, and in quotes it is one text: {_shown(text, name)}",
            "for several texts write IN ({{ names|literal }}), without quotes around it and without join",
        )
    if quote.startswith("'"):
        return text.replace("'", "''")
    if quote[:2].lower() == "e'":
        return text.replace("\\", "\\\\").replace("'", "''")
    if quote.startswith("$") and "$" not in text:
        return text
    if re.fullmatch(r"[\w .,:/-]*", text):
        return text
    raise TemplateError(
        f"the value of {{{{ {name} }}}} cannot stand in this kind of string: {_shown(text, name)}",
        "use plain quotes: '…'",
    )


def _plain(value: Any, name: str) -> str:
    """A value as text between quotes."""
    text = as_text(value, name)
    _refuse_nul(text, name)
    return text


def as_text(value: Any, name: str) -> str:
    """A single value as text: true and false as SQL and JSON write them. Raises TemplateError."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str | int | float):
        return str(value)
    if isinstance(value, date | datetime):
        return value.isoformat()
    if value is None:
        raise TemplateError(f"{{{{ {name} }}}} has no value (null)")
    kind = (
        "a list" if isinstance(value, list | tuple) else "a mapping" if isinstance(value, dict) else "no single value"
    )
    raise TemplateError(f"{{{{ {name} }}}} is {kind}, and a text needs a single value")


def _part_of_a_word(value: Any, name: str, before: str, after: str) -> str:
    """A value that touches a word: part of a name, as in ``orders_{{ region }}``."""
    text = as_text(value, name)
    if _WORD.fullmatch(text) and not {before, after} & {"'", '"', "$"}:
        return text
    raise TemplateError(
        f"{{{{ {name} }}}} touches what stands beside it, and its value is no part of a name: {_shown(text, name)}",
        "only letters, digits and '_' can be part of a name",
    )


def _on_its_own(value: Any, name: str) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and not math.isfinite(value):
        raise TemplateError(f"{{{{ {name} }}}} is {value}, which is no number in SQL")
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, datetime):
        return f"TIMESTAMP '{value.isoformat()}'"
    if isinstance(value, date):
        return f"DATE '{value.isoformat()}'"
    if isinstance(value, list | tuple):
        if not value:
            raise TemplateError(f"{{{{ {name} }}}} is an empty list")
        return ", ".join(_literal(item) for item in value)
    if isinstance(value, str):
        return _text_on_its_own(value, name)
    raise TemplateError(f"{{{{ {name} }}}} is a mapping, and SQL needs a value", f"name one of its values: {name}.KEY")


def _text_on_its_own(text: str, name: str) -> str:
    if _DAY.fullmatch(text) and _is_moment(text):
        return f"DATE '{text}'"
    if _is_moment(text):
        return f"TIMESTAMP '{text}'"
    if _NUMBER.fullmatch(text) or text.lower() in _CONSTANTS:
        return text
    if _NAMES.fullmatch(text) and not SQL_WORDS.intersection(text.lower().split(".")):
        return text
    raise TemplateError(
        f"the value of {{{{ {name} }}}} is not the project's own, and outside of quotes it may only be a number, "
        f"a truth value, a date or a name: {_shown(text, name)}",
        f"as text write '{{{{ {name} }}}}' or {{{{ {name}|literal }}}}, as a name {{{{ {name}|identifier }}}}",
    )


def _is_moment(text: str) -> bool:
    if not _DAY.fullmatch(text) and not _MOMENT.fullmatch(text):
        return False
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return True


def _touches(character: str) -> bool:
    return bool(character) and (character.isalnum() or character in "_$'\"")


def _refuse_nul(text: str, name: str) -> None:
    if "\0" in text:
        raise TemplateError(f"{{{{ {name} }}}} holds the character U+0000")


def _shown(text: str, name: str) -> str:
    if name.startswith("env:"):
        # It may be a secret, and messages are kept.
        return "(not shown)"
    return repr(text if len(text) <= 60 else text[:59] + "…")
