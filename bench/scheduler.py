"""The scheduler alone: nodes that do nothing, as fast as it can hand them out.

    python bench/scheduler.py [--nodes 10000] [--rounds 5] [--out FOLDER]

Each node is resolved, queued, handed out and reported as done; with messages, its task and its outcome are encoded and
decoded as well, as they are between processes. No process, no disk.
"""

from __future__ import annotations

import functools
import sys
from collections import deque
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import msgspec
from report import Result, Table, finish, measure_alternating, options, run_inside

from seeknal.nodes.kind import InputTable, Task
from seeknal.store.objects import Artifact, Blob, Column
from seeknal.workflow.scheduler import Execute, Resolve, Scheduler
from seeknal.workflow.worker import Outcome, decode_outcome

_TASKS = msgspec.msgpack.Decoder(Task)

COLUMNS = tuple(Column(f"column_{number}", "BIGINT", f"{number:032x}") for number in range(8))


def layered(nodes: int, width: int) -> dict[str, list[str]]:
    """Layers of nodes that read two of the layer before."""
    names = [f"transform.node_{number}" for number in range(nodes)]
    return {
        name: [names[index - width], names[index - width + (1 if index % width < width - 1 else 0)]]
        if index >= width
        else []
        for index, name in enumerate(names)
    }


def schedule(inputs: dict[str, list[str]], *, messages: bool) -> None:
    """Drive a scheduler through a whole run."""
    weights = {name: 0.001 * (index % 17) for index, name in enumerate(inputs)}
    scheduler = Scheduler(inputs, 8, weights)
    commands = deque(scheduler.start())
    running: deque[str] = deque()
    while commands or running:
        while commands:
            command = commands.popleft()
            if isinstance(command, Resolve):
                commands += scheduler.miss(command.node_id)
            elif isinstance(command, Execute):
                if messages:
                    exchange(command.node_id, inputs[command.node_id])
                running.append(command.node_id)
        if running:
            commands += scheduler.succeeded(running.popleft())
    assert scheduler.finished


def exchange(node_id: str, inputs: list[str]) -> None:
    """Send a task there and its outcome back, in this process."""
    columns = tuple((column.name, column.type) for column in COLUMNS)
    tables = tuple(InputTable(name, (f"/store/blobs/ab/{name}.parquet",), columns, 100) for name in inputs)
    said = Task(node_id, "transform", "0" * 32, "run", "/project", "/store", {"transform": "SELECT 1"}, tables)
    task = _TASKS.decode(msgspec.msgpack.encode(said))
    outcome = Outcome(task.node_id, Artifact((Blob("0" * 32, 4096),), 100, COLUMNS), written=("/store/blobs/ab/x",))
    decode_outcome(msgspec.msgpack.encode(outcome))


def main() -> None:
    parser = options(__doc__, rounds=5)
    parser.add_argument("--nodes", type=int, default=10_000)
    given = parser.parse_args()
    shapes = {"layers of 50": layered(given.nodes, 50), "all at once": layered(given.nodes, given.nodes)}

    ways = {}
    for shape, inputs in shapes.items():
        for said, messages in (("", False), (", with messages", True)):
            work = functools.partial(schedule, inputs, messages=messages)
            ways[f"{shape}{said}"] = functools.partial(run_inside, work)
    found = measure_alternating(ways, given.rounds)
    table = Table(f"The scheduler alone, {given.nodes:,} nodes that do nothing (nodes per second of CPU time)")
    for name, series in found.items():
        rates = sorted(given.nodes / seconds for seconds in series.values("cpu_seconds"))
        rate = given.nodes / series.median("cpu_seconds")
        table.add(Result(name, rate, "/s", target=3000, at_least=True, low=rates[0], high=rates[-1]))
    finish("scheduler", table, given.out, found)


if __name__ == "__main__":
    main()
