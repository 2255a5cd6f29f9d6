"""Where the records of runs are kept: one protocol, and a factory that knows its implementations.

- *run*: one execution of a plan, known by a run id.
- *node state*: what became of one node in one run.
- *backend*: where both are kept. ``file`` needs nothing but a folder; ``database`` is a SQLite file, or a libSQL
  server.

Every error is in :mod:`seeknal.state.errors` or :mod:`seeknal.errors`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from datetime import date
from typing import Any, ClassVar, Protocol, runtime_checkable

from seeknal.errors import UsageError
from seeknal.state.database_backend import DatabaseBackend
from seeknal.state.errors import (
    ConcurrencyError,
    StateBackendError,
    StateValueError,
    TransactionError,
    UnknownRunError,
)
from seeknal.state.file_backend import FileBackend

__all__ = [
    "ConcurrencyError",
    "DatabaseBackend",
    "DatabaseStateBackend",
    "FileBackend",
    "FileStateBackend",
    "StateBackend",
    "StateBackendError",
    "StateBackendFactory",
    "StateValueError",
    "TransactionError",
    "UnknownBackendError",
    "UnknownRunError",
    "create_state_backend",
]

FileStateBackend = FileBackend
DatabaseStateBackend = DatabaseBackend


@runtime_checkable
class StateBackend(Protocol):
    """Keep the records of runs, for several processes at once.

    What holds for every method: a write is durable and visible to other processes when the method returns, or
    when the outermost transaction around it ends; a method that raises has changed nothing. What is returned is
    a copy. Reading what does not exist gives None or something empty; changing a node of a run that does not
    exist raises UnknownRunError. Ids that could name a path raise NameNotAllowedError, also on reading.

    Values are kept as JSON keeps them: a datetime as an ISO 8601 string, a tuple as a list, NaN as null. A
    documented key with a value of the wrong type, and any value that JSON has not, raises StateValueError; other
    keys are kept as given.
    """

    def initialize(self) -> None:
        """Make the folder or the tables. Doing it again changes nothing."""
        ...

    def health_check(self) -> bool:
        """Say whether the backend can be read and written now. Never raises."""
        ...

    def close(self) -> None:
        """Give up every lock and connection that this object holds. Doing it again changes nothing."""
        ...

    def create_run(self, run_id: str, **changes: Any) -> None:
        """Make a run. Afterwards it exists, with ``changes`` over the defaults, and without nodes.

        Keys: ``status`` ("running"), ``started_at`` (now), ``finished_at``, ``metadata``, ``config``. Raises
        ConcurrencyError where it exists already: of several who create one run, exactly one succeeds.
        """
        ...

    def update_run(self, run_id: str, **changes: Any) -> None:
        """Change a run. Afterwards the keys of ``changes`` have the new values, all others the old ones.

        Raises UnknownRunError (a KeyError).
        """
        ...

    def get_run(self, run_id: str) -> dict[str, Any] | None:
        """Read a run: the keys of :meth:`create_run`, all of them present."""
        ...

    def delete_run(self, run_id: str) -> None:
        """Delete a run and its node states. Afterwards it does not exist, whether or not it did."""
        ...

    def exists(self, run_id: str) -> bool:
        """Say whether there is such a run."""
        ...

    def list_runs(self) -> list[str]:
        """List the ids of all runs, sorted."""
        ...

    def get_revision(self, run_id: str) -> str | None:
        """Read a run's revision: a word that is another after each write to the run or to one of its nodes.

        None: there is no such run. Whoever read a run at a revision, and decided, can have the decision kept only
        where nobody wrote since: :meth:`transaction`.
        """
        ...

    def get_metadata(self, run_id: str) -> dict[str, Any]:
        """Read a run's ``metadata``."""
        ...

    def set_metadata(self, run_id: str, metadata: Mapping[str, Any]) -> None:
        """Replace a run's ``metadata`` whole. Raises UnknownRunError."""
        ...

    def set_node_state(self, run_id: str, node_id: str, state: object = None, **changes: Any) -> None:
        """Make or change a node's state. Afterwards the given keys have the new values, all others the old ones.

        Keys: ``status`` ("pending"), ``started_at``, ``finished_at``, ``duration_ms``, ``row_count``,
        ``error_message``, ``fingerprint``, ``hash``, ``metadata``, ``completed_intervals``,
        ``completed_partitions``. ``state`` gives them as a mapping, a dataclass, a Struct or an object with
        ``to_dict()``; ``changes`` win over it.
        """
        ...

    def get_node_state(self, run_id: str, node_id: str) -> dict[str, Any] | None:
        """Read a node's state: the keys of :meth:`set_node_state`, all of them present."""
        ...

    def get_all_node_states(self, run_id: str) -> dict[str, dict[str, Any]]:
        """Read the states of all nodes of a run, sorted by id, as of one moment."""
        ...

    def delete_node_state(self, run_id: str, node_id: str) -> None:
        """Delete a node's state. Afterwards it does not exist, whether or not it did; nor need the run."""
        ...

    def node_exists(self, run_id: str, node_id: str) -> bool:
        """Say whether the run has a state of this node."""
        ...

    def list_nodes(self, run_id: str) -> list[str]:
        """List the ids of the nodes that have a state in this run, sorted."""
        ...

    def add_completed_interval(self, run_id: str, node_id: str, start: str | date, end: str | date) -> None:
        """Remember that a node has done ``[start, end)``. Doing it again changes nothing.

        A bound is an ISO 8601 string, a datetime, or a date for its midnight. The same moments count as the same
        interval, however they are written; touching intervals are not merged. A node without a state gets one.
        Raises StateValueError where the interval is empty, or is none.
        """
        ...

    def get_completed_intervals(self, run_id: str, node_id: str) -> list[tuple[str, str]]:
        """List a node's completed intervals, sorted, each a pair of ISO 8601 strings."""
        ...

    def add_completed_partition(self, run_id: str, node_id: str, partition: str) -> None:
        """Remember that a node has done a partition, a text that is not empty. Doing it again changes nothing.

        A node without a state gets one. Raises StateValueError, UnknownRunError.
        """
        ...

    def get_completed_partitions(self, run_id: str, node_id: str) -> list[str]:
        """List a node's completed partitions, sorted."""
        ...

    def transaction(self, *, expecting: Mapping[str, str | None] | None = None) -> AbstractContextManager[StateBackend]:
        """Make the writes in the ``with`` block one: all are kept at its end, or, where it raises, none.

        ``expecting`` maps run ids to the revisions that they were read at, None for no such run; where one is at
        another by now, ConcurrencyError is raised before the block runs.

        Inside, this thread sees its own writes and nobody else's; outside, they are not seen before the end.
        A transaction within another is part of it: where the inner one fails and the outer goes on, the outer
        one raises TransactionError at its end and keeps nothing. Raises BusyError where another process
        writes for too long.
        """
        ...

    def acquire_lock(self, run_id: str, timeout_ms: int = 5000) -> bool:
        """Take the lock of a run, which need not exist. True: the caller has it, and no other process or thread.

        False: somebody, perhaps this object, had it all the time. The lock ends with :meth:`release_lock`,
        :meth:`close` or the process, however that ends. It keeps out only those who ask for it.
        """
        ...

    def release_lock(self, run_id: str) -> None:
        """Give the lock of a run up. Where this object does not hold it, nothing happens."""
        ...

    def lock(self, run_id: str, timeout_ms: int = 5000) -> AbstractContextManager[None]:
        """Hold the lock of a run in the ``with`` block. Raises BusyError, which names the holder."""
        ...


