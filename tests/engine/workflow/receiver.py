"""A real HTTP server for tests, which remembers what it got and answers as it is told."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Got:
    """One request as it came. Names of headers are lower case."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def document(self) -> Any:
        return json.loads(self.body)


#: What a receiver does with a request: it answers with a status, or does as it likes.
Behaviour = int | Callable[[BaseHTTPRequestHandler], None]


@dataclass
class Receiver:
    """A server's memory and its plan. ``behaviours`` are for one request each; then every request gets 200."""

    port: int = 0
    behaviours: list[Behaviour] = field(default_factory=list)
    got: list[Got] = field(default_factory=list)
    #: Set where the test is over, for behaviours that wait.
    over: threading.Event = field(default_factory=threading.Event)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@contextmanager
def receiver(*behaviours: Behaviour) -> Iterator[Receiver]:
    """Run a server for the time of the block."""
    state = Receiver(behaviours=list(behaviours))

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            headers = {name.lower(): value for name, value in self.headers.items()}
            state.got.append(Got(self.command, self.path, headers, body))
            behaviour = state.behaviours.pop(0) if state.behaviours else 200
            if callable(behaviour):
                behaviour(self)
            else:
                respond(self, behaviour, b"said %d" % behaviour)

        do_POST = do_PUT = do_PATCH = do_GET = _answer

        def log_message(self, format: str, *arguments: Any) -> None:
            """Keep stderr for what is tested."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: Any, client_address: Any) -> None:
            """A client that goes away is what some tests are about."""

    server = Server(("127.0.0.1", 0), Handler)
    state.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        state.over.set()
        server.shutdown()
        server.server_close()
        thread.join()


def respond(handler: BaseHTTPRequestHandler, status: int, body: bytes = b"", **headers: str) -> None:
    """Answer with a status; an underscore in a header's name stands for a hyphen."""
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)


def later(status: int = 503, seconds: str = "0") -> Behaviour:
    """Answer that the request should be repeated after some seconds."""
    return lambda handler: respond(handler, status, b"not now", Retry_After=seconds)


def close_mid_body(handler: BaseHTTPRequestHandler) -> None:
    """Announce more than is sent, then close."""
    handler.send_response(200)
    handler.send_header("Content-Length", "100")
    handler.end_headers()
    handler.wfile.write(b"half")
    handler.close_connection = True


def close_at_once(handler: BaseHTTPRequestHandler) -> None:
    """Close without an answer."""
    handler.close_connection = True
