from __future__ import annotations

from pathlib import Path

import pytest

from seeknal.dag.parse import parse_project
from seeknal.dag.project import Project
from seeknal.errors import ProjectError
from tests.engine.workflow.projects import transform, write_project

API = "type: api\nurl: https://x.example/in\n"
NOTIFY = "type: notification\nurl: https://x.example/in\n"


def problems(root: Path, fields: str) -> list[str]:
    exposure = f"kind: exposure\nname: e\ninputs: [transform.t]\n{fields}"
    write_project(root, {"seeknal/t.yml": transform("t", "SELECT 1 AS id"), "seeknal/e.yml": exposure})
    try:
        parse_project(Project.open(root))
    except ProjectError as error:
        return [str(problem) for problem in error.problems()]
    return []


@pytest.mark.parametrize(
    "fields",
    [
        API,
        NOTIFY,
        'type: api\nurl: "{{ env:URL }}"\n',
        "type: api\nparams: {url: env:URL}\n",
        API + "params: {method: put, timeout: 1.5, total_timeout: 9, retries: 0, batch_rows: 1, max_bytes: 1}\n",
        API + "params: {headers: {X-Count: 3, Content-Type: application/vnd.api+json}}\n",
        API + 'params: {headers: {Authorization: "Token {{ env:T }}"}}\n',
        API + "params: {auth: {token: env:T}}\n",
        API + "params: {auth: {username: me, password: env:T}}\n",
        API + "params: {auth: {name: X-Key, value: env:T}}\n",
        NOTIFY + "params: {channel: slack, payload: {a: [1]}, region: EU}\n",
    ],
)
def test_fields_that_go_together_are_taken(tmp_path: Path, fields: str) -> None:
    assert problems(tmp_path, fields) == []


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ("type: database\n", "exposure type 'database' is not available yet"),
        ("type: report\n", "exposure type 'report' is not supported"),
        ("type: starrocks_materialized_view\n", "exposure type 'starrocks_materialized_view' is not supported"),
        ("type: notificaton\n", "unknown exposure type 'notificaton' (did you mean 'notification'?)"),
        ("type: api\n", "an exposure of type 'api' needs a url"),
        ("type: api\nurl: ftp://x\n", "url: it must begin with http:// or https://"),
        ("type: api\nurl: https://me:pw@x/\n", "url: user and password stand in it; give them as params.auth"),
        (API + "params: {method: GET}\n", "method must be POST, PUT, PATCH, not 'GET'"),
        (API + "params: {timeout: 0}\n", "timeout must be a number of seconds"),
        (API + "params: {timeout: true}\n", "timeout must be a number of seconds"),
        (API + "params: {retries: 1.5}\n", "retries must be a whole number from 0 to 20"),
        (API + "params: {batch_rows: 0}\n", "batch_rows must be a whole number from 1 on, not 0"),
        (API + "params: {hedaers: {}}\n", "unknown param 'hedaers' of type 'api' (did you mean 'headers'?)"),
        (API + "params: {headers: [a]}\n", "headers must be an object of names and values"),
        (API + "params: {headers: {'a b': c}}\n", "'a b' cannot be the name of a header"),
        (API + "params: {headers: {host: c}}\n", "the header 'host' is set by Seeknal"),
        (API + "params: {headers: {X-Api-Key: abc}}\n", "the header 'X-Api-Key' holds a secret in plain text"),
        (API + "params: {auth: abc}\n", "auth must be an object"),
        (API + "params: {auth: {type: baerer, token: env:T}}\n", "unknown type of auth 'baerer'"),
        (API + "params: {auth: {type: bearer}}\n", "auth of type 'bearer' needs 'token' as text"),
        (API + "params: {auth: {token: abc}}\n", "auth: 'token' is a secret in plain text"),
        (API + "params: {auth: {token: env:T, user: me}}\n", "auth of type 'bearer' has no 'user'"),
        (NOTIFY + "params: {channel: email}\n", "notifications by email are not supported"),
        (NOTIFY + "params: {channel: slak}\n", "unknown channel 'slak' (did you mean 'slack'?)"),
        (NOTIFY + "message: a\npayload: {b: c}\n", "message and payload are two ways to say it"),
        (NOTIFY + "payload: {b: ['{{ env:T }}']}\n", "environment variables cannot be used here"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(tmp_path: Path, fields: str, said: str) -> None:
    (problem,) = problems(tmp_path, fields)
    assert problem.startswith("seeknal/e.yml:")
    assert said in problem


def test_no_secret_that_stands_in_plain_text_is_repeated(tmp_path: Path) -> None:
    fields = (
        "type: api\nurl: https://me:hunter2222@x/\nparams: {auth: {token: hunter3333}, headers: {Cookie: hunter4}}\n"
    )
    found = problems(tmp_path, fields)
    assert len(found) == 3
    assert "hunter" not in "".join(found)
