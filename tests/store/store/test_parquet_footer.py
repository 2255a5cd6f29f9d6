from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from seeknal.errors import CorruptObjectError
from seeknal.store.column_digests import digest_parquet
from seeknal.store.parquet_footer import MAGIC, TRAILER_BYTES, Chunk, ParquetFooter, footer_length, parse_footer

DATA = bytes(range(60))


# A writer of the compact protocol, for footers that no Parquet library would write.


def varint(value: int) -> bytes:
    written = bytearray()
    while value > 127:
        written.append(value & 127 | 128)
        value >>= 7
    written.append(value)
    return bytes(written)


def integer(kind: int, value: int) -> tuple[int, bytes]:
    return kind, varint(value * 2 if value >= 0 else -value * 2 - 1)


def i32(value: int) -> tuple[int, bytes]:
    return integer(5, value)


def i64(value: int) -> tuple[int, bytes]:
    return integer(6, value)


def text(value: str | bytes) -> tuple[int, bytes]:
    raw = value.encode() if isinstance(value, str) else value
    return 8, varint(len(raw)) + raw


def listing(*elements: tuple[int, bytes], kind: int = 12) -> tuple[int, bytes]:
    head = bytes([len(elements) << 4 | kind]) if len(elements) < 15 else bytes([0xF0 | kind]) + varint(len(elements))
    return 9, head + b"".join(raw for _, raw in elements)


def struct(fields: Mapping[int, tuple[int, bytes]]) -> tuple[int, bytes]:
    written = b""
    previous = 0
    for field, (kind, raw) in fields.items():
        step = field - previous
        written += bytes([step << 4 | kind]) if 0 < step < 16 else bytes([kind]) + integer(4, field)[1]
        written += raw
        previous = field
    return 12, written + b"\0"


def element(
    name: str | bytes,
    children: int | None = None,
    kind: int | None = None,
    length: int | None = None,
    repetition: int | None = None,
) -> tuple[int, bytes]:
    said = {1: kind, 2: length, 3: repetition, 5: children}
    fields = {field: i32(value) for field, value in said.items() if value is not None}
    return struct(dict(sorted({**fields, 4: text(name)}.items())))


def place(
    name: str,
    start: int,
    length: int,
    dictionary: int | None = None,
    codec: int = 6,
    also: Mapping[int, tuple[int, bytes]] | None = None,
    around: Mapping[int, tuple[int, bytes]] | None = None,
) -> tuple[int, bytes]:
    fields = {3: listing(text(name), kind=8), 4: i32(codec), 7: i64(length), 9: i64(start)}
    if dictionary is not None:
        fields |= {11: i64(dictionary)}
    return struct({**(around or {}), 3: struct(fields | dict(also or {}))})


def row_group(rows: int, *places: tuple[int, bytes]) -> tuple[int, bytes]:
    return struct({1: listing(*places), 3: i64(rows)})


def footer_of(schema: Sequence[tuple[int, bytes]], rows: int, *row_groups: tuple[int, bytes]) -> bytes:
    return struct({1: i32(2), 2: listing(*schema), 3: i64(rows), 4: listing(*row_groups)})[1]


TWO_COLUMNS = (element("root", children=2), element("a", kind=1), element("b", kind=1))
ONE_COLUMN = (element("root", children=1), element("a", kind=1))


def one_chunk(rows: int = 3, **changes: Any) -> bytes:
    return footer_of(ONE_COLUMN, rows, row_group(rows, place("a", 4, 8, **changes)))


def parse(footer: bytes) -> ParquetFooter:
    return parse_footer(footer, len(MAGIC) + len(DATA) + len(footer) + TRAILER_BYTES)


def write_file(path: Path, footer: bytes) -> Path:
    path.write_bytes(MAGIC + DATA + footer + len(footer).to_bytes(4, "little") + MAGIC)
    return path


def refusal(footer: bytes) -> str:
    with pytest.raises(CorruptObjectError) as caught:
        parse(footer)
    return caught.value.message


