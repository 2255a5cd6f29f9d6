"""A connection to a libSQL server (``sqld``, Turso), over HTTP.

- *stream*: the server's side of a connection; what runs on one stream is one after the other, and may be a
  transaction. A stream that is not used for some seconds is closed by the server, and its transaction dropped.
- *baton*: what the server gives with each answer, and wants with the next request on the same stream.
- *receipt*: a row that a transaction writes with its commit. Where the answer to a commit is lost on the way, the
  receipt tells what became of it.

The protocol is Hrana 3 over HTTP with JSON, or Hrana 2 where the server has that alone:
https://github.com/tursodatabase/libsql/blob/main/docs/HRANA_3_SPEC.md
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import msgspec

from seeknal.errors import BusyError, SeeknalError, UsageError
from seeknal.state.database_connection import Rows, damaged
from seeknal.state.errors import StateBackendError, TransactionError
from seeknal.state.hrana import Answer, Step, batch, decode_answer, encode_request, rows_of

TOKEN_VARIABLE = "TURSO_AUTH_TOKEN"

_SCHEMES = ("libsql://", "https://", "http://")
_VERSIONS = ("v3", "v2")

_FIRST_PAUSE_SECONDS = 0.02
_LONGEST_PAUSE_SECONDS = 0.5

# What changes nothing may wait for its answer together with what comes after it.
_WRITES = re.compile(r"\s*(INSERT|UPDATE|DELETE|CREATE)\b", re.IGNORECASE)

_RECEIPTS = (
    ("CREATE TABLE IF NOT EXISTS receipts (token TEXT NOT NULL PRIMARY KEY, written_at REAL NOT NULL)", ()),
    ("DELETE FROM receipts WHERE written_at < julianday('now') - 1", ()),
)


class _LostError(StateBackendError):
    """No answer came, or none of the server's own: what was asked may have been done or not."""


def is_libsql_url(db_path: str | Path) -> bool:
    """Say whether this names a server. A Path never does."""
    return isinstance(db_path, str) and db_path.startswith(_SCHEMES)


class ServerAddress(msgspec.Struct, frozen=True):
    """Where a server is: ``url`` to send to, ``token`` from the URL if it had one, ``shown`` for people and logs."""

    url: str
    token: str | None
    shown: str


def server_address(url: str) -> ServerAddress:
    """Read a URL: ``libsql://HOST``, with ``?tls=0`` for plain HTTP and ``?authToken=``, or one of HTTP.

    Raises UsageError. Secrets in the URL are in ``token`` alone.
    """
    parts = urlsplit(url)
    try:
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host:
        raise UsageError(
            "the URL of the database names no server", hint="write it like libsql://HOST or http://HOST:8080"
        )
    query = parse_qs(parts.query)
    scheme = parts.scheme
    if scheme == "libsql":
        scheme = "http" if query.get("tls") == ["0"] else "https"
    place = f"{f'[{host}]' if ':' in host else host}{f':{port}' if port else ''}{parts.path.rstrip('/')}"
    token = query.get("authToken", [None])[-1] or parts.password
    return ServerAddress(f"{scheme}://{place}", token, f"{parts.scheme}://{place}")


