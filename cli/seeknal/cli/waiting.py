"""`--wait [TIME]`: what a command does where another process has what it needs."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from seeknal.quantity import parse_duration

if TYPE_CHECKING:
    from seeknal.state.locks import Patience

F = TypeVar("F", bound=Callable[..., Any])

_FOREVER = "forever"


class _Time(click.ParamType[float]):
    """``30s``, ``5m``, ``1h``, or a number of seconds."""

    name = "time"

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        if value == _FOREVER:
            return math.inf
        seconds = parse_duration(value)
        if seconds is None:
            self.fail(f"'{value}' is no time; write it like 30s, 5m or 1h", parameter, context)
        return seconds


class WaitingCommand(click.Command):
    """A command with ``--wait``, whose time may be left out: what follows and is no time is not its own."""

    def parse_args(self, context: click.Context, args: list[str]) -> list[str]:
        given = []
        for index, arg in enumerate(args):
            if arg == "--":
                given += args[index:]
                break
            follows = args[index + 1] if index + 1 < len(args) else ""
            given.append(f"--wait={_FOREVER}" if arg == "--wait" and parse_duration(follows) is None else arg)
        return super().parse_args(context, given)


def wait_option(function: F) -> F:
    """``--wait [TIME]``; the command's class is :class:`WaitingCommand`."""
    return click.option(
        "--wait",
        type=_Time(),
        default=0.0,
        metavar="[TIME]",
        show_default=False,
        help="Where another process has what is needed, wait for it: at most TIME (30s, 5m), or as long as it takes.",
    )(function)


def patience_of(wait: float) -> Patience:
    """What ``--wait`` says, and how who waits is told for whom."""
    from msgspec.structs import replace

    from seeknal.workflow.heads import AT_ONCE

    return replace(AT_ONCE, seconds=wait, tell=_tell)


def _tell(text: str) -> None:
    from seeknal.cli.console import tell

    tell(f"{text}; Ctrl-C stops waiting")
