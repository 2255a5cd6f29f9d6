"""The fields of checks: what rules, ``audits`` and ``tests`` may say, and the checks that it means.

Two forms mean the same: ``{type: not_null, columns: [a]}`` and, in short, ``not_null: [a]``. A text is a predicate
over each row. Everything that is wrong is found, each with the path to its field.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec

from seeknal.dag.names import did_you_mean
from seeknal.late_pattern import late_pattern
from seeknal.nodes.check import FAMILIES, Check
from seeknal.nodes.kind import FieldProblem
from seeknal.nodes.profile_metrics import METRIC_ALIASES, METRICS

Path = tuple[str | int, ...]

SEVERITIES = ("error", "warn")

# The keys of each family, beside those that every check has.
_KEYS = {
    "null": ("column", "columns", "max_null_percentage"),
    "range": ("column", "columns", "min_val", "max_val", "min", "max"),
    "unique": ("column", "columns", "max_duplicate_percentage"),
    "accepted_values": ("column", "columns", "values"),
    "freshness": ("column", "columns", "max_age", "per_row"),
    "row_count": ("min", "max", "min_val", "max_val"),
    "predicate": ("value", "column", "columns"),
    "sql": ("sql",),
    "profile": ("column", "columns", "metric", "min", "max", "fail", "warn", "checks"),
    "model": ("value",),
}
_COMMON_KEYS = ("type", "name", "description", "severity", "error_message", "params")

# Types that other tools take alone, beside a column. Nobody calls a column of truth values so.
_NO_CONDITIONS = frozenset({"not_null", "unique"})

# What the value of the short form, `type: value`, is.
_SHORT = {
    "null": "columns",
    "unique": "columns",
    "sql": "sql",
    "predicate": "value",
    "model": "value",
}

_AGE = late_pattern(r"(\d+(?:\.\d+)?)\s*([smhdw]?)")
_AGE_FORM = "write 30s, 15m, 24h, 7d, or seconds"
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}

_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_COMPARISON = late_pattern(rf"(<=|>=|==|!=|<>|=|<|>)\s*({_NUMBER})")
_BETWEEN = late_pattern(rf"between\s+({_NUMBER})\s+and\s+({_NUMBER})", re.IGNORECASE)


class ParsedCheck(msgspec.Struct, frozen=True):
    """A check, the path to it, and the path to its SQL where it has some."""

    check: Check
    path: Path
    sql_path: Path = ()


class _Wrong(Exception):
    """A field cannot mean a check; the argument is the problem."""

    def __init__(self, message: str, path: Path = (), hint: str = "") -> None:
        super().__init__(FieldProblem(message, path, hint))

    @property
    def problem(self) -> FieldProblem:
        problem: FieldProblem = self.args[0]
        return problem


def checks_of_rule(rule: Any, params: Mapping[str, Any]) -> Iterator[ParsedCheck | FieldProblem]:
    """The checks of a rule's ``rule`` field; ``params`` of the node count for each that does not say otherwise."""
    entries = rule if isinstance(rule, list) else [rule]
    if not entries:
        yield FieldProblem("'rule' is an empty list", ("rule",), "add a check, as in `{type: not_null, columns: [id]}`")
    for index, entry in enumerate(entries):
        path: Path = ("rule", index) if isinstance(rule, list) else ("rule",)
        yield from _checks_of(entry, path, params)


def checks_of_list(field: str, entries: Iterable[Any]) -> Iterator[ParsedCheck | FieldProblem]:
    """The checks of an ``audits`` or ``tests`` field."""
    for index, entry in enumerate(entries):
        yield from _checks_of(entry, (field, index), {})


def checks_of_freshness(
    field: str, column: str | None, ages: Mapping[str, str | int | float | None]
) -> Iterator[ParsedCheck | FieldProblem]:
    """The checks of a source's ``freshness`` field: how old the newest ``column`` may be, by severity's word."""
    for key, age in ages.items():
        if age is None:
            continue
        path: Path = (field, key)
        seconds = _seconds(age)
        if seconds is None:
            yield FieldProblem(f"'{key}' is no age", path, _AGE_FORM)
        elif column is None:
            yield FieldProblem(f"'{key}' needs 'time_column'", path, "name the column with the time of each row")
        else:
            severity = "warn" if key.startswith("warn") else "error"
            check = Check(
                type="freshness", columns=(column,), severity=severity, max_age_seconds=seconds, volatile=True
            )
            yield ParsedCheck(check, path)