class TestWhatIsRead:
    def test_names_rows_and_places_are_read(self) -> None:
        footer = footer_of(
            TWO_COLUMNS,
            5,
            row_group(3, place("a", 4, 8), place("b", 12, 9)),
            row_group(2, place("a", 21, 1), place("b", 22, 2)),
        )
        chunks = (Chunk(0, 4, 12), Chunk(1, 12, 21), Chunk(0, 21, 22), Chunk(1, 22, 24))
        layouts = (b"1 -1 -1 0;0 6 8,0 6 1\n", b"1 -1 -1 0;0 6 9,0 6 2\n")
        assert parse(footer) == ParquetFooter(5, ("a", "b"), chunks, layouts)

    @pytest.mark.parametrize(
        ("data", "dictionary", "start"),
        [(10, None, 10), (10, 0, 10), (10, 4, 4), (10, 9, 9), (10, 10, 10), (10, 11, 10), (10, -3, 10), (0, 9, 9)],
    )
    def test_chunk_starts_at_its_dictionary_page_if_that_comes_first(
        self, data: int, dictionary: int | None, start: int
    ) -> None:
        footer = footer_of(ONE_COLUMN, 1, row_group(1, place("a", data, 8, dictionary)))
        assert parse(footer).chunks == (Chunk(0, start, start + 8),)

    def test_leaves_belong_to_their_top_level_column(self) -> None:
        schema = (
            element("root", children=3),
            element("s", children=2),
            element("x", kind=1),
            element("deep", children=1),
            element("y", kind=1),
            element("plain", kind=1),
            element("list", children=1),
            element("repeated", children=1),
            element("item", kind=6),
        )
        places = [place(name, 4 + i, 1) for i, name in enumerate(("s", "s", "plain", "list"))]
        footer = parse(footer_of(schema, 1, row_group(1, *places)))
        assert footer.columns == ("s", "plain", "list")
        assert [chunk.column for chunk in footer.chunks] == [0, 0, 1, 2]

    def test_layout_holds_all_that_decoding_needs(self) -> None:
        schema = (
            element("root", children=2),
            element("s", children=3, repetition=1),
            element("x", kind=6, repetition=0),
            element("list", children=1, repetition=2),
            element("y", kind=7, length=16, repetition=1),
            element("empty", repetition=0),
            element("z", kind=2, repetition=0),
        )
        first = row_group(1, place("s", 4, 3, codec=0), place("s", 7, 4, codec=1), place("z", 11, 1))
        second = row_group(1, place("s", 0, 0), place("s", 12, 6, codec=2), place("z", 18, 1))
        assert parse(footer_of(schema, 2, first, second)).layouts == (
            b"-1 -1 1 3,6 -1 0 0,-1 -1 2 1,7 16 1 0,-1 -1 0 0;0 0 3,1 1 4,1 2 6\n",
            b"2 -1 0 0;0 6 1,0 6 1\n",
        )

    @pytest.mark.parametrize(
        ("schema", "chunk"),
        [
            ((element("root", children=1), element("a", kind=2)), place("a", 4, 8)),
            ((element("root", children=1), element("a", kind=1, length=1)), place("a", 4, 8)),
            ((element("root", children=1), element("a", kind=1, repetition=0)), place("a", 4, 8)),
            ((element("root", children=1), element("a", kind=1, repetition=1)), place("a", 4, 8)),
            ((element("root", children=1), element("a", children=1), element("b", kind=1)), place("a", 4, 8)),
            (ONE_COLUMN, place("a", 4, 8, codec=0)),
            (ONE_COLUMN, place("a", 4, 7)),
        ],
    )
    def test_each_thing_that_decoding_needs_changes_the_layout(
        self, schema: tuple[tuple[int, bytes], ...], chunk: tuple[int, bytes]
    ) -> None:
        assert parse(footer_of(schema, 1, row_group(1, chunk))).layouts != parse(one_chunk(rows=1)).layouts

    def test_layout_knows_no_names_and_no_places(self) -> None:
        schema = (element("r", children=1), element("b", kind=1))
        assert parse(footer_of(schema, 1, row_group(1, place("b", 9, 8)))).layouts == parse(one_chunk()).layouts

    def test_columns_of_one_name_stay_apart(self) -> None:
        schema = (element("root", children=2), element("a", kind=1), element("a", kind=1))
        footer = parse(footer_of(schema, 1, row_group(1, place("a", 4, 1), place("a", 5, 1))))
        assert footer.columns == ("a", "a")
        assert [chunk.column for chunk in footer.chunks] == [0, 1]

    def test_file_without_columns_has_none(self) -> None:
        assert parse(footer_of((element("root", children=0),), 0)) == ParquetFooter(0, (), (), ())
        assert parse(footer_of((element("root"),), 7, row_group(7))) == ParquetFooter(7, (), (), ())

    def test_chunk_without_bytes_is_left_out(self) -> None:
        assert parse(footer_of(ONE_COLUMN, 0, row_group(0, place("a", 0, 0)))).chunks == ()

    def test_path_in_the_schema_may_be_absent(self) -> None:
        chunk = struct({3: struct({4: i32(6), 7: i64(8), 9: i64(4)})})
        assert parse(footer_of(ONE_COLUMN, 1, row_group(1, chunk))).chunks == (Chunk(0, 4, 12),)

    def test_every_kind_of_unknown_field_is_skipped(self) -> None:
        unknown = {
            40: (1, b""),
            41: (2, b""),
            42: (3, b"\xff"),
            43: integer(4, -300),
            44: i32(2**31 - 1),
            45: i64(-(2**63)),
            46: (7, b"\xff" * 8),
            47: text(b"\xff" * 200),
            48: listing(*[(1, b"\x01")] * 20, kind=1),
            49: (10, listing(text("x"), text("yy"), kind=8)[1]),
            50: (11, b"\0"),
            51: (11, b"\x02" + b"\x81" + b"\x01k\x01" + b"\x01l\x02"),
            52: struct({1: (1, b""), 90: struct({2: listing(struct({}))})}),
            53: (13, b"\xff" * 16),
            54: listing(*[i64(2**40)] * 3, kind=6),
            20: i32(1),
        }
        assert parse(one_chunk(also=unknown, around=unknown)) == parse(one_chunk())

    def test_field_of_another_kind_counts_as_absent(self) -> None:
        chunk = struct({3: struct({4: i32(6), 7: text("8"), 9: i64(4)})})
        assert "lacks" in refusal(footer_of(ONE_COLUMN, 1, row_group(1, chunk)))

    def test_bytes_after_the_footer_are_ignored(self) -> None:
        assert parse(one_chunk() + b"signature" * 3) == parse(one_chunk())


