"""Files written whole, named, and made durable.

What is durable: the content of a file after `os.fsync` of it, its name after `os.fsync` of the directory
it is in. In this order: a name that survives a power cut must not lead to half of a file.
"""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from holdfast.base.named_paths import open_folder
from holdfast.base.types import Buffer

PARTIAL_SUFFIX: Final = ".holdfast-partial"
"""Of names under which files are written before they are whole."""
_NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_PIECE: Final = 8 << 20
"""Bytes a call writes at most, so that a slow disk can be interrupted."""
_NO_HARD_LINKS: Final = (
    *(errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK),
    *(errno.EACCES, errno.EINVAL, errno.EXDEV),
)
"""What file systems without hard links answer, network storage and its servers among them. EIO is not one: it
says that the disk is failing, whatever a server means by it."""
_NO_FOLDER_SYNC: Final = (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS, errno.ENOENT)
"""What file systems answer that have no fsync of folders: SMB, some servers of NFS, some FUSE ones."""


def write_all(fd: int, data: Buffer) -> None:
    """Write all of `data` where the descriptor stands. Nothing is durable yet. Raises OSError."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view[:_PIECE]) :]


def write_all_at(fd: int, offset: int, data: Buffer) -> None:
    """Write all of `data` at `offset`; from any number of threads. Nothing is durable yet. Raises OSError."""
    view = memoryview(data)
    while view:
        count = os.pwrite(fd, view, offset)
        view = view[count:]
        offset += count


def preallocate(fd: int, length: int) -> None:
    """Reserve room for the first `length` bytes of a file where the file system can. Never fails: on a full
    one the write does."""
    with suppress(OSError):
        os.posix_fallocate(fd, 0, length)


def read_at(fd: int, offset: int, length: int) -> bytes:
    """`length` bytes from `offset` on, fewer only at the file's end. Raises OSError."""
    data = os.pread(fd, length, offset)
    while len(data) < length:  # a signal or a network file system may cut a read short
        more = os.pread(fd, length - len(data), offset + len(data))
        if not more:
            break
        data += more
    return data


def rename_unless_taken(temporary: bytes | str, name: bytes | str, folder: int) -> None:
    """Give a file in an open folder its name, which is not durable yet. Raises FileExistsError when the name
    is taken: then the file keeps its temporary one.

    Atomic but on a file system without hard links, where the one who comes last wins a race.
    """
    try:
        os.link(temporary, name, src_dir_fd=folder, dst_dir_fd=folder, follow_symlinks=False)
    except OSError as error:
        if error.errno not in _NO_HARD_LINKS:
            raise
        try:
            os.stat(name, dir_fd=folder, follow_symlinks=False)
        except FileNotFoundError:
            os.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
        else:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), name) from error
    else:
        os.unlink(temporary, dir_fd=folder)


@contextmanager
def durable_file(path: Path) -> Iterator[int]:
    """The descriptor of a new file, mode 0600, to be filled. Replaces what has the name, link or file.

    When the block ends well the content is fsynced, then the file gets its name, then the directory is
    fsynced: after that the file is durable, and at no time does the name lead to a part of it. When the block
    or a step fails, nothing of the new file is left, unless it was the very last step: the new file has the
    name then, and whether that survives a power cut is unknown. Raises OSError, ForeignLink.
    """
    folder, _made = open_folder(path.parent)
    temporary = f".{path.name}.{secrets.token_hex(4)}{PARTIAL_SUFFIX}"
    try:
        fd = os.open(temporary, _NEW, 0o600, dir_fd=folder)
        try:
            try:
                yield fd
                os.fsync(fd)
            finally:
                os.close(fd)
            os.rename(temporary, path.name, src_dir_fd=folder, dst_dir_fd=folder)
        except BaseException:
            with suppress(FileNotFoundError):
                os.unlink(temporary, dir_fd=folder)
            raise
        sync_folder(folder)
    finally:
        os.close(folder)


def sync_folder(folder: int) -> bool:
    """Make durable which names are in an open folder. False when its file system knows no such thing: then
    names are durable when its server thinks so. Raises OSError."""
    try:
        os.fsync(folder)
    except OSError as error:
        if error.errno in _NO_FOLDER_SYNC:
            return False
        raise
    return True


def sync_if_possible(folder: int) -> None:
    """Make durable which names are in an open folder, where the file system can and we may: a folder may be
    written to and not read. For what the user could do again: a restore whose content is durable already."""
    with suppress(OSError):
        os.fsync(folder)
