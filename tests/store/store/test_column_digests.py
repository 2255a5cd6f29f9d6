from __future__ import annotations

import contextlib
import datetime
import decimal
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pyarrow.parquet.encryption as pe
import pytest
import xxhash
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from seeknal.errors import CorruptObjectError
from seeknal.store import column_digests
from seeknal.store.column_digests import ParquetDigest, digest_file, digest_parquet

# The numbers that parquet.thrift gives to what pyarrow names.
PHYSICAL_TYPES = "BOOLEAN INT32 INT64 INT96 FLOAT DOUBLE BYTE_ARRAY FIXED_LEN_BYTE_ARRAY".split()
CODECS = "UNCOMPRESSED SNAPPY GZIP LZO BROTLI LZ4 ZSTD LZ4_RAW".split()
REPETITIONS = "required optional repeated".split()

EVERY_TYPE = """
    i AS whole, (i % 100)::TINYINT AS tiny, i % 7 AS repeated, i * 1.5 AS exact, (i / 3)::DECIMAL(30, 4) AS wide_exact,
    i::DOUBLE / 7 AS broken, i::VARCHAR AS words, 'x' || (i % 5) AS few_words, i % 2 = 0 AS truth,
    DATE '2020-01-01' + i::INT AS day, TIMESTAMPTZ '2020-01-01 00:00:00Z' + INTERVAL (i) HOUR AS moment,
    CASE WHEN i % 3 = 0 THEN i END AS gaps, NULL::INT AS nothing, (-i)::VARCHAR::BLOB || 'b'::BLOB AS raw,
    {'x': i, 'y': {'z': [i, NULL], 'w': i::VARCHAR}} AS nested, [i, i + 1] AS list, [[i], []] AS lists,
    MAP {'k' || i: i, 'l': NULL} AS map, [{'p': i, 'q': 'r'}] AS structs
"""


@pytest.fixture(scope="module")
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect(config={"threads": 1}) as opened:
        yield opened


def write(connection: duckdb.DuckDBPyConnection, query: str, path: Path, options: str = "") -> Path:
    connection.execute(f"COPY ({query}) TO '{path}' (FORMAT parquet{options})")
    return path


def elements_by_pyarrow(metadata: pq.FileMetaData) -> list[list[str]]:
    """What pyarrow prints of the schema, as the elements of each column."""
    leaves = (metadata.schema.column(i) for i in range(metadata.num_columns))
    columns: list[list[list[int]]] = []
    open_groups: list[list[int]] = []
    for line in str(metadata.schema).splitlines()[2:]:
        words = line.split()
        if not words:
            continue
        if words[0] == "}":
            if open_groups:
                open_groups.pop()
            continue
        if open_groups:
            open_groups[-1][3] += 1
        else:
            columns.append([])
        element = [-1, -1, REPETITIONS.index(words[0]), 0]
        columns[-1].append(element)
        if words[1] == "group":
            open_groups.append(element)
            continue
        leaf = next(leaves)
        element[0] = PHYSICAL_TYPES.index(leaf.physical_type)
        if leaf.physical_type == "FIXED_LEN_BYTE_ARRAY":
            element[1] = leaf.length
    return [[" ".join(map(str, element)) for element in column] for column in columns]


