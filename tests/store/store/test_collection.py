"""Garbage collection never takes what is needed, and takes everything else that is old enough."""

from __future__ import annotations

import contextlib
import itertools
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from seeknal.errors import CorruptObjectError
from seeknal.store.collection import decide, execute_collection, plan_collection
from seeknal.store.filesystem import digest_bytes
from seeknal.store.history import Pin, read_history, remove_pin, write_pin
from seeknal.store.inventory import ACTION, BLOB, SNAPSHOT, TREE, Key, Stored, stored
from seeknal.store.objects import ActionRecord, Artifact, Blob, FailedNode, FailedNodes, Snapshot, Tree, TreeEntry
from seeknal.store.reach import Retention, Root
from seeknal.store.store import Store
from seeknal.store.usage import measure

NOW = Retention(keep_last=1, keep_days=0, grace_hours=0)


def put(store: Store, content: str) -> Artifact:
    path = store.temporary_path(".csv")
    path.write_text(content)
    main = store.adopt_file(path)
    path = store.temporary_path(".json")
    path.write_text(f"about {content}")
    return Artifact((main,), 1, side_blobs=(("about", store.adopt_file(path)),))


def build(store: Store, content: str) -> TreeEntry:
    """Build a node of this content, or find it in the cache."""
    key = digest_bytes(content.encode())
    found = store.find_action(key)
    if found is None:
        found = put(store, content)
        store.record_action(ActionRecord(key, f"transform.{content}", found))
    return TreeEntry(key, found)


def move(store: Store, environment: str, tree: str, created_at: float | None = None) -> str:
    """Make an environment stand at a tree."""
    before = store.refs.read(environment)
    at = time.time() if created_at is None else created_at
    digest = store.write_snapshot(Snapshot(environment, "f" * 64, tree, before, at, "me", "test"))
    assert store.refs.compare_and_swap(environment, before, digest, who="me", why="test")
    return digest


def run(store: Store, environment: str, *contents: str) -> str:
    """Run nodes of these contents in an environment."""
    with store.leases.hold("run"):
        store.write_manifest("f" * 64, "{}")
        return move(store, environment, store.write_tree(Tree({f"t.{c}": build(store, c) for c in contents})))


def collect(store: Store, retention: Retention = NOW) -> int:
    return execute_collection(store, plan_collection(store, retention)).blob_bytes


def contents(store: Store) -> set[str]:
    """The contents of the nodes that are still there with all of their blobs."""
    found = {entry.path.read_text() for entry in stored(store, BLOB)}
    return {content for content in found if f"about {content}" in found}


def held(store: Store, snapshot: str) -> set[str]:
    return {
        store.blob_path(entry.artifact.parts[0]).read_text()
        for entry in store.read_tree(store.read_snapshot(snapshot).tree).nodes.values()
        if store.is_whole(entry.artifact)
    }


def age(store: Store, seconds: float) -> None:
    """Make everything older, the moves of refs included."""
    for path in (store.root / "refs").glob("*.log"):
        lines = [line.partition("\t") for line in path.read_text().splitlines() if line]
        path.write_text("".join(f"{float(at) - seconds:.6f}\t{rest}\n" for at, _, rest in lines) + "\n")
    for path in store.root.rglob("*"):
        if not path.is_symlink():
            stat = path.stat()
            os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns - int(seconds * 1e9)))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store(tmp_path / "store")
    made.prepare()
    return made


def test_what_an_environment_holds_stays_and_what_it_held_goes(store: Store) -> None:
    run(store, "prod", "a", "b")
    run(store, "prod", "b", "c")
    collect(store)
    assert contents(store) == {"b", "c"}
    assert {entry.name for entry in stored(store, ACTION)} == {digest_bytes(c.encode()) for c in ("b", "c")}
    assert len(list(stored(store, SNAPSHOT))) == len(list(stored(store, TREE))) == 1


