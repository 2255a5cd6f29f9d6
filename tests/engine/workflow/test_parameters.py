"""Parameters of runs: what they change of fingerprints, and what not."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given as given_values
from hypothesis import settings
from hypothesis import strategies as st

from seeknal.dag.parameters import GivenParameters, given_parameters
from seeknal.dag.project import Project
from seeknal.errors import StalePlanError
from seeknal.workflow.environment import EnvironmentManager
from seeknal.workflow.results import RunOptions
from seeknal.workflow.session import Session
from tests.engine.workflow.projects import transform, write_project

NAMES = ("a", "b", "day")
VALUES = st.fixed_dictionaries(
    {"a": st.integers(0, 1), "b": st.sampled_from(["x", "y'z"]), "day": st.sampled_from(["2024-01-01", "2024-01-02"])}
)


def fingerprints(root: Path, values: dict[str, str], run_id: str) -> dict[str, str]:
    given = GivenParameters(date=values["day"], run_id=run_id, params={name: values[name] for name in ("a", "b")})
    with Session.open(Project.open(root), given) as session:
        result = session.run("prod", RunOptions(run_id=run_id))
    assert result.status == "success"
    return {node.node_id: node.fingerprint for node in result.nodes}


@settings(max_examples=12, deadline=None)
@given_values(st.lists(st.sets(st.sampled_from(NAMES)), min_size=1, max_size=3), VALUES, VALUES)
def test_a_parameter_changes_the_fingerprints_of_the_nodes_that_use_it_and_of_no_others(
    uses: list[set[str]], before: dict[str, str], after: dict[str, str]
) -> None:
    columns = {"a": "{{ a }} AS a", "b": "'{{ b }}' AS b", "day": "{{ today }} AS day"}
    with TemporaryDirectory() as folder:
        nodes = {
            f"seeknal/n{index}.yml": transform(
                f"n{index}", ", ".join(["SELECT '{{ run_id }}' AS run", *(columns[name] for name in sorted(used))])
            )
            for index, used in enumerate(uses)
        }
        root = write_project(Path(folder), nodes)
        first, second = fingerprints(root, before, "one"), fingerprints(root, after, "two")
    for index, used in enumerate(uses):
        node_id = f"transform.n{index}"
        same = all(before[name] == after[name] for name in used)
        assert (first[node_id] == second[node_id]) is same


def test_an_environment_is_planned_and_applied_with_parameters_from_python(tmp_path: Path) -> None:
    root = write_project(tmp_path, {"seeknal/a.yml": transform("a", "SELECT {{ today }} AS day, '{{ x }}' AS x")})
    manager = EnvironmentManager(root / "target")
    given = given_parameters(date="2024-01-31", params={"x": "O'Hara"})
    assert manager.plan("dev", given=given).parameters == {"date": "2024-01-31", "params": {"x": "O'Hara"}}
    assert manager.apply("dev", parallel=False).success
    with pytest.raises(StalePlanError, match="other parameters"):
        manager.apply("dev", parallel=False, given=given_parameters(date="2024-02-01", params={"x": "O'Hara"}))
    assert manager.apply("dev", parallel=False, given=given).result.executed == 0
