"""What a function's result may depend on in the code around it.

- *reach*: the function, the top-level statements of its file that bind the names it uses, those that they use, and
  so on; the file's effects and what they use; and the project's modules that all of that imports.

It is found by names alone, so it is rather too much than too little: a name that is local here and bound at the top
too counts. Code that looks names up at run time (``globals()``, ``eval``) reaches its whole file; code that imports at
run time reaches all of the project's modules.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from seeknal.pipeline.module_syntax import FunctionNode, ModuleSyntax, names_used
from seeknal.pipeline.project_files import is_project_file
from seeknal.pipeline.project_modules import imported_files

_HELPERS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
_LOOKS_UP = frozenset({"globals", "locals", "vars", "eval", "exec", "inspect"})
_IMPORTS_AT_RUN_TIME = frozenset({"__import__", "importlib", "import_module", "runpy", "exec", "pkgutil"})


class SyntaxCache:
    """The syntax of the project's files, each taken apart once."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._modules: dict[Path, ModuleSyntax | None] = {}

    def add(self, module: ModuleSyntax) -> None:
        self._modules[module.path] = module

    def module(self, path: Path) -> ModuleSyntax | None:
        """A file's syntax; None where it cannot be read, which importing it will report."""
        if path not in self._modules:
            try:
                self._modules[path] = ModuleSyntax.read(path)
            except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
                self._modules[path] = None
        return self._modules[path]

    def all_files(self) -> Iterator[Path]:
        """Every Python file of the project."""
        for path in sorted(self.root.rglob("*.py")):
            if is_project_file(self.root, str(path)) and not any(
                part.startswith(".") for part in path.relative_to(self.root).parts
            ):
                yield path


@dataclass
class Reach:
    """What a piece of code depends on: statements of its own file, and statements of other files of the project."""

    own: list[ast.AST]
    others: dict[Path, list[ast.AST]] = field(default_factory=dict)
    unreadable: list[Path] = field(default_factory=list)

    def nodes(self) -> Iterator[ast.AST]:
        yield from self.own
        for nodes in self.others.values():
            yield from nodes


def reach_of_function(cache: SyntaxCache, module: ModuleSyntax, function: FunctionNode, *, at_top: bool) -> Reach:
    """What a function depends on. One that stands inside another depends on its whole file."""
    own = _closure(module, [function, *module.effects])
    if not at_top:
        own = [*own, *(entry for entry in module.tree.body if entry not in own)]
    return _with_imports(cache, module, own)


def helpers_of(
    cache: SyntaxCache, module: ModuleSyntax, function: FunctionNode
) -> Iterator[tuple[ModuleSyntax, ast.AST]]:
    """The functions and classes that a function calls by name, here and in modules that it imports, and theirs.

    Functions that are nodes of their own are left out. Names are compared alone, whatever stands before their dot.
    """
    seen: set[int] = {id(function)}
    queue: list[tuple[ModuleSyntax, ast.AST]] = [(module, function)]
    while queue:
        place, node = queue.pop()
        used = {inner.id for inner in ast.walk(node) if isinstance(inner, ast.Name)}
        used |= {inner.attr for inner in ast.walk(node) if isinstance(inner, ast.Attribute)}
        near = [place]
        for entry in [node, *(statement for name in used for statement in place.bindings.get(name, ()))]:
            near += [other for file in imported_files(cache.root, place.path, entry) if (other := cache.module(file))]
        for other in near:
            for name in used:
                for statement in other.bindings.get(name, ()):
                    if not isinstance(statement, _HELPERS) or id(statement) in seen:
                        continue
                    seen.add(id(statement))
                    if not any(map(other.is_node_decorator, statement.decorator_list)):
                        queue.append((other, statement))
                        yield other, statement


def reach_of_import(cache: SyntaxCache, module: ModuleSyntax) -> Reach:
    """What importing a file depends on: all of its statements, though not what its functions do when called."""
    return _with_imports(cache, module, list(module.tree.body))


def reach_of_effects(cache: SyntaxCache, module: ModuleSyntax, imported: Reach) -> Iterator[ast.AST]:
    """The code that may run when a file is imported: the effects of it and of its modules, and what they call."""
    for entry in (module, *(other for file in imported.others if (other := cache.module(file)) is not None)):
        if entry.effects:
            yield from _with_imports(cache, entry, _closure(entry, entry.effects)).nodes()


def _closure(module: ModuleSyntax, start: Iterable[ast.AST]) -> list[ast.AST]:
    """The start, and the bindings of every name that is used from there on, in the order of the file."""
    first, *rest = start
    reached: dict[int, ast.AST] = {}
    names: set[str] = set()
    queue: list[ast.AST] = [first, *rest]
    while queue:
        node = queue.pop()
        if id(node) in reached:
            continue
        reached[id(node)] = node
        new = names_used(_code_of(module, node)) - names
        names |= new
        for name in new:
            queue += module.bindings.get(name, ())
        if "*" in module.bindings:
            queue += module.bindings["*"]
    if names & _LOOKS_UP:
        return [first, *(entry for entry in module.tree.body if entry is not first)]
    order = {id(entry): index for index, entry in enumerate(module.tree.body)}
    others = [node for node in reached.values() if node is not first]
    return [first, *sorted(others, key=lambda node: order.get(id(node), -1))]


def _code_of(module: ModuleSyntax, node: ast.AST) -> list[ast.AST]:
    """A statement's parts, without the decorators that only say which node a function is."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        decorators = [entry for entry in node.decorator_list if not module.is_node_decorator(entry)]
        return [node.args, *node.body, *decorators, *([node.returns] if node.returns else [])]
    return [node]


def _with_imports(cache: SyntaxCache, module: ModuleSyntax, own: list[ast.AST]) -> Reach:
    reach = Reach(own)
    queue: list[tuple[Path, list[Path]]] = []
    full: set[Path] = set()

    def look(path: Path, nodes: Iterable[ast.AST], *, at_run_time: bool) -> None:
        for node in nodes:
            queue.append((path, imported_files(cache.root, path, node)))
        if at_run_time:
            queue.append((path, [file for file in cache.all_files() if file != module.path]))

    used = names_used(own)
    look(module.path, own, at_run_time=bool(used & _IMPORTS_AT_RUN_TIME))
    # Modules that the function does not use are imported with its file all the same, so their effects count.
    left = _imported_at_top(cache, module)
    seen = {module.path}
    while queue or left:
        while queue:
            _, files = queue.pop()
            for file in files:
                if file in full or file == module.path:
                    continue
                full.add(file)
                other = cache.module(file)
                reach.others[file] = [] if other is None else list(other.tree.body)
                if other is None:
                    reach.unreadable.append(file)
                    continue
                body = reach.others[file]
                look(file, body, at_run_time=bool(names_used(body) & _IMPORTS_AT_RUN_TIME))
        if left:
            file = left.pop()
            other = cache.module(file)
            if file in seen or other is None:
                continue
            seen.add(file)
            left += _imported_at_top(cache, other)
            if other.effects and file not in full:
                reach.others[file] = _closure(other, other.effects)
                look(file, reach.others[file], at_run_time=bool(names_used(reach.others[file]) & _IMPORTS_AT_RUN_TIME))
    return reach


def _imported_at_top(cache: SyntaxCache, module: ModuleSyntax) -> list[Path]:
    """The project's modules that the import statements at the top of a file name."""
    imports = [entry for entry in module.tree.body if isinstance(entry, ast.Import | ast.ImportFrom)]
    return [file for entry in imports for file in imported_files(cache.root, module.path, entry)]