def digest_by_pyarrow(path: Path) -> ParquetDigest:
    """Work out the same with the footer as pyarrow reads it and the whole file in memory."""
    raw = path.read_bytes()
    metadata = pq.read_metadata(path)
    names = pq.read_schema(path).names
    leaves = [metadata.schema.column(i).path.split(".")[0] for i in range(metadata.num_columns)]
    # Where names repeat, every column is a single leaf.
    columns = range(len(names)) if len(leaves) == len(names) else [names.index(leaf) for leaf in leaves]
    elements = elements_by_pyarrow(metadata)
    chunks = [b"" for _ in names]
    codings: list[list[str]] = [[] for _ in names]
    for g in range(metadata.num_row_groups):
        for leaf, column in enumerate(columns):
            chunk = metadata.row_group(g).column(leaf)
            length = chunk.total_compressed_size
            start = min(offset for offset in (chunk.dictionary_page_offset, chunk.data_page_offset) if offset)
            chunks[column] += raw[start : start + length]
            codings[column].append(f"{leaf - list(columns).index(column)} {CODECS.index(chunk.compression)} {length}")
    contents = (
        f"{','.join(elements[column])};{','.join(codings[column])}\n".encode() + chunks[column]
        for column in range(len(names))
    )
    return ParquetDigest(
        digest=xxhash.xxh3_128_hexdigest(raw),
        size_bytes=len(raw),
        row_count=metadata.num_rows,
        columns=tuple(zip(names, map(xxhash.xxh3_128_hexdigest, contents), strict=True)),
    )


def of_layout(layout: bytes) -> str:
    """The digest of a column that has no chunks."""
    return xxhash.xxh3_128_hexdigest(layout)


