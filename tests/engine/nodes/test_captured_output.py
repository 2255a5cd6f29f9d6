"""What is printed goes to a file, whoever prints it; of too much, the beginning and the end."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from seeknal.nodes.captured_output import HEAD_BYTES, MOST_BYTES, TAIL_BYTES, captured_output


def test_what_anybody_prints_is_in_the_file(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with captured_output(tmp_path / "logs/out.log") as output:
        # Not sys.stdout, which is the tests' own.
        print("python", file=sys.__stdout__)
        print("error", file=sys.__stderr__)
        os.write(1, b"descriptor\n")
        subprocess.run(["echo", "program"], check=True)
        output.write("ours\n")
    print("behind")
    said = (tmp_path / "logs/out.log").read_text()
    assert sorted(said.split()) == ["descriptor", "error", "ours", "program", "python"]
    assert capfd.readouterr().out == "behind\n"


def test_nothing_printed_leaves_no_file(tmp_path: Path) -> None:
    with captured_output(tmp_path / "out.log"):
        pass
    assert not (tmp_path / "out.log").exists()


@pytest.mark.parametrize("megabytes", [0, 5, 60])
def test_of_too_much_the_beginning_and_the_end_are_kept(tmp_path: Path, megabytes: int) -> None:
    with captured_output(tmp_path / "out.log"):
        os.write(1, b"the beginning\n")
        for _ in range(megabytes):
            os.write(2, b"x" * 1024 * 1024)
        os.write(1, b"\nthe end\n")
    said = (tmp_path / "out.log").read_bytes()
    assert said.startswith(b"the beginning\n")
    assert said.endswith(b"\nthe end\n")
    assert len(said) <= HEAD_BYTES + TAIL_BYTES + 100 or len(said) <= MOST_BYTES
    assert (b"bytes left out" in said) == (megabytes > 0)


def test_the_streams_are_put_back_whatever_happens(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        sys.stdout = None  # type: ignore[assignment]
        os.close(1)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), captured_output(tmp_path / "out.log"):
        fail()
    print("behind")
    assert capfd.readouterr().out == "behind\n"
