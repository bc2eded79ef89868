"""The only place where threads and the event loop meet.

Jobs go to a few threads of ours through a SimpleQueue. What they return comes back to the event loop in
batches: one `TrioToken.run_sync_soon` for all that is ready, about 30 us, where `trio.to_thread.run_sync`
costs 115 to 165 us for each call.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

import trio

T = TypeVar("T")


class Result(Generic[T]):
    """What a job returned or raised."""

    __slots__ = ("_value", "error")

    def __init__(self, work: Callable[[], T]) -> None:
        self.error: BaseException | None = None
        try:
            self._value = work()
        except BaseException as error:  # noqa: BLE001  raised again where the result is asked for
            self.error = error

    def get(self) -> T:
        """The value; raises what the job raised."""
        if self.error is not None:
            raise self.error
        return self._value


class Flight(Generic[T]):
    """A value on its way to the event loop. Any number of tasks may wait for it."""

    __slots__ = ("_landed", "_result")

    def __init__(self) -> None:
        self._result: Result[T] | None = None
        self._landed: trio.Event | None = None

    async def wait(self) -> T:
        """The value; raises what the job raised."""
        if self._result is None:
            if self._landed is None:
                self._landed = trio.Event()
            await self._landed.wait()
        assert self._result is not None
        return self._result.get()

    def land(self, result: Result[T]) -> None:
        """Event loop only."""
        self._result = result
        if self._landed is not None:
            self._landed.set()


class Bridge:
    """Threads that work for the event loop. A context manager, entered inside trio.

    Urgent jobs (somebody waits) are taken before those that run ahead.
    """

    def __init__(self, threads: int) -> None:
        self._tickets: SimpleQueue[bool] = SimpleQueue()
        self._urgent: deque[_Job] = deque()
        self._ahead: deque[_Job] = deque()
        self._finished: deque[tuple[_Job, Result[Any]]] = deque()
        self._waking = False
        self._threads = [
            threading.Thread(target=self._work, name=f"holdfast-mount-{n}", daemon=True)
            for n in range(threads)
        ]

    def __enter__(self) -> Bridge:
        self._token = trio.lowlevel.current_trio_token()
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Jobs under way are finished; their results go nowhere."""
        self._urgent.clear()
        self._ahead.clear()
        for _thread in self._threads:
            self._tickets.put(False)
        for thread in self._threads:
            thread.join()

    def post(self, work: Callable[[], T], done: Callable[[Result[T]], None], *, urgent: bool) -> None:
        """Run `work` on a thread, then `done` with its result in the event loop. Call it from any thread."""
        (self._urgent if urgent else self._ahead).append(_Job(work, done))
        self._tickets.put(True)

    async def run(self, work: Callable[[], T]) -> T:
        """The result of `work`, run on a thread at once."""
        flight: Flight[T] = Flight()
        self.post(work, flight.land, urgent=True)
        return await flight.wait()

    def _work(self) -> None:
        while self._tickets.get():
            try:
                job = self._urgent.popleft()
            except IndexError:
                try:
                    job = self._ahead.popleft()
                except IndexError:
                    continue  # cleared at the end
            self._finished.append((job, Result(job.work)))
            if not self._waking:
                self._waking = True
                with suppress(trio.RunFinishedError):
                    self._token.run_sync_soon(self._deliver)

    def _deliver(self) -> None:
        """Event loop. The flag falls before the queue is emptied: a job that finishes meanwhile is
        either seen here or wakes us again."""
        self._waking = False
        while self._finished:
            job, result = self._finished.popleft()
            job.done(result)


class _Job:
    __slots__ = ("done", "work")

    def __init__(self, work: Callable[[], Any], done: Callable[[Result[Any]], None]) -> None:
        self.work = work
        self.done = done
