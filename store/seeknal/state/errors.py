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
