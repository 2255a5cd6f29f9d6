"""The engine for checks: one for rules, audits and tests.

Each check becomes SQL that finds its violations; their number decides, and the first of them are shown. All checks
of a list are evaluated, also after one that failed. Checks on rows alone share one pass over the table.

An empty table passes, with a note, save where its emptiness is the question: ``row_count``, and SQL of the user.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from seeknal.dag.binding import drop_temporary_objects
from seeknal.dag.sql import quoted
from seeknal.dag.sql_problem import engine_problem
from seeknal.errors import NodeFailedError
from seeknal.nodes.check import Check, CheckResult, Sample
from seeknal.nodes.check_sql import column_of, moment_literal, row_condition
from seeknal.nodes.kind import InputTable, Task
from seeknal.nodes.profile_metrics import metric_condition, metric_value, of_column
from seeknal.redaction import redacted

if TYPE_CHECKING:
    from seeknal.nodes.workbench import Workbench

# How many violations a report shows.
SAMPLE_ROWS = 5

# How much of a value a sample shows.
MOST_CHARACTERS = 200


class CheckedTable(msgspec.Struct, frozen=True):
    """The table that checks are about: its name as SQL, its columns with types, its rows.

    ``connection`` is one on which that name can be read; ``inputs`` are the names of the tables that the checks' own
    SQL may mean by position. ``now_seconds`` is the moment, in seconds since 1970. ``metrics`` are a model's.
    """

    connection: Any
    name: str
    schema: Mapping[str, str]
    row_count: int
    now_seconds: float
    inputs: Sequence[str] = ()
    metrics: Mapping[str, float] = {}


class _Finding(msgspec.Struct):
    """What a check found: how many violations, SQL that gives them, and what to say: of a failure, of a pass."""

    violations: int
    query: str = ""
    message: str = ""
    note: str = ""


class ChecksFailed(NodeFailedError):
    """Checks of severity error failed; ``results`` are those of all."""

    def __init__(self, results: tuple[CheckResult, ...]) -> None:
        failed = [result for result in results if result.failed_for_good]
        super().__init__("; ".join(f"{result.label}: {result.message}" for result in failed))
        self.results = results


def evaluate(
    checks: Sequence[Check], table: CheckedTable, *, sample_rows: int = SAMPLE_ROWS
) -> tuple[CheckResult, ...]:
    """Evaluate checks, all of them, in order. One that cannot be evaluated has failed, and its message says why."""
    return _Evaluation(table, sample_rows).results(checks)


def evaluate_stored(
    checks: Sequence[Check],
    tables: Sequence[InputTable],
    bench: Workbench,
    connection: Any,
    *,
    now_seconds: float,
    sample_rows: int = SAMPLE_ROWS,
) -> tuple[CheckResult, ...]:
    """As :func:`evaluate`, on tables of the store, the checked one first."""
    names = [bench.make_view(connection, table) for table in tables]
    checked = tables[0]
    metrics = checked.metadata.get("metrics", {})
    table = CheckedTable(connection, names[0], dict(checked.columns), checked.row_count, now_seconds, names, metrics)
    return evaluate(checks, table, sample_rows=sample_rows)


def insist_on_checks(task: Task, tables: Sequence[InputTable], bench: Workbench) -> tuple[CheckResult, ...]:
    """Evaluate a task's checks on these tables. Raises ChecksFailed where one of severity error failed."""
    queries = (check.sql for check in task.checks)
    connection = bench.hermetic_connection(task.threads, task.memory_limit_bytes, queries)
    results = evaluate_stored(task.checks, tables, bench, connection, now_seconds=time.time())
    if any(result.failed_for_good for result in results):
        raise ChecksFailed(results)
    return results