class UnknownBackendError(UsageError, ValueError):
    """A type of backend was named that nothing provides."""


class StateBackendFactory:
    """Make backends by the name of their type. A new type is registered once, by the module that defines it."""

    _makers: ClassVar[dict[str, Callable[..., StateBackend]]] = {}

    @classmethod
    def register(cls, backend_type: str, make: Callable[..., StateBackend]) -> None:
        """Let ``create(backend_type, ...)`` call ``make``; what was registered under that name is replaced."""
        cls._makers[backend_type] = make

    @classmethod
    def create(cls, backend_type: str, **settings: Any) -> StateBackend:
        """Make a backend. See :func:`create_state_backend`."""
        make = cls._makers.get(backend_type)
        if make is None:
            raise UnknownBackendError(
                f"there is no state backend '{backend_type}'", hint=f"available: {', '.join(cls.list_backends())}"
            )
        try:
            inspect.signature(make).bind(**settings)
        except TypeError as error:
            raise UsageError(
                f"state backend '{backend_type}': {error}", hint=f"it takes {inspect.signature(make)}"
            ) from error
        return make(**settings)

    @classmethod
    def list_backends(cls) -> list[str]:
        """List the types that can be created, sorted."""
        return sorted(cls._makers)


def create_state_backend(backend_type: str, **settings: Any) -> StateBackend:
    """Make the backend of a type: ``file`` (``base_path="target"``) or ``database`` (``db_path="target/state.db"``).

    Raises UnknownBackendError (a ValueError) that names the available types, UsageError where the settings do
    not fit the type, or what the type needs is not installed. Touches no disk: :meth:`StateBackend.initialize`
    does.
    """
    return StateBackendFactory.create(backend_type, **settings)


StateBackendFactory.register("file", FileBackend)
StateBackendFactory.register("database", DatabaseBackend)
