"""Rendering: the templates in a node's fields are filled in.

Not every field has templates: those that hold SQL, those that name a place outside (``table``, ``path``, ``url``), and
every text inside ``params``. Which values a template may have there depends on what the field is for:

- *SQL*: see :mod:`seeknal.dag.sql_value`.
- *path*: a value from the command line or the environment must not lead out of the project.
- *param*: any value. A text that is nothing but one template becomes the template's value; and a rendered text that
  says a number or a truth value becomes that.
- *text*: any single value, as text.
- *late*: as text, but ``{{ env:… }}`` stays as it is: what exposures send over the network is where secrets stand, and
  those are looked up when it is sent (:mod:`seeknal.nodes.late_value`).

A node is rendered twice where it uses a volatile name: once with the stand-in, for its fingerprint, and once with the
real value, for the run. Paths have the real value always, because what is outside cannot be found by a stand-in, and
because no fingerprint holds a path.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

import msgspec

from seeknal.dag.names import nearest
from seeknal.dag.parameters import CONTEXT, DAYS, WHEN_GIVEN, RunParameters, Value
from seeknal.dag.project import Project
from seeknal.dag.shared_configuration import SharedConfiguration, SharedValue, read_shared_configuration
from seeknal.dag.template import Rendered, SqlText, TemplateError
from seeknal.dag.templated_text import Purpose, TemplatedText
from seeknal.dag.yaml_file import KeyPath

_SQL_FIELDS = frozenset({"transform"})
_SQL_KEYS = frozenset({"sql", "query", "value", "condition"})
_CHECKING_FIELDS = frozenset({"rule", "audits", "tests"})
# What a check says beside SQL; any other text in it may be SQL, also that of a rule that is nothing but a text.
_CHECK_VALUES = frozenset(
    """type name description severity error_message column columns values min max min_val max_val max_age per_row
    max_null_percentage max_duplicate_percentage metric fail warn""".split()
)
_PATH_FIELDS = frozenset({"table", "path"})
_SENT_FIELDS = frozenset({"url", "message", "payload"})
_SENT_PARAMS = _SENT_FIELDS | {"headers", "auth"}
# What templates of other tools call, and how the same is said here.
_WORDS_OF_OTHERS = {
    "source": "name the node, as in source.orders or {{ ref('source.orders') }}",
    "var": "name the parameter itself, as in {{ region }}",
    "env_var": "write {{ env:NAME }}, or {{ env:NAME|default }}",
    "this": "a node cannot read its own former output",
    "config": "what a node is stands in the fields beside its SQL",
}
_TEMPLATED = _SQL_FIELDS | _CHECKING_FIELDS | _PATH_FIELDS | _SENT_FIELDS | {"params", "features"}


class TemplateProblem(msgspec.Struct, frozen=True):
    """What is wrong with a template: at a field of the node and an offset in it, or in a shared file (``shared``)."""

    message: str
    hint: str
    path: KeyPath
    offset: int | None
    shared: SharedValue | None = None


class RenderedNode(msgspec.Struct):
    """A node's fields with their templates filled in.

    ``values`` are the fields; ``texts`` say for each rendered text what stands where in it. ``params`` are the node's
    own params as code of the node's sees them: what ``--params`` gives under the same names goes before them.
    ``uses`` are the names and variables that mattered, ``volatile`` those among them that are new in every run.
    """

    values: dict[str, Any]
    texts: dict[KeyPath, Rendered] = {}
    params: dict[str, Any] = {}
    uses: tuple[str, ...] = ()
    volatile: tuple[str, ...] = ()
    problems: list[TemplateProblem] = []


class Renderer:
    """Renders the nodes of a project for one run."""

    def __init__(self, project: Project, parameters: RunParameters) -> None:
        self.project = project
        self.parameters = parameters

    @cached_property
    def shared(self) -> SharedConfiguration:
        """The project's shared configuration, and what is wrong with it."""
        return read_shared_configuration(self.project)

    def needs_rendering(self, fields: Mapping[str, Any], *, code: bool = False) -> bool:
        """Say whether rendering may give anything else than the fields themselves; ``code`` as for :meth:`render`."""
        return code or any(name in _TEMPLATED and _has_template(value) for name, value in fields.items())

    def render(self, fields: Mapping[str, Any], *, real: bool = False, code: bool = False) -> RenderedNode:
        """Render a node's fields. ``real``: with the real values of volatile names. ``code``: the node is a function,
        which may ask for any of its params.
        """
        return _Node(self, fields, real=real).render(code=code)


def _has_template(value: Any) -> bool:
    if isinstance(value, str):
        return "{{" in value or "{%" in value
    if isinstance(value, dict):
        return any(map(_has_template, value.values()))
    return isinstance(value, list) and any(map(_has_template, value))


