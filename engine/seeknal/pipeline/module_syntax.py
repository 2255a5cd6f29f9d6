"""A Python file by its syntax: which top-level statement binds which name, and which have effects of their own.

- *binding*: a statement that does nothing but give a name a value; it counts only where the name is used.
- *effect*: a statement that may change more than the name that it binds (a call, a loop, ``x[0] = 1``); it counts for
  all of the file.

Whatever is not known to be without effect has one.
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Iterable, Iterator
from pathlib import Path

MOST_BYTES = 1024 * 1024

DECORATORS = frozenset(
    "source transform feature_group second_order_aggregation aggregation model rule exposure materialize".split()
)

# Called at the top of a file these give a value and change nothing.
_PURE_CALLS = frozenset(
    """
    abs all any bool bytes cast chr compile date datetime Decimal dedent dict enumerate field float Fraction frozenset
    getLogger IcebergTable int itemgetter attrgetter len list map Materialization MaterializationConfig max min
    namedtuple NewType OfflineConfig OnlineConfig ord partial Path ParamSpec PurePath range repr reversed round set
    slice sorted str strip join split lower upper replace sum timedelta timezone tuple TypeVar zip
    """.split()
)
_PURE_DECORATORS = frozenset(
    """
    cache cached_property classmethod contextmanager dataclass final lru_cache overload override property
    runtime_checkable staticmethod total_ordering unique
    """.split()
)
_PURE_BASES = frozenset("object Enum IntEnum StrEnum Exception NamedTuple Protocol Struct TypedDict ValueError".split())

FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef
_SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


class ModuleSyntax:
    """One file taken apart. Raises SyntaxError, or ValueError for text that is no Python at all."""

    def __init__(self, path: Path, text: str) -> None:
        self.path = path
        self.text = text
        self.tree = ast.parse(text, str(path))
        self.bindings: dict[str, list[ast.stmt]] = {}
        self.effects: list[ast.stmt] = []
        # What without_metadata() made of the nodes of this tree, which live as long.
        self.stripped: dict[tuple[int, bool], ast.AST] = {}
        self._decorator_names = _imported_decorators(self.tree)
        for statement in self.tree.body:
            if _is_guard(statement) or isinstance(statement, ast.Pass) or _is_text(statement):
                continue
            for name in _bound_names(statement):
                self.bindings.setdefault(name, []).append(statement)
            if not self._only_binds(statement):
                self.effects.append(statement)

    @classmethod
    def read(cls, path: Path) -> ModuleSyntax:
        """Take a file apart. Raises OSError, SyntaxError, ValueError, RecursionError."""
        return cls(path, decoded(path.read_bytes()))

    def functions(self) -> Iterator[tuple[FunctionNode, bool]]:
        """Yield every function of the file, and whether it stands at the top."""
        top = set(map(id, self.tree.body))
        for node in ast.walk(self.tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield node, id(node) in top

    def function_at(self, line: int) -> tuple[FunctionNode, bool] | None:
        """The function whose first line, decorators included, is ``line``, and whether it stands at the top."""
        for node, at_top in self.functions():
            if line in (first_line(node), node.lineno):
                return node, at_top
        return None

    def is_node_decorator(self, decorator: ast.expr) -> bool:
        """Say whether a decorator is one of :mod:`seeknal.pipeline`."""
        callee = decorator.func if isinstance(decorator, ast.Call) else decorator
        if isinstance(callee, ast.Name):
            return callee.id in self._decorator_names
        if isinstance(callee, ast.Attribute) and callee.attr in DECORATORS:
            root = ast.unparse(callee.value)
            return root in self._decorator_names or root in ("seeknal.pipeline", "seeknal.pipeline.decorators")
        return False

    def _only_binds(self, statement: ast.stmt) -> bool:
        if isinstance(statement, ast.Import | ast.ImportFrom):
            return True
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
            others = [entry for entry in statement.decorator_list if not self.is_node_decorator(entry)]
            defaults = [*statement.args.defaults, *(entry for entry in statement.args.kw_defaults if entry)]
            return all(_last_name(entry) in _PURE_DECORATORS for entry in others) and self._is_pure(*defaults)
        if isinstance(statement, ast.ClassDef):
            decorated = any(_last_name(entry) not in _PURE_DECORATORS for entry in statement.decorator_list)
            inherits = any(_last_name(entry) not in _PURE_BASES for entry in statement.bases)
            body = [entry for entry in statement.body if not isinstance(entry, _SCOPES)]
            return not decorated and not inherits and not statement.keywords and self._is_pure(*body)
        if isinstance(statement, ast.Assign):
            return all(map(_is_name, statement.targets)) and self._is_pure(statement.value)
        if isinstance(statement, ast.AnnAssign):
            return _is_name(statement.target) and (statement.value is None or self._is_pure(statement.value))
        return False

    def _is_pure(self, *nodes: ast.AST) -> bool:
        """Say whether evaluating these changes nothing, as far as syntax tells."""
        for node in nodes:
            for inner in ast.walk(node):
                if isinstance(inner, ast.Await | ast.Yield | ast.YieldFrom | ast.NamedExpr):
                    return False
                if isinstance(inner, ast.Call):
                    name = _last_name(inner)
                    if name not in _PURE_CALLS or (name in self.bindings and not self._is_imported(name)):
                        return False
        return True

    def _is_imported(self, name: str) -> bool:
        return all(isinstance(statement, ast.Import | ast.ImportFrom) for statement in self.bindings[name])


def decoded(data: bytes) -> str:
    """A Python file's text. Raises SyntaxError, ValueError."""
    import io
    import tokenize

    encoding, _ = tokenize.detect_encoding(io.BytesIO(data).readline)
    return io.TextIOWrapper(io.BytesIO(data), encoding, newline=None).read()


