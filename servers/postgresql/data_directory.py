"""A PostgreSQL data directory out of a physical backup, ready to be started.

The stored tar is read once, front to back; each chunk is checked on the way. Until the very end there is no
global/pg_control, without which no server starts: what a crash or a full disk leaves is never taken for a
cluster. Only a new or an empty folder is written into, and it is taken first with a file that one restore
alone can make: so what fails can be removed again, and never what another one writes.
"""

from __future__ import annotations

import os
import shutil
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from holdfast.base.durable_files import sync_folder, sync_if_possible, write_all
from holdfast.base.errors import Damaged, Refused, TargetError
from holdfast.base.named_paths import without_links
from holdfast.base.target_folder import TargetFolder
from holdfast.base.types import Buffer, ProgressFunction
from holdfast.formats.dumps.core.catalogue import Catalogue, Section
from holdfast.formats.dumps.postgresql.physical.basebackup_tar import FORM
from holdfast.formats.dumps.postgresql.physical.control import CONTROL_PATH
from holdfast.repo.core.reader import Reader
from holdfast.repo.core.repository import Repository
from holdfast.repo.core.restore import Restorer
from holdfast.repo.snapshots.snapshot import Item, StoredStream

_CONTROL_LIMIT: Final = 1 << 20
_SYNCING: Final = 64
"""Files that wait for the disk at a time, each with an open descriptor; the journal takes them together."""
_THREADS: Final = 8
_TAKEN: Final = ".holdfast-restoring"


@dataclass(frozen=True, slots=True)
class Changes:
    """Differences of the restored cluster from the backup: bytes `appended` to files, by path, and files
    `added` and `left_out`. `owner` is (uid, gid), None for the user who restores."""

    appended: Mapping[str, bytes] = field(default_factory=dict)
    added: Mapping[str, bytes] = field(default_factory=dict)
    left_out: frozenset[str] = frozenset()
    owner: tuple[int, int] | None = None


def check_whole(catalogue: Catalogue) -> None:
    """Raises Refused unless this is a physical backup that is whole and can be restored."""
    if catalogue.engine != "postgresql" or catalogue.form != FORM:
        raise Refused("this is no physical backup of a PostgreSQL cluster; nothing was written")
    if catalogue.fault:
        raise Refused(
            f"this backup is not whole ({catalogue.fault}): no server could be trusted to start from it; "
            "nothing was written. Single files of it can be had from data/ in the mount"
        )
    if any(section.type == "LINK" for section in catalogue.sections):
        raise Refused("this backup is of a cluster with tablespaces, and their files are not in it")


def check_target(target: Path) -> None:
    """Raises Refused unless there is nothing there or an empty folder."""
    try:
        taken = next(target.iterdir(), None) is not None
    except FileNotFoundError:
        return
    except NotADirectoryError:
        raise Refused(f"{target} is no folder; nothing was written") from None
    except OSError as error:
        raise TargetError(f"cannot read {target}: {error.strerror}") from error
    if taken:
        running = " by a server that may be running" if (target / "postmaster.pid").exists() else ""
        raise Refused(
            f"{target} is not empty and may be in use{running}; nothing was written. A cluster is "
            "restored into a new or an empty folder"
        )


def restore_data_directory(
    repository: Repository,
    item: Item | StoredStream,
    catalogue: Catalogue,
    target: Path,
    *,
    changes: Changes,
    progress: ProgressFunction,
) -> None:
    """Write the cluster to `target` (mode 0700) and sync it to the disk.

    1. all files but pg_control, each synced; 2. the folders; 3. pg_control, synced. When this raises
    (Refused, TargetError, or Damaged for a chunk that cannot be read) what was written is gone again.
    """
    check_whole(catalogue)
    check_target(target)
    try:
        with _Taken(target) as top, _Directory(top, changes) as directory:
            reader = Reader(repository)
            stream = _Stream(Restorer(repository, reader).in_order(reader.recipe(item)), progress)
            with closing(stream):
                for section in catalogue.sections:
                    directory.take(section, stream)
            directory.finish()
    except OSError as error:
        raise TargetError(f"cannot write below {target}: {error.strerror or error}") from error


