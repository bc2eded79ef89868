"""Notes about running mounts, one small file each: which process serves which mountpoint."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import asdict, dataclass
from hashlib import blake2b
from pathlib import Path

_BOOT = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True)
class MountRecord:
    """A mount's daemon. `started` and `boot` tell it from a later process of the same number."""

    mountpoint: str
    pid: int
    started: str
    boot: str

    def open_process(self) -> int | None:
        """A pidfd of the daemon; None when it is gone. Close it."""
        try:
            pidfd = os.pidfd_open(self.pid)
        except OSError:
            return None
        if self.boot == _boot() and self.started == _started(self.pid):
            return pidfd
        os.close(pidfd)
        return None


def record_of_this_process(mountpoint: Path) -> MountRecord:
    return MountRecord(str(mountpoint), os.getpid(), _started(os.getpid()), _boot())


def write_record(state: Path, record: MountRecord) -> None:
    """Write the record where that can be: without one an unmount does not wait for the daemon's end."""
    path = _path(state, record.mountpoint)
    temporary = path.with_suffix(f".{record.pid}")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        temporary.write_text(json.dumps(asdict(record)))
        temporary.replace(path)
    except OSError:
        with suppress(OSError):
            temporary.unlink()


def read_record(state: Path, mountpoint: Path) -> MountRecord | None:
    """The record of a mountpoint; None when there is none, or none that makes sense."""
    try:
        return MountRecord(**json.loads(_path(state, str(mountpoint)).read_text()))
    except (OSError, ValueError, TypeError):
        return None


def remove_record(state: Path, record: MountRecord) -> None:
    """Remove the record, unless another mount has written its own since."""
    if read_record(state, Path(record.mountpoint)) == record:
        with suppress(OSError):
            _path(state, record.mountpoint).unlink()


def _path(state: Path, mountpoint: str) -> Path:
    name = blake2b(os.fsencode(mountpoint), digest_size=8).hexdigest()
    return state / f"{name}.json"


def _boot() -> str:
    try:
        return _BOOT.read_text().strip()
    except OSError:
        return ""


def _started(pid: int) -> str:
    """Start time of a process in clock ticks since boot: field 22 of its stat; "" when it is gone."""
    try:
        # The name, in brackets, may itself hold blanks and brackets.
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""
