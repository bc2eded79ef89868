"""A worker process from the parent's side: starts it, exchanges messages within a time limit, kills it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from holdfast.base.escaping import foreign_words
from holdfast.formats.guests.values.values import WorkerFailed
from holdfast.formats.guests.worker.protocol import Channel, Kind, Layer, Nonsense, Want, unpack_layers

_WANT_COST: Final = 64 << 10
"""Each read of the disk counts as at least this many bytes, because many small reads take time too."""
_PYTHON: Final = (sys.executable, "-P", "-s", "-m")
"""Not `-I`, which would ignore PYTHONPATH: `start` sets it for the worker."""
_WORDS: Final = 8 << 10
"""Bytes that are read of the error output of a worker that did not start."""
WORDS_LIMIT: Final = 500
"""Bytes of a text from the worker that a message quotes."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a worker may use. Seconds do not include the time that the repository takes to deliver bytes of
    the disk; memory is address space, in bytes.

    `unlock_seconds` are added for each passphrase. `unlock_memory` is added when there are passphrases: the
    Argon2id that `cryptsetup` sets by default takes 1 GiB.
    """

    start_seconds: float = 30
    answer_seconds: float = 30
    unlock_seconds: float = 60
    memory: int = 1 << 30
    unlock_memory: int = 1 << 30
    disk_bytes: int = 4 << 30
    """Most bytes of the disk that are read for one answer."""
    names: int = 1_000_000
    """Most names that are read from one directory."""
    failures: int = 5
    """Workers that may fail within `failure_seconds`; then none is started for `pause_seconds`."""
    failure_seconds: float = 600
    pause_seconds: float = 60
    required: frozenset[Layer] = frozenset({Layer.SECCOMP, Layer.LIMITS})
    """Layers without which a worker is not used."""


class WorkerProcess:
    """A running worker, from `start` to `kill`. For one thread at a time."""

    def __init__(self, process: subprocess.Popen[bytes], channel: Channel) -> None:
        self._process = process
        self._channel = channel
        self.layers: frozenset[Layer] = frozenset()

    @staticmethod
    def start(opener: str, memory: int, limits: Limits) -> WorkerProcess:
        """Start a worker with `memory` bytes of address space. It has imported `opener` and locked itself in,
        and has seen nothing of the disk.

        It is a new program, not a fork: this process may hold keys and have threads. It gets one descriptor,
        an environment with little but this process's import path, and a session of its own, so that Ctrl-C
        does not reach it. Raises WorkerFailed.
        """
        ours, theirs = socket.socketpair()
        try:
            process = subprocess.Popen(
                [
                    *_PYTHON,
                    "holdfast.formats.guests.worker.worker",
                    str(theirs.fileno()),
                    opener,
                    str(memory),
                ],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                cwd="/",
                env={
                    "PYTHONPATH": os.pathsep.join(path for path in sys.path if os.path.isabs(path)),  # noqa: PTH117
                    "LC_ALL": "C.UTF-8",
                },
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
            )
        except OSError as error:
            ours.close()
            raise WorkerFailed(f"the parser could not be started: {error.strerror}") from error
        finally:
            theirs.close()
        worker = WorkerProcess(process, Channel(ours))
        try:
            worker._greet(limits)
        except BaseException:
            worker.kill()
            raise
        return worker

    def _greet(self, limits: Limits) -> None:
        try:
            kind, body = self._channel.receive(deadline=time.monotonic() + limits.start_seconds)
            if kind is not Kind.HELLO:
                raise Nonsense("no greeting")
            self.layers = unpack_layers(body)
        except (EOFError, OSError, Nonsense) as error:
            self._process.kill()
            said = self._last_words()
            raise WorkerFailed("the parser did not start" + (f": {said}" if said else "")) from error
        missing = sorted(limits.required - self.layers)
        if missing:
            raise WorkerFailed(
                f"the parser could not be locked in (missing here: {', '.join(missing)}), so it is not used"
            )
        self._close_errors()

    def _last_words(self) -> str:
        assert self._process.stderr is not None
        os.set_blocking(self._process.stderr.fileno(), False)
        said = self._process.stderr.read(_WORDS) or b""
        lines = said.decode(errors="replace").strip().splitlines()
        return lines[-1][:300] if lines else ""

    def _close_errors(self) -> None:
        if self._process.stderr is not None:
            self._process.stderr.close()

    def exchange(
        self,
        kind: Kind,
        request: bytes,
        *,
        serve: Callable[[Want], bytes | None],
        disk_size: int,
        seconds: float,
        disk_bytes: int,
    ) -> tuple[Kind, bytearray]:
        """Send a request and return the answer. Meanwhile `serve` delivers the bytes of the disk that the
        worker asks for, at most `disk_bytes`; it returns None when it cannot.

        Raises WorkerFailed when the worker died or took longer than `seconds`, and Nonsense. After any
        exception the caller must kill the worker.
        """
        deadline = time.monotonic() + seconds
        try:
            self._channel.send(kind, request, deadline=deadline)
            while True:
                kind, body = self._channel.receive(deadline=deadline)
                if kind is Kind.BROKEN:
                    raise WorkerFailed(f"the parser {foreign_words(body, WORDS_LIMIT)}")
                if kind is not Kind.WANT:
                    return kind, body
                want = Want.unpack(body, disk_size)
                disk_bytes -= max(want.length, _WANT_COST)
                if disk_bytes < 0:
                    raise WorkerFailed("the parser read too much of the disk for one answer")
                began = time.monotonic()
                data = serve(want)
                deadline += time.monotonic() - began
                if data is None:
                    self._channel.send(Kind.DISK_ERROR, deadline=deadline)
                else:
                    self._channel.send(Kind.DISK_BYTES, data, deadline=deadline)
        except TimeoutError as error:
            raise WorkerFailed(f"the parser took longer than {seconds:g} s for an answer") from error
        except (EOFError, OSError) as error:
            raise WorkerFailed(f"the parser {self._end()}") from error

    def _end(self) -> str:
        """Describe how the process ended; it has closed its socket."""
        try:
            code = self._process.wait(1)
        except subprocess.TimeoutExpired:
            return "closed its socket"
        if code >= 0:
            return "ended unasked"
        with suppress(ValueError):
            return f"was ended by {signal.Signals(-code).name}"
        return f"was ended by signal {-code}"

    def interrupt(self) -> None:
        """Make a running exchange fail soon. May be called from any thread."""
        self._process.kill()

    def kill(self) -> None:
        """Kill the worker and wait until it is gone. It leaves no zombie and no descriptor."""
        self._process.kill()
        self._close_errors()
        self._channel.socket.close()
        self._process.wait()
