"""Templates: ``{{ expression }}`` in a text, and what it stands for.

An expression is one of Jinja's, evaluated in its sandbox and strictly: a name that nothing answers is an error. Two
forms are not Jinja's: ``{{ env:VAR|default }}``, an environment variable, and ``{{ ref('orders') }}``, which stays as
it is until the SQL is taken apart. Blocks (``{% … %}``) are not filled in.

- *scope*: what answers names.
- *trusted*: made of what the project's author wrote. What comes from the command line or the environment is not, and
  neither is anything computed from it; a choice between trusted things is trusted, whatever decided it.
- *segment*: the part of a rendered text that stands for one template, so that a place in it can be found in the file.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache, wraps
from itertools import islice
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from seeknal.dag.parameters import DayText, Value
from seeknal.dag.tokens import TEMPLATE_PATTERN
from seeknal.late_pattern import late_pattern

if TYPE_CHECKING:
    from jinja2 import nodes

_TEMPLATE = late_pattern(TEMPLATE_PATTERN)
_VARIABLE = late_pattern(r"\s*env:\s*([A-Za-z_]\w*)\s*(\|(.*))?", re.DOTALL)
REFERENCE = late_pattern(r"""\{\{\s*ref\s*\(\s*(?P<quote>['"])(?P<target>[^'"]*)(?P=quote)\s*\)\s*\}\}""")

MOST_CHARACTERS = 1024 * 1024


class TemplateError(Exception):
    """A template cannot be filled in: why, the way out, and how far behind its ``{{`` where that is known."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class SqlText(str):
    """A text that is SQL as it stands, because it was made for that: it needs no further checking."""


class Scope(Protocol):
    """What answers the names in a template."""

    def find(self, name: str) -> Value | None:
        """The value of a name, None where nothing answers it. Raises TemplateError."""
        ...

    def variable(self, name: str) -> str | None:
        """An environment variable's value, None where it is not set."""
        ...

    def unknown(self, names: Sequence[str]) -> TemplateError:
        """Say that nothing answers these names, and what there is."""
        ...


class Found(msgspec.Struct, frozen=True):
    """A template in a text: ``text[start:end]``, with what stands between the braces."""

    start: int
    end: int
    expression: str

    @property
    def is_variable(self) -> bool:
        """Whether it is an environment variable."""
        return self.expression.lstrip().startswith("env:")


class Segment(msgspec.Struct, frozen=True):
    """Where a template stood, and where in the rendered text its value stands."""

    start: int
    end: int
    source_start: int
    source_end: int
    trusted: bool = True


class Rendered(msgspec.Struct, frozen=True):
    """A text with its templates filled in."""

    text: str
    segments: tuple[Segment, ...] = ()

    def source_offset(self, offset: int) -> int:
        """Turn an offset into one in the text as it was written; inside a value, the place of its ``{{``."""
        shift = 0
        for segment in self.segments:
            if offset < segment.start:
                break
            if offset < segment.end:
                return segment.source_start
            shift = segment.source_end - segment.end
        return offset + shift


def templates_in(text: str) -> Iterator[Found]:
    """Find the templates in a text, without ``{{ ref('…') }}``."""
    if "{{" not in text:
        return
    for match in _TEMPLATE.finditer(text):
        if not REFERENCE.fullmatch(match[0]):
            yield Found(match.start(), match.end(), match[0][2:-2])


def unclosed(text: str) -> int | None:
    """Where a ``{{`` stands that no ``}}`` belongs to; None where there is none."""
    start = _TEMPLATE.sub(lambda match: "\0" * len(match[0]), text).find("{{")
    return start if start >= 0 else None


def assemble(text: str, values: Sequence[tuple[Found, str, bool]]) -> Rendered:
    """Put values in the place of templates; each with whether it is trusted."""
    pieces: list[str] = []
    segments: list[Segment] = []
    position = length = 0
    for found, value, trusted in values:
        length += found.start - position
        segments.append(Segment(length, length + len(value), found.start, found.end, trusted))
        pieces += [text[position : found.start], value]
        position, length = found.end, length + len(value)
    return Rendered("".join([*pieces, text[position:]]), tuple(segments))


def evaluate(expression: str, scope: Scope) -> Value:
    """Evaluate what stands between the braces. Raises TemplateError."""
    variable = _VARIABLE.fullmatch(expression)
    if variable:
        return _environment_variable(variable, scope)
    if expression.lstrip().startswith("env:"):
        raise TemplateError(
            f"'{expression.strip()}' names no variable", "write {{ env:NAME }} or {{ env:NAME|default }}"
        )
    compiled = _compiled(expression)
    context: dict[str, Any] = {"ref": _reference} if "ref" in compiled.names else {}
    missing: list[str] = []
    trusted, volatile = True, False
    for name in compiled.names:
        value = scope.find(name)
        if value is not None:
            context[name] = value.value
            volatile = volatile or value.volatile
            trusted = trusted and (value.trusted or name not in compiled.giving)
        elif name != "ref":
            missing.append(name)
    try:
        result = compiled.evaluate(context, missing, scope)
    except TemplateError as error:
        raise TemplateError(f"{{{{ {expression.strip()} }}}}: {error.message}", error.hint) from None
    return Value(result, trusted, volatile)


def _reference(target: Any) -> SqlText:
    return SqlText("ref('" + str(target).replace("'", "''") + "')")


def _environment_variable(match: re.Match[str], scope: Scope) -> Value:
    said = scope.variable(match[1])
    if said is not None:
        return Value(said, trusted=False)
    if match[2] is None:
        raise TemplateError(
            f"the environment variable {match[1]} is not set",
            f"set it, in .env for example, or give a default: {{{{ env:{match[1]}|default }}}}",
        )
    return Value(match[3].strip())


# The widths and precisions in the text of a format: "%9d", "{:>9}", "{:.9}".
_WIDTHS = late_pattern(r"[%{][^%{}]*?(\d{6,18})", re.ASCII)

# What Jinja takes for no name.
_WORDS = frozenset({"true", "false", "none", "True", "False", "None", "not", "self"})
_SIMPLE = late_pattern(r"\s*([A-Za-z_]\w*)\s*(?:(\()\s*(-?\d{1,9})?\s*\)\s*)?", re.ASCII)


class _Call:
    """A name, or a name that is called with at most one number: most templates, which need no Jinja."""

    def __init__(self, name: str, arguments: Sequence[int] | None) -> None:
        self.names = [name]
        self.giving = frozenset(self.names)
        self._arguments = arguments

    def evaluate(self, context: Mapping[str, Any], missing: Sequence[str], scope: Scope) -> Any:
        if missing:
            raise scope.unknown(missing)
        (value,) = context.values()
        if self._arguments is None:
            return value
        if not isinstance(value, DayText):
            raise TemplateError("it takes no offset", "the days do: today, yesterday, month_start, year_start")
        try:
            return value(*self._arguments)
        except (ArithmeticError, ValueError) as error:
            raise TemplateError(str(error)) from None


class _Expression:
    """A compiled expression. ``names``: all that it asks for; ``giving``: those whose values the result is made of."""

    def __init__(self, text: str) -> None:
        from jinja2 import TemplateSyntaxError
        from jinja2 import nodes as jinja_nodes
        from jinja2.parser import Parser

        environment = _jinja()
        try:
            tree = Parser(environment, text, state="variable").parse_expression()
            self._evaluate = environment.compile_expression(text, undefined_to_none=False)
        except TemplateSyntaxError as error:
            raise TemplateError(
                f"'{{{{{text}}}}}' is no expression: {error.message}",
                "for DuckDB's braces put a space between them: { {; for braces as text write {{ '{{' }}",
            ) from None
        except (ArithmeticError, MemoryError, RecursionError, SyntaxError, ValueError) as error:
            # Python's limits, which an expression meets that is nested deeply, or holds an endless number.
            raise TemplateError(f"'{{{{{text[:80]}}}}}' cannot be read: {error or type(error).__name__}") from None
        every = tree.find_all(jinja_nodes.Name)
        self.names = list(dict.fromkeys(name.name for name in [*_itself(tree), *every]))
        self.giving = frozenset(_giving(tree))

    def evaluate(self, context: Mapping[str, Any], missing: Sequence[str], scope: Scope) -> Any:
        from jinja2 import TemplateError as JinjaError
        from jinja2 import Undefined, UndefinedError

        if "self" in missing:
            # Jinja's own word for the template itself, which nobody asks for here.
            raise scope.unknown(missing)
        try:
            result = self._evaluate(**context)
            if isinstance(result, Undefined):
                # Asking an undefined value for its text raises what is wrong with it.
                str(result)
            if isinstance(result, Iterator):
                result = list(islice(result, MOST_CHARACTERS))
        except UndefinedError as error:
            if missing:
                raise scope.unknown(missing) from None
            raise TemplateError(str(error.message)) from None
        except JinjaError as error:
            raise TemplateError(str(error.message or error)) from None
        except TemplateError:
            raise
        except Exception as error:
            raise TemplateError(str(error) or type(error).__name__) from None
        return result


@lru_cache(maxsize=4096)
def _compiled(expression: str) -> _Call | _Expression:
    simple = _SIMPLE.fullmatch(expression)
    if simple and simple[1] not in _WORDS and simple[1] != "ref":
        arguments = None if not simple[2] else [int(simple[3])] if simple[3] else []
        return _Call(simple[1], arguments)
    return _Expression(expression)


def _itself(tree: nodes.Node) -> list[nodes.Name]:
    from jinja2 import nodes as jinja_nodes

    return [tree] if isinstance(tree, jinja_nodes.Name) else []


def _giving(tree: nodes.Node) -> Iterator[str]:
    """The names whose values an expression's value is made of: not those that only decide."""
    from jinja2 import nodes as jinja_nodes

    if isinstance(tree, jinja_nodes.Name):
        yield tree.name
    elif isinstance(tree, jinja_nodes.Compare | jinja_nodes.Test | jinja_nodes.Not):
        return
    elif isinstance(tree, jinja_nodes.CondExpr):
        yield from _giving(tree.expr1)
        if tree.expr2 is not None:
            yield from _giving(tree.expr2)
    else:
        for part in tree.iter_child_nodes():
            yield from _giving(part)


@lru_cache(maxsize=1)
def _jinja() -> Any:
    from jinja2 import StrictUndefined
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Sandbox(ImmutableSandboxedEnvironment):
        intercepted_binops = frozenset({"*", "**", "~", "+", "%"})

        def call(self, context: Any, obj: Any, *arguments: Any, **named: Any) -> Any:
            # The sandbox wraps the formatting methods of texts.
            method = getattr(obj, "__wrapped__", obj)
            text = getattr(method, "__self__", None)
            if isinstance(text, str):
                formats = method.__name__ in ("format", "format_map")
                _refuse_wide(text if formats else "", [*arguments, *named.values()])
                _refuse_many(method.__name__, [text, *arguments, *named.values()])
            return super().call(context, obj, *arguments, **named)

        def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
            _refuse_giants(operator, left, right)
            return super().call_binop(context, operator, left, right)

    def replace(text: Any, old: Any, new: Any, count: Any = None) -> Any:
        _refuse_many("replace", [str(text), str(old), str(new)])
        return str(text).replace(str(old), str(new), -1 if count is None else count)

    # Without the optimizer nothing is computed before it is asked for.
    environment = Sandbox(undefined=StrictUndefined, autoescape=False, optimized=False)
    environment.globals.clear()
    environment.filters.update({name: _not_wide(environment.filters[name]) for name in _WIDENING})
    environment.filters["replace"] = replace
    environment.filters["join"] = _joining(environment.filters["join"])
    environment.filters.update(_sql_filters())
    return environment


def _refuse_giants(operator: str, left: Any, right: Any) -> None:
    """Refuse what would take all memory or hours: ``'a' * 10**9``, ``9**9**9``."""
    if operator == "**" and isinstance(left, int) and isinstance(right, int) and right * left.bit_length() > 4096:
        raise TemplateError("the number is too large")
    if operator == "%" and isinstance(left, str):
        _refuse_wide(left, right if isinstance(right, tuple) else [right])
    if operator == "*":
        for text, times in ((left, right), (right, left)):
            if isinstance(text, str | list | tuple) and isinstance(times, int) and len(text) * times > MOST_CHARACTERS:
                raise TemplateError("the text is too long")


def _refuse_many(method: str, arguments: Sequence[Any]) -> None:
    """Refuse to put a text into another as often as would take all memory."""
    text, first = arguments[0], arguments[1] if len(arguments) > 1 else ""
    length = 0
    if method == "replace" and len(arguments) > 2 and isinstance(first, str) and isinstance(arguments[2], str):
        length = text.count(first) * len(arguments[2])
    elif method == "join" and isinstance(first, str | list | tuple | dict | set):
        length = len(text) * len(first) + sum(len(part) for part in first if isinstance(part, str))
    if length > MOST_CHARACTERS:
        raise TemplateError("the text is too long")


def _joining(function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    def joined(context: Any, value: Any, separator: str = "", attribute: Any = None) -> Any:
        parts = list(islice(value, MOST_CHARACTERS))
        _refuse_many("join", [str(separator), [str(part) for part in parts]])
        return function(context, parts, separator, attribute)

    return joined


# The filters of Jinja's whose result may be much longer than what they are given.
_WIDENING = ("batch", "center", "format", "indent")


def _not_wide(function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    def checked(*given: Any, **named: Any) -> Any:
        text = given[0] if function.__name__ == "do_format" and given and isinstance(given[0], str) else ""
        _refuse_wide(text, [*given, *named.values()])
        return function(*given, **named)

    return checked


def _refuse_wide(text: str, arguments: Iterable[Any]) -> None:
    """Refuse widths that would take all memory: in the text of a format, or as an argument."""
    wide = any(isinstance(entry, int) and abs(entry) > MOST_CHARACTERS for entry in arguments)
    if (wide and (not text or "*" in text)) or any(int(digits) > MOST_CHARACTERS for digits in _WIDTHS.findall(text)):
        raise TemplateError("the text is too long")


def _sql_filters() -> dict[str, Callable[[Any], SqlText]]:
    from seeknal.dag.sql_value import as_identifiers, as_literals

    return {"literal": as_literals, "identifier": as_identifiers}
