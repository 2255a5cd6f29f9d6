"""The backends that every conformance and property test runs against. A new backend is one more entry."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest

from seeknal.state.backend import StateBackend, create_state_backend
from tests.store.state.libsql_servers import SQLD, HranaServer, Sqld

StartPython = Callable[..., "subprocess.Popen[str]"]
OpenBackend = Callable[[Path], StateBackend]


def _open_file(folder: Path) -> StateBackend:
    return create_state_backend("file", base_path=folder)


def _open_database(folder: Path) -> StateBackend:
    return create_state_backend("database", db_path=folder / "state.db")


@pytest.fixture(scope="session")
def _hrana_server() -> Iterator[HranaServer]:
    server = HranaServer()
    yield server
    server.close()


@pytest.fixture
def hrana(_hrana_server: HranaServer) -> Iterator[HranaServer]:
    """A server that speaks Hrana over HTTP, over SQLite files."""
    yield _hrana_server
    _hrana_server.forget()


@pytest.fixture
def sqld() -> Iterator[Sqld]:
    """The real server, one process for each folder."""
    processes = Sqld()
    yield processes
    processes.close()


_SQLD = pytest.param("sqld", marks=pytest.mark.skipif(SQLD is None, reason="sqld is not installed"))

# For tests of many operations: the small server would add time, and nothing that the conformance tests do not show.
QUICK_BACKENDS = ("file", "database", _SQLD)


@pytest.fixture(params=["file", "database", "server", _SQLD])
def open_backend(request: pytest.FixtureRequest) -> OpenBackend:
    """Opens the backend of the records in a folder. Twice gives two objects over them, as two processes have them."""
    if request.param == "file":
        return _open_file
    if request.param == "database":
        return _open_database
    server: HranaServer | Sqld = request.getfixturevalue("hrana" if request.param == "server" else "sqld")
    # The small server serves files, the real one folders.
    file = "state.db" if request.param == "server" else ""
    return lambda folder: create_state_backend("database", db_path=server.url(folder / file))


@pytest.fixture
def backend(open_backend: OpenBackend, tmp_path: Path) -> Iterator[StateBackend]:
    """An initialized backend without runs, over ``tmp_path``."""
    opened = open_backend(tmp_path)
    opened.initialize()
    yield opened
    opened.close()


@pytest.fixture
def make_backend(open_backend: OpenBackend, tmp_path: Path) -> Callable[[], StateBackend]:
    """Makes initialized backends without runs, each over a folder of its own."""
    numbers = count()

    def make() -> StateBackend:
        made = open_backend(tmp_path / f"backend-{next(numbers)}")
        made.initialize()
        return made

    return make


@pytest.fixture
def python() -> StartPython:
    """Starts a Python process that runs some code with arguments and imports what this one does."""

    def start(code: str, *arguments: object) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", code, *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )

    return start