class LibsqlConnection:
    """A connection to a libSQL server. Raises as :meth:`~seeknal.state.database_connection.Connection.execute`.

    Statements outside a transaction are repeated where their answer is lost, so only such may be asked for that do no
    harm twice. Within a transaction, statements that write are sent together with the next that reads, or with the
    commit; an error of theirs shows then.
    """

    def __init__(self, url: str, auth_token: str | None, wait_seconds: float) -> None:
        import urllib3

        self._address = server_address(url)
        token = auth_token or self._address.token or os.environ.get(TOKEN_VARIABLE, "")
        self._headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {token}"} if token else {})}
        self._wait_seconds = wait_seconds
        self._pid = os.getpid()
        self._http = urllib3.PoolManager(retries=False, timeout=urllib3.Timeout(wait_seconds, read=wait_seconds + 5))
        self._http_error: type[Exception] = urllib3.exceptions.HTTPError
        self._version = ""
        self._is_open = True
        self._begun = False
        self._writing = False
        self._baton: str | None = None
        self._stream_url = self._address.url
        self._unsent: list[Step] = []

    def execute(self, statement: str, values: Sequence[Any] = ()) -> Rows:
        if not self._is_open:
            raise StateBackendError(f"the connection to {self._address.shown} is closed")
        step = (statement, tuple(values))
        if not self._begun:
            return self._patiently(lambda: self._send([step], closing=True))[-1]
        if self._writing and _WRITES.match(statement):
            self._unsent.append(step)
            return []
        return self._flush(step)[-1]

    def write_ahead(self) -> None:
        """Do nothing: that is the server's affair."""

    def begin(self, *, writing: bool) -> None:
        # A stream whose first answer was lost holds nothing that is missed, and the server closes it.
        self._patiently(lambda: self._send([("BEGIN IMMEDIATE" if writing else "BEGIN", ())], opening=True))
        self._begun, self._writing = True, writing

    def commit(self) -> None:
        token = secrets.token_hex(16)
        receipt = ("INSERT INTO receipts (token, written_at) VALUES (?, julianday('now'))", (token,))
        steps = [*self._unsent, *_RECEIPTS, receipt, ("COMMIT", ())]
        try:
            self._send(steps, closing=True)
        except _LostError as lost:
            self._forget_stream()
            if not self._was_committed(token, lost):
                raise TransactionError(f"{lost.message}; nothing was kept", hint=lost.hint) from lost
        self._forget_stream()

    def rollback(self) -> None:
        if self._begun and self._baton is not None:
            with contextlib.suppress(SeeknalError):
                self._send([("ROLLBACK", ())], closing=True)
        self._forget_stream()

    def is_current(self) -> bool:
        return self._is_open and self._pid == os.getpid()

    def close(self) -> None:
        if self._is_open and self._pid == os.getpid():
            self.rollback()
            self._http.clear()
        self._is_open = False

    def _flush(self, *more: Step) -> list[Rows]:
        steps, self._unsent = [*self._unsent, *more], []
        return self._send(steps)

    def _was_committed(self, token: str, lost: _LostError) -> bool:
        """Find out what became of a commit whose answer was lost.

        Who may write is alone in that. So once this connection may, the lost transaction has ended, one way or the
        other, and its receipt is there or will never be.
        """
        try:
            self.begin(writing=True)
            return bool(self._flush(("SELECT 1 FROM receipts WHERE token = ?", (token,)))[-1])
        except SeeknalError as error:
            if "no such table" in error.message:
                return False
            raise StateBackendError(
                f"{lost.message}; it is unknown whether what was written just now was kept",
                hint="look whether it is there when the server can be reached again, before writing it again",
            ) from error
        finally:
            self.rollback()

    def _patiently(self, ask: Callable[[], list[Rows]]) -> list[Rows]:
        """Ask again, while there is patience, where another writes or no answer came."""
        deadline = time.monotonic() + self._wait_seconds
        pause_seconds = _FIRST_PAUSE_SECONDS
        while True:
            try:
                return ask()
            except (_LostError, BusyError):
                self._forget_stream()
                if time.monotonic() + pause_seconds > deadline:
                    raise
                time.sleep(pause_seconds)
                pause_seconds = min(pause_seconds * 2, _LONGEST_PAUSE_SECONDS)

    def _forget_stream(self) -> None:
        self._begun, self._writing, self._baton, self._unsent = False, False, None, []
        self._stream_url = self._address.url

    # requests

    def _send(self, steps: Sequence[Step], *, opening: bool = False, closing: bool = False) -> list[Rows]:
        """Run statements on the stream, each if the one before it succeeded; gives the rows of each.

        ``opening``: on a new stream; ``closing``: the stream ends with them.
        """
        if not (opening or closing) and self._baton is None:
            raise _LostError(f"{self._address.shown} ended the transaction", hint="try again")
        baton = None if opening else self._baton
        # Whatever happens to the answer, the old baton is spent.
        self._baton = None
        answer = self._ask(baton, encode_request(baton, batch(steps), closing=closing))
        if not closing:
            self._baton = answer.baton
            self._stream_url = self._checked(answer.base_url) or self._stream_url
        error, rows = rows_of(answer)
        if error is not None:
            raise self._translated(error.message, error.code)
        return rows

    def _ask(self, baton: str | None, body: bytes) -> Answer:
        for version in (self._version,) if self._version else _VERSIONS:
            try:
                response = self._http.request(
                    "POST", f"{self._stream_url}/{version}/pipeline", body=body, headers=self._headers, redirect=False
                )
            except self._http_error as error:
                raise _LostError(
                    f"{self._address.shown} does not answer: {_reason(error)}", hint="check its URL, and the network"
                ) from None
            if response.status != 404:
                self._version = version
                break
        status, data = response.status, response.data
        if status in (401, 403):
            raise StateBackendError(
                f"{self._address.shown} refuses the token (HTTP {status})",
                hint=f"put one that may read and write into {TOKEN_VARIABLE}",
            )
        if status == 404:
            raise StateBackendError(
                f"{self._address.shown} is no libSQL server: it speaks neither Hrana 3 nor Hrana 2 over HTTP",
                hint="give the URL of a libSQL server: sqld, or Turso",
            )
        if status == 400 and baton is not None:
            raise _LostError(f"{self._address.shown} ended the transaction: {_beginning(data)}", hint="try again")
        if status >= 500:
            raise _LostError(f"{self._address.shown} failed with HTTP {status}", hint="try again; look at its log")
        if status != 200:
            raise StateBackendError(f"{self._address.shown} answered with HTTP {status}: {_beginning(data)}")
        try:
            return decode_answer(data)
        except msgspec.MsgspecError as error:
            raise _LostError(f"the answer of {self._address.shown} cannot be read: {error}") from error

    def _checked(self, base_url: str | None) -> str | None:
        """Where the stream goes on; never without the encryption that it began with."""
        if base_url is None:
            return None
        if self._address.url.startswith("https://") and not base_url.startswith("https://"):
            raise StateBackendError(
                f"{self._address.shown} wants to go on without encryption", hint="look at its settings"
            )
        return base_url.rstrip("/")

    def _translated(self, message: str, code: str | None) -> SeeknalError:
        said, where = " ".join(message.split()), self._address.shown
        word = f"{code or ''} {said}"
        if re.search(r"BUSY|LOCKED|database is locked|too many concurrent", word):
            return BusyError(f"{where} is locked: {said}", hint="try again when the other writer is done")
        if re.search(r"STREAM_EXPIRED|BATON|TRANSACTION_TIMEOUT|stream has expired|transaction.*timed? ?out", word):
            return _LostError(f"{where} ended the transaction: {said}", hint="try again")
        if re.search(r"SQLITE_CORRUPT|SQLITE_NOTADB|SQLITE_ERROR|SQL_PARSE|SQLITE_UNKNOWN.*no such", word):
            return damaged(where, f"it is not as Seeknal made it: {said}")
        return StateBackendError(f"cannot use {where}: {said}")


def _reason(error: Exception) -> str:
    """What an error of HTTP says, without the URL and the objects that it names."""
    cause = getattr(error, "reason", None) or error
    said = " ".join(str(cause).split())
    return (
        re.sub(r"^.*?object at 0x[0-9a-f]+>[,:]? ?|^HTTPS?Connection(Pool)?\([^)]*\):? ?", "", said)
        or type(error).__name__
    )


def _beginning(data: bytes) -> str:
    return " ".join(data[:200].decode(errors="replace").split())


__all__ = ["LibsqlConnection", "ServerAddress", "is_libsql_url", "server_address"]
