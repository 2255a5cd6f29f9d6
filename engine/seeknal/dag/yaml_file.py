"""A YAML file as values and places: every key remembers the line and column it stands at.

Reading is safe (no tags that make objects), strict about what YAML lets pass in silence (a key given twice), and
bounded (a file that expands to more than :data:`MOST_VALUES` values is refused). Dates stay text: a manifest is JSON.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from seeknal.errors import Place, Problem

try:
    from yaml import CSafeLoader as _SafeLoader
except ImportError:  # PyYAML without libyaml: the same, several times slower
    from yaml import SafeLoader as _SafeLoader  # type: ignore[assignment]

MOST_BYTES = 4 * 1024 * 1024
MOST_VALUES = 200_000

KeyPath = tuple[str | int, ...]


class _Loader(_SafeLoader):
    """The safe loader without dates: ``2024-01-01`` is the text that stands there."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in _SafeLoader.yaml_implicit_resolvers.items()
}


@dataclass(frozen=True, slots=True)
class Spot:
    """Where a value stands. Lines and columns count from 1.

    ``text_line`` and ``text_column`` are where a text's first character stands; in a ``block`` (``|``) every
    further line begins at that column too.
    """

    line: int
    column: int
    text_line: int
    text_column: int
    block: bool

    def place(self, file: str) -> Place:
        return Place(file, self.line, self.column)

    def place_in_text(self, file: str, text: str, offset: int) -> Place:
        """Where the character at ``offset`` of the value stands in the file."""
        before = text[:offset]
        line = before.count("\n")
        column = offset - (before.rfind("\n") + 1)
        if self.block or line == 0:
            return Place(file, self.text_line + line, self.text_column + column)
        return Place(file, self.text_line + line, column + 1)


@dataclass(frozen=True, slots=True)
class Document:
    """One YAML document: its value, and the spot of each path of keys in it (``()`` is the whole)."""

    value: Any
    places: dict[KeyPath, Spot] = field(default_factory=dict)


class _TooLarge(Exception):
    pass


def load_documents(path: Path, name: str) -> tuple[list[Document], list[Problem]]:
    """Read all documents of a YAML file. ``name`` is what problems call it. Empty documents are left out."""
    try:
        data = path.read_bytes()
    except OSError as error:
        return [], [Problem(f"cannot be read: {error.strerror}", Place(name))]
    if len(data) > MOST_BYTES:
        return [], [Problem(f"is larger than {MOST_BYTES // 1024 // 1024} MiB", Place(name), "split the file")]
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        column = error.start - (data.rfind(b"\n", 0, error.start) + 1) + 1
        return [], [Problem("is not UTF-8 text", Place(name, line, column), "save the file as UTF-8")]
    return parse_documents(text, name)


def parse_documents(text: str, name: str) -> tuple[list[Document], list[Problem]]:
    """As :func:`load_documents`, for text that is there already."""
    documents: list[Document] = []
    problems: list[Problem] = []
    try:
        loader = _Loader(text)
        try:
            while loader.check_node():
                node = loader.get_node()
                if node is None:
                    continue
                places: dict[KeyPath, Spot] = {}
                _walk(node, (), places, problems, name, text.splitlines())
                value = loader.construct_document(node)
                if value is not None:
                    documents.append(Document(value, places))
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = Place(name, mark.line + 1, mark.column + 1) if mark else Place(name)
        problems.append(Problem(f"is not valid YAML: {_one_line(error.problem or error.context or '')}", place))
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        problems.append(Problem(f"is not valid YAML: {_one_line(error.reason)}", Place(name, line)))
    except (yaml.YAMLError, ValueError) as error:
        problems.append(Problem(f"is not valid YAML: {_one_line(str(error))}", Place(name)))
    except _TooLarge:
        problems.append(Problem(f"holds more than {MOST_VALUES} values", Place(name), "split the file"))
    except RecursionError:
        problems.append(Problem("is nested too deeply", Place(name)))
    return documents, problems


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _walk(
    node: yaml.Node, path: KeyPath, places: dict[KeyPath, Spot], problems: list[Problem], name: str, lines: list[str]
) -> None:
    """Note the spot of everything below ``node``; aliases are walked each time, hence the bound."""
    if len(places) >= MOST_VALUES or len(path) > 100:
        raise _TooLarge
    if path not in places:
        places[path] = _spot(node, node, lines)
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            key_text = key.value if isinstance(key, yaml.ScalarNode) else str(key.start_mark)
            mark = key.start_mark
            if not isinstance(key, yaml.ScalarNode):
                problems.append(Problem("a key must be plain text", Place(name, mark.line + 1, mark.column + 1)))
                continue
            if key_text in seen and key_text != "<<":
                problems.append(
                    Problem(f"'{key_text}' is given twice", Place(name, mark.line + 1, mark.column + 1), "keep one")
                )
            seen.add(key_text)
            places[(*path, key_text)] = _spot(key, value, lines)
            _walk(value, (*path, key_text), places, problems, name, lines)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            places[(*path, index)] = _spot(value, value, lines)
            _walk(value, (*path, index), places, problems, name, lines)


def _spot(key: yaml.Node, value: yaml.Node, lines: list[str]) -> Spot:
    line, column = key.start_mark.line + 1, key.start_mark.column + 1
    start = value.start_mark
    if isinstance(value, yaml.ScalarNode) and value.style in ("|", ">"):
        first = start.line + 1
        while first < len(lines) and not lines[first].strip():
            first += 1
        body = lines[first] if first < len(lines) else ""
        indent = len(body) - len(body.lstrip(" "))
        return Spot(line, column, start.line + 2, indent + 1, True)
    quoted = isinstance(value, yaml.ScalarNode) and value.style in ("'", '"')
    return Spot(line, column, start.line + 1, start.column + 1 + quoted, False)
