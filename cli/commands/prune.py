"""`holdfast prune`."""

from __future__ import annotations

from datetime import timedelta

import click

from holdfast.cli.base.context import RunSettings
from holdfast.cli.base.exit_codes import ExitCode
from holdfast.cli.base.options import command, parse_duration, pass_settings
from holdfast.cli.base.pruning import run_prune


def _share(context: click.Context, option: click.Parameter, value: str) -> float:
    try:
        share = float(value.removesuffix("%")) / 100
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise click.BadParameter(f"{value!r} is not a percentage", context, option)
    return share


def _quarantine(context: click.Context, option: click.Parameter, value: str) -> timedelta:
    if value == "none":
        return timedelta()
    parsed = parse_duration(context, option, value)
    assert parsed is not None  # there is a default
    return parsed


def _point_at_forget(context: click.Context, option: click.Parameter, value: object) -> None:
    if value:
        raise click.UsageError(
            f"prune only frees space and drops no snapshots: `holdfast forget {option.opts[0]} ... --prune` "
            "does both",
            context,
        )


def _keep_options() -> list[click.Parameter]:
    rules = ("last", "hourly", "daily", "weekly", "monthly", "yearly", "within", "tag")
    return [
        click.Option(
            [f"--keep-{rule}"], multiple=True, hidden=True, expose_value=False, callback=_point_at_forget
        )
        for rule in rules
    ]


@command("prune", params=_keep_options())
@click.option("-n", "--dry-run", is_flag=True, help="Only show the plan.")
@click.option(
    "--max-unused",
    metavar="PERCENT",
    default="5",
    show_default=True,
    callback=_share,
    help="How much of the packs may stay unneeded, to save rewriting.",
)
@click.option(
    "--quarantine",
    metavar="DURATION|none",
    default="7d",
    show_default=True,
    callback=_quarantine,
    help="How long packs lie in the trash before they are deleted.",
)
@click.option(
    "--reseal", is_flag=True, help="Seal all packs of earlier key epochs anew; else a few in each prune."
)
@click.option(
    "--lock-timeout", type=click.FloatRange(0), default=60.0, metavar="SECONDS", help="Default: 60."
)
@pass_settings
def prune_command(
    settings: RunSettings,
    *,
    dry_run: bool,
    max_unused: float,
    quarantine: timedelta,
    reseal: bool,
    lock_timeout: float,
) -> ExitCode:
    """Free the space of what no snapshot needs. Snapshots are not touched: that is `holdfast forget`.

    Packs that nothing needs go to the trash first, and a later prune deletes them when the quarantine is
    over; `--quarantine none` deletes them now. Backups wait while packs are moved. A pack that is damaged
    where something is needed stays, the rest goes on, and the exit code is 21.

    After `holdfast key rotate` it seals packs of earlier key epochs anew, the oldest first: in each prune as
    much as may stay unneeded, with `--reseal` all.
    """
    with settings.opened(index=True) as repository:
        return run_prune(
            settings,
            repository,
            max_unused=max_unused,
            quarantine=quarantine,
            dry_run=dry_run,
            reseal_all=reseal,
            lock_timeout=lock_timeout,
        )
