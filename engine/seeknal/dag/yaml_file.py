"""A YAML file as values and places: every key remembers the line and column it stands at.

Reading is safe (no tags that make objects), strict about what YAML lets pass in silence (a key given twice, ``.nan``),
and bounded (a file that is too large, too deep, or that its aliases make too large is refused). What it gives is what
JSON can hold: keys are the text that stands there (``on``, not true), and so are dates and times.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import yaml

from seeknal.dag.names import shown
from seeknal.dag.yaml_text import find_character
from seeknal.errors import Place, Problem
from seeknal.late_pattern import late_pattern
from seeknal.store.filesystem import read_regular

try:
    from yaml import CSafeLoader as _SafeLoader
except ImportError:  # PyYAML without libyaml: the same, several times slower
    from yaml import SafeLoader as _SafeLoader  # type: ignore[assignment]

MOST_BYTES = 1024 * 1024
MOST_VALUES = 100_000
MOST_DOCUMENTS = 10_000
MOST_TWINS = 20
MOST_CHARACTERS = 16 * 1024 * 1024
DEEPEST = 100

KeyPath = tuple[str | int, ...]

_TAG = "tag:yaml.org,2002:"
_TAGS = frozenset(_TAG + name for name in ("str", "int", "float", "bool", "null", "map", "seq"))
_MERGE = _TAG + "merge"

# What YAML does not admit, and lone surrogates, which are no text.
_FORBIDDEN = late_pattern("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\ufffe\uffff\ud800-\udfff]")
_OPENING = late_pattern(r"[\[{]|[-?][ \t]")


class _Loader(_SafeLoader):
    """The safe loader without dates and times: ``2024-01-01`` and ``12:30`` are the text that stands there."""


def _checked(kind: str, construct: Callable[[_Loader, yaml.ScalarNode], Any]) -> Callable[[_Loader, yaml.Node], Any]:
    """A constructor whose every failure has a place."""

    def constructed(loader: _Loader, node: yaml.Node) -> Any:
        try:
            value = construct(loader, node)  # type: ignore[arg-type]
        except (ValueError, KeyError, OverflowError):
            value = None
        if value is None or value != value or value in (float("inf"), -float("inf")):
            raise _unusable(node, f"is no {kind} that can be used here; put it in quotes to have it as text")
        if kind == "number" and isinstance(value, int) and not -(2**63) <= value < 2**63:
            raise _unusable(node, "is a number with more than 64 bits; put it in quotes to have it as text")
        return value

    return constructed


def _unusable(node: yaml.Node, why: str) -> yaml.MarkedYAMLError:
    said = str(node.value)
    said = said if len(said) <= 40 else said[:40] + "…"
    return yaml.constructor.ConstructorError(None, None, f"'{said}' {why}", node.start_mark)


_Loader.add_constructor(_TAG + "int", _checked("number", _SafeLoader.construct_yaml_int))
_Loader.add_constructor(_TAG + "float", _checked("number", _SafeLoader.construct_yaml_float))
_Loader.add_constructor(_TAG + "bool", _checked("truth value", _SafeLoader.construct_yaml_bool))
_SEXAGESIMAL = late_pattern(r"[-+]?[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?")
_Loader.yaml_implicit_resolvers = {
    first: [
        # The first pattern that matches decides, so this one keeps 12:30 from being 750.
        *([(_TAG + "str", _SEXAGESIMAL)] if first and first in "-+0123456789" else []),
        *((tag, pattern) for tag, pattern in resolvers if tag not in (_TAG + "timestamp", _TAG + "value")),
    ]
    for first, resolvers in _SafeLoader.yaml_implicit_resolvers.items()
}


class Spot(msgspec.Struct, frozen=True):
    """Where a value stands: its key (or itself, in a list) by line and column from 1, its text by index in the file."""

    line: int
    column: int
    start: int
    end: int
    style: str | None

    def place(self, file: str) -> Place:
        return Place(file, self.line, self.column)


class Document(msgspec.Struct, frozen=True):
    """One YAML document: its value, the spot of each path of keys in it (``()`` is the whole), the file's text."""

    value: Any
    places: dict[KeyPath, Spot] = {}
    source: str = ""

    def place(self, path: KeyPath, file: str) -> Place:
        """Where a value stands; the nearest thing around it where the path leads nowhere."""
        while path not in self.places and path:
            path = path[:-1]
        spot = self.places.get(path)
        return spot.place(file) if spot else Place(file)

    def place_in_text(self, path: KeyPath, file: str, text: str, offset: int) -> Place:
        """Where the character at ``offset`` of the text at ``path`` stands in the file."""
        spot = self.places.get(path)
        if spot is None or not self.source:
            return self.place(path, file)
        index = find_character(self.source, spot.start, spot.end, spot.style, text, offset)
        return _place_at(self.source, index, file)


