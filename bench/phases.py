"""Where the time of a cold sequential run goes, phase by phase, beside the plain loop of COPYs that does the same.

    python bench/phases.py [--seeknal PATH] [--rounds 3] [--nodes 1000] [--out FOLDER]

The phases are those of `seeknal run --profile`, read from the trace that it writes. They are own times: what happens in
a phase inside another counts for that one. What the process took beside them is its start and its end.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections import defaultdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from cold import ColdProject
from generate import generate
from report import (
    ROOT,
    Result,
    Sample,
    Series,
    Table,
    finish,
    options,
    projects_folder,
    seeknal_command,
    with_projects,
)

for source in ("engine", "store", "cli"):
    sys.path.insert(0, str(ROOT / source))

# A phase that takes less, of the whole, is counted among the others.
LEAST_SHARE = 0.005
REST = "start and end of the process"


def phases_of(trace: Path) -> dict[str, tuple[float, int]]:
    """Phase → its own time in seconds, and how often it was; of all threads of the process that ran the project."""
    from seeknal.timeline import Span
    from seeknal.workflow.run_profile import RunProfile

    events = json.loads(trace.read_bytes())["traceEvents"]
    (process,) = {event["pid"] for event in events if event.get("args", {}).get("name") == "seeknal run"}
    spans = [
        Span(
            event["cat"],
            round(event["ts"] * 1000),
            round((event["ts"] + event["dur"]) * 1000),
            event["pid"],
            event["tid"],
            event.get("args", {}).get("node", ""),
        )
        for event in events
        if event["ph"] == "X"
    ]
    profile = RunProfile.of(spans, process)
    return {phase.name: (phase.seconds, phase.count) for phase in profile.phases if phase.here}


def main() -> None:
    parser = options(__doc__, rounds=3)
    parser.add_argument("--nodes", type=int, default=1000)
    with_projects(parser)
    given = parser.parse_args()
    seeknal = seeknal_command(given.seeknal)
    loops: list[Sample] = []
    runs: list[Sample] = []
    seconds: dict[str, list[float]] = defaultdict(list)
    counts: dict[str, int] = {}
    with projects_folder(given.projects, "phases") as folder:
        root = folder / "project"
        generate(root, given.nodes)
        project = ColdProject(root, folder / "aside")
        for _ in range(given.rounds):
            loops.append(project.loop())
            trace = folder / "trace.json"
            runs.append(project.run(seeknal, "--profile", str(trace)))
            found = phases_of(trace)
            for name, (own, count) in found.items():
                seconds[name].append(own)
                counts[name] = count
            seconds[REST].append(runs[-1].wall_seconds - sum(own for own, _ in found.values()))
    series = {"plain loop": Series(tuple(loops)), "sequential, profiled": Series(tuple(runs))}
    whole = series["sequential, profiled"].median()
    table = Table(f"Where a cold sequential run of {given.nodes:,} nodes spends its time")
    table.add(*(Result.of(name, of, unit="ms") for name, of in series.items()))
    shares = {name: statistics.median(values) for name, values in seconds.items()}
    for name in sorted(shares, key=lambda name: -shares[name]):
        if shares[name] >= LEAST_SHARE * whole:
            values = [value * 1000 for value in seconds[name]]
            note = f"{shares[name] / whole:.1%}" + (f", {counts[name]:,} times" if name in counts else "")
            table.add(Result(name, shares[name] * 1000, "ms", low=min(values), high=max(values), note=note))
    small = sum(value for value in shares.values() if value < LEAST_SHARE * whole)
    table.add(Result("all other phases", small * 1000, "ms", note=f"{small / whole:.1%}"))
    finish("phases", table, given.out, series)


if __name__ == "__main__":
    main()
