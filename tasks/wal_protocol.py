"""The socket of the process that a `wal-push` leaves running, and the protocol on it.

Processes of the same user may ask, and only when they name the same repository and the same, unchanged
password file: the socket's name is made from all that. With a password from elsewhere there is no socket.

A request is the working directory, a zero byte and the file's path; the answer is DONE or nothing. Imports
next to nothing: a push that asks must be quick.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Mapping
from hashlib import sha256
from typing import Final, NamedTuple

from holdfast import __version__

DEFAULT_SECONDS: Final = 60
_PATIENCE: Final = 180.0
"""Seconds: a prune is waited for, 60 at most, and disks may be slow."""
_OTHER_SOURCES: Final = ("HOLDFAST_PASSWORD", "HOLDFAST_PASSWORD_COMMAND", "HOLDFAST_PASSWORD_FD")
SEPARATOR: Final = b"\0"
DONE: Final = b"archived\n"


class Place(NamedTuple):
    """Where the process for one repository and password listens: `name` in `folder`."""

    folder: str
    name: str
    repository: str
    password_file: str
    seconds: int


def find_place(variables: Mapping[str, str], home_cache: str) -> Place | None:
    """From the HOLDFAST_* variables; None when they do not say all of it, or do not want it."""
    repository = variables.get("HOLDFAST_REPOSITORY", "")
    password_file = variables.get("HOLDFAST_PASSWORD_FILE", "")
    text = variables.get("HOLDFAST_WARM_SECONDS", "") or str(DEFAULT_SECONDS)
    if not repository or not password_file or any(variables.get(name) for name in _OTHER_SOURCES):
        return None
    if not (text.isascii() and text.isdecimal() and 0 < int(text) <= 86_400):
        return None
    cache = os.path.abspath(variables.get("HOLDFAST_CACHE_DIR") or home_cache)  # noqa: PTH100  pathlib takes 3 ms
    repository, password_file = os.path.abspath(repository), os.path.abspath(password_file)  # noqa: PTH100
    try:
        status = os.stat(password_file)  # noqa: PTH116
    except OSError:
        return None
    version = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
    parts = (__version__, repository, password_file, cache, text, repr(version))
    name = sha256("\0".join(parts).encode(errors="surrogateescape")).hexdigest()[:32]
    return Place(os.path.join(cache, "warm"), name, repository, password_file, int(text))  # noqa: PTH118


def home_cache(environment: Mapping[str, str]) -> str:
    """Where the cache is when no variable of ours says it, as `Settings.cache` has it."""
    xdg = environment.get("XDG_CACHE_HOME", "")
    return os.path.join(xdg, "holdfast") if os.path.isabs(xdg) else os.path.expanduser("~/.cache/holdfast")  # noqa: PTH111, PTH117, PTH118


def connect(place: Place) -> socket.socket:
    """A connection to the process left behind. Raises OSError when there is none, or it is not ours."""
    folder = os.open(place.folder, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        check_private(os.fstat(folder))
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.settimeout(_PATIENCE)
            # Through the descriptor: a path of a socket may have 107 bytes only.
            connection.connect(f"/proc/self/fd/{folder}/{place.name}")
            check_peer(connection)
        except BaseException:
            connection.close()
            raise
        return connection
    finally:
        os.close(folder)


def check_private(status: os.stat_result) -> None:
    """Raises PermissionError unless a folder is this user's alone."""
    if status.st_uid != os.geteuid() or status.st_mode & 0o077:
        raise PermissionError("the folder of the socket is not private")


def check_peer(connection: socket.socket) -> None:
    """Raises PermissionError unless the other end is a process of this user."""
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    if int.from_bytes(credentials[4:8], sys.byteorder) != os.geteuid():
        raise PermissionError("the other end is another user's process")
