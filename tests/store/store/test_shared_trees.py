from __future__ import annotations

import msgspec
import pytest

from seeknal.errors import CorruptObjectError, FormatTooNewError
from seeknal.store.objects import Artifact, Blob, Column, Snapshot, Tree, TreeEntry, decode, encode
from seeknal.store.shared_trees import SharedTrees

AMOUNT = Column("amount", "BIGINT", "c" * 32)


def entry(digest: str, *columns: Column) -> TreeEntry:
    made = Artifact((Blob(digest * 32, 1),), 1, columns, metadata={"rows": {"a": 1}}, built_at=1.5, run_id="run 1")
    return TreeEntry(digest * 32, made)


def test_trees_share_the_outputs_that_they_have_in_common() -> None:
    before = Tree({"a.a": entry("a", AMOUNT), "a.b": entry("b", AMOUNT), "a.gone": entry("f")})
    after = Tree({"a.a": before.nodes["a.a"], "a.b": entry("e", AMOUNT), "a.new": entry("d")})
    shared = SharedTrees()
    first, second = (shared.decode(encode(tree), "it") for tree in (before, after))
    assert (first, second) == (before, after)
    assert first.nodes["a.a"] is second.nodes["a.a"]
    assert encode(second) == encode(after)


def test_artifacts_share_columns_that_go_through_them_unchanged() -> None:
    other = Column("amount", "BIGINT", "d" * 32)
    found = SharedTrees().decode(encode(Tree({"a.a": entry("a", AMOUNT), "a.b": entry("b", AMOUNT, other)})), "it")
    first, second = (node.artifact for node in found.nodes.values())
    assert [first.columns, second.columns] == [(AMOUNT,), (AMOUNT, other)]
    assert first.columns[0] is second.columns[0]
    assert second.columns[0].name is second.columns[1].name
    assert first.run_id is second.run_id


def test_a_shared_tree_is_read_as_carefully_as_any_other() -> None:
    data = encode(Tree({"a.a": entry("a", AMOUNT)}))
    snapshot = encode(Snapshot("prod", "m", "t", None, 1.0, "me", "run"))
    # Whole by its digest, and yet no tree.
    malformed = encode(Tree({"a.a": msgspec.structs.replace(entry("a"), fingerprint=1)}))
    for wrong in (b"", data[:-1], data + b"x", snapshot, malformed):
        for read in (lambda data: SharedTrees().decode(data, "it"), lambda data: decode(data, Tree, "it")):
            with pytest.raises(CorruptObjectError, match="it is damaged"):
                read(wrong)
    with pytest.raises(FormatTooNewError):
        SharedTrees().decode(b"seeknal tree 2 and what it says", "it")
