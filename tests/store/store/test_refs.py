from __future__ import annotations

import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seeknal.errors import CorruptObjectError, NameNotAllowedError
from seeknal.store.filesystem import digest_bytes
from seeknal.store.refs import RefMove, Refs

ONE, TWO, THREE = (digest_bytes(word) for word in (b"one", b"two", b"three"))


def refs_in(folder: Path) -> Refs:
    (folder / "tmp").mkdir(parents=True, exist_ok=True)
    return Refs(folder / "refs", folder / "tmp")


@pytest.fixture
def refs(tmp_path: Path) -> Refs:
    return refs_in(tmp_path)


def moves(refs: Refs, name: str = "prod") -> list[tuple[str | None, str | None]]:
    return [(move.old, move.new) for move in refs.log(name)]


def swap(refs: Refs, old: str | None, new: str | None, name: str = "prod") -> bool:
    return refs.compare_and_swap(name, old, new, who="me", why="because")


class TestMoving:
    def test_ref_moves_only_from_where_it_is_expected(self, refs: Refs) -> None:
        assert refs.read("prod") is None
        assert not swap(refs, ONE, TWO)
        assert swap(refs, None, ONE)
        assert not swap(refs, None, TWO)
        assert not swap(refs, TWO, THREE)
        assert refs.read("prod") == ONE
        assert swap(refs, ONE, TWO)
        assert refs.read("prod") == TWO
        assert moves(refs) == [(None, ONE), (ONE, TWO)]

    def test_removed_ref_is_gone_and_its_log_stays(self, refs: Refs) -> None:
        swap(refs, None, ONE)
        assert swap(refs, ONE, None)
        assert refs.read("prod") is None
        assert refs.names() == []
        assert swap(refs, None, TWO)
        assert moves(refs) == [(None, ONE), (ONE, None), (None, TWO)]

    def test_refs_are_listed_without_what_stands_beside_them(self, refs: Refs) -> None:
        assert refs.names() == []
        for name in ("prod", "dev.2", "a_b-c"):
            swap(refs, None, ONE, name)
        assert refs.names() == ["a_b-c", "dev.2", "prod"]
        assert moves(refs, "dev.2") == [(None, ONE)]

    def test_refs_whose_names_begin_alike_do_not_meet(self, refs: Refs) -> None:
        names = ["dev", "dev.lock", "dev.lock.log", "dev.log", "dev.log.lock", "dev.log.log"]
        for name in names:
            assert swap(refs, None, digest_bytes(name.encode()), name)
        assert refs.names() == names
        for name in names:
            assert refs.read(name) == digest_bytes(name.encode())
            assert moves(refs, name) == [(None, digest_bytes(name.encode()))]
            assert swap(refs, digest_bytes(name.encode()), None, name)
        assert refs.names() == []

    @pytest.mark.parametrize("name", ["", ".", "..", ".hidden", "a/b", "../up", "a\nb", "é", "dev~", "a b"])
    def test_name_that_is_no_name_for_a_file_is_refused(self, refs: Refs, name: str) -> None:
        with pytest.raises(NameNotAllowedError):
            swap(refs, None, ONE, name)

    def test_who_and_why_are_kept_on_one_line_whatever_they_hold(self, refs: Refs) -> None:
        who, why = "a\tb\nc\rd", "e\u2028f\x85g\x1ch \udcff"
        refs.compare_and_swap("prod", None, ONE, who=who, why=why)
        swap(refs, ONE, TWO)
        first, second = refs.log("prod")
        assert (first.who, first.why) == ("a b c d", "e\u2028f\x85g\x1ch ?")
        assert (second.who, second.why, second.old) == ("me", "because", ONE)
        assert first.at <= second.at

    def test_ref_can_be_moved_where_no_folder_is_yet(self, tmp_path: Path) -> None:
        refs = refs_in(tmp_path)
        assert list(refs.log("prod")) == []
        assert swap(refs, None, ONE)


