"""Faults on purpose, at two lengths: a sample in every test run, everything with ``--torture`` (`make torture`).

- *tries*: how often a fault was brought about, each followed by looking at what is left. Each test counts its own
  with the fixture ``tally``; the sums are printed at the end, also of tests that ran in several processes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable

import pytest

_KEY = "tries: "


@pytest.fixture
def torture(request: pytest.FixtureRequest) -> bool:
    """Whether everything is to be tried, not a sample."""
    return bool(request.config.getoption("--torture"))


@pytest.fixture
def tally(request: pytest.FixtureRequest) -> Callable[[str, int], None]:
    """Count tries: ``tally("killed at a file-system call of a run", 312)``. A fault may be counted many times."""

    def count(fault: str, tries: int) -> None:
        request.node.user_properties.append((_KEY + fault, tries))

    return count


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print how often each fault was tried, and in how many of its tests something was lost."""
    tries: dict[str, int] = defaultdict(int)
    failed: dict[str, int] = defaultdict(int)
    for outcome in ("passed", "failed"):
        for report in terminalreporter.stats.get(outcome, []):
            for key, count in getattr(report, "user_properties", []):
                if report.when == "call" and key.startswith(_KEY):
                    tries[key.removeprefix(_KEY)] += count
                    failed[key.removeprefix(_KEY)] += outcome == "failed"
    if tries:
        terminalreporter.section("faults brought about")
        width = max(map(len, tries))
        for fault in sorted(tries):
            outcome = f"{failed[fault]} test(s) failed" if failed[fault] else "nothing lost"
            terminalreporter.write_line(f"{fault:<{width}}  {tries[fault]:>6} tries  {outcome}")
