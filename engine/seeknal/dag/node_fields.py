"""The fields of one node against what its kind says of them: missing, unknown, of a wrong type, or wrong in themselves.

What is said here needs no other node. *Findings* are what comes of it: problems, which keep the project from being
parsed, and warnings.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import cache
from typing import Any

import msgspec

from seeknal.dag.demands import demand_problems
from seeknal.dag.draft import IDENTITY_FIELDS, CommonFields, Draft
from seeknal.dag.linking import INPUT_FIELDS
from seeknal.dag.manifest import NodeType
from seeknal.dag.names import check_node_name, did_you_mean, nearest, shown
from seeknal.dag.project import Project
from seeknal.dag.schedule import check_schedule
from seeknal.errors import Place, Problem
from seeknal.nodes.external_target import target_problems
from seeknal.nodes.kind import FieldProblem, Kind
from seeknal.nodes.registry import DECLARABLE_KINDS, KINDS

# Accepted, but without an effect yet; each is named in a warning.
FIELDS_TO_COME = frozenset({"schedule"})


class Findings(msgspec.Struct):
    """What is wrong with a project, and what its people are warned of, in the order in which it was found."""

    problems: list[Problem] = []
    warnings: list[Problem] = []

    def report(self, message: str, place: Place, hint: str = "") -> None:
        """Add a problem."""
        self.problems.append(Problem(message, place, hint))

    def warn(self, message: str, place: Place | None, hint: str = "") -> None:
        """Add a warning."""
        self.warnings.append(Problem(message, place, hint))

    def take(self, draft: Draft, found: Iterable[FieldProblem]) -> None:
        """Take up what was found in a node's fields, as problems or warnings."""
        for problem in found:
            place = draft.place_in_text(problem.path, problem.offset)
            (self.warnings if problem.is_warning else self.problems).append(
                Problem(problem.message, place, problem.hint)
            )


def kind_of(draft: Draft, findings: Findings) -> Kind | None:
    """The kind that a draft names, None where it names none that can be declared."""
    if draft.fields.get("kind") is None:
        close = nearest("kind", draft.fields, 1) if "kind" not in draft.fields else []
        hint = f"'{close[0]}' looks like it" if close else f"add `kind:` with one of {', '.join(DECLARABLE_KINDS)}"
        findings.report("'kind' is missing", draft.place("kind"), hint)
        return None
    kind = draft.fields["kind"]
    if isinstance(kind, str) and kind in DECLARABLE_KINDS:
        return KINDS[kind]
    place = draft.place("kind")
    if not isinstance(kind, str):
        findings.report(
            f"'kind' must be text, not {_shown(kind)}", place, f"write one of {', '.join(DECLARABLE_KINDS)}"
        )
    elif kind in KINDS:
        hint = f"declare feature groups with `entity: {draft.fields.get('name')}`, and the {kind} is made of them"
        findings.report(f"kind '{kind}' cannot be declared", place, hint)
    elif kind == NodeType.PYTHON.value:
        hint = "decorate a function in a .py file with the kind of node that it gives, such as `@transform`"
        findings.report(f"kind '{kind}' is not declared in YAML", place, hint)
    else:
        findings.report(f"unknown kind '{shown(kind)}'", place, did_you_mean(kind, DECLARABLE_KINDS))
    return None


def name_of(draft: Draft, findings: Findings) -> str:
    """The name that a draft gives its node, empty where that is none that a node can have."""
    name = draft.fields.get("name")
    wrong = check_node_name(name) if isinstance(name, str) else ""
    if isinstance(name, str) and not wrong:
        return name
    place = draft.place("name")
    if name is None:
        findings.report("'name' is missing", place, "add `name:`")
    elif not isinstance(name, str):
        findings.report(f"'name' must be text, not {_shown(name)}", place, "put it in quotes")
    else:
        findings.report(f"name {_shown(name)} is not allowed", place, wrong or "")
    return ""


def declared_inputs(draft: Draft, findings: Findings) -> list[str]:
    """The nodes that a draft names as inputs, in its fields."""
    found: list[str] = []
    for key in INPUT_FIELDS:
        entries = draft.fields.get(key)
        if entries is None or (key == "depends_on" and draft.kind != "exposure"):
            continue
        for index, entry in enumerate(entries if isinstance(entries, list) else ()):
            reference = entry.get("ref") if isinstance(entry, dict) else entry
            if not isinstance(reference, str):
                place = draft.place(key, index)
                findings.report("an input must name a node", place, "write `- ref: source.orders`")
            elif reference not in found:
                found.append(reference)
    return found


