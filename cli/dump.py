"""`holdfast dump`."""

from __future__ import annotations

import re
import sys

import click

from holdfast.cli.context import Settings
from holdfast.cli.exits import ExitCode
from holdfast.cli.options import command
from holdfast.repo.errors import Refused
from holdfast.repo.reader import Reader
from holdfast.repo.restore import Restorer
from holdfast.repo.select import find_items
from holdfast.repo.snapshot import Item, Snapshot

_NOT_TEXT = re.compile(rb"[\x00-\x08\x0e-\x1f\x7f]")
"""What a terminal obeys or chokes on; tabs and ends of lines are text."""


@command("dump")
@click.argument("snapshot", metavar="SNAPSHOT[:PATH]")
@click.option("--force", is_flag=True, help="Write to a terminal whatever it is.")
@click.pass_context
def dump_command(context: click.Context, *, snapshot: str, force: bool) -> ExitCode:
    r"""Write a stored file to standard output, in order.

    \b
    holdfast dump shop@latest:dump.sql | psql shop

    PATH may be left out when the snapshot holds one thing only.
    """
    settings = context.ensure_object(Settings)
    if settings.output.json:
        raise click.UsageError("--json: what dump prints is the file itself")
    guard = sys.stdout.isatty() and not force
    out = sys.stdout.buffer
    with settings.opened(index=True) as repository:
        stored, path = settings.pick(repository, snapshot)
        item = _the_one(stored.snapshot, path)
        reader = Reader(repository)
        for data in Restorer(repository, reader).in_order(reader.recipe(item)):
            if guard and _NOT_TEXT.search(data):
                raise Refused(
                    f"{item.path} is not text, and this is a terminal; send it into a file or a pipe"
                )
            out.write(data)
    out.flush()
    if item.bad:
        lost = sum(bad.length for bad in item.bad)
        settings.output.warn(
            f"{item.path}: {lost} bytes could not be read when this was backed up, and are zeros"
        )
        return ExitCode.PARTIAL
    return ExitCode.DONE


def _the_one(snapshot: Snapshot, path: str) -> Item:
    items = find_items(snapshot, path)
    if len(items) > 1:
        there = ", ".join(item.path for item in items[:5])
        raise Refused(f"that is more than one file ({there}); put :PATH behind the snapshot")
    return items[0]