class TestAgainstPyarrow:
    @pytest.mark.parametrize("rows", [20, 100, 2048, 5000])
    def test_every_type_that_duckdb_writes(
        self, connection: duckdb.DuckDBPyConnection, tmp_path: Path, rows: int
    ) -> None:
        query = f"SELECT {EVERY_TYPE} FROM range({rows}) t(i)"
        path = write(connection, query, tmp_path / "t.parquet", ", ROW_GROUP_SIZE 2048")
        found = digest_parquet(path)
        assert found == digest_by_pyarrow(path)
        assert found.row_count == rows
        assert pq.read_metadata(path).num_row_groups == -(-rows // 2048)
        assert len({digest for _, digest in found.columns}) == len(found.columns) == 19

    @pytest.mark.parametrize("compression", ["uncompressed", "zstd", "gzip"])
    def test_every_compression(self, connection: duckdb.DuckDBPyConnection, tmp_path: Path, compression: str) -> None:
        query = "SELECT i, i % 3 AS j FROM range(3000) t(i)"
        path = write(connection, query, tmp_path / "t.parquet", f", COMPRESSION {compression}, PARQUET_VERSION v2")
        assert digest_parquet(path) == digest_by_pyarrow(path)

    def test_wide_table(self, connection: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
        columns = ", ".join(f"i + {k} AS column_{k}" for k in range(300))
        query = f"SELECT {columns} FROM range(5000) t(i)"
        path = write(connection, query, tmp_path / "t.parquet", ", ROW_GROUP_SIZE 2048")
        found = digest_parquet(path)
        assert found == digest_by_pyarrow(path)
        assert [name for name, _ in found.columns] == [f"column_{k}" for k in range(300)]

    @pytest.mark.parametrize(
        "options",
        [
            {},
            {"use_dictionary": False, "compression": "none"},
            {"data_page_version": "2.0", "compression": "zstd", "write_page_index": True},
            {"write_statistics": False, "row_group_size": 7, "store_schema": False},
            {"use_byte_stream_split": ["d"], "use_dictionary": ["s"], "data_page_size": 64},
        ],
    )
    def test_every_layout_that_pyarrow_writes(self, tmp_path: Path, options: dict[str, Any]) -> None:
        table = pa.table(
            {
                "n": pa.array([1, None, 3] * 40),
                "s": pa.array(["a", "b", None] * 40),
                "d": pa.array([1.5, 2.5, -0.0] * 40),
                "e": pa.array([decimal.Decimal("1.20")] * 120),
                "t": pa.array([datetime.date(2026, 1, 1)] * 120).cast(pa.timestamp("ns")),
                "l": pa.array([[{"x": 1, "y": [b"z"]}], None, []] * 40),
                "名前": pa.array([None] * 120, pa.null()),
            }
        )
        path = tmp_path / "t.parquet"
        pq.write_table(table, path, **options)
        assert digest_parquet(path) == digest_by_pyarrow(path)

    def test_columns_of_one_name_keep_their_order(self, tmp_path: Path) -> None:
        path = tmp_path / "t.parquet"
        table = pa.Table.from_arrays([pa.array([1, 2]), pa.array(["x", "y"]), pa.array([3, 4])], names=["a", "b", "a"])
        pq.write_table(table, path)
        found = digest_parquet(path)
        assert found == digest_by_pyarrow(path)
        assert [name for name, _ in found.columns] == ["a", "b", "a"]
        assert found.columns[0] != found.columns[2]

    def test_file_larger_than_a_window(self, connection: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
        query = "SELECT hash(i) AS a, i AS b, {'x': hash(i + 1), 'y': i % 9} AS c FROM range(400_000) t(i)"
        path = write(connection, query, tmp_path / "t.parquet", ", COMPRESSION uncompressed")
        assert path.stat().st_size > 2 * column_digests._WINDOW_BYTES
        assert digest_parquet(path) == digest_by_pyarrow(path)
        assert digest_file(path) == (digest_parquet(path).digest, path.stat().st_size)

    @pytest.mark.parametrize("window", [1, 2, 7, 64, 1000])
    def test_windows_of_any_size_give_the_same(
        self,
        connection: duckdb.DuckDBPyConnection,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        window: int,
    ) -> None:
        query = "SELECT i AS a, [i] AS b FROM range(30) t(i)"
        path = write(connection, query, tmp_path / "t.parquet")
        expected = digest_parquet(path)
        monkeypatch.setattr(column_digests, "_WINDOW_BYTES", window)
        assert digest_parquet(path) == expected == digest_by_pyarrow(path)
        assert digest_file(path) == (expected.digest, expected.size_bytes)


class TestEmptyTables:
    def test_columns_of_a_table_without_row_groups_are_digests_of_their_layout_alone(
        self, connection: duckdb.DuckDBPyConnection, tmp_path: Path
    ) -> None:
        path = write(connection, "SELECT 1 AS a, [1] AS b, {'x': 'y'} AS c WHERE false", tmp_path / "t.parquet")
        assert pq.read_metadata(path).num_row_groups == 0
        found = digest_parquet(path)
        assert found.columns == (
            ("a", of_layout(b"1 -1 1 0;\n")),
            ("b", of_layout(b"-1 -1 1 1,-1 -1 2 1,1 -1 1 0;\n")),
            ("c", of_layout(b"-1 -1 1 1,6 -1 1 0;\n")),
        )
        assert (found.row_count, found.size_bytes) == (0, path.stat().st_size)

    def test_row_group_without_rows(self, tmp_path: Path) -> None:
        path = tmp_path / "t.parquet"
        empty = pa.table({"a": pa.array([], pa.int64())})
        with pq.ParquetWriter(path, empty.schema) as writer:
            writer.write_table(empty)
            writer.write_table(pa.table({"a": [1, 2]}))
            writer.write_table(empty)
        found = digest_parquet(path)
        assert found == digest_by_pyarrow(path)
        assert found.row_count == 2

    def test_row_group_without_rows_and_bytes(self, tmp_path: Path) -> None:
        path = tmp_path / "t.parquet"
        pq.write_table(pa.table({"a": pa.array([], pa.int64())}), path, use_dictionary=False)
        assert pq.read_metadata(path).num_row_groups == 1
        assert digest_parquet(path).columns == (("a", of_layout(b"2 -1 1 0;\n")),)

    def test_table_without_columns(self, tmp_path: Path) -> None:
        path = tmp_path / "t.parquet"
        pq.write_table(pa.table({}), path)
        assert digest_parquet(path).columns == ()


finite = st.floats(allow_nan=False).filter(lambda value: value != 0.0)
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "INTEGER": st.integers(-(2**31), 2**31 - 1),
    "BIGINT": st.integers(-(2**63), 2**63 - 1),
    "UTINYINT": st.integers(0, 255),
    "DOUBLE": finite,
    "BOOLEAN": st.booleans(),
    "DECIMAL(12, 2)": st.decimals(-(10**9), 10**9, places=2),
    "DATE": st.dates(datetime.date(1900, 1, 1), datetime.date(2200, 1, 1)),
    "VARCHAR": st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=12),
}
VALUES["INTEGER[]"] = st.lists(st.none() | VALUES["INTEGER"], max_size=3)
VALUES["STRUCT(p INTEGER, q VARCHAR)"] = st.fixed_dictionaries(
    {"p": st.none() | VALUES["INTEGER"], "q": st.none() | VALUES["VARCHAR"]}
)


def literal(value: Any) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, list):
        return f"[{', '.join(map(literal, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{name!r}: {literal(part)}' for name, part in value.items())}}}"
    return str(value) if isinstance(value, bool | int) else "'" + str(value).replace("'", "''") + "'"


