"""Finds the repository's password: in the sources of `base.passwords`, the environment or a terminal."""

from __future__ import annotations

import getpass
import os
from collections.abc import Mapping, MutableMapping

from holdfast.base.passwords import NoPassword, PasswordSources, check_text
from holdfast.base.private_process import SECRETS

_VARIABLES = "HOLDFAST_"
_HELP = (
    "no password, and no terminal to ask for it; give --password-file or --password-command, or set "
    "HOLDFAST_PASSWORD_FILE, HOLDFAST_PASSWORD_COMMAND, HOLDFAST_PASSWORD_FD or HOLDFAST_PASSWORD"
)


_HELP_NEW = "no new password, and no terminal to ask for it; give --new-password-file"


def take_environment(environ: MutableMapping[str, str]) -> dict[str, str]:
    """The HOLDFAST_* variables. Removes those with secrets from `environ`, so that no child inherits them."""
    taken = {name: value for name, value in environ.items() if name.startswith(_VARIABLES)}
    for name in taken:
        if name.startswith(SECRETS):
            del environ[name]
    return taken


def find_password(options: PasswordSources, variables: Mapping[str, str], *, new: bool = False) -> str:
    """The password from options, else HOLDFAST_PASSWORD, _FILE, _COMMAND or _FD, else the terminal.

    Asks twice for a `new` password. Raises NoPassword.
    """
    given = options.read()
    if given is None and variables.get(SECRETS):
        given = variables[SECRETS]
        check_text(given, "HOLDFAST_PASSWORD")
    if given is None:
        given = PasswordSources.from_environment(variables).read()
    if given is not None:
        return given
    return ask_new(missing=_HELP) if new else _ask("password for the repository: ")


def ask_new(*, missing: str = _HELP_NEW) -> str:
    """Ask twice on the terminal. Raises NoPassword when the answers differ, and with the words of `missing`
    when there is no terminal."""
    first = _ask("new password: ", missing)
    if _ask("new password, again: ", missing) != first:
        raise NoPassword("the two passwords differ")
    return first


def _ask(prompt: str, missing: str = _HELP) -> str:
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        raise NoPassword(missing) from None
    text = getpass.getpass(prompt)
    check_text(text, "the password")
    return text
