from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from seeknal.dag import yaml_file
from seeknal.dag.yaml_file import Document, load_documents, parse_documents


def read(text: str) -> Document:
    documents, problems = parse_documents(text, "f.yml")
    assert not problems, problems
    assert len(documents) == 1
    return documents[0]


def problem(text: str) -> str:
    _, problems = parse_documents(text, "f.yml")
    assert len(problems) == 1, problems
    return str(problems[0])


def place_of(text: str, mark: str, *path: str | int) -> str:
    """Where the mark in the value at a path is said to stand."""
    document = read(text)
    value: Any = document.value
    for key in path:
        value = value[key]
    return str(document.place_in_text(path, "f.yml", value, value.index(mark)))


def place_in_file(text: str, mark: str) -> str:
    before = text[: text.index(mark)].replace("\r\n", "\n")
    return f"f.yml:{before.count(chr(10)) + 1}:{len(before) - before.rfind(chr(10))}"


# values


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a: 1", 1),
        ("a: 1.5", 1.5),
        ("a: 0x10", 16),
        ("a: 1_000", 1000),
        ("a: yes", True),
        ("a: ~", None),
        ("a:", None),
        ("a: 'yes'", "yes"),
        ("a: 2024-01-01", "2024-01-01"),
        ("a: 2024-01-01T10:00:00Z", "2024-01-01T10:00:00Z"),
        ("a: 12:30", "12:30"),
        ("a: 12:30:45.5", "12:30:45.5"),
        ("a: =", "="),
        ("a: !!str 1", "1"),
        ("a: |\n  x\n  y\n", "x\ny\n"),
        ("a: >-\n  x\n  y\n", "x y"),
        ("a: &x [1]\nb: *x", [1]),
        ("x: &x {p: 1}\na: {<<: *x, q: 2}", {"p": 1, "q": 2}),
    ],
)
def test_values_are_what_json_can_hold(text: str, value: Any) -> None:
    assert read(text).value["a"] == value


def test_keys_are_the_text_that_stands_there() -> None:
    assert read("on: 1\n1: 2\n1.0: 3\n~: 4\n2024-01-01: 5\n'x y': {no: 6}").value == {
        "on": 1,
        "1": 2,
        "1.0": 3,
        "~": 4,
        "2024-01-01": 5,
        "x y": {"no": 6},
    }


def test_every_document_of_a_file_is_read_and_empty_ones_are_left_out() -> None:
    documents, problems = parse_documents("---\na: 1\n---\n# nothing\n---\n- b: 2\n...\n---\nnull\n", "f.yml")
    assert [document.value for document in documents] == [{"a": 1}, [{"b": 2}]]
    assert problems == []
    assert str(documents[1].place((0, "b"), "f.yml")) == "f.yml:6:3"
    for text in ("", "\n\n", "# a comment\n", "---\n---\n"):
        assert parse_documents(text, "f.yml") == ([], [])


# places


def test_keys_and_items_have_their_line_and_column() -> None:
    document = read("a: 1\nb:\n  - x\n  - {y: 2, z: 3}\n'c d':\n    e: 4\n")
    places = {path: str(document.place(path, "f.yml")) for path in document.places}
    assert places == {
        (): "f.yml:1:1",
        ("a",): "f.yml:1:1",
        ("b",): "f.yml:2:1",
        ("b", 0): "f.yml:3:5",
        ("b", 1): "f.yml:4:5",
        ("b", 1, "y"): "f.yml:4:6",
        ("b", 1, "z"): "f.yml:4:12",
        ("c d",): "f.yml:5:1",
        ("c d", "e"): "f.yml:6:5",
    }
    assert str(document.place(("b", 1, "no", "such"), "f.yml")) == "f.yml:4:5"


TEXTS = [
    "a: SELECT é FROM MARK",
    "a: SELECT é\n  FROM\n\n    MARK x",
    "a: 'it''s ''é''\n  and\n\n   MARK'",
    'a: "tab\\t \\"é\\" \\x41\\u00e9 \\\n   and\n  MARK"',
    "a: |\n  SELECT é,\n    MARK\n  FROM x\n",
    "a: |\n\n\n  SELECT é,\n\n  MARK",
    "a: |2-  # a comment\n    indented\n   MARK\n",
    "a: >\n  SELECT é,\n  folded\n  MARK\n",
    "a: >-\n\n  SELECT é\n\n    kept as it is\n    MARK\n  more\n",
    "a: |\r\n  SELECT 1,\r\n  MARK\r\n",
    "b: {c: [1, 'x MARK']}\na: x MARK2",
    "# comment\n\na: !!str |\n  x\n  MARK",
]


