"""Python nodes run for real: what a function may return, what it is given, and how it fails."""

from __future__ import annotations

import datetime
import decimal
import json
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest

from seeknal.dag.project import Project
from seeknal.errors import Problem
from seeknal.workflow.results import RunOptions, RunResult
from seeknal.workflow.session import Session
from tests.engine.workflow.projects import executed_in, run, write, write_project
from tests.engine.workflow.projects import transform as sql_transform

ORDERS = {
    "data/orders.csv": "id,amount,day\n1,10,2026-01-01\n2,20,2026-01-02\n3,,2026-01-03\n",
    "seeknal/orders.yml": """
        kind: source
        name: orders
        source: csv
        table: data/orders.csv
        schema: [{name: id, data_type: integer}, {name: amount, data_type: integer}, {name: day, data_type: date}]
    """,
}
DOUBLE = """
    from seeknal.pipeline import transform

    RATE = 2

    @transform(name="double")
    def double(ctx):
        orders = ctx.ref("source.orders")
        return ctx.duckdb.sql(f"SELECT id, amount * {RATE} AS amount FROM orders WHERE amount IS NOT NULL")
"""
TOTAL = "kind: transform\nname: total\ntransform: SELECT sum(amount) AS total FROM transform.double\n"


def rows(root: Path, node_id: str) -> list[tuple[Any, ...]]:
    """What a node's output holds in production."""
    import duckdb

    kind, _, name = node_id.partition(".")
    with duckdb.connect(":memory:") as connection:
        return connection.execute(f"FROM '{root}/target/cache/{kind}/{name}.parquet'").fetchall()


def schema(result: RunResult, name: str) -> dict[str, str]:
    artifact = next(node.artifact for node in result.nodes if node.node_id.endswith(f".{name}"))
    assert artifact is not None
    return artifact.schema()


def problems(result: RunResult) -> dict[str, Problem]:
    """Node's bare name → its problem, for the nodes that failed."""
    return {node.node_id.partition(".")[2]: node.problems[0] for node in result.nodes if node.status == "failed"}


def python(body: str, header: str = "from seeknal.pipeline import *\n") -> str:
    return header + textwrap.dedent(body)


@pytest.mark.parametrize("parallel", [False, True])
def test_python_and_yaml_nodes_read_each_other_and_are_cached(tmp_path: Path, parallel: bool) -> None:
    project = write_project(tmp_path / "shop", {**ORDERS, "seeknal/double.py": DOUBLE, "seeknal/total.yml": TOTAL})
    assert executed_in(project, parallel=parallel) == ["double", "orders", "total"]
    assert rows(project, "transform.total") == [(60,)]
    assert executed_in(project, parallel=parallel) == []


def test_a_function_whose_file_changed_since_it_was_planned_is_not_called(tmp_path: Path) -> None:
    files = {
        "seeknal/first.py": """
            from pathlib import Path
            from seeknal.pipeline import transform

            @transform
            def first(ctx):
                second = Path("seeknal/second.py")
                second.write_text(second.read_text().replace("1 AS n", "2 AS n"))
                return ctx.duckdb.sql("SELECT 0 AS n")
        """,
        "seeknal/second.py": """
            from seeknal.pipeline import transform

            @transform(inputs=["transform.first"])
            def second(ctx):
                return ctx.duckdb.sql("SELECT 1 AS n")
        """,
    }
    project = write_project(tmp_path / "shop", files)
    found = problems(run(project))
    assert [(name, problem.message) for name, problem in found.items()] == [
        ("second", "transform.second: seeknal/second.py changed while the project was run")
    ]
    assert executed_in(project) == ["second"]
    assert rows(project, "transform.second") == [(2,)]


def test_a_function_runs_again_when_its_code_its_inputs_or_its_params_change(tmp_path: Path) -> None:
    files = {
        **ORDERS,
        "seeknal/nodes.py": """
            from seeknal.pipeline import transform
            from helpers import RATE

            @transform(rate=3)
            def scaled(ctx):
                orders = ctx.ref("source.orders", columns=["amount"])
                return ctx.duckdb.sql(f"SELECT amount * {RATE * ctx.get_param('rate')} AS amount FROM orders")

            @transform
            def ids(ctx):
                return ctx.ref("source.orders", columns=["id"])
        """,
        "seeknal/helpers.py": "RATE = 1\n",
    }
    project = write_project(tmp_path / "shop", files)
    executed_in(project)
    write(project, "seeknal/nodes.py", files["seeknal/nodes.py"].replace("rate=3", "rate=2"))
    assert executed_in(project) == ["scaled"]
    assert rows(project, "transform.scaled") == [(20,), (40,), (None,)]
    write(project, "seeknal/helpers.py", "RATE = 5\n")
    assert executed_in(project) == ["scaled"]
    assert rows(project, "transform.scaled") == [(100,), (200,), (None,)]
    write(project, "data/orders.csv", ORDERS["data/orders.csv"].replace("10", "11"))
    assert executed_in(project) == ["orders", "scaled"]
    write(project, "seeknal/helpers.py", "RATE = 5  # the rate\n")
    assert executed_in(project) == []
    write(project, "seeknal/helpers.py", "RATE = 1\n")
    write(project, "seeknal/nodes.py", files["seeknal/nodes.py"])
    write(project, "data/orders.csv", ORDERS["data/orders.csv"])
    assert executed_in(project) == [], "what was computed before is still in the cache"


