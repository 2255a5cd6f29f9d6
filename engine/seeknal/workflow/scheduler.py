"""The scheduler: which node may start now. A pure state machine: events in, commands out.

It knows no process, no clock and no disk, so a test can drive it through any history. A node's life:

    WAITING ──► RESOLVING ──► CACHED   ┌── DELAYED ──┐
       │            │                  ▼             │
       │            └───────────────► QUEUED ──► RUNNING ──► SUCCESS
       │                               │             └─────► FAILED
       └───────────────────────────────┴───────────────────► SKIPPED

- *resolving*: the inputs are done, so the fingerprint can be computed and the cache asked; costs no slot.
- *queued*: must be executed, waits for what it needs of the capacity; longest remaining path first. The first in the
  queue is waited for, or small nodes would hold up a large one for ever; only one that needs a taken mutex is passed
  over.
- *delayed*: failed, and will be tried again after a while; holds nothing meanwhile.
- *skipped*: an input failed or was skipped, or the run stopped before the node's turn.
"""

from __future__ import annotations

import enum
import heapq
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from seeknal.workflow.capacity import Capacity

# What is done first comes first: the longest remaining path, then the order of the project.
_Entry = tuple[float, int, str]


class NodeState(enum.Enum):
    WAITING = "waiting"
    RESOLVING = "resolving"
    QUEUED = "queued"
    RUNNING = "running"
    DELAYED = "delayed"
    CACHED = "cached"
    SUCCESS = "success"
    FAILED = "failed"
    SKIPPED = "skipped"


DONE = frozenset({NodeState.CACHED, NodeState.SUCCESS})
OVER = frozenset({*DONE, NodeState.FAILED, NodeState.SKIPPED})

# Each step that a node can be told to take, once: nodes are many.
_STEPS = {(before, after): (before, after) for before in NodeState for after in NodeState}


@dataclass(frozen=True, slots=True)
class Resolve:
    """Command: compute the node's fingerprint and ask the cache.

    Answer with ``hit``, ``miss``, ``failed`` or ``dropped``.
    """

    node_id: str


@dataclass(frozen=True, slots=True)
class Execute:
    """Command: hand the node to a worker; answer with ``succeeded`` or ``failed``."""

    node_id: str


@dataclass(frozen=True, slots=True)
class Skip:
    """Command: the node will not be executed; ``because`` says why. No answer."""

    node_id: str
    because: str


Command = Resolve | Execute | Skip


class InvalidTransition(AssertionError):
    """An event that cannot follow what came before; the message tells the node's story."""


