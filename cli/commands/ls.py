"""`holdfast ls`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath

import click

from holdfast.base.errors import NotFound
from holdfast.cli.base.context import Settings
from holdfast.cli.base.documents import SHORT_ID, item_document, mtime
from holdfast.cli.base.exits import ExitCode, code_for
from holdfast.cli.base.guest_options import leads_inside, luks_option
from holdfast.cli.base.options import command, pass_settings
from holdfast.cli.base.render import Column, count, size, table
from holdfast.formats.dumps.virtual_files import MadeFile, below, has_made_files
from holdfast.repo.core.repository import Repository
from holdfast.repo.snapshots.select import find_items, split_selector, time_name
from holdfast.repo.snapshots.snapshot import Item, ItemKind, StoredSnapshot
from holdfast.tasks.virtual_files import MadeFiles

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
@click.option("-R", "--recursive", is_flag=True, help="Of a folder, list all that is below.")
@luks_option
@pass_settings
def ls_command(settings: Settings, *, snapshot: str, recursive: bool, luks: Sequence[str]) -> ExitCode:
    """List what is in a snapshot, or in a guest's disk in it. "data" is the size without holes.

    \b
    holdfast ls web01
    holdfast ls web01@latest:files/sda
    holdfast ls web01@latest:files/sda/p1/etc
    holdfast ls shop@latest:tables

    With --json and -R an entry is a line.
    """
    path = split_selector(snapshot)[1]
    inside = leads_inside(path)
    with settings.opened(index=inside) as repository:
        stored, path = settings.pick(repository, snapshot)
        disks = [item for item in stored.snapshot.items if item.kind is ItemKind.DISK]
        if disks and not path:
            name = PurePosixPath(disks[0].path).stem
            settings.output.note(f"what is inside the disks: holdfast ls {snapshot}:files/{name}")
        if has_made_files(stored.snapshot) and not (inside and disks):
            return _list_made(settings, repository, stored, path, recursive=recursive)
        if not inside or any(f"{item.path}/".startswith(path + "/") for item in stored.snapshot.items):
            _list_items(settings, stored, find_items(stored.snapshot, path))
            return ExitCode.DONE
        from holdfast.cli.commands.guest_listing import GuestListing  # noqa: PLC0415  `ls web01` needs no parsers

        return GuestListing(settings, repository, stored, luks).show(path, recursive=recursive)


def _list_made(
    settings: Settings, repository: Repository, stored: StoredSnapshot, path: str, *, recursive: bool
) -> ExitCode:
    """Items, and what is made out of dumps; folders of the latter as a line each unless `recursive`."""
    files = MadeFiles(repository, stored.snapshot)
    made = files.found
    items = {item.path: item for item in stored.snapshot.items if item.path not in made}
    found: dict[str, Item | MadeFile] = {
        **{name: item for name, item in items.items() if not path or f"{name}/".startswith(f"{path}/")},
        **below(made, path),
    }
    if not found and f"{path}/" not in made:
        files.check()
        raise NotFound(f"nothing at {path!r} in this snapshot; see `holdfast ls {stored.id[:SHORT_ID]} -R`")
    settings.output.document(
        {
            "snapshot": stored.id,
            "short_id": stored.id[:SHORT_ID],
            "items": [_document(name, one) for name, one in sorted(found.items())],
        }
    )
    folders: dict[str, list[int]] = {}
    rows: list[list[str]] = []
    start = f"{path}/" if path and path not in found else path
    for name, one in sorted(found.items()):
        inner, deeper, _ = name[len(start) :].partition("/")
        if deeper and not recursive and not isinstance(one, Item):
            folders.setdefault(f"{start}{inner}/", []).append(_size(one))
            continue
        item = one if isinstance(one, Item) else one.item
        target = "" if isinstance(one, Item) else one.composed.target
        kind = item.kind.value if one is item else "link" if target else "made"
        note = f"-> {target}" if target else "partial" if item.bad else ""
        rows.append([kind, size(_size(one)), size(_size(one)), time_name(mtime(item)), name, note])
    rows += [
        ["folder", size(sum(sizes)), size(sum(sizes)), "", name, count(len(sizes), "file")]
        for name, sizes in folders.items()
    ]
    settings.output.result(table(_COLUMNS, rows))
    for error in files.faults:
        settings.output.warn(f"only what was stored as a file is listed: {error}")
    return max(map(code_for, files.faults), default=ExitCode.DONE)


def _size(one: Item | MadeFile) -> int:
    return one.size if isinstance(one, Item) else one.composed.size


def _document(name: str, one: Item | MadeFile) -> dict[str, object]:
    if isinstance(one, Item):
        return item_document(one)
    document = {"path": name, "type": "made", "size": one.composed.size, "of": one.item.path}
    return document | {"type": "link", "target": one.composed.target} if one.composed.target else document


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
