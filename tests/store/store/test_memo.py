"""Memos: what is kept, what goes, and that a bad file is as good as none."""

from __future__ import annotations

from pathlib import Path

import pytest

from seeknal.store import memo as module
from seeknal.store.memo import Memo, MemoContent, key_of
from seeknal.store.objects import encode


def memo(folder: Path, stamp: str = "1") -> Memo:
    return Memo(folder / "memo" / "answers", folder, stamp)


def saved(folder: Path, answers: dict[str, bytes], stamp: str = "1") -> None:
    made = memo(folder, stamp)
    for name, answer in answers.items():
        made.keep(key_of(name), answer)
    made.save()


def test_an_answer_is_there_for_the_next_process(tmp_path: Path) -> None:
    saved(tmp_path, {"a": b"1"})
    again = memo(tmp_path)
    assert again.find(key_of("a")) == b"1"
    assert again.find(key_of("b")) is None


def test_equal_values_have_one_key_and_others_have_others() -> None:
    assert key_of("a", [("x", 1)], None) == key_of("a", (["x", 1],), None)
    keys = [key_of("a", "b"), key_of("ab"), key_of(["a", "b"]), key_of("a"), key_of("a", None), key_of("b", "a")]
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize("count", [1, 15, 16, 500, 515, 516, 1000, 1 << 16])
def test_a_file_written_piece_by_piece_is_the_whole(tmp_path: Path, count: int) -> None:
    made = memo(tmp_path)
    answers = {key_of(number): b"%d" % number for number in range(count)}
    for key, answer in answers.items():
        made.keep(key, answer)
    made.save()
    assert (tmp_path / "memo" / "answers").read_bytes() == encode(MemoContent("1", answers))


def test_answers_of_other_code_are_forgotten(tmp_path: Path) -> None:
    saved(tmp_path, {"a": b"1"})
    assert memo(tmp_path, "2").find(key_of("a")) is None


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[:-1],
        lambda data: data[:40] + bytes([data[40] ^ 1]) + data[41:],
        lambda data: data.replace(b"seeknal memo 1", b"seeknal memo 2"),
        lambda data: b"something else\n",
    ],
)
def test_a_bad_file_is_as_good_as_none(tmp_path: Path, damage: object) -> None:
    saved(tmp_path, {"a": b"1"})
    file = tmp_path / "memo" / "answers"
    file.write_bytes(damage(file.read_bytes()))  # type: ignore[operator]
    again = memo(tmp_path)
    assert again.find(key_of("a")) is None
    again.keep(key_of("a"), b"2")
    again.save()
    assert memo(tmp_path).find(key_of("a")) == b"2"


def test_what_was_not_asked_for_outlives_one_look_and_goes_when_room_is_short(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SPARE_BYTES", 250)
    saved(tmp_path, {"old": b"x" * 100})
    for number in range(3):
        saved(tmp_path, {f"new {number}": b"x" * 100})
    again = memo(tmp_path)
    assert [number for number in range(3) if again.find(key_of(f"new {number}"))] == [0, 1, 2]
    assert again.find(key_of("old")) is None


def test_without_new_answers_nothing_is_written(tmp_path: Path) -> None:
    saved(tmp_path, {"a": b"1"})
    file = tmp_path / "memo" / "answers"
    before = file.stat()
    again = memo(tmp_path)
    again.find(key_of("a"))
    again.save()
    assert file.stat().st_ino == before.st_ino


def test_a_disk_that_takes_nothing_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "memo").write_text("in the way")
    saved(tmp_path, {"a": b"1"})


def test_without_a_file_nothing_is_remembered() -> None:
    made = Memo(None)
    made.keep(key_of("a"), b"1")
    assert made.find(key_of("a")) is None
    made.save()


def test_a_memo_that_rested_answers_and_keeps_all_that_was_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SPARE_BYTES", 250)
    saved(tmp_path, {"old": b"x" * 250})
    rested = memo(tmp_path)
    for number in range(9):
        rested.keep(key_of(f"new {number}"), b"x" * 100)
    rested.rest()
    assert rested.find(key_of("new 8")) == b"x" * 100
    rested.keep(key_of("later"), b"1")
    rested.save()
    again = memo(tmp_path)
    assert all(again.find(key_of(f"new {number}")) for number in range(9))
    assert again.find(key_of("later")) == b"1"
