from __future__ import annotations

import os
from pathlib import Path

import pytest

from seeknal.workflow import limits
from seeknal.workflow.limits import StopRequest, memory_share, usable_cores

GIB = 2**30


class Machine:
    """Control groups as Linux shows them, in a folder; eight cores and 64 GiB."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "cgroup").mkdir()

    def of_process(self, *lines: str) -> None:
        (self.folder / "self").write_text("".join(f"{line}\n" for line in lines))

    def say(self, path: str, text: str) -> None:
        file = self.folder / "cgroup" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{text}\n")


@pytest.fixture(autouse=True)
def forgetful(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "usable_memory_bytes", limits.usable_memory_bytes.__wrapped__)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    monkeypatch.setattr(limits, "_PROCESS_GROUPS", tmp_path / "self")
    monkeypatch.setattr(limits, "_GROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)), raising=False)
    monkeypatch.setattr(os, "sysconf", {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 64 * GIB // 4096}.__getitem__)
    return Machine(tmp_path)


class TestControlGroups:
    def test_machine_without_them_is_used_whole(self, machine: Machine) -> None:
        assert (usable_cores(), limits.usable_memory_bytes()) == (8, 64 * GIB)
        machine.of_process("0::/")
        assert (usable_cores(), limits.usable_memory_bytes()) == (8, 64 * GIB)

    def test_limit_of_a_container_counts(self, machine: Machine) -> None:
        machine.of_process("0::/")
        machine.say("memory.max", str(4 * GIB))
        machine.say("cpu.max", "250000 100000")
        assert (usable_cores(), limits.usable_memory_bytes()) == (2, 4 * GIB)

    def test_least_limit_on_the_way_up_counts(self, machine: Machine) -> None:
        machine.of_process("0::/slurm/job/step")
        machine.say("slurm/job/step/memory.max", "max")
        machine.say("slurm/job/memory.max", str(2 * GIB))
        machine.say("slurm/memory.max", str(3 * GIB))
        machine.say("slurm/job/step/cpu.max", "max 100000")
        machine.say("slurm/cpu.max", "50000 100000")
        assert (usable_cores(), limits.usable_memory_bytes()) == (1, 2 * GIB)

    def test_more_than_the_machine_has_is_no_limit(self, machine: Machine) -> None:
        machine.of_process("0::/a")
        machine.say("a/memory.max", str(128 * GIB))
        machine.say("a/cpu.max", "1600000 100000")
        assert (usable_cores(), limits.usable_memory_bytes()) == (8, 64 * GIB)

    def test_memory_of_the_first_version_counts_too(self, machine: Machine) -> None:
        # In a container the path is the host's, and only the top is to be seen.
        machine.of_process("4:memory:/docker/0123", "3:cpu,cpuacct:/docker/0123", "0::/")
        machine.say("memory/memory.limit_in_bytes", str(GIB))
        assert limits.usable_memory_bytes() == GIB

    @pytest.mark.parametrize("text", ["", "nonsense", "max", "-1", "1.5", "1 2 3"])
    def test_what_is_no_limit_is_passed_over(self, machine: Machine, text: str) -> None:
        machine.of_process("0::/")
        machine.say("memory.max", text)
        machine.say("cpu.max", text)
        assert (usable_cores(), limits.usable_memory_bytes()) == (8, 64 * GIB)

    def test_busy_workers_share_four_fifths(self, machine: Machine) -> None:
        assert memory_share(1) == memory_share(0) == int(64 * GIB * 0.8)
        assert memory_share(4) == int(64 * GIB * 0.2)


class TestStopping:
    def test_asking_once_gives_some_time_and_asking_twice_none(self) -> None:
        stop = StopRequest()
        assert not stop.requested
        assert not stop.overdue()
        stop.request(15)
        assert stop.requested
        assert (stop.signal_number, stop.insists, stop.overdue()) == (15, False, False)
        stop.request(2)
        assert (stop.signal_number, stop.insists, stop.overdue()) == (15, True, True)

    def test_time_runs_out(self, monkeypatch: pytest.MonkeyPatch) -> None:
        stop = StopRequest()
        stop.request()
        monkeypatch.setattr(StopRequest, "grace_seconds", -1.0)
        assert stop.overdue()
        assert not stop.insists
