"""Exposures of type ``notification``: a message to people or programs that the first input has new content.

- ``channel`` ``webhook`` (also when left out): JSON with the message, the node and its number of rows, or the
  ``payload`` as it is written.
- ``channel`` ``slack``: the message as Slack's webhooks take it, or the ``payload``.

In messages and payloads ``{row_count}`` and ``{node}`` stand for the number of rows and the input's id. A notification
is sent when the content of its input is another than when it was last sent, also where its text is the same.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from seeknal.dag.names import did_you_mean
from seeknal.dag.project import Project
from seeknal.nodes.delivered import ABOUT
from seeknal.nodes.exposure_type import ExposureSpec, field
from seeknal.nodes.http_request import REQUEST_PARAMS, request_problems
from seeknal.nodes.kind import FieldProblem, Task
from seeknal.nodes.late_value import is_late
from seeknal.nodes.workbench import Workbench
from seeknal.store.objects import Artifact, Blob

CHANNELS = ("webhook", "slack")
DEFAULT_MESSAGE = "{node} has new content: {row_count} rows"


class NotificationExposure:
    """A message about a node."""

    params = REQUEST_PARAMS | {"channel", "message", "payload"}

    def check(self, spec: ExposureSpec, project: Project) -> Iterable[FieldProblem]:
        channel = spec.params.get("channel", "webhook")
        if channel == "email":
            message = "notifications by email are not supported"
            yield FieldProblem(message, ("params", "channel"), f"there is: {', '.join(CHANNELS)}")
            return
        if channel not in CHANNELS:
            hint = did_you_mean(str(channel), CHANNELS) or f"there is: {', '.join(CHANNELS)}"
            yield FieldProblem(f"unknown channel '{channel}'", ("params", "channel"), hint)
        yield from request_problems(spec)
        message, at = field(spec, "message")
        payload, payload_at = field(spec, "payload")
        if message is not None and not isinstance(message, str):
            yield FieldProblem("the message must be text", at)
        if payload is not None and not isinstance(payload, dict | list):
            yield FieldProblem("the payload must be an object or a list", payload_at)
        if message is not None and payload is not None:
            yield FieldProblem("message and payload are two ways to say it", payload_at, "leave one out")
        for value, where in ((message, at), (payload, payload_at)):
            if any(is_late(text) for text in _texts(value)):
                hint = "what a notification says is stored; put secrets into url, params.headers or params.auth"
                yield FieldProblem("environment variables cannot be used here", where, hint)

    def verify(self, spec: ExposureSpec, columns: Mapping[str, str]) -> Iterable[FieldProblem]:
        return ()

    def identity(self, spec: ExposureSpec) -> list[Any]:
        return [spec.params.get("channel"), field(spec, "message")[0], field(spec, "payload")[0]]

    def render(self, spec: ExposureSpec, task: Task, bench: Workbench) -> Artifact:
        table = task.inputs[0]
        said = {"{row_count}": str(table.row_count), "{node}": table.node_id}
        body: Any = _filled(field(spec, "payload")[0], said)
        if body is None:
            message = _filled(field(spec, "message")[0] or DEFAULT_MESSAGE, said)
            body = {"message": message, "node": table.node_id, "row_count": table.row_count}
            if spec.params.get("channel") == "slack":
                body = {"text": message}
        # Blobs are named by their content.
        about = {"node": table.node_id, "content": [Path(path).parent.name + Path(path).stem for path in table.paths]}
        return Artifact((), table.row_count, (), (("", _blob(body, bench)), (ABOUT, _blob(about, bench))))


def _blob(value: Any, bench: Workbench) -> Blob:
    file = bench.store.temporary_path(".json")
    try:
        file.write_text(json.dumps(value, ensure_ascii=False) + "\n", encoding="utf-8")
        return bench.store.adopt_file(file)
    finally:
        file.unlink(missing_ok=True)


def _filled(value: Any, said: Mapping[str, str]) -> Any:
    """A value with the placeholders in its texts replaced."""
    if isinstance(value, dict):
        return {name: _filled(inner, said) for name, inner in value.items()}
    if isinstance(value, list):
        return [_filled(inner, said) for inner in value]
    if isinstance(value, str):
        for placeholder, text in said.items():
            value = value.replace(placeholder, text)
    return value


def _texts(value: Any) -> Iterable[str]:
    if isinstance(value, str):
        yield value
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _texts(inner)
