"""What is hidden stands in no text, in whatever form; what is not, stays."""

from __future__ import annotations

import base64
import html
import json
import shlex
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seeknal.redaction import (
    MASK,
    forget,
    hide,
    hide_secrets,
    hide_variables,
    hide_variables_read_in,
    is_setting_of_ours,
    redacted,
    redacted_bytes,
    secrets,
    show_names,
)

VALUE = 'hunter2\'s "p/ss"+é&%'


@pytest.mark.parametrize(
    "form",
    [
        VALUE,
        VALUE.upper(),
        VALUE.replace("'", "''"),
        json.dumps(VALUE),
        json.dumps(VALUE, ensure_ascii=False),
        json.dumps(json.dumps(VALUE)),
        repr(VALUE),
        shlex.quote(VALUE),
        html.escape(VALUE),
        quote(VALUE),
        quote(VALUE, safe=""),
        quote_plus(VALUE),
        VALUE.encode().hex(),
        *(base64.b64encode(f"{'x' * before}{VALUE}yz".encode()).decode() for before in range(4)),
        base64.urlsafe_b64encode(VALUE.encode()).decode(),
    ],
)
def test_a_secret_stands_in_no_text_in_any_form(form: str) -> None:
    hide(VALUE)
    said = redacted(f"before:{form}:behind")
    assert MASK in said
    assert "hunter" not in said.lower()
    assert "unter2" not in said.lower()
    assert said.startswith("before:")
    assert said.endswith(":behind")


@given(st.text(min_size=4, max_size=40), st.text(max_size=20), st.text(max_size=20))
@settings(max_examples=50)
def test_no_text_holds_a_long_secret_afterwards(secret: str, before: str, behind: str) -> None:
    forget()
    hide(secret)
    said = redacted(f"{before} {secret} {behind}")
    if secrets() and secret not in f"{before} {MASK} {behind}":
        assert secret not in said
    assert redacted(MASK) == MASK


def test_of_a_secret_that_was_cut_nothing_is_left() -> None:
    hide("abcdefghijklmnop")
    assert redacted("it says abcdefghijk… and abcdefgh...") == "it says ***… and ***..."
    assert redacted("no abc…") == "no abc…"


def test_a_key_of_several_lines_is_hidden_line_by_line() -> None:
    hide("-----BEGIN-----\nMIIEvQIBADANBg\nkqhkiG9w0BAQEF\n-----END-----")
    assert redacted("bad line: MIIEvQIBADANBg") == "bad line: ***"
    assert redacted("-----BEGIN----- MIIEvQIBADANBg kqhkiG9w0BAQEF -----END-----") == MASK


@pytest.mark.parametrize("value", ["", "1", "abc", "true", "None", "12345", "prod", "    "])
def test_what_is_too_short_or_too_plain_is_no_secret(value: str) -> None:
    hide(value)
    assert not secrets()
    assert redacted(f"{value} true 1 abc 12345") == f"{value} true 1 abc 12345"


def test_a_short_secret_is_hidden_where_it_is_a_word() -> None:
    hide("k3yq")
    assert redacted("k3yq, 'k3yq' and xk3yqx") == "***, '***' and xk3yqx"


def test_names_of_the_project_are_shown_unless_a_name_says_that_the_value_is_a_secret() -> None:
    variables = {"SCHEMA": "orders", "DB_PASSWORD": "staging"}
    hide_variables(variables, variables)
    assert redacted("source.orders in staging") == "source.*** in ***"
    show_names(["Orders", "staging"])
    assert redacted("source.orders in staging") == "source.orders in ***"


def test_variables_are_secret_by_their_name_or_because_code_reads_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_API_TOKEN", "canary-token")
    monkeypatch.setenv("PLAIN", "canary-plain")
    monkeypatch.setenv("OTHER", "canary-other")
    assert redacted("canary-token canary-plain canary-other") == "*** canary-plain canary-other"
    hide_variables_read_in("x = os.environ [ 'PLAIN' ] + os.getenv(\"OTHER\")")
    assert redacted("canary-token canary-plain canary-other") == "*** *** ***"
    assert is_setting_of_ours("SEEKNAL_STATE_BACKEND")
    assert not is_setting_of_ours("SEEKNAL_API_TOKEN")


def test_the_parts_of_a_url_are_hidden_that_a_receiver_may_repeat() -> None:
    url = "https://me:pa55word@hooks.example.com/services/T00000000X/B0%2B1234567?key=v4lue"
    hide_variables(["URL"], {"URL": url})
    for part in ("pa55word", "T00000000X", "B0%2B1234567", "B0+1234567", "v4lue"):
        assert redacted(f"at {part}!") == "at ***!", part
    assert redacted("hooks.example.com") == "hooks.example.com"


def test_another_process_hides_the_same() -> None:
    odd = b"caf\xe9-secret".decode("utf-8", "surrogateescape")
    hide("canary-one", odd)
    handed = secrets()
    forget()
    hide_secrets(handed)
    assert redacted("canary-one") == MASK
    assert redacted_bytes(b"a caf\xe9-secret \xff") == b"a *** \xff"
