"""A physical backup becomes a server's data directory, as it was or up to a point in time."""

from __future__ import annotations

import pwd
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from holdfast.base.errors import NotFound, Refused
from holdfast.base.types import ProgressFunction
from holdfast.formats.dumps.core.catalogue import Catalogue
from holdfast.formats.dumps.core.engine import DumpKind
from holdfast.formats.dumps.core.facts import facts_of
from holdfast.formats.dumps.engines import dump_format
from holdfast.formats.dumps.logs.required_logs import item_reader, usable
from holdfast.formats.dumps.postgresql.physical.basebackup_tar import DATA_FOLDER
from holdfast.formats.dumps.postgresql.physical.recovery import AUTO_CONF, SIGNAL, STANDBY_SIGNAL, Recovery
from holdfast.formats.dumps.postgresql.physical.recovery_logs import check_logs
from holdfast.formats.dumps.postgresql.physical.required_wal import archive_subject, read_histories
from holdfast.formats.dumps.virtual_files import load_catalogue
from holdfast.repo.core.reader import Reader
from holdfast.repo.core.repository import Repository
from holdfast.repo.records.log_archive import LogArchive, LogReading, is_log
from holdfast.repo.snapshots.select import select_one, split_selector
from holdfast.repo.snapshots.snapshot import Item, StoredSnapshot
from holdfast.servers.postgresql.data_directory import (
    Changes,
    check_target,
    check_whole,
    restore_data_directory,
)
from holdfast.servers.postgresql.programs import server_program
from holdfast.tasks.restore_errors import InsideRepository, NotPhysical, TooEarly

_CONFIGURATION = "postgresql.conf"
_LOG = "startup.log"
_RELEASE = re.compile(r"PostgreSQL (\d{1,3})\b")


def is_cluster(stored: StoredSnapshot, path: str) -> bool:
    """Whether a selector means all files of a cluster."""
    return facts_of(stored.snapshot).physical and path in ("", DATA_FOLDER)


def pick_backup(
    snapshots: Sequence[StoredSnapshot], selector: str, recovery: Recovery
) -> tuple[StoredSnapshot, str]:
    """(the snapshot to recover from, the path inside).

    It is the one that the selector names by ID or time, else the newest physical one of that subject that is
    consistent before the target; one that is not whole only where there is no other. Raises NotFound,
    Ambiguous, NotPhysical or TooEarly.
    """
    backups = [s for s in snapshots if not is_log(s)]
    name, path = split_selector(selector)
    found = select_one(backups, name)
    subject = found.snapshot.subject
    if name not in ("latest", subject.name, f"{subject.name}@latest"):
        _check_reaches(found, recovery)
        return found, path
    same = [
        s
        for s in backups
        if s.snapshot.subject.identity == subject.identity and facts_of(s.snapshot).physical
    ]
    if not same:
        raise NotFound(f"{name!r} has no physical backup, and only such a one can be recovered up to a time")
    good = [s for s in same if _reaches(s, recovery)]
    if not good:
        raise TooEarly(
            f"{recovery.target} is before the oldest physical backup of {subject.name}, which is consistent "
            f"from {_consistent_from(same[0], recovery)} on; nothing was written"
        )
    return usable(good)[-1], path


def _reaches(stored: StoredSnapshot, recovery: Recovery) -> bool:
    facts = facts_of(stored.snapshot)
    return recovery.reaches(facts.stop_lsn, facts.stop_time)


def _consistent_from(stored: StoredSnapshot, recovery: Recovery) -> str:
    facts = facts_of(stored.snapshot)
    return (facts.stop_lsn if recovery.lsn is not None else facts.stop_time) or "an unknown moment"


def _check_reaches(stored: StoredSnapshot, recovery: Recovery) -> None:
    check_physical(stored)
    if not _reaches(stored, recovery):
        raise TooEarly(
            f"{recovery.target} is before snapshot {stored.id[:8]} is consistent "
            f"({_consistent_from(stored, recovery)}); nothing was written. Name the subject without a time, "
            "and the right snapshot is picked"
        )


def check_physical(stored: StoredSnapshot) -> None:
    """Raises NotPhysical for a snapshot that is none."""
    if not facts_of(stored.snapshot).physical:
        raise NotPhysical(f"snapshot {stored.id[:8]} is no physical backup; a recovery needs one")


@dataclass(frozen=True, slots=True)
class RecoveryLogs:
    """The archive that a recovery takes its log from; `note` is a sentence for the user, "" for none."""

    reading: LogReading
    archive: LogArchive | None
    note: str


def find_recovery_logs(repository: Repository, stored: StoredSnapshot, recovery: Recovery) -> RecoveryLogs:
    """Raises Refused when the log from the backup to the target is surely not all there; Damaged when it may
    be in a snapshot that cannot be read."""
    facts = facts_of(stored.snapshot)
    reading = LogReading(repository)
    archive = reading.archive(archive_subject(facts.system_id).identity)
    histories = read_histories(archive, item_reader(repository)) if archive else {}
    try:
        # A server takes the first file that is not there for the end of the log, and is content.
        note = check_logs(archive, histories, facts, recovery)
    except Refused:
        if reading.damaged:
            raise reading.damaged[0] from None  # it may be the one that holds what is missing
        raise
    return RecoveryLogs(reading, archive, note)


