"""The messages of Hrana over HTTP, as far as run records need them: values, batches of statements, answers.

- *batch*: statements that run one after the other, each only where the one before it succeeded.

https://github.com/tursodatabase/libsql/blob/main/docs/HRANA_3_SPEC.md
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

import msgspec

Step = tuple[str, tuple[Any, ...]]


class HranaError(msgspec.Struct, frozen=True):
    """What went wrong on the server. ``code`` is SQLite's or the server's own, where it gives one."""

    message: str
    code: str | None = None


class StepResult(msgspec.Struct, frozen=True):
    """What a statement gave: rows of encoded values."""

    rows: list[list[dict[str, Any]]] = []


class BatchResult(msgspec.Struct, frozen=True):
    """What each step of a batch gave; None where it failed or was left out."""

    step_results: list[StepResult | None] = []
    step_errors: list[HranaError | None] = []


class StreamResponse(msgspec.Struct, frozen=True):
    """The answer to a request that could be carried out."""

    type: str
    result: BatchResult | None = None


class StreamResult(msgspec.Struct, frozen=True):
    """The answer to one request of a pipeline."""

    type: str
    response: StreamResponse | None = None
    error: HranaError | None = None


class Answer(msgspec.Struct, frozen=True):
    """The answer to a pipeline. ``baton`` None: the stream has ended; ``base_url``: where to go on with it."""

    baton: str | None
    base_url: str | None
    results: list[StreamResult]


def batch(steps: Sequence[Step]) -> dict[str, Any]:
    """Make the request that runs statements, each with its values."""
    return {
        "type": "batch",
        "batch": {
            "steps": [
                {
                    "stmt": {"sql": statement, "args": [encode_value(value) for value in values]},
                    "condition": {"type": "ok", "step": number - 1} if number else None,
                }
                for number, (statement, values) in enumerate(steps)
            ]
        },
    }


def encode_request(baton: str | None, request: dict[str, Any], *, closing: bool) -> bytes:
    """Make the body of a pipeline of one request, and of the end of the stream where it is ``closing``."""
    return msgspec.json.encode({"baton": baton, "requests": [request, *([{"type": "close"}] if closing else [])]})


def decode_answer(data: bytes) -> Answer:
    """Read the body of an answer. Raises msgspec.MsgspecError."""
    return msgspec.json.decode(data, type=Answer)


def rows_of(answer: Answer) -> tuple[HranaError | None, list[list[tuple[Any, ...]]]]:
    """Give the rows of each statement of a batch, or the first error there is."""
    first = answer.results[0] if answer.results else None
    if first is None or first.error is not None:
        return (first.error if first else None) or HranaError("the server gave no result"), []
    result = first.response.result if first.response else None
    if result is None:
        return HranaError("the server gave no result"), []
    errors = [error for error in result.step_errors if error is not None]
    if errors:
        return errors[0], []
    if None in result.step_results:
        return HranaError("the server left statements out"), []
    return None, [
        [tuple(decode_value(value) for value in row) for row in step.rows] for step in result.step_results if step
    ]


def encode_value(value: Any) -> dict[str, Any]:
    """Encode a value of SQLite. Whole numbers are texts, because JSON's numbers may lose digits."""
    if value is None:
        return {"type": "null"}
    if isinstance(value, int):
        return {"type": "integer", "value": str(int(value))}
    if isinstance(value, float):
        return {"type": "float", "value": value}
    if isinstance(value, bytes):
        return {"type": "blob", "base64": base64.b64encode(value).decode().rstrip("=")}
    return {"type": "text", "value": str(value)}


def decode_value(value: dict[str, Any]) -> Any:
    """Decode a value of SQLite."""
    kind = value.get("type")
    if kind == "integer":
        return int(value["value"])
    if kind == "float":
        return float(value["value"])
    if kind == "text":
        return str(value["value"])
    if kind == "blob":
        return base64.b64decode(value["base64"] + "=" * (-len(value["base64"]) % 4))
    return None
