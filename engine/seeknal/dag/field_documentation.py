"""What Structs say about their fields: the source of the JSON Schemas and of the tables in the reference.

A Struct's docstring says what the Struct is, and then what each field means, in a list of this form:

    - ``name``: what it means; a text that is longer goes on
      in lines that are indented by two

Fields are named as YAML names them. A Struct inherits what its bases say.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator

import msgspec

_ITEM = re.compile(r"^- ``([\w-]+)``: (.*)$")


def summary(struct: type[msgspec.Struct]) -> str:
    """What a Struct is: the text of its docstring before the list of fields, in Markdown."""
    lines = []
    for line in inspect.cleandoc(struct.__doc__ or "").splitlines():
        if _ITEM.match(line):
            break
        lines.append(line)
    paragraphs = "\n".join(lines).strip().split("\n\n")
    return "\n\n".join(_markdown(" ".join(paragraph.split())) for paragraph in paragraphs)


def field_texts(struct: type[msgspec.Struct]) -> dict[str, str]:
    """What each documented field of a Struct means, by its name in YAML, in Markdown and on one line."""
    found: dict[str, str] = {}
    for ancestor in reversed(struct.__mro__):
        if ancestor is not struct and not (isinstance(ancestor, type) and issubclass(ancestor, msgspec.Struct)):
            continue
        found |= {name: _markdown(text) for name, text in _items(inspect.cleandoc(ancestor.__doc__ or ""))}
    return found


def _items(text: str) -> Iterator[tuple[str, str]]:
    name, said = "", list[str]()
    for line in [*text.splitlines(), ""]:
        item = _ITEM.match(line)
        if name and (item or not line.startswith("  ")):
            yield name, " ".join(said)
            name = ""
        if item:
            name, said = item[1], [item[2].strip()]
        elif name:
            said.append(line.strip())


def _markdown(text: str) -> str:
    return text.replace("``", "`")


def structs_within(type_: object) -> list[type[msgspec.Struct]]:
    """The Structs that a type consists of, itself first where it is one, each once."""
    found: dict[type[msgspec.Struct], None] = {}
    _collect(msgspec.inspect.type_info(type_), found)
    return list(found)


def _collect(info: msgspec.inspect.Type, found: dict[type[msgspec.Struct], None]) -> None:
    if isinstance(info, msgspec.inspect.Metadata):
        _collect(info.type, found)
    elif isinstance(info, msgspec.inspect.StructType):
        if info.cls not in found:
            found[info.cls] = None
            for field in info.fields:
                _collect(field.type, found)
    elif isinstance(info, msgspec.inspect.UnionType):
        for member in info.types:
            _collect(member, found)
    elif isinstance(info, msgspec.inspect.ListType):
        _collect(info.item_type, found)
    elif isinstance(info, msgspec.inspect.DictType):
        _collect(info.value_type, found)
