from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from seeknal.dag.project import Project
from seeknal.errors import DeliveryError
from seeknal.nodes.http_request import RequestSettings
from seeknal.nodes.late_value import LateValues
from seeknal.store.store import Store
from seeknal.workflow import http_delivery
from seeknal.workflow.environment import EnvironmentManager
from seeknal.workflow.events import Delivered, Event
from seeknal.workflow.http_delivery import send
from seeknal.workflow.limits import StopRequest
from seeknal.workflow.results import RunOptions, RunResult
from seeknal.workflow.session import Session
from seeknal.workflow.settled import settled_run
from tests.engine.workflow.projects import run, transform, write, write_project
from tests.engine.workflow.receiver import (
    Receiver,
    close_at_once,
    close_mid_body,
    later,
    receiver,
    respond,
)

TOKEN = "very-secret-token"


@pytest.fixture(autouse=True)
def no_long_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_delivery, "BACKOFF_SECONDS", 0.01)


@pytest.fixture
def server() -> Iterator[Receiver]:
    with receiver() as state:
        yield state


@pytest.fixture
def body(tmp_path: Path) -> Path:
    file = tmp_path / "body.json"
    file.write_bytes(b'{"data": []}')
    return file


def try_send(url: str, body: Path, values: dict[str, str] | None = None, **settings: Any) -> str:
    """Send; gives the error's message, empty where it was taken."""
    try:
        send(RequestSettings(url, **settings), body, "key", LateValues(values or {}))
    except DeliveryError as error:
        return str(error)
    return ""


