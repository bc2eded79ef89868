"""Fast client of `wal-push`: asks a daemon, started by an earlier push, that has the repository open.

Starting Python, importing the program and opening a repository take 150 ms, archiving a segment 40 ms. So
the first push starts a daemon (`tasks.wal_server`) that archives the segments of later pushes, until it has
been idle for HOLDFAST_WARM_SECONDS (60; 0 starts none). This module imports as little as possible. If the
daemon does not report success, the push runs in the ordinary way, which reports errors; it accepts a file
that the daemon has archived meanwhile.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping, Sequence

from holdfast.tasks.wal_protocol import DONE, SEPARATOR, Place, connect, find_place, home_cache


def was_pushed(arguments: Sequence[str], environment: Mapping[str, str]) -> bool:
    """Whether these arguments are `wal-push PATH` without options and the daemon has archived the file.

    True means that the file is durable in the archive. Returns False in all other cases.
    """
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
