"""A bounded cache that drops what was least recently used. All caches here are made of it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Lru(Generic[K, V]):
    """Values by key; the least recently used go when the costs of all exceed `limit`.

    A value's cost is 1 unless `put` says otherwise: then `limit` is a number of values, else mostly of
    bytes. The value that was put last always stays, whatever it costs. `dropped` is called for each value
    that goes, once it is gone; not for one that is replaced. Not thread-safe.
    """

    __slots__ = ("_dropped", "_values", "cost", "limit")

    def __init__(self, limit: int, dropped: Callable[[V], None] | None = None) -> None:
        self.limit = limit
        self._dropped = dropped
        self._values: OrderedDict[K, tuple[V, int]] = OrderedDict()
        self.cost = 0
        """Sum of the costs of all values that are held."""

    def get(self, key: K) -> V | None:
        """The value, now the most recently used; None when there is none."""
        values = self._values
        found = values.get(key)
        if found is None:
            return None
        values.move_to_end(key)
        return found[0]

    def put(self, key: K, value: V, cost: int = 1) -> None:
        values = self._values
        before = values.pop(key, None)
        if before is not None:
            self.cost -= before[1]
        values[key] = value, cost
        self.cost += cost
        while self.cost > self.limit and len(values) > 1:
            _, (gone, its_cost) = values.popitem(last=False)
            self.cost -= its_cost
            if self._dropped is not None:
                self._dropped(gone)

    def pop(self, key: K) -> V | None:
        """Take a value out; it counts as the caller's: `dropped` is not called."""
        found = self._values.pop(key, None)
        if found is None:
            return None
        self.cost -= found[1]
        return found[0]

    def clear(self) -> None:
        """Drop all."""
        values, self._values, self.cost = self._values, OrderedDict(), 0
        if self._dropped is not None:
            for value, _ in values.values():
                self._dropped(value)

    def __contains__(self, key: K) -> bool:
        return key in self._values

    def __iter__(self) -> Iterator[K]:
        """The keys, least recently used first."""
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)
