"""The footer of a Parquet file: how many rows it has, and where each column's bytes stand.

A Parquet file is ``PAR1``, the data, the footer, the footer's length in four bytes, ``PAR1``. The footer is
one ``FileMetaData`` in Thrift's compact protocol. What is read of it here is what finding bytes takes, the
rest is skipped unread: no Parquet library is imported, because a store hashes its files far more often than
it looks into them.

- *column*: a child of the schema's root, what a query calls a column. It holds one *leaf* or, where it is a
  struct, list or map, several.
- *chunk*: the bytes of one leaf in one row group: its dictionary page, if it has one, then its data pages.
- *layout*: what beside the bytes of its chunks decides which values they are.

The formats: ``parquet.thrift`` of apache/parquet-format, ``thrift-compact-protocol.md`` of apache/thrift.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import msgspec

from seeknal.errors import CorruptObjectError

MAGIC = b"PAR1"

# The footer's length, then the magic.
TRAILER_BYTES = 8

# A footer grows by 100 to 200 bytes per chunk; this one would describe more than a million.
LARGEST_FOOTER_BYTES = 256 * 1024 * 1024

# Parquet's own structures nest six deep; the rest is room for what later versions add.
_DEEPEST_NESTING = 32


class Chunk(NamedTuple):
    """The bytes of one leaf of one row group: ``start`` (included) to ``end`` (excluded), from the file's start."""

    column: int
    start: int
    end: int


class ParquetFooter(msgspec.Struct, frozen=True):
    """What a footer says.

    ``columns`` are the names of the top-level columns in file order, repeated where the file repeats them.
    ``chunks`` name a column by its position there; they stand in the footer's order (row groups, and in each
    the leaves of the schema), lie inside the file's data, hold at least one byte and do not overlap.

    ``layouts`` has an entry for each column: of each element of its part of the schema, depth first, the physical
    type and its length, the repetition and the number of children (-1 where the footer says nothing); then of each
    chunk the leaf within the column, the codec and the length; in decimal, and ended by a line feed. Without it
    bytes are ambiguous: the nulls of an optional column can be the text of a required one.
    """

    row_count: int
    columns: tuple[str, ...]
    chunks: tuple[Chunk, ...]
    layouts: tuple[bytes, ...]


def footer_length(head: bytes, trailer: bytes, size_bytes: int) -> int:
    """Give the footer's length in bytes, from the file's first 4 bytes, its last 8 and its size.

    Raises CorruptObjectError where they are not those of a Parquet file.
    """
    if size_bytes < len(MAGIC) + TRAILER_BYTES:
        raise CorruptObjectError(f"{size_bytes} bytes are too few")
    if trailer[4:] == b"PARE":
        raise CorruptObjectError("the footer is encrypted")
    if head != MAGIC or trailer[4:] != MAGIC:
        raise CorruptObjectError("it does not begin and end with 'PAR1'")
    length = int.from_bytes(trailer[:4], "little")
    if length > min(size_bytes - len(MAGIC) - TRAILER_BYTES, LARGEST_FOOTER_BYTES):
        raise CorruptObjectError(f"a footer of {length} bytes is claimed, in a file of {size_bytes}")
    return length


