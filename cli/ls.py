"""`holdfast ls`."""

from __future__ import annotations

import click

from holdfast.cli.context import Settings
from holdfast.cli.documents import SHORT_ID, item_document, mtime
from holdfast.cli.options import command, pass_settings
from holdfast.cli.render import Column, size, table
from holdfast.repo.select import find_items, time_name

_COLUMNS = (
    Column("type"),
    Column("size", "right"),
    Column("data", "right"),
    Column("changed (UTC)"),
    Column("path"),
    Column(""),
)


@command("ls")
@click.argument("snapshot", metavar="SNAPSHOT[:PATH]")
@pass_settings
def ls_command(settings: Settings, *, snapshot: str) -> None:
    """List what is in a snapshot. "data" is the size without holes."""
    with settings.opened() as repository:
        stored, path = settings.pick(repository, snapshot)
    items = find_items(stored.snapshot, path)
    settings.output.document(
        {
            "snapshot": stored.id,
            "short_id": stored.id[:SHORT_ID],
            "items": [item_document(item) for item in items],
        }
    )
    rows = [
        [
            item.kind.value,
            size(item.size),
            size(item.allocated),
            time_name(mtime(item)),
            item.path,
            "partial" if item.bad else "",
        ]
        for item in items
    ]
    settings.output.result(table(_COLUMNS, rows))