class TestWhatIsRefused:
    def test_chunk_outside_the_data(self) -> None:
        for start, length in [(3, 4), (0, 4), (-8, 4), (4, 61), (64, 1), (2**62, 2**62), (4, -1), (12, -8)]:
            assert "chunk" in refusal(footer_of(ONE_COLUMN, 1, row_group(1, place("a", start, length))))

    def test_overlapping_chunks(self) -> None:
        overlapping = row_group(1, place("a", 4, 8), place("b", 11, 8))
        assert "overlap" in refusal(footer_of(TWO_COLUMNS, 1, overlapping))
        many = [row_group(0, place("a", 4, 60))] * 1000
        assert "overlap" in refusal(footer_of(ONE_COLUMN, 0, *many))

    def test_row_counts_that_do_not_add_up(self) -> None:
        chunk = place("a", 4, 8)
        assert "add up" in refusal(footer_of(ONE_COLUMN, 4, row_group(3, chunk)))
        assert "add up" in refusal(footer_of(ONE_COLUMN, 1))
        assert "rows" in refusal(footer_of(ONE_COLUMN, -1, row_group(-1, chunk)))

    def test_row_group_that_does_not_match_the_schema(self) -> None:
        assert "chunks for" in refusal(footer_of(TWO_COLUMNS, 1, row_group(1, place("a", 4, 8))))
        swapped = row_group(1, place("b", 4, 1), place("a", 5, 1))
        assert "order" in refusal(footer_of(TWO_COLUMNS, 1, swapped))

    @pytest.mark.parametrize(
        "schema",
        [
            (),
            (element("root", children=2), element("a", kind=1)),
            (element("root", children=0), element("a", kind=1)),
            (element("root", children=-1),),
            (element("root", children=2**31 - 1), element("a", kind=1)),
            (element("root", children=1), element("a", kind=1, children=1), element("b", kind=1)),
            (element("root", children=1), element("a", children=2), element("b", kind=1)),
            (element("root", children=1), element("a", children=-1), element("b", kind=1)),
            (element("root", children=1), struct({1: i32(1)})),
            (element("root", children=1), element(b"\xff\xfe", kind=1)),
        ],
    )
    def test_schema_that_is_no_tree_of_names(self, schema: tuple[tuple[int, bytes], ...]) -> None:
        refusal(footer_of(schema, 0))

    def test_columns_kept_in_other_files(self) -> None:
        assert "other files" in refusal(one_chunk(around={1: text("part-0.parquet")}))

    def test_column_without_metadata(self) -> None:
        assert "encrypted" in refusal(footer_of(ONE_COLUMN, 1, row_group(1, struct({2: i64(4)}))))

    def test_chunk_without_codec(self) -> None:
        chunk = struct({3: struct({7: i64(8), 9: i64(4)})})
        assert "field 4" in refusal(footer_of(ONE_COLUMN, 1, row_group(1, chunk)))

    def test_endless_integer(self) -> None:
        assert "64 bits" in refusal(struct({3: (6, b"\xff" * 1_000_000)})[1])

    def test_endless_nesting(self) -> None:
        assert "deep" in refusal(b"\xfc" * 100_000)
        assert "deep" in refusal(struct({9: (9, b"\x19" * 100_000)})[1])
        assert "deep" in refusal(struct({9: (11, b"\x01\xbb" * 100_000)})[1])

    @pytest.mark.parametrize("kind", range(14))
    def test_list_or_map_longer_than_the_footer(self, kind: int) -> None:
        huge = varint(2**63)
        for field in (2, 4, 9):
            refusal(struct({field: (9, bytes([0xF0 | kind]) + huge)})[1])
        refusal(struct({9: (11, huge + bytes([kind << 4 | kind]))})[1])
        refusal(struct({9: (8, huge)})[1])

    @pytest.mark.parametrize("kind", [0, 14, 15])
    def test_value_of_an_unknown_kind(self, kind: int) -> None:
        assert "unknown kind" in refusal(struct({9: (kind, b"")})[1])
        assert "unknown kind" in refusal(struct({9: listing((kind, b"\0"), kind=kind)})[1])

    @pytest.mark.parametrize(
        ("head", "trailer", "size"),
        [
            (b"PAR1", b"\0\0\0\0PAR1", 11),
            (b"PAR2", b"\0\0\0\0PAR1", 100),
            (b"PAR1", b"\0\0\0\0PAR2", 100),
            (b"PAR1", b"\0\0\0\0PARE", 100),
            (b"PAR1", b"\x59\0\0\0PAR1", 100),
            (b"PAR1", b"\xff\xff\xff\xffPAR1", 2**40),
        ],
    )
    def test_file_whose_ends_are_not_those_of_parquet(self, head: bytes, trailer: bytes, size: int) -> None:
        with pytest.raises(CorruptObjectError):
            footer_length(head, trailer, size)
        assert footer_length(b"PAR1", b"\x58\0\0\0PAR1", 100) == 88

    @settings(max_examples=300)
    @given(st.binary(max_size=200))
    def test_random_bytes_never_raise_anything_else(self, footer: bytes) -> None:
        with contextlib.suppress(CorruptObjectError):
            assert parse(footer).row_count >= 0


