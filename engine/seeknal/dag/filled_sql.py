"""A statement in which the names of its inputs were replaced by queries that give them.

A view for each input would do the same, but costs a statement of its own: half of what a light query takes.

- *place*: where a name stands in the statement, as start and end in characters.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec


class FilledSql(msgspec.Struct, frozen=True):
    """A statement with queries in place of names.

    ``moves``: for each of them where the name stood (start, end), and where the query ends in ``text``.
    """

    text: str
    moves: tuple[tuple[int, int, int], ...]

    @classmethod
    def of(cls, statement: str, fillings: Iterable[tuple[int, int, str, str]]) -> FilledSql:
        """Fill queries in. Each is given as start, end, what the statement calls it (nothing: it has an alias), query.

        Places stand in order. What is filled in is a table of its own, as a view is: the hidden columns of a file
        (``filename``, …) stay hidden, and so do the row ids of a table.
        """
        pieces: list[str] = []
        moves: list[tuple[int, int, int]] = []
        behind = length = 0
        for start, end, called, query in fillings:
            filling = f"({query}) AS {called}" if called else f"({query})"
            pieces += [statement[behind:start], filling]
            length += start - behind + len(filling)
            moves.append((start, end, length))
            behind = end
        return cls("".join([*pieces, statement[behind:]]), tuple(moves))

    def original_offset(self, offset: int) -> int:
        """Turn an offset in the text into one in the statement: inside a query, the start of the name it replaced."""
        before, moved = 0, 0
        for start, end, filled_end in self.moves:
            if offset < moved + start - before:
                break
            if offset < filled_end:
                return start
            before, moved = end, filled_end
        return before + offset - moved
