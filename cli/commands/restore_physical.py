"""`holdfast restore` of a PostgreSQL cluster: a data directory, as it was or up to a point in time."""

from __future__ import annotations

import os
import pwd
import shlex
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from holdfast.base.errors import NotFound, Refused
from holdfast.base.escaping import escape
from holdfast.cli.base.context import RunSettings
from holdfast.cli.base.exits import ExitCode
from holdfast.cli.base.progress import progress
from holdfast.cli.base.render import count, duration, rate, size
from holdfast.formats.dumps.core.catalogue import Catalogue
from holdfast.formats.dumps.core.facts import facts_of
from holdfast.formats.dumps.logs.required_logs import item_reader, usable
from holdfast.formats.dumps.postgresql.basebackup_tar import DATA_FOLDER, FORM
from holdfast.formats.dumps.postgresql.recovery import (
    AUTO_CONF,
    SIGNAL,
    STANDBY_SIGNAL,
    Recovery,
    parse_target,
)
from holdfast.formats.dumps.postgresql.recovery_logs import check_logs
from holdfast.formats.dumps.postgresql.required_wal import archive_subject, read_histories
from holdfast.formats.dumps.virtual_files import load_catalogue
from holdfast.repo.core.reader import Reader
from holdfast.repo.core.repository import Repository
from holdfast.repo.records.log_archive import LogReading, is_log
from holdfast.repo.snapshots.select import select_one, split_selector
from holdfast.repo.snapshots.snapshot import Item, StoredSnapshot
from holdfast.servers.postgresql.data_directory import (
    Changes,
    check_target,
    check_whole,
    restore_data_directory,
)

F = TypeVar("F", bound=Callable[..., Any])
_PROGRAM: Final = "holdfast"


def until_options(function: F) -> F:
    """--until and --timeline."""
    for option in (
        click.option("--timeline", metavar="N", help="With --until: the timeline; default: the newest."),
        click.option(
            "--until",
            metavar="TIME|LSN|latest",
            help="Of a PostgreSQL cluster: recover up to there with the archived log. TIME is UTC.",
        ),
    ):
        function = option(function)
    return function


def is_cluster(stored: StoredSnapshot, path: str) -> bool:
    """Whether all files of a PostgreSQL cluster are meant."""
    return facts_of(stored.snapshot).physical and path in ("", DATA_FOLDER)


def recovery_of(settings: RunSettings, until: str | None, timeline: str | None) -> Recovery | None:
    """What the options ask for; None for nothing. Raises Refused or UsageError."""
    if until is None:
        if timeline is not None:
            raise click.UsageError("--timeline says which way to go to --until; give that too")
        return None
    command = [_program(), "-r", str(settings.root)]
    if settings.cache_dir or settings.variables.get("HOLDFAST_CACHE_DIR"):
        command += ["--cache-dir", str(settings.cache)]
    return parse_target(until, (*command, "wal-fetch"), timeline or "")


def pick_backup(
    settings: RunSettings, repository: Repository, selector: str, recovery: Recovery
) -> tuple[StoredSnapshot, str]:
    """The snapshot to recover from and the path inside: the one that is named if it is named by ID or time,
    else the newest physical one of that subject that is consistent before the target; one that is not whole
    only where there is no other."""
    snapshots = [s for s in settings.snapshots(repository).good if not is_log(s)]
    name, path = split_selector(selector)
    found = select_one(snapshots, name)
    subject = found.snapshot.subject
    if name not in ("latest", subject.name, f"{subject.name}@latest"):
        _check_reaches(found, recovery)
        return found, path
    same = [
        s
        for s in snapshots
        if s.snapshot.subject.identity == subject.identity and facts_of(s.snapshot).physical
    ]
    if not same:
        raise NotFound(f"{name!r} has no physical backup, and only such a one can be recovered to --until")
    good = [s for s in same if _reaches(s, recovery)]
    if not good:
        ends = facts_of(same[0].snapshot)
        oldest = ends.stop_lsn if recovery.lsn is not None else ends.stop_time
        raise Refused(
            f"{recovery.target} is before the oldest physical backup of {subject.name}, which is consistent "
            f"from {oldest or 'an unknown moment'} on; nothing was written"
        )
    return usable(good)[-1], path


def _reaches(stored: StoredSnapshot, recovery: Recovery) -> bool:
    facts = facts_of(stored.snapshot)
    return recovery.reaches(facts.stop_lsn, facts.stop_time)


def _check_reaches(stored: StoredSnapshot, recovery: Recovery) -> None:
    facts = facts_of(stored.snapshot)
    if not facts.physical:
        raise Refused(f"snapshot {stored.id[:8]} is no physical backup, and --until needs one")
    if not _reaches(stored, recovery):
        ends = facts.stop_lsn if recovery.lsn is not None else facts.stop_time
        raise Refused(
            f"{recovery.target} is before snapshot {stored.id[:8]} is consistent ({ends or 'unknown'}); "
            "nothing was written. Name the subject without a time, and the right snapshot is picked"
        )