def _checks_of(entry: Any, path: Path, params: Mapping[str, Any]) -> Iterator[ParsedCheck | FieldProblem]:
    try:
        if isinstance(entry, str):
            yield from _predicates(entry, path, path, dict(params))
            return
        if not isinstance(entry, dict):
            raise _Wrong("a check must be a mapping or text", path, "write `type: not_null` and `columns: [id]`")
        yield from _of_mapping(*_long_form(entry, path), path, params)
    except _Wrong as error:
        yield error.problem


def _long_form(entry: dict[str, Any], path: Path) -> tuple[str, dict[str, Any], Path]:
    """The type of a check, its fields by name, and the path below which these stand."""
    if "type" in entry:
        # YAML reads an unquoted null as nothing.
        said = "null" if entry["type"] is None else entry["type"]
        if not isinstance(said, str):
            raise _Wrong(f"the type of a check must be text, not {said!r}", (*path, "type"))
        return said, entry, path
    if "value" in entry:
        return "predicate", entry, path
    types = [key for key in entry if key in FAMILIES]
    if len(types) != 1:
        hint = did_you_mean(next(iter(entry), ""), FAMILIES) if not types else "make each an entry of its own"
        raise _Wrong("a check needs a type" if not types else f"two checks in one: {' and '.join(types)}", path, hint)
    type_ = types[0]
    inner = entry[type_]
    others = {key: value for key, value in entry.items() if key != type_}
    if isinstance(inner, dict):
        return type_, {**others, **inner}, (*path, type_)
    short = _SHORT.get(FAMILIES[type_])
    if short is None:
        raise _Wrong(f"{type_} needs a mapping", (*path, type_), f"there is: {', '.join(_KEYS[FAMILIES[type_]])}")
    return type_, {**others, short: inner}, path


class _Fields:
    """The fields of one check; a field may stand in its ``params`` too, or in those of the node."""

    def __init__(self, said: dict[str, Any], path: Path, params: Mapping[str, Any]) -> None:
        own = said.get("params")
        self._own = own if isinstance(own, dict) else {}
        self._said, self._path, self._params = said, path, params

    def get(self, key: str) -> Any:
        for fields in (self._said, self._own, self._params):
            if fields.get(key) is not None:
                return fields[key]
        return None

    def path(self, key: str) -> Path:
        if self._said.get(key) is not None:
            return (*self._path, key)
        if self._own.get(key) is not None:
            return (*self._path, "params", key)
        return ("params", key) if self._params.get(key) is not None else self._path

    def first(self, *keys: str) -> tuple[Any, Path]:
        """The value of the first of the keys that is there, and its path."""
        for key in keys:
            if self.get(key) is not None:
                return self.get(key), self.path(key)
        return None, self._path

    def text(self, key: str) -> str:
        value = self.get(key)
        if value is not None and not isinstance(value, str):
            raise _Wrong(f"'{key}' must be text", self.path(key))
        return value or ""

    def own_text(self, key: str) -> str:
        """As :meth:`text`, but only of the check itself."""
        value = self._said.get(key)
        return value if isinstance(value, str) else ""

    def columns(self) -> tuple[str, ...]:
        value, path = self.first("columns", "column")
        columns = [value] if isinstance(value, str) else value
        if columns is None:
            return ()
        if not isinstance(columns, list) or not columns or not all(isinstance(name, str) for name in columns):
            raise _Wrong("must name a column, or a list of columns", path)
        return tuple(columns)

    def share(self, key: str) -> float:
        value = self.get(key)
        if value is None:
            return 0.0
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
            raise _Wrong(f"'{key}' is a share, from 0 to 1", self.path(key), "0.05 is 5 percent")
        return float(value)

    def bounds(self) -> tuple[Any, Any]:
        found = []
        for keys in (("min_val", "min"), ("max_val", "max")):
            value, path = self.first(*keys)
            if isinstance(value, bool) or not isinstance(value, (int, float, str, type(None))):
                raise _Wrong(f"'{path[-1]}' must be a number or text", path)
            found.append(value)
        low, high = found
        if isinstance(low, (int, float)) and isinstance(high, (int, float)) and low > high:
            raise _Wrong(f"nothing is at least {low} and at most {high}", self._path)
        return low, high


