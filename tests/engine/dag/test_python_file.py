"""Finding nodes in Python files: in a process of their own, with every failure told at its place."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from seeknal.dag.parse import ParsedProject, parse_project
from seeknal.dag.project import Project
from seeknal.dag.python_file import discover_files, find_python_nodes, problem_of
from seeknal.errors import Problem, ProjectError
from tests.engine.workflow.projects import write, write_project


def found_problems(root: Path, files: Mapping[str, str], patience_seconds: float = 60) -> dict[str, list[str]]:
    """File → what discovery says is wrong with it, for files below ``seeknal/``."""
    write_project(root, {f"seeknal/{name}": text for name, text in files.items()})
    names = [f"seeknal/{name}" for name in files if not name.startswith("_")]
    found = discover_files(root, names, patience_seconds)
    assert [entry.file for entry in found] == names
    return {entry.file[8:]: [str(problem_of(problem)) for problem in entry.problems] for entry in found}


def problems(root: Path, files: Mapping[str, str]) -> list[Problem]:
    """What parsing the project reports."""
    write_project(root, files)
    with pytest.raises(ProjectError) as raised:
        parse_project(Project.open(root))
    return raised.value.problems()


def parsed(root: Path, files: Mapping[str, str]) -> ParsedProject:
    write_project(root, files)
    return parse_project(Project.open(root))


def test_a_module_that_cannot_be_imported_is_told_at_its_last_line_and_stops_no_other(tmp_path: Path) -> None:
    files = {
        "raises.py": "x = 1\nraise ValueError('no such\\nthing')\n",
        "deep.py": "import _helper\n\n_helper.fail()\n",
        "_helper.py": "def fail():\n    return {}['key']\n",
        "exits.py": "import sys\n\nsys.exit('enough')\n",
        "syntax.py": "def broken(:\n    pass\n",
        "indirect.py": "import _broken\n",
        "_broken.py": "x = (\n",
        "missing.py": "x = 1\n\nimport no_such_module\n",
        "unprintable.py": "class E(Exception):\n    def __str__(self):\n        1 / 0\nraise E\n",
        "interrupt.py": "raise KeyboardInterrupt\n",
        "encoding.py": "x = 'caf\xe9'\n",
        "null.py": "x = 1\0\n",
        "nested.py": "(" * 500 + ")" * 500 + "\n",
        "recursion.py": "def f():\n    f()\nf()\n",
        "leaves.py": "import os\nos._exit(3)\n",
        "crashes.py": "import ctypes\n\nctypes.string_at(0)\n",
        "loud.py": "import os\nfor _ in range(100):\n    os.write(1, b'x' * 2**20)\nprint('y' * 10**6)\n",
        "chdir.py": "import os, sys\nos.chdir('/')\nsys.path.clear()\nos.environ.clear()\nsys.stdout = None\n",
        "good.py": "from seeknal.pipeline import transform\n\n@transform\ndef good(ctx): ...\n",
    }
    write(tmp_path, "seeknal/encoding.py", "")
    found = found_problems(tmp_path, files)
    assert found["raises.py"] == ["seeknal/raises.py:2: cannot be imported: ValueError: no such thing"]
    assert found["deep.py"] == ["seeknal/_helper.py:2: cannot be imported: KeyError: 'key'"]
    assert found["exits.py"] == [
        "seeknal/exits.py:3: ends the program while it is imported: sys.exit('enough') "
        "(take the call out, or put it into a function)"
    ]
    assert found["syntax.py"] == ["seeknal/syntax.py:1:12: is not valid Python: invalid syntax"]
    assert found["indirect.py"] == ["seeknal/_broken.py:1:5: is not valid Python: '(' was never closed"]
    assert found["missing.py"][0].startswith(
        "seeknal/missing.py:3: cannot be imported: ModuleNotFoundError: No module named 'no_such_module' (install it"
    )
    assert found["unprintable.py"] == ["seeknal/unprintable.py:4: cannot be imported: E"]
    assert found["interrupt.py"] == ["seeknal/interrupt.py:1: cannot be imported: KeyboardInterrupt"]
    assert "\n".join(found["null.py"]).startswith("seeknal/null.py")
    assert "\n".join(found["nested.py"]).startswith("seeknal/nested.py")
    assert "RecursionError" in found["recursion.py"][0]
    assert found["leaves.py"][0].startswith("seeknal/leaves.py: ends the process when it is imported (exit code 3)")
    assert found["crashes.py"][0].startswith("seeknal/crashes.py:3: crashes Python when it is imported (SIGSEGV)")
    assert [name for name, said in found.items() if not said] == ["encoding.py", "loud.py", "chdir.py", "good.py"]


def test_text_that_is_not_utf_8_is_told(tmp_path: Path) -> None:
    write_project(tmp_path, {})
    (tmp_path / "seeknal/latin.py").write_bytes(b"x = 'caf\xe9'\n")
    (found,) = discover_files(tmp_path, ["seeknal/latin.py"])
    assert str(problem_of(found.problems[0])).startswith("seeknal/latin.py")


def test_a_module_that_does_not_end_is_told_with_the_line_where_it_stands(tmp_path: Path) -> None:
    files = {"hangs.py": "import time\n\ntime.sleep(1000)\n", "good.py": "x = 1\n"}
    found = found_problems(tmp_path, files, patience_seconds=1)
    assert found["hangs.py"][0].startswith("seeknal/hangs.py:3: takes longer than 1 seconds to import")
    assert found["good.py"] == []


def test_nothing_that_a_module_starts_is_left_behind(tmp_path: Path) -> None:
    files = {"starts.py": "import subprocess\nopen('pid', 'w').write(str(subprocess.Popen(['sleep', '1000']).pid))\n"}
    found_problems(tmp_path, files)
    pid = int((tmp_path / "pid").read_text())
    status = Path(f"/proc/{pid}/status")
    deadline = time.monotonic() + 10
    # It was killed, but the system may take a moment for that.
    while status.exists() and "zombie" not in status.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_who_finds_nodes_is_followed_when_it_is_killed(tmp_path: Path) -> None:
    (tmp_path / "hangs.py").write_text("import os, time\nopen('pid', 'w').write(f'{os.getpid()} ')\ntime.sleep(1000)\n")
    code = "from seeknal.dag.python_file import discover_files; from pathlib import Path; import sys"
    command = [sys.executable, "-c", f"{code}; discover_files(Path(sys.argv[1]), ['hangs.py'])", str(tmp_path)]
    with subprocess.Popen(command, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}) as caller:
        deadline = time.monotonic() + 30
        while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text().endswith(" "):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        caller.kill()
    status = Path(f"/proc/{int((tmp_path / 'pid').read_text())}/status")
    while status.exists() and "zombie" not in status.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_functions_are_not_called_and_user_code_does_not_run_in_this_process(tmp_path: Path) -> None:
    text = """
        import os
        from seeknal.pipeline import transform
        open("imported", "w").write(str(os.getpid()))

        @transform
        def never(ctx):
            open("called", "w")
    """
    parsed(tmp_path, {"seeknal/nodes.py": text})
    assert (tmp_path / "imported").read_text() != str(os.getpid())
    assert not (tmp_path / "called").exists()
    assert not any(name.startswith("seeknal_project") for name in sys.modules)


def test_an_unchanged_project_runs_no_code_of_the_users(tmp_path: Path) -> None:
    text = (
        "from seeknal.pipeline import transform\nfrom helper import RATE\n\n@transform(rate=RATE)\ndef one(ctx): ...\n"
    )
    files = {"seeknal/nodes.py": text, "seeknal/_unused.py": "", "helper.py": "RATE = 1\n"}
    write_project(tmp_path, files)
    project = Project.open(tmp_path)
    project.store().prepare()
    paths = [tmp_path / "seeknal/nodes.py"]
    assert find_python_nodes(project, paths)[0].nodes[0].keywords == {"rate": 1}
    memory = tmp_path / "target/store/memo/python"
    before = memory.stat().st_mtime_ns
    assert find_python_nodes(project, paths)[0].nodes[0].keywords == {"rate": 1}
    assert memory.stat().st_mtime_ns == before
    write(tmp_path, "helper.py", "RATE = 2\n")
    assert find_python_nodes(project, paths)[0].nodes[0].keywords == {"rate": 2}


def test_a_file_that_asks_the_world_when_it_is_imported_is_imported_each_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = """
        import os
        from seeknal.pipeline import transform
        REGION = os.environ.get("SEEKNAL_TEST_REGION", "EU")

        @transform(region=REGION)
        def one(ctx):
            return REGION
    """
    write_project(tmp_path, {"seeknal/nodes.py": text})
    project = Project.open(tmp_path)
    project.store().prepare()
    paths = [tmp_path / "seeknal/nodes.py"]
    (first,) = find_python_nodes(project, paths)[0].nodes
    monkeypatch.setenv("SEEKNAL_TEST_REGION", "US")
    (second,) = find_python_nodes(project, paths)[0].nodes
    assert (first.keywords["region"], second.keywords["region"]) == ("EU", "US")
    assert first.digest != second.digest


def test_a_decorator_gives_the_fields_of_yaml(tmp_path: Path) -> None:
    text = """
        from dataclasses import dataclass
        from pathlib import Path
        from datetime import date
        import seeknal.pipeline as sk
        from seeknal.pipeline import transform as t, source, materialize, MaterializationConfig

        @dataclass
        class Limits:
            low: int = 1

        @source("orders", "sqlite", Path("data/shop.db"), columns={"id": "The id."}, tags=["raw"],
                query="SELECT 1", description="All orders", owner="sales")
        def orders(): ...

        @materialize(type="postgresql", connection="pg", table="a.b")
        @t(name="clean", inputs=["source.orders"], limits=Limits(), since=date(2026, 1, 1), params={"x": (1, 2)})
        @materialize(table="atlas.a.b", unique_keys=["id"])
        def clean_orders(ctx):
            return ctx.ref("source.orders")

        @sk.transform
        def bare(ctx):
            return ctx.ref("transform.clean")

        for region in ("eu", "us"):
            @t(name=f"sales_{region}", region=region)
            def sales(ctx):
                return ctx.ref("transform.bare")
    """
    project = parsed(tmp_path, {"seeknal/deep/nodes.py": text})
    nodes = project.manifest.nodes
    assert list(nodes) == [
        "source.orders",
        "transform.clean",
        "transform.bare",
        "transform.sales_eu",
        "transform.sales_us",
    ]
    orders = nodes["source.orders"]
    assert (orders.description, orders.owner, orders.tags) == ("All orders", "sales", ["raw"])
    assert orders.columns == {"id": "The id."}
    assert orders.file_path == "seeknal/deep/nodes.py"
    assert orders.config == {
        "source": "sqlite",
        "table": "data/shop.db",
        "params": {"query": "SELECT 1"},
    }
    clean = nodes["transform.clean"].config
    assert clean["params"] == {"x": [1, 2], "limits": {"low": 1}, "since": "2026-01-01"}
    assert clean["materializations"] == [
        {"type": "postgresql", "connection": "pg", "table": "a.b"},
        {"type": "iceberg", "table": "atlas.a.b", "unique_keys": ["id"]},
    ]
    assert clean["function"]["name"] == "clean_orders"
    assert len(clean["function"]["digest"]) == 32
    assert nodes["transform.sales_us"].config["params"] == {"region": "us"}
    assert [(edge.from_node, edge.to_node) for edge in project.manifest.edges] == [
        ("source.orders", "transform.clean"),
        ("transform.clean", "transform.bare"),
        ("transform.bare", "transform.sales_eu"),
        ("transform.bare", "transform.sales_us"),
    ]


def test_refs_in_helpers_and_methods_become_edges_and_those_of_other_nodes_do_not(tmp_path: Path) -> None:
    source = "kind: source\nname: {0}\nsource: csv\ntable: {0}.csv\n"
    text = """
        from seeknal.pipeline import transform
        from loading import load
        from others import shared

        class Reader:
            def __init__(self, ctx):
                self.ctx = ctx
            def rows(self):
                return self.ctx.ref("source.c")

        @transform
        def reads(context):
            def inner():
                return context.ref(node_id="source.a")
            database.ref("source.x")
            return inner(), load(context), Reader(context).rows(), shared()

        @transform
        def other(ctx):
            return ctx.ref("source.d")
    """
    files = {f"seeknal/{name}.yml": source.format(name) for name in "abcd"}
    files |= {
        "seeknal/nodes.py": text,
        "seeknal/_loading.py": "",
        "loading.py": "def load(handle):\n    return handle.ref('source.b')\ndef unused(h):\n    h.ref('source.d')\n",
        "seeknal/others.py": """
            from seeknal.pipeline import transform
            def shared():
                return 1
            @transform
            def third(ctx):
                return ctx.ref("source.d")
        """,
    }
    manifest = parsed(tmp_path, files).manifest
    assert sorted(manifest.inputs_of("transform.reads")) == ["source.a", "source.b", "source.c"]
    assert manifest.inputs_of("transform.other") == manifest.inputs_of("transform.third") == ["source.d"]


def test_what_is_wrong_with_a_node_is_told_where_it_stands(tmp_path: Path) -> None:
    text = textwrap.dedent("""
        from seeknal.pipeline import *

        @transform(name="same", inputs=["source.missing"])
        def same(ctx):
            return ctx.ref("source.ordrs")

        @transform(name="same")
        def again(ctx): return 1

        @transform(name="has space")
        def spaced(ctx): return 1

        @transform(tags="raw")
        def tagged(ctx): return 1

        @transform(callback=print)
        def called(ctx): return 1

        @transform(name=5)
        def numbered(ctx): return 1

        @transform(sql="SELECT a FROM transform.no_such_node WHERE x")
        def queried(): ...

        @source(name="wrong", source="csw", table="x")
        def wrong(): ...

        @source(name="typed", table="x.csv", schema=[{"name": 5}])
        def typed(ctx): return 1

        @transform
        def empty(): ...

        @aggregation(name="lacking", id_col="id")
        def lacking(ctx): return 1

        @transform
        def features(ctx):
            return ctx.features("usr", ["a.b"])
    """).lstrip()
    files = {"seeknal/orders.yml": "kind: source\nname: orders\nsource: csv\ntable: o.csv\n", "seeknal/nodes.py": text}
    said = [str(problem) for problem in problems(tmp_path, files)]
    lines = text.split("\n")

    def reported(line: str, inside: str, message: str) -> bool:
        place = f"seeknal/nodes.py:{lines.index(line) + 1}:{line.index(inside) + 1}: "
        assert any(entry.startswith(place + message) for entry in said), (place + message, said)
        return True

    assert reported('@transform(name="same", inputs=["source.missing"])', '"source.missing"', "input 'source.missing'")
    ref = '    return ctx.ref("source.ordrs")'
    hint = "did you mean 'source.orders'?"
    assert reported(ref, '"source.ordrs"', f"input 'source.ordrs' does not exist ({hint})")
    assert reported('@transform(name="same")', "name", "transform.same is declared twice")
    assert reported('@transform(name="has space")', "name", "name 'has space' is not allowed")
    assert reported('@transform(tags="raw")', "tags", "'tags': expected a list")
    assert reported("@transform(callback=print)", "callback", "'callback' is of type builtin_function_or_method")
    assert reported("@transform(name=5)", "name", "'name' must be text")
    query = '@transform(sql="SELECT a FROM transform.no_such_node WHERE x")'
    assert reported(query, "transform.no_such_node", "")
    assert reported('@source(name="wrong", source="csw", table="x")', "source=", "unknown source type 'csw'")
    assert reported('@aggregation(name="lacking", id_col="id")', "aggregation", "'feature_date_col' is missing")
    typed = '@source(name="typed", table="x.csv", schema=[{"name": 5}])'
    assert reported(typed, '"name"', "'schema.0.name': expected text")
    assert any("'transform' is missing" in entry for entry in said)
    features = '    return ctx.features("usr", ["a.b"])'
    assert reported(features, '"usr"', "input 'entity.usr' does not exist")


def test_a_header_of_the_script_is_checked_against_this_environment(tmp_path: Path) -> None:
    header = (
        "# /// script\n# requires-python = {0}\n# dependencies = [\n#     {1},\n# ]\n# ///\nimport no_such_package\n"
    )
    files = {
        "fits.py": header.format('">=3.11"', '"msgspec"').replace("import no_such_package", ""),
        "lacks.py": header.format('">=3.11"', '"no-such-package>=2"'),
        "older.py": header.format('">=3.11"', '"msgspec<0.1"'),
        "python.py": header.format('"<3"', '"msgspec"'),
        "toml.py": header.format('">=3', '"msgspec"'),
        "requirement.py": header.format('">=3"', '"not a requirement!"'),
        "types.py": "# /// script\n# dependencies = 5\n# ///\n",
        "twice.py": "# /// script\n# ///\n\n# /// script\n# ///\n",
    }
    found = found_problems(tmp_path, files)
    assert found["fits.py"] == []
    assert found["lacks.py"] == [
        "seeknal/lacks.py:4: needs 'no-such-package>=2', which is not installed (pip install 'no-such-package>=2')"
    ]
    assert found["older.py"][0].startswith("seeknal/older.py:4: needs 'msgspec<0.1', and ")
    assert found["python.py"][0].startswith("seeknal/python.py:2: needs Python <3, and this is ")
    assert found["toml.py"][0].startswith("seeknal/toml.py:1: the header of the script is not valid TOML: ")
    assert found["requirement.py"][0].startswith("seeknal/requirement.py:4: 'not a requirement!' is no requirement")
    assert found["types.py"] == ["seeknal/types.py:2: 'dependencies' must be a list of texts"]
    assert found["twice.py"] == ["seeknal/twice.py:4: has a second header of the script (keep one)"]
