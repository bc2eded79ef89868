"""`holdfast backup`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path, PurePath
from typing import Any

import click

from holdfast.base.errors import Damaged, Refused, SourceError, StreamFailed
from holdfast.cli.backup.database import back_up_by_url
from holdfast.cli.backup.options import BackupOptions, backup_options
from holdfast.cli.backup.report import BackupReport, snapshot_labels
from holdfast.cli.base.context import RunSettings
from holdfast.cli.base.exit_codes import ExitCode
from holdfast.cli.base.options import command, pass_settings
from holdfast.cli.base.progress import progress
from holdfast.cli.base.subject_name import subject_name
from holdfast.formats.dumps.engines import ENGINES
from holdfast.ingest.backup.backup import LessConsistent
from holdfast.ingest.freeze.commands import CommandHooks, HookFacts
from holdfast.ingest.freeze.guest_agent import AgentFreeze
from holdfast.ingest.freeze.hooks import Freeze, frozen
from holdfast.ingest.nbd.uri import is_nbd_uri
from holdfast.repo.core.repository import Repository
from holdfast.repo.store.interface import LockMode
from holdfast.tasks.back_up import store_inputs
from holdfast.tasks.group_paths import PathGroups, group_paths
from holdfast.tasks.inputs import ImageOptions, Stream, open_paths, open_stream

_COMPRESSED = (".gz", ".zst", ".xz", ".bz2")
_DUMPS = (".sql", ".dump", ".pgdump")
_INTERRUPTED = "no snapshot was made; the same command again goes on with what is stored already"


@command("backup")
@click.argument("paths", nargs=-1, metavar="PATH... | URL | -- COMMAND...")
@backup_options
@pass_settings
def backup_command(settings: RunSettings, /, **given: Any) -> ExitCode:
    """Back up virtual machines, disk images, block devices, databases, dumps or files into one snapshot.

    \b
    holdfast backup /exports/web01/
    holdfast backup web01.ova
    holdfast backup web01.qcow2 --name web01
    holdfast backup nbd+unix:///vda?socket=/run/web01.sock --name web01
    holdfast backup postgres://backup@db1/shop
    holdfast backup mysql://backup@db2 --all-databases --db-password-file FILE
    holdfast backup sqlite:/var/lib/app/app.db
    pg_dump shop | holdfast backup --stdin --name shop
    holdfast backup --name shop --stdin-from-command -- pg_dump shop
    holdfast backup --kind database --engine oracle --name erp /backup/rman/

    With --stdin-from-command nothing is kept unless the command exits with 0; with --stdin nobody can
    tell whether the command before the pipe failed, except by the end of a dump.

    Disks are stored as the guest sees them, so a VM deduplicates against itself whatever it was exported
    as. A VM whose export says its UUID is known by that, also when it was renamed or moved.

    A database is read with its own tools (pg_dump, mariadb-dump, mysqldump), which must be installed. Its
    password never stands in the URL: give it by --db-password-file or --db-password-fd, or keep it in
    ~/.pgpass or ~/.my.cnf.
    """
    options = BackupOptions(**given)
    settings.if_interrupted = _INTERRUPTED
    if not (options.stdin or options.stdin_from_command) and any(map(ENGINES.entry_for_url, options.paths)):
        return back_up_by_url(settings, options, _freezes(settings, options))
    if options.of_databases:
        raise click.UsageError(
            f"{', '.join(options.of_databases)}: only for the URL of a database, like postgres://host/shop"
        )
    return _back_up_files(settings, options)


def _back_up_files(settings: RunSettings, options: BackupOptions) -> ExitCode:
    """Anything that is not reached by a database's URL."""
    stream = _stream(options)
    if not options.paths and stream is None:
        raise click.UsageError("nothing to back up: give files, --stdin or --stdin-from-command")
    if stream and options.images != ImageOptions():
        raise click.UsageError(
            "--disk-format, --backing, --follow-backing, --bitmap and --checkpoint say nothing of a stream"
        )
    if options.name is not None:
        subject_name(options.name)
    groups = PathGroups((options.paths,)) if stream else _groups(options)
    for path in groups.skipped:
        settings.output.warn(f"{path} was left out: it is no export of a VM that is known here")
    if len(groups.groups) > 1:
        return _back_up_groups(settings, options, groups.groups)
    options = replace(options, paths=groups.groups[0])
    _label(options, stream)  # before the password is asked for
    freezes = _freezes(settings, options)
    with settings.opened(index=True) as repository:
        return _back_up_one(settings, repository, options, stream=stream, freezes=freezes)


def _groups(options: BackupOptions) -> PathGroups:
    named = options.name is not None or options.uuid is not None
    return group_paths(options.paths, options.kind_of_sources, options.images, named=named)


