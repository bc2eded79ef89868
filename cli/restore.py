"""`holdfast restore`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import click

from holdfast.cli.context import Settings
from holdfast.cli.exits import ExitCode
from holdfast.cli.options import command, pass_settings
from holdfast.cli.progress import progress
from holdfast.cli.render import count, duration, escape, rate, size
from holdfast.repo.errors import HoldfastError, Refused
from holdfast.repo.reader import Reader
from holdfast.repo.repository import Repository
from holdfast.repo.restore import Restorer
from holdfast.repo.select import find_items
from holdfast.repo.snapshot import Item
from holdfast.repo.targets import DeviceTarget, FileTarget, check_free, gaps, is_device, read_back
from holdfast.repo.types import ProgressFunction


@dataclass(frozen=True, slots=True)
class _Options:
    force: bool
    overwrite: bool
    sparse: bool
    verify: bool


@dataclass(frozen=True, slots=True)
class _Job:
    """An item and where it goes."""

    item: Item
    path: Path


@command("restore")
@click.argument("snapshot", metavar="SNAPSHOT[:PATH]")
@click.option("--target", required=True, metavar="FILE|DIR|DEVICE", help="Where to write.")
@click.option("--overwrite", is_flag=True, help="Replace files that exist.")
@click.option("--force", is_flag=True, help="Write to a block device, whatever is on it.")
@click.option("--sparse/--no-sparse", default=True, help="Leave holes as holes (default), or write zeros.")
@click.option("--verify", is_flag=True, help="Read everything back from the disk and compare.")
@click.option("--no-progress", is_flag=True, help="No progress bar.")
@pass_settings
def restore_command(
    settings: Settings,
    *,
    snapshot: str,
    target: str,
    overwrite: bool,
    force: bool,
    sparse: bool,
    verify: bool,
    no_progress: bool,
) -> ExitCode:
    r"""Write what a snapshot holds to a file, a folder or a block device.

    \b
    holdfast restore web01@latest:disks/web01.raw --target /var/lib/images/web01.raw
    holdfast restore web01 --target /srv/restored/

    One item goes to a file of that name, or into a folder that is there (or ends in /). A whole snapshot
    goes into a folder, each item under its path. Every chunk is checked before it is written. A file is
    called NAME.holdfast-partial until all of it is there.
    """
    settings.if_interrupted = "files that were not complete have been removed; run it again"
    options = _Options(force, overwrite, sparse, verify)
    began = time.monotonic()
    with settings.opened(index=True) as repository:
        stored, path = settings.pick(repository, snapshot)
        jobs = _plan(find_items(stored.snapshot, path), path, target)
        _refuse_early(settings, jobs, options)
        total = sum(job.item.size for job in jobs) * (2 if verify else 1)
        with progress(settings.output, "restore", total, shown=not no_progress) as meter:
            for job in jobs:
                if job.item.path != path:
                    job.path.parent.mkdir(parents=True, exist_ok=True)
                _restore(settings, repository, job, options, meter.add)
    _tell(settings, jobs, time.monotonic() - began, options)
    return ExitCode.PARTIAL if any(job.item.bad for job in jobs) else ExitCode.DONE


def _plan(items: Sequence[Item], path: str, target: str) -> list[_Job]:
    """What goes where. Raises Refused when several things would go to one place that is no folder."""
    place = Path(target)
    if len(items) == 1 and items[0].path == path:
        if target.endswith("/") or place.is_dir():
            place /= PurePosixPath(path).name
        return [_Job(items[0], place)]
    if place.exists() and not place.is_dir():
        one = f"`SNAPSHOT:{items[0].path}` names a single one"
        raise Refused(f"{target} is no folder, and a whole snapshot needs one; {one}; nothing was written")
    return [_Job(item, place / item.path) for item in items]


def _refuse_early(settings: Settings, jobs: Sequence[_Job], options: _Options) -> None:
    """Everything that can be told before the first byte is written."""
    root = settings.root.resolve()
    for job in jobs:
        if is_device(job.path):
            if not options.force:
                raise Refused(f"{job.path} is a block device: --force writes over all that is on it")
            continue
        if job.path.resolve().is_relative_to(root):
            raise Refused(f"{job.path} is inside the repository; nothing was written")
        if job.path.is_file() and not options.overwrite:
            raise Refused(f"{job.path} exists already; --overwrite replaces it; nothing was written")
        check_free(job.path, overwrite=True)


def _restore(
    settings: Settings, repository: Repository, job: _Job, options: _Options, add: ProgressFunction
) -> None:
    reader = Reader(repository)
    recipe = reader.recipe(job.item)
    if is_device(job.path):
        with DeviceTarget(job.path, job.item.size) as device:
            settings.if_interrupted = f"{job.path} is written in part; run it again"
            try:
                for offset, length in gaps(recipe, repository.keys):
                    device.clear(offset, length)
                Restorer(repository, reader).to_target(recipe, device, add)
            except HoldfastError:
                settings.output.warn(f"{job.path} is written in part")
                raise
            if options.verify:
                read_back(recipe, repository.keys, device, add)
        if device.capacity > job.item.size:
            left = size(device.capacity - job.item.size)
            settings.output.note(
                f"{job.path} is {left} larger than the image; what was there is as it was. "
                "A GPT disk wants its second table moved to the end: `sgdisk -e`"
            )
        return
    with FileTarget(
        job.path,
        job.item.size,
        sparse=options.sparse,
        overwrite=options.overwrite,
        mtime=job.item.mtime,
    ) as file:
        Restorer(repository, reader).to_target(recipe, file, add)
        if options.verify:
            read_back(recipe, repository.keys, file, add)


def _tell(settings: Settings, jobs: Sequence[_Job], seconds: float, options: _Options) -> None:
    total = sum(job.item.size for job in jobs)
    allocated = sum(job.item.allocated for job in jobs)
    settings.output.message(
        "summary",
        action="restore",
        files=[
            {
                "path": job.item.path,
                "target": str(job.path),
                "size": job.item.size,
                "partial": bool(job.item.bad),
            }
            for job in jobs
        ],
        size=total,
        allocated=allocated,
        seconds=round(seconds, 3),
        verified=options.verify,
    )
    for job in jobs:
        settings.output.summary(f"{escape(job.item.path)} -> {escape(str(job.path))}")
    settings.output.summary(
        f"restored {size(total)} ({size(allocated)} of it data) in {count(len(jobs), 'file')}, "
        f"{duration(seconds)} ({rate(allocated, seconds)})"
        f"{'; read back and compared' if options.verify else ''}"
    )
    for job in jobs:
        if job.item.bad:
            lost = sum(bad.length for bad in job.item.bad)
            settings.output.warn(
                f"{job.path}: {lost} bytes could not be read when this was backed up and are zeros now; "
                "`holdfast info` of the snapshot lists them"
            )
