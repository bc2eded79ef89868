"""`holdfast dump`."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import click

from holdfast.base.errors import NotFound, Refused
from holdfast.base.types import Buffer
from holdfast.cli.base.context import Settings
from holdfast.cli.base.exits import ExitCode
from holdfast.cli.base.guest_options import leads_inside, luks_option
from holdfast.cli.base.options import command
from holdfast.formats.disks.export import stored_view, stream
from holdfast.formats.disks.export_formats import VIEWS
from holdfast.repo.core.reader import Reader
from holdfast.repo.core.repository import Repository
from holdfast.repo.core.restore import Restorer
from holdfast.repo.snapshots.select import find_items
from holdfast.repo.snapshots.snapshot import Item, ItemKind, Snapshot
from holdfast.tasks.virtual_files import MadeFiles

_NOT_TEXT = re.compile(rb"[\x00-\x08\x0e-\x1f\x7f]")
"""What a terminal obeys or chokes on; tabs and ends of lines are text."""


@dataclass(frozen=True, slots=True)
class _Content:
    """Something that can be dumped. `lost`: bytes that could not be read when it was backed up. `is_short`:
    it comes from a dump that is not whole."""

    name: str
    data: Iterable[Buffer]
    lost: int = 0
    is_short: bool = False


@command("dump")
@click.argument("snapshot", metavar="SNAPSHOT[:PATH]")
@click.option("--table", metavar="TABLE", help="Of a database dump: one table, such as public.orders.")
@click.option("--format", "format_", type=click.Choice(["sql", "csv"]), help="Of a table; default: sql.")
@click.option("--force", is_flag=True, help="Write to a terminal whatever it is.")
@luks_option
@click.pass_context
def dump_command(
    context: click.Context,
    *,
    snapshot: str,
    table: str | None,
    format_: str | None,
    force: bool,
    luks: Sequence[str],
) -> ExitCode:
    """Write a stored file to standard output, in order.

    \b
    holdfast dump shop@latest:dump.sql | psql shop
    holdfast dump shop@latest --table public.orders | psql shop_copy
    holdfast dump shop@latest --table orders --format csv > orders.csv
    holdfast dump web01:files/web01/p1/etc/passwd
    holdfast dump web01:disks/web01.qcow2 | ssh host 'cat > web01.qcow2'

    PATH may be left out when the snapshot holds one thing, or one dump.
    """
    settings = context.ensure_object(Settings)
    if settings.output.json:
        raise click.UsageError("--json: what dump prints is the file itself")
    if format_ and table is None:
        raise click.UsageError("--format says how a --table is wanted")
    guard = sys.stdout.isatty() and not force
    out = sys.stdout.buffer
    with settings.opened(index=True) as repository:
        stored, path = settings.pick(repository, snapshot)
        if table is not None and path:
            raise click.UsageError(f"--table and :{path} exclude each other")
        chosen = (
            _table(repository, stored.snapshot, table, format_)
            if table is not None
            else _content(repository, stored.snapshot, path, luks)
        )
        with chosen as content:
            for data in content.data:
                if guard and _NOT_TEXT.search(data):
                    raise Refused(
                        f"{content.name} is not text, and this is a terminal; send it into a file or a pipe"
                    )
                out.write(data)
    out.flush()
    if content.lost:
        settings.output.warn(
            f"{content.name}: {content.lost} bytes could not be read when this was backed up, and are zeros"
        )
    if content.is_short:
        settings.output.warn(f"{content.name}: its dump is not whole; `holdfast info` says why")
    return ExitCode.PARTIAL if content.lost or content.is_short else ExitCode.DONE


@contextmanager
def _table(repository: Repository, snapshot: Snapshot, table: str, format_: str | None) -> Iterator[_Content]:
    made = MadeFiles(repository, snapshot)
    path = made.table(table)
    data: Iterable[Buffer] = made.csv(path) if format_ == "csv" else made.read(made.found[path])
    yield _Content(path, data, is_short=bool(made.found[path].item.bad))


@contextmanager
def _content(
    repository: Repository, snapshot: Snapshot, path: str, luks: Sequence[str]
) -> Iterator[_Content]:
    if leads_inside(path) and all(item.path != path for item in snapshot.items):
        from holdfast.tasks.guest_files import Guests, explained  # noqa: PLC0415  dumps need no parsers

        guests = Guests.of(repository, luks)
        with explained(), guests.inside(snapshot) as inside:
            yield _Content(path, *guests.content(inside, path))
        return
    made = MadeFiles(repository, snapshot)
    path = path or _main_path(snapshot)
    if path in made.found:
        item = made.found[path].item
        yield _Content(path, made.read(made.found[path]), is_short=bool(item.bad))
        return
    reader = Reader(repository)
    restorer = Restorer(repository, reader)
    try:
        item, format_ = _the_one(snapshot, path)
    except NotFound:
        made.check()
        raise
    made.check_item(item)
    recipe = reader.recipe(item)
    data = (
        stream(stored_view(item, recipe, format_), recipe, restorer) if format_ else restorer.in_order(recipe)
    )
    lost = sum(bad.length for bad in item.bad)
    yield _Content(path or item.path, data, lost, is_short=any(not bad.length for bad in item.bad))


def _main_path(snapshot: Snapshot) -> str:
    """What a snapshot is of, when that is one thing: beside a dump stand roles, beside a disk its machine."""
    if len(snapshot.items) == 1:
        return snapshot.items[0].path
    dumps = [item.path for item in snapshot.items if item.kind is ItemKind.DUMP]
    return dumps[0] if len(dumps) == 1 else ""


def _the_one(snapshot: Snapshot, path: str) -> tuple[Item, str]:
    """(item, format of disks that it is wanted in, "" for as it is)."""
    stem, _, suffix = path.rpartition(".")
    if suffix in VIEWS and all(item.path != path for item in snapshot.items):
        disk = next((item for item in snapshot.items if item.path == f"{stem}.raw"), None)
        if disk is None:
            raise NotFound(f"nothing at {path!r} in this snapshot, and no disk {stem}.raw either")
        return disk, suffix
    items = find_items(snapshot, path)
    if len(items) > 1:
        there = ", ".join(item.path for item in items[:5])
        raise Refused(f"that is more than one file ({there}); put :PATH behind the snapshot")
    return items[0], ""
