"""Mutations: node files as people, editors and merges damage them. A seed always gives the same file."""

from __future__ import annotations

import copy
import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

REPOSITORY = Path(__file__).parents[3]

_YAML_BLOCK = re.compile(r"^```yaml\n(.*?)^```", re.MULTILINE | re.DOTALL)

VALUES: tuple[Any, ...] = (
    None,
    True,
    0,
    -1,
    10**400,
    float("nan"),
    float("inf"),
    "",
    " ",
    "\x00",
    "\ud800",
    "ü" * 300,
    "'; DROP TABLE x; --",
    '"',
    "../../etc/passwd",
    "{{ nothing }}",
    "{{ 1 / 0 }}",
    "{% for %}",
    "ref('nothing')",
    "source.orders",
    "SELECT",
    "SELECT * FROM read_csv('/etc/passwd')",
    [],
    {},
    [[]],
    [None],
    {"ref": None},
    {"ref": "source.orders"},
    {1: 2},
    {None: 1},
    [1, "a", {"b": []}],
)

CHARACTERS = "\t\n:-{}[]&*!|>'\"%@`#,? \\\x00\x07\u2028\ufeff0aé"

LINES = (
    "kind: transform",
    "name: other",
    "  - ",
    "<<: *nothing",
    "a: &a [*a]",
    "x: !!python/object/apply:os.system [ls]",
    "x: !custom 1",
    "---",
    "...",
    "%YAML 9.9",
    "? [a, b]",
    "\t",
    "=======",
    "<<<<<<< HEAD",
    "2024-13-45: 1",
    "tags: 2024-02-30",
)


@dataclass(frozen=True)
class Original:
    """A project to be damaged: its node files by name, and the folder that holds its data, where it has one."""

    files: dict[str, str]
    data: Path | None = None


def originals() -> list[Original]:
    """The shipped examples, and the nodes of each reference page as a project."""
    found = []
    for folder in sorted((REPOSITORY / "cli/seeknal/cli/examples").iterdir()):
        files = {path.name: path.read_text(encoding="utf-8") for path in sorted(folder.rglob("*.yml"))}
        found.append(Original(_nodes_of(files), folder / "data"))
    for page in sorted((REPOSITORY / "docs").rglob("*.md")):
        blocks = _YAML_BLOCK.findall(page.read_text(encoding="utf-8"))
        found.append(Original(_nodes_of({f"{index}.yml": text for index, text in enumerate(blocks)})))
    return [original for original in found if original.files]


def _nodes_of(files: dict[str, str]) -> dict[str, str]:
    return {name: text for name, text in files.items() if re.search(r"^(- )?kind:", text, re.MULTILINE)}


def mutated(seed: int, original: Original) -> tuple[str, bytes]:
    """One of the project's files after one to three mutations: its name and its bytes."""
    chance = random.Random(seed)
    name = chance.choice(list(original.files))
    text = original.files[name]
    in_values = chance.random() < 0.5
    if in_values:
        text = _in_values(chance, text)
    for _ in range(chance.randint(0, 1) if in_values else chance.randint(1, 3)):
        text = chance.choice(_IN_TEXT)(chance, text)
    data = text.encode("utf-8", "surrogatepass")
    if chance.random() < 0.03:
        place = chance.randrange(len(data) + 1)
        data = data[:place] + bytes([chance.randrange(256)]) + data[place:]
    return name, data


def _in_values(chance: random.Random, text: str) -> str:
    """Change values or keys of the parsed file, so that it stays YAML."""
    documents = [document for document in yaml.safe_load_all(text) if document is not None]
    for _ in range(chance.randint(1, 2)):
        places = _places(documents)
        if not places:
            break
        container, key = chance.choice(places)
        choice = chance.random()
        if choice < 0.5:
            container[key] = copy.deepcopy(chance.choice(VALUES))
        elif choice < 0.65:
            del container[key]
        elif choice < 0.8 and isinstance(container, dict):
            container[_misspelled(chance, str(key))] = container.pop(key)
        else:
            other, other_key = chance.choice(places)
            container[key] = copy.deepcopy(other[other_key])
    return yaml.safe_dump_all(documents, sort_keys=False, allow_unicode=True)


def _places(value: Any) -> list[tuple[Any, Any]]:
    keys = list(value) if isinstance(value, dict) else list(range(len(value))) if isinstance(value, list) else []
    return [(value, key) for key in keys] + [place for key in keys for place in _places(value[key])]


def _misspelled(chance: random.Random, word: str) -> str:
    place = chance.randrange(len(word) + 1)
    return word[:place] + chance.choice("aez_") + word[place + chance.randint(0, 1) :]


def _cut_end(chance: random.Random, text: str) -> str:
    return text[: chance.randrange(len(text) + 1)]


def _insert_character(chance: random.Random, text: str) -> str:
    place = chance.randrange(len(text) + 1)
    return text[:place] + chance.choice(CHARACTERS) + text[place:]


def _drop_character(chance: random.Random, text: str) -> str:
    place = chance.randrange(len(text) + 1)
    return text[:place] + text[place + 1 :]


def _insert_line(chance: random.Random, text: str) -> str:
    lines = text.split("\n")
    lines.insert(chance.randrange(len(lines) + 1), chance.choice(LINES))
    return "\n".join(lines)


def _drop_line(chance: random.Random, text: str) -> str:
    lines = text.split("\n")
    del lines[chance.randrange(len(lines))]
    return "\n".join(lines)


def _swap_lines(chance: random.Random, text: str) -> str:
    lines = text.split("\n")
    one, other = chance.randrange(len(lines)), chance.randrange(len(lines))
    lines[one], lines[other] = lines[other], lines[one]
    return "\n".join(lines)


def _indent_line(chance: random.Random, text: str) -> str:
    lines = text.split("\n")
    line = chance.randrange(len(lines))
    lines[line] = " " * chance.randint(1, 3) + lines[line] if chance.random() < 0.7 else lines[line].lstrip()
    return "\n".join(lines)


def _repeat_part(chance: random.Random, text: str) -> str:
    start = chance.randrange(len(text) + 1)
    part = text[start : start + chance.randint(1, 60)]
    return text[:start] + part * chance.randint(2, 4) + text[start + len(part) :]


_IN_TEXT: tuple[Callable[[random.Random, str], str], ...] = (
    _cut_end,
    _insert_character,
    _drop_character,
    _insert_line,
    _drop_line,
    _swap_lines,
    _indent_line,
    _repeat_part,
)