@st.composite
def tables(draw: st.DrawFn, least_rows: int = 0) -> list[tuple[str, list[Any]]]:
    """Draw columns as (type, values), all of one length."""
    types = draw(st.lists(st.sampled_from(sorted(VALUES)), min_size=2, max_size=5))
    rows = draw(st.integers(least_rows, 12))
    return [(kind, draw(st.lists(st.none() | VALUES[kind], min_size=rows, max_size=rows))) for kind in types]


def digests(
    connection: duckdb.DuckDBPyConnection, folder: Path, table: list[tuple[str, list[Any]]], names: list[str]
) -> dict[str, str]:
    columns = [
        f"unnest({literal(values)}::{kind}[]) AS {name}" for name, (kind, values) in zip(names, table, strict=True)
    ]
    path = write(connection, f"SELECT {', '.join(columns)}", folder / "t.parquet")
    found = digest_parquet(path)
    assert found.row_count == len(table[0][1])
    return dict(found.columns)


def first_chunk(path: Path) -> bytes:
    return path.read_bytes()[4 : 4 + pq.read_metadata(path).row_group(0).column(0).total_compressed_size]


class TestWhatADigestMeans:
    @settings(max_examples=60, deadline=None)
    @given(table=tables(), data=st.data())
    def test_adding_a_column_leaves_the_others_digests_alone(
        self, connection: duckdb.DuckDBPyConnection, table: list[tuple[str, list[Any]]], data: st.DataObject
    ) -> None:
        names = [f"c{k}" for k in range(len(table))]
        added = data.draw(st.integers(0, len(table) - 1))
        with tempfile.TemporaryDirectory() as folder:
            wide = digests(connection, Path(folder), table, names)
            narrow = digests(
                connection, Path(folder), table[:added] + table[added + 1 :], names[:added] + names[added + 1 :]
            )
        assert narrow == {name: digest for name, digest in wide.items() if name != names[added]}

    @settings(max_examples=60, deadline=None)
    @given(table=tables(least_rows=1), data=st.data())
    def test_changing_a_value_changes_the_digest_of_its_column_and_no_other(
        self, connection: duckdb.DuckDBPyConnection, table: list[tuple[str, list[Any]]], data: st.DataObject
    ) -> None:
        names = [f"c{k}" for k in range(len(table))]
        column = data.draw(st.integers(0, len(table) - 1))
        kind, values = table[column]
        row = data.draw(st.integers(0, len(values) - 1))
        value = data.draw(st.none() | VALUES[kind])
        assume(value != values[row])
        changed = list(table)
        changed[column] = (kind, [*values[:row], value, *values[row + 1 :]])
        with tempfile.TemporaryDirectory() as folder:
            before = digests(connection, Path(folder), table, names)
            after = digests(connection, Path(folder), changed, names)
            again = digests(connection, Path(folder), table, names)
        assert [name for name in names if before[name] != after[name]] == [names[column]]
        assert again == before

    def test_column_keeps_its_digest_under_another_name_and_beside_a_joined_column(
        self, connection: duckdb.DuckDBPyConnection, tmp_path: Path
    ) -> None:
        rows = write(connection, "SELECT i, i % 50 AS k FROM range(5000) t(i)", tmp_path / "rows.parquet")
        alone = write(connection, f"SELECT i FROM '{rows}'", tmp_path / "alone.parquet")
        query = f"SELECT k, i AS renamed, k * 2 AS twice, 'x' || i AS word FROM '{rows}'"
        beside = write(connection, query, tmp_path / "beside.parquet")
        assert digest_parquet(alone).columns[0][1] == digest_parquet(beside).columns[1][1]

    def test_meaning_of_the_values_is_not_part_of_a_columns_digest(
        self, connection: duckdb.DuckDBPyConnection, tmp_path: Path
    ) -> None:
        numbers = write(connection, "SELECT i::INTEGER AS v FROM range(20000, 20005) t(i)", tmp_path / "n.parquet")
        query = "SELECT DATE '1970-01-01' + i::INTEGER AS v FROM range(20000, 20005) t(i)"
        dates = write(connection, query, tmp_path / "d.parquet")
        assert digest_parquet(numbers).columns == digest_parquet(dates).columns
        assert digest_parquet(numbers).digest != digest_parquet(dates).digest

    def test_text_that_looks_like_the_nulls_of_another_column_has_another_digest(
        self, connection: duckdb.DuckDBPyConnection, tmp_path: Path
    ) -> None:
        # Levels of an optional column: their length (33), one bit-packed run of 32 bytes, and in it 0, 1, 1. As the
        # first value of a required column the same bytes are a text of 33 bytes.
        nulls = "SELECT unnest([NULL, 'x', 'y']) AS v"
        optional = write(connection, nulls, tmp_path / "optional.parquet", ", COMPRESSION uncompressed")
        connection.execute("CREATE OR REPLACE TEMP TABLE crafted (v VARCHAR NOT NULL)")
        connection.execute("INSERT INTO crafted VALUES (?), ('x'), ('y')", ["A\x06" + "\0" * 31])
        required = write(connection, "FROM crafted", tmp_path / "required.parquet", ", COMPRESSION uncompressed")

        assert first_chunk(optional) == first_chunk(required)
        assert digest_parquet(optional).columns[0][1] != digest_parquet(required).columns[0][1]

    def test_which_level_may_be_null_is_part_of_a_columns_digest(self, tmp_path: Path) -> None:
        def write_struct(name: str, rows: list[Any], *, outer_null: bool) -> Path:
            inner = pa.struct([pa.field("x", pa.int32(), nullable=not outer_null)])
            schema = pa.schema([pa.field("s", inner, nullable=outer_null)])
            pq.write_table(pa.table({"s": pa.array(rows, inner)}, schema), tmp_path / name, write_statistics=False)
            return tmp_path / name

        outer = write_struct("outer.parquet", [None, {"x": 7}], outer_null=True)
        inner = write_struct("inner.parquet", [{"x": None}, {"x": 7}], outer_null=False)
        assert first_chunk(outer) == first_chunk(inner)
        assert digest_parquet(outer).columns[0][1] != digest_parquet(inner).columns[0][1]

    def test_order_of_rows_is_part_of_a_columns_digest(
        self, connection: duckdb.DuckDBPyConnection, tmp_path: Path
    ) -> None:
        up = write(connection, "SELECT i FROM range(9) t(i) ORDER BY i", tmp_path / "up.parquet")
        down = write(connection, "SELECT i FROM range(9) t(i) ORDER BY i DESC", tmp_path / "down.parquet")
        assert digest_parquet(up).columns != digest_parquet(down).columns


