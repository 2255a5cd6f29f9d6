"""What is remembered of a run, as values: run records, node records, completed intervals.

- *run record*: one run, and a node record for each node it touched. In the file backend, one file.
- *node record*: what became of one node in one run.
- *completed interval*: a pair of ISO 8601 strings, start and end, half-open.
- *completed partition*: the name of a part of a node's output that is done.
- *revision*: a word that a run gets anew with each write to it or to its nodes. No two writes give the same.
- *changes*: the keys and values that a caller wants a record to have. A value is kept as JSON keeps it (a date
  as a string, a tuple as a list, NaN as null); a key that no field has is kept among the *extra* ones.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, date, datetime, time
from itertools import islice
from typing import Annotated, Any, TypeVar

import msgspec

from seeknal.errors import CorruptObjectError, FormatTooNewError, NameNotAllowedError
from seeknal.state.errors import StateValueError

SCHEMA_VERSION = 1

LONGEST_NODE_ID = 256

_RUN_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:+@=\-]{0,127}")

# What a database's integer holds.
_Integer = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]


class NodeRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one node in one run. Times are ISO 8601; intervals and partitions are sorted."""

    status: str = "pending"
    started_at: str | None = None
    finished_at: str | None = None
    duration_ms: _Integer | float | None = None
    row_count: _Integer | None = None
    error_message: str | None = None
    fingerprint: str | None = None
    hash: str | None = None
    metadata: dict[str, Any] = {}
    completed_intervals: tuple[tuple[str, str], ...] = ()
    completed_partitions: tuple[str, ...] = ()
    extra: dict[str, Any] = {}

    def changed(self, changes: Mapping[str, object]) -> NodeRecord:
        """Give a record with these changes. Raises StateValueError."""
        if "completed_intervals" in changes:
            changes = {**changes, "completed_intervals": _intervals(changes["completed_intervals"])}
        if "completed_partitions" in changes:
            changes = {**changes, "completed_partitions": _partitions(changes["completed_partitions"])}
        return _changed(self, changes, NODE_FIELDS)

    def with_interval(self, start: object, end: object) -> NodeRecord:
        """Give a record that has this interval too; the same one where it has it already. Raises StateValueError."""
        intervals = sorted({*self.completed_intervals, normal_interval(start, end)})
        return msgspec.structs.replace(self, completed_intervals=tuple(intervals))

    def with_partition(self, partition: object) -> NodeRecord:
        """Give a record that has this partition too; the same one where it has it already. Raises StateValueError."""
        partitions = sorted({*self.completed_partitions, check_partition(partition)})
        return msgspec.structs.replace(self, completed_partitions=tuple(partitions))

    def to_dict(self) -> dict[str, Any]:
        """Copy the record to plain dictionaries and lists, the extra keys beside the others."""
        plain = _plain(self, NODE_FIELDS)
        plain["completed_intervals"] = [list(interval) for interval in self.completed_intervals]
        plain["completed_partitions"] = list(self.completed_partitions)
        return plain


class RunRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One run and its nodes. Times are ISO 8601."""

    schema_version: int = SCHEMA_VERSION
    run_id: str
    revision: str = ""
    status: str = "running"
    started_at: str | None = None
    finished_at: str | None = None
    metadata: dict[str, Any] = {}
    config: dict[str, Any] = {}
    extra: dict[str, Any] = {}
    nodes: dict[str, NodeRecord] = {}

    def changed(self, changes: Mapping[str, object]) -> RunRecord:
        """Give a record with these changes; its nodes are not among them. Raises StateValueError."""
        return _changed(self, changes, RUN_FIELDS)

    def without_node(self, node_id: str) -> RunRecord:
        """Give a record that knows nothing of the node."""
        nodes = {name: node for name, node in self.nodes.items() if name != node_id}
        return msgspec.structs.replace(self, nodes=nodes)

    def to_dict(self) -> dict[str, Any]:
        """Copy the run, without its id and its nodes, to plain dictionaries, the extra keys beside the others."""
        return _plain(self, RUN_FIELDS)


# The keys that callers read and write by name, in their order.
NODE_FIELDS = tuple(name for name in NodeRecord.__struct_fields__ if name != "extra")
RUN_FIELDS = ("status", "started_at", "finished_at", "metadata", "config")

_Record = TypeVar("_Record", NodeRecord, RunRecord)


# How many nodes of a record are encoded at once.
_AT_ONCE = 500


def encode_run(record: RunRecord) -> Iterator[bytes]:
    """Encode a run record as JSON, piece by piece."""
    yield msgspec.json.encode(msgspec.structs.replace(record, nodes={}))[: -len("}}")]
    nodes, separator = iter(record.nodes.items()), b""
    while piece := dict(islice(nodes, _AT_ONCE)):
        yield separator + msgspec.json.encode(piece)[1:-1]
        separator = b","
    yield b"}}\n"


def decode_run(raw: bytes, run_id: str, where: str) -> RunRecord:
    """Decode what :func:`encode_run` gave for the run ``run_id``; ``where`` is for messages.

    Raises CorruptObjectError, FormatTooNewError.
    """
    try:
        record = msgspec.json.decode(raw, type=RunRecord)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        check_schema_version(raw, where)
        raise _corrupt(where, str(error)) from error
    if record.schema_version != SCHEMA_VERSION:
        check_schema_version(raw, where)
    if record.run_id != run_id:
        raise _corrupt(where, f"it is of the run '{record.run_id}'")
    return record


class _Header(msgspec.Struct):
    schema_version: int


def check_schema_version(raw: bytes, where: str) -> None:
    """Raise FormatTooNewError where a later version wrote this JSON, CorruptObjectError where none did."""
    try:
        version = msgspec.json.decode(raw, type=_Header).schema_version
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise _corrupt(where, str(error)) from error
    if version > SCHEMA_VERSION:
        raise FormatTooNewError.of(where, version, SCHEMA_VERSION)
    if version < 1:
        raise _corrupt(where, f"there is no schema version {version}")


def _corrupt(where: str, why: str) -> CorruptObjectError:
    return CorruptObjectError(f"{where} cannot be read: {why}", hint="move the file away to go on without it")


def is_run_id(name: object) -> bool:
    """Say whether this may be a run's id. It becomes a file's name, so no path is one."""
    return isinstance(name, str) and _RUN_ID.fullmatch(name) is not None


def check_run_id(run_id: str) -> str:
    """Give the run id back, or raise NameNotAllowedError."""
    if not is_run_id(run_id):
        raise NameNotAllowedError(
            f"{run_id!r:.200} is not a valid run id",
            hint="at most 128 letters, digits and '_.:+@=-', the first one a letter, a digit or '_'",
        )
    return run_id


def check_node_id(node_id: str) -> str:
    """Give the node id back, or raise NameNotAllowedError. No backend need make a file of it, but one may."""
    if (
        not isinstance(node_id, str)
        or not 0 < len(node_id) <= LONGEST_NODE_ID
        or not node_id.isprintable()
        or "/" in node_id
        or "\\" in node_id
        or node_id.startswith(".")
    ):
        raise NameNotAllowedError(
            f"{node_id!r:.200} is not a valid node id",
            hint=f"such as 'transform.clean_orders': at most {LONGEST_NODE_ID} printable characters, no '/' or '\\'",
        )
    return node_id


def as_mapping(state: object) -> dict[str, Any]:
    """Turn a node's state as a caller has it (mapping, dataclass, Struct, or with ``to_dict``) into a dictionary.

    Raises StateValueError.
    """
    if state is None:
        return {}
    to_dict = getattr(state, "to_dict", None)
    plain = to_dict() if callable(to_dict) else state
    if not isinstance(plain, Mapping):
        try:
            plain = msgspec.to_builtins(plain)
        except (TypeError, ValueError, RecursionError) as error:
            raise StateValueError(f"the state of a node cannot be kept: {error}") from error
    if not isinstance(plain, Mapping):
        raise StateValueError(f"the state of a node is a mapping of keys to values, not a {type(state).__name__}")
    return dict(plain)


def node_changes(run_id: str, node_id: str, state: object, changes: Mapping[str, object]) -> dict[str, object]:
    """Put together what a caller wants a node's state to be: ``changes`` win over ``state``. Raises StateValueError."""
    given = {**as_mapping(state), **changes}
    for key, own in (("run_id", run_id), ("node_id", node_id)):
        if given.pop(key, own) != own:
            raise StateValueError(f"the state given for '{node_id}' in run '{run_id}' has another {key}")
    return given