def _of_mapping(
    type_: str, said: dict[str, Any], below: Path, path: Path, params: Mapping[str, Any]
) -> Iterator[ParsedCheck | FieldProblem]:
    family = FAMILIES.get(type_)
    if family is None:
        raise _Wrong(f"there is no check of type '{type_}'", (*path, "type"), did_you_mean(type_, FAMILIES))
    known = (*_COMMON_KEYS, *_KEYS[family])
    own = said.get("params")
    for given, where in ((said, below), (own if isinstance(own, dict) else {}, (*below, "params"))):
        for key in given:
            if key not in known:
                hint = did_you_mean(key, [name for name in known if name != "params"])
                yield FieldProblem(f"a check of type {type_} has no field '{key}'", (*where, key), hint)
    fields = _Fields(said, below, params)
    if family == "predicate":
        yield from _predicates(fields.get("value"), fields.path("value"), path, said, fields)
        return
    if family == "profile":
        yield from _profile_checks(fields, said, below, path, params)
        return
    check = Check(type=type_, **_common(fields))
    if family == "sql":
        sql = fields.text("sql")
        if not sql.strip():
            hint = "write the SELECT that finds the rows which are wrong"
            raise _Wrong(f"a check of type {type_} needs 'sql'", path, hint)
        yield ParsedCheck(msgspec.structs.replace(check, sql=sql), path, fields.path("sql"))
        return
    filled = _of_model(check, fields) if family == "model" else _filled(check, family, fields, path)
    yield ParsedCheck(filled, path)


def _common(fields: _Fields) -> dict[str, Any]:
    """What every check has: its name, severity and message."""
    severity = fields.text("severity") or "error"
    if severity not in SEVERITIES:
        raise _Wrong(f"severity '{severity}' is none", fields.path("severity"), "write error or warn")
    return {"name": fields.own_text("name"), "severity": severity, "message": fields.text("error_message")}


def _filled(check: Check, family: str, fields: _Fields, path: Path) -> Check:
    """The check with the fields of its family. Raises _Wrong."""
    changes: dict[str, Any] = {}
    if family != "row_count":
        columns = fields.columns()
        if not columns:
            raise _Wrong(f"a check of type {check.type} needs 'columns'", path, "name the columns to look at")
        changes["columns"] = columns if family in ("null", "unique") else columns[:1]
    if family == "null":
        changes["limit"] = fields.share("max_null_percentage")
    elif family == "unique":
        changes["limit"] = fields.share("max_duplicate_percentage")
    elif family in ("range", "row_count"):
        changes["minimum"], changes["maximum"] = fields.bounds()
        if changes["minimum"] is None and changes["maximum"] is None:
            words = "'min' or 'max'" if family == "row_count" else "'min_val' or 'max_val'"
            raise _Wrong(f"a check of type {check.type} needs {words}", path)
        if family == "row_count" and not all(
            isinstance(bound, (int, type(None))) for bound in (changes["minimum"], changes["maximum"])
        ):
            raise _Wrong("'min' and 'max' are whole numbers of rows", path)
    elif family == "accepted_values":
        values = fields.get("values")
        plain = isinstance(values, list) and all(isinstance(value, (str, int, float, type(None))) for value in values)
        # NULL passes anyway.
        accepted = tuple(value for value in values if value is not None) if plain else ()
        if not accepted:
            raise _Wrong("accepted_values needs 'values': a list of texts or numbers", fields.path("values"))
        changes["values"] = accepted
    elif family == "freshness":
        changes["max_age_seconds"] = _age(fields)
        changes["per_row"] = fields.get("per_row") is True
        changes["volatile"] = True
    return msgspec.structs.replace(check, **changes)


def _of_model(check: Check, fields: _Fields) -> Check:
    """The check of a model's metric: at least, or at most, this value. Raises _Wrong."""
    value, path = fields.first("value")
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise _Wrong(f"{check.type} needs a number", path, f"write `{check.type}: 0.8`")
    bound, _, metric = check.type.partition("_")
    return msgspec.structs.replace(check, metric=metric, **{"minimum" if bound == "min" else "maximum": value})


def _age(fields: _Fields) -> float:
    value, path = fields.first("max_age")
    seconds = _seconds(value)
    if seconds is None:
        raise _Wrong("freshness needs 'max_age'", path, _AGE_FORM)
    return seconds


