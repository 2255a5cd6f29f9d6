"""The kind ``rule``: checks of other nodes' tables. It makes no table; a failed check of severity error fails it.

What its checks found is kept as its output, in ``checks.json`` and as metadata, so that a warning is told again where
the rule is cached. A rule that failed has no output.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import msgspec

from seeknal.dag.project import Project
from seeknal.nodes.check import CheckResult, summary
from seeknal.nodes.check_fields import ParsedCheck, checks_of_rule
from seeknal.nodes.checks import insist_on_checks
from seeknal.nodes.kind import FieldProblem, Kind, Surroundings, Task
from seeknal.nodes.workbench import Workbench
from seeknal.store.objects import Artifact

RESULTS_FILE = "checks.json"


class RuleSpec(msgspec.Struct, frozen=True, kw_only=True):
    """The fields of a rule.

    - ``rule``: a check, or a list of them: mappings with a ``type``, or conditions in SQL as text
    - ``inputs``: what it looks at. Checks of columns are about the first; the SQL of checks sees all. May be left out
      where that SQL names them
    - ``params``: ``severity`` (``error``, also when left out, or ``warn``) and ``error_message`` for each check that
      does not say its own
    """

    rule: Any
    inputs: list[Any] = []
    params: dict[str, Any] = {}


class RuleKind(Kind):
    """Checks of the inputs."""

    name = "rule"
    spec = RuleSpec
    makes_table = False

    def check(self, spec: RuleSpec, project: Project) -> Iterable[FieldProblem]:
        # A query can name what it reads itself.
        if not spec.inputs and any(found.check.family != "sql" for found in self.checks(spec)):
            yield FieldProblem("a rule needs an input", ("inputs",), "add `inputs: [{ref: kind.name}]`")
        for found in checks_of_rule(spec.rule, spec.params):
            if isinstance(found, FieldProblem):
                yield found

    def checks(self, spec: RuleSpec) -> Iterable[ParsedCheck]:
        return [found for found in checks_of_rule(spec.rule, spec.params) if isinstance(found, ParsedCheck)]

    def identity(self, spec: RuleSpec, around: Surroundings) -> list[Any]:
        return [found.check.said() for found in self.checks(spec)]

    def execute(self, task: Task, bench: Workbench) -> Artifact:
        """Evaluate the checks. Raises ChecksFailed where one of severity error failed."""
        results = insist_on_checks(task, task.inputs, bench)
        kept = ((RESULTS_FILE, self._kept(results, bench)),)
        return Artifact((), task.inputs[0].row_count, (), kept, summary(results))

    def _kept(self, results: tuple[CheckResult, ...], bench: Workbench) -> Any:
        file = bench.store.temporary_path(".json")
        try:
            file.write_text(json.dumps([result.to_dict() for result in results]), encoding="utf-8")
            return bench.store.adopt_file(file)
        finally:
            file.unlink(missing_ok=True)
