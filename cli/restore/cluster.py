"""`holdfast restore` of a PostgreSQL cluster: a data directory, as it was or up to a point in time."""

from __future__ import annotations

import os
import shlex
import time
from pathlib import Path

from holdfast.base.escaping import escape
from holdfast.cli.base.context import RunSettings
from holdfast.cli.base.exit_codes import ExitCode
from holdfast.cli.base.progress import progress
from holdfast.cli.base.render import count, duration, rate, size
from holdfast.formats.dumps.postgresql.physical.recovery import STANDBY_SIGNAL, Recovery
from holdfast.repo.core.repository import Repository
from holdfast.repo.snapshots.snapshot import StoredSnapshot
from holdfast.tasks.restore_cluster import RestoredDirectory, plan_cluster, restore_cluster


def restore_physical(
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
    plan = plan_cluster(
        repository, stored, Path(target), recovery, repository_root=settings.root, owner=owner
    )
    began = time.monotonic()
    with progress(settings.output, "restore", plan.item.size, shown=shown) as meter:
        done = restore_cluster(repository, plan, meter.add)
    if done.note:
        settings.output.warn(done.note)
    _tell(settings, stored, done, recovery, target=target, seconds=time.monotonic() - began)
    if owner and done.owner is None:
        settings.output.note(
            f"a server does not run as root: `chown -R postgres {shlex.quote(target)}` first"
        )
    return ExitCode.DONE


def _tell(
    settings: RunSettings,
    stored: StoredSnapshot,
    done: RestoredDirectory,
    recovery: Recovery | None,
    *,
    target: str,
    seconds: float,
) -> None:
    start = _start(settings, done, recovery)
    settings.output.message(
        "summary",
        action="restore",
        snapshot=stored.id,
        target=target,
        files=done.files,
        size=done.size,
        seconds=round(seconds, 3),
        until=recovery.target if recovery else None,
        next=start,
    )
    settings.output.summary(
        f"restored a cluster of {count(done.files, 'file')}, {size(done.size)}, to {escape(target)} in "
        f"{duration(seconds)} ({rate(done.size, seconds)}), from snapshot {stored.id[:8]}"
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
    if done.was_standby and recovery is None:
        settings.output.note(
            f"it was a standby and will be one: remove {STANDBY_SIGNAL} to make it a primary"
        )
    settings.output.summary(f"next: {escape(start)}")


def _start(settings: RunSettings, done: RestoredDirectory, recovery: Recovery | None) -> str:
    """The next command."""
    command = shlex.join(done.start_command())
    if recovery is not None:
        command = f"{_password(settings)} HOLDFAST_REPOSITORY={shlex.quote(str(settings.root))} {command}"
    user = done.server_user
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
