"""How a run's profile looks, and the file of its trace."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from seeknal import timeline
from seeknal.cli.console import Console, table
from seeknal.errors import UsageError
from seeknal.timeline import Span

MOST_NODES = 10

# Where traces stand, below the project's target folder; each is named after its run.
FOLDER = "profiles"


def profiled(run: Callable[[], int], console: Console, root: Path, file: str) -> int:
    """Run a command and give its exit code; then print where the time went, and write the trace.

    ``root`` is the project's folder; ``file`` where the trace goes, nothing for its usual place.
    """
    with timeline.recording() as found:
        with timeline.span("run"):
            code = run()
        spans = found.spans
    path = Path(file) if file else root / "target" / FOLDER / f"{found.title or 'run'}.json"
    print_profile(console, spans)
    write_trace(path, spans)
    console.line(f"  Trace: {path} (open it at https://ui.perfetto.dev)")
    return code


def write_trace(path: Path, spans: Sequence[Span]) -> None:
    """Write the trace, in place of one that is there. Raises UsageError where that is not possible."""
    from seeknal.workflow.run_profile import chrome_trace

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(chrome_trace(spans))
    except OSError as error:
        raise UsageError(f"the trace cannot be written to {path}: {error.strerror or error}") from error


def print_profile(console: Console, spans: Sequence[Span]) -> None:
    """Print the phases, here and in workers, and the nodes that took longest."""
    from seeknal.workflow.run_profile import PHASES, RunProfile

    profile = RunProfile.of(spans)
    console.line()
    console.heading("Profile")
    for here, whole in ((True, profile.seconds), (False, profile.worker_seconds)):
        rows = [
            [phase.name, _seconds(phase.seconds), _share(phase.seconds, whole), str(phase.count), PHASES[phase.name]]
            for phase in profile.phases
            if phase.here is here
        ]
        if not rows:
            continue
        console.line(f"  {'This process' if here else 'Workers, all together'}: {_seconds(whole)}")
        for line in table(rows, ["phase", "seconds", "share", "times", "what"]):
            console.line(line)
    if profile.nodes:
        console.line("  Slowest nodes:")
        rows = [
            [node.node_id, _seconds(node.seconds), *(_seconds(node.phases.get(name, 0.0)) for name in _COLUMNS)]
            for node in profile.nodes[:MOST_NODES]
        ]
        for line in table(rows, ["node", "seconds", *_COLUMNS]):
            console.line(line)


_COLUMNS = ("query", "hash", "write", "check")


def _seconds(value: float) -> str:
    return f"{value:.3f}"


def _share(part: float, whole: float) -> str:
    return f"{part / whole:.0%}" if whole else ""
