"""Applying: running the project in an environment, as it was planned there."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from seeknal.store.leases import Lease
from seeknal.store.objects import EnvironmentPlanRecord, EnvironmentRecord
from seeknal.workflow.events import Listener, silent
from seeknal.workflow.heads import environment_lock
from seeknal.workflow.limits import StopRequest
from seeknal.workflow.results import RunOptions, RunResult
from seeknal.workflow.session import Session, run_purpose
from seeknal.workflow.summary import ExecutionSummary, summarize
from seeknal.workflow.views import show_record


@dataclass(frozen=True)
class ApplyResult(Mapping[str, Any]):
    """What applying a plan did. Also a mapping of the names that older callers expect."""

    env_name: str
    result: RunResult
    env_dir: Path
    nodes_to_execute: list[str]
    profile_path: str | None = None

    @property
    def success(self) -> bool:
        return self.result.status == "success"

    @property
    def summary(self) -> ExecutionSummary:
        return summarize(self.result)

    def _as_dict(self) -> dict[str, Any]:
        return {
            "env_name": self.env_name,
            "env_dir": self.env_dir,
            "nodes_to_execute": self.nodes_to_execute,
            "profile_path": self.profile_path,
            "success": self.success,
        }

    def __getitem__(self, key: str) -> Any:
        return self._as_dict()[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._as_dict())

    def __len__(self) -> int:
        return len(self._as_dict())


class Applying(msgspec.Struct, frozen=True):
    """An environment whose plan was checked against the project, ready to run."""

    session: Session
    record: EnvironmentRecord
    plan: EnvironmentPlanRecord

    @property
    def name(self) -> str:
        return self.record.name

    def look(self, options: RunOptions) -> ApplyResult:
        """What a run would execute; nothing is written."""
        forecast = self.session.prepare_run(self.name, options).forecast()
        would = [entry.node_id for entry in forecast if entry.action in ("RUN", "MAY RUN")]
        head = self.session.store.refs.read(self.name)
        return self._result(RunResult("", self.name, "success", 0.0, [], head), would)

    def run(
        self,
        options: RunOptions,
        *,
        listener: Listener = silent,
        stop: StopRequest | None = None,
        publish: bool = True,
        lease: Lease | None = None,
    ) -> ApplyResult:
        """Run, and remember how it ended. ``lease`` as in :meth:`Session.run`. Raises ProjectError, BusyError."""
        store = self.session.store
        self.session.compiled.analysis.check()
        # Until it is remembered how the run ended: who deletes the environment meanwhile would find it made anew.
        lock = nullcontext(lease) if lease else environment_lock(store, self.name, run_purpose(self.name))
        with lock as lease:
            result = self.session.run(
                self.name,
                options,
                listener=listener,
                stop=stop,
                base_snapshot=self.plan.base,
                publish=publish,
                lease=lease,
            )
            record = store.update_environment(self.name, lambda now: self._after(now or self.record, result))
            show_record(self.session.project, store, record)
        return self._result(result, self.plan.to_execute)

    def _after(self, now: EnvironmentRecord, result: RunResult) -> EnvironmentRecord:
        """The record after this run; one that was planned anew meanwhile stays planned."""
        status = now.status
        if now.plan == self.plan:
            # A run of a selection does not make the whole plan applied.
            whole = not result.count("skipped")
            status = "failed" if result.status != "success" else "applied" if whole else status
        return msgspec.structs.replace(now, status=status, last_accessed=time.time())

    def _result(self, result: RunResult, nodes: list[str]) -> ApplyResult:
        folder = self.session.project.environment_folder(self.name)
        return ApplyResult(self.name, result, folder, nodes, self.plan.profile_path)
