from __future__ import annotations

import dataclasses

from seeknal.workflow.summary import ExecutionStatus, ExecutionSummary, NodeResult


def test_results_are_dataclasses_as_programs_take_them_to_be() -> None:
    result = NodeResult("source.a", ExecutionStatus.SUCCESS)
    result.metadata["rows"] = 3
    summary = ExecutionSummary(1, 1, 0, 1, 0, 0, 0.5, [dataclasses.replace(result, row_count=3)])
    assert dataclasses.asdict(summary)["results"][0]["row_count"] == 3
    assert NodeResult("source.b", ExecutionStatus.PENDING).metadata == {}
