"""A repository in a local directory. Only this module and `owned_tree` open, rename or fsync its files."""

from __future__ import annotations

import errno
import mmap
import os
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

from holdfast.base.durable_files import read_at, sync_if_possible
from holdfast.base.errors import Damaged, NoRepository, RepositoryError, RepositoryExists, StoreError
from holdfast.base.named_paths import open_folder
from holdfast.base.open_files import OpenFiles
from holdfast.base.types import Buffer
from holdfast.repo.store.interface import CONFIG_NAMES, FileKind, LockMode, StoredFile
from holdfast.repo.store.layout import (
    CLAIMS,
    LIMITS,
    LOCK,
    PREFIXES,
    TEMPORARY,
    TRASH,
    Parts,
    all_folders,
    file_folder,
    is_named_like,
    kind_folder,
    not_ours,
    strangers_in,
)
from holdfast.repo.store.locking import RepositoryLock
from holdfast.repo.store.owned_tree import OwnedTree

_OPEN_FILES = 128
_BUFFER = 512 << 10


class LocalStore:
    """A directory on a local (or POSIX-like network) file system."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._tree = OwnedTree(root)
        self._lock = RepositoryLock(self._tree)
        self._dirty: set[Parts] = set()
        self._dirty_lock = threading.Lock()
        self._sync_lock = threading.Lock()
        self._files = OpenFiles(_OPEN_FILES)
        self._local = threading.local()

    @staticmethod
    def create(root: Path) -> LocalStore:
        """Make the directories of a new repository.

        Raises RepositoryExists when the directory has files other than those of an interrupted `init`;
        ForeignLink, Damaged.
        """
        store = LocalStore(root)
        try:
            with store._translate("create", root):
                store._lay_out()
        except BaseException:
            store.close()
            raise
        return store

    @staticmethod
    def open(root: Path) -> LocalStore:
        """Open an existing repository's directory. Raises NoRepository when it has no config, StoreError."""
        store = LocalStore(root)
        try:
            with store._translate("open", root):
                if store._has_config():
                    return store
        except FileNotFoundError:
            pass
        except StoreError as error:
            if error.errno != errno.ENOTDIR:
                raise
        store.close()
        raise NoRepository(f"no repository in {root}")

    def close(self) -> None:
        self._files.close()
        self._tree.close()

    def shortcomings(self) -> list[str]:
        """Sentences on what the file system cannot do, as found since the store was opened."""
        found = []
        if not self._tree.syncs_folders:
            found.append(
                f"the file system of {self.root} cannot make the names of files durable (it has no fsync of "
                "folders): a power cut of its machine can take back what was just written there"
            )
        if not self._lock.claims.flock_works:
            found.append(
                f"the file system of {self.root} has no locks that keep others out: let only one command at "
                "a time work in the repository"
            )
        return found

    def describe(self, kind: FileKind, name: str) -> str:
        return str(self._path(kind, name))

    def listing(self, kind: FileKind, *, trashed: bool = False) -> Iterator[StoredFile]:
        parts = kind_folder(kind, trashed=trashed)
        found: list[tuple[str, os.stat_result]] = []
        with (
            self._translate("list", self.root.joinpath(*parts)),
            suppress(FileNotFoundError),
            self._tree.folder(*parts) as folder,
        ):
            if kind is not FileKind.PACK or trashed:
                found = folder.files()
            else:
                for prefix in PREFIXES:
                    with suppress(FileNotFoundError), folder.below(prefix) as below:
                        found += [file for file in below.files() if file[0].startswith(prefix)]
        for name, status in found:
            if is_named_like(kind, name):
                yield StoredFile(name, status.st_size, status.st_mtime)

    def strangers(self) -> Iterator[str]:
        for parts in [(), (TRASH,), *all_folders()]:
            path = self.root.joinpath(*parts)
            names: list[str] = []
            with (
                self._translate("list", path),
                suppress(FileNotFoundError, Damaged),
                self._tree.folder(*parts) as folder,
            ):
                names = folder.names()
            yield from (str(path / name) for name in strangers_in(parts, names))

    def read(self, kind: FileKind, name: str, offset: int = 0, length: int | None = None) -> bytes:
        with self._reading(kind, name) as fd:
            if length is None:
                length = max(0, os.fstat(fd).st_size - offset)
            return read_at(fd, offset, length)

    def read_cached(self, kind: FileKind, name: str, offset: int, length: int) -> bytes | None:
        buffer = self._aligned(length)
        with self._reading(kind, name) as fd:
            try:
                count = os.preadv(fd, [buffer], offset, os.RWF_NOWAIT)
            except OSError as error:
                if error.errno in (errno.EAGAIN, errno.EOPNOTSUPP):
                    return None
                raise
            return bytes(buffer) if count >= length else None

    def _aligned(self, length: int) -> memoryview:
        """This thread's page-aligned buffer: Zen 3 reads five times slower into malloc'ed memory."""
        buffer: mmap.mmap | None = getattr(self._local, "buffer", None)
        if buffer is None or len(buffer) < length:
            buffer = self._local.buffer = mmap.mmap(-1, max(length, _BUFFER))
        return memoryview(buffer)[:length]

    def put(self, kind: FileKind, name: str, data: Buffer) -> bool:
        parts = file_folder(kind, name)
        with self._translate("write", self._path(kind, name)):
            try:
                self._ensure(parts)
                with self._tree.folder(*parts) as folder:
                    if folder.has(name):
                        return False
                    is_new = folder.write(name, data)
            except FileNotFoundError as error:
                raise StoreError.wrap("write", self.describe(kind, name), error) from error
        self._mark(parts)
        return is_new

    def sync(self) -> None:
        with self._sync_lock:  # a second caller waits: the first may be syncing the second's names
            with self._dirty_lock:
                folders, self._dirty = self._dirty, set()
            try:
                for parts in folders:
                    with (
                        self._translate("sync", self.root.joinpath(*parts)),
                        suppress(FileNotFoundError),
                        self._tree.folder(*parts) as folder,
                    ):
                        folder.sync()
            except RepositoryError:
                with self._dirty_lock:  # not durable yet: the next `sync` tries again
                    self._dirty |= folders
                raise

    def trash(self, kind: FileKind, name: str) -> None:
        self._move(name, file_folder(kind, name), kind_folder(kind, trashed=True))

    def untrash(self, kind: FileKind, name: str) -> None:
        self._move(name, kind_folder(kind, trashed=True), file_folder(kind, name))

    def delete(self, kind: FileKind, name: str, *, trashed: bool = False) -> None:
        parts = kind_folder(kind, trashed=True) if trashed else file_folder(kind, name)
        with (
            self._translate("delete", self.root.joinpath(*parts, name)),
            suppress(FileNotFoundError),
            self._tree.folder(*parts) as folder,
        ):
            folder.unlink(name)
        self._files.forget(name)
        self._mark(parts)

    def lock(self, mode: LockMode, timeout: float) -> AbstractContextManager[None]:
        return self._lock.held(mode, timeout)

    def doubts(self) -> list[str]:
        return self._lock.doubts()

    def claims(self) -> list[str]:
        return [claim.name for claim in self._lock.claims.others()]

    def remove_claim(self, name: str) -> None:
        self._lock.claims.remove(name)

    def clean(self) -> int:
        freed = 0
        for parts in [(), (CLAIMS,), *all_folders()]:
            with (
                self._translate("clean", self.root.joinpath(*parts)),
                suppress(FileNotFoundError),
                self._tree.folder(*parts) as folder,
            ):
                for name, status in folder.files():
                    if name.startswith(TEMPORARY):
                        folder.unlink(name)
                        freed += status.st_size
        return freed

    def _path(self, kind: FileKind, name: str) -> Path:
        return self.root.joinpath(*file_folder(kind, name), name)

    def _mark(self, parts: Parts) -> None:
        with self._dirty_lock:
            self._dirty.add(parts)

    def _has_config(self) -> bool:
        with self._tree.folder() as top:
            return any(name in CONFIG_NAMES for name, _ in top.files())

    def _lay_out(self) -> None:
        made, _ = open_folder(self.root, make=True)
        os.close(made)
        with self._tree.folder() as top:
            if self._has_config():
                raise RepositoryExists(f"there is a repository in {self.root} already")
            if strangers := not_ours(top.names()):
                raise RepositoryExists(
                    f"{self.root} is not empty ({strangers[0]!r}): choose an empty directory"
                )
            kinds = (FileKind.PACK, FileKind.SNAPSHOT)
            if any(True for kind in kinds for out in (False, True) for _ in self.listing(kind, trashed=out)):
                config = self.root / CONFIG_NAMES[0]
                raise RepositoryExists(
                    f"{self.root} holds a repository's data but no config: bring back {config}"
                )
            for parts in all_folders():
                self._make(parts)
            os.close(top.open(LOCK, os.O_RDWR | os.O_CREAT))
        self._mark(())
        self.sync()
        for folder in self.root.parents:  # any of them may be new
            above, _ = open_folder(folder)
            sync_if_possible(above)
            os.close(above)

    def _ensure(self, parts: Parts) -> None:
        """Make a directory that a copy of the repository omitted because it was empty.

        Does nothing without a config: the root may be a mount point whose disk is not mounted.
        """
        try:
            with self._tree.folder(*parts):
                return
        except FileNotFoundError:
            if self._has_config():
                self._make(parts)

    def _make(self, parts: Parts) -> None:
        for depth in range(len(parts)):
            with self._tree.folder(*parts[:depth]) as above:
                above.make(parts[depth])
            self._mark(parts[:depth])

    def _move(self, name: str, source: Parts, target: Parts) -> None:
        with self._translate("move", self.root.joinpath(*source, name)):
            self._ensure(target)
            with self._tree.folder(*source) as origin, self._tree.folder(*target) as goal:
                try:
                    # The quarantine needs the time of trashing. It is set before the move: else a crash could
                    # leave a file in the trash that seems to be there since it was written.
                    origin.move(name, goal)
                except FileNotFoundError:
                    if not goal.has(name):  # else another process moved it
                        raise
        self._mark(source)
        self._mark(target)

    @contextmanager
    def _reading(self, kind: FileKind, name: str) -> Iterator[int]:
        """As `_opened`, with OSErrors as StoreError. Formats the path only for errors: this is a hot path."""
        try:
            with self._opened(kind, name) as fd:
                yield fd
        except FileNotFoundError:
            raise
        except OSError as error:
            raise StoreError.wrap("read", self.describe(kind, name), error) from error

    @contextmanager
    def _opened(self, kind: FileKind, name: str) -> Iterator[int]:
        if kind is FileKind.PACK:
            with self._files.borrow(name, lambda: self._open_file(kind, name)) as fd:
                yield fd
            return
        fd = self._open_file(kind, name)
        try:
            if kind in LIMITS and (size := os.fstat(fd).st_size) > LIMITS[kind]:
                reason = f"is {size} bytes long, and {LIMITS[kind]} are the most allowed"
                raise Damaged(self.describe(kind, name), reason)
            yield fd
        finally:
            os.close(fd)

    def _open_file(self, kind: FileKind, name: str) -> int:
        try:
            with self._tree.folder(*file_folder(kind, name)) as folder:
                return folder.open(name, os.O_RDONLY)
        except FileNotFoundError:  # a forget or prune may have moved it since it was listed
            with self._tree.folder(*kind_folder(kind, trashed=True)) as folder:
                return folder.open(name, os.O_RDONLY)

    @contextmanager
    def _translate(self, action: str, path: Path) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            raise
        except OSError as error:
            raise StoreError.wrap(action, str(path), error) from error