class _Taken:
    """The empty folder, made if need be, for this restore alone. A context manager: when the block raises the
    folder is as it was, when it ends well its name is synced to the disk.

    Raises Refused when another one has it or has filled it meanwhile.
    """

    def __init__(self, target: Path) -> None:
        self._target = without_links(target.absolute())

    def __enter__(self) -> TargetFolder:
        name = os.fsencode(self._target.name)
        self._above = TargetFolder.top(self._target.parent, overwrite=False)
        try:
            self._top = self._above.folder(name)
        except BaseException:
            self._above.close()
            raise
        try:
            _take(self._top.fd, self._target)
        except BaseException:
            self._close()
            raise
        return self._top

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                sync_if_possible(self._above.fd)
                return
            _empty(self._top.fd)
            _give_back(self._top.fd)
            if self._top.made:
                with suppress(OSError):
                    os.rmdir(os.fsencode(self._target.name), dir_fd=self._above.fd)
        finally:
            self._close()

    def _close(self) -> None:
        self._top.close()
        self._above.close()


def _take(folder: int, target: Path) -> None:
    try:
        os.close(os.open(_TAKEN, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=folder))
    except FileExistsError:
        raise Refused(
            f"{target} is being restored into already, or was when that was cut off; nothing was written"
        ) from None
    with os.scandir(folder) as entries:
        others = any(entry.name != _TAKEN for entry in entries)
    if others:  # filled since it was looked at
        _give_back(folder)
        raise Refused(f"{target} is not empty any more; nothing was written")


class _Stream:
    """The stored tar, read in ascending ranges."""

    def __init__(self, parts: Iterable[Buffer], progress: ProgressFunction) -> None:
        self._parts: Iterator[Buffer] = iter(parts)
        self._progress = progress
        self._part = memoryview(b"")
        self._at = 0

    def close(self) -> None:
        """Stop reading ahead."""
        if hasattr(self._parts, "close"):
            self._parts.close()

    def read_range(self, start: int, length: int) -> Iterator[memoryview]:
        """The bytes from `start` on; skips those before."""
        for _ in self._take(start - self._at):
            pass
        yield from self._take(length)

    def _take(self, length: int) -> Iterator[memoryview]:
        while length > 0:
            if not self._part:
                found = next(self._parts, None)
                if found is None:
                    raise Damaged("the stored tar", "it ends before its last file", offset=self._at)
                self._part = memoryview(found).cast("B")
                self._progress(len(self._part))
            part = self._part[:length]
            self._part = self._part[len(part) :]
            self._at += len(part)
            length -= len(part)
            yield part


