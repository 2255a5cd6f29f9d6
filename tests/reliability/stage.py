"""The project on which faults are tried, what is done with it, and what must hold of it whatever happened.

- *world*: a project's folder at some moment of its life, kept to be put back before each try.
- *facts*: what the folder says afterwards: where environments stand, what people see, what was delivered, and what was
  noted.
"""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import sys
from pathlib import Path
from typing import Any

from seeknal.cli.main import main
from seeknal.dag.project import Project
from seeknal.errors import SeeknalError
from seeknal.store.objects import ActionRecord, Artifact, Tree
from seeknal.store.store import Store
from seeknal.workflow.run_records import backend_in_force, open_backend
from seeknal.workflow.worker import close_workbenches

FILES = {
    "seeknal_project.yml": "name: shop\n",
    "data/orders.csv": "id,country,amount\n1,US,5.5\n2,UK,7.25\n3,US,1\n",
    "seeknal/nodes.yml": """\
kind: source
name: orders
source: csv
table: data/orders.csv
---
kind: transform
name: totals
transform: |
  SELECT country, sum(amount) AS total FROM source.orders GROUP BY country ORDER BY country
---
kind: rule
name: totals_are_sound
inputs: [transform.totals]
rule:
  - type: uniqueness
    columns: [country]
---
kind: exposure
name: report
path: reports/totals.csv
inputs: [transform.totals]
""",
}
CHANGED = {
    "data/orders.csv": FILES["data/orders.csv"] + "4,FR,2.75\n",
    "seeknal/nodes.yml": FILES["seeknal/nodes.yml"].replace("AS total", "AS total, count(*) AS orders"),
}
# More nodes, for workers that work at the same time; one of them in Python.
MORE = {
    "seeknal/more.yml": """\
kind: transform
name: countries
transform: SELECT DISTINCT country FROM source.orders ORDER BY country
---
kind: transform
name: largest
transform: SELECT max(amount) AS amount FROM source.orders
""",
    "seeknal/dollars.py": """\
from seeknal.pipeline import transform


@transform(name="dollars")
def dollars(ctx):
    orders = ctx.relation("source.orders")
    return ctx.duckdb.sql("SELECT id, amount * 1.5 AS amount FROM orders ORDER BY id")
""",
}


