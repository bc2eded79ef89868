"""The fast way of `wal-push`: a process that a push before left behind has the repository open already.

Starting Python, importing the program and opening a repository take 150 ms, archiving a segment 40 ms. So
the first push leaves a process behind (`tasks.wal_server`) that archives what pushes after it ask for, until
it has had nothing to do for HOLDFAST_WARM_SECONDS (60; 0: none is left). This module is what a push needs to
ask it, and imports next to nothing. Whatever is not a plain success is done again the ordinary way,
which tells what is wrong; a file that was archived meanwhile is no trouble for it.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping, Sequence

from holdfast.tasks.wal_protocol import DONE, SEPARATOR, Place, connect, find_place, home_cache


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