def restore_cluster(
    settings: RunSettings,
    repository: Repository,
    stored: StoredSnapshot,
    recovery: Recovery | None,
    *,
    target: str,
    owner: bool,
    shown: bool,
) -> ExitCode:
    """Write a data directory, and settings for its recovery if there is one. `owner`: as root, give it to
    whom the server will run as. `shown`: progress."""
    settings.if_interrupted = "what was written has been removed; run it again"
    place = Path(target)
    if place.resolve().is_relative_to(settings.root.resolve()):
        raise Refused(f"{target} is inside the repository; nothing was written")
    item, catalogue = find_cluster(repository, stored)
    check_whole(catalogue)
    check_target(place)
    note = ""
    if recovery is not None:
        facts = facts_of(stored.snapshot)
        archive = LogReading(repository).archive(archive_subject(facts.system_id).identity)
        histories = read_histories(archive, item_reader(repository)) if archive else {}
        note = check_logs(archive, histories, facts, recovery)
    whose = _owner(catalogue, place) if owner else None
    changes = Changes(owner=whose)
    if recovery is not None:
        changes = Changes({AUTO_CONF: recovery.settings()}, {SIGNAL: b""}, frozenset({STANDBY_SIGNAL}), whose)
    began = time.monotonic()
    with progress(settings.output, "restore", item.size, shown=shown) as meter:
        restore_data_directory(repository, item, catalogue, place, changes=changes, progress=meter.add)
    if note:
        settings.output.warn(note)
    _tell(settings, stored, catalogue, recovery, target=target, seconds=time.monotonic() - began)
    if owner and whose is None:
        settings.output.note(
            f"a server does not run as root: `chown -R postgres {shlex.quote(target)}` first"
        )
    return ExitCode.DONE


def find_cluster(repository: Repository, stored: StoredSnapshot) -> tuple[Item, Catalogue]:
    """The tar of a physical backup and what stands where in it. Raises Refused or Damaged."""
    reader = Reader(repository)
    for item in stored.snapshot.items:
        if item.catalogue is not None:
            catalogue = load_catalogue(reader, item)
            if catalogue.form == FORM:
                return item, catalogue
    raise Refused(f"snapshot {stored.id[:8]} holds no physical backup that could be restored")


def _owner(catalogue: Catalogue, target: Path) -> tuple[int, int] | None:
    """Whom root gives the cluster to: whose the empty folder is, else the user of the name it had."""
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


def _program() -> str:
    """This program, for the server to run."""
    called = Path(sys.argv[0]).absolute()
    beside = Path(sys.executable).parent / _PROGRAM
    for path in (called if called.name == _PROGRAM else beside, beside):
        if path.is_file() and os.access(path, os.X_OK):
            return str(path)
    found = shutil.which(_PROGRAM)
    if found is None:
        raise Refused(
            "where the holdfast program is cannot be told: call it by its path; nothing was written"
        )
    return str(Path(found).absolute())


def _tell(
    settings: RunSettings,
    stored: StoredSnapshot,
    catalogue: Catalogue,
    recovery: Recovery | None,
    *,
    target: str,
    seconds: float,
) -> None:
    files = [section for section in catalogue.sections if section.type == "FILE"]
    total = sum(section.length for section in files)
    start = _start(settings, catalogue, recovery, target)
    settings.output.message(
        "summary",
        action="restore",
        snapshot=stored.id,
        target=target,
        files=len(files),
        size=total,
        seconds=round(seconds, 3),
        until=recovery.target if recovery else None,
        next=start,
    )
    settings.output.summary(
        f"restored a cluster of {count(len(files), 'file')}, {size(total)}, to {escape(target)} in "
        f"{duration(seconds)} ({rate(total, seconds)}), from snapshot {stored.id[:8]}"
    )
    if recovery is not None:
        settings.output.summary(
            f"it recovers up to {recovery.target} when it starts, and then takes writes on a new timeline. "
            "The server needs the repository's password: HOLDFAST_PASSWORD_FILE or HOLDFAST_PASSWORD_COMMAND "
            "in its environment"
        )
        settings.output.note(
            "it takes writes when `select pg_is_in_recovery()` says f; it archives its log as the old one "
            "did: for a trial add -c archive_mode=off to -o '...'"
        )
    if any(section.name == STANDBY_SIGNAL for section in files) and recovery is None:
        settings.output.note(
            f"it was a standby and will be one: remove {STANDBY_SIGNAL} to make it a primary"
        )
    settings.output.summary(f"next: {escape(start)}")


def _start(settings: RunSettings, catalogue: Catalogue, recovery: Recovery | None, target: str) -> str:
    """The next command."""
    words = ["pg_ctl", "-D", str(Path(target).absolute()), "-l", f"{Path(target).absolute()}.log", "start"]
    if not any(section.name == "postgresql.conf" for section in catalogue.sections):
        # Debian keeps it elsewhere, and it names the data directory of the cluster that it was written for.
        data = shlex.quote(str(Path(target).absolute()))
        words[-1:-1] = ["-o", f"-c config_file=/PATH/TO/postgresql.conf -c data_directory={data}"]
    command = shlex.join(words)
    if recovery is not None:
        command = f"{_password(settings)} HOLDFAST_REPOSITORY={shlex.quote(str(settings.root))} {command}"
    user = str(catalogue.extra.get("owner", ""))
    if os.geteuid() == 0 and user and user != "root":
        return f"su {shlex.quote(user)} -c {shlex.quote(command)}"
    return command


def _password(settings: RunSettings) -> str:
    """The variable by which the server's programs find the repository's password."""
    for name in ("HOLDFAST_PASSWORD_FILE", "HOLDFAST_PASSWORD_COMMAND"):
        if value := settings.variables.get(name):
            return f"{name}={shlex.quote(value)}"
    path = settings.passwords.password_file or "/PATH/TO/PASSWORD"
    return f"HOLDFAST_PASSWORD_FILE={shlex.quote(path)}"
