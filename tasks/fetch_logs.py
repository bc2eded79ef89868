"""Bringing archived log files back."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

from holdfast.base.errors import Damaged, NotFound
from holdfast.base.target_folder import TargetFolder, refusals
from holdfast.base.targets import FileTarget
from holdfast.formats.dumps.postgresql.physical import required_wal
from holdfast.formats.dumps.postgresql.physical.control import CONTROL_PATH
from holdfast.formats.dumps.postgresql.plain.marks import NAME
from holdfast.repo.core.reader import Reader
from holdfast.repo.core.repository import Repository
from holdfast.repo.core.restore import Restorer
from holdfast.repo.records.log_archive import LogArchive, LogReading, archives
from holdfast.repo.snapshots.snapshot import Item
from holdfast.tasks.restore_errors import SeveralArchives, TargetExists
from holdfast.tasks.wal_source import system_id_in


def fetch_from(
    repository: Repository, reading: LogReading, archive: LogArchive
) -> Callable[[str, Path], bool]:
    """`fetch(name, target)` of the archive: writes a file durably; False when the archive does not hold it.

    It raises Damaged when a snapshot cannot be read that may hold the file.
    """

    def fetch(name: str, target: Path) -> bool:
        item = archive.get(name)
        if item is None:
            if reading.damaged:
                raise reading.damaged[0]  # it may be the one that holds the file
            return False
        with closing(TargetFolder.top(target.parent, overwrite=True, make=False)) as folder:
            write_log(repository, item, folder, target.name)
        return True

    return fetch


def find_wal_archive(reading: LogReading, name: str, system_id: str | None) -> LogArchive:
    """The WAL archive `name`, else that of the cluster whose data directory this is, unless `system_id` says
    which.

    Raises NotFound, SeveralArchives or Refused; Damaged when a snapshot cannot be read that may be of it.
    """
    found = [a for a in archives(reading.snapshots()) if a.subject.engine == NAME]
    if name:
        chosen = [a for a in found if a.subject.name == name]
        if len(chosen) > 1 and system_id is None and Path(CONTROL_PATH).exists():
            system_id = system_id_in(Path())
        if system_id is not None:
            chosen = [a for a in chosen if a.subject.uuid == required_wal.cluster_identity(system_id)]
        what = f"called {name}"
    else:
        system_id = system_id or system_id_in(Path())
        chosen = [a for a in found if a.subject.uuid == required_wal.cluster_identity(system_id)]
        what = f"of the cluster with system identifier {system_id}"
    if len(chosen) > 1:
        raise SeveralArchives(f"several clusters have a WAL archive {what}")
    if not chosen and reading.damaged:
        raise reading.damaged[0]
    if not chosen:
        there = ", ".join(f"{a.subject.name} ({a.subject.uuid})" for a in found) or "none"
        raise NotFound(f"there is no WAL archive {what} in this repository; there are: {there}")
    return chosen[0]


def write_logs(
    repository: Repository, archive: LogArchive, names: Sequence[str], target: Path, *, overwrite: bool
) -> None:
    """Write log files of the archive to a folder, which is made if need be. Raises TargetExists before
    anything is written, unless files may be replaced; else as `write_log`."""
    taken = [target / name for name in names if os.path.lexists(target / name)]
    if taken and not overwrite:
        raise TargetExists(taken[0])
    written: set[tuple[int, int]] = set()
    with closing(TargetFolder.top(target, overwrite=overwrite)) as top:
        for name in names:
            *above, last = os.fsencode(name).split(b"/")
            with refusals("write", target / name), closing(top.within(above)) as folder:
                write_log(repository, archive.files[name], folder, os.fsdecode(last), written)


def write_log(
    repository: Repository,
    item: Item,
    folder: TargetFolder,
    name: str,
    written: set[tuple[int, int]] | None = None,
) -> None:
    """Write a log file durably under a temporary name, then rename it. Raises as FileTarget, and Damaged."""
    reader = Reader(repository)
    parts = Restorer(repository, reader, threads=2).in_order(reader.recipe(item))
    at = 0
    with FileTarget(folder, name, item.size, sparse=False, mtime=None, written=written) as file:
        for part in parts:
            file.write(at, part)
            at += len(part)
        if at != item.size:
            raise Damaged(item.path, f"{at} bytes came out of the archive, not {item.size}")
