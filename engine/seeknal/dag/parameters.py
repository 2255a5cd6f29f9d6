"""Parameters: what a run is given, and the names that templates may use for it.

- *given*: what the caller said: ``--date``, ``--run-id``, ``--params``, ``--start-date``, ``--end-date``, and the
  bounds of an interval run.
- *volatile*: a name whose value is another one in every run (``run_id``, and ``run_date`` without ``--date``). It would
  make every output that uses it new each time, so fingerprints see a value that never changes (the *stand-in*), and
  only what is executed sees the real one.
- *asked*: what templates wanted to know. A later run may rely on an earlier one's outcome only where it would get the
  same answers; see :mod:`seeknal.workflow.settled`.

Dates are the machine's local ones, as people and schedulers see them; ``TZ`` sets another zone.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Any

import msgspec

from seeknal.errors import UsageError
from seeknal.late_pattern import late_pattern
from seeknal.redaction import hide_variables, redacted

if TYPE_CHECKING:
    from seeknal.dag.project import Project
    from seeknal.store.objects import Snapshot

FIRST_YEAR, LAST_YEAR, MOST_DAYS_AHEAD = 2000, 2100, 365

# What fingerprints see in place of the volatile names: of the same form as the values that stand for them.
RUN_ID_STAND_IN = "20000101T000000-00000000"
RUN_DATE_STAND_IN = "2000-01-01T00:00:00"

_NAME = late_pattern(r"[A-Za-z_]\w*")


class GivenParameters(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a caller says about a run. Dates are ISO texts, empty where nothing was said.

    ``start`` and ``end`` are the bounds of an interval, as ISO timestamps. ``params`` are values of the caller's own.
    """

    date: str = ""
    run_id: str = ""
    start_date: str = ""
    end_date: str = ""
    start: str = ""
    end: str = ""
    params: dict[str, Any] = {}

    def values(self) -> dict[str, Any]:
        """Every name that has a value, the named options before ``params``."""
        named = {name: getattr(self, name) for name in ("date", "run_id", "start_date", "end_date", "start", "end")}
        return {**self.params, **{name: value for name, value in named.items() if value}}

    def lasting(self) -> GivenParameters:
        """The same without what belongs to one run alone: what a plan keeps for the runs that follow it."""
        return msgspec.structs.replace(self, run_id="")

    def without_secrets(self) -> GivenParameters:
        """The same without the values that no text may show: what may be kept."""
        shown = {name: value for name, value in self.params.items() if not _is_secret(value)}
        return msgspec.structs.replace(self, params=shown)


def given_parameters(
    *,
    date: str | None = None,
    run_id: str | None = None,
    start_date: str | None = None,
    end_date: str | None = None,
    params: str | Mapping[str, Any] | None = None,
    today: date | None = None,
) -> GivenParameters:
    """Check what a caller says, ``params`` as JSON text or as a mapping. Raises UsageError."""
    if date is not None:
        _check_date(date, today or _today())
    for option, text in (("--start-date", start_date), ("--end-date", end_date)):
        if text is not None and not _is_moment(text):
            raise UsageError(f"{option} '{text}' is not a date", hint="write YYYY-MM-DD, or YYYY-MM-DDTHH:MM:SS")
    if start_date and end_date and datetime.fromisoformat(start_date) > datetime.fromisoformat(end_date):
        raise UsageError(f"--start-date {start_date} is after --end-date {end_date}")
    return GivenParameters(
        date=date or "",
        run_id=run_id or "",
        start_date=start_date or "",
        end_date=end_date or "",
        params=_read_params(params),
    )


def _today() -> date:
    return date.today()


def _check_date(text: str, today: date) -> None:
    try:
        day = date.fromisoformat(text) if re.fullmatch(r"\d{4}-\d\d-\d\d", text) else None
    except ValueError:
        day = None
    if day is None:
        raise UsageError(f"--date '{text}' is not a date", hint="write YYYY-MM-DD")
    if not FIRST_YEAR <= day.year <= LAST_YEAR or day > today + timedelta(days=MOST_DAYS_AHEAD):
        raise UsageError(
            f"--date {text} is out of range", hint=f"from {FIRST_YEAR} to at most {MOST_DAYS_AHEAD} days ahead"
        )


def _is_moment(text: str) -> bool:
    if not re.fullmatch(r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d(\.\d{1,6})?)?)?", text):
        return False
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return True


def _read_params(params: str | Mapping[str, Any] | None) -> dict[str, Any]:
    values: Any = params
    if isinstance(params, str):
        try:
            values = json.loads(params, object_pairs_hook=_without_twins, parse_constant=_refuse_constant)
        except ValueError as error:
            raise UsageError(
                f"--params is not valid JSON: {error}", hint="""write --params '{"region": "EU", "limit": 10}'"""
            ) from None
        except RecursionError:
            raise UsageError("--params is nested too deeply") from None
    if params is None:
        return {}
    if not isinstance(values, Mapping):
        raise UsageError("--params is not a JSON object", hint="""write --params '{"region": "EU"}'""")
    for name in values:
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise UsageError(f"--params: {name!r} is not a name", hint="a letter or '_', then letters, digits or '_'")
        _insist_on_storable(name, values[name])
    return dict(values)


def _insist_on_storable(name: str, value: Any) -> None:
    """Raise UsageError for a value that the plan and the snapshot of a run could not hold."""
    try:
        msgspec.msgpack.encode(value, enc_hook=str)
    except OverflowError:
        raise UsageError(
            f"--params: the value of {name!r} is a number beyond 64 bits", hint="give it as text, in quotes"
        ) from None
    except UnicodeEncodeError:
        raise UsageError(f"--params: the value of {name!r} is not text: it holds half a character") from None


