"""`holdfast restore`."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass

import click

from holdfast.cli.base.context import RunSettings
from holdfast.cli.base.exit_codes import ExitCode
from holdfast.cli.base.guest_options import luks_option
from holdfast.cli.base.options import command, pass_settings
from holdfast.cli.base.progress import progress
from holdfast.cli.base.recovery_options import recovery_of, until_options
from holdfast.cli.base.render import size
from holdfast.cli.restore.cluster import restore_physical
from holdfast.cli.restore.report import GuestReport, tell_files
from holdfast.formats.disks.export_formats import VIEWS
from holdfast.repo.core.repository import Repository
from holdfast.tasks.restore_cluster import is_cluster, pick_backup
from holdfast.tasks.restore_errors import NoDiskFormat, OtherFormat
from holdfast.tasks.restore_files import FilesRestore
from holdfast.tasks.restore_guest import GuestRestore, guest_target
from holdfast.tasks.restore_plan import RestoreOptions, check_targets, is_on_device, plan_restore
from holdfast.tasks.snapshot_trees import SnapshotTrees
from holdfast.tree.extract.extractor import ExtractOptions
from holdfast.tree.nodes import is_directory
from holdfast.tree.snapshot_tree import SnapshotTree


@command("restore")
@click.argument("snapshot", metavar="SNAPSHOT[:PATH]")
@click.option("--target", required=True, metavar="FILE|DIR|DEVICE", help="Where to write.")
@click.option("--format", "format_", type=click.Choice(["raw", *VIEWS]), help="Of disks; default: raw.")
@click.option("--overwrite", is_flag=True, help="Replace files that exist.")
@click.option("--force", is_flag=True, help="Write to a block device, whatever is on it.")
@click.option("--sparse/--no-sparse", default=True, help="Leave holes as holes (default), or write zeros.")
@click.option("--verify", is_flag=True, help="Read everything back from the disk and compare.")
@click.option("--no-owner", is_flag=True, help="Of a guest's files: leave them to you, without ACLs.")
@click.option("--setuid", is_flag=True, help="Of a guest's files: keep setuid and setgid bits.")
@click.option("--special", is_flag=True, help="Of a guest's files: make FIFOs, sockets and devices too.")
@until_options
@luks_option
@click.option("--no-progress", is_flag=True, help="No progress bar.")
@pass_settings
def restore_command(
    settings: RunSettings,
    *,
    snapshot: str,
    target: str,
    format_: str | None,
    overwrite: bool,
    force: bool,
    sparse: bool,
    verify: bool,
    no_owner: bool,
    setuid: bool,
    special: bool,
    until: str | None,
    timeline: str | None,
    luks: Sequence[str],
    no_progress: bool,
) -> ExitCode:
    """Write what a snapshot holds to a file, a folder or a block device.

    \b
    holdfast restore web01@latest:disks/web01.raw --target /var/lib/images/web01.raw
    holdfast restore web01:disks/web01.qcow2 --target web01.qcow2
    holdfast restore web01 --format vmdk --target /srv/restored/
    holdfast restore web01:files/web01/p1/etc --target /tmp/etc
    holdfast restore shopcluster --until '2026-11-25 14:05' --target /var/lib/postgresql/15/restored

    One item goes to a file of that name, or into a folder that is there (or ends in /). A whole snapshot
    goes into a folder, each item under its path. Every chunk is checked before it is written. A file is
    called NAME.holdfast-partial until all of it is there.

    A physical backup of a PostgreSQL cluster becomes a data directory, ready to be started. With --until it
    recovers up to there when it starts, from the newest backup before, with the log that wal-push archived.

    What is in a guest's folder goes into the target folder: with modes, times, links and user.*
    attributes; for root also with owners and ACLs. Nothing is written outside of it, whatever links the
    guest holds. What cannot be restored is told, and the rest goes on (exit code 3).
    """
    chosen = RestoreOptions(force=force, overwrite=overwrite, sparse=sparse, verify=verify)
    owner, shown = os.geteuid() == 0 and not no_owner, not no_progress
    with settings.opened(index=True) as repository:
        recovery = recovery_of(settings, until, timeline)
        if recovery is None:
            stored, path = settings.pick(repository, snapshot)
        else:
            stored, path = pick_backup(settings.snapshots(repository).good, snapshot, recovery)
        if is_cluster(stored, path):
            if format_ or verify or force or overwrite:
                raise click.UsageError("--format, --verify, --force and --overwrite are not for clusters")
            return restore_physical(
                settings, repository, stored, recovery, target=target, owner=owner, shown=shown
            )
        if recovery is not None:
            raise click.UsageError(f"--until is for a whole cluster, not for {path}")
        trees = SnapshotTrees.of(repository, luks)
        with trees.open(stored) as tree:
            restore = _Restore(settings, repository, trees, tree, path, target, shown)
            if not tree.leads_into_guest(path):
                return restore.files(format_, chosen)
            if format_ or verify or force:
                raise click.UsageError("--format, --verify and --force are for items, not for guests' files")
            extract = ExtractOptions(
                owners=owner, setuid=setuid, special=special, overwrite=overwrite, sparse=sparse
            )
            return restore.guest(extract)


@dataclass(frozen=True, slots=True)
class _Restore:
    """Restores the node at a path to a target; `shown`: with progress."""

    settings: RunSettings
    repository: Repository
    trees: SnapshotTrees
    tree: SnapshotTree
    path: str
    target: str
    shown: bool

    def files(self, format_: str | None, options: RestoreOptions) -> ExitCode:
        node = self.tree.resolve(self.path)
        try:
            plan = plan_restore(self.tree, node, self.target, format_)
        except NoDiskFormat:
            raise click.UsageError("--format is for disks; `holdfast dump --table` knows csv") from None
        except OtherFormat as error:
            raise click.UsageError(f"--{error}") from None
        output = self.settings.output
        self.settings.if_interrupted = "files that were not complete have been removed; run it again"
        began = time.monotonic()
        check_targets(self.settings.root, plan.jobs, options)
        restore = FilesRestore(self.repository, self.trees.files, options)
        total = sum(job.size for job in plan.jobs) * (2 if options.verify else 1)
        with progress(output, "restore", total, shown=self.shown) as meter:
            restore.begin(plan)
            for job in plan.jobs:
                if is_on_device(job):
                    self.settings.if_interrupted = f"{job.target} is written in part; run it again"
                left = restore.run(job, meter.add)
                if left:
                    output.note(
                        f"{job.target} is {size(left)} larger than the image; what was there is as it was. "
                        "A GPT disk wants its second table moved to the end: `sgdisk -e`"
                    )
        return tell_files(self.settings, plan.jobs, time.monotonic() - began, options)

    def guest(self, options: ExtractOptions) -> ExitCode:
        self.settings.if_interrupted = "what was restored is complete; run it again with --overwrite"
        report = GuestReport(self.settings, self.target)
        node = self.tree.resolve(self.path)
        target = guest_target(self.settings.root, node, self.target, overwrite=options.overwrite)
        restore = GuestRestore(self.trees.files.contents, target, options)
        total = None if is_directory(node) else node.size
        with progress(self.settings.output, "restore", total, shown=self.shown) as meter:
            for event in restore.run(self.tree, node, meter.add):
                report.add(event)
        return report.end(restore.bits_dropped)