def test_side_blobs_stay_with_their_artifacts(store: Store) -> None:
    run(store, "prod", "a")
    run(store, "prod", "b")
    collect(store)
    assert sorted(entry.path.read_text() for entry in stored(store, BLOB)) == ["about b", "b"]


@pytest.mark.parametrize(("last", "kept"), [(1, "d"), (2, "cd"), (3, "bcd"), (9, "abcd")])
def test_the_last_states_are_kept(store: Store, last: int, kept: str) -> None:
    for content in "abcd":
        run(store, "prod", content)
    collect(store, Retention(last, 0, 0))
    assert contents(store) == set(kept)
    assert len(list(read_history(store, "prod"))) == len(kept)


def test_a_state_counts_as_of_the_days_on_which_it_was_current(store: Store) -> None:
    day = 24 * 3600
    for content, age_days in (("a", 90), ("b", 60), ("c", 10), ("d", 1)):
        tree = store.write_tree(Tree({"t": build(store, content)}))
        move(store, "prod", tree, time.time() - age_days * day)
    collect(store, Retention(0, 30, 0))
    assert contents(store) == {"b", "c", "d"}


def test_pins_keep_their_states_and_history_ends_where_it_has_a_hole(store: Store) -> None:
    first = run(store, "prod", "a")
    for content in "bcd":
        run(store, "prod", content)
    write_pin(store, Pin(first, "prod", 1.0, "me"))
    collect(store)
    assert contents(store) == {"a", "d"}
    assert len(list(read_history(store, "prod"))) == 1
    assert held(store, first) == {"a"}
    remove_pin(store, first)
    collect(store)
    assert contents(store) == {"d"}


def test_deleting_an_environment_gives_back_exactly_its_unique_bytes(store: Store) -> None:
    run(store, "prod", "shared", "mine")
    run(store, "dev", "shared", "first of dev's own")
    run(store, "dev", "shared", "second of dev's own, longer")
    usage = {entry.environment: entry for entry in measure(store).environments}
    before = sum(entry.size_bytes for entry in stored(store, BLOB))
    assert collect(store, Retention(10, 30, 24)) == 0
    assert store.refs.compare_and_swap("dev", store.refs.read("dev"), None, who="me", why="deleted")
    # Young as it is, and with the usual retention.
    assert collect(store, Retention(10, 30, 24)) == usage["dev"].unique_bytes > 0
    after = sum(entry.size_bytes for entry in stored(store, BLOB))
    assert before - after == usage["dev"].unique_bytes
    assert contents(store) == {"shared", "mine"}
    assert usage["dev"].shared_bytes == len("shared") + len("about shared")


def test_what_a_failed_run_finished_stays_for_the_grace_period(store: Store) -> None:
    run(store, "prod", "a")
    with store.leases.hold("run"):
        build(store, "unfinished")
    collect(store, Retention(1, 0, 24))
    assert contents(store) == {"a", "unfinished"}
    age(store, 25 * 3600)
    collect(store, Retention(1, 0, 24))
    assert contents(store) == {"a"}


def test_a_young_record_keeps_its_old_blobs(store: Store) -> None:
    artifact = put(store, "old")
    age(store, 100 * 3600)
    store.record_action(ActionRecord("a" * 32, "transform.x", artifact))
    collect(store, Retention(1, 0, 24))
    assert contents(store) == {"old"}


def test_nothing_goes_that_is_newer_than_a_live_lease(store: Store) -> None:
    run(store, "prod", "a")
    with store.leases.hold("run"):
        build(store, "b")
        collect(store)
        assert contents(store) == {"a", "b"}
    collect(store)
    assert contents(store) == {"a"}


