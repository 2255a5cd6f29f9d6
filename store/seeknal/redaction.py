"""Secrets: values that no text of ours may show, and the one place where texts lose them.

Messages, hints, records of runs and the logs of functions go through :func:`redacted`; data does not.

- *secret*: the value of a variable that a project names as ``env:NAME``, that its code reads by name, that stands in
  ``.env``, or whose name says what it is (``…_TOKEN``, ``…PASSWORD…``, ``…_KEY``). Each process knows its own; a worker
  is told by its task.
- *form*: how a secret may stand in a text: as it is, or as SQL, JSON, Python, a shell, HTML, a URL, base64 or
  hexadecimal digits write it.

Values that are too short, plain words such as ``true``, and the names of the project's nodes and environments are no
secrets: without them a text would say nothing. The latter are where the variable's name says that its value is one.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping

from seeknal.late_pattern import late_pattern

#: What stands in a text in place of a secret.
MASK = "***"

#: Shorter values hide nothing from who guesses, and stand in every other text.
SHORTEST_SECRET = 4
#: Shorter numbers are years, ports and counts.
SHORTEST_NUMBER = 6
#: From this length on a secret is found inside of words and in any case; a shorter one as a word of its own.
LONG_SECRET = 8
#: Shorter parts of a path are words like "services".
SHORTEST_PART = 9
# A longer text is cut before it is searched for what may be left of a secret at its cut.
_LONGEST_LEFT_OVER = 4096

_PLAIN_WORDS = frozenset("true false none null prod production default localhost seeknal".split())
_SECRET_NAME = late_pattern(
    r"TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE|CREDENTIALS?|API_?KEY|ACCESS_?KEY|PRIVATE_?KEY|WEBHOOK|"
    r"_KEY$|_PASS$|_PWD$|_DSN$|_AUTH$|^DSN$",
    re.IGNORECASE,
)
_OWN_NAME = late_pattern(r"SEEKNAL_", re.IGNORECASE)
_READ_BY_NAME = late_pattern(r"""(?:environ\s*(?:\.\s*(?:get|pop|setdefault)\s*\(|\[)|getenv\s*\()\s*['"](\w+)['"]""")
_CUT = late_pattern(r"…|\.\.\.")

# Each value with whether it is one for certain, whatever else has that name.
_known: dict[str, bool] = {}
_names: set[str] = set()
# Every form with its lower case, the longest first; None where it has to be made anew.
_forms: list[tuple[str, str]] | None = None


def hide(*values: str, certain: bool = True) -> None:
    """Remember values that no text may show, from now to the end of the process.

    Those that are not ``certain`` are shown where they are also names; see :func:`show_names`.
    """
    global _forms
    for value in values:
        if not _known.get(value, False) and (certain or value not in _known) and _is_secret(value):
            _known[value] = certain
            _forms = None


def show_names(names: Iterable[str]) -> None:
    """Say what the project calls its nodes and environments: a value that is such a name hides nothing."""
    global _forms
    # Most are in lower case already, and are in memory.
    new = {name if name.islower() else name.lower() for name in names} - _names
    if new:
        _names.update(new)
        _forms = None


def hide_variables(names: Iterable[str], environment: Mapping[str, str] | None = None) -> None:
    """Hide the values of environment variables, as far as they are set; of a URL, what may be secret in it, too."""
    environment = os.environ if environment is None else environment
    for name in names:
        value = environment.get(name)
        if value:
            hide(value, *_parts(value), certain=is_secret_name(name))


def hide_variables_read_in(code: str) -> None:
    """Hide the values of the environment variables that a piece of Python reads by name."""
    if "environ" in code or "getenv" in code:
        hide_variables(_READ_BY_NAME.findall(code))


def is_secret_name(name: str) -> bool:
    """Say whether a variable's name says that its value is a secret."""
    return bool(_SECRET_NAME.search(name))


def is_setting_of_ours(name: str) -> bool:
    """Say whether a variable only says how Seeknal works."""
    return bool(_OWN_NAME.match(name)) and not is_secret_name(name)


def secrets() -> tuple[bytes, ...]:
    """All that this process hides, for one that works on its behalf."""
    _all_forms()
    return tuple(map(os.fsencode, _effective()))


def hide_secrets(secrets: Iterable[bytes]) -> None:
    """Hide what another process hides."""
    hide(*map(os.fsdecode, secrets))


def forget() -> None:
    """Hide nothing any more: for tests, which share a process."""
    global _forms
    _known.clear()
    _names.clear()
    _forms = None


def holds_named_secret(text: str) -> bool:
    """Say whether the value of a variable stands in a text whose name says that it is a secret."""
    _all_forms()
    return any(certain and len(value) >= LONG_SECRET and value in text for value, certain in _known.items())


def redacted(text: str) -> str:
    """Give a text without the secrets that this process knows, in whatever form they stand in it.

    It is to be called before a text is cut. Of a secret that was cut with it (``hunt…``), the beginning goes as well.
    """
    forms = _all_forms()
    if not forms or len(text) < SHORTEST_SECRET:
        return text
    lower = text.lower()
    found = [form for form, in_lower_case in forms if in_lower_case in lower]
    if found:
        text = re.sub("|".join(map(_pattern, found)), MASK, text)
    return _without_left_overs(text, forms) if "…" in text or "..." in text else text


def redacted_bytes(data: bytes) -> bytes:
    """As :func:`redacted`, for what a program printed, in whatever encoding."""
    if not _all_forms():
        return data
    return redacted(data.decode("utf-8", "surrogateescape")).encode("utf-8", "surrogateescape")


def longest_form() -> int:
    """How many bytes the longest form of a secret has; 0 where nothing is hidden."""
    return max((len(form.encode("utf-8", "surrogatepass")) for form, _ in _all_forms()), default=0)


def _effective() -> list[str]:
    return [value for value, certain in _known.items() if certain or value.lower() not in _names]


def _is_secret(value: str) -> bool:
    shortest = SHORTEST_NUMBER if value.strip().isdigit() else SHORTEST_SECRET
    return len(value.strip()) >= shortest and value.strip().lower() not in _PLAIN_WORDS


def _parts(value: str) -> Iterator[str]:
    """What a receiver may repeat of a URL: its user's name and password, its path, long parts of it, its query."""
    if "://" not in value:
        return
    from urllib.parse import parse_qsl, unquote, urlsplit

    try:
        parts = urlsplit(value)
        said = [parts.username or "", parts.password or "", parts.path, parts.query]
    except ValueError:
        return
    said += [part for part in parts.path.split("/") if len(part) >= SHORTEST_PART]
    said += [text for _, text in parse_qsl(parts.query)]
    yield from said
    yield from (unquote(text) for text in said if "%" in text)


def _all_forms() -> list[tuple[str, str]]:
    global _forms
    if _forms is None:
        hide_variables(list(filter(is_secret_name, os.environ)))
        found = dict.fromkeys(form for value in _effective() for form in _forms_of(value))
        _forms = sorted(((form, form.lower()) for form in found), key=lambda pair: -len(pair[0]))
    return _forms


def _forms_of(value: str) -> Iterator[str]:
    """How a secret may stand in a text."""
    # Of one with several lines (a key, say) each line is one; messages put lines together.
    lines = [line.strip() for line in value.splitlines() if len(line.strip()) >= LONG_SECRET]
    for text in dict.fromkeys([value, value.strip(), " ".join(value.split()), *(lines if len(lines) > 1 else ())]):
        if _is_secret(text):
            yield text
            yield from _escaped(text)


def _escaped(text: str) -> Iterator[str]:
    import base64
    import html
    import json
    import shlex
    from urllib.parse import quote, quote_plus

    # What stands in quotes of SQL may stand in JSON again.
    for inner in (text, text.replace("'", "''"), text.replace('"', '""')):
        yield inner
        for plain in (json.dumps(inner)[1:-1], json.dumps(inner, ensure_ascii=False)[1:-1], repr(inner)[1:-1]):
            yield plain
            yield json.dumps(plain)[1:-1]
    yield text.replace("'", "\\'")
    yield text.encode("unicode_escape").decode()
    yield shlex.quote(text)
    yield html.escape(text)
    yield html.escape(text, quote=False)
    data = text.encode("utf-8", "surrogateescape")
    yield quote(data, safe="")
    yield quote(data)
    yield quote(data, safe="/:?#[]@!$&'()*+,;=~")
    yield quote_plus(data)
    if len(text) < LONG_SECRET:
        # What is left of these would stand in many a digest.
        yield base64.b64encode(data).decode()
        return
    yield data.hex()
    for shift in range(3):
        # Behind one or two other bytes it looks otherwise; at its ends it shares letters with what stands beside it.
        encoded = base64.b64encode(b"\0" * shift + data).decode().rstrip("=")
        whole = encoded[-(-shift * 4 // 3) : (shift + len(data)) // 3 * 4]
        yield whole
        yield whole.replace("+", "-").replace("/", "_")


def _pattern(form: str) -> str:
    if len(form) >= LONG_SECRET:
        return f"(?i:{re.escape(form)})"
    return rf"(?<!\w){re.escape(form)}(?!\w)"


def _without_left_overs(text: str, forms: list[tuple[str, str]]) -> str:
    """Take away what is left of a secret where a text was cut."""
    pieces: list[str] = []
    start = 0
    for cut in _CUT.finditer(text):
        before = text[start : cut.start()]
        longest = 0
        for _, form in forms:
            if len(form) < LONG_SECRET:
                continue
            most = min(len(form) - 1, len(before), _LONGEST_LEFT_OVER)
            end = before[-most:].lower() if most else ""
            for length in range(most, SHORTEST_SECRET + 1, -1):
                if form.startswith(end[-length:]):
                    longest = max(longest, length)
                    break
        if longest:
            before = before[:-longest] + MASK
        pieces += [before, cut[0]]
        start = cut.end()
    return "".join([*pieces, text[start:]])
