"""What a function's digest counts: everything its result may depend on in the code around it, and nothing else."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from pathlib import Path

import pytest

from seeknal.pipeline.function_digest import digest_of_function
from seeknal.pipeline.module_syntax import ModuleSyntax
from seeknal.pipeline.reach import SyntaxCache, reach_of_function

NODES = '''
"""About the file."""
import math
import pandas as pd
from seeknal.pipeline import transform
from helpers import clean
import unrelated_module

RATE = 2
OTHER = 3
TABLE = {"a": 1}

def helper(x):
    """About the helper."""
    return inner(x) * RATE  # a comment

def inner(x):
    return x + 1

def unrelated(x):
    return x - 1

class Shape:
    size = 1

@transform(name="double", description="twice")
def double(ctx):
    """About the node."""
    # a comment
    return helper(clean(ctx.ref("source.orders")))

@transform(name="other")
def other(ctx):
    return ctx.ref("source.orders")
'''
FILES = {
    "seeknal/nodes.py": NODES,
    "seeknal/helpers.py": "import deeper\nLIMIT = 1\ndef clean(x):\n    return deeper.deep(x)[:LIMIT]\n",
    "deeper.py": "def deep(x):\n    return x\n",
    "unrelated_module.py": "def nothing(x):\n    return x\n",
}


def digest(root: Path, files: Mapping[str, str], function: str = "double") -> str:
    """The digest of a function in ``seeknal/nodes.py``."""
    for name, text in files.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(textwrap.dedent(text), encoding="utf-8")
    module = ModuleSyntax.read(root / "seeknal/nodes.py")
    node, at_top = next(entry for entry in module.functions() if entry[0].name == function)
    syntax = SyntaxCache(root)
    return digest_of_function(module, reach_of_function(syntax, module, node, at_top=at_top), root, {})


def changed(root: Path, old: str, new: str, file: str = "seeknal/nodes.py", function: str = "double") -> bool:
    """Whether replacing a text in one of the files changes a function's digest."""
    before = digest(root, FILES, function)
    assert old in FILES[file]
    return digest(root, {**FILES, file: FILES[file].replace(old, new)}, function) != before


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("a comment", "another comment"),
        ("About the node.", "All about the node."),
        ("About the helper.", "Nothing."),
        ("About the file.", "Something."),
        ('description="twice"', 'description="two times", owner="me"'),
        ("return x - 1", "return x - 2"),
        ("OTHER = 3", "OTHER = 4"),
        ("size = 1", "size = 2"),
        ("    return inner(x) * RATE", "\n    return (inner(x)\n            * RATE)"),
        ('@transform(name="other")\ndef other(ctx):\n    return ctx.ref("source.orders")\n', ""),
        ("import math\n", ""),
    ],
)
def test_what_cannot_change_the_result_does_not_count(tmp_path: Path, old: str, new: str) -> None:
    assert not changed(tmp_path, old, new)


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("seeknal/nodes.py", "RATE = 2", "RATE = 3"),
        ("seeknal/nodes.py", "return x + 1", "return x + 2"),
        ("seeknal/nodes.py", "source.orders", "source.others"),
        ("seeknal/nodes.py", "from helpers import clean", "from deeper import deep as clean"),
        ("seeknal/nodes.py", "RATE = 2", "RATE = 2\npd.options.mode.copy_on_write = True"),
        ("seeknal/nodes.py", "RATE = 2", "RATE = 2\nfor name in [1]:\n    print(name)"),
        ("seeknal/helpers.py", "LIMIT = 1", "LIMIT = 2"),
        ("deeper.py", "return x", "return list(x)"),
        ("unrelated_module.py", "def nothing", "print('an effect')\ndef nothing"),
    ],
)
def test_what_may_change_the_result_counts(tmp_path: Path, file: str, old: str, new: str) -> None:
    assert changed(tmp_path, old, new, file)


def test_a_module_that_the_function_does_not_use_does_not_count(tmp_path: Path) -> None:
    assert not changed(tmp_path, "return x", "return list(x)", "unrelated_module.py")
    assert not changed(tmp_path, "return x", "return list(x)", "deeper.py", function="other")


def test_a_function_that_looks_names_up_depends_on_its_whole_file(tmp_path: Path) -> None:
    looking = NODES.replace("helper(clean(", "globals()['helper'](clean(")
    before = digest(tmp_path, {**FILES, "seeknal/nodes.py": looking})
    assert digest(tmp_path, {**FILES, "seeknal/nodes.py": looking.replace("return x - 1", "return x - 2")}) != before


def test_a_function_that_imports_at_run_time_depends_on_all_modules(tmp_path: Path) -> None:
    importing = NODES.replace("    # a comment\n", "    import importlib\n    importlib.import_module('late')\n")
    files = {**FILES, "seeknal/nodes.py": importing, "seeknal/late.py": "X = 1\n"}
    before = digest(tmp_path, files)
    assert digest(tmp_path, {**files, "seeknal/late.py": "X = 2\n"}) != before


def test_a_function_inside_another_depends_on_what_is_around_it(tmp_path: Path) -> None:
    text = """
    from seeknal.pipeline import transform
    def make(region):
        @transform(name=region)
        def build(ctx):
            return ctx.ref(region)
    make("eu")
    """
    before = digest(tmp_path, {"seeknal/nodes.py": text}, "build")
    assert digest(tmp_path, {"seeknal/nodes.py": text.replace('"eu"', '"us"')}, "build") != before


def test_a_decorator_that_registers_counts_for_all_functions(tmp_path: Path) -> None:
    text = """
    from seeknal.pipeline import transform
    STEPS = []
    def step(function):
        STEPS.append(function)
        return function
    @step
    def first(x):
        return x + 1
    @transform
    def build(ctx):
        return [entry(1) for entry in STEPS]
    """
    before = digest(tmp_path, {"seeknal/nodes.py": text}, "build")
    assert digest(tmp_path, {"seeknal/nodes.py": text.replace("x + 1", "x + 2")}, "build") != before


def test_values_count(tmp_path: Path) -> None:
    before = digest(tmp_path, FILES)
    module = ModuleSyntax.read(tmp_path / "seeknal/nodes.py")
    node, _ = next(entry for entry in module.functions() if entry[0].name == "double")
    reach = reach_of_function(SyntaxCache(tmp_path), module, node, at_top=True)
    assert digest_of_function(module, reach, tmp_path, {"RATE": 1}) != before


def test_relative_imports_and_packages_are_followed(tmp_path: Path) -> None:
    files = {
        "seeknal/nodes.py": """
            from .parts import one
            from parts.two import value
            def double(ctx):
                return one.x, value
        """,
        "seeknal/parts/__init__.py": "",
        "seeknal/parts/one.py": "x = 1\n",
        "seeknal/parts/two.py": "value = 1\n",
    }
    before = digest(tmp_path, files)
    assert digest(tmp_path, {**files, "seeknal/parts/one.py": "x = 2\n"}) != before
    assert digest(tmp_path, {**files, "seeknal/parts/two.py": "value = 2\n"}) != before
    assert digest(tmp_path, {**files, "seeknal/parts/__init__.py": "print(1)\n"}) != before