def test_a_hit_on_old_garbage_keeps_it_for_the_run_that_found_it(store: Store) -> None:
    run(store, "prod", "a")
    run(store, "prod", "b")
    age(store, 1000)
    with store.leases.hold("run"):
        plan = plan_collection(store, NOW)
        assert [entry for entry in plan.goes if entry.kind == BLOB]
        entry = build(store, "a")
        assert execute_collection(store, plan).spared > 0
        assert store.is_whole(entry.artifact)
        assert execute_collection(store, plan_collection(store, NOW)).blob_bytes == 0
        assert store.is_whole(entry.artifact)


def test_what_is_put_again_while_it_is_garbage_stays(store: Store) -> None:
    run(store, "prod", "a")
    run(store, "prod", "b")
    age(store, 1000)
    with store.leases.hold("run"):
        plan = plan_collection(store, NOW)
        artifact = put(store, "a")
        tree = store.write_tree(Tree({"t.a": TreeEntry(digest_bytes(b"a"), artifact)}))
        execute_collection(store, plan)
        move(store, "prod", tree)
    collect(store)
    assert contents(store) == {"a"}


def test_a_state_that_was_current_while_a_process_reads_stays_for_it(store: Store) -> None:
    first = run(store, "prod", "a")
    age(store, 1000)
    with store.leases.hold("reading"):
        # It reads the ref now, and its environment moves on, or is deleted.
        run(store, "prod", "b")
        collect(store)
        assert held(store, first) == {"a"}
        assert store.refs.compare_and_swap("prod", store.refs.read("prod"), None, who="me", why="deleted")
        collect(store)
        assert held(store, first) == {"a"}
    collect(store)
    assert contents(store) == set()


def test_a_state_that_a_lease_names_stays_for_it(store: Store) -> None:
    first = run(store, "prod", "a")
    run(store, "prod", "b")
    age(store, 1000)
    plan = plan_collection(store, NOW)
    with store.leases.hold("reading") as lease:
        lease.protect(first)
        execute_collection(store, plan)
        assert held(store, first) == {"a"}
    collect(store)
    assert contents(store) == {"b"}


