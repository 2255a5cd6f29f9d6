"""Feature frames: features as they were known at a moment, for Python nodes and notebooks.

- *event time*: when a feature's value came to be true.
- *spine*: the rows that ask, each with the keys of an entity and a date.
- *point in time*: of the rows with a spine row's keys, the latest whose event time is not after its date. Every spine
  row comes out once, in its place, with NULL features where nothing is found. A NULL key or date finds nothing.
- *entity's table*: the join keys, ``event_time``, and one STRUCT column for each feature group; see
  :mod:`seeknal.nodes.entity`. Each group is looked up on its own: where only one group has news, the others'
  values from before still hold.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from seeknal.dag.names import did_you_mean
from seeknal.dag.sql import literal, quoted

EVENT_TIME = "event_time"

# Names of ours beside the user's columns.
_POSITION, _MOMENT = '"seeknal position"', '"seeknal moment"'

_MOMENTS = ("DATE", "VARCHAR", "TIMESTAMP")


class FeatureFrame:
    """The rows of a feature group, with what is known of their entity.

    ``frame`` is a pandas or Polars frame, an Arrow table or a DuckDB relation. Everything that a pandas frame can do,
    a feature frame can do too: it hands on what it does not know itself.
    """

    def __init__(
        self, frame: Any, entity_name: str, join_keys: Sequence[str], event_time_col: str = EVENT_TIME
    ) -> None:
        self._frame = frame
        self.entity_name = entity_name
        self.join_keys = list(join_keys)
        self.event_time_col = event_time_col

    def pit_join(self, spine: Any, date_col: str, keep_cols: Sequence[str] | None = None) -> Any:
        """Join each row of ``spine`` with the features as they were at its ``date_col``; gives a pandas frame.

        Columns: the spine's (with ``keep_cols`` only these, the join keys and ``date_col``), then those of the
        features that the spine lacks. A ``date_col`` of texts or dates comes back as timestamps. Of several feature
        rows with the same keys and time, the last one counts. Raises ValueError where columns are missing, or keys
        cannot be compared.
        """
        with _connection() as connection:
            columns = _register(connection, "frame", self._frame)
            self._check_columns(columns)
            keys = self.join_keys
            outputs = [(quoted(name), name) for name in columns if name.lower() not in _folded(keys)]
            side = _Side(_latest_of_ties("frame", keys, columns, self.event_time_col), outputs)
            return _joined(connection, _Spine(spine, date_col, keep_cols), keys, [side])

    def as_of(self, timestamp: str | datetime.date) -> Any:
        """The latest row of each key at or before a moment, as a pandas frame, in the order of the rows.

        A date without a time means its midnight. Raises ValueError where that is no moment.
        """
        with _connection() as connection:
            columns = _register(connection, "frame", self._frame)
            self._check_columns(columns)
            moment = _moment(self.event_time_col, columns)
            ranked = (
                f"SELECT *, row_number() OVER (PARTITION BY {_listed(self.join_keys)} "
                f"ORDER BY {moment} DESC, {_POSITION} DESC) AS {_MOMENT} "
                f"FROM (SELECT *, row_number() OVER () AS {_POSITION} FROM frame) "
                f"WHERE {moment} <= {_timestamp(connection, timestamp)}"
            )
            chosen = f"SELECT {_listed(columns)} FROM ({ranked}) WHERE {_MOMENT} = 1 ORDER BY {_POSITION}"
            return connection.execute(chosen).df()

    def to_df(self) -> Any:
        """The rows as a plain pandas frame."""
        if hasattr(self._frame, "iloc"):
            return self._frame
        converted = _as_registrable(self._frame)
        self._frame = converted.to_pandas() if hasattr(converted, "to_pandas") else converted
        return self._frame

    def copy(self) -> FeatureFrame:
        """Make a feature frame over a copy of the rows."""
        return FeatureFrame(self.to_df().copy(), self.entity_name, self.join_keys, self.event_time_col)

    def _check_columns(self, columns: Mapping[str, str]) -> None:
        _insist_on_keys(self.join_keys, self.entity_name)
        for name in [*self.join_keys, self.event_time_col]:
            _insist_on_column(name, columns, f"the features of '{self.entity_name}'")

    # what a pandas frame can do

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "_frame":
            raise AttributeError(name)
        return getattr(self.to_df(), name)

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        return self.to_df().__arrow_c_stream__(requested_schema)

    def __getitem__(self, key: Any) -> Any:
        return self.to_df()[key]

    def __setitem__(self, key: Any, value: Any) -> None:
        self.to_df()[key] = value

    def __len__(self) -> int:
        return len(self.to_df())

    def __iter__(self) -> Iterator[Any]:
        return iter(self.to_df())

    def __contains__(self, key: Any) -> bool:
        return key in self.to_df()

    def __repr__(self) -> str:
        about = f"entity='{self.entity_name}', keys={self.join_keys}, event_time='{self.event_time_col}'"
        return f"FeatureFrame({about}, shape={self.to_df().shape})\n{self.to_df()!r}"


@dataclass(frozen=True)
class EntityTable:
    """An entity's table in a DuckDB connection; ``relation`` is SQL that can stand in FROM, such as ``entity.user``."""

    connection: Any
    relation: str
    name: str
    join_keys: tuple[str, ...]


