"""Servers that speak Hrana over HTTP: a small one over SQLite that can be made to fail, and the real one, ``sqld``.

The small one does what the specification says a server does, and what ``sqld`` 0.24 was seen to do beyond it: a
transaction that has lasted five seconds is dropped when somebody else wants to write.
"""

from __future__ import annotations

import base64
import contextlib
import json
import secrets
import shutil
import socket
import sqlite3
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

SQLD = shutil.which("sqld")

TRANSACTION_SECONDS = 5.0
STREAM_SECONDS = 10.0

# What may be done to a request: nothing, or one of these before or after it was carried out.
CUT_BEFORE, CUT_AFTER, FAIL_BEFORE, FAIL_AFTER, SLOW = "cut before", "cut after", "500 before", "500 after", "slow"
FAULTS = (CUT_BEFORE, CUT_AFTER, FAIL_BEFORE, FAIL_AFTER)

Fault = Callable[[str], str | None]


class _StreamError(Exception):
    """A request to a stream that is gone."""


@dataclass
class _Stream:
    """One connection, and what tells whether it may be used."""

    connection: sqlite3.Connection
    database: Path
    lock: threading.Lock = field(default_factory=threading.Lock)
    used_at: float = field(default_factory=time.monotonic)
    begun_at: float | None = None
    timed_out: bool = False


