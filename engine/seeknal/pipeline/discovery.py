"""Discovery: imports a project's Python files and says which nodes they declare.

Importing runs the files' code, so this happens in a process of its own, started by :mod:`seeknal.dag.python_file`. What
that code prints goes nowhere; what it does to the process (the working folder, ``sys.path``, signals) ends with it or
is put back before the next file. The functions that make nodes are not called.
"""

from __future__ import annotations

import ast
import contextlib
import faulthandler
import os
import select
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any, BinaryIO

import msgspec
import xxhash

from seeknal.pipeline.discovered import (
    FoundFile,
    FoundNode,
    FoundProblem,
    FoundReference,
    Request,
)
from seeknal.pipeline.exception_text import cut, described, last_place, said
from seeknal.pipeline.field_places import Positions, places_of
from seeknal.pipeline.function_digest import digest_of_function
from seeknal.pipeline.module_syntax import (
    MOST_BYTES,
    FunctionNode,
    ModuleSyntax,
    decoded,
    is_empty,
    names_used,
    without_metadata,
)
from seeknal.pipeline.outside import may_read_outside
from seeknal.pipeline.plain_values import NotPlain, plain
from seeknal.pipeline.project_files import is_project_file
from seeknal.pipeline.project_modules import PACKAGE, import_file, prepare_imports
from seeknal.pipeline.reach import Reach, SyntaxCache, helpers_of, reach_of_effects, reach_of_function, reach_of_import
from seeknal.pipeline.references import Reference, references_in
from seeknal.pipeline.registry import Registration, clear_registry, registrations
from seeknal.pipeline.script_header import header_problems
from seeknal.pipeline.value_content import content_of, data_of
from seeknal.redaction import hide_secrets, hide_variables_read_in, holds_named_secret
from seeknal.store.filesystem import read_regular


def discover(root: Path, files: list[str], answers: BinaryIO, trace: BinaryIO, patience_seconds: float) -> None:
    """Import files, given relative to the root, and write what each declares as a line of JSON.

    Before each file a line with its name alone is written, so that who waits knows which one does not end.
    """
    prepare_imports(root)
    os.chdir(root)
    faulthandler.enable(trace)
    syntax = SyntaxCache(root)
    for file in files:
        answers.write(msgspec.json.encode(file) + b"\n")
        answers.flush()
        # It works without the interpreter's lock, so it ends code of any kind.
        faulthandler.dump_traceback_later(patience_seconds, exit=True, file=trace)
        found = _discover_file(root, file, syntax)
        faulthandler.cancel_dump_traceback_later()
        answers.write(msgspec.json.encode(found) + b"\n")
        answers.flush()


def _discover_file(root: Path, file: str, syntax: SyntaxCache) -> FoundFile:
    path = root / file
    try:
        data = read_regular(path, MOST_BYTES)
        if len(data) > MOST_BYTES:
            raise ValueError(f"is larger than {MOST_BYTES // 1024 // 1024} MiB")
        text = decoded(data)
        lacking = tuple(header_problems(file, text))
        if lacking:
            return FoundFile(file, problems=lacking)
        if "\0" in text:
            before = text[: text.index("\0")].split("\n")
            hint = "a control character; take it out"
            problem = FoundProblem("holds the character U+0000", file, len(before), len(before[-1]) + 1, hint)
            return FoundFile(file, problems=(problem,))
        module = ModuleSyntax(path, text)
        syntax.add(module)
        imported = reach_of_import(syntax, module)
        for path_ in (path, *imported.others):
            with contextlib.suppress(OSError):
                hide_variables_read_in(path_.read_text(encoding="utf-8", errors="replace"))
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError) as error:
        return FoundFile(file, problems=(_problem(root, file, error),))
    clear_registry()
    surroundings = (list(sys.path), dict(os.environ))
    try:
        namespace = import_file(root, path)
        # What they were given may run code as well.
        declared = [entry for entry in registrations() if entry.file == str(path)]
        return _found_file(root, file, module, imported, namespace, declared, syntax)
    except BaseException as error:
        return FoundFile(file, problems=(_problem(root, file, error),))
    finally:
        sys.path[:], environment = surroundings
        if os.environ != environment:
            os.environ.clear()
            os.environ.update(environment)
        os.chdir(root)


