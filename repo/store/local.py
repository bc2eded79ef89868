"""A repository in a local directory. The only module that opens, renames or fsyncs repository files."""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from holdfast.base.durable_files import (
    hand_over,
    preallocate,
    rename_unless_taken,
    write_all,
)
from holdfast.base.errors import Locked, NoRepository, RepositoryExists, StoreError
from holdfast.base.filesystems import is_fit_for_mmap
from holdfast.base.open_files import OpenFiles
from holdfast.base.types import Buffer
from holdfast.repo.store.interface import CONFIG_NAMES, FileKind, LockMode, StoredFile

_TEMPORARY = ".tmp-"
_TRASH = "trash"
_LOCK = "lock"
_OPEN_FILES = 128
_BUFFER = 512 << 10
_LARGE = 8 << 20
"""Bytes from which on room is reserved before a file is written."""
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC


class LocalStore:
    """A directory on a local (or POSIX-like network) file system."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._dirty: set[Path] = set()
        self._dirty_lock = threading.Lock()
        self._sync_lock = threading.Lock()
        self._files = OpenFiles(_OPEN_FILES)
        self._local = threading.local()

    @staticmethod
    def create(root: Path) -> LocalStore:
        """Make the directories of a new repository.

        Raises RepositoryExists when the directory has files other than those of an interrupted `init`.
        """
        store = LocalStore(root)
        with store._translate("create", root):
            root.mkdir(mode=0o700, parents=True, exist_ok=True)
            known = {kind.value for kind in FileKind} | {_TRASH, _LOCK, "index"}
            strangers = sorted(
                p.name for p in root.iterdir() if p.name not in known and not p.name.startswith(_TEMPORARY)
            )
            if any((root / name).exists() for name in CONFIG_NAMES):
                raise RepositoryExists(f"there is a repository in {root} already")
            if strangers:
                raise RepositoryExists(f"{root} is not empty ({strangers[0]!r}): choose an empty directory")
            if any(True for kind in (FileKind.PACK, FileKind.SNAPSHOT) for _ in store.listing(kind)):
                raise RepositoryExists(
                    f"{root} holds a repository's data but no config: bring back {root / CONFIG_NAMES[0]}"
                )
            for folder in store._all_folders():
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                store._mark(folder.parent)
            (root / _LOCK).touch(mode=0o600)
            store._mark(root)
            store._mark(root.parent)
            store.sync()
        return store

    @staticmethod
    def open(root: Path) -> LocalStore:
        """Open an existing repository's directory. Raises NoRepository when it has no config."""
        if not any((root / name).is_file() for name in CONFIG_NAMES):
            raise NoRepository(f"no repository in {root}")
        return LocalStore(root)

    def close(self) -> None:
        self._files.close()

    def describe(self, kind: FileKind, name: str) -> str:
        return str(self._path(kind, name))

    def listing(self, kind: FileKind, *, trashed: bool = False) -> Iterator[StoredFile]:
        folders = [self._folder(kind, trashed=trashed)]
        if kind is FileKind.PACK and not trashed:
            folders = [folders[0] / f"{n:02x}" for n in range(256)]
        for folder in folders:
            with self._translate("list", folder), suppress(FileNotFoundError), os.scandir(folder) as entries:
                for entry in entries:
                    if kind is FileKind.CONFIG and entry.name not in CONFIG_NAMES:
                        continue
                    if not entry.name.startswith(_TEMPORARY) and entry.is_file(follow_symlinks=False):
                        try:
                            status = entry.stat(follow_symlinks=False)
                        except FileNotFoundError:  # deleted since; the rest of the folder still counts
                            continue
                        yield StoredFile(entry.name, status.st_size, status.st_mtime)

    def read(self, kind: FileKind, name: str, offset: int = 0, length: int | None = None) -> bytes:
        with self._reading(kind, name) as fd:
            if length is None:
                length = max(0, os.fstat(fd).st_size - offset)
            data = os.pread(fd, length, offset)
            while len(data) < length:  # a signal or a network file system may cut a read short
                more = os.pread(fd, length - len(data), offset + len(data))
                if not more:
                    break
                data += more
            return data

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
        path = self._path(kind, name)
        with self._translate("write", path):
            if path.exists():
                return False
            try:
                self._ensure(path.parent)
                temporary = self._write_durably(path.parent, data)
            except FileNotFoundError as error:
                raise StoreError.wrap("write", str(path), error) from error
            is_new = True
            try:
                folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
                try:
                    rename_unless_taken(temporary.name, path.name, folder)
                finally:
                    os.close(folder)
            except FileExistsError:
                temporary.unlink(missing_ok=True)
                is_new = False
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise
        self._mark(path.parent)
        return is_new

    def sync(self) -> None:
        with self._sync_lock:  # a second caller waits: the first may be syncing the second's names
            with self._dirty_lock:
                folders, self._dirty = self._dirty, set()
            try:
                for folder in folders:
                    with self._translate("sync", folder), suppress(FileNotFoundError):
                        _sync_folder(folder)
            except StoreError:
                with self._dirty_lock:  # not durable yet: the next `sync` tries again
                    self._dirty |= folders
                raise

    def trash(self, kind: FileKind, name: str) -> None:
        self._move(self._path(kind, name), self._path(kind, name, trashed=True))

    def untrash(self, kind: FileKind, name: str) -> None:
        self._move(self._path(kind, name, trashed=True), self._path(kind, name))

    def delete(self, kind: FileKind, name: str, *, trashed: bool = False) -> None:
        path = self._path(kind, name, trashed=trashed)
        with self._translate("delete", path):
            path.unlink(missing_ok=True)
        self._files.forget(name)
        self._mark(path.parent)

    @contextmanager
    def lock(self, mode: LockMode, timeout: float) -> Iterator[None]:
        """flock: the kernel lets go when the process dies, so there is no stale lock to break."""
        path = self.root / _LOCK
        flag = fcntl.LOCK_SH if mode is LockMode.SHARED else fcntl.LOCK_EX
        with self._translate("lock", path):
            # LOCK_EX over NFS needs a descriptor open for writing.
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            hand_over(fd, self.root)
        try:
            deadline = time.monotonic() + timeout
            while True:
                try:
                    fcntl.flock(fd, flag | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() >= deadline:
                        doing = "a prune is" if mode is LockMode.SHARED else "a backup or another prune is"
                        raise Locked(f"{self.root} is locked: {doing} running; try again later") from None
                    time.sleep(0.05)
            yield
        finally:
            os.close(fd)

    def clean(self) -> int:
        freed = 0
        for folder in self._all_folders():
            with self._translate("clean", folder):
                for leftover in folder.glob(f"{_TEMPORARY}*"):
                    freed += leftover.stat().st_size
                    leftover.unlink(missing_ok=True)
        return freed

    def index_folder(self) -> Path | None:
        return self.root / "index" if is_fit_for_mmap(self.root) else None

    def _folder(self, kind: FileKind, *, trashed: bool = False) -> Path:
        base = self.root / _TRASH if trashed else self.root
        return base if kind is FileKind.CONFIG else base / kind.value

    def _path(self, kind: FileKind, name: str, *, trashed: bool = False) -> Path:
        folder = self._folder(kind, trashed=trashed)
        return folder / name[:2] / name if kind is FileKind.PACK and not trashed else folder / name

    def _all_folders(self) -> list[Path]:
        folders = [self._folder(kind) for kind in FileKind]
        folders += [self._folder(FileKind.PACK) / f"{n:02x}" for n in range(256)]
        return [*folders, *(self._folder(kind, trashed=True) for kind in (FileKind.PACK, FileKind.SNAPSHOT))]

    def _mark(self, folder: Path) -> None:
        with self._dirty_lock:
            self._dirty.add(folder)

    def _ensure(self, folder: Path) -> None:
        """Make a directory that a copy of the repository omitted because it was empty.

        Does nothing without a config: the root may be a mount point whose disk is not mounted.
        """
        if not folder.is_dir() and any((self.root / name).is_file() for name in CONFIG_NAMES):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            hand_over(folder, self.root)
            self._mark(folder.parent)

    def _move(self, source: Path, target: Path) -> None:
        with self._translate("move", source):
            self._ensure(target.parent)
            try:
                # The quarantine needs the time of trashing. It is set before the move: else a crash could
                # leave a file in the trash that seems to be there since it was written.
                os.utime(source)
                os.rename(source, target)  # noqa: PTH104  Path.rename hides which of the two is missing
            except FileNotFoundError:
                if not target.exists():  # else another process moved it
                    raise
        self._mark(source.parent)
        self._mark(target.parent)

    def _write_durably(self, folder: Path, data: Buffer) -> Path:
        """Write a temporary file and fsync it.

        After a failed fsync the kernel may call the lost pages clean, so that a second fsync of the
        same file succeeds and lies (Rebello et al., USENIX ATC 2020): it is dropped and a new one is
        written from memory, once.
        """
        for attempt in (1, 2):
            path = folder / f"{_TEMPORARY}{secrets.token_hex(8)}"
            fd = os.open(path, _CREATE, 0o600)
            try:
                hand_over(fd, self.root)
                if len(data) > _LARGE:
                    preallocate(fd, len(data))
                write_all(fd, data)
                os.fsync(fd)
            except OSError as error:
                path.unlink(missing_ok=True)
                if attempt == 2 or error.errno != errno.EIO:
                    raise
            else:
                return path
            finally:
                os.close(fd)
        raise AssertionError("unreachable")

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
            yield fd
        finally:
            os.close(fd)

    def _open_file(self, kind: FileKind, name: str) -> int:
        flags = os.O_RDONLY | os.O_CLOEXEC
        try:
            return os.open(self._path(kind, name), flags)
        except FileNotFoundError:  # a forget or prune may have moved it since it was listed
            return os.open(self._path(kind, name, trashed=True), flags)

    @contextmanager
    def _translate(self, action: str, path: Path) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            raise
        except OSError as error:
            raise StoreError.wrap(action, str(path), error) from error


def _sync_folder(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
