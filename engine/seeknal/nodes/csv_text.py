"""The text of a CSV file as DuckDB cuts it into lines, for what DuckDB does not tell: the header, where a row stands.

- *physical line*: what an editor counts.
- *record*: what DuckDB's reader counts as a line: one or more physical lines, as a quoted value may hold line
  breaks. A blank line is a record too, though it is a row only where the file has a single column.
- *dialect*: how the file is written. It is what the node says and is never guessed from the file, so no row
  of the file can change how the others are read.
"""

from __future__ import annotations

import gzip
import mmap
import os
import re
import zlib
from collections import deque
from collections.abc import Iterator
from functools import cache
from itertools import islice
from typing import NamedTuple, TextIO, cast

import msgspec

from seeknal.errors import NodeFailedError, Place, Problem, ProjectError
from seeknal.nodes.read_request import ReadRequest

#: The encodings that DuckDB reads without an extension, with Python's name for each.
ENCODINGS = {"utf-8": "utf-8-sig", "utf-16": "utf-16", "latin-1": "latin-1"}
_ENCODING_SYNONYMS = {
    "utf8": "utf-8", "utf-8-sig": "utf-8", "utf16": "utf-16", "utf-16-le": "utf-16", "utf-16le": "utf-16",
    "latin1": "latin-1", "iso-8859-1": "latin-1", "iso8859-1": "latin-1", "ascii": "utf-8", "us-ascii": "utf-8",
}  # fmt: skip

NOT_UTF8_HINT = "save the file as UTF-8, or set params.encoding to latin-1 or utf-16"
OTHER_ENDING_HINT = "make the line endings the same throughout"
UNCLOSED = "a quoted value does not end, or text follows its closing quote"
UNCLOSED_HINT = "a quote within a quoted value is written twice; set params.quote or params.escape where it is not"

#: DuckDB's own limit.
LONGEST_LINE_BYTES = 2_000_000


class Dialect(msgspec.Struct, frozen=True):
    """How a CSV file is written; an empty ``quote`` or ``escape`` means that there is none."""

    delimiter: str = ","
    quote: str = '"'
    escape: str = '"'
    header: bool = True
    skip: int = 0
    encoding: str = "utf-8"
    null_texts: tuple[str, ...] = ("",)
    delimiter_is_given: bool = False


class Record(NamedTuple):
    """A record with its line endings; not ``whole`` where a quote does not end, or ends before its field does."""

    line: int
    text: str
    whole: bool = True

    @property
    def is_blank(self) -> bool:
        return not self.text.strip("\r\n")

    @property
    def ending(self) -> str:
        """The line ending; empty where the file ends without one."""
        return "\r\n" if self.text.endswith("\r\n") else self.text[-1:] if self.text.endswith(("\r", "\n")) else ""


class Head(msgspec.Struct, frozen=True):
    """How a CSV file begins.

    ``fields`` are those of the header, or of the first row where there is no header; empty where the file has
    no such line. ``line`` is the physical line they stand on, ``skipped`` the records before it. ``line_ending``
    is that of the file where DuckDB would take another for it, else empty.
    """

    fields: tuple[str, ...]
    line: int
    skipped: int
    line_ending: str = ""