def test_the_lease_of_a_process_that_was_killed_does_not_count(store: Store) -> None:
    script = (
        "import sys, time; from pathlib import Path; from seeknal.store.store import Store\n"
        "with Store(Path(sys.argv[1])).leases.hold('run'): print('held', flush=True); time.sleep(60)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    with subprocess.Popen(
        [sys.executable, "-c", script, str(store.root)], stdout=subprocess.PIPE, env=environment
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        run(store, "prod", "a")
        run(store, "prod", "b")
        collect(store)
        assert contents(store) == {"a", "b"}
        process.kill()
    collect(store)
    assert contents(store) == {"b"}
    assert list((store.root / "leases").iterdir()) == []


def test_rejected_outputs_stay_while_their_record_does(store: Store) -> None:
    with store.leases.hold("run"):
        artifact = put(store, "rejected")
    store.write_failed("prod", FailedNodes({"t": FailedNode("t", "run", 1.0, [("t", artifact)], [], [])}))
    collect(store)
    assert contents(store) == {"rejected"}
    store.write_failed("prod", FailedNodes())
    collect(store)
    assert contents(store) == set()


@pytest.mark.parametrize("folder", ["refs", "snapshots", "trees", "pins"])
def test_nothing_goes_where_what_must_be_kept_cannot_be_read(store: Store, folder: str) -> None:
    run(store, "prod", "a")
    write_pin(store, Pin(run(store, "prod", "b"), "prod", 1.0, "me"))
    head = store.refs.read("prod") or ""
    tree = store.read_snapshot(head).tree
    path = store.root / folder / {"refs": "prod", "trees": tree}.get(folder, head)
    path.chmod(0o644)
    path.write_bytes(b"damaged")
    with pytest.raises(CorruptObjectError):
        plan_collection(store, NOW)
    assert contents(store) == {"a", "b"}


def test_planning_removes_nothing(store: Store) -> None:
    run(store, "prod", "a")
    run(store, "prod", "b")
    before = {path: path.stat().st_mtime_ns for path in store.root.rglob("*") if path.is_file()}
    plan = plan_collection(store, NOW)
    assert plan.counts() == {"snapshot": 1, "tree": 1, "action": 1, "blob": 2}
    assert plan.blob_bytes == len("a") + len("about a")
    after = {path: path.stat().st_mtime_ns for path in store.root.rglob("*") if path.is_file()}
    assert after == before


KINDS = (SNAPSHOT, TREE, ACTION, BLOB)
names = st.sampled_from("abcdef")
keys = st.tuples(st.sampled_from(KINDS), names)


@settings(max_examples=50)
@given(
    ages=st.dictionaries(keys, st.integers(0, 100), max_size=24),
    edges=st.dictionaries(keys, st.lists(keys, max_size=3), max_size=24),
    roots=st.lists(keys, max_size=3),
    lease=st.none() | st.integers(0, 100),
    grace=st.integers(0, 100),
)
def test_decisions_keep_what_is_reached_or_young_and_all_that_it_needs_and_nothing_else(
    ages: dict[Key, int], edges: dict[Key, list[Key]], roots: list[Key], lease: int | None, grace: int
) -> None:
    objects = [Stored(kind, name, Path(name), 1, 100 - age, 0) for (kind, name), age in ages.items()]

    def links(key: Key) -> list[Key]:
        return edges.get(key, [])

    def closure(start: set[Key]) -> set[Key]:
        while more := {found for key in start for found in links(key)} - start:
            start |= more
        return start

    goes, kept, _ = decide(
        objects,
        [Root("root", tuple(roots))],
        links,
        links,
        now_ns=100,
        oldest_lease_ns=None if lease is None else 100 - lease,
        retention=Retention(1, 0, grace / 3600e9),
    )
    held_once = closure({key for key in ages if key[0] == SNAPSHOT})
    reached = closure(set(roots))
    young = {
        key
        for key, age in ages.items()
        if (lease is not None and age <= lease) or (key not in held_once and key not in reached and age <= grace)
    }
    expected = closure(reached | (young - reached))
    assert {entry.key for entry in goes} == set(ages) - expected
    assert sum(entry.objects for entry in kept) == len(set(ages) & expected)


class AnyStore(RuleBasedStateMachine):
    """Runs, promotions, deletions, pins and collections in any order, against a model of dictionaries."""

    def __init__(self) -> None:
        super().__init__()
        from tempfile import TemporaryDirectory

        self.folder = TemporaryDirectory()
        self.store = Store(Path(self.folder.name) / "store")
        self.store.prepare()
        # Snapshot → what it holds; environment → its history, newest first.
        self.snapshots: dict[str, set[str]] = {}
        self.history: dict[str, list[str]] = {}
        self.pins: list[str] = []

    def teardown(self) -> None:
        self.folder.cleanup()

    @rule(environment=st.sampled_from(["prod", "dev"]), contents=st.sets(st.sampled_from("abcd"), min_size=1))
    def run(self, environment: str, contents: set[str]) -> None:
        digest = run(self.store, environment, *sorted(contents))
        self.snapshots[digest] = contents
        self.history.setdefault(environment, []).insert(0, digest)

    @precondition(lambda self: "dev" in self.history)
    @rule()
    def promote(self) -> None:
        head = self.history["dev"][0]
        digest = move(self.store, "prod", self.store.read_snapshot(head).tree)
        self.snapshots[digest] = self.snapshots[head]
        self.history.setdefault("prod", []).insert(0, digest)

    @precondition(lambda self: len(self.history.get("prod", ())) > 1)
    @rule()
    def roll_back(self) -> None:
        target = self.history["prod"][1]
        digest = move(self.store, "prod", self.store.read_snapshot(target).tree)
        self.snapshots[digest] = self.snapshots[target]
        self.history["prod"].insert(0, digest)

    @precondition(lambda self: "dev" in self.history)
    @rule()
    def delete(self) -> None:
        assert self.store.refs.compare_and_swap("dev", self.history.pop("dev")[0], None, who="me", why="deleted")

    @precondition(lambda self: self.history)
    @rule(data=st.data())
    def pin(self, data: st.DataObject) -> None:
        digest = data.draw(st.sampled_from([d for states in self.history.values() for d in states]))
        write_pin(self.store, Pin(digest, self.store.read_snapshot(digest).environment, 1.0, "me"))
        self.pins = [*dict.fromkeys([*self.pins, digest])]

    @precondition(lambda self: self.pins)
    @rule(data=st.data())
    def unpin(self, data: st.DataObject) -> None:
        digest = data.draw(st.sampled_from(self.pins))
        assert remove_pin(self.store, digest)
        self.pins.remove(digest)

    @rule(keep_last=st.integers(0, 3))
    def collect(self, keep_last: int) -> None:
        collect(self.store, Retention(keep_last, 0, 0))
        last = max(keep_last, 1)
        wanted = {digest for states in self.history.values() for digest in states[:last]} | set(self.pins)
        for environment, states in self.history.items():
            # A pinned state that follows at once is still part of it.
            self.history[environment] = list(itertools.takewhile(wanted.__contains__, states))
        assert {entry.name for entry in stored(self.store, SNAPSHOT)} == wanted
        assert contents(self.store) == {content for digest in wanted for content in self.snapshots[digest]}

    @invariant()
    def everything_that_is_named_is_whole(self) -> None:
        for environment, states in self.history.items():
            assert [moment.digest for moment in read_history(self.store, environment)] == states
        for digest in {d for states in self.history.values() for d in states} | set(self.pins):
            assert held(self.store, digest) == self.snapshots[digest]


TestAnyStore = AnyStore.TestCase
TestAnyStore.settings = settings(max_examples=25, stateful_step_count=15, deadline=None)


def test_a_blob_is_told_by_its_digest_and_its_ending(store: Store) -> None:
    path = store.temporary_path(".txt")
    path.write_text("a")
    store.adopt_file(path)
    run(store, "prod", "a")
    collect(store)
    assert [entry.name[32:] for entry in stored(store, BLOB)] in ([".csv", ".json"], [".json", ".csv"])
    assert (
        Blob(digest_bytes(b"a"), 1, ".csv")
        in store.read_tree(store.read_snapshot(store.refs.read("prod") or "").tree).nodes["t.a"].artifact.parts
    )


def test_a_state_that_is_spared_has_its_history_end_there(store: Store) -> None:
    for content in "abc":
        run(store, "prod", content)
    plan = plan_collection(store, NOW)
    with store.leases.hold("reading") as lease:
        middle = list(read_history(store, "prod"))[1].digest
        age(store, 0.0)
        lease.protect(middle)
        log = store.root / "refs" / "prod.log"
        log.write_text("".join(f"100.0\t{line.partition(chr(9))[2]}\n" for line in log.read_text().splitlines()))
        execute_collection(store, plan)
    assert [moment.digest for moment in read_history(store, "prod")][1:] == [middle]
    collect(store)
    assert len(list(read_history(store, "prod"))) == 1


def test_history_ends_where_it_was_cut_also_where_a_read_failed(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in itertools.count(1):
        for content in "ab":
            run(store, "prod", f"{content}{number}")
        reads, read = itertools.count(1), store.read_snapshot

        def flaky(digest: str, number: int = number, reads: Any = reads, read: Any = read) -> Snapshot:
            if next(reads) == number:
                raise CorruptObjectError("the disk does not give it")
            found: Snapshot = read(digest)
            return found

        with monkeypatch.context() as patched:
            patched.setattr(store, "read_snapshot", flaky)
            with contextlib.suppress(CorruptObjectError):
                collect(store)
        assert list(read_history(store, "prod"))
        if next(reads) <= number:
            break
