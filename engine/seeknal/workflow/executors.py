"""The parameters of the Python node that runs now, for code that has no context at hand.

A worker sets them as environment variables while it calls a node's function, so that programs that the function starts
see them too: ``SEEKNAL_PARAM_REGION`` for the param ``region``. Values are texts.
"""

from __future__ import annotations

import os
from typing import overload

from seeknal.nodes.function_reference import PREFIX


@overload
def get_param(name: str) -> str | None: ...


@overload
def get_param(name: str, default: str) -> str: ...


def get_param(name: str, default: str | None = None) -> str | None:
    """A parameter of the node as text, or the default where it has none of this name."""
    return os.environ.get(f"{PREFIX}{name.upper()}", default)


def has_param(name: str) -> bool:
    """Say whether the node has a parameter of this name."""
    return f"{PREFIX}{name.upper()}" in os.environ


def list_params() -> dict[str, str]:
    """All parameters of the node: name in lower case → text."""
    return {key[len(PREFIX) :].lower(): value for key, value in os.environ.items() if key.startswith(PREFIX)}