def test_everything_that_is_a_table_is_stored_with_its_types(tmp_path: Path) -> None:
    write_project(
        tmp_path,
        {
            "seeknal/nodes.py": python("""
            import datetime, decimal
            import pandas as pd, polars as pl, pyarrow as pa

            @transform
            def relation(ctx):
                return ctx.duckdb.sql("SELECT 1::HUGEINT AS big, 'a' AS word, [1, 2] AS list, {'a': 1} AS struct")

            @transform
            def arrow(ctx):
                return pa.table({"n": pa.array([1, None], pa.int32()), "word": pa.array(["a", "b"]).dictionary_encode(),
                                 "nothing": pa.nulls(2)})

            @transform
            def batch(ctx):
                return pa.RecordBatch.from_pydict({"n": [1, 2]})

            @transform
            def reader(ctx):
                table = pa.table({"n": [1, 2]})
                return pa.RecordBatchReader.from_batches(table.schema, table.to_batches())

            @transform
            def polars_frame(ctx):
                return pl.DataFrame({"n": [1, None], "day": [datetime.date(2026, 1, 1), None]})

            @transform
            def polars_lazy(ctx):
                return pl.LazyFrame({"n": [1, 2]}).filter(pl.col("n") > 1)

            @transform
            def pandas_frame(ctx):
                return pd.DataFrame({
                    "n": [1, 2], "x": [1.5, None], "word": ["a", None], "day": [datetime.date(2026, 1, 1), None],
                    "price": [decimal.Decimal("1.25"), None], "kind": pd.Categorical(["a", "b"]),
                    "at": pd.to_datetime(["2026-01-01", None]), "none": [None, None]})

            @transform
            def grouped(ctx):
                return pd.DataFrame({"k": ["b", "a", "b"], "n": [1, 2, 3]}).groupby("k").sum()

            @transform
            def nothing(ctx):
                return pd.DataFrame({"n": pd.Series([], dtype="int64")})
            """)
        },
    )
    result = run(tmp_path)
    assert not problems(result)
    assert schema(result, "relation") == {
        "big": "HUGEINT",
        "word": "VARCHAR",
        "list": "INTEGER[]",
        "struct": "STRUCT(a INTEGER)",
    }
    assert schema(result, "arrow") == {"n": "INTEGER", "word": "VARCHAR", "nothing": "VARCHAR"}
    assert rows(tmp_path, "transform.batch") == rows(tmp_path, "transform.reader") == [(1,), (2,)]
    assert rows(tmp_path, "transform.polars_frame") == [(1, datetime.date(2026, 1, 1)), (None, None)]
    assert rows(tmp_path, "transform.polars_lazy") == [(2,)]
    pandas_schema = schema(result, "pandas_frame")
    assert pandas_schema.pop("at").startswith("TIMESTAMP")
    assert pandas_schema == {
        "n": "BIGINT",
        "x": "DOUBLE",
        "word": "VARCHAR",
        "day": "DATE",
        "price": "DECIMAL(18,2)",
        "kind": "VARCHAR",
        "none": "VARCHAR",
    }
    assert rows(tmp_path, "transform.grouped") == [("a", 2), ("b", 4)]
    assert rows(tmp_path, "transform.nothing") == []
    assert schema(result, "nothing") == {"n": "BIGINT"}


def test_types_survive_a_function_that_gives_back_what_it_reads(tmp_path: Path) -> None:
    write_project(
        tmp_path,
        {
            "seeknal/typed.yml": """
                kind: transform
                name: typed
                transform: |
                  SELECT * FROM (VALUES
                    (1, 9007199254740993, 1.25::DECIMAL(9, 2), DATE '2026-01-01', TIMESTAMP '2026-01-01 10:00:00', true,
                     'a', 1.5::DOUBLE),
                    (NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL)) AS t(a, b, c, d, e, f, g, h)
            """,
            "seeknal/back.py": python("""
                @transform
                def frame(ctx):
                    return ctx.ref("transform.typed")

                @transform
                def relation(ctx):
                    return ctx.relation("transform.typed")

                @transform
                def summed(ctx):
                    total = ctx.ref("transform.total")
                    total["total"] = total["total"] * 1.5
                    return total
            """),
            "seeknal/total.yml": TOTAL.replace("amount", "a").replace("double", "typed"),
        },
    )
    result = run(tmp_path)
    assert not problems(result)
    typed = schema(result, "typed")
    assert schema(result, "relation") == typed
    assert schema(result, "frame") == {**typed, "c": "DECIMAL(18,2)"}
    assert rows(tmp_path, "transform.frame") == rows(tmp_path, "transform.typed")
    assert rows(tmp_path, "transform.frame")[0][1:3] == (9007199254740993, decimal.Decimal("1.25"))
    assert rows(tmp_path, "transform.summed") == [(1.5,)]


