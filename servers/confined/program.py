"""A confined program as its parent process sees it: streams, last words, exit status."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

from holdfast.base.confinement.plan import Ended
from holdfast.base.processes import how_it_ended

_GONE_SECONDS: Final = 30.0
_SHUTDOWN_SECONDS: Final = 120.0
_TAIL: Final = 16 << 10
_STATUS_LIMIT: Final = 4096
_KILLED: Final = -signal.SIGKILL


@dataclass(slots=True)
class Program:
    """A program that was started. `keeper` is the socket of the process that keeps it, `gone` a pipe that
    closes when no process of it is left. `stdin` and `stdout` are our ends of pipes, -1 without one."""

    name: str
    keeper: socket.socket
    gone: int
    errors: int
    stdin: int = -1
    stdout: int = -1
    is_gone: bool = False
    returncode: int | None = None
    limit: Ended | None = None
    _said: bytearray = field(default_factory=bytearray)
    _listener: threading.Thread | None = None
    _ending: threading.RLock = field(default_factory=threading.RLock)

    def __post_init__(self) -> None:
        self._listener = threading.Thread(target=self._listen, name="holdfast-listen", daemon=True)
        self._listener.start()

    def _listen(self) -> None:
        with suppress(OSError, ValueError):
            while data := os.read(self.errors, 1 << 16):
                self._said += data
                del self._said[: max(0, len(self._said) - _TAIL)]

    def last_words(self, limit: int = 2000) -> str:
        """The end of its output on standard error."""
        return bytes(self._said).decode(errors="replace").strip()[-limit:]

    @property
    def how(self) -> str:
        """How it ended, as the end of a sentence."""
        return how_it_ended(_KILLED if self.returncode is None else self.returncode)

    def poll(self) -> int | None:
        """Its exit code when it has ended, negative for a signal."""
        self._look(0)
        return self.returncode

    def _look(self, seconds: float | None) -> None:
        """Wait for the keeper's word, so long at most; None: until it comes."""
        with self._ending:
            if self.returncode is not None or self.is_gone:
                return
        readable = select.select([self.keeper], [], [], seconds)[0]
        with self._ending:
            if readable and self.returncode is None and not self.is_gone:
                status = self._status()
                if "limit" in status:
                    self.limit = Ended(status["limit"])
                self.returncode = int(status.get("code", _KILLED))

    def _status(self) -> dict[str, Any]:
        try:
            found: dict[str, Any] = json.loads(self.keeper.recv(_STATUS_LIMIT) or b"{}")
        except (OSError, ValueError):
            return {}
        return found

    def wait(self) -> int:
        """Its exit code, negative for a signal; it and its last words are complete then."""
        self._look(None)
        self.end()
        assert self.returncode is not None
        return self.returncode

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the program itself."""
        with suppress(OSError):
            self.keeper.send(bytes([number]))

    def shut_down(self, number: signal.Signals) -> None:
        """Let it end by itself, on a signal, if it does so soon."""
        if not self.is_gone and self.poll() is None:
            self.send(number)
            self._look(_SHUTDOWN_SECONDS)
        self.end()

    def close_stdin(self) -> None:
        """Nothing more comes."""
        if self.stdin >= 0:
            fd, self.stdin = self.stdin, -1
            os.close(fd)

    def end(self) -> None:
        """Kill it with all that it started, and wait until they are gone. From any thread."""
        with self._ending:
            if self.is_gone:
                return
            if self.returncode is None:
                with suppress(OSError):
                    self.keeper.shutdown(socket.SHUT_WR)
            self._await_gone()
            if self.returncode is None:
                self._look(0)
                self.returncode = _KILLED if self.returncode is None else self.returncode
            self.is_gone = True
        assert self._listener is not None
        self._listener.join(1.0)
        self.keeper.close()
        for fd in (self.gone, self.errors, self.stdout):
            if fd >= 0:
                os.close(fd)
        self.stdout = -1

    def _await_gone(self) -> None:
        deadline = time.monotonic() + _GONE_SECONDS
        poll = select.poll()
        poll.register(self.gone, select.POLLIN | select.POLLHUP)
        poll.poll(max(0.0, deadline - time.monotonic()) * 1000)
