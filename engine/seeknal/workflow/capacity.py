"""What the nodes that run at one moment may hold together: slots, memory and mutexes. Pure bookkeeping.

A demand above the whole counts as the whole: such a node runs, alone.
"""

from __future__ import annotations

from collections.abc import Mapping

from seeknal.dag.demands import NO_DEMANDS, Demands


class Capacity:
    """``slots`` for all, ``memory_bytes`` (0: not counted), and who holds which mutex."""

    def __init__(self, slots: int, memory_bytes: int = 0, demands: Mapping[str, Demands] | None = None) -> None:
        self.slots = slots
        self.memory_bytes = memory_bytes
        self._demands = demands or {}
        self._free_slots = slots
        self._free_memory_bytes = memory_bytes
        self._holders: dict[str, str] = {}

    def mutexes(self, node_id: str) -> tuple[str, ...]:
        """The mutexes that a node needs."""
        return self._of(node_id).mutexes

    def taken_mutex(self, node_id: str) -> str | None:
        """A mutex that the node needs and another holds."""
        return next(filter(self.is_held, self.mutexes(node_id)), None)

    def is_held(self, mutex: str) -> bool:
        return mutex in self._holders

    def has_room(self, node_id: str) -> bool:
        """Say whether the slots and the memory that the node needs are free."""
        slots, memory_bytes = self._shares(node_id)
        return slots <= self._free_slots and memory_bytes <= self._free_memory_bytes

    def take(self, node_id: str) -> None:
        slots, memory_bytes = self._shares(node_id)
        self._free_slots -= slots
        self._free_memory_bytes -= memory_bytes
        self._holders.update(dict.fromkeys(self.mutexes(node_id), node_id))

    def give_back(self, node_id: str) -> None:
        slots, memory_bytes = self._shares(node_id)
        self._free_slots += slots
        self._free_memory_bytes += memory_bytes
        for name in self.mutexes(node_id):
            del self._holders[name]

    @property
    def is_free(self) -> bool:
        """Whether nothing is held."""
        free = self._free_slots == self.slots and self._free_memory_bytes == self.memory_bytes
        return free and not self._holders

    def _of(self, node_id: str) -> Demands:
        return self._demands.get(node_id, NO_DEMANDS)

    def _shares(self, node_id: str) -> tuple[int, int]:
        demands = self._of(node_id)
        return min(demands.slots, self.slots), min(demands.memory_bytes, self.memory_bytes)