class Scheduler:
    """The state of one run over one DAG.

    ``inputs`` gives each node's inputs, in topological order of nodes. ``weights`` are expected durations in
    seconds. What runs at a time fits into ``capacity``; a number stands for that many slots.
    """

    def __init__(
        self,
        inputs: Mapping[str, Sequence[str]],
        capacity: Capacity | int,
        weights: Mapping[str, float] | None = None,
        *,
        continue_on_error: bool = False,
    ) -> None:
        self.capacity = Capacity(capacity) if isinstance(capacity, int) else capacity
        self.slots = self.capacity.slots
        self.continue_on_error = continue_on_error
        self.state = dict.fromkeys(inputs, NodeState.WAITING)
        self.running = 0
        self.most_running = 0
        self.stopped: str | None = None
        self._open = len(self.state)
        # The steps of each node: from which state to which, and why where that was said.
        self._stories: dict[str, list[tuple[NodeState, NodeState] | str]] = {node_id: [] for node_id in inputs}
        self._missing = {node_id: len(set(names)) for node_id, names in inputs.items()}
        self._readers: dict[str, list[str]] = {node_id: [] for node_id in inputs}
        for node_id, names in inputs.items():
            for name in set(names):
                self._readers[name].append(node_id)
        self._order = {node_id: index for index, node_id in enumerate(inputs)}
        self._priority = self._remaining_paths(weights or {})
        self._queue: list[_Entry] = []
        # Those that wait for a mutex, which the first of them gets.
        self._parked: dict[str, list[_Entry]] = {}

    def _remaining_paths(self, weights: Mapping[str, float]) -> dict[str, float]:
        """How long each node and the longest chain behind it take; all alike where nothing can overlap."""
        if self.slots == 1:
            return dict.fromkeys(self._order, 0.0)
        remaining: dict[str, float] = {}
        for node_id in reversed(self._order):
            longest = max((remaining[reader] for reader in self._readers[node_id]), default=0.0)
            # A node never seen before counts like a short one, so that depth decides among new nodes.
            remaining[node_id] = weights.get(node_id, 0.01) + longest
        return remaining

    # events

    def start(self) -> list[Command]:
        """Begin: every node without inputs can be resolved."""
        return [self._resolve(node_id) for node_id in self._order if not self._missing[node_id]]

    def hit(self, node_id: str) -> list[Command]:
        """The cache has the node's output."""
        self._move(node_id, NodeState.RESOLVING, NodeState.CACHED)
        return self._release(node_id)

    def miss(self, node_id: str) -> list[Command]:
        """The node must be executed."""
        if self.stopped is not None:
            return self.dropped(node_id, self.stopped)
        self._move(node_id, NodeState.RESOLVING, NodeState.QUEUED)
        self._enqueue(node_id)
        return self._fill()

    def dropped(self, node_id: str, because: str) -> list[Command]:
        """The node is left out of this run, and so is what needs it."""
        self._move(node_id, NodeState.RESOLVING, NodeState.SKIPPED, because)
        return [Skip(node_id, because), *self._skip_descendants(node_id, f"{node_id} was skipped")]

    def succeeded(self, node_id: str) -> list[Command]:
        """A worker finished the node."""
        self._end(node_id, NodeState.SUCCESS)
        return [*self._release(node_id), *self._fill()]

    def failed(self, node_id: str) -> list[Command]:
        """The node failed for good, running or before it could."""
        before = self.state[node_id]
        if before in (NodeState.RESOLVING, NodeState.DELAYED):
            self._move(node_id, before, NodeState.FAILED)
        else:
            self._end(node_id, NodeState.FAILED)
        commands = self._skip_descendants(node_id, f"{node_id} failed")
        if not self.continue_on_error:
            commands += self.stop(f"not started, because {node_id} failed")
        return [*commands, *self._fill()]

    def delayed(self, node_id: str) -> list[Command]:
        """A node failed, and is to be tried again later."""
        self._end(node_id, NodeState.DELAYED)
        return self._fill()

    def due(self, node_id: str) -> list[Command]:
        """A delayed node can be tried again. Not after a stop: then it ``failed``."""
        self._move(node_id, NodeState.DELAYED, NodeState.QUEUED)
        self._enqueue(node_id)
        return self._fill()

    def stop(self, because: str) -> list[Command]:
        """Start nothing more; what runs may finish, what is delayed is the caller's to fail. Twice changes nothing."""
        if self.stopped is not None:
            return []
        self.stopped = because
        commands: list[Command] = []
        for node_id, state in self.state.items():
            if state in (NodeState.WAITING, NodeState.QUEUED):
                self._move(node_id, state, NodeState.SKIPPED, because)
                commands.append(Skip(node_id, because))
        self._queue.clear()
        self._parked.clear()
        return commands

    # asking

    @property
    def finished(self) -> bool:
        """Whether nothing is left to happen."""
        return not self._open

    @property
    def waiting_for_a_slot(self) -> int:
        """How many nodes could run if there were more slots; those that wait for a mutex could not."""
        return len(self._queue)

    def validate(self) -> None:
        """Check what must hold after every event; raises InvalidTransition. For tests."""
        over = sum(state in OVER for state in self.state.values())
        self._insist(over + self._open == len(self.state), "the count of open nodes and their states disagree")
        running = [node_id for node_id, state in self.state.items() if state is NodeState.RUNNING]
        self._insist(len(running) == self.running <= self.slots, "running nodes and slots disagree")
        self._insist(bool(running) or self.capacity.is_free, "capacity is held by nobody")
        queued = {node_id for node_id, state in self.state.items() if state is NodeState.QUEUED}
        parked = [entry[2] for entries in self._parked.values() for entry in entries]
        self._insist(queued == {*(entry[2] for entry in self._queue), *parked}, "queue and states disagree")
        if self._queue:
            first = self._queue[0][2]
            waits = not self.capacity.has_room(first) or self.capacity.taken_mutex(first) is not None
            self._insist(waits, f"{first} waits although there is room for it")
        for name, entries in self._parked.items():
            comes = self.capacity.is_held(name) or bool(self._queue)
            self._insist(not entries or comes, f"{entries} wait for {name}, which is free")
        for node_id, readers in self._readers.items():
            for reader in readers:
                started = self.state[reader] not in (NodeState.WAITING, NodeState.SKIPPED)
                self._insist(not started or self.state[node_id] in DONE, f"{reader} started before {node_id} was done")
        waiting = {NodeState.RESOLVING, NodeState.DELAYED}
        if not self.running and not queued and waiting.isdisjoint(self.state.values()):
            self._insist(self.finished, "nothing can happen any more, but nodes wait")

    # inside

    def _resolve(self, node_id: str) -> Resolve:
        self._move(node_id, NodeState.WAITING, NodeState.RESOLVING)
        return Resolve(node_id)

    def _release(self, node_id: str) -> list[Command]:
        commands: list[Command] = []
        for reader in self._readers[node_id]:
            self._missing[reader] -= 1
            if not self._missing[reader] and self.state[reader] is NodeState.WAITING:
                commands.append(self._resolve(reader))
        return commands

    def _enqueue(self, node_id: str) -> None:
        heapq.heappush(self._queue, (-self._priority[node_id], self._order[node_id], node_id))

    def _fill(self) -> list[Command]:
        commands: list[Command] = []
        while self._queue:
            node_id = self._queue[0][2]
            mutex = self.capacity.taken_mutex(node_id)
            if mutex is not None:
                heapq.heappush(self._parked.setdefault(mutex, []), heapq.heappop(self._queue))
                # It may have been called for another mutex, which is free still.
                self._call(name for name in self.capacity.mutexes(node_id) if not self.capacity.is_held(name))
                continue
            if not self.capacity.has_room(node_id):
                break
            heapq.heappop(self._queue)
            self._move(node_id, NodeState.QUEUED, NodeState.RUNNING)
            self.capacity.take(node_id)
            self.running += 1
            self.most_running = max(self.most_running, self.running)
            commands.append(Execute(node_id))
        return commands

    def _end(self, node_id: str, new: NodeState) -> None:
        self._move(node_id, NodeState.RUNNING, new)
        self.running -= 1
        self.capacity.give_back(node_id)
        self._call(self.capacity.mutexes(node_id))

    def _call(self, mutexes: Iterable[str]) -> None:
        """Let the first that waits for each of these mutexes into the queue."""
        for name in mutexes:
            if self._parked.get(name):
                heapq.heappush(self._queue, heapq.heappop(self._parked[name]))

    def _skip_descendants(self, node_id: str, because: str) -> list[Command]:
        commands: list[Command] = []
        stack = list(self._readers[node_id])
        while stack:
            reader = stack.pop()
            if self.state[reader] is NodeState.WAITING:
                self._move(reader, NodeState.WAITING, NodeState.SKIPPED, because)
                commands.append(Skip(reader, because))
                stack.extend(self._readers[reader])
        return commands

    def _move(self, node_id: str, old: NodeState, new: NodeState, why: str = "") -> None:
        story = self._stories[node_id]
        story.append(_STEPS[self.state[node_id], new])
        if why:
            story.append(why)
        if self.state[node_id] is not old:
            steps = [f"({step})" if isinstance(step, str) else f"{step[0].value} → {step[1].value}" for step in story]
            raise InvalidTransition(f"{node_id}: expected {old.value}; its story: {', '.join(steps)}")
        self.state[node_id] = new
        self._open -= new in OVER

    @staticmethod
    def _insist(holds: bool, message: str) -> None:
        if not holds:
            raise InvalidTransition(message)
