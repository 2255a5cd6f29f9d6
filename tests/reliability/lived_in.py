"""A project with a life behind it: environments, history, a promotion, a rollback, a pin, deliveries, checks.

- *truth*: what each state of each environment held before anything happened to the files: rows, and the blobs' digests.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from seeknal.errors import SeeknalError
from seeknal.store.history import write_ends
from seeknal.store.losses import note_losses
from seeknal.store.objects import Blob
from seeknal.store.store import Store
from seeknal.workflow.outputs import read_outputs
from seeknal.workflow.reading import TableReader
from tests.acceptance.project import Project

FILES = {
    "seeknal_project.yml": "name: shop\n",
    "data/orders.csv": "id,customer,amount\n" + "".join(f"{i},c{i % 7},{i * 37 % 101}.5\n" for i in range(400)),
    "seeknal/orders.yml": """kind: source
name: orders
source: csv
table: data/orders.csv
schema:
  - {name: id, data_type: bigint}
  - {name: customer, data_type: varchar}
  - {name: amount, data_type: double}
""",
    "seeknal/big.yml": """kind: transform
name: big
audits:
  - {type: not_null, columns: [id]}
transform: |
  SELECT id, customer, amount FROM ref('source.orders') WHERE amount > 10
""",
    "seeknal/totals.yml": """kind: transform
name: totals
transform: |
  SELECT customer, sum(amount) AS total FROM transform.big GROUP BY customer ORDER BY customer
""",
    "seeknal/top.yml": """kind: transform
name: top
transform: |
  SELECT customer FROM transform.totals ORDER BY total DESC LIMIT 3
""",
    "seeknal/report.yml": """kind: exposure
name: report
type: file
inputs: [{ref: transform.totals}]
params: {path: output/report.csv, format: csv}
""",
}

SECOND = ("amount > 10", "amount > 20")
TRIAL = ("sum(amount)", "max(amount)")

# Every state that can be named; production's history is: first run, promotion, rollback, run.
STATES = ("prod", "prod@1", "prod@2", "prod@3", "dev", "trial")


@dataclass(frozen=True)
class Truth:
    """What was there. ``rows``: state → table → rows; ``blobs``: state → node → blobs; ``report``: the delivery."""

    rows: dict[str, dict[str, list[tuple[str | None, ...]]]]
    blobs: dict[str, dict[str, list[Blob]]]
    report: bytes


def live(root: Path) -> Project:
    """Make the project, and let it live."""
    project = Project(root)
    for path, text in FILES.items():
        project.write(path, text)
    project.ok("run")
    project.replace("seeknal/big.yml", *SECOND)
    project.ok("plan", "dev")
    project.ok("run", "--env", "dev")
    project.ok("promote", "dev")
    project.ok("rollback", "prod")
    project.ok("run")
    project.ok("env", "pin", "prod", "3")
    try_something_else(project)
    leave_notes(store_of(project))
    return project


def leave_notes(store: Store) -> None:
    """What garbage collection, a repair and a killed process leave behind."""
    write_ends(store, [])
    note_losses(store, [f"actions/00/{'0' * 30}"])
    (store.root / "leases" / ("01" * 16)).write_text('{"purpose":"run","pid":1,"host":"h","since":"","started_ns":1}\n')


def try_something_else(project: Project) -> None:
    """Plan and apply the environment trial, which differs from the project as it is."""
    project.replace("seeknal/totals.yml", *TRIAL)
    project.ok("plan", "trial")
    project.ok("run", "--env", "trial")
    project.replace("seeknal/totals.yml", *reversed(TRIAL))


def store_of(project: Project) -> Store:
    return Store(project.root / "target/store")


def truth_of(project: Project) -> Truth:
    rows = {}
    blobs = {}
    for state in STATES:
        rows[state] = read_rows(project, state)
        outputs = read_outputs(store_of(project), state)
        blobs[state] = {node_id: entry.artifact.blobs() for node_id, entry in outputs.nodes.items()}
    return Truth(rows, blobs, (project.root / "output/report.csv").read_bytes())


def read_rows(project: Project, state: str) -> dict[str, list[tuple[str | None, ...]]]:
    """The rows of each table of a state. Raises SeeknalError."""
    with TableReader.open(store_of(project), state) as reader:
        return {node_id: sorted(reader.query(f"SELECT * FROM {node_id}").values) for node_id in reader.outputs.tables}


def read_what_can_be_read(project: Project, state: str) -> tuple[dict[str, list[tuple[str | None, ...]]], list[str]]:
    """The rows of each table of a state that can be read, and the errors of the others."""
    found: dict[str, list[tuple[str | None, ...]]] = {}
    errors: list[str] = []
    try:
        with TableReader.open(store_of(project), state) as reader:
            for node_id in reader.outputs.tables:
                try:
                    found[node_id] = sorted(reader.query(f"SELECT * FROM {node_id}").values)
                except SeeknalError as error:
                    errors.append(str(error))
    except SeeknalError as error:
        errors.append(str(error))
    return found, errors
