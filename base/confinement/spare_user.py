"""A user that owns nothing: a number that nobody has, for as long as it is held."""

from __future__ import annotations

import os
import pwd
import secrets
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from holdfast.base.confinement.plan import NotConfined, User

_FIRST, _LAST = 61184, 65519
"""What systemd takes its dynamic users from, and distributions keep free for that (systemd's UIDS-GIDS)."""
_TRIES: Final = 200


@contextmanager
def spare_user() -> Iterator[User]:
    """As root a user and group of a number that is in no list, has no process and that no other rehearsal
    here holds; else whoever we are. Raises NotConfined."""
    if os.geteuid():
        yield User("holdfast", os.geteuid(), os.getegid())
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as held:
        yield _free_user(held)


def known_user(names: Sequence[str]) -> User:
    """As root the first of these users there is, nobody at last: servers want one with a name, which without
    a confinement is one of the machine's. Else whoever we are. Raises NotConfined."""
    if os.geteuid():
        return User("holdfast", os.geteuid(), os.getegid())
    for name in (*names, "nobody"):
        with suppress(KeyError):
            found = pwd.getpwnam(name)
            if found.pw_uid:
                return User(found.pw_name, found.pw_uid, found.pw_gid)
    raise NotConfined(f"no user to run a server as: neither {' nor '.join(names)} nor nobody is known here")


def _free_user(held: socket.socket) -> User:
    """The abstract name is the lock: the kernel frees it with the process."""
    busy = _owners_of_processes()
    for _ in range(_TRIES):
        number = _FIRST + secrets.randbelow(_LAST - _FIRST + 1)
        if number in busy or _is_listed(number):
            continue
        with suppress(OSError):
            held.bind(f"\0holdfast-user-{number}")
            return User("holdfast", number, number)
    raise NotConfined("no number of a user is free from 61184 to 65519")


def _is_listed(number: int) -> bool:
    try:
        pwd.getpwuid(number)
    except KeyError:
        return False
    return True


def _owners_of_processes() -> set[int]:
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with suppress(OSError):
                found.add(entry.stat().st_uid)
    return found
