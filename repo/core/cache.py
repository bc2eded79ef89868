"""A cache of decoded chunks, limited in bytes, least recently used first out."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class ByteCache(Generic[K, V]):
    """Thread-safe. `weigh` gives a value's size in bytes."""

    def __init__(self, limit: int, weigh: Callable[[V], int]) -> None:
        self._limit = limit
        self._weigh = weigh
        self._lock = threading.Lock()
        self._values: OrderedDict[K, V] = OrderedDict()
        self._size = 0
        self._loading: dict[K, Future[V]] = {}

    def get(self, key: K) -> V | None:
        """The value if it is there; never waits for a load."""
        with self._lock:
            value = self._values.get(key)
            if value is not None:
                self._values.move_to_end(key)
            return value

    def put(self, key: K, value: V) -> None:
        with self._lock:
            self._insert(key, value)

    def load(self, key: K, loader: Callable[[], V]) -> V:
        """The value, loading it if need be; threads that ask for it meanwhile wait for the one load.

        What `loader` raises is raised to all of them, and not remembered.
        """
        with self._lock:
            value = self._values.get(key)
            if value is not None:
                self._values.move_to_end(key)
                return value
            waiting = self._loading.get(key)
            if waiting is None:
                mine: Future[V] = Future()
                self._loading[key] = mine
        if waiting is not None:
            return waiting.result()
        try:
            value = loader()
        except BaseException as error:
            with self._lock:
                del self._loading[key]
            mine.set_exception(error)
            raise
        with self._lock:
            del self._loading[key]
            self._insert(key, value)
        mine.set_result(value)
        return value

    @property
    def size(self) -> int:
        """Bytes held now."""
        return self._size

    def _insert(self, key: K, value: V) -> None:
        old = self._values.pop(key, None)
        if old is not None:
            self._size -= self._weigh(old)
        self._values[key] = value
        self._size += self._weigh(value)
        while self._size > self._limit and len(self._values) > 1:
            _, dropped = self._values.popitem(last=False)
            self._size -= self._weigh(dropped)
