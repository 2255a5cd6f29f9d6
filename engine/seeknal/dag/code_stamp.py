"""Stamps of code: what an answer depended on that no file of the project says.

Both are found without importing anything: packages by where their files stand and how they look.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from seeknal.version import __version__

# Those whose versions count in fingerprints.
_PACKAGES = ("duckdb", "sklearn", "skops", "numpy", "scipy", "xgboost")


def engine_stamp() -> str:
    """What this engine is: our version, and the packages that give nodes' outputs."""
    return _stamp(_PACKAGES)


@cache
def reading_stamp() -> str:
    """What reads and analyses a project: our version, our own code, and the packages that it rests on."""
    own = []
    for package in ("dag", "nodes"):
        folder = Path(__file__).parent.parent / package
        for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
            if entry.name.endswith(".py"):
                stat = entry.stat()
                own.append(f"{entry.name}={stat.st_size}/{stat.st_mtime_ns}")
    return f"{_stamp(('duckdb', 'yaml', 'jinja2', 'msgspec'))};{';'.join(own)}"


def _stamp(packages: Sequence[str]) -> str:
    stamp = __version__
    for package in packages:
        spec = find_spec(package)
        if spec is not None and spec.origin is not None:
            stat = os.stat(spec.origin)
            stamp += f"/{spec.origin}/{stat.st_size}/{stat.st_mtime_ns}"
    return stamp
