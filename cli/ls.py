"""`holdfast ls`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath

import click

from holdfast.cli.context import Settings
from holdfast.cli.documents import SHORT_ID, item_document, mtime
from holdfast.cli.exits import ExitCode
from holdfast.cli.guest_options import leads_inside, luks_option
from holdfast.cli.options import command, pass_settings
from holdfast.cli.render import Column, size, table
from holdfast.repo.select import find_items, split_selector, time_name
from holdfast.repo.snapshot import Item, ItemKind, StoredSnapshot

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
@click.option("-R", "--recursive", is_flag=True, help="Of a folder in a guest, list all that is below.")
@luks_option
@pass_settings
def ls_command(settings: Settings, *, snapshot: str, recursive: bool, luks: Sequence[str]) -> ExitCode:
    """List what is in a snapshot, or in a guest's disk in it. "data" is the size without holes.

    \b
    holdfast ls web01
    holdfast ls web01@latest:files/sda
    holdfast ls web01@latest:files/sda/p1/etc

    With --json and -R an entry is a line.
    """
    path = split_selector(snapshot)[1]
    inside = leads_inside(path)
    with settings.opened(index=inside) as repository:
        stored, path = settings.pick(repository, snapshot)
        if not inside or any(f"{item.path}/".startswith(path + "/") for item in stored.snapshot.items):
            _list_items(settings, stored, find_items(stored.snapshot, path))
            if not path and (disks := [i for i in stored.snapshot.items if i.kind is ItemKind.DISK]):
                name = PurePosixPath(disks[0].path).stem
                settings.output.note(f"what is inside the disks: holdfast ls {snapshot}:files/{name}")
            return ExitCode.DONE
        from holdfast.cli.guest_listing import GuestListing  # noqa: PLC0415  `ls web01` needs no parsers

        return GuestListing(settings, repository, stored, luks).show(path, recursive=recursive)


def _list_items(settings: Settings, stored: StoredSnapshot, items: Sequence[Item]) -> None:
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