class TestDamage:
    @pytest.mark.parametrize("content", [b"", b"\n", b"0" * 31, ONE.upper().encode(), b"\xff" * 32, ONE.encode() * 2])
    def test_damaged_ref_is_an_error_that_names_the_way_out(self, refs: Refs, tmp_path: Path, content: bytes) -> None:
        swap(refs, None, ONE)
        (tmp_path / "refs" / "prod").write_bytes(content)
        with pytest.raises(CorruptObjectError, match="'prod' is damaged") as caught:
            refs.read("prod")
        assert "store verify --repair" in caught.value.hint
        with pytest.raises(CorruptObjectError):
            swap(refs, ONE, TWO)
        assert moves(refs) == [(None, ONE)]

    def test_folder_in_a_refs_place_is_an_error_of_the_store(self, refs: Refs, tmp_path: Path) -> None:
        (tmp_path / "refs" / "prod").mkdir(parents=True)
        with pytest.raises(CorruptObjectError, match="cannot be read"):
            refs.read("prod")

    @pytest.mark.parametrize("torn", [b"1700", b"1700000000.0\t" + ONE.encode(), b"\xff\xfe", b"\n\n", b"\t\t\t\t"])
    def test_torn_line_of_the_log_takes_no_other_along(self, refs: Refs, tmp_path: Path, torn: bytes) -> None:
        log = tmp_path / "refs" / "prod.log"
        swap(refs, None, ONE)
        log.write_bytes(log.read_bytes() + torn)
        assert moves(refs) == [(None, ONE)]
        assert swap(refs, ONE, TWO)
        assert swap(refs, TWO, THREE)
        assert moves(refs) == [(None, ONE), (ONE, TWO), (TWO, THREE)]

    @settings(max_examples=25)
    @given(cut=st.integers(1, 400))
    def test_log_that_was_cut_anywhere_still_takes_moves(
        self, tmp_path_factory: pytest.TempPathFactory, cut: int
    ) -> None:
        folder = tmp_path_factory.mktemp("refs")
        refs = refs_in(folder)
        swap(refs, None, ONE)
        swap(refs, ONE, TWO)
        log = folder / "refs" / "prod.log"
        log.write_bytes(log.read_bytes()[:-cut])
        assert swap(refs, TWO, THREE)
        found = moves(refs)
        assert found[-1] == (TWO, THREE)
        assert set(found) <= {(None, ONE), (ONE, TWO), (TWO, THREE)}

    def test_line_whose_move_never_came_is_left_out(
        self, refs: Refs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        swap(refs, None, ONE)

        def fail(*arguments: object) -> None:
            raise OSError("the disk is gone")

        for _ in range(2):
            with monkeypatch.context() as patched:
                patched.setattr(os, "replace", fail)
                with pytest.raises(OSError, match="the disk is gone"):
                    swap(refs, ONE, TWO)
            assert refs.read("prod") == ONE
            assert moves(refs) == [(None, ONE)]
        assert swap(refs, ONE, THREE)
        assert moves(refs) == [(None, ONE), (ONE, THREE)]
        assert len((tmp_path / "refs" / "prod.log").read_text().split()[::5]) == 4

    def test_line_that_could_not_be_written_whole_moves_nothing(
        self, refs: Refs, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        swap(refs, None, ONE)
        real = os.write
        written: list[int] = []

        def full_disk(descriptor: int, data: bytes) -> int:
            if written:
                raise OSError("no space left")
            written.append(real(descriptor, data[:20]))
            return written[0]

        with monkeypatch.context() as patched:
            patched.setattr(os, "write", full_disk)
            with pytest.raises(OSError, match="no space left"):
                swap(refs, ONE, TWO)
        assert refs.read("prod") == ONE
        assert swap(refs, ONE, THREE)
        assert moves(refs) == [(None, ONE), (ONE, THREE)]


@settings(max_examples=25)
@given(steps=st.lists(st.tuples(st.sampled_from([None, ONE, TWO, THREE]), st.sampled_from([None, ONE, TWO, THREE]))))
def test_log_tells_exactly_the_moves_that_were_made(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str | None, str | None]]
) -> None:
    refs = refs_in(tmp_path_factory.mktemp("refs"))
    stands: str | None = None
    made = []
    for old, new in steps:
        assert swap(refs, old, new) is (old == stands)
        if old == stands:
            stands = new
            made.append((old, new))
        assert refs.read("prod") == stands
    assert moves(refs) == made