@dataclass(frozen=True, slots=True)
class RestoredDirectory:
    """A cluster that was restored to `target`: `files` of `size` bytes together. `release` is the server's
    major version, None if it is not known, `owner` (uid, gid) of who it was given to, None for nobody else;
    `note` is a sentence for the user, "" for none."""

    target: Path
    catalogue: Catalogue
    release: int | None
    owner: tuple[int, int] | None
    note: str

    @property
    def files(self) -> int:
        return sum(section.type == "FILE" for section in self.catalogue.sections)

    @property
    def size(self) -> int:
        return sum(section.length for section in self.catalogue.sections if section.type == "FILE")

    @property
    def was_standby(self) -> bool:
        return any(section.name == STANDBY_SIGNAL for section in self.catalogue.sections)

    @property
    def server_user(self) -> str:
        """The name of the user that the server ran as, "" when that is not known."""
        return str(self.catalogue.extra.get("owner", ""))

    def start_command(self) -> list[str]:
        """The command that starts its server. What that prints goes into the data directory: the one place
        where the server's user is sure to be allowed to write, and the server passes over files it does not
        know."""
        data = str(self.target.absolute())
        words = [server_program("pg_ctl", self.release), "-D", data, "-l", f"{data}/{_LOG}", "start"]
        if not any(section.name == _CONFIGURATION for section in self.catalogue.sections):
            # Debian keeps it elsewhere, and it names the data directory of the cluster it was written for.
            quoted = shlex.quote(data)
            words[-1:-1] = ["-o", f"-c config_file=/PATH/TO/{_CONFIGURATION} -c data_directory={quoted}"]
        return words


@dataclass(frozen=True, slots=True)
class PlannedCluster:
    """A restore that may begin: the backup is whole, the target empty, the log there."""

    item: Item
    catalogue: Catalogue
    release: int | None
    target: Path
    recovery: Recovery | None
    owner: tuple[int, int] | None
    note: str


def plan_cluster(
    repository: Repository,
    stored: StoredSnapshot,
    target: Path,
    recovery: Recovery | None,
    *,
    repository_root: Path,
    owner: bool,
) -> PlannedCluster:
    """Check all that can be checked before anything is written. `owner`: give the files to whom the server
    will run as.

    Raises Refused, TargetError or Damaged.
    """
    if target.resolve().is_relative_to(repository_root.resolve()):
        raise InsideRepository(target)
    item, catalogue = _find_cluster(repository, stored)
    check_whole(catalogue)
    check_target(target)
    logs = None if recovery is None else find_recovery_logs(repository, stored, recovery)
    whose = _owner(catalogue, target) if owner else None
    return PlannedCluster(
        item, catalogue, _release(stored), target, recovery, whose, logs.note if logs else ""
    )


def restore_cluster(
    repository: Repository, plan: PlannedCluster, progress: ProgressFunction
) -> RestoredDirectory:
    """Write a data directory, and settings for its recovery if there is one.

    Raises Refused, TargetError or Damaged: then what was written is gone again.
    """
    changes = Changes(owner=plan.owner)
    if plan.recovery is not None:
        appended, left_out = {AUTO_CONF: plan.recovery.settings()}, frozenset({STANDBY_SIGNAL})
        changes = Changes(appended, {SIGNAL: b""}, left_out, plan.owner)
    restore_data_directory(
        repository, plan.item, plan.catalogue, plan.target, changes=changes, progress=progress
    )
    return RestoredDirectory(plan.target, plan.catalogue, plan.release, plan.owner, plan.note)


def _find_cluster(repository: Repository, stored: StoredSnapshot) -> tuple[Item, Catalogue]:
    """The physical backup in a snapshot. Raises Refused or Damaged."""
    reader = Reader(repository)
    for item in stored.snapshot.items:
        if item.catalogue is not None:
            catalogue = load_catalogue(reader, item)
            known = dump_format(catalogue.engine, catalogue.form)
            if known is not None and known.kind is DumpKind.PHYSICAL:
                return item, catalogue
    raise Refused(f"snapshot {stored.id[:8]} holds no physical backup that could be restored")


def _release(stored: StoredSnapshot) -> int | None:
    found = _RELEASE.match(facts_of(stored.snapshot).server)
    return int(found[1]) if found else None


def _owner(catalogue: Catalogue, target: Path) -> tuple[int, int] | None:
    """Whom root gives the cluster to: whose the empty directory is, else the user of the name it had."""
    try:
        status = target.stat()
        if status.st_uid:
            return status.st_uid, status.st_gid
    except FileNotFoundError:
        pass
    try:
        user = pwd.getpwnam(str(catalogue.extra.get("owner", "")))
    except (KeyError, ValueError):
        return None
    return (user.pw_uid, user.pw_gid) if user.pw_uid else None
