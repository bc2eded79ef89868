"""A cache of decoded chunks, limited in bytes, least recently used first out."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from typing import Generic, TypeVar

from holdfast.base.lru import Lru

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class ByteCache(Generic[K, V]):
    """Thread-safe. `weigh` gives a value's size in bytes."""

    def __init__(self, limit: int, weigh: Callable[[V], int]) -> None:
        self._weigh = weigh
        self._lock = threading.Lock()
        self._values: Lru[K, V] = Lru(limit)
        self._loading: dict[K, Future[V]] = {}

    def get(self, key: K) -> V | None:
        """The value if it is there; never waits for a load."""
        with self._lock:
            return self._values.get(key)

    def put(self, key: K, value: V) -> None:
        with self._lock:
            self._values.put(key, value, self._weigh(value))

    def load(self, key: K, loader: Callable[[], V]) -> V:
        """The value, loading it if need be; threads that ask for it meanwhile wait for the one load.

        What `loader` raises is raised to all of them, and not remembered.
        """
        with self._lock:
            value = self._values.get(key)
            if value is not None:
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
            self._values.put(key, value, self._weigh(value))
        mine.set_result(value)
        return value

    @property
    def size(self) -> int:
        """Bytes held now."""
        return self._values.cost
