"""How a run looks: the engine's events as lines, and a live display on a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from seeknal.cli.console import RULE, Console
from seeknal.dag.names import PRODUCTION, short_names
from seeknal.nodes.check import CheckResult
from seeknal.workflow.events import (
    Committed,
    Delivered,
    Event,
    NodeFinished,
    NodeRetried,
    NodeStarted,
    RunStarted,
    Warned,
)
from seeknal.workflow.results import BUILT_BEFORE, NOT_EXECUTED, Forecast, NodeOutcome, RunResult

# Beyond this many nodes a line for each cached one would bury the others; the summary counts them.
MOST_CACHED_LINES = 50


class RunReport:
    """Prints a run's events in the order they come; a node's lines stand together."""

    def __init__(self, console: Console, *, parallel: bool, continue_on_error: bool = False) -> None:
        self.console = console
        self.parallel = parallel
        self.continue_on_error = continue_on_error
        self._total = 0
        self._executing = False
        # Lines that wait, each with its mark ("" for none): for the heading, or for the node that runs to be over.
        self._held: list[tuple[str, str]] = []
        self._running: str | None = None
        self._names: dict[str, str] = {}
        self._live: Any = None

    @contextmanager
    def live(self) -> Iterator[None]:
        """Keep up a live display while the block runs, where somebody watches at a terminal."""
        if not self.console.is_terminal:
            yield
            return
        from seeknal.cli.live_display import LiveDisplay

        with LiveDisplay(self.console.stream) as display:
            self._live, self.console.above = display, display.above
            try:
                yield
            finally:
                self._live = self.console.above = None

    def __call__(self, event: Event) -> None:
        if isinstance(event, RunStarted):
            self._started(event)
        elif isinstance(event, NodeStarted):
            self._begin()
            if self._live:
                self._live.started(event.node_id)
            if not self.parallel:
                self._running = event.node_id
                self.console.line(f"{event.index}/{event.total}: {self._name(event.node_id)} [RUNNING]")
        elif isinstance(event, NodeFinished):
            self._finished(event)
        elif isinstance(event, NodeRetried):
            self.console.mark(
                "warning", f"{self._name(event.node_id)}: {event.message}; attempt {event.attempt} of {event.attempts}"
            )
        elif isinstance(event, Warned):
            self.console.mark("warning", event.message)
        elif isinstance(event, Delivered):
            note = f" ({event.note})" if event.note else ""
            self.console.mark("ok", f"Delivered {self._name(event.node_id)} to {event.path}{note}")
        elif isinstance(event, Committed) and self._executing:
            same = " (every output came out as it was)" if event.snapshot is None else ""
            self.console.mark("ok", f"State saved{same}")

    def _started(self, event: RunStarted) -> None:
        self._total = event.total
        self._names = short_names(event.node_ids)
        self.console.mark("info", f"Nodes to run: {event.to_run}")
        if self.parallel:
            self.console.mark("info", f"Parallel workers: {event.workers}")
        if self._live:
            self._live.begin(event.total)

    def _begin(self) -> None:
        """Print the heading when the first node is executed; a run with nothing to do has none."""
        if self._executing:
            return
        self._executing = True
        self.console.line()
        self.console.heading("Execution")
        self._release()

    def _release(self) -> None:
        for mark, line in self._held:
            if mark:
                self.console.mark(mark, line)
            else:
                self.console.line(line)
        self._held.clear()

    def _name(self, node_id: str) -> str:
        return self._names.get(node_id) or node_id.partition(".")[2]

    def _finished(self, event: NodeFinished) -> None:
        outcome = event.outcome
        if self._live:
            self._live.finished(outcome.node_id)
        name = f"{event.index}/{event.total}: {self._name(outcome.node_id)}"
        if outcome.status in ("cached", "skipped"):
            line = f"{name} [{outcome.status.upper()}] {outcome.reason}"
            if outcome.reason == NOT_EXECUTED:
                line = f"{name} [NOT EXECUTED]"
            if self._total <= MOST_CACHED_LINES:
                self._held.append(("", line))
            self._held += [("warning", text) for text in self._warnings(outcome)]
            if self._executing and self._running is None:
                self._release()
            return
        self._begin()
        if outcome.node_id != self._running:
            self.console.line(f"{name} [{'RUNNING' if self.parallel else 'CHECKING'}]")
        if outcome.status == "success":
            self.console.line(f"  SUCCESS in {outcome.duration_seconds:.2f}s")
            if outcome.row_count is not None:
                self.console.line(f"  Rows: {outcome.row_count:,}")
            metadata = outcome.artifact.metadata if outcome.artifact is not None else {}
            if metadata.get("metrics"):
                self.console.line(f"  Metrics: {metrics_text(metadata)}")
            for warning in metadata.get("warnings", ()):
                self.console.mark("warning", f"{self._name(outcome.node_id)}: {warning}")
        else:
            self.console.line(f"  FAILED in {outcome.duration_seconds:.2f}s")
            self.console.errors(outcome.problems)
            for result in outcome.checks:
                for line in sample_lines(result) if result.failed_for_good else ():
                    self.console.line(line)
        for text in self._warnings(outcome):
            self.console.mark("warning", text)
        if outcome.node_id == self._running:
            self._running = None
            self._release()

    def _warnings(self, outcome: NodeOutcome) -> list[str]:
        """What checks of severity warn found."""
        return [
            f"{self._name(outcome.node_id)}: {result.label}: {result.message}"
            for result in outcome.checks
            if result.is_warning
        ]

    def summary(self, result: RunResult) -> None:
        """Print how the run ended."""
        console = self.console
        self._held = [held for held in self._held if held[0]]
        self._release()
        if not result.executed and result.status == "success":
            console.mark("ok", nothing_to_run(node.reason for node in result.nodes))
        console.line()
        console.heading("Execution Summary")
        console.line(f"  Total nodes:    {len(result.nodes)}")
        console.line(f"  Executed:       {result.executed}")
        for label, status in (("Cached:", "cached"), ("Failed:", "failed"), ("Skipped:", "skipped")):
            if result.count(status):
                console.line(f"  {label:<15} {result.count(status)}")
        checks = [found for node in result.nodes for found in node.checks]
        if checks:
            console.line(f"  Data quality:   {_quality(checks)}")
        console.line(f"  Duration:       {result.duration_seconds:.2f}s{self._saved(result)}")
        if self.parallel and result.executed:
            console.line(f"  Batches:        {result.batches}")
            console.line(f"  Max concurrent: {result.most_concurrent} nodes")
        console.line(RULE)
        for error in result.delivery_errors:
            console.errors(error.problems())
        if result.delivery_errors:
            count = len(result.delivery_errors)
            text = "1 delivery failed" if count == 1 else f"{count} deliveries failed"
            console.mark("warning", f"{text}; the tables are as they should be, and the next run delivers again")
        if result.status == "failed" and result.count("failed"):
            failed = ", ".join(self._name(node.node_id) for node in result.nodes if node.status == "failed")
            console.mark("warning", f"{failed} failed; {_what_stands(result, continued=self.continue_on_error)}")

    def _saved(self, result: RunResult) -> str:
        """What running side by side saved, against the sum of the nodes' own durations; only where it did."""
        alone = result.executed_seconds
        worth_saying = self.parallel and result.executed > 1 and result.status != "interrupted"
        if not worth_saying or alone <= result.duration_seconds:
            return ""
        return f" ({(1 - result.duration_seconds / alone) * 100:.0f}% faster than the nodes' durations added up)"


