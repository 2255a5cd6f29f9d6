"""What the store holds, as values, and how each becomes bytes.

- *blob*: immutable bytes, addressed by their digest.
- *artifact*: what a node produced: parts (usually one), row count, columns with type and digest, named side blobs.
- *action record*: fingerprint → artifact; the cache that all environments share.
- *tree*: node → fingerprint and artifact, for a whole project.
- *snapshot*: an environment's state at one moment: a tree, a manifest, what came before, who and why.

Every stored object starts with a line: ``seeknal``, its kind, its format version, and a digest of these and of what
follows. So a newer one is refused instead of misread, and a damaged one is noticed, also where its name is not its
digest. Digests are 32 hexadecimal digits (xxh3_128) unless said otherwise.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from seeknal.errors import CorruptObjectError, FormatTooNewError
from seeknal.late_pattern import late_pattern
from seeknal.store.filesystem import digest_bytes, digest_pieces
from seeknal.version import __version__


class Blob(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """An immutable file in the store. ``suffix`` is its file ending, for tools that look at names."""

    digest: str
    size_bytes: int
    suffix: str = ".parquet"


class Column(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """An output column. ``digest`` covers its values in row order; equal digests mean equal values."""

    name: str
    type: str
    digest: str


class Artifact(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What executing a node produced. Rows stand in the order of ``parts``."""

    parts: tuple[Blob, ...]
    row_count: int
    columns: tuple[Column, ...] = ()
    side_blobs: tuple[tuple[str, Blob], ...] = ()
    metadata: dict[str, Any] = {}
    built_at: float = 0.0
    duration_seconds: float = 0.0
    run_id: str = ""

    def blobs(self) -> list[Blob]:
        """Every blob this artifact needs to be whole."""
        return [*self.parts, *(blob for _, blob in self.side_blobs)]

    def schema(self) -> dict[str, str]:
        """Column name → DuckDB type, in output order."""
        return {column.name: column.type for column in self.columns}

    def same_content(self, other: Artifact) -> bool:
        """Say whether two artifacts hold the same data, whenever and however they were built."""
        return (self.parts, self.row_count, self.columns, self.side_blobs) == (
            other.parts,
            other.row_count,
            other.columns,
            other.side_blobs,
        )


class ActionRecord(msgspec.Struct, frozen=True):
    """The memory that doing ``fingerprint`` gave ``artifact``."""

    fingerprint: str
    node_id: str
    artifact: Artifact


