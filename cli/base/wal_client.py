"""The fast way of `wal-push`: a process that a push before left behind has the repository open already.

Starting Python, importing the program and opening a repository take 150 ms, archiving a segment 40 ms. So
the first push leaves a process behind (`warm_server`) that archives what pushes after it ask for, until
it has had nothing to do for HOLDFAST_WARM_SECONDS (60; 0: none is left). This module is what a push needs to
ask it, and imports next to nothing. Whatever is not a plain success is done again the ordinary way,
which tells what is wrong; a file that was archived meanwhile is no trouble for it.

Who may ask: processes of the same user, and only when they name the same repository and the same password
file, unchanged: the name of the socket is made of all that. With a password from elsewhere there is none.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Mapping, Sequence
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


def was_pushed(arguments: Sequence[str], environment: Mapping[str, str]) -> bool:
    """Whether these arguments are a plain `wal-push PATH` and the process left behind has carried it out:
    then the file is durable in the archive, as if done here. False for everything else."""
    if len(arguments) != 2 or arguments[0] != "wal-push" or arguments[1].startswith("-"):
        return False
    try:
        place = find_place(environment, home_cache(environment))
        return place is not None and _ask(place, os.getcwd(), arguments[1])  # noqa: PTH109  see above
    except (OSError, ValueError):
        return False


def _ask(place: Place, folder: str, path: str) -> bool:
    request = SEPARATOR.join((os.fsencode(folder), os.fsencode(path)))
    with connect(place) as connection:
        connection.sendall(request)
        connection.shutdown(socket.SHUT_WR)
        answer = b""
        while part := connection.recv(64):
            answer += part
        return answer == DONE


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