def first_line(node: FunctionNode) -> int:
    return min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])


def is_empty(node: FunctionNode) -> bool:
    """Say whether a function does nothing: ``pass``, ``...``, a docstring, ``return`` or ``return None``."""
    return all(
        isinstance(statement, ast.Pass)
        or (isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant))
        or (
            isinstance(statement, ast.Return)
            and (
                statement.value is None or (isinstance(statement.value, ast.Constant) and statement.value.value is None)
            )
        )
        for statement in node.body
    )


def names_used(nodes: Iterable[ast.AST]) -> set[str]:
    """Every name that stands in these pieces of code."""
    return {inner.id for node in nodes for inner in ast.walk(node) if isinstance(inner, ast.Name)}


def without_metadata(module: ModuleSyntax | None, node: ast.AST, *, keeps_text: bool = False) -> ast.AST:
    """A copy of a piece of code without docstrings, and without the decorators that say which node a function is."""
    known = module.stripped if module is not None else {}
    if (id(node), keeps_text) not in known:
        known[id(node), keeps_text] = _Stripped(module, keeps_text).visit(copy.deepcopy(node))
    return known[id(node), keeps_text]


class _Stripped(ast.NodeTransformer):
    def __init__(self, module: ModuleSyntax | None, keeps_text: bool) -> None:
        self._module = module
        self._keeps_text = keeps_text

    def visit(self, node: ast.AST) -> ast.AST:
        if isinstance(node, _SCOPES):
            if self._module is not None:
                decorators = node.decorator_list
                node.decorator_list = [entry for entry in decorators if not self._module.is_node_decorator(entry)]
            if not self._keeps_text and _is_text(node.body[0]):
                node.body = node.body[1:] or [ast.Pass()]
        self.generic_visit(node)
        return node


def _last_name(node: ast.expr) -> str:
    if isinstance(node, ast.Call | ast.Subscript):
        return _last_name(node.func if isinstance(node, ast.Call) else node.value)
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def _is_name(target: ast.expr) -> bool:
    if isinstance(target, ast.Tuple | ast.List):
        return all(map(_is_name, target.elts))
    return isinstance(target, ast.Name)


def _is_text(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


def _is_guard(statement: ast.stmt) -> bool:
    """``if __name__ == "__main__":`` and ``if TYPE_CHECKING:`` are not reached when a module is imported."""
    if not isinstance(statement, ast.If) or statement.orelse:
        return False
    test = statement.test
    if isinstance(test, ast.Compare) and isinstance(test.left, ast.Name) and test.left.id == "__name__":
        return isinstance(test.ops[0], ast.Eq) and ast.unparse(test.comparators[0]) == "'__main__'"
    return _last_name(test) == "TYPE_CHECKING"


def _bound_names(statement: ast.stmt) -> Iterator[str]:
    if isinstance(statement, _SCOPES):
        yield statement.name
        return
    for node in ast.walk(statement):
        if isinstance(node, _SCOPES):
            yield node.name
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store | ast.Del):
            yield node.id
        elif isinstance(node, ast.Import | ast.ImportFrom):
            for entry in node.names:
                yield entry.asname or entry.name.partition(".")[0]
        elif isinstance(node, ast.ExceptHandler | ast.MatchAs | ast.MatchStar) and node.name:
            yield node.name


def _imported_decorators(tree: ast.Module) -> set[str]:
    """The names under which a file has our decorators, and the modules that hold them."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module in ("seeknal.pipeline", "seeknal.pipeline.decorators"):
            names |= {entry.asname or entry.name for entry in node.names}
            if any(entry.name == "*" for entry in node.names):
                names |= DECORATORS
        elif isinstance(node, ast.ImportFrom) and node.module == "seeknal":
            names |= {entry.asname or entry.name for entry in node.names if entry.name == "pipeline"}
        elif isinstance(node, ast.Import):
            names |= {entry.asname for entry in node.names if entry.asname and entry.name.startswith("seeknal.")}
    return names
