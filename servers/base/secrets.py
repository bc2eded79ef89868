"""Secrets on their way to the databases' own programs: in memory, by a descriptor, and nowhere else.

A file made by memfd_create has no name in any file system and is gone with the last process that holds it,
however that ends. Programs open it as /proc/self/fd/N; its mode is 0600, which libpq insists on.
Arguments and environments can be read by others or end up in logs; neither ever holds a secret of ours.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Final

from holdfast.base.errors import Refused
from holdfast.servers.base.connection import Connection

_HIDDEN: Final = "***"


@dataclass(frozen=True, slots=True)
class Credentials:
    """Credentials given besides the URL. `password` None: the engine's programs find it in their own files,
    if they need one. `defaults_file` replaces every option file of programs that have such files."""

    password: str | None = field(default=None, repr=False)
    defaults_file: str = ""


@dataclass(frozen=True, slots=True)
class Access:
    """How to start a program so that it reaches the server: `environment`, `descriptors` that it inherits
    and `first`, arguments that must come before all others. `secrets` are the password and every form of it
    in a file."""

    connection: Connection
    environment: Mapping[str, str]
    descriptors: tuple[int, ...] = ()
    first: tuple[str, ...] = ()
    secrets: tuple[str, ...] = field(default=(), repr=False)

    def scrub(self, text: str) -> str:
        """The text without the password, as far as a program repeated it or the line of its file."""
        for form in sorted(filter(None, self.secrets), key=len, reverse=True):
            text = text.replace(form, _HIDDEN)
        return text

    def to(self, database: str) -> Access:
        """The same server, another database."""
        return replace(self, connection=self.connection.to(database))


def check_password(password: str) -> None:
    """Raises Refused for a password that no program could read from a file."""
    if set(password) & set("\0\r\n"):
        raise Refused("the database's password has a line break in it: no program could read it from a file")


def descriptor_path(fd: int) -> str:
    """Where a program that inherits the descriptor opens it."""
    return f"/proc/self/fd/{fd}"


@contextmanager
def memory_file(content: str) -> Iterator[int]:
    """A descriptor of a file in memory with this content, closed at the end of the block."""
    fd = os.memfd_create("holdfast", os.MFD_CLOEXEC)
    try:
        os.fchmod(fd, 0o600)
        with open(fd, "wb", buffering=0, closefd=False) as file:
            file.write(content.encode(errors="surrogateescape"))
        yield fd
    finally:
        os.close(fd)
