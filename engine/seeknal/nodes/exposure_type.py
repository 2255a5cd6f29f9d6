"""What a type of exposure is: the seam behind the kind ``exposure``.

A type checks its own fields, and renders what is to be delivered into the store, as side blobs of the artifact. How
that reaches its place is delivery's part (:mod:`seeknal.workflow.delivery`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from seeknal.dag.project import Project
from seeknal.nodes.kind import FieldProblem, Task
from seeknal.store.objects import Artifact

if TYPE_CHECKING:
    from seeknal.nodes.workbench import Workbench


class ExposureSpec(msgspec.Struct, frozen=True, kw_only=True):
    """The fields of an exposure. All but ``type``, ``inputs`` and ``depends_on`` may stand in ``params`` too.

    - ``type``: ``file``, ``api`` or ``notification``
    - ``inputs``: the node whose rows are exposed: the first
    - ``depends_on``: the same as ``inputs``
    - ``path``: of a file, and required there: relative to the project's folder; with ``partition_by`` a folder
    - ``format``: of a file: ``csv``, ``parquet``, ``json`` (one array) or ``jsonl``; without it what the path's ending
      says, else ``csv``
    - ``url``: of an ``api`` or a ``notification``, and required there
    - ``message``: what a notification says, as text
    - ``payload``: what a notification says, as JSON
    - ``params``: further settings of the type; those above may stand here too
    """

    type: str = "file"
    inputs: list[Any] = []
    depends_on: list[Any] = []
    path: str | None = None
    format: str | None = None
    url: str | None = None
    message: str | None = None
    payload: dict[str, Any] | list[Any] | None = None
    params: dict[str, Any] = {}


class ExposureType(Protocol):
    """One type of exposure. Implementations hold no state. ``params`` are the names that ``params`` may hold."""

    @property
    def params(self) -> frozenset[str]: ...

    def check(self, spec: ExposureSpec, project: Project) -> Iterable[FieldProblem]:
        """Find what is wrong with the fields."""
        ...

    def verify(self, spec: ExposureSpec, columns: Mapping[str, str]) -> Iterable[FieldProblem]:
        """Find what is wrong with the fields for an input of these columns."""
        ...

    def identity(self, spec: ExposureSpec) -> list[Any]:
        """What the rendered content depends on beside the input. Where it is delivered to is no part of that."""
        ...

    def render(self, spec: ExposureSpec, task: Task, bench: Workbench) -> Artifact:
        """Put what is to be delivered into the store. Raises SeeknalError or duckdb.Error."""
        ...


def field(spec: ExposureSpec, name: str) -> tuple[Any, tuple[str | int, ...]]:
    """A field's value and its path, whether it stands at the top or in ``params``."""
    value = getattr(spec, name, None)
    if value is not None:
        return value, (name,)
    return spec.params.get(name), ("params", name)
