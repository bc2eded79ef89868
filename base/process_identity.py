"""Who a process is, so that another one can tell later whether it still runs: also one of another machine,
of another start of this one, or of another container on it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Final

_MACHINE: Final = (Path("/etc/machine-id"), Path("/var/lib/dbus/machine-id"))
_BOOT: Final = Path("/proc/sys/kernel/random/boot_id")
_NAMESPACE: Final = Path("/proc/self/ns/pid")


@dataclass(frozen=True, slots=True)
class ProcessIdentity:
    """`machine` and `boot` are hashes: they tell nothing but whether two are the same. `started` is the start
    time in ticks since the start of the machine. What is unknown is ""."""

    machine: str
    boot: str
    namespace: str
    pid: int
    started: str

    @staticmethod
    def of_this_process() -> ProcessIdentity:
        machine = next(filter(None, map(_text, _MACHINE)), "")
        boot = _text(_BOOT)
        try:
            namespace = str(_NAMESPACE.readlink())
        except OSError:
            namespace = ""
        pid = os.getpid()
        return ProcessIdentity(_hashed(machine), _hashed(boot), namespace, pid, _started(pid))

    def runs(self) -> bool | None:
        """Whether it still runs; None when that cannot be told from here."""
        mine = ProcessIdentity.of_this_process()
        if not self.boot or self.boot != mine.boot:  # that of one start of one machine
            return False if self.boot and self.machine and self.machine == mine.machine else None
        if not self.namespace or self.namespace != mine.namespace:
            return None
        return bool(self.started) and self.started == _started(self.pid)


def _hashed(secret: str) -> str:
    """The machine's ID must not be shown to others (machine-id(5))."""
    return blake2b(b"holdfast process " + secret.encode(), digest_size=16).hexdigest() if secret else ""


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError):
        return ""


def _started(pid: int) -> str:
    """Field 22 of the process's stat; "" when it is gone or dead."""
    try:
        # The name, in brackets, may itself hold blanks and brackets.
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
        return "" if fields[0] in ("Z", "X") else fields[19]
    except (OSError, IndexError):
        return ""