def entity(table: EntityTable, as_of: str | datetime.date | None = None) -> Any:
    """The join keys, ``event_time`` and all groups' STRUCT columns, as a pandas frame.

    Without ``as_of`` every row there is; with it one row for each key, sorted, with each group's latest features at
    or before that moment, and the latest of their times. Raises ValueError where ``as_of`` is no moment.
    """
    groups = _groups(table)
    outputs = [(quoted(name), name) for name in groups]
    return _read(table, groups, outputs, as_of)


def features(
    table: EntityTable,
    references: Sequence[str],
    as_of: str | datetime.date | None = None,
    spine: Any = None,
    date_col: str | None = None,
    keep_cols: Sequence[str] | None = None,
) -> Any:
    """Chosen features of an entity, each named ``group.feature``, as a pandas frame.

    The columns are the join keys, ``event_time`` and ``<group>__<feature>`` in the order asked for; the rows are those
    of :func:`entity`. With ``spine`` they are the spine's, with its columns first, each with the features as they were
    at its ``date_col``; see :meth:`FeatureFrame.pit_join`. Raises ValueError for a feature that is not there, for a
    spine without ``date_col``, and for ``spine`` beside ``as_of``.
    """
    chosen = _chosen_features(table, references)
    if spine is None:
        outputs = [(f"{quoted(group)}.{quoted(name)}", f"{group}__{name}") for group, name in chosen]
        return _read(table, list(dict.fromkeys(group for group, _ in chosen)), outputs, as_of)
    if date_col is None:
        raise ValueError("a spine needs date_col, the column that says at which time each of its rows asks")
    if as_of is not None:
        raise ValueError("as_of and spine cannot go together: each row of a spine has a time of its own")
    sides = []
    for group in dict.fromkeys(group for group, _ in chosen):
        # Where the group has no row, at a time when another group has one, its values from before still hold.
        rows = (
            f"SELECT {_listed(table.join_keys)}, {EVENT_TIME} AS {_MOMENT}, {EVENT_TIME}, {quoted(group)} "
            f"FROM {table.relation} WHERE {quoted(group)} IS NOT NULL"
        )
        own = [(f"{quoted(group)}.{quoted(name)}", f"{group}__{name}") for of, name in chosen if of == group]
        sides.append(_Side(rows, own))
    names = [f"{group}__{name}" for group, name in chosen]
    return _joined(table.connection, _Spine(spine, date_col, keep_cols), table.join_keys, sides, names, with_time=True)


def _read(
    table: EntityTable, groups: Sequence[str], outputs: Sequence[tuple[str, str]], as_of: str | datetime.date | None
) -> Any:
    keys = _listed(table.join_keys)
    rows = table.relation
    if as_of is not None:
        latest = [
            f"arg_max({quoted(group)}, {EVENT_TIME}) FILTER (WHERE {quoted(group)} IS NOT NULL) AS {quoted(group)}"
            for group in groups
        ]
        has_news = " OR ".join(f"{quoted(group)} IS NOT NULL" for group in groups)
        rows = (
            f"(SELECT {keys}, max({EVENT_TIME}) FILTER (WHERE {has_news}) AS {EVENT_TIME}, {', '.join(latest)} "
            f"FROM {rows} WHERE {EVENT_TIME} <= {_timestamp(table.connection, as_of)} GROUP BY {keys})"
        )
    selected = "".join(f", {expression} AS {quoted(name)}" for expression, name in outputs)
    order = ", ".join(f"{quoted(name)} NULLS LAST" for name in [*table.join_keys, EVENT_TIME])
    return table.connection.execute(f"SELECT {keys}, {EVENT_TIME}{selected} FROM {rows} ORDER BY {order}").df()


