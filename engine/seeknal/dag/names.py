"""Which names are allowed, and what somebody may have meant by one that does not exist.

- *node name*: a letter or ``_``, then letters, digits, ``_``, ``-`` or ``.``; not a reserved word of SQL or
  Python, because it stands as an identifier in both, nor a device's (``nul``).
- *environment name*: a letter or digit, then letters, digits, ``_``, ``-`` or ``.``; a folder of that name is made.
- *column names* are one to DuckDB that differ only in the case of ASCII letters.
- *production* is the environment ``prod``; ``production`` is a synonym wherever an environment is named.
"""

from __future__ import annotations

import keyword
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable

from seeknal.errors import NameNotAllowedError
from seeknal.late_pattern import late_pattern
from seeknal.visible_text import visible_cell

PRODUCTION = "prod"

LONGEST_NAME = 128

_NODE_NAME = late_pattern(r"[A-Za-z_][A-Za-z0-9_.\-]*")
_ENVIRONMENT_NAME = late_pattern(r"[A-Za-z0-9][A-Za-z0-9_.\-]*")

# The words that DuckDB reserves (duckdb_keywords()); a test compares the two lists.
RESERVED_SQL_WORDS = frozenset(
    """
    all analyse analyze and any array as asc asymmetric both case cast check collate column constraint
    create default deferrable desc describe distinct do else end except false fetch for foreign from
    group having in initially intersect into lambda lateral leading limit not null offset on only or
    order pivot pivot_longer pivot_wider placing primary qualify references returning select show some
    summarize symmetric table then to trailing true union unique unpivot using variadic when where
    window with
    """.split()
)


# What Windows takes for a device in any folder; disks are shared, and projects are cloned.
_DEVICES = {"con", "prn", "aux", "nul", *(f"{port}{number}" for port in ("com", "lpt") for number in range(1, 10))}

LONGEST_PART_BYTES = 200
LONGEST_PATH_BYTES = 1000


def is_device(name: str) -> bool:
    """Say whether some system takes a file of this name for a device: ``nul``, ``con.txt``."""
    return name.partition(".")[0].strip().lower() in _DEVICES


def one_on_some_disks(name: str) -> str:
    """What is the same for all names that are one file on disks that ignore case, or how a letter is composed."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def wrong_path(path: str) -> str | None:
    """Say why a file of this path should not be made, or None: it would be another one elsewhere, or could not be."""
    if path != path.strip() or not path.strip():
        return "begins or ends with a space"
    if visible_cell(path) != path:
        return "has invisible characters in it"
    if re.match(r"[A-Za-z]:|[A-Za-z][A-Za-z0-9+.-]*://", path):
        return "is a drive or a URL, not a path of files"
    if "\\" in path:
        return "has a backslash in it; folders are separated by '/'"
    parts = [part for part in path.split("/") if part]
    if parts and parts[0].startswith("~"):
        return "begins with '~', which stands for no folder here"
    for part in parts:
        if part in (".", ".."):
            continue
        if part[-1] in ". ":
            return f"has a part that ends with a dot or a space: '{shown(part)}'"
        if is_device(part):
            return f"has a part that is a device on some systems: '{shown(part)}'"
        if len(part.encode("utf-8", "surrogatepass")) > LONGEST_PART_BYTES:
            return f"has a part of more than {LONGEST_PART_BYTES} bytes"
    if len(path.encode("utf-8", "surrogatepass")) > LONGEST_PATH_BYTES:
        return f"has more than {LONGEST_PATH_BYTES} bytes"
    return None


def check_node_name(name: str) -> str | None:
    """Say what is wrong with a node's name, or None where it is allowed."""
    if not _NODE_NAME.fullmatch(name) or ".." in name or name.endswith("."):
        return "a name is a letter or '_', then letters, digits, '_', '-' or single '.'"
    if len(name) > LONGEST_NAME:
        return f"a name has at most {LONGEST_NAME} characters"
    if name.lower() in RESERVED_SQL_WORDS:
        return f"'{name}' is a reserved word of SQL; try '{name}_data'"
    if is_device(name):
        return f"'{name}' is a device on some systems; try '{name}_data'"
    if keyword.iskeyword(name):
        return f"'{name}' is a reserved word of Python; try '{name}_data'"
    return None


