"""What the commands print with: marks, headings, colour; to people, never to programs.

Only what :func:`styled` says has an effect on a terminal. All other text may come from somebody else's files, so it is
printed with its control characters spelled out, and without secrets.

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
from seeknal.late_pattern import late_pattern
from seeknal.redaction import redacted
from seeknal.visible_text import visible, visible_cell

RULE = "=" * 60
#: Nobody reads more at once; the first ones may be the cause of the others.
MOST_PROBLEMS = 200

_UNICODE = {"ok": "✓", "info": "ℹ", "warning": "⚠", "error": "✗", "arrow": "→"}
_PLAIN = {"ok": "[OK]", "info": "[INFO]", "warning": "[WARN]", "error": "[ERR]", "arrow": "->"}
_COLOURS = {"ok": "green", "info": "blue", "warning": "yellow", "error": "red"}

# How a style stands in a text until it is printed. No text that comes from elsewhere can hold it.
_STYLE_MARK = os.urandom(8).hex()
_STYLE = late_pattern(rf"<{_STYLE_MARK}:(\d*)>")
_STYLES = {"bold": "1", "red": "31", "green": "32", "yellow": "33", "blue": "34", "cyan": "36", "bright_black": "90"}

_not_printed: list[OSError] = []


def styled(text: str, *styles: str) -> str:
    """A text that looks so where there is colour: ``bold``, or the name of a colour."""
    return "".join(f"<{_STYLE_MARK}:{_STYLES[style]}>" for style in styles) + text + f"<{_STYLE_MARK}:0>"


def for_terminal(text: str, *, colour: bool) -> str:
    """A text as it is printed: its styles, where there is colour, and nothing else that a terminal would obey."""
    said = visible(redacted(text))
    return _STYLE.sub("\x1b[\\1m" if colour else "", said) if _STYLE_MARK in said else said


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
            self.above(for_terminal(text, colour=self.colour))
        else:
            _echo(for_terminal(text, colour=self.colour), self.stream)

    def heading(self, text: str) -> None:
        self.line(styled(text, "bold"))
        self.line(RULE)

    def mark(self, name: str, text: str) -> None:
        self.line(f"{self.symbol(name)} {text}")

    def symbol(self, name: str) -> str:
        symbol = _UNICODE[name]
        try:
            symbol.encode(self.stream.encoding or "ascii")
        except (UnicodeEncodeError, LookupError):
            symbol = _PLAIN[name]
        return styled(symbol, _COLOURS[name]) if name in _COLOURS else symbol

    def problem(self, name: str, problem: Problem) -> None:
        """One line for a warning, with its place and hint."""
        self.mark(name, str(problem))

    def errors(self, problems: Iterable[Problem]) -> None:
        """One line on stderr for each problem, its hint below."""
        for line in error_lines(problems):
            if self.above is not None and sys.stderr.isatty():
                self.above(for_terminal(line, colour=self.colour))
            else:
                tell(line)


def print_document(document: Any) -> None:
    """Print the one JSON document of a ``--json`` call."""
    _echo(json.dumps(_without_secrets(document), indent=2), sys.stdout)


# What programs find things by.
_NAMES = frozenset("node_id kind name env environment status run_id fingerprint snapshot artifact action".split())


def _without_secrets(value: Any) -> Any:
    if isinstance(value, str):
        return redacted(value)
    if isinstance(value, dict):
        return {key: inner if key in _NAMES else _without_secrets(inner) for key, inner in value.items()}
    return [_without_secrets(inner) for inner in value] if isinstance(value, list | tuple) else value


def report_error(error: SeeknalError) -> None:
    """Print an error as one line for each problem: ``error: file.yml:12:5: message``, and its hint below."""
    for line in error_lines(error.problems()):
        tell(line)


def error_lines(problems: Iterable[Problem]) -> list[str]:
    """Lay out problems as :func:`report_error` prints them."""
    lines = []
    said = list(problems)
    for problem in said[:MOST_PROBLEMS]:
        where = f"{problem.place}: " if problem.place else ""
        lines.append(f"{styled('error:', 'red', 'bold')} {where}{' '.join(problem.message.split())}")
        if problem.hint:
            lines.append(f"  {styled('hint:', 'cyan')} {' '.join(problem.hint.split())}")
    if len(said) > MOST_PROBLEMS:
        lines.append(f"{styled('error:', 'red', 'bold')} … and {len(said) - MOST_PROBLEMS:,} more problems")
    return lines


def tell(line: str = "") -> None:
    """Print a line on stderr."""
    _echo(for_terminal(line, colour=sys.stderr.isatty() and not os.environ.get("NO_COLOR")), sys.stderr)


def _echo(text: str, stream: TextIO) -> None:
    try:
        click.echo(text, file=stream, color=True)
    except OSError as error:
        # Whoever read along (`head`, say) has seen enough, or the disk that a log is on is full. What a command does
        # must not depend on that: a promotion that ended here had moved production and delivered half of it.
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), stream.fileno())
        if not isinstance(error, BrokenPipeError):
            _not_printed.append(error)


def not_printed() -> OSError | None:
    """Why something could not be printed; None where all was, or nobody wanted it."""
    return _not_printed[0] if _not_printed else None


def table(rows: list[list[str]], headings: list[str], *, indent: str = "  ") -> list[str]:
    """Lay out rows below headings, columns separated by `` | ``."""
    rows = [[visible_cell(text) for text in row] for row in rows]
    widths = [max(len(row[index]) for row in [headings, *rows]) for index in range(len(headings))]
    padded = [[text.ljust(width) for text, width in zip(row, widths, strict=True)] for row in [headings, *rows]]
    lines = [" | ".join(row) for row in padded]
    rule = "-|-".join("-" * width for width in widths)
    return [indent + line.rstrip() for line in [lines[0], rule, *lines[1:]]]
