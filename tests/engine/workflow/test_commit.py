from __future__ import annotations

import errno
import getpass
import shutil
from itertools import count
from pathlib import Path

import pytest

from seeknal.dag.manifest import Manifest, Node, NodeType
from seeknal.errors import BusyError, PromotionRaceError
from seeknal.store.column_digests import digest_file
from seeknal.store.filesystem import digest_bytes
from seeknal.store.objects import ActionRecord, Artifact, Column, Tree, TreeEntry
from seeknal.store.store import Store
from seeknal.workflow.commit import commit, move_to_tree, schemas_of, who
from seeknal.workflow.events import Committed, Event
from seeknal.workflow.heads import read_head
from tests.store.store.failing_disk import disk


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store(tmp_path / "store")
    made.prepare()
    return made


def manifest_of(*names: str) -> Manifest:
    manifest = Manifest("shop")
    for name in names:
        manifest.add_node(Node(f"transform.{name}", name, NodeType.TRANSFORM))
    return manifest


def build(store: Store, **outputs: bytes) -> tuple[Tree, list[str]]:
    """Put outputs into the store as a worker does; gives the tree of them and the files that were written."""
    worker = Store(store.root)
    entries = {}
    for name, content in outputs.items():
        path = worker.temporary_path()
        path.write_bytes(content)
        artifact = Artifact((worker.adopt_file(path),), 1, (Column("a", "INTEGER", digest_bytes(content)),))
        worker.record_action(ActionRecord(digest_bytes(content), f"transform.{name}", artifact))
        entries[f"transform.{name}"] = TreeEntry(digest_bytes(content), artifact)
    return Tree(entries), worker.take_written()


def apply(store: Store, environment: str = "prod", **outputs: bytes) -> str:
    """Build and commit."""
    tree, written = build(store, **outputs)
    head = store.refs.read(environment)
    return commit(
        store, environment, tree, manifest_of(*outputs), expected_head=head, reason="run", run_id="r", written=written
    )


def contents(store: Store, environment: str = "prod") -> dict[str, bytes] | None:
    """What an environment holds, every byte of it checked."""
    head = read_head(store, environment)
    if head is None:
        return None
    assert set(head.manifest.nodes) == set(head.tree.nodes)
    found = {}
    for node_id, entry in head.tree.nodes.items():
        (blob,) = entry.artifact.blobs()
        assert digest_file(store.blob_path(blob)) == (blob.digest, blob.size_bytes)
        found[node_id.partition(".")[2]] = store.blob_path(blob).read_bytes()
    return found


