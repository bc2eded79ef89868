"""`holdfast backup`."""

from __future__ import annotations

import platform
import sys
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path, PurePath
from uuid import UUID

import click

from holdfast import __version__
from holdfast.cli.backup_inputs import ImageOptions, Stream, open_paths, open_stream
from holdfast.cli.context import Settings
from holdfast.cli.documents import SHORT_ID, snapshot_document
from holdfast.cli.exits import ExitCode
from holdfast.cli.options import KINDS, command, pass_settings
from holdfast.cli.progress import progress
from holdfast.cli.render import duration, escape, rate, size
from holdfast.cli.snapshots import describe_subject
from holdfast.disks.open import FORMATS
from holdfast.ingest.agent import AgentFreeze
from holdfast.ingest.backup import Outcome, Request, back_up
from holdfast.ingest.hooks import CommandHooks, Freeze, frozen
from holdfast.ingest.nbd_wire import is_nbd_uri
from holdfast.repo.select import TIME_FORMAT
from holdfast.repo.snapshot import Consistency, SubjectKind
from holdfast.repo.store import LockMode

_INTERRUPTED = "no snapshot was made; the same command again goes on with what is stored already"
_NAME_LIMIT = 200
_GRADES = [grade.value for grade in Consistency if grade is not Consistency.UNKNOWN]


@command("backup")
@click.argument("paths", nargs=-1, metavar="PATH... | -- COMMAND...")
@click.option("--name", help="What this is a backup of: a VM, a database. Default: the first file's name.")
@click.option("--kind", type=KINDS, help="Default: what the first source looks like.")
@click.option(
    "--uuid", type=click.UUID, help="Of a VM, which keeps its history by it; default: what an export says."
)
@click.option("--tag", "tags", multiple=True, metavar="TAG", help="A label (repeatable).")
@click.option("--require", type=click.Choice(_GRADES), help="Fail (exit code 20) when less consistent.")
@click.option("--host", default=platform.node, help="Default: this machine's name.")
@click.option("--time", metavar="TIME", help="When the data is from (UTC, ISO 8601); default: now.")
@click.option(
    "--lock-timeout", type=click.FloatRange(0), default=60.0, metavar="SECONDS", help="Default: 60."
)
@click.option("--disk-format", type=click.Choice(list(FORMATS)), help="Default: by name and content.")
@click.option("--backing", multiple=True, metavar="FILE", help="A file that an image refers to (repeatable).")
@click.option("--follow-backing", is_flag=True, help="Read backing files that lie in an image's own folder.")
@click.option("--bitmap", metavar="NAME", help="Of a live disk: the dirty bitmap that tells what changed.")
@click.option("--checkpoint", metavar="NAME", help="The dirty bitmap that began when this data is from.")
@click.option("--before", metavar="COMMAND", help="Run it first: freeze, make a snapshot. No shell.")
@click.option("--after", metavar="COMMAND", help="Run it when all is read, whatever happened.")
@click.option("--agent", metavar="SOCKET", help="Freeze the guest through QEMU's guest agent.")
@click.option("--stdin", is_flag=True, help="Back up what comes in through a pipe.")
@click.option("--stdin-filename", metavar="FILE", help="Its name in the snapshot.")
@click.option("--stdin-from-command", is_flag=True, help="Run COMMAND and back up what it prints.")
@pass_settings
def backup_command(
    settings: Settings,
    *,
    paths: tuple[str, ...],
    name: str | None,
    kind: str | None,
    uuid: UUID | None,
    tags: tuple[str, ...],
    require: str | None,
    host: str,
    time: str | None,
    lock_timeout: float,
    disk_format: str | None,
    backing: tuple[str, ...],
    follow_backing: bool,
    bitmap: str | None,
    checkpoint: str | None,
    before: str | None,
    after: str | None,
    agent: str | None,
    stdin: bool,
    stdin_filename: str | None,
    stdin_from_command: bool,
) -> ExitCode:
    """Back up virtual machines, disk images, block devices, dumps or files into one snapshot.

    \b
    holdfast backup /exports/web01/
    holdfast backup web01.ova
    holdfast backup web01.qcow2 --name web01
    holdfast backup nbd+unix:///vda?socket=/run/web01.sock --name web01
    pg_dump shop | holdfast backup --stdin --name shop
    holdfast backup --name shop --stdin-from-command -- pg_dump shop

    With --stdin-from-command nothing is kept unless the command exits with 0; with --stdin nobody can
    tell whether the command before the pipe failed, except by the end of a dump.

    Disks are stored as the guest sees them, so a VM deduplicates against itself whatever it was exported
    as. A VM whose export says its UUID is known by that, also when it was renamed or moved.
    """
    stream = _stream(paths, stdin=stdin, from_command=stdin_from_command, filename=stdin_filename)
    if not paths and stream is None:
        raise click.UsageError("nothing to back up: give files, --stdin or --stdin-from-command")
    label = _label(name, None if stream else paths[0], stdin_filename)
    when = _parse_time(time) if time else None
    images = ImageOptions(
        disk_format, tuple(map(Path, backing)), follow_backing, bitmap or "", checkpoint or ""
    )
    if stream and images != ImageOptions():
        raise click.UsageError(
            "--disk-format, --backing, --follow-backing, --bitmap and --checkpoint say nothing of a stream"
        )
    freezes = _freezes(before, after, agent)
    wanted = SubjectKind(kind) if kind else None
    settings.if_interrupted = _INTERRUPTED
    with settings.opened(index=True) as repository, ExitStack() as stack:
        # Before anything freezes or a dump begins: neither shall wait for a prune.
        stack.enter_context(repository.store.lock(LockMode.SHARED, lock_timeout))
        held = stack.enter_context(frozen(freezes))
        opened = stack.enter_context(ExitStack())
        if stream:
            inputs = open_stream(opened, stream, wanted)
        else:  # an export may have to be unpacked or hashed first
            with progress(settings.output, "open") as meter:
                inputs = open_paths(opened, paths, wanted, images, meter.add)
        request = Request(
            inputs.parts,
            _subject_name(name or inputs.name or label),
            host,
            f"holdfast {__version__}",
            kind=inputs.kind,
            uuid=str(uuid) if uuid else inputs.uuid,
            origin=inputs.origin,
            tags=tags,
            required=Consistency(require) if require else Consistency.UNKNOWN,
            held=held,
            close=opened.close,
            warnings=inputs.warnings,
            **({"time": when} if when else {}),
        )
        sizes = [part.source.size for part in inputs.parts]
        total = None if None in sizes else sum(size or 0 for size in sizes)
        with progress(settings.output, "backup", total) as meter:
            outcome = back_up(repository, request, progress=meter.add, lock_timeout=lock_timeout)
    _tell(settings, outcome)
    return ExitCode.PARTIAL if outcome.stored.snapshot.partial else ExitCode.DONE


