"""What the commands print with: marks, headings, colour; to people, never to programs.

Results go to stdout, errors and hints to stderr. With ``--json`` stdout carries exactly one document, and everything
else goes to stderr. Colour only on a terminal, and not where ``NO_COLOR`` is set.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable
from typing import Any, TextIO

import click

from seeknal.errors import Problem, SeeknalError

RULE = "=" * 60

_UNICODE = {"ok": "✓", "info": "ℹ", "warning": "⚠", "error": "✗", "arrow": "→"}
_PLAIN = {"ok": "[OK]", "info": "[INFO]", "warning": "[WARN]", "error": "[ERR]", "arrow": "->"}
_COLOURS = {"ok": "green", "info": "blue", "warning": "yellow", "error": "red"}


class Console:
    """Prints for people. With ``to_stderr`` (because stdout is for a document) everything goes to stderr."""

    def __init__(self, *, to_stderr: bool = False) -> None:
        self.stream: TextIO = sys.stderr if to_stderr else sys.stdout
        self.colour = self.stream.isatty() and not os.environ.get("NO_COLOR")
        self.is_terminal = self.stream.isatty()
        # Takes the lines while something moves at the foot of the terminal.
        self.above: Callable[[str], None] | None = None

    def line(self, text: str = "") -> None:
        if self.above is not None:
            self.above(text if self.colour else click.unstyle(text))
        else:
            _echo(text, self.stream, colour=self.colour)

    def heading(self, text: str) -> None:
        self.line(click.style(text, bold=True))
        self.line(RULE)

    def mark(self, name: str, text: str) -> None:
        self.line(f"{self.symbol(name)} {text}")

    def symbol(self, name: str) -> str:
        symbol = _UNICODE[name]
        try:
            symbol.encode(self.stream.encoding or "ascii")
        except (UnicodeEncodeError, LookupError):
            symbol = _PLAIN[name]
        return click.style(symbol, fg=_COLOURS[name]) if name in _COLOURS else symbol

    def problem(self, name: str, problem: Problem) -> None:
        """One line for a warning, with its place and hint."""
        self.mark(name, str(problem))

    def errors(self, problems: Iterable[Problem]) -> None:
        """One line on stderr for each problem, its hint below."""
        for line in error_lines(problems):
            if self.above is not None and sys.stderr.isatty():
                self.above(line if self.colour else click.unstyle(line))
            else:
                _to_stderr(line)


def print_document(document: Any) -> None:
    """Print the one JSON document of a ``--json`` call."""
    _echo(json.dumps(document, indent=2), sys.stdout, colour=False)


def report_error(error: SeeknalError) -> None:
    """Print an error as one line for each problem: ``error: file.yml:12:5: message``, and its hint below."""
    for line in error_lines(error.problems()):
        _to_stderr(line)


def error_lines(problems: Iterable[Problem]) -> list[str]:
    """Lay out problems as :func:`report_error` prints them."""
    lines = []
    for problem in problems:
        where = f"{problem.place}: " if problem.place else ""
        lines.append(f"{click.style('error:', fg='red', bold=True)} {where}{' '.join(problem.message.split())}")
        if problem.hint:
            lines.append(f"  {click.style('hint:', fg='cyan')} {' '.join(problem.hint.split())}")
    return lines


def _to_stderr(line: str) -> None:
    _echo(line, sys.stderr, colour=sys.stderr.isatty() and not os.environ.get("NO_COLOR"))


def _echo(text: str, stream: TextIO, *, colour: bool) -> None:
    try:
        click.echo(text, file=stream, color=colour)
    except BrokenPipeError:
        # Whoever read along (`head`, say) has seen enough. What a command does must not depend on its readers.
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), stream.fileno())


def table(rows: list[list[str]], headings: list[str], *, indent: str = "  ") -> list[str]:
    """Lay out rows below headings, columns separated by `` | ``."""
    widths = [max(len(row[index]) for row in [headings, *rows]) for index in range(len(headings))]
    padded = [[text.ljust(width) for text, width in zip(row, widths, strict=True)] for row in [headings, *rows]]
    lines = [" | ".join(row) for row in padded]
    rule = "-|-".join("-" * width for width in widths)
    return [indent + line.rstrip() for line in [lines[0], rule, *lines[1:]]]