def _seconds(age: Any) -> float | None:
    match = _AGE.fullmatch(str(age).strip()) if not isinstance(age, bool) and age is not None else None
    return float(match[1]) * _SECONDS[match[2]] if match else None


def _predicates(
    value: Any, where: Path, path: Path, said: dict[str, Any], fields: _Fields | None = None
) -> Iterator[ParsedCheck | FieldProblem]:
    """One check for each predicate: a text, or a list of them."""
    fields = fields or _Fields({}, path, said)
    common = _common(fields)
    columns = fields.columns()
    texts = value if isinstance(value, list) else [value]
    for index, text in enumerate(texts):
        here = (*where, index) if isinstance(value, list) else where
        if not isinstance(text, str) or not text.strip():
            yield FieldProblem("must be a condition in SQL, as text", here, 'as in "amount >= 0"')
        elif text.strip() in _NO_CONDITIONS:
            hint = f"name its columns, as in `{text.strip()}: [id]`"
            yield FieldProblem(f"'{text.strip()}' alone is no condition", here, hint)
        else:
            check = Check(type="predicate", columns=columns, sql=text, **common)
            yield ParsedCheck(check, here if isinstance(value, list) else path, here)


# checks of a profile


def _profile_checks(
    fields: _Fields, said: dict[str, Any], below: Path, path: Path, params: Mapping[str, Any]
) -> Iterator[ParsedCheck | FieldProblem]:
    nested = said.get("checks")
    if nested is None:
        yield from _profile_check(fields, path)
        return
    if not isinstance(nested, list) or not nested:
        raise _Wrong("'checks' must be a list", (*below, "checks"))
    outer = {key: said[key] for key in ("severity", "error_message") if said.get(key) is not None}
    for index, entry in enumerate(nested):
        inner: Path = (*below, "checks", index)
        if not isinstance(entry, dict):
            yield FieldProblem("must be a mapping with a metric", inner)
            continue
        try:
            yield from _of_mapping(
                "profile_check", {"type": "profile_check", **entry}, inner, inner, {**params, **outer}
            )
        except _Wrong as error:
            yield error.problem


def _profile_check(fields: _Fields, path: Path) -> Iterator[ParsedCheck]:
    said = fields.text("metric")
    metric = METRIC_ALIASES.get(said, said)
    if metric not in METRICS:
        message = f"there is no metric '{said}'" if said else "a profile_check needs a 'metric'"
        raise _Wrong(message, fields.path("metric"), did_you_mean(said, METRICS))
    columns = fields.columns()[:1]
    if not columns and metric != "row_count":
        raise _Wrong(f"the metric {metric} needs a 'column'", path, "name a column of the profiled table")
    common = _common(fields)
    check = Check(type="profile_check", metric=metric, columns=columns, volatile=metric == "freshness_hours", **common)
    low, high = fields.bounds()
    conditions = [
        (key, severity) for key, severity in (("fail", common["severity"]), ("warn", "warn")) if fields.get(key)
    ]
    if (low is None and high is None) == (not conditions):
        raise _Wrong(
            "a profile_check needs 'min' or 'max'; or 'fail' or 'warn'", path, 'as in `max: 5` or `fail: "> 5"`'
        )
    if not conditions:
        yield ParsedCheck(msgspec.structs.replace(check, minimum=low, maximum=high), path)
    for key, severity in conditions:
        changes = _condition(fields.text(key), fields.path(key))
        yield ParsedCheck(msgspec.structs.replace(check, severity=severity, **changes), fields.path(key))


def _condition(text: str, path: Path) -> dict[str, Any]:
    """What an expression such as ``> 5`` says about the values that violate a check, as fields of it."""
    between = _BETWEEN.fullmatch(text.strip())
    if between:
        return {"minimum": _number(between[1]), "maximum": _number(between[2]), "inside": True}
    match = _COMPARISON.fullmatch(text.strip())
    if match is None:
        raise _Wrong(f"'{text}' is no condition", path, 'write "> 5", "<= 0", "= 0", "!= 1" or "between 1 and 5"')
    operator, number = match[1], _number(match[2])
    if operator in (">", ">="):
        return {"maximum": number, "exclusive": operator == ">="}
    if operator in ("<", "<="):
        return {"minimum": number, "exclusive": operator == "<="}
    return {"minimum": number, "maximum": number, "inside": operator in ("=", "==")}


def _number(text: str) -> int | float:
    return int(text) if re.fullmatch(r"[-+]?\d+", text) else float(text)