def race(folder: str, mover: int, turns: int) -> list[tuple[str | None, str]]:
    """Move a ref from wherever it stands, many times; gives the moves that were won."""
    refs = refs_in(Path(folder))
    won = []
    for turn in range(turns):
        old = refs.read("prod")
        new = digest_bytes(f"{mover} {turn}".encode())
        if refs.compare_and_swap("prod", old, new, who=str(mover), why=str(turn)):
            won.append((old, new))
    return won


def test_of_processes_that_race_for_a_move_exactly_one_wins(tmp_path: Path) -> None:
    turns = 25
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        results = [future.result() for future in [pool.submit(race, str(tmp_path), mover, turns) for mover in (1, 2)]]
    won = [move for result in results for move in result]
    # No state of the ref was left by two moves.
    assert len({old for old, _ in won}) == len(won)
    refs = refs_in(tmp_path)
    log: list[RefMove] = list(refs.log("prod"))
    assert sorted((move.new or "") for move in log) == sorted(new for _, new in won)
    assert log[0].old is None
    assert all(before.new == after.old for before, after in pairwise(log))
    assert log[-1].new == refs.read("prod")
    assert {move.who for move in log} == {"1", "2"}


class TestLostRef:
    """A ref that is gone, though nobody removed it."""

    def test_is_damage_and_not_an_environment_that_never_was(self, tmp_path: Path) -> None:
        refs = Refs(tmp_path / "refs", tmp_path)
        (tmp_path / "refs").mkdir()
        for old, new in [(None, "1" * 32), ("1" * 32, "2" * 32)]:
            assert refs.compare_and_swap("prod", old, new, who="me", why="run")
        (tmp_path / "refs/prod").unlink()
        assert refs.names() == ["prod"]
        with pytest.raises(CorruptObjectError, match="is missing, and nobody deleted"):
            refs.read("prod")
        with pytest.raises(CorruptObjectError):
            refs.compare_and_swap("prod", None, "3" * 32, who="me", why="run")
        assert [move.new for move in refs.log("prod", whole=True)] == ["1" * 32, "2" * 32]
        assert refs.restore("prod", None, "2" * 32, who="me", why="repaired")
        assert refs.read("prod") == "2" * 32

    def test_is_none_where_the_environment_was_deleted(self, tmp_path: Path) -> None:
        refs = Refs(tmp_path / "refs", tmp_path)
        (tmp_path / "refs").mkdir()
        for old, new in [(None, "1" * 32), ("1" * 32, "2" * 32), ("2" * 32, None)]:
            assert refs.compare_and_swap("dev", old, new, who="me", why="run")
        assert (refs.names(), refs.read("dev")) == ([], None)

    def test_is_none_where_a_process_died_before_it_made_the_first(self, tmp_path: Path) -> None:
        refs = Refs(tmp_path / "refs", tmp_path)
        (tmp_path / "refs").mkdir()
        assert refs.compare_and_swap("dev", None, "1" * 32, who="me", why="run")
        log = tmp_path / "refs/dev.log"
        (tmp_path / "refs/dev").unlink()
        with pytest.raises(CorruptObjectError, match="is missing, and nobody deleted"):
            refs.read("dev")
        log.write_bytes(log.read_bytes().removesuffix(b"\n"))
        assert (refs.names(), refs.read("dev")) == ([], None)
        assert refs.compare_and_swap("dev", None, "2" * 32, who="me", why="run")
        assert [move.new for move in refs.log("dev")] == ["2" * 32]


@pytest.mark.parametrize("text", ["1" * 32, "not a digest", None])
def test_remove_takes_away_what_stands_and_what_is_damaged(tmp_path: Path, text: str | None) -> None:
    refs = Refs(tmp_path / "refs", tmp_path)
    (tmp_path / "refs").mkdir()
    assert refs.compare_and_swap("dev", None, "1" * 32, who="me", why="run")
    (tmp_path / "refs/dev").unlink()
    if text is not None:
        (tmp_path / "refs/dev").write_text(text)
    for _ in range(2):
        refs.remove("dev", who="me", why="deleted")
        assert (refs.names(), refs.read("dev")) == ([], None)
        assert [(move.old, move.new) for move in refs.log("dev")] == [(None, "1" * 32), ("1" * 32, None)]