def nothing_to_run(reasons: Iterable[str]) -> str:
    """What a run says that executes nothing, by the reasons of its nodes; some may have outputs of earlier runs."""
    restored = sum(reason == BUILT_BEFORE for reason in reasons)
    if not restored:
        return "No changes detected. Nothing to run."
    return f"Nothing to run: {restored} changed {'node was' if restored == 1 else 'nodes were'} built before."


def metrics_text(metadata: Mapping[str, Any]) -> str:
    """An artifact's metrics in one line: ``accuracy 0.912, recall 0.880 (test rows)``."""
    said = ", ".join(f"{name} {_rounded(value)}" for name, value in metadata["metrics"].items())
    return f"{said} ({metadata['measured_on']})" if metadata.get("measured_on") else said


def _rounded(value: float) -> str:
    return f"{value:.3f}" if 0.001 <= abs(value) < 10_000 else f"{value:.3g}"


def sample_lines(result: CheckResult) -> list[str]:
    """The first of the rows that a check found, as a small table."""
    if result.sample is None:
        return []
    from seeknal.cli.row_output import table_lines

    columns = result.sample.columns
    lines = table_lines(columns, ("VARCHAR",) * len(columns), iter(result.sample.rows))
    return [f"  {result.label}:", *(f"    {line}" for line in lines)]


def _quality(checks: list[CheckResult]) -> str:
    """How many checks passed, as one line."""
    warnings = sum(result.is_warning for result in checks)
    errors = sum(result.failed_for_good for result in checks)
    counted = [f"{len(checks)} check(s)", f"{len(checks) - warnings - errors} passed"]
    if warnings:
        counted.append(f"{warnings} warning(s)")
    if errors:
        counted.append(f"{errors} error(s)")
    return ", ".join(counted)


def forecast_lines(forecast: list[Forecast], tags: dict[str, list[str]]) -> list[str]:
    """The execution plan: a numbered line for each node, and a total."""
    lines = []
    for number, entry in enumerate(forecast, 1):
        labels = f" [{', '.join(tags[entry.node_id])}]" if tags.get(entry.node_id) else ""
        lines.append(f"{number:>4}. {entry.action:<7} {entry.node_id}{labels}  {entry.reason}")
    certain = sum(entry.action == "RUN" for entry in forecast)
    perhaps = sum(entry.action == "MAY RUN" for entry in forecast)
    restored = sum(entry.reason == BUILT_BEFORE for entry in forecast)
    more = f", {perhaps} more if what they read changes" if perhaps else ""
    more += f", {restored} changed but built before" if restored else ""
    return [*lines, f"Total: {len(forecast)} nodes, {certain} to run{more}"]


def _what_stands(result: RunResult, *, continued: bool) -> str:
    """What readers of the environment see after a run that failed."""
    name = "production" if result.environment == PRODUCTION else f"environment '{result.environment}'"
    if continued:
        return f"{name} keeps what it had of that and of what depends on it, marked stale"
    return f"{name} is as it was, and what was finished is not done again"
