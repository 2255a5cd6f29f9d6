from __future__ import annotations

import os
import time

import pytest

from seeknal import timeline


def test_nothing_is_recorded_while_nobody_looks() -> None:
    with timeline.span("query"):
        timeline.take_over([timeline.Span("query", 0, 1, 1, 1)])
    assert not timeline.is_recording()
    with timeline.recording() as found:
        pass
    assert found.spans == []


def test_a_span_lies_within_the_span_around_it_and_within_the_time_of_day() -> None:
    before = time.time_ns()
    with timeline.recording() as found, timeline.span("outer"), timeline.span("inner", "source.a"):
        pass
    inner, outer = found.spans
    assert (inner.name, inner.node_id, outer.name) == ("inner", "source.a", "outer")
    assert outer.start_ns <= inner.start_ns <= inner.end_ns <= outer.end_ns
    assert abs(outer.start_ns - before) < 60e9
    assert {span.process for span in found.spans} == {os.getpid()}


def test_a_span_whose_block_fails_is_recorded() -> None:
    with timeline.recording() as found, pytest.raises(ZeroDivisionError), timeline.span("query"):
        raise ZeroDivisionError
    assert [span.name for span in found.spans] == ["query"]
