"""Parameters of runs: what they change of fingerprints, and what not."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given, settings
from hypothesis import strategies as st

from seeknal.dag.parameters import GivenParameters
from seeknal.dag.project import Project
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
@given(st.lists(st.sets(st.sampled_from(NAMES)), min_size=1, max_size=3), VALUES, VALUES)
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
