"""Options of commands that read guests' file systems. Imports nothing else, for a fast start."""

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
