"""The context: what a node's function is given to read its inputs and to know where it runs.

- *input*: the output of a node that the function reads, as a table of the store.
- *shown columns*: those that the function's code shows it to read, where it shows fewer than all; what a node reads is
  part of its fingerprint, so others cannot be had.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seeknal.dag.names import PRODUCTION
from seeknal.pipeline.node_state import NodeState, state_path, waiting_path

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection, DuckDBPyRelation


@dataclass(frozen=True)
class Input:
    """An input: SQL that gives its rows, its columns and their types, and the columns shown (None: all).

    ``metadata`` is what its kind tells: of a feature group its entity, join keys and event time.
    """

    query: str
    columns: tuple[tuple[str, str], ...]
    shown: tuple[str, ...] | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Limits:
    """How much a function's DuckDB may use; 0 bytes mean DuckDB's own default."""

    threads: int = 1
    memory_limit_bytes: int = 0
    temporary_folder: str = ""


@dataclass
class PipelineContext:
    """What a node's function is given.

    ``params`` are the node's own, with templates filled in; ``node_meta`` its fields. Relative paths in a function
    count from ``project_path``.
    """

    project_path: Path = field(default_factory=Path.cwd)
    target_dir: Path = field(default_factory=lambda: Path.cwd() / "target")
    environment: str = "prod"
    config: Mapping[str, Any] = field(default_factory=dict)
    node_id: str = ""
    params: Mapping[str, Any] = field(default_factory=dict)
    node_meta: Mapping[str, Any] = field(default_factory=dict)
    inputs: Mapping[str, Input] = field(default_factory=dict, repr=False)
    limits: Limits = field(default_factory=Limits, repr=False)
    _connection: Any = field(default=None, repr=False)
    _state: NodeState | None = field(default=None, repr=False)
    _fingerprint: str = field(default="", repr=False)

    @property
    def node_kind(self) -> str:
        return self.node_id.partition(".")[0]

    def get_param(self, name: str, default: Any = None) -> Any:
        """A parameter of the node, or the default where it has none of this name."""
        return self.params.get(name, default)

    @property
    def state(self) -> NodeState:
        """The node's own memory between its runs; see :class:`NodeState`."""
        if self._state is None:
            folder = self._environment_folder()
            first = None if self.environment == PRODUCTION else state_path(self.target_dir, self.node_id)
            self._state = NodeState(state_path(folder, self.node_id), first, self._waiting_state())
        return self._state

    def forget_what_waits(self) -> None:
        """Forget what was saved for an output that did not come about. Seeknal calls this."""
        waiting = self._waiting_state()
        if waiting is not None:
            waiting.unlink(missing_ok=True)

    def _waiting_state(self) -> Path | None:
        """Where saved state waits for the output to be committed; None outside of runs: nothing is committed there."""
        if not self._fingerprint:
            return None
        return waiting_path(self._environment_folder(), self.node_id, self._fingerprint)

    def _environment_folder(self) -> Path:
        if self.environment == PRODUCTION:
            return self.target_dir
        return self.target_dir / "environments" / self.environment

    # data

    @property
    def duckdb(self) -> DuckDBPyConnection:
        """A DuckDB connection of the node's own, in memory; frames are visible in it by the names of variables."""
        if self._connection is None:
            import duckdb

            # One of the latter keeps the order of what is read ahead; with none, recursive queries can wait for ever.
            connection = duckdb.connect(":memory:", config={"threads": self.limits.threads, "async_threads": 1})
            connection.execute("SET enable_progress_bar = false; SET TimeZone = 'UTC'")
            if self.limits.memory_limit_bytes:
                connection.execute(f"SET memory_limit = '{self.limits.memory_limit_bytes}B'")
            if self.limits.temporary_folder:
                connection.execute("SET temp_directory = $folder", {"folder": self.limits.temporary_folder})
            self._connection = connection
        return self._connection  # type: ignore[no-any-return]

    def ref(self, node_id: str, columns: Sequence[str] | None = None) -> Any:
        """Read an input as a pandas frame; a feature group as a :class:`FeatureFrame`.

        Whole numbers with NULLs are ``Int64`` and the like, dates ``datetime.date`` and decimals ``decimal.Decimal``,
        so that types survive. With ``columns`` only these are read, and only they count when the input changes.
        Without pandas it is a DuckDB relation. Raises ValueError for what is not an input or has no such column.
        """
        relation = self.relation(node_id, columns)
        try:
            import pandas  # noqa: F401
        except ImportError:
            frame: Any = relation
        else:
            frame = _as_pandas(relation)
        about = self._input(node_id).metadata
        if "entity_name" not in about:
            return frame
        from seeknal.pipeline.feature_frame import EVENT_TIME, FeatureFrame

        return FeatureFrame(frame, about["entity_name"], about["join_keys"], about["event_time_col"] or EVENT_TIME)

    def relation(self, node_id: str, columns: Sequence[str] | None = None) -> DuckDBPyRelation:
        """Read an input as a DuckDB relation on :attr:`duckdb`: nothing is loaded before it is used."""
        found = self._input(node_id)
        wanted = self._wanted(node_id, found, columns)
        selected = "*" if wanted is None else ", ".join(_quoted(name) for name in wanted)
        return self.duckdb.sql(f"SELECT {selected} FROM ({found.query})")

    def features(
        self,
        entity: str,
        features: Sequence[str],
        as_of: Any = None,
        spine: Any = None,
        date_col: str | None = None,
        keep_cols: Sequence[str] | None = None,
    ) -> Any:
        """Read features of an entity, each ``group.feature``, as a pandas frame.

        Columns: the join keys, ``event_time`` and ``<group>__<feature>``; see
        :func:`seeknal.pipeline.feature_frame.features`. Raises FileNotFoundError where there is no such entity.
        """
        from seeknal.pipeline import feature_frame

        return feature_frame.features(self._entity(entity), features, as_of, spine, date_col, keep_cols)

    def entity(self, name: str, as_of: Any = None) -> Any:
        """Read all of an entity: its join keys, ``event_time`` and a STRUCT column for each feature group."""
        from seeknal.pipeline import feature_frame

        return feature_frame.entity(self._entity(name), as_of)

    def close(self) -> None:
        """Close the connection, where one was opened."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _input(self, node_id: str) -> Input:
        found = self.inputs.get(node_id.lower()) if isinstance(node_id, str) else None
        if found is None:
            from seeknal.dag.names import did_you_mean

            hint = did_you_mean(str(node_id), self.inputs) if self.inputs else "it has no inputs"
            raise ValueError(f"'{node_id}' is not an input of {self.node_id}; add it to inputs=[…] ({hint})")
        return found

    def _wanted(self, node_id: str, found: Input, columns: Sequence[str] | None) -> list[str] | None:
        if columns is None and found.shown is None:
            return None
        if isinstance(columns, str):
            raise ValueError(f"columns must be a list of names: columns=['{columns}']")
        known = {name.lower(): name for name, _ in found.columns}
        shown = None if found.shown is None else {name.lower() for name in found.shown}
        wanted = list(known.values()) if columns is None else list(columns)
        for name in wanted:
            if name.lower() not in known:
                from seeknal.dag.names import did_you_mean

                hint = did_you_mean(name, known.values())
                raise ValueError(f"{node_id} has no column '{name}'" + (f"; {hint}" if hint else ""))
            if shown is not None and name.lower() not in shown:
                raise ValueError(
                    f"column '{name}' of {node_id} is not among those that the code shows to be read; "
                    "write columns=[…] with literal names at every ref"
                )
        return [known[name.lower()] for name in wanted]

    def _entity(self, name: str) -> Any:
        from seeknal.pipeline.feature_frame import EntityTable

        found = self.inputs.get(f"entity.{name}".lower())
        if found is None:
            raise FileNotFoundError(f"there is no entity '{name}' among the inputs of {self.node_id}")
        view = f'"entity".{_quoted(name)}'
        self.duckdb.execute("CREATE SCHEMA IF NOT EXISTS entity")
        self.duckdb.execute(f"CREATE OR REPLACE VIEW {view} AS {found.query}")
        return EntityTable(self.duckdb, view, name, tuple(found.metadata["join_keys"]))


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _as_pandas(relation: Any) -> Any:
    """A relation as a pandas frame whose values keep their types."""
    import pandas
    import pyarrow

    huge = [name for name, type_ in zip(relation.columns, relation.types, strict=True) if "HUGEINT" in str(type_)]
    for name in huge:
        # Sums of whole numbers have 128 bits, which pandas does not know; nearly all of them fit into 64.
        column = _quoted(name)
        fits = f"count(*) FILTER (WHERE {column} IS NOT NULL AND TRY_CAST({column} AS BIGINT) IS NULL)"
        narrow = "BIGINT" if relation.aggregate(fits).fetchall() == [(0,)] else "DOUBLE"
        relation = relation.project(f"* REPLACE (CAST({column} AS {narrow}) AS {column})")
    table = relation.to_arrow_table()
    frame = table.to_pandas(date_as_object=True)
    for name, column in zip(table.column_names, table.columns, strict=True):
        if pyarrow.types.is_integer(column.type) and column.null_count:
            signed = "Int" if pyarrow.types.is_signed_integer(column.type) else "UInt"
            frame[name] = pandas.array(column.to_pylist(), dtype=f"{signed}{column.type.bit_width}")
        elif pyarrow.types.is_boolean(column.type) and column.null_count:
            frame[name] = pandas.array(column.to_pylist(), dtype="boolean")
    return frame
