"""The digest of a function: what its result may depend on beside its inputs and parameters.

    digest = xxh3_128(Python, packages, the function, what it reaches in its file, the project's modules it imports)

Code counts by its syntax tree, so comments, layout and docstrings do not count, nor do the decorators that only say
which node the function is: what they say counts as the node's fields. Packages count by their versions.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterable, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

import msgspec
import xxhash

from seeknal.pipeline.module_syntax import ModuleSyntax, without_metadata
from seeknal.pipeline.project_modules import imported_packages
from seeknal.pipeline.reach import Reach

# Frames are made by it whether or not a function imports it.
_ALWAYS_COUNTED = frozenset({"pandas"})


def digest_of_function(module: ModuleSyntax, reach: Reach, root: Path, values: Mapping[str, Any]) -> str:
    """Compute a function's digest, as 32 hexadecimal digits. ``values`` are those of names that syntax cannot tell."""
    nodes = list(reach.nodes())
    imported = {name for node in nodes for name in imported_packages(node)} | _ALWAYS_COUNTED
    packages = {name for name in imported if not _is_of_project(name, root, reach.others)}
    keeps_text = "__doc__" in module.text
    said = [
        list(sys.version_info[:2]),
        [[name, version] for name in sorted(packages) if (version := package_version(name))],
        [_dumped(module, node, keeps_text) for node in reach.own],
        [
            [file.relative_to(root).as_posix(), [_dumped(None, node, keeps_text) for node in statements]]
            for file, statements in sorted(reach.others.items())
        ],
        [[name, values[name]] for name in sorted(values)],
    ]
    return xxhash.xxh3_128_hexdigest(msgspec.msgpack.encode(said))


_versions: dict[str, str] = {}


def package_version(name: str) -> str:
    """The installed version of the package that gives a module; empty where there is none."""
    if name not in _versions:
        _versions[name] = _find_version(name)
    return _versions[name]


def _find_version(name: str) -> str:
    from importlib import metadata

    for candidate in chain((name,), _distributions_of(name)):
        try:
            return metadata.version(candidate)
        except metadata.PackageNotFoundError:
            continue
    return ""


def _distributions_of(name: str) -> Iterable[str]:
    """Looked up only for a package whose name is not its module's, because it reads what every package installed."""
    from importlib import metadata

    yield from sorted(metadata.packages_distributions().get(name, ()))


def _dumped(module: ModuleSyntax | None, node: ast.AST, keeps_text: bool) -> str:
    return ast.dump(without_metadata(module, node, keeps_text=keeps_text), annotate_fields=False)


def _is_of_project(name: str, root: Path, files: Iterable[Path]) -> bool:
    places = (root / name, root / f"{name}.py", root / "seeknal" / name, root / "seeknal" / f"{name}.py")
    return any(file.is_relative_to(place) for file in files for place in places)