def _is_secret(value: Any) -> bool:
    text = msgspec.json.encode(value, enc_hook=str).decode()
    return redacted(text) != text


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twin = next(name for index, (name, _) in enumerate(pairs) if name in dict(pairs[:index]))
        raise ValueError(f"{twin!r} is given twice")
    return found


def _refuse_constant(text: str) -> Any:
    raise ValueError(f"{text} is no number")


class DayText(str):
    """A day as ISO text that can be called with an offset: ``{{ today(-1) }}``. ``unit``: day, month or year."""

    unit: str

    def __new__(cls, day: date, unit: str = "day") -> DayText:
        text = super().__new__(cls, day.isoformat())
        text.unit = unit
        return text

    def __call__(self, *offsets: int) -> DayText:
        if len(offsets) > 1:
            raise ValueError("it takes one offset")
        offset = offsets[0] if offsets else 0
        if isinstance(offset, bool) or not isinstance(offset, int):
            raise ValueError("the offset is not a whole number")
        day = date.fromisoformat(self)
        if self.unit == "day":
            return DayText(day + timedelta(days=offset), self.unit)
        months = day.year * 12 + day.month - 1 + offset * (12 if self.unit == "year" else 1)
        return DayText(date(months // 12, months % 12 + 1, 1), self.unit)


class Value(msgspec.Struct, frozen=True):
    """What a name stands for. ``trusted``: written by the project's author, so it may be any SQL."""

    value: Any
    trusted: bool = True
    volatile: bool = False


class RunParameters(msgspec.Struct):
    """What one run is given, and when it is: the answers to every name that is not the project's own.

    ``run_id`` and ``now`` are the real ones. ``asked`` and ``variables`` collect what was asked for: the names, and the
    environment variables with their values (None: not set). ``rests_on_today``: the day mattered. ``never_settles``:
    something outside a fingerprint is another in every run.
    """

    given: GivenParameters = msgspec.field(default_factory=GivenParameters)
    run_id: str = RUN_ID_STAND_IN
    now: datetime = msgspec.field(default_factory=datetime.now)
    asked: set[str] = set()
    variables: dict[str, str | None] = {}
    rests_on_today: bool = False
    never_settles: bool = False

    @classmethod
    def of_run(cls, snapshot: Snapshot, planned: GivenParameters | None = None) -> RunParameters:
        """What the run that a snapshot comes from was given, and when it began.

        A snapshot holds no secrets; where the run was given what was ``planned``, that has them.
        """
        given = msgspec.convert(snapshot.parameters, GivenParameters)
        if planned is not None:
            whole = msgspec.structs.replace(given, params={**planned.params, **given.params})
            given = planned if whole == planned else given
        return cls(given, snapshot.run_id, datetime.fromtimestamp(snapshot.began_at or snapshot.created_at))

    def kept(self) -> dict[str, Any]:
        """What a snapshot keeps of what was given."""
        kept: dict[str, Any] = msgspec.to_builtins(self.given.lasting().without_secrets(), enc_hook=str)
        return kept

    @property
    def today(self) -> date:
        """The day that ``today`` and its like count from: ``--date``, else the run's own."""
        return date.fromisoformat(self.given.date) if self.given.date else self.now.date()

    def override(self, name: str) -> Value | None:
        """What the caller gave under a name; it goes before everything else."""
        self.asked.add(name)
        given = self.given.values()
        if name not in given or (name == "run_id" and self.given.run_id):
            # A run's own id is its context's affair, which knows the stand-in for it.
            return None
        if name in ("start_date", "end_date", "start", "end") and getattr(self.given, name):
            return Value(given[name])
        if name == "date" and self.given.date:
            return Value(DayText(self.today))
        return Value(given[name], trusted=False)

    def context(self, name: str, project: Project, *, real: bool) -> Value | None:
        """What a name says about the run: run_id, run_date, project_id, workspace_path. ``real``: no stand-ins."""
        if name == "run_id":
            return Value(self.run_id if real else RUN_ID_STAND_IN, trusted=False, volatile=True)
        if name == "run_date":
            self.asked.add("date")
            if self.given.date:
                return Value(DayText(self.today))
            now = self.now.isoformat(timespec="seconds") if real else RUN_DATE_STAND_IN
            return Value(now, volatile=True)
        if name == "project_id":
            return Value(project.name, trusted=False)
        if name == "workspace_path":
            return Value(str(project.root), trusted=False)
        return None

    def day(self, name: str) -> Value | None:
        """What a name says about the day."""
        today = self.today
        days = {
            "today": DayText(today),
            "date": DayText(today),
            "yesterday": DayText(today - timedelta(days=1)),
            "month_start": DayText(today.replace(day=1), "month"),
            "year_start": DayText(today.replace(month=1, day=1), "year"),
        }
        if name not in days:
            return None
        self.asked.add("date")
        self.rests_on_today = self.rests_on_today or not self.given.date
        return Value(days[name])

    def variable(self, name: str) -> str | None:
        """An environment variable's value, None where it is not set."""
        if name not in self.variables:
            self.variables[name] = os.environ.get(name)
            hide_variables([name])
        return self.variables[name]


# The names that a run answers, for messages; those that are only there when they are given, with their option.
DAYS = ("today", "yesterday", "month_start", "year_start", "date")
CONTEXT = ("run_id", "run_date", "project_id", "workspace_path")
WHEN_GIVEN = {
    "start_date": "--start-date",
    "end_date": "--end-date",
    "start": "an interval run",
    "end": "an interval run",
}