class _Directory:
    """The folder that is being filled."""

    def __init__(self, top: TargetFolder, changes: Changes) -> None:
        self._changes = changes
        self._folders: dict[str, Mapping[str, Any]] = {}
        self._control: tuple[Section, bytes] | None = None
        self._syncing: deque[Future[None]] = deque()
        self._pool = ThreadPoolExecutor(_THREADS, "holdfast-sync")
        self._written: set[str] = set()
        self._made: set[tuple[int, int]] = set()
        self._top = top
        os.fchmod(top.fd, 0o700)

    def __enter__(self) -> _Directory:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown()

    def take(self, section: Section, stream: _Stream) -> None:
        """Restore one member of the backup's tar."""
        path = section.name
        if path in self._changes.left_out or path == _TAKEN:
            return
        if section.type == "FOLDER":
            self._folders[path] = section.extra
            self._into(path.split("/")).close()
        elif path == CONTROL_PATH:
            if section.length > _CONTROL_LIMIT:
                raise Damaged(path, f"a control file of {section.length} bytes")
            self._control = section, b"".join(stream.read_range(section.start, section.length))
        else:
            appended = self._changes.appended.get(path, b"")
            self._written.add(path)
            self._write(path, section.extra, [stream.read_range(section.start, section.length), [appended]])

    def finish(self) -> None:
        """Write the added files and the folders' attributes and sync them; then write pg_control."""
        for path, content in {**self._changes.appended, **self._changes.added}.items():
            if path not in self._written:
                self._write(path, {"mode": 0o600}, [[content]])
        self._settle()
        for path, extra in sorted(self._folders.items(), reverse=True):
            with closing(self._into(path.split("/"))) as folder:
                self._attributes(folder.fd, extra, 0o700)
                sync_folder(folder.fd)
        if self._control is None:
            raise Damaged(CONTROL_PATH, "is not in the backup")
        section, content = self._control
        _give_back(self._top.fd)  # no other one takes it: it is not empty
        sync_folder(self._top.fd)
        self._write(CONTROL_PATH, section.extra, [[content]])
        self._settle()
        with closing(self._into([CONTROL_PATH.partition("/")[0]])) as folder:
            sync_folder(folder.fd)
        if self._changes.owner:
            os.fchown(self._top.fd, *self._changes.owner)
        sync_folder(self._top.fd)

    def _write(
        self, path: str, extra: Mapping[str, Any], contents: Sequence[Iterable[bytes | memoryview]]
    ) -> None:
        *above, name = path.split("/")
        with closing(self._into(above)) as folder, folder.new_file(os.fsencode(name)) as fd:
            for content in contents:
                for data in content:
                    write_all(fd, data)
            self._attributes(fd, extra, 0o600)
            mine = os.dup(fd)
        self._syncing.append(self._pool.submit(_sync, mine))
        if len(self._syncing) >= _SYNCING:
            self._syncing.popleft().result()

    def _into(self, parts: Sequence[str]) -> TargetFolder:
        """A folder below the top, made if need be; each step follows no link."""
        folder = self._top.below([])
        for part in parts:
            with closing(folder):
                folder = folder.folder(os.fsencode(part))
            try:
                self._know(folder)
            except BaseException:
                folder.close()
                raise
        return folder

    def _know(self, folder: TargetFolder) -> None:
        """Give a folder to the target's owner, if it was made here: he could move in folders of others.

        Raises TargetError for a folder that was not made here.
        """
        status = os.fstat(folder.fd)
        place = status.st_dev, status.st_ino
        if folder.made and not os.listdir(folder.fd):  # noqa: PTH208  a descriptor, no path
            self._made.add(place)
            if self._changes.owner:
                os.fchown(folder.fd, *self._changes.owner)
        elif place not in self._made:
            raise TargetError(f"{folder.path} was put there by somebody else while the cluster was restored")

    def _attributes(self, fd: int, extra: Mapping[str, Any], usual: int) -> None:
        if self._changes.owner:
            os.fchown(fd, *self._changes.owner)
        mode, mtime = extra.get("mode"), extra.get("mtime")
        os.fchmod(fd, mode & 0o777 if isinstance(mode, int) else usual)
        if isinstance(mtime, int):
            os.utime(fd, ns=(mtime * 10**9, mtime * 10**9))

    def _settle(self) -> None:
        while self._syncing:
            self._syncing.popleft().result()


def _sync(fd: int) -> None:
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _empty(folder: int) -> None:
    """Remove all that is in it but the sign that it is taken, as far as that can be done."""
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in [entry for entry in entries if entry.name != _TAKEN]:
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.name, ignore_errors=True, dir_fd=folder)
            else:
                with suppress(OSError):
                    os.unlink(entry.name, dir_fd=folder)


def _give_back(folder: int) -> None:
    with suppress(FileNotFoundError):
        os.unlink(_TAKEN, dir_fd=folder)