@pytest.fixture(scope="module")
def real_footer(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, int]:
    path = tmp_path_factory.mktemp("footer") / "real.parquet"
    pq.write_table(pa.table({"a": [1, 2, None], "s": [{"x": 1, "y": ["p"]}] * 3}), path)
    raw = path.read_bytes()
    length = int.from_bytes(raw[-8:-4], "little")
    return raw[-TRAILER_BYTES - length : -TRAILER_BYTES], len(raw)


def test_every_cut_of_a_real_footer_is_refused(real_footer: tuple[bytes, int]) -> None:
    footer, size = real_footer
    for length in range(len(footer)):
        with pytest.raises(CorruptObjectError):
            parse_footer(footer[:length], size)


def test_every_flipped_bit_of_a_real_footer_gives_a_sound_answer_or_is_refused(real_footer: tuple[bytes, int]) -> None:
    footer, size = real_footer
    refused = 0
    for position in range(len(footer)):
        for bit in range(8):
            flipped = bytearray(footer)
            flipped[position] ^= 1 << bit
            try:
                answer = parse_footer(bytes(flipped), size)
            except CorruptObjectError:
                refused += 1
                continue
            assert answer.row_count >= 0
            assert sum(chunk.end - chunk.start for chunk in answer.chunks) <= size - len(footer) - 12
            assert all(4 <= chunk.start < chunk.end for chunk in answer.chunks)
    assert refused > 0


class TestFilesThatNoLibraryWrites:
    def test_chunks_are_hashed_in_the_footers_order_wherever_they_stand(self, tmp_path: Path) -> None:
        footer = footer_of(
            TWO_COLUMNS,
            5,
            row_group(3, place("a", 30, 10), place("b", 4, 6)),
            row_group(2, place("a", 12, 10), place("b", 44, 20)),
        )
        path = write_file(tmp_path / "odd.parquet", footer)
        raw = path.read_bytes()
        found = digest_parquet(path)
        assert found.digest == xxhash.xxh3_128_hexdigest(raw)
        assert found.columns == (
            ("a", xxhash.xxh3_128_hexdigest(b"1 -1 -1 0;0 6 10,0 6 10\n" + raw[30:40] + raw[12:22])),
            ("b", xxhash.xxh3_128_hexdigest(b"1 -1 -1 0;0 6 6,0 6 20\n" + raw[4:10] + raw[44:64])),
        )

    def test_gaps_between_chunks_count_for_the_blob_alone(self, tmp_path: Path) -> None:
        footer = footer_of(TWO_COLUMNS, 1, row_group(1, place("a", 6, 3), place("b", 20, 5)))
        path = write_file(tmp_path / "gaps.parquet", footer)
        before = digest_parquet(path)
        raw = bytearray(path.read_bytes())
        raw[10] ^= 1
        path.write_bytes(raw)
        after = digest_parquet(path)
        assert after.columns == before.columns
        assert after.digest != before.digest