def environment_name(name: str) -> str:
    """Give the canonical form of an environment's name, ``prod`` for production.

    Raises NameNotAllowedError.
    """
    if name.lower() in (PRODUCTION, "production"):
        return PRODUCTION
    if not _ENVIRONMENT_NAME.fullmatch(name) or ".." in name or name.endswith(".") or len(name) > LONGEST_NAME:
        raise NameNotAllowedError(
            f"'{name}' is not a valid environment name",
            hint="a letter or digit, then letters, digits, '_', '-' or single '.'",
        )
    if is_device(name):
        raise NameNotAllowedError(f"'{name}' is not a valid environment name", hint="it is a device on some systems")
    return name


def shown(text: str) -> str:
    """A text of the user's as a message can hold it: on one line, printable, at most 80 characters."""
    line = "".join(letter if letter.isprintable() else " " if letter.isspace() else "\ufffd" for letter in text)
    line = " ".join(line.split()) if line != text else text
    return line if len(line) <= 80 else line[:79] + "…"


def short_names(node_ids: Iterable[str]) -> dict[str, str]:
    """Name nodes for a reader: without the kind, or by the whole id where two of them have one name."""
    bare = {node_id: node_id.partition(".")[2] for node_id in node_ids}
    count = Counter(bare.values())
    return {node_id: name if count[name] == 1 else node_id for node_id, name in bare.items()}


def fold(name: str) -> str:
    """Give what two names have in common that are one to DuckDB: it ignores the case of ASCII letters only."""
    return name.encode("utf-8", "surrogatepass").lower().decode("utf-8", "surrogatepass")


def find_name(name: str, candidates: Iterable[str]) -> str | None:
    """Find a name among others: as it is written, else the only one that differs in case alone."""
    known = list(candidates)
    if name in known:
        return name
    alike = [candidate for candidate in known if fold(candidate) == fold(name)]
    return alike[0] if len(alike) == 1 else None


def nodes_named(name: str, node_ids: Iterable[str]) -> list[str]:
    """The nodes that an id or a bare name means, whatever the case; an id that is exactly that comes alone."""
    wanted = name.lower()
    found = [node_id for node_id in node_ids if wanted in (node_id.lower(), node_id.partition(".")[2].lower())]
    exact = [node_id for node_id in found if node_id.lower() == wanted]
    return exact or found


def nearest(name: str, candidates: Iterable[str], count: int = 3) -> list[str]:
    """The candidates that look like ``name``, best first; at most ``count``.

    Of ids (``kind.name``), those of the same name come first, and those of the same kind are compared by name alone:
    a kind in common makes no two names alike.
    """
    import difflib

    lowered = {candidate.lower(): candidate for candidate in candidates}
    prefix, dot, bare = name.lower().partition(".")
    if not dot:
        prefix, bare = "", prefix
    same_name = [candidate for low, candidate in lowered.items() if low.partition(".")[2] == bare]
    same_kind = {low.partition(".")[2]: low for low in lowered if dot and low.partition(".")[0] == prefix}
    if not dot:
        # A name without kind is compared with the names of all kinds.
        same_kind = {low.partition(".")[2] or low: low for low in lowered}
    alike = [same_kind[match] for match in difflib.get_close_matches(bare, same_kind, n=count)]
    others = [low for low in lowered if low not in same_kind.values()]
    alike += difflib.get_close_matches(name.lower(), others, n=count)
    return list(dict.fromkeys([*same_name, *(lowered[low] for low in alike)]))[:count]


def nearest_files(name: str, candidates: Iterable[str], count: int = 3) -> list[str]:
    """The names of files that look like ``name``, best first; at most ``count``.

    Those of the same ending come first, and are compared without it: an ending in common makes no two names alike.
    """
    import difflib

    stem, dot, ending = name.lower().rpartition(".")
    lowered = {candidate.lower(): candidate for candidate in candidates}
    same_ending = {low[: -len(ending) - 1]: low for low in lowered if dot and low.endswith(f".{ending}")}
    alike = [same_ending[match] for match in difflib.get_close_matches(stem, same_ending, n=count)]
    others = [low for low in lowered if low not in same_ending.values()]
    alike += difflib.get_close_matches(name.lower(), others, n=count)
    return [lowered[low] for low in alike][:count]


def did_you_mean(name: str, candidates: Iterable[str]) -> str:
    """A hint that names the nearest candidates, else all of them where they are few, else nothing."""
    known = list(candidates)
    close = nearest(name, known)
    if close:
        return f"did you mean {' or '.join(repr(candidate) for candidate in close)}?"
    if 0 < len(known) <= 12:
        return f"there is: {', '.join(sorted(known))}"
    return ""
