"""A QEMU guest agent that does as it is told."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

Answer = bytes | dict[str, Any] | None | Callable[[], object]
"""Raw bytes, a reply, None to hang up, or something to do first (then the usual reply)."""


@dataclass
class FakeAgent:
    """Speaks the protocol; `scripted` answers take the place of the usual ones, in order, by command."""

    path: str
    filesystems: int = 2
    stale: bytes = b""
    is_frozen: bool = False
    system: str = "debian"
    calls: list[str] = field(default_factory=list)
    scripted: dict[str, list[Answer]] = field(default_factory=dict)

    def serve(self) -> None:
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.listener.bind(self.path)
        self.listener.listen(1)
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def stop(self) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.thread.join(120)
        assert not self.thread.is_alive()

    def _run(self) -> None:
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            with client, client.makefile("rb") as lines:
                try:
                    for line in lines:
                        if not self._answer(client, line):
                            break
                except OSError:
                    continue

    def _answer(self, client: socket.socket, line: bytes) -> bool:
        request = json.loads(line.rpartition(b"\xff")[2])
        command = request["execute"]
        self.calls.append(command.removeprefix("guest-"))
        script = self.scripted.get(command.removeprefix("guest-"))
        if script:
            answer = script.pop(0)
            if callable(answer):
                answer()
            elif answer is None:
                return False
            else:
                client.sendall(answer if isinstance(answer, bytes) else json.dumps(answer).encode() + b"\n")
                return True
        if command == "guest-sync-delimited":
            assert line.startswith(b"\xff")
            client.sendall(self.stale + b"\xff")
            self._reply(client, request["arguments"]["id"])
        elif command == "guest-fsfreeze-status":
            self._reply(client, "frozen" if self.is_frozen else "thawed")
        elif command == "guest-fsfreeze-freeze":
            self.is_frozen = self.filesystems > 0
            self._reply(client, self.filesystems)
        elif command == "guest-get-osinfo":
            self._reply(client, {"id": self.system, "name": "of any kind"})
        elif command == "guest-fsfreeze-thaw":
            self.is_frozen = False
            self._reply(client, self.filesystems)
        return True

    def _reply(self, client: socket.socket, value: object) -> None:
        client.sendall(json.dumps({"return": value}).encode() + b"\n")