def dialect_of(request: ReadRequest) -> Dialect:
    """Read the dialect from a node's ``params``. Raises ProjectError with every parameter that is wrong."""
    params = request.params
    problems: list[Problem] = []

    def wrong(name: str, message: str) -> None:
        problems.append(Problem(message, field=("params", name)))

    def text(name: str, default: str, longest: int) -> str:
        value = params.get(name, default)
        if isinstance(value, str) and len(value) <= longest and "\n" not in value and "\r" not in value:
            return value
        wrong(name, f"param '{name}' must be a text of at most {longest} characters, not {value!r}")
        return default

    if "delim" in params and params.get("delimiter", params["delim"]) != params["delim"]:
        wrong("delim", "params 'delimiter' and 'delim' differ; they mean the same")
    given = next((name for name in ("delimiter", "delim") if name in params), "")
    delimiter = text(given or "delimiter", ",", 4).replace("\\t", "\t")
    quote = text("quote", '"', 1)
    escape = text("escape", quote, 1) if quote else ""
    if not (quote + escape).isascii():
        wrong("quote", "params 'quote' and 'escape' must be ASCII characters")
    if not delimiter or (quote and quote in delimiter):
        name = given or "delimiter"
        wrong(name, f"param '{name}' must not be empty or hold the quote, it is {delimiter!r}")
    header, skip = params.get("header", True), params.get("skip", 0)
    if not isinstance(header, bool):
        wrong("header", f"param 'header' must be true or false, not {header!r}")
    if isinstance(skip, bool) or not isinstance(skip, int) or skip < 0:
        wrong("skip", f"param 'skip' must be a number of lines, not {skip!r}")
    named = str(params.get("encoding", "utf-8")).strip().lower().replace("_", "-")
    encoding = _ENCODING_SYNONYMS.get(named, named)
    if encoding not in ENCODINGS:
        wrong("encoding", f"param 'encoding' must be one of {', '.join(ENCODINGS)}, not {params['encoding']!r}")
    nulls = params.get("nullstr", [])
    nulls = [nulls] if isinstance(nulls, str) else nulls
    if not isinstance(nulls, list | tuple) or not all(isinstance(value, str) for value in nulls):
        wrong("nullstr", f"param 'nullstr' must be a text or a list of texts, not {nulls!r}")
        nulls = []
    if problems:
        raise ProjectError(problems)
    # The empty field stays NULL whatever else is: '' is no number and no date.
    null_texts = tuple(dict.fromkeys(["", *nulls]))
    return Dialect(delimiter, quote, escape, header, skip, encoding, null_texts, bool(given))


def read_head(request: ReadRequest, file: str, dialect: Dialect) -> Head:
    """Read the header of a file, or its first row. Raises NodeFailedError where that cannot be read."""
    _check_bytes(request, file, dialect)
    line, skipped, usual = 0, 0, ""
    try:
        with _open(file, dialect) as stream:
            for record in records(stream, dialect):
                line = record.line
                usual = usual or record.ending
                if record.ending not in (usual, ""):
                    # DuckDB goes by the first line ending it sees, and would find no row.
                    raise _failure(request, file, line, other_ending(usual, record.ending), OTHER_ENDING_HINT)
                if line <= dialect.skip:
                    # DuckDB would go on skipping until the quote ends.
                    if not record.whole or len(record.text.splitlines()) > 1:
                        message = "the line is to be skipped, but holds a quote that does not end on it"
                        raise _failure(request, file, line, message, "remove the quote, or set params.quote")
                elif not (dialect.header and record.is_blank):
                    _check_text(request, file, record, dialect)
                    first = re.search("\r\n|\r|\n", record.text)
                    misleading = bool(skipped == 0 and first and first[0] != record.ending)
                    fields = _cut(record.text[: len(record.text) - len(record.ending)], dialect).fields
                    return Head(tuple(fields), line, skipped, record.ending if misleading else "")
                skipped += 1
    except UnicodeError:
        raise _failure(request, file, 0, f"is not {dialect.encoding} text", "set params.encoding") from None
    except (OSError, EOFError, zlib.error) as error:
        raise _failure(request, file, 0, f"cannot be read: {error}") from error
    return Head((), line, skipped)


def line_of_record(file: str, dialect: Dialect, number: int) -> int:
    """Find the physical line on which the ``number``-th record of a file begins, from 1; 0 where there is none."""
    with _open(file, dialect) as stream:
        return next((record.line for record in islice(records(stream, dialect), number - 1, None)), 0)


def line_of_row(file: str, dialect: Dialect, head: Head, number: int) -> int:
    """Find the physical line on which the ``number``-th row of a file begins, from 1; 0 where there is none."""
    blank_is_row = len(head.fields) == 1
    with _open(file, dialect) as stream:
        behind_head = islice(records(stream, dialect), head.skipped + dialect.header, None)
        rows = (record.line for record in behind_head if blank_is_row or not record.is_blank)
        return next(islice(rows, number - 1, None), 0)


