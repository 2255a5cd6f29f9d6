"""A run's profile: what its spans say about where the time went, and the same as a trace for a viewer.

- *phase*: the spans of one name.
- *own time*: a span's time without that of the spans inside it. So the own times of a thread add up to its time.
- *trace*: the Chrome Trace Event format, which https://ui.perfetto.dev and ``chrome://tracing`` open; see
  "Trace Event Format" of the Chromium project. Complete events (``X``) with microseconds since the first span began.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from seeknal.timeline import Span

#: The phases in the order in which they are shown, each with what happens in it.
PHASES = {
    "run": "what is not one of the others",
    "look": "is there anything to do?",
    "import": "the engine's code",
    "parse": "files to nodes",
    "analyse": "types and what each node reads",
    "schedule": "what may start now, and hearing of what ended",
    "resolve": "fingerprints, and asking the cache",
    "prepare": "what a worker needs to know",
    "start": "of worker processes",
    "wait": "for workers",
    "report": "telling who watches",
    "execute": "a node, without the following",
    "connect": "a worker's first look at DuckDB",
    "query": "DuckDB runs the query and writes its result",
    "copy": "a source's file into the store, as it is",
    "hash": "digests of the result and of its columns",
    "write": "blobs and action records get their names",
    "check": "audits and tests",
    "record": "the record of the run",
    "commit": "tree, manifest, snapshot and ref",
    "sync": "everything durable, at once",
    "show": "links and files for people",
    "deliver": "exposures to their places",
}


@dataclass(frozen=True)
class Phase:
    """The own time of all spans of one name in one place: ``here`` is the process that runs the project."""

    name: str
    here: bool
    seconds: float
    count: int


@dataclass(frozen=True)
class NodeTime:
    """How long executing a node took, all attempts together, and the own times of the phases in it, in seconds."""

    node_id: str
    seconds: float
    phases: dict[str, float]


@dataclass(frozen=True)
class RunProfile:
    """Where the time of a run went. Phases of this process add up to ``seconds``, those of workers to their work."""

    seconds: float
    phases: tuple[Phase, ...]
    nodes: tuple[NodeTime, ...]

    @property
    def worker_seconds(self) -> float:
        """How long the workers worked, all together."""
        return sum(phase.seconds for phase in self.phases if not phase.here)

    @classmethod
    def of(cls, spans: Sequence[Span], process: int | None = None) -> RunProfile:
        """Make a profile of spans; ``process`` is the one that runs the project, this one as a rule."""
        process = os.getpid() if process is None else process
        own: dict[tuple[str, bool], list[int]] = defaultdict(lambda: [0, 0])
        in_nodes: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
        whole: dict[str, int] = defaultdict(int)
        total = 0
        for span, own_ns, depth, node_id in _own_times(spans):
            here = span.process == process
            entry = own[span.name, here]
            entry[0] += own_ns
            entry[1] += 1
            total += span.nanoseconds if here and not depth else 0
            if span.name == "execute":
                whole[node_id] += span.nanoseconds
            if node_id and span.name in _IN_NODES:
                in_nodes[node_id][span.name] += own_ns
        order = list(PHASES)
        phases = [Phase(name, here, ns / 1e9, count) for (name, here), (ns, count) in own.items()]
        phases.sort(key=lambda phase: (not phase.here, order.index(phase.name) if phase.name in order else len(order)))
        nodes = [
            NodeTime(node_id, ns / 1e9, {name: part / 1e9 for name, part in in_nodes[node_id].items()})
            for node_id, ns in whole.items()
        ]
        return cls(total / 1e9, tuple(phases), tuple(sorted(nodes, key=lambda node: -node.seconds)))


_IN_NODES = frozenset({"execute", "query", "copy", "hash", "write", "check"})


def _own_times(spans: Iterable[Span]) -> list[tuple[Span, int, int, str]]:
    """Each span with its own time, how deep it lies, and the node that it or one around it is for."""
    found: list[tuple[Span, int, int, str]] = []
    open_: list[tuple[Span, list[int], str]] = []

    def close(until: Span | None) -> None:
        while open_ and (until is None or not _contains(open_[-1][0], until)):
            ended, inside, node_id = open_.pop()
            found.append((ended, ended.nanoseconds - sum(inside), len(open_), node_id))
            if open_:
                open_[-1][1].append(ended.nanoseconds)

    for span in in_order(spans):
        close(span)
        open_.append((span, [], span.node_id or (open_[-1][2] if open_ else "")))
    close(None)
    return found


def _contains(outer: Span, inner: Span) -> bool:
    same = (outer.process, outer.thread) == (inner.process, inner.thread)
    return same and outer.start_ns <= inner.start_ns and inner.end_ns <= outer.end_ns


def in_order(spans: Iterable[Span]) -> list[Span]:
    """Spans thread by thread, each before those inside it."""
    return sorted(spans, key=lambda span: (span.process, span.thread, span.start_ns, -span.end_ns))


def chrome_trace(spans: Sequence[Span], process: int | None = None) -> bytes:
    """Spans as a trace, JSON. ``process`` is the one that runs the project, this one as a rule."""
    process = os.getpid() if process is None else process
    events: list[dict[str, Any]] = []
    origin = min((span.start_ns for span in spans), default=0)
    # A worker comes where its first task stands.
    firsts: dict[int, int] = {}
    for span in spans:
        firsts[span.process] = min(span.start_ns, firsts.get(span.process, span.start_ns))
    number = 0
    for pid in sorted(firsts, key=lambda pid: (pid != process, firsts[pid])):
        number += pid != process
        name = "seeknal run" if pid == process else f"worker {number}"
        events.append({"ph": "M", "name": "process_name", "pid": pid, "args": {"name": name}})
        events.append({"ph": "M", "name": "process_sort_index", "pid": pid, "args": {"sort_index": number}})
        threads = sorted(
            {span.thread for span in spans if span.process == pid}, key=lambda thread: (thread != pid, thread)
        )
        for thread in threads:
            name = "main" if thread == pid else f"thread {thread}"
            events.append({"ph": "M", "name": "thread_name", "pid": pid, "tid": thread, "args": {"name": name}})
    for span in in_order(spans):
        event: dict[str, Any] = {
            "ph": "X",
            "name": span.node_id if span.name == "execute" and span.node_id else span.name,
            "cat": span.name,
            "ts": (span.start_ns - origin) / 1000,
            "dur": span.nanoseconds / 1000,
            "pid": span.process,
            "tid": span.thread,
        }
        if span.node_id:
            event["args"] = {"node": span.node_id}
        events.append(event)
    return msgspec.json.encode({"traceEvents": events, "displayTimeUnit": "ms"})
