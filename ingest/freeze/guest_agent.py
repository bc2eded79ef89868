"""Freezes a guest's file systems through the QEMU guest agent.

The agent exchanges lines of JSON over the UNIX socket of a virtio-serial channel, with one client at a time.
Source: https://www.qemu.org/docs/master/interop/qemu-ga-ref.html. It runs in the guest and is not trusted:
replies are limited in size and time, and their text is escaped.
"""

from __future__ import annotations

import json
import secrets
import socket
import time
from typing import Any

from holdfast.base.errors import SourceError, StreamFailed
from holdfast.base.escaping import escape
from holdfast.ingest.freeze.hooks import FreezeResult, uninterrupted
from holdfast.repo.snapshots.snapshot import Consistency

_SENTINEL = b"\xff"
"""Never part of JSON in UTF-8: separates messages from incomplete earlier ones, in both directions."""
_LINE_LIMIT = 64 << 10
_STALE_LIMIT = 1 << 20
"""Most bytes of late replies to other clients that are skipped before synchronising fails."""
_WORDS_LIMIT = 300
_ATTEMPTS = 3
"""Attempts to thaw, each with a new connection."""


class AgentError(SourceError):
    """The agent refused a command, did not reply in time, or sent a malformed reply."""


class AgentRefused(AgentError):
    """The agent answered a command with an error."""


class Agent:
    """A synchronised connection to a guest agent. A context manager. `limit`: seconds for each command."""

    def __init__(self, path: str, *, limit: float) -> None:
        """Connect and synchronise. Raises AgentError."""
        self._path = path
        self._limit = limit
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._rest = bytearray()
        try:
            self._connect()
            self._synchronise()
        except BaseException:
            self._socket.close()
            raise

    def __enter__(self) -> Agent:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._socket.close()

    def call(self, command: str, *, limit: float | None = None) -> Any:
        """The command's return value, of any JSON type. Raises AgentError."""
        deadline = time.monotonic() + (self._limit if limit is None else limit)
        self._send(json.dumps({"execute": command}).encode() + b"\n", deadline)
        reply = self._parse(self._until(b"\n", deadline))
        if not isinstance(reply, dict):
            raise AgentError(f"{self._path}: the guest agent answered {command} with something else")
        if "return" in reply:
            return reply["return"]
        error = reply.get("error")
        error = error if isinstance(error, dict) else {}
        words = f"{_words(error.get('class'))}: {_words(error.get('desc'))}"
        raise AgentRefused(f"{self._path}: the guest agent refused {command}: {words}")

    def _connect(self) -> None:
        try:
            self._socket.settimeout(self._limit)
            self._socket.connect(self._path)
        except OSError as error:
            reason = error.strerror or str(error)
            raise AgentError(f"cannot reach the guest agent at {self._path}: {reason}") from error

    def _synchronise(self) -> None:
        """Skip replies to earlier clients until the reply with our random number arrives."""
        number = secrets.randbelow(1 << 52)  # exact in every JSON reader
        deadline = time.monotonic() + self._limit
        request = {"execute": "guest-sync-delimited", "arguments": {"id": number}}
        self._send(_SENTINEL + json.dumps(request).encode() + b"\n", deadline)
        skipped = 0
        while skipped <= _STALE_LIMIT:
            skipped += len(self._until(_SENTINEL, deadline, limit=_STALE_LIMIT))
            line = self._until(b"\n", deadline)
            skipped += len(line)
            try:
                reply = self._parse(line)
            except AgentError:
                continue  # a truncated reply to an earlier client
            if isinstance(reply, dict) and reply.get("return") == number:
                return
        raise AgentError(
            f"{self._path}: the guest agent sent no reply to guest-sync-delimited within {_STALE_LIMIT} bytes"
        )

    def _send(self, data: bytes, deadline: float) -> None:
        try:
            self._socket.settimeout(max(0.001, deadline - time.monotonic()))
            self._socket.sendall(data)
        except OSError as error:
            raise self._broken(error) from error

    def _until(self, mark: bytes, deadline: float, *, limit: int = _LINE_LIMIT) -> bytes:
        """The bytes before the mark; removes both from the input. Raises AgentError."""
        searched = 0
        while (at := self._rest.find(mark, searched)) < 0:
            searched = len(self._rest)
            if searched > limit:
                raise AgentError(f"{self._path}: the guest agent's answer is longer than {limit} bytes")
            try:
                self._socket.settimeout(max(0.001, deadline - time.monotonic()))
                data = self._socket.recv(_LINE_LIMIT)
            except OSError as error:
                raise self._broken(error) from error
            if not data:
                raise AgentError(f"{self._path}: the guest agent hung up")
            if time.monotonic() > deadline:
                raise self._broken(TimeoutError())
            self._rest += data
        found = bytes(self._rest[:at])
        del self._rest[: at + 1]
        return found

    def _parse(self, line: bytes) -> Any:
        try:
            return json.loads(line)
        except (ValueError, RecursionError):
            raise AgentError(f"{self._path}: the guest agent's answer is not JSON") from None

    def _broken(self, error: OSError) -> AgentError:
        if isinstance(error, TimeoutError):
            return AgentError(f"{self._path}: the guest agent does not answer in time")
        return AgentError(f"{self._path}: the guest agent is gone: {error.strerror or error}")