class _Evaluation:
    """The evaluation of one list of checks over one table."""

    def __init__(self, table: CheckedTable, sample_rows: int) -> None:
        self._table = table
        self._sample_rows = sample_rows

    def results(self, checks: Sequence[Check]) -> tuple[CheckResult, ...]:
        counted = self._count_rows(checks)
        return tuple(self._result(check, counted.get(index)) for index, check in enumerate(checks))

    def _result(self, check: Check, counted: int | None) -> CheckResult:
        import duckdb

        sample = None
        try:
            found = self._find(check, counted)
            passed = found.violations <= check.limit * self._table.row_count
            if not passed and found.query and self._sample_rows:
                sample = self._sample(found.query)
        except (duckdb.Error, NodeFailedError) as error:
            passed, found = False, _Finding(0, message=f"cannot be evaluated: {_reason(error)}")
        finally:
            self._clean(check)
        message = (found.note or found.message) if passed else (check.message or found.message)
        label = redacted(check.label)
        return CheckResult(check.type, passed, found.violations, redacted(message), check.severity, label, sample)

    def _clean(self, check: Check) -> None:
        """Drop what the check's SQL made."""
        if len(check.statements) > 1:
            drop_temporary_objects(self._table.connection)
            return
        for name, _ in check.positions:
            self._run(f"DROP VIEW IF EXISTS temp.{quoted(name)}")

    def _count_rows(self, checks: Sequence[Check]) -> dict[int, int]:
        """The violations of the checks on rows alone, by index, in one pass; of none where one cannot be counted."""
        import duckdb

        try:
            conditions = {
                index: condition for index, check in enumerate(checks) if (condition := self._condition(check))
            }
            if not conditions:
                return {}
            counts = ", ".join(f"count(*) FILTER (WHERE {condition})" for condition in conditions.values())
            row = self._run(f"SELECT {counts} FROM {self._table.name}").fetchone()
        except (duckdb.Error, NodeFailedError):
            return {}
        return dict(zip(conditions, row, strict=True))

    def _condition(self, check: Check) -> str | None:
        return row_condition(check, self._table.schema, self._table.now_seconds)

    def _run(self, sql: str) -> Any:
        return self._table.connection.execute(sql)

    # what each family finds

    def _find(self, check: Check, counted: int | None) -> _Finding:
        condition = self._condition(check)
        if condition is not None:
            query = f"SELECT * FROM {self._table.name} WHERE {condition}"
            if counted is None:
                counted = int(self._run(f"SELECT count(*) FROM ({query})").fetchone()[0])
            return self._with_words(check, _Finding(counted, query))
        find = {
            "unique": self._find_duplicates,
            "freshness": self._find_age,
            "row_count": self._find_row_count,
            "predicate": self._find_by_sql,
            "sql": self._find_by_sql,
            "profile": self._find_in_profile,
            "model": self._find_in_metrics,
        }[check.family]
        return find(check)

    def _with_words(self, check: Check, found: _Finding) -> _Finding:
        """The finding with what to say about its number of rows."""
        rows = self._table.row_count
        if not rows:
            found.note = "no rows to check"
            return found
        number = f"{found.violations:,}" if found.violations else "none"
        found.message = f"{number} of {rows:,} rows {_what_is_wrong(check)}"
        if check.limit:
            found.message += f" ({found.violations / rows:.2%}, allowed are {check.limit:.2%})"
        return found

    def _find_duplicates(self, check: Check) -> _Finding:
        names = [column_of(column, self._table.schema) for column in check.columns]
        columns, source = ", ".join(map(quoted, names)), self._table.name
        groups = f"SELECT {columns}, count(*) AS {quoted(_free_name('rows', names))} FROM {source} GROUP BY {columns}"
        surplus = f"SELECT coalesce(sum(n - 1), 0) FROM (SELECT count(*) AS n FROM {source} GROUP BY {columns})"
        violations = int(self._run(surplus).fetchone()[0])
        query = f"{groups} HAVING count(*) > 1 ORDER BY count(*) DESC, {columns}"
        return self._with_words(check, _Finding(violations, query))

    def _find_age(self, check: Check) -> _Finding:
        """Whether the newest value is too old. Where every value is NULL, nothing says that the table is fresh."""
        if not self._table.row_count:
            return _Finding(0, note="no rows to check")
        column = quoted(column_of(check.columns[0], self._table.schema))
        oldest = moment_literal(self._table.now_seconds - check.max_age_seconds)
        newest = f"SELECT max({column}) AS newest FROM {self._table.name}"
        shown, fresh = self._run(f"SELECT CAST(newest AS VARCHAR), newest >= {oldest} FROM ({newest})").fetchone()
        if shown is None:
            return _Finding(1, message=f"{check.columns[0]} is NULL in every row")
        note = f"the newest {check.columns[0]} is {shown}"
        return _Finding(0 if fresh else 1, newest, f"{note}, older than {_age(check.max_age_seconds)}", note)

    def _find_row_count(self, check: Check) -> _Finding:
        rows = self._table.row_count
        low, high = check.minimum, check.maximum
        too_few = isinstance(low, int) and rows < low
        too_many = isinstance(high, int) and rows > high
        message = f"{rows:,} rows"
        if too_few or too_many:
            message += f", and at least {low:,} are expected" if too_few else f", and at most {high:,} are expected"
        return _Finding(int(too_few or too_many), message=message)

    def _find_by_sql(self, check: Check) -> _Finding:
        """The rows that the user's SQL gives."""
        if check.family == "predicate" and not self._table.row_count:
            return _Finding(0, note="no rows to check")
        for name, index in check.positions:
            self._run(f"CREATE OR REPLACE TEMP VIEW {quoted(name)} AS FROM {self._table.inputs[index]}")
        *before, query = check.statements
        if check.family == "predicate":
            query = f"SELECT * FROM {self._table.name} WHERE (\n{query}\n) IS NOT TRUE"
        for statement in before:
            self._run(statement)
        violations = int(self._run(f"SELECT count(*) FROM (\n{query}\n)").fetchone()[0])
        if check.family == "predicate":
            return self._with_words(check, _Finding(violations, query))
        return _Finding(
            violations,
            query,
            f"the query gives {violations:,} row{'s' if violations > 1 else ''}" if violations else "no rows found",
        )

    def _find_in_profile(self, check: Check) -> _Finding:
        if not self._table.row_count:
            return _Finding(0, note="no columns to check")
        now = moment_literal(self._table.now_seconds)
        value = metric_value(check, now)
        row = self._run(
            f"SELECT CAST({value} AS VARCHAR), coalesce({metric_condition(check, value)}, false)"
            f" FROM {self._table.name} WHERE {of_column(check)} LIMIT 1"
        ).fetchone()
        if row is None:
            return _Finding(1, message=f"the profile has no column '{check.columns[0]}'")
        note = f"{check.label} is {'NULL' if row[0] is None else row[0]}"
        query = f"SELECT * FROM {self._table.name} WHERE {of_column(check)}" if check.columns else ""
        return _Finding(int(row[1]), query, f"{note}, {_metric_bounds(check)}", note)

    def _find_in_metrics(self, check: Check) -> _Finding:
        value = self._table.metrics.get(check.metric)
        if value is None:
            known = ", ".join(self._table.metrics) or "none"
            return _Finding(1, message=f"the model has no {check.metric}; its metrics: {known}")
        low, high = check.minimum, check.maximum
        wrong = (isinstance(low, (int, float)) and value < low) or (isinstance(high, (int, float)) and value > high)
        note = f"{check.metric} is {value:.6g}"
        return _Finding(int(wrong), message=f"{note}, {_metric_bounds(check)}", note=note)

    def _sample(self, query: str) -> Sample:
        cursor = self._run(f"SELECT COLUMNS(*)::VARCHAR FROM (\n{query}\n) LIMIT {self._sample_rows}")
        columns = tuple(str(entry[0]) for entry in cursor.description)
        return Sample(columns, tuple(tuple(map(_cut, row)) for row in cursor.fetchall()))