class TreeEntry(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A node's place in a tree. ``stale``: kept from before, because the node could not be built anew."""

    fingerprint: str
    artifact: Artifact
    stale: bool = False


class Tree(msgspec.Struct, frozen=True):
    """Node id → its artifact, for a whole project."""

    nodes: dict[str, TreeEntry]


class Snapshot(msgspec.Struct, frozen=True):
    """An environment's state at one moment.

    ``manifest`` is the manifest's SHA-256 fingerprint (64 digits). ``parent`` is what the environment held
    before; ``base`` the production snapshot that the environment was planned against; ``promoted_from`` the
    snapshot of another environment, ``restores`` the earlier one of this, whose tree this one took over.

    ``parameters`` are what the run that made the tree was given, but for values that are secrets, and ``began_at`` is
    when that run began, in seconds since 1970 (0: not known): what is delivered again goes where it went then.
    """

    environment: str
    manifest: str
    tree: str
    parent: str | None
    created_at: float
    created_by: str
    reason: str
    run_id: str = ""
    base: str | None = None
    promoted_from: str | None = None
    restores: str | None = None
    parameters: dict[str, Any] = {}
    began_at: float = 0.0

    def same_content(self, other: Snapshot) -> bool:
        """Say whether two snapshots hold the same outputs by the same definitions, whenever they were made."""
        return (self.tree, self.manifest) == (other.tree, other.manifest)


class EnvironmentPlanRecord(msgspec.Struct, frozen=True):
    """What was planned for an environment: for which manifest, against which production snapshot.

    ``parameters`` are what the plan was given, for the runs that apply it. ``document`` is empty: it was the whole
    plan, as long as the project is large, and nobody read it.
    """

    manifest: str
    base: str | None
    created_at: float
    categories: dict[str, str]
    added: list[str]
    removed: list[str]
    to_execute: list[str]
    profile_path: str | None = None
    document: dict[str, Any] = {}
    parameters: dict[str, Any] = {}


# How long an environment lives after it was last used, unless something else is said.
DEFAULT_TTL_SECONDS = 7 * 24 * 3600


class EnvironmentRecord(msgspec.Struct, frozen=True):
    """What is known of an environment beside its ref. Times are seconds since 1970, UTC.

    ``status`` is ``planned``, ``applied``, ``promoted`` or ``failed``.
    """

    name: str
    status: str
    created_at: float
    last_accessed: float
    ttl_seconds: int = DEFAULT_TTL_SECONDS
    promoted_from: str | None = None
    plan: EnvironmentPlanRecord | None = None


class CheckRecord(msgspec.Struct, frozen=True):
    """The memory that an output passed checks: ``key`` stands for both, ``results`` are the checks' own.

    A check of severity warn that failed counts as passed here; its result says that it did not.
    """

    key: str
    node_id: str
    results: list[dict[str, Any]]


class FailedNode(msgspec.Struct, frozen=True):
    """A node whose checks failed in a run: what was checked, by which checks, and what they gave.

    ``tables`` are the outputs that the checks read, the checked one first: the node's own, which was rejected, or the
    inputs of a rule; none where it checked what is not stored. ``checks`` and ``results`` are as the engine made them;
    a check in which a secret stands is empty.
    """

    node_id: str
    run_id: str
    failed_at: float
    tables: list[tuple[str, Artifact]]
    checks: list[dict[str, Any]]
    results: list[dict[str, Any]]


class FailedNodes(msgspec.Struct, frozen=True):
    """The nodes of an environment whose checks failed when they were last run."""

    nodes: dict[str, FailedNode] = {}


class Delivery(msgspec.Struct, frozen=True):
    """A file that was written outside the store: which content, and how it looked right after.

    Where it was sent as a request instead, ``sent_at`` is when, in seconds since 1970; ``path`` is then the request as
    people know it, and ``digest`` covers the content and where it went.
    """

    path: str
    digest: str
    size_bytes: int
    mtime_ns: int
    sent_at: float = 0.0


class Deliveries(msgspec.Struct, frozen=True):
    """What an environment delivered: node id → the files, by path relative to the delivery's own place."""

    nodes: dict[str, dict[str, Delivery]] = {}


class StoreFormat(msgspec.Struct, frozen=True):
    """What a store says of itself: which version of Seeknal made it. Its format is that of the store as a whole."""

    made_by: str = __version__


class FileMemo(msgspec.Struct, frozen=True):
    """Content digests of files outside the store: path → (stat, digest, when it was read, in ns since 1970).

    The stat is the size in bytes, the times of the last change of content and of anything, in ns, and the inode. What
    is known of a file is left as msgpack until it is asked for: there are very many files.
    """

    files: dict[str, msgspec.Raw] = {}


T = TypeVar("T", bound=msgspec.Struct)

# One version for each kind of object; raise it when a reader of the old one would misread the new one. The store's own
# is raised with any of them, and with the format of what has none: refs, their logs, leases, the layout of folders. So
# an older version keeps out of a newer store altogether.
FORMAT_VERSIONS: dict[type[msgspec.Struct], tuple[str, int]] = {
    StoreFormat: ("store", 1),
    ActionRecord: ("action", 1),
    Tree: ("tree", 1),
    Snapshot: ("snapshot", 1),
    EnvironmentRecord: ("environment", 1),
    Deliveries: ("deliveries", 1),
    CheckRecord: ("checks", 1),
    FailedNodes: ("failed-nodes", 1),
    FileMemo: ("file-memo", 1),
}

# What to do about something that is damaged.
WAY_OUT = "`seeknal store verify` tells what is hurt, and how to mend it"

_HEADER = late_pattern(rb"seeknal ([a-z-]{1,32}) ([1-9][0-9]{0,8})( .*)?", re.DOTALL)

# How many entries of a mapping are encoded at once.
_AT_ONCE = 500

_encoder = msgspec.msgpack.Encoder()
_decoders: dict[type[msgspec.Struct], msgspec.msgpack.Decoder[Any]] = {}


def encode(value: msgspec.Struct) -> bytes:
    """Serialise an object: a line with kind, format version and digest, then msgpack.

    Equal values give equal bytes, where their mappings have one order.
    """
    kind, version = FORMAT_VERSIONS[type(value)]
    body = _encoder.encode(value)
    head = f"seeknal {kind} {version}"
    return f"{head} {_digest(head, body)}\n".encode() + body


def encode_pieces(
    kind_of: type[msgspec.Struct], entries: Callable[[], Iterable[tuple[Any, Any]]], count: int, **before: object
) -> Iterator[bytes]:
    """As :func:`encode` for a large object, piece by piece: whole, it takes as much memory again.

    Its last field is a mapping of ``count`` ``entries``, which are asked for twice; the others stand in ``before``.
    """
    kind, version = FORMAT_VERSIONS[kind_of]
    head = f"seeknal {kind} {version}"
    names = kind_of.__struct_fields__
    values = [_encoder.encode(part) for name in names[:-1] for part in (name, before[name])]
    start = b"".join([_map_header(len(names)), *values, _encoder.encode(names[-1]), _map_header(count)])
    digest = digest_pieces(chain([head.encode() + b"\n", start], _entry_pieces(entries())))
    yield f"{head} {digest}\n".encode() + start
    yield from _entry_pieces(entries())


def _entry_pieces(entries: Iterable[tuple[Any, Any]]) -> Iterator[bytes]:
    entries = iter(entries)
    while piece := dict(islice(entries, _AT_ONCE)):
        yield _encoder.encode(piece)[len(_map_header(len(piece))) :]


def _map_header(count: int) -> bytes:
    """How msgpack begins a mapping of so many entries."""
    if count < 16:
        return bytes([0x80 | count])
    return b"\xde" + count.to_bytes(2, "big") if count < 1 << 16 else b"\xdf" + count.to_bytes(4, "big")


def encode_tree(tree: Tree) -> Iterator[bytes]:
    """As :func:`encode`, piece by piece."""
    return encode_pieces(Tree, tree.nodes.items, len(tree.nodes))


def _cut(data: bytes) -> tuple[bytes, memoryview]:
    """An object's first line, and what follows: not copied, because a large project's objects are large."""
    end = data.find(b"\n")
    end = end if end >= 0 else len(data)
    return data[:end], memoryview(data)[end + 1 :]


def _digest(head: str, body: bytes | memoryview) -> str:
    """The digest of an object: it covers the version, so that a damaged one is not taken for a newer one."""
    return digest_bytes(head.encode() + b"\n", body)


def insist_on_version(data: bytes, expected: type[msgspec.Struct], name: str, path: Path | None = None) -> None:
    """Raise FormatTooNewError where bytes are those of an object of a newer version. The names are as for decode."""
    kind, version = FORMAT_VERSIONS[expected]
    header, body = _cut(data)
    found = _HEADER.fullmatch(header)
    if found is None or found[1] != kind.encode() or int(found[2]) <= version or _is_ours(found, kind, version, body):
        return
    raise FormatTooNewError.of(f"{name} ({path})" if path is not None else name, int(found[2]), version)


def _is_ours(header: re.Match[bytes], kind: str, version: int, body: bytes | memoryview) -> bool:
    """Say whether an object is one of our version by its digest, whatever became of the version that it says."""
    return header[3] == b" " + _digest(f"seeknal {kind} {version}", body).encode()


def stored_body(data: bytes, expected: type[msgspec.Struct], name: str, path: Path | None = None) -> memoryview:
    """The part of an object that is its value as msgpack, known to be whole. The names and errors are as for decode."""
    kind, version = FORMAT_VERSIONS[expected]
    header, body = _cut(data)
    # The first three words keep their meaning in every version.
    found = _HEADER.fullmatch(header)
    if found is None:
        raise CorruptObjectError(f"{name} is damaged: it is not a stored {kind}", hint=WAY_OUT)
    if found[1] != kind.encode():
        raise CorruptObjectError(f"{name} is damaged: it is a stored {found[1].decode()}, not a {kind}", hint=WAY_OUT)
    insist_on_version(data, expected, name, path)
    if int(found[2]) != version or not _is_ours(found, kind, version, body):
        raise CorruptObjectError(f"{name} is damaged: its content does not match its digest", hint=WAY_OUT)
    return body


def decode(data: bytes, expected: type[T], name: str, path: Path | None = None) -> T:
    """Read an object back. ``name`` is what error messages call it; ``path`` is where it was read from.

    Raises FormatTooNewError or CorruptObjectError, whatever the bytes are.
    """
    body = stored_body(data, expected, name, path)
    decoder = _decoders.get(expected)
    if decoder is None:
        decoder = _decoders[expected] = msgspec.msgpack.Decoder(expected)
    try:
        value: T = decoder.decode(body)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise CorruptObjectError(f"{name} is damaged: {error}", hint=WAY_OUT) from error
    return value
