"""A text with templates, rendered for what it is for: SQL, a path, a param, or plain text.

What is wrong is collected, not raised, so that all of it can be told at once.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import PurePosixPath
from typing import Any, Literal, Protocol

from seeknal.dag.parameters import Value
from seeknal.dag.project import Project
from seeknal.dag.template import (
    Found,
    Rendered,
    Scope,
    Segment,
    TemplateError,
    assemble,
    evaluate,
    templates_in,
    unclosed,
)
from seeknal.dag.tokens import Token
from seeknal.late_pattern import late_pattern

Purpose = Literal["sql", "path", "param", "text", "late"]

# Cutting SQL to tokens takes the longer the more there are, squared.
MOST_TEMPLATES = 1000

_INTEGER = late_pattern(r"-?(0|[1-9]\d*)")
_DECIMAL = late_pattern(r"-?\d+\.\d+([eE][+-]?\d+)?")
_TRUTHS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
_BLOCK = late_pattern(r"\{%")
_CONTROL = late_pattern(r"[\x00-\x1f\x7f]")
_FOLDER = late_pattern(r"[^/\\]+")
_OUTWARD = late_pattern(r"[/\\~]|[A-Za-z][A-Za-z0-9+.-]*:")


class TextScope(Scope, Protocol):
    """A scope that remembers whether everything that it answered since it was last asked is trusted."""

    trusted: bool


class TemplatedText:
    """One text while it is rendered; what is wrong stands in ``problems``: message, hint, offset."""

    def __init__(self, text: str, scope: TextScope, project: Project) -> None:
        self._text = text
        self._scope = scope
        self._project = project
        self.problems: list[tuple[str, str, int | None]] = []

    def render(self, purpose: Purpose) -> tuple[Any, Rendered | None]:
        """Give the value, and what stands where where it is a text. What cannot be rendered comes back as it is."""
        if purpose == "sql":
            rendered = self._sql()
            return rendered.text, rendered
        self._see_braces()
        found = [found for found in templates_in(self._text) if purpose != "late" or not found.is_variable]
        values = list(self._values(found))
        if self.problems:
            return self._text, None
        if (
            purpose == "param"
            and len(values) == 1
            and self._text.strip() == self._text[values[0][0].start : values[0][0].end]
        ):
            value = values[0][1].value
            return (converted(value) if isinstance(value, str) else value), None
        texts = []
        for template, value in values:
            try:
                texts.append((template, _as_text(value.value, template), value.trusted))
            except TemplateError as error:
                self._report(error, template.start)
        if self.problems:
            return self._text, None
        rendered = assemble(self._text, texts)
        if purpose == "path":
            self._check_path(rendered)
        if purpose == "late":
            self._check_late(rendered)
        return (converted(rendered.text) if purpose == "param" else rendered.text), rendered

    def _values(self, found: Iterable[Found]) -> Iterator[tuple[Found, Value]]:
        for template in found:
            before = self._scope.trusted
            self._scope.trusted = True
            try:
                value = evaluate(template.expression, self._scope)
                trusted = value.trusted and self._scope.trusted
                yield template, Value(value.value, trusted, value.volatile)
                self._scope.trusted = before and trusted
            except TemplateError as error:
                self._report(error, template.start)
                self._scope.trusted = before

    def _report(self, error: TemplateError, offset: int | None) -> None:
        self.problems.append((error.message, error.hint, offset))

    def _see_braces(self) -> None:
        start = unclosed(self._text)
        if start is not None:
            message = "'{{' is not closed by '}}', or a quote in it is not"
            self.problems.append((message, "for braces as text write {{ '{{' }}", start))

    # SQL

    def _sql(self) -> Rendered:
        from seeknal.dag.sql_value import in_sql
        from seeknal.dag.tokens import tokens

        if sum(1 for _ in islice(templates_in(self._text), MOST_TEMPLATES + 1)) > MOST_TEMPLATES:
            message = f"the SQL has more than {MOST_TEMPLATES} templates"
            self.problems.append((message, "give it a list: IN ({{ names }})", None))
            return Rendered(self._text)
        pieces = tokens(self._text)
        block = next((match.start() for match in _BLOCK.finditer(self._text) if _is_code(pieces, match.start())), None)
        if block is not None:
            self.problems.append(
                ("blocks ({% … %}) are not filled in", "choose inside a template: {{ 'a' if x else 'b' }}", block)
            )
        templates = [
            (found, next((piece for piece in pieces if piece.start <= found.start < piece.end), None))
            for found in templates_in(self._text)
        ]
        # What stands in a comment is for people.
        token_of = {found: token for found, token in templates if token is not None}
        texts = []
        for found, value in self._values(list(token_of)):
            try:
                form = in_sql(value.value, found, self._text, token_of[found], trusted=value.trusted)
                texts.append((found, form, value.trusted))
            except TemplateError as error:
                self._report(error, found.start)
        rendered = assemble(self._text, texts) if not self.problems else Rendered(self._text)
        self._check_quotes(rendered, [token for token in token_of.values() if token.kind == "string"])
        return rendered

    def _check_quotes(self, rendered: Rendered, quoted: Sequence[Token]) -> None:
        """See that what was put in quotes is still in quotes, whatever stands in other templates before it."""
        from seeknal.dag.tokens import tokens

        suspects = [
            segment
            for segment in rendered.segments
            if not segment.trusted and any(token.start <= segment.source_start < token.end for token in quoted)
        ]
        if not suspects:
            return
        strings = [piece for piece in tokens(rendered.text) if piece.kind == "string"]
        for segment in suspects:
            if not any(piece.start < segment.start and segment.end < piece.end for piece in strings):
                message = "the quotes around this template are not where they seem to be"
                self.problems.append((message, "close the quotes before it", segment.source_start))

    # what is sent

    def _check_late(self, rendered: Rendered) -> None:
        """Refuse a value that would itself name an environment variable."""
        for segment in rendered.segments:
            value = rendered.text[segment.start : segment.end]
            if "{" in value or "}" in value or rendered.text.strip().startswith("env:"):
                message = f"the value may not name an environment variable: {value!r}"
                self.problems.append((message, "write {{ env:NAME }} here", segment.source_start))

    # paths

    def _check_path(self, rendered: Rendered) -> None:
        """Refuse a path that a value leads out of the project, unless the project's settings allow that."""
        path, foreign = rendered.text, [segment for segment in rendered.segments if not segment.trusted]
        if not foreign:
            return
        control = next((segment for segment in foreign if _CONTROL.search(path, segment.start, segment.end)), None)
        if control is not None:
            self.problems.append(("the value has control characters in it", "", control.source_start))
            return
        if self._project.settings.allow_external_paths:
            return
        way_out = "set `allow_external_paths: true` in seeknal_project.yml"
        for folder in _FOLDER.finditer(path):
            by = _overlapping(foreign, folder.start(), folder.end()) if folder[0].strip() == ".." else None
            if by is not None:
                self.problems.append((f"the value leads out of its folder: '{path}'", way_out, by.source_start))
                return
        outward = _OUTWARD.match(path)
        by = foreign[0] if foreign[0].start == 0 else _overlapping(foreign, 0, outward.end() if outward else 0)
        if outward and by is not None and not self._is_inside(path):
            self.problems.append((f"the value leads out of the project: '{path}'", way_out, by.source_start))

    def _is_inside(self, path: str) -> bool:
        return path.startswith("/") and PurePosixPath(os.path.normpath(path)).is_relative_to(self._project.root)


def _overlapping(segments: Iterable[Segment], start: int, end: int) -> Segment | None:
    return next((segment for segment in segments if segment.start < end and start < segment.end), None)


def _as_text(value: Any, found: Found) -> str:
    from seeknal.dag.sql_value import as_text

    return as_text(value, found.expression.strip())


def converted(text: str) -> Any:
    """A rendered param as what it says: a truth value, a number, else the text."""
    said = text.strip()
    if said.lower() in _TRUTHS:
        return _TRUTHS[said.lower()]
    if _INTEGER.fullmatch(said) and -(2**63) <= int(said) < 2**63:
        return int(said)
    return float(said) if _DECIMAL.fullmatch(said) else str(text)


def _is_code(pieces: Sequence[Token], offset: int) -> bool:
    """Say whether a character stands in SQL itself, not in a string, a quoted name or a comment."""
    piece = next((piece for piece in pieces if piece.start <= offset < piece.end), None)
    return piece is not None and piece.kind != "string" and not piece.text.startswith('"')