FAILURES = {
    "raises": ("raise ValueError('no such thing')", "ValueError: no such thing"),
    "deep": ("helper_that_fails()", "ZeroDivisionError: division by zero"),
    "exits": ("import sys; sys.exit(3)", "ends the program: sys.exit(3)"),
    "exits_silently": ("raise SystemExit", "ends the program: sys.exit()"),
    "interrupts": ("raise KeyboardInterrupt", "KeyboardInterrupt"),
    "unprintable": ("class E(Exception):\n        def __str__(self): 1 / 0\n    raise E", "E"),
    "long": ("raise ValueError('x' * 10_000_000)", "ValueError: xxx"),
    "several_lines": ("raise ValueError('one\\ntwo')", "ValueError: one two"),
    "recursion": ("def f(): return f()\n    f()", "RecursionError: "),
    "none": ("x = 1", "none() returned None"),
    "number": ("return 5", "number() returned int, which is no table"),
    "mapping": ("return {'a': [1]}", "mapping() returned dict, which is no table"),
    "series": ("import pandas as pd; return pd.Series([1])", "series() returned pandas.Series, which is no table"),
    "generator": ("yield 1", "generator() returned generator, which is no table"),
    "duplicate": (
        "import pandas as pd; return pd.DataFrame([[1, 2]], columns=['a', 'a'])",
        "duplicate() has the column 'a' twice",
    ),
    "same_case": (
        "import pandas as pd; return pd.DataFrame({'a': [1], 'A': [2]})",
        "same_case() has the columns 'a' and 'A', which SQL takes for one",
    ),
    "numbered": (
        "import pandas as pd; return pd.DataFrame([[1, 2]])",
        "numbered() has a column whose name is no text: 0",
    ),
    "unnamed": ("import pandas as pd; return pd.DataFrame({'': [1]})", "unnamed() has a column whose name is empty"),
    "levels": (
        "import pandas as pd; return pd.DataFrame({('a', 'b'): [1], ('a', 'c'): [2]})",
        "levels() has columns of several levels",
    ),
    "mixed": (
        "import pandas as pd; return pd.DataFrame({'ok': [1, 2], 'odd': [1, 'x']})",
        "mixed() failed: column 'odd' holds values of several types: int, str",
    ),
    "objects": (
        "import pandas as pd; return pd.DataFrame({'odd': [object()]})",
        "objects() failed: column 'odd' holds values of type object, which no table can hold",
    ),
    "no_columns": (
        "import pandas as pd; return pd.DataFrame(index=[1, 2])",
        "no_columns() returned a table without columns",
    ),
    "bad_sql": ("return ctx.duckdb.sql('SELECT nope FROM (SELECT 1 AS a)')", "BinderException: Binder Error: "),
    "lazy_failure": (
        "return ctx.duckdb.sql(\"SELECT CAST(x AS INTEGER) AS n FROM (VALUES ('1'), ('x')) AS t(x)\")",
        "lazy_failure() failed: Conversion Error: Could not convert string 'x' to INT32",
    ),
    "unknown_input": (
        "return ctx.ref('source.' + 'nothing')",
        "ValueError: 'source.nothing' is not an input of transform.unknown_input; add it to inputs=[…]",
    ),
    "unknown_column": (
        "return ctx.ref('source.orders', columns=['amont'])",
        "ValueError: source.orders has no column 'amont'; did you mean 'amount'?",
    ),
    "text_columns": ("return ctx.ref('source.orders', 'id')", "ValueError: columns must be a list of names"),
    "no_entity": ("return ctx.features('us' + 'er', ['a.b'])", "FileNotFoundError: there is no entity 'user'"),
}


@pytest.fixture(scope="module")
def failures(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Problem], dict[str, int]]:
    """A project of which nearly every node fails: its folder, the problems, and the line of each function."""
    root = tmp_path_factory.mktemp("failing")
    text = "from seeknal.pipeline import transform\n\n\ndef helper_that_fails():\n    return 1 / 0\n"
    lines = {}
    for name, (body, _) in FAILURES.items():
        text += f"\n\n@transform\ndef {name}(ctx):\n"
        lines[name] = text.count("\n")
        text += f"    {body}\n"
    text += "\n\n@transform\nasync def not_awaited(ctx):\n    return 1\n"
    text += "\n\n@transform\ndef fine(ctx):\n    print('hello')\n    return ctx.ref('source.orders')\n"
    write_project(root, {**ORDERS, "seeknal/nodes.py": text})
    result = run(root, continue_on_error=True)
    return root, problems(result), lines


@pytest.mark.parametrize("name", FAILURES)
def test_a_function_that_fails_is_one_clear_line(
    failures: tuple[Path, dict[str, Problem], dict[str, int]], name: str
) -> None:
    _, found, lines = failures
    problem = found[name]
    assert problem.message.startswith(f"transform.{name}: {FAILURES[name][1]}"), problem
    assert "\n" not in str(problem)
    assert len(problem.message) < 400
    assert problem.place is not None
    assert problem.place.file == "seeknal/nodes.py"
    # A helper's error stands where the helper is; what is wrong with a result, at the function.
    assert problem.place.line == 5 if name == "deep" else lines[name] <= problem.place.line <= lines[name] + 3


