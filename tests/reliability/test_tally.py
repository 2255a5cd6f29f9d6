"""That what the other tests of this folder count is printed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

COUNTING = """
def test_a(tally):
    tally("a fault", 3)
    tally("a fault", 4)

def test_b(tally):
    tally("another", 1)
    assert False
"""


def test_tries_are_summed_and_failures_named(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(
        (Path(__file__).parents[1] / "conftest.py").read_text()
        + (Path(__file__).parent / "conftest.py").read_text().replace("from __future__ import annotations", "")
    )
    (tmp_path / "test_counting.py").write_text(COUNTING)
    command = [sys.executable, "-m", "pytest", "-q", "-n", "2", "-p", "no:cacheprovider", str(tmp_path)]
    answer = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert "a fault       7 tries  nothing lost" in answer.stdout
    assert "another       1 tries  1 test(s) failed" in answer.stdout