def line_of_open_end(file: str, dialect: Dialect) -> int:
    """Find the physical line on which a last record begins whose quote never ends; 0 where it ends."""
    is_plain = dialect.encoding != "utf-16" and len(dialect.delimiter.encode()) == 1 and not file.endswith(".gz")
    if not dialect.quote or (is_plain and _ends_closed(file, dialect)):
        return 0
    with _open(file, dialect) as stream:
        last = deque(records(stream, dialect), maxlen=1)
    return next((record.line for record in last if not record.whole), 0)


def _ends_closed(file: str, dialect: Dialect) -> bool:
    """Say whether no quote is open at the end of a file. Takes about a second for 100 MB of quoted values."""
    quote, delimiter = re.escape(dialect.quote), re.escape(dialect.delimiter)
    quoted = quote + _quoted_pattern(dialect.quote, dialect.escape).pattern
    begin = f"{_space(dialect.delimiter)}(?:{quoted}|(?!{quote}))"
    mark = "(?:\ufeff)?+" if dialect.encoding == "utf-8" else ""
    # A quote elsewhere than at the beginning of a field means itself.
    pattern = f"{mark}{begin}(?:[^{delimiter}\r\n]++|[{delimiter}\r\n]{begin})*+"
    if not os.path.getsize(file):
        return True
    with open(file, "rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
        match = re.compile(pattern.encode(dialect.encoding)).match(content)
        return match is not None and match.end() == len(content)


def line_of_other_ending(file: str, dialect: Dialect) -> tuple[int, str] | None:
    """Find the first record that ends unlike those before it: its line, and what to say of it."""
    usual = ""
    with _open(file, dialect) as stream:
        for record in records(stream, dialect):
            usual = usual or record.ending
            if record.ending not in (usual, ""):
                return record.line, other_ending(usual, record.ending)
    return None


def other_ending(usual: str, own: str) -> str:
    """Say that a line ends unlike those before it."""
    return f"the line ends in {own!r}, those before it end in {usual!r}"


def records(stream: TextIO, dialect: Dialect) -> Iterator[Record]:
    """Cut a file into its records."""
    line = 0
    whole = _whole_pattern(dialect.delimiter, dialect.quote, dialect.escape)
    while text := stream.readline(LONGEST_LINE_BYTES):
        line += 1
        if not dialect.quote or dialect.quote not in text or whole.fullmatch(text):
            yield Record(line, text)
            continue
        begin, parts, cut = line, [text], _cut(text, dialect)
        while cut.open and (text := stream.readline(LONGEST_LINE_BYTES)):
            line += 1
            parts.append(text)
            if dialect.quote in text:
                cut = _cut(text, dialect, inside=True)
        yield Record(begin, "".join(parts), not cut.open and not cut.loose)


class _Cut(NamedTuple):
    """The fields of a text; whether the last one's quote is still open, whether text follows a closing quote."""

    fields: list[str]
    open: bool
    loose: bool


def _cut(text: str, dialect: Dialect, *, inside: bool = False) -> _Cut:
    """Cut a text into its fields; ``inside`` says that it begins within a quoted value."""
    fields: list[str] = []
    position, loose = 0, False
    opening = re.compile(_space(dialect.delimiter) + (re.escape(dialect.quote) or "(?!)"))
    while True:
        value, opened = "", None if inside else opening.match(text, position)
        quoted = inside or opened is not None
        if quoted:
            value, position = _quoted_value(text, opened.end() if opened else position, dialect)
            if position < 0:
                return _Cut([*fields, value], True, loose)
        inside = False
        end = text.find(dialect.delimiter, position)
        rest = text[position:] if end < 0 else text[position:end]
        if quoted and not rest.strip(" \r\n"):
            rest = ""
        loose = loose or (quoted and bool(rest))
        fields.append(value + rest)
        if end < 0:
            return _Cut(fields, False, loose)
        position = end + len(dialect.delimiter)


def _quoted_value(text: str, position: int, dialect: Dialect) -> tuple[str, int]:
    """Give the quoted value whose content begins at ``position``, and where its quote ends: -1 where it does not."""
    match = _quoted_pattern(dialect.quote, dialect.escape).match(text, position)
    if match is None:
        return text[position:], -1
    value: str = match[1]
    if dialect.escape and dialect.escape in value:
        value = re.sub(f"{re.escape(dialect.escape)}((?s:.))", r"\1", value)
    return value, match.end()


@cache
def _whole_pattern(delimiter: str, quote: str, escape: str) -> re.Pattern[str]:
    """The pattern of a record that is whole, for a first look; some whole ones do not match it."""
    if not quote:
        return re.compile("")
    quoted = f"{re.escape(quote)}{_quoted_pattern(quote, escape).pattern}"
    plain = f"(?!{re.escape(quote)})[^{re.escape(delimiter[0])}\r\n]*+"
    field = f"{_space(delimiter)}(?:{quoted}|{plain})"
    return re.compile(f"{field}(?:{re.escape(delimiter)}{field})*+[\r\n]*")


def _space(delimiter: str) -> str:
    """The pattern of the space before a quoted value, of which DuckDB drops one."""
    return " ?+" if " " not in delimiter else ""


@cache
def _quoted_pattern(quote: str, escape: str) -> re.Pattern[str]:
    """The pattern of a quoted value from behind its opening quote to its closing one."""
    quote, escape = re.escape(quote), re.escape(escape)
    if not escape or escape == quote:
        doubled = f"{quote}{quote}[^{quote}]*+" if escape else "(?!)"
        return re.compile(f"([^{quote}]*+(?:{doubled})*+){quote}")
    return re.compile(f"((?:[^{quote}{escape}]++|{escape}(?s:.))*+){quote}")


def _open(file: str, dialect: Dialect) -> TextIO:
    """Open a file as text with its line endings as they are; what is no UTF-8 comes as surrogates."""
    opener = gzip.open if file.endswith(".gz") else open
    errors = "surrogateescape" if dialect.encoding == "utf-8" else "strict"
    return cast(TextIO, opener(file, "rt", encoding=ENCODINGS[dialect.encoding], errors=errors, newline=""))


def _check_bytes(request: ReadRequest, file: str, dialect: Dialect) -> None:
    """Refuse what DuckDB would read as no row at all: other kinds of file, and an encoding it does not know."""
    with open(file, "rb") as stream:
        magic = stream.read(4)
    if file.endswith(".zst"):
        raise _failure(request, file, 0, "is compressed with zstd", "decompress it, or compress it with gzip")
    if magic[:2] == b"\x1f\x8b" and not file.endswith(".gz"):
        raise _failure(request, file, 0, "is compressed with gzip", "name it with the ending .gz")
    if magic == b"PAR1":
        raise _failure(request, file, 0, "is a Parquet file", "set source: parquet")
    if magic[:2] == b"\xfe\xff":
        raise _failure(request, file, 0, "is big-endian UTF-16, which is not read", "save it as UTF-8")
    if magic[:2] == b"\xff\xfe" and dialect.encoding != "utf-16":
        raise _failure(request, file, 0, "is UTF-16", "set params.encoding to utf-16, or save it as UTF-8")


def _check_text(request: ReadRequest, file: str, record: Record, dialect: Dialect) -> None:
    if len(record.text) >= LONGEST_LINE_BYTES:
        raise _failure(request, file, record.line, f"the line is longer than {LONGEST_LINE_BYTES:,} bytes")
    if dialect.encoding == "utf-8" and any("\udc80" <= character <= "\udcff" for character in record.text):
        raise _failure(request, file, record.line, "the line is not UTF-8", NOT_UTF8_HINT)
    if not record.whole:
        raise _failure(request, file, record.line, UNCLOSED, UNCLOSED_HINT)


def _failure(request: ReadRequest, file: str, line: int, message: str, hint: str = "") -> NodeFailedError:
    shown = request.shown(file)
    return NodeFailedError(message if line else f"the file {message}", place=Place(shown, line), hint=hint)
