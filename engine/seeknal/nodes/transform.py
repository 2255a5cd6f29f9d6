"""The kind ``transform``: a table computed by SQL from other nodes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from seeknal.nodes.kind import Kind, Query


class OutputFields(msgspec.Struct, frozen=True, kw_only=True):
    """What is said of a transform's output.

    - ``columns``: documentation of the columns, by name; changes nothing
    """

    columns: dict[str, Any] = {}


class TransformSpec(msgspec.Struct, frozen=True, kw_only=True):
    """The fields of a transform.

    - ``transform``: DuckDB's SQL: one SELECT, before it any number of ``CREATE TEMP TABLE``, ``VIEW`` or ``MACRO``
    - ``inputs``: the nodes that it reads, in the order of their positions; nodes that the SQL names are added
    - ``params``: values for templates
    - ``output``: documentation; changes nothing
    """

    transform: str
    inputs: list[Any] = []
    params: dict[str, Any] = {}
    output: OutputFields = OutputFields()


class TransformKind(Kind):
    """SQL over the node's inputs; the last SELECT is the output."""

    name = "transform"
    spec = TransformSpec

    def query(self, spec: TransformSpec, inputs: Sequence[str]) -> Query:
        return Query(spec.transform, ("transform",), 0, len(spec.transform))
