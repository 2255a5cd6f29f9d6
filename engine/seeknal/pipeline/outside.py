"""Whether a piece of code may read something that no fingerprint holds: a file, the network, the clock, chance.

Judged by the packages that it imports and the names that it uses, and careful: what is not known to stay inside is
taken to reach outside.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable

_INSIDE_PACKAGES = frozenset(
    """
    abc array bisect calendar collections contextlib copy dataclasses datetime decimal duckdb enum fractions functools
    heapq itertools json logging math msgspec numpy operator pandas polars pyarrow pydantic re scipy seeknal sklearn
    statistics string textwrap types typing typing_extensions unicodedata warnings __future__
    """.split()
)
_OUTSIDE_NAMES = re.compile(
    r"""(?ix) ^( read_\w+ | scan_\w+ | from_(?:url|file|csv|uri) | open\w* | environ | getenv | input | connect\w* |
    now | today | utcnow | time | random\w* | default_rng | sample | shuffle | urandom | uuid[14] | secrets | globals |
    exec | eval | __import__ | urlopen | load | loadtxt | genfromtxt | fromfile | memmap | glob | iglob | listdir |
    getcwd | current_timestamp | project_path | target_dir | fetch_\w+ | load_\w+ | make_\w+ )$"""
)
_OUTSIDE_TEXT = re.compile(
    r"(?i)\bread_\w+\s*\(|\bglob\s*\(|://|\.(?:csv|parquet|json|jsonl|xlsx|db|sqlite)\b|\brandom\s*\("
    r"|\bnow\s*\(|\bcurrent_(?:date|timestamp|time)\b|\btoday\s*\(|\buuid\s*\("
)


def may_read_outside(nodes: Iterable[ast.AST], project_packages: frozenset[str] = frozenset()) -> bool:
    """Say whether code may depend on more than its inputs. ``project_packages`` are judged by their own code."""
    return any(_reaches_out(inner, project_packages) for node in nodes for inner in ast.walk(node))


def _reaches_out(node: ast.AST, project_packages: frozenset[str]) -> bool:
    if isinstance(node, ast.Import):
        return any(not _is_inside(entry.name, project_packages) for entry in node.names)
    if isinstance(node, ast.ImportFrom):
        return not node.level and not _is_inside(node.module or "", project_packages)
    if isinstance(node, ast.Attribute):
        return bool(_OUTSIDE_NAMES.match(node.attr))
    if isinstance(node, ast.Name):
        return bool(_OUTSIDE_NAMES.match(node.id))
    return isinstance(node, ast.Constant) and isinstance(node.value, str) and bool(_OUTSIDE_TEXT.search(node.value))


def _is_inside(module: str, project_packages: frozenset[str]) -> bool:
    root = module.partition(".")[0]
    return root in _INSIDE_PACKAGES or root in project_packages
