"""The attempts at each node: how many there were, why they failed, and when the next one is due.

- *attempt*: one execution of a node's task. A node has one, and ``--retry`` more.
- *death*: its process ended under it. The first costs no attempt, because it may be another's fault (memory); the
  second is the node's own, for good.
- *delay*: before an attempt is repeated, so that what was busy may recover: twice as long each time, and a random part
  of that, so that nodes that failed together do not come back together.
"""

from __future__ import annotations

import heapq
import random
import time
from collections.abc import Callable

from seeknal.workflow.worker import Failure

FIRST_DELAY_SECONDS = 0.5
LONGEST_DELAY_SECONDS = 60.0
MOST_DEATHS = 2


def delay_seconds(failures: int, chance: float) -> float:
    """The delay after so many failures: from half to all of 0.5, 1, 2, 4 … 60 seconds; ``chance`` is from 0 to 1."""
    whole = min(FIRST_DELAY_SECONDS * 2.0 ** (failures - 1), LONGEST_DELAY_SECONDS)
    return whole * (0.5 + chance / 2)


class Attempts:
    """The attempts of one run. ``retry`` is how many more than one a node has."""

    def __init__(self, retry: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.allowed = retry + 1
        self._clock = clock
        self._chance = random.Random()
        self._begun: dict[str, int] = {}
        self._deaths: dict[str, int] = {}
        self._deadlines: dict[str, float] = {}
        self._timeouts: dict[str, float] = {}
        self._overdue: set[str] = set()
        self._delayed: list[tuple[float, str]] = []
        self._failures: dict[str, Failure] = {}

    def begin(self, node_id: str, timeout_seconds: float = 0.0) -> int:
        """Count an attempt, which may take ``timeout_seconds`` (0: as long as it likes). Gives which one it is."""
        self._begun[node_id] = self._begun.get(node_id, 0) + 1
        if timeout_seconds:
            self._deadlines[node_id] = self._clock() + timeout_seconds
            self._timeouts[node_id] = timeout_seconds
        return self._begun[node_id]

    def end(self, node_id: str) -> bool:
        """An attempt is over. Says whether it took too long."""
        self._deadlines.pop(node_id, None)
        took_too_long = node_id in self._overdue
        self._overdue.discard(node_id)
        return took_too_long

    def count(self, node_id: str) -> int:
        """How many attempts there were."""
        return self._begun.get(node_id, 0)

    def died(self, node_id: str) -> bool:
        """A process died under the node. Says whether to begin again at once."""
        self._deaths[node_id] = self._deaths.get(node_id, 0) + 1
        return self._deaths[node_id] < MOST_DEATHS

    def may_repeat(self, node_id: str) -> bool:
        """Say whether a node that failed has an attempt left. One that keeps killing its process has none."""
        deaths = self._deaths.get(node_id, 0)
        return deaths < MOST_DEATHS and self.count(node_id) - deaths < self.allowed

    def delay(self, node_id: str, failure: Failure) -> float:
        """Let a node that failed wait for its next attempt. Gives for how many seconds."""
        seconds = delay_seconds(self.count(node_id) - self._deaths.get(node_id, 0), self._chance.random())
        heapq.heappush(self._delayed, (self._clock() + seconds, node_id))
        self._failures[node_id] = failure
        return seconds

    def due(self) -> list[str]:
        """Take out the delayed nodes whose time has come."""
        return self._take(self._clock())

    def give_up(self) -> list[tuple[str, Failure]]:
        """Take out all delayed nodes, with why they failed."""
        return [(node_id, self._failures[node_id]) for node_id in self._take(float("inf"))]

    def overdue(self, counts_from: Callable[[str], float | None] = lambda node_id: 0.0) -> list[str]:
        """The nodes whose attempt takes too long, each told once.

        ``counts_from``: from when on a node's time counts, where that is later than its beginning; None: not yet.
        """
        now = self._clock()
        late = []
        for node_id, deadline in list(self._deadlines.items()):
            if deadline > now:
                continue
            since = counts_from(node_id)
            self._deadlines[node_id] = max(deadline, (now if since is None else since) + self._timeouts[node_id])
            if self._deadlines[node_id] <= now:
                del self._deadlines[node_id]
                self._overdue.add(node_id)
                late.append(node_id)
        return late

    def seconds_to_next(self) -> float | None:
        """How long until a node is due or overdue; None where none is."""
        moments = [*self._deadlines.values(), *(entry[0] for entry in self._delayed[:1])]
        return max(0.0, min(moments) - self._clock()) if moments else None

    @property
    def waits(self) -> bool:
        """Whether a delayed node is to come."""
        return bool(self._delayed)

    def _take(self, until: float) -> list[str]:
        taken = []
        while self._delayed and self._delayed[0][0] <= until:
            taken.append(heapq.heappop(self._delayed)[1])
        return taken
