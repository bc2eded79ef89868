"""Reports the error that ends a run: one message, one exit code, no traceback."""

from __future__ import annotations

import json
import sys
import traceback

import click

from holdfast.base.errors import HoldfastError
from holdfast.base.escaping import escape_lines, escape_message
from holdfast.cli.base.context import RunSettings
from holdfast.cli.base.exit_codes import ExitCode
from holdfast.cli.base.exits import advice_for, code_for


def report(error: BaseException, settings: RunSettings) -> ExitCode:
    """Say what happened, to what, what is safe and what to type next; returns the exit code."""
    code = code_for(error)
    message, advice = _words(error, code, settings)
    notes = list(getattr(error, "__notes__", ()))  # further failures, such as that of a thaw
    if settings.output.json:
        document = {"message_type": "exit_error", "code": int(code), "message": message}
        optional = {"advice": advice, "notes": notes}
        document |= {name: value for name, value in optional.items() if value}
        click.echo(json.dumps(document), err=True)
        return code
    if code is ExitCode.INTERRUPTED and sys.stderr.isatty():
        click.echo(err=True)  # behind the ^C
    click.echo(escape_message(f"holdfast: {message}"), err=True)
    for note in notes:
        click.echo(escape_message(f"  {note}"), err=True)
    if advice:
        click.echo(escape_message(f"  {advice}"), err=True)
    if settings.output.verbose and _is_unexpected(error):
        click.echo(escape_lines("".join(traceback.format_exception(error))), err=True)
    return code


def _is_unexpected(error: BaseException) -> bool:
    expected = (HoldfastError, click.ClickException, click.Abort, KeyboardInterrupt, OSError, MemoryError)
    return not isinstance(error, expected)


def _words(error: BaseException, code: ExitCode, settings: RunSettings) -> tuple[str, str]:
    """(message, advice)."""
    details = "" if settings.output.verbose else "; run with -v for details"
    message = f"internal error ({type(error).__name__}){details}"
    advice = "snapshots made before are safe"
    if code is ExitCode.INTERRUPTED:
        message, advice = "interrupted", settings.if_interrupted
    elif isinstance(error, click.UsageError):
        path = error.ctx.command_path if error.ctx else "holdfast"
        message, advice = error.format_message(), f"`{path} --help` shows how it is used"
    elif isinstance(error, click.ClickException):
        message, advice = error.format_message(), ""
    elif isinstance(error, HoldfastError):
        message, advice = str(error), advice_for(error)
    elif isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename else "the operating system refused: "
        message, advice = where + error.strerror, ""
    elif isinstance(error, MemoryError):
        message = "out of memory"
    return message, advice