def _found_file(
    root: Path,
    file: str,
    module: ModuleSyntax,
    imported: Reach,
    namespace: ModuleType,
    declared: list[Registration],
    syntax: SyntaxCache,
) -> FoundFile:
    nodes: list[FoundNode] = []
    problems: list[FoundProblem] = []
    lost: list[str] = []
    for registration in declared:
        try:
            nodes.append(_found_node(root, module, namespace, registration, syntax))
        except NotPlain as error:
            shown = ".".join(map(str, error.path))
            places = places_of(module, registration.kind, _function_node(module, registration)[0], registration.line)
            place = max(
                (entry for entry in places if error.path[: len(entry.path)] == entry.path),
                key=lambda entry: len(entry.path),
            )
            problems.append(FoundProblem(f"'{shown}' {error}", file, place.line, place.column))
            lost.append(str(registration.name))
    files = [path for path in imported.others if path.is_file()]
    digests = {path.relative_to(root).as_posix(): _digest(path) for path in [module.path, *files]}
    statements = [entry for entry in imported.nodes() if not _defines(entry)]
    statements += reach_of_effects(syntax, module, imported)
    reads_outside = may_read_outside(
        (without_metadata(None, entry) for entry in _without_imports(statements)), frozenset()
    )
    return FoundFile(
        file, tuple(nodes), tuple(problems), digests, repeatable=not reads_outside and not problems, lost=tuple(lost)
    )


def _found_node(
    root: Path, module: ModuleSyntax, namespace: ModuleType, registration: Registration, syntax: SyntaxCache
) -> FoundNode:
    node, at_top = _function_node(module, registration)
    keywords = {name: plain(value, (name,)) for name, value in registration.keywords.items()}
    _refuse_secrets(keywords, ())
    name = registration.name if isinstance(registration.name, str) else plain(registration.name, ("name",))
    targets = tuple(plain(target, ("materializations", index)) for index, target in enumerate(registration.targets))
    places = places_of(module, registration.kind, node, registration.line)
    function = getattr(registration.function, "__name__", "")
    if node is None:
        # A function from elsewhere, or made by a call: all of the file may matter to it, and what it reads is unseen.
        reach = Reach(list(module.tree.body), reach_of_import(syntax, module).others)
        empty, found = False, []
    else:
        reach = reach_of_function(syntax, module, node, at_top=at_top)
        empty, found = is_empty(node), _references(syntax, module, node)
    positions = Positions(module.text)
    references = tuple(
        FoundReference(entry.node_id, entry.columns, at.lineno, positions.column(at.lineno, at.col_offset))
        for entry, at in found
        if entry.node_id
    )
    code = [without_metadata(module, entry) for entry in reach.nodes()]
    own_modules = frozenset(part for path in reach.others for part in (path.stem, path.parent.name, PACKAGE))
    return FoundNode(
        kind=registration.kind,
        name=name,
        function=function,
        keywords=keywords,
        places=places,
        targets=targets,
        references=references,
        empty=empty,
        reads_unseen=node is None or any(not entry.node_id for entry, _ in found),
        reads_outside=may_read_outside(code, own_modules),
        digest=digest_of_function(module, reach, root, _values(module, reach, namespace, registration, syntax)),
    )


