"""Late values: texts that name environment variables and are resolved where they are used, never before.

What is written (``{{ env:API_TOKEN }}``, ``{{ env:HOST|localhost }}``, or plain ``env:API_TOKEN`` for a whole value) is
what manifest, plans and logs hold. The value itself lives from the moment it is used to the end of that use.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlsplit

_REFERENCE = re.compile(r"\{\{\s*env:\s*([A-Za-z_]\w*)\s*(?:\|([^{}]*?))?\s*\}\}")
_PLAIN = re.compile(r"env:([A-Za-z_]\w*)")

#: What stands in a message in place of a value.
MASK = "***"

#: Shorter values are not masked: they keep no secret, and would garble what a message says.
SHORTEST_SECRET = 4


#: Shorter parts of a path are words like "services".
SHORTEST_PART = 9


class UnsetVariableError(Exception):
    """A late value names an environment variable that is not set."""

    def __init__(self, name: str) -> None:
        super().__init__(f"environment variable '{name}' is not set")
        self.name = name


@dataclass
class LateValues:
    """Resolves texts against an environment, and remembers what must not be shown."""

    environment: Mapping[str, str]

    def __post_init__(self) -> None:
        self._secrets: set[str] = set()

    def resolve(self, text: str) -> str:
        """Give the text with every reference replaced. Raises UnsetVariableError."""
        plain = _PLAIN.fullmatch(text.strip())
        if plain:
            return self._value(plain[1], None)
        return _REFERENCE.sub(lambda match: self._value(match[1], match[2]), text)

    def _value(self, name: str, default: str | None) -> str:
        value = self.environment.get(name, default)
        if value is None:
            raise UnsetVariableError(name)
        self.hide(value)
        if "://" in value:
            self._hide_parts(value)
        return value

    def _hide_parts(self, url: str) -> None:
        """Hide what a receiver may repeat of a URL: its path, long parts of that, and what its query says."""
        try:
            parts = urlsplit(url)
        except ValueError:
            return
        self.hide(parts.path, *(part for part in parts.path.split("/") if len(part) >= SHORTEST_PART))
        self.hide(parts.query, *(said for _, said in parse_qsl(parts.query)), parts.password or "")

    def hide(self, *secrets: str) -> None:
        """Remember further texts that must not be shown."""
        self._secrets.update(secret for secret in secrets if len(secret) >= SHORTEST_SECRET)

    def masked(self, text: str) -> str:
        """Give a text without the values that were resolved."""
        # The longest first: one value may be part of another.
        for secret in sorted(self._secrets, key=len, reverse=True):
            text = text.replace(secret, MASK)
        return text


def is_late(text: str) -> bool:
    """Say whether a text names an environment variable."""
    return bool(_PLAIN.fullmatch(text.strip()) or _REFERENCE.search(text))
