from __future__ import annotations

import contextlib
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seeknal.errors import CorruptObjectError, FormatTooNewError, StoreError
from seeknal.store.filesystem import digest_bytes
from seeknal.store.objects import (
    FORMAT_VERSIONS,
    ActionRecord,
    Artifact,
    Blob,
    Column,
    Deliveries,
    Delivery,
    EnvironmentPlanRecord,
    EnvironmentRecord,
    FileMemo,
    Snapshot,
    Tree,
    TreeEntry,
    decode,
    encode,
    encode_tree,
)

digests = st.text("0123456789abcdef", min_size=32, max_size=32)
names = st.text(max_size=12)
sizes = st.integers(0, 2**63 - 1)
times = st.floats(0, 2**33, allow_nan=False)
plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | names,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=8,
)
documents = st.dictionaries(names, plain, max_size=3)
blobs = st.builds(Blob, digests, sizes, names)
artifacts = st.builds(
    Artifact,
    st.lists(blobs, max_size=3).map(tuple),
    sizes,
    st.lists(st.builds(Column, names, names, digests), max_size=3).map(tuple),
    st.lists(st.tuples(names, blobs), max_size=2).map(tuple),
    documents,
    times,
    times,
    names,
)
digests_or_none = st.none() | digests
stats = st.tuples(sizes, sizes, sizes, sizes)
known_files = st.tuples(stats, digests, sizes).map(msgspec.msgpack.encode)
OBJECTS: dict[type[msgspec.Struct], st.SearchStrategy[Any]] = {
    ActionRecord: st.builds(ActionRecord, digests, names, artifacts),
    Tree: st.builds(Tree, st.dictionaries(names, st.builds(TreeEntry, digests, artifacts, st.booleans()), max_size=3)),
    Snapshot: st.builds(
        Snapshot, names, names, digests, digests_or_none, times, names, names, names, digests_or_none, digests_or_none
    ),
    EnvironmentRecord: st.builds(
        EnvironmentRecord,
        names,
        names,
        times,
        times,
        sizes,
        st.none() | names,
        st.none()
        | st.builds(
            EnvironmentPlanRecord,
            names,
            digests_or_none,
            times,
            st.dictionaries(names, names, max_size=2),
            st.lists(names, max_size=2),
            st.lists(names, max_size=2),
            st.lists(names, max_size=2),
            st.none() | names,
            documents,
        ),
    ),
    Deliveries: st.builds(
        Deliveries,
        st.dictionaries(
            names,
            st.dictionaries(names, st.builds(Delivery, names, digests, sizes, sizes), max_size=2),
            max_size=2,
        ),
    ),
    FileMemo: st.builds(
        FileMemo,
        st.dictionaries(
            names, st.tuples(stats, digests, sizes).map(msgspec.msgpack.encode).map(msgspec.Raw), max_size=3
        ),
    ),
}
objects = st.one_of(*OBJECTS.values())
kinds = st.sampled_from(sorted(OBJECTS, key=lambda kind: kind.__name__))


def with_body(kind: type[msgspec.Struct], body: bytes) -> bytes:
    """Bytes whose line is right for any body."""
    name, version = FORMAT_VERSIONS[kind]
    head = f"seeknal {name} {version}".encode()
    return head + b" " + digest_bytes(head + b"\n" + body).encode() + b"\n" + body


def test_a_damaged_version_is_damage_and_not_a_newer_version() -> None:
    for kind, (name, version) in FORMAT_VERSIONS.items():
        data = with_body(kind, b"\x80").replace(f"{name} {version}".encode(), f"{name} {version + 2}".encode(), 1)
        with pytest.raises(CorruptObjectError, match="is damaged"):
            decode(data, kind, "the thing")


@settings(max_examples=150)
@given(objects)
def test_every_object_comes_back_equal_and_has_one_form(value: msgspec.Struct) -> None:
    data = encode(value)
    assert decode(data, type(value), "it") == value
    assert encode(decode(data, type(value), "it")) == data
    assert data == with_body(type(value), data.partition(b"\n")[2])


@settings(max_examples=200)
@given(objects, st.data())
def test_any_change_of_a_byte_is_noticed(value: msgspec.Struct, data: st.DataObject) -> None:
    good = encode(value)
    position = data.draw(st.integers(0, len(good) - 1))
    changed = bytearray(good)
    changed[position] ^= data.draw(st.integers(1, 255))
    with pytest.raises(StoreError):
        decode(bytes(changed), type(value), "it")


def test_every_flipped_bit_is_noticed() -> None:
    good = encode(Deliveries({"exposure.e": {"": Delivery("out.csv", "ab" * 16, 3, 5)}}))
    for position in range(len(good)):
        for bit in range(8):
            changed = bytearray(good)
            changed[position] ^= 1 << bit
            with pytest.raises(StoreError):
                decode(bytes(changed), Deliveries, "it")