def normal_interval(start: object, end: object) -> tuple[str, str]:
    """Give an interval's one canonical form, so that equal intervals are equal pairs.

    A bound is an ISO 8601 string, a datetime or a date; a bare date is its midnight. A bound with an offset is
    turned to UTC. Raises StateValueError where a bound is none, only one has an offset, or it is empty.
    """
    first, last = _moment(start), _moment(end)
    if (first.tzinfo is None) != (last.tzinfo is None):
        raise StateValueError(f"interval {start} to {end}: one bound has a UTC offset, the other has none")
    if first >= last:
        raise StateValueError(f"interval {start} to {end}: it must end after it starts")
    return first.isoformat(), last.isoformat()


def _moment(bound: object) -> datetime:
    moment: datetime | None = None
    if isinstance(bound, datetime):
        moment = bound
    elif isinstance(bound, date):
        moment = datetime.combine(bound, time())
    elif isinstance(bound, str):
        try:
            moment = datetime.fromisoformat(bound)
        except ValueError:
            moment = None
    if moment is None:
        raise StateValueError(f"{bound!r:.100} is not a time", hint="such as 2024-01-31 or 2024-01-31T06:00:00")
    try:
        return moment if moment.tzinfo is None else moment.astimezone(UTC)
    except OverflowError as error:
        raise StateValueError(f"{bound} is out of range in UTC") from error


def _intervals(pairs: object) -> list[tuple[str, str]]:
    try:
        return sorted({normal_interval(start, end) for start, end in pairs})  # type: ignore[attr-defined]
    except TypeError as error:
        raise StateValueError("completed_intervals is a list of pairs of start and end") from error
    except ValueError as error:
        if isinstance(error, StateValueError):
            raise
        raise StateValueError("completed_intervals is a list of pairs of start and end") from error


def check_partition(partition: object) -> str:
    """Give a partition's name back, or raise StateValueError."""
    if not isinstance(partition, str) or not partition:
        raise StateValueError(f"{partition!r:.100} is not a partition", hint="it is a text, such as 2024-01")
    try:
        partition.encode()
    except UnicodeEncodeError as error:
        raise StateValueError(f"{partition!r:.100} is not a partition: it is no text") from error
    return partition


def _partitions(names: object) -> list[str]:
    if not isinstance(names, Iterable) or isinstance(names, str):
        raise StateValueError("completed_partitions is a list of texts")
    return sorted({check_partition(name) for name in names})


def _changed(record: _Record, changes: Mapping[str, object], fields: tuple[str, ...]) -> _Record:
    try:
        stored: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(changes))
    except (TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError) as error:
        raise StateValueError(f"{', '.join(changes)}: a value is not JSON: {error}") from error
    # Texts are the caller's own: of many nodes' records, most are the same few.
    own = {key: changes[key] if type(changes[key]) is str else value for key, value in stored.items() if key in fields}
    # A database has one zero.
    own |= {key: 0.0 for key, value in own.items() if key == "duration_ms" and value == 0 and isinstance(value, float)}
    extra = {key: value for key, value in stored.items() if key not in fields}
    kept = {key: getattr(record, key) for key in record.__struct_fields__}
    try:
        return msgspec.convert({**kept, **own, "extra": {**record.extra, **extra}}, type(record))
    except msgspec.ValidationError as error:
        raise StateValueError(f"a value cannot be kept: {error}") from error


def _plain(record: NodeRecord | RunRecord, fields: tuple[str, ...]) -> dict[str, Any]:
    plain: dict[str, Any] = msgspec.to_builtins({**record.extra, **{key: getattr(record, key) for key in fields}})
    return plain
