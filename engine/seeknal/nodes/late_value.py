"""Late values: texts that name environment variables and are resolved where they are used, never before.

What is written (``{{ env:API_TOKEN }}``, ``{{ env:HOST|localhost }}``, or plain ``env:API_TOKEN`` for a whole value) is
what manifest, plans and logs hold. The value itself lives from the moment it is used to the end of that use, and no
message repeats it (:mod:`seeknal.redaction`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec

from seeknal.redaction import hide_variables

_REFERENCE = re.compile(r"\{\{\s*env:\s*([A-Za-z_]\w*)\s*(?:\|([^{}]*?))?\s*\}\}")
_PLAIN = re.compile(r"env:([A-Za-z_]\w*)")


class UnsetVariableError(Exception):
    """A late value names an environment variable that is not set."""

    def __init__(self, name: str) -> None:
        super().__init__(f"environment variable '{name}' is not set")
        self.name = name


class LateValues(msgspec.Struct, frozen=True):
    """Resolves texts against an environment; what it resolves is hidden from then on."""

    environment: Mapping[str, str]

    def resolve(self, text: str) -> str:
        """Give the text with every reference replaced. Raises UnsetVariableError."""
        plain = _PLAIN.fullmatch(text.strip())
        if plain:
            return self._value(plain[1], None)
        return _REFERENCE.sub(lambda match: self._value(match[1], match[2]), text)

    def _value(self, name: str, default: str | None) -> str:
        hide_variables([name], self.environment)
        value = self.environment.get(name, default)
        if value is None:
            raise UnsetVariableError(name)
        return value


def is_late(text: str) -> bool:
    """Say whether a text names an environment variable."""
    return bool(_PLAIN.fullmatch(text.strip()) or _REFERENCE.search(text))
