"""A libSQL server as where records are kept: what it is asked, what it refuses, what becomes of a lost answer."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from seeknal.errors import BusyError, CorruptObjectError, UsageError
from seeknal.state import leased_locks
from seeknal.state.backend import DatabaseBackend, StateBackendError, TransactionError
from seeknal.state.hrana import decode_value, encode_value
from seeknal.state.leased_locks import LeaseHolder
from seeknal.state.libsql_connection import LibsqlConnection, server_address
from tests.store.state import libsql_servers
from tests.store.state.libsql_servers import CUT_AFTER, CUT_BEFORE, FAIL_BEFORE, SLOW, HranaServer

StartPython = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def url(hrana: HranaServer, tmp_path: Path) -> str:
    return hrana.url(tmp_path / "state.db")


@pytest.fixture
def backend(url: str) -> Iterator[DatabaseBackend]:
    backend = DatabaseBackend(url, wait_seconds=2)
    backend.initialize()
    yield backend
    backend.close()


def failing_once(fault: str, where: str) -> Callable[[str], str | None]:
    """The fault, for the first request whose SQL holds ``where``."""
    left = [fault]
    return lambda sql: left.pop() if where in sql and left else None


# addresses


@pytest.mark.parametrize(
    ("url", "sent_to", "shown"),
    [
        ("libsql://db.example.org", "https://db.example.org", "libsql://db.example.org"),
        ("libsql://localhost:8080?tls=0", "http://localhost:8080", "libsql://localhost:8080"),
        ("http://127.0.0.1:8080/", "http://127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("https://host/a/b", "https://host/a/b", "https://host/a/b"),
        ("http://[::1]:8080", "http://[::1]:8080", "http://[::1]:8080"),
        ("libsql://host?authToken=canary", "https://host", "libsql://host"),
        ("libsql://user:canary@host", "https://host", "libsql://host"),
    ],
)
def test_url_says_where_to_send_and_what_to_show(url: str, sent_to: str, shown: str) -> None:
    address = server_address(url)
    assert (address.url, address.shown) == (sent_to, shown)
    assert (address.token == "canary") == ("canary" in url)


@pytest.mark.parametrize("url", ["libsql://", "http://:80", "libsql://host:port"])
def test_url_without_a_server_is_refused(url: str) -> None:
    with pytest.raises(UsageError, match="names no server"):
        DatabaseBackend(url)


# what a server must be


def test_no_server_is_told_in_one_line_without_the_token(tmp_path: Path) -> None:
    backend = DatabaseBackend("http://127.0.0.1:9?authToken=canary", wait_seconds=0.05)
    with pytest.raises(StateBackendError, match=r"^http://127\.0\.0\.1:9 does not answer: .*refused") as caught:
        backend.initialize()
    assert "canary" not in str(caught.value)
    assert "object at" not in str(caught.value)
    assert backend.health_check() is False


def test_what_is_no_libsql_server_is_told(hrana: HranaServer, url: str) -> None:
    hrana.versions = ("v1",)
    with pytest.raises(StateBackendError, match="speaks neither Hrana 3 nor Hrana 2"):
        DatabaseBackend(url).initialize()


def test_server_of_the_protocol_before_will_do(hrana: HranaServer, url: str) -> None:
    hrana.versions = ("v2",)
    backend = DatabaseBackend(url)
    backend.create_run("r1")
    assert backend.list_runs() == ["r1"]


def test_wrong_token_is_told_and_the_right_one_works(
    hrana: HranaServer, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    hrana.token = "right"
    for token in ("", "wrong"):
        monkeypatch.setenv("TURSO_AUTH_TOKEN", token)
        with pytest.raises(StateBackendError, match=r"refuses the token \(HTTP 401\)") as caught:
            DatabaseBackend(url).create_run("r1")
        assert "TURSO_AUTH_TOKEN" in caught.value.hint
    monkeypatch.setenv("TURSO_AUTH_TOKEN", "right")
    DatabaseBackend(url).create_run("r1")
    DatabaseBackend(url, auth_token="right").create_run("r2")
    DatabaseBackend(f"{url}&authToken=right").create_run("r3")


def test_database_of_something_else_is_not_touched(hrana: HranaServer, url: str) -> None:
    LibsqlConnection(url, None, 2).execute("CREATE TABLE theirs (a)")
    with pytest.raises(StateBackendError, match="another program's database"):
        DatabaseBackend(url).initialize()


def test_table_that_is_gone_is_damage(backend: DatabaseBackend, url: str) -> None:
    backend.create_run("r1")
    LibsqlConnection(url, None, 2).execute("DROP TABLE node_states")
    with pytest.raises(CorruptObjectError, match="no such table: node_states"):
        backend.get_all_node_states("r1")


# lost answers


@pytest.mark.parametrize("fault", [CUT_AFTER, "500 after"])
def test_commit_whose_answer_was_lost_is_found_to_be_kept(
    hrana: HranaServer, backend: DatabaseBackend, fault: str
) -> None:
    hrana.fault = failing_once(fault, "COMMIT")
    backend.create_run("r1")
    assert backend.list_runs() == ["r1"]


@pytest.mark.parametrize("fault", [CUT_BEFORE, FAIL_BEFORE])
def test_commit_that_never_arrived_is_found_to_be_lost(
    hrana: HranaServer, backend: DatabaseBackend, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The transaction that hangs is dropped by the server when its time is over.
    monkeypatch.setattr(libsql_servers, "TRANSACTION_SECONDS", 0.1)
    hrana.fault = failing_once(fault, "COMMIT")
    with pytest.raises(TransactionError, match="nothing was kept"):
        backend.create_run("r1")
    assert backend.list_runs() == []
    backend.create_run("r1")


def test_commit_is_unknown_where_the_server_stays_away(hrana: HranaServer, url: str) -> None:
    backend = DatabaseBackend(url, wait_seconds=0.3)
    backend.initialize()
    away: list[str] = []

    def fault(sql: str) -> str | None:
        away.extend(["COMMIT"] if "COMMIT" in sql else [])
        return CUT_AFTER if away else None

    hrana.fault = fault
    with pytest.raises(StateBackendError, match="unknown whether what was written just now was kept"):
        backend.create_run("r1")
    hrana.fault = lambda sql: None
    assert backend.list_runs() == ["r1"]


def test_receipt_is_never_taken_for_another_transactions(hrana: HranaServer, backend: DatabaseBackend) -> None:
    backend.create_run("r0")
    hrana.fault = failing_once(FAIL_BEFORE, "INSERT INTO receipts")
    with pytest.raises(TransactionError):
        backend.create_run("r1")
    assert backend.list_runs() == ["r0"]


def test_slow_answer_is_waited_for(hrana: HranaServer, backend: DatabaseBackend) -> None:
    hrana.fault = failing_once(SLOW, "COMMIT")
    backend.create_run("r1")
    assert backend.list_runs() == ["r1"]


def test_reading_goes_on_after_a_lost_beginning(hrana: HranaServer, backend: DatabaseBackend) -> None:
    backend.create_run("r1")
    hrana.fault = failing_once(CUT_BEFORE, "BEGIN")
    assert backend.list_runs() == ["r1"]


# time and size


def test_transaction_that_lasts_too_long_for_the_server_keeps_nothing(
    hrana: HranaServer, backend: DatabaseBackend, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(libsql_servers, "TRANSACTION_SECONDS", 0.05)

    def overtaken() -> None:
        with backend.transaction():
            backend.create_run("slow")
            other = threading.Thread(target=DatabaseBackend(url).create_run, args=("quick",))
            other.start()
            other.join()

    with pytest.raises(TransactionError, match="Transaction timed out"):
        overtaken()
    assert backend.list_runs() == ["quick"]


def test_run_of_many_nodes_takes_few_requests(hrana: HranaServer, backend: DatabaseBackend) -> None:
    hrana.requests.clear()
    with backend.transaction():
        backend.create_run("r1")
        for number in range(500):
            backend.set_node_state("r1", f"transform.n{number}", status="success", row_count=number)
        backend.update_run("r1", status="success")
    assert len(hrana.requests) <= 8
    assert len(backend.list_nodes("r1")) == 500


def test_error_in_what_was_gathered_keeps_nothing(backend: DatabaseBackend, url: str) -> None:
    backend.create_run("r1")
    LibsqlConnection(url, None, 2).execute("DROP TABLE partitions")

    def gather() -> None:
        with backend.transaction():
            backend.create_run("r2")
            backend.add_completed_partition("r2", "source.a", "p")

    with pytest.raises(CorruptObjectError, match="no such table: partitions"):
        gather()
    assert backend.list_runs() == ["r1"]


@pytest.mark.parametrize("value", [None, 0, -(2**63), 2**63 - 1, 1.0, -0.5, "", "ä\x00'", b"", b"\x00\xff\x10"])
def test_values_come_back_as_they_went(value: object, url: str) -> None:
    assert decode_value(encode_value(value)) == value
    ((back,),) = LibsqlConnection(url, None, 2).execute("SELECT ?", (value,))
    assert (back, type(back)) == (value, type(value))


# locks

HOLD = """
import sys
from seeknal.state.backend import DatabaseBackend
backend = DatabaseBackend(sys.argv[1], purpose="seeknal run")
assert backend.acquire_lock("r1", 0)
print("held", flush=True)
sys.stdin.readline()
"""


def test_killed_holders_lock_on_a_server_can_be_taken_at_once_on_the_same_machine(
    backend: DatabaseBackend, url: str, python: StartPython
) -> None:
    with python(HOLD, url) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(BusyError, match=rf"run 'r1' is locked by seeknal run \(process {holder.pid} on .* UTC\)"):
            backend.lock("r1", 0).__enter__()
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        assert backend.acquire_lock("r1", 0)
        backend.release_lock("r1")


def test_lock_outlives_a_server_that_is_away_for_a_moment(hrana: HranaServer, url: str) -> None:
    first, second = (DatabaseBackend(url, wait_seconds=0.2) for _ in range(2))
    assert first.acquire_lock("r1", 0)
    hrana.fault = lambda sql: FAIL_BEFORE
    first.release_lock("r1")
    hrana.fault = lambda sql: None
    # It could not be given up, so it ends with its time, or with this process.
    assert not second.acquire_lock("r1", 0)


def holder(pid: int, machine: str = "", birth: str = "") -> LeaseHolder:
    return LeaseHolder("test", pid, "host", "2026-02-09T10:00:00+00:00", machine, birth)


@pytest.mark.skipif(not Path("/proc/self/ns/pid").exists(), reason="the system does not tell when a process began")
def test_holder_has_ended_only_where_that_is_certain(python: StartPython) -> None:
    this = leased_locks._this_machine()
    own = leased_locks._birth_of(os.getpid())
    assert this
    assert own
    assert not holder(os.getpid(), this, own).has_ended()
    # The same number, given to another process since.
    assert holder(os.getpid(), this, "1").has_ended()
    # Nothing is known of other machines, containers and systems.
    assert not holder(os.getpid(), "another", "1").has_ended()
    assert not holder(os.getpid()).has_ended()
    with python("") as ended:
        assert ended.stdout is not None
        ended.stdout.read()
        birth = leased_locks._birth_of(ended.pid) or "1"
        ended.wait()
        assert holder(ended.pid, this, birth).has_ended()


def test_process_that_ended_and_was_not_waited_for_has_ended(python: StartPython) -> None:
    with python("import sys; sys.stdin.readline()") as child:
        birth = leased_locks._birth_of(child.pid) or ""
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert holder(child.pid, leased_locks._this_machine(), birth).has_ended() or not birth


def test_block_that_gave_its_lock_up_takes_it_from_nobody(backend: DatabaseBackend) -> None:
    with backend.lock("r1", 0):
        backend.release_lock("r1")
        assert backend.acquire_lock("r1", 0)
    assert not backend.acquire_lock("r1", 0)
    backend.release_lock("r1")
