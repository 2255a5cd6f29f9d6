"""What a state backend raises, beside what every other part of Seeknal raises.

    SeeknalError
    └── StateBackendError         the records cannot be read or written
        ├── TransactionError      a transaction was not kept; nothing of it was
        ├── ConcurrencyError      somebody else was first
        ├── StateValueError       a value was given that no record can hold (also a ValueError)
        └── UnknownRunError       a change was asked of a run that has no record (also a KeyError)

Reading a record that is damaged or too new raises CorruptObjectError or FormatTooNewError, waiting too long
for another process BusyError, and an id that breaks the rules NameNotAllowedError: see :mod:`seeknal.errors`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from seeknal.errors import NotFoundError, SeeknalError


class StateBackendError(SeeknalError):
    """The records of runs cannot be read or written."""


class TransactionError(StateBackendError):
    """A transaction was not kept, and nothing of it was."""


class ConcurrencyError(StateBackendError):
    """Somebody else was first: what was to be made exists already."""


class StateValueError(StateBackendError, ValueError):
    """A value was given that no record can hold: of the wrong type, not JSON, or an interval that is none."""


class UnknownRunError(StateBackendError, NotFoundError, KeyError):
    """A change was asked of a run that has no record."""


def unknown_run(run_id: str) -> UnknownRunError:
    """Make the error for a change of a run that has no record."""
    return UnknownRunError(f"there is no run '{run_id}'", hint="create_run makes one")


def known_run(run_id: str) -> ConcurrencyError:
    """Make the error for a run that is to be made and is there."""
    return ConcurrencyError(f"there is a run '{run_id}' already", hint="give each run an id of its own")


def spoiled_transaction() -> TransactionError:
    """Make the error for a transaction that goes on after one within it failed."""
    return TransactionError("a transaction within this one failed, so nothing of either was kept")


def check_revisions(expecting: Mapping[str, str | None], revision: Callable[[str], str | None]) -> None:
    """Raise ConcurrencyError where a run is not at the revision that somebody expects."""
    for run_id, expected in expecting.items():
        if revision(run_id) != expected:
            raise ConcurrencyError(
                f"run '{run_id}' was changed by another since it was read", hint="read it again, and decide again"
            )
