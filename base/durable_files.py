"""Files of a local store: written whole, named, made durable, and whose they are."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path
from typing import Final

from holdfast.base.types import Buffer

_WRITE_PIECE: Final = 8 << 20


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
    view = memoryview(data)
    if len(view) > _WRITE_PIECE:
        with suppress(OSError):  # not every file system can; a full one fails at the write then
            os.posix_fallocate(fd, 0, len(view))
    while view:
        view = view[os.write(fd, view[:_WRITE_PIECE]) :]


def link_or_rename(temporary: Path, path: Path) -> bool:
    """Give the file its name unless that is taken; True when it was free."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        temporary.unlink()
        return False
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK):
            raise
        if path.exists():  # a file system without hard links: names are hashes, so a race is harmless
            temporary.unlink()
            return False
        temporary.rename(path)
        return True
    temporary.unlink()
    return True


def sync_folder(folder: Path) -> None:
    try:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
