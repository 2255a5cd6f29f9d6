"""What all tests share: a hypothesis profile without deadlines, because a busy machine is no bug; Ctrl-C; --torture."""

from __future__ import annotations

import signal

import pytest
from hypothesis import settings

from seeknal.redaction import forget

settings.register_profile("seeknal", deadline=None)
settings.load_profile("seeknal")

# A shell starts its background jobs with Ctrl-C ignored, and processes inherit that; tests of Ctrl-C need it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--torture", action="store_true", help="tests/reliability at full length: every fault, every seed, every second"
    )


@pytest.fixture(autouse=True)
def _no_secrets_of_other_tests() -> None:
    """Forget what a test before hid: tests share a process, and what one sets as a variable is plain to the next."""
    forget()
