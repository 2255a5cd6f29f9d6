"""A check and its result, as values: what must be true of a table, and whether it was.

- *checked table*: the table that a check is about: a rule's first input, the output of a node with audits.
- *violation*: a row that breaks a check. Of rows that are the same in all columns of a ``unique`` check, each beyond
  the first is one; a table that is too old, or has too many rows, is one.
- *severity*: ``error`` fails the node, ``warn`` is only told.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from seeknal.redaction import redacted

# What a check does, by the types it can have in YAML.
FAMILIES = {
    "null": "null",
    "not_null": "null",
    "range": "range",
    "uniqueness": "unique",
    "unique": "unique",
    "accepted_values": "accepted_values",
    "freshness": "freshness",
    "row_count": "row_count",
    "predicate": "predicate",
    "sql_assertion": "sql",
    "custom_sql": "sql",
    "custom": "sql",
    "profile_check": "profile",
    **dict.fromkeys((f"min_{name}" for name in ("accuracy", "precision", "recall", "f1_score", "r2")), "model"),
    **dict.fromkeys((f"max_{name}" for name in ("mse", "mae")), "model"),
}


class Check(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One check. Which fields count depends on ``family``.

    ``type`` is the word in the file. ``minimum`` and ``maximum`` are inclusive; those of a profile metric with
    ``exclusive`` are not, and ``inside`` turns them round: a value within them is the violation. ``limit`` is the
    share of rows, 0 to 1, that may violate it. ``sql`` is the predicate or the query as written; ``statements`` and
    ``positions`` what it was taken apart to, for the worker. ``volatile``: its result depends on the moment.
    """

    type: str
    columns: tuple[str, ...] = ()
    name: str = ""
    severity: str = "error"
    message: str = ""
    minimum: float | int | str | None = None
    maximum: float | int | str | None = None
    exclusive: bool = False
    inside: bool = False
    values: tuple[Any, ...] = ()
    limit: float = 0.0
    max_age_seconds: float = 0.0
    per_row: bool = False
    metric: str = ""
    sql: str = ""
    statements: tuple[str, ...] = ()
    positions: tuple[tuple[str, int], ...] = ()
    volatile: bool = False

    @property
    def family(self) -> str:
        return FAMILIES[self.type]

    @property
    def label(self) -> str:
        """What reports call it: its name, else its type and what it is about."""
        if self.name:
            return self.name
        if self.family == "predicate":
            # Before it is cut: the beginning of a secret is one, too.
            words = redacted(" ".join(self.sql.split()))
            return words if len(words) <= 60 else f"{words[:59]}…"
        if self.family == "model":
            return self.type
        if self.family == "profile":
            return f"{self.metric}({', '.join(self.columns)})" if self.columns else self.metric
        about = ", ".join(self.columns)
        return f"{self.type}({about})" if about else self.type

    def said(self) -> list[Any]:
        """What decides about the result, in a form that the layout of SQL does not change; for fingerprints."""
        from seeknal.dag.canonical import canonical_sql

        plain = msgspec.to_builtins(msgspec.structs.replace(self, statements=(), sql=canonical_sql(self.sql)))
        return sorted(plain.items())


class Sample(msgspec.Struct, frozen=True):
    """Some of a query's rows as texts, None for NULL."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str | None, ...], ...]


class CheckResult(msgspec.Struct, frozen=True):
    """What a check gave. ``label`` is what reports call the check; ``sample`` the first violations, if there are any.

    ``violations`` may be above 0 and the check still passed: it may allow some.
    """

    rule_type: str
    passed: bool
    violations: int
    message: str
    severity: str
    label: str
    sample: Sample | None = None

    @property
    def failed_for_good(self) -> bool:
        return not self.passed and self.severity == "error"

    @property
    def word(self) -> str:
        """The result in a word: PASS, FAIL, or WARN where a check of severity warn failed."""
        return "PASS" if self.passed else "FAIL" if self.failed_for_good else "WARN"

    @property
    def is_warning(self) -> bool:
        return not self.passed and self.severity == "warn"

    def to_dict(self) -> dict[str, Any]:
        return {
            "check": self.label,
            "rule_type": self.rule_type,
            "passed": self.passed,
            "violations": self.violations,
            "message": self.message,
            "severity": self.severity,
        }


def results_of(documents: Sequence[Mapping[str, Any]]) -> tuple[CheckResult, ...]:
    """The results that :meth:`CheckResult.to_dict` wrote."""
    return tuple(
        CheckResult(
            document["rule_type"],
            document["passed"],
            document["violations"],
            document["message"],
            document["severity"],
            document["check"],
        )
        for document in documents
    )


def sample_of(document: Mapping[str, Any]) -> Sample | None:
    """The sample that stands in a result which :func:`kept` wrote."""
    said = document.get("sample")
    return None if said is None else msgspec.convert(said, Sample)


def kept(result: CheckResult) -> dict[str, Any]:
    """A result with its sample, as plain values."""
    sample = None if result.sample is None else msgspec.to_builtins(result.sample)
    return {**result.to_dict(), "sample": sample}


def results_in(metadata: Mapping[str, Any]) -> tuple[CheckResult, ...]:
    """The results that :func:`summary` put into an output's metadata; none where it did not."""
    if "rule_type" in metadata:
        return results_of([metadata])
    return results_of(metadata.get("results", ()))


def summary(results: Sequence[CheckResult]) -> dict[str, Any]:
    """The results of a node's checks as one document; that of a single check is its result."""
    if len(results) == 1:
        return results[0].to_dict()
    failed = sum(not result.passed for result in results)
    return {
        "checks": len(results),
        "passed": not failed,
        "failed_checks": failed,
        "total_violations": sum(result.violations for result in results if not result.passed),
        "results": [result.to_dict() for result in results],
    }
