"""Options of commands that look inside guests. Imports no more than an option needs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click


def luks_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """--luks-passphrase-file."""
    return click.option(
        "--luks-passphrase-file",
        "luks",
        multiple=True,
        metavar="FILE",
        help="Holds a passphrase for encrypted volumes of guests (repeatable: all are tried).",
    )(function)


def leads_inside(path: str) -> bool:
    """Whether a path in a snapshot is `files` or below, where a guest's disk must be looked into."""
    return path == "files" or path.startswith("files/")