@settings(max_examples=50)
@given(objects, st.data())
def test_what_is_cut_short_or_has_something_after_it_is_corrupt(value: msgspec.Struct, data: st.DataObject) -> None:
    good = encode(value)
    with pytest.raises(CorruptObjectError):
        decode(good[: data.draw(st.integers(0, len(good) - 1))], type(value), "it")
    with pytest.raises(CorruptObjectError):
        decode(good + data.draw(st.binary(min_size=1, max_size=9)), type(value), "it")


@settings(max_examples=300)
@given(kinds, st.binary(max_size=100), st.booleans())
def test_random_bytes_never_raise_anything_else(kind: type[msgspec.Struct], data: bytes, has_line: bool) -> None:
    with contextlib.suppress(CorruptObjectError, FormatTooNewError):
        assert isinstance(decode(with_body(kind, data) if has_line else data, kind, "it"), kind)


@pytest.mark.parametrize("kind", OBJECTS)
@pytest.mark.parametrize(
    "body",
    [
        b"\x81\xa1a" * 100_000,
        b"\x91" * 100_000,
        b"\xdd\xff\xff\xff\xff",
        b"\xdf\xff\xff\xff\xff",
        b"\xdb\xff\xff\xff\xff",
        b"\x81\xa8metadata" + b"\x91" * 100_000,
        b"",
        b"\xc1",
    ],
)
def test_hostile_content_is_corrupt(kind: type[msgspec.Struct], body: bytes) -> None:
    with pytest.raises(CorruptObjectError):
        decode(with_body(kind, body), kind, "it")


def test_nesting_without_end_is_corrupt_where_anything_may_stand() -> None:
    artifact = msgspec.msgpack.encode([[], 0, [], []])
    record = b"\x83\xabfingerprint\xa1f\xa7node_id\xa1n\xa8artifact\x95" + artifact[1:] + b"\x81\xa1k" * 100_000
    with pytest.raises(CorruptObjectError, match="the thing is damaged"):
        decode(with_body(ActionRecord, record), ActionRecord, "the thing")


@pytest.mark.parametrize("rest", [b" 0123\n\x80", b"\n\xff\xff", b" zstd anything else\n", b""])
def test_newer_format_is_refused_by_name_whatever_follows_the_version(rest: bytes) -> None:
    for kind, (name, version) in FORMAT_VERSIONS.items():
        with pytest.raises(
            FormatTooNewError, match=f"the thing was made by a newer .* has format {version + 1},"
        ) as caught:
            decode(f"seeknal {name} {version + 1}".encode() + rest, kind, "the thing")
        assert "upgrade" in caught.value.hint


@pytest.mark.parametrize(
    "line",
    [
        b"seeknal tree",
        b"seeknal tree x",
        b"seeknal tree -1",
        b"seeknal tree 0",
        b"seeknal tree 01",
        b"seeknal tree 1",
        b"seeknal  tree 1",
        b"seeknal tree \xc2\xb2",
        b"seeknal tree " + b"9" * 5000,
        b"Seeknal tree 1",
        b"seeknal \xff 1 ",
    ],
)
def test_other_first_lines_are_corrupt(line: bytes) -> None:
    body = encode(Tree({})).partition(b"\n")[2]
    for data in (line + b"\n" + body, line):
        with pytest.raises(CorruptObjectError):
            decode(data, Tree, "it")


def test_object_of_another_kind_is_named() -> None:
    with pytest.raises(CorruptObjectError, match="it is a stored tree, not a snapshot"):
        decode(encode(Tree({})), Snapshot, "it")


def test_kinds_have_names_of_their_own() -> None:
    kinds_of_objects = [kind for kind, _ in FORMAT_VERSIONS.values()]
    assert len(set(kinds_of_objects)) == len(kinds_of_objects)
    assert set(OBJECTS) <= set(FORMAT_VERSIONS)


def test_same_content_looks_at_the_data_and_not_at_how_it_was_built() -> None:
    one = Artifact((Blob("ab" * 16, 3),), 1, (Column("a", "INTEGER", "cd" * 16),), (), {"x": 1}, 1.0, 2.0, "run")
    assert one.same_content(msgspec.structs.replace(one, built_at=9.0, duration_seconds=9.0, run_id="r", metadata={}))
    assert not one.same_content(msgspec.structs.replace(one, row_count=2))
    assert not one.same_content(msgspec.structs.replace(one, columns=()))
    assert not one.same_content(msgspec.structs.replace(one, side_blobs=(("m", one.parts[0]),)))
    assert not one.same_content(msgspec.structs.replace(one, parts=(one.parts[0], one.parts[0])))


@pytest.mark.parametrize("count", [0, 1, 15, 16, 500, 501, 1000])
def test_a_tree_piece_by_piece_is_the_whole(count: int) -> None:
    made = Artifact((Blob("b" * 32, 1),), 1, (Column("amount", "BIGINT", "c" * 32),), metadata={"x": [1]})
    tree = Tree({f"a.n{number}": TreeEntry("f" * 32, made) for number in range(count)})
    assert b"".join(encode_tree(tree)) == encode(tree)
