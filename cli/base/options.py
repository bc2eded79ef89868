"""Options that all commands share, and option types that several commands use."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any, Final

import click

from holdfast.cli.base.context import RunSettings

_PARTS: Final = {
    "y": timedelta(days=365),
    "m": timedelta(days=30),
    "w": timedelta(weeks=1),
    "d": timedelta(days=1),
    "h": timedelta(hours=1),
    "min": timedelta(minutes=1),
    "s": timedelta(seconds=1),
}

pass_settings = click.make_pass_decorator(RunSettings)


def _shared_options() -> list[click.Parameter]:
    def shared(*names: str, **attributes: Any) -> click.Option:
        return click.Option(names, expose_value=False, callback=_remember, **attributes)

    return [
        shared("-r", "--repo", metavar="DIR", help="The repository; else HOLDFAST_REPOSITORY."),
        shared("--password-file", metavar="FILE", help="Holds the password; else HOLDFAST_PASSWORD_FILE."),
        shared(
            "--password-command", metavar="CMD", help="Prints the password; else HOLDFAST_PASSWORD_COMMAND."
        ),
        shared(
            "--password-fd",
            metavar="N",
            type=click.IntRange(0),
            help="Gives the password; else HOLDFAST_PASSWORD_FD.",
        ),
        shared(
            "--allow-costly-key",
            is_flag=True,
            help="Try key slots that ask for more than 256 MiB or 10 passes.",
        ),
        shared("--cache-dir", metavar="DIR", help="Else HOLDFAST_CACHE_DIR, or ~/.cache/holdfast."),
        shared("--json", is_flag=True, help="Answer in JSON."),
        shared("-q", "--quiet", is_flag=True, help="Only results, warnings and errors."),
        shared("-v", "--verbose", count=True, help="More detail."),
    ]


def _remember(context: click.Context, option: click.Parameter, value: Any) -> None:
    """Store a given option in the settings. It may be given before or after the command's name."""
    settings, name = context.find_object(RunSettings), option.name or ""
    if settings is not None and context.get_parameter_source(name) not in (None, _DEFAULT):
        _SETTERS[name](settings, value)


_DEFAULT = click.core.ParameterSource.DEFAULT


def _set_repo(settings: RunSettings, value: str) -> None:
    settings.repo = value


def _set_password_file(settings: RunSettings, value: str) -> None:
    settings.passwords.password_file = value


def _set_password_command(settings: RunSettings, value: str) -> None:
    settings.passwords.password_command = value


def _set_password_fd(settings: RunSettings, value: int) -> None:
    settings.passwords.password_fd = value


def _set_cache_dir(settings: RunSettings, value: str) -> None:
    settings.cache_dir = value


def _set_allow_costly_key(settings: RunSettings, value: bool) -> None:
    settings.allow_costly = value


def _set_json(settings: RunSettings, value: bool) -> None:
    settings.output.json = value


def _set_quiet(settings: RunSettings, value: bool) -> None:
    settings.output.quiet = value


def _set_verbose(settings: RunSettings, value: int) -> None:
    settings.output.verbose = value


_SETTERS: Final[dict[str, Callable[[RunSettings, Any], None]]] = {
    "repo": _set_repo,
    "password_file": _set_password_file,
    "password_command": _set_password_command,
    "password_fd": _set_password_fd,
    "allow_costly_key": _set_allow_costly_key,
    "cache_dir": _set_cache_dir,
    "json": _set_json,
    "quiet": _set_quiet,
    "verbose": _set_verbose,
}


class SharedOptionsCommand(click.Command):
    """A command with the shared options, which its help lists in a separate section."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.shared = _shared_options()
        self.params += self.shared

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        own = [param for param in self.get_params(ctx) if param not in self.shared]
        for title, params in (("Options", own), ("Options of every command", self.shared)):
            records = [record for param in params if (record := param.get_help_record(ctx)) is not None]
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)


class SharedOptionsGroup(SharedOptionsCommand, click.Group):
    """A group of commands with the shared options."""

    command_class = SharedOptionsCommand

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args and not ctx.resilient_parsing:
            click.echo(ctx.get_help(), err=True)
            ctx.exit(2)
        return super().parse_args(ctx, args)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        super().format_options(ctx, formatter)
        self.format_commands(ctx, formatter)


def command(name: str, **attributes: Any) -> Callable[[Callable[..., Any]], SharedOptionsCommand]:
    """Decorator: makes a function a command with the shared options. Its docstring is the help text."""
    return click.command(name, cls=SharedOptionsCommand, **attributes)


def parse_duration(ctx: click.Context, param: click.Parameter, value: str | None) -> timedelta | None:
    """Click callback that parses `30d`, `12h`, `1y6m`: y (365 days), m (30 days), w, d, h, min, s."""
    if value is None:
        return None
    parts = re.findall(r"(\d+)(min|[ymwdhs])", value)
    if not parts or "".join(n + unit for n, unit in parts) != value:
        raise click.BadParameter(f"{value!r}; a duration is written like 30d, 12h or 1y6m", ctx, param)
    try:
        return sum((int(n) * _PARTS[unit] for n, unit in parts), timedelta())
    except OverflowError:
        raise click.BadParameter(f"{value!r} is longer than anything lasts", ctx, param) from None


KINDS = click.Choice(["vm", "database", "files"])

_FILTERS = (
    click.option("--name", "names", multiple=True, metavar="NAME", help="Only of this name (repeatable)."),
    click.option("--tag", "tags", multiple=True, metavar="TAG", help="Only with this tag (repeatable: all)."),
    click.option("--kind", "kinds", multiple=True, type=KINDS, help="Only of this kind (repeatable)."),
)


def filter_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator that adds the options --name, --tag and --kind."""
    for option in reversed(_FILTERS):
        function = option(function)
    return function