def _refuse_secrets(value: Any, path: tuple[str | int, ...]) -> None:
    """Raise NotPlain where a field holds a secret, which would stand in the manifest."""
    if isinstance(value, dict):
        for key, inner in value.items():
            _refuse_secrets(inner, (*path, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            _refuse_secrets(inner, (*path, index))
    elif isinstance(value, str) and holds_named_secret(value):
        raise NotPlain("holds the value of a variable that is a secret by its name; write '{{ env:NAME }}'", path)


def _function_node(module: ModuleSyntax, registration: Registration) -> tuple[FunctionNode | None, bool]:
    """The function's syntax, through decorators that keep ``__wrapped__``."""
    function: Any = registration.function
    for _ in range(20):
        function = getattr(function, "__wrapped__", function)
    code = getattr(function, "__code__", None)
    if not isinstance(code, CodeType) or code.co_filename != str(module.path):
        return None, False
    return module.function_at(code.co_firstlineno) or (None, False)


def _references(syntax: SyntaxCache, module: ModuleSyntax, node: FunctionNode) -> list[tuple[Reference, Any]]:
    """The nodes that a function reads, itself or in functions that it calls, each with where its code says so."""
    found: list[tuple[Reference, Any]] = [
        (entry, entry.node) for entry in references_in([node], module.is_node_decorator)
    ]
    for other, helper in helpers_of(syntax, module, node):
        for entry in references_in([helper], other.is_node_decorator):
            found.append((entry, entry.node if other is module else node))
    return found


def _values(
    module: ModuleSyntax, reach: Reach, namespace: ModuleType, registration: Registration, syntax: SyntaxCache
) -> dict[str, Any]:
    """What the names hold whose syntax does not tell it: those that effects bind or may change, those of closures."""
    values: dict[str, Any] = {}
    modules = [("", module, namespace)]
    wanted = {str(path): path for path in reach.others}
    for other in list(sys.modules.values()) if wanted else ():
        path = wanted.get(getattr(other, "__file__", None) or "")
        taken_apart = syntax.module(path) if path is not None else None
        if path is not None and taken_apart is not None:
            modules.append((f"{path.relative_to(syntax.root).as_posix()}: ", taken_apart, other))
    for prefix, code, imported in modules:
        effects = set(map(id, code.effects))
        touched = names_used(code.effects)
        for name, statements in code.bindings.items():
            if name not in vars(imported):
                continue
            value = vars(imported)[name]
            if isinstance(value, ModuleType) and is_project_file(syntax.root, getattr(value, "__file__", None)):
                # What a statement does with another module of the project may change any of its names.
                if name in touched:
                    values[f"{prefix}{name}"] = data_of(value)
            elif name in touched or any(id(entry) in effects for entry in statements):
                values[f"{prefix}{name}"] = content_of(value)
    function = registration.function
    compiled, cells = getattr(function, "__code__", None), getattr(function, "__closure__", None) or ()
    for name, cell in zip(compiled.co_freevars if compiled else (), cells, strict=False):
        with contextlib.suppress(ValueError):
            values[f"{name} (closure)"] = content_of(cell.cell_contents)
    return values


def _defines(node: Any) -> bool:
    return isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)


def _without_imports(nodes: list[Any]) -> Iterator[Any]:
    for node in nodes:
        if not isinstance(node, ast.Import | ast.ImportFrom):
            yield node


def _digest(path: Path) -> str:
    return xxhash.xxh3_128_hexdigest(path.read_bytes())


# what went wrong


def _problem(root: Path, file: str, error: BaseException) -> FoundProblem:
    """What an import raised, at the last place of its traceback that is the project's."""
    if isinstance(error, UnicodeDecodeError):
        before = error.object[: error.start].decode("latin-1").splitlines() or [""]
        return FoundProblem("is not UTF-8 text", file, len(before), len(before[-1]) + 1, "save the file as UTF-8")
    own = isinstance(error, SyntaxError) and is_project_file(root, error.filename)
    if isinstance(error, SyntaxError) and (own or last_place(root, error) is None):
        # In this file, or in one that it imports.
        where = Path(str(error.filename)).relative_to(root).as_posix() if own else file
        line, column = (error.lineno, error.offset) if own else (1, 1)
        return FoundProblem(cut(f"is not valid Python: {error.msg}"), where, line or 1, max(column or 0, 0))
    where, line = last_place(root, error) or (file, 0)
    if isinstance(error, SystemExit):
        message = f"ends the program while it is imported: sys.exit({'' if error.code is None else repr(error.code)})"
        return FoundProblem(cut(message), where, line, hint="take the call out, or put it into a function")
    if line == 0 and isinstance(error, OSError):
        return FoundProblem(f"cannot be read: {error.strerror}", file)
    if line == 0 and isinstance(error, ValueError | RecursionError | MemoryError):
        return FoundProblem(cut(f"is not valid Python: {said(error)}"), file)
    hint = ""
    if isinstance(error, ModuleNotFoundError) and error.name:
        hint = f"install it, or put {error.name.partition('.')[0]}.py beside the project's other modules"
    return FoundProblem(cut(f"cannot be imported: {described(error)}"), where, line, hint=hint)


def main(text: bytes) -> None:
    """Answer a request, and end without waiting for what the modules may have started."""
    request = msgspec.json.decode(text, type=Request)
    hide_secrets(request.secrets)
    for descriptor in (request.answers, request.trace):
        os.set_inheritable(descriptor, False)
    threading.Thread(target=_follow_caller, args=(request.answers,), daemon=True).start()
    # Unbuffered, because a crash takes along what stands in a buffer.
    with os.fdopen(request.trace, "wb", buffering=0) as trace, os.fdopen(request.answers, "wb") as answers:
        discover(Path(request.root), request.files, answers, trace, request.patience_seconds)
        os._exit(0)


def _follow_caller(answers: int) -> None:
    """End this process, and all that it started, when nobody is left who would read its answers."""
    listening = select.poll()
    # Nothing is asked for: that the other end is closed is told in any case.
    listening.register(answers, 0)
    listening.poll()
    os.killpg(0, signal.SIGKILL)
