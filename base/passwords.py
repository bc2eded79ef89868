"""Gets a password without a terminal: from a file, a command, a descriptor.

A password is never taken from an argument (every user of the machine can read those) and never put in a
message.
"""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from holdfast.base.errors import HoldfastError

_LIMIT: Final = 64 << 10
"""Bytes. A file that is longer is no password file."""


class NoPassword(HoldfastError):
    """No source gave a password that can be used."""


@dataclass(slots=True)
class PasswordSources:
    """Where the password is, from the command line or the environment; the first that is set counts."""

    password_file: str | None = None
    password_command: str | None = None
    password_fd: int | None = None

    def given(self) -> bool:
        return (self.password_file, self.password_command, self.password_fd) != (None, None, None)

    @staticmethod
    def from_environment(variables: Mapping[str, str]) -> PasswordSources:
        fd = variables.get("HOLDFAST_PASSWORD_FD") or None
        if fd is not None and not (fd.isascii() and fd.isdecimal()):
            raise NoPassword(f"HOLDFAST_PASSWORD_FD is not a number: {fd!r}")
        return PasswordSources(
            variables.get("HOLDFAST_PASSWORD_FILE") or None,
            variables.get("HOLDFAST_PASSWORD_COMMAND") or None,
            int(fd) if fd else None,
        )

    def read(self) -> str | None:
        """The password from the first source that is set; None when none is."""
        if self.password_file is not None:
            return from_file(Path(self.password_file))
        if self.password_command is not None:
            return _from_command(self.password_command)
        if self.password_fd is not None:
            return _from_fd(self.password_fd)
        return None


def from_file(path: Path) -> str:
    """The content of a file without the end of its line."""
    try:
        with path.open("rb") as file:
            return _clean(file.read(_LIMIT + 1), str(path))
    except OSError as error:
        raise NoPassword(f"cannot read the password file {path}: {error.strerror}") from None


def _from_command(command: str) -> str:
    try:
        argv = shlex.split(command)
        if not argv:
            raise ValueError("it is empty")
        done = subprocess.run(argv, stdout=subprocess.PIPE, check=False)
    except (OSError, ValueError) as error:
        raise NoPassword(f"cannot run the password command: {error}") from None
    if done.returncode:
        raise NoPassword(f"the password command {argv[0]} failed with exit code {done.returncode}")
    return _clean(done.stdout, "the output of the password command")


def _from_fd(fd: int) -> str:
    try:
        with open(fd, "rb", closefd=fd > 2) as file:  # closed, so that no child inherits it
            return _clean(file.read(_LIMIT + 1), f"file descriptor {fd}")
    except OSError as error:
        raise NoPassword(f"cannot read the password from file descriptor {fd}: {error.strerror}") from None


def _clean(data: bytes, where: str) -> str:
    if len(data) > _LIMIT:
        raise NoPassword(f"{where} is too long to be a password")
    text = data.decode(errors="surrogateescape").removesuffix("\n").removesuffix("\r")
    check_text(text, where)
    return text


def check_text(text: str, where: str) -> None:
    if not text:
        raise NoPassword(f"{where} is empty; an empty password is refused")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise NoPassword(f"{where} is not UTF-8 text") from None
