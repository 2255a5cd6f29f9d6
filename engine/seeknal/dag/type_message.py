"""What msgspec says about a value of the wrong type, in the words that people who write YAML use."""

from __future__ import annotations

import re

from seeknal.late_pattern import late_pattern

_WORDS = {
    "str": "text",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "null": "nothing",
    "array": "a list",
    "object": "a mapping",
}
_TYPES = late_pattern(r"`([^`]*)`")
_UNKNOWN = late_pattern(r"Object contains unknown field `(.*)`", re.DOTALL)
_PLACE = late_pattern(r" - at `(?:key in )?\$(.*)`")
_STEP = late_pattern(r"\.([^.\[\]]+)|\[(\d+|\.\.\.)\]")


def in_words(message: str) -> tuple[str, tuple[str | int, ...]]:
    """Turn ``Expected `str`, got `int` - at `$.params[0]``` into ``expected text, got a whole number`` and the path."""
    path: list[str | int] = []
    place = _PLACE.search(message)
    if place:
        message = message[: place.start()]
        for key, index in _STEP.findall(place[1]):
            if key:
                path.append(key)
            elif index.isdigit():
                path.append(int(index))
    unknown = _UNKNOWN.fullmatch(message)
    if unknown:
        return f"unknown field '{unknown[1]}'", tuple(path)
    message = _TYPES.sub(_said, message)
    return f"{message[:1].lower()}{message[1:]}", tuple(path)


def _said(types: re.Match[str]) -> str:
    return " or ".join(_WORDS.get(type_, type_) for type_ in types[1].split(" | "))
