"""A project whose run takes a second or two: all kinds of work, a chain, a rule, Python, files to deliver.

Its *versions* differ in every node's output, in every file that is delivered, and in which files these are.
"""

from __future__ import annotations

from pathlib import Path

from seeknal.dag.project import Project as Opened
from seeknal.store.objects import Tree
from seeknal.store.store import Store
from tests.acceptance.project import Project

ROWS = 3000
REGIONS = 16

PYTHON = '''\
"""Orders in another currency."""

from seeknal.pipeline import transform


@transform(name="dollars", description="In dollars")
def dollars(ctx):
    clean = ctx.relation("transform.clean")
    return ctx.duckdb.sql("SELECT id, region, amount * 1.5 AS amount FROM clean ORDER BY id")
'''

# Some weigh more than others, so that workers are at different points of their work at any moment.
HEAVY = {"light": 100_000, "middle": 1_500_000, "heavy": 4_000_000}

NODES = {
    "clean": "SELECT id, region, amount FROM source.orders WHERE amount > 10",
    "daily": "SELECT region, sum(amount) AS amount FROM transform.clean GROUP BY region ORDER BY region",
    "ranked": "SELECT *, row_number() OVER (ORDER BY amount DESC, region) AS place FROM transform.daily ORDER BY place",
    "best": "SELECT region, amount FROM transform.ranked WHERE place <= 3 ORDER BY place",
    "total": "SELECT sum(amount) AS amount FROM transform.dollars",
}


def write(root: Path, version: int) -> Project:
    """Write the project, or bring it to another version."""
    project = Project(root)
    project.write("seeknal_project.yml", "name: shop\n")
    rows = (f"{i},region-{i % REGIONS + version},{(i * 37 * version) % 997 + version}" for i in range(ROWS))
    project.write("data/orders.csv", "\n".join(["id,region,amount", *rows, ""]))
    project.write("seeknal/orders.yml", "kind: source\nname: orders\nsource: csv\ntable: data/orders.csv\n")
    project.write("seeknal/dollars.py", PYTHON)
    for name, query in NODES.items():
        project.write(f"seeknal/{name}.yml", f"kind: transform\nname: {name}\ntransform: {query}\n")
    for name, rows_read in HEAVY.items():
        query = f"SELECT i % 50 AS k, sum(hash(i + {version}) % 1000)::BIGINT AS v FROM range({rows_read}) t(i)"
        text = f"kind: transform\nname: {name}\ntransform: {query} GROUP BY k ORDER BY k\n"
        project.write(f"seeknal/{name}.yml", text)
    rule = "kind: rule\nname: sound\ninputs: [transform.clean]\nrule: {value: amount > 10}\n"
    project.write("seeknal/sound.yml", rule)
    whole = "kind: exposure\nname: whole\ntype: file\npath: output/whole.csv\ninputs: [transform.dollars]\n"
    project.write("seeknal/whole.yml", whole)
    parts = (
        "kind: exposure\nname: parts\ntype: file\npath: output/parts\nformat: csv\n"
        "params: {partition_by: region}\ninputs: [transform.clean]\n"
    )
    project.write("seeknal/parts.yml", parts)
    return project


def contents(tree: Tree) -> dict[str, list[str]]:
    """Each node of a tree with the digests of its blobs."""
    return {
        node_id: sorted(blob.digest for blob in entry.artifact.blobs()) for node_id, entry in sorted(tree.nodes.items())
    }


def stands_at(root: Path, environment: str = "prod") -> dict[str, list[str]] | None:
    """The contents of the tree where an environment stands, None where it stands nowhere."""
    store: Store = Opened.open(root).store()
    head = store.refs.read(environment)
    return contents(store.read_tree(store.read_snapshot(head).tree)) if head else None


def delivered(root: Path) -> dict[str, bytes]:
    """Every file below the folder of deliveries, hidden ones included."""
    folder = root / "output"
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
