"""--until and --timeline: how far a PostgreSQL cluster recovers."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from holdfast.base.errors import Refused
from holdfast.cli.base.context import RunSettings
from holdfast.formats.dumps.postgresql.physical.recovery import Recovery, parse_target

F = TypeVar("F", bound=Callable[..., Any])
_PROGRAM: Final = "holdfast"


def until_options(function: F) -> F:
    """--until and --timeline."""
    for option in (
        click.option("--timeline", metavar="N", help="With --until: the timeline; default: the newest."),
        click.option(
            "--until",
            metavar="TIME|LSN|latest",
            help="Of a PostgreSQL cluster: recover up to there with the archived log. TIME is UTC.",
        ),
    ):
        function = option(function)
    return function


def recovery_of(settings: RunSettings, until: str | None, timeline: str | None) -> Recovery | None:
    """The recovery that the options ask for; None for none. Raises Refused or UsageError."""
    if until is None:
        if timeline is not None:
            raise click.UsageError("--timeline says which way to go to --until; give that too")
        return None
    command = [_program(), "-r", str(settings.root)]
    if settings.cache_dir or settings.variables.get("HOLDFAST_CACHE_DIR"):
        command += ["--cache-dir", str(settings.cache)]
    return parse_target(until, (*command, "wal-fetch"), timeline or "")


def _program() -> str:
    """This program, for the server to run."""
    called = Path(sys.argv[0]).absolute()
    beside = Path(sys.executable).parent / _PROGRAM
    for path in (called if called.name == _PROGRAM else beside, beside):
        if path.is_file() and os.access(path, os.X_OK):
            return str(path)
    found = shutil.which(_PROGRAM)
    if found is None:
        raise Refused(
            "where the holdfast program is cannot be told: call it by its path; nothing was written"
        )
    return str(Path(found).absolute())
