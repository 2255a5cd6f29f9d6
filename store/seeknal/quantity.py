"""Sizes and durations as people write them."""

from __future__ import annotations

import re

from seeknal.late_pattern import late_pattern

_SIZE = late_pattern(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?)(i?)b?\s*", re.IGNORECASE)
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}
_DURATION = late_pattern(r"(?:(\d+(?:\.\d+)?)h)?\s*(?:(\d+(?:\.\d+)?)m)?\s*(?:(\d+(?:\.\d+)?)s?)?")


def parse_size(text: str | int) -> int | None:
    """A size in bytes: ``4GB`` is 4 · 10⁹, ``4GiB`` 4 · 2³⁰, as in DuckDB; None where it is none."""
    match = _SIZE.fullmatch(str(text))
    if match is None:
        return None
    number, power, binary = match.groups()
    return int(float(number) * (1024 if binary else 1000) ** _POWERS[power.lower()])


def size_text(size_bytes: float) -> str:
    """A size for people, in powers of 1000: ``1.2 kB``."""
    if size_bytes < 1000:
        return f"{size_bytes:.0f} B"
    for unit in ("kB", "MB", "GB"):
        size_bytes /= 1000
        if size_bytes < 999.95:
            return f"{size_bytes:.1f} {unit}"
    return f"{size_bytes / 1000:.1f} TB"


def parse_duration(text: str | float) -> float | None:
    """A duration in seconds: ``90``, ``90s``, ``5m``, ``1h30m``; None where it is none."""
    written = str(text).strip().lower()
    match = _DURATION.fullmatch(written)
    if match is None or not written:
        return None
    hours, minutes, seconds = (float(part or 0) for part in match.groups())
    return hours * 3600 + minutes * 60 + seconds


def duration_text(seconds: float) -> str:
    """A duration for people: ``0.5 s``, ``1 min 30 s``, ``2 h 5 min``."""
    if seconds < 60:
        return f"{seconds:g} s" if seconds == round(seconds, 1) else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"
