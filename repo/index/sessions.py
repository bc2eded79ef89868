"""Whether an index can be trusted: every process that had it open closed it, and nothing changed it since.

LMDB maps its file into memory and follows the offsets in it: of 1,600 copies with one damaged word 57 killed
the process that opened them. So an index that cannot be trusted is not opened. Each process that has the
index open holds a lock on a marker file of its own. One without a lock is of a process that died. Without
markers, the file must be the one that the last process closed (inode, size, time of change).
"""

from __future__ import annotations

import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

_GATE: Final = "gate"
_MARKER: Final = "open-"
_CLOSED: Final = "closed"
_BAD: Final = "bad"
_DATA: Final = "data.mdb"
_LOCKS: Final = "lock.mdb"


class IndexSession:
    """One process's use of the index in a folder that exists. `distrust` says why the files that were there
    have been deleted, "" when they were good or there were none. Raises OSError."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._inode = 0
        with self._gate():
            self.distrust = self._why_not_trusted()
            if self.distrust:
                self._delete()
            self._sweep()
            self._marker = folder / f"{_MARKER}{os.getpid()}-{secrets.token_hex(4)}"
            self._lock = os.open(self._marker, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX)

    def opened(self) -> None:
        """The files are there now. The marker says which: others may make new ones meanwhile."""
        self._inode = (self._folder / _DATA).stat().st_ino
        os.pwrite(self._lock, str(self._inode).encode(), 0)

    def end(self, *, good: bool = True) -> None:
        """After the environment was closed or could not be opened.

        When something in it turned out to be wrong it is not `good`: who opens it next makes a new one.
        """
        with suppress(OSError), self._gate():
            if not good:
                (self._folder / _BAD).touch(mode=0o600)
            self._marker.unlink(missing_ok=True)
            status = (self._folder / _DATA).stat()
            if status.st_ino == self._inode and not list(self._markers(self._inode)):
                (self._folder / _CLOSED).write_text(_fingerprint(status))
        os.close(self._lock)

    def _why_not_trusted(self) -> str:
        folder = self._folder
        if not (folder / _DATA).exists():
            return ""
        if (folder / _BAD).exists():
            return "it was damaged"
        held = [_is_held(marker) for marker in self._markers((folder / _DATA).stat().st_ino)]
        if not all(held):
            return "a process that had it open was killed"
        if held:
            return ""
        try:
            closed = (folder / _CLOSED).read_text()
        except (OSError, UnicodeDecodeError):
            return "it was never closed"
        return "" if closed == _fingerprint((folder / _DATA).stat()) else "it was changed by something else"

    def _markers(self, inode: int) -> Iterator[Path]:
        """The markers of those who have this file open, or are about to open one."""
        for marker in self._folder.glob(f"{_MARKER}*"):
            with suppress(FileNotFoundError):
                if marker.read_text() in ("", str(inode)):
                    yield marker

    def _delete(self) -> None:
        """Processes that have the files open keep them, without a name."""
        for name in (_DATA, _LOCKS, _CLOSED, _BAD):
            (self._folder / name).unlink(missing_ok=True)

    def _sweep(self) -> None:
        """Delete the markers of processes that died."""
        for marker in self._folder.glob(f"{_MARKER}*"):
            if not _is_held(marker):
                marker.unlink(missing_ok=True)

    @contextmanager
    def _gate(self) -> Iterator[None]:
        """Let one process at a time open or close the index."""
        fd = os.open(self._folder / _GATE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)


def _is_held(marker: Path) -> bool:
    """Whether a process that lives holds the marker's lock."""
    try:
        fd = os.open(marker, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return True  # it ended well just now
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def _fingerprint(status: os.stat_result) -> str:
    return f"{status.st_dev} {status.st_ino} {status.st_size} {status.st_mtime_ns}"
