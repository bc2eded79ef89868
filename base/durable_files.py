"""Files written whole, named, and made durable; and whose they are.

What is durable: the content of a file after `os.fsync` of it, its name after `sync_directory` of the
directory it is in. In this order: a name that survives a power cut must not lead to half of a file.
"""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from holdfast.base.types import Buffer

PARTIAL_SUFFIX: Final = ".holdfast-partial"
"""Of names under which files are written before they are whole."""
_PIECE: Final = 8 << 20
"""Bytes a call writes at most, so that a slow disk can be interrupted."""
_NO_HARD_LINKS: Final = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)


def hand_over(file: int | Path, root: Path) -> None:
    """Give what root made (an open descriptor, or a path) to whom the repository's directory belongs.

    Else one backup by root would lock out the user whom all others run as: a database server that archives
    its log, above all.
    """
    if os.geteuid():
        return
    status = root.stat()
    if status.st_uid:
        os.chown(file, status.st_uid, status.st_gid)


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


def rename_unless_taken(temporary: Path, path: Path) -> None:
    """Give a file its name, which is not durable yet. Raises FileExistsError when the name is taken: then
    the file keeps its temporary one.

    Atomic but on a file system without hard links, where the one who comes last wins a race.
    """
    try:
        os.link(temporary, path)
    except OSError as error:
        if error.errno not in _NO_HARD_LINKS:
            raise
        if path.exists():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path)) from error
        temporary.rename(path)
    else:
        temporary.unlink()


@contextmanager
def durable_file(path: Path) -> Iterator[int]:
    """The descriptor of a new file, mode 0600, to be filled. Replaces what has the name.

    When the block ends well the content is fsynced, then the file gets its name, then the directory is
    fsynced: after that the file is durable, and at no time does the name lead to a part of it. When the block
    or a step fails, nothing of the new file is left, unless it was the very last step: the new file has the
    name then, and whether that survives a power cut is unknown. Raises OSError.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}{PARTIAL_SUFFIX}")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        try:
            yield fd
            os.fsync(fd)
        finally:
            os.close(fd)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Make durable which names are in a directory. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def sync_directory_if_possible(path: Path) -> None:
    """The same where the file system can and we may: a directory may be written to and not read.

    For what the user could do again: a restore whose content is durable already.
    """
    with suppress(OSError):
        sync_directory(path)
