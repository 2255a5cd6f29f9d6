"""Text that cannot talk to a terminal, nor look like another text: what does that is spelled out (``\\x1b``).

Names, descriptions and data come from files that somebody else may have written. Spelled out are control characters
(escape sequences begin with one), characters that turn the direction of the text around, and lone surrogates.
"""

from __future__ import annotations

import re

from seeknal.late_pattern import late_pattern

# C0 but tab and line feed, DEL and C1; marks, embeddings, overrides and isolates of direction; line separators; the
# invisible plane of tags.
_HIDDEN = late_pattern(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff"
    "\ufff9-\ufffb\U000e0000-\U000e007f]"
)
_BREAKS = late_pattern("[\t\n]")


def visible(text: str) -> str:
    """Spell out what a terminal would obey; line feeds and tabs stay."""
    return text if text.isascii() and text.isprintable() else _HIDDEN.sub(_spelled, text)


def visible_cell(text: str) -> str:
    """As :func:`visible`, and line feeds and tabs as well: for what must stay in its place on one line."""
    return _BREAKS.sub(_spelled, visible(text))


def _spelled(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape").decode()
