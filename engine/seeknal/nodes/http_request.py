"""The HTTP request of an exposure: what a node's fields say about it, checked, and made when it is sent.

- *request settings*: the fields as they are written; texts in them may be late values.
- *request*: the same with late values resolved, ready to be sent.

A secret stands in a late value only (:mod:`seeknal.nodes.late_value`), so that no file of ours ever holds it.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import urlsplit

import msgspec

from seeknal.dag.names import did_you_mean
from seeknal.errors import DeliveryError
from seeknal.nodes.exposure_type import ExposureSpec, field
from seeknal.nodes.kind import FieldProblem
from seeknal.nodes.late_value import LateValues, UnsetVariableError, is_late
from seeknal.redaction import hide

METHODS = ("POST", "PUT", "PATCH")

DEFAULT_TIMEOUT_SECONDS = 30.0
DEFAULT_TOTAL_TIMEOUT_SECONDS = 300.0
DEFAULT_RETRIES = 3
MOST_RETRIES = 20

#: The params that every exposure over HTTP has.
REQUEST_PARAMS = frozenset({"url", "method", "headers", "auth", "timeout", "total_timeout", "retries"})

_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_SECRET_HEADER = re.compile(r"authorization|cookie|token|secret|password|api-?key", re.IGNORECASE)
_OWN_HEADERS = frozenset({"host", "content-length", "transfer-encoding", "connection", "idempotency-key"})
_AUTH_FIELDS = {
    "bearer": ("token",),
    "basic": ("username", "password"),
    "header": ("name", "value"),
}
_LATE_HINT = "write it as `{{ env:NAME }}` and set that variable where Seeknal runs"


class RequestSettings(msgspec.Struct, frozen=True):
    """How an exposure's content is sent. Times are in seconds; ``auth`` has its ``type`` always."""

    url: str
    method: str = "POST"
    headers: dict[str, str] = {}
    auth: dict[str, str] = {}
    timeout: float = DEFAULT_TIMEOUT_SECONDS
    total_timeout: float = DEFAULT_TOTAL_TIMEOUT_SECONDS
    retries: int = DEFAULT_RETRIES

    def shown(self) -> str:
        """The request for people: the URL as it is written, without what may be secret in it."""
        if is_late(self.url):
            return f"{self.method} {self.url}"
        parts = urlsplit(self.url)
        return f"{self.method} {parts.scheme}://{parts.netloc}{parts.path}"


class Request(msgspec.Struct, frozen=True):
    """What is sent: an absolute URL of http or https, and every header but those of the connection."""

    url: str
    method: str
    headers: Mapping[str, str]


def request_problems(spec: ExposureSpec) -> Iterable[FieldProblem]:
    """Find what is wrong with the fields of a request."""
    url, at = field(spec, "url")
    if not isinstance(url, str) or not url.strip():
        yield FieldProblem(f"an exposure of type '{spec.type}' needs a url", at if url is not None else ())
    elif not is_late(url) and (wrong := _wrong_url(url)):
        yield FieldProblem(f"url: {wrong}", at)
    method = spec.params.get("method", "POST")
    if str(method).upper() not in METHODS:
        yield FieldProblem(f"method must be {', '.join(METHODS)}, not {method!r}", ("params", "method"))
    yield from _header_problems(spec.params.get("headers"))
    yield from _auth_problems(spec.params.get("auth"))
    for name, most in (("timeout", 3600), ("total_timeout", 24 * 3600)):
        value = spec.params.get(name)
        if value is not None and (not _is_number(value) or not 0 < value <= most):
            message = f"{name} must be a number of seconds, more than 0 and at most {most}, not {value!r}"
            yield FieldProblem(message, ("params", name))
    retries = spec.params.get("retries")
    if retries is not None and (not _is_number(retries) or retries != int(retries) or not 0 <= retries <= MOST_RETRIES):
        yield FieldProblem(f"retries must be a whole number from 0 to {MOST_RETRIES}", ("params", "retries"))


def request_settings(spec: ExposureSpec) -> RequestSettings:
    """Read the fields of a request, which were checked."""
    params = spec.params
    auth = {name: str(value) for name, value in (params.get("auth") or {}).items()}
    return RequestSettings(
        url=str(field(spec, "url")[0]).strip(),
        method=str(params.get("method") or "POST").upper(),
        headers={name: str(value) for name, value in (params.get("headers") or {}).items()},
        auth={"type": _auth_type(auth), **auth} if auth else {},
        timeout=float(params.get("timeout") or DEFAULT_TIMEOUT_SECONDS),
        total_timeout=float(params.get("total_timeout") or DEFAULT_TOTAL_TIMEOUT_SECONDS),
        retries=int(params.get("retries", DEFAULT_RETRIES)),
    )


