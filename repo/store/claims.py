"""Claims: files that say who holds the lock, for file systems on which not everybody sees it.

flock keeps apart processes of one machine; over a network, or through two mounts of one directory, it may
keep apart nobody. So the holder of the lock also writes a claim, and looks for the claims of others: one that
the lock excludes shows that the lock does not work. A claim names its process, so that whoever can see that
this process is gone removes the claim.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from typing import Final

from holdfast.base.durable_files import read_at, write_all
from holdfast.base.errors import Damaged
from holdfast.base.process_identity import ProcessIdentity
from holdfast.repo.store.interface import LockMode
from holdfast.repo.store.layout import CLAIMS, TEMPORARY
from holdfast.repo.store.owned_tree import OwnedFolder, OwnedTree

_LARGEST: Final = 4096


@dataclass(frozen=True, slots=True)
class Claim:
    """The claim of another process that holds or held the lock. `runs` is None when nobody here can know."""

    name: str
    pid: int
    runs: bool | None

    def excludes(self, mode: LockMode) -> bool:
        """Whether the lock cannot be held in that mode at the same time."""
        return mode is LockMode.EXCLUSIVE or self.name.startswith(LockMode.EXCLUSIVE.value)


class Claims:
    """The claims in a repository. Nothing here fails: where no claim can be written flock has to do."""

    def __init__(self, tree: OwnedTree) -> None:
        self._tree = tree
        self._mine: set[str] = set()
        self.flock_works = True
        """False when a lock that this process holds did not keep out another descriptor."""

    @contextmanager
    def claimed(self, mode: LockMode) -> Iterator[None]:
        """Say for the block that this process holds the lock."""
        name = f"{mode.value}-{secrets.token_hex(8)}"
        self._mine.add(name)
        try:
            with suppress(OSError, Damaged), self._folder() as folder:
                self._write(folder, name)
            yield
        finally:
            with suppress(OSError, Damaged), self._folder() as folder:
                folder.unlink(name)
            self._mine.discard(name)

    def others(self) -> list[Claim]:
        """The claims of all others that may still run. Removes those of processes that certainly do not."""
        found: list[Claim] = []
        with suppress(OSError, Damaged), self._folder() as folder:
            for name in folder.names():
                not_now = name in self._mine or name.startswith(TEMPORARY)
                claim = None if not_now else self._read(folder, name)
                if claim is not None and claim.runs is False:
                    folder.unlink(name)
                elif claim is not None:
                    found.append(claim)
        return found

    def remove(self, name: str) -> None:
        """Remove a claim that nobody can have any more."""
        with suppress(OSError, Damaged), self._folder() as folder:
            folder.unlink(name)

    @contextmanager
    def _folder(self) -> Iterator[OwnedFolder]:
        with self._tree.folder() as top:
            top.make(CLAIMS)
            with top.below(CLAIMS) as folder:
                yield folder

    def _write(self, folder: OwnedFolder, name: str) -> None:
        """Whole or not at all, so that what a kill leaves can be read. It need not be durable."""
        temporary = f"{TEMPORARY}{name}"
        fd = folder.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL)
        try:
            write_all(fd, json.dumps(asdict(ProcessIdentity.of_this_process())).encode())
            folder.rename(temporary, name)
            self._probe(folder, name, fd)
        except OSError:
            folder.unlink(temporary)
            raise
        finally:
            os.close(fd)

    def _probe(self, folder: OwnedFolder, name: str, fd: int) -> None:
        """See whether a lock of one descriptor keeps out another."""
        second = folder.open(name, os.O_RDWR)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self.flock_works = False
        except BlockingIOError:
            return
        except OSError:
            self.flock_works = False  # there is no such thing
        finally:
            os.close(second)

    def _read(self, folder: OwnedFolder, name: str) -> Claim | None:
        """None when it was removed since."""
        try:
            fd = folder.open(name, os.O_RDONLY)
        except FileNotFoundError:
            return None
        try:
            who = ProcessIdentity(**json.loads(read_at(fd, 0, _LARGEST)))
            return Claim(name, int(who.pid), who.runs())
        except (ValueError, TypeError):
            return Claim(name, 0, None)
        finally:
            os.close(fd)
