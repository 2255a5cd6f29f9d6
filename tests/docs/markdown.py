"""Pages of documentation as the tests see them: fenced blocks, inline code, links, headings.

- *block*: a fenced piece of a page; ``info`` is the word behind the fence (``yaml``, ``console``, …).
- *session*: the ``console`` and ``diff`` blocks of a page in order: commands after ``$`` with what they print, where a
  line ``…`` stands for any lines, and changes to files, the file named behind ``---``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")) + sorted(
    (ROOT / "docs").rglob("*.md")
)

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced piece of a page; ``line`` is where its fence stands, ``before`` the paragraph above it."""

    page: Path
    line: int
    info: str
    text: str
    before: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(page: Path, *infos: str) -> list[Block]:
    """Give a page's blocks of these kinds, in order."""
    text = page.read_text(encoding="utf-8")
    return [
        Block(
            page,
            text.count("\n", 0, match.start()) + 1,
            match[1],
            match[2],
            text[: match.start()].rstrip().rpartition("\n\n")[2],
        )
        for match in _FENCE.finditer(text)
        if match[1] in infos
    ]


def prose(page: Path) -> str:
    """Give a page without its blocks."""
    return _FENCE.sub("", page.read_text(encoding="utf-8"))


def inline_code(page: Path) -> list[str]:
    """Give what stands between single backticks."""
    return [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", prose(page))]


def links(page: Path) -> list[str]:
    """Give the targets of a page's links."""
    return re.findall(r"\[[^\]]+\]\(([^)\s]+)\)", re.sub(r"`[^`]*`", "", prose(page)))


def anchors(page: Path) -> set[str]:
    """Give the anchors of a page's headings, made as forges make them."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def sections(page: Path) -> dict[str, str]:
    """Give the text below each heading of the second level, by the heading without backticks."""
    parts = re.split(r"^## (.+)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {heading.replace("`", ""): text for heading, text in zip(parts[1::2], parts[2::2], strict=True)}


def commands(block: Block) -> Iterator[tuple[str, list[str]]]:
    """Give the commands of a console block, each with the lines that it prints."""
    command: str | None = None
    printed: list[str] = []
    for line in block.text.splitlines():
        if line.startswith("$ "):
            if command is not None:
                yield command, printed
            command, printed = line[2:], []
        else:
            printed.append(line)
    if command is not None:
        yield command, printed


def apply_change(block: Block, folder: Path) -> None:
    """Make the change that a diff block shows. The lines that it replaces must stand in the file exactly once."""
    head, _, body = block.text.partition("\n")
    file = folder / head.removeprefix("--- ").strip()
    lines = body.splitlines(keepends=True)
    old = "".join(line[1:] for line in lines if line[0] in " -")
    new = "".join(line[1:] for line in lines if line[0] in " +")
    text = file.read_text(encoding="utf-8")
    assert text.count(old) == 1, f"{block}: {file.name} does not have, once:\n{old}"
    file.write_text(text.replace(old, new), encoding="utf-8")


def named_file(block: Block) -> str:
    """Give the path that the paragraph above a block ends with, in backticks and before a colon."""
    match = re.search(r"`([\w/.]+)`:$", block.before)
    assert match is not None, f"{block}: the paragraph above does not end with the name of the file"
    return match[1]


def data_files(page: Path) -> dict[str, str]:
    """Give the data files that a page shows, by path."""
    return {named_file(block): block.text for block in blocks(page, "csv", "json")}
