"""Every error that Seeknal raises on purpose, and the exit code each one means.

    SeeknalError                      1
    ├── ProjectError                  1   the project's files are wrong (holds every problem found)
    ├── NotFoundError                 1   a named node, environment or snapshot does not exist
    ├── NodeFailedError               1   a node could not be executed
    ├── DeliveryError                 1   an output could not be written outside the store
    ├── NameNotAllowedError           2   a name that was given breaks the naming rules
    ├── UsageError                    2   options that do not go together, or are not available
    ├── StalePlanError                4   the project changed after the plan was made
    ├── PromotionRaceError            4   the target moved after the plan was made
    ├── RefusedError                  5   what was asked needs consent, or is never done
    ├── BusyError                    11   another process holds the lock
    └── StoreError                   12   the store holds something that it must not
        ├── CorruptObjectError       12   an object does not decode, or not to its address
        └── FormatTooNewError        12   an object was written by a newer version

Bad input always ends in one of these, printed as one line. A traceback is a bug.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable
from dataclasses import dataclass

from seeknal.version import __version__
from seeknal.visible_text import visible

#: What is longer, nobody reads: a name or a path of somebody's stands in it.
LONGEST_TEXT = 4000


def _for_people(text: str) -> str:
    """A text without secrets, without what a terminal would obey, and of bounded length."""
    from seeknal.redaction import redacted

    said = visible(redacted(text))
    return said if len(said) <= LONGEST_TEXT else said[: LONGEST_TEXT - 1] + "…"


@dataclass(frozen=True, slots=True)
class Place:
    """Where in a project something stands. Lines and columns count from 1; 0 means unknown."""

    file: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        file = _for_people(self.file)
        if not self.line:
            return file
        return f"{file}:{self.line}:{self.column}" if self.column else f"{file}:{self.line}"


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong: what, where, and the way out (``hint``, may be empty).

    Its texts lose the secrets that are known when it is made (:mod:`seeknal.redaction`). ``field`` leads to the field
    of a node that it is about, for whoever knows where that stands.
    """

    message: str
    place: Place | None = None
    hint: str = ""
    field: tuple[str | int, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "message", _for_people(self.message))
        object.__setattr__(self, "hint", _for_people(self.hint))

    def __str__(self) -> str:
        where = f"{self.place}: " if self.place else ""
        return f"{where}{self.message}" + (f" ({self.hint})" if self.hint else "")


class SeeknalError(Exception):
    """The root of all errors that are somebody's input or surroundings, not a bug of ours."""

    exit_code = 1

    def __init__(
        self, message: str, *, place: Place | None = None, hint: str = "", field: tuple[str | int, ...] = ()
    ) -> None:
        message = _for_people(message)
        super().__init__(message)
        self.message = message
        self.place = place
        self.hint = _for_people(hint)
        self.field = field

    def problems(self) -> list[Problem]:
        """List what went wrong, one entry per line that a person should read."""
        return [Problem(self.message, self.place, self.hint, self.field)]

    def __str__(self) -> str:
        return "\n".join(str(problem) for problem in self.problems())


class ProjectError(SeeknalError):
    """The project's files are wrong; carries every problem that was found, not only the first."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self._problems = list(problems)
        first = self._problems[0]
        super().__init__(first.message, place=first.place, hint=first.hint)

    def problems(self) -> list[Problem]:
        return list(self._problems)


class NotFoundError(SeeknalError):
    """A name was given that nothing has."""


class NameNotAllowedError(SeeknalError, ValueError):
    """A name breaks the rules of :mod:`seeknal.dag.names`."""

    exit_code = 2


class NodeFailedError(SeeknalError):
    """A node could not be executed; nothing of it was kept."""


class DeliveryError(SeeknalError):
    """An output could not be written to its place outside the store."""


class UsageError(SeeknalError):
    """The command line or the call does not make sense as a whole."""

    exit_code = 2


class StalePlanError(SeeknalError, ValueError):
    """The project changed after the environment was planned."""

    exit_code = 4


class PromotionRaceError(SeeknalError):
    """The target of a promotion moved after the environment was planned."""

    exit_code = 4


class RefusedError(SeeknalError):
    """The operation needs consent that was not given, or is never allowed."""

    exit_code = 5


class BusyError(SeeknalError):
    """Another process holds the lock."""

    exit_code = 11


class StoreError(SeeknalError):
    """The store holds something that it must not."""

    exit_code = 12


class CorruptObjectError(StoreError):
    """A stored object does not decode, or its bytes do not match its address."""


class FormatTooNewError(StoreError):
    """A stored object was written by a newer version of Seeknal."""

    @classmethod
    def of(cls, what: str, found: int, known: int) -> FormatTooNewError:
        """Make the error for ``what`` has the format ``found``, where this version reads those up to ``known``."""
        reads = f"this one ({__version__}) reads up to {known}"
        return cls(f"{what} was made by a newer Seeknal: it has format {found}, and {reads}", hint="upgrade Seeknal")


def of_the_system(error: OSError) -> SeeknalError:
    """The error of ours for one of the system's: what, where, and what can be done about it."""
    where = f"{error.filename2 or error.filename}: " if error.filename else ""
    return SeeknalError(f"{where}{error.strerror or error}", hint=way_out_of(error))


def way_out_of(error: OSError) -> str:
    """What can be done about an error of the system; nothing where that is not known."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "free space on that disk; `seeknal gc` gives back what nothing needs"
    if error.errno == errno.EROFS:
        return "that disk is mounted read-only; Seeknal must be able to write there"
    if error.errno in (errno.EACCES, errno.EPERM):
        return "see whose that is, and let this user write there"
    if error.errno in (errno.ENOTDIR, errno.EEXIST):
        return "something stands where Seeknal needs a folder; move it away"
    if error.errno == errno.ELOOP:
        return "a link leads to itself; see where it should lead"
    return ""