def make_request(settings: RequestSettings, values: LateValues) -> Request:
    """Resolve what is late. Raises DeliveryError for a variable that is not set, or a value that cannot be sent."""
    try:
        url = values.resolve(settings.url).strip()
        if wrong := _wrong_url(url):
            raise DeliveryError(f"the url that {settings.url} gives cannot be used: {wrong}")
        headers = {name: values.resolve(value) for name, value in settings.headers.items()}
        headers.update(_auth_header({name: values.resolve(value) for name, value in settings.auth.items()}))
    except UnsetVariableError as error:
        hint = "set it where Seeknal runs, or give it a default: `{{ env:NAME|default }}`"
        raise DeliveryError(str(error), hint=hint) from error
    for name, value in headers.items():
        if not _HEADER_NAME.fullmatch(name) or any(ord(character) < 32 or ord(character) > 255 for character in value):
            raise DeliveryError(f"the value of header '{name}' has characters that no header can have")
    return Request(url, settings.method, headers)


def _auth_header(auth: Mapping[str, str]) -> dict[str, str]:
    type_ = auth.get("type")
    if type_ == "bearer":
        return {"Authorization": f"Bearer {auth['token']}"}
    if type_ == "basic":
        pair = base64.b64encode(f"{auth['username']}:{auth['password']}".encode()).decode()
        hide(pair)
        return {"Authorization": f"Basic {pair}"}
    return {auth["name"]: auth["value"]} if type_ == "header" else {}


def _wrong_url(url: str) -> str:
    """Say what is wrong with a URL without repeating it; empty where it can be used."""
    try:
        parts = urlsplit(url)
        port_is_right = parts.port is None or parts.port > 0
    except ValueError:
        return "it is no URL"
    if parts.scheme not in ("http", "https"):
        return "it must begin with http:// or https://"
    if not parts.hostname or not port_is_right or any(ord(character) <= 32 for character in url):
        return "it is no URL"
    if parts.username is not None or parts.password is not None:
        return "user and password stand in it; give them as params.auth"
    return ""


def _header_problems(headers: Any) -> Iterable[FieldProblem]:
    if headers is None:
        return
    if not isinstance(headers, dict):
        yield FieldProblem("headers must be an object of names and values", ("params", "headers"))
        return
    for name, value in headers.items():
        at = ("params", "headers", name)
        if not isinstance(name, str) or not _HEADER_NAME.fullmatch(name):
            yield FieldProblem(f"{name!r} cannot be the name of a header", at)
        elif name.lower() in _OWN_HEADERS:
            yield FieldProblem(f"the header '{name}' is set by Seeknal", at, "leave it out")
        elif not isinstance(value, str | int | float):
            yield FieldProblem(f"the value of header '{name}' must be text", at)
        elif _SECRET_HEADER.search(name) and not is_late(str(value)):
            yield FieldProblem(f"the header '{name}' holds a secret in plain text", at, _LATE_HINT)


def _auth_problems(auth: Any) -> Iterable[FieldProblem]:
    at: tuple[str | int, ...] = ("params", "auth")
    if auth is None:
        return
    if not isinstance(auth, dict):
        hint = 'write `auth: {type: bearer, token: "{{ env:API_TOKEN }}"}`'
        yield FieldProblem("auth must be an object", at, hint)
        return
    type_ = _auth_type(auth)
    if type_ not in _AUTH_FIELDS:
        hint = did_you_mean(type_, _AUTH_FIELDS) or f"there is: {', '.join(_AUTH_FIELDS)}"
        yield FieldProblem(f"unknown type of auth '{type_}'", at, hint)
        return
    wanted = _AUTH_FIELDS[type_]
    for name in auth:
        if name not in ("type", *wanted):
            hint = did_you_mean(str(name), wanted) or f"it has: {', '.join(wanted)}"
            yield FieldProblem(f"auth of type '{type_}' has no '{name}'", (*at, name), hint)
    for name in wanted:
        value = auth.get(name)
        if not isinstance(value, str) or not value:
            yield FieldProblem(f"auth of type '{type_}' needs '{name}' as text", (*at, name) if name in auth else at)
        elif name in ("token", "password", "value") and not is_late(value):
            yield FieldProblem(f"auth: '{name}' is a secret in plain text", (*at, name), _LATE_HINT)
        elif name == "name" and value.lower() in _OWN_HEADERS:
            yield FieldProblem(f"the header '{value}' is set by Seeknal", (*at, name))


def _auth_type(auth: Mapping[str, Any]) -> str:
    """The type that auth names, else the one that its fields are of."""
    said = auth.get("type")
    if said is not None:
        return str(said).lower()
    return next((type_ for type_, fields in _AUTH_FIELDS.items() if fields[-1] in auth), "")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
