"""The project's own modules: which file an import leads to, and how they are imported.

The project's ``seeknal/`` folder and its root stand at the end of ``sys.path``, so a file of the project never takes
the place of an installed package. A file with nodes is imported by its path, under a name in ``seeknal_project``;
imports relative to it work. Nothing is read from or written to ``__pycache__``: its entries are compared by the time in
seconds, and an edit can be faster.
"""

from __future__ import annotations

import ast
import importlib.machinery
import importlib.util
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from seeknal.pipeline.project_files import is_project_file, put_own_modules_first

PACKAGE = "seeknal_project"

# which file


def imported_files(root: Path, path: Path, node: ast.AST) -> list[Path]:
    """The project's files that the imports in a piece of code lead to; ``path`` is the file that it stands in."""
    found: dict[Path, None] = {}
    for name in _imported_names(root, path, node):
        for file in _files_of(root, name):
            found[file] = None
    return [file for file in found if file != path]


def imported_packages(node: ast.AST) -> set[str]:
    """The first names of what is imported absolutely, the standard library and Seeknal left out."""
    names: set[str] = set()
    for inner in ast.walk(node):
        if isinstance(inner, ast.Import):
            names |= {entry.name.partition(".")[0] for entry in inner.names}
        elif isinstance(inner, ast.ImportFrom) and not inner.level and inner.module:
            names.add(inner.module.partition(".")[0])
    return names - sys.stdlib_module_names - {"seeknal", PACKAGE}


def _imported_names(root: Path, path: Path, node: ast.AST) -> Iterator[str]:
    """Every dotted name that may be a module, relative ones as below ``PACKAGE``."""
    for inner in ast.walk(node):
        if isinstance(inner, ast.Import):
            yield from (entry.name for entry in inner.names)
        elif isinstance(inner, ast.ImportFrom):
            prefix = inner.module or ""
            if inner.level:
                package = _package_of(root, path)
                kept = package.split(".")[: len(package.split(".")) - inner.level + 1]
                prefix = ".".join([*kept, *([prefix] if prefix else [])])
            yield prefix
            yield from (f"{prefix}.{entry.name}" for entry in inner.names)


def _package_of(root: Path, path: Path) -> str:
    folder = root / "seeknal"
    parts = path.parent.relative_to(folder).parts if path.is_relative_to(folder) else ()
    return ".".join([PACKAGE, *parts])


@cache
def _files_of(root: Path, name: str) -> tuple[Path, ...]:
    """The files that importing a dotted name executes, where they are the project's."""
    return tuple(_find_files(root, name))


def _find_files(root: Path, name: str) -> Iterator[Path]:
    parts = name.split(".")
    if not parts[0] or parts[0] in sys.stdlib_module_names:
        return
    folders = [root / "seeknal", root]
    if parts[0] in (PACKAGE, "seeknal"):
        folders, parts = [root / "seeknal"], parts[1:]
    for folder in folders:
        for count in range(1, len(parts) + 1):
            place = folder.joinpath(*parts[:count])
            for file in (place / "__init__.py", place.with_name(f"{place.name}.py")):
                if file.is_file() and is_project_file(root, str(file)):
                    yield file


# importing


class _Loader(importlib.machinery.SourceFileLoader):
    """Compiles a file each time."""

    def get_code(self, fullname: str) -> Any:
        path = self.get_filename(fullname)
        return self.source_to_code(self.get_data(path), path)


def prepare_imports(root: Path) -> None:
    """Make the project's modules importable in this process."""
    folder = root / "seeknal"
    put_own_modules_first()
    namespace = sys.modules["seeknal"].__path__
    if str(folder) not in namespace:
        namespace.append(str(folder))
    hook = _path_hook(root)
    sys.path_hooks.insert(0, hook)
    for place in (folder, root):
        if str(place) not in sys.path:
            sys.path.append(str(place))
    # Finders that were made before the hook was there would go on to use the cache.
    sys.path_importer_cache.clear()
    package = ModuleType(PACKAGE)
    package.__path__ = [str(folder)]
    sys.modules[PACKAGE] = package


def _path_hook(root: Path) -> Callable[[str], Any]:
    make = importlib.machinery.FileFinder.path_hook(
        (_Loader, [".py"]),
        (importlib.machinery.ExtensionFileLoader, importlib.machinery.EXTENSION_SUFFIXES),
    )

    def hook(path: str) -> Any:
        if not is_project_file(root, str(Path(path) / "_.py")):
            raise ImportError("not in the project")
        return make(path)

    return hook


def import_file(root: Path, path: Path) -> ModuleType:
    """Import one file of the project by its path, anew. Raises what the module raises."""
    stem = "".join(character if character.isalnum() else "_" for character in path.stem)
    name = f"{_package_of(root, path)}.{stem}"
    spec = importlib.util.spec_from_loader(name, _Loader(name, str(path)), origin=str(path))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    module.__file__ = str(path)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def forget_modules(root: Path, *, may_have_changed: bool = True) -> None:
    """Drop the project's modules from this process, so that they are imported anew.

    ``may_have_changed``: so that files which came since are found as well.
    """
    below = str(root)
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if name.startswith(f"{PACKAGE}.") or (file and file.startswith(below) and is_project_file(root, file)):
            del sys.modules[name]
    if may_have_changed:
        importlib.invalidate_caches()
