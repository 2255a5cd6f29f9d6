"""Execution: one run of a project in an environment, from the first node to the last.

A run resolves and executes nodes as their inputs are done, and gives what became of them and the tree they make. Moving
the environment's ref there is the session's part (:mod:`seeknal.workflow.session`). What a failed run finished stays
in the cache; the next run goes on from there.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from concurrent.futures import BrokenExecutor, Future

import msgspec

from seeknal.dag.demands import NO_DEMANDS
from seeknal.dag.inference import CompiledProject, Inference
from seeknal.dag.manifest import Manifest
from seeknal.errors import FormatTooNewError, Problem, SeeknalError
from seeknal.nodes.check import CheckResult, results_in
from seeknal.store.objects import Artifact, FailedNode, Tree
from seeknal.store.shared_trees import SharedTrees
from seeknal.store.store import Store
from seeknal.timeline import span, take_over
from seeknal.workflow.attempts import Attempts
from seeknal.workflow.capacity import Capacity
from seeknal.workflow.events import Listener, NodeFinished, NodeRetried, NodeStarted, RunStarted, silent
from seeknal.workflow.failures import (
    check_problems,
    death_failure,
    error_problems,
    failure_problem,
    rejected_nodes,
    timeout_failure,
)
from seeknal.workflow.forecast import forecast_run, waiting
from seeknal.workflow.limits import LARGE_NODES, StopRequest, give_back_memory, memory_share
from seeknal.workflow.resolution import CHECK, DROP, HIT, MISS, Base, Decision, Resolver
from seeknal.workflow.results import Forecast, NodeOutcome, RunOptions, RunResult, new_run_id
from seeknal.workflow.run_tree import built_manifest, tree_of_run
from seeknal.workflow.scheduler import Command, Execute, Resolve, Scheduler, Skip
from seeknal.workflow.selection import Selection, outputs_of, select
from seeknal.workflow.shares import memory_limit_bytes, slots_of, threads_for, workers_for
from seeknal.workflow.worker import Failure, decode_outcome
from seeknal.workflow.workers import Workers

# How often running nodes are looked at, where somebody may want the run to stop: also for the memory that they use.
LOOK_SECONDS = 0.1


class Run:
    """One run, prepared: it can be forecast any number of times, then executed once.

    ``base`` is what outputs are compared with and kept from. Committing what came out is the session's.
    """

    def __init__(
        self,
        compiled: CompiledProject,
        inference: Inference,
        store: Store,
        environment: str,
        base: Base,
        options: RunOptions,
        *,
        listener: Listener = silent,
        stop: StopRequest | None = None,
        workers: Workers | None = None,
    ) -> None:
        compiled.analysis.check()
        self.run_id = options.run_id or new_run_id()
        self.environment = environment
        self._compiled = compiled
        self._manifest: Manifest = compiled.parsed.manifest
        self._store = store
        self._base = base
        self._options = options
        self._listener = listener
        self._stop = stop or StopRequest()
        self._workers = workers
        self._waiting = waiting(compiled)
        self._order = list(self._waiting)
        self._selection: Selection = select(
            self._manifest, options.filters, outputs_of(store, base.tree, options.filters)
        )
        self._resolver = Resolver(
            store,
            inference,
            compiled.parsed.drafts,
            compiled.analysis.nodes,
            base,
            self._selection,
            full=options.full,
        )
        self._outcomes: dict[str, NodeOutcome] = {}
        self._started: dict[str, tuple[float, int]] = {}
        self._attempts = Attempts(options.retry)
        self._demands = {
            node_id: draft.demands for node_id, draft in compiled.parsed.drafts.items() if draft.demands != NO_DEMANDS
        }
        self._written: list[str] = []
        self._shared = SharedTrees()
        self._reported = 0
        self._to_report = 0

    # looking ahead

    def forecast(self) -> list[Forecast]:
        """Say what a run would do, in order, without executing anything."""
        return forecast_run(self._waiting, self._resolver, self._selection, self._base, full=self._options.full)

    # running

    def execute(self) -> tuple[RunResult, Tree]:
        """Run. Gives the result, not committed yet, and the tree that it makes."""
        started = time.perf_counter()
        for node_id in self._selection.considered:
            # What cannot be executed with the run's own values is found before anything is.
            self._resolver.executed(node_id)
        forecast = self.forecast()
        may_run = {entry.node_id for entry in forecast if entry.action in ("RUN", "MAY RUN")}
        self._to_report = len(self._order)
        runnable = len(may_run) + sum(entry.action == "CHECK" for entry in forecast)
        del forecast
        slots = self._workers.slots if self._workers is not None else slots_of(self._options, runnable)
        self._listener(
            RunStarted(self.run_id, self.environment, tuple(self._order), len(may_run), self._options.parallel, slots)
        )
        scheduler = Scheduler(
            self._waiting,
            Capacity(slots, memory_share(1), self._demands),
            {node_id: entry.artifact.duration_seconds for node_id, entry in self._base.tree.nodes.items()},
            continue_on_error=self._options.continue_on_error,
        )
        drafts = [self._compiled.parsed.drafts[node_id] for node_id in may_run]
        del may_run
        workers = self._workers or workers_for(drafts, slots, parallel=self._options.parallel, total=len(self._order))
        finished = False
        try:
            with span("schedule"):
                self._drive(scheduler, workers)
            finished = not self._stop.requested
        finally:
            if workers is not self._workers:
                # Whatever broke off the run, its nodes are not waited for.
                workers.close(kill=not finished)
        outcomes = [self._outcomes[node_id] for node_id in self._order]
        failed = any(outcome.status == "failed" for outcome in outcomes)
        status = "interrupted" if self._stop.requested else "failed" if failed else "success"
        result = RunResult(
            self.run_id,
            self.environment,
            status,
            time.perf_counter() - started,
            outcomes,
            None,
            batches=self._batches(),
            most_concurrent=scheduler.most_running,
            workers=slots,
            finished_at=time.time(),
        )
        tree = tree_of_run(self._order, self._outcomes, self._manifest, self._base, self._resolver)
        # Only running needs these, and the commit takes memory of its own.
        self._waiting.clear()
        self._resolver.forget_decisions()
        if len(self._order) >= LARGE_NODES:
            give_back_memory()
        return result, tree

    def _drive(self, scheduler: Scheduler, workers: Workers) -> None:
        futures: dict[Future[bytes], str] = {}
        pending: deque[Command] = deque(scheduler.start())
        while pending or futures or self._attempts.waits:
            while pending:
                pending += self._obey(pending.popleft(), scheduler, workers, futures)
                if self._stop.requested:
                    pending += scheduler.stop("interrupted")
            done = self._wait(futures, workers)
            if self._stop.requested:
                pending += scheduler.stop("interrupted")
                if self._stop.overdue():
                    for future in list(futures):
                        pending += self._abandon(futures.pop(future), scheduler)
                    done = set()
            for future in self._late(futures, workers, done):
                pending += self._finish(futures.pop(future), future, scheduler, workers, futures)
            if scheduler.stopped is not None:
                for node_id, failure in self._attempts.give_up():
                    pending += self._fail(node_id, failure, scheduler)
            for node_id in self._attempts.due():
                pending += scheduler.due(node_id)

    def _wait(self, futures: Mapping[Future[bytes], str], workers: Workers) -> set[Future[bytes]]:
        """Wait until a task is done, or until something else wants to be looked at."""
        bounds = [self._attempts.seconds_to_next(), LOOK_SECONDS if self._stop.watch else None]
        seconds = min((bound for bound in bounds if bound is not None), default=None)
        if not futures:
            if seconds:
                time.sleep(seconds)
            return set()
        workers.look()
        with span("wait"):
            return workers.wait(futures, seconds)

    def _late(
        self, futures: Mapping[Future[bytes], str], workers: Workers, done: set[Future[bytes]]
    ) -> set[Future[bytes]]:
        """The tasks that are done, and those whose time is over and that nothing can end: they are not waited for."""
        tasks = {node_id: future for future, node_id in futures.items()}

        def counts_from(node_id: str) -> float | None:
            return workers.held_from(tasks[node_id]) if self._demands[node_id].mutexes else 0.0

        overdue = set(self._attempts.overdue(counts_from))
        for future, node_id in futures.items():
            if node_id in overdue and future not in done and not workers.end(future):
                done.add(future)
        return done

    def _obey(
        self, command: Command, scheduler: Scheduler, workers: Workers, futures: dict[Future[bytes], str]
    ) -> list[Command]:
        node_id = command.node_id
        if isinstance(command, Skip):
            self._report(NodeOutcome(node_id, "skipped", command.because))
            return []
        if isinstance(command, Execute):
            self._submit(node_id, scheduler, workers, futures)
            return []
        assert isinstance(command, Resolve)
        try:
            with span("resolve", node_id):
                decision = self._resolver.decide(node_id)
        except FormatTooNewError:
            raise
        except (SeeknalError, OSError) as error:
            self._report(
                NodeOutcome(
                    node_id, "failed", "cannot be resolved", problems=error_problems(self._compiled, node_id, error)
                )
            )
            return scheduler.failed(node_id)
        return self._settle(node_id, decision, scheduler)

    def _settle(self, node_id: str, decision: Decision, scheduler: Scheduler) -> list[Command]:
        if decision.action in (MISS, CHECK):
            return scheduler.miss(node_id)
        if decision.action == DROP:
            # Skip comes back as a command, which reports it.
            return scheduler.dropped(node_id, decision.reason)
        artifact = decision.artifact
        assert artifact is not None
        self._resolver.artifacts[node_id] = artifact
        status = "cached" if decision.action == HIT else "skipped"
        self._report(
            NodeOutcome(
                node_id,
                status,
                decision.reason,
                artifact.row_count,
                0.0,
                decision.fingerprint,
                artifact,
                checks=decision.checks,
            )
        )
        return scheduler.hit(node_id)

    def _submit(self, node_id: str, scheduler: Scheduler, workers: Workers, futures: dict[Future[bytes], str]) -> None:
        demands = self._demands.get(node_id, NO_DEMANDS)
        attempt = self._attempts.begin(node_id, demands.timeout_seconds)
        decision = self._resolver.decide(node_id)
        if attempt == 1:
            self._reported += 1
            self._started[node_id] = (time.perf_counter(), self._reported)
            if decision.action == MISS:
                self._listener(NodeStarted(node_id, self._reported, self._to_report, decision.reason))
        alone = scheduler.running == 1 and not scheduler.waiting_for_a_slot
        deterministic = self._compiled.project.settings.deterministic
        with span("prepare", node_id):
            task = self._resolver.task(
                node_id,
                run_id=self.run_id,
                environment=self.environment,
                project_root=str(self._compiled.project.root),
                threads=threads_for(self._rows(node_id), demands, alone=alone, deterministic=deterministic),
                memory_limit_bytes=memory_limit_bytes(demands, workers.slots),
                mutexes=demands.mutexes,
            )
            encoded = msgspec.msgpack.encode(task)
        futures[workers.submit(encoded)] = node_id

    def _rows(self, node_id: str) -> int:
        """How many rows a node reads, or gave before."""
        before = self._base.tree.nodes.get(node_id)
        inputs = sum(self._resolver.artifacts[name].row_count for name in self._manifest.inputs_of(node_id))
        return max(inputs, before.artifact.row_count if before else 0)

    def _finish(
        self,
        node_id: str,
        future: Future[bytes],
        scheduler: Scheduler,
        workers: Workers,
        futures: dict[Future[bytes], str],
    ) -> list[Command]:
        took_too_long = self._attempts.end(node_id)
        artifact: Artifact | None = None
        checks: tuple[CheckResult, ...] = ()
        if took_too_long and not (future.done() and future.exception() is None):
            failure: Failure | None = timeout_failure(self._demands[node_id].timeout_seconds)
        else:
            try:
                outcome = decode_outcome(future.result())
                failure, artifact, checks = outcome.failure, outcome.artifact, outcome.checks
                self._written += outcome.written
                self._store.seals.receive_fresh(outcome.seals)
                take_over(outcome.spans)
            except BrokenExecutor:
                if self._stop.requested:
                    # Who ends a whole group of processes ends the workers along.
                    return self._abandon(node_id, scheduler)
                death = workers.death(future)
                if self._attempts.died(node_id):
                    self._listener(NodeRetried(node_id, 2, 2, str(death)))
                    self._submit(node_id, scheduler, workers, futures)
                    return []
                failure = death_failure(self._compiled, node_id, death)
        seconds = time.perf_counter() - self._started[node_id][0]
        if failure is None and artifact is not None:
            decision = self._resolver.decide(node_id)
            draft = self._compiled.parsed.drafts[node_id]
            status = "cached" if decision.action == CHECK else "success"
            # The worker's own time: the caller's would count the start of a process too.
            seconds = artifact.duration_seconds if status == "success" else 0.0
            self._shared.share(artifact)
            artifact = self._settled(node_id, artifact)
            self._resolver.artifacts[node_id] = artifact
            self._report(
                NodeOutcome(
                    node_id,
                    status,
                    decision.reason,
                    artifact.row_count,
                    seconds,
                    decision.fingerprint,
                    artifact,
                    checks=checks or (results_in(artifact.metadata) if draft.checks else ()),
                )
            )
            return scheduler.succeeded(node_id)
        assert failure is not None
        if checks:
            # Checked again, the same rows would fail the same way.
            problems = check_problems(self._compiled.parsed.drafts[node_id], checks, self.environment)
            self._report(
                NodeOutcome(
                    node_id,
                    "failed",
                    "its checks failed",
                    None,
                    seconds,
                    problems=problems,
                    checks=checks,
                    rejected=artifact,
                )
            )
            return scheduler.failed(node_id)
        if self._attempts.may_repeat(node_id) and scheduler.stopped is None:
            delay = self._attempts.delay(node_id, failure)
            attempt = self._attempts.count(node_id) + 1
            self._listener(NodeRetried(node_id, attempt, self._attempts.allowed, failure.message, delay))
            return scheduler.delayed(node_id)
        return self._fail(node_id, failure, scheduler)

    def _fail(self, node_id: str, failure: Failure, scheduler: Scheduler) -> list[Command]:
        problem = failure_problem(self._resolver.executed(node_id), failure)
        seconds = time.perf_counter() - self._started[node_id][0]
        self._report(NodeOutcome(node_id, "failed", "failed", None, seconds, problems=(problem,)))
        return scheduler.failed(node_id)

    def _abandon(self, node_id: str, scheduler: Scheduler) -> list[Command]:
        seconds = time.perf_counter() - self._started[node_id][0]
        problem = Problem(f"{node_id}: interrupted", self._compiled.place(node_id))
        self._report(NodeOutcome(node_id, "failed", "interrupted", None, seconds, problems=(problem,)))
        return scheduler.failed(node_id)

    def _settled(self, node_id: str, artifact: Artifact) -> Artifact:
        """The base's own record where the node came out the same, so that an unchanged tree stays the same tree."""
        entry = self._base.tree.nodes.get(node_id)
        if entry is None or not entry.artifact.same_content(artifact):
            return artifact
        return entry.artifact if entry.artifact.metadata == artifact.metadata else artifact

    # reporting

    def _report(self, outcome: NodeOutcome) -> None:
        self._outcomes[outcome.node_id] = outcome
        index = self._started.pop(outcome.node_id, (0.0, 0))[1]
        if not index:
            self._reported += 1
            index = self._reported
        with span("report"):
            self._listener(NodeFinished(outcome, index, self._to_report))

    def failed_nodes(self) -> dict[str, FailedNode]:
        """What is to be remembered of the nodes whose checks failed in this run."""
        return rejected_nodes(self._compiled, self.run_id, self._outcomes, self._resolver.artifacts)

    # the result

    def built_manifest(self, tree: Tree) -> Manifest:
        """The manifest that a tree of this run is of; see :func:`~seeknal.workflow.run_tree.built_manifest`."""
        kept = {node_id for node_id, outcome in self._outcomes.items() if outcome.status not in ("success", "cached")}
        return built_manifest(self._manifest, self._base.manifest, kept, tree)

    def _batches(self) -> int:
        ran = {node_id for node_id, outcome in self._outcomes.items() if outcome.status in ("success", "failed")}
        return sum(not ran.isdisjoint(layer) for layer in self._manifest.topological_layers())

    @property
    def written(self) -> list[str]:
        """The files that worker processes wrote, which the commit makes durable."""
        return self._written
