"""The kind ``exposure``: a node's rows for the world outside.

Executing an exposure renders what is to be delivered into the store, like any output. It reaches its place outside
when the environment's ref has moved (see :mod:`seeknal.workflow.delivery`); so nothing outside is touched by a run that
failed, nor, in production's places, by another environment, and promoting or rolling back delivers again without
computing anything.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from seeknal.dag.names import did_you_mean, nearest
from seeknal.dag.project import Project
from seeknal.nodes.api_exposure import ApiExposure
from seeknal.nodes.exposure_type import ExposureSpec, ExposureType
from seeknal.nodes.file_exposure import FileExposure, output_path
from seeknal.nodes.kind import FieldProblem, Kind, Surroundings, Task
from seeknal.nodes.notification_exposure import NotificationExposure
from seeknal.nodes.workbench import Workbench
from seeknal.store.objects import Artifact

EXPOSURE_TYPES: dict[str, ExposureType] = {
    "file": FileExposure(),
    "api": ApiExposure(),
    "notification": NotificationExposure(),
}

# Types that projects may hold already: what to say of each, and the way out.
_REFUSED = {
    "database": ("is not available yet", "write a file that the database loads: type: file"),
    "report": ("is not supported", "write a file: type: file"),
    "starrocks_materialized_view": ("is not supported", "write a file that StarRocks loads: type: file"),
}


class ExposureKind(Kind):
    """The rows of the first input, outside."""

    name = "exposure"
    spec = ExposureSpec
    makes_table = False

    def check(self, spec: ExposureSpec, project: Project) -> Iterable[FieldProblem]:
        if spec.type in _REFUSED:
            what, hint = _REFUSED[spec.type]
            yield FieldProblem(f"exposure type '{spec.type}' {what}", ("type",), hint)
            return
        type_ = EXPOSURE_TYPES.get(spec.type)
        if type_ is None:
            hint = did_you_mean(spec.type, EXPOSURE_TYPES)
            yield FieldProblem(f"unknown exposure type '{spec.type}'", ("type",), hint)
            return
        if not spec.inputs and not spec.depends_on:
            yield FieldProblem("an exposure needs an input", ("inputs",), "add `inputs: [{ref: kind.name}]`")
        for name in spec.params:
            # Others are named values for templates.
            if name not in type_.params and nearest(name, type_.params, 1):
                hint = did_you_mean(name, type_.params)
                yield FieldProblem(f"unknown param '{name}' of type '{spec.type}'", ("params", name), hint)
        for name in ("path", "format", "url"):
            value = spec.params.get(name)
            if value is not None and not isinstance(value, str):
                yield FieldProblem(f"'{name}' must be text", ("params", name))
            elif value is not None and getattr(spec, name) is not None:
                yield FieldProblem(f"'{name}' is given twice", ("params", name), "keep one of them")
        yield from type_.check(spec, project)

    def verify(
        self, spec: ExposureSpec, inputs: Sequence[Mapping[str, str] | None], schema: Mapping[str, str] | None
    ) -> Iterable[FieldProblem]:
        columns = inputs[0] if inputs else None
        return () if columns is None else EXPOSURE_TYPES[spec.type].verify(spec, columns)

    def delivers_to(self, spec: ExposureSpec) -> str | None:
        return output_path(spec) if spec.type == "file" else None

    def identity(self, spec: ExposureSpec, around: Surroundings) -> list[Any]:
        return [spec.type, *EXPOSURE_TYPES[spec.type].identity(spec)]

    def execute(self, task: Task, bench: Workbench) -> Artifact:
        spec = msgspec.convert(task.spec, ExposureSpec)
        return EXPOSURE_TYPES[spec.type].render(spec, task, bench)
