"""Make the golden store of this version: ``python -m tests.golden.make`` from the checkout's folder.

A store's format may change, and what older versions left must stay readable. So a project with a life behind it is kept
for each format, as an archive with its links and modes, and beside it what each state held. Do it again where the
version of a format is raised; the archives of older formats stay as they are.

    tests/golden/format-<version>.tar.gz   the project, once for each backend of records: file/ and database/
    tests/golden/format-<version>.json     state → table → how many rows and their digest, and the version of DuckDB
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import tarfile
import tempfile
from pathlib import Path

from seeknal.store.objects import FORMAT_VERSIONS, StoreFormat
from tests.acceptance.project import Project
from tests.reliability.lived_in import STATES, live, read_rows

HERE = Path(__file__).parent

MORE = {
    "seeknal/customer.yml": """kind: feature_group
name: spending
entity: {name: customer, join_keys: [customer]}
materialization: {event_time_col: at}
transform: |
  SELECT customer, max(amount) AS most, DATE '2026-01-01' AS at FROM transform.big GROUP BY customer
""",
}
FAILING = ("{type: not_null, columns: [id]}", "{type: row_count, max: 3}")


def make(root: Path) -> Project:
    """A project in which there is a file of every kind."""
    for path, text in MORE.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    project = live(root)
    # Something that its checks reject, and something that was moved aside.
    project.replace("seeknal/big.yml", *FAILING)
    assert project.seeknal("run").code == 1
    project.replace("seeknal/big.yml", *reversed(FAILING))
    (root / "target/store/stranger").write_text("moved aside")
    project.ok("store", "verify", "--repair")
    # What is worked out again.
    shutil.rmtree(root / "target/store/memo")
    return project


def contents(project: Project, state: str) -> dict[str, list[object]]:
    """Of each table of a state, how many rows it has and a digest of them in order."""
    tables = read_rows(project, state)
    return {name: [len(rows), hashlib.sha256(repr(rows).encode()).hexdigest()] for name, rows in tables.items()}


def _nobodys(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    return entry


def main() -> None:
    """Write the archive, and what is in it."""
    with tempfile.TemporaryDirectory() as folder:
        project = make(Path(folder) / "file")
        held = {state: contents(project, state) for state in STATES}
        database = Project(Path(shutil.copytree(project.root, Path(folder) / "database", symlinks=True)))
        database.ok("migrate-state", "--backend", "database", "--no-dry-run")
        import duckdb

        name = f"format-{FORMAT_VERSIONS[StoreFormat][1]}"
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w:gz", compresslevel=9) as archive:
            for entry in ("file", "database"):
                archive.add(Path(folder) / entry, entry, filter=_nobodys)
        (HERE / f"{name}.tar.gz").write_bytes(packed.getvalue())
        document = {"duckdb": duckdb.__version__, "states": held}
        (HERE / f"{name}.json").write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
