"""HTTP delivery: the content of an exposure as the body of one request, sent until it is answered or given up.

- *attempt*: one request and its answer. A new one follows where the connection failed or was closed before the answer
  was complete, and where the answer is 429 or of the 500s. Every attempt has the same ``Idempotency-Key``, by which a
  receiver can tell a repetition.
- *success*: an answer of the 200s, received whole. Redirections are not followed: what is delivered goes where the
  node says, and nowhere else.

``timeout`` bounds connecting and every wait for the receiver; ``total_timeout`` bounds all attempts together. Messages
hold no values of environment variables, also where a receiver repeats them.
"""

from __future__ import annotations

import contextlib
import email.utils
import http.client
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from seeknal.errors import DeliveryError
from seeknal.nodes.http_request import Request, RequestSettings, make_request
from seeknal.nodes.late_value import LateValues
from seeknal.redaction import redacted
from seeknal.version import __version__
from seeknal.workflow.limits import StopRequest

if TYPE_CHECKING:
    from urllib3.connection import HTTPConnection

#: The wait before the second attempt; it doubles with every further one.
BACKOFF_SECONDS = 0.5
LONGEST_BACKOFF_SECONDS = 60.0

# How much of an answer is read: enough to see that it came whole, or what it complains of.
_ANSWER_BYTES = 64 * 1024
_SHOWN_CHARACTERS = 200


@dataclass(frozen=True)
class Answer:
    """What a receiver answered. ``retry_after_seconds`` is what it asks for; ``text`` is the start of the body."""

    status: int
    reason: str
    text: str
    location: str = ""
    retry_after_seconds: float | None = None

    @property
    def is_success(self) -> bool:
        return 200 <= self.status < 300

    @property
    def may_pass(self) -> bool:
        """Whether the same request may succeed later."""
        return self.status == 429 or self.status >= 500


class _NoAnswer(Exception):
    """An attempt failed before its answer was there; ``may_pass``: another may not."""

    def __init__(self, why: str, *, may_pass: bool = True) -> None:
        super().__init__(why)
        self.may_pass = may_pass


def send(settings: RequestSettings, body: Path, key: str, values: LateValues, stop: StopRequest | None = None) -> None:
    """Send a file as the body of a request, repeating it where that may help.

    Raises DeliveryError with what the receiver answered or why it did not, OSError where the file cannot be read.
    """
    request = make_request(settings, values)
    if stop is not None and stop.requested:
        raise DeliveryError(f"{settings.shown()}: not sent, because the run was interrupted", hint="run again")
    deadline = time.monotonic() + settings.total_timeout
    attempt = 0
    while True:
        attempt += 1
        wanted_wait: float | None = None
        try:
            answer = _attempt(request, body, key, settings, deadline, stop)
            if answer.is_success:
                return
            may_pass, wanted_wait = answer.may_pass, answer.retry_after_seconds
            why, hint = _refusal(answer)
        except _NoAnswer as failure:
            may_pass, why, hint = failure.may_pass, str(failure), ""
        wait = min(
            BACKOFF_SECONDS * 2 ** (attempt - 1) if wanted_wait is None else wanted_wait, LONGEST_BACKOFF_SECONDS
        )
        stopped = stop is not None and stop.requested
        if not may_pass or attempt > settings.retries or stopped or time.monotonic() + wait >= deadline:
            raise _given_up(settings, why, hint, attempt, stopped)
        _sleep(wait, stop)


def _given_up(settings: RequestSettings, why: str, hint: str, attempts: int, stopped: bool) -> DeliveryError:
    tried = f" (tried {attempts} times)" if attempts > 1 else ""
    interrupted = "; interrupted" if stopped else ""
    return DeliveryError(f"{settings.shown()}: {why}{tried}{interrupted}", hint=hint or "the next run sends it again")


def _refusal(answer: Answer) -> tuple[str, str]:
    said = f": {answer.text}" if answer.text else ""
    why = f"answered {answer.status} {answer.reason}".rstrip() + said
    if 300 <= answer.status < 400 and answer.location:
        parts = urlsplit(answer.location)
        place = f"{parts.scheme}://{parts.netloc}{parts.path}" if parts.netloc else parts.path
        return f"answered {answer.status}: it moved to {place}", "redirections are not followed; write that into url"
    return why, ""


def _sleep(seconds: float, stop: StopRequest | None) -> None:
    """Wait, but not longer than until somebody wants an end."""
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0 and not (stop is not None and stop.requested):
        time.sleep(min(left, 0.1))


