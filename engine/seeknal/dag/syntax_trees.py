"""DuckDB's parse trees of queries, as JSON. Many at once cost a tenth of what they cost one by one.

- *expected*: a text whose tree will probably be asked for.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import Any

_FUNCTION = "json_serialize_sql({text}, skip_default := true, skip_null := true, skip_empty := true)"
_ONE = f"SELECT {_FUNCTION.format(text='$1::VARCHAR')}"
_MANY = f"SELECT {_FUNCTION.format(text='text')} FROM (SELECT unnest($1::VARCHAR[]) AS text)"

# How many are asked for at once: enough to make the call itself cheap, few enough to be held in memory.
_AT_ONCE = 200


class SyntaxTrees:
    """Gives trees of queries; ``connection`` is a DuckDB connection, used for its parser only."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._expected: dict[str, None] = {}
        self._trees: dict[str, str] = {}

    def expect(self, texts: Iterable[str]) -> None:
        """Say which trees will be asked for next, about in this order. Asking for others is allowed, and dearer."""
        self._expected = dict.fromkeys(texts)
        self._trees.clear()

    def tree(self, text: str) -> str:
        """The tree of a text, or what is wrong with it, as ``json_serialize_sql`` says either. Raises duckdb.Error."""
        if text in self._expected:
            self._read_ahead(text)
        tree = self._trees.pop(text, None)
        if tree is None:
            (tree,) = self._connection.execute(_ONE, [text]).fetchone()
        return str(tree)

    def _read_ahead(self, text: str) -> None:
        import duckdb

        del self._expected[text]
        texts = [text, *islice(self._expected, _AT_ONCE - 1)]
        for other in texts[1:]:
            del self._expected[other]
        try:
            rows = self._connection.execute(_MANY, [texts]).fetchall()
        except (duckdb.Error, UnicodeError):
            # One of them is none that DuckDB takes. Asked for alone, each tells for itself.
            return
        self._trees.update(zip(texts, (tree for (tree,) in rows), strict=True))
