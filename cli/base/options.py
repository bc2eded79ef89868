"""Options that every command has, and types of options that several have."""

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
        shared("--cache-dir", metavar="DIR", help="Else HOLDFAST_CACHE_DIR, or ~/.cache/holdfast."),
        shared("--json", is_flag=True, help="Answer in JSON."),
        shared("-q", "--quiet", is_flag=True, help="Only results, warnings and errors."),
        shared("-v", "--verbose", count=True, help="More detail."),
    ]


def _remember(context: click.Context, option: click.Parameter, value: Any) -> None:
    """Keep what was given in the settings; an option may stand before or behind the command."""
    settings = context.find_object(RunSettings)
    if settings is None or context.get_parameter_source(option.name or "") in (None, _DEFAULT):
        return
    for part in (settings, settings.output, settings.passwords):
        if hasattr(part, option.name or ""):
            setattr(part, option.name or "", value)


_DEFAULT = click.core.ParameterSource.DEFAULT


class SharedOptionsCommand(click.Command):
    """A command with the shared options, which its help shows in a section of their own."""

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
    """A command with commands below it."""

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
    """Make a function a command with the shared options. Its docstring is the help."""
    return click.command(name, cls=SharedOptionsCommand, **attributes)


def parse_duration(ctx: click.Context, param: click.Parameter, value: str | None) -> timedelta | None:
    """Callback for `30d`, `12h`, `1y6m`: years (of 365 days), months (of 30), weeks, days, h, min, s."""
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
    """--name, --tag, --kind."""
    for option in reversed(_FILTERS):
        function = option(function)
    return function