class AgentFreeze:
    """Freezes a guest through its agent; implements Freeze.

    On Windows the agent freezes through VSS, whose writers bring databases into a state of their own making:
    application-consistent. Elsewhere it freezes file systems; whether hooks of the guest's made applications
    ready is not known here. A guest may thaw by itself (Windows does after ten seconds), so `end` asks for
    its state before it thaws.
    """

    def __init__(self, path: str, *, limit: float = 30.0, freeze_limit: float = 120.0) -> None:
        """`path` is the channel's socket on the host; limits are in seconds, for each command."""
        self._path = path
        self._limit = limit
        self._freeze_limit = freeze_limit
        self._count = 0
        self._agent: Agent | None = None
        self._through_vss = False

    def start(self) -> None:
        """Freeze, unless the guest is frozen already. Raises StreamFailed, after thawing the guest again."""
        try:
            agent = Agent(self._path, limit=self._limit)
        except AgentError as error:
            raise StreamFailed(f"{error}; nothing was committed") from error
        self._agent = agent
        try:
            if agent.call("guest-fsfreeze-status") != "thawed":
                raise StreamFailed(f"{self._path}: the guest is frozen already; nothing was committed")
            self._through_vss = _is_windows(agent)
        except BaseException as error:
            self._hang_up()
            if isinstance(error, AgentError):
                raise StreamFailed(f"{error}; nothing was committed") from error
            raise
        try:
            count = agent.call("guest-fsfreeze-freeze", limit=self._freeze_limit)
            if type(count) is not int or count < 0:
                raise AgentError(f"{self._path}: the guest agent froze {_words(count)} file systems")
        except BaseException as error:
            self._hang_up()  # else a late reply would be taken for that to the next command
            left = uninterrupted(self._thaw)
            self._hang_up()
            if isinstance(error, AgentError):
                told = f"; {left}" if left else ""
                raise StreamFailed(f"{error}{told}; nothing was committed") from error
            raise
        self._count = count

    def end(self, result: str) -> FreezeResult:
        doubts: list[str] = []
        try:
            left = uninterrupted(lambda: self._ask_and_thaw(doubts))
        finally:
            self._hang_up()
        if left:
            return FreezeResult(
                Consistency.CRASH,
                "frozen by the guest agent, but not thawed",
                (left, *doubts),
                failed=True,
            )
        if not self._count:
            warning = f"{self._path}: the guest agent froze no file system"
            return FreezeResult(Consistency.CRASH, "a disk as found", (warning,))
        if doubts:
            return FreezeResult(
                Consistency.CRASH, "frozen by the guest agent, maybe not to the end", tuple(doubts)
            )
        some = "1 file system" if self._count == 1 else f"{self._count} file systems"
        if self._through_vss:
            told = f"{some} frozen by the guest agent through VSS, thawed after"
            return FreezeResult(Consistency.APPLICATION, told)
        return FreezeResult(Consistency.FILESYSTEM, f"{some} frozen by the guest agent, thawed after")

    def _ask_and_thaw(self, doubts: list[str]) -> str:
        """As `_thaw`; appends reasons to doubt that the guest was frozen until now to `doubts`."""
        try:
            if self._reach().call("guest-fsfreeze-status") != "frozen":
                doubts.append(f"{self._path}: the guest thawed by itself while it was read")
        except AgentError as error:
            self._hang_up()
            doubts.append(f"{error}: whether the guest stayed frozen is not known")
        except BaseException:
            self._hang_up()
            raise
        return self._thaw()

    def _thaw(self) -> str:
        """Thaw, by a new connection if this one is broken. Returns the last error, "" for success."""
        fault = ""
        for _ in range(_ATTEMPTS):
            try:
                agent = self._reach()
                agent.call("guest-fsfreeze-thaw")
                if agent.call("guest-fsfreeze-status") == "thawed":
                    return ""
                fault = f"{self._path}: the guest agent thawed, and the guest is still frozen"
            except AgentError as error:
                fault = str(error)
            except BaseException:
                self._hang_up()
                raise
            self._hang_up()
        return f"{fault}: the guest may still be frozen; thaw it with guest-fsfreeze-thaw"

    def _reach(self) -> Agent:
        if self._agent is None:
            self._agent = Agent(self._path, limit=self._limit)
        return self._agent

    def _hang_up(self) -> None:
        if self._agent is not None:
            self._agent.close()
            self._agent = None


def _is_windows(agent: Agent) -> bool:
    """Whether the guest says that it is Windows; False when it does not know the question (before QEMU 2.10).
    Raises AgentError."""
    try:
        about = agent.call("guest-get-osinfo")
    except AgentRefused:
        return False
    return isinstance(about, dict) and about.get("id") == "mswindows"


def _words(value: object) -> str:
    """A guest's words, fit for a message."""
    return escape(str(value)[:_WORDS_LIMIT])
