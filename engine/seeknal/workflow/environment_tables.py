"""An environment's tables for Python: queried with SQL or taken by node, as rows, Arrow, pandas or DuckDB's relation.

The tables are read as they stood when they were opened, and nothing can be written (:mod:`seeknal.workflow.reading`).
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seeknal.dag.names import PRODUCTION
from seeknal.dag.project import Project
from seeknal.dag.sql import quoted_node
from seeknal.errors import NotFoundError, SeeknalError
from seeknal.workflow.reading import TableReader

if TYPE_CHECKING:
    from duckdb import DuckDBPyRelation


@dataclass(frozen=True)
class Table:
    """The result of a query. ``relation`` is DuckDB's; it is computed again with every call here."""

    relation: DuckDBPyRelation

    @property
    def columns(self) -> list[str]:
        return list(self.relation.columns)

    @property
    def row_count(self) -> int:
        found: int = self.relation.count("*").fetchall()[0][0]
        return found

    def rows(self) -> list[dict[str, Any]]:
        """All rows, each by column."""
        return [dict(zip(self.relation.columns, row, strict=True)) for row in self.relation.fetchall()]

    def value(self) -> Any:
        """The only value of the only row. Raises SeeknalError where there are more, or none."""
        rows = self.relation.limit(2).fetchall()
        if len(rows) != 1 or len(rows[0]) != 1:
            shape = f"{len(self.relation.columns)} column(s) and {'more than one row' if len(rows) > 1 else 'no row'}"
            raise SeeknalError(f"one value was expected, not {shape if len(rows) != 1 else shape.partition(' and')[0]}")
        return rows[0][0]

    def arrow(self) -> Any:
        """All rows as a pyarrow Table."""
        return self.relation.to_arrow_table()

    def pandas(self) -> Any:
        """All rows as a pandas DataFrame. Raises SeeknalError where pandas is not installed."""
        if find_spec("pandas") is None:
            raise SeeknalError("pandas is not installed", hint="install it, or use .rows() or .arrow()")
        return self.relation.df()


class EnvironmentTables:
    """The tables of one environment. Use it as a context manager, or close it."""

    def __init__(self, project: Project, reader: TableReader) -> None:
        self.project = project
        self._reader = reader

    @classmethod
    def open(cls, folder: Path, environment: str = PRODUCTION) -> EnvironmentTables:
        """Open an environment of the project in a folder.

        Raises NotFoundError where there is no project, or no such environment, or where nothing was run in it.
        """
        project = Project.open(folder)
        reader = TableReader.open(project.store(), environment)
        if reader.outputs.shown != reader.outputs.environment:
            reader.close()
            # It would show production's tables, and pass for a test of what was changed.
            name = reader.outputs.environment
            raise NotFoundError(f"environment '{name}' was not run yet", hint=f"`seeknal run --env {name}`")
        return cls(project, reader)

    def __enter__(self) -> EnvironmentTables:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        self._reader.close()

    @property
    def name(self) -> str:
        """The environment's name."""
        return self._reader.outputs.environment

    @property
    def nodes(self) -> list[str]:
        """The ids of the nodes that have a table."""
        return list(self._reader.outputs.tables)

    def query(self, sql: str) -> Table:
        """Run one statement that reads. Tables are ``kind.name``, ``kind_name``, or ``name`` where one has it.

        Raises SeeknalError for what is wrong with the SQL, NotFoundError for a table that is not there.
        """
        return Table(self._reader.relation(sql))

    def node(self, name: str) -> Table:
        """The table of a node, by id or by a name that means one node. Raises as :meth:`query`."""
        node_id = self._reader.find(name)
        if node_id not in self._reader.outputs.tables:
            raise NotFoundError(f"{node_id} has no rows to read")
        return self.query(f"FROM {quoted_node(node_id)}")