@pytest.fixture(scope="module")
def small_file(connection: duckdb.DuckDBPyConnection, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    query = "SELECT i AS a, [i, NULL] AS b, {'x': i::VARCHAR} AS c FROM range(3) t(i)"
    return write(connection, query, tmp_path_factory.mktemp("small") / "t.parquet").read_bytes()


class TestDamagedFiles:
    def test_every_shortened_file_is_refused(self, small_file: bytes, tmp_path: Path) -> None:
        path = tmp_path / "t.parquet"
        path.write_bytes(small_file)
        for length in reversed(range(len(small_file))):
            os.truncate(path, length)
            with pytest.raises(CorruptObjectError):
                digest_parquet(path)

    @settings(max_examples=200, deadline=None)
    @given(data=st.data())
    def test_flipped_bytes_of_the_footer_give_a_result_or_the_one_error(
        self, small_file: bytes, data: st.DataObject
    ) -> None:
        footer_start = len(small_file) - 8 - int.from_bytes(small_file[-8:-4], "little")
        flips = data.draw(
            st.lists(st.tuples(st.integers(footer_start, len(small_file) - 1), st.integers(1, 255)), min_size=1)
        )
        damaged = bytearray(small_file)
        for position, mask in flips:
            damaged[position] ^= mask
        cut = data.draw(st.sampled_from([0, 0, 0, 1, 4, 8, 9, 50]))
        damaged = damaged[: footer_start + 10] + damaged[footer_start + 10 + cut :]
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "t.parquet"
            path.write_bytes(damaged)
            with contextlib.suppress(CorruptObjectError):
                found = digest_parquet(path)
                assert found.digest == xxhash.xxh3_128_hexdigest(bytes(damaged))
                assert found.size_bytes == len(damaged)

    @pytest.mark.parametrize("content", [b"", b"P", b"PAR1", b"PAR1PAR1", b"PAR1\0\0\0\0PAR1", b"a,b\n1,2\n" * 100])
    def test_file_that_is_no_parquet_is_refused_by_name(self, tmp_path: Path, content: bytes) -> None:
        path = tmp_path / "t.parquet"
        path.write_bytes(content)
        with pytest.raises(CorruptObjectError, match=r"t\.parquet is not a well-formed Parquet file: ") as caught:
            digest_parquet(path)
        assert caught.value.hint
        assert digest_file(path) == (xxhash.xxh3_128_hexdigest(content), len(content))

    def test_flipped_byte_of_the_data_changes_one_column_and_the_blob(self, small_file: bytes, tmp_path: Path) -> None:
        path = tmp_path / "t.parquet"
        path.write_bytes(small_file)
        before = digest_parquet(path)
        path.write_bytes(small_file[:10] + bytes([small_file[10] ^ 1]) + small_file[11:])
        after = digest_parquet(path)
        assert after.digest != before.digest
        assert after.columns[0] != before.columns[0]
        assert after.columns[1:] == before.columns[1:]

    def test_encrypted_footer_is_refused_and_a_signed_one_read(self, tmp_path: Path) -> None:
        table = pa.table({"a": [1, 2, 3]})
        for plain in (False, True):
            properties = pe.create_encryption_properties(footer_key=b"0123456789abcdef", plaintext_footer=plain)
            pq.write_table(table, tmp_path / f"{plain}.parquet", encryption_properties=properties)
        with pytest.raises(CorruptObjectError, match="encrypted"):
            digest_parquet(tmp_path / "False.parquet")
        assert digest_parquet(tmp_path / "True.parquet").row_count == 3

    def test_summary_of_other_files_is_refused(self, tmp_path: Path) -> None:
        table = pa.table({"a": [1, 2, 3]})
        collected: list[pq.FileMetaData] = []
        pq.write_to_dataset(table, tmp_path / "parts", metadata_collector=collected)
        pq.write_metadata(table.schema, tmp_path / "_metadata", metadata_collector=collected)
        with pytest.raises(CorruptObjectError, match="other files"):
            digest_parquet(tmp_path / "_metadata")

    def test_missing_file_is_an_error_of_the_operating_system(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError):
            digest_parquet(tmp_path / "none.parquet")
        with pytest.raises(FileNotFoundError):
            digest_file(tmp_path / "none.parquet")


def test_digesting_imports_no_parquet_library() -> None:
    code = "import sys, seeknal.store.column_digests; sys.exit(bool({'duckdb', 'pyarrow', 'numpy'} & set(sys.modules)))"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
