"""Fingerprints: what a node's output depends on, as one 128-bit key.

    fingerprint = xxh3_128(engine epoch, kind, canonical SQL, identity, output columns, inputs read)

*Inputs read* are, for each input, its row count and the name, type and digest of exactly the columns that the node
reads, in order; and of an input that is read whole, the digests of its files that are no table. So a node is built
again when something changed that it reads, and otherwise not: not when an input was merely built again, not when an
input got a column that the node does not name. The output columns count because ``SELECT *`` and ``COLUMNS(…)`` follow
the input's columns even where no value of theirs is read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import msgspec
import xxhash

from seeknal.nodes.check import Check
from seeknal.store.objects import Artifact, Column

# Raise it when the same node on the same inputs would give something else than before.
ENGINE_EPOCH = 1

_encoder = msgspec.msgpack.Encoder(order="deterministic")


def engine_identity() -> str:
    """Our epoch and DuckDB's version: either may change what a query gives."""
    return f"{ENGINE_EPOCH}/duckdb-{_duckdb_version()}"


@cache
def _duckdb_version() -> str:
    # Where DuckDB has it from too. Who only looks what is there already need not load DuckDB for it.
    from importlib.metadata import version

    return version("duckdb")


def fingerprint(
    *,
    engine: str,
    kind: str,
    canonical: str,
    identity: Sequence[Any],
    schema: Mapping[str, str] | None,
    inputs: Sequence[tuple[str, Artifact, Sequence[str] | None]],
) -> str:
    """Compute a node's fingerprint, as 32 hexadecimal digits.

    ``inputs`` are the inputs that count: node id, artifact, and the columns read (None: all).
    """
    said = [
        engine,
        kind,
        canonical,
        list(identity),
        None if schema is None else list(schema.items()),
        [(node_id, artifact.row_count, *_read(artifact, reads)) for node_id, artifact, reads in inputs],
    ]
    return xxhash.xxh3_128_hexdigest(_encoder.encode(said))


def checks_key(engine: str, checks: Sequence[Check], artifact: Artifact) -> str:
    """Compute a key of checks and the content that they are about, as 32 hexadecimal digits."""
    content = [artifact.row_count, list(artifact.columns), [blob.digest for blob in artifact.blobs()]]
    return xxhash.xxh3_128_hexdigest(_encoder.encode(["checks", engine, [check.said() for check in checks], content]))


def _read(artifact: Artifact, reads: Sequence[str] | None) -> tuple[list[Column], list[tuple[str, str]]]:
    """The columns of an input that count, and of one that is read whole its files, by name and digest."""
    if reads is not None:
        wanted = set(reads)
        read = [column for column in artifact.columns if column.name in wanted]
        # A column that the input does not have says that somebody misunderstood the other: then all of it counts.
        if len(read) == len(wanted):
            return read, []
    return list(artifact.columns), [(name, blob.digest) for name, blob in artifact.side_blobs]
