"""Where the arguments of a decorator stand in its file, as far as they are written out there."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from itertools import accumulate

from seeknal.pipeline import decorators
from seeknal.pipeline.discovered import FoundPlace, KeyPath
from seeknal.pipeline.module_syntax import FunctionNode, ModuleSyntax

_OPENING = re.compile(r"([A-Za-z]*)(\"\"\"|'''|\"|')")


class Positions:
    """Turns the positions that syntax has, lines and UTF-8 bytes, into characters of the file."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._lines = text.split("\n")
        self._starts = [0, *accumulate(len(line) + 1 for line in self._lines)]

    def column(self, line: int, byte: int) -> int:
        """The column, from 1, of a byte of a line."""
        said = self._lines[line - 1] if line <= len(self._lines) else ""
        return len(said.encode()[:byte].decode(errors="ignore")) + 1

    def index(self, line: int, byte: int) -> int:
        return self._starts[line - 1] + self.column(line, byte) - 1

    def place(self, path: KeyPath, node: ast.expr | ast.keyword | ast.stmt, value: ast.AST | None = None) -> FoundPlace:
        """A place that is shown as where ``node`` stands, with the text of ``value``."""
        inner = value if isinstance(value, ast.expr) else node
        start = self.index(inner.lineno, inner.col_offset)
        end = self.index(inner.end_lineno or inner.lineno, inner.end_col_offset or 0)
        style = None
        opening = _OPENING.match(self._text, start)
        if isinstance(inner, ast.Constant) and isinstance(inner.value, str) and opening:
            # What stands between the quotes, read as YAML's plain text, or as its "…" where it has escapes.
            end -= len(opening[2])
            start = opening.end()
            if "r" not in opening[1].lower() and "\\" in self._text[start:end]:
                style, start = '"', start - 1
        return FoundPlace(path, node.lineno, self.column(node.lineno, node.col_offset), start, end, style)


def places_of(module: ModuleSyntax, kind: str, function: FunctionNode | None, line: int) -> tuple[FoundPlace, ...]:
    """The places of a node's keywords; ``()`` is the decorator and ``("function",)`` the function.

    ``line`` is where the decorator was called.
    """
    positions = Positions(module.text)
    call = _decorator_call(module, function, line)
    if call is None:
        return (FoundPlace((), line, 1, 0, 0),)
    places = [positions.place((), call)]
    if function is not None:
        places.append(positions.place(("function",), function))
        places.append(positions.place(("name",), function))
    if isinstance(call, ast.Call):
        for name, node, value in _arguments(kind, call):
            places += [positions.place((name,), node, value), *_inner_places(positions, (name,), value)]
    return tuple({place.path: place for place in places}.values())


def _decorator_call(module: ModuleSyntax, function: FunctionNode | None, line: int) -> ast.expr | None:
    candidates: list[ast.expr] = []
    if function is not None:
        candidates = [entry for entry in function.decorator_list if module.is_node_decorator(entry)]
    else:
        candidates = [node for node in ast.walk(module.tree) if isinstance(node, ast.Call)]
    at_line = [node for node in candidates if node.lineno == line]
    return next(iter(at_line or (candidates if function is not None else [])), None)


def _arguments(kind: str, call: ast.Call) -> Iterator[tuple[str, ast.expr | ast.keyword, ast.expr]]:
    signature = inspect.signature(getattr(decorators, kind))
    for name, value in zip(signature.parameters, call.args, strict=False):
        yield name, value, value
    for keyword in call.keywords:
        if keyword.arg is not None:
            yield keyword.arg, keyword, keyword.value


def _inner_places(positions: Positions, path: KeyPath, value: ast.expr) -> Iterator[FoundPlace]:
    if isinstance(value, ast.List | ast.Tuple):
        for index, entry in enumerate(value.elts):
            yield positions.place((*path, index), entry)
            yield from _inner_places(positions, (*path, index), entry)
    elif isinstance(value, ast.Dict):
        for key, entry in zip(value.keys, value.values, strict=True):
            if isinstance(key, ast.Constant) and isinstance(key.value, str):
                yield positions.place((*path, key.value), key, entry)
                yield from _inner_places(positions, (*path, key.value), entry)