def parse_footer(footer: bytes, size_bytes: int) -> ParquetFooter:
    """Read the footer of a file of ``size_bytes`` bytes; costs some 10 microseconds per chunk.

    Raises CorruptObjectError, whatever the bytes are, where the footer cannot be decoded, contradicts itself
    or points outside the file's data.
    """
    try:
        metadata, _ = _read(footer, 0, _FILE_METADATA)
        columns, elements, leaves = _columns_and_leaves(metadata[_SCHEMA])
        row_count = metadata[_NUM_ROWS]
        row_groups = metadata[_ROW_GROUPS]
        if row_count != sum(group_rows for group_rows, _ in row_groups):
            raise CorruptObjectError(f"the row groups do not add up to {row_count} rows")
        chunks: list[Chunk] = []
        codings: list[list[str]] = [[] for _ in columns]
        for _, leaf_chunks in row_groups:
            if len(leaf_chunks) != len(leaves):
                raise CorruptObjectError(f"a row group has {len(leaf_chunks)} chunks for {len(leaves)} leaves")
            for (column, leaf), (top_name, codec, start, length) in zip(leaves, leaf_chunks, strict=True):
                if top_name is not None and top_name != columns[column]:
                    raise CorruptObjectError("the chunks do not stand in the schema's order")
                if length:
                    chunks.append(Chunk(column, start, start + length))
                    codings[column].append(f"{leaf} {codec} {length}")
        _check_places(chunks, size_bytes - TRAILER_BYTES - len(footer))
        layouts = tuple(
            f"{','.join(inner)};{','.join(outer)}\n".encode() for inner, outer in zip(elements, codings, strict=True)
        )
        return ParquetFooter(row_count, tuple(name.decode() for name in columns), tuple(chunks), layouts)
    except IndexError:
        raise CorruptObjectError("the footer ends too early") from None
    except KeyError as error:
        raise CorruptObjectError(f"the footer lacks the required field {error.args[0]}") from None
    except UnicodeDecodeError:
        raise CorruptObjectError("a column's name is not UTF-8") from None


def _columns_and_leaves(schema: list[_Element]) -> tuple[list[bytes], list[list[str]], list[tuple[int, int]]]:
    """Give the names of the top-level columns, the elements below each, and for each leaf in order its place.

    The schema is a tree written out depth first, each element with the number of its children. A leaf's place is
    the position of its column and its own among the column's leaves.
    """
    columns: list[bytes] = []
    elements: list[list[str]] = []
    leaves: list[tuple[int, int]] = []
    top_missing, missing, leaf = schema[0][2] if schema else -1, 0, 0
    for name, is_leaf, children, said in schema[1:]:
        if not missing:
            columns.append(name)
            elements.append([])
            top_missing -= 1
            missing = 1
            leaf = 0
        elements[-1].append(said)
        if is_leaf:
            leaves.append((len(columns) - 1, leaf))
            leaf += 1
        missing += children - 1
    if top_missing or missing:
        raise CorruptObjectError("the schema is not a tree")
    return columns, elements, leaves


def _check_places(chunks: list[Chunk], data_end: int) -> None:
    """Refuse chunks outside the data, and overlapping ones: they would be hashed many times over."""
    previous_end = len(MAGIC)
    for _, start, end in sorted(chunks, key=_chunk_start):
        if start < previous_end or end < start:
            raise CorruptObjectError("two chunks overlap, or one lies outside the data")
        previous_end = end
    if previous_end > data_end and chunks:
        raise CorruptObjectError("a chunk reaches into the footer")


def _chunk_start(chunk: Chunk) -> int:
    return chunk.start


# Thrift's compact protocol. Whatever runs past the end raises IndexError, which parse_footer translates; so
# every loop below that could be made to spin must read at least one byte each time round.

_Fields: TypeAlias = dict[int, Any]
_Element: TypeAlias = tuple[bytes, bool, int, str]
_Reader: TypeAlias = Callable[[bytes, int], tuple[Any, int]]
_Readers: TypeAlias = dict[int, _Reader]

_TRUE, _FALSE, _BYTE, _I16, _I32, _I64, _DOUBLE, _BINARY, _LIST, _SET, _MAP, _STRUCT, _UUID = range(1, 14)

# The value of a field of these kinds is in its header.
_BOOLEANS = (_TRUE, _FALSE)

_FIXED_BYTES = {_TRUE: 1, _FALSE: 1, _BYTE: 1, _DOUBLE: 8, _UUID: 16}


def _unsigned(data: bytes, position: int) -> tuple[int, int]:
    value = data[position]
    position += 1
    if value < 128:
        return value, position
    value &= 127
    for shift in range(7, 70, 7):
        byte = data[position]
        position += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, position
    raise CorruptObjectError("the footer holds an integer of more than 64 bits")


def _integer(data: bytes, position: int) -> tuple[int, int]:
    value, position = _unsigned(data, position)
    return (value >> 1) ^ -(value & 1), position