def _back_up_groups(
    settings: RunSettings, options: BackupOptions, groups: Sequence[tuple[str, ...]]
) -> ExitCode:
    """Make a snapshot of each group. A failure does not stop the others; it ends the command."""
    if options.before or options.after or options.freeze or options.agent:
        raise click.UsageError(
            f"these are {len(groups)} VMs or databases; --before, --after, --freeze and --agent are for one"
        )
    partial, failed = False, []
    with settings.opened(index=True) as repository:
        for group in groups:
            each = replace(options, paths=group)
            try:
                code = _back_up_one(settings, repository, each)
                partial |= code is ExitCode.PARTIAL
            except (SourceError, Refused, LessConsistent, Damaged) as error:
                settings.output.warn(f"{group[0]} was not backed up: {error}")
                failed.append(group[0])
    if failed:
        raise StreamFailed(
            f"{len(failed)} of {len(groups)} backups failed: {', '.join(failed)}; the others are kept"
        )
    return ExitCode.PARTIAL if partial else ExitCode.DONE


def _back_up_one(
    settings: RunSettings,
    repository: Repository,
    options: BackupOptions,
    *,
    stream: Stream | None = None,
    freezes: Sequence[Freeze] = (),
) -> ExitCode:
    label = _label(options, stream)
    with ExitStack() as stack:
        # Before anything freezes or a dump begins: neither shall wait for a prune.
        stack.enter_context(repository.store.lock(LockMode.SHARED, options.lock_timeout))
        held = stack.enter_context(frozen(freezes))
        opened = stack.enter_context(ExitStack())
        if stream:
            inputs = open_stream(opened, stream, options.kind_of_sources, options.said)
        else:  # an export may have to be unpacked or hashed first
            with progress(settings.output, "open") as meter:
                inputs = open_paths(
                    opened,
                    options.paths,
                    options.kind_of_sources,
                    options.images,
                    meter.add,
                    said=options.said,
                )
        name = subject_name(options.name or inputs.name or label)
        outcome = store_inputs(
            repository,
            inputs,
            name,
            snapshot_labels(options),
            BackupReport(settings),
            held=held,
            close=opened.close,
        )
    partial = outcome.stored.snapshot.partial or outcome.left_behind
    return ExitCode.PARTIAL if partial else ExitCode.DONE


def _stream(options: BackupOptions) -> Stream | None:
    """The stream asked for, if one was. Raises UsageError for options that contradict each other."""
    stdin, from_command, filename = options.stdin, options.stdin_from_command, options.stdin_filename
    if stdin and from_command:
        raise click.UsageError("--stdin and --stdin-from-command exclude each other")
    if filename is not None and not (stdin or from_command):
        raise click.UsageError("--stdin-filename needs --stdin or --stdin-from-command")
    if from_command:
        if not options.paths:
            raise click.UsageError("which command? Put it at the end: --stdin-from-command -- pg_dump shop")
        return Stream(filename or PurePath(options.paths[0]).name or "stdin", options.paths)
    if stdin:
        if options.paths:
            raise click.UsageError("--stdin reads no files: back up a pipe and files one after the other")
        if sys.stdin.isatty():
            raise click.UsageError(
                "--stdin: standard input is a terminal; put a command and a pipe before it"
            )
        return Stream(filename or "stdin")
    return None


def _label(options: BackupOptions, stream: Stream | None) -> str:
    """The name given, or the first file's; what an export says goes before the latter."""
    first = None if stream else options.paths[0]
    if options.name is not None:
        return subject_name(options.name)
    if first is None and options.stdin_filename is None:
        raise click.UsageError("a stream needs a name: --name NAME")
    if first is not None and is_nbd_uri(first):
        raise click.UsageError("a live disk needs a name: --name NAME")
    path = PurePath(first or options.stdin_filename or "")
    if Path(path).is_dir():
        return path.name
    if path.suffix in _COMPRESSED and PurePath(path.stem).suffix in _DUMPS:
        path = PurePath(path.stem)  # shop.sql.gz is of shop
    return path.stem


def _freezes(settings: RunSettings, options: BackupOptions) -> tuple[Freeze, ...]:
    """The hooks around the reading: commands that make and remove the source, then those that freeze it.

    Raises UsageError, ShellSyntax.
    """
    if options.thaw and not options.freeze:
        raise click.UsageError("--thaw thaws what --freeze froze; without that --after runs a command")
    facts = HookFacts(options.name or "", options.kind or "", str(settings.root))
    found: list[Freeze] = []
    if options.before or options.after:
        found.append(CommandHooks(options.before or "", options.after or "", facts))
    if options.freeze:
        found.append(CommandHooks(options.freeze, options.thaw or "", facts, freezes=True))
    if options.agent:
        found.append(AgentFreeze(options.agent))
    return tuple(found)