class TestCommitting:
    def test_environment_stands_at_what_was_committed(self, store: Store) -> None:
        assert contents(store) is None
        first = apply(store, a=b"1")
        second = apply(store, a=b"2", b=b"x")
        assert contents(store) == {"a": b"2", "b": b"x"}
        snapshot = store.read_snapshot(second)
        assert (snapshot.parent, snapshot.environment, snapshot.created_by) == (first, "prod", who())
        assert (snapshot.reason, snapshot.run_id, snapshot.base, snapshot.promoted_from) == ("run", "r", None, None)
        assert [(move.old, move.new) for move in store.refs.log("prod")] == [(None, first), (first, second)]

    def test_same_state_makes_no_snapshot(self, store: Store) -> None:
        first = apply(store, a=b"1")
        assert apply(store, a=b"1") == first
        assert len(list(store.refs.log("prod"))) == 1

    def test_another_base_is_another_state(self, store: Store) -> None:
        tree, _ = build(store, a=b"1")
        first = commit(store, "dev", tree, manifest_of("a"), expected_head=None, reason="run", base="0" * 32)
        second = commit(store, "dev", tree, manifest_of("a"), expected_head=first, reason="run", base="1" * 32)
        assert second != first
        assert store.read_snapshot(second).base == "1" * 32

    def test_ref_that_moved_meanwhile_is_left_alone(self, store: Store) -> None:
        tree, _ = build(store, a=b"mine")
        theirs = apply(store, a=b"theirs")
        with pytest.raises(BusyError, match="moved by another process"):
            commit(store, "prod", tree, manifest_of("a"), expected_head=None, reason="run")
        source = store.read_snapshot(theirs)
        with pytest.raises(PromotionRaceError):
            move_to_tree(store, "prod", source, expected_head=None, base=None, promoted_from=theirs, reason="promote")
        assert store.refs.read("prod") == theirs

    def test_listeners_hear_whether_the_ref_moved(self, store: Store) -> None:
        heard: list[Event] = []
        tree, _ = build(store, a=b"1")
        manifest = manifest_of("a")
        head = commit(store, "prod", tree, manifest, expected_head=None, reason="run", listener=heard.append)
        commit(store, "prod", tree, manifest, expected_head=head, reason="run", listener=heard.append)
        assert heard == [Committed("prod", head), Committed("prod", None)]

    def test_promotion_writes_one_small_object_and_a_ref_at_any_size(self, store: Store) -> None:
        for size in (1, 300):
            outputs = {f"n{k}": f"{size} {k}".encode() for k in range(size)}
            source = apply(store, "dev", **outputs)
            head = store.refs.read("prod")
            with disk(store.root, None, syncfs=True) as watched:
                moved = move_to_tree(
                    store,
                    "prod",
                    store.read_snapshot(source),
                    expected_head=head,
                    base=None,
                    promoted_from=source,
                    reason="promote",
                )
            placed = [Path(target).parent.name for name, target in watched.story if name == "replace" and target]
            assert placed == ["snapshots", "refs"]
            assert contents(store) == outputs
            assert store.read_snapshot(moved).promoted_from == source

    def test_schemas_are_those_of_the_tables(self, store: Store) -> None:
        tree, _ = build(store, a=b"1")
        files = TreeEntry("0" * 32, Artifact((), 0))
        known = schemas_of(Tree({**tree.nodes, "exposure.e": files}))
        assert known == {"transform.a": {"a": "INTEGER"}, "exposure.e": None}


class TestWho:
    def test_user_is_text_whatever_the_surroundings_say(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(getpass, "getuser", lambda: "j\udcffrg\n\tx")
        snapshot = store.read_snapshot(apply(store, a=b"1"))
        assert snapshot.created_by.startswith("j?rg\n\tx@")
        (move,) = store.refs.log("prod")
        assert move.who.startswith("j?rg  x@")

    def test_user_without_a_name_has_a_number(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail() -> str:
            raise KeyError("uid not found")

        monkeypatch.setattr(getpass, "getuser", fail)
        assert who().partition("@")[0].isdigit()


@pytest.mark.parametrize(
    ("error", "dies", "syncfs"), [(errno.ENOSPC, False, True), (errno.EIO, True, True), (errno.EIO, True, False)]
)
def test_wherever_the_disk_fails_the_environment_stands_whole_where_it_stood_or_where_it_should(
    tmp_path: Path, error: int, dies: bool, syncfs: bool
) -> None:
    first = Store(tmp_path / "first")
    first.prepare()
    with disk(first.root, None, syncfs=syncfs):
        apply(first, a=b"old", b=b"kept")
        source = apply(first, "dev", a=b"promoted")
    old, applied, promoted = {"a": b"old", "b": b"kept"}, {"a": b"new", "b": b"kept", "c": b""}, {"a": b"promoted"}
    states = [old, applied, promoted]
    for at in count(1):
        store = Store(tmp_path / str(at))
        shutil.copytree(first.root, store.root)
        with disk(store.root, at, syncfs=syncfs, error=error, dies=dies) as failing:
            reached = run_and_promote(store, source, applied)
        assert failing.failed or reached == 2
        if dies and failing.failed:
            failing.cut_power()
        store = Store(store.root)
        # The step that failed was made or was not; those before it were.
        found = contents(store)
        assert found in states[reached : reached + 2]
        assert contents(store, "dev") == promoted
        shutil.rmtree(store.root)
        if not failing.failed:
            break
    assert at > 40


def run_and_promote(store: Store, source: str, outputs: dict[str, bytes]) -> int:
    """Run in production, then promote to it; gives how many of the two steps the disk let pass."""
    try:
        head = apply(store, "prod", **outputs)
    except OSError:
        return 0
    snapshot = store.read_snapshot(source)
    try:
        move_to_tree(store, "prod", snapshot, expected_head=head, base=None, promoted_from=source, reason="promote")
    except OSError:
        return 1
    return 2