def _binary(data: bytes, position: int) -> tuple[bytes, int]:
    length, position = _unsigned(data, position)
    return data[position : position + length], position + length


def _list_header(data: bytes, position: int) -> tuple[int, int, int]:
    """Give the kind of the elements, how many there are, and where the first one stands."""
    header = data[position]
    count = header >> 4
    position += 1
    if count == 15:
        count, position = _unsigned(data, position)
    return header & 15, count, position


def _read(data: bytes, position: int, readers: _Readers) -> tuple[_Fields, int]:
    """Read a struct's fields that have a reader, by field id; skip the others and those of another kind."""
    fields: _Fields = {}
    field = 0
    while header := data[position]:
        position += 1
        kind = header & 15
        if header > 15:
            field += header >> 4
        else:
            field, position = _integer(data, position)
        reader = readers.get(field << 4 | kind)
        if reader is not None:
            fields[field], position = reader(data, position)
        elif kind in (_I32, _I64):
            # As in _skip. Most fields are one of these, and a call costs more than passing over them.
            while data[position] > 127:
                position += 1
            position += 1
        elif kind not in _BOOLEANS:
            position = _skip(data, position, kind, 1)
    return fields, position + 1


def _skip(data: bytes, position: int, kind: int, depth: int) -> int:
    """Give the position after a value. A boolean is taken for an element of a list or map, which is one byte."""
    if _I16 <= kind <= _I64:
        while data[position] > 127:
            position += 1
        return position + 1
    if kind == _BINARY:
        length, position = _unsigned(data, position)
        return position + length
    if kind in _FIXED_BYTES:
        return position + _FIXED_BYTES[kind]
    if depth == _DEEPEST_NESTING:
        raise CorruptObjectError("the footer is nested too deeply")
    if kind == _STRUCT:
        while header := data[position]:
            position += 1
            if header < 16:
                _, position = _integer(data, position)
            field_kind = header & 15
            if field_kind == _BINARY and data[position] < 128:
                # A minimum or maximum, as a rule.
                position += 1 + data[position]
            elif field_kind not in _BOOLEANS:
                position = _skip(data, position, field_kind, depth + 1)
        return position + 1
    if kind in (_LIST, _SET):
        element_kind, count, position = _list_header(data, position)
        if element_kind in _FIXED_BYTES:
            return position + count * _FIXED_BYTES[element_kind]
        for _ in range(count):
            position = _skip(data, position, element_kind, depth + 1)
        return position
    if kind == _MAP:
        count, position = _unsigned(data, position)
        if count:
            kinds = data[position]
            position += 1
            for _ in range(count):
                position = _skip(data, position, kinds >> 4, depth + 1)
                position = _skip(data, position, kinds & 15, depth + 1)
                if position > len(data):
                    raise IndexError
        return position
    raise CorruptObjectError(f"the footer holds a value of the unknown kind {kind}")


def _structs(read_one: _Reader) -> _Reader:
    """Make a reader of a list of structs."""

    def read(data: bytes, position: int) -> tuple[list[Any], int]:
        kind, count, position = _list_header(data, position)
        if count and kind != _STRUCT:
            raise CorruptObjectError("the footer holds a list of something else than structs")
        elements = []
        for _ in range(count):
            element, position = read_one(data, position)
            elements.append(element)
        return elements, position

    return read


def _first_of_path(data: bytes, position: int) -> tuple[bytes | None, int]:
    """Read the first name of a list of names."""
    after = _skip(data, position, _LIST, 1)
    kind, count, position = _list_header(data, position)
    return (_binary(data, position)[0] if count and kind == _BINARY else None), after


def _element(data: bytes, position: int) -> tuple[_Element, int]:
    """Read a ``SchemaElement`` as its name, whether it is a leaf, the number of its children, and its layout."""
    element, position = _read(data, position, _SCHEMA_ELEMENT)
    kind, children = element.get(_TYPE, -1), element.get(_NUM_CHILDREN, 0)
    is_leaf = _TYPE in element
    if children < 0 or (is_leaf and children):
        raise CorruptObjectError(f"an element of the schema has {children} children")
    layout = f"{kind} {element.get(_TYPE_LENGTH, -1)} {element.get(_REPETITION_TYPE, -1)} {children}"
    return (element[_NAME], is_leaf, children, layout), position


