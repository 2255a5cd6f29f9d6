"""The kind ``transform``: a table computed by SQL from other nodes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from seeknal.dag.project import Project
from seeknal.nodes.kind import FieldProblem, Query, Surroundings, Task
from seeknal.nodes.workbench import Workbench
from seeknal.store.objects import Artifact


class TransformSpec(msgspec.Struct, frozen=True, kw_only=True):
    """The fields of a transform. ``output`` documents the columns and changes nothing."""

    transform: str
    inputs: list[Any] = []
    params: dict[str, Any] = {}
    output: dict[str, Any] = {}


class TransformKind:
    """SQL over the node's inputs; the last SELECT is the output."""

    name = "transform"
    spec = TransformSpec
    makes_table = True
    reads_outside = False

    def check(self, spec: TransformSpec, project: Project) -> Iterable[FieldProblem]:
        return ()

    def query(self, spec: TransformSpec, inputs: Sequence[str]) -> Query:
        return Query(spec.transform, ("transform",), 0, len(spec.transform))

    def schema(
        self, spec: TransformSpec, inputs: Sequence[dict[str, str] | None], around: Surroundings
    ) -> dict[str, str] | None:
        return None

    def declared(self, spec: TransformSpec) -> dict[str, str] | None:
        return None

    def delivers_to(self, spec: TransformSpec) -> str | None:
        return None

    def identity(self, spec: TransformSpec, around: Surroundings) -> list[Any]:
        return []

    def execute(self, task: Task, bench: Workbench) -> Artifact:
        return bench.store_query(task)
