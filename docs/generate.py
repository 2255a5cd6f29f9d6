"""Fill the tables of fields in docs/ from the Structs that YAML is checked against.

A table stands between two comments, ``<!-- fields: WHAT -->`` and ``<!-- end of fields -->``. WHAT is a kind, a field
of a kind that is made of fields (``model.training``), ``project`` for the project file, or ``node`` for the fields of
every node. `make docs` runs this; with ``--check`` nothing is written, and the exit code says whether all is current.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import msgspec
from msgspec import inspect

from seeknal.dag.draft import CommonFields
from seeknal.dag.field_documentation import field_texts, structs_within
from seeknal.dag.project import ProjectSettings
from seeknal.nodes.registry import KINDS

DOCS = Path(__file__).resolve().parent

_TABLE = re.compile(r"(<!-- fields: ([\w.]+) -->\n).*?(<!-- end of fields -->)", re.DOTALL)

_WORDS: dict[type[inspect.Type], str] = {
    inspect.StrType: "text",
    inspect.IntType: "whole number",
    inspect.FloatType: "number",
    inspect.BoolType: "true or false",
    inspect.AnyType: "any",
    inspect.DictType: "object",
    inspect.StructType: "object",
}


def filled(text: str) -> str:
    """A page with its tables made anew."""
    return _TABLE.sub(lambda match: f"{match[1]}\n{table(match[2])}\n{match[3]}", text)


def table(what: str) -> str:
    """The table of a Struct's fields."""
    struct = struct_of(what)
    texts = field_texts(struct)
    lines = ["| field | type | when left out | meaning |", "| --- | --- | --- | --- |"]
    for field in inspect.type_info(struct).fields:  # type: ignore[attr-defined]
        cells = (f"`{field.encode_name}`", type_words(field.type), left_out(field), texts[field.encode_name])
        lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join(lines) + "\n"


def struct_of(what: str) -> type[msgspec.Struct]:
    """The Struct that a marker means. Raises KeyError."""
    name, *path = what.split(".")
    struct = {"node": CommonFields, "project": ProjectSettings}.get(name) or KINDS[name].spec
    for step in path:
        fields = {field.encode_name: field.type for field in msgspec.structs.fields(struct)}
        struct = structs_within(fields[step])[0]
    return struct


def type_words(info: inspect.Type) -> str:
    """What a type is called in the reference."""
    if isinstance(info, inspect.Metadata):
        return type_words(info.type)
    if isinstance(info, inspect.ListType):
        inner = type_words(info.item_type)
        return "list" if inner == "any" else f"list of {'objects' if inner == 'object' else inner}"
    if isinstance(info, inspect.UnionType):
        words = [type_words(member) for member in info.types if not isinstance(member, inspect.NoneType)]
        if "number" in words:
            words = [word for word in words if word != "whole number"]
        return " or ".join(dict.fromkeys(words))
    return _WORDS[type(info)]


def left_out(field: inspect.Field) -> str:
    """What a field is where nothing is said; nothing for what is empty."""
    if field.required:
        return "required"
    default: Any = field.default
    if field.default_factory is not msgspec.NODEFAULT:
        default = field.default_factory()
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    if isinstance(default, list) and default:
        return f"`[{', '.join(map(str, default))}]`"
    return f"`{default}`" if isinstance(default, str | int | float) and default != "" else ""


def main(arguments: list[str]) -> int:
    stale = [page for page in sorted(DOCS.rglob("*.md")) if filled(page.read_text("utf-8")) != page.read_text("utf-8")]
    for page in stale:
        print(page.relative_to(DOCS.parent))
        if "--check" not in arguments:
            page.write_text(filled(page.read_text("utf-8")), "utf-8")
    return 1 if stale and "--check" in arguments else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