class RememberedDocument:
    """A document whose value is known; it is read again, once, when a place is asked for.

    A project has one for each node, so it is small: it is the ``index``-th of the file ``name`` below ``root``.
    """

    __slots__ = ("_found", "_index", "_name", "_root", "value")

    def __init__(self, value: Any, root: str, name: str, index: int) -> None:
        self.value, self._root, self._name, self._index = value, root, name, index
        self._found: Document | None = None

    def place(self, path: KeyPath, file: str) -> Place:
        """As :meth:`Document.place`."""
        return self._read().place(path, file)

    def place_in_text(self, path: KeyPath, file: str, text: str, offset: int) -> Place:
        """As :meth:`Document.place_in_text`."""
        return self._read().place_in_text(path, file, text, offset)

    def _read(self) -> Document:
        if self._found is None:
            documents, _ = load_documents(Path(self._root, self._name), self._name)
            # Where it was changed meanwhile, there are no places to tell.
            stands = self._index < len(documents) and documents[self._index].value == self.value
            self._found = documents[self._index] if stands else Document(self.value)
        return self._found


class _Unreadable(Exception):
    """The file cannot be read as a whole; the first argument is the problem."""


def load_documents(path: Path, name: str) -> tuple[list[Document], list[Problem]]:
    """Read all documents of a YAML file. ``name`` is what problems call it. Empty documents are left out."""
    try:
        data = read_regular(path, MOST_BYTES)
    except OSError as error:
        return [], [Problem(f"cannot be read: {error.strerror}", Place(name))]
    if len(data) > MOST_BYTES:
        return [], [Problem(f"is larger than {MOST_BYTES // 1024 // 1024} MiB", Place(name), "split the file")]
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = data[: error.start].decode("utf-8-sig", errors="ignore")
        return [], [Problem("is not UTF-8 text", _place_at(before, len(before), name), "save the file as UTF-8")]
    return parse_documents(text, name)


def parse_documents(text: str, name: str) -> tuple[list[Document], list[Problem]]:
    """As :func:`load_documents`, for text that is there already."""
    documents: list[Document] = []
    problems: list[Problem] = []
    count = 0
    try:
        _check_text(text, name)
        loader = _Loader(text)
        try:
            while loader.check_node():
                node = loader.get_node()
                count += 1
                if count > MOST_DOCUMENTS:
                    documents.clear()
                    raise _Unreadable(Problem("has too many documents", Place(name), "split the file"))
                if node is None:
                    continue
                walk = _Walk(name, problems)
                walk.note((), node, node)
                value = loader.construct_document(node)
                if value is not None:
                    documents.append(Document(value, walk.places, text))
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        # At the end of the file the mark stands on a line that is not there.
        place = _place_at(text, min(mark.index, len(text.rstrip())), name) if mark else Place(name)
        problems.append(Problem(f"is not valid YAML: {_one_line(error.problem or error.context or '')}", place))
    except yaml.YAMLError as error:
        problems.append(Problem(f"is not valid YAML: {_one_line(str(error))}", Place(name)))
    except _Unreadable as error:
        problems.append(error.args[0])
    except RecursionError:
        problems.append(_too_deep(Place(name)))
    return documents, problems


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _check_text(text: str, name: str) -> None:
    """Find what libyaml reports badly, or does not survive. Raises _Unreadable."""
    forbidden = _FORBIDDEN.search(text)
    if forbidden:
        place = _place_at(text, forbidden.start(), name)
        problem = Problem(f"holds the character U+{ord(forbidden[0]):04X}", place, "a control character; take it out")
        raise _Unreadable(problem)
    if sum(1 for _ in _OPENING.finditer(text)) <= 20 * DEEPEST:
        return
    # libyaml composes nodes recursively and takes the process down with it; its events are safe.
    depth = 0
    loader = _Loader(text)
    try:
        while loader.check_event():
            event: Any = loader.get_event()
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > DEEPEST:
                mark = event.start_mark
                raise _Unreadable(_too_deep(Place(name, mark.line + 1, mark.column + 1)))
    finally:
        loader.dispose()


