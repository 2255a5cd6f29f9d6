"""A node's SQL, taken apart by DuckDB's own parser: statements, references to nodes, what it may not do.

Its templates have been filled in before (:mod:`seeknal.dag.rendering`), save ``{{ ref('orders') }}``.

A node's SQL reads its declared inputs and nothing else, so that what it gives depends on nothing that the
fingerprint does not see. Allowed are ``SELECT`` (with ``WITH``, ``FROM`` first, ``VALUES``, ``PIVOT``, …) and, before
it, ``CREATE TEMP …``. Refused are all other statements, every function that reads files, settings or other SQL, and
DuckDB's catalog.

- *reference*: ``source.orders``, ``ref('source.orders')``, ``{{ ref('orders') }}``, or by position ``input_0``,
  ``__THIS__``.
- *offset*: characters from the start of the SQL text in which every ``ref()`` stands replaced by the node's name.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec

from seeknal.dag.canonical import canonical_of
from seeknal.dag.names import did_you_mean
from seeknal.dag.sql_problem import SqlProblem, engine_problem, shifted
from seeknal.dag.sql_statements import created, is_temporary, ref_calls, split_statements, without_data_clause
from seeknal.dag.syntax import POSITIONAL, NoTree, Syntax, TableName, outline, read_query
from seeknal.dag.syntax_trees import SyntaxTrees
from seeknal.dag.tokens import Token, tokens
from seeknal.late_pattern import late_pattern

_QUERY_WORDS = frozenset({"select", "from", "values", "table", "with"})

_FILE = late_pattern(r"[/\\*]|^\w+:|\.(csv|parquet|json|jsonl|ndjson|txt|tsv|xlsx|db|duckdb|gz|zst)$", re.IGNORECASE)


class TablePlace(msgspec.Struct, frozen=True, gc=False):
    """Where a query names one of its inputs as a table: from ``start`` to ``end``, offsets in its text.

    ``name`` is a node's id, or a positional name in lower case; ``called`` what the rest of the query calls the table:
    the name as it is written, empty where the query gives it an alias.
    """

    start: int
    end: int
    name: str
    called: str


class Sql(msgspec.Struct, frozen=True, gc=False):
    """A node's SQL, ready to bind and to run.

    ``statements``: all but the last are ``CREATE TEMP …``; ``bare`` are the same, but make tables without data.
    ``starts``: the offset of each in ``text``. ``references``: node ids in order of appearance. ``positions``: the
    positional names used, lower case, each with the index of the input it means; ``sure`` where they are tables for
    certain. ``offsets``: where references and positional names stand first, as far as ``places`` do not tell; see
    :meth:`offset_of`. ``reads_everything``: the columns it reads cannot be told from its plan. ``depends_on_data``:
    neither can the columns it gives. ``moves``: for each ``ref()`` that was replaced, the offset behind it and how much
    longer the text has become up to there. ``places``: of a single SELECT, every place where it names an input; nothing
    where one of them is not known for certain, or something else in the query names an input by its kind
    (``source.orders.id``). ``canonical``: the text's canonical form.
    """

    text: str
    statements: tuple[str, ...] = ()
    bare: tuple[str, ...] = ()
    starts: tuple[int, ...] = ()
    references: tuple[str, ...] = ()
    positions: tuple[tuple[str, int], ...] = ()
    sure: bool = True
    offsets: tuple[tuple[str, int], ...] = ()
    volatile: tuple[str, ...] = ()
    reads_everything: bool = False
    depends_on_data: bool = False
    moves: tuple[tuple[int, int], ...] = ()
    places: tuple[TablePlace, ...] = ()
    canonical: str = ""
    problems: tuple[SqlProblem, ...] = ()

    def offset_of(self, name: str) -> int | None:
        """Where a reference or a positional name stands first."""
        return dict(self.offsets).get(name, _first_places(self.places).get(name))

    def original_offset(self, offset: int) -> int:
        """Turn an offset into one in the text as it was before ``ref()`` was replaced."""
        longer = 0
        for behind, by in self.moves:
            if offset < behind:
                break
            longer = by
        return offset - longer


def _first_places(places: Sequence[TablePlace]) -> dict[str, int]:
    """Where each name stands first."""
    return {place.name: place.start for place in reversed(places)}


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


def take_apart(
    text: str,
    known: Mapping[str, str],
    resolve_bare: Callable[[str], list[str]],
    connection: Any,
    positions: Iterable[tuple[str, int]] = (),
    trees: SyntaxTrees | None = None,
) -> Sql:
    """Take a node's SQL apart.

    ``known`` gives for the id of every node, in lower case, the id; ``resolve_bare`` gives the ids that a name without
    kind may mean; ``connection`` is a DuckDB connection, used for its parser only; ``positions`` are names, lower case,
    of inputs beside ``input_0`` and the like; ``trees`` may know the trees of many texts already. What is wrong stands
    in ``problems`` of the result.
    """
    return _Parts(text, known, resolve_bare, connection, dict(positions), trees or SyntaxTrees(connection)).sql()


class _Parts:
    """The parts of one SQL text as they are found."""

    def __init__(
        self,
        text: str,
        known: Mapping[str, str],
        resolve_bare: Callable[[str], list[str]],
        connection: Any,
        named: Mapping[str, int],
        trees: SyntaxTrees,
    ) -> None:
        self._trees = trees
        self._known = known
        self._named = named
        self._resolve_bare = resolve_bare
        self._connection = connection
        self._problems: list[SqlProblem] = []
        self._pieces = tokens(text)
        self._moves: list[tuple[int, int]] = []
        self._text = self._without_refs(text)
        # The macros, views, … that the text creates itself, in lower case.
        self._own: set[str] = set()
        self._references: list[str] = []
        self._positions: dict[str, int] = {}
        self._offsets: dict[str, int] = {}
        self._bare: list[str] = []
        self._volatile: dict[str, None] = {}
        self._reads_everything = False
        self._depends_on_data = False
        self._sure = True
        # The tables that the text names, each with the offset of the query that does.
        self._tables: list[tuple[int, TableName]] = []

    def sql(self) -> Sql:
        statements = split_statements(self._pieces)
        if not self._problems:
            if statements:
                self._read(statements)
            else:
                self._problems.append(SqlProblem("the SQL is empty", 0))
        texts = tuple(self._text[part[0].start : part[-1].end] for part in statements)
        places = tuple(self._places()) if len(statements) == 1 and not self._problems else ()
        first = _first_places(places).items()
        return Sql(
            text=self._text,
            statements=texts,
            bare=(*self._bare, *texts[len(self._bare) :]),
            starts=tuple(part[0].start for part in statements),
            references=tuple(sorted(self._references, key=self._offsets.__getitem__)),
            positions=tuple(sorted(self._positions.items())),
            sure=self._sure,
            offsets=tuple(entry for entry in self._offsets.items() if entry not in first),
            volatile=tuple(self._volatile),
            reads_everything=self._reads_everything,
            depends_on_data=self._depends_on_data,
            moves=tuple(self._moves),
            places=places,
            canonical=canonical_of(self._pieces),
            problems=tuple(self._problems),
        )

    # ref()

    def _without_refs(self, text: str) -> str:
        """Replace every ``ref()`` by the quoted name of its node."""
        result: list[str] = []
        position = longer = 0
        for start, end, target in ref_calls(self._pieces):
            node_id = self._target(target, start + longer)
            if node_id is None:
                continue
            name = quoted_node(node_id)
            result += [text[position:start], name]
            longer += len(name) - (end - start)
            self._moves.append((end + longer, longer))
            position = end
        if not result:
            return text
        replaced = "".join([*result, text[position:]])
        self._pieces = tokens(replaced)
        return replaced

    def _target(self, target: str, offset: int) -> str | None:
        known = self._known.get(target.lower())
        candidates = [known] if known else self._resolve_bare(target)
        if len(candidates) == 1:
            return candidates[0]
        if candidates:
            problem = SqlProblem(f"ref('{target}') may mean {' or '.join(candidates)}", offset, "write kind.name")
        else:
            problem = SqlProblem(f"ref('{target}'): no such node", offset, self._did_you_mean(target), target)
        self._problems.append(problem)
        return None

    # statements

    def _read(self, statements: list[list[Token]]) -> None:
        if len(statements) == 1 and self._read_select(statements[0], 0):
            return
        kinds = self._kinds(len(statements))
        for index, (part, kind) in enumerate(zip(statements, kinds, strict=False)):
            is_last = index == len(statements) - 1
            if kind == "SELECT" and is_last:
                if not self._read_select(part, 0):
                    self._read_outline(part)
            elif kind == "MULTI" and is_last:
                self._depends_on_data = True
                self._read_outline(part)
            elif kind in ("CREATE", "MULTI") and not is_last and is_temporary(part):
                self._read_create(part, kind)
            else:
                self._refuse_statement(part, kind, is_last)
                if kind == "CREATE":
                    # What follows may name what it would have made.
                    break
        self._reads_everything = self._reads_everything or len(statements) > 1

    def _kinds(self, count: int) -> list[str]:
        import duckdb

        try:
            kinds = [_kind(statement) for statement in self._connection.extract_statements(self._text)]
        except duckdb.Error as error:
            self._problems.append(engine_problem(error, self._text))
            return []
        if len(kinds) != count:
            self._problems.append(SqlProblem("the statements cannot be told apart", 0, "make each a node of its own"))
            return []
        return kinds

    def _refuse_statement(self, part: list[Token], kind: str, is_last: bool) -> None:
        offset, said = part[0].start, part[0].text.upper()
        if is_last and kind == "CREATE":
            problem = SqlProblem("the last statement is CREATE, not SELECT", offset, "end with a SELECT")
        elif kind == "CREATE":
            problem = SqlProblem("only CREATE TEMP TABLE, VIEW, MACRO or TYPE is allowed", offset, "add TEMP")
        else:
            problem = SqlProblem(
                f"{said} is not allowed here: a node's SQL is CREATE TEMP … and, last, one SELECT",
                offset,
                "make it a node of its own, or a WITH clause" if kind == "SELECT" else "",
            )
        self._problems.append(problem)

    def _read_select(self, part: list[Token], skip: int, before: str = "") -> bool:
        """Read a query that stands at ``part[skip:]``, ``before`` put in front of it; False where it has no tree."""
        start = part[skip].start
        text = before + self._text[start : part[-1].end]
        try:
            syntaxes = read_query(text, self._trees, self._own)
        except NoTree:
            return False
        for syntax in syntaxes:
            self._take(syntax, start - len(before))
        return True

    def _read_outline(self, part: list[Token]) -> None:
        self._take(outline(part, self._known, self._own, self._named), 0)

    def _read_create(self, part: list[Token], kind: str) -> None:
        thing, name, body = created(part)
        if kind == "MULTI" or (thing == "type" and any(piece.name in _QUERY_WORDS for piece in part)):
            # The values of the PIVOT or the ENUM come from the data.
            self._depends_on_data = True
        is_exact = False
        self._bare.append(self._text[part[0].start : part[-1].end])
        if body is not None and kind == "CREATE":
            end = without_data_clause(part) if thing == "table" else len(part)
            if thing in ("table", "view"):
                is_exact = self._is_read(part[:end], body)
                if is_exact and thing == "table":
                    self._bare[-1] = self._text[part[0].start : part[end - 1].end] + " WITH NO DATA"
            elif part[body].name == "table":
                is_exact = self._is_read(part[:end], body + 1)
            elif thing != "type":
                is_exact = self._is_read(part[:end], body, "SELECT ")
        if not is_exact:
            self._read_outline(part)
        self._own.add(name)

    def _is_read(self, part: list[Token], skip: int, before: str = "") -> bool:
        """Read a part of a statement as a query; where it is none, nothing is taken from it."""
        problems = len(self._problems)
        if skip >= len(part) or not self._read_select(part, skip, before):
            return False
        if any(problem.message.startswith("syntax error") for problem in self._problems[problems:]):
            del self._problems[problems:]
            return False
        return True

    # what a query says

    def _take(self, syntax: Syntax, start: int) -> None:
        self._problems += [shifted(problem, start) for problem in syntax.problems]
        self._volatile |= syntax.volatile
        self._reads_everything = self._reads_everything or syntax.needs_types or not syntax.exact
        self._sure = self._sure and syntax.exact
        for table in syntax.tables:
            self._tables.append((start, table))
            self._take_table(table, start)

    def _take_table(self, table: TableName, start: int) -> None:
        lowered = [part.lower() for part in table.parts]
        offset = self._find(lowered) if table.offset is None else start + table.offset
        if len(lowered) == 1:
            match = POSITIONAL.fullmatch(lowered[0])
            if lowered[0] in self._own:
                return
            if match or lowered[0] in self._named:
                self._positions[lowered[0]] = int(match[1] or 0) if match else self._named[lowered[0]]
                self._offsets.setdefault(lowered[0], offset or 0)
                return
        if lowered[0] in ("temp", "main") and lowered[-1] in self._own:
            return
        node_id = self._known.get(".".join(lowered)) if len(lowered) == 2 else None
        if node_id is not None and "." not in lowered[0]:
            if node_id not in self._offsets:
                self._references.append(node_id)
            self._offsets.setdefault(node_id, len(self._text) if offset is None else offset)
        else:
            self._problems.append(self._unknown_table(table.parts, offset))

    def _places(self) -> list[TablePlace]:
        """Where the only statement names its inputs as tables; nothing where that is not certain."""
        if not self._sure or self._reads_everything or self._depends_on_data:
            return []
        at = {piece.start: index for index, piece in enumerate(self._pieces)}
        found = []
        qualified = set()
        for start, table in self._tables:
            index = None if table.offset is None else at.get(start + table.offset)
            if index is None:
                return []
            *kind, last = self._pieces[index : index + 2 * len(table.parts) - 1 : 2]
            if [piece.name for piece in (*kind, last)] != [part.lower() for part in table.parts] or len(kind) > 1:
                return []
            name = self._known.get(".".join(piece.name for piece in (*kind, last))) if kind else last.name
            if name is None or (not kind and name not in self._positions):
                return []
            qualified |= {index} if kind else set()
            called = "" if table.has_alias else self._text[last.start : last.end]
            found.append(TablePlace(self._pieces[index].start, last.end, name, called))
        kinds = {self._pieces[index].name for index in qualified}
        for index, piece in enumerate(self._pieces[:-1]):
            if index not in qualified and self._pieces[index + 1].text == "." and piece.name in kinds:
                return []
        return sorted(found, key=lambda place: place.start)

    def _unknown_table(self, parts: Sequence[str], offset: int | None) -> SqlProblem:
        name = ".".join(parts)
        twin = self._known.get(name.lower())
        if twin is not None:
            return SqlProblem(f"no node is called '{name}' like that", offset, f"write {quoted_node(twin)}")
        if _FILE.search(name):
            return SqlProblem(f"'{name}' is a file, and a node reads nodes", offset, "declare a source for the file")
        bare = self._resolve_bare(name)
        hint = f"write {' or '.join(bare)}" if bare else self._did_you_mean(name)
        return SqlProblem(f"no node is called '{name}'", offset, hint, name)

    def _did_you_mean(self, name: str) -> str:
        return did_you_mean(name, self._known.values())

    def _find(self, lowered: Sequence[str]) -> int | None:
        """Where a qualified name first stands in the text, for tables of which the tree does not say."""
        wanted = [*lowered]
        for index, piece in enumerate(self._pieces):
            following = self._pieces[index : index + 2 * len(wanted) - 1 : 2]
            if [token.name for token in following] == wanted:
                return piece.start
        return None


def _kind(statement: Any) -> str:
    """The type of a statement; nothing for one that DuckDB's Python package does not know."""
    try:
        return str(statement.type.name)
    except ValueError:
        return ""
