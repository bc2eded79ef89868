"""`holdfast restore`."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import click

from holdfast.base.errors import NotFound, Refused
from holdfast.cli.base.context import Settings
from holdfast.cli.base.exits import ExitCode
from holdfast.cli.base.guest_options import leads_inside, luks_option
from holdfast.cli.base.options import command, pass_settings
from holdfast.cli.base.progress import progress
from holdfast.cli.commands.restore_image import (
    ImageOptions,
    Job,
    plan,
    plan_made,
    refuse_early,
    restore_items,
    tell,
)
from holdfast.cli.commands.restore_physical import (
    is_cluster,
    pick_backup,
    recovery_of,
    restore_cluster,
    until_options,
)
from holdfast.formats.disks.export_formats import VIEWS
from holdfast.formats.dumps.virtual_files import below
from holdfast.repo.core.repository import Repository
from holdfast.repo.snapshots.select import find_items
from holdfast.repo.snapshots.snapshot import Item, ItemKind, StoredSnapshot
from holdfast.tasks.virtual_files import MadeFiles


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
    settings: Settings,
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
    options = ImageOptions(force, overwrite, sparse, verify)
    with settings.opened(index=True) as repository:
        recovery = recovery_of(settings, until, timeline)
        if recovery is None:
            stored, path = settings.pick(repository, snapshot)
        else:
            stored, path = pick_backup(settings, repository, snapshot, recovery)
        if is_cluster(stored, path):
            if format_ or verify or force or overwrite:
                raise click.UsageError("--format, --verify, --force and --overwrite are not for clusters")
            return restore_cluster(
                *(settings, repository, stored, recovery),
                target=target,
                owner=os.geteuid() == 0 and not no_owner,
                shown=not no_progress,
            )
        if recovery is not None:
            raise click.UsageError(f"--until is for a whole cluster, not for {path}")
        if leads_inside(path) and not _is_stored(stored, path):
            if format_ or verify or force:
                raise click.UsageError("--format, --verify and --force are for items, not for guests' files")
            # Here and not above: disks need no parsers.
            from holdfast.cli.commands.restore_guest import restore_guest  # noqa: PLC0415
            from holdfast.tree.extract import ExtractOptions  # noqa: PLC0415

            extract = ExtractOptions(
                owners=os.geteuid() == 0 and not no_owner,
                setuid=setuid,
                special=special,
                overwrite=overwrite,
                sparse=sparse,
            )
            return restore_guest(
                *(settings, repository, stored, path),
                target=target,
                options=extract,
                luks=luks,
                shown=not no_progress,
            )
        jobs = _jobs(repository, stored, path, target, format_)
        folders = {job.path.parent for job in jobs if job.shown != path}
        _restore(settings, repository, jobs, options, folders=folders, shown=not no_progress)
    return ExitCode.PARTIAL if any(job.item.bad for job in jobs) else ExitCode.DONE


def _restore(
    settings: Settings,
    repository: Repository,
    jobs: Sequence[Job],
    options: ImageOptions,
    *,
    folders: Iterable[Path],
    shown: bool,
) -> None:
    settings.if_interrupted = "files that were not complete have been removed; run it again"
    began = time.monotonic()
    refuse_early(settings, jobs, options)
    total = sum(job.size for job in jobs) * (2 if options.verify else 1)
    with progress(settings.output, "restore", total, shown=shown) as meter:
        for folder in folders:
            folder.mkdir(parents=True, exist_ok=True)
        restore_items(settings, repository, jobs, options, meter.add)
    tell(settings, jobs, time.monotonic() - began, options)


def _jobs(
    repository: Repository, stored: StoredSnapshot, path: str, target: str, format_: str | None
) -> list[Job]:
    """What to write where: items, disks in a format, or files that are made out of dumps."""
    made = MadeFiles(repository, stored.snapshot)
    found = below(made.found, path) if path and not _is_stored(stored, path) else {}
    if found:
        if format_:
            raise click.UsageError("--format is for disks; `holdfast dump --table` knows csv")
        return plan_made(found, path, target)
    try:
        items, path, format_ = _items(stored, path, format_)
    except NotFound:
        made.check()
        raise
    for item in items:
        made.check_item(item)
    jobs = plan(items, path, target, format_)
    return [replace(job, made=made.found.get(job.item.path)) for job in jobs]


def _is_stored(stored: StoredSnapshot, path: str) -> bool:
    return any(f"{item.path}/".startswith(path + "/") for item in stored.snapshot.items)


def _items(stored: StoredSnapshot, path: str, format_: str | None) -> tuple[Sequence[Item], str, str]:
    """(items, path of the one item if one was named, format). `disks/sda.qcow2` names disk and format."""
    try:
        items = find_items(stored.snapshot, path)
    except NotFound:
        stem, _, suffix = path.rpartition(".")
        if suffix not in VIEWS:
            raise
        items = tuple(i for i in stored.snapshot.items if i.path == f"{stem}.raw")
        if not items:
            raise
        if format_ not in (None, suffix):
            raise click.UsageError(f"--format {format_} contradicts {path}") from None
        path, format_ = items[0].path, suffix
    if format_ not in (None, "raw") and not any(item.kind is ItemKind.DISK for item in items):
        raise Refused(f"--format {format_} is for disks, and there is none at {path!r}")
    return items, path, format_ or "raw"