def write(root: str, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = Path(root, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


# what is done


def command(*arguments: str) -> dict[str, Any]:
    """Call ``seeknal`` in this process; gives what it said, and its exit code. Other exceptions are bugs."""
    streams = sys.stdout, sys.stderr
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(2))
    sys.stdout, sys.stderr = out, err
    code: Any = None
    try:
        main(list(arguments))
    except SystemExit as exit_:
        code = exit_.code
    finally:
        sys.stdout, sys.stderr = streams
    close_workbenches()
    return {"code": code, "stdout": _text(out), "stderr": _text(err)}


def _text(stream: io.TextIOWrapper) -> str:
    buffer = stream.buffer
    assert isinstance(buffer, io.BytesIO)
    return buffer.getvalue().decode()


def put(parquet: str) -> dict[str, Any]:
    """Put a file into the store and remember it, as a worker and a commit do; errors end as those of a command do."""
    store = Store(Path("target/store").absolute())
    try:
        store.prepare()
        with store.leases.hold("put"):
            path = store.temporary_path()
            shutil.copyfile(parquet, path)
            blob, row_count, columns = store.adopt_parquet(path, ["BIGINT"])
            store.record_action(ActionRecord("ab" * 16, "transform.put", Artifact((blob,), row_count, columns)))
            store.sync()
    except (OSError, SeeknalError) as error:
        return {"code": 1, "stdout": "", "stderr": f"error: {error}"}
    return {"code": 0, "stdout": "", "stderr": ""}


# what holds


def facts() -> dict[str, Any]:
    """What the project in this folder says of itself."""
    project = Project.open(Path.cwd())
    store = project.store()
    with contextlib.closing(open_backend(project, backend_in_force(project), "test")) as records:
        runs = {run_id: records.get_run(run_id) for run_id in records.list_runs()}
    return {
        "environments": {name: environment(project, store, name) for name in store.refs.names()},
        "records": store.environment_names(),
        "actions": {"put": store.find_action("ab" * 16) is not None},
        "blobs": sorted(path.name for path in (store.root / "blobs").glob("*/*")),
        "runs": {run_id: str(record) for run_id, record in runs.items()},
        "left": left_over(),
        "in_force": backend_in_force(project),
    }


def environment(project: Project, store: Store, name: str) -> dict[str, Any]:
    """Where an environment stands, by content; what is to be seen and delivered then, and what is."""
    digest = store.refs.read(name)
    assert digest is not None
    moves = [move.new for move in store.refs.log(name)]
    snapshot = store.read_snapshot(digest)
    tree = store.read_tree(snapshot.tree)
    folder = project.environment_folder(name)
    output = project.root if name == "prod" else folder / "output"
    return {
        "state": {"manifest": snapshot.manifest, "nodes": contents(tree)},
        "log_leads_here": bool(moves) and moves[-1] == digest,
        "shown": shown(folder),
        "to_show": to_show(snapshot.manifest, tree),
        "delivered": {"reports/totals.csv": text_of(output / "reports/totals.csv")},
        "to_deliver": {"reports/totals.csv": exposed(store, tree)},
    }


def contents(tree: Tree) -> dict[str, list[str]]:
    return {node_id: [blob.digest for blob in entry.artifact.blobs()] for node_id, entry in sorted(tree.nodes.items())}


def shown(folder: Path) -> dict[str, str | None]:
    """What people see of an environment: by path, the name of the file in the store, None where that is gone."""
    found: dict[str, str | None] = {}
    for pattern in ("cache/*/*.parquet", "intermediate/*.parquet", "manifest.json"):
        for path in sorted(folder.glob(pattern)):
            found[path.relative_to(folder).as_posix()] = path.resolve().name if path.exists() else None
    return found


def to_show(manifest: str, tree: Tree) -> dict[str, str]:
    found = {"manifest.json": f"{manifest}.json"}
    for node_id, entry in tree.nodes.items():
        kind, _, name = node_id.partition(".")
        for part in entry.artifact.parts:
            found[f"cache/{kind}/{name}.parquet"] = found[f"intermediate/{kind}_{name}.parquet"] = (
                f"{part.digest[2:]}.parquet"
            )
    return found


def exposed(store: Store, tree: Tree) -> str | None:
    entry = tree.nodes.get("exposure.report")
    return None if entry is None else text_of(store.blob_path(entry.artifact.side_blobs[0][1]))


def text_of(path: Path) -> str | None:
    try:
        return path.read_text()
    except FileNotFoundError:
        return None


def left_over() -> list[str]:
    """Files with a name that only something unfinished has, where people look."""
    found = []
    for folder, folders, files in os.walk("."):
        if os.path.relpath(folder) == "target/store":
            folders[:] = []
            continue
        found += [os.path.join(folder, name) for name in [*folders, *files] if name.startswith(".")]
    return sorted(name for name in found if "/runs/." not in name)


def look() -> dict[str, Any]:
    """Look at the folder, verify its store, repair what is damaged, look again."""
    if not Path("target/store").is_dir():
        return {"facts": None, "verify": None, "repair": None}
    before = command("store", "verify", "--json")
    repaired = command("store", "verify", "--repair") if before["code"] else None
    return {"facts": facts(), "verify": before, "repair": repaired}


def go_on(*commands: list[str]) -> dict[str, Any]:
    """Look, do what a user does next, look again."""
    first = look()
    answers = [command(*arguments) for arguments in commands]
    return {"first": first, "answers": answers, "then": look()}
