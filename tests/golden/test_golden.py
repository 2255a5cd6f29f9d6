"""What this version and older ones left is read, verified, run, rolled back and collected as it was left."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest

from seeknal.store.objects import FORMAT_VERSIONS, StoreFormat
from tests.acceptance.project import Project
from tests.golden.make import HERE, contents

FORMATS = sorted(path.stem for path in HERE.glob("format-*.json"))


def unpack(name: str, backend: str, folder: Path) -> Project:
    with tarfile.open(HERE / f"{name}.tar.gz") as archive:
        chosen = [entry for entry in archive.getmembers() if entry.name.split("/")[0] == backend]
        archive.extractall(folder, chosen, filter="tar")
    return Project(folder / backend)


def test_this_version_has_its_golden_store() -> None:
    assert f"format-{FORMAT_VERSIONS[StoreFormat][1]}" in FORMATS


@pytest.mark.parametrize("backend", ["file", "database"])
@pytest.mark.parametrize("name", FORMATS)
def test_a_golden_store_is_whole_and_goes_on(name: str, backend: str, tmp_path: Path) -> None:
    import duckdb

    golden = json.loads((HERE / f"{name}.json").read_text())
    project = unpack(name, backend, tmp_path)
    assert {state: contents(project, state) for state in golden["states"]} == golden["states"]
    assert project.ok("store", "verify", "--json").document["status"] == "clean"
    listed = {entry["name"] for entry in project.ok("env", "list", "--json").document["environments"]}
    assert listed == {"prod", "dev", "trial"}
    for environment in listed:
        moments = project.ok("env", "history", environment, "--json").document["history"]
        assert len(moments) == (4 if environment == "prod" else 1)
    # Another version of DuckDB makes everything anew; this one has nothing to do.
    if golden["duckdb"] == duckdb.__version__:
        assert "Executed:       0" in project.ok("run").text
        assert "Executed:       0" in project.ok("run", "--env", "dev").text
    project.ok("rollback", "prod")
    assert contents(project, "prod") == golden["states"]["prod@1"]
    project.ok("promote", "trial", "--force", "--yes")
    assert contents(project, "prod") == golden["states"]["trial"]
    project.ok("env", "delete", "dev", "--yes")
    project.ok("gc", "--keep-last", "1")
    assert contents(project, "prod") == golden["states"]["trial"]
    project.ok("run", "--full")
    assert contents(project, "prod") == golden["states"]["prod"]
    other = "file" if backend == "database" else "database"
    project.ok("migrate-state", "--backend", other, "--no-dry-run")
    assert project.ok("store", "verify", "--json").document["status"] == "clean"