class HranaServer:
    """Serves SQLite files, each under a URL of its own. ``fault`` is asked for each request, with its SQL."""

    def __init__(self) -> None:
        self.fault: Fault = lambda sql: None
        self.token = ""
        self.versions = ("v3", "v2")
        self.requests: list[str] = []
        self._streams: dict[str, _Stream] = {}
        self._guard = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def url(self, database: Path) -> str:
        """The URL of a SQLite file."""
        name = base64.urlsafe_b64encode(str(database).encode()).decode().rstrip("=")
        return f"libsql://127.0.0.1:{self._server.server_port}/{name}?tls=0"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        self.forget()

    def forget(self) -> None:
        """Close all streams, and be as new."""
        self.fault, self.token, self.versions = (lambda sql: None), "", ("v3", "v2")
        self.requests.clear()
        with self._guard:
            for stream in self._streams.values():
                stream.connection.close()
            self._streams.clear()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self) -> None:
                super().setup()
                self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                sql = "; ".join(_sql_of(request) for request in body["requests"])
                server.requests.append(sql)
                fault = server.fault(sql)
                if fault == SLOW:
                    time.sleep(1.0)
                if fault == CUT_BEFORE:
                    return self._cut()
                if fault == FAIL_BEFORE:
                    return self._answer(500, b"<html>bad gateway</html>")
                status, answer = server._answer(self.path, self.headers.get("Authorization", ""), body)
                if fault == CUT_AFTER:
                    return self._cut()
                if fault == FAIL_AFTER:
                    return self._answer(502, b"<html>bad gateway</html>")
                return self._answer(status, json.dumps(answer).encode())

            def _cut(self) -> None:
                self.close_connection = True
                with contextlib.suppress(OSError):
                    self.connection.shutdown(socket.SHUT_RDWR)

            def _answer(self, status: int, content: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                with contextlib.suppress(OSError):
                    self.wfile.write(content)

            def log_message(self, format: str, *arguments: object) -> None:
                return

        return Handler

    def _answer(self, path: str, authorization: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        _, name, version, verb = [*path.split("/"), "", "", "", ""][:4]
        if version not in self.versions or verb != "pipeline":
            return 404, {}
        if self.token and authorization != f"Bearer {self.token}":
            return 401, {"message": "Authentication failed", "code": "AUTH_JWT_INVALID"}
        database = Path(base64.urlsafe_b64decode(name + "=" * (-len(name) % 4)).decode())
        try:
            stream = self._stream(body["baton"], database)
        except _StreamError as error:
            return 400, {"message": str(error), "code": "STREAM_EXPIRED"}
        results, closed = [], False
        with stream.lock:
            for request in body["requests"]:
                if request["type"] == "close":
                    stream.connection.close()
                    closed = True
                    results.append(_ok({"type": "close"}))
                else:
                    results.append(self._carry_out(stream, request))
            stream.used_at = time.monotonic()
        baton = None
        if not closed:
            baton = secrets.token_hex(16)
            with self._guard:
                self._streams[baton] = stream
        return 200, {"baton": baton, "base_url": None, "results": results}

    def _stream(self, baton: str | None, database: Path) -> _Stream:
        if baton is None:
            database.parent.mkdir(parents=True, exist_ok=True)
            connection = sqlite3.connect(database, timeout=0, isolation_level=None, check_same_thread=False)
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA foreign_keys=ON")
            return _Stream(connection, database)
        with self._guard:
            stream = self._streams.pop(baton, None)
        if stream is None:
            raise _StreamError("Received an invalid baton")
        if time.monotonic() - stream.used_at > STREAM_SECONDS:
            stream.connection.close()
            raise _StreamError("The stream has expired due to inactivity")
        return stream

    def _carry_out(self, stream: _Stream, request: dict[str, Any]) -> dict[str, Any]:
        if request["type"] == "execute":
            try:
                return _ok({"type": "execute", "result": self._run(stream, request["stmt"])})
            except (sqlite3.Error, _StreamError) as error:
                return {"type": "error", "error": _error(error)}
        if request["type"] == "batch":
            results: list[Any] = []
            errors: list[Any] = []
            for step in request["batch"]["steps"]:
                result = error_ = None
                if _holds(step.get("condition"), results, errors, stream):
                    try:
                        result = self._run(stream, step["stmt"])
                    except (sqlite3.Error, _StreamError) as error:
                        error_ = _error(error)
                results.append(result)
                errors.append(error_)
            return _ok({"type": "batch", "result": {"step_results": results, "step_errors": errors}})
        return {"type": "error", "error": {"message": f"unknown request {request['type']}", "code": "PROTOCOL"}}

    def _run(self, stream: _Stream, statement: dict[str, Any]) -> dict[str, Any]:
        if stream.timed_out:
            stream.timed_out = False
            raise _StreamError("Transaction timed out")
        values = [_decoded(value) for value in statement.get("args", [])]
        cursor = self._wait_to_run(stream, statement["sql"], values)
        rows = cursor.fetchall()
        stream.begun_at = (stream.begun_at or time.monotonic()) if stream.connection.in_transaction else None
        return {
            "cols": [{"name": column[0], "decltype": None} for column in cursor.description or ()],
            "rows": [[_encoded(value) for value in row] for row in rows],
            "affected_row_count": max(cursor.rowcount, 0),
            "last_insert_rowid": None if cursor.lastrowid is None else str(cursor.lastrowid),
        }

    def _wait_to_run(self, stream: _Stream, sql: str, values: list[Any]) -> sqlite3.Cursor:
        deadline = time.monotonic() + TRANSACTION_SECONDS + 1
        while True:
            try:
                return stream.connection.execute(sql, values)
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() > deadline:
                    raise
                self._drop_old_transactions(stream)
                time.sleep(0.002)

    def _drop_old_transactions(self, waiting: _Stream) -> None:
        with self._guard:
            others = [other for other in self._streams.values() if other.database == waiting.database]
        for other in others:
            old = other.begun_at is not None and time.monotonic() - other.begun_at > TRANSACTION_SECONDS
            if old and other.lock.acquire(blocking=False):
                try:
                    other.connection.rollback()
                    other.timed_out, other.begun_at = True, None
                finally:
                    other.lock.release()


def _sql_of(request: dict[str, Any]) -> str:
    if request["type"] == "batch":
        return "; ".join(step["stmt"]["sql"] for step in request["batch"]["steps"])
    return str(request.get("stmt", {}).get("sql", request["type"]))


def _ok(response: dict[str, Any]) -> dict[str, Any]:
    return {"type": "ok", "response": response}


def _error(error: Exception) -> dict[str, Any]:
    if isinstance(error, _StreamError):
        return {"message": str(error), "code": "TRANSACTION_TIMEOUT"}
    return {"message": f"SQLite error: {error}", "code": getattr(error, "sqlite_errorname", "SQLITE_UNKNOWN")}


def _holds(condition: dict[str, Any] | None, results: list[Any], errors: list[Any], stream: _Stream) -> bool:
    if condition is None:
        return True
    kind = condition["type"]
    if kind == "ok":
        return results[condition["step"]] is not None
    if kind == "error":
        return errors[condition["step"]] is not None
    if kind == "not":
        return not _holds(condition["cond"], results, errors, stream)
    if kind == "is_autocommit":
        return not stream.connection.in_transaction
    every = all if kind == "and" else any
    return every(_holds(inner, results, errors, stream) for inner in condition["conds"])


def _decoded(value: dict[str, Any]) -> Any:
    decode: dict[str, Callable[[], Any]] = {
        "null": lambda: None,
        "integer": lambda: int(value["value"]),
        "float": lambda: float(value["value"]),
        "text": lambda: value["value"],
        "blob": lambda: base64.b64decode(value["base64"] + "=="),
    }
    return decode[value["type"]]()


def _encoded(value: Any) -> dict[str, Any]:
    if value is None:
        return {"type": "null"}
    if isinstance(value, int):
        return {"type": "integer", "value": str(value)}
    if isinstance(value, float):
        return {"type": "float", "value": value}
    if isinstance(value, bytes):
        return {"type": "blob", "base64": base64.b64encode(value).decode().rstrip("=")}
    return {"type": "text", "value": value}


class Sqld:
    """Processes of the real server, one for each folder."""

    def __init__(self) -> None:
        self._processes: dict[Path, tuple[subprocess.Popen[bytes], str]] = {}

    def url(self, folder: Path) -> str:
        """The URL of the database in a folder; its server is started where it does not run."""
        if folder not in self._processes:
            self._processes[folder] = self._start(folder)
        return self._processes[folder][1]

    def _start(self, folder: Path) -> tuple[subprocess.Popen[bytes], str]:
        assert SQLD is not None
        folder.mkdir(parents=True, exist_ok=True)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            place = f"127.0.0.1:{free.getsockname()[1]}"
        process = subprocess.Popen(
            [SQLD, "--no-welcome", "--db-path", str(folder / "sqld"), "--http-listen-addr", place],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        while True:
            try:
                urllib.request.urlopen(f"http://{place}/health", timeout=5).close()
                return process, f"http://{place}"
            except (urllib.error.URLError, OSError):
                assert process.poll() is None, "sqld ended"
                time.sleep(0.02)

    def close(self) -> None:
        for process, _ in self._processes.values():
            process.kill()
            process.wait()
        self._processes.clear()