def _too_deep(place: Place) -> Problem:
    return Problem(f"is nested deeper than {DEEPEST} levels", place)


class _Walk(msgspec.Struct):
    """Notes the spot of everything in one document. Aliases are walked each time they stand, hence the bounds."""

    name: str
    problems: list[Problem]
    places: dict[KeyPath, Spot] = {}
    characters: int = 0

    def note(self, path: KeyPath, at: yaml.Node, node: yaml.Node) -> None:
        """Note ``node`` and all below it; ``at`` is what stands for it: its key, or itself."""
        place = Place(self.name, at.start_mark.line + 1, at.start_mark.column + 1)
        if len(self.places) >= MOST_VALUES or self.characters > MOST_CHARACTERS:
            raise _Unreadable(Problem("is too large with its aliases written out", place, "split the file"))
        if len(path) > DEEPEST:
            raise _Unreadable(_too_deep(place))
        if node.tag not in _TAGS:
            problem = Problem(f"the tag {shown(node.tag.replace(_TAG, '!!'))} is not allowed", place, "take it out")
            raise _Unreadable(problem)
        style = node.style if isinstance(node, yaml.ScalarNode) else None
        self.places[path] = Spot(place.line, place.column, node.start_mark.index, node.end_mark.index, style)
        if isinstance(node, yaml.ScalarNode):
            self.characters += len(node.value)
        elif isinstance(node, yaml.MappingNode):
            self._note_fields(path, node)
        else:
            for index, value in enumerate(node.value):
                self.note((*path, index), value, value)

    def _note_fields(self, path: KeyPath, node: yaml.MappingNode) -> None:
        seen: set[str] = set()
        for index, (key, value) in enumerate(node.value):
            place = Place(self.name, key.start_mark.line + 1, key.start_mark.column + 1)
            if not isinstance(key, yaml.ScalarNode):
                raise _Unreadable(Problem("a key must be plain text", place))
            if key.tag == _MERGE:
                self.note((*path, f"<<{index}"), key, value)
                continue
            if key.tag != _TAG + "str":
                text_key = yaml.ScalarNode(_TAG + "str", key.value, key.start_mark, key.end_mark, key.style)
                node.value[index] = (text_key, value)
            if key.value in seen:
                if len(self.problems) >= MOST_TWINS:
                    raise _Unreadable(Problem("has further keys that are given twice", place, "keep one of each"))
                self.problems.append(Problem(f"'{shown(key.value)}' is given twice", place, "keep one"))
            seen.add(key.value)
            self.note((*path, key.value), key, value)


def _place_at(text: str, index: int, name: str) -> Place:
    """The line and column of a character; lines end where YAML ends them."""
    start, line = 0, 1
    for line_end in re.finditer("\r\n|[\n\r\x85\u2028\u2029]", text[:index]):
        start, line = line_end.end(), line + 1
    return Place(name, line, index - start + 1)
