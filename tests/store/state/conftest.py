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

StartPython = Callable[..., "subprocess.Popen[str]"]
OpenBackend = Callable[[Path], StateBackend]


def open_file_backend(folder: Path) -> StateBackend:
    return create_state_backend("file", base_path=folder)


def open_database_backend(folder: Path) -> StateBackend:
    return create_state_backend("database", db_path=folder / "state.db")


# Opening the same folder twice gives two objects over the same records, as two processes have them.
BACKENDS: dict[str, OpenBackend] = {"file": open_file_backend, "database": open_database_backend}


@pytest.fixture(params=list(BACKENDS.values()), ids=list(BACKENDS))
def open_backend(request: pytest.FixtureRequest) -> OpenBackend:
    """Opens the backend of the records in a folder."""
    opener: OpenBackend = request.param
    return opener


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