def _chosen_features(table: EntityTable, references: Sequence[str]) -> list[tuple[str, str]]:
    groups = {name.lower(): name for name in _groups(table)}
    chosen: dict[tuple[str, str], None] = {}
    for reference in references:
        group, dot, name = reference.partition(".")
        if not (group and dot and name):
            raise ValueError(f"'{reference}' does not name a feature; write group.feature")
        if group.lower() not in groups:
            hint = did_you_mean(group, groups.values())
            raise ValueError(f"entity '{table.name}' has no feature group '{group}'" + (f"; {hint}" if hint else ""))
        group = groups[group.lower()]
        described = table.connection.execute(f"SELECT {quoted(group)}.* FROM {table.relation} LIMIT 0").description
        fields = {entry[0].lower(): entry[0] for entry in described}
        if name.lower() not in fields:
            hint = did_you_mean(name, fields.values())
            raise ValueError(f"feature group '{group}' has no feature '{name}'" + (f"; {hint}" if hint else ""))
        chosen[group, fields[name.lower()]] = None
    if not chosen:
        raise ValueError(f"no feature of entity '{table.name}' was asked for")
    return list(chosen)


def _groups(table: EntityTable) -> list[str]:
    own = _folded([*table.join_keys, EVENT_TIME])
    return [name for name in _columns(table.connection, table.relation) if name.lower() not in own]


# the join


@dataclass(frozen=True)
class _Spine:
    """The rows that ask, the column with their time, and the columns that are wanted back."""

    frame: Any
    date_col: str
    keep_cols: Sequence[str] | None


@dataclass(frozen=True)
class _Side:
    """Rows to find: SQL that gives the keys and the moment, one row for each, and the outputs as expression, name."""

    rows: str
    outputs: Sequence[tuple[str, str]]


def _joined(
    connection: Any,
    spine: _Spine,
    keys: Sequence[str],
    sides: Sequence[_Side],
    order: Sequence[str] = (),
    *,
    with_time: bool = False,
) -> Any:
    """Join a spine with each side's latest row at its date. ``with_time`` adds the latest time found."""
    import duckdb

    columns = _register(connection, "seeknal_spine", spine.frame)
    try:
        for name in [*keys, spine.date_col, *(spine.keep_cols or ())]:
            _insist_on_column(name, columns, "the spine")
        kept = _kept(columns, spine, keys)
        selected = [_spine_column(name, spine.date_col, columns) for name in kept]
        joins: list[str] = []
        found: dict[str, str] = {}
        for number, side in enumerate(sides):
            same = " AND ".join(f'"spine".{quoted(key)} = "side {number}".{quoted(key)}' for key in keys)
            joins.append(
                f'ASOF LEFT JOIN ({side.rows}) AS "side {number}" '
                f'ON {same} AND "spine".{_MOMENT} >= "side {number}".{_MOMENT}'
            )
            found |= {name: f'"side {number}".{expression}' for expression, name in side.outputs}
        if with_time:
            times = ", ".join(f'"side {number}".{EVENT_TIME}' for number in range(len(sides)))
            found = {EVENT_TIME: f"greatest({times})", **{name: found[name] for name in order}}
        taken = _folded(columns)
        selected += [
            f"{expression} AS {quoted(name)}" for name, expression in found.items() if name.lower() not in taken
        ]
        moment = _moment(spine.date_col, columns)
        query = (
            f"SELECT {', '.join(selected)} FROM (SELECT *, row_number() OVER () AS {_POSITION}, {moment} AS {_MOMENT} "
            f'FROM seeknal_spine) AS "spine" {" ".join(joins)} ORDER BY "spine".{_POSITION}'
        )
        return connection.execute(query).df()
    except (duckdb.BinderException, duckdb.ConversionException) as error:
        raise ValueError(f"spine and features cannot be joined: {str(error).splitlines()[0]}") from error
    finally:
        connection.unregister("seeknal_spine")


