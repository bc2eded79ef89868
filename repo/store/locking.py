"""The lock of a repository in a directory: flock, and claims for file systems on which that does not do."""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from holdfast.base.errors import Locked, StoreError
from holdfast.repo.store.claims import Claims
from holdfast.repo.store.interface import LockMode
from holdfast.repo.store.layout import CLAIMS, LOCK
from holdfast.repo.store.owned_tree import OwnedTree

_PAUSE: Final = 0.05
_NO_FLOCK: Final = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)
"""What file systems answer that have no flock."""


class RepositoryLock:
    """flock: the kernel lets go when the process dies, so there is no stale lock to break."""

    def __init__(self, tree: OwnedTree) -> None:
        self._tree = tree
        self.claims = Claims(tree)

    @contextmanager
    def held(self, mode: LockMode, timeout: float) -> Iterator[None]:
        """Raises Locked after `timeout` seconds, StoreError."""
        path = str(self._tree.root / LOCK)
        try:
            with self._tree.folder() as top:
                # LOCK_EX over NFS needs a descriptor open for writing.
                fd = top.open(LOCK, os.O_RDWR | os.O_CREAT)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise StoreError.wrap("lock", path, error) from error
        deadline = time.monotonic() + timeout
        try:
            self._take(fd, mode, deadline, path)
            with self.claims.claimed(mode):
                self._wait_for_others(mode, deadline)
                yield
        finally:
            os.close(fd)

    def _take(self, fd: int, mode: LockMode, deadline: float, path: str) -> None:
        flag = fcntl.LOCK_SH if mode is LockMode.SHARED else fcntl.LOCK_EX
        while True:
            try:
                fcntl.flock(fd, flag | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise self._locked(mode, "") from None
                time.sleep(_PAUSE)
            except OSError as error:
                if error.errno not in _NO_FLOCK:
                    raise StoreError.wrap("lock", path, error) from error
                self.claims.flock_works = False
                return
            else:
                return

    def _wait_for_others(self, mode: LockMode, deadline: float) -> None:
        """Wait for who certainly runs and would be kept out by a lock that works."""
        while running := [claim.pid for claim in self.claims.others() if claim.runs and claim.excludes(mode)]:
            if time.monotonic() >= deadline:
                raise self._locked(mode, f" (process {running[0]}, whom flock does not keep out)")
            time.sleep(_PAUSE)

    def _locked(self, mode: LockMode, who: str) -> Locked:
        doing = "a prune is" if mode is LockMode.SHARED else "a backup or another prune is"
        return Locked(f"{self._tree.root} is locked: {doing} running{who}; try again later")

    def doubts(self) -> list[str]:
        """See `Store.doubts`."""
        found = []
        if not self.claims.flock_works:
            found.append(f"the file system of {self._tree.root} has no locks that keep others out (flock)")
        for claim in self.claims.others():
            path = self._tree.root / CLAIMS / claim.name
            found.append(
                f"process {claim.pid} of another machine or container may be at work there: {path} says so, "
                "and can be deleted when nothing runs there any more"
            )
        return found