def _attempt(
    request: Request, body: Path, key: str, settings: RequestSettings, deadline: float, stop: StopRequest | None
) -> Answer:
    """Send a request once. Raises _NoAnswer, OSError for the file."""
    import urllib3

    parts = urlsplit(request.url)
    timeout = min(settings.timeout, max(deadline - time.monotonic(), 0.001))
    classes: dict[str, type[HTTPConnection]] = {
        "http": urllib3.connection.HTTPConnection,
        "https": urllib3.connection.HTTPSConnection,
    }
    connection = classes[parts.scheme](parts.hostname or "", parts.port, timeout=timeout)
    headers = {
        "Content-Type": "application/json",
        "User-Agent": f"seeknal/{__version__}",
        **request.headers,
        "Idempotency-Key": key,
    }
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    with body.open("rb") as stream, _watched(connection, deadline, stop) as watch:
        try:
            connection.connect()
            watch.socket = connection.sock
            with contextlib.suppress(BrokenPipeError):
                # A receiver that refuses may close before it has read everything, and still have answered.
                length = str(body.stat().st_size)
                connection.request(
                    request.method,
                    target,
                    body=stream,
                    headers={**headers, "Content-Length": length},
                    preload_content=False,
                )
            response = connection.getresponse()
            text = response.read(_ANSWER_BYTES, decode_content=True)
            retry_after = _seconds(response.headers.get("Retry-After"))
            location = response.headers.get("Location") or ""
            if watch.ended:
                # Where the end of the connection is the end of the answer, ending it looks like an answer.
                raise _NoAnswer(watch.ended, may_pass=False)
            return Answer(response.status, response.reason or "", _one_line(text), location, retry_after)
        except (urllib3.exceptions.HTTPError, http.client.HTTPException, OSError, ValueError) as error:
            if watch.ended:
                raise _NoAnswer(watch.ended, may_pass=False) from error
            raise _no_answer(error, timeout) from error
        finally:
            connection.close()


class _Watch:
    """Why a connection was ended from outside; empty where it was not.

    ``socket`` is the connection's, which lets go of it itself when the receiver says that no further answer follows.
    """

    def __init__(self) -> None:
        self.ended = ""
        self.socket: Any = None


@contextmanager
def _watched(connection: HTTPConnection, deadline: float, stop: StopRequest | None) -> Iterator[_Watch]:
    """End a connection where all attempts took too long together, or where somebody insists on an end.

    A timeout of the socket's own counts from each byte to the next, so it bounds no receiver that dribbles.
    """
    watch, done = _Watch(), threading.Event()

    def look() -> None:
        while not done.wait(0.1):
            late, stopped = time.monotonic() > deadline, stop is not None and stop.overdue()
            open_socket = watch.socket or connection.sock
            if (late or stopped) and open_socket is not None:
                watch.ended = "interrupted" if stopped else "no complete answer within the total_timeout"
                with contextlib.suppress(OSError):
                    open_socket.shutdown(socket.SHUT_RDWR)

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield watch
    finally:
        done.set()
        thread.join()


def _no_answer(error: Exception, timeout: float) -> _NoAnswer:
    """Say in our words why there was no answer; what libraries say may hold the whole URL."""
    import urllib3

    inner = error
    while isinstance(inner, urllib3.exceptions.HTTPError) and isinstance(inner.__cause__, Exception):
        inner = inner.__cause__
    if isinstance(inner, ssl.SSLCertVerificationError):
        return _NoAnswer(f"its certificate cannot be verified: {inner.verify_message}", may_pass=False)
    if isinstance(inner, ssl.SSLError):
        return _NoAnswer(f"no secure connection: {inner.reason or 'TLS failed'}")
    if isinstance(error, urllib3.exceptions.NameResolutionError) or isinstance(inner, socket.gaierror):
        return _NoAnswer("its host is not known")
    # It is a timeout, too, by its class.
    if isinstance(error, urllib3.exceptions.NewConnectionError) and isinstance(inner, OSError):
        return _NoAnswer(f"no connection: {inner.strerror or 'failed'}")
    if isinstance(error, urllib3.exceptions.TimeoutError) or isinstance(inner, TimeoutError):
        return _NoAnswer(f"no answer within {timeout:g} s")
    if isinstance(inner, ValueError) and not isinstance(inner, OSError):
        return _NoAnswer("its answer, or the request, is no HTTP", may_pass=False)
    return _NoAnswer("the connection was closed before the answer was complete")


def _seconds(retry_after: str | None) -> float | None:
    """What a Retry-After header asks for: seconds, or a date."""
    if not retry_after:
        return None
    if retry_after.strip().isdigit():
        return float(retry_after)
    with contextlib.suppress(ValueError, TypeError):
        return max(0.0, email.utils.parsedate_to_datetime(retry_after).timestamp() - time.time())
    return None


def _one_line(text: bytes) -> str:
    # Before it is cut: the beginning of a secret is one, too.
    words = " ".join(redacted(text.decode("utf-8", "replace")).split())
    words = "".join(character if character.isprintable() else "?" for character in words)
    return words if len(words) <= _SHOWN_CHARACTERS else words[:_SHOWN_CHARACTERS] + "…"
