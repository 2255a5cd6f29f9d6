"""The digests of a Parquet file: one of its bytes, and one of each column's bytes.

- *blob digest*: xxh3_128 of all bytes of a file, in hexadecimal; a blob's address.
- *column digest*: xxh3_128 of a top-level column's layout (see :class:`seeknal.store.parquet_footer.ParquetFooter`)
  and then of its chunks, its leaves row group by row group, as they stand in the file. Nothing is decoded.

A column's digest does not depend on the file's other columns, nor on the column's name, nor on the rest of the
footer (which names the writer's version). The layout holds what a reader needs to decode the chunks, so that columns
of equal digests are equal values of the same *physical* type. What the values mean it does not cover: the integers
and the dates of the same days are the same digest. Whoever compares two columns by their digests compares their
types, too.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from io import FileIO
from pathlib import Path

import msgspec
import xxhash

from seeknal.errors import CorruptObjectError
from seeknal.store.filesystem import open_regular
from seeknal.store.parquet_footer import MAGIC, TRAILER_BYTES, Chunk, ParquetFooter, footer_length, parse_footer

# What is held in memory of a file, however large it is.
_WINDOW_BYTES = 4 * 1024 * 1024

_SMALLEST_READ_BYTES = 16 * 1024

# A file that is read at once: each read and each seek of a small one costs more than hashing it.
_SMALL_BYTES = 256 * 1024


class ParquetDigest(msgspec.Struct, frozen=True):
    """What a Parquet file is, as far as it can be told without decoding it.

    ``columns`` are the top-level columns as (name, column digest) in file order; a file that names two columns
    alike has two entries of that name.
    """

    digest: str
    size_bytes: int
    row_count: int
    columns: tuple[tuple[str, str], ...]


def digest_parquet(path: Path) -> ParquetDigest:
    """Digest a Parquet file and each of its columns in one pass, holding at most 4 MiB of the data.

    The footer is read first, then the file from its start. Where the chunks do not stand in the footer's order
    (no writer in use does that), they are read a second time, in that order.

    Raises CorruptObjectError where the file is not a well-formed Parquet file with a footer in plain text, and
    OSError where it cannot be read.
    """
    try:
        with FileIO(path) as file:
            size_bytes = os.fstat(file.fileno()).st_size
            if size_bytes <= _SMALL_BYTES:
                return _digest_small(file.read(size_bytes + 1), size_bytes)
            footer = _read_footer(file, size_bytes)
            buffer = memoryview(bytearray(min(size_bytes, _WINDOW_BYTES)))
            hashers = [xxhash.xxh3_128(layout) for layout in footer.layouts]
            whole = xxhash.xxh3_128()
            chunks = footer.chunks
            in_order = all(chunks[i].start < chunks[i + 1].start for i in range(len(chunks) - 1))
            _feed(file, 0, size_bytes, buffer, whole, chunks if in_order else (), hashers)
            if not in_order:
                for column, start, end in chunks:
                    _feed(file, start, end, buffer, hashers[column], (), ())
    except CorruptObjectError as error:
        raise CorruptObjectError(
            f"{path} is not a well-formed Parquet file: {error.message}",
            hint="it is damaged, or was not written to its end; write it again",
        ) from None
    return ParquetDigest(
        digest=whole.hexdigest(),
        size_bytes=size_bytes,
        row_count=footer.row_count,
        columns=tuple((name, hasher.hexdigest()) for name, hasher in zip(footer.columns, hashers, strict=True)),
    )


def digest_file(path: Path) -> tuple[str, int]:
    """Give the blob digest of any file and its size in bytes, holding at most 4 MiB of it.

    Raises OSError where it cannot be read.
    """
    hasher = xxhash.xxh3_128()
    size_bytes = 0
    with FileIO(open_regular(path)) as file:
        # Some special files say that they are empty; a small one is not worth a large buffer.
        buffer = memoryview(bytearray(min(max(os.fstat(file.fileno()).st_size, _SMALLEST_READ_BYTES), _WINDOW_BYTES)))
        while count := file.readinto(buffer):
            hasher.update(buffer[:count])
            size_bytes += count
    return hasher.hexdigest(), size_bytes


def _digest_small(data: bytes, size_bytes: int) -> ParquetDigest:
    """Digest a Parquet file that was read whole."""
    if len(data) != size_bytes:
        raise CorruptObjectError("its size changed while it was read")
    end = size_bytes - TRAILER_BYTES
    length = footer_length(data[: len(MAGIC)], data[max(0, end) :], size_bytes)
    footer = parse_footer(data[end - length : end], size_bytes)
    hashers = [xxhash.xxh3_128(layout) for layout in footer.layouts]
    view = memoryview(data)
    for column, start, stop in footer.chunks:
        hashers[column].update(view[start:stop])
    columns = tuple((name, hasher.hexdigest()) for name, hasher in zip(footer.columns, hashers, strict=True))
    return ParquetDigest(xxhash.xxh3_128_hexdigest(data), size_bytes, footer.row_count, columns)


def _read_footer(file: FileIO, size_bytes: int) -> ParquetFooter:
    head = _read_exactly(file, 0, min(len(MAGIC), size_bytes))
    trailer = _read_exactly(file, max(0, size_bytes - TRAILER_BYTES), min(TRAILER_BYTES, size_bytes))
    length = footer_length(head, trailer, size_bytes)
    return parse_footer(_read_exactly(file, size_bytes - TRAILER_BYTES - length, length), size_bytes)


def _read_exactly(file: FileIO, start: int, length: int) -> bytes:
    file.seek(start)
    data = file.read(length)
    if len(data) != length:
        raise CorruptObjectError("it became shorter while it was read")
    return data


def _feed(
    file: FileIO,
    start: int,
    end: int,
    buffer: memoryview,
    hasher: xxhash.xxh3_128,
    chunks: Sequence[Chunk],
    column_hashers: Sequence[xxhash.xxh3_128],
) -> None:
    """Feed the bytes from ``start`` to ``end`` to a hasher, and what lies in a chunk to its column's too.

    The chunks are in the order of their places and do not overlap.
    """
    file.seek(start)
    position = start
    current = 0
    while position < end:
        count = file.readinto(buffer[: end - position])
        if not count:
            raise CorruptObjectError("it became shorter while it was read")
        hasher.update(buffer[:count])
        window_end = position + count
        while current < len(chunks):
            column, chunk_start, chunk_end = chunks[current]
            if chunk_start < window_end:
                column_hashers[column].update(
                    buffer[max(chunk_start, position) - position : min(chunk_end, window_end) - position]
                )
            if chunk_end > window_end:
                break
            current += 1
        position = window_end