def check_fields(draft: Draft, project: Project, findings: Findings) -> None:
    """Check the fields of a draft, and give it its ``spec`` where nothing is wrong with them."""
    kind = draft.implementation
    own, common = _fields_of(kind.spec), _fields_of(CommonFields)
    if draft.function is not None and draft.kind == "transform" and draft.fields.get("transform"):
        message = "'sql' has no effect: the function has a body, which gives the rows"
        findings.warn(message, draft.place("transform"), "leave one of them out")
    # A template that is wrong leaves nothing to check the values for.
    before = len(findings.problems) - bool(draft.rendered and draft.rendered.problems)
    for name in draft.fields:
        if name not in own and name not in common and (name != "function" or draft.function is None):
            # What is kept for other tools may have any fields.
            if kind.executes:
                _see_unknown_field(draft, name, {*own, *common}, project, findings)
        elif kind.executes and name in FIELDS_TO_COME and name not in own and draft.fields[name]:
            findings.warn(f"'{name}' has no effect yet", draft.place(name))
    if kind.executes:
        findings.take(draft, target_problems(draft.fields, own))
    values: dict[str, Any] = kind.supplied()
    if draft.is_code and "params" in own and isinstance(draft.fields.get("params") or {}, dict):
        values["params"] = draft.params
    # Most of the fields that a node may have, it has not.
    for name, value in draft.values.items():
        if value is not None and name in own and name not in values:
            values[name] = value
            _check_type(draft, name, own[name].type, findings)
    for name in _required_of(kind.spec):
        if name not in values:
            article = "an" if kind.name[0] in "aeiou" else "a"
            add = f"give the decorator `{name}=…`" if draft.is_code else f"add `{name}:`"
            findings.report(f"'{name}' is missing", draft.place(name), f"{add}; {article} {kind.name} needs it")
    for name, value in draft.fields.items():
        if value is not None and name in common and name not in own:
            _check_type(draft, name, common[name].type, findings)
    schedule = draft.fields.get("schedule")
    if isinstance(schedule, str) and (wrong := check_schedule(schedule)) is not None:
        findings.report(f"'{shown(schedule)}' is not a schedule", draft.place("schedule"), wrong)
    if len(findings.problems) == before:
        findings.take(draft, demand_problems(draft.values))
    if len(findings.problems) > before:
        return
    try:
        spec = msgspec.convert(values, kind.spec)
    except msgspec.ValidationError as error:
        findings.problems.append(draft.type_problem((), str(error)))
        return
    _check_values(draft, spec, project, findings)
    if len(findings.problems) == before:
        draft.spec = spec
        for reference, path in kind.references(spec):
            if reference.lower() not in draft.references:
                draft.references = {**draft.references, reference.lower(): path}
            if reference not in draft.inputs:
                draft.inputs.append(reference)


def _check_type(draft: Draft, name: str, type_: Any, findings: Findings) -> None:
    try:
        msgspec.convert(draft.values[name], type_)
    except msgspec.ValidationError as error:
        problem = draft.type_problem((name,), str(error))
        if name in INPUT_FIELDS:
            problem = replace(problem, hint=f"write `{name}: [{{ref: source.orders}}]`")
        elif name == "columns" and isinstance(draft.values[name], list):
            problem = replace(problem, hint="write `name: description` for each; checks belong into `tests:`")
        findings.problems.append(problem)


def _check_values(draft: Draft, spec: Any, project: Project, findings: Findings) -> None:
    try:
        found = list(draft.implementation.check(spec, project))
    except (OSError, ValueError) as error:
        # A path that the system does not take: too long, or with a null byte.
        findings.report(f"cannot be checked: {error}", draft.place())
        return
    findings.take(draft, found)


def _see_unknown_field(draft: Draft, name: str, known: set[str], project: Project, findings: Findings) -> None:
    import difflib

    close = difflib.get_close_matches(name, known - IDENTITY_FIELDS, n=1, cutoff=0.75)
    hint = f"did you mean '{close[0]}'?" if close else ""
    problem = Problem(f"unknown field '{shown(name)}' of a {draft.kind}", draft.place(name), hint)
    (findings.problems if close or project.settings.strict else findings.warnings).append(problem)


@cache
def _fields_of(struct: type[msgspec.Struct]) -> dict[str, msgspec.structs.FieldInfo]:
    """The fields of a Struct by their names in YAML. Looking them up costs more than checking a value."""
    return {entry.encode_name: entry for entry in msgspec.structs.fields(struct)}


@cache
def _required_of(struct: type[msgspec.Struct]) -> tuple[str, ...]:
    return tuple(name for name, entry in _fields_of(struct).items() if entry.required)


def _shown(value: Any) -> str:
    return shown(repr(value))
