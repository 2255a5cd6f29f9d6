"""A node as YAML text in one fixed form, so that two states of it can be compared line by line.

The form depends on what the node says alone: not on the order of its fields, on comments, or on the layout of the file.
Texts of several lines (SQL) stand as blocks, character for character.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from typing import Any

from seeknal.dag.manifest import Node

# Fields that lead, at every depth; the others follow by name.
_FIRST = """
    kind name ref description owner type source table path format id id_col entity group_by inputs depends_on column
    data_type transform schema columns features params
""".split()
_RANK = {name: rank for rank, name in enumerate(_FIRST)}
_LAST = "tags"


def node_lines(node: Node | None) -> list[str]:
    """Lay out what a node says; nothing where there is no node."""
    if node is None:
        return []
    described = {"description": node.description, "owner": node.owner, "columns": node.columns, "tags": node.tags}
    said = {name: value for name, value in described.items() if value}
    return list(_mapping({"kind": node.kind, "name": node.name, **said, **node.config}, ""))


def difference(old: Node | None, new: Node | None) -> list[str]:
    """The unified diff of a node's two states, without line ends; empty where they say the same."""
    return list(
        difflib.unified_diff(
            node_lines(old), node_lines(new), _label(old, "production"), _label(new, "files"), lineterm=""
        )
    )


def count_changes(lines: list[str]) -> tuple[int, int]:
    """The number of lines that a unified diff adds and removes."""
    body = lines[2:]
    return sum(line.startswith("+") for line in body), sum(line.startswith("-") for line in body)


def _label(node: Node | None, side: str) -> str:
    return "/dev/null" if node is None else f"{node.file_path or node.id} ({side})"


def _mapping(value: dict[Any, Any], indent: str) -> Iterator[str]:
    for key in sorted(value, key=_order):
        yield from _entry(f"{indent}{_scalar(key)}:", value[key], f"{indent}  ")


def _order(key: Any) -> tuple[int, str]:
    text = str(key)
    return (len(_RANK) + 1 if text == _LAST else _RANK.get(text, len(_RANK)), text)


def _entry(head: str, value: Any, indent: str) -> Iterator[str]:
    """One value behind a head, which is a key with its colon or the dash of a list."""
    if isinstance(value, dict) and value:
        lines = list(_mapping(value, indent))
        if head.endswith(":"):
            yield head
            yield from lines
        else:
            yield f"{head} {lines[0].lstrip()}"
            yield from lines[1:]
    elif isinstance(value, list) and value:
        yield head
        for element in value:
            yield from _entry(f"{indent}-", element, f"{indent}  ")
    elif isinstance(value, str) and "\n" in value and _is_printable(value):
        yield f"{head} |{_block_marks(value)}"
        for line in value.removesuffix("\n").split("\n"):
            yield f"{indent}{line}" if line else ""
    else:
        yield f"{head} {_scalar(value)}"


def _block_marks(text: str) -> str:
    """What YAML wants behind the ``|``: the indentation where that is in doubt, and how the text ends."""
    indented = "2" if text.lstrip("\n").startswith(" ") else ""
    if text.endswith("\n\n") or not text.strip("\n"):
        return f"{indented}+"
    return indented if text.endswith("\n") else f"{indented}-"


def _is_printable(text: str) -> bool:
    return all(character.isprintable() or character in "\n\t" for character in text)


def _scalar(value: Any) -> str:
    """A single value on one line, quoted where YAML needs it; also empty lists and mappings."""
    import yaml

    style = '"' if isinstance(value, str) and ("\n" in value or not _is_printable(value)) else None
    text = yaml.safe_dump(value, default_flow_style=True, default_style=style, allow_unicode=True, width=2**31)
    return text.removesuffix("\n").removesuffix("\n...")