def _kept(columns: Mapping[str, str], spine: _Spine, keys: Sequence[str]) -> list[str]:
    wanted = _folded([*columns] if spine.keep_cols is None else [*keys, spine.date_col, *spine.keep_cols])
    return [name for name in columns if name.lower() in wanted]


def _spine_column(name: str, date_col: str, columns: Mapping[str, str]) -> str:
    if name.lower() == date_col.lower() and columns[name] in ("VARCHAR", "DATE"):
        return f'"spine".{_MOMENT} AS {quoted(name)}'
    return f'"spine".{quoted(name)}'


def _latest_of_ties(rows: str, keys: Sequence[str], columns: Mapping[str, str], event_time: str) -> str:
    """SQL for the rows with a time, of several with the same keys and time the last; with their moment."""
    moment = _moment(event_time, columns)
    return (
        f"SELECT {_listed(columns)}, {_MOMENT} "
        f"FROM (SELECT *, {moment} AS {_MOMENT}, row_number() OVER () AS {_POSITION} FROM {rows}) "
        f"WHERE {_MOMENT} IS NOT NULL "
        f"QUALIFY row_number() OVER (PARTITION BY {_listed(keys)}, {_MOMENT} ORDER BY {_POSITION} DESC) = 1"
    )


def _moment(name: str, columns: Mapping[str, str]) -> str:
    """A column as something that can be compared with other times."""
    actual, type_ = next((given, type_) for given, type_ in columns.items() if given.lower() == name.lower())
    if not type_.startswith(_MOMENTS):
        raise ValueError(f"column '{actual}' holds {type_}, and a time is needed there")
    if type_ in ("VARCHAR", "DATE", "TIMESTAMP WITH TIME ZONE"):
        return f"CAST({quoted(actual)} AS TIMESTAMP)"
    return quoted(actual)


def _timestamp(connection: Any, moment: str | datetime.date) -> str:
    """A moment as SQL; one with a time zone becomes UTC."""
    import duckdb

    if isinstance(moment, datetime.datetime) and moment.tzinfo is not None:
        moment = moment.astimezone(datetime.UTC).replace(tzinfo=None)
    said = moment if isinstance(moment, str) else moment.isoformat()
    # A text with a time zone is understood, and turned into UTC; one without is UTC already.
    expression = f"CAST(CAST({literal(said)} AS TIMESTAMPTZ) AS TIMESTAMP)"
    try:
        connection.execute(f"SELECT {expression}").fetchone()
    except duckdb.Error as error:
        raise ValueError(f"'{said}' is no moment; write it like 2026-01-31 or 2026-01-31 12:00:00") from error
    return expression


# frames in DuckDB


def _connection() -> Any:
    import duckdb

    connection = duckdb.connect(":memory:", config={"python_enable_replacements": False})
    connection.execute("SET TimeZone = 'UTC'; SET enable_progress_bar = false; SET enable_external_access = false")
    return connection


def _register(connection: Any, name: str, frame: Any) -> dict[str, str]:
    """Make a frame readable as a view; gives its columns and their types."""
    connection.register(name, _as_registrable(frame))
    return _columns(connection, name)


def _as_registrable(frame: Any) -> Any:
    """A frame as pandas or Arrow, which DuckDB reads from any connection."""
    if isinstance(frame, FeatureFrame):
        return frame.to_df()
    for method in ("to_arrow_table", "to_arrow"):
        if hasattr(frame, method):
            return getattr(frame, method)()
    return frame


def _columns(connection: Any, relation: str) -> dict[str, str]:
    return {name: str(type_) for name, type_, *_ in connection.execute(f"DESCRIBE FROM {relation}").fetchall()}


def _listed(names: Sequence[str] | Mapping[str, str]) -> str:
    return ", ".join(map(quoted, names))


def _folded(names: Sequence[str] | Mapping[str, str]) -> set[str]:
    # DuckDB's names ignore case.
    return {name.lower() for name in names}


def _insist_on_keys(keys: Sequence[str], entity_name: str) -> None:
    if not keys:
        raise ValueError(f"entity '{entity_name}' has no join keys")


def _insist_on_column(name: str, columns: Mapping[str, str], where: str) -> None:
    if name.lower() not in _folded(columns):
        hint = did_you_mean(name, columns)
        raise ValueError(f"column '{name}' is missing from {where}" + (f"; {hint}" if hint else ""))