def _reason(error: Exception) -> str:
    if isinstance(error, NodeFailedError):
        return error.message + (f" ({error.hint})" if error.hint else "")
    return engine_problem(error, "").message


def _what_is_wrong(check: Check) -> str:
    """What is to be said of the rows that a check finds."""
    columns = list(check.columns)
    if check.family == "null":
        return f"with NULL in {' or '.join(columns)}"
    if check.family == "unique":
        return f"repeating another row's {' and '.join(columns)}"
    if check.family == "range":
        return f"outside {_range(check)}"
    if check.family == "accepted_values":
        more = ", …" if len(check.values) > 6 else ""
        return f"with another {columns[0]} than {', '.join(map(str, check.values[:6]))}{more}"
    if check.family == "freshness":
        return f"older than {_age(check.max_age_seconds)}"
    return "not fulfilling the condition"


def _range(check: Check) -> str:
    low, high = check.minimum, check.maximum
    if low is None or high is None:
        bound = f"≥ {low}" if high is None else f"≤ {high}"
        return f"{check.columns[0]} {bound}"
    return f"{low} ≤ {check.columns[0]} ≤ {high}"


def _metric_bounds(check: Check) -> str:
    if check.inside:
        between = check.minimum != check.maximum
        return f"which is from {check.minimum} to {check.maximum}" if between else "which it must not be"
    words = []
    if check.minimum is not None:
        words.append(f"{'more than' if check.exclusive else 'at least'} {check.minimum}")
    if check.maximum is not None:
        words.append(f"{'less than' if check.exclusive else 'at most'} {check.maximum}")
    return f"and {' and '.join(words)} is expected"


def _age(seconds: float) -> str:
    for name, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= length and seconds % length == 0:
            return f"{seconds / length:g}{name}"
    return f"{seconds:g}s"


def _free_name(name: str, taken: Sequence[str]) -> str:
    """A column name that none of these has."""
    lowered = {other.lower() for other in taken}
    while name in lowered:
        name += "_"
    return name


def _cut(value: str | None) -> str | None:
    return value if value is None or len(value) <= MOST_CHARACTERS else f"{value[: MOST_CHARACTERS - 1]}…"
