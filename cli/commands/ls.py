"""`holdfast ls`."""

from __future__ import annotations

from collections.abc import Sequence

import click

from holdfast.cli.base.context import RunSettings
from holdfast.cli.base.exit_codes import ExitCode
from holdfast.cli.base.guest_listing import GuestListing
from holdfast.cli.base.guest_options import luks_option
from holdfast.cli.base.options import command, pass_settings
from holdfast.cli.base.snapshot_listing import show_listing
from holdfast.tasks.snapshot_trees import SnapshotTrees


@command("ls")
@click.argument("snapshot", metavar="SNAPSHOT[:PATH]")
@click.option("-R", "--recursive", is_flag=True, help="Of a folder, list all that is below.")
@luks_option
@pass_settings
def ls_command(settings: RunSettings, *, snapshot: str, recursive: bool, luks: Sequence[str]) -> ExitCode:
    """List what is in a snapshot, or in a guest's disk in it. "data" is the size without holes.

    \b
    holdfast ls web01
    holdfast ls web01@latest:files/sda
    holdfast ls web01@latest:files/sda/p1/etc
    holdfast ls shop@latest:tables

    With --json and -R an entry is a line.
    """
    with settings.opened() as repository:
        stored, path = settings.pick(repository, snapshot)
        with SnapshotTrees.of(repository, luks).open(stored) as tree:
            if not path and tree.disks:
                name = next(iter(tree.disks.values())).path
                settings.output.note(f"what is inside the disks: holdfast ls {snapshot}:{name}")
            if not tree.leads_into_guest(path):
                return show_listing(settings, tree, tree.resolve(path), recursive=recursive)
            settings.refresh(repository)
            return GuestListing(settings, tree).show(tree.resolve(path), recursive=recursive)
