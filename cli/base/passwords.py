"""Where passwords come from: a file, a command, a descriptor, the environment, last a terminal.

A password is never taken from an argument (every user of the machine can read those) and never put in a
message.
"""

from __future__ import annotations

import getpass
import os
import shlex
import subprocess
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from pathlib import Path

import click

_VARIABLES = "HOLDFAST_"
_SECRET = "HOLDFAST_PASSWORD"  # noqa: S105  the name of a variable
_LIMIT = 64 << 10
"""Bytes; what is longer is the wrong file."""
_HELP = (
    "no password, and no terminal to ask for it; give --password-file or --password-command, or set "
    "HOLDFAST_PASSWORD_FILE, HOLDFAST_PASSWORD_COMMAND, HOLDFAST_PASSWORD_FD or HOLDFAST_PASSWORD"
)


class NoPassword(click.UsageError):
    """No source gave a password that can be used."""


def take_environment(environ: MutableMapping[str, str]) -> dict[str, str]:
    """Our variables; those with secrets are taken out, so that no child process inherits them."""
    taken = {name: value for name, value in environ.items() if name.startswith(_VARIABLES)}
    for name in taken:
        if name.startswith(_SECRET):
            del environ[name]
    return taken


@dataclass(slots=True)
class PasswordOptions:
    """What the command line says about the password."""

    password_file: str | None = None
    password_command: str | None = None
    password_fd: int | None = None

    def given(self) -> bool:
        return (self.password_file, self.password_command, self.password_fd) != (None, None, None)

    @staticmethod
    def from_environment(variables: Mapping[str, str]) -> PasswordOptions:
        fd = variables.get("HOLDFAST_PASSWORD_FD") or None
        if fd is not None and not (fd.isascii() and fd.isdecimal()):
            raise NoPassword(f"HOLDFAST_PASSWORD_FD is not a number: {fd!r}")
        return PasswordOptions(
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


def find_password(options: PasswordOptions, variables: Mapping[str, str], *, new: bool = False) -> str:
    """The password: options, then HOLDFAST_PASSWORD, _FILE, _COMMAND, _FD, then the terminal.

    A `new` one is asked for twice. Raises NoPassword.
    """
    given = options.read()
    if given is None and variables.get(_SECRET):
        given = variables[_SECRET]
        _check_text(given, "HOLDFAST_PASSWORD")
    if given is None:
        given = PasswordOptions.from_environment(variables).read()
    if given is not None:
        return given
    return ask_new() if new else _ask("password for the repository: ")


def ask_new(what: str = "new password") -> str:
    """Ask twice on the terminal."""
    first = _ask(f"{what}: ")
    if _ask(f"{what}, again: ") != first:
        raise NoPassword("the two passwords differ; nothing was changed")
    return first


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
    _check_text(text, where)
    return text


def _check_text(text: str, where: str) -> None:
    if not text:
        raise NoPassword(f"{where} is empty; an empty password is refused")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise NoPassword(f"{where} is not UTF-8 text") from None


def _ask(prompt: str) -> str:
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        raise NoPassword(_HELP) from None
    text = getpass.getpass(prompt)
    _check_text(text, "the password")
    return text