@pytest.mark.parametrize("text", TEXTS)
def test_a_character_of_a_text_is_found_in_every_style(text: str) -> None:
    if "b:" in text:
        assert place_of(text, "MARK", "b", "c", 1) == place_in_file(text, "MARK")
        assert place_of(text, "MARK2", "a") == place_in_file(text, "MARK2")
    else:
        assert place_of(text, "MARK", "a") == place_in_file(text, "MARK")


WORDS = st.lists(
    st.sampled_from(["a", "é", "😀", "'", '"', "\\", "#", ":", "- x", "|", "12", "%"]), min_size=1, max_size=6
)


@settings(max_examples=120)
@given(
    lines=st.lists(WORDS.map("".join), min_size=1, max_size=5),
    style=st.sampled_from([None, "'", '"', "|", ">"]),
    width=st.integers(5, 30),
)
def test_whatever_yaml_writes_its_characters_are_found(lines: list[str], style: str | None, width: int) -> None:
    value = "\n".join(lines)
    text = yaml.safe_dump({"k": 1, "a": value}, default_style=style, allow_unicode=True, width=width)
    documents, problems = parse_documents(text, "f.yml")
    assume(not problems)
    assert documents[0].value["a"] == value
    written = text.splitlines()
    for offset, character in enumerate(value):
        if not character.isspace():
            place = documents[0].place_in_text(("a",), "f.yml", value, offset)
            at = written[place.line - 1][place.column - 1 :]
            # An escape stands for its character.
            assert at.startswith((character, "\\", "''"))


# what is refused


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [1,\nb: 2", "f.yml:2:5: is not valid YAML"),
        ("a: 'x", "f.yml:1:6: is not valid YAML"),
        ("a: 1\n\tb: 2", "f.yml:2:1: is not valid YAML"),
        ("a: @x", "f.yml:1:4: is not valid YAML"),
        ("a: *x", "f.yml:1:4: is not valid YAML: found undefined alias"),
        ("a: 1\nb: 2\na: 3", "f.yml:3:1: 'a' is given twice"),
        ("a:\n  - {b: 1, b: 2}", "f.yml:2:12: 'b' is given twice"),
        ("a: é\nb: 'x\x01'", "f.yml:2:6: holds the character U+0001"),
        ("a: \ud800", "f.yml:1:4: holds the character U+D800"),
        ("a: .nan", "f.yml:1:4: is not valid YAML: '.nan' is no number"),
        ("a: -.inf", "f.yml:1:4: is not valid YAML: '-.inf' is no number"),
        (
            "a: 18446744073709551616",
            "f.yml:1:4: is not valid YAML: '18446744073709551616' is a number with more than 64",
        ),
        ("a: " + "9" * 5000, "is no number"),
        ("a: !!int x", "f.yml:1:4: is not valid YAML: 'x' is no number"),
        ("a: !!bool x", "f.yml:1:4: is not valid YAML: 'x' is no truth value"),
        ("b: 1\na: !!binary aGk=", "f.yml:2:1: the tag !!binary is not allowed"),
        ("a: !!set {x}", "f.yml:1:1: the tag !!set is not allowed"),
        ("a: !!timestamp 2020-01-01", "f.yml:1:1: the tag !!timestamp is not allowed"),
        ("a: !!python/object/apply:os.system [x]", "f.yml:1:1: the tag !!python/object/apply:os.system is not allowed"),
        ("a: !mine x", "f.yml:1:1: the tag !mine is not allowed"),
        ("? [a]\n: b", "f.yml:1:3: a key must be plain text"),
        ("<<: x", "f.yml:1:5: is not valid YAML"),
        ("%YAML 9.9\n---\na: 1", "is not valid YAML"),
    ],
)
def test_what_is_wrong_with_a_file_is_said_with_its_place(text: str, said: str) -> None:
    assert said in problem(text)


def test_every_key_that_is_given_twice_is_said() -> None:
    _, problems = parse_documents("a: 1\nb: {c: 1, c: 2}\na: 2\n---\nd: 1\nd: 2\n", "f.yml")
    assert [str(found.place) for found in problems] == ["f.yml:2:11", "f.yml:3:1", "f.yml:6:1"]


