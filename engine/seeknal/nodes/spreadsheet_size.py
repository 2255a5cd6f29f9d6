"""How large a spreadsheet is, found before it is opened: opening makes room for every cell up to the last one.

A stray cell in the last row and the last column makes that 17 billion, and no memory of any machine is enough: the
process would be ended by the library, or by the system. Known are the formats that are archives of XML (xlsx, xlsm).
"""

from __future__ import annotations

import re
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import IO

from seeknal.quantity import size_text

#: More cells than these take more than 2 GB of memory.
MOST_CELLS = 50_000_000
#: So large is what an archive holds at most, unpacked.
MOST_BYTES = 2 * 1024**3

_CELL = re.compile(rb'<(?:\w+:)?c\s[^>]*?\br="([A-Z]{1,3})(\d{1,7})"')
_SHEET = re.compile(r"<(?:\w+:)?sheet\s[^>]*>")
_RELATION = re.compile(r"<(?:\w+:)?Relationship\s[^>]*>")
_ATTRIBUTE = re.compile(r"""([\w:]+)\s*=\s*(?:"([^"]*)"|'([^']*)')""")
_CHUNK_BYTES = 1024 * 1024
# The longest beginning of a cell that may be cut off at the end of a chunk.
_OVERLAP_BYTES = 256


# Not such an archive, or a damaged one: who opens it says why.
_NOT_SUCH = (zipfile.BadZipFile, zlib.error, EOFError, KeyError, NotImplementedError, RuntimeError, ValueError)


def too_large_unpacked(file: str) -> str | None:
    """Say why a file is too large to be opened, None where it is not, or is no archive. Raises OSError."""
    try:
        with zipfile.ZipFile(file) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
    except _NOT_SUCH:
        return None
    if unpacked <= MOST_BYTES:
        return None
    return f"the file is {size_text(unpacked)} unpacked, and at most {size_text(MOST_BYTES)} are read"


def too_large(file: str, sheet: str) -> str | None:
    """Say why a sheet is too large to be opened, None where it is not, or where nothing is known. Raises OSError."""
    try:
        with zipfile.ZipFile(file) as archive:
            part = _part_of(archive, sheet)
            if part is None:
                return None
            with archive.open(part) as stream:
                rows, columns = _extent(stream)
    except _NOT_SUCH:
        return None
    if rows * columns <= MOST_CELLS:
        return None
    return f"the cells of sheet '{sheet}' reach to row {rows:,} and column {columns:,}, which are too many"


def _part_of(archive: zipfile.ZipFile, sheet: str) -> str | None:
    """The name of the part that holds a sheet."""
    from html import unescape

    def tags(pattern: re.Pattern[str], part: str) -> Iterator[dict[str, str]]:
        with archive.open(part) as stream:
            text = stream.read(4 * _CHUNK_BYTES).decode("utf-8", "replace")
        for tag in pattern.findall(text):
            yield {name.rpartition(":")[2]: unescape(one or other) for name, one, other in _ATTRIBUTE.findall(tag)}

    wanted = next((tag.get("id") for tag in tags(_SHEET, "xl/workbook.xml") if tag.get("name") == sheet), None)
    targets = {tag.get("Id"): tag.get("Target", "") for tag in tags(_RELATION, "xl/_rels/workbook.xml.rels")}
    target = targets.get(wanted)
    if not target:
        return None
    return target.lstrip("/") if target.startswith("/") else str(PurePosixPath("xl") / target)


def _extent(stream: IO[bytes]) -> tuple[int, int]:
    """The last row and the last column that a cell stands in, counted from 1."""
    rows, letters, read, rest = 0, set[bytes](), 0, b""
    while chunk := stream.read(_CHUNK_BYTES):
        read += len(chunk)
        if read > MOST_BYTES:
            # The archive told another size.
            raise ValueError("endless")
        chunk = rest + chunk
        for column, row in _CELL.findall(chunk):
            letters.add(column)
            rows = max(rows, int(row))
        rest = chunk[-_OVERLAP_BYTES:]
    return rows, max(map(_column, letters), default=0)


def _column(letters: bytes) -> int:
    number = 0
    for letter in letters:
        number = number * 26 + letter - 64
    return number
