"""A node's SQL, taken apart by DuckDB's own parser: statements, references to nodes, what it may not do.

A node's SQL reads its declared inputs and nothing else, so that what it gives depends on nothing that the
fingerprint does not see. Allowed are ``SELECT`` (with ``WITH``, ``FROM`` first, ``VALUES``, ``PIVOT``, …) and, before it,
``CREATE TEMP …``. Refused are all other statements and every table function that reads files or other SQL.

- *reference*: ``source.orders``, ``ref('source.orders')``, ``{{ ref('orders') }}``, or by position ``input_0``,
  ``__THIS__``.
- *offset*: characters from the start of the SQL text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Any

from seeknal.dag.names import did_you_mean

# Table functions that depend on nothing but their arguments; every other one is refused (a test goes through
# all that DuckDB has).
PURE_TABLE_FUNCTIONS = frozenset(
    "generate_series range repeat repeat_row unnest json_each json_tree histogram histogram_values summary "
    "test_all_types test_vector_types".split()
)

# Everything else that reads: files, the catalog, other SQL, Python objects.
_REFUSED_FUNCTION = re.compile(
    r"""(read_\w+ | \w+_scan | arrow_scan\w* | glob | query | query_table | sniff_csv | parquet_\w+ | pragma_\w+
    | duckdb_\w+ | pg_\w+_names | icu_calendar_names | json_execute_serialized_sql | python_map_function | checkpoint
    | force_checkpoint | which_secret | (en|dis)able_\w+ | truncate_duckdb_logs | \w+_external_resource(_type)?
    | current_setting | getenv | write_log | stats)""",
    re.VERBOSE | re.IGNORECASE,
)

# duckdb_functions() calls these volatile or fixed only within a query; a test compares.
VOLATILE_FUNCTIONS = frozenset(
    """uuid uuidv4 uuidv7 gen_random_uuid random setseed now today current_date current_time current_timestamp
    localtime localtimestamp get_current_time get_current_timestamp transaction_timestamp currval nextval setval
    current_query current_query_id current_connection_id current_transaction_id txid_current getvariable sleep_ms
    current_database current_schema current_schemas in_search_path error vector_type age""".split()
)

# Words that make a result depend on more of the input than the plan shows.
_READS_EVERYTHING = frozenset({"describe", "summarize", "show", "pivot", "pivot_wider"})

_POSITIONAL = re.compile(r"input_(\d+)|__this__", re.IGNORECASE)
_REF_CALL = re.compile(
    r"""(?P<open>\{\{\s*)?\bref\s*\(\s*(?P<quote>['"])(?P<target>[^'"]*)(?P=quote)\s*\)(?(open)\s*\}\})"""
)
_IDENTIFIER = re.compile(r'"(?:[^"]|"")*"|[A-Za-z_\u0080-\U0010ffff][\w$\u0080-\U0010ffff]*')


@dataclass(frozen=True, slots=True)
class Token:
    """A piece of SQL text. ``kind`` is DuckDB's: keyword, identifier, operator, string_const, numeric_const, comment."""

    kind: str
    text: str
    offset: int


@dataclass(frozen=True, slots=True)
class SqlProblem:
    """What is wrong with a SQL text, and at which offset of it (None where that is not known)."""

    message: str
    offset: int | None = None
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Sql:
    """A node's SQL, ready to bind and to run.

    ``statements``: all but the last are ``CREATE TEMP …``. ``starts``: the offset of each in ``text``, in which
    ``ref()`` stands replaced by quoted names. ``references``: node ids in order of appearance. ``positions``: the
    positional names used, lower case, each with the index of the input it means. ``reads_everything``: the columns
    it reads cannot be told from its plan.
    """

    text: str
    statements: tuple[str, ...] = ()
    starts: tuple[int, ...] = ()
    references: tuple[str, ...] = ()
    positions: tuple[tuple[str, int], ...] = ()
    volatile: tuple[str, ...] = ()
    reads_everything: bool = False
    problems: tuple[SqlProblem, ...] = ()


def quoted(name: str) -> str:
    """A name as a SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def quoted_node(node_id: str) -> str:
    """A node's id as the qualified name that its data has in SQL: ``"source"."orders"``."""
    kind, _, name = node_id.partition(".")
    return f"{quoted(kind)}.{quoted(name)}"


def literal(text: str) -> str:
    """A text as a SQL string."""
    return "'" + text.replace("'", "''") + "'"


def tokens(text: str) -> list[Token]:
    """Cut SQL into DuckDB's own tokens; white space belongs to none."""
    import duckdb

    data = text.encode()
    found = duckdb.tokenize(text)
    ends = [offset for offset, _ in found[1:]] + [len(data)]
    result = []
    character, previous = 0, 0
    for (offset, kind), end in zip(found, ends, strict=True):
        # DuckDB counts bytes; we count characters.
        character += len(data[previous:offset].decode(errors="replace"))
        previous = offset
        piece = data[offset:end].decode(errors="replace").rstrip()
        result.append(Token(str(kind).rpartition(".")[2], piece, character))
    return result


def take_apart(text: str, known: Collection[str], resolve_bare: Callable[[str], list[str]], connection: Any) -> Sql:
    """Take a node's SQL apart.

    ``known`` are the ids of all nodes, ``resolve_bare`` gives the ids that a name without kind may mean, and
    ``connection`` is a DuckDB connection, used for its parser only. What is wrong stands in ``problems``.
    """
    problems: list[SqlProblem] = []
    text = _replace_refs(text, known, resolve_bare, problems)
    pieces = [token for token in tokens(text) if token.kind != "comment"]
    if not pieces:
        return Sql(text, problems=(SqlProblem("the SQL is empty", 0),))
    volatile, refused = _functions(pieces)
    problems += refused
    statements, starts, kinds = _statements(text, connection, problems)
    if problems:
        return Sql(text, problems=tuple(problems))
    references, positions = _references(text, pieces, statements, kinds, known, resolve_bare, connection, problems)
    words = {piece.text.lower() for piece in pieces if piece.kind in ("keyword", "identifier")}
    return Sql(
        text,
        tuple(statements),
        tuple(starts),
        tuple(references),
        tuple(positions),
        tuple(volatile),
        len(statements) > 1 or kinds[-1] != "SELECT" or not words.isdisjoint(_READS_EVERYTHING),
        tuple(problems),
    )


def _replace_refs(
    text: str, known: Collection[str], resolve_bare: Callable[[str], list[str]], problems: list[SqlProblem]
) -> str:
    if "ref" not in text:
        return text
    in_text = [
        (token.offset, token.offset + len(token.text))
        for token in tokens(text)
        if token.kind == "comment" or (token.kind == "string_const" and "ref" in token.text)
    ]

    def replace(match: re.Match[str]) -> str:
        if any(start <= match.start() < end for start, end in in_text):
            return match[0]
        target = match["target"]
        candidates = [target] if target in known else resolve_bare(target)
        if len(candidates) != 1:
            if candidates:
                message, hint = f"ref('{target}') may mean {' or '.join(candidates)}", "write kind.name"
            else:
                message, hint = f"ref('{target}'): no such node", did_you_mean(target, known)
            problems.append(SqlProblem(message, match.start(), hint))
            return match[0]
        # Padded to its old length, so that offsets behind it stay what they were.
        return quoted_node(candidates[0]).ljust(len(match[0]))

    return _REF_CALL.sub(replace, text)


def _functions(pieces: list[Token]) -> tuple[list[str], list[SqlProblem]]:
    volatile: dict[str, None] = {}
    problems = []
    for index, piece in enumerate(pieces):
        if piece.kind not in ("identifier", "keyword"):
            continue
        name = piece.text.strip('"').lower()
        called = index + 1 < len(pieces) and pieces[index + 1].text.startswith("(")
        after_dot = index > 0 and pieces[index - 1].text == "."
        if called and name not in PURE_TABLE_FUNCTIONS and _REFUSED_FUNCTION.fullmatch(name):
            hint = (
                "declare a source for the file and read that"
                if name.startswith(("read_", "parquet_")) or name in ("glob", "sniff_csv")
                else "name the inputs in the SQL itself"
            )
            problems.append(
                SqlProblem(f"{name}() is not allowed: a node reads its declared inputs only", piece.offset, hint)
            )
        if name in VOLATILE_FUNCTIONS and not after_dot and (called or name.startswith(("current_", "local"))):
            volatile[name] = None
    return list(volatile), problems


def _statements(text: str, connection: Any, problems: list[SqlProblem]) -> tuple[list[str], list[int], list[str]]:
    import duckdb

    try:
        parsed = connection.extract_statements(text)
    except duckdb.Error as error:
        problems.append(engine_problem(error, text))
        return [], [], []
    statements: list[str] = []
    starts: list[int] = []
    kinds: list[str] = []
    position = 0
    for index, statement in enumerate(parsed):
        query, kind = statement.query, statement.type.name
        start = max(text.find(query.strip(), position), position)
        position = start + len(query.strip())
        last = index == len(parsed) - 1
        leading = [token.text.lower() for token in tokens(query) if token.kind != "comment"][:4]
        temporary = kind == "CREATE" and ("temp" in leading[1:4] or "temporary" in leading[1:4])
        if statement.named_parameters:
            problems.append(SqlProblem("the SQL has parameters ($1 or ?)", start, "write the values"))
        if last and kind not in ("SELECT", "MULTI"):
            problems.append(SqlProblem(f"the last statement is {kind}, not SELECT", start, "end with a SELECT"))
        elif not last and not temporary:
            problems.append(
                SqlProblem(
                    f"{kind} is not allowed here: a node's SQL is CREATE TEMP … and, last, one SELECT",
                    start,
                    "make it a node of its own, or a WITH clause",
                )
            )
        statements.append(query.strip().rstrip(";").rstrip() if kind != "CREATE" else query)
        starts.append(start)
        kinds.append(kind)
    return statements, starts, kinds


def _references(
    text: str,
    pieces: list[Token],
    statements: list[str],
    kinds: list[str],
    known: Collection[str],
    resolve_bare: Callable[[str], list[str]],
    connection: Any,
    problems: list[SqlProblem],
) -> tuple[list[str], list[tuple[str, int]]]:
    import duckdb

    lowered = {node_id.lower(): node_id for node_id in known}
    own = _created_names(pieces)
    found: dict[str, int] = {}
    positions: dict[str, int] = {}
    for statement, kind in zip(statements, kinds, strict=True):
        try:
            if kind == "SELECT" and "pivot" not in statement.lower():
                names = sorted(connection.get_table_names(statement, qualified=True))
            else:
                names = list(_qualified_names(pieces, lowered))
        except duckdb.Error as error:
            problems.append(engine_problem(error, text))
            continue
        for name in names:
            parts = _parts(name)
            offset = _find(pieces, parts)
            joined = ".".join(parts).lower()
            if len(parts) == 1:
                match = _POSITIONAL.fullmatch(parts[0])
                if match:
                    positions[parts[0].lower()] = int(match[1] or 0)
                    continue
                if joined in own:
                    continue
            if joined in lowered:
                found.setdefault(lowered[joined], offset if offset is not None else len(text))
                continue
            problems.append(_unknown_table(".".join(parts), offset, known, resolve_bare))
    return sorted(found, key=lambda node_id: found[node_id]), sorted(positions.items())


def _unknown_table(
    name: str, offset: int | None, known: Collection[str], resolve_bare: Callable[[str], list[str]]
) -> SqlProblem:
    if re.search(r"[/\\]|\.(csv|parquet|json|jsonl|txt|tsv|xlsx|db)$", name, re.IGNORECASE):
        return SqlProblem(f"'{name}' is a file, and a node reads nodes", offset, "declare a source for the file")
    bare = resolve_bare(name)
    hint = f"write {' or '.join(bare)}" if bare else did_you_mean(name, known)
    return SqlProblem(f"no node is called '{name}'", offset, hint)


def _created_names(pieces: list[Token]) -> set[str]:
    """The names after ``CREATE TEMP TABLE|VIEW|MACRO [IF NOT EXISTS]``."""
    names = set()
    for index, piece in enumerate(pieces):
        if piece.text.lower() in ("temp", "temporary"):
            for following in pieces[index + 1 : index + 6]:
                if following.text.lower() not in ("table", "view", "macro", "function", "if", "not", "exists"):
                    names.add(following.text.strip('"').lower())
                    break
    return names


def _qualified_names(pieces: list[Token], lowered: dict[str, str]) -> Iterator[str]:
    """Names ``kind.name`` of nodes in the text; for statements that DuckDB does not list the tables of."""
    for left, dot, right in zip(pieces, pieces[1:], pieces[2:], strict=False):
        name = f"{left.text.strip(chr(34))}.{right.text.strip(chr(34))}"
        if dot.text == "." and name.lower() in lowered:
            yield f"{quoted(left.text.strip(chr(34)))}.{quoted(right.text.strip(chr(34)))}"
    for piece in pieces:
        if _POSITIONAL.fullmatch(piece.text):
            yield piece.text


def _parts(name: str) -> list[str]:
    """Take ``"a".b`` apart into its names. DuckDB adds an alias (``AS x``), which is left out."""
    parts, position = [], 0
    while match := _IDENTIFIER.match(name, position):
        piece = match[0]
        parts.append(piece[1:-1].replace('""', '"') if piece.startswith('"') else piece)
        position = match.end() + 1
        if name[match.end() : position] != ".":
            break
    return parts or [name]


def _find(pieces: list[Token], parts: list[str]) -> int | None:
    """Where a qualified name first stands in the text."""
    wanted: list[str] = []
    for part in parts:
        wanted += [".", part.lower()] if wanted else [part.lower()]
    texts = [piece.text.strip("\"'").lower() for piece in pieces]
    for index in range(len(texts) - len(wanted) + 1):
        if texts[index : index + len(wanted)] == wanted:
            return pieces[index].offset
    return None


def engine_problem(error: Exception, text: str, shift: int = 0) -> SqlProblem:
    """Read DuckDB's error about ``text``, which stood ``shift`` characters into what was executed."""
    import json

    message, offset, hint = str(error), None, ""
    head, brace, body = message.partition("{")
    if brace and '"exception_message"' in body:
        try:
            said = json.loads(brace + body)
        except json.JSONDecodeError:
            said = {"exception_message": body}
        message = str(said.get("exception_message", ""))
        if said.get("position", "").isdigit():
            offset = _characters(text, int(said["position"]), shift)
    else:
        message, _, where = message.partition("\n\nLINE ")
        message = message.partition(": ")[2] or message
        offset = _caret_offset(text, where, shift)
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    if len(lines) > 1:
        hint = "; ".join(lines[1:]).replace('Candidate bindings: ', "candidates: ")
    return SqlProblem((lines or [head.strip(": ")])[0].rstrip("!"), offset, hint)


def shifted(problem: SqlProblem, by: int) -> SqlProblem:
    """The same problem in a text that has ``by`` more characters before it."""
    offset = None if problem.offset is None else problem.offset + by
    return SqlProblem(problem.message, offset, problem.hint)


def _characters(text: str, position: int, shift: int) -> int | None:
    """Turn a byte position in ``shift`` ASCII characters followed by ``text`` into a character offset in ``text``."""
    data = text.encode()
    position -= shift
    return len(data[:position].decode(errors="replace")) if 0 <= position <= len(data) else None


def _caret_offset(text: str, where: str, shift: int) -> int | None:
    first, _, rest = where.partition("\n")
    number, _, shown = first.partition(": ")
    caret = rest.find("^")
    if not number.isdigit() or caret < 0 or "..." in shown:
        return None
    column = caret - len(f"LINE {number}: ")
    lines = text.split("\n")
    line = int(number) - 1
    if line >= len(lines) or column < 0:
        return None
    return sum(len(previous) + 1 for previous in lines[:line]) + min(column, len(lines[line])) - (shift if line == 0 else 0)
