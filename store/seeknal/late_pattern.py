"""Regular expressions that are compiled when they are first used: a command imports many times as many as it needs."""

from __future__ import annotations

import re
from typing import Any, AnyStr, cast


class LatePattern:
    """Has what the ``re.Pattern`` of its text has."""

    def __init__(self, text: str | bytes, flags: int) -> None:
        self._text = text
        self._flags = flags

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            # What copies or pickles it asks for such names before it has a text.
            raise AttributeError(name)
        found = getattr(re.compile(self._text, self._flags), name)
        # From now on it is found without coming here.
        setattr(self, name, found)
        return found


def late_pattern(text: AnyStr, flags: int = 0) -> re.Pattern[AnyStr]:
    """As ``re.compile``; what is wrong with the text is told where it is first used."""
    return cast("re.Pattern[AnyStr]", LatePattern(text, flags))