def _purpose(path: KeyPath, kind: object) -> Purpose | None:
    """What the text at a path is for; None where templates are not filled in."""
    if kind == "exposure" and (
        path[0] in _SENT_FIELDS or (path[0] == "params" and path[1:2] and path[1] in _SENT_PARAMS)
    ):
        return "late"
    first, last = path[0], next((key for key in reversed(path) if isinstance(key, str)), "")
    if first in _SQL_FIELDS or (first == "features" and last == "condition"):
        return "sql"
    if first in _CHECKING_FIELDS:
        return "param" if last in _CHECK_VALUES else "sql"
    if first in _PATH_FIELDS:
        return "path"
    if first in _SENT_FIELDS:
        return "text"
    if first == "params":
        # A rule's own params may say what its checks do not.
        if len(path) == 2 and last in _SQL_KEYS and (last != "value" or kind == "rule"):
            return "sql"
        return "path" if len(path) == 2 and last in _PATH_FIELDS else "param"
    return None


class _Node:
    """One node while it is rendered: the scope of its templates."""

    def __init__(self, renderer: Renderer, fields: Mapping[str, Any], *, real: bool) -> None:
        self._renderer = renderer
        self._parameters = renderer.parameters
        self._fields = fields
        self._kind = fields.get("kind")
        self._real = real
        self._result = RenderedNode({})
        self._uses: dict[str, None] = {}
        self._volatile: dict[str, None] = {}
        self._own: dict[tuple[str, bool], Value] = {}
        self._open: list[str] = []

    def render(self, *, code: bool) -> RenderedNode:
        values = {
            name: self._value(value, (name,)) if name in _TEMPLATED else value for name, value in self._fields.items()
        }
        self._result.values = values
        params = values.get("params")
        self._result.params = dict(params) if isinstance(params, dict) else {}
        if code:
            for name in self._result.params:
                given = self._parameters.override(name)
                if given is not None:
                    self._result.params[name] = given.value
                    self._uses[name] = None
        self._result.uses, self._result.volatile = tuple(self._uses), tuple(self._volatile)
        return self._result

    def _value(self, value: Any, path: KeyPath) -> Any:
        if isinstance(value, dict):
            return {key: self._value(item, (*path, key)) for key, item in value.items()}
        if isinstance(value, list):
            return [self._value(item, (*path, index)) for index, item in enumerate(value)]
        purpose = _purpose(path, self._kind) if _has_template(value) else None
        return value if purpose is None else self._text(value, path, purpose, real=self._real).value

    def _text(self, text: str, path: KeyPath, purpose: Purpose, *, real: bool) -> Value:
        """Render one text of the node's, and note what stands where in it."""
        scope = _Scope(self, real=real or purpose == "path")
        render = TemplatedText(text, scope, self._renderer.project)
        value, rendered = render.render(purpose)
        for message, hint, offset in render.problems:
            self._report(TemplateProblem(message, hint, path, offset))
        if rendered is not None and rendered.segments and real == self._real:
            self._result.texts[path] = rendered
        return Value(value, scope.trusted, scope.volatile)

    def _report(self, problem: TemplateProblem) -> None:
        # A param is rendered for itself, and for every template that names it.
        if problem not in self._result.problems:
            self._result.problems.append(problem)

    # what names stand for

    def find(self, name: str, scope: _Scope) -> Value | None:
        parameters = self._parameters
        value = parameters.override(name)
        value = value or parameters.context(name, self._renderer.project, real=scope.real)
        if value is None:
            params = self._fields.get("params")
            if isinstance(params, dict) and name in params:
                value = self._own_param(name, scope.real)
        return value or parameters.day(name) or self._shared(name, scope)

    def note(self, name: str, value: Value, *, real: bool) -> None:
        """Note that a name mattered."""
        self._uses[name] = None
        if value.volatile and real and not self._real:
            # In a path, where no fingerprint sees it: the next run has another.
            self._parameters.never_settles = True
        elif value.volatile:
            self._volatile[name] = None

    def _own_param(self, name: str, real: bool) -> Value:
        key = (name, real)
        if key in self._own:
            return self._own[key]
        if name in self._open:
            circle = " -> ".join([*self._open[self._open.index(name) :], name])
            raise TemplateError(f"params name each other in a circle: {circle}", "write one of the values out")
        self._open.append(name)
        try:
            value = self._rendered(self._fields["params"][name], ("params", name), real=real)
        finally:
            self._open.pop()
        self._own[key] = value
        return value

    def _rendered(self, raw: Any, path: KeyPath, *, real: bool) -> Value:
        """A param for other templates; a list or mapping is as trusted as what is in it."""
        if isinstance(raw, dict):
            inner = {key: self._rendered(item, (*path, key), real=real) for key, item in raw.items()}
            value: Any = {key: item.value for key, item in inner.items()}
            parts = list(inner.values())
        elif isinstance(raw, list):
            parts = [self._rendered(item, (*path, index), real=real) for index, item in enumerate(raw)]
            value = [item.value for item in parts]
        elif _has_template(raw):
            purpose = _purpose(path, self._kind) or "param"
            found = self._text(raw, path, purpose, real=real)
            return Value(SqlText(found.value), True, found.volatile) if purpose == "sql" else found
        else:
            return Value(raw)
        return Value(value, all(part.trusted for part in parts), any(part.volatile for part in parts))

    # shared configuration

    def _shared(self, name: str, scope: _Scope) -> Value | None:
        shared = self._renderer.shared
        if name == "rules":
            return Value(_Shelf(name, shared.rules, lambda found: _in_parentheses(self._shared_sql(found, scope))))
        if name == "transforms":
            return Value(_Shelf(name, shared.transforms, lambda found: self._shared_sql(found, scope)))
        if name in shared.sources:
            return Value(_Shelf(name, shared.sources[name], lambda found: self._shared_value(found, scope, "param")))
        return None

    def _shared_sql(self, found: SharedValue, scope: _Scope) -> SqlText:
        return SqlText(self._shared_value(found, scope, "sql"))

    def _shared_value(self, found: SharedValue, scope: _Scope, purpose: Purpose) -> Any:
        """A value from a shared file; its own templates see what the node's do."""
        if not _has_template(found.value):
            return found.value
        key = f"{found.file}: {'.'.join(map(str, found.path))}"
        if key in self._open:
            raise TemplateError(f"shared values name each other in a circle, at {key}", "write one of them out")
        self._open.append(key)
        try:
            inner = _Scope(self, real=scope.real)
            render = TemplatedText(found.value, inner, self._renderer.project)
            value, _ = render.render(purpose)
        finally:
            self._open.pop()
        for message, hint, offset in render.problems:
            self._report(TemplateProblem(message, hint, (), offset, found))
        scope.trusted = scope.trusted and (inner.trusted or purpose == "sql")
        scope.volatile = scope.volatile or inner.volatile
        return value

    # what is wrong

    def known(self) -> list[str]:
        params = self._fields.get("params")
        given = [name for name in self._parameters.given.values() if name not in WHEN_GIVEN]
        own = [str(name) for name in params] if isinstance(params, dict) else []
        return list(dict.fromkeys([*given, *own, *DAYS, *CONTEXT, *self._renderer.shared.keys()]))


