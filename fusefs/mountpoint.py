"""Mount points: what is mounted there now, and whether a mount may go there."""

from __future__ import annotations

import errno
import os
import shutil
from contextlib import suppress
from pathlib import Path

from holdfast.base.errors import Refused
from holdfast.base.mount_table import mounted_at
from holdfast.fusefs.errors import MountDead, MountFailed, MountTaken

TYPE = "fuse.holdfast"
_FUSE_DEVICE = Path("/dev/fuse")
_FUSE_CONF = Path("/etc/fuse.conf")
UNMOUNTER = "fusermount3"


def absolute(path: Path) -> Path:
    """The path without links. A dead mount is no obstacle: it is looked at, not into."""
    return Path(os.path.realpath(path))


def is_dead(path: Path) -> bool:
    """Whether the daemon behind a FUSE mount is gone."""
    try:
        os.statvfs(path)  # attributes of the root directory may still be in the kernel's cache
    except OSError as error:
        return error.errno in (errno.ENOTCONN, errno.ECONNABORTED)
    return False


def check_mountpoint(path: Path, location: Path | None) -> None:
    """Raises Refused unless a mount may go to the absolute path.

    `location` is where the repository is, when it is a local folder: reading it through itself would
    hang, and a mount over it would hide it.
    """
    entry = mounted_at(path)
    if entry is not None and entry.type == TYPE:
        if is_dead(path):
            raise MountDead(path)
        raise MountTaken(path)
    try:
        with os.scandir(path) as children:
            stranger = next(children, None)
    except FileNotFoundError:
        raise Refused(f"there is no folder {path} to mount at; `mkdir -p {path}` makes it") from None
    except NotADirectoryError:
        raise Refused(f"{path} is not a folder; mount at an empty folder") from None
    except OSError as error:
        raise Refused(f"cannot mount at {path}: {error.strerror}") from None
    if location is not None:
        _check_apart(path, absolute(location))
    if stranger is not None:
        raise Refused(
            f"{path} is not empty ({stranger.name!r} is in it); a mount would hide that: use an empty folder"
        )


def _check_apart(path: Path, location: Path) -> None:
    if path.is_relative_to(location):
        raise Refused(f"{path} is inside the repository {location}; mount it somewhere else")
    if location.is_relative_to(path):
        raise Refused(f"the repository {location} is inside {path}: the mount would hide it; mount elsewhere")


def check_facilities(*, allow_other: bool) -> None:
    """Raises MountFailed when this machine or this user cannot mount."""
    if not _FUSE_DEVICE.exists():
        raise MountFailed(
            "there is no /dev/fuse: `modprobe fuse` makes it; a container needs --device /dev/fuse"
        )
    if not os.access(_FUSE_DEVICE, os.R_OK | os.W_OK):
        raise MountFailed("this user may not use /dev/fuse; see its permissions")
    if shutil.which(UNMOUNTER) is None:
        raise MountFailed(f"{UNMOUNTER} is missing; install the package fuse3")
    if allow_other and os.geteuid() != 0:
        lines: list[str] = []
        with suppress(OSError):
            lines = _FUSE_CONF.read_text().split("\n")
        if "user_allow_other" not in [line.strip() for line in lines]:
            raise MountFailed(
                f"only root may let others see a mount, unless {_FUSE_CONF} has a line `user_allow_other`"
            )
