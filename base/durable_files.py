"""Files written whole, named, and made durable; and whose they are.

What is durable: the content of a file after `os.fsync` of it, its name after `os.fsync` of the directory
it is in. In this order: a name that survives a power cut must not lead to half of a file.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress
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


def sync_if_possible(folder: int) -> None:
    """Make durable which names are in an open folder, where the file system can and we may: a folder may be
    written to and not read. For what the user could do again: a restore whose content is durable already."""
    with suppress(OSError):
        os.fsync(folder)
