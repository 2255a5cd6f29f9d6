"""The nodes that a function reads, as its code names them: ``ctx.ref("source.orders")``.

A call counts where the thing before the dot is a parameter of the function, or of a function around it, or is named
``ctx``, and where its arguments are literals. What is computed is not known before it runs; such a node has to be
declared in ``inputs``.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

# method of the context → what its first argument names
_METHODS = {"ref": "", "relation": "", "features": "entity.", "entity": "entity."}

# Attributes of these names (``self.ctx``) are taken to be the context as well.
_CONTEXT_NAMES = ("ctx", "context")


@dataclass(frozen=True, slots=True)
class Reference:
    """One call. ``node_id`` is empty where it is not a literal; ``columns`` None where all of them are read."""

    node_id: str
    columns: tuple[str, ...] | None
    node: ast.expr


def references_in(nodes: Iterable[ast.AST], is_node: Callable[[ast.expr], bool]) -> list[Reference]:
    """Find the calls that read nodes in these pieces of code.

    Functions inside them that are nodes of their own, as ``is_node`` says of their decorators, are left out.
    """
    return [reference for node in nodes for reference in _references(node, frozenset(_CONTEXT_NAMES), is_node)]


def _references(node: ast.AST, parameters: frozenset[str], is_node: Callable[[ast.expr], bool]) -> Iterator[Reference]:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
        arguments = node.args
        every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
        parameters = parameters | {entry.arg for entry in every}
    if isinstance(node, ast.Call):
        found = _reference(node, parameters)
        if found is not None:
            yield found
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef) and any(map(is_node, child.decorator_list)):
            continue
        yield from _references(child, parameters, is_node)


def _reference(call: ast.Call, parameters: frozenset[str]) -> Reference | None:
    method = call.func
    if not isinstance(method, ast.Attribute) or method.attr not in _METHODS:
        return None
    receiver = method.value.id if isinstance(method.value, ast.Name) else getattr(method.value, "attr", "")
    if receiver not in parameters:
        return None
    keywords = {entry.arg: entry.value for entry in call.keywords}
    by_name = (keywords[key] for key in ("node_id", "entity", "name") if key in keywords)
    named = call.args[0] if call.args else next(by_name, None)
    if named is None:
        return None
    text = named.value if isinstance(named, ast.Constant) and isinstance(named.value, str) else ""
    columns = None
    if method.attr in ("ref", "relation"):
        said = call.args[1] if len(call.args) > 1 else keywords.get("columns")
        columns = _literal_names(said)
    return Reference(_METHODS[method.attr] + text if text else "", columns, named)


def _literal_names(node: ast.expr | None) -> tuple[str, ...] | None:
    if not isinstance(node, ast.List | ast.Tuple):
        return None
    names = [entry.value for entry in node.elts if isinstance(entry, ast.Constant) and isinstance(entry.value, str)]
    return tuple(names) if len(names) == len(node.elts) else None