class TestAttempts:
    def test_body_and_headers_arrive_as_they_are(self, server: Receiver, body: Path) -> None:
        body.write_bytes(bytes(range(256)) * 1000)
        assert try_send(f"{server.url}/rows?a=1&b=%20", body, method="PUT", headers={"X-Team": "shop"}) == ""
        (got,) = server.got
        assert (got.method, got.path, got.body) == ("PUT", "/rows?a=1&b=%20", body.read_bytes())
        assert got.headers["content-type"] == "application/json"
        assert got.headers["idempotency-key"] == "key"
        assert got.headers["x-team"] == "shop"
        assert "transfer-encoding" not in got.headers

    def test_receiver_that_fails_once_is_tried_again_with_the_same_key(self, server: Receiver, body: Path) -> None:
        server.behaviours[:] = [500, 429]
        assert try_send(server.url, body) == ""
        assert [got.headers["idempotency-key"] for got in server.got] == ["key"] * 3

    def test_receiver_that_always_fails_is_given_up_with_what_it_said(self, server: Receiver, body: Path) -> None:
        server.behaviours[:] = [500] * 10
        said = try_send(f"{server.url}/in", body, retries=2)
        assert said.startswith(f"POST {server.url}/in: answered 500 Internal Server Error: said 500 (tried 3 times)")
        assert len(server.got) == 3

    @pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 422])
    def test_refusal_is_not_repeated(self, server: Receiver, body: Path, status: int) -> None:
        server.behaviours[:] = [status]
        assert f"answered {status} " in try_send(server.url, body)
        assert len(server.got) == 1

    @pytest.mark.parametrize("behaviour", [close_mid_body, close_at_once])
    def test_connection_that_closes_too_early_is_tried_again(
        self, server: Receiver, body: Path, behaviour: Any
    ) -> None:
        server.behaviours[:] = [behaviour]
        assert try_send(server.url, body) == ""
        assert len(server.got) == 2
        server.behaviours[:] = [behaviour] * 2
        said = try_send(server.url, body, retries=1)
        assert "the connection was closed before the answer was complete (tried 2 times)" in said

    def test_nobody_there_is_said_so(self, body: Path) -> None:
        with receiver() as gone:
            url = gone.url
        assert "no connection: Connection refused (tried 2 times)" in try_send(url, body, retries=1)

    def test_unknown_host_is_said_so(self, body: Path) -> None:
        assert "its host is not known" in try_send("http://nowhere.invalid/", body, retries=0)

    def test_receiver_says_when_to_come_back(self, server: Receiver, body: Path) -> None:
        server.behaviours[:] = [later(503, "0"), later(429, "Thu, 01 Jan 2015 00:00:00 GMT")]
        assert try_send(server.url, body) == ""
        server.behaviours[:] = [later(503, "3600")]
        said = try_send(server.url, body, total_timeout=5.0)
        assert "answered 503 Service Unavailable: not now" in said
        assert len(server.got) == 4

    def test_receiver_that_never_answers_is_not_waited_for(self, server: Receiver, body: Path) -> None:
        def never(handler: BaseHTTPRequestHandler) -> None:
            server.over.wait(20)
            handler.close_connection = True

        server.behaviours[:] = [never]
        assert "no answer within 0.2 s" in try_send(server.url, body, timeout=0.2, retries=0)

    @pytest.mark.parametrize(
        "begin",
        [
            b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nX-Slow: ",
            b"HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 60000\r\n\r\n",
            b"HTTP/1.0 200 OK\r\n\r\n",
        ],
    )
    def test_receiver_that_dribbles_is_not_waited_for(self, server: Receiver, body: Path, begin: bytes) -> None:
        def dribble(handler: BaseHTTPRequestHandler) -> None:
            handler.wfile.write(begin)
            handler.close_connection = True
            while not server.over.wait(0.05):
                handler.wfile.write(b"x")

        server.behaviours[:] = [dribble]
        said = try_send(server.url, body, timeout=10.0, total_timeout=0.5)
        assert "no complete answer within the total_timeout" in said
        assert len(server.got) == 1

    def test_parts_of_a_secret_url_that_a_receiver_repeats_are_not_shown(self, server: Receiver, body: Path) -> None:
        path = f"/services/T024/{TOKEN}?key={TOKEN[::-1]}"
        server.behaviours[:] = [
            lambda handler: respond(handler, 404, f"no {handler.path}, no {TOKEN}, no {TOKEN[::-1]}".encode())
        ]
        said = try_send("env:U", body, {"U": f"{server.url}{path}"})
        assert "answered 404" in said
        assert TOKEN not in said
        assert TOKEN[::-1] not in said

    def test_redirection_is_not_followed(self, server: Receiver, body: Path) -> None:
        with receiver() as other:
            move = f"{other.url}/new?token={TOKEN}"
            server.behaviours[:] = [lambda handler: respond(handler, 307, b"", Location=move)]
            auth = {"type": "bearer", "token": "env:T"}
            said = try_send(server.url, body, {"T": TOKEN}, auth=auth)
            assert f"answered 307: it moved to {other.url}/new" in said
            assert TOKEN not in said
            assert other.got == []

    def test_answer_before_the_whole_body_was_read_is_understood(self, body: Path) -> None:
        import socket

        body.write_bytes(b"x" * 30_000_000)
        with socket.create_server(("127.0.0.1", 0)) as listening:

            def refuse() -> None:
                connection, _ = listening.accept()
                with connection:
                    connection.recv(1000)
                    connection.sendall(b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig")
                    connection.shutdown(socket.SHUT_WR)
                    while connection.recv(1 << 20):
                        pass

            thread = threading.Thread(target=refuse, daemon=True)
            thread.start()
            said = try_send(f"http://127.0.0.1:{listening.getsockname()[1]}/", body)
            thread.join(10)
        assert "answered 413 Too Large: big" in said

    def test_what_is_no_http_is_said_so(self, body: Path) -> None:
        import socket

        with socket.create_server(("127.0.0.1", 0)) as listening:

            def babble() -> None:
                connection, _ = listening.accept()
                with connection:
                    connection.recv(10_000)
                    connection.sendall(b"SSH-2.0-hello\r\n")

            thread = threading.Thread(target=babble, daemon=True)
            thread.start()
            said = try_send(f"http://127.0.0.1:{listening.getsockname()[1]}/", body, retries=0)
            thread.join(10)
        assert said.startswith("POST http://127.0.0.1:")

    def test_wish_to_stop_ends_the_attempts(self, server: Receiver, body: Path) -> None:
        stop = StopRequest()

        def fail(handler: BaseHTTPRequestHandler) -> None:
            stop.request()
            respond(handler, 500)

        server.behaviours[:] = [fail]
        with pytest.raises(DeliveryError, match="interrupted"):
            send(RequestSettings(server.url), body, "key", LateValues({}), stop)
        with pytest.raises(DeliveryError, match="not sent"):
            send(RequestSettings(server.url), body, "key", LateValues({}), stop)
        assert len(server.got) == 1


class TestSecrets:
    @pytest.mark.parametrize(
        ("auth", "header", "value"),
        [
            ({"type": "bearer", "token": "{{ env:T }}"}, "authorization", f"Bearer {TOKEN}"),
            (
                {"type": "basic", "username": "me", "password": "env:T"},
                "authorization",
                "Basic " + base64.b64encode(f"me:{TOKEN}".encode()).decode(),
            ),
            ({"type": "header", "name": "X-Api-Key", "value": "{{env:T|none}}"}, "x-api-key", TOKEN),
        ],
    )
    def test_auth_is_resolved_when_it_is_sent(
        self, server: Receiver, body: Path, auth: dict[str, str], header: str, value: str
    ) -> None:
        assert try_send(server.url, body, {"T": TOKEN}, auth=auth) == ""
        assert server.got[0].headers[header] == value

    def test_variable_that_is_not_set_is_named_and_nothing_is_sent(self, server: Receiver, body: Path) -> None:
        said = try_send(server.url, body, auth={"type": "bearer", "token": "env:T"})
        assert said.startswith("environment variable 'T' is not set")
        assert server.got == []

    def test_receiver_that_repeats_a_secret_does_not_get_it_into_messages(self, server: Receiver, body: Path) -> None:
        pair = base64.b64encode(f"me:{TOKEN}".encode())
        server.behaviours[:] = [lambda handler: respond(handler, 400, b"bad: %s %s" % (TOKEN.encode(), pair))]
        auth = {"type": "basic", "username": "me", "password": "env:T"}
        said = try_send(server.url, body, {"T": TOKEN}, auth=auth)
        assert "answered 400 Bad Request: bad: *** ***" in said

    def test_url_in_a_variable_is_shown_as_it_is_written(self, server: Receiver, body: Path) -> None:
        server.behaviours[:] = [404]
        said = try_send("{{ env:HOOK }}", body, {"HOOK": f"{server.url}/hook/{TOKEN}"})
        assert said.startswith("POST {{ env:HOOK }}: answered 404 Not Found")
        assert [got.path for got in server.got] == [f"/hook/{TOKEN}"]

    @pytest.mark.parametrize("url", ["ftp://x/", "http://", "http://me:pw@host/", "http://host:99999/", "http://a b/"])
    def test_variable_with_a_url_that_cannot_be_used_is_not_repeated(self, body: Path, url: str) -> None:
        said = try_send("env:HOOK", body, {"HOOK": url})
        assert said.startswith("the url that env:HOOK gives cannot be used")
        assert url not in said

    def test_value_with_a_line_break_does_not_become_a_header(self, server: Receiver, body: Path) -> None:
        said = try_send(server.url, body, {"T": "a\r\nX-Evil: 1"}, auth={"type": "bearer", "token": "env:T"})
        assert "characters that no header can have" in said
        assert server.got == []


# whole projects


def project(root: Path, exposure: str, sql: str = "SELECT 1 AS id, 'a' AS name") -> Path:
    return write_project(root, {"seeknal/t.yml": transform("t", sql), "seeknal/e.yml": exposure})


def api(url: str, more: str = "") -> str:
    return f"kind: exposure\nname: crm\ntype: api\nurl: {url}\ninputs: [transform.t]\n{more}"


def errors(result: RunResult) -> list[str]:
    return [error.message for error in result.delivery_errors]


class TestApi:
    def test_rows_are_sent_once_for_each_content(self, tmp_path: Path, server: Receiver) -> None:
        root = project(tmp_path, api(server.url), "SELECT unnest([1, 2]) AS id, DATE '2024-01-05' AS day, NULL AS x")
        assert run(root).status == "success"
        (got,) = server.got
        assert got.document == {"data": [{"id": i, "day": "2024-01-05", "x": None} for i in (1, 2)]}
        assert run(root).status == "success"
        assert run(root, full=True).status == "success"
        assert len(server.got) == 1
        write(root, "seeknal/t.yml", transform("t", "SELECT 3 AS id"))
        assert run(root).status == "success"
        assert server.got[1].document == {"data": [{"id": 3}]}
        assert server.got[1].headers["idempotency-key"] != got.headers["idempotency-key"]

    def test_run_with_nothing_to_do_is_settled(self, tmp_path: Path, server: Receiver) -> None:
        root = project(tmp_path, api(server.url))
        run(root)
        assert settled_run(root, publish=True) is not None

    def test_no_rows_are_a_body_too(self, tmp_path: Path, server: Receiver) -> None:
        run(project(tmp_path, api(server.url), "SELECT 1 AS id WHERE false"))
        assert server.got[0].document == {"data": []}

    def test_failed_delivery_fails_the_run_and_is_made_up_for_by_the_next(
        self, tmp_path: Path, server: Receiver
    ) -> None:
        root = project(tmp_path, api(server.url, "params: {retries: 0}\n"))
        server.behaviours[:] = [400]
        result = run(root)
        assert result.status == "failed"
        assert result.snapshot is not None
        assert errors(result) == [f"exposure.crm: POST {server.url}: answered 400 Bad Request: said 400"]
        assert settled_run(root, publish=True) is None
        assert run(root).status == "success"
        assert len(server.got) == 2
        assert run(root).status == "success"
        assert len(server.got) == 2

    def test_no_publish_sends_nothing_and_the_next_run_does(self, tmp_path: Path, server: Receiver) -> None:
        root = project(tmp_path, api(server.url))
        with Session.open(Project.open(root)) as session:
            assert session.run("prod", RunOptions(), publish=False).status == "success"
        assert server.got == []
        assert run(root).status == "success"
        assert len(server.got) == 1

    def test_environment_sends_nothing_and_promotion_does(self, tmp_path: Path, server: Receiver) -> None:
        root = project(tmp_path, api(server.url))
        told: list[Delivered] = []

        def listen(event: Event) -> None:
            if isinstance(event, Delivered):
                told.append(event)

        manager = EnvironmentManager(root / "target")
        manager.plan("dev")
        with manager.applying("dev") as applying:
            assert applying.run(RunOptions(), listener=listen).success
        assert server.got == []
        file = root / "target/environments/dev/output/api/crm.json"
        assert json.loads(file.read_text()) == {"data": [{"id": 1, "name": "a"}]}
        assert [(event.path, event.note) for event in told] == [(str(file), f"not sent: POST {server.url}")]
        assert manager.execute_promotion(manager.plan_promotion("dev", "prod")) == []
        assert len(server.got) == 1
        assert run(root).status == "success"
        assert len(server.got) == 1

    def test_batches_go_on_where_they_broke_off(self, tmp_path: Path, server: Receiver) -> None:
        root = project(
            tmp_path, api(server.url, "params: {batch_rows: 2, retries: 0}\n"), "SELECT range AS id FROM range(5)"
        )
        server.behaviours[:] = [200, 500]
        assert run(root).status == "failed"
        assert run(root).status == "success"
        ids = [[row["id"] for row in got.document["data"]] for got in server.got]
        assert ids == [[0, 1], [2, 3], [2, 3], [4]]
        keys = [got.headers["idempotency-key"] for got in server.got]
        assert keys[1] == keys[2]
        assert len(set(keys)) == 3

    def test_what_was_taken_is_noted_before_the_next_is_sent(self, tmp_path: Path, server: Receiver) -> None:
        root = project(tmp_path, api(server.url, "params: {batch_rows: 2}\n"), "SELECT range AS id FROM range(4)")
        noted: list[int] = []

        def look(handler: BaseHTTPRequestHandler) -> None:
            # What is remembered where the process ends now.
            noted.append(len(Store(root / "target/store").read_deliveries("prod").nodes["exposure.crm"]))
            respond(handler, 200)

        server.behaviours[:] = [200, look]
        assert run(root).status == "success"
        assert noted == [1]

    def test_new_url_is_sent_to(self, tmp_path: Path, server: Receiver) -> None:
        root = project(tmp_path, api(f"{server.url}/a"))
        run(root)
        write(root, "seeknal/e.yml", api(f"{server.url}/b"))
        assert run(root).status == "success"
        assert [got.path for got in server.got] == ["/a", "/b"]

    def test_templates_are_filled_in_and_a_new_run_id_alone_sends_nothing(
        self, tmp_path: Path, server: Receiver
    ) -> None:
        params = "params: {region: EU, headers: {X-Run: '{{ run_id }}', X-Region: '{{ region }}'}}\n"
        root = project(tmp_path, api(f"{server.url}/{{{{ region }}}}/{{{{ run_id }}}}", params))
        first = run(root)
        assert run(root).status == "success"
        (got,) = server.got
        assert (got.path, got.headers["x-run"]) == (f"/EU/{first.run_id}", first.run_id)
        assert got.headers["x-region"] == "EU"

    def test_body_that_is_too_large_fails_the_node(self, tmp_path: Path, server: Receiver) -> None:
        root = project(tmp_path, api(server.url, "params: {max_bytes: 100}\n"), "SELECT range AS id FROM range(50)")
        result = run(root)
        assert result.status == "failed"
        assert "the body of the request is larger than 100 bytes" in str(result.problems()[0])
        assert server.got == []

    @pytest.mark.parametrize("value", ["'NaN'::DOUBLE", "{'a': [-'inf'::DOUBLE]}"])
    def test_number_that_json_lacks_is_named(self, tmp_path: Path, server: Receiver, value: str) -> None:
        root = project(tmp_path, api(server.url), f"SELECT 'NaN' AS text, 1 AS x UNION ALL SELECT 'b', {value}")
        if "{" in value:
            write(root, "seeknal/t.yml", transform("t", f"SELECT 'NaN' AS text, {value} AS x"))
        result = run(root)
        assert "column 'x' holds a NaN or an infinity" in str(result.problems()[0])

    def test_text_that_looks_like_such_a_number_is_sent(self, tmp_path: Path, server: Receiver) -> None:
        run(project(tmp_path, api(server.url), "SELECT 'NaN Infinity' AS text"))
        assert server.got[0].document == {"data": [{"text": "NaN Infinity"}]}

    def test_no_secret_is_written_to_disk(
        self, tmp_path: Path, server: Receiver, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("CRM_TOKEN", TOKEN)
        more = 'params:\n  auth: {type: bearer, token: "{{ env:CRM_TOKEN }}"}\n  headers: {X-Key: "env:CRM_TOKEN"}\n'
        root = project(tmp_path, api(f"{server.url}/{{{{ env:CRM_TOKEN }}}}", more))
        assert run(root).status == "success"
        (got,) = server.got
        assert (got.path, got.headers["authorization"], got.headers["x-key"]) == (f"/{TOKEN}", f"Bearer {TOKEN}", TOKEN)
        for path in tmp_path.rglob("*"):
            assert not path.is_file() or TOKEN.encode() not in path.read_bytes(), path


class TestNotifications:
    def notify(self, url: str, more: str = "") -> str:
        return f"kind: exposure\nname: news\ntype: notification\nurl: {url}\ninputs: [transform.t]\n{more}"

    def test_webhook_gets_the_message_and_what_it_is_about(self, tmp_path: Path, server: Receiver) -> None:
        run(project(tmp_path, self.notify(server.url, "message: '{row_count} from {node}'\n")))
        assert server.got[0].document == {"message": "1 from transform.t", "node": "transform.t", "row_count": 1}

    def test_slack_gets_text(self, tmp_path: Path, server: Receiver) -> None:
        run(project(tmp_path, self.notify(server.url, "params: {channel: slack, message: new}\n")))
        assert server.got[0].document == {"text": "new"}

    def test_payload_is_sent_as_it_is_written(self, tmp_path: Path, server: Receiver) -> None:
        run(project(tmp_path, self.notify(server.url, "payload: {blocks: ['{row_count} rows'], n: 1}\n")))
        assert server.got[0].document == {"blocks": ["1 rows"], "n": 1}

    def test_same_text_about_new_content_is_sent_again(self, tmp_path: Path, server: Receiver) -> None:
        root = project(tmp_path, self.notify(server.url, "message: new\n"))
        for sql, expected in (("SELECT 1 AS id", 1), ("SELECT 1 AS id", 1), ("SELECT 2 AS id", 2)):
            write(root, "seeknal/t.yml", transform("t", sql))
            assert run(root).status == "success"
            assert len(server.got) == expected
        assert server.got[0].body == server.got[1].body
        assert settled_run(root, publish=True) is not None
