"""Calling a node's function in a worker: its file is imported, what it prints goes to a log.

A function is found by its file and the node's id, never sent. What it prints, and the traceback of what it raises,
stand in ``target/logs/<node>.log``; its error is one line, at the last line of the project's own code.
"""

from __future__ import annotations

import contextlib
import inspect
import json
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import xxhash

from seeknal.errors import NodeFailedError, Place
from seeknal.nodes.captured_output import captured_output
from seeknal.nodes.function_reference import PREFIX, FunctionReference, log_path
from seeknal.redaction import hide_variables_read_in

# By root: what the project's files were when they were imported last.
_files: dict[str, dict[str, str]] = {}

_IMPORTS_DUCKDB = re.compile(rb"^[ \t]*(?:import|from)[ \t]+duckdb\b", re.MULTILINE)


@contextlib.contextmanager
def function_running(root: Path, reference: FunctionReference, params: Mapping[str, Any]) -> Iterator[None]:
    """Run code of the user's: in the project's folder, its output captured, its errors as NodeFailedError.

    What it does to the environment variables and to ``sys.path`` ends with it.
    """
    from seeknal.pipeline.project_modules import prepare_imports

    log = log_path(root, reference.node_id)
    if str(root) not in _files:
        prepare_imports(root)
        _files[str(root)] = {}
    process, folder, environment, search_path = os.getpid(), os.getcwd(), dict(os.environ), list(sys.path)
    failure: NodeFailedError | None = None
    with captured_output(log) as output:
        try:
            os.chdir(root)
            os.environ.update({f"{PREFIX}{name.upper()}": _text(value) for name, value in params.items()})
            yield
        except NodeFailedError as error:
            failure = error
        except BaseException as error:
            output.write(_traceback(root, error))
            failure = _failure(root, reference, error)
        finally:
            if os.getpid() != process:
                # A copy of the worker that the function made with os.fork(): it has no task, and must not answer.
                os._exit(1 if failure else 0)
            os.chdir(folder)
            sys.path[:] = search_path
            if os.environ != environment:
                os.environ.clear()
                os.environ.update(environment)
    if failure is not None:
        if not failure.hint and log.exists():
            failure.hint = f"more in {log.relative_to(root).as_posix()}"
        raise failure


def _text(value: Any) -> str:
    """A parameter as an environment variable has it: what is no text, as JSON."""
    text = value if isinstance(value, str) else json.dumps(value)
    return text.replace("\0", "")


def call_function(root: Path, reference: FunctionReference, context: Any) -> Any:
    """Import a node's function and call it. Raises what it raises."""
    function = _function(root, reference)
    result = function(context) if _takes_context(function) else function()
    if inspect.isawaitable(result):
        result.close() if inspect.iscoroutine(result) else None
        raise NodeFailedError(
            f"{reference.name}() is async, which a node cannot be",
            place=Place(reference.file, reference.line),
            hint="write `def`, and run what is async with asyncio.run()",
        )
    return result


def _takes_context(function: Callable[..., Any]) -> bool:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return True
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return any(entry.kind in (*positional, inspect.Parameter.VAR_POSITIONAL) for entry in parameters)


def _function(root: Path, reference: FunctionReference) -> Callable[..., Any]:
    """Import a node's file, and all of the project that it imports, anew.

    So no node sees what another left in a module, and what runs after what in which worker makes no difference.
    """
    from seeknal.pipeline.project_modules import forget_modules, import_file
    from seeknal.pipeline.registry import clear_registry, registrations

    before = _files.get(str(root), {})
    changed = any(before.get(name, digest) != digest for name, digest in reference.files.items())
    forget_modules(root, may_have_changed=changed)
    _files[str(root)] = {**before, **reference.files}
    clear_registry()
    path = root / reference.file
    try:
        import_file(root, path)
    finally:
        # First of all: what a changed file raises says nothing.
        _look_at_files(root, reference)
    own = {entry.node_id: entry.function for entry in registrations() if entry.file == str(path)}
    if reference.node_id not in own:
        raise NodeFailedError(f"{reference.file} does not declare {reference.node_id} when it is imported again")
    return own[reference.node_id]


def _look_at_files(root: Path, reference: FunctionReference) -> None:
    """Raise NodeFailedError where a file is not what the fingerprint was computed for.

    Where one imports DuckDB, its connection for everybody (``duckdb.sql``) is a new one.
    """
    imports_duckdb = False
    for name, digest in reference.files.items():
        try:
            data = (root / name).read_bytes()
        except OSError:
            data = b""
        if xxhash.xxh3_128_hexdigest(data) != digest:
            raise NodeFailedError(f"{name} changed while the project was run", hint="run again")
        # What the code raises or prints may hold them.
        hide_variables_read_in(data.decode("utf-8", "replace"))
        imports_duckdb = imports_duckdb or bool(_IMPORTS_DUCKDB.search(data))
    if imports_duckdb:
        import duckdb

        duckdb.set_default_connection(duckdb.connect(":memory:"))


def _failure(root: Path, reference: FunctionReference, error: BaseException) -> NodeFailedError:
    from seeknal.pipeline.exception_text import cut, described, last_place

    where, line = last_place(root, error) or (reference.file, reference.line)
    if isinstance(error, SystemExit):
        message = f"ends the program: sys.exit({'' if error.code is None else repr(error.code)})"
    elif isinstance(error, SyntaxError):
        message = f"is not valid Python: {error.msg}"
    else:
        message = described(error)
    return NodeFailedError(cut(message.partition(" LINE 1: ")[0]), place=Place(where, line))


def _traceback(root: Path, error: BaseException) -> str:
    """A traceback from the first line of the project's own code on."""
    from seeknal.pipeline.project_files import is_project_file

    try:
        trace = error.__traceback__
        while trace is not None and not is_project_file(root, trace.tb_frame.f_code.co_filename):
            trace = trace.tb_next
        return "".join(traceback.format_exception(type(error), error, trace or error.__traceback__, limit=50))
    except Exception:
        return f"{type(error).__name__}\n"
