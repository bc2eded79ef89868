"""What was shown lately, as much of it as some bytes hold."""

from __future__ import annotations

from collections import OrderedDict
from typing import Generic, TypeVar

V = TypeVar("V")


class Recent(Generic[V]):
    """Values by inode number; the oldest go when all of them together cost more than `room` bytes.

    By bytes and not by number: what a guest says of one file takes 1 KB or, if somebody wants, 10 MB.
    """

    def __init__(self, room: int) -> None:
        self.room = room
        self._values: OrderedDict[int, tuple[V, int]] = OrderedDict()
        self._cost = 0

    def get(self, number: int) -> V | None:
        found = self._values.get(number)
        return found[0] if found else None

    def put(self, number: int, value: V, cost: int) -> None:
        """`cost` in bytes, about."""
        before = self._values.pop(number, None)
        if before is not None:
            self._cost -= before[1]
        self._values[number] = value, cost
        self._cost += cost
        while self._cost > self.room:
            self._cost -= self._values.popitem(last=False)[1][1]