class _Scope:
    """A node's scope for one text; collects whether what it answered is trusted and volatile."""

    def __init__(self, node: _Node, *, real: bool) -> None:
        self._node = node
        self.real = real
        self.trusted = True
        self.volatile = False

    def find(self, name: str) -> Value | None:
        value = self._node.find(name, self)
        if value is not None:
            self._node.note(name, value, real=self.real)
            self.volatile = self.volatile or value.volatile
        return value

    def variable(self, name: str) -> str | None:
        self._node._uses[f"env:{name}"] = None
        return self._node._parameters.variable(name)

    def unknown(self, names: Sequence[str]) -> TemplateError:
        name = names[0]
        if name in WHEN_GIVEN:
            return TemplateError(f"'{name}' was not given", f"give it with {WHEN_GIVEN[name]}")
        hint = _WORDS_OF_OTHERS.get(name) or _hint(name, self._node.known())
        return TemplateError(f"nothing is called '{name}'", hint)


class _Shelf:
    """Shared values of one kind, as a template reaches into them: ``rules.valid``."""

    def __init__(self, name: str, values: Mapping[str, SharedValue], read: Callable[[SharedValue], Any]) -> None:
        self._name = name
        self._values = values
        self._read = read

    def __getitem__(self, key: str) -> Any:
        if key not in self._values:
            known = [f"{self._name}.{known}" for known in self._values]
            raise TemplateError(f"there is no {self._name}.{key}", _hint(f"{self._name}.{key}", known))
        return self._read(self._values[key])


def _hint(name: str, known: Sequence[str]) -> str:
    """What may have been meant, and everything there is."""
    close = nearest(name, known)
    meant = f"did you mean {' or '.join(map(repr, close))}? " if close else ""
    return f"{meant}there is: {', '.join(known) or 'nothing'}"


def _in_parentheses(predicate: SqlText) -> SqlText:
    """Put parentheses around a predicate of several parts, so that it stays one beside AND, OR and NOT."""
    from seeknal.dag.tokens import tokens

    depth, parts = 0, False
    for piece in tokens(predicate):
        depth += (piece.text in "([{") - (piece.text in ")]}")
        if depth == 0 and piece.text == ",":
            return predicate
        parts = parts or (depth == 0 and piece.name in ("and", "or", "not", "between"))
    if not parts:
        return predicate
    return SqlText(f"({predicate}\n)" if "--" in predicate else f"({predicate})")