def _row_group(data: bytes, position: int) -> tuple[tuple[int, list[Any]], int]:
    """Read a ``RowGroup`` as its number of rows and its chunks' places."""
    group, position = _read(data, position, _ROW_GROUP)
    row_count = group[_GROUP_NUM_ROWS]
    if row_count < 0:
        raise CorruptObjectError(f"a row group has {row_count} rows")
    return (row_count, group[_GROUP_COLUMNS]), position


def _place(data: bytes, position: int) -> tuple[tuple[bytes | None, int, int, int], int]:
    """Read a ``ColumnChunk`` as its column's name (None where it is not given), codec, start and length in bytes."""
    chunk, position = _read(data, position, _COLUMN_CHUNK)
    if chunk.get(_FILE_PATH):
        raise CorruptObjectError("the columns are kept in other files")
    if _META_DATA not in chunk:
        raise CorruptObjectError("a column's metadata is missing, or encrypted")
    column = chunk[_META_DATA]
    start, length = column[_DATA_PAGE_OFFSET], column[_TOTAL_COMPRESSED_SIZE]
    dictionary_start = column.get(_DICTIONARY_PAGE_OFFSET, 0)
    # Some writers say 0 where there is no dictionary page, and pyarrow where there are no data pages.
    if dictionary_start > 0 and (dictionary_start < start or start == 0):
        start = dictionary_start
    return (column.get(_PATH_IN_SCHEMA), column[_CODEC], start, length), position


def _column_meta_data(data: bytes, position: int) -> tuple[_Fields, int]:
    return _read(data, position, _COLUMN_META_DATA)


# parquet.thrift, as far as it is read: field ids, and for each struct ``id << 4 | kind`` with its reader.

_TYPE, _TYPE_LENGTH, _REPETITION_TYPE, _NAME, _NUM_CHILDREN = 1, 2, 3, 4, 5
_SCHEMA_ELEMENT: _Readers = {
    _TYPE << 4 | _I32: _integer,
    _TYPE_LENGTH << 4 | _I32: _integer,
    _REPETITION_TYPE << 4 | _I32: _integer,
    _NAME << 4 | _BINARY: _binary,
    _NUM_CHILDREN << 4 | _I32: _integer,
}

_PATH_IN_SCHEMA, _CODEC, _TOTAL_COMPRESSED_SIZE, _DATA_PAGE_OFFSET, _DICTIONARY_PAGE_OFFSET = 3, 4, 7, 9, 11
_COLUMN_META_DATA: _Readers = {
    _PATH_IN_SCHEMA << 4 | _LIST: _first_of_path,
    _CODEC << 4 | _I32: _integer,
    _TOTAL_COMPRESSED_SIZE << 4 | _I64: _integer,
    _DATA_PAGE_OFFSET << 4 | _I64: _integer,
    _DICTIONARY_PAGE_OFFSET << 4 | _I64: _integer,
}

_FILE_PATH, _META_DATA = 1, 3
_COLUMN_CHUNK: _Readers = {
    _FILE_PATH << 4 | _BINARY: _binary,
    _META_DATA << 4 | _STRUCT: _column_meta_data,
}

_GROUP_COLUMNS, _GROUP_NUM_ROWS = 1, 3
_ROW_GROUP: _Readers = {
    _GROUP_COLUMNS << 4 | _LIST: _structs(_place),
    _GROUP_NUM_ROWS << 4 | _I64: _integer,
}

_SCHEMA, _NUM_ROWS, _ROW_GROUPS = 2, 3, 4
_FILE_METADATA: _Readers = {
    _SCHEMA << 4 | _LIST: _structs(_element),
    _NUM_ROWS << 4 | _I64: _integer,
    _ROW_GROUPS << 4 | _LIST: _structs(_row_group),
}