def nested_aliases(depth: int, inner: str) -> str:
    lines = [f"n0: &n0 {inner}"]
    lines += [f"n{level}: &n{level} [{', '.join([f'*n{level - 1}'] * 10)}]" for level in range(1, depth)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (nested_aliases(12, "[x]"), "too large with its aliases written out"),
        (
            "a: &a " + "x" * 300_000 + "\nb: [" + ", ".join(["*a"] * 1000) + "]",
            "too large with its aliases written out",
        ),
        (
            "\n".join(f"m{i}: &m{i} {{<<: [{', '.join([f'*m{i - 1}' if i else '{a: 1}'] * 10)}]}}" for i in range(9)),
            "too large",
        ),
        ("a: &a [*a]", "nested deeper than 100 levels"),
        ("[" * 500_000, "nested deeper than 100 levels"),
        ("- " * 500_000 + "x", "nested deeper than 100 levels"),
        ("{a: " * 100_000, "nested deeper than 100 levels"),
        ("? " * 100_000, "nested deeper than 100 levels"),
        ("\n".join(" " * level + "a:" for level in range(500)), "nested deeper than 100 levels"),
    ],
    ids=["aliases", "long aliases", "merges", "loop", "flow", "list", "mapping", "keys", "indented"],
)
def test_files_that_would_take_too_much_are_refused(text: str, said: str) -> None:
    assert said in problem(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("".join(f"k{index}:\n" for index in range(105_000)), "is too large with its aliases written out"),
        ("---\n" * 200_000, "has too many documents"),
        ("a: " + "9" * 900_000, "is no number that can be used here"),
        ("a: 0x" + "f" * 900_000, "is a number with more than 64 bits"),
        ("!" * 900_000, "is not allowed"),
    ],
    ids=["keys", "documents", "number", "hexadecimal", "tag"],
)
def test_a_bomb_is_refused_in_one_short_line(text: str, said: str) -> None:
    found = problem(text)
    assert said in found
    assert len(found) < 200


def test_of_keys_that_are_given_twice_only_the_first_are_said() -> None:
    documents, problems = parse_documents("a: 1\n" * 150_000, "f.yml")
    assert not documents
    assert 10 < len(problems) < 30


def test_a_file_is_not_read_further_than_it_may_be_large(tmp_path: Path) -> None:
    with (tmp_path / "a.yml").open("wb") as file:
        file.truncate(1 << 40)
    assert "is larger than" in str(load_documents(tmp_path / "a.yml", "a.yml")[1][0])


def test_many_values_are_no_harm() -> None:
    assert len(read("- {a: [1, 2], b: x}\n" * 5000).value) == 5000


# files


def test_a_file_may_have_a_byte_order_mark_and_any_line_ends(tmp_path: Path) -> None:
    (tmp_path / "a.yml").write_bytes("\ufeffa: é\r\nb: |\r\n  x\r\n  y\r\n".encode())
    documents, problems = load_documents(tmp_path / "a.yml", "a.yml")
    assert problems == []
    assert documents[0].value == {"a": "é", "b": "x\ny\n"}
    assert str(documents[0].place_in_text(("b",), "a.yml", "x\ny\n", 2)) == "a.yml:4:3"


def test_a_file_that_is_not_utf_8_is_refused_where_it_is_not(tmp_path: Path) -> None:
    (tmp_path / "a.yml").write_bytes(b"a: \xc3\xa9\nb: \xc3\xa9\xff")
    _, problems = load_documents(tmp_path / "a.yml", "a.yml")
    assert [str(found) for found in problems] == ["a.yml:2:5: is not UTF-8 text (save the file as UTF-8)"]
    (tmp_path / "b.yml").write_text("a: 1", encoding="utf-16")
    _, problems = load_documents(tmp_path / "b.yml", "b.yml")
    assert str(problems[0]).startswith("b.yml:1:1: is not UTF-8 text")


def test_a_file_that_is_missing_or_too_large_is_refused(tmp_path: Path) -> None:
    _, problems = load_documents(tmp_path / "none.yml", "none.yml")
    assert str(problems[0]) == "none.yml: cannot be read: No such file or directory"
    (tmp_path / "big.yml").write_bytes(b"#" * (yaml_file.MOST_BYTES + 1))
    _, problems = load_documents(tmp_path / "big.yml", "big.yml")
    assert "larger than 1 MiB" in str(problems[0])


@settings(max_examples=200)
@given(st.text(alphabet="ab:{}[],&*<!|>-?'\"#%@ \n\t\\.0e~é\x00\u2028", max_size=40))
def test_any_text_is_read_or_refused_with_a_place(text: str) -> None:
    documents, problems = parse_documents(text, "f.yml")
    for found in problems:
        assert found.place is not None
        assert found.place.file == "f.yml"
    for document in documents:
        for path in document.places:
            assert document.place(path, "f.yml").line >= 1
