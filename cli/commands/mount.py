"""`holdfast mount` and `holdfast umount`."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import click

from holdfast.base.escaping import EscapingFormatter, escape
from holdfast.base.passwords import from_file
from holdfast.cli.base.context import RunSettings
from holdfast.cli.base.guest_options import luks_option
from holdfast.cli.base.options import command, pass_settings
from holdfast.cli.base.render import count
from holdfast.fusefs.mount import MountOptions, mount, serve, unmount
from holdfast.repo.core.repository import Repository
from holdfast.repo.index.results import SyncResult
from holdfast.repo.records.high_water import check_place


@command("mount")
@click.argument("mountpoint", metavar="DIR")
@click.option("-f", "--foreground", is_flag=True, help="Stay in front until unmounted or interrupted.")
@click.option(
    "--allow-other",
    is_flag=True,
    help="Let other users see it, but for disks (see fuse.conf: user_allow_other).",
)
@click.option("--uid", type=click.IntRange(0), help="Owner of all that is shown; default: you.")
@click.option("--gid", type=click.IntRange(0), help="Group of all that is shown; default: yours.")
@luks_option
@pass_settings
def mount_command(
    settings: RunSettings,
    *,
    mountpoint: str,
    foreground: bool,
    allow_other: bool,
    uid: int | None,
    gid: int | None,
    luks: tuple[str, ...],
) -> None:
    """Show all snapshots as files and folders under DIR, an empty directory.

    \b
    DIR/vms/web01/latest/disks/web01.raw (.qcow2, .vmdk, .vhdx: the same disk)
    DIR/vms/web01/latest/files/web01/p1/etc/fstab
    DIR/databases/postgresql/shop/2026-11-22_02-00-00/dump.sql

    Read-only. Disks can be read by their owner (--uid) only, with --allow-other too: whoever reads a disk
    reads all files of the guest. Snapshots that are made meanwhile appear. Returns when the mount answers;
    `holdfast umount DIR` ends it.
    """
    store = settings.store()
    passphrases = tuple(from_file(Path(file)) for file in luks)
    options = MountOptions(allow_other=allow_other, uid=uid, gid=gid, passphrases=passphrases)
    place = Path(mountpoint).absolute()

    def open_repository() -> Repository:
        repository = Repository.open(
            store,
            settings.password,
            cache=settings.cache,
            notify=_log_damage,
            allow_costly=settings.allow_costly,
        )
        settings.forget_password()
        check_place(repository, settings.root, settings.cache)
        settings.look_for_vanished(repository, repository.snapshots())
        return repository

    if foreground:
        _log_to_stderr(settings)
        serve(
            open_repository,
            place,
            location=store.root,
            state=_state(settings),
            options=options,
            ready=lambda where: _ready(settings, where),
            progress=lambda done, total: _report_index(settings, done, total),
        )
        return
    log = settings.cache / "mount.log"
    mounted = mount(
        open_repository,
        place,
        location=store.root,
        state=_state(settings),
        log=log,
        options=options,
        progress=lambda done, total: _report_index(settings, done, total),
    )
    settings.output.document(
        {"mountpoint": str(mounted.mountpoint), "pid": mounted.pid, "log": str(mounted.log)}
    )
    settings.output.summary(f"mounted on {escape(str(mounted.mountpoint))}")
    settings.output.note(f"`holdfast umount {mounted.mountpoint}` ends it")


@command("umount")
@click.argument("mountpoint", metavar="DIR")
@click.option("--timeout", type=click.FloatRange(0), default=30.0, metavar="SECONDS", help="Default: 30.")
@pass_settings
def umount_command(settings: RunSettings, *, mountpoint: str, timeout: float) -> None:
    """End a mount and wait until its daemon is gone."""
    place = Path(mountpoint).absolute()
    unmount(place, state=_state(settings), timeout=timeout)
    settings.output.document({"unmounted": str(place)})
    settings.output.summary(f"{escape(str(place))} is unmounted")


def _log_damage(synced: SyncResult) -> None:
    """To the mount's log: nobody is at a terminal when packs are listed again."""
    for error in synced.damaged:
        logging.getLogger("holdfast.fusefs").warning("%s", error)


def _state(settings: RunSettings) -> Path:
    """Where running mounts are recorded."""
    return settings.cache / "mounts"


def _report_index(settings: RunSettings, done: int, total: int) -> None:
    """No bar: its thread must not be there when the daemon forks."""
    if done == 1:
        settings.output.note(f"bringing the index up to date: {count(total, 'pack')}")


def _ready(settings: RunSettings, where: Path) -> None:
    settings.output.document({"mountpoint": str(where)})
    settings.output.summary(f"mounted on {escape(str(where))}; Ctrl-C ends it")
    sys.stdout.flush()


def _log_to_stderr(settings: RunSettings) -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(EscapingFormatter("holdfast: %(message)s"))
    logger = logging.getLogger("holdfast")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO if settings.output.verbose else logging.WARNING)