def test_other_nodes_of_a_file_run_whatever_one_does(
    failures: tuple[Path, dict[str, Problem], dict[str, int]],
) -> None:
    root, found, _ = failures
    assert found.keys() == {*FAILURES, "not_awaited"}
    assert "is async, which a node cannot be" in found["not_awaited"].message
    assert (root / "target/logs/transform.fine.log").read_text() == "hello\n"


def test_the_traceback_stands_in_the_log(failures: tuple[Path, dict[str, Problem], dict[str, int]]) -> None:
    root, found, _ = failures
    assert found["deep"].hint == "more in target/logs/transform.deep.log"
    log = (root / "target/logs/transform.deep.log").read_text()
    assert log.startswith("Traceback")
    assert "return 1 / 0" in log
    assert "engine/seeknal" not in log


def test_a_function_that_prints_a_hundred_megabytes_hurts_nobody(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    write_project(
        tmp_path,
        {
            "seeknal/loud.py": python("""
            import os, subprocess

            @transform
            def loud(ctx):
                print("the beginning")
                for _ in range(100):
                    os.write(1, b"x" * 1024 * 1024)
                    os.write(2, b"\\n")
                subprocess.run(["echo", "the end"], check=True)
                return ctx.duckdb.sql("SELECT 1 AS n")
            """)
        },
    )
    assert run(tmp_path).status == "success"
    assert capfd.readouterr() == ("", "")
    log = (tmp_path / "target/logs/transform.loud.log").read_text()
    assert len(log) < 8 * 1024 * 1024
    assert "the end\n" in log


def test_a_function_that_crashes_python_fails_its_node_alone(tmp_path: Path) -> None:
    write_project(
        tmp_path,
        {
            "seeknal/nodes.py": python("""
            import os

            @transform
            def crashes(ctx):
                os.kill(os.getpid(), 11)

            @transform
            def leaves(ctx):
                os._exit(0)

            @transform
            def fine(ctx):
                return ctx.duckdb.sql("SELECT 1 AS n")
            """)
        },
    )
    result = run(tmp_path, continue_on_error=True)
    found = problems(result)
    assert found.keys() == {"crashes", "leaves"}
    assert "its worker process died twice" in found["crashes"].message
    assert rows(tmp_path, "transform.fine") == [(1,)]


def test_what_a_function_does_to_its_process_does_not_reach_the_next(tmp_path: Path) -> None:
    write_project(
        tmp_path,
        {
            "seeknal/a.py": python("""
            import os, sys
            @transform
            def a_first(ctx):
                sys.stdout = None
                os.chdir("/")
                os.close(1)
                return ctx.duckdb.sql("SELECT 1 AS n")
            """),
            "seeknal/b.py": python("""
            import os
            @transform
            def b_second(ctx):
                print("still here")
                return ctx.duckdb.sql(f"SELECT '{os.getcwd()}' AS folder")
            """),
        },
    )
    assert run(tmp_path).status == "success"
    assert rows(tmp_path, "transform.b_second") == [(str(tmp_path),)]
    assert (tmp_path / "target/logs/transform.b_second.log").read_text() == "still here\n"


def test_the_context_says_where_the_node_runs(tmp_path: Path) -> None:
    write_project(
        tmp_path,
        {
            "seeknal/nodes.py": python("""
            @transform(name="about", description="who", limit=3, params={"region": "EU"})
            def about(ctx):
                ctx.state.set("runs", ctx.state.get("runs", 0) + 1)
                ctx.state.save()
                said = [ctx.node_id, ctx.node_kind, ctx.node_meta["name"], ctx.project_path.name, ctx.target_dir.name,
                        str(ctx.params), str(ctx.get_param("limit")), str(ctx.get_param("none", 7)), str(ctx.config)]
                return ctx.duckdb.sql("SELECT unnest($said) AS said", params={"said": said})
            """)
        },
    )
    assert run(tmp_path).status == "success"
    assert [row[0] for row in rows(tmp_path, "transform.about")] == [
        "transform.about",
        "transform",
        "about",
        tmp_path.name,
        "target",
        "{'region': 'EU', 'limit': 3}",
        "3",
        "7",
        "{}",
    ]
    assert (tmp_path / "target/state/nodes/transform.about.json").read_text() == '{\n  "runs": 1\n}'


def test_params_are_environment_variables_while_the_function_runs(tmp_path: Path) -> None:
    write_project(
        tmp_path,
        {
            "seeknal/nodes.py": python("""
            import os
            from seeknal.workflow.executors import get_param, has_param, list_params

            @transform(region="EU", limits=[1, 2])
            def first(ctx):
                os.environ["LEFT_BEHIND"] = "1"
                said = [get_param("region"), get_param("none", "x"), str(has_param("Limits")), list_params()["limits"]]
                return ctx.duckdb.sql("SELECT unnest($said) AS said", params={"said": said})

            @transform(inputs=["transform.first"])
            def second_one(ctx):
                left = int("LEFT_BEHIND" in os.environ)
                return ctx.duckdb.sql(f"SELECT {len(list_params())} AS n, {left} AS left_behind")
            """)
        },
    )
    assert not problems(run(tmp_path))
    assert [row[0] for row in rows(tmp_path, "transform.first")] == ["EU", "x", "True", "[1, 2]"]
    assert rows(tmp_path, "transform.second_one") == [(0, 0)]


def test_files_as_existing_projects_have_them_run(tmp_path: Path) -> None:
    header = '# /// script\n# requires-python = ">=3.11"\n# dependencies = [\n#     "pandas",\n# ]\n# ///\n\n'
    lines = [f"C-{n % 3},2026-01-{n:02},{n * 10}.5,{'north' if n % 2 else 'south'}" for n in range(1, 10)]
    write_project(
        tmp_path,
        {
            "data/transactions.csv": "customer_id,order_date,revenue,region\n" + "\n".join(lines) + "\n",
            "seeknal/pipelines/transactions.py": python(
                '''
                @source(name="transactions", source="csv", table="data/transactions.csv", description="All")
                def transactions(ctx=None):
                    """Declare the data."""
                    pass
                ''',
                header + "from seeknal.pipeline import source\n",
            ),
            "seeknal/pipelines/daily.py": python(
                '''
                @transform(name="customer_daily_agg", description="Daily")
                def customer_daily_agg(ctx):
                    txn = ctx.ref("source.transactions")
                    return ctx.duckdb.sql("""
                        SELECT customer_id, region, CAST(order_date AS DATE) AS order_date,
                            DATE '2026-02-01' AS application_date, CAST(SUM(revenue) AS DOUBLE) AS daily_amount,
                            CAST(COUNT(*) AS BIGINT) AS daily_count
                        FROM txn GROUP BY customer_id, region, CAST(order_date AS DATE)
                    """).df()
                ''',
                header + "from seeknal.pipeline import transform\nimport pandas as pd\n",
            ),
            "seeknal/pipelines/regions.py": python(
                """
                @second_order_aggregation(
                    name="region_metrics", id_col="region", feature_date_col="order_date",
                    application_date_col="application_date",
                    features={"daily_amount": {"basic": ["sum", "mean", "max", "stddev"]},
                              "daily_count": {"basic": ["sum", "mean"]}})
                def region_metrics(ctx):
                    return ctx.ref("transform.customer_daily_agg")
                """,
                header + "from seeknal.pipeline import second_order_aggregation\n",
            ),
        },
    )
    result = run(tmp_path)
    assert not problems(result), problems(result)
    assert len(rows(tmp_path, "transform.customer_daily_agg")) == 9
    assert sorted(row[0] for row in rows(tmp_path, "second_order_aggregation.region_metrics")) == ["north", "south"]
    assert executed_in(tmp_path) == []


def test_a_function_with_nothing_in_it_is_the_yaml_node(tmp_path: Path) -> None:
    write_project(
        tmp_path,
        {
            "data/orders.csv": ORDERS["data/orders.csv"],
            "seeknal/nodes.py": python("""
            @source(name="orders", table="data/orders.csv")
            def orders(ctx=None):
                '''Read from the file.'''
                pass

            @transform(sql="SELECT id FROM source.orders WHERE amount > {{ least }}", least=10)
            def large():
                ...
            """),
        },
    )
    assert executed_in(tmp_path) == ["large", "orders"]
    assert rows(tmp_path, "transform.large") == [(2,)]
    assert executed_in(tmp_path) == []


def test_a_source_gives_the_rows_of_its_function_else_those_of_its_fields(tmp_path: Path) -> None:
    write_project(
        tmp_path,
        {
            "data/orders.csv": ORDERS["data/orders.csv"],
            "seeknal/nodes.py": python("""
            import pandas as pd

            @source(name="own", table="data/orders.csv")
            def own(ctx):
                return pd.DataFrame({"n": [1]})

            @source(name="left", table="data/orders.csv", reads_outside=False)
            def left():
                if False:
                    return 1

            @transform
            def crossed(ctx):
                own, left = ctx.ref("source.own"), ctx.ref("source.left")
                return own.merge(left, how="cross")
            """),
        },
    )
    assert executed_in(tmp_path) == ["crossed", "left", "own"]
    assert [row[:2] for row in rows(tmp_path, "transform.crossed")] == [(1, 1), (1, 2), (1, 3)]
    assert executed_in(tmp_path) == []
    write(tmp_path, "data/orders.csv", "id\n7\n")
    assert executed_in(tmp_path) == ["crossed", "left", "own"]
    assert rows(tmp_path, "transform.crossed") == [(1, 7)]


def test_a_source_that_may_read_the_world_runs_every_time_and_its_readers_only_when_it_changed(tmp_path: Path) -> None:
    write_project(
        tmp_path,
        {
            "outside.txt": "1",
            "seeknal/nodes.py": python("""
            @source(name="live")
            def live(ctx):
                text = open("outside.txt").read()
                return ctx.duckdb.sql(f"SELECT {text} AS n")

            @transform(name="reader")
            def reader(ctx):
                return ctx.ref("source.live")
            """),
        },
    )
    assert executed_in(tmp_path) == ["live", "reader"]
    assert executed_in(tmp_path) == ["live"]
    write(tmp_path, "outside.txt", "2")
    assert executed_in(tmp_path) == ["live", "reader"]
    assert rows(tmp_path, "transform.reader") == [(2,)]


def test_the_other_kinds_work_on_the_rows_of_the_function(tmp_path: Path) -> None:
    write_project(
        tmp_path,
        {
            **ORDERS,
            "seeknal/nodes.py": python("""
            @aggregation(name="per_id", id_col="id", feature_date_col="day", application_date_col="day",
                         features=[{"name": "amount", "basic": ["sum"]}])
            def per_id(ctx):
                orders = ctx.ref("source.orders")
                return orders[orders["amount"] > 10]

            @second_order_aggregation(name="over_all", id_col="region", feature_date_col="day",
                                      application_date_col="at", features={"amount": {"basic": ["sum"]}})
            def over_all(ctx):
                orders = ctx.ref("source.orders")
                return ctx.duckdb.sql("SELECT 'EU' AS region, day, DATE '2026-02-01' AS at, amount FROM orders")

            @feature_group(name="order_features", entity={"name": "shopper", "join_keys": ["id"]},
                           materialization=Materialization(event_time_col="day"))
            def order_features(ctx):
                return ctx.ref("source.orders")

            @exposure(name="export", type="file", path="output/orders.csv")
            def export(ctx):
                return ctx.ref("source.orders", columns=["id"])

            @transform(name="training")
            def training(ctx):
                features = ctx.ref("feature_group.order_features")
                spine = ctx.duckdb.sql("SELECT 2 AS id, TIMESTAMP '2026-03-01' AS at").df()
                return features.pit_join(spine, "at")

            @transform(name="from_entity")
            def from_entity(ctx):
                return ctx.features("shopper", ["order_features.amount"])
            """),
        },
    )
    result = run(tmp_path)
    assert {name: str(problem) for name, problem in problems(result).items()} == {}
    assert [row[0] for row in rows(tmp_path, "aggregation.per_id")] == [2]
    assert rows(tmp_path, "second_order_aggregation.over_all")[0][0] == "EU"
    assert len(rows(tmp_path, "feature_group.order_features")) == 3
    assert (tmp_path / "output/orders.csv").read_text().split() == ["id", "1", "2", "3"]
    assert rows(tmp_path, "transform.training")[0][0] == 2
    assert [row[2] for row in rows(tmp_path, "transform.from_entity")] == [10, 20, None]
    assert executed_in(tmp_path) == []


def test_rows_that_a_kind_cannot_use_are_one_clear_line(tmp_path: Path) -> None:
    write_project(
        tmp_path,
        {
            "seeknal/nodes.py": python("""
            @feature_group(name="lacking", entity="user")
            def lacking(ctx):
                return ctx.duckdb.sql("SELECT 1 AS id, 2 AS value, TIMESTAMP '2026-01-01' AS event_time")

            @source(name="empty_handed")
            def empty_handed():
                if False:
                    return 1

            @rule(name="nonnegative", rule={"type": "range", "column": "n", "params": {"min_val": 0}})
            def nonnegative(ctx):
                return ctx.duckdb.sql("SELECT -1 AS n")

            @aggregation(name="wrong", id_col="id", feature_date_col="day", application_date_col="day",
                         features=[{"name": "amount", "basic": ["sum"]}])
            def wrong(ctx):
                return ctx.duckdb.sql("SELECT 1 AS id")
            """)
        },
    )
    found = problems(run(tmp_path, continue_on_error=True))
    assert "join key 'user_id' of entity 'user' is missing" in found["lacking"].message
    assert "1 of 1" in found["nonnegative"].message or "range" in found["nonnegative"].message
    assert found["empty_handed"].message == "source.empty_handed: empty_handed() returned None"
    assert "gives rows that the aggregation cannot use: " in found["wrong"].message
    assert all(problem.place is not None and problem.place.line for problem in found.values())


def test_columns_that_the_code_does_not_show_cannot_be_read(tmp_path: Path) -> None:
    write_project(
        tmp_path,
        {
            **ORDERS,
            "seeknal/nodes.py": python("""
            @transform
            def hidden(ctx):
                ctx.ref("source.orders", columns=["id"])
                read = getattr(ctx, "ref")
                return read("source.orders")

            @transform(inputs=["source.orders"])
            def computed(ctx):
                name = "source.orders"
                return ctx.ref(name, columns=["amount"])
            """),
        },
    )
    found = problems(run(tmp_path, continue_on_error=True))
    assert found.keys() == {"hidden"}
    assert "column 'amount' of source.orders is not among those that the code shows to be read" in str(found["hidden"])


def test_the_last_columns_are_known_when_planning(tmp_path: Path) -> None:
    write_project(tmp_path, {**ORDERS, "seeknal/double.py": DOUBLE, "seeknal/total.yml": TOTAL})
    run(tmp_path)
    write(tmp_path, "seeknal/total.yml", TOTAL.replace("sum(amount)", "sum(amnt)"))
    with Session.open(Project.open(tmp_path)) as session:
        plan = session.plan("prod", RunOptions())
    assert [str(problem.place) for problem in plan.problems] == ["seeknal/total.yml:3:23"]
    write(tmp_path, "seeknal/double.py", DOUBLE.replace("AS amount", "AS amnt"))
    assert executed_in(tmp_path) == ["double", "total"]


def test_the_runner_calls_functions_in_a_process_of_their_own(tmp_path: Path) -> None:
    from seeknal.dag.manifest import Manifest
    from seeknal.workflow.runner import DAGRunner

    write_project(tmp_path, {**ORDERS, "seeknal/double.py": DOUBLE, "seeknal/total.yml": TOTAL})
    write(
        tmp_path,
        "seeknal/process.py",
        python("""
        import os
        @transform
        def process(ctx):
            return ctx.duckdb.sql(f"SELECT {os.getpid()} AS pid")
        """),
    )
    with Session.open(Project.open(tmp_path)) as session:
        session.show_manifest()
    summary = DAGRunner(Manifest.load(tmp_path / "target/manifest.json")).run()
    assert summary.failed_nodes == 0, [result.error_message for result in summary.results]
    import os

    assert rows(tmp_path, "transform.process") != [(os.getpid(),)]
    assert rows(tmp_path, "transform.total") == [(60,)]
    assert DAGRunner(Manifest.load(tmp_path / "target/manifest.json")).run().successful_nodes == 0


def test_neither_threads_nor_processes_that_a_function_leaves_behind_hold_the_run_up(tmp_path: Path) -> None:
    body = """
        import multiprocessing, os, sys, threading, time
        import pyarrow

        @source(name="thread")
        def thread(ctx):
            threading.Thread(target=time.sleep, args=(60,)).start()
            return pyarrow.table({"a": [1]})

        @source(name="child")
        def child(ctx):
            multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,)).start()
            return pyarrow.table({"a": [1]})

        @source(name="fork_returns")
        def fork_returns(ctx):
            parent = os.fork()
            return pyarrow.table({"a": [1 if parent else 2]})

        @source(name="fork_raises")
        def fork_raises(ctx):
            if os.fork() == 0:
                raise ValueError("of the copy")
            return pyarrow.table({"a": [1]})

        @source(name="fork_exits")
        def fork_exits(ctx):
            if os.fork() == 0:
                sys.exit(0)
            return pyarrow.table({"a": [1]})
    """
    project = write_project(tmp_path / "shop", {"seeknal/nodes.py": python(body)})
    began = time.monotonic()
    result = run(project)
    assert time.monotonic() - began < 50
    assert problems(result) == {}
    for name in ("thread", "child", "fork_returns", "fork_raises", "fork_exits"):
        assert rows(project, f"source.{name}") == [(1,)], name


@pytest.mark.parametrize(
    ("top", "used"),
    [
        ("RATES = {int(name): rate for name, rate in json.load(open('rates.json')).items()}", "RATES[1]"),
        ("RATES = {}\nRATES.update(json.load(open('rates.json')))", "RATES['1']"),
        ("import pandas\nRATES = pandas.Series(json.load(open('rates.json')))", "int(RATES['1'])"),
        (
            "class Rates:\n    def __init__(self):\n        self.all = json.load(open('rates.json'))\nR = Rates()",
            "R.all['1']",
        ),
        ("class Rates:\n    all = json.load(open('rates.json'))", "Rates.all['1']"),
        ("class Rates: pass\nRates.all = json.load(open('rates.json'))", "Rates.all['1']"),
        ("def rate(all=json.load(open('rates.json'))):\n    return all['1']", "rate()"),
        ("def read():\n    return json.loads(open('rates.json').read())\nRATES = read()", "RATES['1']"),
        ("import shared\nshared.RATES = json.load(open('rates.json'))", "shared.RATES['1']"),
        ("import shared\nRATES = shared.read()", "RATES['1']"),
    ],
)
def test_what_a_file_read_when_it_was_imported_counts(tmp_path: Path, top: str, used: str) -> None:
    body = f"from seeknal.pipeline import *\nimport json\nimport pyarrow\n{top}\n"
    body += f"@transform(name='t')\ndef t(ctx):\n    return pyarrow.table({{'a': [{used}]}})\n"
    shared = "import json\ndef read():\n    return json.loads(open('rates.json').read())\n"
    files = {"seeknal/nodes.py": body, "seeknal/shared.py": shared, "rates.json": '{"1": 1}'}
    project = write_project(tmp_path / "shop", files)
    assert executed_in(project) == ["t"]
    assert executed_in(project) == []
    write(project, "rates.json", '{"1": 2}')
    assert executed_in(project) == ["t"]
    assert rows(project, "transform.t") == [(2,)]


def test_what_modules_do_to_each_other_counts_however_they_are_imported(tmp_path: Path) -> None:
    body = """
        import prepare, settings
        import pyarrow

        @transform(name="t")
        def t(ctx):
            return pyarrow.table({"a": [settings.RATE]})
    """
    files = {
        "seeknal/nodes.py": python(body),
        "seeknal/settings.py": "RATE = 1\n",
        "seeknal/prepare.py": "import overrides\n",
        "seeknal/overrides.py": "import settings\nfrom rates import RATE\nsettings.RATE = RATE\n",
        "seeknal/rates.py": "RATE = 2\n",
    }
    project = write_project(tmp_path / "shop", files)
    assert executed_in(project) == ["t"]
    write(project, "seeknal/rates.py", "RATE = 3\n")
    assert executed_in(project) == ["t"]
    assert rows(project, "transform.t") == [(3,)]


@pytest.mark.parametrize("parallel", [False, True])
def test_no_node_sees_what_another_left_in_the_process(tmp_path: Path, parallel: bool) -> None:
    body = """
        import random, sys
        import duckdb, pyarrow
        import shared

        random.seed(3)
        CALLS = []

        def row(name):
            CALLS.append(name)
            shared.CALLS.append(name)
            sys.path.append("/nowhere")
            duckdb.sql("CREATE TABLE mine AS SELECT 1 AS a")
            numbers = [len(CALLS), len(shared.CALLS), sys.path.count("/nowhere"), random.randrange(10**6)]
            return pyarrow.table({"numbers": [numbers]})
    """
    nodes = "".join(f"\n@source(name='n{i}')\ndef n{i}():\n    return row('n{i}')\n" for i in range(3))
    files = {"seeknal/nodes.py": python(body) + nodes, "seeknal/shared.py": "CALLS = []\n"}
    project = write_project(tmp_path / "shop", files)
    assert problems(run(project, parallel=parallel, max_workers=2)) == {}
    seen = {tuple(rows(project, f"source.n{i}")[0][0]) for i in range(3)}
    assert len(seen) == 1
    assert next(iter(seen))[:3] == (1, 1, 1)


def test_an_environments_memory_begins_as_productions_and_never_changes_it(tmp_path: Path) -> None:
    code = """
        from seeknal.pipeline import source

        @source(name="counted", step=0)
        def counted(ctx):
            import pyarrow
            runs = ctx.state.get("runs", 0) + 1
            ctx.state.set("runs", runs)
            ctx.state.save()
            return pyarrow.table({"runs": [runs], "step": [ctx.params["step"]]})
        """
    write_project(tmp_path, {"seeknal/counted.py": code})
    assert run(tmp_path).status == "success"
    for step in (1, 2):
        write(tmp_path, "seeknal/counted.py", code.replace("step=0", f"step={step}"))
        assert run(tmp_path, "dev").status == "success"
    production = tmp_path / "target/state/nodes/source.counted.json"
    own = tmp_path / "target/environments/dev/state/nodes/source.counted.json"
    assert json.loads(production.read_text()) == {"runs": 1}
    assert json.loads(own.read_text()) == {"runs": 3}


FETCHING = """
    from seeknal.pipeline import source

    @source(name="fetched", audits=["n < LIMIT"])
    def fetched(ctx):
        import pyarrow
        n = ctx.state.get("n", 0) + 1
        ctx.state.set("n", n)
        ctx.state.save()
        SECOND
        return pyarrow.table({"n": [n]})
    """


def remembered(root: Path) -> int:
    path = root / "target/state/nodes/source.fetched.json"
    return int(json.loads(path.read_text())["n"]) if path.exists() else 0


def fetching(root: Path, limit: int, second: str = "") -> str:
    """Write a source that counts in its memory, run it, and tell how that ended."""
    write(root, "seeknal/fetched.py", FETCHING.replace("LIMIT", str(limit)).replace("SECOND", second))
    return run(root).status


def test_a_memory_does_not_move_on_where_checks_reject_the_output(tmp_path: Path) -> None:
    write_project(tmp_path, {})
    assert fetching(tmp_path, 2) == "success"
    assert remembered(tmp_path) == 1
    # Other code, so that it is called again: what it fetches is rejected, so it is still to be fetched.
    assert fetching(tmp_path, 2, "print()") == "failed"
    assert remembered(tmp_path) == 1
    assert fetching(tmp_path, 2, "1 / 0") == "failed"
    assert remembered(tmp_path) == 1
    # The rejected output passes now, without a call; what was saved beside it counts.
    assert fetching(tmp_path, 3, "print()") == "success"
    assert rows(tmp_path, "source.fetched") == [(2,)]
    assert remembered(tmp_path) == 2
    assert not list((tmp_path / "target/state/waiting").iterdir())


def test_a_memory_moves_on_with_the_run_that_commits_its_output(tmp_path: Path) -> None:
    broken = sql_transform("broken", "SELECT CAST(n || 'x' AS INTEGER) AS n FROM source.fetched")
    write_project(tmp_path, {"seeknal/broken.yml": broken})
    assert fetching(tmp_path, 9) == "failed"
    assert remembered(tmp_path) == 0
    (tmp_path / "seeknal/broken.yml").unlink()
    assert fetching(tmp_path, 9) == "success"
    assert rows(tmp_path, "source.fetched") == [(1,)]
    assert remembered(tmp_path) == 1


def test_planning_warns_of_a_function_that_reads_what_no_fingerprint_sees(tmp_path: Path) -> None:
    code = """
        import json
        from seeknal.pipeline import transform

        @transform(name="settings")
        def settings(ctx):
            import pyarrow
            return pyarrow.table({"a": [len(open(ctx.project_path / "settings.json").read())]})
        """
    write_project(tmp_path, {"seeknal/settings.py": code})
    with Session.open(Project.open(tmp_path)) as session:
        (warning,) = session.compiled.parsed.warnings
    assert "may read files or the network" in str(warning)
    assert warning.place is not None
    assert warning.place.file == "seeknal/settings.py"
    write(tmp_path, "seeknal/settings.py", code.replace('name="settings"', 'name="settings", reads_outside=False'))
    with Session.open(Project.open(tmp_path)) as session:
        assert session.compiled.parsed.warnings == []
