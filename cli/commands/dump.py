"""`holdfast dump`."""

from __future__ import annotations

import codecs
import re
import sys
from collections.abc import Sequence

import click

from holdfast.base.errors import Refused
from holdfast.base.types import Buffer
from holdfast.cli.base.context import RunSettings
from holdfast.cli.base.exit_codes import ExitCode
from holdfast.cli.base.guest_options import luks_option
from holdfast.cli.base.options import command
from holdfast.tasks.read_files import file_content, table_content
from holdfast.tasks.snapshot_trees import SnapshotTrees

_NOT_TEXT = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x9f]")
"""What a terminal obeys or chokes on; tabs and ends of lines are text."""


class TextGuard:
    """Tells text, in UTF-8, from what a terminal must not get. Some write a control as one byte that is no
    UTF-8."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")()

    def is_text(self, data: Buffer) -> bool:
        """Whether the next bytes of it are."""
        try:
            return _NOT_TEXT.search(self._decoder.decode(bytes(data))) is None
        except UnicodeDecodeError:
            return False


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
    settings = context.ensure_object(RunSettings)
    if settings.output.json:
        raise click.UsageError("--json: what dump prints is the file itself")
    if format_ and table is None:
        raise click.UsageError("--format says how a --table is wanted")
    guard = TextGuard() if sys.stdout.isatty() and not force else None
    out = sys.stdout.buffer
    with settings.opened(index=True) as repository:
        stored, path = settings.pick(repository, snapshot)
        if table is not None and path:
            raise click.UsageError(f"--table and :{path} exclude each other")
        trees = SnapshotTrees.of(repository, luks)
        with trees.open(stored) as tree:
            content = (
                file_content(trees, tree, path)
                if table is None
                else table_content(trees, tree, table, csv=format_ == "csv")
            )
            for data in content.data:
                if guard is not None and not guard.is_text(data):
                    raise Refused(
                        f"{content.path} is not text, and this is a terminal; send it into a file or a pipe"
                    )
                out.write(data)
    out.flush()
    if content.lost:
        settings.output.warn(
            f"{content.path}: {content.lost} bytes could not be read when this was backed up, and are zeros"
        )
    if content.is_short:
        settings.output.warn(f"{content.path}: its dump is not whole; `holdfast info` says why")
    return ExitCode.PARTIAL if content.lost or content.is_short else ExitCode.DONE