def _stream(
    paths: tuple[str, ...], *, stdin: bool, from_command: bool, filename: str | None
) -> Stream | None:
    """The stream asked for, if one was. Raises UsageError for options that contradict each other."""
    if stdin and from_command:
        raise click.UsageError("--stdin and --stdin-from-command exclude each other")
    if filename is not None and not (stdin or from_command):
        raise click.UsageError("--stdin-filename needs --stdin or --stdin-from-command")
    if from_command:
        if not paths:
            raise click.UsageError("which command? Put it at the end: --stdin-from-command -- pg_dump shop")
        return Stream(filename or PurePath(paths[0]).name or "stdin", paths)
    if stdin:
        if paths:
            raise click.UsageError("--stdin reads no files: back up a pipe and files one after the other")
        if sys.stdin.isatty():
            raise click.UsageError(
                "--stdin: standard input is a terminal; put a command and a pipe before it"
            )
        return Stream(filename or "stdin")
    return None


def _label(name: str | None, first: str | None, filename: str | None) -> str:
    """The name given, or the first file's; what an export says goes before the latter."""
    if name is not None:
        return _subject_name(name)
    if first is None and filename is None:
        raise click.UsageError("a stream needs a name: --name NAME")
    if first is not None and is_nbd_uri(first):
        raise click.UsageError("a live disk needs a name: --name NAME")
    path = PurePath(first or filename or "")
    return path.name if Path(path).is_dir() else path.stem


def _freezes(before: str | None, after: str | None, agent: str | None) -> tuple[Freeze, ...]:
    """What holds the source still. The commands come first and last, around the agent."""
    found: list[Freeze] = []
    if before or after:
        found.append(CommandHooks(before or "", after or ""))
    if agent:
        found.append(AgentFreeze(agent))
    return tuple(found)


def _subject_name(name: str) -> str:
    """Raises UsageError for a name that could not be selected later."""
    reason = _name_fault(name)
    if reason:
        raise click.UsageError(f"{escape(name)!r} cannot be a name: {reason}; give another with --name")
    return name


def _name_fault(name: str) -> str:
    """Why this cannot be a subject's name: names are folders in the mount and parts of selectors."""
    if not name or name in (".", "..", "latest"):
        return "it is empty or has a meaning of its own"
    if not name.isprintable() or name != name.strip():
        return "it has control characters in it, or space around it"
    if set(name) & set("/:"):
        return "/ and : cannot be in it"
    return f"it is longer than {_NAME_LIMIT} bytes" if len(name.encode()) > _NAME_LIMIT else ""


def _parse_time(text: str) -> datetime:
    for parse in (datetime.fromisoformat, lambda text: datetime.strptime(text, TIME_FORMAT)):
        try:
            time = parse(text)
        except ValueError:
            continue
        return (time if time.tzinfo else time.replace(tzinfo=UTC)).astimezone(UTC)
    raise click.UsageError(f"--time: {text!r} is not a time; write 2026-11-22T02:00:00")


def _tell(settings: Settings, outcome: Outcome) -> None:
    stored = outcome.stored
    s, stats = stored.snapshot, stored.snapshot.stats
    allocated = sum(item.allocated for item in s.items)
    settings.output.message(
        "summary",
        action="backup",
        snapshot_id=stored.id,
        warnings=list(outcome.warnings),
        rate=round(allocated / stats.seconds) if stats.seconds else None,
        **snapshot_document(stored),
    )
    holes = f" ({size(allocated)} of it data)" if allocated != s.size else ""
    settings.output.summary(
        f"snapshot {stored.id[:SHORT_ID]} of {escape(describe_subject(s.subject))}"
        f"{', PARTIAL' if s.partial else ''}\n"
        f"  read {size(s.size)}{holes}, new {size(stats.new)}, stored {size(stats.stored)}, "
        f"in {duration(stats.seconds)} ({rate(allocated, stats.seconds)})\n"
        f"  consistency: {s.consistency.value} ({escape(s.evidence)})"
    )
    for item in s.items:
        settings.output.detail(f"  {item.path}: {item.kind.value}, {size(item.size)}")
    if not settings.output.json:
        for warning in outcome.warnings:
            settings.output.warn(warning)
